//! The recorder as the gateway sees it: start, producers, health, stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};

use crate::config::{AppendError, Config, Health, RecorderError, Stats};
use crate::ring::{Producer, Ring};
use crate::wake::Wake;
use crate::writer::Writer;

/// Called by the writer's thread after each commit, once for each shard that has more durable
/// records than before, with the shard and the sequence up to which it is durable.
///
/// A caller that met `Full` may wait for it: room was made before it is called. It is also called
/// for every shard, with the sequence unchanged, when the recorder fails: whoever waits then looks
/// at `health` (or appends, and gets `Failed`). It must be quick, must not block, and must not
/// call the recorder.
pub type Durable = Box<dyn Fn(usize, u64) + Send + Sync>;

/// What producers, the writer and the handle share.
pub(crate) struct Shared {
    pub rings: Vec<Ring>,
    pub wake: Wake,
    pub stopping: AtomicBool,
    /// Set once, before `failed`; the reason for `Health` and `Failed`.
    why: OnceLock<String>,
    failed: AtomicBool,
    writer: OnceLock<Thread>,
    pub stats: Mutex<Stats>,
}

impl Shared {
    fn new(config: &Config) -> Self {
        Self {
            rings: (0..config.shards)
                .map(|_| Ring::new(config.ring_entries, config.ring_bytes_max))
                .collect(),
            wake: Wake::new(),
            stopping: AtomicBool::new(false),
            why: OnceLock::new(),
            failed: AtomicBool::new(false),
            writer: OnceLock::new(),
            stats: Mutex::new(Stats::default()),
        }
    }

    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The first failure stays the reason.
    pub fn fail(&self, why: String) {
        let _ = self.why.set(why);
        self.failed.store(true, Ordering::Release);
    }

    pub fn why(&self) -> String {
        self.why
            .get()
            .cloned()
            .unwrap_or_else(|| "the recorder was stopped".to_owned())
    }

    pub fn failure(&self) -> AppendError {
        AppendError::Failed { why: self.why() }
    }

    pub fn unpark(&self) {
        if let Some(thread) = self.writer.get() {
            thread.unpark();
        }
    }
}

/// The recorder of this process: one writer thread, one ring per shard.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Recorder {
    /// Opens the archive, begins a new segment in it and starts the writer's thread.
    ///
    /// # Errors
    /// The configuration does not fit, the folder cannot be used (or is open to others, or in use
    /// by another process), its last segment cannot be continued, or it is at its cap.
    pub fn start(config: Config, durable: Durable) -> Result<Self, RecorderError> {
        config.check()?;
        let shared = Arc::new(Shared::new(&config));
        let writer = Writer::open(config, Arc::clone(&shared), durable)?;
        let thread = thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| RecorderError::Io {
                what: "start the writer's thread of",
                path: "recorder".into(),
                source,
            })?;
        let _ = shared.writer.set(thread.thread().clone());
        // A record that came before the line above could not unpark; none can: producers come later.
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The producer of a shard.
    ///
    /// # Panics
    /// When there is no such shard, or its producer is still alive: both are mistakes of the
    /// program, and two producers on one ring would break its order.
    #[must_use]
    pub fn producer(&self, shard: usize) -> Producer {
        assert!(
            shard < self.shared.rings.len(),
            "shard {shard} has no record ring"
        );
        let ring = &self.shared.rings[shard];
        // Acquire pairs with the Release of the last producer's drop.
        let taken = ring.taken.swap(true, Ordering::AcqRel);
        assert!(!taken, "shard {shard} has a producer already");
        Producer {
            shared: Arc::clone(&self.shared),
            shard,
            appended: ring.appended.load(Ordering::Relaxed),
        }
    }

    /// Whether it can write.
    #[must_use]
    pub fn health(&self) -> Health {
        if self.shared.is_failed() {
            Health::Failed {
                why: self.shared.why(),
            }
        } else {
            Health::Ok
        }
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = *self
            .shared
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        stats.full = self
            .shared
            .rings
            .iter()
            .map(|ring| ring.full.load(Ordering::Relaxed))
            .sum();
        stats
    }

    /// Writes what was appended, commits it, closes the segment and ends the thread. Producers
    /// that live on get `Failed`.
    ///
    /// # Errors
    /// `Failed` when not all that was appended could be written. An archive that is at its cap is
    /// closed in order: what was taken before is in it.
    pub fn stop(mut self) -> Result<(), RecorderError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), RecorderError> {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        thread.thread().unpark();
        let result = thread
            .join()
            .unwrap_or_else(|_| Err("the recorder's writer panicked".to_owned()));
        result.map_err(|why| RecorderError::Failed { why })
    }
}

/// The reason after an orderly stop.
pub(crate) const STOPPED: &str = "the recorder was stopped";

impl Drop for Recorder {
    fn drop(&mut self) {
        // Who wants to know the result calls `stop`.
        let _ = self.end();
    }
}
