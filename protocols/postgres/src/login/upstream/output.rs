//! What the login hands out: the next step, a session, or why there is none.

use bytes::Bytes;

#[cfg(doc)]
use super::UpstreamLogin;
use crate::error::WireError;
use crate::scram::{ScramDerivation, ScramError};
use crate::startup::ProtocolVersion;

/// A session that is ready for queries. `Debug` does not show the cancel key.
pub struct UpstreamReady {
    /// The version that was settled on.
    pub protocol: ProtocolVersion,
    /// Every ParameterStatus, in order (a name may come twice; the last one holds).
    pub parameters: Vec<(Bytes, Bytes)>,
    /// The backend's process id; 0 where the server sent none.
    pub process_id: u32,
    /// The backend's cancel key; empty where the server sent none, and then nothing can
    /// be cancelled.
    pub secret_key: Bytes,
    /// Transaction status.
    pub status: u8,
    /// Every NoticeResponse, whole messages, in order.
    pub notices: Vec<Bytes>,
    /// Bytes after ReadyForQuery.
    pub leftover: Bytes,
}

impl std::fmt::Debug for UpstreamReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamReady")
            .field("protocol", &self.protocol)
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

/// What a server said when it refused. Text of the server: for the log and the record
/// after masking, never as it is for the agent, since it names accounts and addresses.
/// `Debug` shows severity and SQLSTATE only.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerRefusal {
    /// Severity, not localised where the server sends it so.
    pub severity: Bytes,
    /// SQLSTATE; `XX000` where the server sent none.
    pub sqlstate: [u8; 5],
    /// The message.
    pub message: Bytes,
    /// The whole ErrorResponse.
    pub report: Bytes,
}

impl std::fmt::Debug for ServerRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerRefusal")
            .field("severity", &self.severity)
            .field("sqlstate", &self.sqlstate.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

/// Why a login failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// The server has no TLS.
    TlsRefused,
    /// Clear bytes behind the server's `S` (CVE-2021-23222).
    StuffedBytes,
    /// The server refused: wrong password, no such database, too many connections.
    Rejected(ServerRefusal),
    /// The server asks for a method that is not spoken here (GSSAPI, SSPI, an unknown
    /// SASL mechanism).
    AuthUnsupported,
    /// The server asks for MD5, a clear-text password or nothing at all, and the
    /// configuration wants better.
    AuthTooWeak,
    /// The server asks for a password and there is none.
    PasswordMissing,
    /// Channel binding is required and one side cannot.
    ChannelBindingImpossible,
    /// The server did not prove that it knows the password's keys.
    BadServerSignature,
    /// The SCRAM exchange broke.
    Scram(ScramError),
    /// A message that does not have its shape, or one of ours that cannot be written.
    Wire(WireError),
    /// A message that has no place at this step.
    Unexpected {
        /// Its type byte.
        tag: u8,
    },
    /// A protocol version or option that we did not ask for.
    BadNegotiation,
    /// More bytes before ReadyForQuery than are taken.
    TooMuch,
    /// Us: a method was called at a step where it has no meaning.
    Misuse,
}

impl UpstreamFailure {
    /// True when the credential was wrong: worth one fresh fetch and one more try.
    #[must_use]
    pub fn is_bad_password(&self) -> bool {
        matches!(self, UpstreamFailure::Rejected(refusal) if &refusal.sqlstate == b"28P01")
    }

    /// True when the server knows no protocol but 3.0: worth one more try with that.
    #[must_use]
    pub fn protocol_refused(&self) -> bool {
        matches!(
            self,
            UpstreamFailure::Rejected(refusal)
                if matches!(&refusal.sqlstate, b"0A000" | b"08P01")
                    && memchr::memmem::find(&refusal.message, b"protocol").is_some()
        )
    }
}

/// What the gateway is to do next. `Debug` shows no bytes.
pub enum UpstreamOutput {
    /// Send these bytes to the target.
    Write(Bytes),
    /// Start the TLS handshake (with ALPN `postgresql` for direct TLS), then call
    /// [`UpstreamLogin::tls_established`].
    StartTls,
    /// Run this where it stalls nobody, then call [`UpstreamLogin::provide_keys`].
    DeriveKeys(ScramDerivation),
    /// Logged in.
    Ready(UpstreamReady),
    /// Over. Close the connection.
    Failed(UpstreamFailure),
}

impl std::fmt::Debug for UpstreamOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UpstreamOutput::Write(bytes) => write!(f, "Write({} bytes)", bytes.len()),
            UpstreamOutput::StartTls => f.write_str("StartTls"),
            UpstreamOutput::DeriveKeys(work) => f.debug_tuple("DeriveKeys").field(work).finish(),
            UpstreamOutput::Ready(ready) => f.debug_tuple("Ready").field(ready).finish(),
            UpstreamOutput::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
        }
    }
}

impl From<WireError> for UpstreamFailure {
    fn from(error: WireError) -> UpstreamFailure {
        UpstreamFailure::Wire(error)
    }
}

impl From<ScramError> for UpstreamFailure {
    fn from(error: ScramError) -> UpstreamFailure {
        match error {
            ScramError::Signature => UpstreamFailure::BadServerSignature,
            other => UpstreamFailure::Scram(other),
        }
    }
}
