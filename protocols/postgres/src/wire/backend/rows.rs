//! RowDescription (`T`) and DataRow (`D`).

use bytes::{BufMut, BytesMut};

use super::tag;
use crate::error::WireError;
use crate::wire::Reader;
use crate::wire::encode::{message, put_count, put_cstr, put_values};

/// One column of a RowDescription: String name, Int32 table OID, Int16 attribute
/// number, Int32 type OID, Int16 type size, Int32 type modifier, Int16 format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The column's name as the statement gives it (aliases included).
    pub name: &'a [u8],
    /// OID of the table that the column is of; 0 for expressions.
    pub table_oid: u32,
    /// Attribute number within that table; 0 for expressions.
    pub attribute: i16,
    /// OID of the type.
    pub type_oid: u32,
    /// `pg_type.typlen`; negative for variable lengths.
    pub type_size: i16,
    /// Type modifier.
    pub type_modifier: i32,
    /// 0 text, 1 binary; always 0 when a statement (not a portal) is described.
    pub format: i16,
}

impl<'a> Field<'a> {
    fn take(reader: &mut Reader<'a>) -> Result<Field<'a>, WireError> {
        Ok(Field {
            name: reader.take_cstr()?,
            table_oid: reader.take_u32()?,
            attribute: reader.take_i16()?,
            type_oid: reader.take_u32()?,
            type_size: reader.take_i16()?,
            type_modifier: reader.take_i32()?,
            format: reader.take_i16()?,
        })
    }
}

/// RowDescription: Int16 count and that many [`Field`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowDescription<'a> {
    count: u16,
    raw: &'a [u8],
}

impl<'a> RowDescription<'a> {
    /// Checks every field. Errors: [`WireError::Truncated`],
    /// [`WireError::NoTerminator`], [`WireError::Trailing`].
    pub fn decode(body: &'a [u8]) -> Result<RowDescription<'a>, WireError> {
        let mut reader = Reader::new(body);
        let count = reader.take_u16()?;
        let raw = reader.clone().rest();
        for _ in 0..count {
            Field::take(&mut reader)?;
        }
        reader.expect_end()?;
        Ok(RowDescription { count, raw })
    }

    /// How many columns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// True for a row without columns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The columns in order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let mut reader = Reader::new(self.raw);
        let count = self.count;
        (0..count).map_while(move |_| Field::take(&mut reader).ok())
    }
}

/// Appends a RowDescription. Errors: [`WireError::EmbeddedNul`], [`WireError::TooLong`].
pub fn row_description(out: &mut BytesMut, fields: &[Field<'_>]) -> Result<(), WireError> {
    message(out, tag::ROW_DESCRIPTION, |out| {
        put_count(out, fields.len())?;
        for field in fields {
            put_cstr(out, field.name)?;
            out.put_u32(field.table_oid);
            out.put_i16(field.attribute);
            out.put_u32(field.type_oid);
            out.put_i16(field.type_size);
            out.put_i32(field.type_modifier);
            out.put_i16(field.format);
        }
        Ok(())
    })
}

/// Appends a DataRow. Errors: [`WireError::TooLong`].
pub fn data_row<'v>(
    out: &mut BytesMut,
    values: impl ExactSizeIterator<Item = Option<&'v [u8]>>,
) -> Result<(), WireError> {
    message(out, tag::DATA_ROW, |out| put_values(out, values))
}
