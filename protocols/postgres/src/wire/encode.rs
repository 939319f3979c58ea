//! What all encoders share: a message whose length is filled in when it is done.

use bytes::{BufMut, BytesMut};

use crate::error::WireError;

/// Appends one typed message to `out`: type byte, length, and what `body` writes.
///
/// Errors: whatever `body` returns, or [`WireError::TooLong`] when the message
/// outgrows Int32; `out` is then as it was before.
pub fn message(
    out: &mut BytesMut,
    tag: u8,
    body: impl FnOnce(&mut BytesMut) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    out.put_u8(tag);
    let result = counted(out, body);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends an Int32 that counts itself and what `body` writes: the untyped shape of
/// start-up packets. Errors: as [`message`]; `out` is then as it was before.
pub fn counted(
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    out.put_i32(0);
    let result = body(out).and_then(|()| {
        let length = out.len().saturating_sub(start);
        let length = i32::try_from(length).map_err(|_| WireError::TooLong)?;
        if let Some(place) = out.get_mut(start..start.saturating_add(4)) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends `text` and a zero byte. Errors: [`WireError::EmbeddedNul`].
pub fn put_cstr(out: &mut BytesMut, text: &[u8]) -> Result<(), WireError> {
    if memchr::memchr(0, text).is_some() {
        return Err(WireError::EmbeddedNul);
    }
    out.put_slice(text);
    out.put_u8(0);
    Ok(())
}

/// Appends an Int16 count. Errors: [`WireError::TooLong`] beyond 65 535.
pub fn put_count(out: &mut BytesMut, count: usize) -> Result<(), WireError> {
    out.put_u16(u16::try_from(count).map_err(|_| WireError::TooLong)?);
    Ok(())
}

/// Appends a value: Int32 length (−1 for `None`) and the bytes.
/// Errors: [`WireError::TooLong`].
pub fn put_value(out: &mut BytesMut, value: Option<&[u8]>) -> Result<(), WireError> {
    match value {
        None => out.put_i32(-1),
        Some(bytes) => {
            out.put_i32(i32::try_from(bytes.len()).map_err(|_| WireError::TooLong)?);
            out.put_slice(bytes);
        }
    }
    Ok(())
}

/// Appends an Int16 count and the values. Errors: [`WireError::TooLong`].
pub fn put_values<'v>(
    out: &mut BytesMut,
    values: impl ExactSizeIterator<Item = Option<&'v [u8]>>,
) -> Result<(), WireError> {
    put_count(out, values.len())?;
    for value in values {
        put_value(out, value)?;
    }
    Ok(())
}

/// Appends an Int16 count and the Int16 codes. Errors: [`WireError::TooLong`].
pub fn put_formats(out: &mut BytesMut, formats: &[i16]) -> Result<(), WireError> {
    put_count(out, formats.len())?;
    for format in formats {
        out.put_i16(*format);
    }
    Ok(())
}
