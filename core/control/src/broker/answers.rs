//! A human's yes and no.

use super::{
    Approval, ApprovalEventKind, ApprovalState, Broker, Due, Hold, HoldAnswer, Refusal, answer,
    failed,
};

impl Broker {
    pub(super) fn with_waiters(&self, approval: Approval) -> (Approval, usize) {
        let waiting = self.pending.get(&approval.id).map_or(0, |pending| {
            pending
                .waiters
                .iter()
                .filter(|hold| hold.state.is_waiting())
                .count()
        });
        (approval, waiting)
    }

    pub(super) async fn find(&mut self, id: &str) -> Result<(Approval, usize), Refusal> {
        let found = self
            .store
            .approval(id)
            .await
            .map_err(failed)?
            .ok_or(Refusal::NotFound)?;
        Ok(self.with_waiters(found))
    }

    /// Yes. The grant is put on disk, then spent on the first who still waits;
    /// the others wait on under a new approval. Nobody waits: it stays granted
    /// until used or ended.
    pub(super) async fn approve(
        &mut self,
        id: &str,
        by: &str,
        reason: &str,
    ) -> Result<(Approval, usize), Refusal> {
        let (approval, _) = self.find(id).await?;
        let request = &approval.request;
        if is_same_person(by, &request.principal_subject) {
            let change = self.change(by);
            let note = "the requester may not approve";
            self.store
                .note(change, "approval.refused", id, note)
                .await
                .map_err(failed)?;
            return Err(Refusal::OwnRequest);
        }
        if approval.state != ApprovalState::Pending {
            return Err(conflict(&approval));
        }
        let expires_ms = self.now().saturating_add(self.limits.grant_ttl_ms);
        if !self
            .store
            .grant(id, reason, expires_ms, self.change(by))
            .await
            .map_err(failed)?
        {
            return Err(conflict(&self.find(id).await?.0));
        }
        let kind = ApprovalEventKind::Granted {
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        self.tell(id, &request.session, request.digest, kind);
        let mut waiters = self.forget(id);
        self.due.insert((expires_ms, Due::Approval(id.to_owned())));
        let (grant, _) = self.find(id).await?;
        while let Some(hold) = waiters.pop_front() {
            if self.spend_on(grant.clone(), hold).await {
                break;
            }
        }
        self.move_on(grant, waiters.into_iter().collect()).await;
        self.find(id).await
    }

    /// Those whom an approval did not serve wait on, together, under a new one.
    async fn move_on(&mut self, from: Approval, mut rest: Vec<Hold>) {
        rest.retain(|hold| hold.state.is_waiting());
        let mut rest = rest.into_iter();
        let Some(mut first) = rest.next() else { return };
        first.request.text = from.request.text;
        first.request.binds = from.request.binds;
        match self.file(first, Some(&from.id)).await {
            Ok(id) => {
                let expires_unix_ms = self
                    .pending
                    .get(&id)
                    .map_or(0, |pending| pending.expires_ms);
                for mut hold in rest {
                    hold.state.set_approval_id(&id);
                    (hold.notice)(crate::hold::HoldNotice::Moved {
                        approval_id: id.clone(),
                        expires_unix_ms,
                    });
                    self.enqueue(&id, hold);
                }
            }
            Err((first, error)) => {
                tracing::error!(approval_id = %from.id, %error, "waiting requests not kept");
                let why = "approval store cannot be written";
                for hold in std::iter::once(first).chain(rest) {
                    answer(hold, HoldAnswer::Unavailable { why });
                }
            }
        }
    }

    /// No, for all who wait. Of a grant that nobody has used yet, it takes the
    /// yes back.
    pub(super) async fn deny(
        &mut self,
        id: &str,
        by: &str,
        reason: &str,
    ) -> Result<(Approval, usize), Refusal> {
        let (approval, _) = self.find(id).await?;
        if !self
            .store
            .deny(id, reason, self.change(by))
            .await
            .map_err(failed)?
        {
            return Err(conflict(&approval));
        }
        let request = &approval.request;
        let kind = ApprovalEventKind::Denied {
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        self.tell(id, &request.session, request.digest, kind);
        self.due
            .remove(&(approval.expires_ms, Due::Approval(id.to_owned())));
        for hold in self.forget(id) {
            answer(
                hold,
                HoldAnswer::Denied {
                    approval_id: id.to_owned(),
                    by: by.to_owned(),
                    reason: reason.to_owned(),
                },
            );
        }
        self.find(id).await
    }
}

fn conflict(approval: &Approval) -> Refusal {
    Refusal::Conflict {
        state: approval.state.name(),
        followed_by: approval.followed_by.clone(),
    }
}

/// Whether two names mean one person, as far as names can tell: case and
/// surrounding blanks do not make another.
fn is_same_person(one: &str, other: &str) -> bool {
    // Upper case and back folds what either alone leaves apart (ß, ſ, ς).
    let fold = |name: &str| name.trim().to_uppercase().to_lowercase();
    fold(one) == fold(other)
}

#[cfg(test)]
mod tests {
    use super::is_same_person;

    #[test]
    fn case_and_blanks_make_no_other_person() {
        for (one, other) in [
            ("alice", "Alice"),
            (" alice\t", "alice"),
            ("STRASSE", "straße"),
            ("ΣΑΣ", "σας"),
            ("ſam", "SAM"),
        ] {
            assert!(is_same_person(one, other), "{one} {other}");
        }
        assert!(!is_same_person("alice", "alicia"));
        assert!(!is_same_person("", "a"));
    }
}
