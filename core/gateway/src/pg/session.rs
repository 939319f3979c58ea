//! One session after login: the place where protocol, policy, masking, record
//! and approvals meet.
//!
//! ```text
//!  agent ──▶ pump_downstream ──▶ ┌─────────┐ ──▶ up: Writer ──▶ target
//!                                │ machine │
//!  agent ◀── down: Writer ◀───── └─────────┘ ◀── pump_upstream ◀── target
//!                                  │     ▲
//!                          Decide  ▼     │  verdict
//!                       gate ─▶ record ─▶ (parse off the shard │ wait for disk │ hold)
//! ```
//! Each change to the machine is followed by a full drain of its outputs. The
//! common request (decided from the cache, recorded `async`) goes through
//! without leaving [`PgSession::drive`]; everything slower runs in the
//! session's one decision task, while the machine forwards nothing behind it.

use crate::config::checked::RecordingMode;
use crate::pg::content::MaskedContent;
use crate::pg::record::{SessionRecord, ruling};
use crate::pg::{digest, hold, refusal};
use crate::serve::cancel::Registered;
use crate::serve::limits::Place;
use crate::serve::live::Live;
use crate::serve::shard::Shard;
use engine::{End, Notify, Reader, Task, Writer};
use policy::{Action, Bind, Binds, Decision, SqlGate, Step};
use postgres::Refusal;
use postgres::session::{
    BindValues, CloseReason, Event, Outcome, Output, Session, SessionConfig, Side, Unit, UnitId,
    Verdict,
};
use postgres::wire::frontend::Kind;
use recorder::{Body, Fault, SessionId};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Who and what a session is, fixed at its login.
pub struct SessionFacts {
    /// The verified agent.
    pub principal: identity::Principal,
    /// Its role.
    pub role: String,
    /// The target.
    pub target: String,
    /// The database at the target.
    pub database: String,
    /// The account at the target.
    pub account: String,
    /// When a request counts as on record.
    pub recording: RecordingMode,
}

/// Places that a session occupies; all are given back when it ends.
pub struct Places {
    /// At the target.
    pub _target: crate::serve::limits::TargetPlace,
    /// Of the role.
    pub _role: Place<String>,
    /// Of the principal at the target.
    pub _principal: Place<(String, String, String)>,
}

/// One session.
pub struct PgSession {
    /// Its id, the same everywhere.
    pub id: SessionId,
    /// Who and what it is.
    pub facts: SessionFacts,
    pub(super) shard: Rc<Shard>,
    pub(super) state: RefCell<State>,
    down: Writer,
    up: Writer,
    /// Woken after each drain: reading may go on.
    progress: Notify,
    /// Woken when the wait of a held request is to end at once.
    pub(super) hold_ends: Notify,
    pub(super) hold_end: Cell<Option<refusal::HoldEnd>>,
    /// A request waits for a human.
    pub(super) held: Cell<bool>,
    /// The control plane has it on file.
    pub(super) on_file: Cell<bool>,
    ended: Cell<bool>,
    /// Woken when the session has ended.
    ended_notify: Notify,
    /// Sends a cancel request to the target, for [`PgSession::cancel`].
    canceller: Box<dyn Fn()>,
    _cancel_key: Registered,
}

/// What changes while a session lives.
pub(super) struct State {
    pub(super) machine: Session<MaskedContent>,
    pub(super) gate: SqlGate,
    pub(super) record: SessionRecord,
    decision_task: Option<Task<()>>,
    /// The agent or the gateway asked for the end; why.
    end_reason: String,
    /// To be said to the agent once it is between messages.
    notice: Option<Refusal>,
}

/// What [`PgSession::new`] is made from.
pub struct Parts {
    /// The id.
    pub id: SessionId,
    /// Who and what it is.
    pub facts: SessionFacts,
    /// The machine's limits.
    pub config: SessionConfig,
    /// The gate, fed with every start-up ParameterStatus.
    pub gate: SqlGate,
    /// Writes to the agent.
    pub down: Writer,
    /// Writes to the target.
    pub up: Writer,
    /// Bytes of statement text recorded.
    pub text_bytes_max: usize,
    /// The agent's cancel key; the session's end takes it out.
    pub cancel_key: Registered,
    /// Sends a cancel request to the target.
    pub canceller: Box<dyn Fn()>,
}

impl PgSession {
    /// A session whose logins have ended on both sides.
    pub fn new(shard: Rc<Shard>, parts: Parts) -> Rc<PgSession> {
        let content = MaskedContent::new(shard.clone());
        let session = Rc::new(PgSession {
            id: parts.id,
            facts: parts.facts,
            state: RefCell::new(State {
                machine: Session::new(parts.config, content),
                gate: parts.gate,
                record: SessionRecord::new(shard.clone(), parts.id, parts.text_bytes_max),
                decision_task: None,
                end_reason: String::new(),
                notice: None,
            }),
            shard,
            down: parts.down,
            up: parts.up,
            progress: Notify::new(),
            hold_ends: Notify::new(),
            hold_end: Cell::new(None),
            held: Cell::new(false),
            on_file: Cell::new(false),
            ended: Cell::new(false),
            ended_notify: Notify::new(),
            canceller: parts.canceller,
            _cancel_key: parts.cancel_key,
        });
        session.shard.enter(&session);
        session
    }

    /// Runs the session to its end. `down` and `up` are the reading halves.
    pub async fn run(self: Rc<Self>, down: Reader, up: Reader, places: Places) {
        let expiry = self.facts.principal.expires_at.map(|at_s| {
            let session = self.clone();
            engine::spawn(async move {
                let now_s = engine::wall_clock_us() / 1_000_000;
                engine::sleep_until(
                    engine::now().after(std::time::Duration::from_secs(at_s.saturating_sub(now_s))),
                )
                .await;
                session.end_with(
                    b"57P01",
                    "the credential of this session has ended",
                    "credential ended",
                );
            })
        });
        let from_agent = engine::spawn(self.clone().pump(Side::Downstream, down));
        let from_target = engine::spawn(self.clone().pump(Side::Upstream, up));
        while !self.ended.get() {
            self.ended_notify.notified().await;
        }
        drop((expiry, from_agent, from_target));
        self.state.borrow_mut().decision_task = None;
        self.flush_record().await;
        let end = {
            let mut guard = self.state.borrow_mut();
            let st = &mut *guard;
            Body::SessionEnd {
                reason: std::mem::take(&mut st.end_reason),
                requests: st.record.requests,
                denied: st.record.denied,
                bytes_down: st.record.bytes_down,
                bytes_up: st.record.bytes_up,
            }
        };
        if let Err(error) = self.shard.append_waiting(self.id, &end, false).await {
            tracing::error!(session_id = %self.id, %error, "end of session not recorded");
        }
        self.shard.metrics.sessions_ended.add(1);
        self.shard.leave(&self.id);
        self.down.finish();
        self.up.finish();
        drop(places);
    }

    /// Reads one side until the session ends.
    async fn pump(self: Rc<Self>, side: Side, mut reader: Reader) {
        let _guard = EndsOnPanic(self.clone());
        let other = match side {
            Side::Downstream => self.up.clone(),
            Side::Upstream => self.down.clone(),
        };
        loop {
            // Not reading is how a slow reader on the other side, a full
            // record ring or an undecided request push back.
            loop {
                let moved = self.progress.notified();
                if self.ended.get() {
                    return;
                }
                self.flush_record().await;
                if self.state.borrow().machine.wants_input(side) {
                    break;
                }
                moved.await;
            }
            if other.is_over_high_mark() && other.drained().await.is_err() {
                self.lost(if side == Side::Downstream {
                    Side::Upstream
                } else {
                    Side::Downstream
                });
                return;
            }
            match reader.recv().await {
                Ok(bytes) => {
                    let result = self.state.borrow_mut().machine.handle_input(side, bytes);
                    if let Err(error) = result {
                        tracing::info!(session_id = %self.id, %error, "session broken off");
                    }
                    self.drive();
                }
                Err(end) => {
                    if !matches!(end, End::Eof) {
                        tracing::debug!(session_id = %self.id, ?side, reason = %end, "connection lost");
                    }
                    self.lost(side);
                    return;
                }
            }
        }
    }

    /// The connection of `side` has ended.
    fn lost(self: &Rc<Self>, side: Side) {
        if side == Side::Downstream {
            self.end_hold(refusal::HoldEnd::Cancelled);
        }
        self.state.borrow_mut().machine.handle_eof(side);
        self.drive();
    }

    /// Writes records that found the ring full.
    async fn flush_record(&self) {
        loop {
            let moved = self.shard.record_moved();
            if self.state.borrow_mut().record.flush() {
                return;
            }
            self.shard.metrics.record_waits.add(1);
            moved.await;
        }
    }

    /// Drains the machine's outputs.
    pub(super) fn drive(self: &Rc<Self>) {
        {
            let st = &mut *self.state.borrow_mut();
            if st.notice.as_ref().is_some_and(|n| st.machine.notice(n)) {
                st.notice = None;
            }
        }
        loop {
            let output = self.state.borrow_mut().machine.poll_output();
            match output {
                None => break,
                Some(Output::Write {
                    side: Side::Downstream,
                    bytes,
                }) => {
                    self.state.borrow_mut().record.bytes_down += bytes.len() as u64;
                    self.shard.metrics.bytes_downstream.add(bytes.len() as u64);
                    self.down.queue(bytes);
                }
                Some(Output::Write {
                    side: Side::Upstream,
                    bytes,
                }) => {
                    self.state.borrow_mut().record.bytes_up += bytes.len() as u64;
                    self.shard.metrics.bytes_upstream.add(bytes.len() as u64);
                    self.up.queue(bytes);
                }
                Some(Output::Decide { id, unit }) => self.decide(id, unit),
                Some(Output::Event(event)) => self.event(event),
                Some(Output::Close(reason)) => self.close(&reason),
            }
        }
        self.progress.notify_all();
    }

    /// Asks the gate; answers at once where it can.
    fn decide(self: &Rc<Self>, id: UnitId, unit: Unit) {
        self.shard.metrics.requests.add(1);
        let step = {
            let mut st = self.state.borrow_mut();
            if st.record.has_failed() {
                st.record.denied += 1;
                let refused = Verdict::Refuse(refusal::not_recorded(&self.id.to_string()));
                self.give(&mut st, id, refused);
                return;
            }
            let cache = &mut self.shard.cache.borrow_mut();
            match &unit {
                Unit::Query { text } => st.gate.query(id.0, text, cache),
                Unit::Parse {
                    name,
                    text,
                    parameter_types,
                } => st.gate.parse(id.0, name, text, parameter_types, cache),
                Unit::Bind {
                    portal,
                    statement,
                    values,
                } => match values.iter() {
                    Some(list) if st.gate.reads_binds() => {
                        let binds: Vec<Bind<'_>> = list
                            .map(|(format, value)| Bind {
                                binary: format == 1,
                                value,
                            })
                            .collect();
                        st.gate
                            .bind(id.0, portal, statement, Binds::Values(&binds), cache)
                    }
                    _ => st.gate.bind(id.0, portal, statement, Binds::Unread, cache),
                },
                Unit::Execute { portal, .. } => Step::Decided(st.gate.execute(id.0, portal)),
                Unit::FunctionCall { oid, .. } => Step::Decided(st.gate.function_call(id.0, *oid)),
                // Nothing else is asked; if it ever is, the gate has no name for it.
                _ => Step::Decided(st.gate.function_call(id.0, 0)),
            }
        };
        match step {
            Step::Decided(decision) => self.ruled(id, unit, decision),
            Step::Parse(job) => {
                let session = self.clone();
                self.slowly(async move {
                    let done = engine::offload(move || job.run()).await;
                    let decision = {
                        let mut st = session.state.borrow_mut();
                        let cache = &mut session.shard.cache.borrow_mut();
                        st.gate.resume(done, cache)
                    };
                    session.carry_out(id, unit, decision).await;
                });
            }
        }
    }

    /// Runs the rest of a decision beside the pumps.
    fn slowly(self: &Rc<Self>, rest: impl Future<Output = ()> + 'static) {
        let guard = EndsOnPanic(self.clone());
        let task = engine::spawn(async move {
            let _guard = guard;
            rest.await;
        });
        // The task before it has given its verdict, or we would not be here.
        let before = self.state.borrow_mut().decision_task.replace(task);
        if let Some(before) = before {
            before.detach();
        }
    }

    /// A decision was made at once: the fast path, or the start of the slow one.
    fn ruled(self: &Rc<Self>, id: UnitId, unit: Unit, decision: Decision) {
        // An Execute is on record with its Bind; see `SessionRecord::executed`.
        if decision.action == Action::Allow && matches!(unit, Unit::Execute { .. }) {
            self.give(&mut self.state.borrow_mut(), id, Verdict::Forward);
            return;
        }
        let fast = decision.action == Action::Allow && self.facts.recording == RecordingMode::Async;
        if fast && !self.carries_mask(&unit) {
            let mut st = self.state.borrow_mut();
            let body = st.record.request(
                id,
                &unit,
                digest::unit(&unit),
                Some(ruling(&decision, None)),
            );
            if st.record.append(body, false).is_some() {
                self.give(&mut st, id, Verdict::Forward);
                return;
            }
            // The ring is full (the record stands in the backlog) or has failed.
            drop(st);
            let session = self.clone();
            self.slowly(async move {
                session.flush_record().await;
                let verdict = session.recorded_or_refused();
                session.answer(id, verdict);
            });
            return;
        }
        let session = self.clone();
        self.slowly(async move { session.carry_out(id, unit, decision).await });
    }

    fn recorded_or_refused(&self) -> Verdict {
        if self.state.borrow().record.has_failed() {
            Verdict::Refuse(refusal::not_recorded(&self.id.to_string()))
        } else {
            Verdict::Forward
        }
    }

    fn carries_mask(&self, unit: &Unit) -> bool {
        let masker = self.shard.masker();
        let mut masker = masker.borrow_mut();
        match unit {
            Unit::Query { text } | Unit::Parse { text, .. } => masker.contains_mask(text),
            Unit::Bind {
                values: BindValues::Read(read),
                ..
            }
            | Unit::FunctionCall {
                arguments: BindValues::Read(read),
                ..
            } => masker.contains_mask(read.raw()),
            _ => false,
        }
    }

    /// The slow path: denials, holds, and the mode `requests`, all of which
    /// are on disk before anything happens.
    async fn carry_out(self: Rc<Self>, id: UnitId, unit: Unit, mut decision: Decision) {
        let label = self.id.to_string();
        let mask_refusal = self
            .carries_mask(&unit)
            .then(|| refusal::carries_mask(&label));
        if mask_refusal.is_some() {
            decision.action = Action::Deny;
            decision.rule = "carries_mask".into();
            decision.reason = "the request carries a mask".into();
        }
        let exact = digest::unit(&unit);
        let at_once = (decision.action != Action::Approve).then(|| ruling(&decision, None));
        let body = self
            .state
            .borrow_mut()
            .record
            .request(id, &unit, exact, at_once);
        self.flush_record().await;
        let durable =
            decision.action != Action::Allow || self.facts.recording == RecordingMode::Requests;
        let on_record = match self.shard.append_waiting(self.id, &body, durable).await {
            Ok(sequence) if durable => self.shard.durable(sequence).await,
            Ok(_) => true,
            Err(error) => {
                self.state.borrow_mut().record.waiting_failed(&error);
                false
            }
        };
        let verdict = match decision.action {
            _ if !on_record => Verdict::Refuse(refusal::not_recorded(&label)),
            Action::Allow | Action::Alert => Verdict::Forward,
            Action::Deny => {
                self.shard.metrics.requests_denied.add(1);
                self.state.borrow_mut().record.denied += 1;
                Verdict::Refuse(mask_refusal.unwrap_or_else(|| refusal::denied(&decision, &label)))
            }
            Action::Approve => hold::wait(&self, id, &unit, &decision).await,
        };
        self.answer(id, verdict);
    }

    /// Gives a verdict from the decision task.
    fn answer(self: &Rc<Self>, id: UnitId, verdict: Verdict) {
        let mut st = self.state.borrow_mut();
        self.give(&mut st, id, verdict);
        drop(st);
        self.drive();
    }

    fn give(&self, st: &mut State, id: UnitId, verdict: Verdict) {
        if let Err(error) = st.machine.handle_decision(id, verdict) {
            tracing::error!(session_id = %self.id, %error, "verdict not taken");
        }
    }

    fn event(self: &Rc<Self>, event: Event) {
        let mut guard = self.state.borrow_mut();
        let st = &mut *guard;
        match event {
            Event::Passed { id, unit } => match unit {
                Unit::Execute { portal, .. } => st.record.executed(id, &portal),
                Unit::Describe { kind, name } => st.gate.describe(id.0, kind_byte(kind), &name),
                Unit::Close { kind, name } => {
                    if kind == Kind::Portal {
                        st.record.portal_closed(&name);
                    }
                    st.gate.close(id.0, kind_byte(kind), &name);
                }
                _ => {}
            },
            Event::Refused {
                id,
                tag,
                bytes,
                sqlstate,
            } => {
                st.record.denied += 1;
                self.shard.metrics.requests_denied.add(1);
                let code = String::from_utf8_lossy(&sqlstate).into_owned();
                let text = format!(
                    "message of type {} with {bytes} bytes refused by a limit of the session",
                    char::from(tag).escape_default()
                );
                st.record.append(
                    Body::Error {
                        unit: id.0,
                        fault: Fault::Agent,
                        code,
                        text_masked: text.into_bytes(),
                    },
                    true,
                );
            }
            Event::Answered { id, outcome } => {
                let gate_outcome = match outcome {
                    Outcome::Completed { .. } | Outcome::Suspended => policy::Outcome::Completed,
                    Outcome::Failed { .. } | Outcome::Refused { .. } => policy::Outcome::Failed,
                    Outcome::Skipped => policy::Outcome::Skipped,
                };
                st.gate.answered(id.0, gate_outcome);
                let masked = st.machine.content_mut().take_findings();
                st.record.answered(id, &outcome, masked);
            }
            Event::Rows {
                frames, truncated, ..
            } => st.record.rows(&frames, truncated),
            Event::CopyInData {
                id,
                frames,
                truncated,
            } => {
                let masker = self.shard.masker();
                let mut findings = masking::Findings::new();
                let masked = masker.borrow_mut().mask_value(
                    &frames,
                    masking::Fill::SameLength,
                    &mut findings,
                );
                let data_masked = masked.unwrap_or_else(|| frames.to_vec());
                st.record.append(
                    Body::CopyIn {
                        unit: id.0,
                        data_masked,
                        truncated,
                    },
                    false,
                );
            }
            Event::CopyStarted { .. } | Event::CopyEnded { .. } => {}
            Event::ReadyForQuery { status } => {
                st.gate.ready_for_query(status);
                if status == b'I' {
                    st.record.idle();
                }
            }
            Event::ParameterStatus { name, value } => st.gate.parameter_status(&name, &value),
            Event::Notice { frame } => {
                let (sqlstate, text) = notice_text(&frame);
                st.record.append(
                    Body::Notice {
                        unit: 0,
                        sqlstate,
                        text_masked: text,
                    },
                    false,
                );
            }
            Event::Notification {
                channel, payload, ..
            } => {
                let body = Body::Notification {
                    channel_masked: channel.to_vec(),
                    payload_masked: payload.to_vec(),
                };
                st.record.append(body, false);
            }
            Event::Masked { values, .. } => self.shard.metrics.values_masked.add(values),
        }
    }

    fn close(self: &Rc<Self>, reason: &CloseReason) {
        let text = match reason {
            CloseReason::AgentTerminated => "agent terminated".to_string(),
            CloseReason::AgentClosed => "agent closed".to_string(),
            CloseReason::TargetClosed => "target closed".to_string(),
            CloseReason::Ended => String::new(),
            CloseReason::Failed(error) => error.to_string(),
        };
        {
            let mut st = self.state.borrow_mut();
            if st.end_reason.is_empty() {
                st.end_reason = text;
            }
        }
        tracing::info!(session_id = %self.id, reason = %self.state.borrow().end_reason, "session ended");
        self.ended.set(true);
        self.end_hold(refusal::HoldEnd::Stopping);
        self.ended_notify.notify_all();
    }

    /// Ends the wait of a held request, if one waits.
    fn end_hold(&self, end: refusal::HoldEnd) {
        self.hold_end.set(Some(end));
        self.hold_ends.notify_all();
    }

    /// Ends the session in the protocol's own words.
    pub fn end_with(self: &Rc<Self>, sqlstate: &[u8; 5], message: &str, reason: &str) {
        self.end_hold(refusal::HoldEnd::Stopping);
        {
            let mut st = self.state.borrow_mut();
            if st.end_reason.is_empty() {
                st.end_reason = reason.to_string();
            }
            let refusal =
                Refusal::new(sqlstate, message).with_detail(format!("session={}", self.id));
            st.machine.end(&refusal);
        }
        self.drive();
    }

    /// Whether nothing is under way: such a session may be ended while draining.
    pub fn is_idle(&self) -> bool {
        let st = self.state.borrow();
        st.machine.is_idle() && st.machine.transaction_status() == b'I'
    }

    /// A cancel request with this session's key came from `source`.
    pub fn cancel(self: &Rc<Self>, source: String) {
        self.shard.metrics.cancels.add(1);
        self.state.borrow_mut().record.append(
            Body::Cancel {
                unit: 0,
                source,
                accepted: true,
            },
            true,
        );
        // A held request is cancelled here; the target knows nothing of it.
        self.end_hold(refusal::HoldEnd::Cancelled);
        (self.canceller)();
    }

    /// Puts a newer configuration's policy in force; without a role in it
    /// everything is denied from now on.
    pub fn put_under(&self, live: &Live) {
        let role = live
            .policy
            .role_for(&self.facts.principal.groups, &self.facts.target);
        let version = live.policy.version().to_string();
        let mut st = self.state.borrow_mut();
        st.gate.replace_policy(live.policy.clone(), role);
        let binds_read = st.gate.reads_binds();
        st.machine.set_binds_read(binds_read);
        let reloaded = Body::Event {
            name: "policy reloaded".into(),
            detail_masked: version.into_bytes(),
        };
        st.record.append(reloaded, false);
    }

    /// Tells the agent something, at the next boundary between messages.
    pub(super) fn notify_agent(self: &Rc<Self>, notice: Refusal) {
        self.state.borrow_mut().notice = Some(notice);
        self.drive();
    }

    /// Whether a held request is still on its way to the control plane's file: a
    /// simulation waits for that thread, which knows nothing of its time.
    #[cfg(test)]
    pub fn awaits_control(&self) -> bool {
        self.held.get() && !self.on_file.get()
    }

    /// Whether a request waits for a human.
    pub fn is_held(&self) -> bool {
        self.held.get()
    }
}

/// A mistake of ours in one of a session's tasks ends that session, both ways and
/// at once: half of it must not go on.
struct EndsOnPanic(Rc<PgSession>);

impl Drop for EndsOnPanic {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let session = &self.0;
        session.down.abort();
        session.up.abort();
        if let Ok(mut st) = session.state.try_borrow_mut()
            && st.end_reason.is_empty()
        {
            st.end_reason = "internal error".into();
        }
        session.ended.set(true);
        session.ended_notify.notify_all();
    }
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Statement => b'S',
        Kind::Portal => b'P',
    }
}

/// SQLSTATE and text of a NoticeResponse.
fn notice_text(frame: &[u8]) -> (String, Vec<u8>) {
    let mut sqlstate = String::new();
    let mut text = Vec::new();
    for field in frame.get(5..).unwrap_or_default().split(|b| *b == 0) {
        match field.split_first() {
            Some((b'C', code)) => sqlstate = String::from_utf8_lossy(code).into_owned(),
            Some((b'M', message)) => text = message.to_vec(),
            _ => {}
        }
    }
    (sqlstate, text)
}
