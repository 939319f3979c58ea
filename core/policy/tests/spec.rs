//! What is refused when a policy is loaded, and where the fault is said to be.

use portcullis_policy::{
    Action, ApprovalSpec, PolicySet, PolicySpec, RoleSpec, RuleSpec, SessionFacts, SqlLimits,
    explain,
};

fn role(name: &str) -> RoleSpec {
    RoleSpec {
        name: name.into(),
        groups: vec!["devs".into()],
        targets: vec!["prod-*".into()],
        ..RoleSpec::default()
    }
}

fn rule(name: &str) -> RuleSpec {
    RuleSpec {
        name: name.into(),
        ..RuleSpec::default()
    }
}

fn spec(roles: Vec<RoleSpec>) -> PolicySpec {
    PolicySpec {
        roles,
        ..PolicySpec::default()
    }
}

fn with_rule(rule: RuleSpec) -> PolicySpec {
    spec(vec![RoleSpec {
        rules: vec![rule],
        ..role("r")
    }])
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

#[test]
fn every_fault_is_found_and_said_where() {
    let approval = |wait_s| {
        Some(ApprovalSpec {
            wait_s,
            ..ApprovalSpec::default()
        })
    };
    let table: Vec<(PolicySpec, &str, &str)> = vec![
        (spec(vec![role("")]), "roles[0].name", "name"),
        (spec(vec![role("a b")]), "roles.a b.name", "name"),
        (
            spec(vec![role("r"), role("r")]),
            "roles.r.name",
            "another role",
        ),
        (
            spec(vec![RoleSpec {
                groups: vec![],
                ..role("r")
            }]),
            "roles.r.groups",
            "nobody",
        ),
        (
            spec(vec![RoleSpec {
                targets: vec![],
                ..role("r")
            }]),
            "roles.r.targets",
            "nobody",
        ),
        (
            spec(vec![RoleSpec {
                default: Action::Alert,
                ..role("r")
            }]),
            "roles.r.default",
            "marks",
        ),
        (
            spec(vec![RoleSpec {
                function_call: Action::Approve,
                ..role("r")
            }]),
            "roles.r.function_call",
            "allow or deny",
        ),
        (
            spec(vec![RoleSpec {
                packs: words(&["nosuch"]),
                ..role("r")
            }]),
            "roles.r.packs[0]",
            "client-preamble",
        ),
        (
            spec(vec![RoleSpec {
                rules: vec![rule("x"), rule("x")],
                ..role("r")
            }]),
            "roles.r.rules[1].name",
            "another rule",
        ),
        (with_rule(rule("default")), "roles.r.rules[0].name", "kept"),
        (
            with_rule(RuleSpec {
                statements: words(&["select", "drop_tables"]),
                ..rule("x")
            }),
            "roles.r.rules[0].statements[1]",
            "drop_table",
        ),
        (
            with_rule(RuleSpec {
                tables: words(&["a.b.c"]),
                ..rule("x")
            }),
            "roles.r.rules[0].tables[0]",
            "schema.name",
        ),
        (
            with_rule(RuleSpec {
                tables_read: words(&[""]),
                ..rule("x")
            }),
            "roles.r.rules[0].tables_read[0]",
            "bytes",
        ),
        (
            with_rule(RuleSpec {
                columns: words(&["ssn"]),
                ..rule("x")
            }),
            "roles.r.rules[0].columns[0]",
            "table.column",
        ),
        (
            with_rule(RuleSpec {
                functions: words(&["a."]),
                ..rule("x")
            }),
            "roles.r.rules[0].functions[0]",
            "schema.name",
        ),
        (
            with_rule(RuleSpec {
                copy: words(&["out"]),
                ..rule("x")
            }),
            "roles.r.rules[0].copy[0]",
            "to_stdout",
        ),
        (
            with_rule(RuleSpec {
                when: Some("x ==".into()),
                ..rule("x")
            }),
            "roles.r.rules[0].when",
            "CEL",
        ),
        (
            with_rule(RuleSpec {
                message: Some("a\u{7}".into()),
                ..rule("x")
            }),
            "roles.r.rules[0].message",
            "control",
        ),
        (
            with_rule(RuleSpec {
                approval: approval(10),
                ..rule("x")
            }),
            "roles.r.rules[0].approval",
            "approve",
        ),
        (
            with_rule(RuleSpec {
                action: Action::Approve,
                approval: approval(0),
                ..rule("x")
            }),
            "roles.r.rules[0].approval.wait_s",
            "outside",
        ),
        (
            PolicySpec {
                limits: SqlLimits {
                    statement_bytes_max: 65 << 20,
                    ..SqlLimits::default()
                },
                ..spec(vec![])
            },
            "limits.statement_bytes_max",
            "outside",
        ),
        (
            PolicySpec {
                limits: SqlLimits {
                    nesting_max: 501,
                    ..SqlLimits::default()
                },
                ..spec(vec![])
            },
            "limits.nesting_max",
            "outside",
        ),
    ];
    for (spec, path, part) in table {
        let errors = PolicySet::compile(&spec).expect_err(path);
        assert!(
            errors
                .iter()
                .any(|e| e.path == path && e.message.contains(part)),
            "{path}: {errors:?}"
        );
    }
}

#[test]
fn all_faults_come_at_once() {
    let spec = spec(vec![
        RoleSpec {
            groups: vec![],
            ..role("a")
        },
        RoleSpec {
            rules: vec![RuleSpec {
                copy: words(&["x", "y"]),
                ..rule("x")
            }],
            ..role("b")
        },
    ]);
    assert_eq!(PolicySet::compile(&spec).expect_err("faults").len(), 3);
}

#[test]
fn the_version_is_the_digest_of_what_was_written() {
    let one = PolicySet::compile(&spec(vec![role("r")])).expect("compiles");
    let same = PolicySet::compile(&spec(vec![role("r")])).expect("compiles");
    let other = PolicySet::compile(&spec(vec![RoleSpec {
        default: Action::Allow,
        ..role("r")
    }]))
    .expect("compiles");
    assert_eq!(one.version(), same.version());
    assert_ne!(one.version(), other.version());
    assert_eq!(one.version().len(), 64);
    assert!(one.version().bytes().all(|b| b.is_ascii_hexdigit()));
}

#[test]
fn the_first_role_in_file_order_fits() {
    let any = RoleSpec {
        groups: words(&["*"]),
        targets: words(&["*"]),
        ..role("any")
    };
    let set = PolicySet::compile(&spec(vec![role("devs"), any])).expect("compiles");
    let name = |groups: &[&str], target: &str| {
        set.role_for(&words(groups), target)
            .map(|r| r.name().to_owned())
    };
    assert_eq!(name(&["x", "devs"], "prod-1").as_deref(), Some("devs"));
    assert_eq!(name(&["x"], "prod-1").as_deref(), Some("any"));
    assert_eq!(name(&["devs"], "test").as_deref(), Some("any"));
    let set = PolicySet::compile(&spec(vec![role("devs")])).expect("compiles");
    assert!(set.role_for(&words(&["other"]), "prod-1").is_none());
    assert!(set.role_for(&words(&["devs"]), "other").is_none());
    assert!(set.role_for(&[], "prod-1").is_none());
    assert!(set.role("devs").is_some() && set.role("nosuch").is_none());
}

#[test]
fn packs_are_on_off_and_named() {
    let reads = |packs: &[&str]| {
        let spec = spec(vec![RoleSpec {
            default: Action::Allow,
            packs: words(packs),
            ..role("r")
        }]);
        PolicySet::compile(&spec)
            .expect("compiles")
            .role("r")
            .expect("the role")
            .reads_sql()
    };
    assert!(reads(&[]), "no-credential-minting is on by default");
    assert!(!reads(&["-no-credential-minting"]));
    assert!(reads(&["-no-credential-minting", "client-preamble"]));
}

#[test]
fn precedence_is_deny_approve_allow_and_alerts_only_mark() {
    let named = |name: &str, action| RuleSpec {
        action,
        tables: words(&[name]),
        ..rule(name)
    };
    let spec = spec(vec![RoleSpec {
        rules: vec![
            RuleSpec {
                action: Action::Allow,
                statements: words(&["select"]),
                ..rule("reading")
            },
            named("held", Action::Approve),
            named("denied", Action::Deny),
            named("watched", Action::Alert),
        ],
        ..role("r")
    }]);
    let set = PolicySet::compile(&spec).expect("compiles");
    let role = set.role("r").expect("the role");
    for (text, action, rule, alerts) in [
        ("select * from other", Action::Allow, "reading", 0),
        ("select * from held", Action::Approve, "held", 0),
        ("select * from held, denied", Action::Deny, "denied", 0),
        ("select * from held, watched", Action::Approve, "held", 1),
        ("select * from watched", Action::Allow, "reading", 1),
        ("select * from watched, denied", Action::Deny, "denied", 1),
        ("delete from other", Action::Deny, "default", 0),
        ("delete from held", Action::Approve, "held", 0),
    ] {
        let why = explain(&set, &role, &SessionFacts::default(), text);
        let d = &why.decision;
        assert_eq!(
            (d.action, &*d.rule, d.alerts.len()),
            (action, rule, alerts),
            "{text}"
        );
        assert_eq!(d.approval.is_some(), action == Action::Approve);
        assert_eq!(
            why.rules.len(),
            6,
            "every rule is considered, those of the default pack too"
        );
        let shown = why.to_string();
        assert!(
            shown.contains(rule) && shown.contains(action.as_str()),
            "{shown}"
        );
    }
}

#[test]
fn what_explain_prints_cannot_drive_a_terminal() {
    let set = PolicySet::compile(&spec(vec![role("r")])).expect("compiles");
    let role = set.role("r").expect("the role");
    let shown = explain(
        &set,
        &role,
        &SessionFacts::default(),
        "select * from \"a\u{1b}]52;c;eA==\u{7}\u{202e}b\"",
    )
    .to_string();
    assert!(
        shown.contains("\\u{1b}") && shown.contains("\\u{202e}"),
        "{shown}"
    );
    assert!(
        !shown
            .chars()
            .any(|c| (c.is_control() && c != '\n') || c == '\u{202e}')
    );
}

#[test]
fn a_condition_that_cannot_be_evaluated_denies_and_names_its_rule() {
    let spec = spec(vec![RoleSpec {
        default: Action::Allow,
        rules: vec![RuleSpec {
            action: Action::Allow,
            when: Some("principal.claims.team == 'blue'".into()),
            ..rule("team")
        }],
        ..role("r")
    }]);
    let set = PolicySet::compile(&spec).expect("compiles");
    let role = set.role("r").expect("the role");
    let why = explain(&set, &role, &SessionFacts::default(), "select 1");
    assert_eq!(
        (why.decision.action, &*why.decision.rule),
        (Action::Deny, "team")
    );
    let mut session = SessionFacts::default();
    session
        .principal
        .claims
        .insert("team".into(), "blue".into());
    assert_eq!(
        explain(&set, &role, &session, "select 1").decision.action,
        Action::Allow
    );
}

#[test]
fn unknown_keys_are_errors_and_the_names_are_the_documented_ones() {
    let text = r#"
        [[roles]]
        name = "r"
        groups = ["g"]
        targets = ["t"]
        default = "approve"
        packs = ["client-preamble"]
        [[roles.rules]]
        name = "x"
        action = "approve"
        statements = ["update"]
        where_present = false
        approval = { wait_s = 60, in_transaction_wait_s = 10, reason_required = true }
        message = "ask first"
    "#;
    let spec: PolicySpec = toml::from_str(text).expect("reads");
    assert!(PolicySet::compile(&spec).is_ok());
    assert!(toml::from_str::<PolicySpec>(&text.replace("message", "massage")).is_err());
}
