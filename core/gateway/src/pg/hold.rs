//! A request that waits for a human, on its live connection.
//!
//! The hold is bound to a digest over who asks, what for, in which state, and
//! the exact request; what is shown to the approver is masked, whole, and
//! never cut. The control plane answers through the shard's mailbox; nothing
//! else of the shard waits.

use crate::pg::digest::{self, Digest};
use crate::pg::record::ruling;
use crate::pg::refusal::{self, HoldEnd};
use crate::pg::session::PgSession;
use crate::serve::shard::Shard;
use control::{AbandonReason, HoldAnswer, HoldNotice, HoldRequest};
use policy::Decision;
use postgres::session::{BindValues, Unit, UnitId, Verdict};
use recorder::{ApprovalState, Body};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Names in one held request whose texts are shown; a request with more is
/// refused, since nobody reads them all.
const NAMES_SHOWN_MAX: usize = 32;

/// How a wait ended.
enum Waited {
    Answer(Option<HoldAnswer>),
    Ended(HoldEnd),
}

/// Holds `unit` until it is answered, and says what becomes of it.
pub(super) async fn wait(
    session: &Rc<PgSession>,
    id: UnitId,
    unit: &Unit,
    decision: &Decision,
) -> Verdict {
    let label = session.id.to_string();
    let metrics = session.shard.metrics.clone();
    metrics.requests_held.add(1);
    let spec = decision.approval.as_deref().cloned().unwrap_or_default();
    let in_transaction = session.state.borrow().machine.transaction_status() != b'I';
    let wait_s = u64::from(if in_transaction {
        spec.in_transaction_wait_s
    } else {
        spec.wait_s
    });
    let deadline = engine::now().after(Duration::from_secs(wait_s));
    let request = request(session, unit, decision, in_transaction, wait_s);
    let Some(request) = request else {
        return refuse(session, &HoldEnd::Unavailable, decision, "none");
    };

    session.hold_end.set(None);
    session.on_file.set(false);
    session.held.set(true);
    let (answer_to, answer) = engine::reply::<HoldAnswer>();
    session.state.borrow_mut().machine.park();
    let ticket = session.shard.shared.control.hold_noticed(
        request,
        announce(session, id, decision.rule.to_string(), wait_s),
        Box::new(move |a| answer_to.send(a)),
    );

    let waited = first(answer, session, deadline).await;
    session.held.set(false);
    let mut approval = ticket.approval_id();
    let end = match waited {
        Waited::Answer(answer) => {
            drop(ticket);
            match answer.unwrap_or(HoldAnswer::Unavailable { why: "no answer" }) {
                HoldAnswer::Granted {
                    approval_id,
                    by,
                    reason,
                } if spec.reason_required && reason.trim().is_empty() => {
                    let why = "no reason given, which the rule requires";
                    let state = ApprovalState::Denied;
                    record(session, id, &approval_id, state, &by, why).await;
                    HoldEnd::NoReason { by }
                }
                HoldAnswer::Granted {
                    approval_id,
                    by,
                    reason,
                } => {
                    // Spent already; if this cannot be recorded it must not run.
                    record(
                        session,
                        id,
                        &approval_id,
                        ApprovalState::Granted,
                        &by,
                        &reason,
                    )
                    .await;
                    let spent =
                        record(session, id, &approval_id, ApprovalState::Spent, &by, "").await;
                    let ruled = Body::Decision {
                        unit: id.0,
                        ruling: ruling(decision, Some(approval_id)),
                    };
                    if !spent || !append(session, &ruled).await {
                        return Verdict::Refuse(refusal::not_recorded(&label));
                    }
                    metrics.requests_approved.add(1);
                    return Verdict::Forward;
                }
                HoldAnswer::Denied {
                    approval_id,
                    by,
                    reason,
                } => {
                    record(
                        session,
                        id,
                        &approval_id,
                        ApprovalState::Denied,
                        &by,
                        &reason,
                    )
                    .await;
                    HoldEnd::Denied { by, reason }
                }
                HoldAnswer::Expired { approval_id, .. } => {
                    record(session, id, &approval_id, ApprovalState::Expired, "", "").await;
                    HoldEnd::TimedOut
                }
                HoldAnswer::CoolingDown { .. } => HoldEnd::CoolingDown,
                HoldAnswer::CapReached { .. } => HoldEnd::CapReached,
                HoldAnswer::Unavailable { why } => {
                    tracing::warn!(session_id = %session.id, reason = why, "approval cannot be asked for");
                    HoldEnd::Unavailable
                }
            }
        }
        Waited::Ended(end) => {
            let reason = match end {
                HoldEnd::TimedOut => AbandonReason::TimedOut,
                HoldEnd::Stopping => AbandonReason::SessionEnded,
                _ => AbandonReason::Cancelled,
            };
            // Where an answer was already under way its grant is lost: the
            // agent has been told no, and no it stays.
            approval = ticket.approval_id();
            ticket.abandon(reason);
            let state = if end == HoldEnd::TimedOut {
                ApprovalState::Expired
            } else {
                ApprovalState::Abandoned
            };
            record(session, id, &approval, state, "", "").await;
            end
        }
    };
    refuse(session, &end, decision, &approval)
}

/// Tells the agent and the record once the request is on file, and again when
/// it waits under another id; never of a request that was refused unasked.
/// Called on the control thread, so it sends itself to the shard.
fn announce(
    session: &PgSession,
    id: UnitId,
    rule: String,
    wait_s: u64,
) -> Box<dyn FnMut(HoldNotice) + Send> {
    let shard = engine::this_shard();
    let of = session.id;
    Box::new(move |notice| {
        let (HoldNotice::Asked { approval_id, .. } | HoldNotice::Moved { approval_id, .. }) =
            notice;
        let rule = rule.clone();
        shard.run(move || {
            let Some(session) = Shard::current().and_then(|s| s.session(&of)) else {
                return;
            };
            if !session.is_held() {
                return;
            }
            session.on_file.set(true);
            tracing::info!(session_id = %of, approval_id = %approval_id, rule = %rule, "request held");
            let notice = refusal::held_notice(&rule, &approval_id, &of.to_string(), wait_s);
            let asked = Body::Approval {
                unit: id.0,
                approval: approval_id,
                state: ApprovalState::Requested,
                by: String::new(),
                reason: String::new(),
            };
            session.state.borrow_mut().record.append(asked, true);
            session.notify_agent(notice);
        });
    })
}

fn refuse(session: &Rc<PgSession>, end: &HoldEnd, decision: &Decision, approval: &str) -> Verdict {
    session.shard.metrics.requests_denied.add(1);
    session.state.borrow_mut().record.denied += 1;
    Verdict::Refuse(refusal::not_approved(
        end,
        &decision.rule,
        approval,
        &session.id.to_string(),
    ))
}

/// What the approver sees, and the digest that binds it. `None` where the
/// statement is not known whole.
fn request(
    session: &Rc<PgSession>,
    unit: &Unit,
    decision: &Decision,
    in_transaction: bool,
    wait_s: u64,
) -> Option<HoldRequest> {
    let facts = &session.facts;
    let st = session.state.borrow();
    let mut d = Digest::new("portcullis hold 1");
    for part in [
        &facts.principal.issuer,
        &facts.principal.subject,
        &facts.role,
        &facts.target,
        &facts.database,
        &facts.account,
    ] {
        d.part(part.as_bytes());
    }
    d.part(decision.policy_version.as_bytes());
    let mut state = Vec::new();
    st.gate.state_digest_input(&mut state);
    d.part(&state);
    let mut shown: Vec<u8> = Vec::new();
    let mut binds = Vec::new();
    match unit {
        Unit::Query { text } => {
            d.part(b"query").part(text);
            shown.extend_from_slice(text);
        }
        Unit::Bind {
            statement, values, ..
        } => {
            // The portal's name gives the request no meaning; the texts that
            // the statement's name may stand for do.
            let texts = st.gate.texts(statement);
            if texts.is_empty() {
                return None;
            }
            d.part(b"bind");
            for (i, t) in texts.iter().enumerate() {
                d.part(&t.text).part(b"types");
                for oid in &t.types {
                    d.part(&oid.to_le_bytes());
                }
                if i > 0 {
                    shown.extend_from_slice(b"\n-- or, if an earlier Parse has failed:\n");
                }
                shown.extend_from_slice(&t.text);
            }
            digest::add_values(&mut d, values);
            match values {
                BindValues::Read(read) => {
                    binds.extend(read.iter().map(|(_, v)| v.map(<[u8]>::to_vec)))
                }
                BindValues::Unread { .. } => return None,
            }
        }
        _ => return None,
    }
    // `EXECUTE p` says nothing of what will run: what its names stand for is
    // shown, and part of what is approved.
    let behind = st.gate.behind_names();
    if behind.len() > NAMES_SHOWN_MAX {
        return None;
    }
    for (name, stands_for) in behind {
        d.part(b"name")
            .part(name.as_bytes())
            .part(&stands_for.text)
            .part(b"types");
        for oid in &stands_for.types {
            d.part(&oid.to_le_bytes());
        }
        shown.extend_from_slice(format!("\n-- {name} stands for:\n").as_bytes());
        shown.extend_from_slice(&stands_for.text);
    }
    let masker = session.shard.masker();
    let mut findings = masking::Findings::new();
    let mut masked = |bytes: Vec<u8>| {
        masker
            .borrow_mut()
            .mask_value(&bytes, masking::Fill::Placeholder, &mut findings)
            .unwrap_or(bytes)
    };
    let now_ms = engine::wall_clock_us() / 1000;
    Some(HoldRequest {
        digest: d.finish(),
        session: session.id.to_string(),
        principal_issuer: facts.principal.issuer.clone(),
        principal_subject: facts.principal.subject.clone(),
        on_behalf_of: facts.principal.on_behalf_of.clone(),
        role: facts.role.clone(),
        target: facts.target.clone(),
        database: facts.database.clone(),
        account: facts.account.clone(),
        policy_version: decision.policy_version.to_string(),
        rule: decision.rule.to_string(),
        text: masked(shown),
        binds: binds.into_iter().map(|b| b.map(&mut masked)).collect(),
        state: st.gate.state_shown(),
        in_transaction,
        wait_deadline_unix_ms: now_ms + wait_s * 1000,
        reuse: !st.gate.made_temporary_objects(),
    })
}

async fn append(session: &Rc<PgSession>, body: &Body) -> bool {
    match session.shard.append_waiting(session.id, body, true).await {
        Ok(sequence) => session.shard.durable(sequence).await,
        Err(error) => {
            session.state.borrow_mut().record.waiting_failed(&error);
            false
        }
    }
}

/// Records a step of the approval, durably.
async fn record(
    session: &Rc<PgSession>,
    id: UnitId,
    approval: &str,
    state: ApprovalState,
    by: &str,
    reason: &str,
) -> bool {
    let body = Body::Approval {
        unit: id.0,
        approval: approval.to_string(),
        state,
        by: by.to_string(),
        reason: reason.to_string(),
    };
    append(session, &body).await
}

/// The first of: an answer, an end of the wait, the deadline. An answer that
/// has come wins over the others, since its grant is spent.
async fn first(
    answer: engine::Reply<HoldAnswer>,
    session: &Rc<PgSession>,
    deadline: engine::Time,
) -> Waited {
    let mut answer = pin!(answer);
    let mut timer = pin!(engine::sleep_until(deadline));
    let mut ends = Box::pin(session.hold_ends.notified());
    poll_fn(move |cx| {
        if let Poll::Ready(a) = answer.as_mut().poll(cx) {
            return Poll::Ready(Waited::Answer(a));
        }
        loop {
            if let Some(end) = session.hold_end.take() {
                return Poll::Ready(Waited::Ended(end));
            }
            if ends.as_mut().poll(cx).is_pending() {
                break;
            }
            ends = Box::pin(session.hold_ends.notified());
        }
        timer
            .as_mut()
            .poll(cx)
            .map(|()| Waited::Ended(HoldEnd::TimedOut))
    })
    .await
}
