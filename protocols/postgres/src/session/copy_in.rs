//! What is counted and recorded of the COPY data that an agent sends.

use std::collections::VecDeque;

use bytes::Bytes;

use super::event::{Event, Output};
use super::record::RecordBudget;
use super::unit::UnitId;

#[derive(Debug)]
pub(super) struct CopyIn {
    /// Bytes of CopyData bodies since the last statement or end of a copy.
    pub(super) bytes: u64,
    record: RecordBudget,
}

impl CopyIn {
    pub(super) fn new(record_bytes_max: usize) -> CopyIn {
        CopyIn {
            bytes: 0,
            record: RecordBudget::new(record_bytes_max),
        }
    }

    /// A message goes to the server that can start a copy.
    pub(super) fn restart(&mut self) {
        self.bytes = 0;
        self.record.reset();
    }

    /// The copy's bytes; counting starts anew.
    pub(super) fn take_bytes(&mut self) -> u64 {
        self.record.reset();
        std::mem::take(&mut self.bytes)
    }

    /// Whole CopyData messages went to the server.
    pub(super) fn passes(&mut self, frames: &Bytes, outputs: &mut VecDeque<Output>, id: UnitId) {
        self.bytes = self.bytes.saturating_add(bodies(frames));
        if let Some((frames, truncated)) = self.record.take(frames) {
            outputs.push_back(Output::Event(Event::CopyInData {
                id,
                frames,
                truncated,
            }));
        }
    }

    /// A CopyData passes that is not held.
    pub(super) fn overflow(&mut self, outputs: &mut VecDeque<Output>, id: UnitId) {
        if self.record.overflow() {
            outputs.push_back(Output::Event(Event::CopyInData {
                id,
                frames: Bytes::new(),
                truncated: true,
            }));
        }
    }
}

/// Bytes of the bodies of whole messages.
pub(super) fn bodies(frames: &[u8]) -> u64 {
    let mut sum = 0u64;
    let mut rest = frames;
    while let Some((&[_, a, b, c, d], _)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([a, b, c, d]);
        sum = sum.saturating_add(u64::from(length.saturating_sub(4)));
        rest = rest
            .get((length as usize).saturating_add(1)..)
            .unwrap_or_default();
    }
    sum
}
