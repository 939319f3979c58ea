//! Every key of the configuration file, as one table.
//!
//! The table is the single source for three things: the structural check of a
//! file (unknown keys, wrong types, values out of range, each at its place),
//! the reference in `docs/CONFIGURATION.md`, and the test that holds the raw
//! types to it. A key that is not here does not exist.

/// What may stand at a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A string.
    Text,
    /// One of the strings named.
    Choice(&'static [&'static str]),
    /// An integer within both bounds, bounds included.
    Integer(i64, i64),
    /// `true` or `false`.
    Boolean,
    /// An array of strings.
    TextList,
    /// A reference to a secret: `{ env = "NAME" }`, `{ file = "PATH" }` or
    /// `{ command = ["PROGRAM", "ARGUMENT"] }`. Never the secret itself.
    Secret,
    /// `[section]`
    Table,
    /// `[[section]]`, any number of times.
    Tables,
}

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Applies {
    /// On SIGHUP, without a restart.
    Reload,
    /// At the next start.
    Restart,
}

/// One key of the file.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted path; `[]` stands for an element of an array of tables.
    pub path: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// Default as it would be written; empty where there is none.
    pub default: &'static str,
    /// Whether the section is invalid without it.
    pub required: bool,
    /// When a change takes effect.
    pub applies: Applies,
    /// What it means, in one or two sentences.
    pub doc: &'static str,
}

const fn key(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    applies: Applies,
    doc: &'static str,
) -> Key {
    Key {
        path,
        kind,
        default,
        required: false,
        applies,
        doc,
    }
}

const fn must(path: &'static str, kind: Kind, applies: Applies, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default: "",
        required: true,
        applies,
        doc,
    }
}

use Applies::{Reload, Restart};
use Kind::{Boolean, Choice, Integer, Secret, Table, Tables, Text, TextList};

/// The actions a rule or a role's default may name.
pub const ACTIONS: &[&str] = &["allow", "deny", "approve", "alert"];

/// Every key, in the order of the reference.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("gateway", Table, "", Restart, "The process as a whole."),
    key("gateway.shards", Integer(1, 256), "1 per core", Restart, "How many shards (one thread and one ring each) serve connections."),
    key("gateway.pin_cores", Boolean, "false", Restart, "Whether shard N is bound to core N. Turn it on where the gateway has the machine to itself."),
    key("gateway.data_dir", Text, "\"portcullis-data\"", Restart, "Folder for the store and the record where their own keys do not say otherwise. Relative paths are relative to the configuration file."),
    key("gateway.drain_ms", Integer(0, 3_600_000), "10000", Reload, "Milliseconds that sessions may go on after SIGTERM before they are closed."),
    key("gateway.login_ms", Integer(100, 600_000), "15000", Reload, "Milliseconds from accept to the end of the agent's login; a slower peer is closed."),
    key("gateway.connections_max", Integer(1, 1_000_000), "10000", Reload, "Connections from agents, over all listeners and shards."),
    key("gateway.connections_per_source_max", Integer(1, 1_000_000), "1000", Reload, "Connections from one source address."),
    key("gateway.logins_per_source_max", Integer(1, 1_000_000), "100", Reload, "Connections from one source address that have not finished their login."),
    key("gateway.log_level", Choice(&["error", "warn", "info", "debug", "trace"]), "\"info\"", Restart, "Least severe level that is logged. Payload is logged at no level."),

    key("listeners", Tables, "", Restart, "Where agents connect."),
    must("listeners[].name", Text, Restart, "Name in logs and metrics."),
    key("listeners[].protocol", Choice(&["postgres"]), "\"postgres\"", Restart, "The protocol spoken."),
    must("listeners[].address", Text, Restart, "`ADDRESS:PORT` to listen on; port 0 picks a free one and logs it."),
    key("listeners[].tls", Choice(&["off", "optional", "required"]), "\"required\" with a certificate, else \"off\"", Restart, "Whether agents may or must use TLS. Clear-text passwords are taken inside TLS or from loopback only."),
    key("listeners[].certificate_file", Text, "", Restart, "PEM file with the listener's certificate chain."),
    key("listeners[].key_file", Text, "", Restart, "PEM file with its key (ECDSA or Ed25519: signing runs on the shard)."),
    key("listeners[].client_ca_file", Text, "", Restart, "PEM file of authorities whose client certificates are accepted as a login."),
    key("listeners[].login", Choice(&["password", "oauth"]), "\"password\"", Restart, "How the token is asked for: as a password, or by OAUTHBEARER (PostgreSQL 18 clients). A server can offer one method only."),
    key("listeners[].oauth_issuer", Text, "", Restart, "Issuer URL that OAUTHBEARER clients are told."),
    key("listeners[].oauth_scope", Text, "\"openid\"", Restart, "Scope that OAUTHBEARER clients are told."),
    key("listeners[].target", Text, "", Restart, "Fixed target: every database name asked for is a database of this target."),
    key("listeners[].proxy_protocol_from", TextList, "[]", Restart, "Addresses of balancers that must send a PROXY protocol v2 header; from all others it is refused."),

    key("control", Table, "", Restart, "The control plane: approvals, tokens, metrics."),
    key("control.address", Text, "\"127.0.0.1:7432\"", Restart, "Loopback `ADDRESS:PORT`, or `unix:PATH`."),
    key("control.admin_token_file", Text, "DATA_DIR/admin.token", Restart, "File with the API's token, made with mode 0600 at first start."),
    key("control.store_file", Text, "DATA_DIR/control.db", Restart, "SQLite file for approvals, tokens and the control plane's own audit trail."),

    key("approvals", Table, "", Reload, "Bounds of held requests."),
    key("approvals.wait_s", Integer(1, 86_400), "300", Reload, "Seconds that a held request waits on its connection, where its rule does not say otherwise."),
    key("approvals.wait_in_transaction_s", Integer(1, 3600), "60", Reload, "The same inside an open transaction, which holds locks."),
    key("approvals.valid_s", Integer(1, 604_800), "3600", Restart, "Seconds from the request until an unanswered request or an unspent grant expires."),
    key("approvals.pending_per_principal_max", Integer(1, 10_000), "20", Restart, "Requests of one principal that may wait at once; one more is denied."),
    key("approvals.cool_down_s", Integer(0, 86_400), "60", Restart, "Seconds for which the same request is denied at once after a human denied it."),

    key("recorder", Table, "", Restart, "The evidence log."),
    key("recorder.dir", Text, "DATA_DIR/record", Restart, "Folder of the segments (mode 0700)."),
    key("recorder.mode", Choice(&["async", "requests"]), "\"async\"", Reload, "`async`: recorded before it is forwarded, durable within `group_commit_ms`. `requests`: durable before it is forwarded. A role may say otherwise."),
    key("recorder.group_commit_ms", Integer(1, 1000), "50", Restart, "Longest time between an appended record and its fsync."),
    key("recorder.segment_bytes_max", Integer(65_536, 1_073_741_824), "67108864", Restart, "Bytes after which a new segment file is begun."),
    key("recorder.total_bytes_max", Integer(1_048_576, 1_125_899_906_842_624), "10737418240", Restart, "Bytes that the record may take on disk: at least two segments and, per shard, 34 MiB for what its ring holds."),
    key("recorder.at_cap", Choice(&["refuse", "delete_oldest"]), "\"refuse\"", Restart, "What happens at `total_bytes_max`: new requests are refused, or the oldest segment is deleted and its deletion recorded."),
    key("recorder.ring_entries", Integer(64, 1_048_576), "16384", Restart, "Records that may wait for the writer, per shard. When the ring is full sessions wait."),
    key("recorder.rows_bytes_max", Integer(0, 16_777_216), "65536", Reload, "Bytes of masked rows recorded per statement; the cut itself is recorded."),
    key("recorder.text_bytes_max", Integer(1024, 67_108_864), "1048576", Reload, "Bytes of a statement's masked text recorded; its digest always covers all of it."),

    key("masking", Table, "", Reload, "What is masked in everything that flows back."),
    key("masking.packs", TextList, "[\"default\"]", Reload, "Named sets of detectors; an empty list turns detectors off."),
    key("masking.danger_weak_secrets", Boolean, "false", Reload, "Accept guarded secrets under 80 bits, whose mask answers an agent's guesses."),
    key("masking.guard", Tables, "", Reload, "Secrets to mask wherever they show, beside the injected credentials, which always are."),
    must("masking.guard[].name", Text, Reload, "Label in the mask."),
    must("masking.guard[].secret", Secret, Reload, "Where the secret is."),
    key("masking.detectors", Tables, "", Reload, "Detectors of your own."),
    must("masking.detectors[].name", Text, Reload, "Label in the mask."),
    must("masking.detectors[].pattern", Text, Reload, "Regular expression without anchors or look-around, of bounded length."),

    key("limits", Table, "", Reload, "Bounds on what one session may ask for."),
    key("limits.statement_bytes_max", Integer(1024, 67_108_864), "1048576", Reload, "Bytes of one statement text; a larger one is refused."),
    key("limits.statement_tokens_max", Integer(100, 1_000_000), "50000", Reload, "Tokens of one statement text, counted before parsing."),
    key("limits.statement_nesting_max", Integer(20, 500), "200", Reload, "Depth of expressions, sub-queries and joins, estimated before parsing."),
    key("limits.parse_inline_bytes_max", Integer(0, 65_536), "4096", Reload, "Texts over this many bytes are parsed off the shard."),
    key("limits.verdict_cache_bytes_max", Integer(0, 4_294_967_296), "33554432", Restart, "Bytes of the verdict cache, per shard."),
    key("limits.bind_bytes_max", Integer(1024, 1_073_741_823), "16777216", Reload, "Bytes of one Bind held for rules that read binds; a larger one is refused under such rules and streamed under others."),
    key("limits.held_bytes_max", Integer(65_536, 67_108_864), "1048576", Reload, "Agent bytes that wait behind an undecided request before reading stops."),
    key("limits.value_bytes_held_max", Integer(4096, 67_108_864), "262144", Reload, "Row messages over this are masked as a stream, with fill of the same length."),

    key("issuers", Tables, "", Reload, "Who issues the tokens (JWT) that agents present."),
    must("issuers[].issuer", Text, Reload, "The `iss` claim, letter for letter."),
    must("issuers[].audiences", TextList, Reload, "Accepted `aud` values."),
    key("issuers[].jwks_file", Text, "", Reload, "File with the issuer's keys (JWKS)."),
    key("issuers[].jwks_url", Text, "", Reload, "URL of the issuer's keys, fetched by the control thread."),
    key("issuers[].groups_claim", Text, "\"groups\"", Reload, "Claim that lists the groups."),
    key("issuers[].subject_claim", Text, "\"sub\"", Reload, "Claim that names the principal."),
    key("issuers[].leeway_s", Integer(0, 300), "30", Reload, "Seconds of clock difference allowed."),

    key("targets", Tables, "", Reload, "What is protected."),
    must("targets[].name", Text, Reload, "The name agents ask for."),
    key("targets[].protocol", Choice(&["postgres"]), "\"postgres\"", Reload, "The protocol spoken."),
    must("targets[].hosts", TextList, Reload, "`HOST:PORT` list, tried in order."),
    key("targets[].tls", Choice(&["verify", "off"]), "\"verify\"", Reload, "TLS to the target. `off` is for loopback; elsewhere it needs `danger_clear_text`."),
    key("targets[].tls_direct", Boolean, "false", Reload, "Begin TLS at once (PostgreSQL 17 and later) rather than by SSLRequest."),
    key("targets[].ca_file", Text, "the system's authorities", Reload, "PEM file of authorities for the target's certificate."),
    key("targets[].server_name", Text, "the host", Reload, "Name expected in the target's certificate."),
    key("targets[].danger_tls_unverified", Boolean, "false", Reload, "Accept any certificate. Anyone on the path can then read the injected credential."),
    key("targets[].danger_clear_text", Boolean, "false", Reload, "Allow `tls = \"off\"` to a host that is not loopback."),
    key("targets[].database", Text, "the name asked for", Reload, "Database used where the agent names none."),
    key("targets[].databases", TextList, "[\"*\"]", Reload, "Databases that agents may name (globs)."),
    must("targets[].account", Text, Reload, "Account to log in with; `{user}` passes on the user the agent named, within its role's `accounts`."),
    key("targets[].password", Secret, "", Reload, "The account's password, fetched at dial time."),
    key("targets[].client_certificate_file", Text, "", Reload, "PEM file with a client certificate chain for the target."),
    key("targets[].client_key_file", Text, "", Reload, "PEM file with its key."),
    key("targets[].channel_binding", Choice(&["prefer", "require"]), "\"prefer\"", Reload, "Whether SCRAM must be bound to the TLS channel."),
    key("targets[].allow_md5", Boolean, "false", Reload, "Answer an MD5 password request. Off: a server in the middle could ask for it on purpose."),
    key("targets[].connect_ms", Integer(100, 600_000), "10000", Reload, "Milliseconds for dialling and login, all hosts together."),
    key("targets[].connections_max", Integer(1, 1_000_000), "100", Reload, "Connections to the target."),
    key("targets[].connections_per_principal_max", Integer(1, 1_000_000), "100", Reload, "Connections to the target for one principal."),
    key("targets[].queue_max", Integer(0, 1000), "100", Reload, "Logins that may wait for a connection; one more gets SQLSTATE 53300."),
    key("targets[].queue_ms", Integer(0, 600_000), "5000", Reload, "Milliseconds that a login waits for a connection before 53300."),

    key("roles", Tables, "", Reload, "Who may do what. The first role that fits groups and target is the session's."),
    must("roles[].name", Text, Reload, "Name in the record."),
    must("roles[].groups", TextList, Reload, "Groups of the principal, of which one suffices (globs)."),
    must("roles[].targets", TextList, Reload, "Targets it opens (globs)."),
    key("roles[].default", Choice(ACTIONS), "\"deny\"", Reload, "What happens to a request that no rule matches."),
    key("roles[].packs", TextList, "[\"no-credential-minting\"]", Reload, "Built-in rule packs to add; a leading `-` turns one off."),
    key("roles[].accounts", TextList, "[]", Reload, "Accounts that the agent may name where the target's account is `{user}` (globs)."),
    key("roles[].recording", Choice(&["async", "requests"]), "recorder.mode", Reload, "Recording mode of the role's sessions."),
    key("roles[].function_call", Choice(&["allow", "deny"]), "\"deny\"", Reload, "The FunctionCall message, which names no SQL."),
    key("roles[].search_path", TextList, "[\"public\"]", Reload, "Schemas in which a name without one is taken to live when an allow rule asks for a schema."),
    key("roles[].connections_max", Integer(1, 1_000_000), "1000", Reload, "Sessions of the role at once."),
    key("roles[].rules", Tables, "", Reload, "Deny beats approve beats allow; order does not matter."),
    must("roles[].rules[].name", Text, Reload, "Name in refusals and in the record."),
    must("roles[].rules[].action", Choice(ACTIONS), Reload, "What happens to a request it matches."),
    key("roles[].rules[].statements", TextList, "any", Reload, "Statement kinds or groups of kinds (`read`, `write`, `ddl`, …)."),
    key("roles[].rules[].tables", TextList, "any", Reload, "Tables read or written (`schema.table`, globs)."),
    key("roles[].rules[].tables_read", TextList, "any", Reload, "Tables read."),
    key("roles[].rules[].tables_written", TextList, "any", Reload, "Tables written."),
    key("roles[].rules[].columns", TextList, "any", Reload, "Columns named (`table.column`, globs)."),
    key("roles[].rules[].functions", TextList, "any", Reload, "Functions called (globs)."),
    key("roles[].rules[].settings", TextList, "any", Reload, "Settings changed by SET, RESET or set_config (globs)."),
    key("roles[].rules[].databases", TextList, "any", Reload, "Databases of the session (globs)."),
    key("roles[].rules[].where_present", Boolean, "any", Reload, "Whether an UPDATE or DELETE has a WHERE clause."),
    key("roles[].rules[].copy", TextList, "any", Reload, "Ends of a COPY: `to_stdout`, `from_stdin`, `file`, `program`."),
    key("roles[].rules[].opaque", Boolean, "any", Reload, "Whether the request holds something that its text does not show (DO, EXECUTE of a built string)."),
    key("roles[].rules[].when", Text, "", Reload, "CEL expression over the same facts; an evaluation that fails denies."),
    key("roles[].rules[].message", Text, "", Reload, "Sentence shown to the agent with a refusal."),
    key("roles[].rules[].wait_s", Integer(1, 86_400), "approvals.wait_s", Reload, "For `approve`: seconds the request waits."),
    key("roles[].rules[].wait_in_transaction_s", Integer(1, 3600), "approvals.wait_in_transaction_s", Reload, "The same inside an open transaction."),
    key("roles[].rules[].reason_required", Boolean, "false", Reload, "For `approve`: whether the approver must give a reason."),
];

/// The entry for a path, its array indices written as `[]`.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.path == path)
}

/// The entries directly inside a section (`""` is the file itself).
pub fn children(section: &str) -> impl Iterator<Item = &'static Key> + '_ {
    KEYS.iter().filter(move |k| {
        let rest = if section.is_empty() {
            Some(k.path)
        } else {
            k.path
                .strip_prefix(section)
                .and_then(|r| r.strip_prefix('.'))
        };
        rest.is_some_and(|r| !r.is_empty() && !r.contains('.'))
    })
}
