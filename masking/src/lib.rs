//! Masking of secrets in content: known credentials in all their derived
//! forms, and detectors for the kinds of secret that providers issue.
//!
//! The law: **the same bytes cut anywhere give the same output**, and a byte
//! that was released can never turn out to have been the start of a secret.
//!
//! ```
//! # use portcullis_masking as masking;
//! use masking::{Config, Fill, Findings, KnownSecret, Masker, RuleSet, builtin_pack};
//!
//! # fn main() -> Result<(), masking::MaskError> {
//! // Off the shard: compile once, at start and at each reload.
//! let rules = RuleSet::compile(Config {
//!     detectors: builtin_pack("default").unwrap_or_default(),
//!     known: vec![KnownSecret::new("password:prod", "Tq7vXz2LmP9dRk4WbN8s")],
//!     tag_key: [7; 32],
//!     ..Config::default()
//! })?;
//!
//! // On the shard: one masker, used for everything.
//! let mut masker = Masker::new(rules)?;
//! let mut findings = Findings::new();
//! let rows = b"1|Ada\n2|Tq7vXz2LmP9dRk4WbN8s\n";
//! if !masker.is_clean(rows) {
//!     let value = masker.mask_value(&rows[8..28], Fill::Placeholder, &mut findings);
//!     assert_eq!(value.as_deref(), Some(b"[masked:password:prod]".as_slice()));
//! }
//!
//! // Content in pieces.
//! let mut out = Vec::new();
//! let mut stream = masker.stream(Fill::SameLength);
//! stream.push(&mut masker, b"key: Tq7vXz2Lm", &mut out, &mut findings);
//! assert_eq!(out, b"key: ");
//! stream.push(&mut masker, b"P9dRk4WbN8s\n", &mut out, &mut findings);
//! stream.finish(&mut masker, &mut out, &mut findings);
//! assert_eq!(out.len(), 26);
//! assert_eq!(findings.count("password:prod"), 2);
//!
//! // A request that carries a mask is to be refused.
//! assert!(masker.contains_mask(&out));
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//! 1. The *screen* ([`Masker::is_clean`]) is one block scan by Hyperscan, or by
//!    a portable engine with the same answers. It says which detectors could
//!    match at all and whether a known secret could be there. It knows no
//!    places and no boundaries, so it may run over raw frames.
//! 2. Only where it saw something, the *exact search* runs: Aho-Corasick over
//!    all forms of known secrets, and for each detector that was seen a lazy
//!    automaton, then its boundaries, context words, checksum and entropy.
//! 3. Matches become spans, spans become masks. [`Masker`] states the rules.
//!
//! A stream is a window of held bytes over which the same search runs. How much
//! is held is told by automata over the *prefixes* of what is looked for, run
//! backwards from the end: as a rule nothing.
//!
//! # What it leaves to others
//! Structure: lengths, escapes, arrays and checksums around a masked value are
//! re-made by the caller. Compressed content is decoded before it comes here.
//! Detectors protect against exposure, not against an agent that computes
//! (reverses, cuts, or encodes in ways that [`KnownSecret`]'s forms do not
//! name).
//!
//! # Memory of secrets
//! Secrets are wiped from what this crate owns ([`KnownSecret`], derived forms,
//! held bytes). The compiled automata hold the forms too and are freed without
//! being wiped, as their crates offer no way to.
//!
//! # Hyperscan
//! Only block databases are used, compiled without start of match. The streams
//! of its crate leak when dropped and may outlive their database; this crate
//! never opens one, and so needs no unsafe code.

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
