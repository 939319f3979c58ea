//! Bytes that no honest peer sends: every truncation, every lying length, every message out
//! of order. The session ends or waits; nothing of it is forwarded, nothing panics.

mod support;

use postgres::session::{CloseReason, SessionError, Side};
use support::messages::{Say, message, sqlstates};
use support::model::Model;
use support::world::{World, config, direct};

use postgres::wire::frontend::Kind;

fn agent_messages() -> Vec<Vec<u8>> {
    let say = Say::new;
    vec![
        say().query("select 1 x").bytes(),
        say().parse("s", "select 1").bytes(),
        say()
            .bind_values("p", "s", &[b"value", b""], &[0, 1])
            .bytes(),
        say().describe(Kind::Statement, "s").bytes(),
        say().describe(Kind::Portal, "p").bytes(),
        say().execute("p", 7).bytes(),
        say().close(Kind::Portal, "p").bytes(),
        say().call(5).bytes(),
        say().sync().bytes(),
        say().flush().bytes(),
        say().copy_data(b"data\n").bytes(),
        say().copy_done().bytes(),
        say().copy_fail().bytes(),
        say().terminate().bytes(),
    ]
}

#[test]
fn a_cut_message_of_the_agent_is_waited_for_and_never_forwarded() {
    for bytes in agent_messages() {
        for at in 0..bytes.len() {
            let mut world = World::new();
            world.say(&bytes[..at]);
            assert!(world.upstream.is_empty() && world.closed.is_none() && world.units.is_empty());
            world.session.handle_eof(Side::Downstream);
            world.drain();
            assert_eq!(world.closed, Some(CloseReason::AgentClosed));
            assert_eq!(world.upstream, Say::new().terminate().bytes());
        }
    }
}

#[test]
fn a_body_that_ends_early_or_late_ends_the_session_and_is_not_forwarded() {
    for bytes in agent_messages() {
        let (tag, body) = (bytes[0], &bytes[5..]);
        if tag == b'd' {
            continue; // any body is data
        }
        let mut bodies: Vec<Vec<u8>> = (0..body.len()).map(|at| body[..at].to_vec()).collect();
        bodies.push([body, b"\0"].concat());
        bodies.push([body, b"trailing"].concat());
        for body in bodies {
            let mut world = World::new();
            world.say(&message(tag, &body));
            assert!(
                matches!(
                    world.closed,
                    Some(CloseReason::Failed(SessionError::AgentProtocol { .. }))
                ),
                "{} {body:?}: {:?}",
                tag as char,
                world.closed
            );
            assert_eq!(sqlstates(&world.agent), ["08P01"]);
            assert_eq!(world.upstream, Say::new().terminate().bytes());
        }
    }
}

#[test]
fn a_lying_length_of_the_agent_never_forwards_what_it_speaks_of() {
    for bytes in agent_messages() {
        let honest = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        for length in [
            0,
            1,
            3,
            honest - 1,
            honest + 1,
            honest + 1000,
            0x3fff_ffff,
            0x7fff_ffff,
            0x8000_0000,
            u32::MAX,
        ] {
            let mut lying = bytes.clone();
            lying[1..5].copy_from_slice(&length.to_be_bytes());
            lying.extend(Say::new().query("insert").bytes());
            let mut world = World::new();
            world.say(&lying);
            assert!(world.upstream.len() < 200, "{}", bytes[0] as char);
            if !(4..=0x3fff_ffff).contains(&length) {
                assert!(matches!(
                    world.closed,
                    Some(CloseReason::Failed(SessionError::AgentProtocol { .. }))
                ));
                assert_eq!(world.upstream, Say::new().terminate().bytes());
            }
        }
    }
}

#[test]
fn unknown_types_and_passwords_end_the_session() {
    for tag in 0..=255u8 {
        if b"QPBDECFSHdcfX".contains(&tag) {
            continue;
        }
        for body in [&b""[..], b"x\0"] {
            let mut world = World::new();
            world.say(&message(tag, body));
            assert_eq!(
                world.closed,
                Some(CloseReason::Failed(SessionError::AgentProtocol {
                    tag,
                    error: postgres::WireError::UnknownTag { tag }
                }))
            );
        }
    }
}

#[test]
fn an_announced_length_takes_no_memory() {
    // 300 sessions that each announce the most: if it were reserved, this would be seen.
    for tag in b"QPBFd" {
        let mut settings = config();
        settings.unit_bytes_max = usize::MAX;
        settings.bind_bytes_held_max = usize::MAX;
        let mut worlds = Vec::new();
        for _ in 0..300 {
            let mut world = World::with(settings.clone());
            world.say(&[*tag, 0x3f, 0xff, 0xff, 0xff, b'x']);
            assert_eq!(world.closed, None);
            worlds.push(world);
        }
    }
}

/// Each kind of request with an answer of a server to it.
fn answers() -> Vec<(Say, Vec<u8>)> {
    [
        Say::new().query("select 2 row"),
        Say::new().query("copy out 2 row"),
        Say::new()
            .parse("", "select 1 x")
            .bind("", "")
            .describe(Kind::Portal, "")
            .execute("", 0)
            .sync(),
        Say::new()
            .parse("s", "select 1 x")
            .describe(Kind::Statement, "s")
            .close(Kind::Statement, "s")
            .sync(),
        Say::new().call(5),
        Say::new().query("notice n; notify n; set a b; fail"),
        Say::new().query("copy in").copy_data(b"x\n").copy_done(),
    ]
    .into_iter()
    .map(|say| {
        let answer = direct(&mut Model::new(), &say.bytes());
        (say, answer)
    })
    .collect()
}

fn waiting_for(say: &Say) -> World {
    let mut world = World::new();
    world.model.dead = true;
    world.say(&say.bytes());
    world
}

#[test]
fn a_cut_answer_is_waited_for_and_then_said_to_be_cut() {
    for (say, answer) in answers() {
        for at in 0..answer.len() {
            let mut world = waiting_for(&say);
            world.server_says(&answer[..at]);
            assert_eq!(world.closed, None);
            assert!(answer.starts_with(&world.agent), "only whole messages");
            world.session.handle_eof(Side::Upstream);
            world.drain();
            assert_eq!(
                sqlstates(&world.agent).last().map(String::as_str),
                Some("08006")
            );
        }
    }
}

#[test]
fn a_lying_length_in_an_answer_ends_the_session_or_waits() {
    for (say, answer) in answers() {
        let mut at = 0;
        while at < answer.len() {
            let honest = u32::from_be_bytes(answer[at + 1..at + 5].try_into().unwrap());
            for length in [
                0,
                3,
                honest - 1,
                honest + 1,
                0x3fff_ffff,
                0x4000_0000,
                u32::MAX,
            ] {
                let mut lying = answer.clone();
                lying[at + 1..at + 5].copy_from_slice(&length.to_be_bytes());
                let mut world = waiting_for(&say);
                world.server_says(&lying);
                let data = matches!(answer[at], b'D' | b'd');
                if !data && !(4..=0x3fff_ffff).contains(&length) {
                    assert!(matches!(
                        world.closed,
                        Some(CloseReason::Failed(SessionError::TargetProtocol { .. }))
                    ));
                }
                assert!(!world.session.is_idle() || world.closed.is_some());
            }
            at += honest as usize + 1;
        }
    }
}

#[test]
fn a_message_that_answers_nothing_ends_the_session_and_is_not_forwarded() {
    // A well-formed body for each type.
    let samples: Vec<(u8, Vec<u8>)> = vec![
        (b'1', vec![]),
        (b'2', vec![]),
        (b'3', vec![]),
        (b'n', vec![]),
        (b's', vec![]),
        (b'I', vec![]),
        (b'c', vec![]),
        (b'Z', b"I".to_vec()),
        (b'C', b"x\0".to_vec()),
        (b'D', b"\0\0".to_vec()),
        (b'T', b"\0\0".to_vec()),
        (b't', b"\0\0".to_vec()),
        (b'd', b"x\n".to_vec()),
        (b'G', b"\0\0\0".to_vec()),
        (b'H', b"\0\0\0".to_vec()),
        (b'W', b"\0\0\0".to_vec()),
        (b'V', b"\0\0\0\0".to_vec()),
        (b'R', b"\0\0\0\0".to_vec()),
        (b'K', b"\0\0\0\x01\0\0\0\x02".to_vec()),
        (b'v', b"\0\x03\0\x02\0\0\0\0".to_vec()),
        (b'E', b"SERROR\0VERROR\0C22012\0Mm\0\0".to_vec()),
    ];
    let cases: &[(Say, &[u8])] = &[
        (Say::new(), b""),
        (Say::new().query("x"), b"TCIGHE"),
        (Say::new().parse("", "x"), b"1E"),
        (Say::new().bind("", ""), b"2E"),
        (Say::new().execute("", 0), b"DCIsGHE"),
        (Say::new().describe(Kind::Statement, ""), b"tE"),
        (Say::new().describe(Kind::Portal, ""), b"TnE"),
        (Say::new().close(Kind::Portal, ""), b"3E"),
        (Say::new().sync(), b"ZE"),
        (Say::new().call(5), b"VE"),
    ];
    for (say, allowed) in cases {
        for (tag, body) in &samples {
            let mut world = waiting_for(say);
            let bytes = message(*tag, body);
            world.server_says(&bytes);
            if allowed.contains(tag) {
                assert_eq!(
                    world.closed,
                    None,
                    "{say:?} {}",
                    *tag as char,
                    say = say.bytes()
                );
                assert_eq!(world.agent, bytes);
            } else {
                assert!(
                    matches!(world.closed, Some(CloseReason::Failed(_))),
                    "{:?} {}",
                    say.bytes(),
                    *tag as char
                );
                assert!(!world.agent.starts_with(&bytes) || *tag == b'E');
                assert_eq!(sqlstates(&world.agent).len(), 1);
            }
        }
        for tag in
            (0..=255u8).filter(|tag| !samples.iter().any(|s| s.0 == *tag) && !b"NSA".contains(tag))
        {
            let mut world = waiting_for(say);
            world.server_says(&message(tag, b""));
            assert!(matches!(
                world.closed,
                Some(CloseReason::Failed(SessionError::TargetProtocol { .. }))
            ));
        }
    }
}

#[test]
fn after_fatal_only_the_end_may_follow() {
    let fatal = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mbye\0\0");
    let mut world = World::new();
    world.server_says(&fatal);
    assert_eq!(world.agent, fatal);
    world.server_says(&message(b'Z', b"I"));
    assert!(world.closed.is_some());
    assert!(!world.agent.ends_with(b"I"));
}

#[test]
fn random_bytes_from_either_side_do_no_harm() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..3000 {
        let mut world = waiting_for(&Say::new().query("x").parse("", "y").sync());
        let length = next() % 60;
        let mut bytes: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        // Half of the rounds have a likely header.
        if round % 2 == 0 && bytes.len() > 5 {
            let tags = b"QPBDECFSHdcfXTDCZEN12";
            bytes[0] = tags[next() as usize % tags.len()];
            bytes[1..5].copy_from_slice(&u32::try_from(next() % 40).unwrap().to_be_bytes());
        }
        if round % 4 < 2 {
            world.say(&bytes);
        } else {
            world.server_says(&bytes);
        }
    }
}
