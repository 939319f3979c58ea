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
