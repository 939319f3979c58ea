//! A detector's pattern as a tree over bytes: its bounds, its spelling for
//! Hyperscan, and the language of its prefixes.
//!
//! One parser reads all patterns (`regex-syntax`, Unicode off) and Hyperscan
//! gets a spelling printed from the tree, of hexadecimal bytes, classes and
//! counted groups only. So no difference of dialect can make the two engines
//! disagree.

#[cfg(feature = "hyperscan")]
use std::fmt::Write as _;

use regex_automata::MatchKind;
use regex_automata::hybrid::dfa::DFA;
use regex_automata::nfa::thompson;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir, HirKind, Repetition};

use crate::{ByteSet, DETECTOR_LEN_MAX, DETECTOR_LEN_MIN, Detector, MaskError};

/// Most bytes that the automaton of one pattern may take while it is built: a
/// guard against nested counted groups.
const NFA_BYTES_MAX: usize = 16 << 20;

/// Bytes of transitions that one lazy automaton may remember. It starts over
/// when they are used up.
const LAZY_CACHE_BYTES: usize = 1 << 20;

/// A pattern that keeps to the rules: bounded, without anchors.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    hir: Hir,
    /// Length of the shortest match, in bytes.
    pub(crate) len_min: usize,
    /// Length of the longest match, in bytes.
    pub(crate) len_max: usize,
}

impl Pattern {
    /// Reads and checks the pattern of a detector.
    pub(crate) fn read(detector: &Detector) -> Result<Pattern, MaskError> {
        let kind = || detector.kind.clone();
        let hir = ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .dot_matches_new_line(true)
            .nest_limit(50)
            .build()
            .parse(&detector.pattern)
            .map_err(|error| MaskError::PatternSyntax {
                kind: kind(),
                reason: error.to_string(),
            })?;
        if !hir.properties().look_set().is_empty() {
            return Err(MaskError::PatternLooks { kind: kind() });
        }
        if !bytes_only(&hir) {
            return Err(MaskError::PatternSyntax {
                kind: kind(),
                reason: "Unicode classes are not supported, patterns are over bytes".into(),
            });
        }
        let len_min = hir
            .properties()
            .minimum_len()
            .ok_or_else(|| MaskError::PatternSyntax {
                kind: kind(),
                reason: "the pattern can never match".into(),
            })?;
        let len_max = hir
            .properties()
            .maximum_len()
            .ok_or_else(|| MaskError::PatternUnbounded { kind: kind() })?;
        let limit = detector.len_max.min(DETECTOR_LEN_MAX);
        if len_max > limit {
            return Err(MaskError::PatternTooLong {
                kind: kind(),
                len: len_max,
                limit,
            });
        }
        let kept = detector
            .keep
            .0
            .saturating_add(detector.keep.1)
            .saturating_add(1);
        let limit = kept.max(DETECTOR_LEN_MIN);
        if len_min < limit {
            return Err(MaskError::PatternTooShort {
                kind: kind(),
                len: len_min,
                limit,
            });
        }
        Ok(Pattern {
            hir,
            len_min,
            len_max,
        })
    }

    /// The pattern itself.
    pub(crate) fn hir(&self) -> &Hir {
        &self.hir
    }

    /// The pattern behind one byte outside a set.
    pub(crate) fn after_byte_outside(&self, refused: &ByteSet) -> Hir {
        let ranges = (0..=u8::MAX)
            .filter(|byte| !refused.has(*byte))
            .map(|byte| ClassBytesRange::new(byte, byte));
        Hir::concat(vec![
            Hir::class(Class::Bytes(ClassBytes::new(ranges))),
            self.hir.clone(),
        ])
    }

    /// Every proper prefix of a match, the empty one too. With `then_one` a
    /// whole match is counted as a prefix as well, since one more byte decides
    /// it.
    pub(crate) fn prefixes(&self, then_one: bool) -> Hir {
        if then_one {
            let any = Hir::class(Class::Bytes(ClassBytes::new([ClassBytesRange::new(
                0,
                u8::MAX,
            )])));
            prefixes(&Hir::concat(vec![self.hir.clone(), any]))
        } else {
            prefixes(&self.hir)
        }
    }

    /// Whether every byte of every match is in the set.
    pub(crate) fn within(&self, set: &ByteSet) -> bool {
        within(&self.hir, set)
    }

    /// The spelling for Hyperscan.
    #[cfg(feature = "hyperscan")]
    pub(crate) fn hyperscan(&self) -> String {
        let mut text = String::new();
        print(&self.hir, &mut text);
        text
    }
}

/// Compiles trees into one lazy automaton; pattern n is tree n.
pub(crate) fn automaton(
    trees: &[&Hir],
    reverse: bool,
    kind: MatchKind,
    who: &str,
) -> Result<DFA, MaskError> {
    let failed = |reason: String| MaskError::EngineCompile {
        engine: "portable",
        kind: who.to_string(),
        reason,
    };
    let nfa = thompson::Compiler::new()
        .configure(
            thompson::Config::new()
                .utf8(false)
                .reverse(reverse)
                .which_captures(thompson::WhichCaptures::None)
                .nfa_size_limit(Some(NFA_BYTES_MAX)),
        )
        .build_many_from_hir(trees)
        .map_err(|error| failed(error.to_string()))?;
    DFA::builder()
        .configure(
            DFA::config()
                .match_kind(kind)
                .cache_capacity(LAZY_CACHE_BYTES)
                .skip_cache_capacity_check(true),
        )
        .build_from_nfa(nfa)
        .map_err(|error| failed(error.to_string()))
}

fn bytes_only(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Class(Class::Unicode(_)) => false,
        HirKind::Repetition(rep) => bytes_only(&rep.sub),
        HirKind::Capture(capture) => bytes_only(&capture.sub),
        HirKind::Concat(subs) | HirKind::Alternation(subs) => subs.iter().all(bytes_only),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => true,
    }
}

fn within(hir: &Hir, set: &ByteSet) -> bool {
    match hir.kind() {
        HirKind::Empty => true,
        HirKind::Literal(literal) => literal.0.iter().all(|byte| set.has(*byte)),
        HirKind::Class(Class::Bytes(class)) => class
            .ranges()
            .iter()
            .all(|range| (range.start()..=range.end()).all(|byte| set.has(byte))),
        HirKind::Class(Class::Unicode(_)) | HirKind::Look(_) => false,
        HirKind::Repetition(rep) => within(&rep.sub, set),
        HirKind::Capture(capture) => within(&capture.sub, set),
        HirKind::Concat(subs) | HirKind::Alternation(subs) => {
            subs.iter().all(|sub| within(sub, set))
        }
    }
}

fn repeat(sub: Hir, min: u32, max: u32) -> Hir {
    Hir::repetition(Repetition {
        min,
        max: Some(max),
        greedy: true,
        sub: Box::new(sub),
    })
}

/// The proper prefixes of the words of a bounded tree (perhaps some whole
/// words beside, which only lengthens the hold-back).
fn prefixes(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Hir::fail(),
        HirKind::Class(_) => Hir::empty(),
        HirKind::Literal(literal) => {
            // a b c -> (a (b)?)?
            let proper = literal.0.len().saturating_sub(1);
            literal
                .0
                .iter()
                .take(proper)
                .rev()
                .fold(Hir::empty(), |inner, byte| {
                    repeat(Hir::concat(vec![Hir::literal([*byte]), inner]), 0, 1)
                })
        }
        HirKind::Capture(capture) => prefixes(&capture.sub),
        HirKind::Alternation(subs) => Hir::alternation(subs.iter().map(prefixes).collect()),
        // Some whole copies, then part of one more.
        HirKind::Repetition(rep) => match rep.max.and_then(|max| max.checked_sub(1)) {
            Some(whole) => Hir::concat(vec![
                repeat((*rep.sub).clone(), 0, whole),
                prefixes(&rep.sub),
            ]),
            None => Hir::fail(),
        },
        // Part of the first, or the first and part of the rest.
        HirKind::Concat(subs) => subs.iter().rev().fold(Hir::fail(), |rest, sub| {
            Hir::alternation(vec![prefixes(sub), Hir::concat(vec![sub.clone(), rest])])
        }),
    }
}

#[cfg(feature = "hyperscan")]
fn print(hir: &Hir, text: &mut String) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => {
            for byte in &literal.0 {
                push_byte(text, *byte);
            }
        }
        HirKind::Class(Class::Bytes(class)) => {
            text.push('[');
            for range in class.ranges() {
                push_byte(text, range.start());
                if range.end() > range.start() {
                    text.push('-');
                    push_byte(text, range.end());
                }
            }
            text.push(']');
        }
        HirKind::Class(Class::Unicode(_)) => {}
        HirKind::Repetition(rep) => {
            group(&rep.sub, text);
            let max = rep.max.unwrap_or(rep.min);
            // Writing to a string cannot fail.
            let _ = write!(text, "{{{},{}}}", rep.min, max);
        }
        HirKind::Capture(capture) => group(&capture.sub, text),
        HirKind::Concat(subs) => subs.iter().for_each(|sub| match sub.kind() {
            HirKind::Alternation(_) => group(sub, text),
            _ => print(sub, text),
        }),
        HirKind::Alternation(subs) => {
            for (index, sub) in subs.iter().enumerate() {
                if index > 0 {
                    text.push('|');
                }
                print(sub, text);
            }
        }
    }
}

#[cfg(feature = "hyperscan")]
fn group(hir: &Hir, text: &mut String) {
    text.push_str("(?:");
    print(hir, text);
    text.push(')');
}

/// Appends one byte in Hyperscan's spelling.
#[cfg(feature = "hyperscan")]
pub(crate) fn push_byte(text: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex_automata::{Anchored, Input};

    fn read(pattern: &str) -> Result<Pattern, MaskError> {
        Pattern::read(&Detector::new("k", pattern))
    }

    #[test]
    fn refuses_what_has_no_bound_or_looks_around() {
        assert!(matches!(
            read("secret-[a-z]+"),
            Err(MaskError::PatternUnbounded { .. })
        ));
        assert!(matches!(
            read("secret-[a-z]{8,}"),
            Err(MaskError::PatternUnbounded { .. })
        ));
        assert!(matches!(
            read(r"\bsecret-key"),
            Err(MaskError::PatternLooks { .. })
        ));
        assert!(matches!(
            read("^secret-key"),
            Err(MaskError::PatternLooks { .. })
        ));
        assert!(matches!(
            read("secret-[a-z]{8,2000}"),
            Err(MaskError::PatternTooLong { .. })
        ));
        assert!(matches!(
            read("short[a-z]{0,9}"),
            Err(MaskError::PatternTooShort { .. })
        ));
        assert!(matches!(
            read("(secret"),
            Err(MaskError::PatternSyntax { .. })
        ));
        assert!(matches!(
            read("secret-key[^\\x00-\\xff]"),
            Err(MaskError::PatternSyntax { .. })
        ));
        assert!(matches!(
            read("(?u)secret-key\\w"),
            Err(MaskError::PatternSyntax { .. })
        ));
    }

    #[test]
    fn keeps_within_the_authors_own_limit() {
        let mut detector = Detector::new("k", "secret-[a-z]{8,20}");
        detector.len_max = 20;
        assert!(matches!(
            Pattern::read(&detector),
            Err(MaskError::PatternTooLong {
                len: 27,
                limit: 20,
                ..
            })
        ));
        detector.len_max = 27;
        let pattern = Pattern::read(&detector).expect("within its limit");
        assert_eq!((pattern.len_min, pattern.len_max), (15, 27));
    }

    #[test]
    fn the_prefix_language_holds_each_proper_prefix_and_no_more() {
        for (pattern, words) in [
            ("abcdefgh", &["abcdefgh"][..]),
            (
                "ab(cd|ce[0-9]{2,4})fghij",
                &["abcdfghij", "abce12fghij", "abce1234fghij"],
            ),
            ("x(ab){3,5}-y", &["xababab-y", "xababababab-y"]),
        ] {
            let pattern = read(pattern).expect("a good pattern");
            let tree = pattern.prefixes(false);
            let dfa = automaton(&[&tree], true, MatchKind::All, "test").expect("small");
            let mut cache = dfa.create_cache();
            let mut whole = |text: &str| {
                let input = Input::new(text).anchored(Anchored::Yes);
                let found = dfa
                    .try_search_rev(&mut cache, &input)
                    .expect("no quit bytes");
                found.is_some_and(|half| half.offset() == 0)
            };
            for word in words {
                for len in 1..word.len() {
                    assert!(whole(&word[..len]), "{}", &word[..len]);
                }
                assert!(!whole(&format!("{word}!")));
                assert!(!whole(&format!("!{}", &word[..3])));
            }
        }
    }

    #[cfg(feature = "hyperscan")]
    #[test]
    fn prints_plain_bytes_classes_and_groups() {
        let pattern = read("a(?:b|[c-e]{2,3})(?i)kkkkkkk").expect("a good pattern");
        let text = pattern.hyperscan();
        assert!(text.starts_with("\\x61(?:"), "{text}");
        assert!(
            text.contains("[\\x63-\\x65]){2,3}") && text.contains("[\\x4b\\x6b]"),
            "{text}"
        );
    }
}
