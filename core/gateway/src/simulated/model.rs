//! A small, honest model of a PostgreSQL backend after its login, over a handful
//! of statements. It fails, aborts transactions and skips to Sync as the real one
//! does. The same model, told what the gateway will refuse, says what the agent
//! must see ([`Model::oracle`]).

use bytes::{Bytes, BytesMut};
use postgres::wire::backend::{self, Field, ReportBuilder, Severity};
use postgres::wire::frontend::{self, FrontendMessage, Kind};
use postgres::wire::{Frames, Piece, Treatment};
use std::collections::HashMap;

/// What the target keeps and no agent may see.
pub const SECRET: &str = "vk-9f27Qx81LmTz4RwB6cHd0NeYp35sUo";

/// Where the gateway refuses a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// When its text is read: a denial, or a Query that was not approved.
    AtText(&'static [u8; 5]),
    /// A Query at its text, a prepared statement when it is bound.
    AtBind(&'static [u8; 5]),
}

/// Whether a text is refused, and how.
pub type Oracle = Box<dyn Fn(&str) -> Option<Refusal>>;

/// One backend.
pub struct Model {
    input: Frames,
    /// What it has answered.
    pub out: BytesMut,
    status: u8,
    skipping: bool,
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, (String, usize)>,
    oracle: Option<Oracle>,
    /// A `pg_sleep` runs; the input behind it waits.
    pub sleeping: bool,
    /// The client has said goodbye.
    pub ended: bool,
    /// Texts of Query and Parse that arrived, the gateway's own left out.
    pub seen: Vec<String>,
    /// Binds that arrived.
    pub binds: usize,
    /// Texts that were run.
    pub ran: Vec<String>,
}

type Fault = (&'static [u8; 5], String);

impl Model {
    /// The target's backend.
    pub fn new() -> Model {
        Model {
            input: Frames::new(),
            out: BytesMut::new(),
            status: b'I',
            skipping: false,
            statements: HashMap::new(),
            portals: HashMap::new(),
            oracle: None,
            sleeping: false,
            ended: false,
            seen: Vec::new(),
            binds: 0,
            ran: Vec::new(),
        }
    }

    /// A backend that refuses what the gateway would refuse.
    pub fn oracle(refuses: Oracle) -> Model {
        Model {
            oracle: Some(refuses),
            ..Model::new()
        }
    }

    /// Takes bytes in; answers stand in `out`.
    pub fn feed(&mut self, bytes: Bytes) {
        self.input.push(bytes);
        self.go_on();
    }

    /// The sleep is over, by itself or by a cancel.
    pub fn wake(&mut self, cancelled: bool) {
        self.sleeping = false;
        if cancelled {
            self.error((b"57014", "canceling statement due to user request".into()));
        } else {
            self.complete("SELECT 1");
        }
        self.ready();
        self.go_on();
    }

    fn go_on(&mut self) {
        while !self.sleeping && !self.ended {
            let piece = self.input.next(|_, _| Treatment::Whole);
            let Some(Piece::Frame(frame)) = piece.expect("the client keeps to the framing") else {
                return;
            };
            let message = frontend::decode(frame.tag, frame.body());
            self.on(message.expect("the client keeps to the protocol"));
        }
    }

    fn on(&mut self, message: FrontendMessage<'_>) {
        if self.skipping && !matches!(message, FrontendMessage::Sync | FrontendMessage::Terminate) {
            return;
        }
        match message {
            FrontendMessage::Query(query) => {
                self.statements.remove(&Vec::new());
                let text = text_of(query.text);
                self.simple(&text);
            }
            FrontendMessage::Sync => {
                self.skipping = false;
                self.ready();
            }
            FrontendMessage::Terminate => self.ended = true,
            FrontendMessage::Flush => {}
            other => {
                if let Err(fault) = self.extended(other) {
                    self.error(fault);
                    self.skipping = true;
                }
            }
        }
    }

    fn simple(&mut self, text: &str) {
        let result = self
            .read(text, true)
            .and_then(|()| self.in_transaction(text))
            .and_then(|()| {
                if text.starts_with("select") && !text.contains("1/0") && !text.contains("sleep") {
                    self.row_description();
                }
                self.run(text, 0, usize::MAX).map(|_| ())
            });
        if let Err(fault) = result {
            self.error(fault);
        }
        if !self.sleeping {
            self.ready();
        }
    }

    fn extended(&mut self, message: FrontendMessage<'_>) -> Result<(), Fault> {
        match message {
            FrontendMessage::Parse(parse) => {
                if parse.name.is_empty() {
                    self.statements.remove(&Vec::new());
                }
                let text = text_of(parse.text);
                self.read(&text, false)?;
                self.in_transaction(&text)?;
                if self.statements.contains_key(parse.name) {
                    return Err((b"42P05", "statement exists".into()));
                }
                self.statements.insert(parse.name.to_vec(), text);
                backend::parse_complete(&mut self.out);
            }
            FrontendMessage::Bind(bind) => {
                self.binds += 1;
                let text = self.statements.get(bind.statement).cloned();
                let text = text.ok_or((b"26000", "no such statement".to_string()))?;
                if let Some(Refusal::AtBind(code)) = self.refusal(&text) {
                    return Err((code, "refused".into()));
                }
                self.in_transaction(&text)?;
                self.portals.insert(bind.portal.to_vec(), (text, 0));
                backend::bind_complete(&mut self.out);
            }
            FrontendMessage::Describe(describe) => {
                let text = match describe.kind {
                    Kind::Statement => self.statements.get(describe.name),
                    Kind::Portal => self.portals.get(describe.name).map(|(text, _)| text),
                };
                let text = text.ok_or((b"34000", "no such name".to_string()))?;
                let rows = text.starts_with("select");
                if describe.kind == Kind::Statement {
                    backend::parameter_description(&mut self.out, &[]).expect("fits");
                }
                if rows {
                    self.row_description();
                } else {
                    backend::no_data(&mut self.out);
                }
            }
            FrontendMessage::Execute(execute) => {
                let portal = self.portals.get(execute.portal).cloned();
                let (text, sent) = portal.ok_or((b"34000", "no such portal".to_string()))?;
                self.in_transaction(&text)?;
                let max = match usize::try_from(execute.max_rows) {
                    Ok(0) | Err(_) => usize::MAX,
                    Ok(max) => max,
                };
                if !self.run(&text, sent, max)? {
                    backend::portal_suspended(&mut self.out);
                    self.portals
                        .insert(execute.portal.to_vec(), (text, sent + max));
                }
            }
            FrontendMessage::Close(close) => {
                match close.kind {
                    Kind::Statement => drop(self.statements.remove(close.name)),
                    Kind::Portal => drop(self.portals.remove(close.name)),
                }
                backend::close_complete(&mut self.out);
            }
            other => panic!("the script sends no such message: {other:?}"),
        }
        Ok(())
    }

    fn refusal(&self, text: &str) -> Option<Refusal> {
        self.oracle.as_ref().and_then(|refuses| refuses(text))
    }

    /// The parser: a word of the gateway's is a syntax error that names it.
    fn read(&mut self, text: &str, simple: bool) -> Result<(), Fault> {
        match self.refusal(text) {
            Some(Refusal::AtText(code)) => return Err((code, "refused".into())),
            Some(Refusal::AtBind(code)) if simple => return Err((code, "refused".into())),
            _ => {}
        }
        let word = text.split(' ').next().unwrap_or_default();
        if word.starts_with("portcullis_") {
            return Err((b"42601", format!("syntax error at or near \"{word}\"")));
        }
        self.seen.push(text.to_string());
        Ok(())
    }

    fn in_transaction(&self, text: &str) -> Result<(), Fault> {
        if self.status == b'E' && without_comment(text) != "rollback" {
            return Err((b"25P02", "current transaction is aborted".into()));
        }
        Ok(())
    }

    /// Runs a text; false where rows are left behind the limit.
    fn run(&mut self, text: &str, from: usize, max: usize) -> Result<bool, Fault> {
        self.ran.push(text.to_string());
        let text = without_comment(text);
        if text.contains("1/0") {
            return Err((b"22012", format!("division by zero near {SECRET}")));
        }
        if text.contains("pg_sleep") {
            self.sleeping = true;
            return Ok(true);
        }
        if let Some(count) = text.strip_prefix("select note from vault limit ") {
            let count: usize = count.parse().expect("the script writes numbers");
            let left = count.saturating_sub(from);
            for i in from..from + left.min(max) {
                let number = i.to_string();
                let note = format!("note {i}: {SECRET} {}", "x".repeat(i % 37));
                let values = [Some(number.as_bytes()), Some(note.as_bytes()), None];
                backend::data_row(&mut self.out, values.into_iter()).expect("fits");
            }
            if left > max {
                return Ok(false);
            }
            self.complete(&format!("SELECT {}", left.min(max)));
            return Ok(true);
        }
        match text.split(' ').next().unwrap_or_default() {
            "insert" => self.complete("INSERT 0 1"),
            "update" => self.complete("UPDATE 7"),
            "begin" => {
                self.status = b'T';
                self.complete("BEGIN");
            }
            "commit" | "rollback" => {
                self.status = b'I';
                self.portals.clear();
                let tag = if text == "commit" {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                };
                self.complete(tag);
            }
            _ => return Err((b"42601", format!("the model does not know {text}"))),
        }
        Ok(true)
    }

    fn row_description(&mut self) {
        let field = |name: &'static [u8]| Field {
            name,
            table_oid: 16_384,
            attribute: 1,
            type_oid: 25,
            type_size: -1,
            type_modifier: -1,
            format: 0,
        };
        let fields = [field(b"id"), field(b"note"), field(b"gone")];
        backend::row_description(&mut self.out, &fields).expect("fits");
    }

    fn complete(&mut self, tag: &str) {
        backend::command_complete(&mut self.out, tag.as_bytes()).expect("fits");
    }

    fn error(&mut self, (code, message): Fault) {
        let report = ReportBuilder::new(Severity::Error, code, message.as_bytes());
        report.encode(&mut self.out).expect("fits");
        if self.status == b'T' {
            self.status = b'E';
        }
        self.portals.clear();
    }

    fn ready(&mut self) {
        if self.status == b'I' {
            self.portals.clear();
        }
        backend::ready_for_query(&mut self.out, self.status);
    }
}

fn without_comment(text: &str) -> &str {
    text.split(" --").next().unwrap_or(text)
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the script is ASCII")
}
