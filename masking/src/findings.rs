//! What was masked, as counts per kind. Kinds only, never content.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Counts of masked spans per kind. One count is one span of output that was
/// replaced; its kind is that of the match that begins it (see
/// [`crate::Masker`]). The number of entries is bounded by the number of kinds
/// in the rule set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    counts: BTreeMap<Arc<str>, u64>,
}

impl Findings {
    /// No findings yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was masked.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Number of masked spans of all kinds.
    pub fn total(&self) -> u64 {
        self.counts
            .values()
            .fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Number of masked spans of one kind.
    pub fn count(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or(0)
    }

    /// Kinds with their counts, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(kind, n)| (&**kind, *n))
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Findings) {
        for (kind, n) in &other.counts {
            self.add(kind, *n);
        }
    }

    /// Forgets all counts, so that the value can serve again.
    pub fn clear(&mut self) {
        self.counts.clear();
    }

    pub(crate) fn add(&mut self, kind: &Arc<str>, n: u64) {
        match self.counts.get_mut(kind) {
            Some(count) => *count = count.saturating_add(n),
            None => {
                self.counts.insert(kind.clone(), n);
            }
        }
    }
}
