//! Masking of secrets in content. Knows no protocol, no socket, no clock.

#![forbid(unsafe_code)]

mod checks;
mod detector;
mod error;
mod findings;
mod forms;
#[cfg(feature = "hyperscan")]
mod hyperscan;
mod known;
mod literals;
mod mark;
mod masker;
mod pack;
mod pattern;
mod rules;
mod screen;
mod search;
mod span;
mod stream;

pub use detector::{Boundary, ByteSet, Checksum, Detector, Tail};
pub use error::MaskError;
pub use findings::Findings;
pub use known::{KNOWN_BITS_MIN, KnownSecret, WeakKnown, known_secret_bits};
pub use mark::{Fill, KIND_BYTES_MAX, TAG_BYTES};
pub use masker::Masker;
pub use pack::builtin_pack;
pub use rules::{
    CONTEXT_WORDS_MAX, Config, DETECTORS_MAX, Engine, FORM_BYTES_MAX, KNOWN_MAX, RuleSet,
};
pub use stream::StreamMasker;

/// Longest match of a detector, in bytes. What is longer needs a
/// [`Tail`]: the hold-back of every stream is as long as the longest match.
pub const DETECTOR_LEN_MAX: usize = 1024;

/// Shortest match of a detector, in bytes: shorter ones match by chance.
pub const DETECTOR_LEN_MIN: usize = 8;

/// How far before a match its context words are looked for, in bytes.
pub const CONTEXT_BYTES: usize = 64;

/// Longest known secret, in bytes: an RSA key of 8192 bits in PEM is 6.3 KiB.
pub const KNOWN_BYTES_MAX: usize = 8 * 1024;

/// Shortest known secret that is looked for, in bytes. A shorter one is
/// likely to be part of ordinary words, which would be masked everywhere.
pub const KNOWN_BYTES_MIN: usize = 6;
