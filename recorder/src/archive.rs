//! The archive as a reader sees it: its sessions, and the records of one.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use crate::body::{ActionCode, Body};
use crate::config::RecorderError;
use crate::files::{self, SegmentFile};
use crate::frame::{Frame, FrameKind, Hash, chain_start};
use crate::id::SessionId;
use crate::segment::{self, Item};
use crate::verify::Problem;

/// One record of a session, as read back. Its hash was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The session.
    pub session: SessionId,
    /// Number in the session, from 0.
    pub sequence_in_session: u64,
    /// Number in the archive, from 0.
    pub position: u64,
    /// The shard that it came from.
    pub shard: u16,
    /// Microseconds since 1970, UTC.
    pub wall_clock_us: u64,
    /// What it says.
    pub body: Body,
    /// Its hash.
    pub hash: Hash,
}

/// A session at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSummary {
    /// Its id.
    pub session: SessionId,
    /// Time of its first record, in microseconds since 1970, UTC.
    pub first_us: u64,
    /// Time of its last record.
    pub last_us: u64,
    /// Its `SessionStart`, where that is (still) in the archive.
    pub start: Option<Body>,
    /// Its `SessionEnd`. `None`: the session runs, or the writer died before its end.
    pub end: Option<Body>,
    /// Records in the archive.
    pub records: u64,
    /// Requests among them.
    pub requests: u64,
    /// Decisions to deny among them.
    pub denied: u64,
    /// Segments that hold its records.
    segments: Vec<u64>,
}

impl SessionSummary {
    /// Whether no end is on record: the session runs, or was open when its writer died.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.end.is_none()
    }
}

/// An archive's folder with an index of its sessions, made by reading it once.
///
/// Records that are written later are not seen. Damaged records are left out of the index; `verify`
/// names them.
pub struct Archive {
    segments: BTreeMap<u64, SegmentFile>,
    sessions: BTreeMap<SessionId, SessionSummary>,
}

impl Archive {
    /// Reads the archive in `dir` and makes the index. No lock is taken: the archive may be in use.
    ///
    /// # Errors
    /// `Io` where files cannot be read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, RecorderError> {
        let mut archive = Self {
            segments: BTreeMap::new(),
            sessions: BTreeMap::new(),
        };
        for file in files::list_segments(dir.as_ref())? {
            let Some(bytes) = files::read_segment(&file)? else {
                continue;
            };
            // A segment whose header cannot be read has no sessions to show.
            let _ = segment::scan(&bytes, &mut |item| {
                if let Item::Record { frame, .. } = item {
                    archive.index(file.number, &frame);
                }
            });
            archive.segments.insert(file.number, file);
        }
        Ok(archive)
    }

    fn index(&mut self, segment: u64, frame: &Frame<'_>) {
        if frame.head.kind != FrameKind::Session {
            return;
        }
        let Ok(body) = Body::decode(frame.body) else {
            return;
        };
        let time = frame.head.wall_clock_us;
        let summary = self
            .sessions
            .entry(frame.head.session)
            .or_insert_with(|| SessionSummary {
                session: frame.head.session,
                first_us: time,
                last_us: time,
                start: None,
                end: None,
                records: 0,
                requests: 0,
                denied: 0,
                segments: Vec::new(),
            });
        summary.last_us = time;
        summary.records += 1;
        if summary.segments.last() != Some(&segment) {
            summary.segments.push(segment);
        }
        match body {
            Body::Request { decision, .. } => {
                summary.requests += 1;
                summary.denied += u64::from(decision.is_some_and(|r| r.action == ActionCode::Deny));
            }
            Body::Decision { ruling, .. } => {
                summary.denied += u64::from(ruling.action == ActionCode::Deny);
            }
            Body::SessionStart { .. } => summary.start = Some(body),
            Body::SessionEnd { .. } => summary.end = Some(body),
            _ => {}
        }
    }

    /// All sessions with a record, by the time of their first one.
    #[must_use]
    pub fn sessions(&self) -> Vec<&SessionSummary> {
        let mut sessions: Vec<_> = self.sessions.values().collect();
        sessions.sort_by_key(|summary| (summary.first_us, summary.session));
        sessions
    }

    /// One session's summary.
    #[must_use]
    pub fn summary(&self, session: SessionId) -> Option<&SessionSummary> {
        self.sessions.get(&session)
    }

    /// The records of a session, in order. An unknown session has none.
    #[must_use]
    pub fn session(&self, session: SessionId) -> SessionRecords<'_> {
        SessionRecords {
            archive: self,
            session,
            segments: self
                .sessions
                .get(&session)
                .map(|summary| summary.segments.iter().copied().collect())
                .unwrap_or_default(),
            ready: VecDeque::new(),
            chain: None,
        }
    }
}

/// What stands in a session's record where no record can be given.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Something is not whole; the iteration goes on after it.
    #[error("{0}")]
    Problem(Problem),
    /// A file cannot be read.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
}

/// Iterator over a session's records. One segment is in memory at a time.
pub struct SessionRecords<'a> {
    archive: &'a Archive,
    session: SessionId,
    segments: VecDeque<u64>,
    ready: VecDeque<Result<Record, ReadError>>,
    /// Sequence and previous hash that the next record should carry.
    chain: Option<(u64, Hash)>,
}

impl Iterator for SessionRecords<'_> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            let number = self.segments.pop_front()?;
            self.load(number);
        }
    }
}

impl SessionRecords<'_> {
    fn load(&mut self, number: u64) {
        let Some(file) = self.archive.segments.get(&number) else {
            return;
        };
        let bytes = match files::read_segment(file) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                self.problem(number, 0, "the segment was deleted while it was read");
                return;
            }
            Err(error) => {
                self.ready.push_back(Err(error.into()));
                return;
            }
        };
        let scanned = segment::scan(&bytes, &mut |item| {
            if let Item::Record { offset, frame } = item
                && frame.head.kind == FrameKind::Session
                && frame.head.session == self.session
            {
                self.take(number, offset, &frame);
            }
        });
        if let Err(error) = scanned {
            self.problem(number, 0, &error.to_string());
        }
    }

    fn take(&mut self, number: u64, offset: u64, frame: &Frame<'_>) {
        let head = &frame.head;
        let (sequence, previous) = self.chain.unwrap_or_else(|| (0, chain_start(self.session)));
        if head.sequence != sequence {
            let what = format!(
                "record {sequence} of the session was expected here, this is record {}",
                head.sequence
            );
            self.problem(number, offset, &what);
        } else if head.previous != previous {
            self.problem(
                number,
                offset,
                "the record does not carry the hash of the one before it",
            );
        }
        self.chain = Some((head.sequence.saturating_add(1), frame.hash));
        match Body::decode(frame.body) {
            Ok(body) => self.ready.push_back(Ok(Record {
                session: head.session,
                sequence_in_session: head.sequence,
                position: head.position,
                shard: head.shard,
                wall_clock_us: head.wall_clock_us,
                body,
                hash: frame.hash,
            })),
            Err(error) => self.problem(number, offset, &error.to_string()),
        }
    }

    fn problem(&mut self, segment: u64, offset: u64, what: &str) {
        self.ready.push_back(Err(ReadError::Problem(Problem {
            segment,
            offset,
            session: Some(self.session),
            what: what.to_owned(),
        })));
    }
}
