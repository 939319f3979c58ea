//! `portcullis explain`: which rule decides, and why.

use super::{ConfigFile, Failure, load};
use policy::{Action, PolicySet};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct Explain {
    #[command(flatten)]
    config: ConfigFile,
    /// Role to decide for.
    #[arg(long)]
    role: String,
    /// Target that the session is at.
    #[arg(long, default_value = "")]
    target: String,
    /// Database that the session is in.
    #[arg(long, default_value = "")]
    database: String,
    /// Subject of the principal, for rules with `when`.
    #[arg(long, default_value = "")]
    subject: String,
    /// Group of the principal, for rules with `when`; may be repeated.
    #[arg(long = "group")]
    groups: Vec<String>,
    /// The statement.
    sql: String,
}

/// Prints the decision and every rule considered.
pub fn run(c: &Explain) -> Result<(), Failure> {
    let config = load(&c.config)?;
    let set = PolicySet::compile(&config.policy).map_err(|e| {
        Failure::with_code(
            4,
            e.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        )
    })?;
    let role = set.role(&c.role).ok_or_else(|| {
        let known: Vec<&str> = config
            .policy
            .roles
            .iter()
            .map(|r| r.name.as_str())
            .collect();
        Failure::new(format!(
            "no role is named `{}`; known: {}",
            c.role,
            known.join(", ")
        ))
    })?;
    let facts = policy::SessionFacts {
        principal: policy::Principal {
            subject: c.subject.clone(),
            groups: c.groups.clone(),
            ..policy::Principal::default()
        },
        target: c.target.clone(),
        database: c.database.clone(),
        account: String::new(),
    };
    let why = policy::explain(&set, &role, &facts, &c.sql);
    for fact in &why.facts {
        println!("fact      {fact}");
    }
    for line in &why.rules {
        let mark = if line.matched { "matches" } else { "-" };
        println!(
            "rule      {:<24} {:<8} {mark:<8} {}",
            line.rule,
            line.action.as_str(),
            line.why
        );
    }
    println!(
        "decision  {} by `{}`: {}",
        why.decision.action.as_str(),
        why.decision.rule,
        why.decision.reason
    );
    println!("policy    {}", why.decision.policy_version);
    match why.decision.action {
        Action::Deny => Err(Failure::with_code(5, "")),
        Action::Approve => Err(Failure::with_code(6, "")),
        Action::Allow | Action::Alert => Ok(()),
    }
}
