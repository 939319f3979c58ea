//! A whole session: an agent, a server and a gateway that decides, in any order and cut
//! anywhere.
//!
//! What must hold: nothing that needs a decision reaches the server before its verdict, and
//! what was allowed reaches it as it was decided; no value of the server holds the word
//! SECRET when the agent reads it; both sides only ever read whole messages; one question is
//! open at a time; nothing comes behind Close; an agent that keeps to `wants_input` is never
//! told that it sent too much.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use postgres::Refusal;
use postgres::session::{
    BindValues, CloseReason, Event, Outcome, Output, Session, SessionConfig, SessionError, Side,
    Unit, UnitId, Verdict,
};
use postgres::wire::backend::{self, BackendMessage};
use postgres::wire::frontend::{self, Kind, Query};
use postgres::wire::{Frame, Frames, Piece, Treatment};

use crate::input::{Input, contains, pieces};

#[allow(dead_code, unused_imports, missing_docs)]
#[path = "../../protocols/postgres/tests/support/model.rs"]
mod model;
#[allow(dead_code, missing_docs)]
#[path = "../../protocols/postgres/tests/support/toy.rs"]
mod toy;

const SECRET: &[u8] = b"SECRET";
/// Texts of the agent; the model server knows them.
const TEXTS: [&str; 16] = [
    "select 1 a",
    "select 3 SECRET",
    "insert",
    "begin",
    "commit",
    "fail SECRET",
    "syntax",
    "",
    "copy out 2 SECRET",
    "copy in",
    "copy in bad",
    "notice SECRET",
    "notify SECRET",
    "set a SECRET",
    "drop a",
    "select 2 xSECRETxSECRET; fail; select 1",
];
const NAMES: [&str; 4] = ["", "a", "b", "portcullis_x"];

struct World {
    session: Session<toy::Toy>,
    /// The honest server, until something it does not understand was said.
    model: Option<model::Model>,
    unread_by_model: Vec<u8>,
    pending: Option<(UnitId, Vec<u8>)>,
    allowed: VecDeque<Vec<u8>>,
    up: Frames,
    down: Frames,
    copy_tail: Vec<u8>,
    copy_binary: bool,
    last_id: u64,
    closed: bool,
    auto: bool,
}

/// Input: flags (1: verdicts come at once, 2: binds are not read, 4: small limits), read
/// sizes, then operations. See `World::operation`.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let mut config = SessionConfig::new("s-1", [7; 16]);
    config.binds_read = flags & 2 == 0;
    if flags & 4 != 0 {
        config.unit_bytes_max = 48;
        config.bind_bytes_held_max = 40;
        config.value_bytes_held_max = 32;
        config.message_bytes_max = 256;
        config.held_bytes_max = 64;
        config.row_record_bytes_max = 50;
    }
    let mut world = World {
        session: Session::new(config, toy::Toy::default()),
        model: Some(model::Model::new()),
        unread_by_model: Vec::new(),
        pending: None,
        allowed: VecDeque::new(),
        up: Frames::new(),
        down: Frames::new(),
        copy_tail: Vec::new(),
        copy_binary: false,
        last_id: 0,
        closed: false,
        auto: flags & 1 != 0,
    };
    let mut sizes = input.sizes();
    while !input.is_empty() && !world.closed {
        world.operation(&mut input, &mut sizes);
    }
    world.session.handle_eof(Side::Downstream);
    world.drain();
    assert!(world.closed && world.session.is_over());
    let _ = world
        .session
        .handle_input(Side::Upstream, Bytes::from_static(b"Z\0\0\0\x05I"));
    assert_eq!(world.session.poll_output(), None);
}

impl World {
    fn operation<'a>(&mut self, input: &mut Input<'a>, sizes: &mut &'a [u8]) {
        match input.byte() % 16 {
            0..=3 => {
                let mut out = BytesMut::new();
                agent_message(input, &mut out);
                self.feed(Side::Downstream, &out, sizes);
            }
            4 => {
                // Bytes that need not be messages: the model would not understand them.
                self.model = None;
                let bytes = input.short();
                self.feed(Side::Downstream, bytes, sizes);
            }
            5..=7 => self.model_answers(sizes),
            8 => {
                let bytes = input.short();
                self.feed(Side::Upstream, bytes, sizes);
            }
            9 | 10 => {
                let mut out = BytesMut::new();
                server_message(input, &mut out);
                self.feed(Side::Upstream, &out, sizes);
            }
            11 | 12 => {
                let refuse = input.byte() & 1 == 1;
                if let Some((id, request)) = self.pending.take() {
                    self.decide(id, request, refuse);
                }
            }
            13 => *sizes = input.sizes(),
            14 => self.auto = !self.auto,
            _ => self.rarely(input.byte()),
        }
        self.drain();
    }

    fn rarely(&mut self, choice: u8) {
        let words = Refusal::new(b"57P01", "words of the gateway").with_hint("a hint");
        match choice % 16 {
            0..=5 => drop(self.session.notice(&words)),
            6..=10 => self.session.park(),
            11 => self.session.set_binds_read(choice & 128 == 0),
            12 => self.session.end(&words),
            13 => self.session.handle_eof(Side::Upstream),
            14 => self.session.handle_eof(Side::Downstream),
            _ => {
                let wrong = UnitId(self.last_id + 1);
                let over = self.session.is_over();
                assert_eq!(
                    self.session
                        .handle_decision(wrong, Verdict::Forward)
                        .is_ok(),
                    over
                );
            }
        }
    }

    fn feed(&mut self, side: Side, bytes: &[u8], sizes: &[u8]) {
        for piece in pieces(bytes, sizes) {
            if !self.session.wants_input(side) {
                // What was cut off here would be another stream to the model.
                if side == Side::Downstream {
                    self.model = None;
                }
                return;
            }
            let result = self
                .session
                .handle_input(side, Bytes::copy_from_slice(piece));
            assert!(!matches!(
                result,
                Err(SessionError::HeldTooMuch
                    | SessionError::UnknownUnit
                    | SessionError::MaskLength)
            ));
            self.drain();
        }
    }

    fn model_answers(&mut self, sizes: &[u8]) {
        let unread = std::mem::take(&mut self.unread_by_model);
        if let Some(model) = &mut self.model {
            let answers = model.feed(&unread);
            self.feed(Side::Upstream, &answers, sizes);
        }
    }

    fn decide(&mut self, id: UnitId, request: Vec<u8>, refuse: bool) {
        let verdict = match refuse {
            true => Verdict::Refuse(Refusal::new(b"42501", "refused by rule no")),
            false => {
                self.allowed.push_back(request);
                Verdict::Forward
            }
        };
        let result = self.session.handle_decision(id, verdict);
        assert_ne!(result, Err(SessionError::UnknownUnit));
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            assert!(!self.closed, "an output behind Close");
            match output {
                Output::Write { side, bytes } => {
                    assert!(!bytes.is_empty());
                    match side {
                        Side::Upstream => {
                            self.unread_by_model.extend_from_slice(&bytes);
                            self.up.push(bytes);
                            self.check_upstream();
                        }
                        Side::Downstream => {
                            self.down.push(bytes);
                            self.check_downstream();
                        }
                    }
                }
                Output::Decide { id, unit } => {
                    assert!(self.pending.is_none(), "two questions at once");
                    assert!(id.0 > self.last_id);
                    self.last_id = id.0;
                    let request = beginning(&unit);
                    if self.auto {
                        let refuse = contains(&request, b"drop");
                        self.decide(id, request, refuse);
                    } else {
                        self.pending = Some((id, request));
                    }
                }
                Output::Event(event) => check_event(&event),
                Output::Close(reason) => {
                    self.closed = true;
                    self.pending = None;
                    assert_ne!(reason, CloseReason::Failed(SessionError::HeldTooMuch));
                }
            }
        }
        // What was allowed is on its way at once, unless the session ended.
        if !self.session.is_over() && self.up.is_at_rest() {
            assert!(self.allowed.is_empty(), "allowed and not forwarded");
        }
    }

    /// Each message that needs a verdict is the next one allowed, or one of the session's
    /// own that the server must refuse.
    fn check_upstream(&mut self) {
        while let Some(frame) = next(&mut self.up) {
            assert!(frontend::tag::is_known(frame.tag) && frame.tag != b'p');
            if !matches!(frame.tag, b'Q' | b'P' | b'B' | b'E' | b'F') {
                continue;
            }
            let is_next = |allowed: &Vec<u8>| {
                allowed.first() == Some(&frame.tag) && frame.body().starts_with(&allowed[1..])
            };
            if self.allowed.front().is_some_and(is_next) {
                self.allowed.pop_front();
                continue;
            }
            let text = match frame.tag {
                b'Q' => Query::decode(frame.body()).map(|query| query.text),
                b'P' => frontend::Parse::decode(frame.body()).map(|parse| parse.text),
                tag => panic!("{:?} was forwarded unasked", char::from(tag)),
            }
            .expect("a message of the session's own");
            assert!(text.starts_with(b"portcullis_") && contains(text, b" refused: "));
            assert!(text.ends_with(b" session s-1"));
        }
    }

    fn check_downstream(&mut self) {
        while let Some(frame) = next(&mut self.down) {
            let body = frame.body();
            match frame.tag {
                b'd' if self.copy_binary => assert!(!contains(body, SECRET), "in binary COPY"),
                b'd' => {
                    self.copy_tail.extend_from_slice(body);
                    assert!(!contains(&self.copy_tail, SECRET), "in COPY");
                    let keep = self.copy_tail.len().saturating_sub(SECRET.len() - 1);
                    self.copy_tail.drain(..keep);
                }
                b'H' => {
                    self.copy_tail.clear();
                    self.copy_binary = body.first() == Some(&1);
                }
                _ => check_values(&frame),
            }
        }
    }
}

fn next(frames: &mut Frames) -> Option<Frame> {
    match frames
        .next(|_, _| Treatment::Whole)
        .expect("framing that can be read")
    {
        Some(Piece::Frame(frame)) => Some(frame),
        _ => None,
    }
}

/// No value in a message that the agent reads holds the secret. Object ids and lengths that
/// happen to spell it are no values.
fn check_values(frame: &Frame) {
    let hidden = |value: &[u8]| assert!(!contains(value, SECRET), "in {frame:?}");
    match backend::decode(frame.tag, frame.body()) {
        Ok(BackendMessage::DataRow(values)) => values.iter().flatten().for_each(hidden),
        Ok(BackendMessage::RowDescription(row)) => row.fields().for_each(|f| hidden(f.name)),
        Ok(BackendMessage::FunctionCallResponse(value)) => value.into_iter().for_each(hidden),
        Ok(BackendMessage::Notification(note)) => {
            hidden(note.channel);
            hidden(note.payload);
        }
        Ok(BackendMessage::ParameterStatus(status)) => hidden(status.value),
        Ok(BackendMessage::ErrorResponse(report) | BackendMessage::NoticeResponse(report)) => {
            report
                .fields()
                .filter(|(code, _)| !b"SVCPpFLR".contains(code))
                .for_each(|f| hidden(f.1));
        }
        Ok(_) => {}
        Err(_) => hidden(frame.body()),
    }
}

fn check_event(event: &Event) {
    match event {
        Event::Rows { frames, .. } => {
            let mut split = Frames::new();
            split.push(frames.clone());
            while let Some(frame) = next(&mut split) {
                check_values(&frame);
            }
        }
        Event::Notice { frame }
        | Event::Answered {
            outcome: Outcome::Failed { frame, .. },
            ..
        } => {
            let tag = frame.first().copied().unwrap_or(0);
            check_values(&Frame {
                tag,
                raw: frame.clone(),
            });
        }
        Event::Notification {
            payload, channel, ..
        } => {
            assert!(!contains(payload, SECRET) && !contains(channel, SECRET));
        }
        Event::ParameterStatus { value, .. } => assert!(!contains(value, SECRET)),
        _ => {}
    }
}

/// The type byte and the first fields of the message that this unit is.
fn beginning(unit: &Unit) -> Vec<u8> {
    let mut out = BytesMut::new();
    let string = |out: &mut BytesMut, text: &[u8]| {
        out.put_slice(text);
        out.put_u8(0);
    };
    match unit {
        Unit::Query { text } => {
            out.put_u8(b'Q');
            string(&mut out, text);
        }
        Unit::Parse {
            name,
            text,
            parameter_types,
        } => {
            out.put_u8(b'P');
            string(&mut out, name);
            string(&mut out, text);
            out.put_u16(parameter_types.len() as u16);
            parameter_types.iter().for_each(|oid| out.put_u32(*oid));
        }
        Unit::Bind {
            portal,
            statement,
            values,
        } => {
            out.put_u8(b'B');
            string(&mut out, portal);
            string(&mut out, statement);
            if let BindValues::Read(values) = values {
                out.put_slice(values.raw());
            }
        }
        Unit::FunctionCall { oid, arguments } => {
            out.put_u8(b'F');
            out.put_u32(*oid);
            if let BindValues::Read(values) = arguments {
                out.put_slice(values.raw());
            }
        }
        Unit::Execute { portal, max_rows } => {
            out.put_u8(b'E');
            string(&mut out, portal);
            out.put_i32(*max_rows);
        }
        other => panic!("no decision for {other:?}"),
    }
    out.to_vec()
}

fn agent_message(input: &mut Input<'_>, out: &mut BytesMut) {
    let [kind, choice, more] = [(); 3].map(|()| input.byte());
    let text = TEXTS[usize::from(choice & 15)].as_bytes();
    let name = NAMES[usize::from(choice >> 4 & 3)].as_bytes();
    let other = NAMES[usize::from(choice >> 6 & 3)].as_bytes();
    let thing = if more & 1 == 0 {
        Kind::Statement
    } else {
        Kind::Portal
    };
    match kind % 16 {
        0 | 1 => Query { text }.encode(out),
        2 | 3 => frontend::parse(out, name, text, &[25, 0][..usize::from(more & 1)]),
        4 => frontend::bind(out, name, other, &[], &[], &[i16::from(more & 1)]),
        5 => frontend::bind(out, name, other, &[0], &[Some(input.short()), None], &[]),
        6 | 7 => frontend::Execute {
            portal: name,
            max_rows: i32::from(more & 3),
        }
        .encode(out),
        8 => frontend::Describe { kind: thing, name }.encode(out),
        9 => frontend::Close { kind: thing, name }.encode(out),
        10 | 11 => Ok(frontend::sync(out)),
        12 => match more & 3 {
            0 => frontend::function_call(out, u32::from(choice), &[], &[Some(b"x")], 0),
            1 => Ok(frontend::flush(out)),
            2 => frontend::copy_fail(out, b"enough"),
            _ => Ok(frontend::terminate(out)),
        },
        13 | 14 => frontend::copy_data(out, b"row SECRET\n"),
        _ => Ok(frontend::copy_done(out)),
    }
    .expect("a message of the agent");
}

fn server_message(input: &mut Input<'_>, out: &mut BytesMut) {
    let [kind, choice] = [(); 2].map(|()| input.byte());
    let at = input.byte() as usize % (SECRET.len() + 1);
    // The secret, or a part of it; parts of two messages make one.
    let value = match choice & 3 {
        0 => SECRET,
        1 => &SECRET[..at],
        2 => &SECRET[at..],
        _ => input.short(),
    };
    let text: Vec<u8> = value.iter().copied().filter(|byte| *byte != 0).collect();
    let report = |tag| {
        backend::ReportBuilder::bare(tag)
            .field(b'S', b"ERROR")
            .field(b'C', b"22012")
    };
    match kind % 16 {
        0 | 1 => backend::data_row(out, [Some(value), None].into_iter()),
        2 => backend::data_row(
            out,
            [Some(&[b"a".repeat(30), value.to_vec()].concat()[..])].into_iter(),
        ),
        3 => report(b'E')
            .field(b'M', &text)
            .field(b'D', &text)
            .encode(out),
        4 => report(b'N').field(b'M', &text).encode(out),
        5 => backend::notification(out, 7, &text, b"xSECRET"),
        6 => backend::parameter_status(out, b"application_name", &text),
        7 => backend::command_complete(out, b"SELECT 1"),
        8 => Ok(backend::ready_for_query(out, b"ITE"[at % 3])),
        9 => backend::function_call_response(out, Some(value)),
        10 => backend::copy_response(out, b"GHW"[at % 3], choice & 4 != 0, &[0]),
        11 | 12 => frontend::copy_data(out, value),
        13 => Ok(frontend::copy_done(out)),
        14 => Ok(match at % 6 {
            0 => backend::parse_complete(out),
            1 => backend::bind_complete(out),
            2 => backend::close_complete(out),
            3 => backend::no_data(out),
            4 => backend::portal_suspended(out),
            _ => backend::empty_query_response(out),
        }),
        _ => {
            let field = backend::Field {
                name: &text,
                table_oid: 0,
                attribute: 0,
                type_oid: 25,
                type_size: -1,
                type_modifier: -1,
                format: i16::from(choice & 4 != 0),
            };
            backend::row_description(out, &[field])
        }
    }
    .expect("a message of the server");
}
