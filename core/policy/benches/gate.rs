//! What a decision costs: repeated texts, new literals, new texts, binds.
//! Plain timing, best of several rounds; `cargo bench -p portcullis-policy`.

use bytes::Bytes;
use portcullis_policy::{
    Action, Bind, Binds, Outcome, PolicySet, PolicySpec, RoleSpec, RuleSpec, SessionFacts, SqlGate,
    Step, VerdictCache,
};
use std::time::Instant;

fn policy() -> std::sync::Arc<PolicySet> {
    let mut rules: Vec<RuleSpec> = (0..45)
        .map(|n| RuleSpec {
            name: format!("deny-{n}"),
            action: Action::Deny,
            tables: vec![format!("private_{n}.*"), format!("secret_{n}")],
            ..RuleSpec::default()
        })
        .collect();
    rules.extend((0..5).map(|n| RuleSpec {
        name: format!("when-{n}"),
        action: Action::Deny,
        tables: vec![format!("guarded_{n}")],
        when: Some("statement.where_missing && !('admins' in principal.groups)".into()),
        ..RuleSpec::default()
    }));
    let role = RoleSpec {
        name: "r".into(),
        groups: vec!["*".into()],
        targets: vec!["*".into()],
        default: Action::Allow,
        rules,
        ..RoleSpec::default()
    };
    PolicySet::compile(&PolicySpec {
        roles: vec![role],
        ..PolicySpec::default()
    })
    .expect("compiles")
}

fn measure(name: &str, rounds: usize, count: u64, mut f: impl FnMut(u64)) {
    let mut best = f64::MAX;
    for round in 0..rounds {
        let start = Instant::now();
        for n in 0..count {
            f(round as u64 * count + n);
        }
        best = best.min(start.elapsed().as_nanos() as f64 / count as f64);
    }
    println!("{name:40} {best:9.0} ns");
}

fn main() {
    let policy = policy();
    let role = policy.role("r").expect("the role");
    let mut gate = SqlGate::new(policy, role, SessionFacts::default());
    gate.parameter_status(b"server_encoding", b"UTF8");
    gate.parameter_status(b"client_encoding", b"UTF8");
    gate.parameter_status(b"standard_conforming_strings", b"on");
    let mut cache = VerdictCache::new(16 << 20);
    let mut unit = 0;
    let mut query = |gate: &mut SqlGate, cache: &mut VerdictCache, text: &Bytes| {
        unit += 1;
        match gate.query(unit, text, cache) {
            Step::Decided(decision) => assert!(decision.is_allow()),
            Step::Parse(job) => assert!(gate.resume(job.run(), cache).is_allow()),
        }
        gate.answered(unit, Outcome::Completed);
        gate.ready_for_query(b'I');
    };
    let repeated = Bytes::from_static(b"SELECT abalance FROM pgbench_accounts WHERE aid = $1");
    measure("repeated text", 7, 20_000, |_| {
        query(&mut gate, &mut cache, &repeated)
    });
    let literals: Vec<Bytes> = (0..20_000)
        .map(|n| format!("SELECT abalance FROM pgbench_accounts WHERE aid = {n};").into())
        .collect();
    measure("new integer literal", 7, 20_000, |n| {
        query(&mut gate, &mut cache, &literals[(n % 20_000) as usize])
    });
    measure("new text, SELECT of 85 bytes", 7, 300, |n| {
        let text = format!(
            "SELECT a{n}, b, c FROM orders o WHERE o.customer_id = $1 AND o.total > $2 ORDER BY 1"
        );
        query(&mut gate, &mut cache, &text.into());
    });
    let step = gate.parse(1 << 40, b"p", &repeated, &[], &mut cache);
    assert!(matches!(step, Step::Decided(d) if d.is_allow()));
    gate.answered(1 << 40, Outcome::Completed);
    let values = [Bind {
        binary: false,
        value: Some(b"1"),
    }];
    measure("Bind and Execute", 7, 20_000, |n| {
        let unit = (1 << 41) + n * 2;
        let step = gate.bind(unit, b"", b"p", Binds::Values(&values), &mut cache);
        assert!(matches!(step, Step::Decided(d) if d.is_allow()));
        assert!(gate.execute(unit + 1, b"").is_allow());
        gate.answered(unit, Outcome::Completed);
        gate.answered(unit + 1, Outcome::Completed);
        gate.ready_for_query(b'I');
    });
}
