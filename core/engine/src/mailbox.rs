//! The way onto a shard from any thread: a lock-free queue of jobs, and two bells
//! (eventfds), one of which is rung only while the shard may sleep.

use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam::queue::SegQueue;

use crate::shard::current;

/// Jobs run in one turn before sockets and tasks get theirs.
const JOBS_PER_TURN_MAX: usize = 1024;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Where the shard may be asleep, and so which bell wakes it.
const AWAKE: u8 = 0;
const IN_RING: u8 = 1;
const PARKED: u8 = 2;

/// The two bells of a shard on the ring.
///
/// Each place of sleep has its own, because the ring's bell must not be what wakes a
/// parked shard: its write would complete a read in the ring, which would signal the
/// eventfd registered with the ring from within an eventfd's wake-up. The kernel
/// puts such a nested signal off and (6.18, seen) does so only once per registration.
pub(crate) struct Bells {
    /// Read by an operation of the ring; blocking.
    pub(crate) ring: OwnedFd,
    /// Watched by glommio, and registered with the ring while parked; non-blocking.
    pub(crate) park: OwnedFd,
}

/// One shard's mailbox.
///
/// Sleeping: the shard says where it is about to sleep, then looks at the queue once
/// more, then sleeps. A sender pushes, then takes the word away; who took it rings.
/// Both sides are sequentially consistent, so one of them sees the other.
pub(crate) struct Mailbox {
    jobs: SegQueue<Job>,
    asleep: AtomicU8,
    closed: AtomicBool,
    /// `None` in a simulation, which never sleeps.
    bells: Option<Bells>,
}

impl Mailbox {
    pub(crate) fn new(bells: Option<Bells>) -> Arc<Mailbox> {
        Arc::new(Mailbox {
            jobs: SegQueue::new(),
            asleep: AtomicU8::new(AWAKE),
            closed: AtomicBool::new(false),
            bells,
        })
    }

    pub(crate) fn bells(&self) -> Option<&Bells> {
        self.bells.as_ref()
    }

    /// Hands a job over; false if the shard is gone.
    pub(crate) fn push(&self, job: Job) -> bool {
        if self.closed.load(Ordering::SeqCst) {
            return false;
        }
        self.jobs.push(job);
        if self.closed.load(Ordering::SeqCst) {
            // The shard closed between the two looks and may have emptied the queue
            // already: nobody else will.
            self.discard();
            return false;
        }
        self.ring_if_asleep();
        true
    }

    fn ring_if_asleep(&self) {
        // SeqCst on both sides: pairs with `prepare_sleep`.
        let asleep = self.asleep.swap(AWAKE, Ordering::SeqCst);
        let Some(bells) = &self.bells else { return };
        let bell = match asleep {
            IN_RING => &bells.ring,
            PARKED => &bells.park,
            _ => return,
        };
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is owned by `self` and open; the buffer is eight
        // readable bytes, as an eventfd wants. The counter cannot get full: each
        // write is paid for by a sleep.
        unsafe { libc::write(bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Called by the shard before it sleeps in its ring, or parks in glommio; false
    /// if a job is there.
    pub(crate) fn prepare_sleep(&self, parked: bool) -> bool {
        let place = if parked { PARKED } else { IN_RING };
        self.asleep.store(place, Ordering::SeqCst);
        if self.jobs.is_empty() {
            return true;
        }
        self.awake();
        false
    }

    /// Called by the shard when it is up again.
    pub(crate) fn awake(&self) {
        self.asleep.store(AWAKE, Ordering::SeqCst);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Runs waiting jobs; how many, and how many of them panicked.
    pub(crate) fn run_jobs(&self) -> (u64, u64) {
        let (mut count, mut panics) = (0, 0);
        for _ in 0..JOBS_PER_TURN_MAX {
            let Some(job) = self.jobs.pop() else { break };
            // A job comes from elsewhere: its panic must not take the shard along.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                panics += 1;
            }
            count += 1;
        }
        (count, panics)
    }

    /// Closes for good; jobs that were not run are dropped.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.discard();
    }

    fn discard(&self) {
        while let Some(job) = self.jobs.pop() {
            drop(job);
        }
    }
}

/// A handle on a shard, usable from any thread.
#[derive(Clone)]
pub struct ShardHandle {
    index: usize,
    mailbox: Arc<Mailbox>,
}

impl ShardHandle {
    pub(crate) fn new(index: usize, mailbox: Arc<Mailbox>) -> ShardHandle {
        ShardHandle { index, mailbox }
    }

    /// The index of the shard.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Runs `job` on the shard soon, in order of arrival; there it may call `spawn`.
    /// False if the shard is gone. True means handed over: a shard that ends drops
    /// the jobs it did not come to. A job that panics is counted, the shard goes on.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.mailbox.push(Box::new(job))
    }
}

impl std::fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardHandle")
            .field("index", &self.index)
            .finish()
    }
}

/// The shard this code runs on.
///
/// # Panics
/// If called off a shard.
#[must_use]
pub fn this_shard() -> ShardHandle {
    let shard = current();
    ShardHandle::new(shard.index, shard.mailbox.clone())
}

struct ReplyState<T> {
    value: Option<T>,
    sender_gone: bool,
    waker: Option<Waker>,
}

/// The sending half of [`reply`]: any thread, once.
pub struct ReplySender<T>(Arc<Mutex<ReplyState<T>>>);

/// The receiving half of [`reply`]: a future of `Some(value)`, or `None` if the
/// sender was dropped.
#[must_use = "a reply does nothing unless awaited"]
pub struct Reply<T>(Arc<Mutex<ReplyState<T>>>);

/// A one-shot answer from any thread to a task of a shard. The waker goes through
/// the shard's mailbox.
pub fn reply<T: Send + 'static>() -> (ReplySender<T>, Reply<T>) {
    let state = Arc::new(Mutex::new(ReplyState {
        value: None,
        sender_gone: false,
        waker: None,
    }));
    (ReplySender(state.clone()), Reply(state))
}

impl<T: Send + 'static> ReplySender<T> {
    /// Gives the answer. If nobody waits any more, it is dropped.
    pub fn send(self, value: T) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.value = Some(value);
    }
}

impl<T> Drop for ReplySender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.sender_gone = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Reply<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.sender_gone {
            return Poll::Ready(state.value.take());
        }
        match &state.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}
