//! The seam between the session machine and the masker: the machine frames,
//! the masker masks, and neither knows the other.

use crate::serve::shard::{Shard, SharedMasker};
use masking::{Findings, StreamMasker};
use postgres::session::{Content, Fill};
use std::rc::Rc;

/// Masks what one session releases.
pub struct MaskedContent {
    shard: Rc<Shard>,
    /// What was masked since it was last taken.
    pub findings: Findings,
}

/// A value that comes in pieces, with the masker it was begun with: rules that
/// change in the middle of a value take effect with the next one.
pub struct ContentStream {
    masker: SharedMasker,
    stream: StreamMasker,
}

impl MaskedContent {
    /// Content of a session on `shard`.
    pub fn new(shard: Rc<Shard>) -> MaskedContent {
        MaskedContent {
            shard,
            findings: Findings::new(),
        }
    }

    /// Takes the counts by kind.
    pub fn take_findings(&mut self) -> Vec<(String, u64)> {
        if self.findings.is_empty() {
            return Vec::new();
        }
        let taken = self
            .findings
            .iter()
            .map(|(kind, n)| (kind.to_string(), n))
            .collect();
        self.findings.clear();
        taken
    }
}

fn fill(fill: Fill) -> masking::Fill {
    match fill {
        Fill::Placeholder => masking::Fill::Placeholder,
        Fill::SameLength => masking::Fill::SameLength,
    }
}

impl Content for MaskedContent {
    type Stream = ContentStream;

    fn is_clean(&mut self, bytes: &[u8]) -> bool {
        self.shard.masker().borrow_mut().is_clean(bytes)
    }

    fn mask_value(&mut self, value: &[u8], how: Fill) -> Option<Vec<u8>> {
        self.shard
            .masker()
            .borrow_mut()
            .mask_value(value, fill(how), &mut self.findings)
    }

    fn open(&mut self, how: Fill) -> ContentStream {
        let masker = self.shard.masker();
        let stream = masker.borrow_mut().stream(fill(how));
        ContentStream { masker, stream }
    }

    fn push(&mut self, stream: &mut ContentStream, input: &[u8], out: &mut Vec<u8>) {
        let ContentStream { masker, stream } = stream;
        stream.push(&mut masker.borrow_mut(), input, out, &mut self.findings);
    }

    fn finish(&mut self, stream: ContentStream, out: &mut Vec<u8>) {
        let ContentStream { masker, stream } = stream;
        stream.finish(&mut masker.borrow_mut(), out, &mut self.findings);
    }
}
