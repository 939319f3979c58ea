//! Helpers of the engine's tests.
#![allow(dead_code, missing_docs, reason = "each test file uses some of them")]

use std::future::Future;
use std::sync::mpsc;

use portcullis_engine::{EngineConfig, ListenOptions, Listener, spawn_shards};

pub fn config() -> EngineConfig {
    EngineConfig {
        pin: false,
        ..EngineConfig::default()
    }
}

/// Runs a future on a shard of its own and gives its output.
pub fn on_shard<F, Fut, T>(main: F) -> T
where
    F: Fn() -> Fut + Send + Clone + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    on_shard_with(config(), main)
}

pub fn on_shard_with<F, Fut, T>(config: EngineConfig, main: F) -> T
where
    F: Fn() -> Fut + Send + Clone + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = mpsc::channel();
    let shards = spawn_shards(config, move |_| {
        let sender = sender.clone();
        let main = main.clone();
        async move {
            sender.send(main().await).unwrap();
        }
    })
    .unwrap();
    shards.join().unwrap();
    receiver.recv().unwrap()
}

pub fn listen() -> Listener {
    Listener::bind("127.0.0.1:0".parse().unwrap(), ListenOptions::default()).unwrap()
}

/// Accepts one connection and gives back what it sends, until its end.
pub async fn echo_once(listener: Listener) {
    let (conn, _) = listener.accept().await.unwrap();
    let (mut reader, writer) = conn.split();
    while let Ok(bytes) = reader.recv().await {
        writer.queue(bytes);
        if writer.is_over_high_mark() && writer.drained().await.is_err() {
            return;
        }
    }
    writer.finish();
}

/// Bytes that follow from a seed, so that a lost, doubled or swapped piece shows.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}
