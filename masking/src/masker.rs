//! The masker of one shard.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::screen::{Bits, ScreenScratch, Seen, see_words};
use crate::search::{OpeningsCache, RuleCache, TailState};
use crate::span::{self, Hit, Painter};
use crate::{Fill, Findings, MaskError, RuleSet, StreamMasker};

/// Masks content with one rule set. One per shard: it owns the working memory
/// (a few hundred KiB, some MiB where many detectors meet much content) and is
/// not [`Sync`].
///
/// What is masked is decided by the bytes of the value and nothing else:
/// - every form of every known secret, wherever it stands;
/// - for every detector, from each position at which its pattern matches and
///   its left boundary holds, the longest match that passes its other checks,
///   and its tail;
/// - a byte is masked if any of these covers it. Those that overlap make one
///   span, which has the kind of the match that begins it (the longest of
///   several, known secrets before detectors).
///
/// So a value gives the same output whole or in pieces.
pub struct Masker {
    pub(crate) rules: Arc<RuleSet>,
    scratch: ScreenScratch,
    caches: Vec<RuleCache>,
    openings: Option<Box<OpeningsCache>>,
    seen: Seen,
    words: Bits,
    hits: Vec<Hit>,
    tails: Vec<TailState>,
    /// Where streams put held and new bytes together; borrowed by them.
    pub(crate) work: Zeroizing<Vec<u8>>,
    not_sync: PhantomData<Cell<()>>,
}

impl Masker {
    /// A masker for a rule set.
    ///
    /// # Errors
    /// [`MaskError::Scratch`] if the engine has no memory for it.
    pub fn new(rules: Arc<RuleSet>) -> Result<Self, MaskError> {
        Ok(Masker {
            scratch: rules.screen.scratch()?,
            caches: rules.rules.iter().map(|_| RuleCache::default()).collect(),
            openings: None,
            seen: rules.screen.seen(),
            words: Bits::with_len(rules.word_count),
            hits: Vec::new(),
            tails: Vec::new(),
            work: Zeroizing::default(),
            not_sync: PhantomData,
            rules,
        })
    }

    /// The rule set it works with.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// True only if no sub-slice of `bytes`, taken as a value of its own,
    /// could have a finding. So it may be asked about raw frames whose values
    /// have not been cut out yet: boundaries, which depend on a value's edges,
    /// play no part. A value that goes on beyond `bytes` is not answered for.
    ///
    /// One block scan; the hot call.
    pub fn is_clean(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() < self.rules.len_min {
            return true;
        }
        self.look(bytes, true);
        if self.seen.known || self.seen.detectors.any() {
            return false;
        }
        !self.seen.words.any() || !self.guarded_by_words(bytes)
    }

    /// Whether a detector with context words could match, its words having
    /// been seen.
    fn guarded_by_words(&mut self, bytes: &[u8]) -> bool {
        let (rules, words) = (&self.rules.rules, &self.seen.words);
        rules.iter().zip(&mut self.caches).any(|(rule, cache)| {
            rule.words.iter().any(|word| words.has(*word)) && rule.matches_anywhere(cache, bytes)
        })
    }

    /// Masks one whole value and counts what it masked. `None`: nothing to
    /// mask, use the value as it is.
    pub fn mask_value(
        &mut self,
        value: &[u8],
        fill: Fill,
        findings: &mut Findings,
    ) -> Option<Vec<u8>> {
        if value.len() < self.rules.len_min {
            return None;
        }
        self.look(value, false);
        let mut hits = std::mem::take(&mut self.hits);
        hits.clear();
        let rules = self.rules.clone();
        if self.seen.known
            && let Some(literals) = &rules.literals
        {
            literals.run(literals.start(), value, |len, end, kind| {
                hits.push(known_hit(len, end, kind));
            });
        }
        self.collect(value, 0, value.len(), false, &mut hits);
        self.tails.clear();
        let mut masked = None;
        if !hits.is_empty() {
            span::sort(&mut hits);
            let mut out = Vec::with_capacity(value.len());
            Painter::new(fill).paint(
                rules.palette(),
                value,
                &mut hits,
                value.len(),
                &mut out,
                findings,
            );
            masked = Some(out);
        }
        self.hits = hits;
        masked
    }

    /// A masker for content that arrives in pieces.
    pub fn stream(&mut self, fill: Fill) -> StreamMasker {
        StreamMasker::new(self.rules.clone(), fill)
    }

    /// Whether a request carries one of our masks, of either fill: a
    /// placeholder (also percent-encoded, or cut short), or the keyed tag of a
    /// same-length mask. Masks shorter than [`crate::TAG_BYTES`] have no tag
    /// and are not recognised.
    pub fn contains_mask(&mut self, bytes: &[u8]) -> bool {
        self.rules.marks.found_in(bytes)
    }

    /// Screens bytes; the answer stands in `seen`.
    pub(crate) fn look(&mut self, bytes: &[u8], stop_early: bool) {
        let rules = &self.rules;
        rules.screen.look(
            &mut self.scratch,
            rules.literals.as_ref(),
            bytes,
            stop_early,
            &mut self.seen,
        );
    }

    /// Whether the last look saw a known secret.
    pub(crate) fn saw_known(&self) -> bool {
        self.seen.known
    }

    /// Appends the matches of detectors that start in `from..upto`, for those
    /// that the last look did not rule out. With `words_noted` the context
    /// words are those of [`Masker::note_words`], else those of the look. Open
    /// tails are left in `tails`.
    pub(crate) fn collect(
        &mut self,
        bytes: &[u8],
        from: usize,
        upto: usize,
        words_noted: bool,
        hits: &mut Vec<Hit>,
    ) {
        let words = if words_noted {
            &self.words
        } else {
            &self.seen.words
        };
        for (index, (rule, cache)) in self.rules.rules.iter().zip(&mut self.caches).enumerate() {
            let possible = if rule.words.is_empty() {
                self.seen.detectors.has(index)
            } else {
                rule.words.iter().any(|word| words.has(*word))
            };
            if possible {
                rule.collect(cache, index, bytes, from, upto, hits, &mut self.tails);
            }
        }
    }

    /// Tails that were open at the end of the bytes given to `collect`.
    pub(crate) fn open_tails(&mut self) -> std::vec::Drain<'_, TailState> {
        self.tails.drain(..)
    }

    /// Notes the context words in the bytes, with `and_seen` also those of the
    /// last look, for `collect` and `first_open`.
    pub(crate) fn note_words(&mut self, bytes: &[u8], and_seen: bool) {
        if let Some(searcher) = &self.rules.words {
            self.words.clear();
            see_words(searcher, bytes, &mut self.words);
            if and_seen {
                self.words.merge(&self.seen.words);
            }
        }
    }

    /// The first position, not before `from`, at which a match of a detector
    /// could begin that the bytes so far neither complete nor rule out. Those
    /// before `held_to` have been held before.
    pub(crate) fn first_open(&mut self, bytes: &[u8], from: usize, held_to: usize) -> usize {
        let rules = &self.rules;
        let mut first = bytes.len();
        if let Some(openings) = &rules.openings {
            let cache = self
                .openings
                .get_or_insert_with(|| Box::new(openings.cache()));
            first = openings.first(cache, bytes, from, held_to);
        }
        for (rule, cache) in rules.rules.iter().zip(&mut self.caches) {
            if rule.words.iter().any(|word| self.words.has(*word)) {
                first = first.min(rule.first_open(cache, bytes, from, held_to));
            }
        }
        first
    }
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masker")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// The hit of a form of a known secret.
pub(crate) fn known_hit(len: usize, end: usize, kind: u32) -> Hit {
    Hit {
        begin: end.saturating_sub(len),
        end,
        head_end: end,
        kind,
        continues: false,
    }
}
