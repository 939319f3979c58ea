//! What can go wrong when a rule set is compiled or a masker is made. Nothing
//! can go wrong while content is masked: an engine that fails there makes the
//! masker do more work or mask more, never less.

/// Why a rule set was refused or a masker could not be made. No variant
/// carries a byte of a known secret.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum MaskError {
    /// The pattern of a detector is not a regular expression we can read
    /// (the operator's fault).
    #[error("detector {kind}: pattern cannot be read: {reason}")]
    PatternSyntax {
        /// Kind of the detector.
        kind: String,
        /// What the parser said.
        reason: String,
    },
    /// A pattern has no upper bound on its length (`*`, `+`, `{n,}`), so no
    /// hold-back could be stated for it.
    #[error(
        "detector {kind}: pattern has no upper length; use {{n,m}}, and a tail for what may follow"
    )]
    PatternUnbounded {
        /// Kind of the detector.
        kind: String,
    },
    /// A pattern can match more bytes than the detector's `len_max`, or
    /// `len_max` is above [`crate::DETECTOR_LEN_MAX`].
    #[error("detector {kind}: pattern can match {len} bytes, the limit is {limit}")]
    PatternTooLong {
        /// Kind of the detector.
        kind: String,
        /// Longest match of the pattern, in bytes.
        len: usize,
        /// The limit it broke, in bytes.
        limit: usize,
    },
    /// A pattern can match fewer bytes than [`crate::DETECTOR_LEN_MIN`], or no
    /// more than what `keep` leaves unmasked.
    #[error(
        "detector {kind}: pattern can match as little as {len} bytes, at least {limit} are needed"
    )]
    PatternTooShort {
        /// Kind of the detector.
        kind: String,
        /// Shortest match of the pattern, in bytes.
        len: usize,
        /// The least it must be, in bytes.
        limit: usize,
    },
    /// A pattern holds an anchor, a word boundary or a look-around. Those are
    /// second checks (`left`, `right`, `context`), since the screen runs over
    /// raw frames where a value's edges are not known.
    #[error(
        "detector {kind}: anchors and boundaries belong into `left` and `right`, not into the pattern"
    )]
    PatternLooks {
        /// Kind of the detector.
        kind: String,
    },
    /// Two settings of one detector contradict each other.
    #[error("detector {kind}: {reason}")]
    DetectorInconsistent {
        /// Kind of the detector.
        kind: String,
        /// Which settings, and why.
        reason: &'static str,
    },
    /// A kind is empty, too long, or has characters beyond letters, digits and
    /// `. _ : / -`. It is written into placeholders, so it must be plain.
    #[error("kind {kind:?}: use 1 to 64 letters, digits and . _ : / -")]
    KindInvalid {
        /// The kind as given.
        kind: String,
    },
    /// A known secret is longer than [`crate::KNOWN_BYTES_MAX`].
    #[error("known secret {kind}: {len} bytes, the limit is {limit}")]
    KnownTooLong {
        /// Kind of the secret.
        kind: String,
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More detectors, context words, known secrets or derived bytes than a
    /// rule set may hold.
    #[error("too many {what}: {count}, the limit is {limit}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// An engine refused to compile the set (resource or our own fault).
    #[error("{engine} cannot compile {kind}: {reason}")]
    EngineCompile {
        /// Which engine.
        engine: &'static str,
        /// Kind of the detector at fault, or a word for the whole set.
        kind: String,
        /// What the engine said.
        reason: String,
    },
    /// The engine asked for is not in this build or not usable on this CPU.
    #[error("engine {engine} is not available: {reason}")]
    EngineUnavailable {
        /// Which engine.
        engine: &'static str,
        /// Why.
        reason: String,
    },
    /// Scratch memory for a masker could not be had.
    #[error("no scratch memory for {engine}: {reason}")]
    Scratch {
        /// Which engine.
        engine: &'static str,
        /// What it said.
        reason: String,
    },
}
