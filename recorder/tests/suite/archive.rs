//! What was appended is read back, across segments, restarts and crashes; and shown.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use portcullis_recorder::*;

use super::common::*;

fn bodies(archive: &Archive, session: SessionId) -> Vec<Body> {
    archive
        .session(session)
        .map(|record| record.expect("a whole record").body)
        .collect()
}

#[test]
fn reads_back_each_body_in_order_across_segments() {
    let folder = folder();
    let recorder = Recorder::start(small(&folder.dir, 1), nobody()).expect("it starts");
    let mut producer = recorder.producer(0);
    let bodies_in: Vec<Body> = every_body()
        .into_iter()
        .filter(|body| !matches!(body, Body::SessionEnd { .. }))
        .cycle()
        .take(200)
        .chain([end()])
        .collect();
    for (index, body) in bodies_in.iter().enumerate() {
        assert_eq!(
            producer.append(id(7), 1000 + index as u64, body),
            Ok(index as u64 + 1)
        );
    }
    recorder.stop().expect("it stops");

    assert!(segments(&folder.dir).len() > 3, "it rotates");
    let report = verify_closed(&folder.dir).expect("it reads");
    assert!(report.is_whole(), "{report}");
    assert_eq!((report.sessions, report.unfinished), (1, 0));

    let archive = Archive::open(&folder.dir).expect("it opens");
    let records: Vec<Record> = archive
        .session(id(7))
        .map(|record| record.expect("a whole record"))
        .collect();
    assert_eq!(records.len(), bodies_in.len());
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.sequence_in_session, index as u64);
        assert_eq!(record.wall_clock_us, 1000 + index as u64);
        assert_eq!(record.body, bodies_in[index]);
    }
    let summary = archive.summary(id(7)).expect("a summary");
    assert_eq!(summary.records, bodies_in.len() as u64);
    assert_eq!(summary.start, Some(start()));
    assert_eq!(summary.end, Some(end()));
    assert!(!summary.is_unfinished());
    assert!(summary.denied > 0 && summary.requests > 0);
    assert_eq!(archive.session(id(9)).count(), 0);
}

#[test]
fn files_are_private_and_the_folder_must_be() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    let mode = |path: &std::path::Path| {
        fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(&folder.dir), 0o700);
    for entry in fs::read_dir(&folder.dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    fs::set_permissions(&folder.dir, fs::Permissions::from_mode(0o750)).expect("it changes");
    assert!(matches!(
        Recorder::start(small(&folder.dir, 1), nobody()),
        Err(RecorderError::Permissions { mode: 0o750, .. })
    ));
}

#[test]
fn one_archive_has_one_writer() {
    let folder = folder();
    let recorder = Recorder::start(small(&folder.dir, 1), nobody()).expect("it starts");
    assert!(matches!(
        Recorder::start(small(&folder.dir, 1), nobody()),
        Err(RecorderError::InUse { .. })
    ));
    recorder.stop().expect("it stops");
    Recorder::start(small(&folder.dir, 1), nobody())
        .expect("the archive is free again")
        .stop()
        .expect("it stops");
    assert!(verify_closed(&folder.dir).expect("it reads").is_whole());
}

#[test]
fn a_live_archive_is_whole_and_in_progress() {
    let folder = folder();
    let (durable, heard) = listener();
    let recorder = Recorder::start(small(&folder.dir, 1), durable).expect("it starts");
    let mut producer = recorder.producer(0);
    let sequence = producer
        .append_urgent(id(1), 5, &start())
        .expect("it is taken");
    await_durable(&heard, 0, sequence);
    let report = verify(&folder.dir).expect("it reads");
    assert!(report.is_whole(), "{report}");
    assert!(matches!(
        report.notes[..],
        [Note::InProgress {
            partial_bytes: 0,
            ..
        }]
    ));
    assert_eq!(report.unfinished, 1);
    let archive = Archive::open(&folder.dir).expect("it opens");
    assert!(archive.sessions()[0].is_unfinished());
    assert_eq!(bodies(&archive, id(1)), [start()]);
}

#[test]
fn a_torn_end_is_kept_and_named_at_each_cut() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    let path = segments(&folder.dir)[0].clone();
    let whole = fs::read(&path).expect("it reads");
    let last = frames(&whole).pop().expect("a frame");
    for cut in [last.start, last.start + 1, last.start + 7, last.end - 1] {
        for later in fs::read_dir(&folder.dir).expect("a folder") {
            let later = later.expect("an entry").path();
            if later != path {
                fs::remove_file(later).expect("it goes");
            }
        }
        fs::write(&path, &whole[..cut]).expect("it writes");
        Recorder::start(small(&folder.dir, 1), nobody())
            .expect("it starts after a crash")
            .stop()
            .expect("it stops");
        assert_eq!(
            fs::read(&path).expect("it reads"),
            &whole[..cut],
            "nothing is changed"
        );
        let report = verify_closed(&folder.dir).expect("it reads");
        assert!(report.is_whole(), "{report}");
        let bytes = (cut - last.start) as u64;
        let expected = if bytes == 0 {
            Note::NotClosed { segment: 1 }
        } else {
            Note::Torn {
                segment: 1,
                offset: last.start as u64,
                bytes,
            }
        };
        assert_eq!(report.notes, [expected]);
        if bytes > 0 {
            // Changing or dropping the torn bytes afterwards shows.
            fs::write(&path, &whole[..cut - 1]).expect("it writes");
            assert!(!verify(&folder.dir).expect("it reads").is_whole());
        }
    }
}

#[test]
fn never_written_space_at_the_end_is_a_torn_end() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    let path = segments(&folder.dir)[0].clone();
    OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(&[0; 300]))
        .expect("it grows");
    Recorder::start(small(&folder.dir, 1), nobody())
        .expect("it starts")
        .stop()
        .expect("it stops");
    let report = verify_closed(&folder.dir).expect("it reads");
    assert!(report.is_whole(), "{report}");
    assert!(matches!(report.notes[..], [Note::Torn { bytes: 300, .. }]));
}

#[test]
fn damage_stays_damage_after_a_restart() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    let path = segments(&folder.dir)[0].clone();
    let mut bytes = fs::read(&path).expect("it reads");
    let last = frames(&bytes).pop().expect("a frame");
    bytes[last.start + 90] ^= 1;
    fs::write(&path, &bytes).expect("it writes");
    assert!(!verify(&folder.dir).expect("it reads").is_whole());
    Recorder::start(small(&folder.dir, 1), nobody())
        .expect("it starts")
        .stop()
        .expect("it stops");
    let report = verify(&folder.dir).expect("it reads");
    assert_eq!(report.problems.len(), 1, "{report}");
    assert_eq!(report.problems[0].segment, 1);
    assert_eq!(report.problems[0].offset, last.start as u64);
}

#[test]
fn a_damaged_header_is_not_written_after() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    let path = segments(&folder.dir)[0].clone();
    let mut bytes = fs::read(&path).expect("it reads");
    bytes[8] = 2;
    fs::write(&path, &bytes).expect("it writes");
    let Err(error) = Recorder::start(small(&folder.dir, 1), nobody()) else {
        panic!("a segment of version 2 cannot be continued");
    };
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn replay_shows_every_body_and_lets_no_byte_through() {
    let folder = folder();
    let recorder = Recorder::start(small(&folder.dir, 1), nobody()).expect("it starts");
    let mut producer = recorder.producer(0);
    let trick = "\u{1b}]52;c;aGk=\u{7}\r\n+0.000000 forged \u{202e}\u{200b}";
    producer
        .append(id(1), 3_000_000, &request(1, trick))
        .expect("it is taken");
    for body in every_body() {
        if !matches!(body, Body::SessionEnd { .. }) {
            producer
                .append(id(1), 2_500_000, &body)
                .expect("it is taken");
        }
    }
    recorder.stop().expect("it stops");
    let archive = Archive::open(&folder.dir).expect("it opens");
    let mut shown = Vec::new();
    let rows = |data: &[u8]| (!data.is_empty()).then(|| vec![b"id\x1b[2J".to_vec(), data.to_vec()]);
    for record in archive.session(id(1)) {
        let style = Style {
            base_us: 2_750_000,
            rows: Some(&rows),
        };
        render(&record.expect("whole"), &mut shown, style).expect("it writes");
    }
    let shown = String::from_utf8(shown).expect("text");
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(!shown.contains('\u{202e}') && !shown.contains('\u{200b}'));
    assert!(shown.starts_with("+0.250000 #1 query \"stmt\""), "{shown}");
    assert!(shown.contains("-0.250000 "));
    assert!(shown.contains("\n    | +0.000000 forged \\u{202e}\\u{200b}\n"));
    assert!(shown.contains("    | id\\x1b[2J\n"));
    assert!(shown.contains("    $2 = NULL\n"));
    assert!(shown.contains("DENIED by reads"));
    assert!(
        shown
            .lines()
            .all(|line| line.starts_with(['+', '-']) || line.starts_with("    "))
    );
}
