//! The session machine: everything after login, both directions.

mod config;
mod content;
mod event;
mod unit;

pub use config::{HELD_SLACK_BYTES, PENDING_MIN, SessionConfig};
pub use content::{Content, Fill};
pub use event::{CloseReason, CopyDirection, Event, Outcome, Output, SessionError, Side};
pub use unit::{BindValues, ReadValues, Unit, UnitId, Verdict};

use bytes::Bytes;

/// One session after login.
#[derive(Debug)]
pub struct Session<C: Content> {
    config: SessionConfig,
    content: C,
}

impl<C: Content> Session<C> {
    /// A session whose login has just ended with ReadyForQuery.
    pub fn new(config: SessionConfig, content: C) -> Session<C> {
        Session { config, content }
    }
    /// Feeds bytes that came from `side`.
    pub fn handle_input(&mut self, _side: Side, _bytes: Bytes) -> Result<(), SessionError> {
        Ok(())
    }
    /// Whether bytes of `side` are wanted now.
    #[must_use]
    pub fn wants_input(&self, _side: Side) -> bool {
        true
    }
    /// Answers a [`Output::Decide`].
    pub fn handle_decision(&mut self, _id: UnitId, _verdict: Verdict) -> Result<(), SessionError> {
        Ok(())
    }
    /// The connection of `side` ended.
    pub fn handle_eof(&mut self, _side: Side) {}
    /// The next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
    /// The server's transaction status.
    #[must_use]
    pub fn transaction_status(&self) -> u8 {
        self.config.transaction_status
    }
    /// True when nothing is outstanding.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        true
    }
    /// The content's implementer.
    pub fn content_mut(&mut self) -> &mut C {
        &mut self.content
    }
}
