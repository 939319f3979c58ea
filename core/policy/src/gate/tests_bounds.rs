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
