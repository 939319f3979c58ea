//! Limits: pipelines, oversize messages, large binds, names that the server would cut.

mod support;

use postgres::session::{BindValues, Event, Outcome, Unit};
use postgres::wire::frontend::Kind;
use support::messages::{Say, message, sqlstates, tags};
use support::model::Model;
use support::world::{World, config, direct};
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
