//! Splits a byte stream into typed messages, whole or streamed, without copying
//! where a message lies in one input.
//!
//! ```text
//!  queued inputs        front (contiguous)                    joined
//!  [Bytes][Bytes] ───►  [msg][msg][msg][par  ── copied once ─►  [par│tial]
//!                        └── peek_run ──┘
//! ```
//!
//! A message that lies whole in `front` is handed out as a slice of it. One that is
//! cut is copied, each byte once, into `joined`, so that the input it came from can
//! be given back; `joined` grows with what has arrived, never with what was
//! announced. A streamed message is handed out as slices of the inputs and never
//! held.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::error::WireError;

/// Type byte and Int32 length.
const HEADER_BYTES: usize = 5;
/// The length counts itself.
const LENGTH_MIN: u32 = 4;

/// One whole message. `Debug` shows its type and length, never its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Type byte.
    pub tag: u8,
    /// Header and body: exactly the bytes that came. At least 5 bytes.
    pub raw: Bytes,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("tag", &char::from(self.tag))
            .field("bytes", &self.raw.len())
            .finish()
    }
}

impl Frame {
    /// The bytes after type and length.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.raw.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// The body as a shared slice of [`Frame::raw`].
    #[must_use]
    pub fn body_bytes(&self) -> Bytes {
        self.raw.slice(HEADER_BYTES.min(self.raw.len())..)
    }

    /// Turns a slice that a decoder took out of this frame into `Bytes` that share its
    /// memory. A slice from elsewhere is copied.
    #[must_use]
    pub fn share(&self, part: &[u8]) -> Bytes {
        let all = self.raw.as_ptr_range();
        let inner = part.as_ptr_range();
        if all.start <= inner.start && inner.end <= all.end {
            self.raw.slice_ref(part)
        } else {
            Bytes::copy_from_slice(part)
        }
    }
}

/// What is to be done with a message, decided from its header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Hold it until it is whole.
    Whole,
    /// Hand it out as it comes: [`Piece::Start`], chunks, [`Piece::End`].
    Stream,
    /// Fail with [`WireError::TooLarge`]; the stream cannot go on.
    Refuse,
}

/// What [`Frames::next`] hands out. `Debug` shows no bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// A whole message.
    Frame(Frame),
    /// A streamed message begins; its body has `length` bytes.
    Start {
        /// Type byte.
        tag: u8,
        /// Bytes of the body, without the length field.
        length: u32,
    },
    /// The next bytes of the streamed body; never empty.
    Chunk(Bytes),
    /// All bytes of the streamed body have been handed out.
    End,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Piece::Frame(frame) => frame.fmt(f),
            Piece::Start { tag, length } => write!(f, "Start({:?}, {length})", char::from(*tag)),
            Piece::Chunk(bytes) => write!(f, "Chunk({} bytes)", bytes.len()),
            Piece::End => f.write_str("End"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between messages, or inside a header.
    Boundary,
    /// A message of `total` bytes, header included, is wanted whole.
    Collecting { total: usize },
    /// `left` bytes of a streamed body are still to come.
    Streaming { left: usize },
    /// The place in the stream is lost.
    Failed(WireError),
}

/// The splitter of one direction of one connection. `Debug` shows no bytes.
pub struct Frames {
    state: State,
    front: Bytes,
    queued: VecDeque<Bytes>,
    joined: BytesMut,
    buffered: usize,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames")
            .field("state", &self.state)
            .field("buffered", &self.buffered)
            .finish_non_exhaustive()
    }
}

impl Default for Frames {
    fn default() -> Frames {
        Frames::new()
    }
}

impl Frames {
    /// An empty splitter, at a message boundary.
    #[must_use]
    pub fn new() -> Frames {
        Frames {
            state: State::Boundary,
            front: Bytes::new(),
            queued: VecDeque::new(),
            joined: BytesMut::new(),
            buffered: 0,
        }
    }

    /// Adds bytes as they came off the connection. Bounded by the caller, who stops
    /// reading while [`Frames::buffered`] is above what it allows.
    pub fn push(&mut self, input: Bytes) {
        self.buffered = self.buffered.saturating_add(input.len());
        if self.front.is_empty() && self.queued.is_empty() {
            self.front = input;
        } else if !input.is_empty() {
            self.queued.push_back(input);
        }
    }

    /// Bytes pushed and not yet handed out.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// True between two messages with nothing buffered: a place where the peer may
    /// close without leaving a message cut.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Boundary) && self.buffered == 0
    }

    /// The next piece, or `None` when more bytes are needed.
    ///
    /// `rule` is asked once per message, with type byte and body length, before any of
    /// the body is held. Errors: [`WireError::BadLength`], and [`WireError::TooLarge`]
    /// where the rule said [`Treatment::Refuse`]; both for good, every later call
    /// returns the same.
    pub fn next(
        &mut self,
        rule: impl FnOnce(u8, u32) -> Treatment,
    ) -> Result<Option<Piece>, WireError> {
        if let State::Boundary = self.state {
            let Some((tag, length)) = self.header() else {
                return Ok(None);
            };
            if length < LENGTH_MIN || length > i32::MAX as u32 {
                return self.fail(WireError::BadLength { tag, length });
            }
            let body = length.saturating_sub(LENGTH_MIN);
            match rule(tag, body) {
                Treatment::Refuse => {
                    return self.fail(WireError::TooLarge { tag, length: body });
                }
                Treatment::Whole => {
                    let total = HEADER_BYTES.saturating_add(body as usize);
                    self.state = State::Collecting { total };
                }
                Treatment::Stream => {
                    self.skip_header();
                    let left = body as usize;
                    self.state = State::Streaming { left };
                    return Ok(Some(Piece::Start { tag, length: body }));
                }
            }
        }
        match self.state {
            State::Failed(error) => Err(error),
            State::Boundary => Ok(None),
            State::Collecting { total } => Ok(self.collect(total)),
            State::Streaming { left: 0 } => {
                self.state = State::Boundary;
                Ok(Some(Piece::End))
            }
            State::Streaming { left } => Ok(self.stream(left)),
        }
    }

    /// Length in bytes of the run of *complete* messages at the front of the current
    /// contiguous input whose type byte satisfies `wanted`. 0 inside a message, at a
    /// message that is cut, and at a length that is impossible (left for
    /// [`Frames::next`] to report).
    pub fn peek_run(&mut self, wanted: impl Fn(u8) -> bool) -> usize {
        if !matches!(self.state, State::Boundary) || !self.joined.is_empty() {
            return 0;
        }
        self.advance();
        let mut run = 0usize;
        let mut rest: &[u8] = &self.front;
        while let Some((&[tag, a, b, c, d], _)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let length = u32::from_be_bytes([a, b, c, d]);
            if !wanted(tag) || length < LENGTH_MIN || length > i32::MAX as u32 {
                break;
            }
            let total = (length as usize).saturating_add(1);
            let Some(after) = rest.get(total..) else {
                break;
            };
            run = run.saturating_add(total);
            rest = after;
        }
        run
    }

    /// Takes `bytes` off the front of the current contiguous input, as
    /// [`Frames::peek_run`] measured it just before. Never more than there is.
    pub fn take_run(&mut self, bytes: usize) -> Bytes {
        debug_assert!(matches!(self.state, State::Boundary) && self.joined.is_empty());
        let bytes = bytes.min(self.front.len());
        self.buffered = self.buffered.saturating_sub(bytes);
        self.front.split_to(bytes)
    }

    /// The current contiguous input, from the present place on: what
    /// [`Frames::peek_run`] looks at. May be empty while more is queued behind a cut
    /// message.
    #[must_use]
    pub fn contiguous(&self) -> &[u8] {
        &self.front
    }

    /// Everything that was pushed and not handed out, in order, as one piece. For a
    /// boundary between protocols (login to session). A streamed or half-collected
    /// message gives what is left of it.
    #[must_use]
    pub fn into_rest(mut self) -> Bytes {
        if self.joined.is_empty() && self.queued.is_empty() {
            return self.front;
        }
        self.joined.extend_from_slice(&self.front);
        for input in self.queued {
            self.joined.extend_from_slice(&input);
        }
        self.joined.freeze()
    }

    fn fail(&mut self, error: WireError) -> Result<Option<Piece>, WireError> {
        self.state = State::Failed(error);
        Err(error)
    }

    /// Makes `front` non-empty if anything is queued.
    fn advance(&mut self) {
        while self.front.is_empty() {
            let Some(input) = self.queued.pop_front() else {
                return;
            };
            self.front = input;
        }
    }

    /// Type byte and length, once five bytes are there.
    fn header(&mut self) -> Option<(u8, u32)> {
        self.advance();
        if self.joined.is_empty() && self.front.len() >= HEADER_BYTES {
            return parse_header(&self.front);
        }
        self.join_up_to(HEADER_BYTES);
        parse_header(&self.joined)
    }

    fn skip_header(&mut self) {
        self.buffered = self.buffered.saturating_sub(HEADER_BYTES);
        if self.joined.is_empty() {
            let header = HEADER_BYTES.min(self.front.len());
            drop(self.front.split_to(header));
        } else {
            debug_assert_eq!(self.joined.len(), HEADER_BYTES);
            self.joined.clear();
        }
    }

    /// Moves bytes from the inputs to `joined` until it holds `total`.
    fn join_up_to(&mut self, total: usize) {
        loop {
            self.advance();
            let missing = total.saturating_sub(self.joined.len());
            let step = missing.min(self.front.len());
            if step == 0 {
                return;
            }
            let part = self.front.split_to(step);
            self.joined.extend_from_slice(&part);
        }
    }

    fn collect(&mut self, total: usize) -> Option<Piece> {
        let raw = if self.joined.is_empty() && self.front.len() >= total {
            self.front.split_to(total)
        } else {
            self.join_up_to(total);
            if self.joined.len() < total {
                return None;
            }
            std::mem::take(&mut self.joined).freeze()
        };
        debug_assert_eq!(raw.len(), total);
        self.buffered = self.buffered.saturating_sub(total);
        self.state = State::Boundary;
        let tag = raw.first().copied()?;
        Some(Piece::Frame(Frame { tag, raw }))
    }

    fn stream(&mut self, left: usize) -> Option<Piece> {
        self.advance();
        if self.front.is_empty() {
            return None;
        }
        let step = left.min(self.front.len());
        let chunk = self.front.split_to(step);
        self.buffered = self.buffered.saturating_sub(step);
        let left = left.saturating_sub(step);
        self.state = State::Streaming { left };
        Some(Piece::Chunk(chunk))
    }
}

fn parse_header(bytes: &[u8]) -> Option<(u8, u32)> {
    let (&[tag, a, b, c, d], _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    Some((tag, u32::from_be_bytes([a, b, c, d])))
}

#[cfg(test)]
mod tests;
