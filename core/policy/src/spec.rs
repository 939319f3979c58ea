//! What the operator wrote: roles, rules and limits, typed but not yet checked.
//!
//! The gateway's configuration fills these; [`crate::PolicySet::compile`]
//! checks them. `serde` is derived so that a configuration can embed them;
//! unknown keys are errors.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a rule or a role's default says.
///
/// Precedence over all matching rules: deny, then approve, then allow; alert
/// only marks the decision and leaves the action to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The request passes.
    Allow,
    /// The request is refused in the protocol's own words.
    #[default]
    Deny,
    /// The request waits for a human.
    Approve,
    /// The decision carries this rule's name as an alert; nothing else changes.
    Alert,
}

impl Action {
    /// The word used in configuration, records and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Approve => "approve",
            Action::Alert => "alert",
        }
    }
}

/// The whole policy: every role, in file order, and the limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySpec {
    /// Roles in file order: the first that fits a principal and a target wins.
    pub roles: Vec<RoleSpec>,
    /// Limits on SQL text before it is parsed.
    pub limits: SqlLimits,
}

/// Caps that hold before a statement is parsed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqlLimits {
    /// Longest statement text in bytes. Default 1 MiB, range 1 KiB to 64 MiB.
    pub statement_bytes_max: usize,
    /// Most tokens in one text. Default 50 000, range 100 to 1 000 000; one
    /// token costs the parser up to about 2 KB and 4 us.
    pub tokens_max: usize,
    /// Longest text parsed on the shard itself, in bytes. Default 4096, at
    /// most 64 KiB; longer text becomes a [`crate::ParseJob`].
    pub parse_inline_bytes_max: usize,
    /// Deepest nesting of expressions, sub-queries, joins and set operations,
    /// as estimated from the tokens. Default 200, range 20 to 500; one level costs the
    /// parser up to 200 KB of stack.
    pub nesting_max: usize,
    /// Most names (prepared statements and portals each) that one session may
    /// hold. Default 20 000, range 1 to 200 000.
    pub names_max: usize,
    /// Most bytes of statement text that one session's names may hold.
    /// Default 64 MiB.
    pub names_bytes_max: usize,
}

impl Default for SqlLimits {
    fn default() -> Self {
        SqlLimits {
            statement_bytes_max: 1 << 20,
            tokens_max: 50_000,
            parse_inline_bytes_max: 4096,
            nesting_max: 200,
            names_max: 20_000,
            names_bytes_max: 64 << 20,
        }
    }
}

/// One role: who gets it, for which targets, and what it may do there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleSpec {
    /// Unique name, `[A-Za-z0-9_.-]`, at most 64 bytes.
    pub name: String,
    /// Groups whose members get the role; `*` globs allowed.
    pub groups: Vec<String>,
    /// Targets it is for: exact names or `*` globs.
    pub targets: Vec<String>,
    /// What holds when no rule matches. Default deny; alert is not allowed.
    pub default: Action,
    /// Rules, all considered for every request.
    pub rules: Vec<RuleSpec>,
    /// Built-in sets of rules by name (see [`crate::pack_names`]); a leading
    /// `-` turns a pack off that is on by default.
    pub packs: Vec<String>,
    /// Whether the start-up parameter `replication` may pass. Default no.
    pub allow_replication: bool,
    /// What happens to the protocol's FunctionCall message, which names no
    /// SQL. Default deny; an allow-all role without rules may set allow.
    pub function_call: Action,
    /// Schemas in which unqualified table names live: what the account's
    /// `search_path` is on the target, without `$user`. Default `["public"]`.
    ///
    /// Allow rules that ask for a schema take an unqualified name only if all
    /// of these fit, and only while the session has not changed `search_path`.
    /// Other rules take an unqualified name for the table they name, whatever
    /// its schema; for a pattern `schema.*` one of these, or the account's own
    /// name, must fit, or the path must have been changed.
    pub search_path: Vec<String>,
}

impl Default for RoleSpec {
    fn default() -> Self {
        RoleSpec {
            name: String::new(),
            groups: Vec::new(),
            targets: Vec::new(),
            default: Action::Deny,
            rules: Vec::new(),
            packs: Vec::new(),
            allow_replication: false,
            function_call: Action::Deny,
            search_path: vec!["public".into()],
        }
    }
}

/// One rule. Keys that are empty or `None` do not constrain it; all that are
/// given must hold.
///
/// Deny, approve and alert rules match when *any* part of the statement fits a
/// key (any table, any nested statement). Allow rules match only when *every*
/// part fits, so that a rule allowing `orders` does not let a join with
/// `salaries` through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleSpec {
    /// Unique within the role, `[A-Za-z0-9_.-]`, at most 64 bytes.
    pub name: String,
    /// What it says.
    pub action: Action,
    /// Statement kinds or groups of kinds; see [`crate::sql::KINDS`] and
    /// [`crate::sql::GROUPS`].
    pub statements: Vec<String>,
    /// Tables read or written, `schema.table` or `table` with `*` globs.
    pub tables: Vec<String>,
    /// Tables written, or touched by DDL.
    pub tables_written: Vec<String>,
    /// Tables read.
    pub tables_read: Vec<String>,
    /// Columns as `table.column` or `schema.table.column` with globs. A star
    /// or a whole-row reference counts as every column of every table named.
    pub columns: Vec<String>,
    /// Functions called, `name` or `schema.name` with globs. Naming a function
    /// of the built-in "dynamic" list exactly lifts its opaqueness for an
    /// allow or approve rule.
    pub functions: Vec<String>,
    /// Databases in which the rule holds, exact or globs.
    pub databases: Vec<String>,
    /// Matches UPDATE and DELETE by whether they have a WHERE that names a
    /// column: `Some(false)` = one without.
    pub where_present: Option<bool>,
    /// Forms of COPY: `to_stdout`, `from_stdin`, `file`, `program`.
    pub copy: Vec<String>,
    /// Settings changed, by lower-case name with globs; the word `all` stands
    /// for RESET ALL and DISCARD ALL.
    pub settings: Vec<String>,
    /// Matches by whether the statement holds something that a static look
    /// cannot know. An opaque statement is denied unless an allow or approve
    /// rule with `opaque = true` matches it.
    pub opaque: Option<bool>,
    /// A CEL expression over the same facts that must yield a bool.
    pub when: Option<String>,
    /// How the hold behaves; only with `action = approve`.
    pub approval: Option<ApprovalSpec>,
    /// A sentence shown to the agent beside the rule's name.
    pub message: Option<String>,
}

/// How a held request waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApprovalSpec {
    /// Longest wait outside a transaction, in seconds. Default 300, 1 to 86 400.
    pub wait_s: u32,
    /// Longest wait inside an open transaction, which holds locks, in seconds.
    /// Default 30, 1 to 3600.
    pub in_transaction_wait_s: u32,
    /// Whether the approver must give a reason. Default no.
    pub reason_required: bool,
    /// How many distinct approvers must say yes. Default 1, 1 to 10.
    pub approvers_min: u32,
}

impl Default for ApprovalSpec {
    fn default() -> Self {
        ApprovalSpec {
            wait_s: 300,
            in_transaction_wait_s: 30,
            reason_required: false,
            approvers_min: 1,
        }
    }
}

/// Who asks: what rules may know of a verified principal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Principal {
    /// Who vouches for it.
    pub issuer: String,
    /// Its name with that issuer.
    pub subject: String,
    /// Groups it is in.
    pub groups: Vec<String>,
    /// Other verified claims, as JSON values.
    pub claims: BTreeMap<String, serde_json::Value>,
    /// On whose behalf it acts, if on somebody's.
    pub on_behalf_of: Option<String>,
}
