//! Messages on the wire: splitting, decoding, encoding.
//!
//! A typed message is a type byte, an Int32 length that counts itself but not the
//! type byte, and a body; all integers are big-endian. Source: PostgreSQL
//! documentation, "Message Formats" and "Message Data Types".
//!
//! Decoders borrow: they give slices into the body they were handed. To keep one
//! beyond the frame, [`Frame::share`] turns it into `Bytes` without a copy.

pub mod backend;
pub mod encode;
pub mod frames;
pub mod frontend;
pub mod reader;
pub mod values;

pub use frames::{Frame, Frames, Piece, Treatment};
pub use reader::Reader;
pub use values::{Formats, Oids, Values};

#[cfg(test)]
mod tests;
