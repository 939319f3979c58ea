//! The per-session gate: the only door between the PostgreSQL session and the
//! policy.
//!
//! It follows what gives SQL text its meaning (names of statements and
//! portals, how the server reads text, search_path), draws facts, asks the
//! rules, and answers every decision unit.

use crate::cache::VerdictCache;
use crate::compile::{PolicySet, RoleRef};
use crate::decision::{Decision, DenyKind};
use crate::spec::Principal;
use bytes::Bytes;
use std::sync::Arc;

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
    /// Whether it is in binary format (format code 1).
    pub binary: bool,
    /// The bytes; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

/// The values of a Bind message.
#[derive(Clone, Copy, Debug)]
pub enum Binds<'a> {
    /// Not read: too large, or nobody asked ([`SqlGate::reads_binds`]).
    Unread,
    /// In order.
    Values(&'a [Bind<'a>]),
}

/// How the server answered a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its own completion came.
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
    /// [`SqlGate::resume`]. Nothing else may be asked of the gate for a later
    /// agent message until then; answers of the server may be reported.
    Parse(ParseJob),
}

/// A text to be parsed off the shard. `Send`.
#[derive(Debug)]
pub struct ParseJob {}

impl ParseJob {
    /// Parses; takes up to some hundred milliseconds at the caps.
    pub fn run(self) -> ParseDone {
        ParseDone {}
    }
}

/// What a [`ParseJob`] found. `Send`.
#[derive(Debug)]
pub struct ParseDone {}

/// One text that a statement name may stand for.
#[derive(Clone, Debug)]
pub struct PreparedText {
    /// The exact text of the Parse message, or of the SQL that prepared it.
    pub text: Bytes,
}

/// The gate of one session.
#[derive(Debug)]
pub struct SqlGate {
    policy: Arc<PolicySet>,
}

impl SqlGate {
    /// A gate for a fresh session. Feed it every ParameterStatus of the
    /// start-up before the first unit: until `standard_conforming_strings` and
    /// `client_encoding` are known, a role that reads SQL refuses all.
    pub fn new(policy: Arc<PolicySet>, _role: RoleRef, _ctx: SessionFacts) -> Self {
        SqlGate { policy }
    }

    fn no(&self) -> Step {
        Step::Decided(Decision::deny(
            DenyKind::NotEvaluated,
            "not evaluated",
            &self.policy.version_arc(),
        ))
    }

    /// A Query message.
    pub fn query(&mut self, _unit: u64, _text: &Bytes, _cache: &mut VerdictCache) -> Step {
        self.no()
    }

    /// A Parse message. A deny is given here; an approve is taken at Bind.
    pub fn parse(
        &mut self,
        _unit: u64,
        _name: &[u8],
        _text: &Bytes,
        _types: &[u32],
        _cache: &mut VerdictCache,
    ) -> Step {
        self.no()
    }

    /// A Bind message.
    pub fn bind(
        &mut self,
        _unit: u64,
        _portal: &[u8],
        _statement: &[u8],
        _binds: Binds<'_>,
        _cache: &mut VerdictCache,
    ) -> Step {
        self.no()
    }

    /// An Execute message. Denied only for a portal that stands for nothing we
    /// have seen, or whose statement the policy now denies.
    pub fn execute(&mut self, _unit: u64, _portal: &[u8]) -> Decision {
        Decision::deny(
            DenyKind::NotEvaluated,
            "not evaluated",
            &self.policy.version_arc(),
        )
    }

    /// A Describe message (`kind` `S` or `P`); it changes nothing.
    pub fn describe(&mut self, _unit: u64, _kind: u8, _name: &[u8]) {}

    /// A Close message (`kind` `S` or `P`).
    pub fn close(&mut self, _unit: u64, _kind: u8, _name: &[u8]) {}

    /// A FunctionCall message.
    pub fn function_call(&mut self, _unit: u64, _oid: u32) -> Decision {
        Decision::deny(
            DenyKind::FunctionCall,
            "FunctionCall names no SQL",
            &self.policy.version_arc(),
        )
    }

    /// Takes a finished [`ParseJob`] and decides its unit.
    pub fn resume(&mut self, _done: ParseDone, _cache: &mut VerdictCache) -> Decision {
        Decision::deny(
            DenyKind::NotEvaluated,
            "not evaluated",
            &self.policy.version_arc(),
        )
    }

    /// The server's answer to a unit; in order. A unit that was refused is not
    /// reported as anything but `Failed` or `Skipped`.
    pub fn answered(&mut self, _unit: u64, _outcome: Outcome) {}

    /// A ParameterStatus from the server, start-up included.
    pub fn parameter_status(&mut self, _name: &[u8], _value: &[u8]) {}

    /// A ReadyForQuery from the server.
    pub fn ready_for_query(&mut self, _status: u8) {}

    /// Swaps the policy; `None` = the principal has no role any more.
    pub fn replace_policy(&mut self, policy: Arc<PolicySet>, _role: Option<RoleRef>) {
        self.policy = policy;
    }

    /// Appends what gives a request its meaning, for approval digests.
    pub fn state_digest_input(&self, _out: &mut Vec<u8>) {}

    /// Every text that a statement name may stand for, strictest reading.
    pub fn texts(&self, _statement: &[u8]) -> Vec<PreparedText> {
        Vec::new()
    }

    /// Whether the session may have made temporary objects or functions.
    pub fn made_temporary_objects(&self) -> bool {
        true
    }

    /// Whether any rule's `when` reads bind values.
    pub fn reads_binds(&self) -> bool {
        true
    }
}
