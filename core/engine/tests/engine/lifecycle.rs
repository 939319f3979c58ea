//! Beginnings and ends: tasks, guards, cancelled operations, what a shard leaves.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use portcullis_engine::{
    EngineConfig, EngineError, ListenOptions, Listener, Notify, Time, connect, deadline, now,
    queue, reply, shard_index, sleep_until, spawn, spawn_shards, stats, this_shard, yield_now,
};

use crate::common::{config, listen, on_shard};

const LONG: Duration = Duration::from_secs(20);

/// Waits, by turns of the shard, until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let limit = now() + LONG;
    while !condition() {
        assert!(now() < limit, "never: {what}; {:?}", stats());
        sleep_until(now() + Duration::from_millis(1)).await;
    }
}

#[test]
fn cancelled_operations_end_and_free_what_they_held() {
    on_shard(|| async {
        sleep_until(now() + Duration::from_millis(1)).await;
        // The bell and perhaps the tick and an alarm.
        let base = 3;
        for _ in 0..20 {
            // connect, dropped in flight
            let listener = listen();
            let address = listener.local_addr();
            assert!(
                deadline(Time::ZERO, connect(address, Time::MAX))
                    .await
                    .is_err()
            );
            // accept, dropped in flight; the listener goes after it
            drop(deadline(Time::ZERO, listener.accept()).await);
            // recv, dropped in flight, its connection dropped too
            let (near, accepted) = {
                let dial = spawn(connect(address, now() + LONG));
                let mut accepted = listener.accept().await.unwrap();
                let near = dial.await.unwrap().unwrap();
                while accepted.1 != near.local_addr() {
                    accepted = listener.accept().await.unwrap();
                }
                (near, accepted.0)
            };
            let (mut reader, writer) = near.split();
            assert!(deadline(Time::ZERO, reader.recv()).await.is_err());
            // send, in flight while the peer does not read, then aborted
            let (far_reader, far_writer) = accepted.split();
            far_writer.queue(Bytes::from(vec![1; 8 * 1024 * 1024]));
            assert!(
                deadline(now() + Duration::from_millis(1), far_writer.flushed())
                    .await
                    .is_err()
            );
            assert!(far_writer.queued() > 0);
            far_writer.abort();
            drop((far_reader, far_writer, reader, writer, listener));
        }
        until("all operations ended", || {
            stats().operations <= base && stats().connections == 0
        })
        .await;
        let stats = stats();
        assert_eq!((stats.buffers_out_small, stats.buffers_out_large), (0, 0));
        assert_eq!((stats.stale_completions, stats.panics), (0, 0));
    });
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    on_shard(|| async {
        let listener = listen();
        let address = listener.local_addr();
        let mut idle = Vec::new();
        for _ in 0..200 {
            let dial = spawn(connect(address, now() + LONG));
            let (far, _) = listener.accept().await.unwrap();
            for conn in [dial.await.unwrap().unwrap(), far] {
                let (mut reader, writer) = conn.split();
                writer.queue(Bytes::from_static(b"hello"));
                idle.push((
                    spawn(async move { while reader.recv().await.is_ok() {} }),
                    writer,
                ));
            }
        }
        until("all received", || stats().recvs >= 400).await;
        let stats = stats();
        assert_eq!((stats.buffers_out_small, stats.buffers_out_large), (0, 0));
        assert!(stats.operations >= 400, "the receives are armed: {stats:?}");
    });
}

#[test]
fn an_idle_shard_costs_nearly_no_processor_time() {
    on_shard(|| async {
        let listener = listen();
        let dial = spawn(connect(listener.local_addr(), now() + LONG));
        let (far, _) = listener.accept().await.unwrap();
        let near = dial.await.unwrap().unwrap();
        let (mut reader, _writer) = near.split();
        let waiting = spawn(async move { reader.recv().await });
        sleep_until(now() + Duration::from_millis(50)).await;
        let parks = stats().parks;
        sleep_until(now() + Duration::from_millis(300)).await;
        // It slept through in one or two goes; a ticking shard would have made sixty.
        let parks = stats().parks - parks;
        println!("parks in 300 ms: {parks}");
        assert!((1..20).contains(&parks), "{parks}");
        drop(far);
        assert!(waiting.await.unwrap().is_err());
    });
}

#[test]
fn a_buffer_dropped_on_another_thread_comes_home() {
    on_shard(|| async {
        let listener = listen();
        let dial = spawn(connect(listener.local_addr(), now() + LONG));
        let (far, _) = listener.accept().await.unwrap();
        let (mut reader, _writer) = dial.await.unwrap().unwrap().split();
        let (_far_reader, far_writer) = far.split();
        far_writer.queue(Bytes::from(vec![7; 3000]));
        let mut held = Vec::new();
        let mut got = 0;
        while got < 3000 {
            let bytes = reader.recv().await.unwrap();
            got += bytes.len();
            held.push(bytes);
        }
        assert!(stats().buffers_out_small > 0, "3000 bytes are not copied");
        std::thread::spawn(move || drop(held)).join().unwrap();
        until("buffers are home", || stats().buffers_out_small == 0).await;
    });
}

#[test]
fn bytes_outlive_their_shard() {
    let bytes = on_shard(|| async {
        let listener = listen();
        let dial = spawn(connect(listener.local_addr(), now() + LONG));
        let (far, _) = listener.accept().await.unwrap();
        let (mut reader, _writer) = dial.await.unwrap().unwrap().split();
        far.split().1.queue(Bytes::from(vec![9; 4000]));
        reader.recv().await.unwrap()
    });
    assert!(bytes.len() > 1024 && bytes.iter().all(|byte| *byte == 9));
}

struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_shard_that_ends_drops_its_tasks_and_runs_their_guards() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = dropped.clone();
    on_shard(move || {
        let count = count.clone();
        async move {
            for _ in 0..10 {
                let guard = OnDrop(count.clone());
                spawn(async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                })
                .detach();
            }
            // One that spawns while it is dropped: that is dropped as well.
            struct Spawns(Arc<AtomicUsize>);
            impl Drop for Spawns {
                fn drop(&mut self) {
                    let guard = OnDrop(self.0.clone());
                    spawn(async move { drop(guard) }).detach();
                }
            }
            let spawns = Spawns(count.clone());
            spawn(async move {
                let _spawns = spawns;
                std::future::pending::<()>().await;
            })
            .detach();
            yield_now().await;
        }
    });
    assert_eq!(dropped.load(Ordering::SeqCst), 11);
}

#[test]
fn dropping_a_task_cancels_it_and_a_panic_ends_only_its_own() {
    on_shard(|| async {
        let count = Arc::new(AtomicUsize::new(0));
        let guard = OnDrop(count.clone());
        let task = spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        yield_now().await;
        drop(task);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let panicking = spawn(async { panic!("one session's own fault") });
        assert_eq!(panicking.await, None::<()>);
        assert_eq!(stats().panics, 1);
        assert!(this_shard().run(|| panic!("a job's own fault")));
        until("the job has run", || stats().panics == 2).await;
        // A task may drop its own handle from within.
        let slot: Rc<Cell<Option<portcullis_engine::Task<()>>>> = Rc::default();
        let inner = slot.clone();
        slot.set(Some(spawn(async move {
            drop(inner.take());
            yield_now().await;
            unreachable!("cancelled by itself");
        })));
        yield_now().await;
        yield_now().await;
        assert_eq!(stats().panics, 2);
    });
}

#[test]
fn a_panic_of_main_is_the_shards_error() {
    let shards = spawn_shards(config(), |_| async { panic!("main") }).unwrap();
    assert!(matches!(
        shards.join(),
        Err(EngineError::Panicked { shard: 0 })
    ));
}

#[test]
fn a_handle_of_a_gone_shard_says_so() {
    let shards = spawn_shards(config(), |_| async {}).unwrap();
    let handle = shards.handle(0);
    shards.join().unwrap();
    let (sender, answer) = reply::<u8>();
    assert!(!handle.run(move || sender.send(1)));
    drop(answer);
}

#[test]
fn shards_share_one_address_and_each_is_reached_through_its_handle() {
    let address = {
        let found = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        found.local_addr().unwrap()
    };
    let two = EngineConfig {
        shards: 2,
        ..config()
    };
    let (ready, up) = std::sync::mpsc::channel();
    let shards = spawn_shards(two, move |index| {
        let ready = ready.clone();
        async move {
            assert_eq!(shard_index(), index);
            let options = ListenOptions {
                reuse_port: true,
                ..ListenOptions::default()
            };
            let listener = Listener::bind(address, options).unwrap();
            let (stop, stopped) = reply();
            ready.send(stop).unwrap();
            spawn(async move {
                while let Ok((conn, _)) = listener.accept().await {
                    conn.split().1.queue(Bytes::from(vec![index as u8]));
                }
            })
            .detach();
            assert_eq!(stopped.await, Some(()));
        }
    })
    .unwrap();
    let stops = [up.recv().unwrap(), up.recv().unwrap()];
    let mut seen = [false; 2];
    for _ in 0..400 {
        use std::io::Read;
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        seen[usize::from(all[0])] = true;
        if seen == [true, true] {
            break;
        }
    }
    assert_eq!(seen, [true, true]);
    for stop in stops {
        stop.send(());
    }
    shards.join().unwrap();
}

#[test]
fn notify_and_local_queue_wake_their_waiters() {
    on_shard(|| async {
        let notify = Notify::new();
        let early = notify.notified();
        notify.notify_all();
        // Counted from the call, not from the first poll.
        early.await;
        let waiters: Vec<_> = (0..5).map(|_| spawn(notify.notified())).collect();
        yield_now().await;
        notify.notify_all();
        for waiter in waiters {
            assert_eq!(waiter.await, Some(()));
        }
        assert!(deadline(now(), notify.notified()).await.is_err());
        let (sender, mut receiver) = queue(2);
        assert_eq!(
            (sender.send(1), sender.send(2), sender.send(3)),
            (Ok(()), Ok(()), Err(3))
        );
        assert_eq!(receiver.recv().await, Some(1));
        assert_eq!(receiver.try_recv(), Some(2));
        let other = sender.clone();
        let late = spawn(async move {
            yield_now().await;
            other.send(4)
        });
        drop(sender);
        assert_eq!(receiver.recv().await, Some(4));
        assert_eq!(late.await, Some(Ok(())));
        assert_eq!(receiver.recv().await, None);
    });
}
