//! ErrorResponse (`E`) and NoticeResponse (`N`): Byte1 field code and String value,
//! repeated, closed by a zero byte.
//!
//! Field codes: `S` severity (localised), `V` severity, `C` SQLSTATE, `M` message, `D`
//! detail, `H` hint, `P` position, `p` internal position, `q` internal query, `W` where,
//! `s` schema, `t` table, `c` column, `d` data type, `n` constraint, `F` file, `L` line,
//! `R` routine. Source: PostgreSQL documentation, "Error and Notice Message Fields".

use bytes::{BufMut, Bytes, BytesMut};

use super::tag;
use crate::error::{Refusal, WireError};
use crate::wire::Reader;
use crate::wire::encode::message;

/// A decoded report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report<'a> {
    fields: &'a [u8],
}

impl<'a> Report<'a> {
    /// Checks every field. Errors: [`WireError::Truncated`] without the closing zero
    /// byte, [`WireError::NoTerminator`], [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Report<'a>, WireError> {
        let mut reader = Reader::new(body);
        while reader.take_u8()? != 0 {
            reader.take_cstr()?;
        }
        reader.expect_end()?;
        Ok(Report {
            fields: body.get(..body.len().saturating_sub(1)).unwrap_or_default(),
        })
    }

    /// Code and value of each field, in order.
    pub fn fields(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut reader = Reader::new(self.fields);
        std::iter::from_fn(move || {
            let code = reader.take_u8().ok()?;
            Some((code, reader.take_cstr().ok()?))
        })
    }

    /// The first field with this code.
    #[must_use]
    pub fn field(&self, code: u8) -> Option<&'a [u8]> {
        self.fields()
            .find(|(c, _)| *c == code)
            .map(|(_, value)| value)
    }

    /// The SQLSTATE, where the report has one of five bytes.
    #[must_use]
    pub fn sqlstate(&self) -> Option<[u8; 5]> {
        self.field(b'C')?.try_into().ok()
    }

    /// Severity that is not localised (`V`), or the localised one of old servers.
    #[must_use]
    pub fn severity(&self) -> Option<&'a [u8]> {
        self.field(b'V').or_else(|| self.field(b'S'))
    }

    /// True where the server closes the connection after this report.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity(), Some(b"FATAL" | b"PANIC"))
    }
}

/// How grave a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the session goes on.
    Error,
    /// The session ends.
    Fatal,
    /// A notice.
    Notice,
    /// A warning, sent as a notice.
    Warning,
}

impl Severity {
    fn name(self) -> &'static [u8] {
        match self {
            Severity::Error => b"ERROR",
            Severity::Fatal => b"FATAL",
            Severity::Notice => b"NOTICE",
            Severity::Warning => b"WARNING",
        }
    }

    fn tag(self) -> u8 {
        match self {
            Severity::Error | Severity::Fatal => tag::ERROR_RESPONSE,
            Severity::Notice | Severity::Warning => tag::NOTICE_RESPONSE,
        }
    }
}

/// Builds an ErrorResponse or NoticeResponse, field by field. Zero bytes in a value are
/// written as spaces, so that no value can end early; building never fails.
#[derive(Debug, Clone)]
pub struct ReportBuilder {
    tag: u8,
    fields: BytesMut,
}

impl ReportBuilder {
    /// A report with `S`, `V`, `C` and `M`. An ErrorResponse for errors, otherwise a
    /// NoticeResponse.
    #[must_use]
    pub fn new(severity: Severity, sqlstate: &[u8; 5], message: &[u8]) -> ReportBuilder {
        ReportBuilder::bare(severity.tag())
            .field(b'S', severity.name())
            .field(b'V', severity.name())
            .field(b'C', sqlstate)
            .field(b'M', message)
    }

    /// A report with no field yet and the type byte `E` or `N`: to re-make a report
    /// whose fields come from elsewhere.
    #[must_use]
    pub fn bare(tag: u8) -> ReportBuilder {
        debug_assert!(matches!(tag, tag::ERROR_RESPONSE | tag::NOTICE_RESPONSE));
        ReportBuilder {
            tag,
            fields: BytesMut::new(),
        }
    }

    /// A refusal as an ErrorResponse of this severity.
    #[must_use]
    pub fn refusal(severity: Severity, refusal: &Refusal) -> ReportBuilder {
        ReportBuilder::new(severity, &refusal.sqlstate, refusal.message.as_bytes())
            .detail(refusal.detail.as_bytes())
            .hint(refusal.hint.as_bytes())
    }

    /// Adds a `D` field; nothing when empty.
    #[must_use]
    pub fn detail(self, text: &[u8]) -> ReportBuilder {
        self.unless_empty(b'D', text)
    }

    /// Adds an `H` field; nothing when empty.
    #[must_use]
    pub fn hint(self, text: &[u8]) -> ReportBuilder {
        self.unless_empty(b'H', text)
    }

    fn unless_empty(self, code: u8, text: &[u8]) -> ReportBuilder {
        if text.is_empty() {
            self
        } else {
            self.field(code, text)
        }
    }

    /// Adds any field, empty or not. `code` must not be 0.
    #[must_use]
    pub fn field(mut self, code: u8, value: &[u8]) -> ReportBuilder {
        debug_assert_ne!(code, 0);
        self.fields.put_u8(code.max(1));
        for byte in value {
            self.fields.put_u8(if *byte == 0 { b' ' } else { *byte });
        }
        self.fields.put_u8(0);
        self
    }

    /// Appends the message. Errors: [`WireError::TooLong`].
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        message(out, self.tag, |out| {
            out.put_slice(&self.fields);
            out.put_u8(0);
            Ok(())
        })
    }

    /// The message on its own. One that is too long for Int32 (over 2 GB) comes out
    /// empty, which no caller's text can reach.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.fields.len().saturating_add(6));
        match self.encode(&mut out) {
            Ok(()) => out.freeze(),
            Err(_) => Bytes::new(),
        }
    }
}
