//! A rule set: detectors and known secrets, compiled once (off the shard) and
//! shared by all shards.

use std::sync::Arc;

use aho_corasick::AhoCorasick;

use crate::forms::derived_forms;
use crate::literals::Literals;
use crate::mark::{Marks, kind_is_valid};
use crate::pattern::Pattern;
use crate::screen::{Screen, ScreenParts, word_searcher};
use crate::search::{Kinds, Openings, Rule, hold_back_max};
use crate::span::Palette;
use crate::{
    Boundary, Detector, KNOWN_BITS_MIN, KNOWN_BYTES_MAX, KNOWN_BYTES_MIN, KnownSecret, MaskError,
    WeakKnown, known_secret_bits,
};

/// Most detectors in a rule set. Public packs have about 250.
pub const DETECTORS_MAX: usize = 1024;

/// Most context words of one detector, and the longest word in bytes (it must
/// fit well into [`crate::CONTEXT_BYTES`]).
pub const CONTEXT_WORDS_MAX: usize = 32;
const CONTEXT_WORD_BYTES_MAX: usize = 32;

/// Most known secrets in a rule set: some per target, for hundreds of targets.
pub const KNOWN_MAX: usize = 4096;

/// Most bytes of derived forms in a rule set. The automaton over them takes
/// tens of bytes for each, so this keeps it under a few hundred MiB.
pub const FORM_BYTES_MAX: usize = 4 << 20;

/// Which engine screens content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// Hyperscan where this build and this CPU have it, else the portable one.
    #[default]
    Auto,
    /// Hyperscan, or an error.
    Hyperscan,
    /// Pure Rust: the same findings at a third to an eighth of the speed.
    Portable,
}

/// What to look for.
#[derive(Clone, Default)]
pub struct Config {
    /// Detectors; see [`crate::builtin_pack`]. Among matches that begin
    /// together and are equally long, the first detector names the kind.
    pub detectors: Vec<Detector>,
    /// Credentials to look for in all derived forms.
    pub known: Vec<KnownSecret>,
    /// Key of the tag in same-length masks. Gateways that should recognise
    /// each other's masks share it.
    pub tag_key: [u8; 32],
    /// Which engine screens.
    pub engine: Engine,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("detectors", &self.detectors)
            .field("known", &self.known)
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// A compiled rule set. Immutable; shared by shards through an [`Arc`].
pub struct RuleSet {
    pub(crate) screen: Screen,
    pub(crate) rules: Vec<Rule>,
    pub(crate) literals: Option<Literals>,
    /// Of all detectors without context words.
    pub(crate) openings: Option<Openings>,
    pub(crate) words: Option<AhoCorasick>,
    pub(crate) word_count: usize,
    pub(crate) marks: Marks,
    /// Fewer bytes than this hold no match.
    pub(crate) len_min: usize,
    kinds: Kinds,
    hold_back_max: usize,
    weak: Vec<WeakKnown>,
}

impl RuleSet {
    /// Compiles a rule set. Takes milliseconds to a second: never on a shard.
    ///
    /// # Errors
    /// A [`MaskError`] that names the detector or secret at fault.
    pub fn compile(config: Config) -> Result<Arc<RuleSet>, MaskError> {
        limit("detectors", config.detectors.len(), DETECTORS_MAX)?;
        limit("known secrets", config.known.len(), KNOWN_MAX)?;
        let mut kinds: Kinds = Vec::new();
        // Known secrets first: the smaller kind number wins among equals.
        let mut forms = Vec::new();
        let mut form_bytes = 0usize;
        let mut weak = Vec::new();
        for known in &config.known {
            let kind = number(&mut kinds, &known.kind)?;
            if known.bytes.len() > KNOWN_BYTES_MAX {
                return Err(MaskError::KnownTooLong {
                    kind: known.kind.clone(),
                    len: known.bytes.len(),
                    limit: KNOWN_BYTES_MAX,
                });
            }
            let searched = known.bytes.len() >= KNOWN_BYTES_MIN;
            let bits = known_secret_bits(&known.bytes);
            if bits < KNOWN_BITS_MIN || !searched {
                weak.push(WeakKnown {
                    kind: known.kind.clone(),
                    bits,
                    searched,
                });
            }
            if searched {
                for form in derived_forms(&known.bytes) {
                    form_bytes = form_bytes.saturating_add(form.len());
                    forms.push((form, kind));
                }
                limit(
                    "bytes in forms of known secrets",
                    form_bytes,
                    FORM_BYTES_MAX,
                )?;
            }
        }

        let mut words: Vec<Vec<u8>> = Vec::new();
        let mut patterns = Vec::new();
        let mut rules = Vec::new();
        for detector in &config.detectors {
            let kind = number(&mut kinds, &detector.kind)?;
            let read = Pattern::read(detector)?;
            let own_words = word_numbers(&mut words, detector)?;
            rules.push(Rule::compile(detector, &read, kind, own_words)?);
            patterns.push(read);
        }

        let trees: Vec<_> = config
            .detectors
            .iter()
            .zip(&patterns)
            .filter(|(detector, _)| detector.context.is_empty())
            .map(|(detector, pattern)| pattern.prefixes(detector.right != Boundary::None))
            .collect();
        let longest = |with_words: bool| {
            config
                .detectors
                .iter()
                .zip(&patterns)
                .filter(|(detector, _)| with_words || detector.context.is_empty())
                .map(|(detector, pattern)| hold_back_max(pattern, detector))
                .max()
                .unwrap_or(0)
        };
        let openings = if trees.is_empty() {
            None
        } else {
            let prefixes = regex_syntax::hir::Hir::alternation(trees);
            Some(Openings::compile(&prefixes, longest(false), "rule set")?)
        };
        let screen = Screen::compile(
            config.engine,
            &ScreenParts {
                detectors: config
                    .detectors
                    .iter()
                    .zip(&patterns)
                    .map(|(detector, pattern)| {
                        (
                            detector.kind.as_str(),
                            detector.context.is_empty().then_some(pattern),
                        )
                    })
                    .collect(),
                words: &words,
                forms: &forms,
            },
        )?;
        let literals = Literals::build(&forms)?;
        let shortest_form = forms.iter().map(|(form, _)| form.len()).min();
        let shortest_match = patterns.iter().map(|pattern| pattern.len_min).min();
        let longest_form = literals
            .as_ref()
            .map_or(0, |literals| literals.len_max.saturating_sub(1));
        Ok(Arc::new(RuleSet {
            screen,
            rules,
            literals,
            openings,
            words: word_searcher(&words)?,
            word_count: words.len(),
            marks: Marks::new(&config.tag_key),
            len_min: shortest_form
                .into_iter()
                .chain(shortest_match)
                .min()
                .unwrap_or(usize::MAX),
            kinds,
            hold_back_max: longest_form.max(longest(true)),
            weak,
        }))
    }

    /// The most bytes that a stream ever holds back.
    pub fn hold_back_max(&self) -> usize {
        self.hold_back_max
    }

    /// Known secrets under [`crate::KNOWN_BITS_MIN`], or too short to be
    /// looked for.
    pub fn weak_known(&self) -> &[WeakKnown] {
        &self.weak
    }

    /// The engine that screens: [`Engine::Hyperscan`] or [`Engine::Portable`].
    pub fn engine(&self) -> Engine {
        self.screen.engine()
    }

    /// Every kind that findings can name, known secrets first.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.iter().map(|kind| &**kind)
    }

    pub(crate) fn palette(&self) -> Palette<'_> {
        Palette {
            tag: self.marks.tag(),
            kinds: &self.kinds,
        }
    }
}

impl std::fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleSet")
            .field("kinds", &self.kinds)
            .field("engine", &self.engine())
            .field("hold_back_max", &self.hold_back_max)
            .finish_non_exhaustive()
    }
}

fn limit(what: &'static str, count: usize, limit: usize) -> Result<(), MaskError> {
    if count > limit {
        return Err(MaskError::TooMany { what, count, limit });
    }
    Ok(())
}

/// The number of a kind, a new one if it has none yet.
fn number(kinds: &mut Kinds, kind: &str) -> Result<u32, MaskError> {
    if !kind_is_valid(kind) {
        return Err(MaskError::KindInvalid {
            kind: kind.to_string(),
        });
    }
    let index = match kinds.iter().position(|known| &**known == kind) {
        Some(index) => index,
        None => {
            kinds.push(Arc::from(kind));
            kinds.len() - 1
        }
    };
    Ok(u32::try_from(index).unwrap_or(u32::MAX))
}

fn word_numbers(words: &mut Vec<Vec<u8>>, detector: &Detector) -> Result<Vec<usize>, MaskError> {
    limit(
        "context words of a detector",
        detector.context.len(),
        CONTEXT_WORDS_MAX,
    )?;
    let mut numbers = Vec::new();
    for word in &detector.context {
        if word.is_empty() || word.len() > CONTEXT_WORD_BYTES_MAX {
            return Err(MaskError::DetectorInconsistent {
                kind: detector.kind.clone(),
                reason: "a context word has 1 to 32 bytes",
            });
        }
        let word = word.to_ascii_lowercase().into_bytes();
        let index = words
            .iter()
            .position(|known| *known == word)
            .unwrap_or(words.len());
        if index == words.len() {
            words.push(word);
        }
        numbers.push(index);
    }
    Ok(numbers)
}
