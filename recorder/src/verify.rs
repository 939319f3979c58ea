//! Whether an archive is whole, and where it is not.
//!
//! Needs only the files. Without signed checkpoints (a later format version's frame kind) nobody
//! can tell a record that was cut off the *end* of an archive that was never closed from one that
//! was never written; everything before the last record is covered by the chains.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use crate::body::{Body, WriterBody};
use crate::config::RecorderError;
use crate::files::{self, SegmentFile};
use crate::frame::{Frame, FrameKind, Hash, Header, chain_start, sha256};
use crate::id::SessionId;
use crate::segment::{self, Item, Tail};

/// Most problems that a report lists; beyond them they are only counted.
pub const PROBLEMS_MAX: usize = 10_000;

/// One place where the archive is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The segment, or the missing one's number.
    pub segment: u64,
    /// Byte offset in its file; 0 where the whole file is meant.
    pub offset: u64,
    /// The session, where it is known.
    pub session: Option<SessionId>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}, byte {}", self.segment, self.offset)?;
        if let Some(session) = self.session {
            write!(f, ", session {session}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Something worth knowing that is no damage: it is on record, or explained by a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// All segments before this one were deleted by retention; the deletion is on record.
    DeletedByRetention {
        /// The first segment that is kept.
        first_kept: u64,
    },
    /// A crash cut a record short; the next writer found it and put that on record.
    Torn {
        /// The segment.
        segment: u64,
        /// Where its whole records end.
        offset: u64,
        /// Bytes after that.
        bytes: u64,
    },
    /// A writer ended without closing its segment, and another one went on after it.
    NotClosed {
        /// The segment.
        segment: u64,
    },
    /// The last segment is closed and the next one is prepared, but has no record yet: its writer is
    /// between the two, or died there.
    BetweenSegments {
        /// The last segment.
        segment: u64,
    },
    /// The last segment is not closed: it is being written, or its writer died. Its last bytes may
    /// be the beginning of a record.
    InProgress {
        /// The segment.
        segment: u64,
        /// Where its whole records end.
        offset: u64,
        /// Bytes after that.
        partial_bytes: u64,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeletedByRetention { first_kept } => write!(
                f,
                "segments before {first_kept} were deleted by retention, which is on record"
            ),
            Self::Torn {
                segment,
                offset,
                bytes,
            } => write!(
                f,
                "segment {segment}: a crash left {bytes} bytes after byte {offset}, which is on record"
            ),
            Self::NotClosed { segment } => {
                write!(f, "segment {segment}: its writer ended without closing it")
            }
            Self::BetweenSegments { segment } => write!(
                f,
                "segment {segment} is closed and the next one has no record yet: its writer is there or died there"
            ),
            Self::InProgress {
                segment,
                offset,
                partial_bytes,
            } => write!(
                f,
                "segment {segment} is in progress or its writer died: whole up to byte {offset}, {partial_bytes} bytes after that"
            ),
        }
    }
}

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Segments read.
    pub segments: u64,
    /// Whole records, the writer's own included.
    pub records: u64,
    /// Sessions with a record.
    pub sessions: u64,
    /// Sessions among them without an end.
    pub unfinished: u64,
    /// Where it is not whole, in the order of the segments.
    pub problems: Vec<Problem>,
    /// Problems beyond `PROBLEMS_MAX`.
    pub problems_unlisted: u64,
    /// What is explained.
    pub notes: Vec<Note>,
}

impl Report {
    /// Whether there is no problem.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        if self.problems_unlisted > 0 {
            writeln!(f, "problem: {} more are not listed", self.problems_unlisted)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let problems = self.problems.len() as u64 + self.problems_unlisted;
        let verdict = if problems == 0 {
            "the record is whole".to_owned()
        } else {
            format!("the record is NOT whole, problems: {problems}")
        };
        write!(
            f,
            "{verdict}; segments: {}, records: {}, sessions: {} ({} unfinished)",
            self.segments, self.records, self.sessions, self.unfinished
        )
    }
}

/// Checks the archive in `dir`, which may be in use.
///
/// # Errors
/// `Io` where files cannot be read. Damage is no error: it is in the report.
pub fn verify(dir: impl AsRef<Path>) -> Result<Report, RecorderError> {
    run(dir.as_ref(), false)
}

/// As `verify`, for an archive whose writer has stopped in order: an end without its closing record
/// is a problem then, so that a cut end shows.
///
/// # Errors
/// As `verify`.
pub fn verify_closed(dir: impl AsRef<Path>) -> Result<Report, RecorderError> {
    run(dir.as_ref(), true)
}

/// What is known of a chain.
struct Chain {
    /// `None` after a hole: any number may follow.
    next: Option<u64>,
    hash: Hash,
    is_session: bool,
    ended: bool,
}

/// A tail that a later segment must explain.
struct OpenTail {
    segment: u64,
    tail: Tail,
    digest: Hash,
}

#[derive(Default)]
struct Verifier {
    report: Report,
    chains: HashMap<SessionId, Chain>,
    first_segment: Option<u64>,
    /// Hash that the first kept segment says its deleted predecessor had.
    needs_deleted: Option<(u64, Hash)>,
    /// Number of the last segment seen.
    last_segment: u64,
    /// Hash and next position of the segment before, where that could be read.
    expected: Option<(Hash, u64)>,
    tails: Vec<OpenTail>,
    torn: HashMap<u64, (u64, u64, Hash)>,
    deleted: HashMap<u64, Hash>,
    vanished: Vec<u64>,
    closed: Option<bool>,
    /// The next segment waits for its name, with the header that it should have.
    is_between: bool,
}

fn run(dir: &Path, must_be_closed: bool) -> Result<Report, RecorderError> {
    let mut verifier = Verifier::default();
    let mut looked = false;
    loop {
        let files: Vec<SegmentFile> = files::list_segments(dir)?
            .into_iter()
            .filter(|file| file.number > verifier.last_segment)
            .collect();
        if files.is_empty() {
            // Looked for first, so that a writer that publishes it in between is seen by the list.
            if verifier.closed != Some(true) || looked {
                break;
            }
            looked = true;
            verifier.is_between = verifier.next_is_prepared(dir);
            continue;
        }
        looked = false;
        for file in files {
            let Some(bytes) = files::read_segment(&file)? else {
                verifier.vanished(file.number);
                continue;
            };
            verifier.segment(&file, &bytes);
        }
        // A writer at work may have gone on in a segment that the list above did not have.
        if verifier.closed != Some(true) {
            break;
        }
    }
    verifier.finish(must_be_closed);
    Ok(verifier.report)
}

impl Verifier {
    fn problem(&mut self, segment: u64, offset: u64, session: Option<SessionId>, what: String) {
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(Problem {
                segment,
                offset,
                session,
                what,
            });
        } else {
            self.report.problems_unlisted += 1;
        }
    }

    /// A segment that went between the listing and now: retention at work, which a later record
    /// must say. Before the first one that was read it is as if it had not been listed.
    fn vanished(&mut self, number: u64) {
        if self.first_segment.is_some() {
            self.last_segment = number;
            self.forget();
            self.vanished.push(number);
        }
    }

    /// Whether the header of the segment after the last one lies ready and continues it.
    fn next_is_prepared(&self, dir: &Path) -> bool {
        let number = self.last_segment.saturating_add(1);
        let Ok(bytes) = files::read_header(&files::prepared_path(dir, number)) else {
            return false;
        };
        Header::decode(&bytes).is_ok_and(|header| {
            header.segment == number
                && self.expected == Some((header.previous, header.first_position))
        })
    }

    /// After a hole nothing is known of what the chains should carry next.
    fn forget(&mut self) {
        self.expected = None;
        for chain in self.chains.values_mut() {
            chain.next = None;
        }
    }

    fn segment(&mut self, file: &SegmentFile, bytes: &[u8]) {
        let number = file.number;
        self.report.segments += 1;
        if self.first_segment.is_none() {
            self.first_segment = Some(number);
        } else {
            for missing in self.last_segment.saturating_add(1)..number {
                self.problem(missing, 0, None, "the segment is missing".to_owned());
                self.forget();
                if self.report.problems_unlisted > 0 {
                    break;
                }
            }
        }
        self.last_segment = number;
        self.closed = None;
        let expected = self.expected.take();
        let header = match Header::decode(bytes) {
            Ok(header) => header,
            Err(error) => {
                self.problem(number, 0, None, error.to_string());
                self.forget();
                return;
            }
        };
        if header.segment != number {
            let what = format!("the file holds segment {}", header.segment);
            self.problem(number, 0, None, what);
        }
        match expected {
            Some((hash, position)) => {
                if header.previous != hash {
                    let what = "its header does not carry the hash of the segment before it";
                    self.problem(number, 0, None, what.to_owned());
                }
                if header.first_position != position {
                    let what = format!(
                        "record {position} should come first, its header says {}",
                        header.first_position
                    );
                    self.problem(number, 0, None, what);
                }
            }
            None if number == 1 && (header.previous != [0; 32] || header.first_position != 0) => {
                let what = "the first segment names one before it";
                self.problem(number, 0, None, what.to_owned());
            }
            None if number == 1 => {}
            None if self.first_segment == Some(number) => {
                self.needs_deleted = Some((number, header.previous));
            }
            None => {}
        }

        let mut position = header.first_position;
        let mut damaged = 0u64;
        let mut after_close = false;
        let scanned = segment::scan(bytes, &mut |item| match item {
            Item::Damaged { offset, what } => {
                damaged += 1;
                self.problem(number, offset, None, what);
            }
            Item::Record { offset, frame } => {
                if after_close {
                    let what = "a record after the segment's closing record";
                    self.problem(number, offset, None, what.to_owned());
                }
                let found = frame.head.position;
                let wanted = position.saturating_add(damaged);
                damaged = 0;
                if found < wanted {
                    let what = format!(
                        "record {found} stands where record {wanted} belongs: out of order or doubled"
                    );
                    self.problem(number, offset, Some(frame.head.session), what);
                    position = wanted;
                } else {
                    if found > wanted {
                        let what = format!(
                            "records {wanted} to {} are missing before this one",
                            found - 1
                        );
                        self.problem(number, offset, None, what);
                    }
                    position = found.saturating_add(1);
                }
                after_close = self.record(number, offset, &frame);
            }
        });
        let Ok(scan) = scanned else {
            return;
        };
        self.report.records += scan.records;
        self.closed = scan.closed;
        self.expected = Some((scan.hash.value(), scan.next_position));
        if let Some(tail) = scan.tail {
            let from = usize::try_from(tail.offset).unwrap_or(usize::MAX);
            self.tails.push(OpenTail {
                segment: number,
                digest: sha256(&[bytes.get(from..).unwrap_or_default()]),
                tail,
            });
        } else if scan.closed.is_none() {
            // Looks like a tail of no bytes, and is one: the writer died between two records.
            self.tails.push(OpenTail {
                segment: number,
                digest: sha256(&[]),
                tail: Tail {
                    offset: bytes.len() as u64,
                    bytes: 0,
                    cut_short: true,
                    what: String::new(),
                },
            });
        }
    }

    /// Checks a record against its chain and reads its body. `true` when it closes its segment.
    fn record(&mut self, number: u64, offset: u64, frame: &Frame<'_>) -> bool {
        let session = frame.head.session;
        let sequence = frame.head.sequence;
        let is_session = frame.head.kind == FrameKind::Session;
        let (mut ends, mut closes) = (false, false);
        let mut unreadable = None;
        if is_session {
            match Body::decode(frame.body) {
                Ok(body) => ends = matches!(body, Body::SessionEnd { .. }),
                Err(error) => unreadable = Some(error.to_string()),
            }
        } else {
            match WriterBody::decode(frame.body) {
                Ok(WriterBody::Torn {
                    segment,
                    kept_bytes,
                    torn_bytes,
                    digest,
                }) => {
                    self.torn.insert(segment, (kept_bytes, torn_bytes, digest));
                }
                Ok(WriterBody::Deleted {
                    segment,
                    segment_hash,
                    ..
                }) => {
                    self.deleted.insert(segment, segment_hash);
                }
                Ok(WriterBody::Closed { .. }) => closes = true,
                Ok(WriterBody::Started { .. }) => {}
                Err(error) => unreadable = Some(error.to_string()),
            }
        }
        if let Some(what) = unreadable {
            self.problem(number, offset, Some(session), what);
        }

        let begins_late = self.first_segment != Some(1);
        let chain = self.chains.get(&session);
        let ended = chain.is_some_and(|chain| chain.ended);
        let wanted = match chain {
            None if begins_late && sequence > 0 => None,
            None => Some((0, chain_start(session))),
            Some(chain) => chain.next.map(|next| (next, chain.hash)),
        };
        let mut step = true;
        let what = match wanted {
            _ if ended => Some("a record after the session's end".to_owned()),
            None => None,
            Some((next, _)) if sequence > next => Some(format!(
                "records {next} to {} of the session are missing before this one",
                sequence - 1
            )),
            Some((next, _)) if sequence < next => {
                step = false;
                Some(format!(
                    "record {sequence} of the session after its record {}: out of order or doubled",
                    next - 1
                ))
            }
            Some((_, hash)) if frame.head.previous != hash => Some(
                "the record does not carry the hash of the one before it in its session".to_owned(),
            ),
            Some(_) => None,
        };
        if let Some(what) = what {
            self.problem(number, offset, Some(session), what);
        }
        let chain = self.chains.entry(session).or_insert(Chain {
            next: None,
            hash: frame.hash,
            is_session,
            ended: false,
        });
        if step {
            chain.next = Some(sequence.saturating_add(1));
            chain.hash = frame.hash;
        }
        chain.ended |= ends;
        closes
    }

    fn finish(&mut self, must_be_closed: bool) {
        let last = self.last_segment;
        if self.first_segment.is_none() {
            self.problem(1, 0, None, "there is no segment in this folder".to_owned());
        }
        if let Some((first_kept, hash)) = self.needs_deleted {
            let before = first_kept.saturating_sub(1);
            match self.deleted.get(&before) {
                Some(deleted) if *deleted == hash => {
                    self.report
                        .notes
                        .push(Note::DeletedByRetention { first_kept });
                }
                Some(_) => self.problem(
                    first_kept,
                    0,
                    None,
                    "its header does not carry the hash of the deleted segment before it".to_owned(),
                ),
                None => self.problem(
                    before,
                    0,
                    None,
                    "the segments up to this one are missing, and no record says that retention deleted them"
                        .to_owned(),
                ),
            }
        }
        for number in std::mem::take(&mut self.vanished) {
            if !self.deleted.contains_key(&number) {
                self.problem(number, 0, None, "the segment is missing".to_owned());
            }
        }
        for open in std::mem::take(&mut self.tails) {
            self.explain(&open, last, must_be_closed);
        }
        let torn = std::mem::take(&mut self.torn);
        let mut torn: Vec<u64> = torn.into_keys().collect();
        torn.sort_unstable();
        for segment in torn {
            if segment >= self.first_segment.unwrap_or(0) {
                let what =
                    "a later record says that this segment ends in torn bytes; they are gone";
                self.problem(segment, 0, None, what.to_owned());
            }
        }
        if self.closed == Some(true) && self.is_between && !must_be_closed {
            self.report
                .notes
                .push(Note::BetweenSegments { segment: last });
        } else if self.closed == Some(true) {
            let what =
                "the segment is missing: the one before it says that the writer went on here";
            self.problem(last.saturating_add(1), 0, None, what.to_owned());
        }
        for chain in self.chains.values().filter(|chain| chain.is_session) {
            self.report.sessions += 1;
            self.report.unfinished += u64::from(!chain.ended);
        }
        self.report
            .problems
            .sort_by_key(|problem| (problem.segment, problem.offset));
    }

    fn explain(&mut self, open: &OpenTail, last: u64, must_be_closed: bool) {
        let (segment, tail) = (open.segment, &open.tail);
        let recorded = self.torn.remove(&segment);
        if segment == last {
            if must_be_closed || !tail.cut_short {
                let what = if tail.bytes == 0 {
                    "the archive ends here without its closing record".to_owned()
                } else {
                    format!(
                        "{} ({} bytes to the end of the file)",
                        tail.what, tail.bytes
                    )
                };
                self.problem(segment, tail.offset, None, what);
            } else {
                self.report.notes.push(Note::InProgress {
                    segment,
                    offset: tail.offset,
                    partial_bytes: tail.bytes,
                });
            }
            return;
        }
        match recorded {
            None if tail.bytes == 0 => self.report.notes.push(Note::NotClosed { segment }),
            None => {
                let what = format!(
                    "{} ({} bytes to the end of the file)",
                    tail.what, tail.bytes
                );
                self.problem(segment, tail.offset, None, what);
            }
            Some(recorded) if recorded != (tail.offset, tail.bytes, open.digest) => {
                let what = "the bytes after the last whole record are not those that the next writer found";
                self.problem(segment, tail.offset, None, what.to_owned());
            }
            Some(_) if tail.cut_short => self.report.notes.push(Note::Torn {
                segment,
                offset: tail.offset,
                bytes: tail.bytes,
            }),
            Some(_) => {
                let what = format!(
                    "{}, and no crash explains it; the next writer put it on record and went on ({} bytes to the end of the file)",
                    tail.what, tail.bytes
                );
                self.problem(segment, tail.offset, None, what);
            }
        }
    }
}
