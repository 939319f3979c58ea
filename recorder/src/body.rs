//! What a record says: the typed bodies and their encoding.
//!
//! Bodies are in the bincode wire format with fixed-width integers, little-endian (`legacy()` of
//! bincode 2; `FORMAT.md` describes it byte by byte). Texts and row data are *already masked* when
//! they come here; digests are over the exact bytes. The numbers of the variants are part of the
//! format: a new one goes to the end, none is ever removed or moved.

use serde::{Deserialize, Serialize};
use wincode::config::{Config as WireConfig, Configuration};
use wincode::{SchemaRead, SchemaWrite};

/// Largest encoded body, in bytes: a statement at the highest configurable cap (64 MiB) with room
/// for its binds. What is larger is refused at `append`, never cut here.
pub const BODY_BYTES_MAX: usize = 96 << 20;

/// Most bind values in one request: the protocol counts them in 16 bits.
pub const BINDS_MAX: usize = 65_535;

/// Most kinds of mask counted in one outcome; more detectors than that are summed by the caller.
pub const MASKED_KINDS_MAX: usize = 4_096;

/// Bodies up to this size are read with a preallocation limit of the same size, so that a small
/// body that lies about a count cannot ask for much. 65 535 binds of 24 bytes fit.
const SMALL_BODY_BYTES_MAX: usize = 2 << 20;
const _: () = assert!(BINDS_MAX * size_of::<Option<Vec<u8>>>() <= SMALL_BODY_BYTES_MAX);
const _: () = assert!(MASKED_KINDS_MAX * size_of::<(String, u64)>() <= SMALL_BODY_BYTES_MAX);

/// What was decided about a request.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, SchemaWrite, SchemaRead,
)]
pub enum ActionCode {
    /// It passed.
    Allow,
    /// It was refused.
    Deny,
    /// It was held for a human.
    Approve,
    /// It passed, and someone was alerted.
    Alert,
}

/// One decision: which rule, which policy version, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, SchemaWrite, SchemaRead)]
pub struct Ruling {
    /// The outcome.
    pub action: ActionCode,
    /// The rule that decided, or a word for what stood in its place (`default`, `unparsable`).
    pub rule: String,
    /// The reason, for humans; masked.
    pub reason: String,
    /// Digest of the policy that decided.
    pub policy_version: String,
    /// The approval's id, where one is needed or was spent.
    pub approval: Option<String>,
}

/// Where an approval stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, SchemaWrite, SchemaRead,
)]
pub enum ApprovalState {
    /// A human was asked.
    Requested,
    /// A human said yes.
    Granted,
    /// A human said no.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// The grant was used; it cannot be used again.
    Spent,
    /// The agent went away or cancelled while the request was held.
    Abandoned,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, SchemaWrite, SchemaRead)]
pub enum OutcomeCode {
    /// The target completed it, with this command tag (masked).
    Completed {
        /// For example `SELECT 3`.
        tag: String,
    },
    /// The target refused it or failed.
    Failed {
        /// Five characters.
        sqlstate: String,
    },
    /// The target skipped it after an earlier error, as it does up to a Sync.
    Skipped,
    /// A row limit stopped it; the portal can go on.
    Suspended,
    /// The gateway answered in the target's place and the request was never forwarded.
    Refused {
        /// Five characters.
        sqlstate: String,
    },
    /// The connection ended before an answer came: nobody here knows whether it ran.
    Unknown,
}

/// Whose fault an error is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, SchemaWrite, SchemaRead,
)]
pub enum Fault {
    /// The agent's.
    Agent,
    /// The target's.
    Target,
    /// A policy said no.
    Policy,
    /// The gateway's own.
    Gateway,
    /// A limit or a resource.
    Resource,
}

/// One record's content. A plain query costs two records: `Request` with its `decision` inside,
/// and `Outcome` with its rows inside.
///
/// `unit` numbers a session's decision units from 1; 0 means "none" where nothing else is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, SchemaWrite, SchemaRead)]
pub enum Body {
    /// A session's first record. Written once the principal is known; no credential is in it.
    SessionStart {
        /// `postgres`, `ssh` or `http`.
        protocol: String,
        /// The verified subject.
        principal: String,
        /// Who vouched for it.
        issuer: String,
        /// On whose behalf, where the credential says so.
        on_behalf_of: Option<String>,
        /// The role that the policy gave.
        role: String,
        /// The target's name in the configuration.
        target: String,
        /// The database, host or base that was asked for.
        database: String,
        /// The upstream account that the gateway used.
        account: String,
        /// The agent's address, `ip:port`.
        source: String,
        /// Whether the downstream connection was under TLS.
        tls: bool,
        /// Digest of the policy in force at the start.
        policy_version: String,
        /// What the client calls itself; the agent's own words, masked.
        application: String,
        /// The recording mode: `async`, `requests` or `strict`.
        mode: String,
    },
    /// A request, complete, before it was forwarded.
    Request {
        /// Number of the unit.
        unit: u64,
        /// `query`, `parse`, `bind`, `function_call`, ...
        kind: String,
        /// The statement's or portal's name, masked.
        name: Vec<u8>,
        /// Its text, masked.
        text_masked: Vec<u8>,
        /// Length of the exact text in bytes, before masking and before any cut.
        text_length: u64,
        /// SHA-256 of the exact request, all that is bound to it included.
        digest: [u8; 32],
        /// Bind values, masked; `None` is NULL.
        binds_masked: Vec<Option<Vec<u8>>>,
        /// Whether text or binds were cut.
        truncated: bool,
        /// The decision, where it was made at once; otherwise a `Decision` follows.
        decision: Option<Ruling>,
    },
    /// The decision of a request whose `Request` carried none.
    Decision {
        /// Number of the unit.
        unit: u64,
        /// What was decided.
        ruling: Ruling,
    },
    /// A step of an approval.
    Approval {
        /// Number of the unit that is held.
        unit: u64,
        /// The approval's id.
        approval: String,
        /// Where it stands now.
        state: ApprovalState,
        /// Who answered; empty where nobody did.
        by: String,
        /// The reason given; masked.
        reason: String,
    },
    /// Rows of a unit whose outcome is still to come (long results, suspended portals).
    Rows {
        /// Number of the unit.
        unit: u64,
        /// Masked frames, as released.
        data_masked: Vec<u8>,
        /// Whether more was released than is recorded.
        truncated: bool,
    },
    /// Content that the agent sends after its decision (COPY data).
    CopyIn {
        /// Number of the unit.
        unit: u64,
        /// Masked content.
        data_masked: Vec<u8>,
        /// Whether more was forwarded than is recorded.
        truncated: bool,
    },
    /// How a unit ended, with the (last) rows that it gave.
    Outcome {
        /// Number of the unit.
        unit: u64,
        /// How it ended.
        outcome: OutcomeCode,
        /// Rows released.
        rows: u64,
        /// Bytes released.
        bytes: u64,
        /// How many values were masked, by kind.
        masked: Vec<(String, u64)>,
        /// Masked frames, as released; empty where `Rows` carried them.
        data_masked: Vec<u8>,
        /// Whether more was released than is recorded.
        truncated: bool,
    },
    /// A notice of the target.
    Notice {
        /// The unit in progress, or 0.
        unit: u64,
        /// Five characters.
        sqlstate: String,
        /// Its text, masked.
        text_masked: Vec<u8>,
    },
    /// A notification (`LISTEN`/`NOTIFY`).
    Notification {
        /// The channel, masked.
        channel_masked: Vec<u8>,
        /// The payload, masked.
        payload_masked: Vec<u8>,
    },
    /// A cancel request for this session.
    Cancel {
        /// The unit in progress, or 0.
        unit: u64,
        /// Address it came from.
        source: String,
        /// Whether it was passed on.
        accepted: bool,
    },
    /// An error that belongs to no unit's outcome: login, connection, protocol.
    Error {
        /// The unit in progress, or 0.
        unit: u64,
        /// Whose fault.
        fault: Fault,
        /// SQLSTATE or a word.
        code: String,
        /// Its text, masked.
        text_masked: Vec<u8>,
    },
    /// Something else worth a line, such as a policy reload or a redial.
    Event {
        /// A fixed lower-case word.
        name: String,
        /// Details, masked.
        detail_masked: Vec<u8>,
    },
    /// A session's last record. Nothing of the session may be appended after it.
    SessionEnd {
        /// Why it ended.
        reason: String,
        /// Units seen.
        requests: u64,
        /// Units refused.
        denied: u64,
        /// Bytes to the agent.
        bytes_down: u64,
        /// Bytes to the target.
        bytes_up: u64,
    },
}

/// What the writer itself says in the record; its frames have kind 2 and form a chain of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, SchemaWrite, SchemaRead)]
pub enum WriterBody {
    /// A writer began. The first frame that a process writes.
    Started {
        /// Version of the program.
        version: String,
        /// Number of rings.
        shards: u64,
    },
    /// The segment before this writer's first one ends in bytes that are no whole record.
    /// They stay in its file; readers stop before them.
    Torn {
        /// The torn segment.
        segment: u64,
        /// Bytes that are whole.
        kept_bytes: u64,
        /// Bytes after them.
        torn_bytes: u64,
        /// SHA-256 of the torn bytes.
        digest: [u8; 32],
    },
    /// A whole segment is deleted because the archive is at its cap. Written and durable before
    /// the file goes.
    Deleted {
        /// The segment.
        segment: u64,
        /// Its size in bytes.
        bytes: u64,
        /// Number of its records.
        records: u64,
        /// Its final hash, which the next segment's header carries too.
        segment_hash: [u8; 32],
        /// Position of the first record that is kept.
        next_position: u64,
    },
    /// The last frame of a segment that was closed in order.
    Closed {
        /// `true`: the writer went on in the next segment. `false`: it stopped.
        rotated: bool,
    },
}

/// A body that cannot be encoded or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More than `BODY_BYTES_MAX`, `BINDS_MAX` or `MASKED_KINDS_MAX`.
    #[error("the body is over a limit: {what}")]
    OverLimit {
        /// Which one.
        what: &'static str,
    },
    /// Not a body of this version: unknown variant, truncated, trailing or lying bytes.
    #[error("the body does not parse as a record of format version 1: {why}")]
    Malformed {
        /// The decoder's reason.
        why: String,
    },
}

macro_rules! wire {
    ($limit:expr) => {
        Configuration::default().with_preallocation_size_limit::<{ $limit }>()
    };
}

fn write<T, C>(value: &T, config: C) -> Result<Vec<u8>, BodyError>
where
    T: SchemaWrite<C, Src = T>,
    C: WireConfig,
{
    wincode::config::serialize(value, config).map_err(|_| BodyError::OverLimit {
        what: "a field is longer than a body may be",
    })
}

fn read<'a, T, C>(bytes: &'a [u8], config: C) -> Result<T, BodyError>
where
    T: SchemaRead<'a, C, Dst = T>,
    C: WireConfig,
{
    wincode::config::deserialize_exact(bytes, config).map_err(|error| BodyError::Malformed {
        why: error.to_string(),
    })
}

impl Body {
    /// The encoded body.
    ///
    /// # Errors
    /// `OverLimit` when it has more binds, kinds or bytes than the format allows.
    pub fn encode(&self) -> Result<Vec<u8>, BodyError> {
        match self {
            Self::Request { binds_masked, .. } if binds_masked.len() > BINDS_MAX => {
                return Err(BodyError::OverLimit { what: "binds" });
            }
            Self::Outcome { masked, .. } if masked.len() > MASKED_KINDS_MAX => {
                return Err(BodyError::OverLimit {
                    what: "kinds of mask",
                });
            }
            _ => {}
        }
        let bytes = write(self, wire!(BODY_BYTES_MAX))?;
        if bytes.len() > BODY_BYTES_MAX {
            return Err(BodyError::OverLimit { what: "bytes" });
        }
        Ok(bytes)
    }

    /// Reads a body; every byte must belong to it.
    ///
    /// # Errors
    /// `OverLimit` or `Malformed`.
    pub fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        if bytes.len() <= SMALL_BODY_BYTES_MAX {
            read(bytes, wire!(SMALL_BODY_BYTES_MAX))
        } else if bytes.len() <= BODY_BYTES_MAX {
            read(bytes, wire!(BODY_BYTES_MAX))
        } else {
            Err(BodyError::OverLimit { what: "bytes" })
        }
    }

    /// The unit that the record belongs to, where it has one.
    #[must_use]
    pub fn unit(&self) -> Option<u64> {
        match self {
            Self::Request { unit, .. }
            | Self::Decision { unit, .. }
            | Self::Approval { unit, .. }
            | Self::Rows { unit, .. }
            | Self::CopyIn { unit, .. }
            | Self::Outcome { unit, .. } => Some(*unit),
            Self::Notice { unit, .. } | Self::Cancel { unit, .. } | Self::Error { unit, .. } => {
                (*unit != 0).then_some(*unit)
            }
            Self::SessionStart { .. }
            | Self::Notification { .. }
            | Self::Event { .. }
            | Self::SessionEnd { .. } => None,
        }
    }
}

impl WriterBody {
    /// The encoded body.
    ///
    /// # Errors
    /// `OverLimit`, which no body that the writer makes can meet.
    pub fn encode(&self) -> Result<Vec<u8>, BodyError> {
        write(self, wire!(SMALL_BODY_BYTES_MAX))
    }

    /// Reads a writer's body; every byte must belong to it.
    ///
    /// # Errors
    /// `OverLimit` or `Malformed`.
    pub fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        if bytes.len() > SMALL_BODY_BYTES_MAX {
            return Err(BodyError::OverLimit { what: "bytes" });
        }
        read(bytes, wire!(SMALL_BODY_BYTES_MAX))
    }
}
