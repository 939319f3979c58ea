//! A reader over one message body that cannot step outside it.

use crate::error::WireError;

/// Reads fields off the front of a body. Every method either takes its whole
/// field or returns an error and leaves the position where it was.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `body`.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Reader<'a> {
        Reader { rest: body }
    }

    /// Bytes not yet taken.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Takes `count` bytes. Errors: [`WireError::Truncated`].
    pub fn take_bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(WireError::Truncated {
                wanted: count,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(WireError::Truncated {
                wanted: N,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes a Byte1. Errors: [`WireError::Truncated`].
    pub fn take_u8(&mut self) -> Result<u8, WireError> {
        self.take_array::<1>().map(|[byte]| byte)
    }

    /// Takes an Int16. Errors: [`WireError::Truncated`].
    pub fn take_i16(&mut self) -> Result<i16, WireError> {
        self.take_array().map(i16::from_be_bytes)
    }

    /// Takes an Int16 that the server reads as unsigned, as it does all counts.
    /// Errors: [`WireError::Truncated`].
    pub fn take_u16(&mut self) -> Result<u16, WireError> {
        self.take_array().map(u16::from_be_bytes)
    }

    /// Takes an Int32. Errors: [`WireError::Truncated`].
    pub fn take_i32(&mut self) -> Result<i32, WireError> {
        self.take_array().map(i32::from_be_bytes)
    }

    /// Takes an Int32 that holds an unsigned value (OIDs, process ids).
    /// Errors: [`WireError::Truncated`].
    pub fn take_u32(&mut self) -> Result<u32, WireError> {
        self.take_array().map(u32::from_be_bytes)
    }

    /// Takes a String: bytes up to a zero byte, which is taken and not returned.
    /// Errors: [`WireError::NoTerminator`].
    pub fn take_cstr(&mut self) -> Result<&'a [u8], WireError> {
        let end = memchr::memchr(0, self.rest).ok_or(WireError::NoTerminator)?;
        let text = self.take_bytes(end)?;
        self.take_u8()?;
        Ok(text)
    }

    /// Takes a value: Int32 length that does not count itself, −1 for NULL, then
    /// that many bytes. Errors: [`WireError::Truncated`]; [`WireError::BadValue`]
    /// for lengths below −1.
    pub fn take_value(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        let before = self.rest;
        let taken = match self.take_i32()? {
            -1 => return Ok(None),
            length => usize::try_from(length)
                .map_err(|_| WireError::BadValue {
                    field: "value length",
                })
                .and_then(|length| self.take_bytes(length)),
        };
        if taken.is_err() {
            self.rest = before;
        }
        taken.map(Some)
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Requires that nothing is left. Errors: [`WireError::Trailing`].
    pub fn expect_end(&self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(WireError::Trailing { left }),
        }
    }
}
