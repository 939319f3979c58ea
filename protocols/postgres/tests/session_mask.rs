//! Masking of everything that can carry data to the agent.

mod support;

use bytes::BytesMut;
use postgres::session::{CloseReason, Content, Event, Fill, Session, SessionError, Side};
use postgres::wire::backend::{self, Field, ReportBuilder, Severity};
use postgres::wire::frontend::{self, Kind};
use support::messages::{Say, message, split, tags};
use support::model::Model;
use support::toy::{Toy, mask_all};
use support::world::{World, config, direct};

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A world whose server is fed by hand, after the agent has said `say`.
fn by_hand(say: &Say) -> World {
    let mut world = World::new();
    world.model.dead = true;
    world.say(&say.bytes());
    world
}

fn encoded(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut out);
    out.to_vec()
}

fn row_description(format: i16) -> Vec<u8> {
    let field = Field {
        name: b"c",
        table_oid: 0,
        attribute: 0,
        type_oid: 25,
        type_size: -1,
        type_modifier: -1,
        format,
    };
    encoded(|out| backend::row_description(out, &[field]).unwrap())
}

fn data_row(values: &[Option<&[u8]>]) -> Vec<u8> {
    encoded(|out| backend::data_row(out, values.iter().copied()).unwrap())
}

#[test]
fn every_message_that_carries_data_is_masked_and_its_length_is_right() {
    let say = Say::new()
        .query("select 2 a SECRET b")
        .query("select 1 alias")
        .query("fail SECRET")
        .query("notice SECRET; notify SECRET; set name SECRET")
        .query("copy out 2 a SECRET");
    let mut world = World::new();
    world.say(&say.bytes());
    assert_eq!(
        tags(&world.agent),
        tags(&direct(&mut Model::new(), &say.bytes()))
    );
    assert!(!has(&world.agent, b"SECRET"));
    for (tag, body) in split(&world.agent) {
        assert!(backend::decode(tag, body).is_ok(), "{}", tag as char);
    }
    for tag in b"DTENASd" {
        let masked = split(&world.agent)
            .iter()
            .any(|(t, body)| t == tag && has(body, b"[masked:toy]"));
        assert!(masked, "{}", *tag as char);
    }
    for event in &world.events {
        let shown = format!("{event:?}");
        assert!(
            !shown.contains("SECRET") || matches!(event, Event::Passed { .. }),
            "{shown}"
        );
    }
    let counted: u64 = world
        .events
        .iter()
        .map(|e| {
            if let Event::Masked { values, .. } = e {
                *values
            } else {
                0
            }
        })
        .sum();
    // Two rows, two column names, message and context of the error, notice, payload,
    // setting, two copy rows.
    assert_eq!(counted, 2 + 2 + 2 + 1 + 1 + 1 + 2);
}

#[test]
fn function_results_and_command_tags_are_masked() {
    let mut world = by_hand(&Say::new().call(5).query("x"));
    let answer = encoded(|out| {
        backend::function_call_response(out, Some(b"a SECRET")).unwrap();
        backend::ready_for_query(out, b'I');
        backend::command_complete(out, b"SECRET 1").unwrap();
        backend::ready_for_query(out, b'I');
    });
    world.server_says(&answer);
    assert_eq!(tags(&world.agent), "VZCZ");
    let messages = split(&world.agent);
    assert_eq!(messages[0].1, b"\0\0\0\x0ea [masked:toy]");
    assert_eq!(messages[2].1, b"[masked:toy] 1\0");
}

#[test]
fn codes_and_positions_of_reports_stay() {
    let mut world = by_hand(&Say::new().query("x"));
    let mut report = ReportBuilder::new(Severity::Error, b"22012", b"m SECRET");
    for code in b"DHWqstcdnPpFLRz" {
        report = report.field(*code, b"SECRET");
    }
    world.server_says(&report.to_bytes());
    let messages = split(&world.agent);
    let report = backend::Report::decode(messages[0].1).unwrap();
    let shown = |code: u8| report.field(code).unwrap() == b"SECRET";
    assert!(b"PpFLR".iter().all(|code| shown(*code)));
    assert!(!b"MDHWqstcdnz".iter().any(|code| shown(*code)));
}

#[test]
fn binary_values_keep_their_length_however_the_format_is_known() {
    let secret = &b"\0SECRET"[..];
    let text = &b"SECRET"[..];
    // Query: by RowDescription.
    for (format, value, expected) in [
        (1, text, &b"XXXXXX"[..]),
        (0, text, b"[masked:toy]"),
        (0, secret, b"\0XXXXXX"),
    ] {
        let mut world = by_hand(&Say::new().query("x"));
        world.server_says(&[row_description(format), data_row(&[Some(value), None])].concat());
        assert_eq!(
            split(&world.agent)[1].1,
            &data_row(&[Some(expected), None])[5..]
        );
    }
    // Execute: by the Bind, for named and unnamed portals.
    for (portal, results, value, expected) in [
        ("", &[1][..], text, &b"XXXXXX"[..]),
        ("p", &[1], text, b"XXXXXX"),
        ("p", &[0], text, b"[masked:toy]"),
        ("", &[], text, b"[masked:toy]"),
        ("", &[0, 1], text, b"[masked:toy]"),
        ("", &[0, 1], secret, b"\0XXXXXX"),
        ("", &[0, 1], b"\xffSECRET", b"\xffXXXXXX"),
    ] {
        let mut world = by_hand(
            &Say::new()
                .bind_values(portal, "", &[], results)
                .execute(portal, 0),
        );
        world.server_says(&[b"2\0\0\0\x04".to_vec(), data_row(&[Some(value)])].concat());
        assert_eq!(
            split(&world.agent)[1].1,
            &data_row(&[Some(expected)])[5..],
            "{portal} {results:?}"
        );
    }
    // A portal that SQL declared, after the transaction in which the name was bound.
    let mut world = by_hand(&Say::new().bind_values("p", "", &[], &[1]).sync());
    world.server_says(b"2\0\0\0\x04Z\0\0\0\x05I");
    world.say(&Say::new().execute("p", 0).bytes());
    world.server_says(&data_row(&[Some(text)]));
    assert!(has(&world.agent, b"[masked:toy]"));
}

#[test]
fn a_secret_across_rows_of_copied_text_is_masked_wherever_messages_are_cut() {
    let text = "first SECRET\\nmiddle SECSECRETRET\\nSEC\\nlast SECRE";
    let whole = text.replace("\\n", "\n");
    let expected = mask_all(whole.as_bytes(), Fill::Placeholder);
    let lines: Vec<usize> = whole.match_indices('\n').map(|(at, _)| at + 1).collect();
    for first in 1..whole.len() - 1 {
        for second in [first + 1, (first + 9).min(whole.len())] {
            let mut world = by_hand(&Say::new().query("copy"));
            let mut answer = b"H\0\0\0\x07\0\0\0".to_vec();
            let pieces = [&whole[..first], &whole[first..second], &whole[second..]];
            for piece in pieces {
                answer.extend(encoded(|out| {
                    frontend::copy_data(out, piece.as_bytes()).unwrap()
                }));
            }
            answer.extend(b"c\0\0\0\x04");
            world.server_says(&answer);
            let data: Vec<u8> = split(&world.agent)
                .iter()
                .filter(|(tag, _)| *tag == b'd')
                .flat_map(|(_, body)| body.to_vec())
                .collect();
            assert_eq!(world.closed, None);
            assert_eq!(
                data, expected,
                "cut at {first} and {second}, lines {lines:?}"
            );
            // Byte by byte it is the same stream.
            let mut slow = by_hand(&Say::new().query("copy"));
            for byte in &answer {
                slow.server_says(&[*byte]);
            }
            assert_eq!(slow.agent, world.agent);
        }
    }
}

#[test]
fn an_error_in_the_middle_of_a_copied_row_releases_what_was_held_back() {
    let mut world = by_hand(&Say::new().query("copy"));
    world.server_says(b"H\0\0\0\x07\0\0\0d\0\0\0\x07SEC");
    assert_eq!(tags(&world.agent), "H");
    world.server_says(&ReportBuilder::new(Severity::Error, b"XX000", b"m").to_bytes());
    assert_eq!(tags(&world.agent), "HdE");
    assert_eq!(split(&world.agent)[1].1, b"SEC");
}

#[test]
fn binary_copy_data_keeps_its_length() {
    let mut world = by_hand(&Say::new().query("copy"));
    world.server_says(b"H\0\0\0\x07\x01\0\0d\0\0\0\x0aSECRETd\0\0\0\x07SEC");
    assert_eq!(split(&world.agent)[1].1, b"XXXXXX");
    assert_eq!(split(&world.agent)[2].1, b"SEC");
}

fn large_settings() -> postgres::session::SessionConfig {
    let mut settings = config();
    settings.value_bytes_held_max = 64;
    settings
}

#[test]
fn a_large_row_streams_masked_with_every_length_unchanged() {
    let mut value = vec![b'v'; 5000];
    for at in [0, 100, 2047, 4994] {
        value[at..at + 6].copy_from_slice(b"SECRET");
    }
    let row = data_row(&[
        Some(b"short"),
        None,
        Some(&value),
        Some(b""),
        Some(b"SECRET"),
        Some(b"SEC"),
    ]);
    let expected = mask_all(&row, Fill::SameLength);
    for step in [1, 3, 100, row.len()] {
        let mut world = World::with(large_settings());
        world.model.dead = true;
        world.say(&Say::new().query("x").bytes());
        world.server_says(&row_description(0));
        let before = world.agent.len();
        let mut released = 0;
        for piece in row.chunks(step) {
            world.server_says(piece);
            released += piece.len();
            assert!(
                world.agent.len() - before + 16 >= released,
                "held back no more than a secret's start"
            );
        }
        world.server_says(b"C\0\0\0\x06x\0Z\0\0\0\x05I");
        assert_eq!(
            &world.agent[before..before + row.len()],
            expected,
            "in steps of {step}"
        );
        assert_eq!(tags(&world.agent), "TDCZ");
        assert!(world.events.iter().any(|e| matches!(
            e,
            Event::Rows {
                truncated: true,
                ..
            }
        )));
        assert!(world.session.is_idle());
    }
}

#[test]
fn a_large_row_with_a_lying_length_ends_the_session_without_a_message_inside_it() {
    // Not clean, so that the row is taken apart also where it comes in one piece.
    let mut value = vec![b'v'; 500];
    value[10..16].copy_from_slice(b"SECRET");
    let good = data_row(&[Some(&value), Some(b"x")]);
    let mut cases = Vec::new();
    // The count of values.
    for count in [0u16, 1, 3, 65_535] {
        let mut row = good.clone();
        row[5..7].copy_from_slice(&count.to_be_bytes());
        cases.push(row);
    }
    // Their lengths.
    for length in [-2i32, 0, 1, 499, 501, 600, i32::MAX, i32::MIN] {
        let mut row = good.clone();
        row[7..11].copy_from_slice(&length.to_be_bytes());
        cases.push(row);
    }
    for row in cases {
        for step in [1, 50, row.len()] {
            let mut world = World::with(large_settings());
            world.model.dead = true;
            world.say(&Say::new().query("x").bytes());
            world.server_says(&row_description(0));
            for piece in row.chunks(step) {
                world.server_says(piece);
            }
            assert!(
                matches!(
                    world.closed,
                    Some(CloseReason::Failed(SessionError::TargetProtocol {
                        tag: b'D',
                        ..
                    }))
                ),
                "{:?}",
                world.closed
            );
            assert!(!has(&world.agent, b"FATAL"));
        }
    }
}

#[test]
fn large_copy_data_streams_masked_as_one_message() {
    let mut data = vec![b'v'; 5000];
    data[1000..1006].copy_from_slice(b"SECRET");
    data[4993..].copy_from_slice(b"SECRET\n");
    for (binary, ends_well) in [(0u8, true), (1, true), (1, false), (0, false)] {
        if !ends_well {
            *data.last_mut().unwrap() = b'S';
        }
        let frame = message(b'd', &data);
        for step in [1, 77, frame.len()] {
            let mut world = World::with(large_settings());
            world.model.dead = true;
            world.say(&Say::new().query("copy").bytes());
            world.server_says(&message(b'H', &[binary, 0, 0]));
            for piece in frame.chunks(step) {
                world.server_says(piece);
            }
            if binary == 0 && !ends_well {
                assert!(world.closed.is_some());
                assert!(!has(&world.agent, b"SECRET") && !has(&world.agent, b"FATAL"));
                continue;
            }
            world.server_says(b"c\0\0\0\x04C\0\0\0\x06x\0Z\0\0\0\x05I");
            assert_eq!(tags(&world.agent), "HdcCZ");
            assert_eq!(split(&world.agent)[1].1, mask_all(&data, Fill::SameLength));
        }
    }
}

#[test]
fn large_copy_data_behind_held_back_text_goes_on_as_one_stream() {
    let mut data = vec![b'v'; 5000];
    data[..3].copy_from_slice(b"RET");
    data[4993..].copy_from_slice(b"SECRET\n");
    let mut world = World::with(large_settings());
    world.model.dead = true;
    world.say(&Say::new().query("copy").bytes());
    world.server_says(&[message(b'H', &[0, 0, 0]), message(b'd', b"a SEC")].concat());
    for piece in message(b'd', &data).chunks(100) {
        world.server_says(piece);
    }
    world.server_says(&[message(b'd', b"next\n"), b"c\0\0\0\x04".to_vec()].concat());
    let seen: Vec<u8> = split(&world.agent)
        .iter()
        .filter(|(tag, _)| *tag == b'd')
        .flat_map(|(_, body)| body.to_vec())
        .collect();
    let whole = [&b"a SEC"[..], &data, b"next\n"].concat();
    assert_eq!(seen, mask_all(&whole, Fill::Placeholder));
}

#[test]
fn a_statement_described_once_is_masked_each_time_it_runs() {
    let mut world = World::new();
    world.say(
        &Say::new()
            .parse("s", "select 1 SECRET")
            .describe(Kind::Statement, "s")
            .sync()
            .bytes(),
    );
    for _ in 0..3 {
        world.say(&Say::new().bind("", "s").execute("", 0).sync().bytes());
    }
    assert!(!has(&world.agent, b"SECRET"));
    assert_eq!(tags(&world.agent), "1tTZ2DCZ2DCZ2DCZ");
}

#[test]
fn a_notice_of_ours_never_stands_inside_a_message() {
    let words =
        postgres::Refusal::new(b"00000", "held: ask the owners").with_hint("portcullis approve 7");
    let row = data_row(&[Some(&[b'v'; 500])]);
    for at in 0..=row.len() {
        let mut world = World::with(large_settings());
        world.model.dead = true;
        world.say(&Say::new().query("x").bytes());
        world.server_says(&row_description(0));
        world.server_says(&row[..at]);
        assert!(world.session.notice(&words));
        world.drain();
        world.server_says(&row[at..]);
        let expected = if at < 5 { "TND" } else { "TDN" };
        assert_eq!(tags(&world.agent), expected);
    }
    let mut world = World::with(large_settings());
    world.model.dead = true;
    world.say(&Say::new().query("x").bytes());
    world.server_says(&[&row_description(0)[..], &row[..100]].concat());
    let taken = (0..10_000)
        .take_while(|_| world.session.notice(&words))
        .count();
    assert!(taken > 100 && taken < 1000);
}

/// A content whose masks have the wrong length.
struct Broken;

impl Content for Broken {
    type Stream = usize;
    fn is_clean(&mut self, bytes: &[u8]) -> bool {
        !has(bytes, b"SECRET")
    }
    fn mask_value(&mut self, value: &[u8], fill: Fill) -> Option<Vec<u8>> {
        (fill == Fill::SameLength).then(|| vec![b'X'; value.len() + 1])
    }
    fn open(&mut self, _: Fill) -> usize {
        0
    }
    fn push(&mut self, _: &mut usize, input: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(input);
    }
    fn finish(&mut self, _: usize, out: &mut Vec<u8>) {
        out.push(b'X');
    }
}

#[test]
fn a_mask_of_the_wrong_length_ends_the_session() {
    let large = data_row(&[Some(&b"SECRET".repeat(50)), None]);
    let small = data_row(&[Some(b"\0SECRET")]);
    for row in [large, small] {
        let mut session = Session::new(large_settings(), Broken);
        let say = Say::new().query("x").bytes();
        session.handle_input(Side::Downstream, say.into()).unwrap();
        while let Some(output) = session.poll_output() {
            if let postgres::session::Output::Decide { id, .. } = output {
                session
                    .handle_decision(id, postgres::session::Verdict::Forward)
                    .unwrap();
            }
        }
        session
            .handle_input(Side::Upstream, row_description(0).into())
            .unwrap();
        assert_eq!(
            session.handle_input(Side::Upstream, row.into()),
            Err(SessionError::MaskLength)
        );
    }
}

#[test]
fn the_toy_is_honest() {
    let mut toy = Toy::default();
    let mut stream = toy.open(Fill::Placeholder);
    let mut out = Vec::new();
    for byte in b"SESECRETSECRE" {
        toy.push(&mut stream, &[*byte], &mut out);
    }
    toy.finish(stream, &mut out);
    assert_eq!(out, b"SE[masked:toy]SECRE");
}
