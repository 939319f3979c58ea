//! Every rule of a role against the facts of one statement.
//!
//! Deny, approve and alert rules match where *any* part of the statement may
//! fit; allow rules only where *every* part surely does.

use crate::compile::{ColumnPattern, NamePattern, Role, Rule};
use crate::decision::{Decision, DenyKind};
use crate::gate::{Binds, SessionFacts};
use crate::glob::Glob;
use crate::spec::Action;
use crate::sql::{ColumnName, Opaque, SqlFacts, StatementFacts, TableName};
use crate::when;
use cel::Context;
use std::sync::Arc;

/// Most pairs of a column and a table that an allow rule for columns looks at.
const COLUMN_CHECKS_MAX: usize = 100_000;

/// What stands beside the facts when rules are asked.
#[derive(Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    pub session: &'a SessionFacts,
    /// The bind values; `None` = not known yet (a Parse): rules that read them
    /// are left for Bind.
    pub binds: Option<Binds<'a>>,
    /// Whether the session has changed `search_path` itself.
    pub search_path_changed: bool,
}

/// How one rule took one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Yes,
    No(&'static str),
    /// Left for Bind.
    Later,
    /// It cannot be evaluated: why.
    Broken(String),
}

/// What conditions see of one statement: without and with bind values; built
/// when the first condition asks.
type Contexts = [Option<Result<Context<'static, 'static>, String>>; 2];

/// Decides one text: every statement by itself, the strictest wins.
pub(crate) fn decide(
    role: &Role,
    facts: &SqlFacts,
    circumstances: Circumstances<'_>,
    mut seen: impl FnMut(usize, &Rule, &Match),
) -> Decision {
    let mut circumstances = circumstances;
    let mut outcome: Option<Decision> = None;
    for (index, statement) in facts.statements.iter().enumerate() {
        let one = decide_statement(role, facts, statement, circumstances, |rule, m| {
            seen(index, rule, m)
        });
        // A statement that moves the search path does so for what follows.
        circumstances.search_path_changed |= moves_path(role, statement);
        outcome = Some(match outcome {
            None => one,
            Some(before) => before.stricter(one),
        });
    }
    // A text without statements asks for nothing.
    outcome.unwrap_or_else(|| allow(role, "empty", "the text holds no statement"))
}

/// Whether a statement changes, or may change, where unqualified names live:
/// `search_path` itself, the role behind `$user`, or anything unseen.
pub(crate) fn moves_path(role: &Role, statement: &StatementFacts) -> bool {
    !statement.opaque.is_empty()
        || statement.set_role.is_some()
        || statement
            .settings
            .iter()
            .any(|setting| match setting.name.as_str() {
                // Without a value it goes back to what the session started with.
                "search_path" => {
                    setting
                        .value
                        .as_deref()
                        .is_some_and(|v| !is_own_path(role, v))
                        || !setting.known
                }
                name => name == "*",
            })
}

/// Whether a value of `search_path` is the one that the role assumes.
pub(crate) fn is_own_path(role: &Role, value: &str) -> bool {
    value
        .split(',')
        .map(|part| part.trim().trim_matches('"'))
        .filter(|part| *part != "$user")
        .eq(role.search_path.iter().map(String::as_str))
}

fn allow(role: &Role, rule: &str, reason: &str) -> Decision {
    Decision {
        action: Action::Allow,
        alerts: Arc::from([]),
        rule: rule.into(),
        reason: reason.into(),
        message: None,
        approval: None,
        policy_version: role.version.clone(),
        deny: None,
    }
}

/// Decides one statement.
pub(crate) fn decide_statement(
    role: &Role,
    facts: &SqlFacts,
    statement: &StatementFacts,
    circumstances: Circumstances<'_>,
    mut seen: impl FnMut(&Rule, &Match),
) -> Decision {
    let mut contexts: Contexts = [None, None];
    let mut alerts: Vec<Arc<str>> = Vec::new();
    let mut denied: Option<(&Rule, Option<String>)> = None;
    let mut held: Option<&Rule> = None;
    let mut allowed: Option<&Rule> = None;
    let mut opaque_named = false;
    for rule in &role.rules {
        let m = matches(role, rule, facts, statement, circumstances, &mut contexts);
        seen(rule, &m);
        match (&m, rule.action) {
            (Match::Broken(why), _) => {
                if denied.is_none() {
                    denied = Some((rule, Some(why.clone())));
                }
            }
            (Match::Yes, Action::Deny) => {
                if denied.is_none() {
                    denied = Some((rule, None));
                }
            }
            (Match::Yes, Action::Approve) => held = held.or(Some(rule)),
            (Match::Yes, Action::Allow) => {
                let names = names_opaque(rule, statement);
                if allowed.is_none() || (names && !opaque_named) {
                    allowed = Some(rule);
                }
                opaque_named |= names;
            }
            (Match::Yes, Action::Alert) => alerts.push(rule.name.clone()),
            (Match::No(_) | Match::Later, _) => {}
        }
    }
    let mut decision = allow(role, "default", "");
    decision.alerts = alerts.into();
    let what = what(statement);
    if let Some((rule, broken)) = denied {
        decision.action = Action::Deny;
        decision.rule = rule.name.clone();
        decision.message = rule.message.clone();
        (decision.deny, decision.reason) = match broken {
            Some(why) => (
                Some(DenyKind::NotEvaluated),
                format!("rule {} cannot be evaluated: {why}", rule.name).into(),
            ),
            None => (
                Some(DenyKind::Rule),
                format!("rule {} denies {what}", rule.name).into(),
            ),
        };
    } else if let Some(rule) = held {
        decision.action = Action::Approve;
        decision.rule = rule.name.clone();
        decision.message = rule.message.clone();
        decision.approval = Some(
            rule.approval
                .clone()
                .unwrap_or_else(|| role.default_approval.clone()),
        );
        decision.reason = format!("rule {} holds {what} for approval", rule.name).into();
    } else if let Some(rule) = allowed {
        if statement.opaque.is_empty() || opaque_named {
            decision.rule = rule.name.clone();
            decision.message = rule.message.clone();
            decision.reason = format!("rule {} allows {what}", rule.name).into();
        } else {
            not_seen_through(&mut decision, statement);
        }
    } else {
        match role.default {
            Action::Allow if statement.opaque.is_empty() => {
                decision.reason = format!("no rule matches {what}; the default is allow").into();
            }
            Action::Allow => not_seen_through(&mut decision, statement),
            Action::Approve => {
                decision.action = Action::Approve;
                decision.approval = Some(role.default_approval.clone());
                decision.reason = format!("no rule matches {what}; the default is approve").into();
            }
            Action::Deny | Action::Alert => {
                decision.action = Action::Deny;
                decision.deny = Some(DenyKind::Default);
                decision.reason = format!("no rule allows {what}").into();
            }
        }
    }
    decision
}

/// Denies a statement for being opaque.
fn not_seen_through(decision: &mut Decision, statement: &StatementFacts) {
    let why: Vec<String> = statement
        .opaque
        .iter()
        .take(3)
        .map(ToString::to_string)
        .collect();
    decision.action = Action::Deny;
    decision.rule = "opaque".into();
    decision.deny = Some(DenyKind::Opaque);
    decision.reason = format!(
        "the statement cannot be judged by its text: {}",
        why.join("; ")
    )
    .into();
}

/// The statement in a few words, without values.
fn what(statement: &StatementFacts) -> String {
    let mut out = statement.kind.to_owned();
    let mut tables: Vec<String> = statement
        .tables_written
        .iter()
        .chain(&statement.tables_read)
        .take(4)
        .map(ToString::to_string)
        .collect();
    tables.dedup();
    if !tables.is_empty() {
        out.push_str(" of ");
        out.push_str(&tables.join(", "));
    }
    out
}

/// Whether an allow rule names everything opaque in the statement.
fn names_opaque(rule: &Rule, statement: &StatementFacts) -> bool {
    rule.opaque == Some(true)
        || statement.opaque.iter().all(|reason| match reason {
            Opaque::Function(f) => rule.functions.iter().any(|p| {
                p.name.is_exact()
                    && p.name.matches(&f.name)
                    && schema_may(p.schema.as_ref(), f.schema.as_deref())
            }),
            Opaque::Because(_) => false,
        })
}

fn schema_may(pattern: Option<&Glob>, schema: Option<&str>) -> bool {
    match (pattern, schema) {
        (Some(p), Some(s)) => p.matches(s),
        _ => true,
    }
}

/// Where unqualified names may live.
#[derive(Clone, Copy)]
struct Path<'a> {
    role: &'a Role,
    account: &'a str,
    changed: bool,
}

impl Path<'_> {
    /// Whether an unqualified table may live in a schema that fits.
    fn may_hold(self, schema: &Glob, table: &str) -> bool {
        self.changed
            || self.role.search_path.iter().any(|own| schema.matches(own))
            || schema.matches(self.account)
            || (table.starts_with("pg_") && schema.matches("pg_catalog"))
    }
}

/// Whether a table may be meant by a pattern: for deny, approve, alert.
///
/// An unqualified name is taken for the table that a pattern names, in
/// whatever schema; for `schema.*` the assumed search path decides, or else
/// one such rule would stop every unqualified name.
fn table_may(p: &NamePattern, t: &TableName, path: Path<'_>) -> bool {
    if t.name != "*" && !p.name.matches(&t.name) {
        return false;
    }
    match (&p.schema, t.schema.as_deref()) {
        (Some(p), Some(s)) => p.matches(s),
        (Some(schema), None) if p.name.is_all() && t.name != "*" => path.may_hold(schema, &t.name),
        _ => true,
    }
}

/// Whether a table is surely meant by a pattern: for allow.
fn table_surely(p: &NamePattern, t: &TableName, role: &Role, changed: bool) -> bool {
    let name = if t.name == "*" {
        p.name.is_all()
    } else {
        p.name.matches(&t.name)
    };
    // Catalogs come first on every search path, whatever else is on it.
    let schema = match t.schema.as_deref() {
        None if t.name.starts_with("pg_") => Some("pg_catalog"),
        given => given,
    };
    name && match (&p.schema, schema) {
        (None, _) if p.name.is_all() => true,
        (None, Some(s)) => role.search_path.iter().any(|own| own == s),
        (Some(p), Some(s)) => p.matches(s),
        (Some(p), None) if p.is_all() => true,
        (None, None) => !changed,
        (Some(p), None) => {
            !changed
                && !role.search_path.is_empty()
                && role.search_path.iter().all(|own| p.matches(own))
        }
    }
}

/// Whether any column of the statement may be meant by a pattern.
fn column_may(p: &ColumnPattern, s: &StatementFacts, path: Path<'_>) -> bool {
    // Asked once for all columns without a table of their own.
    let any_table = s
        .tables_read
        .iter()
        .chain(&s.tables_written)
        .any(|t| table_may(&p.table, t, path));
    s.columns.iter().any(|c| {
        (c.name == "*" || p.column.matches(&c.name))
            && if c.tables.is_empty() {
                any_table
            } else {
                c.tables.iter().any(|t| table_may(&p.table, t, path))
            }
    })
}

fn column_surely(
    list: &[ColumnPattern],
    c: &ColumnName,
    statement: &StatementFacts,
    role: &Role,
    changed: bool,
) -> bool {
    let covered = |t: &TableName| {
        list.iter().any(|p| {
            table_surely(&p.table, t, role, changed)
                && if c.name == "*" {
                    p.column.is_all()
                } else {
                    p.column.matches(&c.name)
                }
        })
    };
    if c.tables.is_empty() {
        statement
            .tables_read
            .iter()
            .chain(&statement.tables_written)
            .all(covered)
    } else {
        c.tables.iter().all(covered)
    }
}

/// Kinds that may touch no table at all and still be meant by a table rule.
fn tableless(kind: &str) -> bool {
    matches!(
        kind,
        "select" | "explain" | "prepare" | "declare" | "show" | "fetch" | "move" | "close"
    )
}

fn matches(
    role: &Role,
    rule: &Rule,
    facts: &SqlFacts,
    statement: &StatementFacts,
    circumstances: Circumstances<'_>,
    contexts: &mut Contexts,
) -> Match {
    if !rule.databases.is_empty()
        && !rule
            .databases
            .iter()
            .any(|d| d.matches(&circumstances.session.database))
    {
        return Match::No("another database");
    }
    let fits = if rule.action == Action::Allow {
        allow_fits(role, rule, statement, circumstances.search_path_changed)
    } else {
        let path = Path {
            role,
            account: &circumstances.session.account,
            changed: circumstances.search_path_changed,
        };
        any_fits(rule, statement, path)
    };
    if let Err(why) = fits {
        return Match::No(why);
    }
    let Some(when) = &rule.when else {
        return Match::Yes;
    };
    if when.reads_binds {
        match circumstances.binds {
            None => return Match::Later,
            Some(Binds::Unread) => {
                return Match::Broken("the bind values were not read".to_owned());
            }
            Some(Binds::Values(_)) => {}
        }
    }
    // Bind values are only looked at for a rule that asks for them, so that
    // unreadable ones do not break the others.
    let [plain, with_binds] = contexts;
    let (slot, binds) = if when.reads_binds {
        (with_binds, circumstances.binds)
    } else {
        (plain, None)
    };
    let built =
        slot.get_or_insert_with(|| when::context(facts, statement, circumstances.session, binds));
    match built {
        Err(why) => Match::Broken(why.clone()),
        Ok(context) => match when.holds(context) {
            Ok(true) => Match::Yes,
            Ok(false) => Match::No("when is false"),
            Err(why) => Match::Broken(why),
        },
    }
}

/// Deny, approve, alert: does any part fit every key?
fn any_fits(rule: &Rule, s: &StatementFacts, path: Path<'_>) -> Result<(), &'static str> {
    if rule
        .kinds
        .as_ref()
        .is_some_and(|kinds| !s.kinds.iter().any(|k| kinds.contains(k)))
    {
        return Err("another kind of statement");
    }
    let touched = |list: &[NamePattern], tables: &[&[TableName]]| {
        list.is_empty()
            || tables
                .iter()
                .any(|t| t.iter().any(|t| list.iter().any(|p| table_may(p, t, path))))
    };
    if !touched(&rule.tables, &[&s.tables_read, &s.tables_written]) {
        return Err("other tables");
    }
    if !touched(&rule.tables_read, &[&s.tables_read]) {
        return Err("reads other tables");
    }
    if !touched(&rule.tables_written, &[&s.tables_written]) {
        return Err("writes other tables");
    }
    if !rule.columns.is_empty() && !rule.columns.iter().any(|p| column_may(p, s, path)) {
        return Err("other columns");
    }
    if !rule.functions.is_empty()
        && !s.functions.iter().any(|f| {
            rule.functions.iter().any(|p| {
                p.name.matches(&f.name) && schema_may(p.schema.as_ref(), f.schema.as_deref())
            })
        })
        // `t.name` calls a function of the row where `t` has no such column.
        && !s.columns.iter().any(|c| {
            !c.written
                && !c.tables.is_empty()
                && rule
                    .functions
                    .iter()
                    .any(|p| !p.name.is_all() && p.name.matches(&c.name))
        })
    {
        return Err("other functions");
    }
    if !rule.settings.is_empty()
        && !s
            .settings
            .iter()
            .any(|x| x.name == "*" || rule.settings.iter().any(|p| p.matches(&x.name)))
    {
        return Err("other settings");
    }
    match rule.where_present {
        Some(true) if !s.where_found => return Err("no UPDATE or DELETE with WHERE"),
        Some(false) if !s.where_missing => return Err("no UPDATE or DELETE without WHERE"),
        _ => {}
    }
    if !rule.copy.is_empty() && !s.copy.iter().any(|c| rule.copy.contains(c)) {
        return Err("another form of COPY");
    }
    if rule
        .opaque
        .is_some_and(|wanted| wanted == s.opaque.is_empty())
    {
        return Err(if s.opaque.is_empty() {
            "nothing opaque"
        } else {
            "opaque"
        });
    }
    Ok(())
}

/// Allow: does every part fit every key?
fn allow_fits(
    role: &Role,
    rule: &Rule,
    s: &StatementFacts,
    changed: bool,
) -> Result<(), &'static str> {
    if rule
        .kinds
        .as_ref()
        .is_some_and(|kinds| !s.kinds.iter().all(|k| kinds.contains(k)))
    {
        return Err("another kind of statement");
    }
    let by_kind = rule.kinds.is_some();
    let by_table =
        !(rule.tables.is_empty() && rule.tables_read.is_empty() && rule.tables_written.is_empty());
    if by_table {
        let covered = |list: &[NamePattern], t: &TableName| {
            list.iter().any(|p| table_surely(p, t, role, changed))
        };
        let side = |tables: &[TableName], own: &[NamePattern]| {
            tables.iter().all(|t| {
                (!rule.tables.is_empty() || !own.is_empty())
                    && (rule.tables.is_empty() || covered(&rule.tables, t))
                    && (own.is_empty() || covered(own, t))
            })
        };
        if !side(&s.tables_read, &rule.tables_read) {
            return Err("reads other tables");
        }
        if !side(&s.tables_written, &rule.tables_written) {
            return Err("writes other tables");
        }
        if s.tables_read.is_empty()
            && s.tables_written.is_empty()
            && !s
                .kinds
                .iter()
                .all(|k| tableless(k) || (by_kind && *k == "execute"))
        {
            return Err("touches no table that could be allowed");
        }
    }
    if !rule.columns.is_empty() {
        if s.columns.is_empty() && !by_kind && !by_table {
            return Err("names no column");
        }
        let tables = s.tables_read.len() + s.tables_written.len();
        if s.columns.len().saturating_mul(tables) > COLUMN_CHECKS_MAX {
            return Err("too many columns and tables to be sure");
        }
        if !s
            .columns
            .iter()
            .all(|c| column_surely(&rule.columns, c, s, role, changed))
        {
            return Err("other columns");
        }
    }
    if !rule.functions.is_empty() {
        if s.functions.is_empty() && !by_kind {
            return Err("calls no function");
        }
        let surely = |p: &NamePattern, schema: Option<&str>| match (&p.schema, schema) {
            (None, None | Some("pg_catalog")) => true,
            (None, Some(schema)) => {
                p.name.is_all() || role.search_path.iter().any(|own| own == schema)
            }
            (Some(p), Some(schema)) => p.matches(schema),
            (Some(p), None) => {
                p.is_all()
                    || p.matches("pg_catalog")
                    || (!changed && role.search_path.iter().any(|s| p.matches(s)))
            }
        };
        if !s.functions.iter().all(|f| {
            rule.functions
                .iter()
                .any(|p| p.name.matches(&f.name) && surely(p, f.schema.as_deref()))
        }) {
            return Err("other functions");
        }
        if !by_kind && !s.kinds.iter().all(|k| tableless(k) || *k == "call") {
            return Err("more than a call");
        }
    }
    if !rule.settings.is_empty() {
        if s.settings.is_empty() && !by_kind {
            return Err("changes no setting");
        }
        let known = |name: &str| {
            rule.settings.iter().any(|p| {
                if name == "*" {
                    p.is_all()
                } else {
                    p.matches(name)
                }
            })
        };
        if !s.settings.iter().all(|x| known(&x.name)) {
            return Err("other settings");
        }
    }
    match rule.where_present {
        Some(true) if s.where_missing => return Err("an UPDATE or DELETE without WHERE"),
        Some(false) if s.where_found => return Err("an UPDATE or DELETE with WHERE"),
        Some(_) if !s.where_found && !s.where_missing && !by_kind && !by_table => {
            return Err("no UPDATE or DELETE");
        }
        _ => {}
    }
    if !rule.copy.is_empty() && (s.copy.is_empty() || !s.copy.iter().all(|c| rule.copy.contains(c)))
    {
        return Err("another form of COPY");
    }
    match rule.opaque {
        Some(false) if !s.opaque.is_empty() => return Err("opaque"),
        Some(true)
            if s.opaque.is_empty()
                && !by_kind
                && !by_table
                && rule.functions.is_empty()
                && rule.copy.is_empty() =>
        {
            return Err("nothing opaque");
        }
        _ => {}
    }
    Ok(())
}
