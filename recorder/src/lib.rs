//! The evidence: typed records in, an archive out that can be replayed and proved whole.
#![forbid(unsafe_code)]

mod body;
mod config;
mod files;
mod frame;
mod id;
mod recorder;
mod ring;
mod segment;
mod wake;
mod writer;

/// The atomics that `wake` uses; loom's take their place in its test.
mod sync {
    pub use std::sync::atomic::{AtomicU8, Ordering, fence};
}

pub use body::{
    ActionCode, ApprovalState, BINDS_MAX, BODY_BYTES_MAX, Body, BodyError, Fault, MASKED_KINDS_MAX,
    OutcomeCode, Ruling, WriterBody,
};
pub use config::{AppendError, AtCap, Config, Health, RecorderError, Stats};
pub use frame::{FORMAT_VERSION, Hash};
pub use id::{SESSION_ID_CHARACTERS, SessionId, SessionIdError};
pub use recorder::{Durable, Recorder};
pub use ring::Producer;
