//! Which rule decides a text and why: every rule considered.
use crate::{Decision, DenyKind, PolicySet, RoleRef, SessionFacts};

/// What `explain` found.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The outcome.
    pub decision: Decision,
    /// The facts drawn, one line each.
    pub facts: Vec<String>,
    /// Every rule considered, in order.
    pub rules: Vec<RuleLine>,
}
/// One rule and whether it matched.
#[derive(Clone, Debug)]
pub struct RuleLine {
    /// Which statement of the text, from 0.
    pub statement: usize,
    /// The rule's name.
    pub rule: String,
    /// What it would say.
    pub action: crate::Action,
    /// Whether it matched.
    pub matched: bool,
    /// Why, or why not.
    pub why: String,
}
/// Explains what a role says to a text.
pub fn explain(
    policy: &PolicySet,
    _role: &RoleRef,
    _ctx: &SessionFacts,
    _text: &str,
) -> Explanation {
    Explanation {
        decision: Decision::deny(
            DenyKind::NotEvaluated,
            "not evaluated",
            &policy.version_arc(),
        ),
        facts: Vec::new(),
        rules: Vec::new(),
    }
}
