//! The exact search of one detector: where its matches stand, after all
//! second checks, and how far their tails go.
//!
//! A *start* is a position with an allowed left neighbour at which the pattern
//! matches. From each start the longest match counts that passes the other
//! checks. All of this looks at the value's bytes alone, so it does not matter
//! how they arrived.
//!
//! Costs: one pass of a lazy automaton to find the next start, and the length
//! of the match for each start. Starts inside a match whose tail covers
//! everything they could add are skipped.

use std::sync::Arc;

use regex_automata::hybrid::dfa::{Cache, DFA, OverlappingState};
use regex_automata::{Anchored, Input, MatchError, MatchKind};

use regex_syntax::hir::Hir;

use crate::pattern::{self, Pattern};
use crate::span::Hit;
use crate::{Boundary, ByteSet, Checksum, Detector, MaskError, Tail, checks};

/// Longest end of a [`Tail::Until`], in bytes.
const TAIL_END_BYTES_MAX: usize = 64;

/// A compiled detector.
pub(crate) struct Rule {
    /// Kind number.
    pub(crate) kind: u32,
    left: Boundary,
    right: Boundary,
    min_entropy: Option<f32>,
    checksum: Option<Checksum>,
    context: Vec<Vec<u8>>,
    /// Numbers of the context words in the rule set.
    pub(crate) words: Vec<usize>,
    keep: (usize, usize),
    tail: Option<TailRule>,
    len_min: usize,
    pub(crate) len_max: usize,
    /// The pattern behind a byte that the left boundary allows (or the bare
    /// pattern without one), leftmost first.
    find: DFA,
    /// The same, reversed.
    find_back: DFA,
    /// The bare pattern, all matches.
    body: DFA,
    /// Only where there are context words; all other detectors share one.
    openings: Option<Openings>,
}

/// Working memory for one [`Rule`], made when it is first needed.
#[derive(Default)]
pub(crate) struct RuleCache {
    find: Option<Cache>,
    find_back: Option<Cache>,
    body: Option<Cache>,
    openings: Option<OpeningsCache>,
}

struct TailRule {
    set: ByteSet,
    end: Vec<u8>,
    /// For each length of `end` matched so far, what remains matched when the
    /// next byte differs (Knuth, Morris and Pratt).
    fallback: Vec<u8>,
    /// All bytes of the pattern are in `set`, and nothing but the set ends the
    /// tail: a match that starts inside the run adds nothing.
    covers: bool,
}

/// A tail that had not ended where the bytes did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailState {
    /// Which detector.
    pub(crate) rule: usize,
    /// Bytes of its `end` matched so far.
    matched: u8,
}

impl Rule {
    /// Compiles a detector whose pattern has been read.
    pub(crate) fn compile(
        detector: &Detector,
        read: &Pattern,
        kind: u32,
        words: Vec<usize>,
    ) -> Result<Rule, MaskError> {
        let who = detector.kind.as_str();
        let find = match detector.left.refused() {
            Some(refused) => read.after_byte_outside(&refused),
            None => read.hir().clone(),
        };
        let openings = if words.is_empty() {
            None
        } else {
            let right = detector.right != Boundary::None;
            let len_max = hold_back_max(read, detector);
            Some(Openings::compile(&read.prefixes(right), len_max, who)?)
        };
        Ok(Rule {
            kind,
            left: detector.left,
            right: detector.right,
            min_entropy: detector.min_entropy,
            checksum: detector.checksum,
            context: detector
                .context
                .iter()
                .map(|word| word.to_ascii_lowercase().into_bytes())
                .collect(),
            words,
            keep: detector.keep,
            tail: TailRule::compile(detector, read)?,
            len_min: read.len_min,
            len_max: read.len_max,
            find: pattern::automaton(&[&find], false, MatchKind::LeftmostFirst, who)?,
            find_back: pattern::automaton(&[&find], true, MatchKind::All, who)?,
            body: pattern::automaton(&[read.hir()], false, MatchKind::All, who)?,
            openings,
        })
    }

    /// Whether the bare pattern matches anywhere, whatever stands around it.
    pub(crate) fn matches_anywhere(&self, cache: &mut RuleCache, bytes: &[u8]) -> bool {
        let cache = cache.body.get_or_insert_with(|| self.body.create_cache());
        let input = Input::new(bytes).earliest(true);
        // An engine that fails has not ruled anything out.
        self.body
            .try_search_fwd(cache, &input)
            .map_or(true, |half| half.is_some())
    }

    /// [`Openings::first`] of this detector. Only for those with context words.
    pub(crate) fn first_open(
        &self,
        cache: &mut RuleCache,
        bytes: &[u8],
        from: usize,
        held_to: usize,
    ) -> usize {
        let Some(openings) = &self.openings else {
            return bytes.len();
        };
        let cache = cache.openings.get_or_insert_with(|| openings.cache());
        openings.first(cache, bytes, from, held_to)
    }

    /// Appends all matches that start in `from..upto` of `bytes`; what stands
    /// before `from` is context, and `bytes` begins with the value unless
    /// `from` is larger than any look behind. `index` is the detector's own
    /// number, for tails that had not ended.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn collect(
        &self,
        cache: &mut RuleCache,
        index: usize,
        bytes: &[u8],
        from: usize,
        upto: usize,
        hits: &mut Vec<Hit>,
        tails: &mut Vec<TailState>,
    ) {
        let mut at = from;
        while at < upto {
            let start = match self.next_start(cache, bytes, at) {
                Ok(Some(start)) if start < upto => start,
                Ok(_) => return,
                Err(_) => return self.give_up(bytes, at, hits),
            };
            match self.best_end(cache, bytes, start) {
                Ok(Some(end)) => at = self.accept(index, bytes, start, end, hits, tails),
                Ok(None) => at = start + 1,
                Err(_) => return self.give_up(bytes, at, hits),
            }
        }
    }

    /// The lazy automata have no reason to fail (no quit bytes, no limit on
    /// clearing their caches). If one does, everything from here is masked.
    fn give_up(&self, bytes: &[u8], from: usize, hits: &mut Vec<Hit>) {
        hits.push(Hit {
            begin: from,
            end: bytes.len(),
            head_end: bytes.len(),
            kind: self.kind,
            continues: false,
        });
    }

    /// The first start at or after `at`.
    fn next_start(
        &self,
        cache: &mut RuleCache,
        bytes: &[u8],
        at: usize,
    ) -> Result<Option<usize>, MatchError> {
        let behind = usize::from(self.left != Boundary::None);
        if at == 0 && behind == 1 {
            let body = cache.body.get_or_insert_with(|| self.body.create_cache());
            let input = Input::new(bytes).anchored(Anchored::Yes).earliest(true);
            if self.body.try_search_fwd(body, &input)?.is_some() {
                return Ok(Some(0));
            }
        }
        let from = at.max(behind) - behind;
        if from > bytes.len() {
            return Ok(None);
        }
        let find = cache.find.get_or_insert_with(|| self.find.create_cache());
        let input = Input::new(bytes).span(from..bytes.len());
        let Some(end) = self.find.try_search_fwd(find, &input)? else {
            return Ok(None);
        };
        let back = cache
            .find_back
            .get_or_insert_with(|| self.find_back.create_cache());
        let input = Input::new(bytes)
            .span(from..end.offset())
            .anchored(Anchored::Yes);
        let start = self.find_back.try_search_rev(back, &input)?;
        // A match that was seen going forward is seen going back.
        debug_assert!(start.is_some());
        Ok(start.map(|half| half.offset() + behind))
    }

    /// The longest end of a match from `start` that passes the checks.
    fn best_end(
        &self,
        cache: &mut RuleCache,
        bytes: &[u8],
        start: usize,
    ) -> Result<Option<usize>, MatchError> {
        if !self.context.is_empty() && !checks::context(bytes, start, &self.context) {
            return Ok(None);
        }
        if self.len_min == self.len_max {
            let end = start.saturating_add(self.len_min);
            return Ok(self.passes(bytes, start, end).then_some(end));
        }
        let body = cache.body.get_or_insert_with(|| self.body.create_cache());
        let span = start..start.saturating_add(self.len_max).min(bytes.len());
        let input = Input::new(bytes).span(span).anchored(Anchored::Yes);
        let mut state = OverlappingState::start();
        let mut best = None;
        loop {
            self.body
                .try_search_overlapping_fwd(body, &input, &mut state)?;
            match state.get_match() {
                Some(half) if self.passes(bytes, start, half.offset()) => {
                    best = Some(half.offset())
                }
                Some(_) => {}
                None => return Ok(best),
            }
        }
    }

    fn passes(&self, bytes: &[u8], start: usize, end: usize) -> bool {
        let Some(text) = bytes.get(start..end) else {
            return false;
        };
        self.right.allows(bytes.get(end).copied())
            && self
                .checksum
                .is_none_or(|kind| checks::checksum(kind, text))
            && self
                .min_entropy
                .is_none_or(|least| checks::entropy(text) >= least)
    }

    /// Notes a match and tells where the next start is to be looked for.
    fn accept(
        &self,
        index: usize,
        bytes: &[u8],
        start: usize,
        end: usize,
        hits: &mut Vec<Hit>,
        tails: &mut Vec<TailState>,
    ) -> usize {
        let head_end = end - self.keep.1;
        let mut hit = Hit {
            begin: start + self.keep.0,
            end: head_end,
            head_end,
            kind: self.kind,
            continues: false,
        };
        let mut next = start + 1;
        if let Some(tail) = &self.tail {
            let rest = bytes.get(end..).unwrap_or(&[]);
            let (len, open) = tail.advance(0, rest);
            hit.end = end + len;
            if let Some(matched) = open {
                note(
                    tails,
                    TailState {
                        rule: index,
                        matched,
                    },
                );
            }
            if tail.covers {
                next = next.max(hit.end);
            }
        }
        hits.push(hit);
        next
    }

    /// Lets a tail go on over further bytes: how many it takes, and its state
    /// if it is still open behind them.
    pub(crate) fn advance_tail(
        &self,
        state: TailState,
        bytes: &[u8],
    ) -> (usize, Option<TailState>) {
        match &self.tail {
            Some(tail) => {
                let (len, open) = tail.advance(state.matched, bytes);
                (len, open.map(|matched| TailState { matched, ..state }))
            }
            None => (0, None),
        }
    }
}

/// Adds an open tail. Two of one detector in the same state go the same way
/// from here, so there are never more than the bytes of all `end`s.
pub(crate) fn note(tails: &mut Vec<TailState>, state: TailState) {
    if !tails.contains(&state) {
        tails.push(state);
    }
}

/// The most bytes at the end of a stream that can wait for a detector: all but
/// one of a match, or a whole one whose right neighbour matters.
pub(crate) fn hold_back_max(read: &Pattern, detector: &Detector) -> usize {
    read.len_max
        .saturating_sub(usize::from(detector.right == Boundary::None))
}

/// Automata over the proper prefixes of matches: where could one begin that
/// has not come to its end?
pub(crate) struct Openings {
    forward: DFA,
    back: DFA,
    /// Length of the longest proper prefix.
    len_max: usize,
}

/// Working memory for one [`Openings`].
pub(crate) struct OpeningsCache {
    forward: Cache,
    back: Cache,
}

impl Openings {
    /// Compiles a language of proper prefixes, none longer than `len_max`.
    pub(crate) fn compile(
        prefixes: &Hir,
        len_max: usize,
        who: &str,
    ) -> Result<Openings, MaskError> {
        Ok(Openings {
            forward: pattern::automaton(&[prefixes], false, MatchKind::All, who)?,
            back: pattern::automaton(&[prefixes], true, MatchKind::All, who)?,
            len_max,
        })
    }

    pub(crate) fn cache(&self) -> OpeningsCache {
        OpeningsCache {
            forward: self.forward.create_cache(),
            back: self.back.create_cache(),
        }
    }

    /// The first position, not before `from`, from which all to the end of
    /// `bytes` is a proper prefix of a match; the end if there is none.
    ///
    /// Positions before `held_to` were held before the latest bytes came. They
    /// are tried forward, one after the other: the first mostly is still open,
    /// and each is found closed only once, so that many small pushes cost a
    /// run over the held bytes each and no more. The new bytes are run over
    /// backwards, which mostly ends after a few.
    pub(crate) fn first(
        &self,
        cache: &mut OpeningsCache,
        bytes: &[u8],
        from: usize,
        held_to: usize,
    ) -> usize {
        let from = from.max(bytes.len().saturating_sub(self.len_max));
        for start in from..held_to {
            // An engine that fails has not ruled this start out.
            if self
                .open_from(&mut cache.forward, bytes, start)
                .unwrap_or(true)
            {
                return start;
            }
        }
        let from = from.max(held_to).min(bytes.len());
        let input = Input::new(bytes)
            .span(from..bytes.len())
            .anchored(Anchored::Yes);
        match self.back.try_search_rev(&mut cache.back, &input) {
            Ok(Some(half)) => half.offset(),
            Ok(None) => bytes.len(),
            Err(_) => from,
        }
    }

    /// The language holds every prefix of its words, so the automaton is dead
    /// as soon as what it read is none of them.
    fn open_from(&self, cache: &mut Cache, bytes: &[u8], start: usize) -> Option<bool> {
        let input = Input::new(bytes)
            .span(start..bytes.len())
            .anchored(Anchored::Yes);
        let mut state = self.forward.start_state_forward(cache, &input).ok()?;
        for byte in bytes.get(start..)? {
            state = self.forward.next_state(cache, state, *byte).ok()?;
            if state.is_dead() {
                return Some(false);
            }
        }
        Some(true)
    }
}

impl TailRule {
    fn compile(detector: &Detector, read: &Pattern) -> Result<Option<TailRule>, MaskError> {
        let wrong = |reason| {
            Err(MaskError::DetectorInconsistent {
                kind: detector.kind.clone(),
                reason,
            })
        };
        let Some(tail) = &detector.tail else {
            return Ok(None);
        };
        if detector.keep.1 != 0 {
            return wrong("a tail and bytes kept at the end exclude each other");
        }
        let (set, end) = match tail {
            Tail::While(set) => (*set, Vec::new()),
            Tail::Until { set, end } => {
                if !(1..=TAIL_END_BYTES_MAX).contains(&end.len()) {
                    return wrong("the end of a tail has 1 to 64 bytes");
                }
                if !end.bytes().all(|byte| set.has(byte)) {
                    return wrong("every byte of the end of a tail must be in its set");
                }
                (*set, end.as_bytes().to_vec())
            }
        };
        let fallback = (0..=end.len())
            .map(|len| {
                let done = end.get(..len).unwrap_or(&[]);
                let shorter = (0..len)
                    .rev()
                    .find(|n| done.ends_with(end.get(..*n).unwrap_or(&[])));
                u8::try_from(shorter.unwrap_or(0)).unwrap_or(0)
            })
            .collect();
        Ok(Some(TailRule {
            covers: end.is_empty() && read.within(&set),
            set,
            end,
            fallback,
        }))
    }

    /// How many bytes the tail takes, and how much of its end is matched if it
    /// is still open.
    fn advance(&self, matched: u8, bytes: &[u8]) -> (usize, Option<u8>) {
        if self.end.is_empty() {
            let len = bytes.iter().position(|byte| !self.set.has(*byte));
            return (len.unwrap_or(bytes.len()), len.is_none().then_some(0));
        }
        let mut matched = matched;
        for (index, byte) in bytes.iter().enumerate() {
            if !self.set.has(*byte) {
                return (index, None);
            }
            loop {
                if self.end.get(usize::from(matched)) == Some(byte) {
                    matched += 1;
                    break;
                }
                if matched == 0 {
                    break;
                }
                matched = self
                    .fallback
                    .get(usize::from(matched))
                    .copied()
                    .unwrap_or(0);
            }
            if usize::from(matched) == self.end.len() {
                return (index + 1, None);
            }
        }
        (bytes.len(), Some(matched))
    }
}

/// Names of kinds by number.
pub(crate) type Kinds = Vec<Arc<str>>;
