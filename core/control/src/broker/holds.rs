//! Requests that come to wait, and waits that end.

use super::{
    AbandonReason, ApprovalEventKind, Broker, Due, Hold, HoldAnswer, ITSELF, Key, StoreError,
    answer,
};
use crate::encoding::new_approval_id;
use crate::hold::{HoldNotice, HoldRequest};
use crate::store::Approval;

/// Bytes of each name in a request (session, role, target, rule, ...).
const NAME_BYTES_MAX: usize = 4096;

/// Values shown with one request: PostgreSQL's own limit on parameters.
const BINDS_MAX: usize = 65_535;

/// Entries of session state shown with one request.
const STATE_ENTRIES_MAX: usize = 256;

const STORE_FAILED: HoldAnswer = HoldAnswer::Unavailable {
    why: "approval store cannot be written",
};

impl Broker {
    /// A request has come. In order: an unspent grant is spent; a fresh denial
    /// stands; a pending approval is joined; else it is put on file.
    pub(super) async fn hold(&mut self, hold: Hold) {
        if !hold.state.is_waiting() {
            self.hint(&Key::of(&hold.request));
            return;
        }
        if let Some(why) = unfit(&hold.request, self.limits.shown_bytes_max) {
            self.hint(&Key::of(&hold.request));
            return answer(hold, HoldAnswer::Unavailable { why });
        }
        let key = Key::of(&hold.request);
        if let Err((hold, error)) = self.place(hold, &key).await {
            tracing::error!(%error, "held request not placed");
            answer(hold, STORE_FAILED);
        }
        // Whatever came of it, the shard's guess gives way to what is.
        self.hint(&key);
    }

    async fn place(&mut self, hold: Hold, key: &Key) -> Result<(), (Hold, StoreError)> {
        let now = self.now();
        if hold.request.reuse {
            match self.store.usable_grant(key, now).await {
                Err(error) => return Err((hold, error)),
                Ok(Some(grant)) => {
                    hold.state.set_approval_id(&grant.id);
                    self.spend_on(grant, hold).await;
                    return Ok(());
                }
                Ok(None) => {}
            }
        }
        let cool = self.limits.deny_cool_down_ms;
        match self.store.denial_since(key, now.saturating_sub(cool)).await {
            Err(error) => return Err((hold, error)),
            Ok(Some(denied)) if cool > 0 => {
                hold.state.set_approval_id(&denied.id);
                let until_unix_ms = denied.ended_ms.saturating_add(cool);
                answer(
                    hold,
                    HoldAnswer::CoolingDown {
                        approval_id: denied.id,
                        until_unix_ms,
                    },
                );
                return Ok(());
            }
            Ok(_) => {}
        }
        if let Some(id) = self.pending_by_key.get(key).cloned() {
            self.join(&id, hold);
            return Ok(());
        }
        let of_principal = self
            .pending_by_key
            .keys()
            .filter(|other| other.issuer == key.issuer && other.subject == key.subject)
            .count();
        let caps = [
            (of_principal, self.limits.pending_per_principal_max),
            (self.pending.len(), self.limits.pending_max),
        ];
        for (count, pending_max) in caps {
            if count >= pending_max as usize {
                answer(hold, HoldAnswer::CapReached { pending_max });
                return Ok(());
            }
        }
        self.file(hold, None).await.map(|_| ())
    }

    /// Puts a request on file, under the id its ticket was given unless that
    /// one is taken, and lets it wait there. Gives the id.
    pub(super) async fn file(
        &mut self,
        mut hold: Hold,
        follows: Option<&str>,
    ) -> Result<String, (Hold, StoreError)> {
        let now = self.now();
        let mut id = hold.state.approval_id();
        let taken = match self.store.approval(&id).await {
            Ok(found) => found.is_some(),
            Err(error) => return Err((hold, error)),
        };
        if taken || follows.is_some() || !id.starts_with("ap_") {
            match new_approval_id() {
                Some(fresh) => id = fresh,
                None => return Err((hold, StoreError::Full("no random bytes"))),
            }
        }
        let expires_ms = now.saturating_add(self.limits.approval_ttl_ms);
        let approval = Approval::pending(id.clone(), hold.request.clone(), now, expires_ms);
        let actor = hold.request.principal_subject.clone();
        if let Err(error) = self
            .store
            .insert_approval(&approval, follows, self.change(&actor))
            .await
        {
            return Err((hold, error));
        }
        self.remember(&approval);
        hold.state.set_approval_id(&id);
        let request = &hold.request;
        self.tell(
            &id,
            &request.session,
            request.digest,
            ApprovalEventKind::Requested,
        );
        (hold.notice)(match follows {
            None => HoldNotice::Asked {
                approval_id: id.clone(),
                expires_unix_ms: expires_ms,
                joined: false,
            },
            Some(_) => HoldNotice::Moved {
                approval_id: id.clone(),
                expires_unix_ms: expires_ms,
            },
        });
        self.enqueue(&id, hold);
        Ok(id)
    }

    fn join(&mut self, id: &str, mut hold: Hold) {
        let Some(pending) = self.pending.get_mut(id) else {
            return answer(hold, STORE_FAILED);
        };
        // Those who went away make room first.
        pending.waiters.retain(|waiter| waiter.state.is_waiting());
        let pending_max = self.limits.waiters_per_approval_max;
        if pending.waiters.len() >= pending_max as usize {
            return answer(hold, HoldAnswer::CapReached { pending_max });
        }
        let expires_unix_ms = pending.expires_ms;
        hold.state.set_approval_id(id);
        self.tell(
            id,
            &hold.request.session,
            hold.request.digest,
            ApprovalEventKind::Joined,
        );
        (hold.notice)(HoldNotice::Asked {
            approval_id: id.to_owned(),
            expires_unix_ms,
            joined: true,
        });
        self.enqueue(id, hold);
    }

    /// Adds a wait to a pending approval.
    pub(super) fn enqueue(&mut self, id: &str, mut hold: Hold) {
        let Some(pending) = self.pending.get_mut(id) else {
            return answer(hold, STORE_FAILED);
        };
        self.waits.insert(hold.wait, id.to_owned());
        self.due
            .insert((hold.request.wait_deadline_unix_ms, Due::Wait(hold.wait)));
        // What is shown is in the store, once; waits do not hold copies of it.
        hold.request.text = Vec::new();
        hold.request.binds = Vec::new();
        pending.waiters.push_back(hold);
    }

    /// Spends a grant on one wait. True if the grant was used up by it: spent,
    /// or possibly so.
    pub(super) async fn spend_on(&mut self, grant: Approval, hold: Hold) -> bool {
        // Claimed first, so that no grant is spent on who has left.
        if !hold.state.claim() {
            return false;
        }
        let change = self.change(&hold.request.principal_subject);
        match self
            .store
            .spend(&grant.id, &hold.request.session, change)
            .await
        {
            Ok(true) => {
                self.due
                    .remove(&(grant.expires_ms, Due::Approval(grant.id.clone())));
                let request = &hold.request;
                let kind = ApprovalEventKind::Spent;
                self.tell(&grant.id, &request.session, request.digest, kind);
                (hold.answer)(HoldAnswer::Granted {
                    approval_id: grant.id,
                    by: grant.decided_by,
                    reason: grant.reason,
                });
            }
            Ok(false) => {
                (hold.answer)(HoldAnswer::Unavailable {
                    why: "grant is no longer there",
                });
            }
            Err(error) => {
                // It may be on disk or not: not run is right for both.
                tracing::error!(approval_id = %grant.id, %error, "grant not spent");
                (hold.answer)(STORE_FAILED);
            }
        }
        true
    }

    /// The ticket was given up.
    pub(super) async fn abandoned(&mut self, wait: u64, reason: AbandonReason) {
        if let Some((id, hold)) = self.take_wait(wait) {
            self.left(&id, &hold.request, reason.name()).await;
        }
    }

    /// The wait's own deadline has come; the request stays asked.
    pub(super) async fn wait_ended(&mut self, wait: u64) {
        if let Some((id, hold)) = self.take_wait(wait) {
            self.left(&id, &hold.request, AbandonReason::TimedOut.name())
                .await;
            answer(
                hold,
                HoldAnswer::Expired {
                    approval_id: id,
                    still_asked: true,
                },
            );
        }
    }

    fn take_wait(&mut self, wait: u64) -> Option<(String, Hold)> {
        let id = self.waits.remove(&wait)?;
        let waiters = &mut self.pending.get_mut(&id)?.waiters;
        let at = waiters.iter().position(|hold| hold.wait == wait)?;
        let hold = waiters.remove(at)?;
        self.due
            .remove(&(hold.request.wait_deadline_unix_ms, Due::Wait(wait)));
        Some((id, hold))
    }

    async fn left(&mut self, id: &str, request: &HoldRequest, reason: &'static str) {
        let change = self.change(&request.principal_subject);
        if let Err(error) = self.store.note(change, "approval.left", id, reason).await {
            tracing::error!(approval_id = %id, %error, "end of a wait not noted");
        }
        let kind = ApprovalEventKind::Abandoned { reason };
        self.tell(id, &request.session, request.digest, kind);
    }

    /// A pending request or an unspent grant has come to its end.
    pub(super) async fn expire(&mut self, id: &str, now: u64) -> Result<(), StoreError> {
        let Some(approval) = self.store.approval(id).await? else {
            return Ok(());
        };
        if approval.expires_ms > now || !self.store.expire(id, self.change(ITSELF)).await? {
            return Ok(());
        }
        let request = &approval.request;
        self.tell(
            id,
            &request.session,
            request.digest,
            ApprovalEventKind::Expired,
        );
        for hold in self.forget(id) {
            let approval_id = id.to_owned();
            answer(
                hold,
                HoldAnswer::Expired {
                    approval_id,
                    still_asked: false,
                },
            );
        }
        Ok(())
    }
}

/// Why a request cannot be shown to an approver whole.
fn unfit(request: &HoldRequest, shown_bytes_max: usize) -> Option<&'static str> {
    let names = [
        &request.session,
        &request.principal_issuer,
        &request.principal_subject,
        &request.role,
        &request.target,
        &request.database,
        &request.account,
        &request.policy_version,
        &request.rule,
    ];
    if request.principal_subject.is_empty() || request.session.is_empty() {
        return Some("request does not say whose it is");
    }
    let behind = request.on_behalf_of.iter();
    if names
        .into_iter()
        .chain(behind)
        .any(|name| name.len() > NAME_BYTES_MAX)
    {
        return Some("a name in the request is too long");
    }
    if request.binds.len() > BINDS_MAX || request.state.len() > STATE_ENTRIES_MAX {
        return Some("request has too many values to be shown");
    }
    if request.shown_bytes() > shown_bytes_max {
        return Some("request is too large to be shown whole");
    }
    None
}
