//! The shard's own run queue and tasks: the same code on the ring and in the
//! simulation.
//!
//! glommio hosts one future per shard, the pump; the shard's tasks live in here and
//! are polled by it. So the pump knows exactly whether anything is left to run, a
//! detached task is still owned by its shard (and dropped with it), and the order
//! of polls does not depend on what lies underneath.
//!
//! A waker may be used from any thread: on its own shard it pushes to the run
//! queue, elsewhere it goes through the shard's mailbox.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

use crate::mailbox::Mailbox;
use crate::shard::{Shard, current, try_current};
use crate::stats::bump;

/// Polls in one turn before the ring is looked at again, so that tasks which wake
/// each other for ever cannot starve the sockets.
const POLLS_PER_TURN_MAX: usize = 512;

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Names one task; the generation tells a reused slot from the task it once held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskKey {
    index: usize,
    generation: u64,
}

/// Whose task it is: system tasks (closing connections) outlive user tasks when the
/// shard ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    System,
}

struct Slot {
    generation: u64,
    kind: Kind,
    /// `None` while the task is being polled.
    future: Option<LocalFuture>,
    wake: Arc<TaskWake>,
    waker: Waker,
}

struct TaskWake {
    key: TaskKey,
    queued: AtomicBool,
    mailbox: Arc<Mailbox>,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Relaxed would do on one thread; a foreign waker's writes must be seen by
        // the poll that clears the flag: Release here pairs with Acquire there.
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(shard) = try_current()
            && Arc::ptr_eq(&shard.mailbox, &self.mailbox)
        {
            shard.make_ready(self.key);
            return;
        }
        let key = self.key;
        self.mailbox
            .push(Box::new(move || current().make_ready(key)));
    }
}

/// The tasks of one shard.
#[derive(Default)]
pub(crate) struct Exec {
    slots: RefCell<Slab<Slot>>,
    ready: RefCell<VecDeque<TaskKey>>,
    generation: Cell<u64>,
    system: Cell<usize>,
}

impl Exec {
    /// Live tasks.
    pub(crate) fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Live system tasks.
    pub(crate) fn system_len(&self) -> usize {
        self.system.get()
    }

    /// Whether a woken task waits for its poll.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty()
    }

    pub(crate) fn push_ready(&self, key: TaskKey) {
        self.ready.borrow_mut().push_back(key);
    }

    fn insert(&self, shard: &Shard, kind: Kind, future: LocalFuture) -> TaskKey {
        let generation = self.generation.get();
        self.generation.set(generation + 1);
        let mut slots = self.slots.borrow_mut();
        let entry = slots.vacant_entry();
        let key = TaskKey {
            index: entry.key(),
            generation,
        };
        let wake = Arc::new(TaskWake {
            key,
            queued: AtomicBool::new(true),
            mailbox: shard.mailbox.clone(),
        });
        let waker = Waker::from(wake.clone());
        entry.insert(Slot {
            generation,
            kind,
            future: Some(future),
            wake,
            waker,
        });
        if kind == Kind::System {
            self.system.set(self.system.get() + 1);
        }
        key
    }

    fn remove(&self, key: TaskKey) -> Option<Slot> {
        let mut slots = self.slots.borrow_mut();
        match slots.get(key.index) {
            Some(slot) if slot.generation == key.generation => {
                let slot = slots.remove(key.index);
                if slot.kind == Kind::System {
                    self.system.set(self.system.get() - 1);
                }
                Some(slot)
            }
            _ => None,
        }
    }

    /// Polls woken tasks until none is left or the turn's budget is used up.
    pub(crate) fn run(&self, shard: &Shard) {
        for _ in 0..POLLS_PER_TURN_MAX {
            let Some(key) = self.ready.borrow_mut().pop_front() else {
                return;
            };
            self.poll(shard, key);
        }
    }

    fn poll(&self, shard: &Shard, key: TaskKey) {
        let (future, waker) = {
            let mut slots = self.slots.borrow_mut();
            match slots.get_mut(key.index) {
                Some(slot) if slot.generation == key.generation => {
                    // Acquire: pairs with the Release of a foreign wake.
                    slot.wake.queued.swap(false, Ordering::AcqRel);
                    (slot.future.take(), slot.waker.clone())
                }
                _ => return,
            }
        };
        let Some(mut future) = future else { return };
        let mut cx = Context::from_waker(&waker);
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx))) {
            Ok(Poll::Pending) => {
                let mut slots = self.slots.borrow_mut();
                match slots.get_mut(key.index) {
                    Some(slot) if slot.generation == key.generation => {
                        slot.future = Some(future);
                    }
                    // Cancelled from within its own poll.
                    _ => {
                        drop(slots);
                        drop_quietly(shard, future);
                    }
                }
            }
            Ok(Poll::Ready(())) => {
                self.remove(key);
                drop_quietly(shard, future);
            }
            Err(panic) => {
                bump(&shard.counters.panics, 1);
                tracing::error!(
                    shard = shard.index,
                    reason = reason(&*panic),
                    "task panicked"
                );
                self.remove(key);
                drop_quietly(shard, future);
            }
        }
    }

    fn cancel(&self, shard: &Shard, key: TaskKey) {
        if let Some(slot) = self.remove(key)
            && let Some(future) = slot.future
        {
            drop_quietly(shard, future);
        }
    }

    /// Wakes every task, to look at what has changed.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<Waker> = self
            .slots
            .borrow()
            .iter()
            .map(|(_, slot)| slot.waker.clone())
            .collect();
        for waker in wakers {
            waker.wake();
        }
    }

    /// Drops every task of `kind`; their guards run. What they spawn meanwhile is
    /// dropped too.
    pub(crate) fn cancel_all(&self, shard: &Shard, kind: Kind) {
        loop {
            let keys: Vec<TaskKey> = self
                .slots
                .borrow()
                .iter()
                .filter(|(_, slot)| slot.kind == kind)
                .map(|(index, slot)| TaskKey {
                    index,
                    generation: slot.generation,
                })
                .collect();
            if keys.is_empty() {
                return;
            }
            for key in keys {
                self.cancel(shard, key);
            }
        }
    }
}

fn drop_quietly(shard: &Shard, future: LocalFuture) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
        bump(&shard.counters.panics, 1);
        tracing::error!(
            shard = shard.index,
            reason = reason(&*panic),
            "dropping a task panicked"
        );
    }
}

fn reason(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

struct JoinState<T> {
    result: RefCell<Option<T>>,
    done: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Tells the handle that the task is over, however it ended.
struct DoneGuard<T>(Rc<JoinState<T>>);

impl<T> Drop for DoneGuard<T> {
    fn drop(&mut self) {
        self.0.done.set(true);
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// A handle on a running task. Awaiting it gives `Some(output)`, or `None` if the
/// task panicked or was cancelled. Dropping it cancels the task: the future is
/// dropped at once, its guards run.
#[must_use = "dropping a Task cancels it; call detach() to let it run"]
pub struct Task<T> {
    key: TaskKey,
    state: Rc<JoinState<T>>,
    shard: Weak<Shard>,
    detached: bool,
}

impl<T> Task<T> {
    /// Lets the task run without a handle. Its shard still owns it, and cancels it
    /// when the shard ends.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// Whether the task is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state.done.get()
    }
}

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.state.done.get() {
            return Poll::Ready(self.state.result.borrow_mut().take());
        }
        *self.state.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if self.detached || self.state.done.get() {
            return;
        }
        if let Some(shard) = self.shard.upgrade() {
            shard.exec.cancel(&shard, self.key);
        }
    }
}

/// Starts a task on this shard. It is first polled after the caller yields.
/// On a shard that is ending the future is dropped at once and the task gives `None`.
///
/// # Panics
/// If called off a shard.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    spawn_on(&current(), Kind::User, future)
}

pub(crate) fn spawn_on<T: 'static>(
    shard: &Rc<Shard>,
    kind: Kind,
    future: impl Future<Output = T> + 'static,
) -> Task<T> {
    let state = Rc::new(JoinState {
        result: RefCell::new(None),
        done: Cell::new(false),
        waker: RefCell::new(None),
    });
    let guard = DoneGuard(state.clone());
    let wrapped = Box::pin(async move {
        // Whole, not by field: the guard must live in the future from the start.
        let guard = guard;
        let value = future.await;
        *guard.0.result.borrow_mut() = Some(value);
    });
    let key = shard.exec.insert(shard, kind, wrapped);
    if shard.ending.get() && kind == Kind::User {
        shard.exec.cancel(shard, key);
    } else {
        shard.make_ready(key);
    }
    Task {
        key,
        state,
        shard: Rc::downgrade(shard),
        detached: false,
    }
}

/// Lets every other woken task run before this one goes on.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
