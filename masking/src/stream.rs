//! Masking of content that arrives in pieces.

use std::sync::Arc;

use crate::{Fill, Findings, Masker, RuleSet};

/// Masks one stream. Content cut anywhere gives the same output.
pub struct StreamMasker {
    rules: Arc<RuleSet>,
    fill: Fill,
}

impl StreamMasker {
    pub(crate) fn new(rules: Arc<RuleSet>, fill: Fill) -> Self {
        StreamMasker { rules, fill }
    }

    /// Takes the next bytes and appends to `out` what can be released.
    pub fn push(
        &mut self,
        masker: &mut Masker,
        input: &[u8],
        out: &mut Vec<u8>,
        findings: &mut Findings,
    ) {
        let _ = (masker, input, out, findings, self.fill, &self.rules);
    }

    /// The content has ended: appends all that was held back.
    pub fn finish(self, masker: &mut Masker, out: &mut Vec<u8>, findings: &mut Findings) {
        let _ = (masker, out, findings);
    }

    /// For interactive terminals: nothing came for a while, so releases what
    /// is held back, unless a known secret is half-way through.
    pub fn flush_idle(&mut self, masker: &mut Masker, out: &mut Vec<u8>, findings: &mut Findings) {
        let _ = (masker, out, findings);
    }

    /// Bytes taken and not yet released.
    pub fn held(&self) -> usize {
        0
    }
}
