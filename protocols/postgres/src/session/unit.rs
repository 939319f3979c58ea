//! What a session asks a decision for, and what it tells of requests that pass.

use bytes::Bytes;

use crate::error::{Refusal, WireError};
use crate::wire::frontend::Kind;
use crate::wire::{Formats, Reader, Values};

/// Names one frontend message of a session; they count up from 1 in the agent's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(pub u64);

/// One request of the agent. Slices share the memory of what was read; nothing is copied.
///
/// Query, Parse, Bind, Execute and FunctionCall come as [`super::Output::Decide`] and wait
/// for a verdict; the others come as [`super::Event::Passed`] when they are forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// Query: one or more statements.
    Query {
        /// The text in the client's encoding.
        text: Bytes,
    },
    /// Parse.
    Parse {
        /// Name of the statement; empty for the unnamed one.
        name: Bytes,
        /// The statement's text.
        text: Bytes,
        /// Type OIDs as far as the agent gives them; 0 is unspecified.
        parameter_types: Vec<u32>,
    },
    /// Bind.
    Bind {
        /// The portal that it makes; empty for the unnamed one.
        portal: Bytes,
        /// The statement that it binds; empty for the unnamed one.
        statement: Bytes,
        /// The values.
        values: BindValues,
    },
    /// FunctionCall: runs a function by OID; names no SQL.
    FunctionCall {
        /// OID of the function.
        oid: u32,
        /// The arguments.
        arguments: BindValues,
    },
    /// Execute. Decided too, since SQL may have declared the portal, and the name may stand
    /// for nothing that was seen; told of as passed when it is forwarded.
    Execute {
        /// The portal.
        portal: Bytes,
        /// Most rows; 0 and below mean all.
        max_rows: i32,
    },
    /// Describe (passes).
    Describe {
        /// Statement or portal.
        kind: Kind,
        /// Its name.
        name: Bytes,
    },
    /// Close (passes).
    Close {
        /// Statement or portal.
        kind: Kind,
        /// Its name.
        name: Bytes,
    },
    /// Sync (passes).
    Sync,
    /// CopyDone (passes).
    CopyDone,
    /// CopyFail (passes).
    CopyFail {
        /// The agent's reason.
        reason: Bytes,
    },
    /// Terminate (passes).
    Terminate,
}

/// Values of a Bind or FunctionCall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindValues {
    /// All of them are here.
    Read(ReadValues),
    /// The message is larger than what is held, and no rule reads values: only the
    /// length of its body is known.
    Unread {
        /// Bytes of the body.
        bytes: usize,
    },
}

impl BindValues {
    /// Format (0 text, 1 binary; -1 where the agent's codes do not cover the value) and
    /// bytes (`None` is NULL) of each value; `None` when they were not read.
    pub fn iter(&self) -> Option<impl Iterator<Item = (i16, Option<&[u8]>)>> {
        match self {
            BindValues::Read(values) => Some(values.iter()),
            BindValues::Unread { .. } => None,
        }
    }
}

/// Format codes and values, as they stand in the message.
///
/// Shape: Int16 count and that many Int16 codes; Int16 count and that many values, each
/// an Int32 length (−1: NULL) and its bytes. Checked when made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadValues {
    raw: Bytes,
}

impl ReadValues {
    /// Checks `raw`, which must hold exactly codes and values.
    pub(super) fn new(raw: Bytes) -> Result<ReadValues, WireError> {
        let mut reader = Reader::new(&raw);
        Formats::take(&mut reader)?;
        Values::take(&mut reader)?;
        reader.expect_end()?;
        Ok(ReadValues { raw })
    }

    /// The bytes of codes and values, exactly as sent: what a digest is made over.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    fn parts(&self) -> Option<(Formats<'_>, Values<'_>)> {
        let mut reader = Reader::new(&self.raw);
        let formats = Formats::take(&mut reader).ok()?;
        let values = Values::take(&mut reader).ok()?;
        Some((formats, values))
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts().map_or(0, |(_, values)| values.len())
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Format and bytes of each value; see [`BindValues::iter`].
    pub fn iter(&self) -> impl Iterator<Item = (i16, Option<&[u8]>)> {
        self.parts().into_iter().flat_map(|(formats, values)| {
            values
                .iter()
                .enumerate()
                .map(move |(index, value)| (formats.of(index).unwrap_or(-1), value))
        })
    }
}

/// The answer to a [`super::Output::Decide`]. A hold is simply an answer that comes
/// later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Exactly these bytes go to the server.
    Forward,
    /// They do not; the agent reads this instead.
    Refuse(Refusal),
}
