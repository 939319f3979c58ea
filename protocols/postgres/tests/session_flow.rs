//! Requests, answers and refusals through a session in front of a model server.

mod support;

use bytes::Bytes;
use postgres::Refusal;
use postgres::session::{
    BindValues, CloseReason, CopyDirection, Event, Outcome, SessionError, Side, Unit, UnitId,
    Verdict,
};
use postgres::wire::frontend::Kind;
use support::messages::{Say, message, split, sqlstates, statuses, tags};
use support::model::Model;
use support::world::{World, config, direct, refusal};

fn error_bytes(refusal: &Refusal) -> Vec<u8> {
    postgres::wire::backend::ReportBuilder::refusal(
        postgres::wire::backend::Severity::Error,
        refusal,
    )
    .to_bytes()
    .to_vec()
}

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
fn a_refused_query_reads_as_if_the_server_had_refused_it_and_never_reaches_it() {
    let cases = [
        Say::new().query("drop table t").query("select 1"),
        Say::new()
            .query("begin")
            .query("drop table t")
            .query("select 1")
            .query("rollback")
            .query("select 1"),
        Say::new()
            .query("begin")
            .query("fail")
            .query("drop table t")
            .query("rollback"),
        Say::new()
            .parse("", "drop table t")
            .bind("", "")
            .execute("", 0)
            .sync()
            .query("select 1"),
        Say::new()
            .parse("a", "select 1")
            .parse("b", "drop table t")
            .bind("", "a")
            .sync()
            .bind("", "a")
            .execute("", 0)
            .sync(),
        Say::new()
            .parse("", "select 1")
            .parse("", "drop table t")
            .sync()
            .bind("", "")
            .execute("", 0)
            .sync(),
        Say::new()
            .parse("", "select 1")
            .query("drop table t")
            .bind("", "")
            .sync(),
        Say::new()
            .parse("", "syntax")
            .parse("", "drop table t")
            .query("drop table t")
            .sync()
            .query("drop table t"),
        Say::new()
            .query("begin")
            .parse("", "select 1")
            .parse("x", "drop x")
            .sync()
            .query("select 1")
            .query("rollback"),
        Say::new()
            .query("drop x")
            .query("drop y")
            .query("drop z")
            .parse("", "drop a")
            .parse("", "drop b")
            .sync(),
    ];
    for (index, say) in cases.into_iter().enumerate() {
        let bytes = say.bytes();
        let expected = direct(&mut Model::refusing(error_bytes(&refusal())), &bytes);
        for cuts in [&[1_000_000][..], &[1], &[3, 11]] {
            let mut world = World::new();
            world.say_cut(&bytes, cuts);
            assert_eq!(tags(&world.agent), tags(&expected), "case {index}");
            assert_eq!(world.agent, expected, "case {index}");
            assert!(
                !world.model.seen.iter().any(|text| text.starts_with("drop")),
                "case {index}"
            );
            assert!(world.session.is_idle());
        }
    }
}

#[test]
fn a_refused_bind_or_function_call_fails_as_one_does() {
    let mut world = World::new();
    world.say(
        &Say::new()
            .parse("drop", "select 1")
            .bind("", "drop")
            .execute("", 0)
            .sync()
            .bytes(),
    );
    assert_eq!(tags(&world.agent), "1EZ");
    assert_eq!(sqlstates(&world.agent), ["42501"]);
    assert!(world.model.ran.is_empty());

    let mut world = World::new();
    world.say(
        &Say::new()
            .query("begin")
            .call(666)
            .call(5)
            .query("rollback")
            .bytes(),
    );
    assert_eq!(tags(&world.agent), "CZEZEZCZ");
    assert_eq!(sqlstates(&world.agent), ["42501", "25P02"]);
    assert_eq!(statuses(&world.agent), "TEEI");
}

#[test]
fn an_execute_is_decided_and_told_of_when_it_passes() {
    let mut world = World::new();
    world.say(
        &Say::new()
            .parse("", "select 1")
            .bind("a", "")
            .bind("drop", "")
            .execute("a", 0)
            .execute("drop", 0)
            .execute("a", 0)
            .sync()
            .bytes(),
    );
    assert_eq!(tags(&world.agent), "122DCEZ");
    assert_eq!(world.model.ran, ["select 1"]);
    // The third is discarded by the server, but it did go there.
    let passed = world.events.iter().filter(|event| {
        matches!(event, Event::Passed { unit: Unit::Execute { portal, .. }, .. } if portal == "a")
    });
    assert_eq!(passed.count(), 2);
    let seen = world.events.iter().any(|event| {
        matches!(event, Event::Passed { unit: Unit::Execute { portal, .. }, .. } if portal == "drop")
    });
    assert!(!seen);
}

#[test]
fn a_refused_named_parse_leaves_the_unnamed_statement() {
    let mut world = World::new();
    world.say(
        &Say::new()
            .parse("", "select 1")
            .parse("x", "drop x")
            .sync()
            .bind("", "")
            .execute("", 0)
            .sync()
            .bytes(),
    );
    assert_eq!(tags(&world.agent), "1EZ2DCZ");
}

#[test]
fn the_servers_log_names_rule_and_session_and_the_agent_never_reads_the_nonce() {
    let mut world = World::new();
    world.say(&Say::new().query("drop table t").bytes());
    let text = &world.model.seen[0];
    assert!(
        text.starts_with("portcullis_")
            && text.contains("refused by rule no-drop")
            && text.contains("s-1"),
        "{text}"
    );
    let nonce = text.split(' ').next().unwrap().as_bytes();
    assert!(
        !world
            .agent
            .windows(nonce.len())
            .any(|window| window == nonce)
    );
}

#[test]
fn an_error_that_does_not_carry_the_nonce_passes_as_it_is() {
    let mut world = World::new();
    world.model.dead = true;
    world.say(&Say::new().query("drop table t").bytes());
    let mut expected = bytes::BytesMut::new();
    postgres::wire::backend::ReportBuilder::new(
        postgres::wire::backend::Severity::Fatal,
        b"57P01",
        b"shutdown",
    )
    .encode(&mut expected)
    .unwrap();
    world.server_says(&expected);
    assert_eq!(world.agent, expected);
    world.session.handle_eof(Side::Upstream);
    world.drain();
    assert_eq!(world.agent, expected, "no second FATAL");
    assert_eq!(world.closed, Some(CloseReason::TargetClosed));
}

#[test]
fn a_refused_message_that_the_server_takes_ends_the_session() {
    for answer in [
        "C\0\0\0\x06x\0",
        "1\0\0\0\x04",
        "T\0\0\0\x06\0\0",
        "Z\0\0\0\x05I",
    ] {
        for say in [Say::new().query("drop x"), Say::new().parse("", "drop x")] {
            let mut world = World::new();
            world.model.dead = true;
            world.say(&say.bytes());
            world.server_says(answer.as_bytes());
            assert!(matches!(
                world.closed,
                Some(CloseReason::Failed(SessionError::TargetUnexpected { .. }))
            ));
            assert_eq!(tags(&world.agent), "E");
            assert_eq!(sqlstates(&world.agent), ["08P01"]);
        }
    }
}

#[test]
fn nothing_behind_a_held_request_is_read_until_its_verdict() {
    let mut world = World::new();
    world.hold = Some("update");
    let first = Say::new().query("select 1").query("update all");
    let later = Say::new()
        .query("insert")
        .parse("", "select 2")
        .bind("", "")
        .execute("", 0)
        .sync();
    world.say(&first.clone().raw(&later.bytes()).bytes());
    assert_eq!(world.model.ran, ["select 1"]);
    assert_eq!(world.units.len(), 2);
    assert!(!world.session.is_idle());
    world.session.park();
    world.say(&Say::new().query("select 3").bytes());
    assert_eq!(world.model.ran, ["select 1"]);
    // Answers of the server still flow.
    let notify = b"A\0\0\0\x0c\0\0\0\x01c\0p\0";
    let before = world.agent.len();
    world.server_says(notify);
    assert_eq!(&world.agent[before..], notify);
    world.decide(Verdict::Forward);
    assert_eq!(
        world.model.ran,
        ["select 1", "update all", "insert", "select 2", "select 3"]
    );
    let whole = first.raw(&later.bytes()).query("select 3").bytes();
    assert_eq!(world.upstream, whole);
}

#[test]
fn a_held_request_that_is_refused_leaves_those_behind_it_to_run() {
    for park in [true, false] {
        let mut world = World::new();
        world.hold = Some("update");
        world.say(&Say::new().query("update all").query("insert").bytes());
        if park {
            world.session.park();
        }
        world.decide(Verdict::Refuse(refusal()));
        assert_eq!(world.model.ran, ["insert"]);
        assert_eq!(tags(&world.agent), "EZCZ");
    }
}

#[test]
fn a_held_request_is_dropped_when_either_side_ends() {
    for side in [Side::Downstream, Side::Upstream] {
        let mut world = World::new();
        world.hold = Some("update");
        world.say(&Say::new().query("update all").bytes());
        world.session.handle_eof(side);
        world.drain();
        assert!(world.closed.is_some());
        world.decide(Verdict::Forward);
        assert!(world.model.ran.is_empty());
    }
}

#[test]
fn an_agent_is_not_read_while_too_much_waits_and_ended_if_it_is_fed_all_the_same() {
    let mut world = World::new();
    world.hold = Some("update");
    world.say(&Say::new().query("update all").bytes());
    assert!(world.session.wants_input(Side::Downstream));
    let chunk = message(b'd', &vec![0; 60_000]);
    let mut fed = 0;
    while world.session.wants_input(Side::Downstream) {
        world.say(&chunk);
        fed += chunk.len();
        assert!(fed < 2 << 20);
    }
    assert!(fed >= 1 << 20);
    while world.closed.is_none() {
        world.say(&chunk);
        fed += chunk.len();
        assert!(fed < 4 << 20);
    }
    assert_eq!(
        world.closed,
        Some(CloseReason::Failed(SessionError::HeldTooMuch))
    );
}

#[test]
fn an_agent_is_not_read_while_too_many_answers_are_due() {
    let mut settings = config();
    settings.pending_max = 0; // raised to the least
    let mut world = World::with(settings);
    world.model.dead = true;
    let mut all = Say::new();
    for _ in 0..5000 {
        all = all.sync();
    }
    world.say(&all.bytes());
    assert_eq!(world.session.outstanding(), postgres::session::PENDING_MIN);
    assert_eq!(world.upstream.len(), 5 * postgres::session::PENDING_MIN);
    world.server_says(&b"Z\0\0\0\x05I".repeat(1000));
    assert_eq!(world.upstream.len(), all.bytes().len());
    world.server_says(&b"Z\0\0\0\x05I".repeat(4000));
    assert!(world.session.is_idle());
}

#[test]
fn twenty_thousand_messages_before_a_sync_pass() {
    let mut all = Say::new();
    for _ in 0..10_000 {
        all = all.bind("", "s").execute("", 0);
    }
    let bytes = Say::new()
        .parse("s", "select 1 x")
        .raw(&all.bytes())
        .sync()
        .bytes();
    let expected = direct(&mut Model::new(), &bytes);
    let mut world = World::new();
    world.say_cut(&bytes, &[65_536]);
    assert_eq!(world.agent, expected);
    let refused = Say::new()
        .parse("s", "drop x")
        .raw(&all.bytes())
        .sync()
        .bytes();
    let mut world = World::new();
    world.say_cut(&refused, &[65_536]);
    assert_eq!(tags(&world.agent), "EZ");
    let skipped = world.events.iter().filter(|e| {
        matches!(
            e,
            Event::Answered {
                outcome: Outcome::Skipped,
                ..
            }
        )
    });
    assert_eq!(skipped.count(), 20_000);
}

#[test]
fn an_oversize_unit_is_swallowed_and_refused_in_its_place() {
    let mut settings = config();
    settings.unit_bytes_max = 1000;
    settings.bind_bytes_held_max = 1000;
    let big = format!("insert {}", "x".repeat(5000));
    let cases = [
        (Say::new().query(&big), "EZ"),
        (Say::new().parse("n", &big).bind("", "n").sync(), "EZ"),
        (Say::new().parse("", &big).sync(), "EZ"),
        (
            Say::new()
                .bind_values("", "n", &[&[b'v'; 5000]], &[])
                .sync(),
            "EZ",
        ),
        (Say::new().raw(&message(b'F', &[0; 5000])), "EZ"),
    ];
    for (say, tags_expected) in cases {
        let bytes = say.query("select 1").bytes();
        for cuts in [&[1_000_000][..], &[1], &[999]] {
            let mut world = World::with(settings.clone());
            world.say_cut(&bytes, cuts);
            assert_eq!(tags(&world.agent), format!("{tags_expected}TDCZ"));
            assert_eq!(sqlstates(&world.agent), ["54000"]);
            assert_eq!(world.model.ran, ["select 1"]);
            assert!(world.upstream.len() < 700, "not a byte of it is forwarded");
            assert!(world.events.iter().any(|e| matches!(
                e,
                Event::Refused {
                    sqlstate: [b'5', b'4', ..],
                    bytes: 5000..,
                    ..
                }
            )));
        }
    }
}

#[test]
fn an_oversize_parse_of_the_unnamed_statement_drops_the_old_one_as_the_server_would() {
    let mut settings = config();
    settings.unit_bytes_max = 100;
    let big = "x".repeat(500);
    let mut world = World::with(settings.clone());
    world.say(
        &Say::new()
            .parse("", "select 1")
            .parse("", &big)
            .sync()
            .bind("", "")
            .sync()
            .bytes(),
    );
    assert_eq!(sqlstates(&world.agent), ["54000", "26000"]);
    let mut world = World::with(settings);
    world.say(
        &Say::new()
            .parse("", "select 1")
            .parse("n", &big)
            .sync()
            .bind("", "")
            .sync()
            .bytes(),
    );
    assert_eq!(sqlstates(&world.agent), ["54000"]);
}

#[test]
fn a_large_bind_streams_where_no_rule_reads_values() {
    let mut settings = config();
    settings.bind_bytes_held_max = 300;
    settings.binds_read = false;
    let value = [b'v'; 70_000];
    let bytes = Say::new()
        .parse("s", "select 1")
        .bind_values("p", "s", &[&value], &[])
        .execute("p", 0)
        .sync()
        .bytes();
    for cuts in [&[1_000_000][..], &[1], &[4096]] {
        let mut world = World::with(settings.clone());
        world.say_cut(&bytes, cuts);
        assert_eq!(world.upstream, bytes);
        assert_eq!(tags(&world.agent), "12DCZ");
        let bind = world.units.iter().find_map(|(_, unit)| match unit {
            Unit::Bind {
                portal,
                statement,
                values,
            } => Some((portal.clone(), statement.clone(), values.clone())),
            _ => None,
        });
        let (portal, statement, values) = bind.unwrap();
        assert_eq!((&portal[..], &statement[..]), (&b"p"[..], &b"s"[..]));
        assert!(matches!(values, BindValues::Unread { bytes } if bytes > 70_000));
    }
    // Refused, or with names too long to be decided by, not a byte of it passes.
    let long = "n".repeat(64);
    for (statement, sqlstate) in [("drop", "42501"), (&long[..], "42622")] {
        let bytes = Say::new()
            .bind_values("p", statement, &[&value], &[])
            .sync()
            .query("select 1")
            .bytes();
        for cuts in [&[1_000_000][..], &[1], &[4096]] {
            let mut world = World::with(settings.clone());
            world.say_cut(&bytes, cuts);
            assert_eq!(tags(&world.agent), "EZTDCZ");
            assert_eq!(sqlstates(&world.agent), [sqlstate]);
            assert!(world.upstream.len() < 400);
        }
    }
}

#[test]
fn bind_values_are_seen_as_they_are() {
    let mut world = World::new();
    let mut say = Say::new().parse("s", "select 1");
    postgres::wire::frontend::bind(
        &mut say.0,
        b"p",
        b"s",
        &[0, 1, 0],
        &[Some(b"a"), Some(b"\0\x01"), None],
        &[1, 1],
    )
    .unwrap();
    world.say(&say.bytes());
    let Some((_, Unit::Bind { values, .. })) = world.units.last() else {
        panic!("a bind")
    };
    let seen: Vec<_> = values
        .iter()
        .unwrap()
        .map(|(format, value)| (format, value.map(<[u8]>::to_vec)))
        .collect();
    assert_eq!(
        seen,
        [
            (0, Some(b"a".to_vec())),
            (1, Some(b"\0\x01".to_vec())),
            (0, None)
        ]
    );
    let mut world = World::new();
    world.say(&Say::new().call(7).bytes());
    let Some((_, Unit::FunctionCall { oid: 7, arguments })) = world.units.last() else {
        panic!("a call")
    };
    assert_eq!(
        arguments.iter().unwrap().collect::<Vec<_>>(),
        [(0, Some(&b"x"[..]))]
    );
}

#[test]
fn names_that_the_server_would_cut_are_refused_everywhere() {
    let long = "n".repeat(64);
    let fits = "n".repeat(63);
    let say = Say::new;
    for refused in [
        say().parse(&long, "select 1"),
        say().bind(&long, ""),
        say().bind("", &long),
        say().execute(&long, 0),
        say().describe(Kind::Statement, &long),
        say().describe(Kind::Portal, &long),
        say().close(Kind::Statement, &long),
    ] {
        let mut world = World::new();
        world.say(&refused.sync().bytes());
        assert_eq!(tags(&world.agent), "EZ");
        assert_eq!(sqlstates(&world.agent), ["42622"]);
        assert!(
            !world
                .upstream
                .windows(64)
                .any(|window| window == long.as_bytes())
        );
    }
    let mut world = World::new();
    world.say(
        &say()
            .parse(&fits, "select 1")
            .bind(&fits, &fits)
            .execute(&fits, 0)
            .sync()
            .bytes(),
    );
    assert_eq!(tags(&world.agent), "12DCZ");
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
