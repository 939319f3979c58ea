use super::*;
use crate::spec::{PolicySpec, RoleSpec, RuleSpec};

fn rule(name: &str, action: Action) -> RuleSpec {
    RuleSpec {
        name: name.into(),
        action,
        ..RuleSpec::default()
    }
}

pub(super) fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn policy(default: Action, rules: Vec<RuleSpec>) -> Arc<PolicySet> {
    let spec = PolicySpec {
        roles: vec![RoleSpec {
            name: "r".into(),
            groups: list(&["*"]),
            targets: list(&["*"]),
            default,
            rules,
            ..RoleSpec::default()
        }],
        ..PolicySpec::default()
    };
    PolicySet::compile(&spec).unwrap_or_else(|e| panic!("{e:?}"))
}

/// Secrets are denied, updates of `t` held, the rest allowed.
pub(super) fn usual() -> Arc<PolicySet> {
    policy(
        Action::Allow,
        vec![
            RuleSpec {
                tables: list(&["secrets"]),
                ..rule("no-secrets", Action::Deny)
            },
            RuleSpec {
                statements: list(&["update"]),
                ..rule("hold-updates", Action::Approve)
            },
        ],
    )
}

pub(super) struct Session {
    pub(super) gate: SqlGate,
    cache: VerdictCache,
    unit: u64,
}

impl Session {
    pub(super) fn new(policy: Arc<PolicySet>) -> Session {
        let role = policy.role("r").expect("the role");
        let mut gate = SqlGate::new(policy, role, SessionFacts::default());
        gate.parameter_status(b"server_encoding", b"UTF8");
        gate.parameter_status(b"client_encoding", b"UTF8");
        gate.parameter_status(b"standard_conforming_strings", b"on");
        gate.ready_for_query(b'I');
        Session {
            gate,
            cache: VerdictCache::new(1 << 20),
            unit: 0,
        }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.unit += 1;
        self.unit
    }

    fn finish(&mut self, step: Step) -> Decision {
        match step {
            Step::Decided(decision) => decision,
            Step::Parse(job) => {
                let done = std::thread::spawn(move || job.run()).join().expect("runs");
                self.gate.resume(done, &mut self.cache)
            }
        }
    }

    /// A Query that is not answered yet.
    fn send(&mut self, text: &str) -> (u64, Decision) {
        let unit = self.next();
        let step = self.gate.query(
            unit,
            &Bytes::copy_from_slice(text.as_bytes()),
            &mut self.cache,
        );
        (unit, self.finish(step))
    }

    /// A Query, answered.
    pub(super) fn query(&mut self, text: &str) -> Decision {
        let (unit, decision) = self.send(text);
        if decision.action != Action::Deny {
            self.gate.answered(unit, Outcome::Completed);
        }
        self.gate.ready_for_query(b'I');
        decision
    }

    pub(super) fn parse(&mut self, name: &str, text: &str) -> (u64, Decision) {
        let unit = self.next();
        let step = self.gate.parse(
            unit,
            name.as_bytes(),
            &Bytes::copy_from_slice(text.as_bytes()),
            &[],
            &mut self.cache,
        );
        (unit, self.finish(step))
    }

    pub(super) fn bind(&mut self, portal: &str, statement: &str) -> (u64, Decision) {
        let unit = self.next();
        let step = self.gate.bind(
            unit,
            portal.as_bytes(),
            statement.as_bytes(),
            Binds::Values(&[]),
            &mut self.cache,
        );
        (unit, self.finish(step))
    }
}

#[test]
fn strictest_statement_of_a_text_decides() {
    let mut s = Session::new(usual());
    assert_eq!(s.query("select 1").action, Action::Allow);
    assert_eq!(
        s.query("select 1; select * from secrets").action,
        Action::Deny
    );
    assert_eq!(
        s.query("select 1; update t set x = 1").action,
        Action::Approve
    );
    assert_eq!(
        s.query("update t set x = 1; select * from secrets").action,
        Action::Deny
    );
    assert_eq!(s.query("").action, Action::Allow);
    assert_eq!(s.query("-- ping").action, Action::Allow);
}

#[test]
fn what_cannot_be_read_or_parsed_is_denied() {
    let mut s = Session::new(usual());
    for (text, kind, state) in [
        (&b"selec 1"[..], DenyKind::Unparsable, "42601"),
        (b"select '\xff'", DenyKind::Encoding, "22021"),
        (b"select 1\0", DenyKind::Encoding, "22021"),
        (b"do $$ begin end $$", DenyKind::Opaque, "42501"),
    ] {
        let unit = s.next();
        let step = s
            .gate
            .query(unit, &Bytes::copy_from_slice(text), &mut s.cache);
        let decision = s.finish(step);
        assert_eq!(
            (decision.action, decision.deny, decision.sqlstate()),
            (Action::Deny, Some(kind), state)
        );
    }
    let long = format!("select '{}'", "x".repeat(1 << 20));
    assert_eq!(s.query(&long).deny, Some(DenyKind::TooLarge));
}

#[test]
fn a_hold_is_taken_at_bind_and_not_at_parse() {
    let mut s = Session::new(usual());
    assert_eq!(s.parse("p", "update t set x = $1").1.action, Action::Allow);
    assert_eq!(s.bind("", "p").1.action, Action::Approve);
    assert_eq!(s.parse("q", "select * from secrets").1.action, Action::Deny);
    assert_eq!(s.bind("", "q").1.deny, Some(DenyKind::UnknownName));
}

#[test]
fn names_are_one_space_for_the_protocol_and_for_sql() {
    let mut s = Session::new(usual());
    let (unit, _) = s.parse("p", "update t set x = 1");
    s.gate.answered(unit, Outcome::Completed);
    s.gate.ready_for_query(b'I');
    for text in [
        "execute p",
        "explain analyze execute p",
        "create table z as execute p",
        "EXECUTE P",
    ] {
        assert_eq!(s.query(text).action, Action::Approve, "{text}");
    }
    assert_eq!(s.query("prepare q as select 1").action, Action::Allow);
    assert_eq!(s.bind("", "q").1.action, Action::Allow);
    assert_eq!(s.query("execute nosuch").deny, Some(DenyKind::UnknownName));
    assert_eq!(
        s.query("fetch all from nosuch").deny,
        Some(DenyKind::UnknownName)
    );
    let (unit, _) = s.send("begin; declare c cursor for select 1; fetch c");
    s.gate.answered(unit, Outcome::Completed);
    s.gate.ready_for_query(b'T');
    let execute = s.next();
    assert_eq!(s.gate.execute(execute, b"c").action, Action::Allow);
    let (_, bound) = s.bind("port", "q");
    assert_eq!(bound.action, Action::Allow);
    assert_eq!(s.send("fetch port").1.action, Action::Allow);
    let execute = s.next();
    assert_eq!(
        s.gate.execute(execute, b"nosuch").deny,
        Some(DenyKind::UnknownName)
    );
}

#[test]
fn a_name_stands_for_every_text_on_its_way() {
    let mut s = Session::new(usual());
    let (first, _) = s.parse("", "update t set x = 1");
    let (second, _) = s.parse("", "select 1");
    // The second may be skipped, then the first would run.
    assert_eq!(s.bind("", "").1.action, Action::Approve);
    s.gate.answered(first, Outcome::Completed);
    s.gate.answered(second, Outcome::Completed);
    assert_eq!(s.bind("", "").1.action, Action::Allow);

    let mut s = Session::new(usual());
    let (first, _) = s.parse("n", "update t set x = 1");
    s.gate.answered(first, Outcome::Completed);
    let (second, _) = s.parse("n", "select 1");
    s.gate.answered(second, Outcome::Failed);
    assert_eq!(
        s.bind("", "n").1.action,
        Action::Approve,
        "a Parse that fails leaves the old text"
    );
    let unit = s.next();
    s.gate.close(unit, b'S', b"n");
    assert_eq!(
        s.bind("", "n").1.action,
        Action::Approve,
        "not closed until it is answered"
    );
    s.gate.answered(unit, Outcome::Completed);
    assert_eq!(s.bind("", "n").1.deny, Some(DenyKind::UnknownName));
}

#[test]
fn a_text_that_failed_late_may_have_made_its_names() {
    let mut s = Session::new(usual());
    let (unit, _) = s.send("prepare a as select 1; select 1/0");
    s.gate.answered(unit, Outcome::Failed);
    s.gate.ready_for_query(b'I');
    assert_eq!(s.query("execute a").action, Action::Allow);
    let (unit, _) = s.send("prepare b as select 1");
    s.gate.answered(unit, Outcome::Failed);
    s.gate.ready_for_query(b'I');
    assert_eq!(s.query("execute b").deny, Some(DenyKind::UnknownName));
}

#[test]
fn deallocate_and_discard_forget_names() {
    for text in ["deallocate p", "deallocate all", "discard all"] {
        let mut s = Session::new(usual());
        assert_eq!(s.query("prepare p as select 1").action, Action::Allow);
        assert_eq!(s.query("execute p").action, Action::Allow);
        assert_eq!(s.query(text).action, Action::Allow, "{text}");
        assert_eq!(
            s.query("execute p").deny,
            Some(DenyKind::UnknownName),
            "{text}"
        );
    }
}

#[test]
fn names_over_63_bytes_are_refused() {
    let mut s = Session::new(usual());
    let long = "n".repeat(64);
    assert_eq!(
        s.parse(&long, "select 1").1.deny,
        Some(DenyKind::NameTooLong)
    );
    assert_eq!(s.bind(&long, "").1.deny, Some(DenyKind::NameTooLong));
    assert_eq!(s.bind("", &long).1.deny, Some(DenyKind::NameTooLong));
    let unit = s.next();
    assert_eq!(
        s.gate.execute(unit, long.as_bytes()).deny,
        Some(DenyKind::NameTooLong)
    );
    assert_eq!(s.parse(&"n".repeat(63), "select 1").1.action, Action::Allow);
}

#[test]
fn changes_to_how_text_is_read_are_refused() {
    let mut s = Session::new(usual());
    for text in [
        "set standard_conforming_strings = off",
        "set \"STANDARD_conforming_strings\" to 0",
        "set local standard_conforming_strings = 'false'",
        "select set_config('standard_conforming_strings', 'off', false)",
        "select set_config('standard_' || 'conforming_strings', 'off', false)",
        "select set_config('standard_conforming_strings', x, false) from t",
        "set client_encoding = 'SJIS'",
        "set names 'big5'",
        "set client_encoding to gbk",
        "set client_encoding to 'GB18030'",
        "set client_encoding to 'no such encoding'",
        "begin; set standard_conforming_strings = off; commit",
    ] {
        assert_eq!(s.query(text).deny, Some(DenyKind::Reading), "{text}");
        assert_eq!(s.parse("", text).1.deny, Some(DenyKind::Reading), "{text}");
    }
    for text in [
        "set standard_conforming_strings = on",
        "set client_encoding = 'UTF8'",
        "set names 'latin1'",
        "reset all",
        "discard all",
    ] {
        assert_eq!(s.query(text).action, Action::Allow, "{text}");
    }
}

#[test]
fn a_server_that_reads_otherwise_gets_no_text_until_it_is_put_right() {
    for (name, value, mend) in [
        (
            &b"standard_conforming_strings"[..],
            &b"off"[..],
            "set standard_conforming_strings = on",
        ),
        (b"client_encoding", b"SJIS", "set client_encoding = 'UTF8'"),
        (b"client_encoding", b"JOHAB", "set client_encoding = 'UTF8'"),
    ] {
        let mut s = Session::new(usual());
        s.gate.parameter_status(name, value);
        for text in [
            "select 1",
            "reset all",
            "set x.y = 1",
            "show all",
            "select 1; set standard_conforming_strings = on",
        ] {
            assert_eq!(s.query(text).deny, Some(DenyKind::Reading), "{text}");
        }
        assert_eq!(s.query(mend).action, Action::Allow, "{mend}");
        s.gate
            .parameter_status(b"standard_conforming_strings", b"on");
        s.gate.parameter_status(b"client_encoding", b"UTF8");
        s.gate.ready_for_query(b'I');
        assert_eq!(s.query("select 1").action, Action::Allow);
    }
}

#[test]
fn nothing_passes_before_the_server_has_said_how_it_reads() {
    let policy = usual();
    let role = policy.role("r").expect("the role");
    let mut gate = SqlGate::new(policy, role, SessionFacts::default());
    let mut cache = VerdictCache::new(1 << 20);
    let step = gate.query(1, &Bytes::from_static(b"select 1"), &mut cache);
    assert!(matches!(step, Step::Decided(d) if d.deny == Some(DenyKind::Reading)));
}

#[test]
fn sensitive_text_waits_for_whatever_may_change_its_reading() {
    let sensitive = r"select 'a\' , '";
    let same = r"select E'a\\b', $$\$$";
    let mut s = Session::new(usual());
    assert_eq!(
        s.send(sensitive).1.deny,
        Some(DenyKind::Unparsable),
        "settled: read as it stands"
    );
    let mut s = Session::new(usual());
    let (unit, _) = s.send("select f()");
    assert_eq!(s.send(r"select 'a\b'").1.deny, Some(DenyKind::Reading));
    assert_eq!(s.parse("", r"select 'a\b'").1.deny, Some(DenyKind::Reading));
    assert_eq!(s.send("select \"\u{e9}\"").1.deny, Some(DenyKind::Reading));
    assert_eq!(s.parse("", same).1.action, Action::Allow);
    assert_eq!(s.parse("", "select 'plain \u{e9}'").1.action, Action::Allow);
    s.gate.answered(unit, Outcome::Completed);
    assert_eq!(
        s.send(r"select 'a\b'").1.deny,
        Some(DenyKind::Reading),
        "ParameterStatus comes before ReadyForQuery"
    );
    s.gate.ready_for_query(b'I');
    assert_eq!(s.send(r"select 'a\b'").1.action, Action::Allow);
    // What runs nobody's code does not make others wait.
    let mut s = Session::new(usual());
    s.send("begin");
    s.send("set application_name = 'x'");
    s.parse("x", "select f()");
    assert_eq!(s.send(r"select 'a\b'").1.action, Action::Allow);
    // But the end of a transaction that changed a setting does.
    let mut s = Session::new(usual());
    s.query("begin");
    s.query("set standard_conforming_strings = on");
    s.gate.ready_for_query(b'T');
    let (_, _) = s.send("begin");
    assert_eq!(
        s.send(r"select 'a\b'").1.action,
        Action::Allow,
        "settled at idle"
    );
}

#[test]
fn other_encodings_pass_where_no_fact_rests_on_foreign_bytes() {
    let mut s = Session::new(usual());
    s.gate.parameter_status(b"client_encoding", b"LATIN1");
    for (text, passes) in [
        (&b"select '\xe9'"[..], true),
        (b"select 1 -- \xe9\n", true),
        (b"select \xe9", false),
        (b"select \"\xe9\"", false),
        (b"select $$\xe9$$", false),
    ] {
        let unit = s.next();
        let step = s
            .gate
            .query(unit, &Bytes::copy_from_slice(text), &mut s.cache);
        let decision = s.finish(step);
        s.gate.answered(unit, Outcome::Completed);
        s.gate.ready_for_query(b'I');
        assert_eq!(
            decision.action == Action::Allow,
            passes,
            "{}",
            String::from_utf8_lossy(text)
        );
    }
}

#[test]
fn a_new_policy_decides_old_statements_anew() {
    let mut s = Session::new(usual());
    let (unit, _) = s.parse("p", "select * from other");
    s.gate.answered(unit, Outcome::Completed);
    assert_eq!(s.bind("", "p").1.action, Action::Allow);
    let stricter = policy(
        Action::Allow,
        vec![RuleSpec {
            tables: list(&["other"]),
            ..rule("no-other", Action::Deny)
        }],
    );
    let role = stricter.role("r");
    s.gate.replace_policy(stricter.clone(), role);
    let decision = s.bind("", "p").1;
    assert_eq!(
        (decision.action, &*decision.rule),
        (Action::Deny, "no-other")
    );
    assert_eq!(&*decision.policy_version, stricter.version());
    assert_eq!(s.query("execute p").action, Action::Deny);
    s.gate.replace_policy(stricter, None);
    assert_eq!(s.query("select 1").deny, Some(DenyKind::NoRole));
    assert_eq!(s.bind("", "p").1.deny, Some(DenyKind::NoRole));
    let unit = s.next();
    assert_eq!(s.gate.execute(unit, b"").deny, Some(DenyKind::NoRole));
}

#[test]
fn rules_that_read_binds_are_asked_at_bind() {
    let rules = vec![RuleSpec {
        when: Some("binds.exists(b, b == '42')".into()),
        ..rule("no-42", Action::Deny)
    }];
    let mut s = Session::new(policy(Action::Allow, rules));
    assert!(s.gate.reads_binds());
    assert_eq!(s.parse("p", "select $1").1.action, Action::Allow);
    let mut ask = |binds: Binds<'_>| {
        let step = s.gate.bind(99, b"", b"p", binds, &mut s.cache);
        match step {
            Step::Decided(d) => (d.action, d.deny),
            Step::Parse(_) => panic!("a Bind is decided at once"),
        }
    };
    let text = |value: &'static [u8]| Bind {
        binary: false,
        value: Some(value),
    };
    assert_eq!(ask(Binds::Values(&[text(b"41")])).0, Action::Allow);
    assert_eq!(
        ask(Binds::Values(&[text(b"41"), text(b"42")])),
        (Action::Deny, Some(DenyKind::Rule))
    );
    assert_eq!(
        ask(Binds::Values(&[Bind {
            binary: false,
            value: None
        }]))
        .0,
        Action::Allow
    );
    assert_eq!(
        ask(Binds::Unread),
        (Action::Deny, Some(DenyKind::NotEvaluated))
    );
    let binary = [Bind {
        binary: true,
        value: Some(b"\0\0\0\x2a"),
    }];
    assert_eq!(
        ask(Binds::Values(&binary)),
        (Action::Deny, Some(DenyKind::NotEvaluated))
    );
    assert_eq!(s.query("execute p(41)").action, Action::Allow);
    assert_eq!(s.query("execute p('42')").deny, Some(DenyKind::Rule));
    assert_eq!(s.query("execute p(42)").deny, Some(DenyKind::Rule));
    assert_eq!(
        s.query("execute p(40 + 2)").deny,
        Some(DenyKind::NotEvaluated)
    );
    assert_eq!(s.query("select 1").action, Action::Allow);
}

#[test]
fn an_allow_all_role_reads_nothing() {
    let spec = PolicySpec {
        roles: vec![RoleSpec {
            name: "r".into(),
            groups: list(&["*"]),
            targets: list(&["*"]),
            default: Action::Allow,
            packs: list(&["-no-credential-minting"]),
            function_call: Action::Allow,
            ..RoleSpec::default()
        }],
        ..PolicySpec::default()
    };
    let policy = PolicySet::compile(&spec).expect("compiles");
    let role = policy.role("r").expect("the role");
    assert!(!role.reads_sql());
    let mut gate = SqlGate::new(policy, role, SessionFacts::default());
    let mut cache = VerdictCache::new(1 << 20);
    for text in [
        &b"not sql at all \xff\0"[..],
        b"do $$ begin end $$",
        b"set standard_conforming_strings = off",
    ] {
        let step = gate.query(1, &Bytes::copy_from_slice(text), &mut cache);
        assert!(matches!(step, Step::Decided(d) if d.is_allow()));
    }
    assert!(
        matches!(gate.bind(2, b"", b"nosuch", Binds::Unread, &mut cache), Step::Decided(d) if d.is_allow())
    );
    assert!(gate.execute(3, b"nosuch").is_allow());
    assert!(gate.function_call(4, 1).is_allow());
    assert!(cache.is_empty());
}

#[test]
fn function_call_is_denied_by_default() {
    let mut s = Session::new(usual());
    assert_eq!(
        s.gate.function_call(1, 2200).deny,
        Some(DenyKind::FunctionCall)
    );
}

#[test]
fn large_and_deep_texts_are_parsed_off_the_shard() {
    let mut s = Session::new(usual());
    let large = format!("select * from secrets where x = '{}'", "y".repeat(5000));
    let step = s.gate.query(1, &Bytes::from(large), &mut s.cache);
    assert!(matches!(step, Step::Parse(_)));
    assert_eq!(s.finish(step).action, Action::Deny);
    let deep = format!("select {}1{}", "(select ".repeat(20), ")".repeat(20));
    let step = s.gate.query(2, &Bytes::from(deep), &mut s.cache);
    assert!(matches!(step, Step::Parse(_)));
    assert_eq!(s.finish(step).action, Action::Allow);
}

#[test]
fn a_job_of_another_unit_decides_nothing() {
    let mut s = Session::new(usual());
    let large = format!("select '{}'", "y".repeat(5000));
    let Step::Parse(job) = s.gate.query(1, &Bytes::from(large), &mut s.cache) else {
        panic!("a job")
    };
    s.gate.waiting = None;
    assert_eq!(
        s.gate.resume(job.run(), &mut s.cache).deny,
        Some(DenyKind::NotEvaluated)
    );
}

#[test]
fn repeated_texts_and_shapes_come_from_the_cache_with_the_same_decision() {
    let mut s = Session::new(usual());
    for n in 0..5 {
        assert_eq!(
            s.query(&format!("select * from t where id = {n}")).action,
            Action::Allow
        );
        assert_eq!(
            s.query(&format!("update t set x = {n} where id = 7"))
                .action,
            Action::Approve
        );
        assert_eq!(
            s.query(&format!("select * from secrets where id = {n}"))
                .action,
            Action::Deny
        );
        assert_eq!(s.query("select a from t").action, Action::Allow);
    }
    let (hits, _) = s.cache.hits_and_misses();
    assert!(hits >= 12, "{hits}");
    assert!(s.cache.bytes() <= 1 << 20);
}

#[test]
fn a_rule_that_reads_the_length_tells_texts_of_one_shape_apart() {
    let mut s = Session::new(policy(
        Action::Allow,
        vec![RuleSpec {
            when: Some("text_length > 33".into()),
            ..rule("no-long-texts", Action::Deny)
        }],
    ));
    for n in 0..5 {
        let short = format!("select * from t where id = {n}");
        let long = format!("select * from t where id = {n}00000000");
        assert_eq!(s.query(&short).action, Action::Allow);
        assert_eq!(s.query(&long).action, Action::Deny);
    }
    assert!(s.cache.hits_and_misses().0 >= 4);
}

#[test]
fn literals_do_not_flush_the_cache_and_it_keeps_its_bound() {
    let mut s = Session::new(usual());
    for n in 0..3 {
        let _ = n;
        s.query("select kept from t");
    }
    for n in 0..2000 {
        s.query(&format!("select 'literal number {n} of many' from t"));
    }
    assert!(s.cache.bytes() <= 1 << 20);
    let before = s.cache.hits_and_misses().0;
    s.query("select kept from t");
    assert_eq!(s.cache.hits_and_misses().0, before + 1);
}

#[test]
fn state_that_gives_meaning_changes_the_digest_input() {
    let digest = |s: &Session| {
        let mut out = Vec::new();
        s.gate.state_digest_input(&mut out);
        out
    };
    let fresh = digest(&Session::new(usual()));
    for text in [
        "set role admin",
        "set search_path = x",
        "set timezone = 'UTC'",
        "select set_config('search_path', 'x', false)",
        "set session authorization x",
    ] {
        let mut s = Session::new(usual());
        assert_eq!(s.query(text).action, Action::Allow, "{text}");
        assert_ne!(digest(&s), fresh, "{text}");
    }
    let mut s = Session::new(usual());
    s.query("set application_name = 'x'");
    assert_eq!(digest(&s), fresh);
}

#[test]
fn temporary_objects_are_remembered() {
    for (text, made) in [
        ("create temp table x (a int)", true),
        ("create temporary view x as select 1", true),
        ("select 1 into temp x", true),
        ("create table pg_temp.x (a int)", true),
        ("create table x (a int)", false),
        ("select 1", false),
    ] {
        let mut s = Session::new(usual());
        assert_eq!(s.query(text).action, Action::Allow, "{text}");
        assert_eq!(s.gate.made_temporary_objects(), made, "{text}");
    }
}

#[test]
fn a_changed_search_path_takes_unqualified_names_from_allow_rules() {
    let rules = vec![
        RuleSpec {
            statements: list(&["read", "set", "reset", "begin"]),
            tables: list(&["public.*"]),
            ..rule("reading", Action::Allow)
        },
        RuleSpec {
            statements: list(&["set"]),
            ..rule("setting", Action::Allow)
        },
    ];
    let mut s = Session::new(policy(Action::Deny, rules));
    assert_eq!(s.query("select * from orders").action, Action::Allow);
    assert_eq!(s.query("select * from pg_authid").action, Action::Deny);
    assert_eq!(s.query("select * from other.orders").action, Action::Deny);
    assert_eq!(s.query("set search_path = public").action, Action::Allow);
    assert_eq!(s.query("select * from orders").action, Action::Allow);
    assert_eq!(s.query("set search_path = other").action, Action::Allow);
    assert_eq!(s.query("select * from orders").action, Action::Deny);
    assert_eq!(s.query("select * from public.orders").action, Action::Allow);
}

#[test]
fn a_rule_for_a_whole_schema_stops_unqualified_names_only_where_they_may_live_there() {
    let rules = || {
        vec![RuleSpec {
            tables: list(&["hr.*", "pay.salaries"]),
            ..rule("no-hr", Action::Deny)
        }]
    };
    let mut s = Session::new(policy(Action::Allow, rules()));
    for (text, action) in [
        ("select * from orders", Action::Allow),
        ("select * from hr.people", Action::Deny),
        ("select * from salaries", Action::Deny),
        ("select * from other.salaries", Action::Allow),
        ("drop schema hr cascade", Action::Deny),
        ("set search_path = '$user', public", Action::Allow),
        ("select * from orders", Action::Allow),
        ("set search_path = hr, public", Action::Allow),
        ("select * from people", Action::Deny),
        ("select * from public.people", Action::Allow),
    ] {
        assert_eq!(s.query(text).action, action, "{text}");
    }
    // A server of version 18 says so itself; options may have said so before.
    let mut s = Session::new(policy(Action::Allow, rules()));
    s.gate
        .parameter_status(b"search_path", b"\"$user\", public");
    assert_eq!(s.query("select * from people").action, Action::Allow);
    s.gate.parameter_status(b"search_path", b"hr");
    assert_eq!(s.query("select * from people").action, Action::Deny);
    let mut s = Session::new(policy(Action::Allow, rules()));
    s.gate.startup_parameter(b"options", b"-c search_path=hr");
    assert_eq!(s.query("select * from people").action, Action::Deny);
}

#[test]
fn a_text_that_moves_the_search_path_moves_it_for_what_follows_in_it() {
    let deny = vec![RuleSpec {
        tables: list(&["hr.*"]),
        ..rule("no-hr", Action::Deny)
    }];
    let mut s = Session::new(policy(Action::Allow, deny));
    for text in [
        "set search_path = hr; select * from people",
        "select set_config('search_path', 'hr', false); select * from people",
        "set role hr; select * from people",
        "begin; set local search_path to hr; table people",
    ] {
        assert_eq!(s.query(text).action, Action::Deny, "{text}");
    }
    assert_eq!(s.query("select * from people").action, Action::Allow);
    assert_eq!(s.query("set role hr").action, Action::Allow);
    assert_eq!(s.query("select * from people").action, Action::Deny);
}
