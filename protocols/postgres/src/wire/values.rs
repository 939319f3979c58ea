//! Counted lists inside messages: values, format codes, OIDs.
//!
//! Each is a view over the bytes of the message, checked whole when it is taken, so
//! that iterating needs no error. Nothing is allocated for an announced count.

use super::Reader;
use crate::error::WireError;

/// Values of a Bind, DataRow or FunctionCall.
///
/// Shape: Int16 count (read unsigned, as the server does), then per value an Int32
/// length that does not count itself (−1 means NULL) and that many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Values<'a> {
    count: u16,
    raw: &'a [u8],
}

impl<'a> Values<'a> {
    /// Takes count and values off `reader` and checks every length.
    /// Errors: those of [`Reader::take_value`].
    pub fn take(reader: &mut Reader<'a>) -> Result<Values<'a>, WireError> {
        let count = reader.take_u16()?;
        let mut scan = reader.clone();
        for _ in 0..count {
            scan.take_value()?;
        }
        let raw = reader.take_bytes(reader.left().saturating_sub(scan.left()))?;
        Ok(Values { count, raw })
    }

    /// How many values there are, NULLs among them.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// True when there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in order; `None` is NULL.
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let mut reader = Reader::new(self.raw);
        let count = self.count;
        (0..count).map_while(move |_| reader.take_value().ok())
    }
}

/// Format codes: 0 text, 1 binary.
///
/// Shape: Int16 count, then that many Int16. No code means text for all, one code
/// holds for all, otherwise one per value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats<'a> {
    raw: &'a [[u8; 2]],
}

impl<'a> Formats<'a> {
    /// Takes count and codes off `reader`. Errors: [`WireError::Truncated`].
    pub fn take(reader: &mut Reader<'a>) -> Result<Formats<'a>, WireError> {
        let count = usize::from(reader.take_u16()?);
        let bytes = reader.take_bytes(count.saturating_mul(2))?;
        let (raw, _) = bytes.as_chunks::<2>();
        Ok(Formats { raw })
    }

    /// How many codes were sent (not how many values they speak of).
    #[must_use]
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// True when no code was sent, which means text for all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The format of value `index`: 0 text, 1 binary, or whatever else was sent;
    /// `None` where more than one code was sent, but none for this index.
    #[must_use]
    pub fn of(&self, index: usize) -> Option<i16> {
        match self.raw {
            [] => Some(0),
            [code] => Some(i16::from_be_bytes(*code)),
            codes => codes.get(index).map(|code| i16::from_be_bytes(*code)),
        }
    }

    /// The codes as they were sent.
    pub fn iter(&self) -> impl Iterator<Item = i16> + use<'a> {
        self.raw.iter().map(|code| i16::from_be_bytes(*code))
    }
}

/// Object identifiers of types, as in Parse and ParameterDescription; 0 means
/// unspecified. Shape: Int16 count (unsigned), then that many Int32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oids<'a> {
    raw: &'a [[u8; 4]],
}

impl<'a> Oids<'a> {
    /// Takes count and OIDs off `reader`. Errors: [`WireError::Truncated`].
    pub fn take(reader: &mut Reader<'a>) -> Result<Oids<'a>, WireError> {
        let count = usize::from(reader.take_u16()?);
        let bytes = reader.take_bytes(count.saturating_mul(4))?;
        let (raw, _) = bytes.as_chunks::<4>();
        Ok(Oids { raw })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The OIDs in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.raw.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}
