//! The ring between a shard and the writer, and the shard's end of it.
//!
//! One producer, one consumer, bounded in entries and in bytes. Nothing is ever dropped from it:
//! a full ring is the caller's to wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::body::Body;
use crate::config::AppendError;
use crate::id::SessionId;
use crate::recorder::Shared;
use crate::wake::Signal;

/// A record on its way to the writer.
pub(crate) struct Entry {
    pub session: SessionId,
    pub wall_clock_us: u64,
    pub body: Vec<u8>,
    pub ends_session: bool,
}

/// One shard's ring.
pub(crate) struct Ring {
    pub queue: ArrayQueue<Entry>,
    /// Bytes of the bodies in the queue. The producer adds before its push, the writer takes off
    /// after its pop.
    pub bytes: AtomicUsize,
    /// A commit is asked for. Set after the push that asks.
    pub urgent: AtomicBool,
    /// Last sequence that is durable. The writer stores with Release, the producer acquires.
    pub durable: AtomicU64,
    /// Last sequence that was appended, for a producer that takes over; touched by producers only.
    pub appended: AtomicU64,
    pub taken: AtomicBool,
    pub full: AtomicU64,
    pub bytes_max: usize,
}

impl Ring {
    pub fn new(entries: usize, bytes_max: usize) -> Self {
        Self {
            queue: ArrayQueue::new(entries),
            bytes: AtomicUsize::new(0),
            urgent: AtomicBool::new(false),
            durable: AtomicU64::new(0),
            appended: AtomicU64::new(0),
            taken: AtomicBool::new(false),
            full: AtomicU64::new(0),
            bytes_max,
        }
    }

    /// Whether the writer should not wait for its window's end: half full by either bound.
    pub fn is_filling(&self) -> bool {
        self.queue.len() >= self.queue.capacity() / 2
            || self.bytes.load(Ordering::Relaxed) >= self.bytes_max / 2
    }
}

/// A shard's end of the recorder. `Send`, and there is only one per shard at a time.
pub struct Producer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) shard: usize,
    pub(crate) appended: u64,
}

impl Producer {
    fn ring(&self) -> &Ring {
        &self.shared.rings[self.shard]
    }

    /// The shard that this producer belongs to.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Appends a record and gives its sequence on this shard, from 1. It is in order, and durable
    /// once `durable()` has reached its sequence: at the next group commit.
    ///
    /// Records of one session go through one shard, in the order in which they are appended.
    /// `wall_clock_us` is in microseconds since 1970, UTC.
    ///
    /// # Errors
    /// `Full`: wait for the next `Durable` call of this shard (one follows for sure), then try
    /// again. `TooLarge`: it never fits. `Failed`: nothing is recorded any more.
    pub fn append(
        &mut self,
        session: SessionId,
        wall_clock_us: u64,
        body: &Body,
    ) -> Result<u64, AppendError> {
        self.push(session, wall_clock_us, body, false)
    }

    /// As `append`, and asks the writer to commit without waiting for its window.
    ///
    /// # Errors
    /// As `append`.
    pub fn append_urgent(
        &mut self,
        session: SessionId,
        wall_clock_us: u64,
        body: &Body,
    ) -> Result<u64, AppendError> {
        self.push(session, wall_clock_us, body, true)
    }

    /// Asks for a commit of what was appended so far.
    pub fn commit_soon(&mut self) {
        self.ring().urgent.store(true, Ordering::Release);
        if self.shared.wake.signal(true) == Signal::Unpark {
            self.shared.unpark();
        }
    }

    /// Sequence of the last record appended on this shard; 0 before the first.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// Records up to this sequence are durable. Also says so after a failure.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.ring().durable.load(Ordering::Acquire)
    }

    /// Whether a record of about this many bytes (of encoded body) would be taken now. A failed
    /// recorder has no room.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        let ring = self.ring();
        !self.shared.is_failed()
            && !ring.queue.is_full()
            && ring.bytes.load(Ordering::Acquire).saturating_add(bytes) <= ring.bytes_max
    }

    fn push(
        &mut self,
        session: SessionId,
        wall_clock_us: u64,
        body: &Body,
        urgent: bool,
    ) -> Result<u64, AppendError> {
        if self.shared.is_failed() {
            return Err(self.shared.failure());
        }
        let ring = &self.shared.rings[self.shard];
        if ring.queue.is_full() {
            return Err(self.refuse_full());
        }
        let bytes = body.encode().map_err(|_| AppendError::TooLarge {
            bytes: 0,
            bytes_max: ring.bytes_max,
        })?;
        let size = bytes.len();
        if size > ring.bytes_max {
            return Err(AppendError::TooLarge {
                bytes: size,
                bytes_max: ring.bytes_max,
            });
        }
        // Acquire pairs with the writer's Release, so that room that is seen is really there.
        if ring.bytes.load(Ordering::Acquire) + size > ring.bytes_max {
            return Err(self.refuse_full());
        }
        ring.bytes.fetch_add(size, Ordering::Relaxed);
        let entry = Entry {
            session,
            wall_clock_us,
            body: bytes,
            ends_session: matches!(body, Body::SessionEnd { .. }),
        };
        if ring.queue.push(entry).is_err() {
            ring.bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(self.refuse_full());
        }
        self.appended += 1;
        ring.appended.store(self.appended, Ordering::Relaxed);
        let hurry = urgent || ring.is_filling();
        if urgent {
            ring.urgent.store(true, Ordering::Release);
        }
        match self.shared.wake.signal(hurry) {
            Signal::None => {}
            Signal::Unpark => self.shared.unpark(),
            // It may have been seen by the writer's last look or not. In doubt: not on record.
            Signal::Closed => return Err(self.shared.failure()),
        }
        Ok(self.appended)
    }

    /// A full ring asks for a commit, so that the caller's wait is as short as it can be.
    fn refuse_full(&self) -> AppendError {
        self.ring().full.fetch_add(1, Ordering::Relaxed);
        self.ring().urgent.store(true, Ordering::Release);
        if self.shared.wake.signal(true) == Signal::Unpark {
            self.shared.unpark();
        }
        AppendError::Full
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Release pairs with the Acquire of the next `producer` call for this shard.
        self.ring().taken.store(false, Ordering::Release);
    }
}
