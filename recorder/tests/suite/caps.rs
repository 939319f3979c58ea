//! At the cap, and when the disk refuses.

use std::fs;
use std::process::Command;

use portcullis_recorder::*;

use super::common::*;

fn capped(folder: &Folder, at_cap: AtCap) -> Config {
    Config {
        total_bytes_max: 64 << 10,
        at_cap,
        ring_entries: 16,
        ring_bytes_max: 8 << 10,
        ..small(&folder.dir, 1)
    }
}

fn disk_bytes(folder: &Folder) -> u64 {
    segments(&folder.dir)
        .iter()
        .map(|path| fs::metadata(path).expect("it is there").len())
        .sum()
}

/// Appends until it is told that the recorder failed, or `most` times. Gives how many were taken.
fn fill(producer: &mut Producer, most: u64) -> (u64, Option<String>) {
    let mut taken = 0;
    while taken < most {
        match producer.append(id((taken % 5) as u8), taken, &event(&[7; 300])) {
            Ok(_) => taken += 1,
            Err(AppendError::Full) => std::thread::yield_now(),
            Err(AppendError::Failed { why }) => return (taken, Some(why)),
            Err(error) => panic!("{error}"),
        }
    }
    (taken, None)
}

#[test]
fn at_the_cap_it_refuses_and_loses_nothing() {
    let folder = folder();
    let config = capped(&folder, AtCap::Refuse);
    let cap = config.total_bytes_max;
    let recorder = Recorder::start(config.clone(), nobody()).expect("it starts");
    let mut producer = recorder.producer(0);
    let (taken, why) = fill(&mut producer, 10_000);
    let why = why.expect("the cap is met");
    assert!(why.contains("record full"), "{why}");
    assert_eq!(recorder.health(), Health::Failed { why });
    recorder.stop().expect("what was taken is written");
    assert!(disk_bytes(&folder) <= cap);
    let report = verify_closed(&folder.dir).expect("it reads");
    assert!(report.is_whole(), "{report}");
    let archive = Archive::open(&folder.dir).expect("it opens");
    let there: u64 = archive.sessions().iter().map(|s| s.records).sum();
    assert!(there == taken || there == taken + 1, "{there} of {taken}");
    assert!(matches!(
        Recorder::start(config, nobody()),
        Err(RecorderError::Full { .. })
    ));
}

#[test]
fn at_the_cap_it_deletes_the_oldest_and_says_so() {
    let folder = folder();
    let config = capped(&folder, AtCap::DeleteOldest);
    let cap = config.total_bytes_max;
    for round in 0..2 {
        let recorder = Recorder::start(config.clone(), nobody()).expect("it starts");
        let mut producer = recorder.producer(0);
        assert_eq!(fill(&mut producer, 1000), (1000, None));
        assert_eq!(recorder.health(), Health::Ok);
        recorder.stop().expect("it stops");
        assert!(disk_bytes(&folder) <= cap, "round {round}");
        let report = verify_closed(&folder.dir).expect("it reads");
        assert!(report.is_whole(), "{report}");
        assert!(matches!(
            report.notes[..],
            [Note::DeletedByRetention { first_kept }] if first_kept > 1
        ));
    }
    // One more is gone, and no record says why.
    fs::remove_file(&segments(&folder.dir)[0]).expect("it goes");
    assert!(!verify(&folder.dir).expect("it reads").is_whole());
}

#[test]
fn a_folder_that_is_gone_fails_the_recorder() {
    let folder = folder();
    let (durable, heard) = listener();
    let recorder = Recorder::start(small(&folder.dir, 1), durable).expect("it starts");
    let mut producer = recorder.producer(0);
    fs::remove_dir_all(&folder.dir).expect("it goes");
    let (_, why) = fill(&mut producer, 100_000);
    assert!(
        why.expect("the next segment cannot be made")
            .contains("cannot create")
    );
    assert!(matches!(recorder.health(), Health::Failed { .. }));
    assert!(matches!(recorder.stop(), Err(RecorderError::Failed { .. })));
    // Whoever waits is told: the last call repeats the last sequence, or is the only one.
    let calls: Vec<(usize, u64)> = heard.iter().collect();
    let last = (0, producer.durable());
    assert_eq!(calls.last(), Some(&last));
    assert!(
        calls.len() == 1 || calls[calls.len() - 2] == last,
        "{calls:?}"
    );
}

#[test]
fn a_busy_archive_is_whole_at_every_look() {
    let folder = folder();
    let config = capped(&folder, AtCap::DeleteOldest);
    let recorder = Recorder::start(config, nobody()).expect("it starts");
    let mut producer = recorder.producer(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(fill(&mut producer, 10).1, None);
            }
        });
        // Until retention has been at work under the looks for a while.
        let began = std::time::Instant::now();
        let mut looks = Vec::new();
        while looks.len() < 50 || recorder.stats().segments_deleted < 20 {
            looks.push(verify(&folder.dir).expect("it reads"));
            if began.elapsed() > PATIENCE {
                break;
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for report in looks {
            assert!(report.is_whole(), "{report}");
        }
    });
    assert!(recorder.stats().segments_deleted >= 20);
    recorder.stop().expect("it stops");
    assert!(verify_closed(&folder.dir).expect("it reads").is_whole());
}

/// Runs itself under a limit on file sizes: a disk that takes no more, without needing one.
#[test]
fn a_disk_that_takes_no_more_fails_the_recorder() {
    const VARIABLE: &str = "RECORDER_TEST_LIMITED_DIR";
    if let Ok(dir) = std::env::var(VARIABLE) {
        let config = Config {
            segment_bytes_max: 1 << 20,
            ..small(dir.as_ref(), 1)
        };
        let recorder = Recorder::start(config, nobody()).expect("it starts");
        let (_, why) = fill(&mut recorder.producer(0), 100_000);
        assert!(why.expect("the limit is met").contains("cannot write"));
        let mut late = recorder.producer(0);
        assert!(late.append(id(1), 1, &end()).is_err());
        assert!(matches!(recorder.stop(), Err(RecorderError::Failed { .. })));
        println!("failed as it should");
        return;
    }
    let folder = folder();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "caps::a_disk_that_takes_no_more_fails_the_recorder",
        ])
        .args(["--nocapture", "--test-threads", "1"])
        .env(VARIABLE, &folder.dir)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("failed as it should"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // What came before is whole, and a restart puts the torn end on record.
    let report = verify(&folder.dir).expect("it reads");
    assert!(report.is_whole(), "{report}");
    Recorder::start(small(&folder.dir, 1), nobody())
        .expect("it starts")
        .stop()
        .expect("it stops");
    let report = verify_closed(&folder.dir).expect("it reads");
    assert!(report.is_whole(), "{report}");
    assert!(
        matches!(report.notes[..], [Note::Torn { segment: 1, .. }]),
        "{report}"
    );
}

#[test]
fn refuses_numbers_that_do_not_fit() {
    let folder = folder();
    let good = small(&folder.dir, 1);
    for (bad, key) in [
        (
            Config {
                segment_bytes_max: 1,
                ..good.clone()
            },
            "segment_bytes_max",
        ),
        (
            Config {
                shards: 0,
                ..good.clone()
            },
            "shards",
        ),
        (
            Config {
                shards: 5000,
                ..good.clone()
            },
            "shards",
        ),
        (
            Config {
                ring_entries: 1,
                ..good.clone()
            },
            "ring_entries",
        ),
        (
            Config {
                ring_bytes_max: 0,
                ..good.clone()
            },
            "ring_bytes_max",
        ),
        (
            Config {
                group_commit_ms: 60_000,
                ..good.clone()
            },
            "group_commit_ms",
        ),
        (
            Config {
                total_bytes_max: 1 << 20,
                ..good.clone()
            },
            "total_bytes_max",
        ),
    ] {
        assert!(matches!(
            bad.check(),
            Err(RecorderError::Configuration { key: named, .. }) if named == key
        ));
        assert!(Recorder::start(bad, nobody()).is_err());
    }
    good.check().expect("it fits");
    Config::new(&folder.dir, 64)
        .check()
        .expect("the defaults fit 64 shards");
}
