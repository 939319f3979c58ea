//! Bounded hand-over of data messages to the record, without copying them.

use bytes::Bytes;

/// How much of one statement's data has been handed over.
#[derive(Debug)]
pub(super) struct RecordBudget {
    bytes_max: usize,
    left: usize,
    done: bool,
}

impl RecordBudget {
    pub(super) fn new(bytes_max: usize) -> RecordBudget {
        RecordBudget {
            bytes_max,
            left: bytes_max,
            done: false,
        }
    }

    /// A new statement begins.
    pub(super) fn reset(&mut self) {
        self.left = self.bytes_max;
        self.done = false;
    }

    /// What of these whole messages is to be handed over, and whether that is the end of
    /// it; `None` once the end was said.
    pub(super) fn take(&mut self, frames: &Bytes) -> Option<(Bytes, bool)> {
        if self.done {
            return None;
        }
        if frames.len() <= self.left {
            self.left = self.left.saturating_sub(frames.len());
            return Some((frames.clone(), false));
        }
        self.done = true;
        Some((frames.slice(..whole_within(frames, self.left)), true))
    }

    /// Data passes that was never whole here: the record has a gap from now on. True the
    /// first time.
    pub(super) fn overflow(&mut self) -> bool {
        !std::mem::replace(&mut self.done, true)
    }
}

/// Length of the whole messages at the front of `frames` that fit into `limit` bytes.
fn whole_within(frames: &[u8], limit: usize) -> usize {
    let mut length = 0usize;
    let mut rest = frames;
    while let Some((&[_, a, b, c, d], _)) = rest.split_first_chunk::<5>() {
        let total = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_add(1);
        let next = length.saturating_add(total);
        let Some(after) = rest.get(total..) else {
            break;
        };
        if next > limit {
            break;
        }
        length = next;
        rest = after;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_over_whole_messages_up_to_the_limit_and_says_once_that_it_cut() {
        let frames = Bytes::from_static(b"D\0\0\0\x06abD\0\0\0\x06cdD\0\0\0\x06ef");
        let mut budget = RecordBudget::new(30);
        assert_eq!(budget.take(&frames), Some((frames.clone(), false)));
        assert_eq!(budget.take(&frames), Some((frames.slice(..7), true)));
        assert_eq!(budget.take(&frames), None);
        assert!(!budget.overflow());
        budget.reset();
        assert!(budget.overflow());
        assert_eq!(budget.take(&frames), None);
    }
}
