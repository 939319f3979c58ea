//! A small, honest model of a PostgreSQL server after login: it answers messages in order
//! and fails, skips and copies as the real one does. Its "SQL" is a handful of words:
//!
//! `select N [TEXT]` N rows of TEXT; `insert`; `begin`, `commit`, `rollback`; `fail`;
//! `syntax`; `copy in`, `copy in bad` (fails at the first data), `copy in early` (fails
//! before it reads any); `copy out N [TEXT]`; `copy out raw TEXT` (no newline at the end);
//! `notice TEXT`; `notify TEXT`; `set NAME VALUE`; an empty text. Statements are joined by `;`.
//! A text that starts with `portcullis_` is a syntax error that names its first word, and so
//! is one that starts with `drop` in a model made with [`Model::refusing`], in the words
//! given there.

use std::collections::BTreeMap;

use bytes::BytesMut;
use postgres::wire::backend::{self, Field, ReportBuilder, Severity};
use postgres::wire::frontend::{self, FrontendMessage, Kind};
use postgres::wire::{Frames, Piece, Treatment, encode};

pub struct Model {
    input: Frames,
    pub out: BytesMut,
    status: u8,
    skipping: bool,
    statements: BTreeMap<Vec<u8>, String>,
    portals: BTreeMap<Vec<u8>, Portal>,
    copy: Option<Copy>,
    pub dead: bool,
    refusal: Option<Vec<u8>>,
    /// Texts that were run, in order; what must never be among them is not.
    pub ran: Vec<String>,
    /// Bytes of CopyData taken in.
    pub copied: Vec<u8>,
    /// All statements' texts that were seen, also those that failed.
    pub seen: Vec<String>,
}

struct Portal {
    text: String,
    sent: usize,
    binary: bool,
}

struct Copy {
    extended: bool,
    bad: bool,
    /// Statements of the same Query still to come.
    rest: Vec<String>,
}

enum Fault {
    Error(&'static [u8; 5], String),
    Raw(Vec<u8>),
}

enum Flow {
    Done,
    Suspended,
    CopyIn,
}

impl Model {
    pub fn new() -> Model {
        Model {
            input: Frames::new(),
            out: BytesMut::new(),
            status: b'I',
            skipping: false,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            copy: None,
            dead: false,
            refusal: None,
            ran: Vec::new(),
            copied: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// A server that refuses `drop` by itself, with this ErrorResponse.
    pub fn refusing(error_response: Vec<u8>) -> Model {
        Model {
            refusal: Some(error_response),
            ..Model::new()
        }
    }

    /// Takes bytes of the client; returns what the server sends.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.push(bytes::Bytes::copy_from_slice(bytes));
        while !self.dead {
            let piece = self
                .input
                .next(|_, _| Treatment::Whole)
                .expect("the client keeps to the framing");
            let Some(Piece::Frame(frame)) = piece else {
                break;
            };
            let message = frontend::decode(frame.tag, frame.body())
                .expect("the client keeps to the protocol");
            self.on(frame.tag, message);
        }
        self.out.split().to_vec()
    }

    fn on(&mut self, tag: u8, message: FrontendMessage<'_>) {
        if self.copy.is_some() {
            return self.on_copy(tag, message);
        }
        if self.skipping {
            match message {
                FrontendMessage::Sync => self.skipping = false,
                FrontendMessage::Terminate => {
                    self.dead = true;
                    return;
                }
                _ => return,
            }
        }
        match message {
            FrontendMessage::Query(query) => {
                let text = text_of(query.text);
                self.statements.remove(&Vec::new());
                match self.raw_parse(&text) {
                    Ok(()) if text.is_empty() => self.run_simple(vec![text]),
                    Ok(()) => {
                        let parts = text
                            .split(';')
                            .map(str::trim)
                            .filter(|part| !part.is_empty());
                        self.run_simple(parts.map(str::to_owned).collect());
                    }
                    Err(fault) => self.fail_simple(fault),
                }
            }
            FrontendMessage::FunctionCall(call) => {
                if self.status == b'E' {
                    self.fail_simple(aborted());
                } else if call.oid == 0 {
                    self.fail_simple(Fault::Error(b"42883", "no such function".into()));
                } else {
                    let value = format!("result {}", call.oid);
                    backend::function_call_response(&mut self.out, Some(value.as_bytes())).unwrap();
                    self.ready();
                }
            }
            FrontendMessage::Sync => {
                if self.status == b'I' {
                    self.portals.clear();
                }
                self.ready();
            }
            FrontendMessage::Terminate => self.dead = true,
            FrontendMessage::Flush
            | FrontendMessage::CopyData(_)
            | FrontendMessage::CopyDone
            | FrontendMessage::CopyFail(_) => {}
            FrontendMessage::Password(_) => panic!("a password after login"),
            message => {
                if let Err(fault) = self.on_extended(message) {
                    self.error(fault);
                    self.skipping = true;
                }
            }
        }
    }

    fn on_extended(&mut self, message: FrontendMessage<'_>) -> Result<(), Fault> {
        match message {
            FrontendMessage::Parse(parse) => {
                let text = text_of(parse.text);
                if parse.name.is_empty() {
                    self.statements.remove(&Vec::new());
                }
                self.raw_parse(&text)?;
                if text.contains(';') {
                    return Err(Fault::Error(b"42601", "more than one command".into()));
                }
                self.aborted_unless(&text)?;
                if self.statements.contains_key(parse.name) {
                    return Err(Fault::Error(b"42P05", "statement exists".into()));
                }
                self.statements.insert(parse.name.to_vec(), text);
                backend::parse_complete(&mut self.out);
            }
            FrontendMessage::Bind(bind) => {
                let text = self.statement(bind.statement)?;
                self.aborted_unless(&text)?;
                if !bind.portal.is_empty() && self.portals.contains_key(bind.portal) {
                    return Err(Fault::Error(b"42P03", "portal exists".into()));
                }
                let binary = bind.result_formats.of(0) == Some(1);
                self.portals.insert(
                    bind.portal.to_vec(),
                    Portal {
                        text,
                        sent: 0,
                        binary,
                    },
                );
                backend::bind_complete(&mut self.out);
            }
            FrontendMessage::Describe(describe) => match describe.kind {
                Kind::Statement => {
                    let text = self.statement(describe.name)?;
                    backend::parameter_description(&mut self.out, &[]).unwrap();
                    self.row_description(&text, false);
                }
                Kind::Portal => {
                    let portal = self.portals.get(describe.name).ok_or_else(no_portal)?;
                    let (text, binary) = (portal.text.clone(), portal.binary);
                    self.row_description(&text, binary);
                }
            },
            FrontendMessage::Execute(execute) => {
                let portal = self.portals.get(execute.portal).ok_or_else(no_portal)?;
                let (text, sent) = (portal.text.clone(), portal.sent);
                self.aborted_unless(&text)?;
                let max = usize::try_from(execute.max_rows)
                    .ok()
                    .filter(|max| *max > 0)
                    .unwrap_or(usize::MAX);
                match self.run(&text, true, sent, max)? {
                    Flow::Done => {}
                    Flow::Suspended => {
                        if let Some(portal) = self.portals.get_mut(execute.portal) {
                            portal.sent += max;
                        }
                        backend::portal_suspended(&mut self.out);
                    }
                    Flow::CopyIn => {
                        self.copy = Some(Copy {
                            extended: true,
                            bad: text == "copy in bad",
                            rest: Vec::new(),
                        });
                    }
                }
            }
            FrontendMessage::Close(close) => {
                match close.kind {
                    Kind::Statement => drop(self.statements.remove(close.name)),
                    Kind::Portal => drop(self.portals.remove(close.name)),
                }
                backend::close_complete(&mut self.out);
            }
            other => panic!("not extended: {other:?}"),
        }
        Ok(())
    }

    /// Messages while data is copied in.
    fn on_copy(&mut self, tag: u8, message: FrontendMessage<'_>) {
        let Some(copy) = &self.copy else { return };
        match message {
            FrontendMessage::CopyData(_) if copy.bad => {
                self.fail_copy(Fault::Error(b"22P02", "bad data".into()));
            }
            FrontendMessage::CopyData(data) => self.copied.extend_from_slice(data),
            FrontendMessage::Sync | FrontendMessage::Flush => {}
            FrontendMessage::CopyDone => {
                let Some(copy) = self.copy.take() else { return };
                backend::command_complete(&mut self.out, b"COPY 1").unwrap();
                if !copy.extended {
                    self.run_simple(copy.rest);
                }
            }
            FrontendMessage::CopyFail(reason) => {
                let reason = text_of(reason);
                self.fail_copy(Fault::Error(b"57014", format!("COPY failed: {reason}")));
            }
            _ => {
                self.error(Fault::Error(
                    b"08P01",
                    format!("unexpected message type {tag:#04x} during COPY"),
                ));
                ReportBuilder::new(
                    Severity::Fatal,
                    b"08P01",
                    b"protocol synchronization was lost",
                )
                .encode(&mut self.out)
                .unwrap();
                self.dead = true;
            }
        }
    }

    fn fail_copy(&mut self, fault: Fault) {
        let Some(copy) = self.copy.take() else { return };
        if copy.extended {
            self.error(fault);
            self.skipping = true;
        } else {
            self.fail_simple(fault);
        }
    }

    fn run_simple(&mut self, statements: Vec<String>) {
        let mut rest = statements.into_iter();
        while let Some(text) = rest.next() {
            let result = self.aborted_unless(&text).and_then(|()| {
                if text.starts_with("select") {
                    self.row_description(&text, false);
                }
                self.run(&text, false, 0, usize::MAX)
            });
            match result {
                Ok(Flow::Done | Flow::Suspended) => {}
                Ok(Flow::CopyIn) => {
                    self.copy = Some(Copy {
                        extended: false,
                        bad: text == "copy in bad",
                        rest: rest.collect(),
                    });
                    return;
                }
                Err(fault) => return self.fail_simple(fault),
            }
        }
        self.ready();
    }

    fn fail_simple(&mut self, fault: Fault) {
        self.error(fault);
        self.ready();
    }

    fn raw_parse(&mut self, text: &str) -> Result<(), Fault> {
        self.seen.push(text.to_owned());
        let word = text.split_whitespace().next().unwrap_or_default();
        match &self.refusal {
            Some(refusal) if word == "drop" => return Err(Fault::Raw(refusal.clone())),
            _ => {}
        }
        if word.starts_with("portcullis_") || word == "syntax" {
            return Err(Fault::Error(
                b"42601",
                format!("syntax error at or near \"{word}\""),
            ));
        }
        Ok(())
    }

    fn aborted_unless(&self, text: &str) -> Result<(), Fault> {
        if self.status == b'E' && !matches!(text, "rollback" | "commit" | "") {
            Err(aborted())
        } else {
            Ok(())
        }
    }

    fn statement(&self, name: &[u8]) -> Result<String, Fault> {
        self.statements
            .get(name)
            .cloned()
            .ok_or_else(|| Fault::Error(b"26000", "no such statement".into()))
    }

    fn row_description(&mut self, text: &str, binary: bool) {
        if !text.starts_with("select") {
            return backend::no_data(&mut self.out);
        }
        let name = if text.contains("alias") {
            &b"SECRET"[..]
        } else {
            b"column"
        };
        let field = Field {
            name,
            table_oid: 16_384,
            attribute: 1,
            type_oid: 25,
            type_size: -1,
            type_modifier: -1,
            format: i16::from(binary),
        };
        backend::row_description(&mut self.out, &[field, field]).unwrap();
    }

    fn run(&mut self, text: &str, extended: bool, from: usize, max: usize) -> Result<Flow, Fault> {
        self.ran.push(text.to_owned());
        let mut words = text.splitn(3, ' ');
        let complete =
            |out: &mut BytesMut, tag: &str| backend::command_complete(out, tag.as_bytes()).unwrap();
        match (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
            words.next(),
        ) {
            ("", "", None) => backend::empty_query_response(&mut self.out),
            ("select", count, value) => {
                let count: usize = count
                    .parse()
                    .map_err(|_| Fault::Error(b"42703", "no column".into()))?;
                let left = count.saturating_sub(from);
                for _ in 0..left.min(max) {
                    let values = [value.map(str::as_bytes), None];
                    backend::data_row(&mut self.out, values.into_iter()).unwrap();
                }
                if left > max {
                    return Ok(Flow::Suspended);
                }
                complete(&mut self.out, &format!("SELECT {}", left.min(max)));
            }
            ("insert", ..) => complete(&mut self.out, "INSERT 0 1"),
            ("begin", ..) => {
                self.status = b'T';
                complete(&mut self.out, "BEGIN");
            }
            ("commit" | "rollback", ..) => {
                self.status = b'I';
                self.portals.clear();
                complete(&mut self.out, "ROLLBACK");
            }
            ("copy", "in", early) => {
                encode_copy(&mut self.out, b'G');
                if early == Some("early") {
                    return Err(Fault::Error(b"P0001", "a trigger fails".into()));
                }
                return Ok(Flow::CopyIn);
            }
            ("copy", "out", what) => {
                let (count, value) = what
                    .unwrap_or("1 row")
                    .split_once(' ')
                    .unwrap_or(("1", "row"));
                encode_copy(&mut self.out, b'H');
                if count == "raw" {
                    for piece in value.split('|') {
                        frontend::copy_data(&mut self.out, piece.replace("\\n", "\n").as_bytes())
                            .unwrap();
                    }
                } else {
                    for _ in 0..count.parse::<usize>().unwrap_or(1) {
                        frontend::copy_data(&mut self.out, format!("{value}\n").as_bytes())
                            .unwrap();
                    }
                }
                frontend::copy_done(&mut self.out);
                complete(&mut self.out, "COPY 1");
            }
            ("notice", text, _) => {
                ReportBuilder::new(Severity::Notice, b"00000", text.as_bytes())
                    .encode(&mut self.out)
                    .unwrap();
                complete(&mut self.out, "DO");
            }
            ("notify", text, _) => {
                backend::notification(&mut self.out, 4711, b"channel", text.as_bytes()).unwrap();
                complete(&mut self.out, "NOTIFY");
            }
            ("set", name, value) => {
                let value = value.unwrap_or_default();
                backend::parameter_status(&mut self.out, name.as_bytes(), value.as_bytes())
                    .unwrap();
                complete(&mut self.out, "SET");
            }
            ("fail", value, _) => {
                let message = format!("it fails: {value}");
                return Err(Fault::Error(b"22012", message));
            }
            _ => complete(&mut self.out, "DO"),
        }
        let _ = extended;
        Ok(Flow::Done)
    }

    fn error(&mut self, fault: Fault) {
        match fault {
            Fault::Error(sqlstate, message) => {
                ReportBuilder::new(Severity::Error, sqlstate, message.as_bytes())
                    .field(b'W', message.as_bytes())
                    .field(b'R', b"routine")
                    .encode(&mut self.out)
                    .unwrap()
            }
            Fault::Raw(bytes) => self.out.extend_from_slice(&bytes),
        }
        if self.status == b'T' {
            self.status = b'E';
        }
        self.portals.clear();
    }

    fn ready(&mut self) {
        backend::ready_for_query(&mut self.out, self.status);
    }
}

fn encode_copy(out: &mut BytesMut, tag: u8) {
    backend::copy_response(out, tag, false, &[0]).unwrap();
    let _ = encode::put_count;
}

fn aborted() -> Fault {
    Fault::Error(b"25P02", "current transaction is aborted".into())
}

fn no_portal() -> Fault {
    Fault::Error(b"34000", "no such portal".into())
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
