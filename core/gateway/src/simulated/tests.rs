//! The statements that hold for whole sessions, whatever the network does.

use super::agent::{Agent, Message, field, query, sqlstate};
use super::script::{Human, Script, seen};
use super::world::{LOGIN_MS, Target, WAIT_S, World, holds_secret};
use crate::serve::shard::Shard;
use bytes::{Bytes, BytesMut};
use engine::sim::SimConfig;
use masking::Masker;
use postgres::cancel::CancelRequest;
use postgres::wire::frontend;
use std::rc::Rc;
use std::time::Duration;

/// The seeds of a test, or the one that is asked for.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..count).collect(),
    }
}

async fn pause(time: Duration) {
    engine::sleep_until(engine::now().after(time)).await;
}

/// Nothing runs that a human was to be asked about and did not approve.
fn only_approved_ran(target: &Target, script: &Script, seed: u64) {
    for text in target.ran.borrow().iter() {
        if let Some(human) = script.held.get(text) {
            assert_eq!(*human, Human::Approves, "ran: {text}, seed {seed}");
            assert!(
                target.asked.borrow().contains(text),
                "ran unasked: {text}, seed {seed}"
            );
        }
    }
}

/// Plays a script; gives all that was seen until the end of it or of the connection.
async fn play(
    world: &World,
    shard: &Shard,
    target: &Target,
    script: &Script,
    agent: &mut Agent,
) -> Vec<Message> {
    let mut messages = Vec::new();
    for (bytes, readies) in &script.batches {
        // In two pieces, so that a message is cut somewhere.
        let cut = bytes.len() / 2;
        agent.writer.queue(bytes.slice(..cut));
        pause(Duration::from_micros(300)).await;
        agent.writer.queue(bytes.slice(cut..));
        let mut left = *readies;
        while left > 0 {
            let Some(message) = agent.next().await else {
                return messages;
            };
            match message.0 {
                b'Z' => left -= 1,
                b'N' if sqlstate(&message.1) == "01000" => {
                    let notice = field(&message.1, b'M');
                    world.answer(shard, target, &notice, script).await;
                }
                _ => {}
            }
            messages.push(message);
        }
    }
    let mut out = BytesMut::new();
    frontend::terminate(&mut out);
    agent.writer.queue(out.freeze());
    let _ = agent.writer.flushed().await;
    messages
}

#[test]
fn the_agent_sees_what_it_would_see_directly_but_masked() {
    let world = World::new();
    let mut masker = Masker::new(world.rules.0.clone()).expect("a masker");
    let (mut rows, mut refused, mut held) = (0, 0, 0);
    for seed in seeds(200) {
        let script = Script::draw(seed, &format!("a{seed}"));
        let expected = script.expected(&mut masker);
        let evidence = world.run(SimConfig::from_seed(seed), |shard, target| {
            let (world, script, expected) = (&world, &script, &expected);
            let (rows, held) = (&mut rows, &mut held);
            async move {
                let mut agent = Agent::dial().await.expect("the gateway listens");
                assert!(agent.login(&world.token).await, "login, seed {seed}");
                let messages = play(world, &shard, &target, script, &mut agent).await;
                only_approved_ran(&target, script, seed);
                *rows += messages.iter().filter(|m| m.0 == b'D').count();
                *held += messages.iter().filter(|m| m.0 == b'N').count();
                assert_eq!(&seen(&messages, None), expected, "seed {seed}");
                assert!(
                    !holds_secret(&agent.received),
                    "the secret got out, seed {seed}"
                );
            }
        });
        refused += evidence.refused.len();
        assert_eq!(evidence.ends, ["agent terminated"], "seed {seed}");
    }
    if seeds(2).len() == 2 {
        assert!(
            rows > 500 && refused > 50 && held > 20,
            "{rows} {refused} {held}"
        );
    }
}

#[test]
fn resets_stalls_and_refusals_at_random_points_leave_nothing_behind() {
    let world = World::new();
    let mut masker = Masker::new(world.rules.0.clone()).expect("a masker");
    let (mut whole, mut broken) = (0, 0);
    for seed in seeds(150) {
        let scripts: Vec<Script> = (0..3)
            .map(|n| Script::draw(seed * 3 + n, &format!("r{seed}-{n}")))
            .collect();
        let expected: Vec<_> = scripts.iter().map(|s| s.expected(&mut masker)).collect();
        let mut sim = SimConfig::hostile(seed);
        sim.reset_per_10k = [0, 20, 100, 400][usize::try_from(seed % 4).expect("small")];
        world.run(sim, |shard, target| {
            let (world, whole, broken) = (&world, &mut whole, &mut broken);
            let (scripts, expected) = (&scripts, &expected);
            async move {
                // One after the other on the wire, all alive at once.
                let mut agents = Vec::new();
                for _ in scripts {
                    if let Some(mut agent) = Agent::dial().await
                        && agent.login(&world.token).await
                    {
                        agents.push(agent);
                    }
                }
                for ((script, expected), mut agent) in scripts.iter().zip(expected).zip(agents) {
                    let messages = play(world, &shard, &target, script, &mut agent).await;
                    only_approved_ran(&target, script, seed);
                    let mut saw = seen(&messages, None);
                    assert!(
                        !holds_secret(&agent.received),
                        "the secret got out, seed {seed}"
                    );
                    if saw == *expected {
                        *whole += 1;
                    } else {
                        *broken += 1;
                        // The gateway's last word about a lost target.
                        let last = saw.last().map_or("", String::as_str);
                        if last.starts_with("E 08006") || last.starts_with("E 57P01") {
                            saw.pop();
                        }
                    }
                    let mut pairs = saw.iter().zip(expected);
                    if let Some(pair) = pairs.find(|(saw, wanted)| saw != wanted) {
                        panic!("{pair:#?}, seed {seed}, last {:?}", saw.last());
                    }
                    assert!(
                        saw.len() <= expected.len(),
                        "more than expected, seed {seed}"
                    );
                }
            }
        });
    }
    if seeds(2).len() == 2 {
        assert!(whole > 20 && broken > 20, "{whole} whole, {broken} broken");
    }
}

#[test]
fn a_stalled_agent_stops_the_target_and_gets_everything_later() {
    const ROWS: usize = 60_000;
    let world = World::new();
    for seed in seeds(3) {
        world.run(SimConfig::from_seed(seed), |_shard, target| {
            let world = &world;
            async move {
                let mut agent = Agent::dial().await.expect("the gateway listens");
                assert!(agent.login(&world.token).await, "login, seed {seed}");
                let text = format!("select note from vault limit {ROWS}");
                agent.writer.queue(query(&text));
                pause(Duration::from_secs(5)).await;
                let sent = target.sent.get();
                pause(Duration::from_secs(60)).await;
                // Both of the gateway's queues, both windows, the target's own queue.
                assert!(sent < 2 * 1024 * 1024, "{sent} bytes taken in, seed {seed}");
                assert_eq!(target.sent.get(), sent, "nothing moves, seed {seed}");
                let messages = agent.until_ready().await;
                let rows = messages.iter().filter(|m| m.0 == b'D').count();
                assert_eq!(rows, ROWS, "seed {seed}");
                assert!(
                    target.sent.get() > 2 * sent,
                    "a stall of a part, seed {seed}"
                );
                assert!(
                    !holds_secret(&agent.received),
                    "the secret got out, seed {seed}"
                );
            }
        });
    }
}

#[test]
fn a_silent_or_half_login_is_closed_at_its_deadline() {
    let world = World::new();
    let startup = Agent::startup();
    let said: [Bytes; 4] = [
        Bytes::new(),
        startup.slice(..3),
        startup.slice(..startup.len() - 1),
        startup.clone(),
    ];
    for seed in seeds(8) {
        world.run(SimConfig::from_seed(seed), |shard, _target| {
            let said = &said[usize::try_from(seed % 4).expect("small")];
            async move {
                let began = engine::now();
                let mut agent = Agent::dial().await.expect("the gateway listens");
                if !said.is_empty() {
                    agent.writer.queue(said.clone());
                }
                while agent.next().await.is_some() {}
                let took = engine::now().since(began).as_millis();
                let login = u128::from(LOGIN_MS);
                assert!(
                    (login..login + 100).contains(&took),
                    "{took} ms, seed {seed}"
                );
                assert_eq!(shard.metrics.login_timeouts.value(), 1, "seed {seed}");
            }
        });
    }
}

/// Sends `text` and gives the code and the virtual time of the answer to a hold.
async fn held(agent: &mut Agent, text: &str) -> (String, u64) {
    let began = engine::now();
    let messages = agent.query(text).await;
    let tags: String = messages.iter().map(|m| char::from(m.0)).collect();
    assert_eq!(tags, "NEZ");
    let waited = engine::now().since(began).as_secs();
    (sqlstate(&messages[1].1), waited)
}

#[test]
fn a_hold_that_nobody_answers_times_out_and_the_session_goes_on() {
    let world = World::new();
    for seed in seeds(6) {
        let evidence = world.run(SimConfig::from_seed(seed), |_shard, target| {
            let world = &world;
            async move {
                let mut agent = Agent::dial().await.expect("the gateway listens");
                assert!(agent.login(&world.token).await, "login, seed {seed}");
                let text = format!("update people set flag = 't{seed}'");
                let answer = held(&mut agent, &text).await;
                assert_eq!(answer, ("57014".into(), WAIT_S.0), "seed {seed}");
                agent.query("begin").await;
                // The same statement meets the same approval, for a shorter time.
                let answer = held(&mut agent, &text).await;
                assert_eq!(answer, ("57014".into(), WAIT_S.1), "seed {seed}");
                let last = agent.query("select note from vault limit 1").await;
                assert_eq!(
                    seen(&last, None)[0],
                    "E 25P02 current transaction is aborted"
                );
                agent.query("rollback").await;
                let last = agent.query("select note from vault limit 1").await;
                assert_eq!(
                    last.iter().filter(|m| m.0 == b'D').count(),
                    1,
                    "seed {seed}"
                );
                assert!(!target.ran.borrow().contains(&text), "seed {seed}");
            }
        });
        assert_eq!(evidence.refused.len(), 2, "seed {seed}");
    }
}

#[test]
fn the_agents_key_cancels_its_statement_with_the_targets_key_and_no_other_does() {
    let world = World::new();
    for seed in seeds(20) {
        world.run(SimConfig::from_seed(seed), |shard, target| {
            let world = &world;
            async move {
                let mut agent = Agent::dial().await.expect("the gateway listens");
                assert!(agent.login(&world.token).await, "login, seed {seed}");
                let key = agent.key.clone().expect("a key");
                assert_ne!(key.secret_key, super::world::key_of(key.process_id));
                agent.writer.queue(query("select pg_sleep(10)"));
                pause(Duration::from_millis(20)).await;
                cancel(&CancelRequest {
                    process_id: key.process_id,
                    secret_key: super::world::key_of(key.process_id),
                })
                .await;
                pause(Duration::from_millis(20)).await;
                assert_eq!(target.cancels.get(), (0, 0), "seed {seed}");
                cancel(&key).await;
                let messages = agent.until_ready().await;
                assert_eq!(seen(&messages, None)[0], "E 57014", "seed {seed}");
                assert_eq!(target.cancels.get(), (1, 0), "seed {seed}");
                assert_eq!(shard.metrics.cancels.value(), 1, "seed {seed}");
                // A held statement is cancelled in the gateway.
                agent
                    .writer
                    .queue(query(&format!("update people set flag = 'c{seed}'")));
                assert_eq!(agent.next().await.map(|m| m.0), Some(b'N'), "seed {seed}");
                let began = engine::now();
                cancel(&key).await;
                let messages = agent.until_ready().await;
                assert_eq!(seen(&messages, None)[0], "E 57014", "seed {seed}");
                assert!(engine::now().since(began).as_secs() < 1, "seed {seed}");
            }
        });
    }
}

async fn cancel(request: &CancelRequest) {
    let mut agent = Agent::dial().await.expect("the gateway listens");
    agent.writer.queue(request.encode().expect("a key"));
    while agent.next().await.is_some() {}
}

#[test]
fn an_agent_that_goes_while_its_statement_is_held_leaves_it_unrun() {
    let world = World::new();
    for seed in seeds(10) {
        let text = format!("update people set flag = 'g{seed}'");
        let evidence = world.run(SimConfig::from_seed(seed), |shard, target| {
            let (world, text) = (&world, text.clone());
            async move {
                let mut agent = Agent::dial().await.expect("the gateway listens");
                assert!(agent.login(&world.token).await, "login, seed {seed}");
                agent.writer.queue(query(&text));
                assert_eq!(agent.next().await.map(|m| m.0), Some(b'N'), "seed {seed}");
                drop(agent);
                let gone = shard.session_ended.notified();
                let until = engine::now().after(Duration::from_secs(1));
                assert!(engine::deadline(until, gone).await.is_ok(), "seed {seed}");
                assert!(target.seen.borrow().is_empty(), "seed {seed}");
            }
        });
        assert_eq!(evidence.refused, [text], "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let world = World::new();
    let once = |unique: &str| {
        let mut script = Script::draw(4711, unique);
        script
            .held
            .values_mut()
            .for_each(|human| *human = Human::Sleeps);
        let mut out = Vec::new();
        let kept = &mut out;
        world.run(SimConfig::from_seed(4711), |shard: Rc<Shard>, target| {
            let (world, script) = (&world, &script);
            async move {
                let mut agent = Agent::dial().await.expect("the gateway listens");
                assert!(agent.login(&world.token).await);
                *kept = seen(
                    &play(world, &shard, &target, script, &mut agent).await,
                    None,
                );
                kept.push(format!("ends at {:?}", engine::now()));
            }
        });
        out
    };
    assert_eq!(once("s1"), once("s2"));
}
