//! DataRow and CopyData that are too large to be held: masked while they stream, with
//! fill of the same length, so that every announced length stays true.
//!
//! ```text
//!  DataRow body   Int16 count │ Int32 length, bytes │ Int32 length, bytes │ …
//!                 ╰─ copied ─╯  ╰─ copied ─╯ ╰ through a content stream of its own
//! ```
//! Lengths are checked against the body as they come; a lie is found before the bytes it
//! speaks of are released.

use bytes::BytesMut;

use super::content::{Content, Fill};
use crate::error::WireError;

/// What can go wrong in the middle of a large message. Part of it has been released, so
/// the session must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LargeFault {
    Wire(WireError),
    /// The content gave more or fewer bytes than it was given.
    Length,
}

/// One value on its way.
struct Value<S> {
    stream: S,
    left: usize,
    /// Bytes given to the content and not yet released.
    owed: usize,
}

impl<S> Value<S> {
    fn open<C: Content<Stream = S>>(content: &mut C, bytes: usize) -> Value<S> {
        Value {
            stream: content.open(Fill::SameLength),
            left: bytes,
            owed: 0,
        }
    }

    /// Takes what belongs to the value off `input`.
    fn push<C: Content<Stream = S>>(
        &mut self,
        content: &mut C,
        input: &mut &[u8],
        scratch: &mut Vec<u8>,
        out: &mut BytesMut,
    ) -> Result<(), LargeFault> {
        let (part, rest) = input.split_at(self.left.min(input.len()));
        *input = rest;
        scratch.clear();
        content.push(&mut self.stream, part, scratch);
        self.left = self.left.saturating_sub(part.len());
        self.owed = self.owed.saturating_add(part.len());
        self.owed = self
            .owed
            .checked_sub(scratch.len())
            .ok_or(LargeFault::Length)?;
        out.extend_from_slice(scratch);
        Ok(())
    }

    fn finish<C: Content<Stream = S>>(
        self,
        content: &mut C,
        scratch: &mut Vec<u8>,
        out: &mut BytesMut,
    ) -> Result<(), LargeFault> {
        scratch.clear();
        content.finish(self.stream, scratch);
        if scratch.len() != self.owed {
            return Err(LargeFault::Length);
        }
        out.extend_from_slice(scratch);
        Ok(())
    }
}

enum RowState<S> {
    /// Collecting the Int16 count (2 bytes) or an Int32 length (4 bytes).
    Number {
        bytes: [u8; 4],
        have: usize,
        want: usize,
    },
    Value(Value<S>),
}

/// A DataRow that streams.
pub(super) struct LargeRow<S> {
    state: RowState<S>,
    /// Bytes of the body that have not come.
    body_left: usize,
    /// Values that have not begun; `None` before the count is known.
    values_left: Option<u16>,
    scratch: Vec<u8>,
}

impl<S> LargeRow<S> {
    /// A row whose body has `length` bytes.
    pub(super) fn new(length: u32) -> LargeRow<S> {
        LargeRow {
            state: RowState::Number {
                bytes: [0; 4],
                have: 0,
                want: 2,
            },
            body_left: length as usize,
            values_left: None,
            scratch: Vec::new(),
        }
    }

    /// Takes the next bytes of the body and appends what can be released.
    pub(super) fn push<C: Content<Stream = S>>(
        &mut self,
        content: &mut C,
        mut input: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), LargeFault> {
        while !input.is_empty() {
            match &mut self.state {
                RowState::Number { bytes, have, want } => {
                    if self.values_left == Some(0) {
                        return Err(LargeFault::Wire(WireError::Trailing {
                            left: self.body_left,
                        }));
                    }
                    let before = input.len();
                    while have < want {
                        let Some((first, rest)) = input.split_first() else {
                            break;
                        };
                        if let Some(place) = bytes.get_mut(*have) {
                            *place = *first;
                        }
                        *have = have.saturating_add(1);
                        input = rest;
                    }
                    self.body_left = self
                        .body_left
                        .saturating_sub(before.saturating_sub(input.len()));
                    if have == want {
                        self.number(content, out)?;
                    }
                }
                RowState::Value(value) => {
                    let before = input.len();
                    value.push(content, &mut input, &mut self.scratch, out)?;
                    self.body_left = self
                        .body_left
                        .saturating_sub(before.saturating_sub(input.len()));
                    if value.left == 0 {
                        self.end_value(content, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// All of the body has come.
    pub(super) fn finish(self) -> Result<(), LargeFault> {
        match (self.values_left, self.state) {
            (Some(0), RowState::Number { have: 0, .. }) => Ok(()),
            _ => Err(LargeFault::Wire(WireError::Truncated {
                wanted: 1,
                left: 0,
            })),
        }
    }

    fn number<C: Content<Stream = S>>(
        &mut self,
        content: &mut C,
        out: &mut BytesMut,
    ) -> Result<(), LargeFault> {
        let RowState::Number { bytes, have, .. } = self.state else {
            return Ok(());
        };
        out.extend_from_slice(bytes.get(..have).unwrap_or_default());
        self.state = RowState::Number {
            bytes: [0; 4],
            have: 0,
            want: 4,
        };
        let Some(values_left) = self.values_left else {
            let [high, low, ..] = bytes;
            self.values_left = Some(u16::from_be_bytes([high, low]));
            return Ok(());
        };
        self.values_left = Some(values_left.saturating_sub(1));
        let length = i32::from_be_bytes(bytes);
        if length == -1 {
            return Ok(());
        }
        let length = usize::try_from(length).map_err(|_| {
            LargeFault::Wire(WireError::BadValue {
                field: "value length",
            })
        })?;
        if length > self.body_left {
            return Err(LargeFault::Wire(WireError::Truncated {
                wanted: length,
                left: self.body_left,
            }));
        }
        self.state = RowState::Value(Value::open(content, length));
        if length == 0 {
            self.end_value(content, out)?;
        }
        Ok(())
    }

    fn end_value<C: Content<Stream = S>>(
        &mut self,
        content: &mut C,
        out: &mut BytesMut,
    ) -> Result<(), LargeFault> {
        let next = RowState::Number {
            bytes: [0; 4],
            have: 0,
            want: 4,
        };
        match std::mem::replace(&mut self.state, next) {
            RowState::Value(value) => value.finish(content, &mut self.scratch, out),
            RowState::Number { .. } => Ok(()),
        }
    }
}

/// A CopyData that streams as one value of its own.
///
/// It must end where a value ends: at a newline in a text COPY, as every server's rows do.
/// One that does not would need bytes held back that its length has already promised; the
/// session ends then.
pub(super) struct LargeCopyData<S> {
    value: Value<S>,
    binary: bool,
    last: Option<u8>,
    scratch: Vec<u8>,
}

impl<S> LargeCopyData<S> {
    pub(super) fn new<C: Content<Stream = S>>(
        content: &mut C,
        length: u32,
        binary: bool,
    ) -> LargeCopyData<S> {
        LargeCopyData {
            value: Value::open(content, length as usize),
            binary,
            last: None,
            scratch: Vec::new(),
        }
    }

    pub(super) fn push<C: Content<Stream = S>>(
        &mut self,
        content: &mut C,
        mut input: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), LargeFault> {
        self.last = input.last().copied().or(self.last);
        self.value.push(content, &mut input, &mut self.scratch, out)
    }

    pub(super) fn finish<C: Content<Stream = S>>(
        mut self,
        content: &mut C,
        out: &mut BytesMut,
    ) -> Result<(), LargeFault> {
        if !self.binary && self.last != Some(b'\n') {
            return Err(LargeFault::Wire(WireError::BadValue {
                field: "end of a text row",
            }));
        }
        self.value.finish(content, &mut self.scratch, out)
    }
}
