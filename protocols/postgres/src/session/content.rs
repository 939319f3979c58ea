//! The seam to masking: what a session asks about content that flows to the agent.

/// How a mask is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// A readable placeholder of any length; the message is re-made around it.
    Placeholder,
    /// Exactly as many bytes as were there: inside binary values, and where the length
    /// has already been released.
    SameLength,
}

/// Finds and masks secrets. The gateway implements it with its masking engine; this
/// crate knows nothing of what a secret looks like.
pub trait Content {
    /// A value that is masked while it arrives in pieces.
    type Stream;

    /// True when neither `bytes` nor ANY sub-slice of it, taken as a value of its own,
    /// can hold something to mask. Called over runs of raw messages, headers included,
    /// so the answer must not depend on what stands around a secret.
    fn is_clean(&mut self, bytes: &[u8]) -> bool;

    /// Masks one whole value; `None` when it stays as it is. With [`Fill::SameLength`]
    /// the result must have exactly the length of `value`; a session ends otherwise.
    fn mask_value(&mut self, value: &[u8], fill: Fill) -> Option<Vec<u8>>;

    /// Starts a value that comes in pieces.
    fn open(&mut self, fill: Fill) -> Self::Stream;

    /// Feeds the next piece and appends to `out` what can be released. Whatever could
    /// still become part of a secret must be held back.
    fn push(&mut self, stream: &mut Self::Stream, input: &[u8], out: &mut Vec<u8>);

    /// Ends the value and appends what was held back. With [`Fill::SameLength`] all
    /// output together must have the length of all input.
    fn finish(&mut self, stream: Self::Stream, out: &mut Vec<u8>);
}
