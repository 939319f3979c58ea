//! The corpora: disguised SQL that must be refused, look-alikes that must
//! pass, and what clients send by themselves. One runner for all, which ends
//! with counts.

use portcullis_policy::{
    Action, Decision, Outcome, PolicySet, PolicySpec, RoleSpec, SessionFacts, SqlGate, Step,
    VerdictCache,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    roles: BTreeMap<String, RoleSpec>,
    group: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    role: String,
    why: String,
    sql: Vec<String>,
}

fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn policy(roles: &BTreeMap<String, RoleSpec>) -> Arc<PolicySet> {
    let roles = roles
        .iter()
        .map(|(name, role)| RoleSpec {
            name: name.clone(),
            groups: vec!["*".into()],
            targets: vec!["*".into()],
            ..role.clone()
        })
        .collect();
    PolicySet::compile(&PolicySpec {
        roles,
        ..PolicySpec::default()
    })
    .unwrap_or_else(|e| panic!("{e:#?}"))
}

fn gate(policy: &Arc<PolicySet>, role: &str) -> SqlGate {
    let role = policy.role(role).unwrap_or_else(|| panic!("role {role}"));
    let mut gate = SqlGate::new(policy.clone(), role, SessionFacts::default());
    gate.parameter_status(b"server_encoding", b"UTF8");
    gate.parameter_status(b"client_encoding", b"UTF8");
    gate.parameter_status(b"standard_conforming_strings", b"on");
    gate.ready_for_query(b'I');
    gate
}

fn query(gate: &mut SqlGate, cache: &mut VerdictCache, unit: u64, text: &str) -> Decision {
    match gate.query(unit, &text.to_owned().into_bytes().into(), cache) {
        Step::Decided(decision) => decision,
        Step::Parse(job) => gate.resume(job.run(), cache),
    }
}

/// Runs a corpus; each case three times, so that the cache's answers count.
fn run(name: &str, wanted: Action, least: usize) {
    let corpus: Corpus = toml::from_str(&file(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let policy = policy(&corpus.roles);
    let mut cache = VerdictCache::new(8 << 20);
    let (mut cases, mut failed) = (0, Vec::new());
    for group in &corpus.group {
        for text in &group.sql {
            cases += 1;
            for _ in 0..3 {
                let decision = query(&mut gate(&policy, &group.role), &mut cache, 1, text);
                if decision.action != wanted {
                    failed.push(format!(
                        "{} ({}): {text}\n    {} {}",
                        group.role, group.why, decision.rule, decision.reason
                    ));
                    break;
                }
            }
        }
    }
    println!(
        "{name}: {} passed, {} failed",
        cases - failed.len(),
        failed.len()
    );
    assert!(
        failed.is_empty(),
        "{name}: {} of {cases} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(
        cases >= least,
        "{name} holds {cases} cases, {least} were promised"
    );
}

#[test]
fn disguised_sql_is_refused() {
    run("bypass.toml", Action::Deny, 120);
}

#[test]
fn lookalikes_are_allowed() {
    run("lookalikes.toml", Action::Allow, 80);
}

/// Every file of `testdata/preamble` holds what one client sends by itself,
/// statements apart by a line of `--;`. All must pass in order, in one session
/// of a role that allows nothing else.
#[test]
fn what_clients_send_by_themselves_is_allowed_in_one_word() {
    let role = RoleSpec {
        packs: vec!["client-preamble".into()],
        ..RoleSpec::default()
    };
    let policy = policy(&BTreeMap::from([("preamble".to_owned(), role)]));
    let mut cache = VerdictCache::new(8 << 20);
    let (mut cases, mut failed) = (0, Vec::new());
    for client in [
        "psql.sql",
        "completion.sql",
        "pg_dump.sql",
        "jdbc.sql",
        "sqlalchemy.sql",
        "prisma.sql",
    ] {
        let mut gate = gate(&policy, "preamble");
        for (unit, text) in (1..).zip(file(&format!("preamble/{client}")).split("\n--;\n")) {
            cases += 1;
            let decision = query(&mut gate, &mut cache, unit, text);
            gate.answered(unit, Outcome::Completed);
            gate.ready_for_query(b'T');
            if decision.action != Action::Allow {
                failed.push(format!(
                    "{client}: {text}\n    {} {}",
                    decision.rule, decision.reason
                ));
            }
        }
    }
    println!(
        "preamble: {} passed, {} failed",
        cases - failed.len(),
        failed.len()
    );
    assert!(
        failed.is_empty(),
        "{} of {cases} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    // And the pack opens nothing else.
    for text in [
        "select * from orders",
        "select * from pg_authid",
        "select * from pg_stats",
        "select * from pg_stat_activity",
        "set role admin",
        "set session_replication_role = replica",
        "select pg_read_file('x')",
        "select my_function()",
        "select set_config('role', 'x', false)",
        "delete from pg_class",
        "create table t (a int)",
        "copy pg_class to stdout",
        "select pg_terminate_backend(1)",
    ] {
        let decision = query(&mut gate(&policy, "preamble"), &mut cache, 1, text);
        assert_eq!(decision.action, Action::Deny, "{text}");
    }
}
