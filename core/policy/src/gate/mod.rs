//! The per-session gate: the only door between the PostgreSQL session and the
//! policy.
//!
//! It follows what gives SQL text its meaning (names of statements and
//! portals, how the server reads text, search_path), draws facts, asks the
//! rules, and answers every decision unit. Units are named by numbers that the
//! gateway gives; the server's answers are reported under the same numbers, in
//! order.
//!
//! ```text
//! Query, Parse ─ caps ─ reading ─ cache ─┬─ parse here ─┬─ rules ─ names ─ Decision
//!                                        └─ ParseJob ───┘
//! Bind ─ every text under the name ─ rules (with bind values) ─ names ─ Decision
//! ```

mod following;
mod job;
mod names;
#[cfg(test)]
mod properties;
mod reading;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_bounds;
mod text;

pub(crate) use job::draw;
pub use job::{ParseDone, ParseJob};

use crate::cache::{Key, VerdictCache};
use crate::compile::{PolicySet, RoleRef};
use crate::decision::{Decision, DenyKind};
use crate::evaluate::{Circumstances, decide, is_own_path};
use crate::spec::{Action, Principal};
use crate::sql::NAME_BYTES_MAX;
use bytes::Bytes;
use names::{Names, Prepared};
use reading::Reading;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use text::judge;

/// Most units unanswered that the gate follows one by one.
const PENDING_MAX: usize = 400_000;
/// How far from the front an answered unit may stand.
const FRONT: usize = 64;
/// Settings that give a statement its meaning.
const MEANING: [&str; 9] = [
    "role",
    "session_authorization",
    "search_path",
    "row_security",
    "datestyle",
    "intervalstyle",
    "timezone",
    "standard_conforming_strings",
    "client_encoding",
];

/// What the session is, for rules and for the verdict's key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionFacts {
    /// The verified agent.
    pub principal: Principal,
    /// The target's name.
    pub target: String,
    /// The database on the target.
    pub database: String,
    /// The account that the gateway logs in with upstream.
    pub account: String,
}

/// One bound value.
#[derive(Clone, Copy, Debug)]
pub struct Bind<'a> {
    /// Whether it is in binary format (format code 1). Conditions that read
    /// such a value are denied: it cannot be read without its type.
    pub binary: bool,
    /// The bytes; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

/// The values of a Bind message.
#[derive(Clone, Copy, Debug)]
pub enum Binds<'a> {
    /// Not read: too large, or nobody asked ([`SqlGate::reads_binds`]). Rules
    /// that read binds deny.
    Unread,
    /// In order.
    Values(&'a [Bind<'a>]),
}

/// How the server answered a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its own completion came (for an Execute also PortalSuspended).
    Completed,
    /// An ErrorResponse came in its place.
    Failed,
    /// The server discarded it on its way to Sync.
    Skipped,
}

/// What the gate says to one unit.
#[derive(Debug)]
pub enum Step {
    /// Decided.
    Decided(Decision),
    /// The text is to be parsed off the shard: run the job anywhere, then
    /// [`SqlGate::resume`]. No later agent message may be brought to the gate
    /// until then; answers of the server may.
    Parse(ParseJob),
}

/// One text that a statement name may stand for.
#[derive(Clone, Debug)]
pub struct PreparedText {
    /// The exact text of the Parse message, or of the Query that prepared it.
    pub text: Bytes,
    /// The parameter types that Parse gave.
    pub types: Box<[u32]>,
}

/// What a text is wanted for.
#[derive(Debug)]
enum Intent {
    Query,
    Parse { name: Box<[u8]>, types: Box<[u32]> },
}

/// A unit that waits for its [`ParseJob`].
#[derive(Debug)]
struct Waiting {
    unit: u64,
    text: Bytes,
    intent: Intent,
}

/// What an answered unit does to the names.
#[derive(Debug)]
enum Change {
    Statement(Box<[u8]>, Arc<Prepared>),
    Portal(Box<[u8]>, Vec<Arc<Prepared>>),
    CloseStatement(Option<Box<[u8]>>),
    ClosePortal(Option<Box<[u8]>>),
}

/// A unit that was let through and is not answered.
#[derive(Debug)]
struct Pending {
    unit: u64,
    inert: bool,
    /// Whether a failure leaves open what was done before it.
    several: bool,
    changes: Vec<Change>,
}

/// The gate of one session. Owned by the session's shard.
#[derive(Debug)]
pub struct SqlGate {
    policy: Arc<PolicySet>,
    role: Option<RoleRef>,
    session: Arc<SessionFacts>,
    context: Arc<[u8]>,
    /// Counts policies, so that older decisions are known for what they are.
    generation: u64,
    reading: Reading,
    statements: Names,
    portals: Names,
    pending: VecDeque<Pending>,
    /// How many of those may run code.
    pending_live: usize,
    /// Something that may run code was answered since the last ReadyForQuery.
    unsettled: bool,
    search_path_changed: bool,
    temporary: bool,
    meaning: BTreeMap<String, Vec<String>>,
    shape: Vec<u8>,
    waiting: Option<Waiting>,
    /// What the names stand for that the unit decided last uses in its SQL.
    behind: Vec<(String, PreparedText)>,
    /// The answer of a role that reads no SQL.
    pass: Decision,
}

impl SqlGate {
    /// A gate for a fresh session. Feed it every start-up parameter
    /// ([`SqlGate::startup_parameter`]) and every ParameterStatus of the
    /// start-up before the first unit: until `standard_conforming_strings` and
    /// `client_encoding` are known, a role that reads SQL refuses all.
    pub fn new(policy: Arc<PolicySet>, role: RoleRef, session: SessionFacts) -> Self {
        let pass = Decision {
            action: Action::Allow,
            alerts: Arc::from([]),
            rule: "default".into(),
            reason: "the role allows everything and reads no SQL".into(),
            message: None,
            approval: None,
            policy_version: policy.version_arc(),
            deny: None,
        };
        let mut gate = SqlGate {
            policy,
            role: Some(role),
            session: Arc::new(session),
            context: Arc::from([]),
            generation: 0,
            reading: Reading::default(),
            statements: Names::default(),
            portals: Names::default(),
            pending: VecDeque::new(),
            pending_live: 0,
            unsettled: false,
            search_path_changed: false,
            temporary: false,
            meaning: BTreeMap::new(),
            shape: Vec::new(),
            waiting: None,
            behind: Vec::new(),
            pass,
        };
        gate.context = gate.context_digest();
        gate
    }

    /// A start-up parameter that was passed upstream. `options` and
    /// `search_path` may set the search path.
    pub fn startup_parameter(&mut self, name: &[u8], value: &[u8]) {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let value = String::from_utf8_lossy(value).into_owned();
        if (name == "options" && value.contains("search_path")) || name == "search_path" {
            self.search_path_changed = true;
        }
        if name == "options" || MEANING.contains(&name.as_str()) {
            self.means(&format!("startup {name}"), value);
        }
    }

    /// A Query message.
    pub fn query(&mut self, unit: u64, text: &Bytes, cache: &mut VerdictCache) -> Step {
        self.admit(unit, text, Intent::Query, cache)
    }

    /// A Parse message. A deny is given here; an approve lets it pass and is
    /// taken at Bind.
    pub fn parse(
        &mut self,
        unit: u64,
        name: &[u8],
        text: &Bytes,
        types: &[u32],
        cache: &mut VerdictCache,
    ) -> Step {
        if name.len() > NAME_BYTES_MAX && self.reads() {
            return Step::Decided(self.too_long());
        }
        self.admit(
            unit,
            text,
            Intent::Parse {
                name: name.into(),
                types: types.into(),
            },
            cache,
        )
    }

    /// A Bind message. Every text that the statement's name may stand for is
    /// asked about; the strictest decides.
    pub fn bind(
        &mut self,
        unit: u64,
        portal: &[u8],
        statement: &[u8],
        binds: Binds<'_>,
        _cache: &mut VerdictCache,
    ) -> Step {
        Step::Decided(self.decide_bind(unit, portal, statement, binds))
    }

    fn decide_bind(
        &mut self,
        unit: u64,
        portal: &[u8],
        statement: &[u8],
        binds: Binds<'_>,
    ) -> Decision {
        self.behind = Vec::new();
        let Some(role) = self.role.clone() else {
            return self.no_role();
        };
        if !role.reads_sql() {
            return self.pass.clone();
        }
        if portal.len() > NAME_BYTES_MAX || statement.len() > NAME_BYTES_MAX {
            return self.too_long();
        }
        let mut decision: Option<Decision> = None;
        let now = self.era();
        let circumstances = Circumstances {
            session: &self.session,
            binds: Some(binds),
            search_path_changed: self.search_path_changed,
        };
        let mut prepared = Vec::new();
        for slot in self.statements.of(statement) {
            let one = match &slot.decided {
                // A decision that no bind value can change stands.
                Some((era, decision)) if *era == now && !role.reads_binds() => decision.clone(),
                _ => {
                    let one = decide(&role, &slot.prepared.facts, circumstances, |_, _, _| {});
                    if !role.reads_binds() {
                        slot.decided = Some((now, one.clone()));
                    }
                    one
                }
            };
            decision = Some(match decision {
                None => one,
                Some(before) => before.stricter(one),
            });
            prepared.push(slot.prepared.clone());
        }
        let Some(mut decision) = decision else {
            return self.unknown(&role, "prepared statement");
        };
        for p in &prepared {
            if let Some(names) = self.names_decision(&role, &p.facts, 0) {
                decision = decision.stricter(names);
            }
        }
        if decision.action == Action::Deny {
            return decision;
        }
        let limits = &role.limits;
        for (index, p) in prepared.iter().enumerate() {
            let room = limits
                .names_bytes_max
                .saturating_sub(self.statements.bytes());
            if let Err(full) = self.portals.define(portal, p, None, limits.names_max, room) {
                prepared.truncate(index);
                self.undo(vec![Change::Portal(portal.into(), prepared)]);
                return self.full(full);
            }
        }
        let inert = prepared.iter().all(|p| p.inert);
        self.pend(Pending {
            unit,
            inert,
            several: false,
            changes: vec![Change::Portal(portal.into(), prepared)],
        });
        decision
    }

    /// An Execute message. What the portal runs was decided when it was bound
    /// or declared; denied are a portal that stands for nothing seen, and a
    /// principal without a role. Must be asked before it is forwarded.
    pub fn execute(&mut self, unit: u64, portal: &[u8]) -> Decision {
        let Some(role) = self.role.clone() else {
            return self.no_role();
        };
        if !role.reads_sql() {
            return self.pass.clone();
        }
        if portal.len() > NAME_BYTES_MAX {
            return self.too_long();
        }
        let prepared: Vec<Arc<Prepared>> = self
            .portals
            .look(portal)
            .iter()
            .map(|s| s.prepared.clone())
            .collect();
        if prepared.is_empty() {
            return self.unknown(&role, "portal");
        }
        let mut changes = Vec::new();
        let mut inert = true;
        for p in &prepared {
            inert &= p.inert;
            match self.effects(&role, &p.facts, &p.text) {
                Ok(more) => changes.extend(more),
                Err(full) => return self.full(full),
            }
        }
        self.pend(Pending {
            unit,
            inert,
            several: prepared.len() > 1,
            changes,
        });
        let mut decision = self.pass.clone();
        decision.rule = "bound".into();
        decision.reason = "decided when the portal was bound".into();
        decision.policy_version = role.version.clone();
        decision
    }

    /// A Describe message (`kind` is `S` or `P`); it changes nothing.
    pub fn describe(&mut self, _unit: u64, _kind: u8, _name: &[u8]) {}

    /// A Close message (`kind` is `S` or `P`).
    pub fn close(&mut self, unit: u64, kind: u8, name: &[u8]) {
        if !self.reads() {
            return;
        }
        let name = Some(name.into());
        let change = if kind == b'S' {
            Change::CloseStatement(name)
        } else {
            Change::ClosePortal(name)
        };
        self.pend(Pending {
            unit,
            inert: true,
            several: false,
            changes: vec![change],
        });
    }

    /// A FunctionCall message: as the role's `function_call` says.
    pub fn function_call(&mut self, unit: u64, oid: u32) -> Decision {
        let Some(role) = self.role.clone() else {
            return self.no_role();
        };
        if role.function_call != Action::Allow {
            let reason = format!("FunctionCall of function {oid} names no SQL");
            return Decision::deny(DenyKind::FunctionCall, reason, &role.version);
        }
        if role.reads_sql() {
            self.temporary = true;
            self.pend(Pending {
                unit,
                inert: false,
                several: false,
                changes: Vec::new(),
            });
        }
        let mut decision = self.pass.clone();
        decision.rule = "function_call".into();
        decision.reason = "the role allows FunctionCall".into();
        decision.policy_version = role.version.clone();
        decision
    }

    /// Takes a finished [`ParseJob`] and decides its unit.
    pub fn resume(&mut self, done: ParseDone, cache: &mut VerdictCache) -> Decision {
        let Some(waiting) = self.waiting.take().filter(|w| w.unit == done.unit) else {
            return Decision::deny(
                DenyKind::NotEvaluated,
                "nothing waits for this text",
                &self.policy.version_arc(),
            );
        };
        let Some(role) = self.role.clone() else {
            return self.no_role();
        };
        // The server may have said something new meanwhile.
        if let Err(refusal) = self.reading.read(&waiting.text, self.in_flux()) {
            return self.refused(refusal);
        }
        let verdict = match done.result {
            Err(error) => return self.no_facts(&error),
            Ok(verdict) if done.era == self.era() => verdict,
            // The policy or the search path has changed meanwhile.
            Ok(old) => judge(
                &role,
                &self.session,
                self.search_path_changed,
                old.facts.clone(),
                &waiting.text,
            ),
        };
        let types: &[u32] = if let Intent::Parse { types, .. } = &waiting.intent {
            types
        } else {
            &[]
        };
        let key = Key {
            context: &self.context,
            state: self.state(),
            types,
            text: &waiting.text,
            shaped: false,
        };
        cache.enter(&key, &verdict);
        self.conclude(waiting.unit, &role, waiting.intent, &verdict, &waiting.text)
    }

    /// The server's answer to a unit, in order. A unit that was held and then
    /// refused must be reported as failed; one that the gate itself denied, and
    /// a Describe, may be reported or not.
    pub fn answered(&mut self, unit: u64, outcome: Outcome) {
        // Answers come in order, so that a unit that is followed stands at the
        // front; one that is not is not searched for among thousands.
        let Some(index) = self.pending.iter().take(FRONT).position(|p| p.unit == unit) else {
            return;
        };
        let Some(pending) = self.pending.remove(index) else {
            return;
        };
        if !pending.inert {
            self.pending_live = self.pending_live.saturating_sub(1);
            self.unsettled = true;
        }
        let maybe = pending.several && outcome == Outcome::Failed;
        for change in pending.changes {
            match (change, outcome) {
                (Change::Statement(name, p), Outcome::Completed) => {
                    self.statements.made(&name, &[p])
                }
                (Change::Statement(name, p), _) => self.statements.failed(&name, &[p], maybe),
                (Change::Portal(name, p), Outcome::Completed) => self.portals.made(&name, &p),
                (Change::Portal(name, p), _) => self.portals.failed(&name, &p, maybe),
                (Change::CloseStatement(Some(name)), Outcome::Completed) => {
                    self.statements.closed(&name)
                }
                (Change::CloseStatement(None), Outcome::Completed) => self.statements.closed_all(),
                (Change::ClosePortal(Some(name)), Outcome::Completed) => self.portals.closed(&name),
                (Change::ClosePortal(None), Outcome::Completed) => self.portals.closed_all(),
                (Change::CloseStatement(_) | Change::ClosePortal(_), _) => {}
            }
        }
    }

    /// A ParameterStatus from the server, start-up included.
    pub fn parameter_status(&mut self, name: &[u8], value: &[u8]) {
        let name = String::from_utf8_lossy(name);
        let value = String::from_utf8_lossy(value);
        self.reading.parameter_status(&name, &value);
        // Servers from version 18 on report it.
        if name == "search_path"
            && let Some(role) = self.role.clone()
            && !is_own_path(&role, &value)
        {
            self.search_path_changed = true;
        }
    }

    /// A ReadyForQuery from the server, with its transaction status.
    pub fn ready_for_query(&mut self, status: u8) {
        self.unsettled = false;
        if status == b'I' && self.pending.is_empty() {
            self.reading.settled();
            self.portals.transaction_ended();
        }
    }

    /// Swaps the policy. Statements prepared under an older one are decided
    /// anew when they are bound. `None` = the principal has no role any more:
    /// everything is denied.
    pub fn replace_policy(&mut self, policy: Arc<PolicySet>, role: Option<RoleRef>) {
        self.pass.policy_version = policy.version_arc();
        self.policy = policy;
        self.role = role;
        self.generation += 1;
        self.context = self.context_digest();
    }

    /// Appends what gives a request its meaning: role, search_path and the
    /// like as far as known, every value that may be in force. Length-prefixed,
    /// so that no two states give the same bytes.
    pub fn state_digest_input(&self, out: &mut Vec<u8>) {
        let mut put = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        put(b"portcullis sql state 1");
        put(self.session.target.as_bytes());
        put(self.session.database.as_bytes());
        put(self.session.account.as_bytes());
        put(&[u8::from(self.search_path_changed)]);
        for (name, values) in &self.meaning {
            put(name.as_bytes());
            put(&(values.len() as u64).to_be_bytes());
            for value in values {
                put(value.as_bytes());
            }
        }
    }

    /// The same state in words, for the approver: settings that this session
    /// has changed, each with every value that may be in force.
    pub fn state_shown(&self) -> Vec<(String, String)> {
        self.meaning
            .iter()
            .map(|(name, values)| {
                let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
                (name.to_string(), values.join(" or "))
            })
            .collect()
    }

    /// Every text that a statement's name may stand for; for showing a held
    /// Bind and for its digest.
    pub fn texts(&self, statement: &[u8]) -> Vec<PreparedText> {
        self.statements
            .look(statement)
            .iter()
            .map(|s| PreparedText {
                text: s.prepared.text.clone(),
                types: s.prepared.types.clone(),
            })
            .collect()
    }

    /// What the unit decided last runs by name: of each EXECUTE or FETCH in it,
    /// in order and through EXECUTE of EXECUTE, the name and every text that it
    /// may stand for. A hold must show these and bind them into its digest:
    /// `EXECUTE p` alone says nothing of what will run.
    pub fn behind_names(&self) -> &[(String, PreparedText)] {
        &self.behind
    }

    /// Whether the session may have made temporary objects or functions, which
    /// can change what a name in a later statement means.
    pub fn made_temporary_objects(&self) -> bool {
        self.temporary
    }

    /// Whether any rule's `when` reads bind values.
    pub fn reads_binds(&self) -> bool {
        self.role.as_ref().is_some_and(|r| r.reads_binds())
    }

    /// Whether any rule of the role reads SQL; if not, only [`SqlGate::query`]
    /// and its like need to be asked, and they answer at once.
    pub fn reads_sql(&self) -> bool {
        self.reads()
    }

    // ---- inside ----

    fn reads(&self) -> bool {
        self.role.as_ref().is_none_or(|r| r.reads_sql())
    }

    fn context_digest(&self) -> Arc<[u8]> {
        let mut bytes = Vec::new();
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        put(self.policy.version().as_bytes());
        put(self.role.as_ref().map_or("", |r| r.name()).as_bytes());
        put(self.session.target.as_bytes());
        put(self.session.database.as_bytes());
        put(self.session.account.as_bytes());
        if self.role.as_ref().is_some_and(|r| r.reads_principal()) {
            // Serialising plain strings and JSON values cannot fail; were it
            // to, the principals would only share nothing.
            put(&serde_json::to_vec(&self.session.principal).unwrap_or_default());
        }
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes)
            .as_ref()
            .into()
    }

    /// What a kept decision depends on beside the text.
    fn era(&self) -> u64 {
        self.generation << 1 | u64::from(self.search_path_changed)
    }

    /// One byte of the verdict's key.
    fn state(&self) -> u8 {
        self.reading.state() | u8::from(self.search_path_changed) << 2
    }

    /// Whether something unanswered may change how text is read.
    fn in_flux(&self) -> bool {
        self.unsettled
            || self.pending_live > 0
            || (self.reading.dirty() && !self.pending.is_empty())
    }

    fn pend(&mut self, pending: Pending) {
        if self.pending.len() >= PENDING_MAX {
            // More than anybody can have outstanding: the oldest is taken as
            // answered by nothing, what it did as open.
            if let Some(old) = self.pending.pop_front() {
                self.unsettled = true;
                self.pending_live = self.pending_live.saturating_sub(usize::from(!old.inert));
            }
        }
        self.pending_live += usize::from(!pending.inert);
        self.pending.push_back(pending);
    }
}
