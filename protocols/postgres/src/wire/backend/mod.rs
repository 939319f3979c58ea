//! Backend messages: what a server sends, before and after login.
//!
//! Decoders borrow from the body; a decoder stands next to its encoder. Bytes after
//! the last field are refused. Source: PostgreSQL documentation, "Message Formats".

mod authentication;
mod copy;
mod report;
mod rows;
mod simple;

pub use authentication::{
    Authentication, authentication_cleartext_password, authentication_md5_password,
    authentication_ok, authentication_sasl, authentication_sasl_continue,
    authentication_sasl_final,
};
pub use copy::{CopyResponse, copy_response};
pub use report::{Report, ReportBuilder, Severity};
pub use rows::{Field, RowDescription, data_row, row_description};
pub use simple::{
    BackendKeyData, NegotiateProtocolVersion, Notification, ParameterStatus, SECRET_KEY_BYTES,
    backend_key_data, bind_complete, close_complete, command_complete, empty_query_response,
    function_call_response, negotiate_protocol_version, no_data, notification,
    parameter_description, parameter_status, parse_complete, portal_suspended, ready_for_query,
};

use super::{Oids, Reader, Values};
use crate::error::WireError;

/// Type bytes of backend messages.
pub mod tag {
    /// Authentication*.
    pub const AUTHENTICATION: u8 = b'R';
    /// BackendKeyData.
    pub const BACKEND_KEY_DATA: u8 = b'K';
    /// BindComplete.
    pub const BIND_COMPLETE: u8 = b'2';
    /// CloseComplete.
    pub const CLOSE_COMPLETE: u8 = b'3';
    /// CommandComplete.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// CopyBothResponse.
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    /// CopyData (both directions).
    pub const COPY_DATA: u8 = b'd';
    /// CopyDone (both directions).
    pub const COPY_DONE: u8 = b'c';
    /// CopyInResponse.
    pub const COPY_IN_RESPONSE: u8 = b'G';
    /// CopyOutResponse.
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    /// DataRow.
    pub const DATA_ROW: u8 = b'D';
    /// EmptyQueryResponse.
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    /// ErrorResponse.
    pub const ERROR_RESPONSE: u8 = b'E';
    /// FunctionCallResponse.
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    /// NegotiateProtocolVersion.
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    /// NoData.
    pub const NO_DATA: u8 = b'n';
    /// NoticeResponse.
    pub const NOTICE_RESPONSE: u8 = b'N';
    /// NotificationResponse.
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    /// ParameterDescription.
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    /// ParameterStatus.
    pub const PARAMETER_STATUS: u8 = b'S';
    /// ParseComplete.
    pub const PARSE_COMPLETE: u8 = b'1';
    /// PortalSuspended.
    pub const PORTAL_SUSPENDED: u8 = b's';
    /// ReadyForQuery.
    pub const READY_FOR_QUERY: u8 = b'Z';
    /// RowDescription.
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// Any backend message, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendMessage<'a> {
    /// Authentication*.
    Authentication(Authentication<'a>),
    /// BackendKeyData.
    BackendKeyData(BackendKeyData<'a>),
    /// BindComplete.
    BindComplete,
    /// CloseComplete.
    CloseComplete,
    /// CommandComplete: the command tag.
    CommandComplete(&'a [u8]),
    /// CopyInResponse.
    CopyInResponse(CopyResponse<'a>),
    /// CopyOutResponse.
    CopyOutResponse(CopyResponse<'a>),
    /// CopyBothResponse.
    CopyBothResponse(CopyResponse<'a>),
    /// CopyData: the body as it is.
    CopyData(&'a [u8]),
    /// CopyDone.
    CopyDone,
    /// DataRow.
    DataRow(Values<'a>),
    /// EmptyQueryResponse.
    EmptyQueryResponse,
    /// ErrorResponse.
    ErrorResponse(Report<'a>),
    /// FunctionCallResponse: the value, `None` for NULL.
    FunctionCallResponse(Option<&'a [u8]>),
    /// NegotiateProtocolVersion.
    NegotiateProtocolVersion(NegotiateProtocolVersion<'a>),
    /// NoData.
    NoData,
    /// NoticeResponse.
    NoticeResponse(Report<'a>),
    /// NotificationResponse.
    Notification(Notification<'a>),
    /// ParameterDescription.
    ParameterDescription(Oids<'a>),
    /// ParameterStatus.
    ParameterStatus(ParameterStatus<'a>),
    /// ParseComplete.
    ParseComplete,
    /// PortalSuspended.
    PortalSuspended,
    /// ReadyForQuery: the transaction status, `I`, `T` or `E`.
    ReadyForQuery(u8),
    /// RowDescription.
    RowDescription(RowDescription<'a>),
}

/// Decodes a message body by its type byte. Errors: [`WireError::UnknownTag`] and
/// those of the message.
pub fn decode(tag: u8, body: &[u8]) -> Result<BackendMessage<'_>, WireError> {
    use BackendMessage as M;
    Ok(match tag {
        tag::AUTHENTICATION => M::Authentication(Authentication::decode(body)?),
        tag::BACKEND_KEY_DATA => M::BackendKeyData(BackendKeyData::decode(body)?),
        tag::BIND_COMPLETE => empty(body, M::BindComplete)?,
        tag::CLOSE_COMPLETE => empty(body, M::CloseComplete)?,
        tag::COMMAND_COMPLETE => M::CommandComplete(decode_command_complete(body)?),
        tag::COPY_IN_RESPONSE => M::CopyInResponse(CopyResponse::decode(body)?),
        tag::COPY_OUT_RESPONSE => M::CopyOutResponse(CopyResponse::decode(body)?),
        tag::COPY_BOTH_RESPONSE => M::CopyBothResponse(CopyResponse::decode(body)?),
        tag::COPY_DATA => M::CopyData(body),
        tag::COPY_DONE => empty(body, M::CopyDone)?,
        tag::DATA_ROW => M::DataRow(decode_data_row(body)?),
        tag::EMPTY_QUERY_RESPONSE => empty(body, M::EmptyQueryResponse)?,
        tag::ERROR_RESPONSE => M::ErrorResponse(Report::decode(body)?),
        tag::FUNCTION_CALL_RESPONSE => {
            M::FunctionCallResponse(decode_function_call_response(body)?)
        }
        tag::NEGOTIATE_PROTOCOL_VERSION => {
            M::NegotiateProtocolVersion(NegotiateProtocolVersion::decode(body)?)
        }
        tag::NO_DATA => empty(body, M::NoData)?,
        tag::NOTICE_RESPONSE => M::NoticeResponse(Report::decode(body)?),
        tag::NOTIFICATION_RESPONSE => M::Notification(Notification::decode(body)?),
        tag::PARAMETER_DESCRIPTION => M::ParameterDescription(decode_parameter_description(body)?),
        tag::PARAMETER_STATUS => M::ParameterStatus(ParameterStatus::decode(body)?),
        tag::PARSE_COMPLETE => empty(body, M::ParseComplete)?,
        tag::PORTAL_SUSPENDED => empty(body, M::PortalSuspended)?,
        tag::READY_FOR_QUERY => M::ReadyForQuery(decode_ready_for_query(body)?),
        tag::ROW_DESCRIPTION => M::RowDescription(RowDescription::decode(body)?),
        tag => return Err(WireError::UnknownTag { tag }),
    })
}

fn empty<'a>(body: &[u8], decoded: BackendMessage<'a>) -> Result<BackendMessage<'a>, WireError> {
    Reader::new(body).expect_end()?;
    Ok(decoded)
}

/// CommandComplete (`C`): one String, the command tag (`SELECT 1`).
/// Errors: [`WireError::NoTerminator`], [`WireError::Trailing`].
pub fn decode_command_complete(body: &[u8]) -> Result<&[u8], WireError> {
    let mut reader = Reader::new(body);
    let tag = reader.take_cstr()?;
    reader.expect_end()?;
    Ok(tag)
}

/// DataRow (`D`): the values of one row.
/// Errors: those of [`Values::take`], [`WireError::Trailing`].
pub fn decode_data_row(body: &[u8]) -> Result<Values<'_>, WireError> {
    let mut reader = Reader::new(body);
    let values = Values::take(&mut reader)?;
    reader.expect_end()?;
    Ok(values)
}

/// FunctionCallResponse (`V`): one value.
/// Errors: those of [`Reader::take_value`], [`WireError::Trailing`].
pub fn decode_function_call_response(body: &[u8]) -> Result<Option<&[u8]>, WireError> {
    let mut reader = Reader::new(body);
    let value = reader.take_value()?;
    reader.expect_end()?;
    Ok(value)
}

/// ParameterDescription (`t`): type OIDs of a statement's parameters.
/// Errors: [`WireError::Truncated`], [`WireError::Trailing`].
pub fn decode_parameter_description(body: &[u8]) -> Result<Oids<'_>, WireError> {
    let mut reader = Reader::new(body);
    let oids = Oids::take(&mut reader)?;
    reader.expect_end()?;
    Ok(oids)
}

/// ReadyForQuery (`Z`): Byte1 transaction status: `I` idle, `T` in a transaction, `E`
/// in a failed one. Errors: [`WireError::BadValue`] for anything else,
/// [`WireError::Truncated`], [`WireError::Trailing`].
pub fn decode_ready_for_query(body: &[u8]) -> Result<u8, WireError> {
    let mut reader = Reader::new(body);
    let status = reader.take_u8()?;
    reader.expect_end()?;
    match status {
        b'I' | b'T' | b'E' => Ok(status),
        _ => Err(WireError::BadValue {
            field: "transaction status",
        }),
    }
}
