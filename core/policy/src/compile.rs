//! From what was written to what was checked.

use crate::glob::Glob;
use crate::packs;
use crate::spec::{Action, ApprovalSpec, PolicySpec, RoleSpec, RuleSpec, SqlLimits};
use crate::sql::{CopyForm, GROUPS, KINDS, in_group};
use crate::when::When;
use std::collections::HashSet;
use std::sync::Arc;

/// Most roles in one policy.
const ROLES_MAX: usize = 1000;
/// Most rules in one role, packs included.
const RULES_MAX: usize = 2000;
/// Most entries in one list of a rule.
const ENTRIES_MAX: usize = 2000;
/// Longest name or pattern in bytes.
const PATTERN_BYTES_MAX: usize = 256;

/// One fault in the policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct PolicyError {
    /// Where, like `roles.analyst.rules[2].when`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// `schema.table` with globs.
#[derive(Clone, Debug)]
pub(crate) struct NamePattern {
    pub schema: Option<Glob>,
    pub name: Glob,
}

/// `table.column` or `schema.table.column`.
#[derive(Clone, Debug)]
pub(crate) struct ColumnPattern {
    pub table: NamePattern,
    pub column: Glob,
}

/// A checked rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub name: Arc<str>,
    pub action: Action,
    /// The kinds it names, groups spelt out; `None` = any.
    pub kinds: Option<HashSet<&'static str>>,
    pub tables: Vec<NamePattern>,
    pub tables_written: Vec<NamePattern>,
    pub tables_read: Vec<NamePattern>,
    pub columns: Vec<ColumnPattern>,
    pub functions: Vec<NamePattern>,
    pub databases: Vec<Glob>,
    pub settings: Vec<Glob>,
    pub where_present: Option<bool>,
    pub copy: Vec<CopyForm>,
    pub opaque: Option<bool>,
    pub when: Option<When>,
    pub approval: Option<Arc<ApprovalSpec>>,
    pub message: Option<Arc<str>>,
}

/// A checked role.
#[derive(Debug)]
pub struct Role {
    pub(crate) name: String,
    pub(crate) groups: Vec<Glob>,
    pub(crate) targets: Vec<Glob>,
    pub(crate) default: Action,
    pub(crate) rules: Vec<Rule>,
    pub(crate) function_call: Action,
    pub(crate) search_path: Vec<String>,
    pub(crate) default_approval: Arc<ApprovalSpec>,
    pub(crate) limits: SqlLimits,
    pub(crate) version: Arc<str>,
    reads_sql: bool,
    reads_binds: bool,
    reads_principal: bool,
    reads_length: bool,
    replication: bool,
}

/// A shared role.
pub type RoleRef = Arc<Role>;

impl Role {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether any rule needs to read SQL. False only for a role whose default
    /// is allow and that has no rules, packs included (the pack
    /// `no-credential-minting` is on unless it is turned off).
    pub fn reads_sql(&self) -> bool {
        self.reads_sql
    }

    /// Whether any rule's `when` reads bind values.
    pub fn reads_binds(&self) -> bool {
        self.reads_binds
    }

    /// Whether the start-up parameter `replication` may pass.
    pub fn allow_replication(&self) -> bool {
        self.replication
    }

    pub(crate) fn reads_principal(&self) -> bool {
        self.reads_principal
    }

    pub(crate) fn reads_length(&self) -> bool {
        self.reads_length
    }
}

/// A checked policy. Shared by all shards; never changes.
#[derive(Debug)]
pub struct PolicySet {
    version: Arc<str>,
    roles: Vec<RoleRef>,
}

impl PolicySet {
    /// Checks a policy.
    ///
    /// Errors: every fault found, each with its path.
    pub fn compile(spec: &PolicySpec) -> Result<Arc<PolicySet>, Vec<PolicyError>> {
        let mut errors = Errors(Vec::new());
        limits(&spec.limits, &mut errors);
        let version: Arc<str> = match digest(spec) {
            Ok(version) => version.into(),
            Err(message) => {
                errors.add("policy", message);
                "".into()
            }
        };
        if spec.roles.len() > ROLES_MAX {
            errors.add(
                "roles",
                format!("{} roles; at most {ROLES_MAX}", spec.roles.len()),
            );
        }
        let mut names = HashSet::new();
        let mut roles = Vec::new();
        for (index, role) in spec.roles.iter().enumerate() {
            let path = if role.name.is_empty() {
                format!("roles[{index}]")
            } else {
                format!("roles.{}", role.name)
            };
            if !names.insert(role.name.clone()) {
                errors.add(format!("{path}.name"), "another role has this name");
            }
            roles.push(Arc::new(compile_role(
                role,
                &path,
                &spec.limits,
                &version,
                &mut errors,
            )));
        }
        if errors.0.is_empty() {
            Ok(Arc::new(PolicySet { version, roles }))
        } else {
            Err(errors.0)
        }
    }

    /// Hex SHA-256 over the canonical form of the spec.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The version as records share it.
    pub fn version_arc(&self) -> Arc<str> {
        self.version.clone()
    }

    /// The first role in file order for one of the groups and the target.
    pub fn role_for(&self, groups: &[String], target: &str) -> Option<RoleRef> {
        self.roles
            .iter()
            .find(|role| {
                role.targets.iter().any(|t| t.matches(target))
                    && role
                        .groups
                        .iter()
                        .any(|g| g.is_all() || groups.iter().any(|group| g.matches(group)))
            })
            .cloned()
    }

    /// A role by name.
    pub fn role(&self, name: &str) -> Option<RoleRef> {
        self.roles.iter().find(|role| role.name == name).cloned()
    }

    /// Every role, in file order.
    pub fn roles(&self) -> &[RoleRef] {
        &self.roles
    }
}

struct Errors(Vec<PolicyError>);

impl Errors {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(PolicyError {
            path: path.into(),
            message: message.into(),
        });
    }
}

fn digest(spec: &PolicySpec) -> Result<String, String> {
    let bytes = serde_json::to_vec(&(packs::PACKS_VERSION, spec))
        .map_err(|e| format!("cannot be digested: {e}"))?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    Ok(digest.as_ref().iter().map(|b| format!("{b:02x}")).collect())
}

fn limits(l: &SqlLimits, errors: &mut Errors) {
    for (name, value, low, high) in [
        (
            "statement_bytes_max",
            l.statement_bytes_max,
            1 << 10,
            64 << 20,
        ),
        ("tokens_max", l.tokens_max, 100, 1_000_000),
        (
            "parse_inline_bytes_max",
            l.parse_inline_bytes_max,
            0,
            64 << 10,
        ),
        ("nesting_max", l.nesting_max, 20, 500),
        ("names_max", l.names_max, 1, 200_000),
        ("names_bytes_max", l.names_bytes_max, 1 << 10, 1 << 30),
    ] {
        if value < low || value > high {
            errors.add(
                format!("limits.{name}"),
                format!("{value} is outside {low} to {high}"),
            );
        }
    }
}

fn name_ok(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn compile_role(
    role: &RoleSpec,
    path: &str,
    limits: &SqlLimits,
    version: &Arc<str>,
    errors: &mut Errors,
) -> Role {
    if !name_ok(&role.name) {
        errors.add(
            format!("{path}.name"),
            "a name of 1 to 64 letters, digits, `_`, `.` or `-` is needed",
        );
    }
    for (key, list) in [("groups", &role.groups), ("targets", &role.targets)] {
        if list.is_empty() {
            errors.add(
                format!("{path}.{key}"),
                "is empty: the role would fit nobody; write [\"*\"] for all",
            );
        }
    }
    if role.default == Action::Alert {
        errors.add(
            format!("{path}.default"),
            "alert only marks; write allow, deny or approve",
        );
    }
    if !matches!(role.function_call, Action::Allow | Action::Deny) {
        errors.add(
            format!("{path}.function_call"),
            "only allow or deny: FunctionCall names no SQL that one could approve",
        );
    }
    let mut rules = Vec::new();
    let mut names = HashSet::new();
    for (index, rule) in role.rules.iter().enumerate() {
        let path = format!("{path}.rules[{index}]");
        if !name_ok(&rule.name) {
            errors.add(
                format!("{path}.name"),
                "a name of 1 to 64 letters, digits, `_`, `.` or `-` is needed",
            );
        } else if matches!(
            rule.name.as_str(),
            "default" | "opaque" | "unparsable" | "empty"
        ) {
            errors.add(
                format!("{path}.name"),
                "this word is kept for the gateway's own decisions",
            );
        }
        if !names.insert(rule.name.clone()) {
            errors.add(
                format!("{path}.name"),
                "another rule of this role has this name",
            );
        }
        rules.push(compile_rule(rule, &path, errors));
    }
    let mut wanted: Vec<&str> = packs::DEFAULT_PACKS.to_vec();
    for (index, pack) in role.packs.iter().enumerate() {
        let (off, name) = match pack.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, pack.as_str()),
        };
        if !packs::pack_names().contains(&name) {
            let known = packs::pack_names().join(", ");
            errors.add(
                format!("{path}.packs[{index}]"),
                format!("unknown pack `{name}`; known are {known}"),
            );
        }
        wanted.retain(|w| *w != name);
        if !off {
            wanted.push(name);
        }
    }
    for name in wanted {
        for rule in packs::pack(name).unwrap_or_default() {
            rules.push(compile_rule(&rule, &format!("{path}.packs.{name}"), errors));
        }
    }
    if rules.len() > RULES_MAX {
        errors.add(
            format!("{path}.rules"),
            format!("{} rules; at most {RULES_MAX}", rules.len()),
        );
    }
    let reads = |f: fn(&When) -> bool| rules.iter().any(|r| r.when.as_ref().is_some_and(f));
    Role {
        name: role.name.clone(),
        groups: globs(&role.groups, &format!("{path}.groups"), errors),
        targets: globs(&role.targets, &format!("{path}.targets"), errors),
        default: role.default,
        reads_sql: role.default != Action::Allow || !rules.is_empty(),
        reads_binds: reads(|w| w.reads_binds),
        reads_principal: reads(|w| w.reads_principal),
        reads_length: reads(|w| w.reads_length),
        rules,
        function_call: role.function_call,
        search_path: role.search_path.clone(),
        default_approval: Arc::new(ApprovalSpec::default()),
        limits: limits.clone(),
        version: version.clone(),
        replication: role.allow_replication,
    }
}

fn globs(list: &[String], path: &str, errors: &mut Errors) -> Vec<Glob> {
    if list.len() > ENTRIES_MAX {
        errors.add(
            path,
            format!("{} entries; at most {ENTRIES_MAX}", list.len()),
        );
    }
    for (index, entry) in list.iter().enumerate() {
        if entry.is_empty() || entry.len() > PATTERN_BYTES_MAX {
            errors.add(
                format!("{path}[{index}]"),
                format!("1 to {PATTERN_BYTES_MAX} bytes are needed"),
            );
        }
    }
    list.iter().map(|text| Glob::new(text)).collect()
}

fn name_patterns(list: &[String], path: &str, errors: &mut Errors) -> Vec<NamePattern> {
    globs(list, path, errors);
    list.iter()
        .enumerate()
        .map(|(index, text)| {
            let parts: Vec<&str> = text.split('.').collect();
            match parts.as_slice() {
                [name] if !name.is_empty() => NamePattern {
                    schema: None,
                    name: Glob::new(name),
                },
                [schema, name] if !schema.is_empty() && !name.is_empty() => NamePattern {
                    schema: Some(Glob::new(schema)),
                    name: Glob::new(name),
                },
                _ => {
                    errors.add(
                        format!("{path}[{index}]"),
                        format!("`{text}` is not `name` or `schema.name`"),
                    );
                    NamePattern {
                        schema: None,
                        name: Glob::new(text),
                    }
                }
            }
        })
        .collect()
}

fn column_patterns(list: &[String], path: &str, errors: &mut Errors) -> Vec<ColumnPattern> {
    globs(list, path, errors);
    let mut out = Vec::new();
    for (index, text) in list.iter().enumerate() {
        match text.rsplit_once('.') {
            Some((table, column)) if !column.is_empty() => {
                let table = name_patterns(&[table.to_owned()], &format!("{path}[{index}]"), errors);
                out.extend(table.into_iter().map(|table| ColumnPattern {
                    table,
                    column: Glob::new(column),
                }));
            }
            _ => errors.add(
                format!("{path}[{index}]"),
                format!("`{text}` is not `table.column` or `schema.table.column`"),
            ),
        }
    }
    out
}

fn compile_rule(rule: &RuleSpec, path: &str, errors: &mut Errors) -> Rule {
    let mut kinds = HashSet::new();
    for (index, word) in rule.statements.iter().enumerate() {
        if GROUPS.contains(&word.as_str()) {
            kinds.extend(KINDS.iter().filter(|k| in_group(word, k)));
        } else if let Ok(found) = KINDS.binary_search(&word.as_str()) {
            kinds.extend(KINDS.get(found));
        } else {
            let near: Vec<&str> = KINDS
                .iter()
                .copied()
                .filter(|k| k.contains(word.trim_end_matches('s')) && !word.is_empty())
                .take(5)
                .collect();
            let hint = if near.is_empty() {
                String::new()
            } else {
                format!("; near it: {}", near.join(", "))
            };
            let groups = GROUPS.join(", ");
            errors.add(
                format!("{path}.statements[{index}]"),
                format!("`{word}` is neither a statement nor a group ({groups}){hint}"),
            );
        }
    }
    let mut copy = Vec::new();
    for (index, word) in rule.copy.iter().enumerate() {
        match [
            CopyForm::ToStdout,
            CopyForm::FromStdin,
            CopyForm::File,
            CopyForm::Program,
        ]
        .into_iter()
        .find(|form| form.as_str() == word)
        {
            Some(form) => copy.push(form),
            None => errors.add(
                format!("{path}.copy[{index}]"),
                format!("`{word}` is none of to_stdout, from_stdin, file, program"),
            ),
        }
    }
    if rule.approval.is_some() && rule.action != Action::Approve {
        errors.add(
            format!("{path}.approval"),
            "only a rule with action approve holds anything",
        );
    }
    if let Some(a) = &rule.approval {
        for (name, value, low, high) in [
            ("wait_s", a.wait_s, 1, 86_400),
            ("in_transaction_wait_s", a.in_transaction_wait_s, 1, 3600),
            ("approvers_min", a.approvers_min, 1, 10),
        ] {
            if value < low || value > high {
                errors.add(
                    format!("{path}.approval.{name}"),
                    format!("{value} is outside {low} to {high}"),
                );
            }
        }
    }
    if rule
        .message
        .as_ref()
        .is_some_and(|m| m.len() > 1000 || m.chars().any(char::is_control))
    {
        errors.add(
            format!("{path}.message"),
            "at most 1000 bytes without control characters",
        );
    }
    let when = rule
        .when
        .as_deref()
        .and_then(|source| match When::compile(source) {
            Ok(when) => Some(when),
            Err(message) => {
                errors.add(format!("{path}.when"), message);
                None
            }
        });
    Rule {
        name: rule.name.as_str().into(),
        action: rule.action,
        kinds: if rule.statements.is_empty() {
            None
        } else {
            Some(kinds)
        },
        tables: name_patterns(&rule.tables, &format!("{path}.tables"), errors),
        tables_written: name_patterns(
            &rule.tables_written,
            &format!("{path}.tables_written"),
            errors,
        ),
        tables_read: name_patterns(&rule.tables_read, &format!("{path}.tables_read"), errors),
        columns: column_patterns(&rule.columns, &format!("{path}.columns"), errors),
        functions: name_patterns(&rule.functions, &format!("{path}.functions"), errors),
        databases: globs(&rule.databases, &format!("{path}.databases"), errors),
        settings: globs(&rule.settings, &format!("{path}.settings"), errors),
        where_present: rule.where_present,
        copy,
        opaque: rule.opaque,
        when,
        approval: rule.approval.clone().map(Arc::new),
        message: rule.message.as_deref().map(Into::into),
    }
}
