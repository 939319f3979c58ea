//! CopyInResponse (`G`), CopyOutResponse (`H`), CopyBothResponse (`W`).

use bytes::{BufMut, BytesMut};

use crate::error::WireError;
use crate::wire::encode::{message, put_formats};
use crate::wire::{Formats, Reader};

/// The start of a COPY: Int8 overall format (0 text, 1 binary), Int16 count of columns
/// and that many Int16 format codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyResponse<'a> {
    /// True when the whole COPY is binary; otherwise rows of text, one per line.
    pub binary: bool,
    /// Formats of the columns, one each.
    pub formats: Formats<'a>,
}

impl<'a> CopyResponse<'a> {
    /// Errors: [`WireError::Truncated`], [`WireError::BadValue`] for an overall format
    /// other than 0 and 1, [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<CopyResponse<'a>, WireError> {
        let mut reader = Reader::new(body);
        let binary = match reader.take_u8()? {
            0 => false,
            1 => true,
            _ => {
                return Err(WireError::BadValue {
                    field: "copy format",
                });
            }
        };
        let formats = Formats::take(&mut reader)?;
        reader.expect_end()?;
        Ok(CopyResponse { binary, formats })
    }
}

/// Appends a copy response with the given type byte. Errors: [`WireError::TooLong`].
pub fn copy_response(
    out: &mut BytesMut,
    tag: u8,
    binary: bool,
    formats: &[i16],
) -> Result<(), WireError> {
    message(out, tag, |out| {
        out.put_u8(u8::from(binary));
        put_formats(out, formats)
    })
}
