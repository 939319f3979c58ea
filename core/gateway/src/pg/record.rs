//! From what happens in a session to what its record says.
//!
//! A plain query costs two records: the request with its decision, and the
//! outcome with the rows. Records that find the ring full wait in a backlog,
//! in order, and the session reads nothing more until it is empty: the backlog
//! holds what one read produced, never more.

use crate::serve::shard::Shard;
use bytes::{Bytes, BytesMut};
use policy::{Action, Decision};
use postgres::session::{BindValues, Outcome, Unit, UnitId};
use recorder::{ActionCode, AppendError, Body, OutcomeCode, Ruling, SessionId};
use std::collections::VecDeque;
use std::rc::Rc;

/// Bind values recorded per request, in bytes; the digest covers all of them.
const BINDS_BYTES_MAX: usize = 64 * 1024;

/// The record of one session.
pub struct SessionRecord {
    shard: Rc<Shard>,
    session: SessionId,
    text_bytes_max: usize,
    backlog: Backlog,
    /// Rows of the unit whose outcome is still to come.
    rows: BytesMut,
    rows_truncated: bool,
    /// Executes under way and the Bind that each belongs to, in order.
    executes: VecDeque<(UnitId, u64)>,
    /// Bind units by portal.
    portals: std::collections::HashMap<Bytes, u64>,
    /// Set once the recorder has failed: nothing new may pass.
    failed: bool,
    /// Requests decided.
    pub requests: u64,
    /// Requests refused.
    pub denied: u64,
    /// Bytes to the agent, and of them those since the last outcome.
    pub bytes_down: u64,
    bytes_down_last: u64,
    /// Bytes to the target.
    pub bytes_up: u64,
}

/// Records that found the ring full, oldest first. One leaves only once it is in
/// the ring: whoever looks meanwhile still sees it waiting, and a flush that is
/// given up half-way has lost none.
#[derive(Default)]
struct Backlog(VecDeque<Body>);

impl Backlog {
    /// Appends from the front; `Ok(false)` where the ring is full again.
    fn flush(
        &mut self,
        mut append: impl FnMut(&Body) -> Result<u64, AppendError>,
    ) -> Result<bool, AppendError> {
        while let Some(oldest) = self.0.front() {
            match append(oldest) {
                Ok(_) => drop(self.0.pop_front()),
                Err(AppendError::Full) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Portals remembered for the record; beyond it an Execute is recorded under
/// its own number.
const PORTALS_MAX: usize = 4096;

impl SessionRecord {
    /// An empty one.
    pub fn new(shard: Rc<Shard>, session: SessionId, text_bytes_max: usize) -> SessionRecord {
        SessionRecord {
            shard,
            session,
            text_bytes_max,
            backlog: Backlog::default(),
            rows: BytesMut::new(),
            rows_truncated: false,
            executes: VecDeque::new(),
            portals: std::collections::HashMap::new(),
            failed: false,
            requests: 0,
            denied: 0,
            bytes_down: 0,
            bytes_down_last: 0,
            bytes_up: 0,
        }
    }

    /// Whether the recorder has failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Appends now, or behind what waits already. Returns the sequence number
    /// where it went into the ring.
    pub fn append(&mut self, body: Body, urgent: bool) -> Option<u64> {
        if self.backlog.0.is_empty() {
            match self.shard.append(self.session, &body, urgent) {
                Ok(sequence) => return Some(sequence),
                Err(AppendError::Full) => {}
                Err(error) => {
                    self.fail(&error);
                    return None;
                }
            }
        }
        self.backlog.0.push_back(body);
        None
    }

    fn fail(&mut self, error: &AppendError) {
        if !self.failed {
            tracing::error!(session_id = %self.session, %error, "record failed");
        }
        self.failed = true;
        self.shard.metrics.record_failures.add(1);
    }

    /// Appends what waits as far as there is room; true once nothing waits.
    pub fn flush(&mut self) -> bool {
        let (shard, session) = (&self.shard, self.session);
        match self
            .backlog
            .flush(|body| shard.append(session, body, false))
        {
            Ok(done) => done,
            Err(error) => {
                self.waiting_failed(&error);
                true
            }
        }
    }

    /// A record that was to be appended with waiting could not be.
    pub fn waiting_failed(&mut self, error: &AppendError) {
        self.backlog.0.clear();
        self.fail(error);
    }

    /// Masks bytes of a request for the record.
    fn masked(&self, bytes: &[u8], max: usize) -> (Vec<u8>, bool) {
        let masker = self.shard.masker();
        let mut masker = masker.borrow_mut();
        let cut = bytes.len().min(max);
        // Masked whole, then cut: a secret across the cut must not show its head.
        let mut out = if masker.is_clean(bytes) {
            return (bytes[..cut].to_vec(), cut < bytes.len());
        } else {
            let mut findings = masking::Findings::new();
            masker
                .mask_value(bytes, masking::Fill::Placeholder, &mut findings)
                .unwrap_or_else(|| bytes.to_vec())
        };
        let truncated = out.len() > max;
        out.truncate(max);
        (out, truncated)
    }

    /// The record of a request; with its decision where it was made at once.
    pub fn request(
        &mut self,
        id: UnitId,
        unit: &Unit,
        digest: [u8; 32],
        decision: Option<Ruling>,
    ) -> Body {
        self.requests += 1;
        let (kind, name, text): (&str, &[u8], &[u8]) = match unit {
            Unit::Query { text } => ("query", b"", text),
            Unit::Parse { name, text, .. } => ("parse", name, text),
            Unit::Bind {
                portal, statement, ..
            } => {
                if self.portals.len() < PORTALS_MAX || self.portals.contains_key(portal) {
                    self.portals.insert(own(portal), id.0);
                }
                ("bind", statement, b"")
            }
            Unit::FunctionCall { .. } => ("function_call", b"", b""),
            Unit::Execute { portal, .. } => ("execute", portal, b""),
            _ => ("other", b"", b""),
        };
        let (text_masked, mut truncated) = self.masked(text, self.text_bytes_max);
        let binds_masked = match unit {
            Unit::Bind { values, .. }
            | Unit::FunctionCall {
                arguments: values, ..
            } => self.binds(values, &mut truncated),
            _ => Vec::new(),
        };
        Body::Request {
            unit: id.0,
            kind: kind.to_string(),
            name: self.masked(name, 64).0,
            text_masked,
            text_length: text.len() as u64,
            digest,
            binds_masked,
            truncated,
            decision,
        }
    }

    fn binds(&self, values: &BindValues, truncated: &mut bool) -> Vec<Option<Vec<u8>>> {
        let Some(values) = values.iter() else {
            *truncated = true;
            return Vec::new();
        };
        let mut room = BINDS_BYTES_MAX;
        let mut out = Vec::new();
        for (_, value) in values {
            out.push(value.map(|v| {
                let (masked, cut) = self.masked(v, room);
                room -= masked.len();
                *truncated |= cut;
                masked
            }));
        }
        out
    }

    /// An Execute went to the server: its outcome belongs to its Bind.
    pub fn executed(&mut self, id: UnitId, portal: &[u8]) {
        let bind = self.portals.get(portal).copied().unwrap_or(id.0);
        self.executes.push_back((id, bind));
    }

    /// A portal is gone.
    pub fn portal_closed(&mut self, portal: &[u8]) {
        self.portals.remove(portal);
    }

    /// The transaction is over, and with it all portals.
    pub fn idle(&mut self) {
        if !self.portals.is_empty() {
            self.portals.clear();
        }
        if self.executes.is_empty() && self.executes.capacity() > 64 {
            self.executes = VecDeque::new();
        }
    }

    /// Rows were released.
    pub fn rows(&mut self, frames: &[u8], truncated: bool) {
        self.rows.extend_from_slice(frames);
        self.rows_truncated |= truncated;
    }

    /// A unit has its outcome. `masked` are the counts since the last one.
    pub fn answered(&mut self, id: UnitId, outcome: &Outcome, masked: Vec<(String, u64)>) {
        let mut unit = id.0;
        let mut is_execute = false;
        if self.executes.front().is_some_and(|(e, _)| *e == id) {
            is_execute = true;
            unit = self.executes.pop_front().map_or(unit, |(_, bind)| bind);
        }
        let code = match outcome {
            // ParseComplete, BindComplete and the like: nothing that the
            // request's own record does not say.
            Outcome::Completed { tag }
                if tag.is_empty() && !is_execute && self.rows.is_empty() && masked.is_empty() =>
            {
                return;
            }
            Outcome::Completed { tag } => OutcomeCode::Completed {
                tag: String::from_utf8_lossy(tag).into_owned(),
            },
            Outcome::Failed { sqlstate, .. } => OutcomeCode::Failed {
                sqlstate: String::from_utf8_lossy(sqlstate).into_owned(),
            },
            Outcome::Refused { sqlstate } => OutcomeCode::Refused {
                sqlstate: String::from_utf8_lossy(sqlstate).into_owned(),
            },
            Outcome::Skipped => OutcomeCode::Skipped,
            Outcome::Suspended => OutcomeCode::Suspended,
        };
        let rows = match &code {
            OutcomeCode::Completed { tag } => tag
                .rsplit(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0),
            _ => 0,
        };
        let bytes = self.bytes_down - self.bytes_down_last;
        self.bytes_down_last = self.bytes_down;
        let data_masked = std::mem::take(&mut self.rows).to_vec();
        let truncated = std::mem::take(&mut self.rows_truncated);
        self.append(
            Body::Outcome {
                unit,
                outcome: code,
                rows,
                bytes,
                masked,
                data_masked,
                truncated,
            },
            false,
        );
    }
}

/// Short names are copied, so that they do not keep a read buffer alive.
fn own(name: &Bytes) -> Bytes {
    Bytes::copy_from_slice(name)
}

/// The ruling of a decision.
pub fn ruling(decision: &Decision, approval: Option<String>) -> Ruling {
    Ruling {
        action: match decision.action {
            Action::Deny => ActionCode::Deny,
            Action::Approve => ActionCode::Approve,
            Action::Allow | Action::Alert if !decision.alerts.is_empty() => ActionCode::Alert,
            Action::Allow | Action::Alert => ActionCode::Allow,
        },
        rule: decision.rule.to_string(),
        reason: if decision.alerts.is_empty() {
            decision.reason.to_string()
        } else {
            format!(
                "{} (alerts: {})",
                decision.reason,
                decision.alerts.join(", ")
            )
        },
        policy_version: decision.policy_version.to_string(),
        approval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(name: &str) -> Body {
        Body::Event {
            name: name.into(),
            detail_masked: Vec::new(),
        }
    }

    #[test]
    fn a_record_waits_until_it_is_in_the_ring_whoever_flushes() {
        let mut backlog = Backlog([body("a"), body("b"), body("c")].into());
        let mut ring = Vec::new();
        let mut room = 0;
        // Any number of flushes may meet a full ring; each leaves all in place.
        for _ in 0..3 {
            assert_eq!(backlog.flush(|_| Err(AppendError::Full)), Ok(false));
            assert_eq!(backlog.0.len(), 3);
        }
        while !backlog.0.is_empty() {
            room += 1;
            let done = backlog.flush(|b| {
                if ring.len() == room {
                    return Err(AppendError::Full);
                }
                ring.push(b.clone());
                Ok(0)
            });
            assert_eq!(done, Ok(backlog.0.is_empty()));
        }
        assert_eq!(ring, [body("a"), body("b"), body("c")]);
    }

    #[test]
    fn a_failure_is_told_and_is_not_taken_for_an_empty_backlog() {
        let mut backlog = Backlog([body("a")].into());
        let failed = AppendError::Failed { why: "disk".into() };
        assert_eq!(backlog.flush(|_| Err(failed.clone())), Err(failed));
        assert_eq!(backlog.0.len(), 1);
    }
}
