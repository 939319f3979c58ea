//! A small helper pool for work that is too long for a shard.
//!
//! The queue is bounded by the shards: each has at most [`IN_FLIGHT_MAX`] jobs in
//! the pool, further callers wait their turn on the shard. So nothing is lost, and
//! a full pool pushes back.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use crate::mailbox::{ShardHandle, reply};
use crate::shard::current;

/// Jobs that one shard may have in the pool at a time; the next ones wait.
const IN_FLIGHT_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

struct PoolState {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct PoolQueue {
    state: Mutex<PoolState>,
    more: Condvar,
}

/// The threads; they end when the last owner is gone.
pub(crate) struct HelperPool {
    queue: Arc<PoolQueue>,
}

impl HelperPool {
    pub(crate) fn start(threads: usize) -> io::Result<Arc<HelperPool>> {
        let queue = Arc::new(PoolQueue {
            state: Mutex::new(PoolState {
                jobs: VecDeque::new(),
                closed: false,
            }),
            more: Condvar::new(),
        });
        let pool = Arc::new(HelperPool {
            queue: queue.clone(),
        });
        for index in 0..threads {
            let queue = queue.clone();
            thread::Builder::new()
                .name(format!("helper-{index}"))
                .spawn(move || queue.work())?;
        }
        Ok(pool)
    }

    fn push(&self, job: Job) {
        let mut state = self
            .queue
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.jobs.push_back(job);
        drop(state);
        self.queue.more.notify_one();
    }
}

impl PoolQueue {
    fn work(&self) {
        loop {
            let job = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    if let Some(job) = state.jobs.pop_front() {
                        break job;
                    }
                    if state.closed {
                        return;
                    }
                    state = self
                        .more
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            };
            job();
        }
    }
}

impl Drop for HelperPool {
    fn drop(&mut self) {
        let mut state = self
            .queue
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        drop(state);
        self.queue.more.notify_all();
    }
}

/// One shard's share of the pool.
#[derive(Default)]
pub(crate) struct Gate {
    in_flight: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
}

impl Gate {
    fn release(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        // All, not one: the first may have been cancelled.
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

/// Runs `work` on a helper thread and gives its result. In a simulation it runs at
/// once, on the spot. If the pool is full the call waits. Dropping the future does
/// not stop work that has begun; its result is dropped.
///
/// # Panics
/// If called off a shard. A panic of `work` goes on in the caller.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let shard = current();
    let Some(pool) = shard.helpers.clone() else {
        return work();
    };
    poll_fn(|cx| {
        if shard.gate.in_flight.get() < IN_FLIGHT_MAX {
            shard.gate.in_flight.set(shard.gate.in_flight.get() + 1);
            return Poll::Ready(());
        }
        shard
            .gate
            .waiting
            .borrow_mut()
            .push_back(cx.waker().clone());
        Poll::Pending
    })
    .await;
    let (sender, answer) = reply::<Result<T, Box<dyn Any + Send>>>();
    let home = ShardHandle::new(shard.index, shard.mailbox.clone());
    pool.push(Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        home.run(move || {
            current().gate.release();
            sender.send(result);
        });
    }));
    match answer.await {
        Some(Ok(value)) => value,
        Some(Err(panic)) => resume_unwind(panic),
        None => unreachable!("a helper always answers, and only its shard may be gone first"),
    }
}
