//! Wake-ups and queues between tasks of one shard; nothing in here is shared
//! between threads.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use slab::Slab;

/// Tells tasks of the same shard that something changed. Cheap to clone; clones
/// are the same `Notify`.
///
/// There is no stored permit: a waiter sees what is notified after its
/// [`Notify::notified`] was called (not merely polled). So check the condition,
/// call `notified()`, check again only if something ran in between.
#[derive(Clone, Default)]
pub struct Notify(Rc<NotifyState>);

#[derive(Default)]
struct NotifyState {
    epoch: Cell<u64>,
    waiters: RefCell<Slab<Waker>>,
}

impl Notify {
    /// A new one that nobody waits on.
    #[must_use]
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Wakes everyone who waits now.
    pub fn notify_all(&self) {
        self.0.epoch.set(self.0.epoch.get().wrapping_add(1));
        let waiters = std::mem::take(&mut *self.0.waiters.borrow_mut());
        for (_, waker) in waiters {
            waker.wake();
        }
    }

    /// Ready once [`Notify::notify_all`] has been called after this call.
    pub fn notified(&self) -> impl Future<Output = ()> + use<> {
        let state = self.0.clone();
        let epoch = state.epoch.get();
        let mut registration = Registration {
            state,
            epoch,
            key: None,
        };
        poll_fn(move |cx| {
            let r = &mut registration;
            if r.state.epoch.get() != r.epoch {
                r.key = None;
                return Poll::Ready(());
            }
            let mut waiters = r.state.waiters.borrow_mut();
            match r.key.and_then(|key| waiters.get_mut(key)) {
                Some(waker) => waker.clone_from(cx.waker()),
                None => r.key = Some(waiters.insert(cx.waker().clone())),
            }
            Poll::Pending
        })
    }
}

struct Registration {
    state: Rc<NotifyState>,
    epoch: u64,
    key: Option<usize>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        // A notification empties the slab, so the key only names our own waker while
        // the epoch stands.
        if let Some(key) = self.key
            && self.state.epoch.get() == self.epoch
        {
            let waker = self.state.waiters.borrow_mut().try_remove(key);
            drop(waker);
        }
    }
}

struct QueueState<T> {
    items: RefCell<VecDeque<T>>,
    capacity: usize,
    senders: Cell<usize>,
    receiver_gone: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The sending half of [`queue`]; clone it for more senders.
pub struct QueueSender<T>(Rc<QueueState<T>>);

/// The receiving half of [`queue`].
pub struct QueueReceiver<T>(Rc<QueueState<T>>);

/// A queue between tasks of one shard, of at most `capacity` items. A full queue
/// gives the item back; the sender decides.
#[must_use]
pub fn queue<T>(capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    let state = Rc::new(QueueState {
        items: RefCell::new(VecDeque::new()),
        capacity,
        senders: Cell::new(1),
        receiver_gone: Cell::new(false),
        waker: RefCell::new(None),
    });
    (QueueSender(state.clone()), QueueReceiver(state))
}

impl<T> QueueSender<T> {
    /// Appends an item.
    ///
    /// # Errors
    /// The item, if the queue is full or its receiver is gone.
    pub fn send(&self, item: T) -> Result<(), T> {
        if self.0.receiver_gone.get() || self.0.items.borrow().len() >= self.0.capacity {
            return Err(item);
        }
        self.0.items.borrow_mut().push_back(item);
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
        Ok(())
    }
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        self.0.senders.set(self.0.senders.get() + 1);
        QueueSender(self.0.clone())
    }
}

impl<T> Drop for QueueSender<T> {
    fn drop(&mut self) {
        self.0.senders.set(self.0.senders.get() - 1);
        if self.0.senders.get() == 0
            && let Some(waker) = self.0.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

impl<T> QueueReceiver<T> {
    /// The next item; `None` once all senders are gone and the queue is empty.
    /// Cancel-safe.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| {
            if let Some(item) = self.0.items.borrow_mut().pop_front() {
                return Poll::Ready(Some(item));
            }
            if self.0.senders.get() == 0 {
                return Poll::Ready(None);
            }
            *self.0.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The next item if one is there.
    pub fn try_recv(&mut self) -> Option<T> {
        self.0.items.borrow_mut().pop_front()
    }
}

impl<T> Drop for QueueReceiver<T> {
    fn drop(&mut self) {
        self.0.receiver_gone.set(true);
    }
}
