//! What the recorder is told, and what it says about itself.

use std::io;
use std::path::PathBuf;

use crate::frame::{FRAME_OVERHEAD_BYTES, HEADER_BYTES};

/// Smallest segment that makes sense, in bytes; tests use it, an operator should not.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Largest segment, in bytes: a reader holds one whole segment in memory.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Most rings (one per shard): the frame numbers shards in 16 bits, machines have fewer cores.
pub const SHARDS_MAX: usize = 1_024;
/// Most entries of one ring.
pub const RING_ENTRIES_MAX: usize = 1 << 20;
/// Longest group commit, in milliseconds: what is lost when the machine loses power.
pub const GROUP_COMMIT_MS_MAX: u64 = 10_000;

/// Bytes that the writer gathers before it writes, a single large record aside.
pub(crate) const ROUND_BYTES_MAX: usize = 4 << 20;

/// What happens when the archive is as large as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AtCap {
    /// Appends fail with "record full" until an operator makes room and restarts.
    Refuse,
    /// The oldest segments go, one whole segment at a time; each deletion is on record.
    DeleteOldest,
}

/// How to record. All bytes are bytes on disk unless said otherwise.
#[derive(Debug, Clone)]
pub struct Config {
    /// The archive's folder; made with mode 0700 if absent, refused if others may enter it.
    pub dir: PathBuf,
    /// A segment is closed before it grows past this. A single record that is larger gets a
    /// segment to itself. 4 KiB to 1 GiB.
    pub segment_bytes_max: u64,
    /// Cap of all segments together. At least two segments and what the rings can hold.
    pub total_bytes_max: u64,
    /// What happens at the cap.
    pub at_cap: AtCap,
    /// Longest wait of a record for its commit, in milliseconds, 0 to 10 000. 0 commits at once.
    pub group_commit_ms: u64,
    /// Records that a shard's ring can hold, 2 to 1 048 576.
    pub ring_entries: usize,
    /// Bytes of encoded bodies that a shard's ring can hold; the largest record that can be
    /// appended. In memory, per shard.
    pub ring_bytes_max: usize,
    /// Number of rings, 1 to 1 024.
    pub shards: usize,
}

impl Config {
    /// Defaults for an archive in `dir` with this many shards: segments of 64 MiB, 10 GiB in all,
    /// refuse at the cap, commits every 50 ms, 16 384 records and 32 MiB per ring.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, shards: usize) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes_max: 64 << 20,
            total_bytes_max: 10 << 30,
            at_cap: AtCap::Refuse,
            group_commit_ms: 50,
            ring_entries: 16_384,
            ring_bytes_max: 32 << 20,
            shards,
        }
    }

    /// Bytes of records that the writer takes before it looks at the cap and the clock again; one
    /// record may come on top.
    pub(crate) fn drain_bytes_max(&self) -> usize {
        ROUND_BYTES_MAX.min(self.ring_bytes_max)
    }

    /// Bytes that may still come to disk when no further append is taken: what the rings hold, what
    /// the writer took since it last looked (a round and a record, each no more than a ring), and
    /// what new segments cost.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        let ring = self.ring_bytes_max as u64
            + (self.ring_entries as u64).saturating_mul(FRAME_OVERHEAD_BYTES as u64);
        let rings = (self.shards as u64 + 2).saturating_mul(ring);
        let segments = rings / self.segment_bytes_max.max(1) + 4;
        let per_segment = (HEADER_BYTES + 4 * FRAME_OVERHEAD_BYTES) as u64;
        rings.saturating_add(segments.saturating_mul(per_segment))
    }

    /// Whether the numbers fit together.
    ///
    /// # Errors
    /// `Configuration`, naming the key.
    pub fn check(&self) -> Result<(), RecorderError> {
        let bad = |key, want| Err(RecorderError::Configuration { key, want });
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes_max) {
            return bad("segment_bytes_max", "4 KiB to 1 GiB");
        }
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return bad("shards", "1 to 1024");
        }
        if !(2..=RING_ENTRIES_MAX).contains(&self.ring_entries) {
            return bad("ring_entries", "2 to 1048576");
        }
        if self.ring_bytes_max == 0 || self.ring_bytes_max > crate::body::BODY_BYTES_MAX {
            return bad("ring_bytes_max", "1 byte to 96 MiB");
        }
        if self.group_commit_ms > GROUP_COMMIT_MS_MAX {
            return bad("group_commit_ms", "0 to 10000");
        }
        let least = self
            .reserve_bytes()
            .saturating_add(2 * self.segment_bytes_max);
        if self.total_bytes_max < least {
            return bad(
                "total_bytes_max",
                "at least two segments and what can be on its way, (shards + 2) x (ring_bytes_max + 116 x ring_entries)",
            );
        }
        Ok(())
    }
}

/// Why the recorder cannot start, stop or read.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// A key of the configuration is out of range.
    #[error("recorder: {key} must be {want}")]
    Configuration {
        /// The key.
        key: &'static str,
        /// Its range.
        want: &'static str,
    },
    /// The operating system refused something.
    #[error("recorder: cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The archive's folder can be entered by others.
    #[error("recorder: {path} has mode {mode:o}, others may read the record; make it 0700", path = dir.display())]
    Permissions {
        /// The folder.
        dir: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process writes to this archive.
    #[error("recorder: {path} is in use by another process", path = dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The archive's last segment cannot be continued.
    #[error(
        "recorder: segment {segment} cannot be continued: {what}; run verify and move the archive aside"
    )]
    Damaged {
        /// The segment.
        segment: u64,
        /// What is wrong.
        what: String,
    },
    /// The archive is at its cap and must not delete.
    #[error(
        "recorder: record full: {bytes} bytes on disk, the cap is {bytes_max}; move old segments away or raise the cap"
    )]
    Full {
        /// Bytes on disk.
        bytes: u64,
        /// The cap.
        bytes_max: u64,
    },
    /// The recorder failed while it ran.
    #[error("recorder: {why}")]
    Failed {
        /// The reason, as `Health` gives it.
        why: String,
    },
}

/// Why a record was not taken. In each case it is not on record: its request must not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room now. Wait for the next call of `Durable` for this shard and try again.
    #[error("the record ring is full")]
    Full,
    /// Never fits: larger than the ring's bound, or over a limit of the format.
    #[error("the record is too large: {bytes} bytes, at most {bytes_max}")]
    TooLarge {
        /// Its encoded size; 0 where a count was over its limit.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The recorder cannot write, or was stopped. New requests are to be refused.
    #[error("the recorder does not record: {why}")]
    Failed {
        /// The reason, as `Health` gives it.
        why: String,
    },
}

/// Whether the recorder can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ok,
    /// It cannot, and appends fail.
    Failed {
        /// Why, for humans; no payload in it.
        why: String,
    },
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records written, the writer's own included.
    pub records: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Commits (`fdatasync`).
    pub commits: u64,
    /// Time in commits together, in microseconds.
    pub commit_us_total: u64,
    /// The longest commit, in microseconds.
    pub commit_us_max: u64,
    /// The longest time from a record's `wall_clock_us` to its durability, in microseconds.
    pub durable_lag_us_max: u64,
    /// Appends that met a full ring.
    pub full: u64,
    /// Times that the writer slept.
    pub sleeps: u64,
    /// Segment that is written now.
    pub segment: u64,
    /// Bytes of all segments on disk.
    pub disk_bytes: u64,
    /// Segments deleted at the cap.
    pub segments_deleted: u64,
    /// Sessions with a record and no end.
    pub sessions_open: u64,
}
