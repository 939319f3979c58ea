//! File descriptors: none leaks, and running out of them pauses accepting. In a
//! process of its own, because the limit and the count are the whole process's.

mod common;

use std::time::Duration;

use bytes::Bytes;
use portcullis_engine::{connect, now, sleep_until, spawn, stats};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn descriptors_do_not_leak_and_their_shortage_pauses_accept() {
    // First of all: an accept keeps the limit that stood when it was armed.
    lower_limit(400);
    common::on_shard(|| async {
        let listener = common::listen();
        let address = listener.local_addr();
        let limit = now() + Duration::from_secs(10);
        let mut base = 0;
        for round in 0..300 {
            let dial = spawn(connect(address, limit));
            let (far, _) = listener.accept().await.unwrap();
            let (mut reader, writer) = dial.await.unwrap().unwrap().split();
            let (mut far_reader, far_writer) = far.split();
            far_writer.queue(Bytes::from_static(b"x"));
            assert_eq!(reader.recv().await.unwrap(), "x");
            match round % 3 {
                0 => drop((reader, writer, far_reader, far_writer)),
                1 => {
                    writer.abort();
                    assert!(far_reader.recv().await.is_err());
                }
                _ => {
                    writer.finish();
                    assert!(far_reader.recv().await.is_err());
                }
            }
            if round == 50 {
                base = open_descriptors();
            }
        }
        while stats().connections > 0 {
            assert!(now() < limit, "{:?}", stats());
            sleep_until(now() + Duration::from_millis(1)).await;
        }
        assert!(
            open_descriptors() <= base + 8,
            "{base} became {}",
            open_descriptors()
        );

        // Take every descriptor but the one that the dialling side needs.
        let mut hogs = Vec::new();
        // Twice, since a descriptor that watches a parked shard may be on its way out.
        for _ in 0..2 {
            while let Ok(hog) = std::fs::File::open("/dev/null") {
                hogs.push(hog);
            }
            sleep_until(now() + Duration::from_millis(30)).await;
        }
        while let Ok(hog) = std::fs::File::open("/dev/null") {
            hogs.push(hog);
        }
        hogs.pop();
        let near = connect(address, limit).await.unwrap();
        while stats().accept_pauses == 0 {
            assert!(now() < limit, "accept never ran out: {:?}", stats());
            sleep_until(now() + Duration::from_millis(5)).await;
        }
        sleep_until(now() + Duration::from_millis(250)).await;
        let pauses = stats().accept_pauses;
        assert!(pauses < 10, "it spins: {pauses} pauses");
        hogs.clear();
        let (far, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, near.local_addr());
        drop(far);
    });
}

fn lower_limit(count: u64) {
    let limit = libc::rlimit {
        rlim_cur: count,
        rlim_max: 1 << 20,
    };
    // SAFETY: the pointer is to a live rlimit. An unprivileged process may not raise
    // the hard limit, so that one is read first.
    unsafe {
        let mut now = limit;
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut now);
        now.rlim_cur = count.min(now.rlim_max);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const now);
    }
}
