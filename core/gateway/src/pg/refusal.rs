//! What an agent reads when the gateway says no, chosen word by word.
//!
//! MESSAGE says what happened, DETAIL is for machines (`key=value` pairs in
//! a fixed order: `action`, `rule`, `reason`, `session`, and what else the
//! case has), HINT names the next legal step. None of them ever names the
//! target's address, a credential, or bytes of a request.
//!
//! | SQLSTATE | when |
//! |---|---|
//! | 42501 | a rule or the role's default says no; a human said no |
//! | 42601, 22021, 0A000, 42622 | the text cannot be read with certainty |
//! | 54000 | over a limit of size |
//! | 57014 | the hold was cancelled by the agent, or ran out of time |
//! | 57P03 | the control plane cannot be asked |
//! | 53400 | too many requests of this principal wait already |
//! | 58030 | the record cannot be written |
//! | 28000 | no access to this target (it may not exist) |
//! | 28P01 | the token is not valid |
//! | 53300 | no connection to the target is free |
//! | 08001, 08004, 08006 | the target cannot be reached, refuses the login, or was lost |
//! | 57P01 | the gateway stops, or the credential has ended |

use policy::Decision;
use postgres::Refusal;

fn sqlstate(text: &str) -> [u8; 5] {
    text.as_bytes().try_into().unwrap_or(*b"42501")
}

/// `"` and `\` would end a quoted value early.
fn quoted(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '"' || c == '\\' || c.is_control() {
                '\''
            } else {
                c
            }
        })
        .collect()
}

/// A rule, the default, or a check of the gate denied the request.
pub fn denied(decision: &Decision, session: &str) -> Refusal {
    let message = match &decision.message {
        Some(own) => format!("refused by rule \"{}\": {own}", decision.rule),
        None => format!("refused by rule \"{}\"", decision.rule),
    };
    Refusal::new(&sqlstate(decision.sqlstate()), message)
        .with_detail(format!(
            "action=deny rule=\"{}\" reason=\"{}\" session={session}",
            quoted(&decision.rule),
            quoted(&decision.reason)
        ))
        .with_hint("The session goes on; send another statement, or ask the owners of the policy, naming rule and session.")
}

/// What became of a hold that ended without a yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldEnd {
    /// A human said no.
    Denied {
        /// Who.
        by: String,
        /// Why, as far as they said.
        reason: String,
    },
    /// A human said yes without the reason that the rule requires.
    NoReason {
        /// Who.
        by: String,
    },
    /// Nobody answered in time.
    TimedOut,
    /// The agent cancelled it.
    Cancelled,
    /// The gateway stops.
    Stopping,
    /// The same request was denied a moment ago.
    CoolingDown,
    /// Too many of this principal's requests wait already.
    CapReached,
    /// The control plane cannot be asked.
    Unavailable,
}

/// A held request that will not run.
pub fn not_approved(end: &HoldEnd, rule: &str, approval: &str, session: &str) -> Refusal {
    let again =
        format!("Send the same statement again to wait for the same approval ({approval}).");
    let (state, code, message, hint) = match end {
        HoldEnd::Denied { by, reason } => {
            let why = if reason.is_empty() {
                String::new()
            } else {
                format!(": {}", quoted(reason))
            };
            (
                "denied",
                "42501",
                format!("not approved by {}{why}", quoted(by)),
                "The session goes on; send another statement.".to_string(),
            )
        }
        HoldEnd::NoReason { by } => (
            "no_reason",
            "42501",
            format!(
                "approved by {} without a reason, which the rule requires; the statement was not run",
                quoted(by)
            ),
            "Send the same statement again; its approver runs `portcullis approve … --reason TEXT`."
                .to_string(),
        ),
        HoldEnd::TimedOut => (
            "timeout",
            "57014",
            "nobody approved the statement in time".to_string(),
            again,
        ),
        HoldEnd::Cancelled => (
            "cancelled",
            "57014",
            "canceling statement due to user request".to_string(),
            again,
        ),
        HoldEnd::Stopping => (
            "stopping",
            "57P01",
            "the gateway is stopping; the statement was not run".to_string(),
            again,
        ),
        HoldEnd::CoolingDown => (
            "cooling_down",
            "42501",
            "the same statement was denied a moment ago".to_string(),
            "Change the statement or wait.".to_string(),
        ),
        HoldEnd::CapReached => (
            "cap_reached",
            "53400",
            "too many of your statements wait for approval already".to_string(),
            "Wait until some of them are answered.".to_string(),
        ),
        HoldEnd::Unavailable => (
            "unavailable",
            "57P03",
            "the statement needs an approval, and nobody can be asked now".to_string(),
            "Try again later.".to_string(),
        ),
    };
    Refusal::new(&sqlstate(code), message)
        .with_detail(format!(
            "action=approve state={state} rule=\"{}\" approval={approval} session={session}",
            quoted(rule)
        ))
        .with_hint(hint)
}

/// A request that carries one of our masks: sending it on could overwrite the
/// real secret with its mask.
pub fn carries_mask(session: &str) -> Refusal {
    Refusal::new(b"42501", "the statement carries a mask of this gateway in place of a value")
        .with_detail(format!("action=deny rule=\"carries_mask\" reason=\"a masked value would overwrite the real one\" session={session}"))
        .with_hint("Leave masked values out of statements; refer to rows by other columns.")
}

/// The record cannot be written, so nothing new may pass.
pub fn not_recorded(session: &str) -> Refusal {
    Refusal::new(
        b"58030",
        "the statement cannot be put on record and was not run",
    )
    .with_detail(format!(
        "action=deny rule=\"recorder\" reason=\"the record cannot be written\" session={session}"
    ))
    .with_hint("Nothing passes unrecorded; the operators of the gateway have been told in its log.")
}

/// The text in the NOTICE of a held request.
pub fn held_notice(rule: &str, approval: &str, session: &str, wait_s: u64) -> Refusal {
    Refusal::new(b"01000", format!("statement held for approval {approval} (rule \"{rule}\")"))
        .with_detail(format!(
            "action=approve state=waiting rule=\"{}\" approval={approval} session={session} wait_s={wait_s}",
            quoted(rule)
        ))
        .with_hint(format!(
            "An approver runs: portcullis approve {approval} --by NAME. The statement waits {wait_s} s; cancel it to give up."
        ))
}

/// The login failed: one answer for every kind of bad credential.
pub fn login_failed() -> Refusal {
    Refusal::new(b"28P01", "the token is not valid for this gateway").with_hint(
        "The password is a token: of a configured issuer, or one made by `portcullis token`.",
    )
}

/// No role opens the target to this principal, or there is no such target:
/// the two must not be told apart.
pub fn no_access(target: &str, session: &str) -> Refusal {
    Refusal::new(b"28000", format!("no access to \"{}\"", quoted(target)))
        .with_detail(format!("action=deny rule=\"no_role\" session={session}"))
        .with_hint("dbname is TARGET or TARGET/DATABASE. Ask the owners of the policy for a role that opens it.")
}

/// Every connection to the target is taken.
pub fn no_connection_free(what: &str, session: &str) -> Refusal {
    Refusal::new(b"53300", "no connection to the target is free")
        .with_detail(format!("action=deny rule=\"{what}\" session={session}"))
        .with_hint("Close idle sessions or try again later.")
}

/// A FATAL of ours about the target's connection.
pub fn target_fault(code: &[u8; 5], message: impl Into<String>, session: &str) -> Refusal {
    Refusal::new(code, message).with_detail(format!("session={session}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_reason_cannot_forge_a_detail_key() {
        let r = not_approved(
            &HoldEnd::Denied {
                by: "eve".into(),
                reason: "x\" state=granted \\".into(),
            },
            "r\" rule=\"other",
            "ap_1",
            "s",
        );
        assert_eq!(
            r.detail,
            "action=approve state=denied rule=\"r' rule='other\" approval=ap_1 session=s"
        );
        assert!(!r.message.contains('"'));
    }

    #[test]
    fn every_end_of_a_hold_has_a_state_and_a_next_step() {
        for end in [
            HoldEnd::Denied {
                by: "b".into(),
                reason: String::new(),
            },
            HoldEnd::NoReason { by: "b".into() },
            HoldEnd::TimedOut,
            HoldEnd::Cancelled,
            HoldEnd::Stopping,
            HoldEnd::CoolingDown,
            HoldEnd::CapReached,
            HoldEnd::Unavailable,
        ] {
            let r = not_approved(&end, "r", "ap_1", "s");
            assert!(r.detail.contains("state=") && !r.hint.is_empty(), "{end:?}");
        }
    }
}
