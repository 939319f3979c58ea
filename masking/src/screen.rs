//! The screen: which detectors could have a match in some bytes, which context
//! words and whether any known secret stand there. It says nothing of places,
//! knows no boundaries and no value edges, and so can run over raw frames.
//!
//! Two engines give the same answers: Hyperscan, and pure Rust.

use aho_corasick::AhoCorasick;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::{Input, MatchKind, PatternSet};
use zeroize::Zeroizing;

#[cfg(feature = "hyperscan")]
use crate::hyperscan::{Database, DatabaseScratch, Expression, available};
use crate::literals::Literals;
use crate::pattern::{self, Pattern};
use crate::{Engine, MaskError};

/// A growable set of small numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn with_len(len: usize) -> Self {
        Bits(vec![0; len.div_ceil(64)])
    }

    pub(crate) fn set(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    pub(crate) fn has(&self, index: usize) -> bool {
        self.0
            .get(index / 64)
            .is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    pub(crate) fn any(&self) -> bool {
        self.0.iter().any(|word| *word != 0)
    }

    pub(crate) fn clear(&mut self) {
        self.fill(0);
    }

    pub(crate) fn merge(&mut self, other: &Bits) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    fn fill(&mut self, value: u64) {
        self.0.fill(value);
    }
}

/// What the screen saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Detectors without context words whose pattern matched.
    pub(crate) detectors: Bits,
    /// Context words.
    pub(crate) words: Bits,
    /// A known secret, or a piece of one.
    pub(crate) known: bool,
}

impl Seen {
    pub(crate) fn clear(&mut self) {
        self.detectors.clear();
        self.words.clear();
        self.known = false;
    }

    /// The answer when an engine failed: everything may be there.
    fn assume_all(&mut self) {
        self.detectors.fill(u64::MAX);
        self.words.fill(u64::MAX);
        self.known = true;
    }
}

/// What a screen is compiled from.
pub(crate) struct ScreenParts<'a> {
    /// Kind and pattern of each detector; `None` for those with context words,
    /// which are found by their words instead.
    pub(crate) detectors: Vec<(&'a str, Option<&'a Pattern>)>,
    /// Context words, lower case.
    pub(crate) words: &'a [Vec<u8>],
    /// Forms of known secrets; the portable engine has the exact search instead.
    #[cfg_attr(not(feature = "hyperscan"), allow(dead_code))]
    pub(crate) forms: &'a [(Zeroizing<Vec<u8>>, u32)],
}

/// A compiled screen.
pub(crate) struct Screen {
    engine: ScreenEngine,
    detectors: usize,
    words: usize,
}

enum ScreenEngine {
    #[cfg(feature = "hyperscan")]
    Hyperscan(Option<Database>),
    Portable {
        patterns: Option<Box<DFA>>,
        /// Pattern number of `patterns` to detector.
        numbers: Vec<usize>,
        words: Option<AhoCorasick>,
    },
}

/// Working memory for one [`Screen`].
pub(crate) enum ScreenScratch {
    #[cfg(feature = "hyperscan")]
    Hyperscan(Option<DatabaseScratch>),
    Portable {
        cache: Option<Box<Cache>>,
        set: PatternSet,
    },
}

/// Bytes of a known secret's form that Hyperscan looks for; the exact search
/// follows. Sixteen bytes of a form hardly occur by chance.
#[cfg(feature = "hyperscan")]
const FRAGMENT_BYTES_MAX: usize = 16;

impl Screen {
    /// Compiles for an engine. `Auto` takes Hyperscan where it can be had.
    pub(crate) fn compile(engine: Engine, parts: &ScreenParts<'_>) -> Result<Screen, MaskError> {
        let engine = match engine {
            Engine::Portable => portable(parts)?,
            #[cfg(feature = "hyperscan")]
            Engine::Auto if available().is_err() => portable(parts)?,
            #[cfg(feature = "hyperscan")]
            Engine::Auto | Engine::Hyperscan => vectored(parts)?,
            #[cfg(not(feature = "hyperscan"))]
            Engine::Auto => portable(parts)?,
            #[cfg(not(feature = "hyperscan"))]
            Engine::Hyperscan => {
                return Err(MaskError::EngineUnavailable {
                    engine: "hyperscan",
                    reason: "this build is without it".into(),
                });
            }
        };
        Ok(Screen {
            engine,
            detectors: parts.detectors.len(),
            words: parts.words.len(),
        })
    }

    /// Name of the engine at work.
    pub(crate) fn engine(&self) -> Engine {
        match self.engine {
            #[cfg(feature = "hyperscan")]
            ScreenEngine::Hyperscan(_) => Engine::Hyperscan,
            ScreenEngine::Portable { .. } => Engine::Portable,
        }
    }

    /// An empty answer of the right size.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            detectors: Bits::with_len(self.detectors),
            words: Bits::with_len(self.words),
            known: false,
        }
    }

    /// Working memory.
    pub(crate) fn scratch(&self) -> Result<ScreenScratch, MaskError> {
        Ok(match &self.engine {
            #[cfg(feature = "hyperscan")]
            ScreenEngine::Hyperscan(database) => {
                ScreenScratch::Hyperscan(database.as_ref().map(Database::scratch).transpose()?)
            }
            ScreenEngine::Portable {
                patterns, numbers, ..
            } => ScreenScratch::Portable {
                cache: patterns.as_ref().map(|dfa| Box::new(dfa.create_cache())),
                set: PatternSet::new(numbers.len()),
            },
        })
    }

    /// Looks at bytes and writes what it saw. With `stop_early` it may stop at
    /// the first detector or known secret, since that settles the question.
    pub(crate) fn look(
        &self,
        scratch: &mut ScreenScratch,
        literals: Option<&Literals>,
        bytes: &[u8],
        stop_early: bool,
        seen: &mut Seen,
    ) {
        seen.clear();
        match (&self.engine, scratch) {
            #[cfg(feature = "hyperscan")]
            (ScreenEngine::Hyperscan(None), _) => {}
            #[cfg(feature = "hyperscan")]
            (ScreenEngine::Hyperscan(Some(database)), ScreenScratch::Hyperscan(Some(scratch))) => {
                let (detectors, words) = (self.detectors, self.words);
                let went_well = database.scan(scratch, bytes, |id| {
                    if id < detectors {
                        seen.detectors.set(id);
                        !stop_early
                    } else if id < detectors + words {
                        seen.words.set(id - detectors);
                        true
                    } else {
                        seen.known = true;
                        !stop_early
                    }
                });
                if !went_well {
                    seen.assume_all();
                }
            }
            (
                ScreenEngine::Portable {
                    patterns,
                    numbers,
                    words,
                },
                ScreenScratch::Portable { cache, set },
            ) => {
                if let Some(literals) = literals {
                    literals.run(literals.start(), bytes, |_, _, _| seen.known = true);
                }
                if seen.known && stop_early {
                    return;
                }
                if let Some(words) = words {
                    see_words(words, bytes, &mut seen.words);
                }
                if let (Some(dfa), Some(cache)) = (patterns, cache) {
                    set.clear();
                    match dfa.try_which_overlapping_matches(cache, &Input::new(bytes), set) {
                        Ok(()) => {
                            for pattern in set.iter() {
                                if let Some(index) = numbers.get(pattern.as_usize()) {
                                    seen.detectors.set(*index);
                                }
                            }
                        }
                        Err(_) => seen.assume_all(),
                    }
                }
            }
            // Scratch of another screen: an error of ours, so nothing is ruled out.
            #[cfg(feature = "hyperscan")]
            _ => seen.assume_all(),
        }
    }
}

/// A searcher for context words; `None` without words.
pub(crate) fn word_searcher(words: &[Vec<u8>]) -> Result<Option<AhoCorasick>, MaskError> {
    if words.is_empty() {
        return Ok(None);
    }
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(words)
        .map(Some)
        .map_err(|error| MaskError::EngineCompile {
            engine: "aho-corasick",
            kind: "context words".into(),
            reason: error.to_string(),
        })
}

/// Notes every word that stands in the bytes.
pub(crate) fn see_words(searcher: &AhoCorasick, bytes: &[u8], seen: &mut Bits) {
    for found in searcher.find_overlapping_iter(bytes) {
        seen.set(found.pattern().as_usize());
    }
}

fn portable(parts: &ScreenParts<'_>) -> Result<ScreenEngine, MaskError> {
    let (numbers, trees): (Vec<_>, Vec<_>) = parts
        .detectors
        .iter()
        .enumerate()
        .filter_map(|(index, (_, pattern))| pattern.map(|pattern| (index, pattern.hir())))
        .unzip();
    let patterns = if trees.is_empty() {
        None
    } else {
        Some(Box::new(pattern::automaton(
            &trees,
            false,
            MatchKind::All,
            "rule set",
        )?))
    };
    Ok(ScreenEngine::Portable {
        patterns,
        numbers,
        words: word_searcher(parts.words)?,
    })
}

#[cfg(feature = "hyperscan")]
fn vectored(parts: &ScreenParts<'_>) -> Result<ScreenEngine, MaskError> {
    available().map_err(|reason| MaskError::EngineUnavailable {
        engine: "hyperscan",
        reason,
    })?;
    let spell = |bytes: &[u8]| {
        let mut text = String::new();
        for byte in bytes {
            pattern::push_byte(&mut text, *byte);
        }
        text
    };
    let mut expressions = Vec::new();
    let mut len_max = FRAGMENT_BYTES_MAX;
    for (id, (kind, pattern)) in parts.detectors.iter().enumerate() {
        if let Some(pattern) = pattern {
            len_max = len_max.max(pattern.len_max);
            expressions.push(Expression {
                text: pattern.hyperscan(),
                id,
                caseless: false,
                kind: (*kind).to_string(),
            });
        }
    }
    for (index, word) in parts.words.iter().enumerate() {
        len_max = len_max.max(word.len());
        expressions.push(Expression {
            text: spell(word),
            id: parts.detectors.len() + index,
            caseless: true,
            kind: "context word".into(),
        });
    }
    let fragments: std::collections::BTreeSet<&[u8]> =
        parts.forms.iter().map(|(form, _)| fragment(form)).collect();
    for fragment in fragments {
        expressions.push(Expression {
            text: spell(fragment),
            id: parts.detectors.len() + parts.words.len(),
            caseless: false,
            kind: "known secret".into(),
        });
    }
    Ok(ScreenEngine::Hyperscan(Database::compile(
        &expressions,
        len_max,
    )?))
}

/// The piece of a form with the most different bytes: it is least likely to
/// stand in other content (the start of a PEM block would).
#[cfg(feature = "hyperscan")]
fn fragment(form: &[u8]) -> &[u8] {
    let mut best = (0, form.get(..FRAGMENT_BYTES_MAX).unwrap_or(form));
    for window in form.windows(FRAGMENT_BYTES_MAX) {
        let different = window
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len();
        if different > best.0 {
            best = (different, window);
        }
    }
    best.1
}
