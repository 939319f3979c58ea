//! Refusals as the server would have made them, and requests that are held.

mod support;

use postgres::Refusal;
use postgres::session::{CloseReason, Event, SessionError, Side, Unit, Verdict};
use support::messages::{Say, message, sqlstates, statuses, tags};
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
