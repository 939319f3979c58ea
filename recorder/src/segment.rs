//! Walking over a segment's bytes: the one reading of a segment that writer, reader and verify share.
//!
//! A damaged record does not end the walk where its size is known: its length is stored twice, so
//! that one flipped byte does not hide what comes after it. What follows the last whole record is
//! the *tail*: a record that is being written, what a crash left, or damage.

use crate::body::WriterBody;
use crate::frame::{
    FRAME_BYTES_MAX, FRAME_OVERHEAD_BYTES, Frame, FrameError, FrameKind, HEADER_BYTES, Hash,
    Header, HeaderError, SegmentHash, decode_frame,
};

/// Most damaged records in a row that are kept apart before they count as one tail.
const PENDING_MAX: usize = 4_096;

/// Something met on the walk.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// A record with its own hash. Its links are not looked at here.
    Record { offset: u64, frame: Frame<'a> },
    /// A record that is not what was written, with a whole one somewhere after it.
    Damaged { offset: u64, what: String },
}

/// Bytes after the last whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tail {
    pub offset: u64,
    pub bytes: u64,
    /// Whether a write that was cut short explains it: the beginning of a record, or space that was
    /// never written. Damage to a record that was once whole does not look like that.
    pub cut_short: bool,
    pub what: String,
}

/// What a walk found in all.
pub(crate) struct Scan {
    pub header: Header,
    /// Position that follows the last whole record.
    pub next_position: u64,
    pub hash: SegmentHash,
    /// Number of whole records.
    pub records: u64,
    pub tail: Option<Tail>,
    /// The closing record's `rotated`, where it is the last.
    pub closed: Option<bool>,
}

/// A damaged record that may turn out to be part of the tail.
struct Pending {
    offset: usize,
    what: String,
    stored: Option<Hash>,
    partial: bool,
}

/// Walks over a segment.
///
/// # Errors
/// When its header cannot be read; nothing was visited then.
pub(crate) fn scan<'a>(
    bytes: &'a [u8],
    visit: &mut dyn FnMut(Item<'a>),
) -> Result<Scan, HeaderError> {
    let header = Header::decode(bytes)?;
    let head = bytes
        .first_chunk::<HEADER_BYTES>()
        .ok_or(HeaderError::Short)?;
    let mut scan = Scan {
        header,
        next_position: header.first_position,
        hash: SegmentHash::new(head),
        records: 0,
        tail: None,
        closed: None,
    };
    let mut offset = HEADER_BYTES;
    let mut pending: Vec<Pending> = Vec::new();
    while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
        let (size, damage) = match decode_frame(rest) {
            Ok(frame) => {
                for damaged in pending.drain(..) {
                    // The stored hash stands for the damaged record, so that the segment's own
                    // hash still tells whether anything *else* changed.
                    if let Some(stored) = damaged.stored {
                        scan.hash.add(&stored);
                    }
                    visit(Item::Damaged {
                        offset: damaged.offset as u64,
                        what: damaged.what,
                    });
                }
                scan.hash.add(&frame.hash);
                scan.records += 1;
                scan.next_position = frame.head.position.saturating_add(1);
                scan.closed = closing(&frame);
                let size = frame.size;
                visit(Item::Record {
                    offset: offset as u64,
                    frame,
                });
                offset += size;
                continue;
            }
            Err(error) => describe(rest, error),
        };
        let stored = size
            .and_then(|size| rest.get(..size))
            .and_then(|frame| frame.last_chunk::<32>())
            .copied();
        pending.push(Pending {
            offset,
            what: damage.0,
            stored,
            partial: damage.1,
        });
        match size {
            Some(size) if pending.len() < PENDING_MAX => offset += size,
            _ => break,
        }
    }
    if let Some(first) = pending.first() {
        let tail = bytes.get(first.offset..).unwrap_or_default();
        scan.tail = Some(Tail {
            offset: first.offset as u64,
            bytes: tail.len() as u64,
            cut_short: (pending.len() == 1 && first.partial) || tail.ends_with(&[0u8; 32]),
            what: first.what.clone(),
        });
        scan.closed = None;
    }
    Ok(scan)
}

fn closing(frame: &Frame<'_>) -> Option<bool> {
    if frame.head.kind != FrameKind::Writer {
        return None;
    }
    match WriterBody::decode(frame.body) {
        Ok(WriterBody::Closed { rotated }) => Some(rotated),
        _ => None,
    }
}

/// The size of a frame that is not right, where it can be told; what is wrong; whether it is the
/// beginning of a frame and nothing else.
fn describe(rest: &[u8], error: FrameError) -> (Option<usize>, (String, bool)) {
    match error {
        FrameError::Partial => (None, ("the file ends within a record".to_owned(), true)),
        FrameError::Hash { size, .. } => (
            Some(size),
            ("the record does not match its hash".to_owned(), false),
        ),
        FrameError::Unknown { size, what, .. } => (Some(size), (what, false)),
        FrameError::Length => {
            let what = "the record's length is damaged".to_owned();
            (length_by_either(rest), (what, false))
        }
    }
}

/// The length is stored twice; the copy after which the file goes on (or ends) is the right one.
fn length_by_either(rest: &[u8]) -> Option<usize> {
    let (length, rest_after) = rest.split_first_chunk::<4>()?;
    let (complement, _) = rest_after.split_first_chunk::<4>()?;
    [
        u32::from_le_bytes(*length),
        !u32::from_le_bytes(*complement),
    ]
    .into_iter()
    .map(|length| (length as usize).saturating_add(8))
    .filter(|size| (FRAME_OVERHEAD_BYTES..=FRAME_BYTES_MAX).contains(size))
    .find(|size| match rest.get(*size..) {
        Some([]) => true,
        Some(next) => decode_frame(next).is_ok(),
        None => false,
    })
}
