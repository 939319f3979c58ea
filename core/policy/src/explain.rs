//! Which rule decides a text, and why: every rule considered.

use crate::compile::{PolicySet, RoleRef};
use crate::decision::{Decision, DenyKind};
use crate::evaluate::{Circumstances, Match, decide};
use crate::gate::{Binds, SessionFacts, draw};
use crate::spec::Action;
use crate::sql::{FactsError, StatementFacts};
use std::fmt;

/// What [`explain`] found; its `Display` is for a terminal.
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
    pub action: Action,
    /// Whether it matched.
    pub matched: bool,
    /// Why, or why not.
    pub why: String,
}

/// Explains what a role says to a text, as a Query without bind values in a
/// fresh session whose server reads text in the usual way.
pub fn explain(
    policy: &PolicySet,
    role: &RoleRef,
    session: &SessionFacts,
    text: &str,
) -> Explanation {
    let version = policy.version_arc();
    let facts = match draw(text, &role.limits) {
        Ok(facts) => facts,
        Err(error) => {
            let kind = match error {
                FactsError::Unparsable => DenyKind::Unparsable,
                FactsError::NotText => DenyKind::Encoding,
                _ => DenyKind::TooLarge,
            };
            let decision = Decision::deny(kind, error.to_string(), &version);
            return Explanation {
                decision,
                facts: Vec::new(),
                rules: Vec::new(),
            };
        }
    };
    let mut rules = Vec::new();
    let circumstances = Circumstances {
        session,
        binds: Some(Binds::Values(&[])),
        search_path_changed: false,
    };
    let decision = decide(role, &facts, circumstances, |statement, rule, m| {
        let (matched, why) = match m {
            Match::Yes => (true, "matches".to_owned()),
            Match::No(why) => (false, (*why).to_owned()),
            Match::Later => (false, "reads bind values".to_owned()),
            Match::Broken(why) => (true, format!("cannot be evaluated: {why}")),
        };
        rules.push(RuleLine {
            statement,
            rule: rule.name.to_string(),
            action: rule.action,
            matched,
            why,
        });
    });
    let facts = facts
        .statements
        .iter()
        .enumerate()
        .flat_map(|(i, s)| lines(i, s))
        .collect();
    Explanation {
        decision,
        facts,
        rules,
    }
}

fn lines(index: usize, s: &StatementFacts) -> Vec<String> {
    let mut out = vec![format!(
        "statement {index}: {} ({})",
        s.kind,
        s.kinds.join(", ")
    )];
    let mut add = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            out.push(format!("  {name}: {}", values.join(", ")));
        }
    };
    add(
        "reads",
        s.tables_read.iter().map(ToString::to_string).collect(),
    );
    add(
        "writes",
        s.tables_written.iter().map(ToString::to_string).collect(),
    );
    add(
        "columns",
        s.columns.iter().map(|c| c.name.clone()).collect(),
    );
    add(
        "functions",
        s.functions.iter().map(ToString::to_string).collect(),
    );
    add("opaque", s.opaque.iter().map(ToString::to_string).collect());
    add(
        "settings",
        s.settings.iter().map(|x| x.name.clone()).collect(),
    );
    add(
        "copy",
        s.copy.iter().map(|c| c.as_str().to_owned()).collect(),
    );
    if s.where_missing {
        add("where", vec!["missing or naming no column".to_owned()]);
    }
    out
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.facts {
            writeln!(f, "{}", clean(line))?;
        }
        for r in &self.rules {
            let mark = if r.matched { "*" } else { " " };
            writeln!(
                f,
                "{mark} [{}] {} {}: {}",
                r.statement,
                r.action.as_str(),
                r.rule,
                clean(&r.why)
            )?;
        }
        let d = &self.decision;
        write!(
            f,
            "{}: {} ({})",
            d.action.as_str(),
            clean(&d.reason),
            d.rule
        )
    }
}

/// Control and direction characters of foreign text, made visible.
fn clean(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let bad = c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
            if bad { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}
