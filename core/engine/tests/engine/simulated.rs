//! The simulation itself: virtual time, determinism, faults, deadlock.

use std::time::Duration;

use bytes::Bytes;
use portcullis_engine::{
    ConnectError, End, ListenOptions, Listener, connect, deadline, fill_random, now, offload,
    reply, sim, sleep_until, spawn, wall_clock_us,
};

use crate::common::pattern;

const LONG: Duration = Duration::from_secs(60);

/// A little world under a hostile network; gives a trace of all that was seen.
async fn world() -> Vec<String> {
    let listener =
        Listener::bind("10.0.0.1:80".parse().unwrap(), ListenOptions::default()).unwrap();
    let address = listener.local_addr();
    spawn(async move {
        while let Ok((conn, _)) = listener.accept().await {
            spawn(async move {
                let (mut reader, writer) = conn.split();
                while let Ok(bytes) = reader.recv().await {
                    writer.queue(bytes);
                }
            })
            .detach();
        }
    })
    .detach();
    let mut trace = Vec::new();
    for number in 0..30u64 {
        let conn = match connect(address, now() + LONG).await {
            Ok(conn) => conn,
            Err(error) => {
                trace.push(format!("{} {error}", now().as_nanos()));
                continue;
            }
        };
        let (mut reader, writer) = conn.split();
        let sent = pattern(number, 4000);
        writer.queue(Bytes::from(sent.clone()));
        writer.finish();
        let mut got = Vec::new();
        let end = loop {
            match reader.recv().await {
                Ok(bytes) => {
                    trace.push(format!("{} {}", now().as_nanos(), bytes.len()));
                    got.extend_from_slice(&bytes);
                }
                Err(end) => break end,
            }
        };
        assert!(sent.starts_with(&got), "bytes may be lost at the end only");
        match &end {
            End::Eof => assert_eq!(got.len(), sent.len()),
            End::Reset => {}
            other => panic!("{other:?}"),
        }
        trace.push(format!("{} {end:?}", now().as_nanos()));
    }
    let mut random = [0; 16];
    fill_random(&mut random);
    trace.push(format!("{random:?} {}", wall_clock_us()));
    trace
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_a_different_one() {
    let one = sim::run(sim::SimConfig::hostile(1), world);
    assert_eq!(one, sim::run(sim::SimConfig::hostile(1), world));
    assert_ne!(one, sim::run(sim::SimConfig::hostile(2), world));
}

#[test]
fn resets_and_stalls_happen_and_never_swap_or_invent_bytes() {
    let mut ends = [0, 0];
    for seed in 0..40 {
        let mut config = sim::SimConfig::hostile(seed);
        config.reset_per_10k = 100;
        for line in sim::run(config, world) {
            ends[0] += usize::from(line.ends_with("Eof"));
            ends[1] += usize::from(line.ends_with("Reset"));
        }
    }
    assert!(ends[0] > 100 && ends[1] > 20, "{ends:?}");
}

#[test]
fn an_hour_passes_at_once() {
    let real = std::time::Instant::now();
    let slept = sim::run(sim::SimConfig::from_seed(3), || async {
        let start = now();
        sleep_until(start + Duration::from_secs(3600)).await;
        now() - start
    });
    assert_eq!(slept, Duration::from_secs(3600));
    assert!(real.elapsed() < Duration::from_secs(60));
}

#[test]
#[should_panic(expected = "deadlock (nothing runnable, no timer), seed 77")]
fn a_deadlock_names_its_seed() {
    sim::run(sim::SimConfig::from_seed(77), || async {
        let (_sender, answer) = reply::<u8>();
        answer.await
    });
}

#[test]
fn replies_offload_deadlines_and_refusals_work_inside() {
    sim::run(sim::SimConfig::from_seed(4), || async {
        assert_eq!(offload(|| 5).await, 5);
        let (sender, answer) = reply();
        spawn(async move {
            sleep_until(now() + Duration::from_millis(5)).await;
            sender.send("late");
        })
        .detach();
        assert_eq!(answer.await, Some("late"));
        let nobody = connect("10.0.0.9:1".parse().unwrap(), now() + LONG).await;
        assert!(matches!(nobody, Err(ConnectError::Refused)));
        let hurried = connect("10.0.0.9:1".parse().unwrap(), now()).await;
        assert!(matches!(hurried, Err(ConnectError::Timeout)));
        assert!(
            deadline(now() + Duration::from_secs(1), std::future::pending::<()>())
                .await
                .is_err()
        );
    });
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer() {
    sim::run(sim::SimConfig::from_seed(5), || async {
        let listener =
            Listener::bind("10.0.0.1:80".parse().unwrap(), ListenOptions::default()).unwrap();
        let conn = connect(listener.local_addr(), now() + LONG).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let (_reader, writer) = conn.split();
        writer.queue(Bytes::from(pattern(1, 1_000_000)));
        assert!(deadline(now() + LONG, writer.drained()).await.is_err());
        assert!(writer.queued() >= 1_000_000 - 64 * 1024);
        let (mut reader, _far_writer) = far.split();
        let mut got = 0;
        while got < 1_000_000 {
            got += reader.recv().await.unwrap().len();
        }
        writer.flushed().await.unwrap();
    });
}

#[test]
fn writing_to_a_peer_that_has_gone_ends_in_a_reset() {
    sim::run(sim::SimConfig::from_seed(6), || async {
        let listener =
            Listener::bind("10.0.0.1:80".parse().unwrap(), ListenOptions::default()).unwrap();
        let conn = connect(listener.local_addr(), now() + LONG).await.unwrap();
        drop(listener.accept().await.unwrap());
        let (mut reader, writer) = conn.split();
        assert_eq!(reader.recv().await, Err(End::Eof));
        sleep_until(now() + LONG).await;
        let mut rounds = 0;
        while writer.flushed().await.is_ok() {
            writer.queue(Bytes::from_static(b"anyone there?"));
            sleep_until(now() + Duration::from_millis(1)).await;
            rounds += 1;
            assert!(rounds < 10, "never told");
        }
    });
}
