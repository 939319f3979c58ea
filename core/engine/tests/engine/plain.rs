//! Plain sockets on the real ring: echo, backpressure, ends, jobs and replies from
//! other threads.

use std::time::Duration;

use crate::common::{listen, on_shard, pattern};
use bytes::Bytes;
use portcullis_engine::{
    ConnectError, End, connect, deadline, now, offload, reply, sleep_until, spawn, stats,
    this_shard, yield_now,
};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_message_comes_back_from_an_echo_server() {
    let echoed = on_shard(|| async {
        let listener = listen();
        let address = listener.local_addr();
        let server = spawn(crate::common::echo_once(listener));
        let conn = connect(address, now() + LONG).await.unwrap();
        let (mut reader, writer) = conn.split();
        let mut all = Vec::new();
        for round in 0..100u8 {
            writer.queue(Bytes::from(vec![round; 64]));
            let mut got = 0;
            while got < 64 {
                let bytes = reader.recv().await.unwrap();
                got += bytes.len();
                all.extend_from_slice(&bytes);
            }
        }
        writer.finish();
        assert_eq!(reader.recv().await, Err(End::Eof));
        assert_eq!(reader.recv().await, Err(End::Eof));
        server.await.unwrap();
        assert_eq!(stats().stale_completions, 0);
        all
    });
    let expected: Vec<u8> = (0..100u8).flat_map(|round| vec![round; 64]).collect();
    assert_eq!(echoed, expected);
}

#[test]
fn a_slow_reader_stops_the_writer_and_gets_everything() {
    on_shard(|| async {
        let listener = listen();
        let address = listener.local_addr();
        let total = 24 * 1024 * 1024;
        let server = spawn(async move {
            let (conn, _) = listener.accept().await.unwrap();
            let (_reader, writer) = conn.split();
            let data = Bytes::from(pattern(1, total));
            let mut high = 0;
            for start in (0..total).step_by(10_007) {
                writer.queue(data.slice(start..total.min(start + 10_007)));
                high = high.max(writer.queued());
                if writer.is_over_high_mark() {
                    writer.drained().await.unwrap();
                }
            }
            writer.flushed().await.unwrap();
            high
        });
        let conn = connect(address, now() + LONG).await.unwrap();
        let (mut reader, _writer) = conn.split();
        // Not reading: the writer must come to a stop.
        sleep_until(now() + Duration::from_millis(50)).await;
        assert!(!server.is_done());
        let mut all = Vec::with_capacity(total);
        loop {
            match reader.recv().await {
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(end) => {
                    assert_eq!(end, End::Eof);
                    break;
                }
            }
        }
        assert!(all == pattern(1, total), "bytes differ");
        let high = server.await.unwrap();
        assert!(high <= 256 * 1024 + 10_007, "queued {high} bytes");
    });
}

#[test]
fn a_dropped_recv_loses_no_bytes() {
    on_shard(|| async {
        let listener = listen();
        let address = listener.local_addr();
        let server = spawn(async move {
            let (conn, _) = listener.accept().await.unwrap();
            let (_reader, writer) = conn.split();
            for piece in pattern(2, 20_000).chunks(77) {
                writer.queue(Bytes::copy_from_slice(piece));
                writer.flushed().await.unwrap();
                yield_now().await;
            }
        });
        let conn = connect(address, now() + LONG).await.unwrap();
        let (mut reader, _writer) = conn.split();
        let mut all = Vec::new();
        loop {
            // A deadline that is nearly always over: most of these are dropped.
            match deadline(now() + Duration::from_micros(1), reader.recv()).await {
                Ok(Ok(bytes)) => all.extend_from_slice(&bytes),
                Ok(Err(end)) => {
                    assert_eq!(end, End::Eof);
                    break;
                }
                Err(_) => yield_now().await,
            }
        }
        assert_eq!(all, pattern(2, 20_000));
        server.await.unwrap();
    });
}

#[test]
fn unread_bytes_come_first() {
    on_shard(|| async {
        let listener = listen();
        let address = listener.local_addr();
        let server = spawn(crate::common::echo_once(listener));
        let (mut reader, writer) = connect(address, now() + LONG).await.unwrap().split();
        writer.queue(Bytes::from_static(b"later"));
        reader.unread(Bytes::from_static(b"second"));
        reader.unread(Bytes::from_static(b"first"));
        reader.unread(Bytes::new());
        assert_eq!(reader.recv().await.unwrap(), "first");
        assert_eq!(reader.recv().await.unwrap(), "second");
        assert_eq!(reader.recv().await.unwrap(), "later");
        drop((reader, writer));
        server.await.unwrap();
    });
}

#[test]
fn a_dial_to_nobody_is_refused_and_a_silent_one_times_out() {
    on_shard(|| async {
        let address = {
            let listener = listen();
            listener.local_addr()
        };
        // The listener's descriptor is closed when its accept has been cancelled.
        yield_now().await;
        let refused = connect(address, now() + LONG).await;
        assert!(
            matches!(refused, Err(ConnectError::Refused)),
            "{:?}",
            refused.err()
        );
        let late = connect("127.0.0.1:9".parse().unwrap(), now()).await;
        assert!(matches!(
            late,
            Err(ConnectError::Refused | ConnectError::Timeout)
        ));
    });
}

#[test]
fn an_abort_resets_both_sides() {
    on_shard(|| async {
        let listener = listen();
        let address = listener.local_addr();
        let (mut reader, writer) = connect(address, now() + LONG).await.unwrap().split();
        let (conn, _) = listener.accept().await.unwrap();
        let (mut far, far_writer) = conn.split();
        let waiting = spawn(async move { far.recv().await });
        yield_now().await;
        writer.queue(Bytes::from_static(b"never sent"));
        writer.abort();
        assert_eq!(reader.recv().await, Err(End::Reset));
        assert_eq!(writer.flushed().await, Err(End::Reset));
        assert_eq!(waiting.await.unwrap(), Err(End::Reset));
        drop(far_writer);
    });
}

#[test]
fn a_dropped_connection_still_flushes_what_is_queued() {
    let got = on_shard(|| async {
        let listener = listen();
        let address = listener.local_addr();
        let (conn, (accepted, _)) = {
            let dial = spawn(async move { connect(address, now() + LONG).await.unwrap() });
            let accepted = listener.accept().await.unwrap();
            (dial.await.unwrap(), accepted)
        };
        let (_reader, writer) = accepted.split();
        for piece in pattern(3, 3_000_000).chunks(50_000) {
            writer.queue(Bytes::copy_from_slice(piece));
        }
        // Unread bytes at a closing socket would reset it: they must not.
        let (mut reader, other) = conn.split();
        other.queue(Bytes::from_static(b"nobody reads this"));
        drop((writer, _reader));
        let mut all = Vec::new();
        while let Ok(bytes) = reader.recv().await {
            all.extend_from_slice(&bytes);
        }
        all
    });
    assert!(got == pattern(3, 3_000_000));
}

#[test]
fn answers_come_from_other_threads_and_a_lost_sender_is_told() {
    on_shard(|| async {
        for round in 0..200u32 {
            let (sender, answer) = reply();
            let thread = std::thread::spawn(move || sender.send(round));
            assert_eq!(answer.await, Some(round));
            thread.join().unwrap();
        }
        let (sender, answer) = reply::<u8>();
        let thread = std::thread::spawn(move || drop(sender));
        assert_eq!(answer.await, None);
        thread.join().unwrap();
        assert_eq!(offload(|| 6 * 7).await, 42);
        let many: Vec<_> = (0..600u64).map(|n| spawn(offload(move || n * n))).collect();
        for (n, task) in many.into_iter().enumerate() {
            assert_eq!(task.await, Some((n * n) as u64));
        }
    });
}

#[test]
fn jobs_from_other_threads_run_on_the_shard_even_while_it_is_parked() {
    on_shard(|| async {
        let handle = this_shard();
        // Long enough to be parked: several ticks without traffic.
        let (sender, answer) = reply();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(60));
            assert!(handle.run(move || sender.send(portcullis_engine::shard_index())));
        });
        assert_eq!(answer.await, Some(0));
        thread.join().unwrap();
        assert!(stats().parks > 0, "never parked");
    });
}

#[test]
fn timers_fire_in_order_while_parked_and_while_busy() {
    on_shard(|| async {
        let start = now();
        let mut fired = Vec::new();
        let tasks: Vec<_> = [40u64, 1, 25, 3, 60]
            .into_iter()
            .map(|ms| {
                spawn(async move {
                    sleep_until(start + Duration::from_millis(ms)).await;
                    (now(), ms)
                })
            })
            .collect();
        for task in tasks {
            fired.push(task.await.unwrap());
        }
        for (at, ms) in &fired {
            assert!(*at >= start + Duration::from_millis(*ms));
        }
        fired.sort();
        assert_eq!(
            fired.iter().map(|(_, ms)| *ms).collect::<Vec<_>>(),
            [1, 3, 25, 40, 60]
        );
        assert_eq!(stats().timers, 0);
    });
}
