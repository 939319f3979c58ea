//! What one session may hold under its names.

use super::tests::{Session, list, usual};
use super::*;
use crate::spec::{PolicySpec, RoleSpec};

#[test]
fn a_name_may_not_take_more_than_the_session_may_hold() {
    let spec = PolicySpec {
        roles: vec![RoleSpec {
            name: "r".into(),
            groups: list(&["*"]),
            targets: list(&["*"]),
            default: Action::Allow,
            ..RoleSpec::default()
        }],
        limits: crate::spec::SqlLimits {
            names_max: 3,
            names_bytes_max: 4 << 10,
            ..crate::spec::SqlLimits::default()
        },
    };
    let mut s = Session::new(PolicySet::compile(&spec).expect("compiles"));
    for n in 0..3 {
        assert_eq!(
            s.parse(&format!("s{n}"), "select 1").1.action,
            Action::Allow
        );
    }
    assert_eq!(
        s.parse("s3", "select 1").1.deny,
        Some(DenyKind::TooManyNames)
    );
    assert_eq!(
        s.query("prepare s3 as select 1").deny,
        Some(DenyKind::TooManyNames)
    );
    let unit = s.next();
    s.gate.close(unit, b'S', b"s0");
    for n in 1..=3 {
        s.gate.answered(n, Outcome::Completed);
    }
    s.gate.answered(unit, Outcome::Completed);
    assert_eq!(s.parse("s3", "select 1").1.action, Action::Allow);
    let long = format!("select '{}'", "x".repeat(4000));
    assert_eq!(s.parse("s3", &long).1.deny, Some(DenyKind::TooManyNames));
    let many = "execute s3;".repeat(300);
    assert_eq!(s.query(&many).deny, Some(DenyKind::TooManyNames));
}

#[test]
fn one_name_may_not_stand_for_ever_more_texts() {
    let mut s = Session::new(usual());
    for n in 0..256 {
        assert_eq!(s.parse("", &format!("select {n}")).1.action, Action::Allow);
    }
    assert_eq!(
        s.parse("", "select 'one more'").1.deny,
        Some(DenyKind::TooManyNames)
    );
    assert_eq!(
        s.parse("", "select 7").1.action,
        Action::Allow,
        "the same again costs nothing"
    );
}

#[test]
fn a_hold_is_told_what_a_name_in_its_sql_stands_for() {
    let mut s = Session::new(usual());
    let behind = |s: &Session| -> Vec<(String, String)> {
        s.gate
            .behind_names()
            .iter()
            .map(|(name, p)| (name.clone(), String::from_utf8_lossy(&p.text).into_owned()))
            .collect()
    };
    let text = "update t set a = 1 where b = 2";
    let (unit, _) = s.parse("p", text);
    s.gate.answered(unit, Outcome::Completed);
    let expected = vec![("p".to_owned(), text.to_owned())];
    for sql in ["execute p", "explain analyze execute p"] {
        s.query(sql);
        assert_eq!(behind(&s), expected, "{sql}");
    }
    s.query("select 1");
    assert_eq!(behind(&s), []);
    let (unit, _) = s.parse("e", "execute p");
    s.gate.answered(unit, Outcome::Completed);
    s.bind("", "e");
    assert_eq!(behind(&s), expected);
    // Until it is answered, a new text stands beside the old one.
    let (unit, _) = s.parse("p", "update t set a = 9 where b = 2");
    s.query("execute p");
    assert_eq!(behind(&s).len(), 2);
    s.gate.answered(unit, Outcome::Failed);
}
