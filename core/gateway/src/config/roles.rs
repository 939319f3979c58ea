//! Roles and rules: from the file to the policy crate's own specification,
//! and the policy crate's complaints back to their places in the file.

use super::check::Checker;
use super::checked::{Account, Approvals, Limits, RecordingMode, RoleExtras, Target};
use super::raw::{RawLimits, RawRole, RawRule};
use policy::{Action, ApprovalSpec, PolicySet, PolicySpec, RoleSpec, RuleSpec, SqlLimits};

/// Checks all roles by compiling the policy they make.
pub(super) fn roles(
    c: &mut Checker<'_>,
    raw: Vec<RawRole>,
    raw_limits: &RawLimits,
    limits: &Limits,
    approvals: &Approvals,
    recording: RecordingMode,
    targets: &[Target],
) -> (PolicySpec, Vec<RoleExtras>) {
    if raw.is_empty() {
        c.complain(
            "roles",
            "no role: nobody could do anything",
            "add a [[roles]] section",
        );
    }
    let defaults = SqlLimits::default();
    let mut spec = PolicySpec {
        limits: SqlLimits {
            statement_bytes_max: limits.statement_bytes_max,
            tokens_max: raw_limits
                .statement_tokens_max
                .map_or(defaults.tokens_max, |n| n as usize),
            parse_inline_bytes_max: raw_limits
                .parse_inline_bytes_max
                .map_or(defaults.parse_inline_bytes_max, |n| n as usize),
            nesting_max: raw_limits
                .statement_nesting_max
                .map_or(defaults.nesting_max, |n| n as usize),
            ..defaults
        },
        roles: Vec::new(),
    };
    let mut extras = Vec::new();
    for (i, r) in raw.into_iter().enumerate() {
        let name = r.name.unwrap_or_default();
        let accounts = r.accounts.unwrap_or_default();
        let role_targets = r.targets.unwrap_or_default();
        let passes_user =
            |t: &&Target| t.account == Account::FromAgent && role_targets.contains(&t.name);
        if accounts.is_empty() && targets.iter().any(|t| passes_user(&t)) {
            c.complain(
                &format!("roles[{i}].accounts"),
                format!("role `{name}` opens a target whose account is the agent's choice, but allows no account"),
                "list the `accounts` it may name",
            );
        }
        extras.push(RoleExtras {
            name: name.clone(),
            accounts,
            recording: match r.recording.as_deref() {
                Some("requests") => RecordingMode::Requests,
                Some(_) => RecordingMode::Async,
                None => recording,
            },
            connections_max: r.connections_max.unwrap_or(1000) as usize,
        });
        spec.roles.push(RoleSpec {
            name,
            groups: r.groups.unwrap_or_default(),
            targets: role_targets,
            default: action(r.default.as_deref()),
            rules: r
                .rules
                .unwrap_or_default()
                .into_iter()
                .map(|rule| self::rule(rule, approvals))
                .collect(),
            packs: r.packs.unwrap_or_default(),
            allow_replication: false,
            function_call: action(r.function_call.as_deref()),
            search_path: r.search_path.unwrap_or_else(|| vec!["public".into()]),
        });
    }
    if let Err(errors) = PolicySet::compile(&spec) {
        for e in errors {
            c.complain(&place(&e.path, &spec), e.message.clone(), "");
        }
    }
    (spec, extras)
}

fn action(text: Option<&str>) -> Action {
    match text {
        Some("allow") => Action::Allow,
        Some("approve") => Action::Approve,
        Some("alert") => Action::Alert,
        _ => Action::Deny,
    }
}

fn rule(r: RawRule, approvals: &Approvals) -> RuleSpec {
    let action = action(r.action.as_deref());
    RuleSpec {
        name: r.name.unwrap_or_default(),
        action,
        statements: r.statements.unwrap_or_default(),
        tables: r.tables.unwrap_or_default(),
        tables_written: r.tables_written.unwrap_or_default(),
        tables_read: r.tables_read.unwrap_or_default(),
        columns: r.columns.unwrap_or_default(),
        functions: r.functions.unwrap_or_default(),
        settings: r.settings.unwrap_or_default(),
        databases: r.databases.unwrap_or_default(),
        where_present: r.where_present,
        copy: r.copy.unwrap_or_default(),
        opaque: r.opaque,
        when: r.when,
        approval: (action == Action::Approve).then(|| ApprovalSpec {
            wait_s: r.wait_s.unwrap_or(approvals.wait_s) as u32,
            in_transaction_wait_s: r
                .wait_in_transaction_s
                .unwrap_or(approvals.wait_in_transaction_s)
                as u32,
            reason_required: r.reason_required.unwrap_or(false),
            ..ApprovalSpec::default()
        }),
        message: r.message,
    }
}

/// The policy crate names roles by position or by name; the document looks
/// places up by position.
fn place(path: &str, spec: &PolicySpec) -> String {
    let Some(rest) = path.strip_prefix("roles.") else {
        return path.to_string();
    };
    for (i, role) in spec.roles.iter().enumerate() {
        if let Some(tail) = rest.strip_prefix(role.name.as_str())
            && (tail.is_empty() || tail.starts_with(['.', '[']))
        {
            return format!("roles[{i}]{tail}");
        }
    }
    path.to_string()
}
