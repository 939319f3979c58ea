//! Reads choices off a fuzzer's input. Never fails: what is not there is zero or empty.

/// The input, from the front. Choices come first, so that a corpus file stays readable:
/// a few control bytes, then the peer's bytes.
#[derive(Clone)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// At the start of `data`.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Input<'a> {
        Input(data)
    }

    /// True when nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte, 0 at the end.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// The next `count` bytes, or all that are left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes behind a length of one byte.
    pub fn short(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte());
        self.take(count)
    }

    /// Read sizes: a count (0 to 7), then that many sizes. See [`pieces`].
    pub fn sizes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte() & 7);
        self.take(count)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Cuts `bytes` into pieces of the given sizes, in turn; 0 stands for 256. No sizes: whole.
#[must_use]
pub fn pieces<'a>(mut bytes: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let mut out = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !bytes.is_empty() {
        let size = match sizes.next() {
            None => bytes.len(),
            Some(0) => 256,
            Some(size) => usize::from(*size),
        };
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        out.push(piece);
        bytes = rest;
    }
    out
}

/// True where `needle` stands anywhere in `bytes`.
#[must_use]
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
