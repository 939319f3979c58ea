//! A session between an agent's bytes and a model server, drained after every step.

use bytes::Bytes;
use postgres::Refusal;
use postgres::session::{
    CloseReason, Event, Output, Session, SessionConfig, Side, Unit, UnitId, Verdict,
};

use super::model::Model;
use super::toy::Toy;

/// The refusal of the default decider.
pub fn refusal() -> Refusal {
    Refusal::new(b"42501", "refused by rule no-drop")
        .with_detail("session s-1")
        .with_hint("Ask for approval.")
}

pub struct World {
    pub session: Session<Toy>,
    pub model: Model,
    /// What the agent has read.
    pub agent: Vec<u8>,
    /// What the server has read.
    pub upstream: Vec<u8>,
    pub events: Vec<Event>,
    pub units: Vec<(UnitId, Unit)>,
    /// Requests whose text contains this wait for [`World::decide`].
    pub hold: Option<&'static str>,
    pub held: Option<UnitId>,
    pub closed: Option<CloseReason>,
    /// Largest write and count of writes to the agent.
    pub writes: Vec<Bytes>,
}

pub fn config() -> SessionConfig {
    SessionConfig::new("s-1", [7; 16])
}

impl World {
    pub fn new() -> World {
        World::with(config())
    }

    pub fn with(config: SessionConfig) -> World {
        World {
            session: Session::new(config, Toy::default()),
            model: Model::new(),
            agent: Vec::new(),
            upstream: Vec::new(),
            events: Vec::new(),
            units: Vec::new(),
            hold: None,
            held: None,
            closed: None,
            writes: Vec::new(),
        }
    }

    /// Feeds agent bytes and lets everything run.
    pub fn say(&mut self, bytes: &[u8]) {
        let _ = self
            .session
            .handle_input(Side::Downstream, Bytes::copy_from_slice(bytes));
        self.drain();
    }

    /// Feeds the agent's bytes cut into pieces of the given lengths, in turn; 0 counts as 1.
    pub fn say_cut(&mut self, mut bytes: &[u8], cuts: &[usize]) {
        let mut cuts = cuts.iter().cycle();
        while !bytes.is_empty() {
            let length = (*cuts.next().unwrap_or(&1)).clamp(1, bytes.len());
            self.say(&bytes[..length]);
            bytes = &bytes[length..];
        }
    }

    /// Feeds server bytes past the model.
    pub fn server_says(&mut self, bytes: &[u8]) {
        let _ = self
            .session
            .handle_input(Side::Upstream, Bytes::copy_from_slice(bytes));
        self.drain();
    }

    /// Answers the request that is held.
    pub fn decide(&mut self, verdict: Verdict) {
        let id = self.held.take().expect("a request is held");
        self.session.handle_decision(id, verdict).unwrap();
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Write {
                    side: Side::Upstream,
                    bytes,
                } => {
                    assert!(!bytes.is_empty());
                    self.upstream.extend_from_slice(&bytes);
                    if self.model.dead {
                        continue;
                    }
                    let answer = self.model.feed(&bytes);
                    let _ = self
                        .session
                        .handle_input(Side::Upstream, Bytes::from(answer));
                }
                Output::Write {
                    side: Side::Downstream,
                    bytes,
                } => {
                    assert!(!bytes.is_empty());
                    self.agent.extend_from_slice(&bytes);
                    self.writes.push(bytes);
                }
                Output::Decide { id, unit } => {
                    let text = match &unit {
                        Unit::Query { text } | Unit::Parse { text, .. } => text.clone(),
                        Unit::Bind { statement, .. } => statement.clone(),
                        Unit::Execute { portal, .. } => portal.clone(),
                        Unit::FunctionCall { oid, .. } => Bytes::from(format!("oid {oid}")),
                        other => panic!("no decision for {other:?}"),
                    };
                    let text = String::from_utf8(text.to_vec()).unwrap();
                    self.units.push((id, unit));
                    if self.hold.is_some_and(|hold| text.contains(hold)) {
                        self.held = Some(id);
                        continue;
                    }
                    let verdict = if text.contains("drop") || text == "oid 666" {
                        Verdict::Refuse(refusal())
                    } else {
                        Verdict::Forward
                    };
                    let _ = self.session.handle_decision(id, verdict);
                }
                Output::Event(event) => self.events.push(event),
                Output::Close(reason) => {
                    assert!(self.closed.is_none());
                    self.closed = Some(reason);
                }
            }
        }
    }
}

/// What an agent reads that speaks to the model directly.
pub fn direct(model: &mut Model, bytes: &[u8]) -> Vec<u8> {
    model.feed(bytes)
}
