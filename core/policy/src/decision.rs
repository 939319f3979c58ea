//! The outcome for one request: what, which rule, which policy version, why.

use crate::spec::{Action, ApprovalSpec};
use std::sync::Arc;

/// Why a request was denied, for the SQLSTATE and for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenyKind {
    /// A rule says deny.
    Rule,
    /// No rule matched and the role's default is deny.
    Default,
    /// The text holds something that a static look cannot know, and no rule
    /// names it.
    Opaque,
    /// The text does not parse.
    Unparsable,
    /// The text is over the cap in bytes, tokens or nesting.
    TooLarge,
    /// The text cannot be read in the encoding in force.
    Encoding,
    /// The server may read the text otherwise than we do
    /// (`standard_conforming_strings`, `client_encoding`).
    Reading,
    /// A statement or portal name is over 63 bytes.
    NameTooLong,
    /// A name that stands for nothing we have seen.
    UnknownName,
    /// The session holds too many names or too much text under them.
    TooManyNames,
    /// A rule could not be evaluated.
    NotEvaluated,
    /// FunctionCall, which names no SQL.
    FunctionCall,
    /// The principal has no role (any more).
    NoRole,
}

impl DenyKind {
    /// The SQLSTATE to answer with. Source: PostgreSQL, Appendix A.
    pub fn sqlstate(self) -> &'static str {
        match self {
            DenyKind::Unparsable => "42601",
            DenyKind::TooLarge | DenyKind::TooManyNames => "54000",
            DenyKind::Encoding => "22021",
            DenyKind::Reading => "0A000",
            DenyKind::NameTooLong => "42622",
            _ => "42501",
        }
    }

    /// The word used in records and in DETAIL.
    pub fn as_str(self) -> &'static str {
        match self {
            DenyKind::Rule => "rule",
            DenyKind::Default => "default",
            DenyKind::Opaque => "opaque",
            DenyKind::Unparsable => "unparsable",
            DenyKind::TooLarge => "too_large",
            DenyKind::Encoding => "encoding",
            DenyKind::Reading => "reading",
            DenyKind::NameTooLong => "name_too_long",
            DenyKind::UnknownName => "unknown_name",
            DenyKind::TooManyNames => "too_many_names",
            DenyKind::NotEvaluated => "not_evaluated",
            DenyKind::FunctionCall => "function_call",
            DenyKind::NoRole => "no_role",
        }
    }
}

/// One decision. Cheap to clone: every string is shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Allow, deny or approve; never alert.
    pub action: Action,
    /// Names of the alert rules that matched.
    pub alerts: Arc<[Arc<str>]>,
    /// The rule that decided, or `default`, or the word of the [`DenyKind`].
    pub rule: Arc<str>,
    /// One sentence for a human and for the record. It names rules, kinds,
    /// tables and functions, never values.
    pub reason: Arc<str>,
    /// What the rule wants the agent to be told.
    pub message: Option<Arc<str>>,
    /// How to hold it, when `action` is approve.
    pub approval: Option<Arc<ApprovalSpec>>,
    /// Which policy decided.
    pub policy_version: Arc<str>,
    /// Why it was denied, when `action` is deny.
    pub deny: Option<DenyKind>,
}

impl Decision {
    /// The SQLSTATE to refuse with; `42501` for anything that is not a deny.
    pub fn sqlstate(&self) -> &'static str {
        self.deny.map_or("42501", DenyKind::sqlstate)
    }

    /// Whether this is a plain allow.
    pub fn is_allow(&self) -> bool {
        self.action == Action::Allow
    }

    pub(crate) fn deny(
        kind: DenyKind,
        reason: impl Into<Arc<str>>,
        version: &Arc<str>,
    ) -> Decision {
        Decision {
            action: Action::Deny,
            alerts: Arc::from([]),
            rule: Arc::from(kind.as_str()),
            reason: reason.into(),
            message: None,
            approval: None,
            policy_version: version.clone(),
            deny: Some(kind),
        }
    }

    /// The stricter of two decisions; alerts of both are kept.
    pub(crate) fn stricter(self, other: Decision) -> Decision {
        let rank = |d: &Decision| match d.action {
            Action::Deny => 2,
            Action::Approve => 1,
            _ => 0,
        };
        let (mut winner, loser) = if rank(&other) > rank(&self) {
            (other, self)
        } else {
            (self, other)
        };
        if !loser.alerts.is_empty() {
            let mut all: Vec<Arc<str>> = winner.alerts.to_vec();
            for a in loser.alerts.iter() {
                if !all.contains(a) {
                    all.push(a.clone());
                }
            }
            winner.alerts = all.into();
        }
        if let (Some(a), Some(b)) = (&winner.approval, &loser.approval)
            && winner.action == Action::Approve
        {
            // Two approve rules: the shorter waits, the larger demands.
            winner.approval = Some(Arc::new(ApprovalSpec {
                wait_s: a.wait_s.min(b.wait_s),
                in_transaction_wait_s: a.in_transaction_wait_s.min(b.in_transaction_wait_s),
                reason_required: a.reason_required || b.reason_required,
                approvers_min: a.approvers_min.max(b.approvers_min),
            }));
        }
        winner
    }
}
