//! Rings: room, order, wake-ups, stop.

use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use portcullis_recorder::*;

use super::common::*;

#[test]
fn a_full_ring_says_so_and_has_room_later() {
    let folder = folder();
    let (sender, heard) = channel();
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    // The first call holds the writer until the ring is full.
    let durable: Durable = Box::new(move |shard, sequence| {
        let _ = sender.send((shard, sequence));
        if sequence == 1 {
            let _ = gate.lock().expect("no panic").recv();
        }
    });
    let config = Config {
        ring_entries: 4,
        group_commit_ms: 10_000,
        ..small(&folder.dir, 1)
    };
    let recorder = Recorder::start(config, durable).expect("it starts");
    let mut producer = recorder.producer(0);
    producer
        .append_urgent(id(1), 1, &start())
        .expect("it is taken");
    await_durable(&heard, 0, 1);
    for n in 0..4 {
        assert!(producer.has_room(100));
        assert_eq!(producer.append(id(1), 1, &event(b"x")), Ok(n + 2));
    }
    assert!(!producer.has_room(100));
    assert_eq!(
        producer.append(id(1), 1, &event(b"x")),
        Err(AppendError::Full)
    );
    assert_eq!(producer.durable(), 1);
    release.send(()).expect("the writer waits");
    await_durable(&heard, 0, 5);
    assert_eq!(producer.durable(), 5);
    assert!(producer.has_room(100));
    assert_eq!(producer.append(id(1), 1, &event(b"x")), Ok(6));
    assert!(recorder.stats().full >= 1);
    recorder.stop().expect("it stops");
    let archive = Archive::open(&folder.dir).expect("it opens");
    assert_eq!(
        archive.session(id(1)).count(),
        6,
        "a refused record is not there"
    );
}

#[test]
fn a_ring_is_bounded_in_bytes() {
    let folder = folder();
    let (sender, heard) = channel();
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let durable: Durable = Box::new(move |shard, sequence| {
        let _ = sender.send((shard, sequence));
        if sequence == 1 {
            let _ = gate.lock().expect("no panic").recv();
        }
    });
    let config = Config {
        ring_bytes_max: 1000,
        group_commit_ms: 10_000,
        ..small(&folder.dir, 1)
    };
    let recorder = Recorder::start(config, durable).expect("it starts");
    let mut producer = recorder.producer(0);
    assert!(matches!(
        producer.append(id(1), 1, &event(&[0; 1000])),
        Err(AppendError::TooLarge {
            bytes_max: 1000,
            ..
        })
    ));
    producer
        .append_urgent(id(1), 1, &event(b""))
        .expect("it is taken");
    await_durable(&heard, 0, 1);
    assert_eq!(producer.append(id(1), 1, &event(&[0; 600])), Ok(2));
    assert!(producer.has_room(300) && !producer.has_room(500));
    assert_eq!(
        producer.append(id(1), 1, &event(&[0; 600])),
        Err(AppendError::Full)
    );
    release.send(()).expect("the writer waits");
    await_durable(&heard, 0, 2);
    assert_eq!(producer.append(id(1), 1, &event(&[0; 600])), Ok(3));
}

#[test]
fn a_record_larger_than_a_segment_gets_one_to_itself() {
    let folder = folder();
    let recorder = Recorder::start(small(&folder.dir, 1), nobody()).expect("it starts");
    let mut producer = recorder.producer(0);
    let large = event(&vec![b'x'; 100_000]);
    for body in [&start(), &large, &end()] {
        producer.append(id(1), 1, body).expect("it is taken");
    }
    recorder.stop().expect("it stops");
    assert!(verify_closed(&folder.dir).expect("it reads").is_whole());
    let archive = Archive::open(&folder.dir).expect("it opens");
    let read: Vec<Body> = archive
        .session(id(1))
        .map(|r| r.expect("whole").body)
        .collect();
    assert_eq!(read, [start(), large, end()]);
}

#[test]
fn a_lone_record_becomes_durable_within_its_window_unasked() {
    let folder = folder();
    let (durable, heard) = listener();
    let recorder = Recorder::start(small(&folder.dir, 2), durable).expect("it starts");
    let mut producer = recorder.producer(1);
    for _ in 0..50 {
        let sequence = producer
            .append(id(1), 1, &event(b"x"))
            .expect("it is taken");
        await_durable(&heard, 1, sequence);
        assert!(producer.durable() >= sequence);
    }
    assert!(recorder.stats().commits >= 50);
}

#[test]
fn an_urgent_record_does_not_wait_for_the_window() {
    let folder = folder();
    let (durable, heard) = listener();
    let config = Config {
        group_commit_ms: 10_000,
        ..small(&folder.dir, 1)
    };
    let recorder = Recorder::start(config, durable).expect("it starts");
    let mut producer = recorder.producer(0);
    // Were it to wait, two of these would outlast the patience of `await_durable`.
    for _ in 0..200 {
        producer
            .append(id(1), 1, &event(b"x"))
            .expect("it is taken");
        let sequence = producer
            .append_urgent(id(1), 1, &event(b"y"))
            .expect("it is taken");
        await_durable(&heard, 0, sequence);
    }
    let sequence = producer
        .append(id(1), 1, &event(b"x"))
        .expect("it is taken");
    producer.commit_soon();
    await_durable(&heard, 0, sequence);
}

#[test]
fn four_producers_keep_their_order() {
    const SHARDS: usize = 4;
    const RECORDS: u64 = 10_000;
    let folder = folder();
    let signal = Arc::new((Mutex::new([0u64; SHARDS]), Condvar::new()));
    let told = Arc::clone(&signal);
    let durable: Durable = Box::new(move |shard, sequence| {
        told.0.lock().expect("no panic")[shard] = sequence;
        told.1.notify_all();
    });
    let config = Config {
        segment_bytes_max: 256 << 10,
        ring_entries: 64,
        ..small(&folder.dir, SHARDS)
    };
    let recorder = Recorder::start(config, durable).expect("it starts");
    thread::scope(|scope| {
        for shard in 0..SHARDS {
            let mut producer = recorder.producer(shard);
            let signal = &signal;
            scope.spawn(move || {
                for n in 0..RECORDS {
                    let session = id(shard as u8 * 10 + (n % 3) as u8);
                    loop {
                        // Looked at before the append, so that no call is missed in between.
                        let before = signal.0.lock().expect("no panic")[shard];
                        match producer.append(session, n, &event(&n.to_le_bytes())) {
                            Ok(sequence) => {
                                assert_eq!(sequence, n + 1);
                                break;
                            }
                            Err(AppendError::Full) => {
                                let (_guard, timeout) = signal
                                    .1
                                    .wait_timeout_while(
                                        signal.0.lock().expect("no panic"),
                                        PATIENCE,
                                        |durable| durable[shard] == before,
                                    )
                                    .expect("no panic");
                                assert!(!timeout.timed_out(), "a full ring is followed by a call");
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            });
        }
    });
    recorder.stop().expect("it stops");
    let report = verify_closed(&folder.dir).expect("it reads");
    assert!(report.is_whole(), "{report}");
    assert_eq!(report.sessions, 12);
    let archive = Archive::open(&folder.dir).expect("it opens");
    for shard in 0..SHARDS {
        for k in 0..3u64 {
            let times: Vec<u64> = archive
                .session(id(shard as u8 * 10 + k as u8))
                .map(|record| record.expect("whole").wall_clock_us)
                .collect();
            let expected: Vec<u64> = (0..RECORDS).filter(|n| n % 3 == k).collect();
            assert_eq!(times, expected);
        }
    }
}

#[test]
fn after_stop_a_producer_fails_and_what_it_appended_is_there() {
    let folder = folder();
    let config = Config {
        group_commit_ms: 10_000,
        ..small(&folder.dir, 1)
    };
    let recorder = Recorder::start(config, nobody()).expect("it starts");
    let mut producer = recorder.producer(0);
    for _ in 0..500 {
        producer
            .append(id(1), 1, &event(b"x"))
            .expect("it is taken");
    }
    recorder.stop().expect("it stops");
    assert_eq!(producer.durable(), 500);
    assert!(!producer.has_room(1));
    assert!(matches!(
        producer.append(id(1), 1, &event(b"x")),
        Err(AppendError::Failed { why }) if why.contains("stopped")
    ));
    let archive = Archive::open(&folder.dir).expect("it opens");
    assert_eq!(archive.session(id(1)).count(), 500);
}

#[test]
fn a_ring_has_one_producer_at_a_time() {
    let folder = folder();
    let recorder = Recorder::start(small(&folder.dir, 1), nobody()).expect("it starts");
    let mut first = recorder.producer(0);
    assert_eq!(first.append(id(1), 1, &event(b"x")), Ok(1));
    let second = thread::scope(|scope| scope.spawn(|| recorder.producer(0)).join());
    assert!(second.is_err(), "a second producer is a mistake");
    drop(first);
    let mut next = recorder.producer(0);
    assert_eq!(next.append(id(1), 1, &event(b"x")), Ok(2), "numbers go on");
}

#[test]
fn stop_meets_producers_in_full_run() {
    // Whatever append said `Ok` to is in the archive, however the stop falls.
    for _ in 0..10 {
        let folder = folder();
        let config = Config {
            segment_bytes_max: 1 << 20,
            ..small(&folder.dir, 2)
        };
        let recorder = Recorder::start(config, nobody()).expect("it starts");
        let mut producers = [recorder.producer(0), recorder.producer(1)];
        let taken: Vec<u64> = thread::scope(|scope| {
            let (go, ready) = channel();
            let running: Vec<_> = producers
                .iter_mut()
                .map(|producer| {
                    let go = go.clone();
                    scope.spawn(move || {
                        let session = id(producer.shard() as u8);
                        let mut taken = 0;
                        loop {
                            match producer.append(session, 1, &event(b"x")) {
                                Ok(_) => taken += 1,
                                Err(AppendError::Full) => thread::yield_now(),
                                Err(_) => return taken,
                            }
                            if taken == 100 {
                                let _ = go.send(());
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..2 {
                ready.recv_timeout(PATIENCE).expect("they run");
            }
            recorder.stop().expect("it stops");
            running
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert!(verify_closed(&folder.dir).expect("it reads").is_whole());
        let archive = Archive::open(&folder.dir).expect("it opens");
        for (shard, taken) in taken.iter().enumerate() {
            let there = archive.session(id(shard as u8)).count() as u64;
            // One more may be there whose append was told that it is in doubt.
            assert!(there == *taken || there == taken + 1, "{there} of {taken}");
        }
    }
}
