//! The simulated twin: the same public functions over a network in memory, in
//! virtual time, on one thread, all from one seed.
//!
//! ```
//! # use portcullis_engine as engine;
//! use engine::{ListenOptions, Listener, connect, deadline, now, sim, spawn};
//! use std::time::Duration;
//!
//! let echoed = sim::run(sim::SimConfig::from_seed(7), || async {
//!     let address = "10.0.0.1:5432".parse().unwrap();
//!     let listener = Listener::bind(address, ListenOptions::default()).unwrap();
//!     let server = spawn(async move {
//!         let (conn, _) = listener.accept().await.unwrap();
//!         let (mut reader, writer) = conn.split();
//!         writer.queue(reader.recv().await.unwrap());
//!     });
//!     let conn = connect(address, now() + Duration::from_secs(1)).await.unwrap();
//!     let (mut reader, writer) = conn.split();
//!     writer.queue("x".into());
//!     let echoed = reader.recv().await.unwrap();
//!     server.await;
//!     echoed
//! });
//! assert_eq!(&echoed[..], b"x");
//! ```
//! Nothing in it may wait for another thread: what would never become runnable is
//! reported as a deadlock, with the seed.

pub(crate) mod net;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use crate::config::EngineConfig;
use crate::exec::Kind;
use crate::mailbox::Mailbox;
use crate::shard::{Driver, Entered, Shard};
use crate::time::Time;

use self::net::Net;

/// What the simulated network does. Probabilities are per ten thousand.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// From this everything follows.
    pub seed: u64,
    /// Receives give fewer bytes than are there.
    pub partial_reads: bool,
    /// Sends take fewer bytes than are offered.
    pub short_writes: bool,
    /// One-way delay of each piece, in microseconds.
    pub latency_us: RangeInclusive<u64>,
    /// Per delivered piece: the connection is reset, seen by both sides.
    pub reset_per_10k: u32,
    /// Per delivered piece: it is held up for `stall_us`.
    pub stall_per_10k: u32,
    /// How long a stall is, in microseconds.
    pub stall_us: RangeInclusive<u64>,
    /// Per dial: refused though somebody listens.
    pub refuse_per_10k: u32,
    /// Bytes that one direction holds between the two programs, at least 1.
    pub window_bytes: usize,
    /// Turns after which the simulation gives up, as one that goes round in circles.
    pub turns_max: u64,
}

impl SimConfig {
    /// A busy network without faults: partial reads, short writes, 10 to 300 us.
    #[must_use]
    pub fn from_seed(seed: u64) -> SimConfig {
        SimConfig {
            seed,
            partial_reads: true,
            short_writes: true,
            latency_us: 10..=300,
            reset_per_10k: 0,
            stall_per_10k: 0,
            stall_us: 1_000..=200_000,
            refuse_per_10k: 0,
            window_bytes: 64 * 1024,
            turns_max: 50_000_000,
        }
    }

    /// As [`SimConfig::from_seed`], with rare resets and stalls.
    #[must_use]
    pub fn hostile(seed: u64) -> SimConfig {
        SimConfig {
            reset_per_10k: 20,
            stall_per_10k: 50,
            refuse_per_10k: 50,
            ..Self::from_seed(seed)
        }
    }
}

/// Runs a future to its end in a simulation of its own and gives its output. Then
/// the tasks that are left are dropped.
///
/// # Panics
/// With the seed in the message: if nothing is runnable and no timer is armed while
/// the future is not done (a deadlock), if `turns_max` is passed, or if the future
/// panics. Also if called on a shard or inside another simulation.
pub fn run<F, Fut, T>(config: SimConfig, main: F) -> T
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = T>,
{
    let seed = config.seed;
    let turns_max = config.turns_max;
    let driver = Driver::Sim(Box::new(SimDriver::new(config)));
    let shard = Shard::new(0, Mailbox::new(None), driver, EngineConfig::default(), None);
    let entered = Entered::enter(shard.clone());
    let ending = Ending {
        shard: shard.clone(),
        seed,
        _entered: entered,
    };
    let output = drive(&shard, seed, turns_max, main());
    drop(ending);
    output
}

/// Drops what is left, also when the main future panics, and then names the seed.
struct Ending {
    shard: Rc<Shard>,
    seed: u64,
    _entered: Entered,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulation failed with seed {}", self.seed);
        }
        self.shard.ending.set(true);
        self.shard.mailbox.close();
        self.shard.exec.cancel_all(&self.shard, Kind::User);
        self.shard.exec.cancel_all(&self.shard, Kind::System);
        if let Some(sim) = self.shard.driver.sim() {
            sim.clear();
        }
    }
}

fn drive<T>(shard: &Rc<Shard>, seed: u64, turns_max: u64, main: impl Future<Output = T>) -> T {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    /// The main future's own flag: it is not a task, so that it need not be 'static.
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    let Driver::Sim(sim) = &shard.driver else {
        unreachable!("made by run")
    };
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut cx = Context::from_waker(&waker);
    let mut main = std::pin::pin!(main);
    for _ in 0..turns_max {
        if flag.0.swap(false, Ordering::Acquire)
            && let Poll::Ready(output) = main.as_mut().poll(&mut cx)
        {
            return output;
        }
        shard.turn();
        if flag.0.load(Ordering::Acquire) || shard.exec.has_ready() || !shard.mailbox.is_empty() {
            continue;
        }
        let next_timer = shard.timers.next();
        match (next_timer, sim.next_event()) {
            (None, None) => {
                panic!("simulation: deadlock (nothing runnable, no timer), seed {seed}")
            }
            (Some(timer), event) if event.is_none_or(|event| timer <= event) => sim.advance(timer),
            (_, Some(event)) => {
                sim.advance(event);
                sim.happen(shard);
            }
            (Some(_), None) => unreachable!("taken by the second arm"),
        }
    }
    panic!("simulation: not done after {turns_max} turns, seed {seed}");
}

/// The virtual clock, the seeded randomness and the network.
pub(crate) struct SimDriver {
    now: Cell<Time>,
    /// For the network; a stream of its own, so that what the program draws does not
    /// change the weather.
    weather: RefCell<Random>,
    program: RefCell<Random>,
    config: SimConfig,
    net: Net,
}

impl SimDriver {
    fn new(config: SimConfig) -> SimDriver {
        SimDriver {
            now: Cell::new(Time::from_nanos(1_000_000_000)),
            weather: RefCell::new(Random(config.seed)),
            program: RefCell::new(Random(config.seed ^ 0x5bf0_3635_dcf9_8a11)),
            config,
            net: Net::default(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.now.get()
    }

    fn advance(&self, to: Time) {
        if to > self.now.get() {
            self.now.set(to);
        }
    }

    pub(crate) fn fill_random(&self, buffer: &mut [u8]) {
        let mut random = self.program.borrow_mut();
        for chunk in buffer.chunks_mut(8) {
            let bytes = random.next().to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(bytes) {
                *to = from;
            }
        }
    }

    /// True with a probability of `per_10k` in ten thousand.
    fn chance(&self, per_10k: u32) -> bool {
        per_10k > 0 && self.weather.borrow_mut().next() % 10_000 < u64::from(per_10k)
    }

    /// A value of the range.
    fn within(&self, range: &RangeInclusive<u64>) -> u64 {
        let width = range.end().saturating_sub(*range.start()).saturating_add(1);
        range.start() + self.weather.borrow_mut().next() % width.max(1)
    }

    /// How much of `whole` is done at once: all, or by `partial` any part of it.
    fn part(&self, whole: usize, partial: bool) -> usize {
        if !partial || whole <= 1 {
            return whole;
        }
        // Half of the time all of it; else small pieces as likely as large ones.
        let draw = self.weather.borrow_mut().next();
        if draw & 1 == 0 {
            return whole;
        }
        let bits = usize::BITS - whole.leading_zeros();
        let ceiling = 1usize << ((draw >> 1) % u64::from(bits));
        (1 + (draw >> 16) as usize % ceiling).min(whole)
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.within(&self.config.latency_us))
    }
}

/// SplitMix64: small, seeded, good enough for weather; never for keys.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
