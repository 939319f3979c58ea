//! Killed at any moment, whatever was reported durable is there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use portcullis_recorder::*;

use super::common::*;

const VARIABLE: &str = "RECORDER_TEST_KILL_DIR";
const SHARDS: usize = 2;

/// Writes for ever and prints what is durable.
fn write_until_killed(dir: &str) -> ! {
    let durable: Durable = Box::new(|shard, sequence| {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "durable {shard} {sequence}");
        let _ = out.flush();
    });
    let config = Config {
        segment_bytes_max: 64 << 10,
        ..small(dir.as_ref(), SHARDS)
    };
    let recorder = Recorder::start(config, durable).expect("it starts");
    let mut producers: Vec<Producer> = (0..SHARDS).map(|shard| recorder.producer(shard)).collect();
    let mut numbers = [0u64; SHARDS];
    loop {
        for (shard, producer) in producers.iter_mut().enumerate() {
            let body = event(&numbers[shard].to_le_bytes());
            match producer.append(id(shard as u8), numbers[shard], &body) {
                Ok(_) => numbers[shard] += 1,
                Err(AppendError::Full) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn what_was_reported_durable_survives_a_kill() {
    if let Ok(dir) = std::env::var(VARIABLE) {
        write_until_killed(&dir);
    }
    let folder = folder();
    for round in 1..=6u64 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "durability::what_was_reported_durable_survives_a_kill",
            ])
            .args(["--nocapture", "--test-threads", "1"])
            .env(VARIABLE, folder.dir.join(round.to_string()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut durable = [0u64; SHARDS];
        let mut reports = 0;
        let mut killed = false;
        for line in out.lines() {
            let line = line.expect("text");
            let mut words = line
                .split(' ')
                .skip_while(|word| *word != "durable")
                .skip(1);
            let (Some(shard), Some(sequence)) = (words.next(), words.next()) else {
                continue;
            };
            let (Ok(shard), Ok(sequence)) = (shard.parse::<usize>(), sequence.parse()) else {
                continue;
            };
            durable[shard] = sequence;
            reports += 1;
            // What it still manages to say between this and its death counts as well.
            if reports == round * 15 && !killed {
                child.kill().expect("SIGKILL");
                killed = true;
            }
        }
        child.wait().expect("it is gone");
        assert!(killed, "it ran until it was killed");

        let dir = folder.dir.join(round.to_string());
        let report = verify(&dir).expect("it reads");
        assert!(report.is_whole(), "{report}");
        assert_eq!(report.unfinished, SHARDS as u64);
        let archive = Archive::open(&dir).expect("it opens");
        for (shard, durable) in durable.iter().enumerate() {
            let session = id(shard as u8);
            assert!(
                archive
                    .summary(session)
                    .expect("it is there")
                    .is_unfinished()
            );
            let mut there = 0u64;
            for record in archive.session(session) {
                let record = record.expect("a whole record");
                assert_eq!(record.body, event(&there.to_le_bytes()));
                there += 1;
            }
            assert!(
                there >= *durable && *durable > 0,
                "{there} there, {durable} durable"
            );
        }
        // And the archive goes on.
        Recorder::start(small(&dir, 1), nobody())
            .expect("it starts after a kill")
            .stop()
            .expect("it stops");
        let report = verify_closed(&dir).expect("it reads");
        assert!(report.is_whole(), "{report}");
    }
}
