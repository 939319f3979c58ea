//! Every connection byte-equal, whatever the sizes, the pace and the shortage of
//! buffers: the same code on the ring and in the simulation.

use std::time::Duration;

use bytes::Bytes;
use portcullis_engine::{
    BufferConfig, End, EngineConfig, ListenOptions, Listener, ShardStats, connect, now, sim,
    sleep_until, spawn, stats,
};

use crate::common::{config, on_shard_with, pattern};

/// Small numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Each client sends `bytes` in odd pieces, finishes, and gets everything back from a
/// server that holds on to what it read for a while; both are slow now and then.
async fn relay(clients: u64, bytes: usize) -> ShardStats {
    let listener =
        Listener::bind("127.0.0.1:0".parse().unwrap(), ListenOptions::default()).unwrap();
    let address = listener.local_addr();
    let server = spawn(async move {
        let mut tasks = Vec::new();
        for number in 0..clients {
            let (conn, _) = listener.accept().await.unwrap();
            tasks.push(spawn(async move {
                let mut dice = Dice(number + 1000);
                let (mut reader, writer) = conn.split();
                let mut held: Vec<Bytes> = Vec::new();
                loop {
                    match reader.recv().await {
                        Ok(bytes) => held.push(bytes),
                        Err(end) => {
                            assert_eq!(end, End::Eof);
                            break;
                        }
                    }
                    if held.len() as u64 > dice.roll(40) {
                        for bytes in held.drain(..) {
                            // Slices of slices, so that a piece goes out in parts.
                            let cut = dice.roll(bytes.len() as u64 + 1) as usize;
                            writer.queue(bytes.slice(..cut));
                            writer.queue(bytes.slice(cut..));
                        }
                    }
                    if dice.roll(20) == 0 {
                        sleep_until(now() + Duration::from_micros(dice.roll(2000))).await;
                    }
                    if writer.is_over_high_mark() {
                        writer.drained().await.unwrap();
                    }
                }
                for bytes in held {
                    writer.queue(bytes);
                }
                writer.finish();
                // Half-closed: their end has come, ours is flushed after it.
                writer.flushed().await.unwrap();
            }));
        }
        for task in tasks {
            task.await.expect("a server task failed");
        }
    });
    let mut tasks = Vec::new();
    for number in 0..clients {
        tasks.push(spawn(async move {
            let conn = connect(address, now() + Duration::from_secs(30))
                .await
                .unwrap();
            let (mut reader, writer) = conn.split();
            let sending = spawn(async move {
                let mut dice = Dice(number + 1);
                let all = Bytes::from(pattern(number, bytes));
                let mut at = 0;
                while at < all.len() {
                    let limit = [7, 300, 5000, 70_000][dice.roll(4) as usize];
                    let end = all.len().min(at + 1 + dice.roll(limit) as usize);
                    writer.queue(all.slice(at..end));
                    at = end;
                    if writer.is_over_high_mark() {
                        writer.drained().await.unwrap();
                    }
                    if dice.roll(50) == 0 {
                        sleep_until(now() + Duration::from_micros(dice.roll(1000))).await;
                    }
                }
                writer.finish();
                writer.flushed().await.unwrap();
            });
            let mut dice = Dice(number + 2000);
            let mut got = Vec::with_capacity(bytes);
            loop {
                match reader.recv().await {
                    Ok(piece) => got.extend_from_slice(&piece),
                    Err(end) => {
                        assert_eq!(end, End::Eof);
                        break;
                    }
                }
                if dice.roll(30) == 0 {
                    sleep_until(now() + Duration::from_micros(dice.roll(1500))).await;
                }
            }
            sending.await.expect("a sender failed");
            assert!(got == pattern(number, bytes), "connection {number} differs");
        }));
    }
    for task in tasks {
        task.await.expect("a client failed");
    }
    server.await.expect("the server failed");
    stats()
}

#[test]
fn every_connection_is_byte_equal_on_the_ring() {
    let stats = on_shard_with(config(), || relay(16, 1_500_000));
    assert_eq!((stats.buffers_out_small, stats.buffers_out_large), (0, 0));
    assert_eq!((stats.stale_completions, stats.panics), (0, 0));
}

#[test]
fn every_connection_is_byte_equal_with_hardly_any_buffers() {
    let few = EngineConfig {
        buffers: BufferConfig {
            small_count: 8,
            large_count: 2,
            ..BufferConfig::default()
        },
        ..config()
    };
    let stats = on_shard_with(few, || relay(24, 600_000));
    assert!(
        stats.pressure_copies > 0,
        "buffers never ran low: {stats:?}"
    );
    assert_eq!((stats.buffers_out_small, stats.buffers_out_large), (0, 0));
    assert_eq!((stats.stale_completions, stats.panics), (0, 0));
}

#[test]
fn every_connection_is_byte_equal_in_the_simulation() {
    for seed in 0..6 {
        let stats = sim::run(sim::SimConfig::from_seed(seed), || relay(5, 60_000));
        assert_eq!(stats.panics, 0, "seed {seed}");
    }
    let mut tight = sim::SimConfig::from_seed(99);
    tight.window_bytes = 100;
    tight.stall_per_10k = 200;
    assert_eq!(sim::run(tight, || relay(3, 9_000)).panics, 0);
}
