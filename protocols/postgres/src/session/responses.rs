//! What each forwarded frontend message will be answered by: the response queue.
//!
//! Every message that went to the server and has an answer stands here, in order, with
//! its owner. The front entry says which backend messages may come now; anything else
//! means that the place in the server's stream is lost.
//!
//! ```text
//!  Query         Start ─T─► Rows(D)* ─C─► Between ─┬─Z─► next        E at any point but
//!                Start ─G─► CopyIn ─(c|f sent)─► CopyInEnded ─C─┘    Failed: ─► Failed ─Z─►
//!                Start ─H─► CopyOut(d)* ─c─► CopyOutEnded ─C─► Between
//!                Start ─C|I─► Between ─T|G|H|C─► … (next statement)
//!  FunctionCall  Start ─V─► Between ─Z─►          E ─► Failed ─Z─►
//!  Sync          Start ─Z─►                       E ─► Failed ─Z─►
//!  Parse 1 │ Bind 2 │ Close 3 │ Describe [t] T|n │ Execute D* C|I|s, or COPY then C
//!                E at any of these: it is popped, and all behind it up to the next Sync
//!                are discarded, as the server discards them (`skipping` while no Sync
//!                has been sent yet)
//! ```
//!
//! **COPY IN.** A server that copies in ignores Sync and Flush until CopyDone or CopyFail.
//! So when CopyInResponse comes, Syncs that were already sent are taken out of the queue,
//! up to the agent's CopyDone or CopyFail, which stands in the queue as a marker for this
//! very reason. If the COPY then fails, it cannot be told whether the server met those
//! Syncs before it failed (ignored) or after (answered): `ready_spare` allows that many
//! ReadyForQuery more than are due, until the server's next answer of another kind.

use std::collections::VecDeque;

use super::mask::Format;
use crate::wire::backend::tag;

/// Kind of an outstanding message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Query,
    Parse,
    Bind,
    DescribeStatement,
    DescribePortal,
    Execute,
    Close,
    Sync,
    FunctionCall,
    /// CopyDone or CopyFail: has no answer of its own; `id` counts the bytes copied.
    CopyEnd,
}

/// One outstanding message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) id: u64,
    pub(super) kind: Kind,
    /// True for a message of ours that stands in place of a refused one.
    pub(super) ours: bool,
    /// Format of the rows (Execute) or of the result (FunctionCall).
    pub(super) format: Format,
}

// A pipeline may have 100 000 of them before its Sync.
const _: () = assert!(size_of::<Pending>() <= 16);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Start,
    Between,
    Rows,
    Described,
    CopyIn,
    CopyInEnded { bytes: u64 },
    CopyOut,
    CopyOutEnded,
    Failed,
}

/// What became of a message that was just sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It stands in the queue.
    Queued,
    /// The server ignores it, without an answer.
    Ignored,
    /// The server discards it up to the next Sync.
    Skipped,
}

/// What a backend message means for the front entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It goes on.
    Going,
    /// A statement, or a whole message of the extended protocol, is complete.
    Completed,
    /// Execute stopped at its row limit.
    Suspended,
}

/// A COPY in progress at the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copying {
    /// To the server; bytes are known once the agent has ended it.
    In { bytes: Option<u64> },
    /// To the agent.
    Out,
}

/// The message does not answer what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unexpected;

#[derive(Debug)]
pub(super) struct Responses {
    queue: VecDeque<Pending>,
    progress: Progress,
    skipping: bool,
    ready_spare: u32,
    fatal: bool,
}

impl Responses {
    pub(super) fn new() -> Responses {
        Responses {
            queue: VecDeque::new(),
            progress: Progress::Start,
            skipping: false,
            ready_spare: 0,
            fatal: false,
        }
    }

    /// Messages that wait for an answer.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// True while the server discards what comes, up to a Sync not yet sent.
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// True once a FATAL or PANIC came: only the end of the connection may follow.
    pub(super) fn is_fatal(&self) -> bool {
        self.fatal
    }

    pub(super) fn front(&self) -> Option<Pending> {
        self.queue.front().copied()
    }

    pub(super) fn copying(&self) -> Option<Copying> {
        match self.progress {
            Progress::CopyIn => Some(Copying::In { bytes: None }),
            Progress::CopyInEnded { bytes } => Some(Copying::In { bytes: Some(bytes) }),
            Progress::CopyOut | Progress::CopyOutEnded => Some(Copying::Out),
            _ => None,
        }
    }

    /// A message went to the server.
    pub(super) fn sent(&mut self, pending: Pending) -> Sent {
        if self.skipping {
            return match pending.kind {
                Kind::Sync => {
                    self.skipping = false;
                    self.queue.push_back(pending);
                    Sent::Queued
                }
                Kind::CopyEnd => Sent::Ignored,
                _ => Sent::Skipped,
            };
        }
        let copying_in = self.progress == Progress::CopyIn && self.queue.len() == 1;
        match pending.kind {
            Kind::Sync if copying_in => {
                self.ready_spare = self.ready_spare.saturating_add(1);
                Sent::Ignored
            }
            Kind::CopyEnd if copying_in => {
                self.progress = Progress::CopyInEnded { bytes: pending.id };
                Sent::Ignored
            }
            Kind::CopyEnd if self.queue.is_empty() => Sent::Ignored,
            _ => {
                self.queue.push_back(pending);
                Sent::Queued
            }
        }
    }

    /// Any backend message but ReadyForQuery, ErrorResponse and the asynchronous ones.
    pub(super) fn receive(&mut self, message: u8) -> Result<Answer, Unexpected> {
        use Progress as P;
        let front = self
            .front()
            .filter(|front| !front.ours && !self.fatal)
            .ok_or(Unexpected)?;
        let (progress, answer) = match (front.kind, self.progress, message) {
            (Kind::Query, P::Start | P::Between | P::Rows, tag::ROW_DESCRIPTION) => {
                (P::Rows, Answer::Going)
            }
            (Kind::Query, P::Rows, tag::DATA_ROW) => (P::Rows, Answer::Going),
            (Kind::Execute, P::Start | P::Rows, tag::DATA_ROW) => (P::Rows, Answer::Going),
            (
                Kind::Query,
                P::Start | P::Between | P::Rows | P::CopyInEnded { .. } | P::CopyOutEnded,
                tag::COMMAND_COMPLETE,
            ) => (P::Between, Answer::Completed),
            (Kind::Query, P::Start, tag::EMPTY_QUERY_RESPONSE) => (P::Between, Answer::Completed),
            (Kind::Query, P::Start | P::Between, tag::COPY_IN_RESPONSE)
            | (Kind::Execute, P::Start, tag::COPY_IN_RESPONSE) => {
                self.progress = P::CopyIn;
                self.drop_ignored_by_copy();
                return Ok(Answer::Going);
            }
            (Kind::Query, P::Start | P::Between, tag::COPY_OUT_RESPONSE)
            | (Kind::Execute, P::Start, tag::COPY_OUT_RESPONSE)
            | (_, P::CopyOut, tag::COPY_DATA) => (P::CopyOut, Answer::Going),
            (_, P::CopyOut, tag::COPY_DONE) => (P::CopyOutEnded, Answer::Going),
            (Kind::FunctionCall, P::Start, tag::FUNCTION_CALL_RESPONSE) => {
                (P::Between, Answer::Completed)
            }
            (Kind::DescribeStatement, P::Start, tag::PARAMETER_DESCRIPTION) => {
                (P::Described, Answer::Going)
            }
            (Kind::Parse, P::Start, tag::PARSE_COMPLETE)
            | (Kind::Bind, P::Start, tag::BIND_COMPLETE)
            | (Kind::Close, P::Start, tag::CLOSE_COMPLETE)
            | (Kind::DescribeStatement, P::Described, tag::ROW_DESCRIPTION | tag::NO_DATA)
            | (Kind::DescribePortal, P::Start, tag::ROW_DESCRIPTION | tag::NO_DATA)
            | (
                Kind::Execute,
                P::Start | P::Rows | P::CopyInEnded { .. } | P::CopyOutEnded,
                tag::COMMAND_COMPLETE,
            )
            | (Kind::Execute, P::Start, tag::EMPTY_QUERY_RESPONSE) => {
                self.pop();
                (self.progress, Answer::Completed)
            }
            (Kind::Execute, P::Start | P::Rows, tag::PORTAL_SUSPENDED) => {
                self.pop();
                (self.progress, Answer::Suspended)
            }
            _ => return Err(Unexpected),
        };
        self.progress = progress;
        self.ready_spare = 0;
        Ok(answer)
    }

    /// ReadyForQuery.
    pub(super) fn ready(&mut self) -> Result<(), Unexpected> {
        if self.fatal {
            return Err(Unexpected);
        }
        let due = match (self.front().map(|front| front.kind), self.progress) {
            (Some(Kind::Query | Kind::FunctionCall), Progress::Between | Progress::Failed)
            | (Some(Kind::Sync), Progress::Start | Progress::Failed) => true,
            _ if self.ready_spare > 0 => false,
            _ => return Err(Unexpected),
        };
        if due {
            self.pop();
        } else {
            self.ready_spare = self.ready_spare.saturating_sub(1);
            self.skipping = false;
        }
        Ok(())
    }

    /// ErrorResponse. Returns the entry that it answers, and whether the server now
    /// discards messages: then [`Responses::skip`] must follow.
    pub(super) fn error(&mut self, fatal: bool) -> Result<(Option<Pending>, bool), Unexpected> {
        if self.fatal {
            return Err(Unexpected);
        }
        let front = self.front();
        if fatal {
            self.fatal = true;
            return Ok((front, false));
        }
        let front = front.ok_or(Unexpected)?;
        match front.kind {
            Kind::Query | Kind::FunctionCall | Kind::Sync => {
                if self.progress == Progress::Failed {
                    return Err(Unexpected);
                }
                self.progress = Progress::Failed;
                Ok((Some(front), false))
            }
            _ => {
                self.pop();
                Ok((Some(front), true))
            }
        }
    }

    /// Takes out everything up to the next Sync, as the server does.
    pub(super) fn skip(&mut self, mut skipped: impl FnMut(Pending)) {
        while let Some(front) = self.front() {
            if front.kind == Kind::Sync {
                return;
            }
            self.queue.pop_front();
            if front.kind != Kind::CopyEnd {
                skipped(front);
            }
        }
        self.skipping = true;
    }

    fn pop(&mut self) {
        self.queue.pop_front();
        self.progress = Progress::Start;
        // A CopyDone outside of a COPY is ignored by the server.
        while self
            .front()
            .is_some_and(|front| front.kind == Kind::CopyEnd)
        {
            self.queue.pop_front();
        }
        if self.queue.is_empty() && self.queue.capacity() > IDLE_CAPACITY {
            self.queue = VecDeque::new();
        }
    }

    /// The server copies in from here on: it ignores every Sync up to the end of the copy.
    fn drop_ignored_by_copy(&mut self) {
        while let Some(next) = self.queue.get(1).copied() {
            match next.kind {
                Kind::Sync => self.ready_spare = self.ready_spare.saturating_add(1),
                Kind::CopyEnd => self.progress = Progress::CopyInEnded { bytes: next.id },
                // The server ends the connection over any other message.
                _ => return,
            }
            self.queue.remove(1);
            if next.kind == Kind::CopyEnd {
                return;
            }
        }
    }
}

/// Entries whose memory an idle session may keep.
const IDLE_CAPACITY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(id: u64, kind: Kind) -> Pending {
        Pending {
            id,
            kind,
            ours: false,
            format: Format::Text,
        }
    }

    fn with(kinds: &[Kind]) -> Responses {
        let mut responses = Responses::new();
        for (index, kind) in kinds.iter().enumerate() {
            responses.sent(pending(index as u64, *kind));
        }
        responses
    }

    /// Feeds tags; `Z` and `E` go to their own methods. Ends at the first unexpected.
    fn feed(responses: &mut Responses, tags: &str) -> Result<(), u8> {
        for tag in tags.bytes() {
            match tag {
                b'Z' => responses.ready().map_err(|_| tag)?,
                b'E' => {
                    if responses.error(false).map_err(|_| tag)?.1 {
                        responses.skip(|_| {});
                    }
                }
                tag => drop(responses.receive(tag).map_err(|_| tag)?),
            }
        }
        Ok(())
    }

    #[test]
    fn what_a_server_may_answer_is_taken() {
        use Kind::*;
        let cases: &[(&[Kind], &str)] = &[
            (&[Query], "TDDCZ"),
            (&[Query], "TCZ"),
            (&[Query], "CTDCCZ"),
            (&[Query], "IZ"),
            (&[Query], "TDEZ"),
            (&[Query], "CEZ"),
            (&[Query], "HddcCZ"),
            (&[Query, CopyEnd], "GCZ"),
            (&[Query, CopyEnd, CopyEnd], "GCGCZ"),
            (&[Query, CopyEnd], "EZ"),
            (&[Parse, Bind, DescribePortal, Execute, Sync], "12TDDCZ"),
            (&[Parse, DescribeStatement, Sync], "1tTZ"),
            (&[Parse, DescribeStatement, Sync], "1tnZ"),
            (&[Bind, Execute, Execute, Close, Sync], "2DsDC3Z"),
            (&[Parse, Bind, Execute, Sync, Query], "1EZTCZ"),
            (&[Parse, Query, Sync, Query], "EZCZ"),
            (&[Sync], "EZ"),
            (&[FunctionCall], "VZ"),
            (&[FunctionCall], "VEZ"),
            (&[FunctionCall], "EZ"),
            (&[Execute, Sync, CopyEnd, Sync], "GCZ"),
            (&[Execute, Sync, CopyEnd, Sync], "EZZ"),
            (&[Execute, Sync, CopyEnd, Sync], "GEZ"),
            (&[Execute, Sync, CopyEnd, Sync], "GEZZ"),
            (&[Execute, Sync, CopyEnd, Sync, Query], "GEZZCZ"),
        ];
        for (kinds, tags) in cases {
            let mut responses = with(kinds);
            assert_eq!(feed(&mut responses, tags), Ok(()), "{kinds:?} {tags}");
            assert!(responses.is_empty(), "{kinds:?} {tags}");
        }
    }

    #[test]
    fn anything_else_is_unexpected() {
        use Kind::*;
        let cases: &[(&[Kind], &str, u8)] = &[
            (&[], "Z", b'Z'),
            (&[], "D", b'D'),
            (&[], "E", b'E'),
            (&[Query], "D", b'D'),
            (&[Query], "Z", b'Z'),
            (&[Query], "1", b'1'),
            (&[Query], "TDZ", b'Z'),
            (&[Query], "TCD", b'D'),
            (&[Query], "GC", b'C'),
            (&[Query], "d", b'd'),
            (&[Query], "HC", b'C'),
            (&[Query], "EE", b'E'),
            (&[Query], "ET", b'T'),
            (&[Query], "CZZ", b'Z'),
            (&[Parse], "2", b'2'),
            (&[Parse, Sync], "1C", b'C'),
            (&[Execute], "T", b'T'),
            (&[Execute, Sync], "CC", b'C'),
            (&[DescribeStatement], "T", b'T'),
            (&[DescribePortal], "t", b't'),
            (&[FunctionCall], "Z", b'Z'),
            (&[FunctionCall], "VV", b'V'),
            (&[Sync], "C", b'C'),
            (&[Execute, Sync, CopyEnd, Sync, Query], "GEZZTZ", b'Z'),
        ];
        for (kinds, tags, at) in cases {
            assert_eq!(feed(&mut with(kinds), tags), Err(*at), "{kinds:?} {tags}");
        }
    }

    #[test]
    fn an_answer_other_than_an_error_to_a_message_of_ours_is_unexpected() {
        for tag in *b"123TtnDCIsGHVdc" {
            let mut responses = Responses::new();
            responses.sent(Pending {
                ours: true,
                ..pending(1, Kind::Parse)
            });
            assert_eq!(responses.receive(tag), Err(Unexpected));
        }
    }

    #[test]
    fn after_an_error_everything_up_to_the_next_sync_is_discarded_also_what_comes_later() {
        let mut responses = with(&[Kind::Parse, Kind::Bind]);
        assert_eq!(
            responses.error(false),
            Ok((Some(pending(0, Kind::Parse)), true))
        );
        let mut gone = Vec::new();
        responses.skip(|pending| gone.push(pending.id));
        assert_eq!(gone, [1]);
        assert!(responses.is_skipping());
        assert_eq!(responses.sent(pending(2, Kind::Query)), Sent::Skipped);
        assert_eq!(responses.sent(pending(3, Kind::CopyEnd)), Sent::Ignored);
        assert_eq!(responses.sent(pending(4, Kind::Sync)), Sent::Queued);
        assert_eq!(responses.sent(pending(5, Kind::Query)), Sent::Queued);
        assert_eq!(feed(&mut responses, "ZCZ"), Ok(()));
    }

    #[test]
    fn a_sync_during_copy_in_is_ignored_as_the_server_ignores_it() {
        let mut responses = with(&[Kind::Execute]);
        assert_eq!(feed(&mut responses, "G"), Ok(()));
        assert_eq!(responses.sent(pending(1, Kind::Sync)), Sent::Ignored);
        assert_eq!(responses.sent(pending(77, Kind::CopyEnd)), Sent::Ignored);
        assert_eq!(responses.copying(), Some(Copying::In { bytes: Some(77) }));
        assert_eq!(responses.sent(pending(2, Kind::Sync)), Sent::Queued);
        assert_eq!(feed(&mut responses, "CZ"), Ok(()));
        assert_eq!(responses.ready(), Err(Unexpected));
    }

    #[test]
    fn after_a_fatal_error_nothing_is_expected() {
        let mut responses = with(&[Kind::Query]);
        assert_eq!(
            responses.error(true),
            Ok((Some(pending(0, Kind::Query)), false))
        );
        assert!(responses.is_fatal());
        assert_eq!(responses.receive(b'C'), Err(Unexpected));
        assert_eq!(responses.ready(), Err(Unexpected));
        assert_eq!(responses.error(true), Err(Unexpected));
    }
}
