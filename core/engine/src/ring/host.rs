//! The pump: one glommio future per shard that runs the shard's tasks and waits in
//! the shard's own ring.
//!
//! ```text
//!        ┌────────────── hot ──────────────┐   tick without    ┌──── parked ────┐
//!  ─────▶│ turn: jobs, timers, tasks, sends │──── traffic ────▶ │ glommio waits  │
//!        │ submit_and_wait(1) in our ring   │                   │ on an eventfd  │
//!        │ tick with traffic: one glommio   │◀── completion, ───│ our ring rings │
//!        │ reactor pass (a 2 us timer)      │  mailbox, waker   └────────────────┘
//!        └──────────────────────────────────┘
//! ```
//! Hot, glommio never parks and its several enters per cycle are saved; parked,
//! nothing costs anything, and futures of glommio's own (files, timers) work in both.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::task::Poll;
use std::time::Duration;

use futures_io::AsyncRead;
use glommio::net::UnixStream;
use glommio::{LocalExecutorBuilder, Placement};

use super::RingDriver;
use crate::config::EngineConfig;
use crate::error::EngineError;
use crate::exec::Kind;
use crate::mailbox::{Bells, Mailbox, ShardHandle};
use crate::offload::HelperPool;
use crate::shard::{Driver, Entered, Shard};
use crate::stats::bump;

/// Memory glommio registers for its own files: its least.
const GLOMMIO_IO_BYTES: usize = 64 * 1024;
/// The shortest glommio timer that makes it pass its reactor; zero does not.
const GLOMMIO_PASS: Duration = Duration::from_micros(2);
/// How long cancelled operations may take to end when a shard ends. They end at
/// once; beyond it their memory is given up rather than freed under the kernel.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);

/// What a shard's thread is given.
pub(crate) struct Startup {
    pub(crate) index: usize,
    pub(crate) config: EngineConfig,
    pub(crate) helpers: Arc<HelperPool>,
    /// Told once whether the shard is up.
    pub(crate) report: SyncSender<Result<ShardHandle, EngineError>>,
    /// Says go, or is dropped to call it off.
    pub(crate) go: Receiver<()>,
}

/// The body of a shard's thread.
pub(crate) fn run_shard<F, Fut>(startup: Startup, main: F) -> Result<(), EngineError>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let index = startup.index;
    let placement = if startup.config.pin {
        Placement::Fixed(index)
    } else {
        Placement::Unbound
    };
    let executor = LocalExecutorBuilder::new(placement)
        .name("shard")
        .io_memory(GLOMMIO_IO_BYTES)
        .make();
    match executor {
        Ok(executor) => executor.run(live(startup, main)),
        Err(error) => {
            let reason = error.to_string();
            let told = EngineError::Executor {
                shard: index,
                reason: reason.clone(),
            };
            let _ = startup.report.send(Err(told));
            Err(EngineError::Executor {
                shard: index,
                reason,
            })
        }
    }
}

async fn live<F, Fut>(startup: Startup, main: F) -> Result<(), EngineError>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let Startup {
        index,
        config,
        helpers,
        report,
        go,
    } = startup;
    let failed = |step| {
        move |source| EngineError::Start {
            shard: index,
            step,
            source,
        }
    };
    let made: Result<_, EngineError> = (|| {
        let ring = eventfd(0).map_err(failed("create mailbox eventfd"))?;
        let park = eventfd(libc::EFD_NONBLOCK).map_err(failed("create ring eventfd"))?;
        let mailbox = Mailbox::new(Some(Bells { ring, park }));
        let ring = RingDriver::new(&config, &mailbox).map_err(failed("create io_uring"))?;
        Ok(Shard::new(
            index,
            mailbox,
            Driver::Ring(Box::new(ring)),
            config,
            Some(helpers),
        ))
    })();
    let shard = match made {
        Ok(made) => made,
        Err(error) => {
            let text = EngineError::Executor {
                shard: index,
                reason: error.to_string(),
            };
            let _ = report.send(Err(error));
            return Err(text);
        }
    };
    let (Driver::Ring(ring), Some(bells)) = (&shard.driver, shard.mailbox.bells()) else {
        unreachable!("made above")
    };
    let _ = report.send(Ok(ShardHandle::new(index, shard.mailbox.clone())));
    let entered = Entered::enter(shard.clone());
    // Blocking is right here: nothing runs on this shard yet.
    let mut outcome = Ok(());
    if go.recv().is_ok() {
        shard.start_main(main());
        let pump = Pump {
            shard: &shard,
            ring,
            watch: &bells.park,
        };
        outcome = pump.run(|| shard.main_done.get()).await;
        if outcome.is_ok() {
            outcome = pump.end().await;
        }
    }
    shard.ending.set(true);
    shard.mailbox.close();
    shard.exec.cancel_all(&shard, Kind::User);
    shard.exec.cancel_all(&shard, Kind::System);
    if outcome.is_ok() {
        outcome = settle(&shard, ring);
    }
    shard.turn();
    drop(entered);
    outcome.map_err(|source| EngineError::Start {
        shard: index,
        step: "wait in io_uring",
        source,
    })?;
    if shard.main_done.get() && !shard.main_finished_well.get() {
        return Err(EngineError::Panicked { shard: index });
    }
    Ok(())
}

/// Cancels what is in flight and waits until the kernel has let go of it.
fn settle(shard: &Rc<Shard>, ring: &RingDriver) -> io::Result<()> {
    let until = shard.now().after(CANCEL_LIMIT);
    ring.stop_bell();
    while ring.operations() > 0 && shard.now() < until {
        ring.cancel_everything();
        ring.wait(Some(Duration::from_millis(10)))?;
        ring.reap(shard);
        shard.turn();
    }
    Ok(())
}

struct Pump<'a> {
    shard: &'a Rc<Shard>,
    ring: &'a RingDriver,
    watch: &'a OwnedFd,
}

impl Pump<'_> {
    /// Runs the shard until `done`.
    async fn run(&self, done: impl Fn() -> bool) -> io::Result<()> {
        let Pump { shard, ring, .. } = *self;
        loop {
            shard.turn();
            ring.relieve(shard);
            if done() {
                return Ok(());
            }
            if ring.take_tick() {
                if ring.take_traffic() {
                    glommio::timer::sleep(GLOMMIO_PASS).await;
                } else if !self.busy() {
                    self.park().await?;
                }
                continue;
            }
            ring.arm_tick();
            if self.busy() || !shard.mailbox.prepare_sleep(false) {
                ring.enter()?;
            } else {
                ring.wait(self.timeout())?;
                shard.mailbox.awake();
            }
            ring.reap(shard);
        }
    }

    /// After `main`: drops the user's tasks, then gives closing connections time to
    /// flush.
    async fn end(&self) -> io::Result<()> {
        let shard = self.shard;
        shard.ending.set(true);
        shard.mailbox.close();
        shard.exec.cancel_all(shard, Kind::User);
        shard.exec.wake_all();
        let until = shard.now().after(shard.config.drain());
        // The sleeper is woken in time by an engine timer of its own.
        let mut alarm = pin!(crate::time::sleep_until(until));
        poll_fn(|cx| {
            let _ = alarm.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
        self.run(|| shard.exec.system_len() == 0 || shard.now() >= until)
            .await
    }

    fn busy(&self) -> bool {
        self.shard.exec.has_ready() || self.shard.has_dirty() || !self.shard.mailbox.is_empty()
    }

    /// How long the ring may wait: as the tick stands, only a nearer timer counts.
    fn timeout(&self) -> Option<Duration> {
        let left = self.shard.timers.next()?.since(self.shard.now());
        (left < self.ring.tick()).then_some(left)
    }

    /// Sleeps in glommio until our ring completes something, a job comes, or a task
    /// of ours is woken from within glommio.
    async fn park(&self) -> io::Result<()> {
        let Pump { shard, ring, watch } = *self;
        if let Some(at) = shard.timers.next() {
            ring.arm_alarm(at, shard.now());
        }
        ring.watch(watch.as_raw_fd())?;
        let parked = self.parked().await;
        ring.unwatch()?;
        shard.mailbox.awake();
        *shard.host_waker.borrow_mut() = None;
        let mut count = [0u8; 8];
        // SAFETY: the descriptor is open and non-blocking, the buffer holds the eight
        // bytes that an eventfd gives.
        unsafe { libc::read(watch.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        parked
    }

    async fn parked(&self) -> io::Result<()> {
        let Pump { shard, ring, watch } = *self;
        // From here on a completion rings; what completed before is found now.
        ring.enter()?;
        if ring.reap(shard) || self.busy() || !shard.mailbox.prepare_sleep(true) {
            return Ok(());
        }
        bump(&shard.counters.parks, 1);
        // Out of descriptors: no parking then, the tick goes on and the shard lives.
        let Ok(duplicate) = watch.try_clone() else {
            return Ok(());
        };
        // SAFETY: the descriptor is ours and given away here. It is no socket:
        // glommio offers no plain "watch this descriptor", but a stream polls for
        // readiness before it reads, and the read then fails with ENOTSOCK.
        let mut stream = unsafe { UnixStream::from_raw_fd(duplicate.into_raw_fd()) };
        let mut byte = [0u8; 1];
        poll_fn(|cx| {
            if self.busy() {
                return Poll::Ready(());
            }
            *shard.host_waker.borrow_mut() = Some(cx.waker().clone());
            poll_watch(Pin::new(&mut stream), cx, &mut byte)
        })
        .await;
        ring.enter()?;
        ring.reap(shard);
        Ok(())
    }
}

/// Ready when the watched descriptor is: whatever the read says.
fn poll_watch(
    stream: Pin<&mut UnixStream>,
    cx: &mut std::task::Context<'_>,
    buffer: &mut [u8],
) -> Poll<()> {
    stream.poll_read(cx, buffer).map(drop)
}

/// The bell blocks, so that the ring's read of it waits instead of saying EAGAIN.
fn eventfd(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the answer is checked.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
