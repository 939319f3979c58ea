//! The per-shard verdict cache, bounded in bytes.

/// Verdicts of repeated texts; one per shard.
#[derive(Debug)]
pub struct VerdictCache {
    _bytes_max: usize,
}

impl VerdictCache {
    /// An empty cache that holds at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        VerdictCache {
            _bytes_max: bytes_max,
        }
    }
}
