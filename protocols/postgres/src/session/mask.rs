//! Masks whole backend messages: takes them apart, asks the content about each value,
//! puts them together again with right lengths.
//!
//! What is masked: values of DataRow and FunctionCallResponse; column names; the command
//! tag; channel and payload of notifications; name and value of settings; all fields of
//! errors and notices but `S V C P p F L R`, which are codes, positions and places in the
//! server's source.
//!
//! **Text stays text.** A placeholder in the text form of an array or record (`{a,b}`) needs
//! no quotes, since it has no comma, brace, quote, backslash or blank; in JSON it stands
//! inside the string that held the secret. A typed text value (an integer, say) can only
//! become a placeholder if its digits are the secret. A **binary** value gets fill of the
//! same length, so that lengths inside it stay right.

use bytes::{BufMut, BytesMut};

use super::content::{Content, Fill};
use crate::error::WireError;
use crate::wire::backend::{Notification, ParameterStatus, Report, RowDescription};
use crate::wire::encode::{message, put_count, put_cstr, put_value};
use crate::wire::{Formats, Values};

/// Format of the values of a row, as far as one word can say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// All text.
    Text,
    /// All binary.
    Binary,
    /// Mixed, or not known.
    Unknown,
}

impl Format {
    /// From the codes of a message; codes the protocol does not know are the server's to
    /// refuse.
    pub(super) fn of(formats: Formats<'_>) -> Format {
        Format::of_all(formats.iter())
    }

    pub(super) fn of_all(mut codes: impl Iterator<Item = i16>) -> Format {
        let Some(first) = codes.next() else {
            return Format::Text;
        };
        if !codes.all(|code| code == first) {
            return Format::Unknown;
        }
        match first {
            0 => Format::Text,
            1 => Format::Binary,
            _ => Format::Unknown,
        }
    }

    /// A text value never holds a zero byte, whatever was announced. Where nothing was,
    /// what is not UTF-8 counts as binary.
    fn fill(self, value: &[u8]) -> Fill {
        let placeholder = match self {
            Format::Binary => false,
            Format::Text => memchr::memchr(0, value).is_none(),
            Format::Unknown => {
                memchr::memchr(0, value).is_none() && std::str::from_utf8(value).is_ok()
            }
        };
        if placeholder {
            Fill::Placeholder
        } else {
            Fill::SameLength
        }
    }
}

/// What went wrong while a message was masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MaskFault {
    /// The re-made message cannot be written.
    Encode(WireError),
    /// Fill of the same length had another length.
    Length,
}

impl From<WireError> for MaskFault {
    fn from(error: WireError) -> MaskFault {
        MaskFault::Encode(error)
    }
}

/// Masks one value and counts it.
fn value<C: Content>(
    content: &mut C,
    value: &[u8],
    fill: Fill,
    masked: &mut u64,
) -> Result<Option<Vec<u8>>, MaskFault> {
    let changed = content.mask_value(value, fill);
    if let Some(new) = &changed {
        if fill == Fill::SameLength && new.len() != value.len() {
            return Err(MaskFault::Length);
        }
        *masked = masked.saturating_add(1);
    }
    Ok(changed)
}

fn text<C: Content>(
    content: &mut C,
    part: &[u8],
    masked: &mut u64,
) -> Result<Option<Vec<u8>>, MaskFault> {
    value(content, part, Fill::Placeholder, masked)
}

/// Runs `body`, which may fail with a [`MaskFault`], inside one message.
fn framed(
    out: &mut BytesMut,
    tag: u8,
    body: impl FnOnce(&mut BytesMut) -> Result<(), MaskFault>,
) -> Result<(), MaskFault> {
    let mut length_fault = false;
    let result = message(out, tag, |out| match body(out) {
        Ok(()) => Ok(()),
        Err(MaskFault::Encode(error)) => Err(error),
        Err(MaskFault::Length) => {
            length_fault = true;
            Err(WireError::TooLong)
        }
    });
    if length_fault {
        Err(MaskFault::Length)
    } else {
        Ok(result?)
    }
}

/// DataRow.
pub(super) fn data_row<C: Content>(
    content: &mut C,
    values: Values<'_>,
    format: Format,
    out: &mut BytesMut,
) -> Result<u64, MaskFault> {
    let mut masked = 0;
    framed(out, b'D', |out| {
        put_count(out, values.len())?;
        for part in values.iter() {
            let Some(part) = part else {
                put_value(out, None)?;
                continue;
            };
            let new = value(content, part, format.fill(part), &mut masked)?;
            put_value(out, Some(new.as_deref().unwrap_or(part)))?;
        }
        Ok(())
    })?;
    Ok(masked)
}

/// FunctionCallResponse with a value.
pub(super) fn function_result<C: Content>(
    content: &mut C,
    part: &[u8],
    format: Format,
    out: &mut BytesMut,
) -> Result<u64, MaskFault> {
    let mut masked = 0;
    framed(out, b'V', |out| {
        let new = value(content, part, format.fill(part), &mut masked)?;
        Ok(put_value(out, Some(new.as_deref().unwrap_or(part)))?)
    })?;
    Ok(masked)
}

/// One whole CopyData that is a value of its own.
pub(super) fn copy_data<C: Content>(
    content: &mut C,
    data: &[u8],
    binary: bool,
    out: &mut BytesMut,
) -> Result<u64, MaskFault> {
    let mut masked = 0;
    let fill = if binary {
        Fill::SameLength
    } else {
        Fill::Placeholder
    };
    framed(out, b'd', |out| {
        let new = value(content, data, fill, &mut masked)?;
        out.put_slice(new.as_deref().unwrap_or(data));
        Ok(())
    })?;
    Ok(masked)
}

/// RowDescription: the names.
pub(super) fn row_description<C: Content>(
    content: &mut C,
    description: RowDescription<'_>,
    out: &mut BytesMut,
) -> Result<u64, MaskFault> {
    let mut masked = 0;
    framed(out, b'T', |out| {
        put_count(out, description.len())?;
        for field in description.fields() {
            let name = text(content, field.name, &mut masked)?;
            put_cstr(out, name.as_deref().unwrap_or(field.name))?;
            out.put_u32(field.table_oid);
            out.put_i16(field.attribute);
            out.put_u32(field.type_oid);
            out.put_i16(field.type_size);
            out.put_i32(field.type_modifier);
            out.put_i16(field.format);
        }
        Ok(())
    })?;
    Ok(masked)
}

/// ErrorResponse (`E`) or NoticeResponse (`N`).
pub(super) fn report<C: Content>(
    content: &mut C,
    tag: u8,
    report: Report<'_>,
    out: &mut BytesMut,
) -> Result<u64, MaskFault> {
    let mut masked = 0;
    framed(out, tag, |out| {
        for (code, part) in report.fields() {
            out.put_u8(code);
            let new = match code {
                b'S' | b'V' | b'C' | b'P' | b'p' | b'F' | b'L' | b'R' => None,
                _ => text(content, part, &mut masked)?,
            };
            put_cstr(out, new.as_deref().unwrap_or(part))?;
        }
        out.put_u8(0);
        Ok(())
    })?;
    Ok(masked)
}

/// NotificationResponse.
pub(super) fn notification<C: Content>(
    content: &mut C,
    notification: Notification<'_>,
    out: &mut BytesMut,
) -> Result<u64, MaskFault> {
    let mut masked = 0;
    framed(out, b'A', |out| {
        out.put_u32(notification.process_id);
        for part in [notification.channel, notification.payload] {
            let new = text(content, part, &mut masked)?;
            put_cstr(out, new.as_deref().unwrap_or(part))?;
        }
        Ok(())
    })?;
    Ok(masked)
}

/// ParameterStatus.
pub(super) fn parameter_status<C: Content>(
    content: &mut C,
    status: ParameterStatus<'_>,
    out: &mut BytesMut,
) -> Result<u64, MaskFault> {
    let mut masked = 0;
    framed(out, b'S', |out| {
        for part in [status.name, status.value] {
            let new = text(content, part, &mut masked)?;
            put_cstr(out, new.as_deref().unwrap_or(part))?;
        }
        Ok(())
    })?;
    Ok(masked)
}

/// CommandComplete.
pub(super) fn command_complete<C: Content>(
    content: &mut C,
    command_tag: &[u8],
    out: &mut BytesMut,
) -> Result<u64, MaskFault> {
    let mut masked = 0;
    framed(out, b'C', |out| {
        let new = text(content, command_tag, &mut masked)?;
        Ok(put_cstr(out, new.as_deref().unwrap_or(command_tag))?)
    })?;
    Ok(masked)
}
