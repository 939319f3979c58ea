//! From the server to the agent: match each message with what it answers, mask it,
//! release it.
//!
//! The fast path: all whole messages of one read are asked about once (`is_clean`); while
//! that span lasts, runs of rows are forwarded as one slice and nothing is asked again.
//! Only inside a span that is not clean does each message, and then each value, get a
//! question of its own.

use bytes::{BufMut, Bytes, BytesMut};

use super::content::{Content, Fill};
use super::copy_in::bodies;
use super::event::{CopyDirection, Event, Outcome, Output, SessionError};
use super::large::{LargeCopyData, LargeFault, LargeRow};
use super::mask::{self, Format, MaskFault};
use super::refusal;
use super::responses::{Answer, Copying, Kind, Pending, Unexpected};
use super::unit::UnitId;
use super::{Session, agent};
use crate::error::WireError;
use crate::session::config::SessionConfig;
use crate::wire::backend::{self, BackendMessage, Report, Severity, tag};
use crate::wire::{Frame, Piece, Treatment};

/// A message that streams; the agent has its header and part of its body.
pub(super) enum Large<S> {
    Row(LargeRow<S>),
    CopyData(LargeCopyData<S>),
    /// A CopyData while text is held back from an earlier one: it is re-made into
    /// messages of what can be released.
    CopyText {
        last: Option<u8>,
    },
}

/// How much of the current input has been asked about.
#[derive(Debug, Default)]
pub(super) struct Span {
    /// Bytes of whole messages that are known to be clean.
    clean: usize,
    /// Bytes of whole messages that are known not to be.
    unclean: usize,
}

impl Span {
    /// `bytes` were taken off the input; true if they were known to be clean.
    fn spend(&mut self, bytes: usize) -> bool {
        let clean = self.clean >= bytes;
        self.clean = self.clean.saturating_sub(bytes);
        self.unclean = self.unclean.saturating_sub(bytes);
        clean
    }
}

impl<C: Content> Session<C> {
    /// Reads server messages as far as they have come.
    pub(super) fn pump_server(&mut self) -> Result<(), SessionError> {
        while !self.life.is_over() {
            if self.large.is_none() {
                self.look_ahead();
                if self.take_run()? {
                    continue;
                }
            }
            let whole = self.span.clean > 0;
            let config = &self.config;
            let piece = self
                .server
                .next(|tag, length| treatment(config, tag, length, whole))
                .map_err(server_fault)?;
            match piece {
                None => return Ok(()),
                Some(Piece::Frame(frame)) => {
                    let clean = self.span.spend(frame.raw.len());
                    self.on_backend(&frame, clean)?;
                    self.end_if_answered();
                }
                Some(Piece::Start { tag, length }) => {
                    self.span.spend(5);
                    self.on_large_start(tag, length)?;
                }
                Some(Piece::Chunk(chunk)) => {
                    self.span.spend(chunk.len());
                    self.on_large_chunk(&chunk)?;
                }
                Some(Piece::End) => self.on_large_end()?,
            }
        }
        Ok(())
    }

    /// Asks once about all whole messages that lie in one piece.
    fn look_ahead(&mut self) {
        if self.span.clean > 0 || self.span.unclean > 0 {
            return;
        }
        let length = self.server.peek_run(|_| true);
        if length == 0 {
            return;
        }
        let messages = self.server.contiguous().get(..length).unwrap_or_default();
        if self.content.is_clean(messages) {
            self.span.clean = length;
        } else {
            self.span.unclean = length;
        }
    }

    /// Forwards a run of clean rows or copy data as one slice. False if there is none.
    fn take_run(&mut self) -> Result<bool, SessionError> {
        let Some(front) = self.responses.front().filter(|_| self.span.clean > 0) else {
            return Ok(false);
        };
        let (tag, length) = match self.responses.copying() {
            Some(Copying::Out) if self.copy_text.is_none() => {
                let input = self
                    .server
                    .contiguous()
                    .get(..self.span.clean)
                    .unwrap_or_default();
                (tag::COPY_DATA, whole_copy_rows(input, self.copy_binary))
            }
            Some(_) => return Ok(false),
            None => (
                tag::DATA_ROW,
                self.server.peek_run(|tag| tag == tag::DATA_ROW),
            ),
        };
        if length == 0 {
            return Ok(false);
        }
        self.receive(tag)?;
        let frames = self.server.take_run(length);
        self.span.spend(length);
        if tag == tag::COPY_DATA {
            self.copy_out_bytes = self.copy_out_bytes.saturating_add(bodies(&frames));
        }
        self.record(front.id, &frames);
        self.down.forward(frames);
        Ok(true)
    }

    fn on_backend(&mut self, frame: &Frame, clean: bool) -> Result<(), SessionError> {
        let fault = |error| SessionError::TargetProtocol {
            tag: frame.tag,
            error,
        };
        match backend::decode(frame.tag, frame.body()).map_err(fault)? {
            BackendMessage::NoticeResponse(report) => {
                let clean = self.still_clean(frame, clean);
                let made = self.release(frame, clean, |content, out| {
                    mask::report(content, frame.tag, report, out)
                })?;
                self.event(Event::Notice { frame: made });
            }
            BackendMessage::ParameterStatus(status) => {
                if status.name == b"client_encoding" {
                    self.encoding_utf8 = status.value == b"UTF8";
                }
                let clean = self.still_clean(frame, clean);
                let made = self.release(frame, clean, |content, out| {
                    mask::parameter_status(content, status, out)
                })?;
                let made = as_frame(made);
                let status = backend::ParameterStatus::decode(made.body()).map_err(fault)?;
                let (name, value) = (made.share(status.name), made.share(status.value));
                self.event(Event::ParameterStatus { name, value });
            }
            BackendMessage::Notification(notification) => {
                let clean = self.still_clean(frame, clean);
                let made = self.release(frame, clean, |content, out| {
                    mask::notification(content, notification, out)
                })?;
                let made = as_frame(made);
                let notification = backend::Notification::decode(made.body()).map_err(fault)?;
                let (channel, payload) = (
                    made.share(notification.channel),
                    made.share(notification.payload),
                );
                self.event(Event::Notification {
                    process_id: notification.process_id,
                    channel,
                    payload,
                });
            }
            BackendMessage::ErrorResponse(report) => self.on_error(frame, report, clean)?,
            BackendMessage::ReadyForQuery(status) => {
                self.responses
                    .ready()
                    .map_err(|Unexpected| SessionError::TargetUnexpected { tag: frame.tag })?;
                self.status = status;
                self.row_record.reset();
                self.flush_masked(None);
                self.event(Event::ReadyForQuery { status });
                self.down.forward(frame.raw.clone());
                if status == b'I' && self.responses.is_empty() {
                    self.portals.clear();
                }
            }
            message => {
                let front = self
                    .responses
                    .front()
                    .ok_or(SessionError::TargetUnexpected { tag: frame.tag })?;
                self.on_answer(frame, message, front, clean)?;
            }
        }
        Ok(())
    }

    /// A message that answers the front entry.
    fn on_answer(
        &mut self,
        frame: &Frame,
        message: BackendMessage<'_>,
        front: Pending,
        clean: bool,
    ) -> Result<(), SessionError> {
        let id = UnitId(front.id);
        let copying = self.responses.copying();
        let answer = match message {
            BackendMessage::CopyBothResponse(_) => return Err(SessionError::CopyBoth),
            _ => self.receive(frame.tag)?,
        };
        let mut command_tag = Bytes::new();
        match message {
            BackendMessage::DataRow(values) => {
                let clean = self.still_clean(frame, clean);
                let format = if front.kind == Kind::Query {
                    self.query_format
                } else {
                    front.format
                };
                let made = self.release(frame, clean, |content, out| {
                    mask::data_row(content, values, format, out)
                })?;
                self.record(front.id, &made);
            }
            BackendMessage::CopyData(data) => self.on_copy_data(frame, data, front.id, clean)?,
            BackendMessage::RowDescription(description) => {
                if front.kind == Kind::Query {
                    self.query_format =
                        Format::of_all(description.fields().map(|field| field.format));
                }
                let clean = self.still_clean(frame, clean);
                let made = self.release(frame, clean, |content, out| {
                    mask::row_description(content, description, out)
                })?;
                self.record(front.id, &made);
            }
            BackendMessage::CommandComplete(command) => {
                let clean = self.still_clean(frame, clean);
                let made = self.release(frame, clean, |content, out| {
                    mask::command_complete(content, command, out)
                })?;
                let made = as_frame(made);
                let command = backend::decode_command_complete(made.body()).map_err(|error| {
                    SessionError::TargetProtocol {
                        tag: frame.tag,
                        error,
                    }
                })?;
                command_tag = made.share(command);
            }
            BackendMessage::FunctionCallResponse(Some(value)) => {
                let clean = self.still_clean(frame, clean);
                let made = self.release(frame, clean, |content, out| {
                    mask::function_result(content, value, front.format, out)
                })?;
                self.record(front.id, &made);
            }
            BackendMessage::CopyInResponse(response) => {
                self.event(Event::CopyStarted {
                    id,
                    direction: CopyDirection::In,
                    binary: response.binary,
                });
                self.down.forward(frame.raw.clone());
            }
            BackendMessage::CopyOutResponse(response) => {
                self.copy_binary = response.binary;
                self.copy_out_bytes = 0;
                self.event(Event::CopyStarted {
                    id,
                    direction: CopyDirection::Out,
                    binary: response.binary,
                });
                self.down.forward(frame.raw.clone());
            }
            BackendMessage::CopyDone => {
                self.end_copy_text(front.id)?;
                self.down.forward(frame.raw.clone());
            }
            // Nothing in these but codes: completions, NoData, types of parameters, NULL.
            _ => self.down.forward(frame.raw.clone()),
        }
        match answer {
            Answer::Going => {}
            Answer::Completed => {
                self.copy_ended(id, copying);
                self.row_record.reset();
                self.answered(id, Outcome::Completed { tag: command_tag });
            }
            Answer::Suspended => {
                self.row_record.reset();
                self.answered(id, Outcome::Suspended);
            }
        }
        Ok(())
    }

    fn on_error(
        &mut self,
        frame: &Frame,
        report: Report<'_>,
        clean: bool,
    ) -> Result<(), SessionError> {
        let front = self.responses.front();
        self.end_copy_text(front.map_or(0, |front| front.id))?;
        let copying = self.responses.copying();
        let fatal = report.is_fatal();
        let (entry, skips) = self
            .responses
            .error(fatal)
            .map_err(|Unexpected| SessionError::TargetUnexpected { tag: frame.tag })?;
        let ours = match entry {
            Some(entry) if entry.ours && !fatal => self
                .refusals
                .answered(report.field(b'M').unwrap_or_default()),
            _ => None,
        };
        let outcome = if let Some(refusal) = ours {
            let made = refusal::error_response(Severity::Error, &refusal, self.encoding_utf8);
            self.down.made().extend_from_slice(&made);
            Outcome::Refused {
                sqlstate: refusal.sqlstate,
            }
        } else {
            let sqlstate = report.sqlstate().unwrap_or(*b"XX000");
            let clean = self.still_clean(frame, clean);
            let made = self.release(frame, clean, |content, out| {
                mask::report(content, frame.tag, report, out)
            })?;
            Outcome::Failed {
                sqlstate,
                frame: made,
            }
        };
        match entry {
            Some(entry) => {
                let id = UnitId(entry.id);
                self.copy_ended(id, copying);
                self.answered(id, outcome);
            }
            None => {
                // FATAL while idle: no request to answer, but the record wants it.
                self.flush_masked(None);
                self.event(Event::Answered {
                    id: UnitId(0),
                    outcome,
                });
            }
        }
        self.row_record.reset();
        if skips {
            let (refusals, outputs) = (&mut self.refusals, &mut self.outputs);
            self.responses.skip(|pending| {
                if pending.ours {
                    refusals.skipped();
                }
                if pending.kind != Kind::Sync {
                    let id = UnitId(pending.id);
                    outputs.push_back(Output::Event(Event::Answered {
                        id,
                        outcome: Outcome::Skipped,
                    }));
                }
            });
        }
        Ok(())
    }

    /// One whole CopyData of a COPY OUT.
    fn on_copy_data(
        &mut self,
        frame: &Frame,
        data: &[u8],
        id: u64,
        clean: bool,
    ) -> Result<(), SessionError> {
        self.copy_out_bytes = self.copy_out_bytes.saturating_add(data.len() as u64);
        if self.copy_text.is_some() {
            self.feed_copy_text(data, id)?;
            return if data.last() == Some(&b'\n') {
                self.end_copy_text(id)
            } else {
                Ok(())
            };
        }
        let binary = self.copy_binary;
        if !binary && data.last().is_some_and(|last| *last != b'\n') {
            // Its last bytes may be the start of what the next message ends.
            self.copy_text = Some(self.content.open(Fill::Placeholder));
            return self.feed_copy_text(data, id);
        }
        let clean = self.still_clean(frame, clean);
        let made = self.release(frame, clean, |content, out| {
            mask::copy_data(content, data, binary, out)
        })?;
        self.record(id, &made);
        Ok(())
    }

    fn feed_copy_text(&mut self, data: &[u8], id: u64) -> Result<(), SessionError> {
        let Some(stream) = &mut self.copy_text else {
            return Ok(());
        };
        let mut out = Vec::with_capacity(data.len());
        self.content.push(stream, data, &mut out);
        self.copy_text_released(&out, id)
    }

    /// A text row ends: what was held back is released.
    fn end_copy_text(&mut self, id: u64) -> Result<(), SessionError> {
        let Some(stream) = self.copy_text.take() else {
            return Ok(());
        };
        let mut out = Vec::new();
        self.content.finish(stream, &mut out);
        self.copy_text_released(&out, id)
    }

    fn copy_text_released(&mut self, data: &[u8], id: u64) -> Result<(), SessionError> {
        if data.is_empty() {
            return Ok(());
        }
        let mut made = BytesMut::with_capacity(data.len().saturating_add(5));
        crate::wire::frontend::copy_data(&mut made, data).map_err(SessionError::Encode)?;
        let made = made.freeze();
        self.record(id, &made);
        self.down.made().extend_from_slice(&made);
        Ok(())
    }

    fn on_large_start(&mut self, tag: u8, length: u32) -> Result<(), SessionError> {
        let front = self
            .responses
            .front()
            .ok_or(SessionError::TargetUnexpected { tag })?;
        self.receive(tag)?;
        let header = |out: &mut BytesMut| {
            out.put_u8(tag);
            out.put_u32(length.saturating_add(4));
        };
        self.large = Some(if tag == tag::DATA_ROW {
            header(self.down.made());
            Large::Row(LargeRow::new(length))
        } else {
            self.copy_out_bytes = self.copy_out_bytes.saturating_add(u64::from(length));
            if self.copy_text.is_some() {
                Large::CopyText { last: None }
            } else {
                header(self.down.made());
                Large::CopyData(LargeCopyData::new(
                    &mut self.content,
                    length,
                    self.copy_binary,
                ))
            }
        });
        if self.row_record.overflow() {
            self.event(Event::Rows {
                id: UnitId(front.id),
                frames: Bytes::new(),
                truncated: true,
            });
        }
        Ok(())
    }

    fn on_large_chunk(&mut self, chunk: &Bytes) -> Result<(), SessionError> {
        let id = self.responses.front().map_or(0, |front| front.id);
        match &mut self.large {
            Some(Large::Row(row)) => row
                .push(&mut self.content, chunk, self.down.made())
                .map_err(|fault| large_fault(tag::DATA_ROW, fault)),
            Some(Large::CopyData(data)) => data
                .push(&mut self.content, chunk, self.down.made())
                .map_err(|fault| large_fault(tag::COPY_DATA, fault)),
            Some(Large::CopyText { last }) => {
                *last = chunk.last().copied().or(*last);
                self.feed_copy_text(chunk, id)
            }
            None => Ok(()),
        }
    }

    fn on_large_end(&mut self) -> Result<(), SessionError> {
        let id = self.responses.front().map_or(0, |front| front.id);
        // Until it has ended well, the agent is in the middle of a message.
        let Some(large) = self.large.take() else {
            return Ok(());
        };
        let (tag, result) = match large {
            Large::Row(row) => (tag::DATA_ROW, row.finish()),
            Large::CopyData(data) => (
                tag::COPY_DATA,
                data.finish(&mut self.content, self.down.made()),
            ),
            // Re-made into whole messages as it came.
            Large::CopyText { last: Some(b'\n') } => {
                (tag::COPY_DATA, self.end_copy_text(id).map(Ok)?)
            }
            Large::CopyText { .. } => (tag::COPY_DATA, Ok(())),
        };
        if result.is_ok() && !self.notices.is_empty() {
            let notices = std::mem::take(&mut self.notices);
            self.down.made().extend_from_slice(&notices);
        }
        result.map_err(|fault| {
            self.large = Some(Large::CopyText { last: None });
            large_fault(tag, fault)
        })
    }

    /// Whether `frame` is clean, asked now if it is not known.
    fn still_clean(&mut self, frame: &Frame, clean: bool) -> bool {
        clean || self.content.is_clean(&frame.raw)
    }

    /// Writes `frame` to the agent, re-made by `mask` unless it is clean; returns what was
    /// written.
    fn release(
        &mut self,
        frame: &Frame,
        clean: bool,
        mask: impl FnOnce(&mut C, &mut BytesMut) -> Result<u64, MaskFault>,
    ) -> Result<Bytes, SessionError> {
        if clean {
            self.down.forward(frame.raw.clone());
            return Ok(frame.raw.clone());
        }
        let mut made = BytesMut::with_capacity(frame.raw.len());
        let masked = mask(&mut self.content, &mut made).map_err(|fault| match fault {
            MaskFault::Encode(error) => SessionError::Encode(error),
            MaskFault::Length => SessionError::MaskLength,
        })?;
        if masked == 0 {
            self.down.forward(frame.raw.clone());
            return Ok(frame.raw.clone());
        }
        self.masked = self.masked.saturating_add(masked);
        self.down.made().extend_from_slice(&made);
        Ok(made.freeze())
    }

    fn receive(&mut self, tag: u8) -> Result<Answer, SessionError> {
        self.responses
            .receive(tag)
            .map_err(|Unexpected| SessionError::TargetUnexpected { tag })
    }

    fn record(&mut self, id: u64, frames: &Bytes) {
        if let Some((frames, truncated)) = self.row_record.take(frames) {
            self.event(Event::Rows {
                id: UnitId(id),
                frames,
                truncated,
            });
        }
    }

    fn copy_ended(&mut self, id: UnitId, copying: Option<Copying>) {
        let (direction, bytes) = match copying {
            None => return,
            Some(Copying::Out) => (CopyDirection::Out, std::mem::take(&mut self.copy_out_bytes)),
            Some(copying) => (CopyDirection::In, self.copied_in(copying)),
        };
        self.event(Event::CopyEnded {
            id,
            direction,
            bytes,
        });
    }

    fn answered(&mut self, id: UnitId, outcome: Outcome) {
        self.flush_masked(Some(id));
        self.event(Event::Answered { id, outcome });
    }

    fn flush_masked(&mut self, id: Option<UnitId>) {
        if self.masked > 0 {
            let values = std::mem::take(&mut self.masked);
            self.event(Event::Masked { id, values });
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

/// What is done with a server's message of this type and body length. `whole`: it lies
/// whole in the input and is clean.
fn treatment(config: &SessionConfig, tag: u8, length: u32, whole: bool) -> Treatment {
    let bytes = length as usize;
    match tag {
        _ if length > agent::MESSAGE_BYTES_MAX => Treatment::Refuse,
        tag::DATA_ROW | tag::COPY_DATA if whole || bytes <= config.value_bytes_held_max => {
            Treatment::Whole
        }
        tag::DATA_ROW | tag::COPY_DATA => Treatment::Stream,
        _ if bytes <= config.message_bytes_max => Treatment::Whole,
        _ => Treatment::Refuse,
    }
}

fn server_fault(error: WireError) -> SessionError {
    let tag = match error {
        WireError::BadLength { tag, .. } | WireError::TooLarge { tag, .. } => tag,
        _ => 0,
    };
    SessionError::TargetProtocol { tag, error }
}

fn large_fault(tag: u8, fault: LargeFault) -> SessionError {
    match fault {
        LargeFault::Wire(error) => SessionError::TargetProtocol { tag, error },
        LargeFault::Length => SessionError::MaskLength,
    }
}

/// A message that was made or passed here, as a frame.
fn as_frame(raw: Bytes) -> Frame {
    Frame {
        tag: raw.first().copied().unwrap_or_default(),
        raw,
    }
}

/// Length of the run of CopyData messages at the front that each end a value: any binary
/// one, a text one that ends in a newline or is empty.
fn whole_copy_rows(input: &[u8], binary: bool) -> usize {
    let mut run = 0usize;
    let mut rest = input;
    while let Some((&[tag, a, b, c, d], _)) = rest.split_first_chunk::<5>() {
        let total = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_add(1);
        let Some((frame, after)) = rest.split_at_checked(total) else {
            break;
        };
        let ends = binary || frame.len() == 5 || frame.last() == Some(&b'\n');
        if tag != tag::COPY_DATA || !ends {
            break;
        }
        run = run.saturating_add(total);
        rest = after;
    }
    run
}
