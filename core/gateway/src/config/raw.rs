//! The configuration as it was written: one field per key of the table,
//! nothing filled in, nothing checked beyond its type.

use serde::{Deserialize, Serialize};

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident : $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, default)]
        #[allow(missing_docs)] // Each field is documented in the key table, `keys.rs`.
        pub struct $name { $(#[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)* }
    };
}

section!(/// The whole file.
RawConfig {
    gateway: RawGateway, listeners: Vec<RawListener>, control: RawControl, approvals: RawApprovals,
    recorder: RawRecorder, masking: RawMasking, limits: RawLimits, issuers: Vec<RawIssuer>,
    targets: Vec<RawTarget>, roles: Vec<RawRole>,
});
section!(/// `[gateway]`
RawGateway {
    shards: u32, pin_cores: bool, data_dir: String, drain_ms: u64, login_ms: u64, connections_max: u64,
    connections_per_source_max: u64, logins_per_source_max: u64, log_level: String,
});
section!(/// `[[listeners]]`
RawListener {
    name: String, protocol: String, address: String, tls: String, certificate_file: String, key_file: String,
    client_ca_file: String, login: String, oauth_issuer: String, oauth_scope: String, target: String,
    proxy_protocol_from: Vec<String>,
});
section!(/// `[control]`
RawControl { address: String, admin_token_file: String, store_file: String });
section!(/// `[approvals]`
RawApprovals {
    wait_s: u64, wait_in_transaction_s: u64, valid_s: u64, pending_per_principal_max: u64, cool_down_s: u64,
});
section!(/// `[recorder]`
RawRecorder {
    dir: String, mode: String, group_commit_ms: u64, segment_bytes_max: u64, total_bytes_max: u64, at_cap: String,
    ring_entries: u64, rows_bytes_max: u64, text_bytes_max: u64,
});
section!(/// `[masking]`
RawMasking { packs: Vec<String>, guard: Vec<RawGuard>, detectors: Vec<RawDetector>, danger_weak_secrets: bool });
section!(/// `[[masking.guard]]`
RawGuard { name: String, secret: RawSecret });
section!(/// `[[masking.detectors]]`
RawDetector { name: String, pattern: String });
section!(/// `[limits]`
RawLimits {
    statement_bytes_max: u64, statement_tokens_max: u64, statement_nesting_max: u64, parse_inline_bytes_max: u64, verdict_cache_bytes_max: u64,
    bind_bytes_max: u64, held_bytes_max: u64, value_bytes_held_max: u64,
});
section!(/// `[[issuers]]`
RawIssuer {
    issuer: String, audiences: Vec<String>, jwks_file: String, jwks_url: String, groups_claim: String,
    subject_claim: String, leeway_s: u64,
});
section!(/// `[[targets]]`
RawTarget {
    name: String, protocol: String, hosts: Vec<String>, tls: String, tls_direct: bool, ca_file: String,
    server_name: String, danger_tls_unverified: bool, danger_clear_text: bool, database: String,
    databases: Vec<String>, account: String, password: RawSecret, client_certificate_file: String,
    client_key_file: String, channel_binding: String, allow_md5: bool, connect_ms: u64, connections_max: u64,
    connections_per_principal_max: u64, queue_max: u64, queue_ms: u64,
});
section!(/// `[[roles]]`
RawRole {
    name: String, groups: Vec<String>, targets: Vec<String>, default: String, packs: Vec<String>,
    accounts: Vec<String>, recording: String, function_call: String, search_path: Vec<String>, connections_max: u64, rules: Vec<RawRule>,
});
section!(/// `[[roles.rules]]`
RawRule {
    name: String, action: String, statements: Vec<String>, tables: Vec<String>, tables_read: Vec<String>,
    tables_written: Vec<String>, columns: Vec<String>, functions: Vec<String>, settings: Vec<String>, databases: Vec<String>,
    where_present: bool, copy: Vec<String>, opaque: bool, when: String, message: String, wait_s: u64,
    wait_in_transaction_s: u64, reason_required: bool,
});
section!(/// A reference to a secret.
RawSecret { env: String, file: String, command: Vec<String> });
