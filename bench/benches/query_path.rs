//! What one query costs in our own code: session machine, policy, masking and
//! encoding of its two records, without sockets, disk or tasks. Prints the
//! median of several rounds for each shape; claims nothing and asserts nothing.

use bytes::Bytes;
use masking::{Findings, Masker, RuleSet, StreamMasker};
use policy::{
    Action, PolicySet, PolicySpec, RoleSpec, RuleSpec, SessionFacts, SqlGate, Step, VerdictCache,
};
use postgres::session::{
    Content, Event, Fill, Outcome, Output, Session, SessionConfig, Side, Unit, Verdict,
};
use recorder::{ActionCode, Body, OutcomeCode, Ruling};
use std::hint::black_box;
use std::time::Instant;

struct Masked {
    masker: Masker,
    findings: Findings,
}

fn fill(fill: Fill) -> masking::Fill {
    match fill {
        Fill::Placeholder => masking::Fill::Placeholder,
        Fill::SameLength => masking::Fill::SameLength,
    }
}

impl Content for Masked {
    type Stream = StreamMasker;
    fn is_clean(&mut self, bytes: &[u8]) -> bool {
        self.masker.is_clean(bytes)
    }
    fn mask_value(&mut self, value: &[u8], how: Fill) -> Option<Vec<u8>> {
        self.masker.mask_value(value, fill(how), &mut self.findings)
    }
    fn open(&mut self, how: Fill) -> StreamMasker {
        self.masker.stream(fill(how))
    }
    fn push(&mut self, stream: &mut StreamMasker, input: &[u8], out: &mut Vec<u8>) {
        stream.push(&mut self.masker, input, out, &mut self.findings);
    }
    fn finish(&mut self, stream: StreamMasker, out: &mut Vec<u8>) {
        stream.finish(&mut self.masker, out, &mut self.findings);
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

/// RowDescription, `rows` DataRows of one value, CommandComplete, ReadyForQuery.
fn answer(rows: usize, value: &[u8]) -> Bytes {
    let mut column = b"\0\x01abalance\0".to_vec();
    column.extend([
        0, 0, 0, 1, 0, 1, 0, 0, 0, 23, 0, 4, 255, 255, 255, 255, 0, 0,
    ]);
    let mut out = message(b'T', &column);
    for _ in 0..rows {
        let mut row = vec![0, 1];
        row.extend((value.len() as u32).to_be_bytes());
        row.extend(value);
        out.extend(message(b'D', &row));
    }
    out.extend(message(b'C', format!("SELECT {rows}\0").as_bytes()));
    out.extend(message(b'Z', b"I"));
    Bytes::from(out)
}

fn gate() -> SqlGate {
    let rules = (0..50)
        .map(|n| RuleSpec {
            name: format!("rule-{n}"),
            action: if n == 0 { Action::Allow } else { Action::Deny },
            statements: vec![if n == 0 { "read".into() } else { "ddl".into() }],
            tables: if n == 0 {
                Vec::new()
            } else {
                vec![format!("private_{n}.*")]
            },
            ..RuleSpec::default()
        })
        .collect();
    let role = RoleSpec {
        name: "agent".into(),
        groups: vec!["agents".into()],
        targets: vec!["shop".into()],
        rules,
        ..RoleSpec::default()
    };
    let spec = PolicySpec {
        roles: vec![role],
        ..PolicySpec::default()
    };
    let set = PolicySet::compile(&spec).expect("the rules are valid");
    let role = set.role("agent").expect("it was just made");
    let mut gate = SqlGate::new(set, role, SessionFacts::default());
    for (name, value) in [
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
    ] {
        gate.parameter_status(name.as_bytes(), value.as_bytes());
    }
    gate.ready_for_query(b'I');
    gate
}

fn request(unit: u64, text: &[u8]) -> Body {
    Body::Request {
        unit,
        kind: "query".into(),
        name: Vec::new(),
        text_masked: text.to_vec(),
        text_length: text.len() as u64,
        digest: [0; 32],
        binds_masked: Vec::new(),
        truncated: false,
        decision: Some(Ruling {
            action: ActionCode::Allow,
            rule: "rule-0".into(),
            reason: "rule rule-0 allows select of accounts".into(),
            policy_version: "0".repeat(64),
            approval: None,
        }),
    }
}

/// One shape: statement texts by number, rows of the answer, one value.
fn run(
    name: &str,
    rules: &std::sync::Arc<RuleSet>,
    text: impl Fn(u64) -> String,
    rows: usize,
    value: &[u8],
) {
    const QUERIES: u64 = 20_000;
    const ROUNDS: usize = 7;
    let content = Masked {
        masker: Masker::new(rules.clone()).expect("scratch"),
        findings: Findings::new(),
    };
    let mut session = Session::new(SessionConfig::new("bench", [7; 16]), content);
    let mut gate = gate();
    let mut cache = VerdictCache::new(16 << 20);
    let server = answer(rows, value);
    let mut costs = Vec::new();
    for round in 0..ROUNDS {
        let begin = Instant::now();
        for n in 0..QUERIES / rows.max(1) as u64 + 1 {
            let agent = Bytes::from(message(b'Q', format!("{}\0", text(n)).as_bytes()));
            session
                .handle_input(Side::Downstream, agent)
                .expect("well formed");
            drain(&mut session, &mut gate, &mut cache);
            session
                .handle_input(Side::Upstream, server.clone())
                .expect("well formed");
            drain(&mut session, &mut gate, &mut cache);
        }
        let each = begin.elapsed().as_nanos() as f64 / (QUERIES / rows.max(1) as u64 + 1) as f64;
        if round > 0 {
            costs.push(each);
        }
    }
    costs.sort_by(f64::total_cmp);
    println!(
        "{name:<44} {:>9.0} ns a query (median of {})",
        costs[costs.len() / 2],
        costs.len()
    );
}

fn drain(session: &mut Session<Masked>, gate: &mut SqlGate, cache: &mut VerdictCache) {
    while let Some(output) = session.poll_output() {
        match output {
            Output::Decide {
                id,
                unit: Unit::Query { text },
            } => {
                let Step::Decided(decision) = gate.query(id.0, &text, cache) else {
                    panic!("short texts are parsed here")
                };
                assert_eq!(decision.action, Action::Allow, "{}", decision.reason);
                black_box(request(id.0, &text).encode().expect("within limits"));
                session
                    .handle_decision(id, Verdict::Forward)
                    .expect("asked for");
            }
            Output::Event(Event::Answered { id, outcome }) => {
                gate.answered(id.0, policy::Outcome::Completed);
                if let Outcome::Completed { tag } = outcome {
                    let outcome = OutcomeCode::Completed {
                        tag: String::from_utf8_lossy(&tag).into_owned(),
                    };
                    let body = Body::Outcome {
                        unit: id.0,
                        outcome,
                        rows: 1,
                        bytes: 0,
                        masked: Vec::new(),
                        data_masked: Vec::new(),
                        truncated: false,
                    };
                    black_box(body.encode().expect("within limits"));
                }
            }
            Output::Event(Event::ReadyForQuery { status }) => gate.ready_for_query(status),
            other => {
                black_box(other);
            }
        }
    }
}

fn main() {
    let detectors = masking::builtin_pack("default").expect("the default pack");
    let rules = RuleSet::compile(masking::Config {
        detectors,
        ..masking::Config::default()
    })
    .expect("the pack compiles");
    let literal = |n: u64| {
        format!(
            "SELECT abalance FROM pgbench_accounts WHERE aid = {};",
            n % 100_000
        )
    };
    run(
        "one row, a new integer each time",
        &rules,
        literal,
        1,
        b"12345",
    );
    run(
        "one row, the same text",
        &rules,
        |_| "SELECT abalance FROM pgbench_accounts WHERE aid = 1;".into(),
        1,
        b"12345",
    );
    run(
        "one row with a secret in it",
        &rules,
        literal,
        1,
        b"key AKIAQ7XW2LMN4RST6UVZ here",
    );
    run(
        "1000 rows of 40 bytes",
        &rules,
        literal,
        1000,
        b"some words of ordinary text, forty bytes",
    );
}
