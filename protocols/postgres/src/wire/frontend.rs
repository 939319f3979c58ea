//! Frontend messages: what an agent sends once it is logged in, and passwords.
//!
//! Decoders borrow from the body; a decoder stands next to its encoder. Bytes after
//! the last field are refused. Source: PostgreSQL documentation, "Message Formats".

use bytes::{BufMut, BytesMut};

use super::encode::{message, put_count, put_cstr, put_formats, put_values};
use super::{Formats, Oids, Reader, Values};
use crate::error::WireError;

/// Type bytes of frontend messages.
pub mod tag {
    /// Bind.
    pub const BIND: u8 = b'B';
    /// Close.
    pub const CLOSE: u8 = b'C';
    /// CopyData (both directions).
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone (both directions).
    pub const COPY_DONE: u8 = b'c';
    /// CopyFail.
    pub const COPY_FAIL: u8 = b'f';
    /// Describe.
    pub const DESCRIBE: u8 = b'D';
    /// Execute.
    pub const EXECUTE: u8 = b'E';
    /// Flush.
    pub const FLUSH: u8 = b'H';
    /// FunctionCall.
    pub const FUNCTION_CALL: u8 = b'F';
    /// Parse.
    pub const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse, GSSResponse.
    pub const PASSWORD: u8 = b'p';
    /// Query.
    pub const QUERY: u8 = b'Q';
    /// Sync.
    pub const SYNC: u8 = b'S';
    /// Terminate.
    pub const TERMINATE: u8 = b'X';

    /// True for every type byte above.
    #[must_use]
    pub fn is_known(tag: u8) -> bool {
        matches!(
            tag,
            BIND | CLOSE
                | COPY_DATA
                | COPY_DONE
                | COPY_FAIL
                | DESCRIBE
                | EXECUTE
                | FLUSH
                | FUNCTION_CALL
                | PARSE
                | PASSWORD
                | QUERY
                | SYNC
                | TERMINATE
        )
    }
}

/// What Describe and Close speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `S`: a prepared statement.
    Statement,
    /// `P`: a portal.
    Portal,
}

impl Kind {
    /// `S` or `P`.
    #[must_use]
    pub fn as_byte(self) -> u8 {
        match self {
            Kind::Statement => b'S',
            Kind::Portal => b'P',
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Kind, WireError> {
        match reader.take_u8()? {
            b'S' => Ok(Kind::Statement),
            b'P' => Ok(Kind::Portal),
            _ => Err(WireError::BadValue {
                field: "statement or portal",
            }),
        }
    }
}

/// Any frontend message of a session, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontendMessage<'a> {
    /// Query.
    Query(Query<'a>),
    /// Parse.
    Parse(Parse<'a>),
    /// Bind.
    Bind(Bind<'a>),
    /// Describe.
    Describe(Describe<'a>),
    /// Execute.
    Execute(Execute<'a>),
    /// Close.
    Close(Close<'a>),
    /// Sync.
    Sync,
    /// Flush.
    Flush,
    /// FunctionCall.
    FunctionCall(FunctionCall<'a>),
    /// CopyData: the body as it is.
    CopyData(&'a [u8]),
    /// CopyDone.
    CopyDone,
    /// CopyFail: the reason that the agent gives.
    CopyFail(&'a [u8]),
    /// A message of type `p`, whose shape depends on what was asked for; undecoded.
    Password(Secret<'a>),
    /// Terminate.
    Terminate,
}

/// Bytes that `Debug` does not show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<'a>(pub &'a [u8]);

impl std::fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Decodes a message body by its type byte. Errors: [`WireError::UnknownTag`] and
/// those of the message.
pub fn decode(tag: u8, body: &[u8]) -> Result<FrontendMessage<'_>, WireError> {
    Ok(match tag {
        tag::QUERY => FrontendMessage::Query(Query::decode(body)?),
        tag::PARSE => FrontendMessage::Parse(Parse::decode(body)?),
        tag::BIND => FrontendMessage::Bind(Bind::decode(body)?),
        tag::DESCRIBE => FrontendMessage::Describe(Describe::decode(body)?),
        tag::EXECUTE => FrontendMessage::Execute(Execute::decode(body)?),
        tag::CLOSE => FrontendMessage::Close(Close::decode(body)?),
        tag::FUNCTION_CALL => FrontendMessage::FunctionCall(FunctionCall::decode(body)?),
        tag::COPY_DATA => FrontendMessage::CopyData(body),
        tag::COPY_FAIL => FrontendMessage::CopyFail(one_string(body)?),
        tag::PASSWORD => FrontendMessage::Password(Secret(body)),
        tag::SYNC => empty(body, FrontendMessage::Sync)?,
        tag::FLUSH => empty(body, FrontendMessage::Flush)?,
        tag::COPY_DONE => empty(body, FrontendMessage::CopyDone)?,
        tag::TERMINATE => empty(body, FrontendMessage::Terminate)?,
        tag => return Err(WireError::UnknownTag { tag }),
    })
}

fn empty<'a>(body: &[u8], decoded: FrontendMessage<'a>) -> Result<FrontendMessage<'a>, WireError> {
    Reader::new(body).expect_end()?;
    Ok(decoded)
}

fn one_string(body: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(body);
    let text = reader.take_cstr()?;
    reader.expect_end()?;
    Ok(text)
}

/// Query (`Q`): one String, the statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// The statements' text, in the client's encoding, without its terminator.
    pub text: &'a [u8],
}

impl<'a> Query<'a> {
    /// Errors: [`WireError::NoTerminator`], [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Query<'a>, WireError> {
        Ok(Query {
            text: one_string(body)?,
        })
    }

    /// Appends the message. Errors: [`WireError::EmbeddedNul`], [`WireError::TooLong`].
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        message(out, tag::QUERY, |out| put_cstr(out, self.text))
    }
}

/// Parse (`P`): String statement name (empty: unnamed), String text, Int16 count and
/// that many Int32 type OIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Name of the prepared statement; empty for the unnamed one.
    pub name: &'a [u8],
    /// The statement's text.
    pub text: &'a [u8],
    /// Types of the parameters as far as the agent gives them.
    pub parameter_types: Oids<'a>,
}

impl<'a> Parse<'a> {
    /// Errors: [`WireError::NoTerminator`], [`WireError::Truncated`],
    /// [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Parse<'a>, WireError> {
        let mut reader = Reader::new(body);
        let parse = Parse {
            name: reader.take_cstr()?,
            text: reader.take_cstr()?,
            parameter_types: Oids::take(&mut reader)?,
        };
        reader.expect_end()?;
        Ok(parse)
    }
}

/// Appends a Parse. Errors: [`WireError::EmbeddedNul`], [`WireError::TooLong`].
pub fn parse(
    out: &mut BytesMut,
    name: &[u8],
    text: &[u8],
    parameter_types: &[u32],
) -> Result<(), WireError> {
    message(out, tag::PARSE, |out| {
        put_cstr(out, name)?;
        put_cstr(out, text)?;
        put_count(out, parameter_types.len())?;
        for oid in parameter_types {
            out.put_u32(*oid);
        }
        Ok(())
    })
}

/// Bind (`B`): String portal, String statement, format codes of the values, the
/// values, format codes of the result columns.
///
/// Whether the counts fit each other is for the server to judge; it answers with an
/// error of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Destination portal; empty for the unnamed one.
    pub portal: &'a [u8],
    /// Source statement; empty for the unnamed one.
    pub statement: &'a [u8],
    /// Formats of the values.
    pub value_formats: Formats<'a>,
    /// The values.
    pub values: Values<'a>,
    /// Formats wanted for the result columns.
    pub result_formats: Formats<'a>,
}

impl<'a> Bind<'a> {
    /// Errors: [`WireError::NoTerminator`], [`WireError::Truncated`],
    /// [`WireError::BadValue`] (length below −1), [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Bind<'a>, WireError> {
        let mut reader = Reader::new(body);
        let bind = Bind {
            portal: reader.take_cstr()?,
            statement: reader.take_cstr()?,
            value_formats: Formats::take(&mut reader)?,
            values: Values::take(&mut reader)?,
            result_formats: Formats::take(&mut reader)?,
        };
        reader.expect_end()?;
        Ok(bind)
    }
}

/// Appends a Bind. Errors: [`WireError::EmbeddedNul`], [`WireError::TooLong`].
pub fn bind(
    out: &mut BytesMut,
    portal: &[u8],
    statement: &[u8],
    value_formats: &[i16],
    values: &[Option<&[u8]>],
    result_formats: &[i16],
) -> Result<(), WireError> {
    message(out, tag::BIND, |out| {
        put_cstr(out, portal)?;
        put_cstr(out, statement)?;
        put_formats(out, value_formats)?;
        put_values(out, values.iter().copied())?;
        put_formats(out, result_formats)
    })
}

/// Describe (`D`): Byte1 `S` or `P`, String name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Describe<'a> {
    /// Statement or portal.
    pub kind: Kind,
    /// Its name; empty for the unnamed one.
    pub name: &'a [u8],
}

impl<'a> Describe<'a> {
    /// Errors: [`WireError::BadValue`], [`WireError::NoTerminator`],
    /// [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Describe<'a>, WireError> {
        let (kind, name) = kind_and_name(body)?;
        Ok(Describe { kind, name })
    }

    /// Appends the message. Errors: [`WireError::EmbeddedNul`].
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        put_kind_and_name(out, tag::DESCRIBE, self.kind, self.name)
    }
}

/// Close (`C`): Byte1 `S` or `P`, String name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    /// Statement or portal.
    pub kind: Kind,
    /// Its name; empty for the unnamed one.
    pub name: &'a [u8],
}

impl<'a> Close<'a> {
    /// Errors: [`WireError::BadValue`], [`WireError::NoTerminator`],
    /// [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Close<'a>, WireError> {
        let (kind, name) = kind_and_name(body)?;
        Ok(Close { kind, name })
    }

    /// Appends the message. Errors: [`WireError::EmbeddedNul`].
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        put_kind_and_name(out, tag::CLOSE, self.kind, self.name)
    }
}

fn kind_and_name(body: &[u8]) -> Result<(Kind, &[u8]), WireError> {
    let mut reader = Reader::new(body);
    let kind = Kind::take(&mut reader)?;
    let name = reader.take_cstr()?;
    reader.expect_end()?;
    Ok((kind, name))
}

fn put_kind_and_name(
    out: &mut BytesMut,
    tag: u8,
    kind: Kind,
    name: &[u8],
) -> Result<(), WireError> {
    message(out, tag, |out| {
        out.put_u8(kind.as_byte());
        put_cstr(out, name)
    })
}

/// Execute (`E`): String portal, Int32 most rows to return (0 and below: all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Name of the portal; empty for the unnamed one.
    pub portal: &'a [u8],
    /// Most rows; 0 and below mean no limit.
    pub max_rows: i32,
}

impl<'a> Execute<'a> {
    /// Errors: [`WireError::NoTerminator`], [`WireError::Truncated`],
    /// [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Execute<'a>, WireError> {
        let mut reader = Reader::new(body);
        let execute = Execute {
            portal: reader.take_cstr()?,
            max_rows: reader.take_i32()?,
        };
        reader.expect_end()?;
        Ok(execute)
    }

    /// Appends the message. Errors: [`WireError::EmbeddedNul`].
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        message(out, tag::EXECUTE, |out| {
            put_cstr(out, self.portal)?;
            out.put_i32(self.max_rows);
            Ok(())
        })
    }
}

/// FunctionCall (`F`): Int32 function OID, format codes of the arguments, the
/// arguments, Int16 format of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// OID of the function.
    pub oid: u32,
    /// Formats of the arguments.
    pub argument_formats: Formats<'a>,
    /// The arguments.
    pub arguments: Values<'a>,
    /// Format of the result.
    pub result_format: i16,
}

impl<'a> FunctionCall<'a> {
    /// Errors: [`WireError::Truncated`], [`WireError::BadValue`],
    /// [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<FunctionCall<'a>, WireError> {
        let mut reader = Reader::new(body);
        let call = FunctionCall {
            oid: reader.take_u32()?,
            argument_formats: Formats::take(&mut reader)?,
            arguments: Values::take(&mut reader)?,
            result_format: reader.take_i16()?,
        };
        reader.expect_end()?;
        Ok(call)
    }
}

/// Appends a FunctionCall. Errors: [`WireError::TooLong`].
pub fn function_call(
    out: &mut BytesMut,
    oid: u32,
    argument_formats: &[i16],
    arguments: &[Option<&[u8]>],
    result_format: i16,
) -> Result<(), WireError> {
    message(out, tag::FUNCTION_CALL, |out| {
        out.put_u32(oid);
        put_formats(out, argument_formats)?;
        put_values(out, arguments.iter().copied())?;
        out.put_i16(result_format);
        Ok(())
    })
}

/// Appends a Sync.
pub fn sync(out: &mut BytesMut) {
    out.put_slice(b"S\0\0\0\x04");
}

/// Appends a Flush.
pub fn flush(out: &mut BytesMut) {
    out.put_slice(b"H\0\0\0\x04");
}

/// Appends a Terminate.
pub fn terminate(out: &mut BytesMut) {
    out.put_slice(b"X\0\0\0\x04");
}

/// Appends a CopyDone (the same bytes in both directions).
pub fn copy_done(out: &mut BytesMut) {
    out.put_slice(b"c\0\0\0\x04");
}

/// Appends a CopyData (the same bytes in both directions).
/// Errors: [`WireError::TooLong`].
pub fn copy_data(out: &mut BytesMut, data: &[u8]) -> Result<(), WireError> {
    message(out, tag::COPY_DATA, |out| {
        out.put_slice(data);
        Ok(())
    })
}

/// Appends a CopyFail with a reason. Errors: [`WireError::EmbeddedNul`].
pub fn copy_fail(out: &mut BytesMut, reason: &[u8]) -> Result<(), WireError> {
    message(out, tag::COPY_FAIL, |out| put_cstr(out, reason))
}

/// Appends a PasswordMessage (`p`): one String. Errors: [`WireError::EmbeddedNul`].
pub fn password(out: &mut BytesMut, password: &[u8]) -> Result<(), WireError> {
    message(out, tag::PASSWORD, |out| put_cstr(out, password))
}

/// Decodes a PasswordMessage. Errors: [`WireError::NoTerminator`],
/// [`WireError::Trailing`].
pub fn decode_password(body: &[u8]) -> Result<&[u8], WireError> {
    one_string(body)
}

/// SASLInitialResponse (`p`): String mechanism, Int32 length (−1: none), data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism that the client chose.
    pub mechanism: &'a [u8],
    /// What the mechanism says first; `None` where it lets the server speak first.
    pub data: Option<&'a [u8]>,
}

impl<'a> SaslInitialResponse<'a> {
    /// Errors: [`WireError::NoTerminator`], [`WireError::Truncated`],
    /// [`WireError::BadValue`], [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<SaslInitialResponse<'a>, WireError> {
        let mut reader = Reader::new(body);
        let response = SaslInitialResponse {
            mechanism: reader.take_cstr()?,
            data: reader.take_value()?,
        };
        reader.expect_end()?;
        Ok(response)
    }

    /// Appends the message. Errors: [`WireError::EmbeddedNul`], [`WireError::TooLong`].
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), WireError> {
        message(out, tag::PASSWORD, |out| {
            put_cstr(out, self.mechanism)?;
            super::encode::put_value(out, self.data)
        })
    }
}

/// Appends a SASLResponse (`p`): the mechanism's data is the whole body.
/// Errors: [`WireError::TooLong`].
pub fn sasl_response(out: &mut BytesMut, data: &[u8]) -> Result<(), WireError> {
    message(out, tag::PASSWORD, |out| {
        out.put_slice(data);
        Ok(())
    })
}
