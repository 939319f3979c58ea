//! Parsing off the shard: a text with what is needed to read it, and what was
//! found.

use super::SessionFacts;
use super::text::judge;
use crate::cache::Verdict;
use crate::compile::RoleRef;
use crate::spec::SqlLimits;
use crate::sql::{FactsError, SqlFacts, parsed, scan};
use bytes::Bytes;
use std::sync::Arc;

/// Estimated nesting up to which a text is parsed on the caller's stack: the
/// parser takes up to 200 KB a level, and a shard's thread has 2 MB.
pub(super) const SHALLOW: usize = 6;
/// Stack of a parsing thread: a base, and so much for each estimated level.
const STACK_BASE_BYTES: usize = 4 << 20;
const STACK_LEVEL_BYTES: usize = 256 << 10;

/// A text to be parsed off the shard. `Send`.
#[derive(Debug)]
pub struct ParseJob {
    pub(super) unit: u64,
    pub(super) text: Bytes,
    /// The text as the parser shall read it, where that is not the text.
    pub(super) readable: Option<String>,
    pub(super) role: RoleRef,
    pub(super) session: Arc<SessionFacts>,
    pub(super) search_path_changed: bool,
    /// Under which policy and state the rules are asked.
    pub(super) era: u64,
}

/// What a [`ParseJob`] found. `Send`.
#[derive(Debug)]
pub struct ParseDone {
    pub(super) unit: u64,
    pub(super) era: u64,
    pub(super) result: Result<Arc<Verdict>, FactsError>,
}

impl ParseJob {
    /// The unit that waits for it.
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// Scans, parses and asks the rules. Takes up to some hundred milliseconds and some
    /// hundred megabytes at the default caps. Deep texts get a thread of their
    /// own with a stack to fit.
    pub fn run(self) -> ParseDone {
        let limits = &self.role.limits;
        let facts = match (&self.readable, std::str::from_utf8(&self.text)) {
            (Some(text), _) => draw(text, limits),
            (None, Ok(text)) => draw(text, limits),
            (None, Err(_)) => Err(FactsError::NotText),
        };
        let result = facts.map(|facts| {
            judge(
                &self.role,
                &self.session,
                self.search_path_changed,
                Arc::new(facts),
                &self.text,
            )
        });
        ParseDone {
            unit: self.unit,
            era: self.era,
            result,
        }
    }
}

/// Scans and parses with as much stack as the text may need.
pub(crate) fn draw(text: &str, limits: &SqlLimits) -> Result<SqlFacts, FactsError> {
    let seen = scan(text.as_bytes(), limits)?;
    if seen.depth <= SHALLOW {
        return parsed(text, &seen);
    }
    let stack = STACK_BASE_BYTES + seen.depth * STACK_LEVEL_BYTES;
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("portcullis-parse".into())
            .stack_size(stack)
            .spawn_scoped(scope, || parsed(text, &seen))
            .map_err(|_| FactsError::Unparsable)
            .and_then(|thread| thread.join().unwrap_or(Err(FactsError::Unparsable)))
    })
}
