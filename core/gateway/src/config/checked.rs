//! The configuration as it was checked: defaults filled in, impossible states
//! gone. Whoever holds a [`Config`] need not look at the file again.

use super::secret::SecretSource;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[[listeners]]`, at least one.
    pub listeners: Vec<Listener>,
    /// `[control]`
    pub control: Control,
    /// `[approvals]`
    pub approvals: Approvals,
    /// `[recorder]`
    pub recorder: Recorder,
    /// `[masking]`
    pub masking: Masking,
    /// `[limits]`
    pub limits: Limits,
    /// `[[issuers]]`
    pub issuers: Vec<Issuer>,
    /// `[[targets]]`, names unique.
    pub targets: Vec<Target>,
    /// `[[roles]]`, as the policy crate takes them.
    pub policy: policy::PolicySpec,
    /// What a role says beyond policy, in the order of `policy.roles`.
    pub roles: Vec<RoleExtras>,
}

/// `[gateway]`
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Number of shards.
    pub shards: usize,
    /// Whether shard N is bound to core N.
    pub pin_cores: bool,
    /// Folder for store and record.
    pub data_dir: PathBuf,
    /// Time that sessions may go on after SIGTERM.
    pub drain: Duration,
    /// Time from accept to the end of the login.
    pub login: Duration,
    /// Connections over all shards.
    pub connections_max: usize,
    /// Connections of one source address.
    pub connections_per_source_max: usize,
    /// Unfinished logins of one source address.
    pub logins_per_source_max: usize,
    /// Least severe level logged.
    pub log_level: tracing::Level,
}

/// Whether agents may or must use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerTls {
    /// Refused.
    Off,
    /// Taken where asked for.
    Optional,
    /// Demanded before anything else.
    Required,
}

/// `[[listeners]]`
#[derive(Debug, Clone)]
pub struct Listener {
    /// Name in logs and metrics.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether agents may or must use TLS.
    pub tls: ListenerTls,
    /// Certificate chain and key, where there is TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Authorities of client certificates.
    pub client_ca: Option<PathBuf>,
    /// Issuer and scope told to OAUTHBEARER clients; `None` asks for a password.
    pub oauth: Option<(String, String)>,
    /// Fixed target.
    pub target: Option<String>,
    /// Balancers that must send a PROXY v2 header.
    pub proxy_protocol_from: Vec<IpAddr>,
}

/// Where the control plane listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlAddress {
    /// A Unix socket, mode 0600.
    Unix(PathBuf),
    /// A loopback port.
    Loopback(SocketAddr),
}

/// `[control]`
#[derive(Debug, Clone)]
pub struct Control {
    /// Where it listens.
    pub address: ControlAddress,
    /// File with the API's token.
    pub admin_token_file: PathBuf,
    /// SQLite file.
    pub store_file: PathBuf,
}

/// `[approvals]`
#[derive(Debug, Clone)]
pub struct Approvals {
    /// Seconds a held request waits.
    pub wait_s: u64,
    /// The same inside an open transaction.
    pub wait_in_transaction_s: u64,
    /// Seconds until an unanswered request or an unspent grant expires.
    pub valid_s: u64,
    /// Requests of one principal that may wait at once.
    pub pending_per_principal_max: usize,
    /// Seconds for which a denied request is denied again at once.
    pub cool_down_s: u64,
}

/// When a request counts as on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordingMode {
    /// In the ring before it is forwarded.
    Async,
    /// Durable before it is forwarded.
    Requests,
}

/// `[recorder]`
#[derive(Debug, Clone)]
pub struct Recorder {
    /// Folder of the segments.
    pub dir: PathBuf,
    /// Mode of roles that do not say otherwise.
    pub mode: RecordingMode,
    /// Longest time between a record and its fsync, milliseconds.
    pub group_commit_ms: u64,
    /// Bytes after which a new segment is begun.
    pub segment_bytes_max: u64,
    /// Bytes of the whole record.
    pub total_bytes_max: u64,
    /// At the cap: delete the oldest segment rather than refuse.
    pub delete_oldest: bool,
    /// Entries of the ring, per shard.
    pub ring_entries: usize,
    /// Bytes of masked rows recorded per statement.
    pub rows_bytes_max: usize,
    /// Bytes of masked statement text recorded.
    pub text_bytes_max: usize,
}

/// A secret to mask wherever it shows.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Label in the mask.
    pub name: String,
    /// Where the secret is.
    pub secret: SecretSource,
    /// Path of the key in the file, for complaints.
    pub path: String,
}

/// `[masking]`
#[derive(Debug, Clone)]
pub struct Masking {
    /// Detectors of all packs and of the file.
    pub detectors: Vec<masking::Detector>,
    /// Guarded secrets.
    pub guards: Vec<Guard>,
    /// Accept guarded secrets under 80 bits.
    pub danger_weak_secrets: bool,
}

/// `[limits]` that the session machine reads; the SQL limits are in the policy spec.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one statement text.
    pub statement_bytes_max: usize,
    /// Bytes of the verdict cache, per shard.
    pub verdict_cache_bytes_max: usize,
    /// Bytes of one Bind that is held.
    pub bind_bytes_max: usize,
    /// Agent bytes behind an undecided request.
    pub held_bytes_max: usize,
    /// Row messages over this are masked as a stream.
    pub value_bytes_held_max: usize,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksSource {
    /// A file.
    File(PathBuf),
    /// A URL, fetched by the control thread.
    Url(String),
}

/// `[[issuers]]`
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The `iss` claim.
    pub issuer: String,
    /// Accepted `aud` values.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub jwks: JwksSource,
    /// Claim that lists the groups.
    pub groups_claim: String,
    /// Claim that names the principal.
    pub subject_claim: String,
    /// Clock difference allowed, seconds.
    pub leeway_s: u64,
}

/// One address of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name or address.
    pub name: String,
    /// Port.
    pub port: u16,
}

/// TLS towards a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetTls {
    /// None.
    Off,
    /// The certificate is verified against the authorities (system's if `None`).
    Verify {
        /// PEM file of authorities.
        ca_file: Option<PathBuf>,
        /// Begin TLS at once.
        direct: bool,
    },
    /// `danger_tls_unverified`
    Unverified {
        /// Begin TLS at once.
        direct: bool,
    },
}

/// The account that is logged in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// Always this one.
    Fixed(String),
    /// The user that the agent named, within its role's `accounts`.
    FromAgent,
}

/// `[[targets]]`
#[derive(Debug, Clone)]
pub struct Target {
    /// The name agents ask for.
    pub name: String,
    /// Addresses, tried in order; at least one.
    pub hosts: Vec<Host>,
    /// TLS towards it.
    pub tls: TargetTls,
    /// Name expected in the certificate; the host's where `None`.
    pub server_name: Option<String>,
    /// Database where the agent names none; the target's name where `None`.
    pub database: Option<String>,
    /// Databases that agents may name (globs).
    pub databases: Vec<String>,
    /// The account.
    pub account: Account,
    /// Its password.
    pub password: Option<SecretSource>,
    /// Client certificate chain and key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// SCRAM must be bound to the TLS channel.
    pub channel_binding_required: bool,
    /// Answer MD5 requests.
    pub allow_md5: bool,
    /// Time for dialling and login.
    pub connect: Duration,
    /// Connections to the target.
    pub connections_max: usize,
    /// Connections for one principal.
    pub connections_per_principal_max: usize,
    /// Logins that may wait.
    pub queue_max: usize,
    /// Time that a login waits.
    pub queue: Duration,
}

/// What a role says beyond policy.
#[derive(Debug, Clone)]
pub struct RoleExtras {
    /// Name, as in the policy spec.
    pub name: String,
    /// Accounts that the agent may name (globs).
    pub accounts: Vec<String>,
    /// Recording mode of its sessions.
    pub recording: RecordingMode,
    /// Sessions at once.
    pub connections_max: usize,
}

impl Config {
    /// The target of that name.
    pub fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|t| t.name == name)
    }

    /// The extras of the role of that name.
    pub fn role(&self, name: &str) -> Option<&RoleExtras> {
        self.roles.iter().find(|r| r.name == name)
    }
}
