//! The engine's clock and timers: one ordered set per shard, real or virtual.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::Elapsed;
use crate::shard::{Shard, current, try_current};

/// A point on the engine's monotonic clock, in nanoseconds since an arbitrary
/// origin that is the same for all shards of a process (in the simulation: since
/// its start). Never compare one with wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin of the clock.
    pub const ZERO: Time = Time(0);
    /// A point that never comes: a deadline that does not bind.
    pub const MAX: Time = Time(u64::MAX);

    /// The point `nanoseconds` after the origin.
    #[must_use]
    pub const fn from_nanos(nanoseconds: u64) -> Time {
        Time(nanoseconds)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This point moved `duration` later; stops at [`Time::MAX`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Time {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanoseconds))
    }

    /// The time from `earlier` to this point; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, duration: Duration) -> Time {
        self.after(duration)
    }
}

impl Sub for Time {
    type Output = Duration;
    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

/// Now, on this shard's clock: virtual inside a simulation, else monotonic.
/// May be called off a shard too; then it is the real clock.
#[must_use]
pub fn now() -> Time {
    match try_current() {
        Some(shard) => shard.now(),
        None => real_now(),
    }
}

/// Microseconds since the Unix epoch by the wall clock; virtual in a simulation.
/// For records and logs, never for deadlines: it may jump.
#[must_use]
pub fn wall_clock_us() -> u64 {
    /// The simulation's wall clock starts at 2026-01-01T00:00:00Z.
    const SIM_EPOCH_US: u64 = 1_767_225_600_000_000;
    if let Some(shard) = try_current()
        && let Some(sim) = shard.driver.sim()
    {
        return SIM_EPOCH_US.saturating_add(sim.now().as_nanos() / 1000);
    }
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn real_now() -> Time {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(Instant::now);
    // One nanosecond up, so that no real time equals `Time::ZERO`.
    Time(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX - 1) + 1)
}

/// A shard's pending timers, ordered by time, then by order of arming.
#[derive(Default)]
pub(crate) struct Timers {
    pending: RefCell<BTreeMap<(Time, u64), Waker>>,
    sequence: Cell<u64>,
}

impl Timers {
    fn insert(&self, at: Time, waker: Waker) -> u64 {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        self.pending.borrow_mut().insert((at, sequence), waker);
        sequence
    }

    fn remove(&self, at: Time, sequence: u64) {
        let removed = self.pending.borrow_mut().remove(&(at, sequence));
        drop(removed);
    }

    /// When the earliest timer is due.
    pub(crate) fn next(&self) -> Option<Time> {
        self.pending
            .borrow()
            .first_key_value()
            .map(|(key, _)| key.0)
    }

    /// How many timers are armed.
    pub(crate) fn len(&self) -> usize {
        self.pending.borrow().len()
    }

    /// Wakes all timers due at `now`.
    pub(crate) fn fire(&self, now: Time) {
        loop {
            let waker = {
                let mut pending = self.pending.borrow_mut();
                match pending.first_entry() {
                    Some(entry) if entry.key().0 <= now => entry.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }
}

/// A future that is ready at a given time. Made by [`sleep_until`]; dropping it
/// takes the timer away.
#[must_use = "a sleep does nothing unless awaited"]
pub struct Sleep {
    at: Time,
    armed: Option<(Rc<Shard>, u64)>,
}

/// Ready at `at` on this shard's clock; at once if that has passed.
/// [`Time::MAX`] never comes.
pub fn sleep_until(at: Time) -> Sleep {
    Sleep { at, armed: None }
}

impl Sleep {
    fn disarm(&mut self) {
        if let Some((shard, sequence)) = self.armed.take() {
            shard.timers.remove(self.at, sequence);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shard = match &self.armed {
            Some((shard, _)) => shard.clone(),
            None => current(),
        };
        if self.at != Time::MAX && shard.now() >= self.at {
            self.disarm();
            return Poll::Ready(());
        }
        if self.at != Time::MAX {
            self.disarm();
            let sequence = shard.timers.insert(self.at, cx.waker().clone());
            self.armed = Some((shard, sequence));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// Runs `future` until it is done or `at` has come, then drops it.
///
/// # Errors
/// [`Elapsed`] if the time came first. A future that is ready at its first poll
/// wins over a deadline that has already passed.
pub async fn deadline<T>(at: Time, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep_until(at));
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}
