//! Collects what goes to one side in as few pieces as possible, without copying what is
//! forwarded unchanged.
//!
//! ```text
//!  parent (one read)   [frame][frame][frame]......
//!                       └──── run ────┘             forwarded one by one, written as one
//!  made                [our bytes, re-made messages]
//!  parts               finished pieces, in order
//! ```
//! At most one of `run` and `made` is non-empty; the other was moved to `parts` first.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// A forwarded message of at most this many bytes is copied next to re-made bytes rather
/// than written as a piece of its own.
const JOIN_BYTES_MAX: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Writer {
    parts: VecDeque<Bytes>,
    parent: Bytes,
    run: Option<Range<usize>>,
    made: BytesMut,
}

impl Writer {
    /// The next forwarded slices will mostly be slices of `input`.
    pub(super) fn source(&mut self, input: &Bytes) {
        self.end_run();
        self.parent = input.clone();
    }

    /// Forgets the input, so that its buffer can be given back.
    pub(super) fn forget_source(&mut self) {
        self.end_run();
        self.parent = Bytes::new();
        if self.parts.is_empty() {
            self.parts = VecDeque::new();
        }
    }

    /// Appends bytes unchanged.
    pub(super) fn forward(&mut self, raw: Bytes) {
        if raw.is_empty() {
            return;
        }
        if !self.made.is_empty() {
            if raw.len() <= JOIN_BYTES_MAX {
                self.made.extend_from_slice(&raw);
                return;
            }
            self.end_made();
        }
        let Some(range) = self.within_parent(&raw) else {
            self.end_run();
            self.parts.push_back(raw);
            return;
        };
        match &mut self.run {
            Some(run) if run.end == range.start => run.end = range.end,
            _ => {
                self.end_run();
                self.run = Some(range);
            }
        }
    }

    /// Where bytes of our own are to be appended.
    pub(super) fn made(&mut self) -> &mut BytesMut {
        self.end_run();
        &mut self.made
    }

    /// The next piece to be written; never empty.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        if self.parts.is_empty() {
            self.end_run();
            self.end_made();
        }
        self.parts.pop_front()
    }

    /// Where `raw` lies in the parent. Both are alive, so addresses inside the parent's
    /// range can only be the parent's own memory.
    fn within_parent(&self, raw: &Bytes) -> Option<Range<usize>> {
        let start = (raw.as_ptr() as usize).checked_sub(self.parent.as_ptr() as usize)?;
        let end = start.checked_add(raw.len())?;
        (end <= self.parent.len()).then_some(start..end)
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            self.parts.push_back(self.parent.slice(run));
        }
    }

    fn end_made(&mut self) {
        if !self.made.is_empty() {
            self.parts
                .push_back(std::mem::take(&mut self.made).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(writer: &mut Writer) -> Vec<Bytes> {
        std::iter::from_fn(|| writer.pop()).collect()
    }

    #[test]
    fn adjacent_slices_of_one_input_are_one_piece_of_its_own_memory() {
        let input = Bytes::from(vec![7u8; 100]);
        let mut writer = Writer::default();
        writer.source(&input);
        for at in 0..10 {
            writer.forward(input.slice(at * 10..(at + 1) * 10));
        }
        let pieces = drain(&mut writer);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].as_ptr(), input.as_ptr());
        assert_eq!(pieces[0].len(), 100);
    }

    #[test]
    fn order_is_kept_between_runs_foreign_slices_and_made_bytes() {
        let input = Bytes::from((0u8..100).collect::<Vec<_>>());
        let mut writer = Writer::default();
        writer.source(&input);
        writer.forward(input.slice(0..3));
        writer.forward(input.slice(5..8));
        writer.forward(Bytes::from_static(b"foreign"));
        writer.made().extend_from_slice(b"made");
        writer.forward(input.slice(8..10));
        writer.forward(Bytes::from(vec![1u8; JOIN_BYTES_MAX + 1]));
        writer.source(&Bytes::from_static(b"other"));
        writer.forward(input.slice(10..12));
        let pieces = drain(&mut writer);
        assert_eq!(pieces.len(), 6);
        let mut expected = vec![0, 1, 2, 5, 6, 7];
        expected.extend_from_slice(b"foreignmade");
        expected.extend_from_slice(&[8, 9]);
        expected.extend_from_slice(&[1; JOIN_BYTES_MAX + 1]);
        expected.extend_from_slice(&[10, 11]);
        assert_eq!(pieces.concat(), expected);
    }
}
