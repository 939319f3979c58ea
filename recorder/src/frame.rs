//! The bytes around a body: a segment's header and a record's frame, with the hashes that chain them.
//!
//! ```text
//! segment:  header | frame | frame | ...
//! header:   magic 8 | version 2 | size 2 | flags 4 | segment 8 | first position 8 | created 8
//!           | writer 16 | hash of the segment before 32 | hash of this header 32
//! frame:    length 4 | !length 4 | kind 1 | flags 1 | shard 2 | session 16 | sequence 8
//!           | position 8 | wall clock 8 | previous 32 | body ... | hash 32
//! ```
//! All numbers are little-endian. `FORMAT.md` says the same at length.

use aws_lc_rs::digest::{Context, SHA256};

use crate::id::SessionId;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// First bytes of each segment.
pub const MAGIC: [u8; 8] = *b"PTCLSREC";
/// Version of the format that this crate writes, and the only one it reads.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 120;
/// Bytes of a frame before its body.
pub const FRAME_HEAD_BYTES: usize = 84;
/// Bytes of a frame that are not its body.
pub const FRAME_OVERHEAD_BYTES: usize = FRAME_HEAD_BYTES + 32;
/// Bytes of a frame that its length field does not count: the length and its complement.
const PRELUDE_BYTES: usize = 8;
/// Largest frame.
pub const FRAME_BYTES_MAX: usize = crate::body::BODY_BYTES_MAX + FRAME_OVERHEAD_BYTES;
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);

/// What a frame's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A session's record: `Body`.
    Session,
    /// The writer's own: `WriterBody`.
    Writer,
}

impl FrameKind {
    /// Its number in the frame. 3 is kept for signed checkpoints.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Writer => 2,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Session),
            2 => Some(Self::Writer),
            _ => None,
        }
    }
}

/// A frame's fields without its body and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// What the body is.
    pub kind: FrameKind,
    /// The ring that it came through.
    pub shard: u16,
    /// The session, or the writer's id where `kind` is `Writer`.
    pub session: SessionId,
    /// Number in its session, from 0.
    pub sequence: u64,
    /// Number in the archive, from 0.
    pub position: u64,
    /// Microseconds since 1970, UTC, by the appender's clock.
    pub wall_clock_us: u64,
    /// Hash of the record before it in its session; `chain_start` for the first.
    pub previous: Hash,
}

/// A frame as it stands in a segment, its hash checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The fields.
    pub head: FrameHead,
    /// The encoded body.
    pub body: &'a [u8],
    /// The record's hash.
    pub hash: Hash,
    /// Bytes of the whole frame.
    pub size: usize,
}

/// Why there is no whole frame at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// The bytes are the beginning of a frame.
    Partial,
    /// The length field is not one that a writer makes; where the next frame begins is unknown.
    Length,
    /// The frame has its length, but not its hash.
    Hash {
        /// Bytes of the frame.
        size: usize,
        /// The hash as stored.
        stored: Hash,
    },
    /// The frame is whole, but of a kind or with flags that this version does not know.
    Unknown {
        /// Bytes of the frame.
        size: usize,
        /// The hash as stored, which is right.
        stored: Hash,
        /// What is unknown.
        what: String,
    },
}

pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    finish(context)
}

fn finish(context: Context) -> Hash {
    let mut hash = [0u8; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// What the first record of a session carries as its previous hash.
#[must_use]
pub fn chain_start(session: SessionId) -> Hash {
    sha256(&[b"portcullis chain v1\0", session.as_bytes()])
}

fn record_hash(hashed: &[u8]) -> Hash {
    sha256(&[b"portcullis record v1\0", hashed])
}

/// Running hash over a segment: its header, then the hash of each of its records.
#[derive(Clone)]
pub struct SegmentHash(Context);

impl SegmentHash {
    /// Begins with the segment's 120 header bytes.
    #[must_use]
    pub fn new(header: &[u8; HEADER_BYTES]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(b"portcullis segment v1\0");
        context.update(header);
        Self(context)
    }

    /// Adds a record's hash.
    pub fn add(&mut self, record: &Hash) {
        self.0.update(record);
    }

    /// The hash so far.
    #[must_use]
    pub fn value(&self) -> Hash {
        finish(self.0.clone())
    }
}

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number of the segment, from 1, one more than the one before.
    pub segment: u64,
    /// Position of the first record in it.
    pub first_position: u64,
    /// Microseconds since 1970, UTC.
    pub created_us: u64,
    /// The process's writer: 16 random bytes.
    pub writer: SessionId,
    /// Hash of the segment before; zeros in segment 1.
    pub previous: Hash,
}

/// Why a segment's first bytes are not a header that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("the file is shorter than a segment's header")]
    Short,
    /// Not a segment.
    #[error("the file does not begin as a segment")]
    Magic,
    /// A version or flags of another time.
    #[error(
        "format version {version}, flags {flags:#x}: this program reads version 1 without flags"
    )]
    Version {
        /// The version.
        version: u16,
        /// The flags.
        flags: u32,
    },
    /// Its hash is not its own.
    #[error("the segment's header does not match its hash")]
    Hash,
}

/// Takes fixed pieces off the front of a slice; `None` where it ends.
struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (piece, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*piece)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.first_position.to_le_bytes());
        out.extend_from_slice(&self.created_us.to_le_bytes());
        out.extend_from_slice(self.writer.as_bytes());
        out.extend_from_slice(&self.previous);
        let hash = sha256(&[b"portcullis header v1\0", &out]);
        out.extend_from_slice(&hash);
        let mut bytes = [0u8; HEADER_BYTES];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// Reads the header at the start of a segment.
    ///
    /// # Errors
    /// Says which of magic, version and hash is not right.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Short);
        };
        let mut take = Take(header);
        let fields = (|| {
            Some((
                take.array::<8>()?,
                take.u16()?,
                take.u16()?,
                take.u32()?,
                Self {
                    segment: take.u64()?,
                    first_position: take.u64()?,
                    created_us: take.u64()?,
                    writer: SessionId(take.array()?),
                    previous: take.array()?,
                },
                take.array::<32>()?,
            ))
        })();
        let Some((magic, version, size, flags, decoded, hash)) = fields else {
            return Err(HeaderError::Short);
        };
        if magic != MAGIC {
            return Err(HeaderError::Magic);
        }
        if version != FORMAT_VERSION || flags != 0 || usize::from(size) != HEADER_BYTES {
            return Err(HeaderError::Version { version, flags });
        }
        let hashed = header.get(..HEADER_BYTES - 32).unwrap_or_default();
        if sha256(&[b"portcullis header v1\0", hashed]) != hash {
            return Err(HeaderError::Hash);
        }
        Ok(decoded)
    }
}

/// Appends a frame to `out` and gives the record's hash.
///
/// The body must not be over `BODY_BYTES_MAX`; the encoders of bodies keep that bound.
pub fn encode_frame(out: &mut Vec<u8>, head: &FrameHead, body: &[u8]) -> Hash {
    debug_assert!(body.len() <= crate::body::BODY_BYTES_MAX);
    let start = out.len();
    let length = (FRAME_OVERHEAD_BYTES - PRELUDE_BYTES + body.len()) as u32;
    out.reserve(FRAME_OVERHEAD_BYTES + body.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(&[head.kind.code(), 0]);
    out.extend_from_slice(&head.shard.to_le_bytes());
    out.extend_from_slice(head.session.as_bytes());
    out.extend_from_slice(&head.sequence.to_le_bytes());
    out.extend_from_slice(&head.position.to_le_bytes());
    out.extend_from_slice(&head.wall_clock_us.to_le_bytes());
    out.extend_from_slice(&head.previous);
    out.extend_from_slice(body);
    let hash = record_hash(&out[start..]);
    out.extend_from_slice(&hash);
    hash
}

/// Reads the frame at the start of `bytes` and checks its hash.
///
/// # Errors
/// See `FrameError`; an empty slice is `Partial`.
pub fn decode_frame(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let mut take = Take(bytes);
    let (Some(length), Some(complement)) = (take.u32(), take.u32()) else {
        return Err(FrameError::Partial);
    };
    let least = FRAME_OVERHEAD_BYTES - PRELUDE_BYTES;
    let length_bytes = length as usize;
    if complement != !length
        || length_bytes < least
        || length_bytes > FRAME_BYTES_MAX - PRELUDE_BYTES
    {
        return Err(FrameError::Length);
    }
    let size = PRELUDE_BYTES + length_bytes;
    let Some(frame) = bytes.get(..size) else {
        return Err(FrameError::Partial);
    };
    let Some((hashed, stored)) = frame.split_last_chunk::<32>() else {
        return Err(FrameError::Partial);
    };
    let stored = *stored;
    if record_hash(hashed) != stored {
        return Err(FrameError::Hash { size, stored });
    }
    let mut take = Take(hashed.get(PRELUDE_BYTES..).unwrap_or_default());
    let fields = (|| {
        Some((
            take.array::<2>()?,
            take.u16()?,
            SessionId(take.array()?),
            take.u64()?,
            take.u64()?,
            take.u64()?,
            take.array::<32>()?,
        ))
    })();
    let Some(([kind, flags], shard, session, sequence, position, wall_clock_us, previous)) = fields
    else {
        return Err(FrameError::Length);
    };
    let unknown = |what| FrameError::Unknown { size, stored, what };
    if flags != 0 {
        return Err(unknown(format!(
            "record flags {flags:#x}: this program reads records without flags"
        )));
    }
    let Some(kind) = FrameKind::from_code(kind) else {
        return Err(unknown(format!(
            "record kind {kind}: this program reads kinds 1 and 2"
        )));
    };
    Ok(Frame {
        head: FrameHead {
            kind,
            shard,
            session,
            sequence,
            position,
            wall_clock_us,
            previous,
        },
        body: take.0,
        hash: stored,
        size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> FrameHead {
        FrameHead {
            kind: FrameKind::Session,
            shard: 0x0102,
            session: SessionId([9; 16]),
            sequence: 3,
            position: 4,
            wall_clock_us: 5,
            previous: [6; 32],
        }
    }

    /// A frame whose byte `at` is `value`, with the hash that fits.
    fn patched(at: usize, value: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, &head(), b"body");
        bytes[at] = value;
        let end = bytes.len() - 32;
        let hash = record_hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&hash);
        bytes
    }

    #[test]
    fn reads_what_it_writes_and_leaves_the_rest() {
        let mut bytes = Vec::new();
        let hash = encode_frame(&mut bytes, &head(), b"body");
        assert_eq!(bytes.len(), FRAME_OVERHEAD_BYTES + 4);
        bytes.extend_from_slice(b"next");
        let frame = decode_frame(&bytes).expect("whole");
        assert_eq!(
            (frame.head, frame.body, frame.hash),
            (head(), &b"body"[..], hash)
        );
        assert_eq!(frame.size, bytes.len() - 4);
    }

    #[test]
    fn each_beginning_of_a_frame_is_partial() {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, &head(), b"body");
        for cut in 0..bytes.len() {
            assert_eq!(
                decode_frame(&bytes[..cut]),
                Err(FrameError::Partial),
                "{cut}"
            );
        }
    }

    #[test]
    fn refuses_unknown_kinds_and_flags_with_a_clear_message() {
        for (at, value, word) in [(8, 3, "kind 3"), (8, 0, "kind 0"), (9, 1, "flags 0x1")] {
            match decode_frame(&patched(at, value)) {
                Err(FrameError::Unknown { what, .. }) => assert!(what.contains(word), "{what}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn refuses_lying_lengths() {
        for length in [0u32, 107, FRAME_BYTES_MAX as u32, u32::MAX] {
            let mut bytes = patched(8, 1);
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            assert_eq!(decode_frame(&bytes), Err(FrameError::Length));
            bytes[4..8].copy_from_slice(&(!length).to_le_bytes());
            assert_eq!(decode_frame(&bytes), Err(FrameError::Length));
        }
    }

    #[test]
    fn headers_of_other_versions_are_refused_by_name() {
        let header = Header {
            segment: 1,
            first_position: 2,
            created_us: 3,
            writer: SessionId([4; 16]),
            previous: [5; 32],
        };
        let good = header.encode();
        assert_eq!(Header::decode(&good), Ok(header));
        for cut in 0..good.len() {
            assert_eq!(Header::decode(&good[..cut]), Err(HeaderError::Short));
        }
        for (at, expected) in [
            (0, HeaderError::Magic),
            (
                8,
                HeaderError::Version {
                    version: 0,
                    flags: 0,
                },
            ),
            (
                12,
                HeaderError::Version {
                    version: 1,
                    flags: 1,
                },
            ),
            (16, HeaderError::Hash),
            (119, HeaderError::Hash),
        ] {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(Header::decode(&bad), Err(expected));
        }
    }
}
