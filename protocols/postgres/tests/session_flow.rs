//! What is not refused goes through unchanged; outcomes, records and the end of a session.

mod support;

use bytes::Bytes;
use postgres::Refusal;
use postgres::session::{
    CloseReason, CopyDirection, Event, Outcome, SessionError, Side, UnitId, Verdict,
};
use postgres::wire::frontend::Kind;
use support::messages::{Say, split, sqlstates, tags};
use support::model::Model;
use support::world::{World, config, direct};
/// Every conversation of this file whose bytes must be the same with and without us.
fn conversations() -> Vec<(&'static str, Say)> {
    let say = Say::new;
    vec![
        ("simple", say().query("select 3 row")),
        (
            "several statements",
            say().query("select 1 a; insert; select 2 b; "),
        ),
        (
            "several, one fails",
            say()
                .query("select 1 a; fail; select 2 b")
                .query("select 1"),
        ),
        ("empty", say().query("")),
        (
            "transaction",
            say()
                .query("begin")
                .query("fail")
                .query("select 1")
                .query("rollback"),
        ),
        (
            "extended",
            say()
                .parse("", "select 2 x")
                .describe(Kind::Statement, "")
                .bind("", "")
                .describe(Kind::Portal, "")
                .execute("", 0)
                .sync(),
        ),
        (
            "row limit",
            say()
                .parse("s", "select 5 x")
                .bind("p", "s")
                .execute("p", 2)
                .execute("p", 2)
                .execute("p", 2)
                .close(Kind::Portal, "p")
                .sync(),
        ),
        (
            "error skips to sync",
            say()
                .parse("", "syntax")
                .bind("", "")
                .execute("", 0)
                .query("select 1")
                .call(5)
                .sync()
                .query("select 1"),
        ),
        (
            "error in bind",
            say()
                .bind("", "nothing")
                .execute("", 0)
                .flush()
                .sync()
                .sync(),
        ),
        ("function call", say().call(5).call(0).query("select 1")),
        (
            "notices and settings",
            say().query("notice hello; notify payload; set a b"),
        ),
        (
            "copy out",
            say()
                .query("copy out 3 line")
                .parse("", "copy out 2 x")
                .bind("", "")
                .execute("", 0)
                .sync(),
        ),
        (
            "copy in",
            say()
                .query("copy in")
                .copy_data(b"a\n")
                .copy_data(b"b\n")
                .copy_done()
                .query("select 1"),
        ),
        (
            "two copies in",
            say()
                .query("copy in; copy in")
                .copy_data(b"a\n")
                .copy_done()
                .copy_data(b"b\n")
                .copy_done(),
        ),
        (
            "copy in fails in server",
            say()
                .query("copy in bad")
                .copy_data(b"a\n")
                .copy_data(b"b\n")
                .copy_done()
                .query("select 1"),
        ),
        (
            "copy in fails in agent",
            say()
                .query("copy in")
                .copy_data(b"a\n")
                .copy_fail()
                .query("select 1"),
        ),
        (
            "copy in that never starts",
            say()
                .query("fail copy")
                .copy_data(b"a\n")
                .copy_done()
                .query("select 1"),
        ),
        (
            "extended copy in, early sync",
            say()
                .parse("", "copy in")
                .bind("", "")
                .execute("", 0)
                .sync()
                .copy_data(b"a\n")
                .copy_done()
                .sync()
                .query("select 1"),
        ),
        (
            "extended copy in fails",
            say()
                .parse("", "copy in bad")
                .bind("", "")
                .execute("", 0)
                .sync()
                .copy_data(b"a\n")
                .copy_done()
                .sync()
                .query("select 1"),
        ),
        (
            "extended copy in fails before it reads",
            say()
                .parse("", "copy in early")
                .bind("", "")
                .execute("", 0)
                .sync()
                .copy_data(b"a\n")
                .copy_done()
                .sync()
                .query("select 1"),
        ),
        (
            "query during copy in",
            say().query("copy in").copy_data(b"a\n").query("select 1"),
        ),
        ("pipeline", {
            let mut all = say();
            for index in 0..200 {
                all = all.parse("", "select 1 x").bind("", "").execute("", 0);
                if index % 7 == 0 {
                    all = all.sync();
                }
            }
            all.sync()
        }),
        ("terminate", say().query("select 1").terminate()),
    ]
}

#[test]
fn what_is_not_refused_is_as_without_us_in_both_directions() {
    for (name, say) in conversations() {
        let bytes = say.bytes();
        let mut model = Model::new();
        let expected = direct(&mut model, &bytes);
        let mut world = World::new();
        world.say(&bytes);
        assert_eq!(tags(&world.agent), tags(&expected), "{name}");
        assert_eq!(world.agent, expected, "{name}");
        assert_eq!(world.upstream, bytes, "{name}");
        assert_eq!(world.model.ran, model.ran, "{name}");
        assert!(world.session.is_idle() || world.model.dead, "{name}");
    }
}

#[test]
fn cut_anywhere_it_is_the_same() {
    for (name, say) in conversations() {
        let bytes = say.bytes();
        let expected = direct(&mut Model::new(), &bytes);
        let cut_points: Vec<usize> = if bytes.len() < 400 {
            (1..bytes.len()).collect()
        } else {
            vec![1, 333, bytes.len() - 1]
        };
        for at in cut_points {
            let mut world = World::new();
            world.say(&bytes[..at]);
            world.say(&bytes[at..]);
            assert_eq!(world.agent, expected, "{name} cut at {at}");
        }
        let mut world = World::new();
        world.say_cut(&bytes, &[1]);
        assert_eq!(world.agent, expected, "{name} byte by byte");
        assert_eq!(world.upstream, bytes, "{name} byte by byte");
    }
}

#[test]
fn server_bytes_cut_anywhere_are_the_same() {
    for (name, say) in conversations() {
        let bytes = say.bytes();
        let expected = direct(&mut Model::new(), &bytes);
        if matches!(name, "pipeline" | "terminate" | "query during copy in") {
            continue;
        }
        for step in [1, 2, 3, 7] {
            let mut world = World::new();
            world.model.dead = true; // the answers come from outside
            world.say(&bytes);
            for piece in expected.chunks(step) {
                world.server_says(piece);
            }
            assert_eq!(world.closed, None, "{name} in steps of {step}");
            assert_eq!(world.agent, expected, "{name} in steps of {step}");
        }
    }
}

#[test]
fn every_request_has_its_outcome() {
    let mut world = World::new();
    let say = Say::new()
        .query("select 1; insert") // 1
        .parse("", "select 3 x") // 2
        .bind("", "") // 3
        .execute("", 2) // 4
        .execute("", 2) // 5
        .parse("q", "drop q") // 6
        .bind("", "q") // 7
        .sync() // 8
        .query("fail"); // 9
    world.say(&say.bytes());
    let outcomes: Vec<(u64, String)> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Answered { id, outcome } => Some((
                id.0,
                match outcome {
                    Outcome::Completed { tag } => format!("ok {}", String::from_utf8_lossy(tag)),
                    Outcome::Failed { sqlstate, frame } => {
                        assert_eq!(frame[0], b'E');
                        format!("failed {}", String::from_utf8_lossy(sqlstate))
                    }
                    Outcome::Refused { sqlstate } => {
                        format!("refused {}", String::from_utf8_lossy(sqlstate))
                    }
                    Outcome::Skipped => "skipped".into(),
                    Outcome::Suspended => "suspended".into(),
                },
            )),
            _ => None,
        })
        .collect();
    let expected = [
        (1, "ok SELECT 1"),
        (1, "ok INSERT 0 1"),
        (2, "ok "),
        (3, "ok "),
        (4, "suspended"),
        (5, "ok SELECT 1"),
        (6, "refused 42501"),
        (7, "skipped"),
        (9, "failed 22012"),
    ];
    let expected: Vec<(u64, String)> = expected
        .iter()
        .map(|(id, text)| (*id, (*text).to_owned()))
        .collect();
    assert_eq!(outcomes, expected);
}

#[test]
fn copies_are_counted_and_recorded_within_their_limit() {
    let mut settings = config();
    settings.row_record_bytes_max = 30;
    let mut world = World::with(settings);
    world.say(
        &Say::new()
            .query("copy in")
            .copy_data(b"12345\n")
            .copy_data(b"12345\n")
            .copy_data(b"12345\n")
            .copy_done()
            .query("copy out 4 abc")
            .bytes(),
    );
    let ended: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::CopyEnded {
                id,
                direction,
                bytes,
            } => Some((id.0, *direction, *bytes)),
            _ => None,
        })
        .collect();
    assert_eq!(
        ended,
        [(1, CopyDirection::In, 18), (3, CopyDirection::Out, 16)]
    );
    let mut seen = (Vec::new(), 0);
    for event in &world.events {
        if let Event::CopyInData {
            frames, truncated, ..
        } = event
        {
            seen.0.extend_from_slice(frames);
            seen.1 += usize::from(*truncated);
        }
    }
    assert_eq!(split(&seen.0).len(), 2);
    assert_eq!(seen.1, 1);
    let rows: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Rows {
                id,
                frames,
                truncated,
            } => Some((id.0, frames.len(), *truncated)),
            _ => None,
        })
        .collect();
    assert_eq!(rows, [(3, 27, true)]);
}

#[test]
fn rows_are_recorded_as_released_up_to_the_limit_without_a_copy() {
    let mut settings = config();
    settings.row_record_bytes_max = 200;
    let mut world = World::with(settings);
    world.say(
        &Say::new()
            .query("select 100 value")
            .query("select 1 SECRET")
            .bytes(),
    );
    let rows: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Rows {
                id,
                frames,
                truncated,
            } => Some((id.0, frames.clone(), *truncated)),
            _ => None,
        })
        .collect();
    let first: usize = rows
        .iter()
        .filter(|row| row.0 == 1)
        .map(|row| row.1.len())
        .sum();
    assert!(first <= 200 && first > 150);
    assert_eq!(rows.iter().filter(|row| row.0 == 1 && row.2).count(), 1);
    let agent = world.writes[0].as_ptr_range();
    assert!(
        agent.contains(&rows[0].1.as_ptr()),
        "a slice of what was written"
    );
    let second: Vec<u8> = rows
        .iter()
        .filter(|row| row.0 == 2)
        .flat_map(|row| row.1.to_vec())
        .collect();
    assert_eq!(tags(&second), "TD");
    assert!(second.windows(12).any(|window| window == b"[masked:toy]"));
    assert!(!second.windows(6).any(|window| window == b"SECRET"));
}

#[test]
fn runs_are_forwarded_in_one_piece_each_way() {
    let mut world = World::new();
    let bytes = Say::new()
        .parse("", "select 500 value")
        .bind("", "")
        .describe(Kind::Portal, "")
        .execute("", 0)
        .sync()
        .bytes();
    world.model.dead = true;
    world.say(&bytes);
    let answer = direct(&mut Model::new(), &bytes);
    let before = world.session.content_mut().asked;
    world.server_says(&answer);
    assert_eq!(world.session.content_mut().asked - before, 1);
    assert_eq!(world.writes.len(), 1);
    assert_eq!(world.agent, answer);
}

#[test]
fn transaction_status_is_the_servers() {
    let mut world = World::new();
    let mut seen = String::new();
    for text in ["begin", "drop x", "select 1", "rollback", "select 1"] {
        world.say(&Say::new().query(text).bytes());
        seen.push(world.session.transaction_status() as char);
    }
    assert_eq!(seen, "TEEII");
}

#[test]
fn notify_comes_while_idle() {
    let mut world = World::new();
    world.server_says(b"A\0\0\0\x11\0\0\0\x01chan\0pay\0");
    assert_eq!(tags(&world.agent), "A");
    assert!(world.events.contains(&Event::Notification {
        process_id: 1,
        channel: Bytes::from_static(b"chan"),
        payload: Bytes::from_static(b"pay"),
    }));
}

#[test]
fn terminate_waits_for_answers_then_ends() {
    let mut world = World::new();
    world.model.dead = true;
    world.say(
        &Say::new()
            .query("select 1")
            .terminate()
            .query("never")
            .bytes(),
    );
    assert_eq!(world.closed, None);
    assert_eq!(
        world.upstream,
        Say::new().query("select 1").terminate().bytes()
    );
    world.server_says(&direct(
        &mut Model::new(),
        &Say::new().query("select 1").bytes(),
    ));
    assert_eq!(world.closed, Some(CloseReason::AgentTerminated));
    assert_eq!(tags(&world.agent), "TDCZ");
}

#[test]
fn an_ended_session_says_why_and_is_deaf() {
    let mut world = World::new();
    world.hold = Some("update");
    world.say(&Say::new().query("update x").bytes());
    world
        .session
        .end(&Refusal::new(b"57P01", "your credential has expired"));
    world.drain();
    assert_eq!(sqlstates(&world.agent), ["57P01"]);
    assert_eq!(world.closed, Some(CloseReason::Ended));
    assert_eq!(world.upstream, Say::new().terminate().bytes());
    world.decide(Verdict::Forward);
    world.say(&Say::new().query("select 1").bytes());
    assert_eq!(world.upstream, Say::new().terminate().bytes());
    assert!(
        !world.session.wants_input(Side::Downstream) && !world.session.wants_input(Side::Upstream)
    );
}

#[test]
fn a_target_that_vanishes_leaves_a_true_error() {
    let mut world = World::new();
    world.session.handle_eof(Side::Upstream);
    world.drain();
    assert_eq!(sqlstates(&world.agent), ["08006"]);
}

#[test]
fn a_verdict_for_another_request_ends_the_session_and_passes_nothing() {
    let mut world = World::new();
    world.hold = Some("update");
    world.say(&Say::new().query("update x").bytes());
    assert_eq!(
        world.session.handle_decision(UnitId(99), Verdict::Forward),
        Err(SessionError::UnknownUnit)
    );
    world.drain();
    assert!(world.closed.is_some());
    assert!(world.model.ran.is_empty());
}

#[test]
fn refusals_in_utf8_reach_only_clients_that_read_it() {
    let words = Refusal::new(b"42501", "verweigert: \u{dc}bung");
    for (before, readable) in [
        ("set client_encoding UTF8", true),
        ("set client_encoding LATIN1", false),
    ] {
        let mut world = World::new();
        world.say(&Say::new().query(before).bytes());
        world.hold = Some("update");
        world.say(&Say::new().query("update x").bytes());
        world.decide(Verdict::Refuse(words.clone()));
        let found = world
            .agent
            .windows(2)
            .any(|window| window == "\u{dc}".as_bytes());
        assert_eq!(found, readable);
    }
}
