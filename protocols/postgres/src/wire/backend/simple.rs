//! Backend messages of one or two fields, and those that are only a type byte.

use bytes::{BufMut, BytesMut};

use super::tag;
use crate::error::WireError;
use crate::wire::Reader;
use crate::wire::encode::{message, put_count, put_cstr, put_value};

/// Fewest and most bytes of a cancel key: 4 in protocol 3.0, up to 256 from 3.2 on.
pub const SECRET_KEY_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// BackendKeyData (`K`): Int32 process id, then the secret key, 4 to 256 bytes to the
/// end of the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BackendKeyData<'a> {
    /// Process id of the backend.
    pub process_id: u32,
    /// The key that a CancelRequest must bring.
    pub secret_key: &'a [u8],
}

impl std::fmt::Debug for BackendKeyData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendKeyData")
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

impl<'a> BackendKeyData<'a> {
    /// Errors: [`WireError::Truncated`]; [`WireError::BadValue`] for a key of a length
    /// outside [`SECRET_KEY_BYTES`].
    pub fn decode(body: &'a [u8]) -> Result<BackendKeyData<'a>, WireError> {
        let mut reader = Reader::new(body);
        let process_id = reader.take_u32()?;
        let secret_key = reader.rest();
        if !SECRET_KEY_BYTES.contains(&secret_key.len()) {
            return Err(WireError::BadValue {
                field: "secret key",
            });
        }
        Ok(BackendKeyData {
            process_id,
            secret_key,
        })
    }
}

/// Appends a BackendKeyData. Errors: [`WireError::BadValue`] for a key of a length
/// outside [`SECRET_KEY_BYTES`].
pub fn backend_key_data(
    out: &mut BytesMut,
    process_id: u32,
    secret_key: &[u8],
) -> Result<(), WireError> {
    if !SECRET_KEY_BYTES.contains(&secret_key.len()) {
        return Err(WireError::BadValue {
            field: "secret key",
        });
    }
    message(out, tag::BACKEND_KEY_DATA, |out| {
        out.put_u32(process_id);
        out.put_slice(secret_key);
        Ok(())
    })
}

/// ParameterStatus (`S`): String name, String value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    /// Name of the setting.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> ParameterStatus<'a> {
    /// Errors: [`WireError::NoTerminator`], [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<ParameterStatus<'a>, WireError> {
        let mut reader = Reader::new(body);
        let status = ParameterStatus {
            name: reader.take_cstr()?,
            value: reader.take_cstr()?,
        };
        reader.expect_end()?;
        Ok(status)
    }
}

/// Appends a ParameterStatus. Errors: [`WireError::EmbeddedNul`].
pub fn parameter_status(out: &mut BytesMut, name: &[u8], value: &[u8]) -> Result<(), WireError> {
    message(out, tag::PARAMETER_STATUS, |out| {
        put_cstr(out, name)?;
        put_cstr(out, value)
    })
}

/// NotificationResponse (`A`): Int32 process id of the notifier, String channel, String
/// payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// Process id of the backend that notified.
    pub process_id: u32,
    /// Name of the channel.
    pub channel: &'a [u8],
    /// The payload; empty when none was given.
    pub payload: &'a [u8],
}

impl<'a> Notification<'a> {
    /// Errors: [`WireError::Truncated`], [`WireError::NoTerminator`],
    /// [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<Notification<'a>, WireError> {
        let mut reader = Reader::new(body);
        let notification = Notification {
            process_id: reader.take_u32()?,
            channel: reader.take_cstr()?,
            payload: reader.take_cstr()?,
        };
        reader.expect_end()?;
        Ok(notification)
    }
}

/// Appends a NotificationResponse. Errors: [`WireError::EmbeddedNul`].
pub fn notification(
    out: &mut BytesMut,
    process_id: u32,
    channel: &[u8],
    payload: &[u8],
) -> Result<(), WireError> {
    message(out, tag::NOTIFICATION_RESPONSE, |out| {
        out.put_u32(process_id);
        put_cstr(out, channel)?;
        put_cstr(out, payload)
    })
}

/// NegotiateProtocolVersion (`v`): Int32 newest version supported, Int32 count of
/// protocol options that were not recognised, that many Strings.
///
/// The documentation speaks of the newest *minor* version; servers send the whole
/// version number (3 in the upper 16 bits), and libpq reads it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NegotiateProtocolVersion<'a> {
    /// The version as sent: major in the upper 16 bits, minor in the lower.
    pub version: u32,
    count: u32,
    raw: &'a [u8],
}

impl<'a> NegotiateProtocolVersion<'a> {
    /// Errors: [`WireError::Truncated`], [`WireError::NoTerminator`],
    /// [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<NegotiateProtocolVersion<'a>, WireError> {
        let mut reader = Reader::new(body);
        let version = reader.take_u32()?;
        let count = reader.take_u32()?;
        let raw = reader.clone().rest();
        for _ in 0..count {
            // A lying count ends here as soon as the bytes do.
            reader.take_cstr()?;
        }
        reader.expect_end()?;
        Ok(NegotiateProtocolVersion {
            version,
            count,
            raw,
        })
    }

    /// Names of the options that the server does not know.
    pub fn options(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.raw);
        (0..self.count).map_while(move |_| reader.take_cstr().ok())
    }
}

/// Appends a NegotiateProtocolVersion. Errors: [`WireError::EmbeddedNul`],
/// [`WireError::TooLong`].
pub fn negotiate_protocol_version(
    out: &mut BytesMut,
    version: u32,
    options: &[&[u8]],
) -> Result<(), WireError> {
    message(out, tag::NEGOTIATE_PROTOCOL_VERSION, |out| {
        out.put_u32(version);
        out.put_u32(u32::try_from(options.len()).map_err(|_| WireError::TooLong)?);
        options.iter().try_for_each(|option| put_cstr(out, option))
    })
}

/// Appends a ReadyForQuery with status `I`, `T` or `E`.
pub fn ready_for_query(out: &mut BytesMut, status: u8) {
    debug_assert!(matches!(status, b'I' | b'T' | b'E'));
    out.put_slice(b"Z\0\0\0\x05");
    out.put_u8(status);
}

/// Appends a CommandComplete. Errors: [`WireError::EmbeddedNul`].
pub fn command_complete(out: &mut BytesMut, command_tag: &[u8]) -> Result<(), WireError> {
    message(out, tag::COMMAND_COMPLETE, |out| put_cstr(out, command_tag))
}

/// Appends a FunctionCallResponse. Errors: [`WireError::TooLong`].
pub fn function_call_response(out: &mut BytesMut, value: Option<&[u8]>) -> Result<(), WireError> {
    message(out, tag::FUNCTION_CALL_RESPONSE, |out| {
        put_value(out, value)
    })
}

/// Appends a ParameterDescription. Errors: [`WireError::TooLong`].
pub fn parameter_description(out: &mut BytesMut, oids: &[u32]) -> Result<(), WireError> {
    message(out, tag::PARAMETER_DESCRIPTION, |out| {
        put_count(out, oids.len())?;
        for oid in oids {
            out.put_u32(*oid);
        }
        Ok(())
    })
}

/// Appends a ParseComplete.
pub fn parse_complete(out: &mut BytesMut) {
    out.put_slice(b"1\0\0\0\x04");
}

/// Appends a BindComplete.
pub fn bind_complete(out: &mut BytesMut) {
    out.put_slice(b"2\0\0\0\x04");
}

/// Appends a CloseComplete.
pub fn close_complete(out: &mut BytesMut) {
    out.put_slice(b"3\0\0\0\x04");
}

/// Appends a NoData.
pub fn no_data(out: &mut BytesMut) {
    out.put_slice(b"n\0\0\0\x04");
}

/// Appends a PortalSuspended.
pub fn portal_suspended(out: &mut BytesMut) {
    out.put_slice(b"s\0\0\0\x04");
}

/// Appends an EmptyQueryResponse.
pub fn empty_query_response(out: &mut BytesMut) {
    out.put_slice(b"I\0\0\0\x04");
}
