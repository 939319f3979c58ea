//! The splitter: cut anywhere, lying lengths, bounded memory, runs.

use proptest::prelude::*;

use super::*;

/// Messages of type 'w' are wanted whole, 's' streamed, 'x' refused.
fn by_tag(tag: u8, _: u32) -> Treatment {
    match tag {
        b's' => Treatment::Stream,
        b'x' => Treatment::Refuse,
        _ => Treatment::Whole,
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// What came out, independent of how the input was cut.
fn drain(frames: &mut Frames, seen: &mut Vec<(u8, Vec<u8>, &'static str)>) {
    while let Some(piece) = frames.next(by_tag).unwrap() {
        match piece {
            Piece::Frame(frame) => {
                assert_eq!(frame.raw.len(), frame.body().len() + 5);
                seen.push((frame.tag, frame.body().to_vec(), "whole"));
            }
            Piece::Start { tag, .. } => seen.push((tag, Vec::new(), "open")),
            Piece::Chunk(bytes) => {
                assert!(!bytes.is_empty());
                let last = seen.last_mut().unwrap();
                assert_eq!(last.2, "open");
                last.1.extend_from_slice(&bytes);
            }
            Piece::End => seen.last_mut().unwrap().2 = "streamed",
        }
    }
}

fn all(parts: &[&[u8]]) -> Vec<(u8, Vec<u8>, &'static str)> {
    let mut frames = Frames::new();
    let mut seen = Vec::new();
    for part in parts {
        frames.push(Bytes::copy_from_slice(part));
        drain(&mut frames, &mut seen);
    }
    assert!(frames.is_at_rest());
    seen
}

#[test]
fn the_same_bytes_cut_anywhere_give_the_same_messages() {
    let stream = [
        message(b'w', b"one"),
        message(b's', b"streamed"),
        message(b'w', b""),
        message(b's', b""),
        message(b'w', &[7; 40]),
    ]
    .concat();
    let whole = all(&[&stream]);
    assert_eq!(whole.len(), 5);
    assert_eq!(whole[1], (b's', b"streamed".to_vec(), "streamed"));
    assert_eq!(whole[3], (b's', Vec::new(), "streamed"));
    for a in 0..=stream.len() {
        for b in a..=stream.len() {
            let parts = [&stream[..a], &stream[a..b], &stream[b..]];
            assert_eq!(all(&parts), whole, "cut at {a} and {b}");
        }
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(all(&bytes), whole);
    // Everything queued before the first look.
    let mut frames = Frames::new();
    for byte in &bytes {
        frames.push(Bytes::copy_from_slice(byte));
    }
    let mut seen = Vec::new();
    drain(&mut frames, &mut seen);
    assert_eq!(seen, whole);
}

#[test]
fn a_message_that_is_not_cut_shares_the_inputs_memory() {
    let input = Bytes::from([message(b'w', b"one"), message(b'w', b"two")].concat());
    let mut frames = Frames::new();
    frames.push(input.clone());
    for _ in 0..2 {
        let Some(Piece::Frame(frame)) = frames.next(by_tag).unwrap() else {
            panic!("a whole message was pushed");
        };
        assert!(input.as_ptr_range().contains(&frame.raw.as_ptr()));
        let inner = frame.share(&frame.body()[1..]);
        assert!(input.as_ptr_range().contains(&inner.as_ptr()));
        assert_eq!(frame.share(b"foreign"), &b"foreign"[..]);
        assert_eq!(frame.share(b""), &b""[..]);
    }
}

#[test]
fn memory_follows_what_has_arrived_not_what_was_announced() {
    let mut frames = Frames::new();
    frames.push(Bytes::from_static(b"w\x7f\xff\xff\xffabc"));
    assert_eq!(frames.next(by_tag), Ok(None));
    assert!(frames.joined.capacity() < 1024);
    assert!(frames.front.is_empty());
}

#[test]
fn joining_a_large_message_copies_each_byte_a_constant_number_of_times() {
    let body = vec![9u8; 4 << 20];
    let stream = Bytes::from(message(b'w', &body));
    let mut frames = Frames::new();
    let mut growths = 0;
    let mut capacity = 0;
    for start in (0..stream.len()).step_by(4096) {
        frames.push(stream.slice(start..(start + 4096).min(stream.len())));
        match frames.next(by_tag).unwrap() {
            None => {
                if frames.joined.capacity() != capacity {
                    capacity = frames.joined.capacity();
                    growths += 1;
                }
            }
            Some(Piece::Frame(frame)) => assert_eq!(frame.body(), &body[..]),
            other => panic!("{other:?}"),
        }
    }
    assert!(frames.is_at_rest());
    // Growing by doubling: 4 KiB to 4 MiB are ten steps; a thousand would be quadratic.
    assert!(growths < 20, "{growths} growths");
}

#[test]
fn a_streamed_gigabyte_is_never_held() {
    let mut frames = Frames::new();
    frames.push(Bytes::from_static(b"s\x40\0\0\0"));
    let start = Piece::Start {
        tag: b's',
        length: (1 << 30) - 4,
    };
    assert_eq!(frames.next(by_tag), Ok(Some(start)));
    let part = Bytes::from(vec![1; 64 << 10]);
    for _ in 0..100 {
        frames.push(part.clone());
        assert_eq!(frames.next(by_tag), Ok(Some(Piece::Chunk(part.clone()))));
        assert_eq!(frames.next(by_tag), Ok(None));
        assert_eq!(frames.buffered(), 0);
        assert_eq!(frames.joined.capacity(), 0);
    }
    assert!(!frames.is_at_rest());
}

#[test]
fn impossible_lengths_and_refused_messages_fail_for_good() {
    for length in [0u32, 1, 2, 3, 0x8000_0000, 0xffff_ffff] {
        let mut frames = Frames::new();
        frames.push(Bytes::from([&[b'w'][..], &length.to_be_bytes()].concat()));
        let error = WireError::BadLength { tag: b'w', length };
        assert_eq!(frames.next(by_tag), Err(error));
        frames.push(Bytes::from(message(b'w', b"")));
        assert_eq!(frames.next(by_tag), Err(error));
        assert_eq!(frames.peek_run(|_| true), 0);
    }
    let mut frames = Frames::new();
    frames.push(Bytes::from_static(b"x\0\0\0\x09"));
    let error = WireError::TooLarge {
        tag: b'x',
        length: 5,
    };
    assert_eq!(frames.next(by_tag), Err(error));
    assert_eq!(frames.next(by_tag), Err(error));
}

#[test]
fn the_rule_is_asked_once_per_message() {
    let mut asked = 0;
    let mut frames = Frames::new();
    let stream = [message(b'w', b"abc"), message(b's', b"abc")].concat();
    for byte in stream {
        frames.push(Bytes::from(vec![byte]));
        while frames
            .next(|tag, length| {
                asked += 1;
                by_tag(tag, length)
            })
            .unwrap()
            .is_some()
        {}
    }
    assert_eq!(asked, 2);
}

#[test]
fn a_run_ends_at_another_type_a_cut_message_and_an_impossible_length() {
    let rows = [
        message(b'D', b"a"),
        message(b'D', b""),
        message(b'D', b"ccc"),
    ]
    .concat();
    let run = rows.len();
    let tails: [&[u8]; 6] = [
        b"",
        b"D",
        b"D\0\0\0\x05",
        b"C\0\0\0\x04",
        b"D\0\0\0\x03",
        b"D\xff\xff\xff\xff",
    ];
    for tail in tails {
        let mut frames = Frames::new();
        frames.push(Bytes::from([&rows, tail].concat()));
        assert_eq!(frames.peek_run(|tag| tag == b'D'), run, "{tail:?}");
        assert_eq!(frames.peek_run(|tag| tag == b'C'), 0);
        assert_eq!(&frames.contiguous()[..run], &rows[..]);
        assert_eq!(frames.take_run(run), rows[..]);
        assert_eq!(frames.buffered(), tail.len());
    }
    // Inside a message there is no run.
    let mut frames = Frames::new();
    frames.push(Bytes::from_static(b"D\0\0"));
    assert_eq!(frames.next(by_tag), Ok(None));
    frames.push(Bytes::from([b"\0\x04", &rows[..]].concat()));
    assert_eq!(frames.peek_run(|_| true), 0);
    assert!(frames.next(by_tag).unwrap().is_some());
    assert_eq!(frames.peek_run(|_| true), run);
    // A run in a later input is found once the earlier one is used up.
    let mut frames = Frames::new();
    frames.push(Bytes::from(message(b'w', b"")));
    frames.push(Bytes::from(rows.clone()));
    assert_eq!(frames.peek_run(|tag| tag == b'D'), 0);
    assert!(frames.next(by_tag).unwrap().is_some());
    assert_eq!(frames.peek_run(|tag| tag == b'D'), run);
}

#[test]
fn debug_shows_no_bytes() {
    let mut frames = Frames::new();
    frames.push(Bytes::from(message(b'p', b"hunter2")));
    let before = format!("{frames:?}");
    let piece = format!("{:?}", frames.next(by_tag).unwrap());
    for shown in [before, piece] {
        assert!(
            !shown.contains("hunter2") && !shown.contains("104"),
            "{shown}"
        );
    }
}

proptest! {
    #[test]
    fn what_was_not_handed_out_is_the_rest(
        bodies in prop::collection::vec((0u8..3, 0usize..20), 1..8),
        taken in 0usize..12,
        cuts in prop::collection::vec(1usize..15, 1..40),
    ) {
        let mut stream = Vec::new();
        for (kind, length) in bodies {
            let tag = *b"wsD".get(usize::from(kind)).unwrap();
            stream.extend(message(tag, &vec![length as u8; length]));
        }
        let mut frames = Frames::new();
        let mut start = 0;
        for cut in cuts.iter().cycle() {
            let end = (start + cut).min(stream.len());
            frames.push(Bytes::copy_from_slice(&stream[start..end]));
            start = end;
            if start == stream.len() {
                break;
            }
        }
        let mut out = 0;
        for _ in 0..taken {
            out += match frames.next(by_tag).unwrap() {
                Some(Piece::Frame(frame)) => frame.raw.len(),
                Some(Piece::Start { .. }) => 5,
                Some(Piece::Chunk(bytes)) => bytes.len(),
                Some(Piece::End) => 0,
                None => break,
            };
        }
        prop_assert_eq!(frames.buffered(), stream.len() - out);
        prop_assert_eq!(&frames.into_rest()[..], &stream[out..]);
    }
}
