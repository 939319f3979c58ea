//! The writer's sleep flag under loom: every interleaving that the memory model allows.

/// What `wake.rs` takes from its parent.
mod sync {
    pub use loom::sync::atomic::{AtomicU8, Ordering, fence};
}

#[path = "../../src/wake.rs"]
mod wake;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use wake::{Signal, Wake};

struct World {
    wake: Wake,
    queued: AtomicUsize,
    urgent: AtomicBool,
}

fn world() -> Arc<World> {
    Arc::new(World {
        wake: Wake::new(),
        queued: AtomicUsize::new(0),
        urgent: AtomicBool::new(false),
    })
}

#[test]
fn no_record_waits_for_a_writer_that_sleeps_on() {
    loom::model(|| {
        let world = world();
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                loop {
                    let seen = world.queued.load(Ordering::Acquire);
                    if seen == 2 {
                        break;
                    }
                    world.wake.sleep(false);
                    // Loom calls it a deadlock if this parks and nobody ever unparks.
                    if world.queued.load(Ordering::Relaxed) == seen && !world.wake.ended() {
                        thread::park();
                    }
                    world.wake.awake();
                }
            })
        };
        for _ in 0..2 {
            world.queued.fetch_add(1, Ordering::Release);
            if world.wake.signal(false) == Signal::Unpark {
                writer.thread().unpark();
            }
        }
        writer.join().expect("no panic");
    });
}

#[test]
fn an_urgent_record_ends_the_window() {
    loom::model(|| {
        let world = world();
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                while !world.urgent.load(Ordering::Acquire) {
                    world.wake.sleep(true);
                    if !world.urgent.load(Ordering::Relaxed) && !world.wake.ended() {
                        thread::park();
                    }
                    world.wake.awake();
                }
                assert_eq!(world.queued.load(Ordering::Acquire), 1);
            })
        };
        world.queued.fetch_add(1, Ordering::Release);
        world.urgent.store(true, Ordering::Release);
        if world.wake.signal(true) == Signal::Unpark {
            writer.thread().unpark();
        }
        writer.join().expect("no panic");
    });
}

#[test]
fn a_push_is_seen_by_the_last_look_or_told_closed() {
    loom::model(|| {
        let world = world();
        let writer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.wake.close();
                world.queued.load(Ordering::Relaxed)
            })
        };
        world.queued.fetch_add(1, Ordering::Relaxed);
        let told = world.wake.signal(false);
        let seen = writer.join().expect("no panic");
        assert!(seen == 1 || told == Signal::Closed);
    });
}
