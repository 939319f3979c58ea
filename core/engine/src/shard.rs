//! A shard's world and the thread-local that leads to it; starting and joining shards.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;

use crate::config::EngineConfig;
use crate::error::EngineError;
use crate::exec::{Exec, Kind, TaskKey, spawn_on};
use crate::mailbox::{Mailbox, ShardHandle};
use crate::offload::{Gate, HelperPool};
use crate::probe::probe;
use crate::ring::RingDriver;
use crate::ring::host::{self, Startup};
use crate::sim::SimDriver;
use crate::sock::Sock;
use crate::stats::{Counters, bump};
use crate::time::{Time, Timers, real_now};

/// What lies under a shard: the kernel's ring, or the simulated network.
pub(crate) enum Driver {
    Ring(Box<RingDriver>),
    Sim(Box<SimDriver>),
}

impl Driver {
    pub(crate) fn ring(&self) -> Option<&RingDriver> {
        match self {
            Driver::Ring(ring) => Some(ring),
            Driver::Sim(_) => None,
        }
    }

    pub(crate) fn sim(&self) -> Option<&SimDriver> {
        match self {
            Driver::Ring(_) => None,
            Driver::Sim(sim) => Some(sim),
        }
    }
}

/// One core's world. Everything in it stays on its thread; others reach it through
/// `mailbox` alone.
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) exec: Exec,
    pub(crate) timers: Timers,
    pub(crate) driver: Driver,
    pub(crate) counters: Counters,
    pub(crate) config: EngineConfig,
    pub(crate) helpers: Option<Arc<HelperPool>>,
    pub(crate) gate: Gate,
    /// `main` has returned: no new user tasks.
    pub(crate) ending: Cell<bool>,
    pub(crate) main_done: Cell<bool>,
    pub(crate) main_finished_well: Cell<bool>,
    /// Connections with something queued since the last flush.
    dirty: RefCell<Vec<Rc<Sock>>>,
    /// Wakes the pump while glommio is parked.
    pub(crate) host_waker: RefCell<Option<std::task::Waker>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

/// The shard of this thread, if it is one.
pub(crate) fn try_current() -> Option<Rc<Shard>> {
    CURRENT
        .try_with(|current| current.borrow().clone())
        .ok()
        .flatten()
}

/// The shard of this thread.
///
/// # Panics
/// Off a shard.
pub(crate) fn current() -> Rc<Shard> {
    try_current().expect("engine: called on a thread that is not a shard")
}

/// Makes `shard` the current one until the guard is dropped.
pub(crate) struct Entered(());

impl Entered {
    pub(crate) fn enter(shard: Rc<Shard>) -> Entered {
        CURRENT.with(|current| {
            let mut current = current.borrow_mut();
            assert!(current.is_none(), "engine: this thread already is a shard");
            *current = Some(shard);
        });
        Entered(())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let shard = CURRENT.with(|current| current.borrow_mut().take());
        drop(shard);
    }
}

impl Shard {
    pub(crate) fn new(
        index: usize,
        mailbox: Arc<Mailbox>,
        driver: Driver,
        config: EngineConfig,
        helpers: Option<Arc<HelperPool>>,
    ) -> Rc<Shard> {
        Rc::new(Shard {
            index,
            mailbox,
            exec: Exec::default(),
            timers: Timers::default(),
            driver,
            counters: Counters::default(),
            config,
            helpers,
            gate: Gate::default(),
            ending: Cell::new(false),
            main_done: Cell::new(false),
            main_finished_well: Cell::new(false),
            dirty: RefCell::new(Vec::new()),
            host_waker: RefCell::new(None),
        })
    }

    pub(crate) fn now(&self) -> Time {
        match &self.driver {
            Driver::Ring(_) => real_now(),
            Driver::Sim(sim) => sim.now(),
        }
    }

    /// Puts a task into the run queue, and wakes the pump if glommio is parked.
    pub(crate) fn make_ready(&self, key: TaskKey) {
        self.exec.push_ready(key);
        let waker = self.host_waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Notes that `sock` has something to send when the turn ends.
    pub(crate) fn mark_dirty(&self, sock: &Rc<Sock>) {
        if !sock.tx.dirty.replace(true) {
            self.dirty.borrow_mut().push(sock.clone());
            // Something queued by a waker that glommio ran while parked must not wait.
            let waker = self.host_waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Whether a flush is due.
    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.borrow().is_empty()
    }

    /// Everything that can be done without the driver: jobs, due timers, woken
    /// tasks; then one vectored send per connection that queued something.
    pub(crate) fn turn(&self) {
        let (jobs, panics) = self.mailbox.run_jobs();
        bump(&self.counters.mailbox_jobs, jobs);
        if panics > 0 {
            bump(&self.counters.panics, panics);
            tracing::error!(shard = self.index, count = panics, "mailbox job panicked");
        }
        if self.timers.next().is_some() {
            self.timers.fire(self.now());
        }
        self.exec.run(self);
        self.flush();
    }

    fn flush(&self) {
        while self.has_dirty() {
            let dirty = std::mem::take(&mut *self.dirty.borrow_mut());
            for sock in dirty {
                sock.tx.dirty.set(false);
                sock.start_send(self);
            }
        }
    }

    /// Starts `main` as a user task whose end ends the shard.
    pub(crate) fn start_main(self: &Rc<Self>, main: impl Future<Output = ()> + 'static) {
        struct Ended(Rc<Shard>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.main_done.set(true);
            }
        }
        let ended = Ended(self.clone());
        spawn_on(self, Kind::User, async move {
            let ended = ended;
            main.await;
            ended.0.main_finished_well.set(true);
        })
        .detach();
    }
}

/// The index of the shard this code runs on, from 0.
///
/// # Panics
/// If called off a shard.
#[must_use]
pub fn shard_index() -> usize {
    current().index
}

/// Running shards. Dropping it does not stop them.
#[must_use = "join the shards, or they run on unobserved"]
pub struct Shards {
    handles: Vec<ShardHandle>,
    threads: Vec<thread::JoinHandle<Result<(), EngineError>>>,
    _helpers: Arc<HelperPool>,
}

impl Shards {
    /// The handle of shard `index`.
    ///
    /// # Panics
    /// If there is no such shard.
    #[must_use]
    pub fn handle(&self, index: usize) -> ShardHandle {
        self.handles[index].clone()
    }

    /// All handles, in order.
    #[must_use]
    pub fn handles(&self) -> Vec<ShardHandle> {
        self.handles.clone()
    }

    /// Waits until every shard has ended.
    ///
    /// # Errors
    /// The first that ended badly.
    pub fn join(self) -> Result<(), EngineError> {
        let mut outcome = Ok(());
        for (shard, thread) in self.threads.into_iter().enumerate() {
            let ended = thread
                .join()
                .unwrap_or(Err(EngineError::Panicked { shard }));
            if outcome.is_ok() {
                outcome = ended;
            }
        }
        outcome
    }
}

/// Starts `config.shards` threads, each with an executor and a ring of its own, and
/// runs `main(shard_index)` on each. A shard ends when its `main` returns: its tasks
/// are then cancelled and dropped, what its connections had queued is flushed for at
/// most `drain_ms`.
///
/// # Errors
/// What [`probe`] says; an impossible configuration; or what kept a shard from
/// starting (then those already started have been told to end).
pub fn spawn_shards<F, Fut>(config: EngineConfig, main: F) -> Result<Shards, EngineError>
where
    F: Fn(usize) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    config.check()?;
    probe()?;
    let helpers =
        HelperPool::start(config.helper_threads).map_err(|source| EngineError::Start {
            shard: 0,
            step: "start helper threads",
            source,
        })?;
    let mut handles = Vec::with_capacity(config.shards);
    let mut threads = Vec::with_capacity(config.shards);
    let mut starts = Vec::with_capacity(config.shards);
    for index in 0..config.shards {
        let (report, started) = mpsc::sync_channel::<Result<ShardHandle, EngineError>>(1);
        let (go, wait) = mpsc::sync_channel::<()>(1);
        let startup = Startup {
            index,
            config: config.clone(),
            helpers: helpers.clone(),
            report,
            go: wait,
        };
        let main = main.clone();
        let thread = thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || host::run_shard(startup, move || main(index)))
            .map_err(|source| EngineError::Start {
                shard: index,
                step: "start thread",
                source,
            })?;
        let handle = match started.recv() {
            Ok(Ok(handle)) => handle,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(EngineError::Panicked { shard: index }),
        };
        handles.push(handle);
        threads.push(thread);
        starts.push(go);
    }
    // Only when all are up does any of them run its main: dropping `starts` on an
    // early return tells the others to end.
    for go in starts {
        let _ = go.send(());
    }
    Ok(Shards {
        handles,
        threads,
        _helpers: helpers,
    })
}
