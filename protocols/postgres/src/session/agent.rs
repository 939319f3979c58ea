//! From the agent to the server: parse, ask, forward or refuse.
//!
//! ```text
//!            ┌──────────────── verdict ───────────────┐
//!            ▼                                        │
//!  ───►  Open ── Query, Parse, Bind, Execute, FunctionCall ─► Deciding   (nothing behind is read)
//!         │ ▲ ── Describe, Close, Sync, Flush, Copy…: forwarded at once
//!         │ └──────────────── end of body ─────────────┐
//!         ├─ large CopyData ──────────────────────► Passing
//!         ├─ large Bind, values not read ─► BindHead ─► Deciding ─► Passing | Swallowing
//!         ├─ large Parse ─► ParseHead ────────────► Swallowing  (a refusal took its place)
//!         ├─ large Query, FunctionCall, Bind ─────► Swallowing
//!         └─ Terminate ─► Ended
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::event::{CloseReason, Event, Outcome, Output, SessionError};
use super::mask::Format;
use super::responses::{Copying, Kind, Pending, Sent};
use super::unit::{BindValues, ReadValues, Unit, UnitId, Verdict};
use super::{Life, Session};
use crate::error::{Refusal, WireError};
use crate::session::config::SessionConfig;
use crate::session::content::Content;
use crate::wire::frontend::{self, FrontendMessage, tag};
use crate::wire::{Frame, Piece, Reader, Treatment};

/// Largest body of a Describe, Execute, Close or CopyFail: the server's own limit
/// (`PQ_SMALL_MESSAGE_LIMIT`), over which it ends the connection.
const SMALL_BYTES_MAX: u32 = 10_000;
/// Largest body of any message: the server's `PQ_LARGE_MESSAGE_LIMIT`, its largest
/// allocation, less the length field.
pub(super) const MESSAGE_BYTES_MAX: u32 = 0x3fff_ffff - 4;
/// CopyData with a larger body is passed as it comes instead of being joined first.
const COPY_WHOLE_BYTES_MAX: u32 = 16 << 10;

/// A request that waits for its verdict.
#[derive(Debug)]
pub(super) struct Held {
    kind: Kind,
    /// The message as it came; of a streamed Bind the part that has come.
    raw: Bytes,
    /// Its body goes on after `raw`.
    streamed: bool,
    /// A Parse of the unnamed statement.
    unnamed: bool,
    /// Format of what it makes the server send.
    format: Format,
    /// The portal that a Bind makes.
    portal: Bytes,
    /// An Execute, which is told of again when it passes.
    passed: Option<Unit>,
}

/// Where the agent's stream stands.
#[derive(Debug)]
pub(super) enum Gate {
    Open,
    Deciding { id: UnitId, held: Held },
    BindHead { length: u32, head: BytesMut },
    ParseHead { length: u32 },
    Passing { copy_data: bool },
    Swallowing,
    Ended,
}

impl Gate {
    /// Copies what is held for a verdict out of the read buffer. `None` if nothing is;
    /// otherwise whether the stream behind it stands between two messages.
    pub(super) fn detach(&mut self) -> Option<bool> {
        let Gate::Deciding { held, .. } = self else {
            return None;
        };
        held.raw = Bytes::copy_from_slice(&held.raw);
        held.portal = Bytes::copy_from_slice(&held.portal);
        if let Some(Unit::Execute { portal, .. }) = &mut held.passed {
            *portal = Bytes::copy_from_slice(portal);
        }
        Some(!held.streamed)
    }
}

impl<C: Content> Session<C> {
    /// True while agent bytes may only be kept, not read.
    pub(super) fn agent_is_blocked(&self) -> bool {
        match self.gate {
            Gate::Deciding { .. } => true,
            Gate::Open => self.responses.len() >= self.config.pending_max,
            _ => false,
        }
    }

    /// Reads agent messages as far as they may be read.
    pub(super) fn pump_agent(&mut self) -> Result<(), SessionError> {
        while self.life.is_open() && !self.agent_is_blocked() {
            if !self.held.is_empty() {
                let bytes = std::mem::take(&mut self.held).freeze();
                self.up.source(&bytes);
                self.agent.push(bytes);
            }
            if matches!(self.gate, Gate::Open) {
                let run = self.agent.peek_run(|tag| tag == tag::COPY_DATA);
                if run > 0 {
                    let frames = self.agent.take_run(run);
                    self.copy_in_passes(frames);
                    continue;
                }
            }
            let config = &self.config;
            let piece = self
                .agent
                .next(|tag, length| treatment(config, tag, length))
                .map_err(agent_fault)?;
            match piece {
                None => return Ok(()),
                Some(Piece::Frame(frame)) => self.on_frontend(&frame)?,
                Some(Piece::Start { tag, length }) => self.on_large(tag, length)?,
                Some(Piece::Chunk(chunk)) => self.on_chunk(chunk)?,
                Some(Piece::End) => match std::mem::replace(&mut self.gate, Gate::Open) {
                    Gate::Passing { .. } | Gate::Swallowing => {}
                    // The head of a large message fits into it, so that it was seen before.
                    _ => {
                        return Err(SessionError::AgentProtocol {
                            tag: 0,
                            error: WireError::NoTerminator,
                        });
                    }
                },
            }
        }
        Ok(())
    }

    /// The verdict on the request that is being decided.
    pub(super) fn on_decision(&mut self, id: UnitId, verdict: Verdict) -> Result<(), SessionError> {
        let held = match std::mem::replace(&mut self.gate, Gate::Open) {
            Gate::Deciding { id: expected, held } if expected == id => held,
            other => {
                self.gate = other;
                return Err(SessionError::UnknownUnit);
            }
        };
        match verdict {
            Verdict::Forward => {
                if held.streamed {
                    self.gate = Gate::Passing { copy_data: false };
                }
                if held.kind == Kind::Bind {
                    self.portals.set(&held.portal, held.format);
                }
                self.copy_in.restart();
                self.up.forward(held.raw);
                if let Some(unit) = held.passed {
                    self.outputs
                        .push_back(Output::Event(Event::Passed { id, unit }));
                }
                self.sent(id, held.kind, held.format);
            }
            Verdict::Refuse(refusal) => {
                if held.streamed {
                    self.gate = Gate::Swallowing;
                }
                self.refuse(id, held.kind, held.unnamed, refusal)?;
            }
        }
        Ok(())
    }

    fn on_frontend(&mut self, frame: &Frame) -> Result<(), SessionError> {
        let fault = |error| SessionError::AgentProtocol {
            tag: frame.tag,
            error,
        };
        let name_max = self.config.name_bytes_max;
        match frontend::decode(frame.tag, frame.body()).map_err(fault)? {
            FrontendMessage::Query(query) => {
                let unit = Unit::Query {
                    text: frame.share(query.text),
                };
                self.decide(Kind::Query, frame, unit, Format::Text, false);
            }
            FrontendMessage::Parse(parse) => {
                let unnamed = parse.name.is_empty();
                if parse.name.len() > name_max {
                    return self.refuse_name(Kind::Parse, frame);
                }
                let unit = Unit::Parse {
                    name: frame.share(parse.name),
                    text: frame.share(parse.text),
                    parameter_types: parse.parameter_types.iter().collect(),
                };
                self.decide(Kind::Parse, frame, unit, Format::Text, unnamed);
            }
            FrontendMessage::Bind(bind) => {
                if bind.portal.len() > name_max || bind.statement.len() > name_max {
                    return self.refuse_name(Kind::Bind, frame);
                }
                // Codes and values stand between the names and the result formats.
                let names = bind
                    .portal
                    .len()
                    .saturating_add(bind.statement.len())
                    .saturating_add(2);
                let results = bind
                    .result_formats
                    .len()
                    .saturating_mul(2)
                    .saturating_add(2);
                let unit = Unit::Bind {
                    portal: frame.share(bind.portal),
                    statement: frame.share(bind.statement),
                    values: values_of(frame, names, results).map_err(fault)?,
                };
                self.decide(
                    Kind::Bind,
                    frame,
                    unit,
                    Format::of(bind.result_formats),
                    false,
                );
            }
            FrontendMessage::FunctionCall(call) => {
                let unit = Unit::FunctionCall {
                    oid: call.oid,
                    arguments: values_of(frame, 4, 2).map_err(fault)?,
                };
                let format = Format::of_all([call.result_format].into_iter());
                self.decide(Kind::FunctionCall, frame, unit, format, false);
            }
            FrontendMessage::Execute(execute) => {
                if execute.portal.len() > name_max {
                    return self.refuse_name(Kind::Execute, frame);
                }
                let format = self.portals.of(execute.portal);
                let unit = Unit::Execute {
                    portal: frame.share(execute.portal),
                    max_rows: execute.max_rows,
                };
                self.decide(Kind::Execute, frame, unit, format, false);
            }
            FrontendMessage::Describe(describe) => {
                let kind = match describe.kind {
                    frontend::Kind::Statement => Kind::DescribeStatement,
                    frontend::Kind::Portal => Kind::DescribePortal,
                };
                if describe.name.len() > name_max {
                    return self.refuse_name(kind, frame);
                }
                let unit = Unit::Describe {
                    kind: describe.kind,
                    name: frame.share(describe.name),
                };
                self.pass(kind, frame, unit, Format::Text);
            }
            FrontendMessage::Close(close) => {
                if close.name.len() > name_max {
                    return self.refuse_name(Kind::Close, frame);
                }
                let unit = Unit::Close {
                    kind: close.kind,
                    name: frame.share(close.name),
                };
                self.pass(Kind::Close, frame, unit, Format::Text);
            }
            FrontendMessage::Sync => self.pass(Kind::Sync, frame, Unit::Sync, Format::Text),
            FrontendMessage::Flush => self.up.forward(frame.raw.clone()),
            FrontendMessage::CopyData(_) => self.copy_in_passes(frame.raw.clone()),
            FrontendMessage::CopyDone => self.copy_in_ends(frame, Unit::CopyDone),
            FrontendMessage::CopyFail(reason) => {
                let reason = frame.share(reason);
                self.copy_in_ends(frame, Unit::CopyFail { reason });
            }
            // After login nothing asks for one; a server ends the connection over it.
            FrontendMessage::Password(_) => {
                return Err(fault(WireError::UnknownTag { tag: frame.tag }));
            }
            FrontendMessage::Terminate => {
                self.up.forward(frame.raw.clone());
                let id = self.next_id();
                self.outputs.push_back(Output::Event(Event::Passed {
                    id,
                    unit: Unit::Terminate,
                }));
                self.gate = Gate::Ended;
                self.life = Life::Ending;
                self.end_if_answered();
            }
        }
        Ok(())
    }

    /// Waits for the verdict on a whole message.
    fn decide(&mut self, kind: Kind, frame: &Frame, unit: Unit, format: Format, unnamed: bool) {
        let portal = match &unit {
            Unit::Bind { portal, .. } => portal.clone(),
            _ => Bytes::new(),
        };
        let passed = matches!(unit, Unit::Execute { .. }).then(|| unit.clone());
        let held = Held {
            kind,
            raw: frame.raw.clone(),
            streamed: false,
            unnamed,
            format,
            portal,
            passed,
        };
        self.ask(held, unit);
    }

    fn ask(&mut self, held: Held, unit: Unit) {
        let id = self.next_id();
        self.gate = Gate::Deciding { id, held };
        self.outputs.push_back(Output::Decide { id, unit });
    }

    /// Forwards a message that needs no decision.
    fn pass(&mut self, kind: Kind, frame: &Frame, unit: Unit, format: Format) {
        let id = self.next_id();
        self.up.forward(frame.raw.clone());
        self.outputs
            .push_back(Output::Event(Event::Passed { id, unit }));
        self.sent(id, kind, format);
    }

    fn sent(&mut self, id: UnitId, kind: Kind, format: Format) -> Sent {
        let sent = self.responses.sent(Pending {
            id: id.0,
            kind,
            ours: false,
            format,
        });
        if sent == Sent::Skipped {
            self.outputs.push_back(Output::Event(Event::Answered {
                id,
                outcome: Outcome::Skipped,
            }));
        }
        sent
    }

    /// Sends the server a message that it must refuse itself.
    fn refuse(
        &mut self,
        id: UnitId,
        kind: Kind,
        unnamed: bool,
        refusal: Refusal,
    ) -> Result<(), SessionError> {
        let (kind, word) = self
            .refusals
            .substitute(kind, unnamed, &refusal, self.up.made())
            .map_err(SessionError::Encode)?;
        let sent = self.responses.sent(Pending {
            id: id.0,
            kind,
            ours: true,
            format: Format::Text,
        });
        match sent {
            Sent::Skipped | Sent::Ignored => {
                self.outputs.push_back(Output::Event(Event::Answered {
                    id,
                    outcome: Outcome::Skipped,
                }));
            }
            Sent::Queued => self.refusals.wait(word, refusal),
        }
        Ok(())
    }

    /// Refuses a request that no rule was asked about.
    fn refuse_here(
        &mut self,
        kind: Kind,
        tag: u8,
        bytes: usize,
        unnamed: bool,
        refusal: Refusal,
    ) -> Result<(), SessionError> {
        let id = self.next_id();
        let refusal = refusal.with_detail(format!(
            "action=deny rule=\"limit\" session={}",
            self.config.session_label
        ));
        self.outputs.push_back(Output::Event(Event::Refused {
            id,
            tag,
            bytes: bytes as u64,
            sqlstate: refusal.sqlstate,
        }));
        self.refuse(id, kind, unnamed, refusal)
    }

    fn refuse_name(&mut self, kind: Kind, frame: &Frame) -> Result<(), SessionError> {
        let refusal = name_refusal(&self.config);
        self.refuse_here(kind, frame.tag, frame.body().len(), false, refusal)
    }

    /// A message begins that is not held whole.
    fn on_large(&mut self, tag: u8, length: u32) -> Result<(), SessionError> {
        let kind = match tag {
            tag::COPY_DATA => {
                let header = self.up.made();
                header.put_u8(tag);
                header.put_u32(length.saturating_add(4));
                self.copy_in
                    .overflow(&mut self.outputs, UnitId(self.last_id));
                self.gate = Gate::Passing { copy_data: true };
                return Ok(());
            }
            tag::PARSE => {
                self.gate = Gate::ParseHead { length };
                return Ok(());
            }
            tag::BIND if !self.config.binds_read => {
                self.gate = Gate::BindHead {
                    length,
                    head: BytesMut::new(),
                };
                return Ok(());
            }
            tag::BIND => Kind::Bind,
            tag::FUNCTION_CALL => Kind::FunctionCall,
            _ => Kind::Query,
        };
        self.gate = Gate::Swallowing;
        let refusal = size_refusal(&self.config, kind);
        self.refuse_here(kind, tag, length as usize, false, refusal)
    }

    fn on_chunk(&mut self, chunk: Bytes) -> Result<(), SessionError> {
        match &mut self.gate {
            Gate::Passing { copy_data } => {
                if *copy_data {
                    self.copy_in.bytes = self.copy_in.bytes.saturating_add(chunk.len() as u64);
                }
                self.up.forward(chunk);
                Ok(())
            }
            Gate::Swallowing => Ok(()),
            Gate::ParseHead { length } => {
                let length = *length;
                // The body starts with the name: a zero byte is the unnamed statement.
                let unnamed = chunk.first() == Some(&0);
                self.gate = Gate::Swallowing;
                let refusal = size_refusal(&self.config, Kind::Parse);
                self.refuse_here(Kind::Parse, tag::PARSE, length as usize, unnamed, refusal)
            }
            Gate::BindHead { length, head } => {
                let length = *length;
                head.extend_from_slice(&chunk);
                let head_max = self
                    .config
                    .name_bytes_max
                    .saturating_add(1)
                    .saturating_mul(2);
                let mut reader = Reader::new(head);
                let names = reader
                    .take_cstr()
                    .and_then(|portal| Ok((portal.len(), reader.take_cstr()?.len())));
                let name_max = self.config.name_bytes_max;
                match names {
                    Ok((portal, statement)) if portal <= name_max && statement <= name_max => {
                        let body = std::mem::take(head).freeze();
                        self.decide_streamed_bind(length, &body, portal, statement);
                        Ok(())
                    }
                    Err(_) if head.len() < head_max => Ok(()),
                    _ => {
                        self.gate = Gate::Swallowing;
                        let refusal = name_refusal(&self.config);
                        self.refuse_here(Kind::Bind, tag::BIND, length as usize, false, refusal)
                    }
                }
            }
            // No chunk comes outside of a streamed message.
            Gate::Open | Gate::Deciding { .. } | Gate::Ended => Ok(()),
        }
    }

    fn decide_streamed_bind(&mut self, length: u32, body: &Bytes, portal: usize, statement: usize) {
        let mut raw = BytesMut::with_capacity(body.len().saturating_add(5));
        raw.put_u8(tag::BIND);
        raw.put_u32(length.saturating_add(4));
        raw.put_slice(body);
        let after_portal = portal.saturating_add(1);
        let portal = body.slice(..portal);
        let unit = Unit::Bind {
            portal: portal.clone(),
            statement: body.slice(after_portal..after_portal.saturating_add(statement)),
            values: BindValues::Unread {
                bytes: length as usize,
            },
        };
        let held = Held {
            kind: Kind::Bind,
            raw: raw.freeze(),
            streamed: true,
            unnamed: false,
            format: Format::Unknown,
            portal,
            passed: None,
        };
        self.ask(held, unit);
    }

    /// Whole CopyData messages pass: their statement was decided. Outside of a COPY the
    /// server ignores them.
    fn copy_in_passes(&mut self, frames: Bytes) {
        self.copy_in
            .passes(&frames, &mut self.outputs, UnitId(self.last_id));
        self.up.forward(frames);
    }

    fn copy_in_ends(&mut self, frame: &Frame, unit: Unit) {
        let id = self.next_id();
        self.up.forward(frame.raw.clone());
        self.outputs
            .push_back(Output::Event(Event::Passed { id, unit }));
        let bytes = self.copy_in.take_bytes();
        // The entry is a marker: it has no answer, and its id carries the count.
        self.responses.sent(Pending {
            id: bytes,
            kind: Kind::CopyEnd,
            ours: false,
            format: Format::Text,
        });
    }

    /// Bytes of the COPY IN at the front of the queue, as far as they were forwarded.
    pub(super) fn copied_in(&mut self, copying: Copying) -> u64 {
        match copying {
            Copying::In { bytes: Some(bytes) } => bytes,
            Copying::In { bytes: None } => self.copy_in.take_bytes(),
            Copying::Out => 0,
        }
    }

    /// After Terminate: over once every answer has come.
    pub(super) fn end_if_answered(&mut self) {
        if matches!(self.life, Life::Ending) && self.responses.is_empty() {
            self.close(CloseReason::AgentTerminated);
        }
    }
}

/// What is done with an agent's message of this type and body length.
fn treatment(config: &SessionConfig, tag: u8, length: u32) -> Treatment {
    let bytes = length as usize;
    let (whole, large) = match tag {
        tag::QUERY | tag::PARSE | tag::FUNCTION_CALL => {
            (bytes <= config.unit_bytes_max, Treatment::Stream)
        }
        tag::BIND => (bytes <= config.bind_bytes_held_max, Treatment::Stream),
        tag::COPY_DATA => (length <= COPY_WHOLE_BYTES_MAX, Treatment::Stream),
        tag::SYNC | tag::FLUSH | tag::COPY_DONE | tag::TERMINATE => {
            (length == 0, Treatment::Refuse)
        }
        tag::DESCRIBE | tag::EXECUTE | tag::CLOSE | tag::COPY_FAIL => {
            (length <= SMALL_BYTES_MAX, Treatment::Refuse)
        }
        _ => (false, Treatment::Refuse),
    };
    match whole {
        _ if length > MESSAGE_BYTES_MAX => Treatment::Refuse,
        true => Treatment::Whole,
        false => large,
    }
}

fn agent_fault(error: WireError) -> SessionError {
    let tag = match error {
        WireError::BadLength { tag, .. } | WireError::TooLarge { tag, .. } => tag,
        _ => 0,
    };
    let error = if tag::is_known(tag) && tag != tag::PASSWORD {
        error
    } else {
        WireError::UnknownTag { tag }
    };
    SessionError::AgentProtocol { tag, error }
}

/// The codes and values of a body: what is left of it without `front` bytes before and
/// `back` bytes after them.
fn values_of(frame: &Frame, front: usize, back: usize) -> Result<BindValues, WireError> {
    let body = frame.body();
    let end = body.len().saturating_sub(back);
    let part = body.get(front..end).unwrap_or_default();
    Ok(BindValues::Read(ReadValues::new(frame.share(part))?))
}

fn size_refusal(config: &SessionConfig, kind: Kind) -> Refusal {
    let (what, limit) = match kind {
        Kind::Bind => ("bind message", config.bind_bytes_held_max),
        Kind::FunctionCall => ("function call", config.unit_bytes_max),
        _ => ("statement", config.unit_bytes_max),
    };
    Refusal::new(
        b"54000",
        format!("{what} is larger than the gateway reads ({limit} bytes)"),
    )
    .with_hint("Send large data with COPY, or in several statements.")
}

fn name_refusal(config: &SessionConfig) -> Refusal {
    Refusal::new(
        b"42622",
        format!(
            "name of a statement or portal is longer than {} bytes",
            config.name_bytes_max
        ),
    )
    .with_hint("Use a shorter name: the server would cut it.")
}
