//! Masking of content that arrives in pieces.
//!
//! ```text
//!  let go | context | held back (released only after an idle time)|
//!  -------+---------+---------------------------------------------+ new bytes
//!         ^ carry   ^ from                  ^ painter.pos         ^ carry end
//! ```
//! `from` is the first position at which a match could still begin that the
//! bytes so far neither complete nor rule out. All starts before it are
//! settled, so all before it can be written; nothing behind it can turn out to
//! be the start of an earlier match. Where a piece ends has no part in any
//! decision, which is why content cut anywhere gives the same output.
//!
//! Costs of a push: its bytes and the held ones, at most
//! [`RuleSet::hold_back_max`], are copied and screened; one automaton is run
//! over the held bytes, another back over the new ones (a few in ordinary
//! content). Byte by byte that is at worst a small multiple of `hold_back_max`
//! steps for each byte, whatever the length of the stream.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::literals::LiteralState;
use crate::masker::known_hit;
use crate::search::{TailState, note};
use crate::span::{self, Hit, Painter};
use crate::{CONTEXT_BYTES, Fill, Findings, Masker, RuleSet};

/// Most bytes that are worked on at once: bounds the working memory of a
/// masker, whatever a caller pushes.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// A known secret is half-way through, and is not released when a terminal
/// idles, once so many bytes of a form stand at the end. Fewer occur all the
/// time by chance; a prompt that waits for its last letter helps nobody.
const KNOWN_IDLE_BYTES_MIN: usize = 4;

/// A piece of at least this length is screened before anything else is done
/// with it: a scan costs about as much as a hundred single steps.
const LARGE_PIECE_BYTES_MIN: usize = 512;

/// An emptied carry larger than this gives its memory back.
const CARRY_IDLE_BYTES_MAX: usize = 1 << 10;

/// Masks one stream. Content cut anywhere gives the same output, byte for
/// byte, as [`Masker::mask_value`] gives for the whole.
///
/// Holds its rule set, and no memory but the held bytes and some context; all
/// of that is wiped when it is dropped. If the masker handed in has another
/// rule set (the policy was reloaded), the stream stays with its own and makes
/// itself a masker for it.
pub struct StreamMasker {
    rules: Arc<RuleSet>,
    own: Option<Box<Masker>>,
    core: Core,
}

struct Core {
    /// Context that was written, then held bytes.
    carry: Zeroizing<Vec<u8>>,
    /// First position in `carry` whose starts are not settled.
    from: usize,
    painter: Painter,
    /// Matches that begin behind what was written.
    hits: Vec<Hit>,
    /// Tails that are open at the end of `carry`.
    tails: Vec<TailState>,
    /// Where the search for known secrets stands at the end of `carry`.
    literal: Option<LiteralState>,
}

impl StreamMasker {
    pub(crate) fn new(rules: Arc<RuleSet>, fill: Fill) -> Self {
        let literal = rules.literals.as_ref().map(|literals| literals.start());
        StreamMasker {
            rules,
            own: None,
            core: Core {
                carry: Zeroizing::default(),
                from: 0,
                painter: Painter::new(fill),
                hits: Vec::new(),
                tails: Vec::new(),
                literal,
            },
        }
    }

    /// Takes the next bytes and appends to `out` what can be released.
    pub fn push(
        &mut self,
        masker: &mut Masker,
        input: &[u8],
        out: &mut Vec<u8>,
        findings: &mut Findings,
    ) {
        let (core, masker) = self.with(masker);
        for piece in input.chunks(PIECE_BYTES_MAX) {
            core.push(masker, piece, out, findings);
        }
    }

    /// The content has ended: appends all that was held back.
    pub fn finish(mut self, masker: &mut Masker, out: &mut Vec<u8>, findings: &mut Findings) {
        let (core, masker) = self.with(masker);
        core.finish(masker, out, findings);
    }

    /// For interactive terminals: nothing came for a while, so appends what is
    /// held back, masked as if the content ended here. Known secrets that are
    /// half-way through (four bytes or more of a form) stay held. A detector's
    /// match that was half-way through is masked from here on, its first part
    /// was released.
    pub fn flush_idle(&mut self, masker: &mut Masker, out: &mut Vec<u8>, findings: &mut Findings) {
        let (core, masker) = self.with(masker);
        core.flush_idle(masker, out, findings);
    }

    /// Bytes taken and not yet released.
    pub fn held(&self) -> usize {
        self.core.carry.len().saturating_sub(self.core.painter.pos)
    }

    fn with<'a>(&'a mut self, masker: &'a mut Masker) -> (&'a mut Core, &'a mut Masker) {
        if Arc::ptr_eq(&self.rules, &masker.rules) {
            return (&mut self.core, masker);
        }
        let rules = &self.rules;
        let own = self.own.get_or_insert_with(|| {
            // Fails only without memory, which ends the process everywhere else
            // too; going on unmasked is no choice.
            Box::new(Masker::new(rules.clone()).expect("memory for a masker"))
        });
        (&mut self.core, own)
    }
}

impl Core {
    fn push(
        &mut self,
        masker: &mut Masker,
        piece: &[u8],
        out: &mut Vec<u8>,
        findings: &mut Findings,
    ) {
        let rules = masker.rules.clone();
        let mut work = std::mem::take(&mut masker.work);
        work.clear();
        work.extend_from_slice(&self.carry);
        work.extend_from_slice(piece);
        let (old, len) = (self.carry.len(), work.len());

        self.advance_tails(&rules, piece, old);
        let window = work.get(self.from..).unwrap_or(&[]);
        // A large piece is worth a look first: what is not there need not be
        // searched for, and only the end of the piece matters for what follows.
        let form_len_max = rules
            .literals
            .as_ref()
            .map_or(0, |literals| literals.len_max);
        let large = piece.len() > form_len_max.saturating_mul(2).max(LARGE_PIECE_BYTES_MIN);
        if large {
            masker.look(window, false);
        }
        let mut alive = 0;
        if let (Some(literals), Some(mut state)) = (&rules.literals, self.literal) {
            let mut skip = 0;
            if large && !masker.saw_known() {
                skip = piece.len() - form_len_max;
                state = literals.start();
            }
            let hits = &mut self.hits;
            let state = literals.run(
                state,
                piece.get(skip..).unwrap_or(&[]),
                |form, end, kind| {
                    hits.push(known_hit(form, old + skip + end, kind));
                },
            );
            self.literal = Some(state);
            alive = literals.alive(state);
        }

        // Context words: those before the window, and across its beginning,
        // beside those that the look saw inside it.
        let words_to = if large {
            self.from.saturating_add(CONTEXT_BYTES).min(len)
        } else {
            len
        };
        let words_from = self.from.saturating_sub(CONTEXT_BYTES);
        masker.note_words(work.get(words_from..words_to).unwrap_or(&[]), large);
        let open = masker
            .first_open(&work, self.from, old)
            .min(len - alive.min(len))
            .max(self.from);
        if open > self.from && window.len() >= rules.len_min {
            if !large {
                masker.look(window, false);
            }
            self.collect(masker, &work, open);
        }
        span::sort(&mut self.hits);
        let upto = open.max(self.painter.pos);
        self.painter
            .paint(rules.palette(), &work, &mut self.hits, upto, out, findings);
        self.from = open;
        self.keep(&work);
        masker.work = work;
    }

    fn finish(&mut self, masker: &mut Masker, out: &mut Vec<u8>, findings: &mut Findings) {
        let rules = masker.rules.clone();
        let carry = std::mem::take(&mut self.carry);
        self.settle(masker, &carry, carry.len());
        span::sort(&mut self.hits);
        self.painter.paint(
            rules.palette(),
            &carry,
            &mut self.hits,
            carry.len(),
            out,
            findings,
        );
    }

    fn flush_idle(&mut self, masker: &mut Masker, out: &mut Vec<u8>, findings: &mut Findings) {
        let rules = masker.rules.clone();
        let mut upto = self.carry.len();
        if let (Some(literals), Some(state)) = (&rules.literals, self.literal) {
            let alive = literals.alive(state);
            if alive >= KNOWN_IDLE_BYTES_MIN {
                upto = upto.saturating_sub(alive);
            }
        }
        if upto <= self.painter.pos {
            return;
        }
        let carry = std::mem::take(&mut self.carry);
        let settled = self.hits.clone();
        self.settle(masker, &carry, upto);
        span::sort(&mut self.hits);
        self.painter
            .paint(rules.palette(), &carry, &mut self.hits, upto, out, findings);
        // `from` stays: what comes next may still make more of these starts.
        self.hits = settled;
        let pos = self.painter.pos;
        self.hits.retain(|hit| hit.end > pos);
        self.carry = carry;
    }

    /// Collects the matches that start before `upto`, as if the content ended
    /// with `bytes`.
    fn settle(&mut self, masker: &mut Masker, bytes: &[u8], upto: usize) {
        if upto > self.from {
            masker.look(bytes.get(self.from..).unwrap_or(&[]), false);
            let words_from = self.from.saturating_sub(CONTEXT_BYTES);
            masker.note_words(bytes.get(words_from..).unwrap_or(&[]), false);
            self.collect(masker, bytes, upto);
        }
    }

    fn collect(&mut self, masker: &mut Masker, bytes: &[u8], upto: usize) {
        masker.collect(bytes, self.from, upto, true, &mut self.hits);
        for state in masker.open_tails() {
            note(&mut self.tails, state);
        }
    }

    /// Lets open tails go on over the new bytes, which begin at `at`.
    fn advance_tails(&mut self, rules: &RuleSet, piece: &[u8], at: usize) {
        for state in std::mem::take(&mut self.tails) {
            let Some(rule) = rules.rules.get(state.rule) else {
                continue;
            };
            let (len, open) = rule.advance_tail(state, piece);
            if len > 0 {
                self.hits.push(Hit {
                    begin: at,
                    end: at + len,
                    head_end: at + len,
                    kind: rule.kind,
                    continues: true,
                });
            }
            if let Some(state) = open {
                note(&mut self.tails, state);
            }
        }
    }

    /// Keeps of the working buffer what is held and some context before it.
    fn keep(&mut self, work: &[u8]) {
        let gone = self.from.saturating_sub(CONTEXT_BYTES);
        self.carry.clear();
        self.carry
            .extend_from_slice(work.get(gone..).unwrap_or(&[]));
        if self.carry.capacity() > CARRY_IDLE_BYTES_MAX
            && self.carry.len() < self.carry.capacity() / 4
        {
            self.carry.shrink_to_fit();
        }
        self.from -= gone;
        self.painter.shift(gone);
        for hit in &mut self.hits {
            hit.begin -= gone.min(hit.begin);
            hit.end -= gone.min(hit.end);
            hit.head_end -= gone.min(hit.head_end);
        }
        debug_assert!(self.from <= self.painter.pos && self.painter.pos <= self.carry.len());
    }
}

impl std::fmt::Debug for StreamMasker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamMasker")
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}
