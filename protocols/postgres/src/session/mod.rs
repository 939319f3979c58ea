//! The session machine: everything after login, both directions.
//!
//! ```text
//!            agent                         Session                          server
//!   handle_input(Downstream) ──► gate ── Decide ─► verdict ─► Write(Upstream)
//!                                  │ forwarded, in order          │
//!                                  ▼                              ▼
//!                              response queue: who is answered next, whose it is
//!                                  ▲                              │
//!   Write(Downstream) ◄── mask ◄── match ◄──────────── handle_input(Upstream)
//! ```
//!
//! **Life.** `Open` until the agent sends Terminate (`Ending`: no more of the agent is
//! read, answers still come), a side ends, something breaks, or the gateway calls
//! [`Session::end`] (`Closing`: what is written is drained, then [`Output::Close`]); then
//! `Closed`.
//!
//! **Use.** After each call drain [`Session::poll_output`] until it is empty. Answer
//! [`Output::Decide`] with [`Session::handle_decision`] whenever the verdict is known:
//! nothing of the agent behind that request is read before, while answers of the server
//! keep flowing. Respect [`Session::wants_input`]. Calls on a session that is over are
//! harmless.
//!
//! **What may be relied on.** A Query, Parse, Bind, Execute or FunctionCall reaches the server
//! only after `Verdict::Forward` for its id, byte for byte as it was decided. What does not
//! parse ends the session and is forwarded to neither side. What the agent reads of the
//! server went through [`Content`]. Outputs of one side are in order; events come before
//! the writes that they speak of.
//!
//! **What may not.** Rows that are clean are forwarded without being taken apart: their
//! framing is checked, their inside is the server's. A Bind whose values were not read ([`BindValues::Unread`]) has only
//! its names checked. Between a COPY that failed before the server met a Sync of the agent
//! and its ReadyForQuery, an agent that pipelines further extended messages ends the
//! session: it cannot be known whether they are discarded (see `responses`).

mod agent;
mod config;
mod content;
mod copy_in;
mod event;
mod large;
mod mask;
mod portals;
mod record;
mod refusal;
mod responses;
mod server;
mod unit;
mod writer;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

pub use config::{HELD_SLACK_BYTES, PENDING_MIN, SessionConfig};
pub use content::{Content, Fill};
pub use event::{CloseReason, CopyDirection, Event, Outcome, Output, SessionError, Side};
pub use unit::{BindValues, ReadValues, Unit, UnitId, Verdict};

use crate::error::Refusal;
use crate::wire::backend::Severity;
use crate::wire::{Frames, frontend};
use agent::Gate;
use copy_in::CopyIn;
use mask::Format;
use portals::Portals;
use record::RecordBudget;
use refusal::Refusals;
use responses::{Copying, Responses};
use server::{Large, Span};
use writer::Writer;

/// Bytes of notices that are kept while a large message streams: a few dozen of them.
pub const NOTICES_BYTES_MAX: usize = 16 << 10;

/// Outputs whose memory an idle session may keep.
const IDLE_OUTPUTS: usize = 16;

/// Where a session stands as a whole.
#[derive(Debug)]
enum Life {
    Open,
    /// The agent sent Terminate; answers are still awaited.
    Ending,
    /// Nothing is read any more; writes are drained.
    Closing(CloseReason),
    Closed,
}

impl Life {
    fn is_open(&self) -> bool {
        matches!(self, Life::Open)
    }

    fn is_over(&self) -> bool {
        matches!(self, Life::Closing(_) | Life::Closed)
    }
}

/// One session after login. See the module's page.
pub struct Session<C: Content> {
    config: SessionConfig,
    content: C,
    life: Life,
    outputs: VecDeque<Output>,
    last_id: u64,
    status: u8,
    encoding_utf8: bool,

    agent: Frames,
    gate: Gate,
    /// Agent bytes that came while the gate was shut: copied, so that no read buffer
    /// waits for a human.
    held: BytesMut,
    copy_in: CopyIn,
    portals: Portals,
    up: Writer,

    responses: Responses,
    refusals: Refusals,

    server: Frames,
    span: Span,
    large: Option<Large<C::Stream>>,
    copy_text: Option<C::Stream>,
    copy_binary: bool,
    copy_out_bytes: u64,
    query_format: Format,
    row_record: RecordBudget,
    masked: u64,
    /// Notices of ours that wait for the end of a large message.
    notices: BytesMut,
    down: Writer,
}

impl<C: Content> Session<C> {
    /// A session whose login has just ended with ReadyForQuery. `config.pending_max` is
    /// raised to [`PENDING_MIN`] if it is lower.
    pub fn new(mut config: SessionConfig, content: C) -> Session<C> {
        config.pending_max = config.pending_max.max(PENDING_MIN);
        Session {
            content,
            life: Life::Open,
            outputs: VecDeque::new(),
            last_id: 0,
            status: config.transaction_status,
            encoding_utf8: config.client_encoding_utf8,
            agent: Frames::new(),
            gate: Gate::Open,
            held: BytesMut::new(),
            copy_in: CopyIn::new(config.row_record_bytes_max),
            portals: Portals::new(),
            up: Writer::default(),
            responses: Responses::new(),
            refusals: Refusals::new(&config.nonce_seed, &config.session_label),
            server: Frames::new(),
            span: Span::default(),
            large: None,
            copy_text: None,
            copy_binary: false,
            copy_out_bytes: 0,
            query_format: Format::Text,
            row_record: RecordBudget::new(config.row_record_bytes_max),
            masked: 0,
            notices: BytesMut::new(),
            down: Writer::default(),
            config,
        }
    }

    /// Feeds bytes that came from `side`; what is left over from the login comes first.
    ///
    /// Errors: the session has just failed; drain its outputs, which end with
    /// [`Output::Close`]. Bytes for a session that is over are dropped.
    pub fn handle_input(&mut self, side: Side, bytes: Bytes) -> Result<(), SessionError> {
        if self.life.is_over() || bytes.is_empty() {
            return Ok(());
        }
        let result = match side {
            Side::Downstream => self.on_agent_input(bytes),
            Side::Upstream => {
                self.down.source(&bytes);
                self.server.push(bytes);
                // Answers make room for more requests.
                self.pump_server().and_then(|()| self.pump_agent())
            }
        };
        self.settle(result)
    }

    fn on_agent_input(&mut self, bytes: Bytes) -> Result<(), SessionError> {
        if !self.life.is_open() {
            return Ok(());
        }
        if self.agent_is_blocked() || !self.held.is_empty() {
            let limit = self
                .config
                .held_bytes_max
                .saturating_mul(2)
                .saturating_add(HELD_SLACK_BYTES);
            if self.held.len().saturating_add(bytes.len()) > limit {
                return Err(SessionError::HeldTooMuch);
            }
            self.held.extend_from_slice(&bytes);
        } else {
            self.up.source(&bytes);
            self.agent.push(bytes);
        }
        self.pump_agent()
    }

    /// Whether bytes of `side` are wanted now. False for an agent whose bytes wait behind
    /// an undecided request, or behind too many unanswered ones.
    #[must_use]
    pub fn wants_input(&self, side: Side) -> bool {
        match side {
            Side::Upstream => !self.life.is_over(),
            Side::Downstream => {
                let waiting = self.held.len().saturating_add(self.agent.buffered());
                self.life.is_open()
                    && !(self.agent_is_blocked() && waiting >= self.config.held_bytes_max)
            }
        }
    }

    /// Answers a [`Output::Decide`]. On a session that is over the verdict is void.
    /// Errors: [`SessionError::UnknownUnit`], which ends the session.
    pub fn handle_decision(&mut self, id: UnitId, verdict: Verdict) -> Result<(), SessionError> {
        if self.life.is_over() {
            return Ok(());
        }
        let result = self
            .on_decision(id, verdict)
            .and_then(|()| self.pump_agent());
        self.settle(result)
    }

    /// The connection of `side` has ended. A request that is still undecided is dropped:
    /// it never runs.
    pub fn handle_eof(&mut self, side: Side) {
        if self.life.is_over() {
            return;
        }
        let ending = matches!(self.life, Life::Ending);
        match side {
            _ if ending => self.close(CloseReason::AgentTerminated),
            Side::Downstream => {
                self.terminate_upstream();
                self.close(CloseReason::AgentClosed);
            }
            Side::Upstream => {
                if !self.responses.is_fatal() {
                    self.last_words(&Refusal::new(b"08006", "the target closed the connection"));
                }
                self.close(CloseReason::TargetClosed);
            }
        }
    }

    /// Ends the session from the gateway's side (drain, expired credential, revoked
    /// grant): the agent reads `refusal` as a FATAL error, where it is between messages.
    pub fn end(&mut self, refusal: &Refusal) {
        if self.life.is_over() {
            return;
        }
        self.last_words(refusal);
        self.terminate_upstream();
        self.close(CloseReason::Ended);
    }

    /// Tells the agent something (that a request is held, who must approve and where) in a
    /// NoticeResponse, which may stand between any two messages. In the middle of a large
    /// one it is kept until that ends. False when it was not taken: the session is over,
    /// or [`NOTICES_BYTES_MAX`] are kept already.
    pub fn notice(&mut self, words: &Refusal) -> bool {
        let notice = refusal::error_response(Severity::Notice, words, self.encoding_utf8);
        if self.life.is_over() {
            return false;
        }
        if self.large.is_none() {
            self.down.made().extend_from_slice(&notice);
            return true;
        }
        let fits = self.notices.len().saturating_add(notice.len()) <= NOTICES_BYTES_MAX;
        if fits {
            self.notices.extend_from_slice(&notice);
        }
        fits
    }

    /// The next output; `None` when there is none for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if let Some(bytes) = self.up.pop() {
            return Some(Output::Write {
                side: Side::Upstream,
                bytes,
            });
        }
        if let Some(bytes) = self.down.pop() {
            return Some(Output::Write {
                side: Side::Downstream,
                bytes,
            });
        }
        if self.outputs.capacity() > IDLE_OUTPUTS {
            self.outputs = VecDeque::new();
        }
        if self.agent.contiguous().is_empty() {
            self.up.forget_source();
        }
        if self.server.contiguous().is_empty() {
            self.down.forget_source();
        }
        match std::mem::replace(&mut self.life, Life::Closed) {
            Life::Closing(reason) => Some(Output::Close(reason)),
            life => {
                self.life = life;
                None
            }
        }
    }

    /// Copies what is kept of the agent's bytes out of the read buffers they came in. To
    /// be called when a verdict will take long (a hold).
    pub fn park(&mut self) {
        let Some(frames) = self.gate.detach() else {
            return;
        };
        if frames {
            let rest = std::mem::take(&mut self.agent).into_rest();
            if !rest.is_empty() {
                let mut held = BytesMut::from(&rest[..]);
                held.extend_from_slice(&self.held);
                self.held = held;
            }
        }
        self.up.forget_source();
    }

    /// The server's transaction status as of its last ReadyForQuery: `I`, `T` or `E`.
    #[must_use]
    pub fn transaction_status(&self) -> u8 {
        self.status
    }

    /// True when nothing is outstanding, undecided or half-way on either side.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.responses.is_empty()
            && matches!(self.gate, Gate::Open)
            && self.held.is_empty()
            && self.agent.is_at_rest()
            && self.server.is_at_rest()
    }

    /// True once [`Output::Close`] was given out or is about to be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.life.is_over()
    }

    /// Forwarded messages that wait for their answer.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.responses.len()
    }

    /// True while the server discards what the agent sends, up to a Sync not yet sent.
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        self.responses.is_skipping()
    }

    /// Whether rules read bind values from now on (a policy was reloaded). A Bind whose
    /// body is already streaming is not touched.
    pub fn set_binds_read(&mut self, binds_read: bool) {
        self.config.binds_read = binds_read;
    }

    /// The content's implementer.
    pub fn content_mut(&mut self) -> &mut C {
        &mut self.content
    }

    fn next_id(&mut self) -> UnitId {
        self.last_id = self.last_id.saturating_add(1);
        UnitId(self.last_id)
    }

    /// Turns an error into the end of the session.
    fn settle(&mut self, result: Result<(), SessionError>) -> Result<(), SessionError> {
        if let Err(error) = result {
            self.last_words(&words_for(&error, &self.config.session_label));
            self.terminate_upstream();
            self.close(CloseReason::Failed(error));
        }
        result
    }

    /// A FATAL ErrorResponse, unless the agent is in the middle of a message.
    fn last_words(&mut self, refusal: &Refusal) {
        if self.large.is_none() {
            let words = refusal::error_response(Severity::Fatal, refusal, self.encoding_utf8);
            self.down.made().extend_from_slice(&words);
        }
    }

    /// A Terminate, unless the server is in the middle of a message or of a COPY IN, where
    /// the end of the connection is the only thing it understands.
    fn terminate_upstream(&mut self) {
        let between = !matches!(self.gate, Gate::Passing { .. } | Gate::Ended);
        let copying_in = matches!(self.responses.copying(), Some(Copying::In { bytes: None }));
        if between && !copying_in {
            frontend::terminate(self.up.made());
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.outputs
            .retain(|output| !matches!(output, Output::Decide { .. }));
        self.gate = Gate::Ended;
        self.life = Life::Closing(reason);
        self.agent = Frames::new();
        self.server = Frames::new();
        self.held = BytesMut::new();
        self.large = None;
        self.copy_text = None;
    }
}

/// What the agent reads of an error that ends its session. No payload, no address.
fn words_for(error: &SessionError, label: &str) -> Refusal {
    let (sqlstate, message) = match error {
        SessionError::AgentProtocol { .. } => {
            (b"08P01", "the gateway cannot read a message of the client")
        }
        SessionError::TargetProtocol { .. } | SessionError::TargetUnexpected { .. } => (
            b"08P01",
            "the gateway lost its place in the target's answers",
        ),
        SessionError::CopyBoth => (b"0A000", "replication streams do not pass the gateway"),
        SessionError::HeldTooMuch => (b"54000", "too much was sent behind an undecided request"),
        SessionError::UnknownUnit | SessionError::MaskLength | SessionError::Encode(_) => {
            (b"XX000", "internal error of the gateway")
        }
    };
    Refusal::new(sqlstate, message).with_detail(format!("session {label}"))
}

impl<C: Content> std::fmt::Debug for Session<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("config", &self.config)
            .field("life", &self.life)
            .field("status", &self.status)
            .field("outstanding", &self.responses.len())
            .finish_non_exhaustive()
    }
}
