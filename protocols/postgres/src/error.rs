//! What can go wrong with bytes of a peer, and how a refusal is worded.

use thiserror::Error;

/// A message that does not have the shape the protocol gives it.
///
/// "Not enough bytes yet" is not among these: [`crate::wire::Frames`] only hands
/// out whole messages, so a body that ends early is malformed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The body ends before a field that must be there.
    #[error("message body ends early: {wanted} bytes wanted, {left} left")]
    Truncated {
        /// Bytes the field needs.
        wanted: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A string without its closing zero byte.
    #[error("string without terminator")]
    NoTerminator,
    /// Bytes after the last field of a fixed layout.
    #[error("{left} bytes after the end of the message's fields")]
    Trailing {
        /// Bytes that should not be there.
        left: usize,
    },
    /// A message length below 4 (it counts itself) or above Int32's maximum.
    #[error("message of type {tag:#04x} announces an impossible length {length}")]
    BadLength {
        /// Type byte of the message; 0 for untyped start-up packets.
        tag: u8,
        /// The announced length.
        length: u32,
    },
    /// A message longer than the caller allows for its type.
    #[error("message of type {tag:#04x} announces {length} body bytes, more than is allowed")]
    TooLarge {
        /// Type byte of the message; 0 for untyped start-up packets.
        tag: u8,
        /// Announced bytes of the body.
        length: u32,
    },
    /// A type byte that the protocol does not define for this direction.
    #[error("unknown message type {tag:#04x}")]
    UnknownTag {
        /// The type byte.
        tag: u8,
    },
    /// A field with a value the protocol does not define.
    #[error("field `{field}` has a value that the protocol does not define")]
    BadValue {
        /// The field's name in the specification.
        field: &'static str,
    },
    /// A string that is to be written holds a zero byte, which would end it early.
    #[error("string to be written holds a zero byte")]
    EmbeddedNul,
    /// A message that is to be written would be longer than Int32 (or a count
    /// longer than Int16) can say.
    #[error("message to be written is too long")]
    TooLong,
}

/// A refusal in words for the agent: what becomes an ErrorResponse.
///
/// No field may carry a payload, a credential or an address of the inside.
/// Zero bytes in a text are written as spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE, five characters of `0-9A-Z`.
    pub sqlstate: [u8; 5],
    /// One line: what was refused.
    pub message: String,
    /// Why, in a form that a machine can read; left out of the message when empty.
    pub detail: String,
    /// The next legal step; left out of the message when empty.
    pub hint: String,
}

impl Refusal {
    /// A refusal without detail and hint.
    pub fn new(sqlstate: &[u8; 5], message: impl Into<String>) -> Refusal {
        Refusal {
            sqlstate: *sqlstate,
            message: message.into(),
            detail: String::new(),
            hint: String::new(),
        }
    }

    /// The same refusal with a DETAIL field.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Refusal {
        self.detail = detail.into();
        self
    }

    /// The same refusal with a HINT field.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Refusal {
        self.hint = hint.into();
        self
    }
}

/// Why a login of an agent ended. [`LoginError::refusal`] has the words for the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LoginError {
    /// Agent: a message that does not have its shape.
    #[error("malformed login message: {0}")]
    Wire(#[from] WireError),
    /// Agent: a start-up packet shorter than any, or longer than is allowed.
    #[error("start-up packet announces {length} bytes")]
    StartupLength {
        /// The announced length, which counts itself.
        length: u32,
    },
    /// Agent: a start-up packet whose parameters are not pairs of strings closed by a
    /// zero byte.
    #[error("start-up packet has an invalid layout")]
    StartupLayout,
    /// Agent: a parameter given twice.
    #[error("start-up packet names a parameter twice")]
    DuplicateParameter,
    /// Agent: no user name.
    #[error("start-up packet names no user")]
    NoUser,
    /// Agent: `replication` is neither a Boolean nor `database`.
    #[error("start-up packet has an invalid value for `replication`")]
    BadReplication,
    /// Agent: a protocol that is not spoken here (2.0, 4.0, a second SSLRequest).
    #[error("unsupported frontend protocol {major}.{minor}")]
    UnsupportedProtocol {
        /// Upper 16 bits of the version.
        major: u16,
        /// Lower 16 bits of the version.
        minor: u16,
    },
    /// Agent: clear bytes behind an SSLRequest or GSSENCRequest. They could be another's
    /// words that would be taken for the agent's after the handshake (CVE-2021-23214).
    #[error("received unencrypted data after a request for encryption")]
    StuffedBytes,
    /// Agent: no TLS where the listener requires it.
    #[error("listener requires TLS")]
    TlsRequired,
    /// Agent: a TLS handshake without SSLRequest where the listener does not take it.
    #[error("direct TLS is not taken here")]
    DirectTlsRefused,
    /// Agent: a TLS session that did not settle on ALPN `postgresql`.
    #[error("TLS session without ALPN protocol `postgresql`")]
    Alpn,
    /// Agent: a message that has no place at this step.
    #[error("unexpected message of type {tag:#04x} during login")]
    Unexpected {
        /// Its type byte.
        tag: u8,
    },
    /// Agent: an empty password.
    #[error("empty password")]
    EmptyPassword,
    /// Agent: an OAUTHBEARER message that breaks RFC 7628.
    #[error("malformed OAUTHBEARER message: {0}")]
    Oauth(&'static str),
    /// Agent: more bytes before the login's answer than are held.
    #[error("too many bytes before the end of the login")]
    EarlyBytes,
    /// Policy: a credential may not be asked for over this connection.
    #[error("connection is not protected enough for this login method")]
    Unprotected,
    /// Us: a method was called at a step where it has no meaning. The login is closed.
    #[error("login driven out of order")]
    Misuse,
}

impl LoginError {
    /// The refusal that the agent reads, in PostgreSQL's words where it has some.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            LoginError::Wire(_) | LoginError::Unexpected { .. } => {
                Refusal::new(b"08P01", "invalid message format during login")
            }
            LoginError::StartupLength { .. } => {
                Refusal::new(b"08P01", "invalid length of startup packet")
            }
            LoginError::StartupLayout => Refusal::new(
                b"08P01",
                "invalid startup packet layout: expected terminator as last byte",
            ),
            LoginError::DuplicateParameter => Refusal::new(
                b"08P01",
                "invalid startup packet: a parameter is given more than once",
            ),
            LoginError::NoUser => Refusal::new(
                b"28000",
                "no PostgreSQL user name specified in startup packet",
            ),
            LoginError::BadReplication => {
                Refusal::new(b"22023", "invalid value for parameter \"replication\"")
                    .with_hint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")
            }
            LoginError::UnsupportedProtocol { major, minor } => Refusal::new(
                b"0A000",
                format!(
                    "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
                ),
            ),
            LoginError::StuffedBytes => {
                Refusal::new(b"08P01", "received unencrypted data after SSL request").with_detail(
                    "This could be either a client-software bug or evidence of an attempted \
                     man-in-the-middle attack.",
                )
            }
            LoginError::TlsRequired => Refusal::new(b"28000", "this listener requires TLS")
                .with_hint("Connect with sslmode=require or stricter."),
            LoginError::DirectTlsRefused | LoginError::Alpn => Refusal::new(
                b"08P01",
                "received direct SSL connection request without ALPN protocol \"postgresql\"",
            ),
            LoginError::EmptyPassword => {
                Refusal::new(b"28P01", "empty password returned by client")
            }
            LoginError::Oauth(_) => Refusal::new(b"08P01", "malformed OAUTHBEARER message"),
            LoginError::EarlyBytes => {
                Refusal::new(b"08P01", "too much data before the end of the login")
            }
            LoginError::Unprotected => Refusal::new(b"28000", "this login method requires TLS")
                .with_hint("Connect with sslmode=require or stricter."),
            LoginError::Misuse => Refusal::new(b"XX000", "internal error during login"),
        }
    }
}
