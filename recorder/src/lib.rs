//! The evidence: typed records in, an archive out that can be replayed and proved whole.
//!
//! ```text
//!  shard 0: Producer ──ring──┐
//!  shard 1: Producer ──ring──┼──▶ writer thread ──▶ 00000001.seg 00000002.seg ...
//!  shard n: Producer ──ring──┘     chains, writes,        │
//!              ▲                   commits in groups      ▼
//!              └── Durable(shard, sequence) ──┘   Archive, verify, render
//! ```
//!
//! A record that `append` took is in order, and durable once the shard's durable sequence has
//! reached it: within the group commit's time (50 ms by default), or at once after
//! `append_urgent`. Nothing is ever dropped: a full ring, a full archive and a failed disk are
//! errors of `append`, and the caller must then not let the request pass.
//!
//! ```
//! use recorder::{AtCap, Archive, Body, Config, Recorder, SessionId, verify_closed};
//! # use portcullis_recorder as recorder;
//! # let parent = tempfile::tempdir()?;
//! # let dir = parent.path().join("record");
//! let config = Config { at_cap: AtCap::DeleteOldest, ..Config::new(&dir, 1) };
//! let recorder = Recorder::start(config, Box::new(|_shard, _durable_up_to| {}))?;
//! let mut producer = recorder.producer(0);
//! let session = SessionId::generate();
//! let end = Body::SessionEnd {
//!     reason: "agent closed".into(), requests: 0, denied: 0, bytes_down: 0, bytes_up: 0,
//! };
//! producer.append(session, 1_700_000_000_000_000, &end)?;
//! recorder.stop()?;
//!
//! assert!(verify_closed(&dir)?.is_whole());
//! let archive = Archive::open(&dir)?;
//! assert_eq!(archive.session(session).count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Left to others: what is masked in a body (the caller), what a body's row data means (the
//! gateway, through `Style::rows`), clocks and session ids of whoever appends. The bytes on disk
//! are described in `FORMAT.md`. Signed checkpoints and encryption have their places in the format
//! and are not written yet: without them, whoever can write the folder can make a new archive that
//! is whole.
#![forbid(unsafe_code)]

mod archive;
mod body;
mod config;
mod files;
mod frame;
mod id;
mod neutralise;
mod recorder;
mod render;
mod ring;
mod segment;
mod verify;
mod wake;
mod writer;

/// The atomics that `wake` uses; loom's take their place in its test.
mod sync {
    pub use std::sync::atomic::{AtomicU8, Ordering, fence};
}

pub use archive::{Archive, ReadError, Record, SessionRecords, SessionSummary};
pub use body::{
    ActionCode, ApprovalState, BINDS_MAX, BODY_BYTES_MAX, Body, BodyError, Fault, MASKED_KINDS_MAX,
    OutcomeCode, Ruling, WriterBody,
};
pub use config::{AppendError, AtCap, Config, Health, RecorderError, Stats};
pub use frame::{
    FORMAT_VERSION, FRAME_OVERHEAD_BYTES, Frame, FrameError, FrameHead, FrameKind, HEADER_BYTES,
    Hash, Header, HeaderError, SegmentHash, chain_start, decode_frame, encode_frame,
};
pub use id::{SESSION_ID_CHARACTERS, SessionId, SessionIdError};
pub use neutralise::{neutralise, neutralise_lines};
pub use recorder::{Durable, Recorder};
pub use render::{RowsReader, Style, render};
pub use ring::Producer;
pub use verify::{Note, PROBLEMS_MAX, Problem, Report, verify, verify_closed};
