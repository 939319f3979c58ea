//! Verify finds what is not whole, and says where.

use std::fs;
use std::path::Path;

use portcullis_recorder::*;
use proptest::prelude::*;

use super::common::*;

fn report(dir: &Path) -> Report {
    verify(dir).expect("it reads")
}

#[test]
fn finds_every_flipped_bit_of_a_small_archive() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    let paths = segments(&folder.dir);
    assert_eq!(paths.len(), 1);
    let whole = fs::read(&paths[0]).expect("it reads");
    let ranges = frames(&whole);
    for at in 0..whole.len() {
        let bit = 1 << (at % 8);
        for flip in [bit, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            fs::write(&paths[0], &bytes).expect("it writes");
            let report = report(&folder.dir);
            let offset = ranges
                .iter()
                .find(|range| range.contains(&at))
                .map_or(0, |range| range.start as u64);
            assert!(
                report
                    .problems
                    .iter()
                    .any(|p| p.segment == 1 && p.offset == offset),
                "byte {at} ^ {flip:#x}: {report}"
            );
        }
    }
}

#[test]
fn finds_every_flipped_byte_across_segments() {
    let folder = folder();
    write_archive(&folder.dir, 2000);
    let paths = segments(&folder.dir);
    assert!(paths.len() >= 2, "{paths:?}");
    for (index, path) in paths.iter().enumerate() {
        let whole = fs::read(path).expect("it reads");
        for at in (0..whole.len()).filter(|at| at % 5 == 0 || *at < 300) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            fs::write(path, &bytes).expect("it writes");
            let report = report(&folder.dir);
            assert!(
                report
                    .problems
                    .iter()
                    .any(|p| p.segment == index as u64 + 1),
                "segment {} byte {at}: {report}",
                index + 1
            );
        }
        fs::write(path, &whole).expect("it writes");
    }
    assert!(report(&folder.dir).is_whole());
}

#[test]
fn finds_every_cut() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    let path = &segments(&folder.dir)[0];
    let whole = fs::read(path).expect("it reads");
    for cut in 0..whole.len() {
        fs::write(path, &whole[..cut]).expect("it writes");
        let closed = verify_closed(&folder.dir).expect("it reads");
        assert!(!closed.is_whole(), "cut at {cut}");
        let live = report(&folder.dir);
        if cut < HEADER_BYTES {
            assert!(!live.is_whole(), "cut at {cut}");
        } else {
            // It looks like a record that is being written, and the report says so.
            assert!(live.is_whole(), "cut at {cut}: {live}");
            assert!(matches!(live.notes[..], [Note::InProgress { .. }]));
        }
    }
}

#[test]
fn finds_every_cut_before_the_last_segment() {
    let folder = folder();
    write_archive(&folder.dir, 2000);
    let path = &segments(&folder.dir)[0];
    let whole = fs::read(path).expect("it reads");
    for cut in (0..whole.len()).filter(|at| at % 7 == 0) {
        fs::write(path, &whole[..cut]).expect("it writes");
        let report = report(&folder.dir);
        assert!(
            report
                .problems
                .iter()
                .any(|p| p.segment == 1 || p.segment == 2),
            "{report}"
        );
    }
}

#[test]
fn finds_every_removed_doubled_and_swapped_record() {
    let folder = folder();
    write_archive(&folder.dir, 2000);
    let paths = segments(&folder.dir);
    for (index, path) in paths.iter().enumerate() {
        let is_last_segment = index + 1 == paths.len();
        let whole = fs::read(path).expect("it reads");
        let ranges = frames(&whole);
        for (n, range) in ranges.iter().enumerate() {
            let removed = [&whole[..range.start], &whole[range.end..]].concat();
            fs::write(path, &removed).expect("it writes");
            let closed = verify_closed(&folder.dir).expect("it reads");
            assert!(!closed.is_whole(), "record {n} of {} removed", index + 1);
            if !(is_last_segment && n + 1 == ranges.len()) {
                assert!(
                    !report(&folder.dir).is_whole(),
                    "record {n} of {} removed",
                    index + 1
                );
            }
            let doubled = [&whole[..range.end], &whole[range.start..]].concat();
            fs::write(path, &doubled).expect("it writes");
            assert!(!report(&folder.dir).is_whole(), "record {n} doubled");
            if let Some(next) = ranges.get(n + 1) {
                let swapped = [
                    &whole[..range.start],
                    &whole[next.clone()],
                    &whole[range.clone()],
                    &whole[next.end..],
                ]
                .concat();
                fs::write(path, &swapped).expect("it writes");
                assert!(!report(&folder.dir).is_whole(), "record {n} swapped");
            }
        }
        fs::write(path, &whole).expect("it writes");
    }
    assert!(report(&folder.dir).is_whole());
}

#[test]
fn names_the_place_the_session_and_the_number() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    let path = &segments(&folder.dir)[0];
    let whole = fs::read(path).expect("it reads");
    let ranges = frames(&whole);
    let of_session: Vec<_> = ranges
        .iter()
        .filter(|range| {
            decode_frame(&whole[(*range).clone()])
                .expect("whole")
                .head
                .session
                == id(1)
        })
        .collect();
    // Take the session's second record away: its third tells.
    let removed = [&whole[..of_session[1].start], &whole[of_session[1].end..]].concat();
    fs::write(path, &removed).expect("it writes");
    let report = report(&folder.dir);
    let problem = report
        .problems
        .iter()
        .find(|problem| problem.session == Some(id(1)))
        .expect("it names the session");
    assert_eq!(
        problem.what,
        "records 1 to 1 of the session are missing before this one"
    );
    let size = of_session[1].end - of_session[1].start;
    assert_eq!(problem.offset, (of_session[2].start - size) as u64);
    // The reader says the same and gives the rest.
    let archive = Archive::open(&folder.dir).expect("it opens");
    let read: Vec<_> = archive.session(id(1)).collect();
    assert_eq!(read.iter().filter(|item| item.is_ok()).count(), 3);
    assert_eq!(read.iter().filter(|item| item.is_err()).count(), 1);
}

#[test]
fn finds_each_missing_and_swapped_segment() {
    let folder = folder();
    write_archive(&folder.dir, 3000);
    let paths = segments(&folder.dir);
    assert!(paths.len() >= 3);
    let aside = folder.dir.join("aside");
    for (index, path) in paths.iter().enumerate() {
        fs::rename(path, &aside).expect("it moves");
        let report_now = report(&folder.dir);
        assert!(
            report_now
                .problems
                .iter()
                .any(|p| p.segment == index as u64 + 1 && p.what.contains("missing")),
            "{report_now}"
        );
        fs::rename(&aside, path).expect("it moves");
        if let Some(next) = paths.get(index + 1) {
            let swap = || {
                fs::rename(path, &aside).expect("it moves");
                fs::rename(next, path).expect("it moves");
                fs::rename(&aside, next).expect("it moves");
            };
            swap();
            assert!(!report(&folder.dir).is_whole());
            swap();
        }
    }
    // A copy of a segment under the next free number.
    let copy = folder.dir.join(format!("{:08}.seg", paths.len() + 1));
    fs::copy(&paths[paths.len() - 1], &copy).expect("it copies");
    assert!(!report(&folder.dir).is_whole());
    fs::remove_file(&copy).expect("it goes");
    assert!(report(&folder.dir).is_whole());
}

#[test]
fn a_writer_between_two_segments_is_told_from_a_missing_segment() {
    let folder = folder();
    write_archive(&folder.dir, 3000);
    let paths = segments(&folder.dir);
    let header = fs::read(&paths[1]).expect("it reads")[..HEADER_BYTES].to_vec();
    for path in &paths[1..] {
        fs::remove_file(path).expect("it goes");
    }
    assert!(!report(&folder.dir).is_whole());
    let prepared = folder.dir.join("00000002.tmp");
    fs::write(&prepared, &header).expect("it writes");
    let between = report(&folder.dir);
    assert!(between.is_whole(), "{between}");
    assert_eq!(between.notes, [Note::BetweenSegments { segment: 1 }]);
    assert!(!verify_closed(&folder.dir).expect("it reads").is_whole());
    for at in 0..HEADER_BYTES {
        let mut other = header.clone();
        other[at] ^= 1;
        fs::write(&prepared, &other).expect("it writes");
        assert!(!report(&folder.dir).is_whole(), "byte {at}");
    }
    fs::write(&prepared, &header).expect("it writes");
    Recorder::start(small(&folder.dir, 1), nobody())
        .expect("it starts after a crash there")
        .stop()
        .expect("it stops");
    assert!(verify_closed(&folder.dir).expect("it reads").is_whole());
    assert!(!prepared.exists());
}

#[test]
fn a_whole_session_cannot_vanish() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    let path = &segments(&folder.dir)[0];
    let whole = fs::read(path).expect("it reads");
    for gone in [id(1), id(2)] {
        let mut left = whole[..HEADER_BYTES].to_vec();
        for range in frames(&whole) {
            if decode_frame(&whole[range.clone()])
                .expect("whole")
                .head
                .session
                != gone
            {
                left.extend_from_slice(&whole[range]);
            }
        }
        fs::write(path, &left).expect("it writes");
        assert!(!report(&folder.dir).is_whole());
    }
}

#[test]
fn a_record_that_was_made_anew_breaks_its_chain() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    let path = &segments(&folder.dir)[0];
    let whole = fs::read(path).expect("it reads");
    for range in frames(&whole) {
        let frame = decode_frame(&whole[range.clone()]).expect("whole");
        if frame.head.kind != FrameKind::Session || frame.head.sequence == 3 {
            continue;
        }
        let mut bytes = whole[..range.start].to_vec();
        let forged = event(b"nothing happened").encode().expect("it encodes");
        encode_frame(&mut bytes, &frame.head, &forged);
        bytes.extend_from_slice(&whole[range.end..]);
        fs::write(path, &bytes).expect("it writes");
        let report = report(&folder.dir);
        assert!(
            report
                .problems
                .iter()
                .any(|p| p.session == Some(frame.head.session)
                    && p.what.contains("does not carry the hash")),
            "{report}"
        );
    }
}

#[test]
fn an_empty_folder_is_not_whole() {
    let folder = folder();
    fs::create_dir(&folder.dir).expect("it is made");
    assert!(!report(&folder.dir).is_whole());
    assert!(verify(folder.dir.join("nowhere")).is_err());
}

#[test]
fn files_that_are_no_segments_are_left_alone() {
    let folder = folder();
    write_archive(&folder.dir, 0);
    for name in [
        "00000000.seg",
        "2.seg",
        "+0000002.seg",
        "000000002.seg",
        "18446744073709551615.seg",
        "99999999999999999999999.seg",
        "notes.txt",
    ] {
        fs::write(folder.dir.join(name), b"x").expect("it writes");
    }
    let report = verify_closed(&folder.dir).expect("it reads");
    assert!(report.is_whole(), "{report}");
    assert_eq!(report.segments, 1);
    // One far away is a hole, however wide.
    fs::write(folder.dir.join("9007199254740992.seg"), b"x").expect("it writes");
    let report = verify(&folder.dir).expect("it reads");
    assert!(report.problems.len() <= PROBLEMS_MAX && report.problems_unlisted > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any splice: no panic in any reader, and never taken for whole.
    #[test]
    fn random_damage_is_found_and_read_without_panic(
        from in any::<prop::sample::Index>(),
        until in any::<prop::sample::Index>(),
        patch in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let folder = folder();
        write_archive(&folder.dir, 0);
        let path = segments(&folder.dir)[0].clone();
        let whole = fs::read(&path).expect("it reads");
        let (a, b) = (from.index(whole.len() + 1), until.index(whole.len() + 1));
        let (a, b) = (a.min(b), a.max(b));
        let bytes = [&whole[..a], &patch, &whole[b..]].concat();
        fs::write(&path, &bytes).expect("it writes");
        let report = verify_closed(&folder.dir).expect("it reads");
        prop_assert_eq!(report.is_whole(), bytes == whole);
        let archive = Archive::open(&folder.dir).expect("it opens");
        for summary in archive.sessions() {
            for record in archive.session(summary.session).flatten() {
                render(&record, &mut Vec::new(), Style::default()).expect("it writes");
            }
        }
        // A writer goes on after it or refuses; either way the damage stays in sight.
        if let Ok(recorder) = Recorder::start(small(&folder.dir, 1), nobody()) {
            recorder.stop().expect("it stops");
            let after = verify_closed(&folder.dir).expect("it reads");
            let cut_only = bytes.len() < whole.len() && whole.starts_with(&bytes);
            let torn = after
                .notes
                .iter()
                .any(|note| matches!(note, Note::Torn { .. }));
            prop_assert!(!after.is_whole() || bytes == whole || cut_only || torn);
        }
    }
}
