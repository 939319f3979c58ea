//! The writer's sleep flag: producers wake the writer only when it sleeps.
//!
//! ```text
//!            nothing queued, nothing to commit        a signal of any kind
//!   AWAKE ────────────────────────────────▶ IDLE ───────────────────────▶ AWAKE
//!   AWAKE ────────────────────────────────▶ WINDOW ─────────────────────▶ AWAKE
//!            written, commit not yet due              urgent signal, or time
//! ```
//!
//! Both sides write, fence, then look at what the other wrote (Dekker): the producer pushes, then
//! reads the state; the writer sets the state, then reads the queues. At least one of them sees
//! the other, so no record waits for a writer that sleeps on. `tests/loom_wake.rs` runs this file
//! under loom, which is why the atomics come from the parent module.

use super::sync::{AtomicU8, Ordering, fence};

const AWAKE: u8 = 0;
const WINDOW: u8 = 1;
const IDLE: u8 = 2;
const CLOSED: u8 = 3;

/// What a producer must do after it pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Nothing: the writer will look by itself.
    None,
    /// Unpark the writer's thread.
    Unpark,
    /// The writer has ended, or will not look again: the record may be lost.
    Closed,
}

/// The flag; one for the writer, shared by all producers.
#[derive(Debug)]
pub struct Wake {
    state: AtomicU8,
}

impl Wake {
    /// A flag of a writer that is awake.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: AtomicU8::new(AWAKE),
        }
    }

    /// Called by a producer *after* its push. `urgent` also ends a commit window.
    #[must_use]
    pub fn signal(&self, urgent: bool) -> Signal {
        // Pairs with the fence in `sleep` and `close`: orders the push before the read below.
        fence(Ordering::SeqCst);
        let seen = self.state.load(Ordering::Relaxed);
        match seen {
            AWAKE => return Signal::None,
            CLOSED => return Signal::Closed,
            WINDOW if !urgent => return Signal::None,
            _ => {}
        }
        // Acquire/release: only who moves the state unparks, so that one sleep costs one futex.
        match self
            .state
            .compare_exchange(seen, AWAKE, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => Signal::Unpark,
            Err(CLOSED) => Signal::Closed,
            // The writer moved on by itself and will look at the queues before it sleeps again.
            Err(_) => Signal::None,
        }
    }

    /// Called by the writer before it sleeps; `window` when a commit is due later. It must look at
    /// the queues after this and before it parks, and call `awake` in any case afterwards.
    pub fn sleep(&self, window: bool) {
        self.state
            .store(if window { WINDOW } else { IDLE }, Ordering::Relaxed);
        // Pairs with the fence in `signal`: orders the store before the writer's look.
        fence(Ordering::SeqCst);
    }

    /// Whether a producer has ended the sleep that `sleep` began.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == AWAKE
    }

    /// Called by the writer after its sleep.
    pub fn awake(&self) {
        self.state.store(AWAKE, Ordering::Release);
    }

    /// Called by the writer before its last look at the queues. A producer whose push that look
    /// does not see is told `Closed`.
    pub fn close(&self) {
        self.state.store(CLOSED, Ordering::Relaxed);
        // Pairs with the fence in `signal`.
        fence(Ordering::SeqCst);
    }
}

impl Default for Wake {
    fn default() -> Self {
        Self::new()
    }
}
