//! The exact search for known secrets: all derived forms in one Aho-Corasick
//! automaton, with the number of bytes that could still become a form.

use std::collections::HashMap;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::{Anchored, MatchKind, dfa, nfa::contiguous};
use zeroize::Zeroizing;

use crate::MaskError;

/// Up to this many bytes of forms the automaton is a DFA (the fastest, about
/// 0.1 to 0.5 KiB a byte of form); beyond it a compact NFA at half the speed.
const DFA_FORM_BYTES_MAX: usize = 32 << 10;

/// Where an automaton stands after some bytes. Belongs to one rule set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LiteralState(StateID);

/// All forms of all known secrets.
pub(crate) struct Literals {
    engine: Engine,
    start: StateID,
    /// Form number to kind number.
    kinds: Vec<u32>,
    /// For each state that is not the start: the length of its longest suffix
    /// that is a proper prefix of a form.
    alive: HashMap<StateID, u32>,
    /// Length of the longest form, in bytes.
    pub(crate) len_max: usize,
}

enum Engine {
    Fast(dfa::DFA),
    Small(contiguous::NFA),
}

impl Literals {
    /// Builds the automaton from (form, kind number); `None` without forms.
    pub(crate) fn build(
        forms: &[(Zeroizing<Vec<u8>>, u32)],
    ) -> Result<Option<Literals>, MaskError> {
        if forms.is_empty() {
            return Ok(None);
        }
        let failed = |error: aho_corasick::BuildError| MaskError::EngineCompile {
            engine: "aho-corasick",
            kind: "known secrets".into(),
            reason: error.to_string(),
        };
        let texts = forms.iter().map(|(form, _)| form.as_slice());
        let total: usize = texts.clone().map(<[u8]>::len).sum();
        let engine = if total <= DFA_FORM_BYTES_MAX {
            let mut builder = dfa::Builder::new();
            builder.match_kind(MatchKind::Standard).prefilter(false);
            Engine::Fast(builder.build(texts.clone()).map_err(failed)?)
        } else {
            let mut builder = contiguous::Builder::new();
            builder.match_kind(MatchKind::Standard).prefilter(false);
            Engine::Small(builder.build(texts.clone()).map_err(failed)?)
        };
        let start = match &engine {
            Engine::Fast(dfa) => dfa.start_state(Anchored::No),
            Engine::Small(nfa) => nfa.start_state(Anchored::No),
        }
        .map_err(|error| MaskError::EngineCompile {
            engine: "aho-corasick",
            kind: "known secrets".into(),
            reason: error.to_string(),
        })?;
        let mut literals = Literals {
            engine,
            start,
            kinds: forms.iter().map(|(_, kind)| *kind).collect(),
            alive: HashMap::new(),
            len_max: texts.clone().map(<[u8]>::len).max().unwrap_or(0),
        };
        literals.measure(forms);
        Ok(Some(literals))
    }

    /// Fills `alive`. A state of the automaton is a node of the tree of forms.
    /// An inner node is itself a proper prefix; for a leaf it is the longest
    /// proper suffix that is an inner node, and what the automaton makes of the
    /// leaf without its first byte is the longest that is a node at all.
    fn measure(&mut self, forms: &[(Zeroizing<Vec<u8>>, u32)]) {
        let mut sorted: Vec<&[u8]> = forms.iter().map(|(form, _)| form.as_slice()).collect();
        sorted.sort_by_key(|form| form.len());
        for form in &sorted {
            let mut state = self.start;
            for (index, byte) in form.iter().enumerate() {
                state = self.next(state, *byte);
                if index + 1 < form.len() {
                    self.alive
                        .insert(state, u32::try_from(index + 1).unwrap_or(u32::MAX));
                }
            }
        }
        for form in &sorted {
            let leaf = form
                .iter()
                .fold(self.start, |state, byte| self.next(state, *byte));
            if !self.alive.contains_key(&leaf) {
                let suffix = form
                    .iter()
                    .skip(1)
                    .fold(self.start, |state, byte| self.next(state, *byte));
                let alive = self.alive.get(&suffix).copied().unwrap_or(0);
                self.alive.insert(leaf, alive);
            }
        }
    }

    /// The state before any byte.
    pub(crate) fn start(&self) -> LiteralState {
        LiteralState(self.start)
    }

    /// How many of the last bytes could still become a form.
    pub(crate) fn alive(&self, state: LiteralState) -> usize {
        if state.0 == self.start {
            return 0;
        }
        // Every other state is a node of the tree. Were one missing, the
        // longest hold-back would be the safe answer.
        self.alive
            .get(&state.0)
            .map_or(self.len_max, |len| *len as usize)
    }

    /// Goes over bytes and tells of each form that ends in them: (length of
    /// the form, index behind its last byte, kind number), ends ascending.
    pub(crate) fn run(
        &self,
        state: LiteralState,
        bytes: &[u8],
        found: impl FnMut(usize, usize, u32),
    ) -> LiteralState {
        match &self.engine {
            Engine::Fast(dfa) => self.run_on(dfa, state, bytes, found),
            Engine::Small(nfa) => self.run_on(nfa, state, bytes, found),
        }
    }

    fn run_on<A: Automaton>(
        &self,
        automaton: &A,
        LiteralState(mut state): LiteralState,
        bytes: &[u8],
        mut found: impl FnMut(usize, usize, u32),
    ) -> LiteralState {
        for (index, byte) in bytes.iter().enumerate() {
            state = automaton.next_state(Anchored::No, state, *byte);
            if automaton.is_special(state) && automaton.is_match(state) {
                for nth in 0..automaton.match_len(state) {
                    let form = automaton.match_pattern(state, nth);
                    let kind = self.kinds.get(form.as_usize()).copied().unwrap_or(0);
                    found(automaton.pattern_len(form), index + 1, kind);
                }
            }
        }
        LiteralState(state)
    }

    fn next(&self, state: StateID, byte: u8) -> StateID {
        match &self.engine {
            Engine::Fast(dfa) => dfa.next_state(Anchored::No, state, byte),
            Engine::Small(nfa) => nfa.next_state(Anchored::No, state, byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(forms: &[&str]) -> Literals {
        let forms: Vec<_> = forms
            .iter()
            .map(|form| (Zeroizing::new(form.as_bytes().to_vec()), 0))
            .collect();
        Literals::build(&forms).expect("small").expect("some forms")
    }

    /// The longest suffix of `text` that is a proper prefix of a form.
    fn expected(forms: &[&str], text: &str) -> usize {
        (1..=text.len())
            .rev()
            .find(|len| {
                let suffix = &text[text.len() - len..];
                forms
                    .iter()
                    .any(|form| form.len() > suffix.len() && form.starts_with(suffix))
            })
            .unwrap_or(0)
    }

    #[test]
    fn tells_how_much_could_still_become_a_form() {
        let sets: [&[&str]; 4] = [
            &["abcabd", "bcab", "cab"],
            &["aaaa", "aa"],
            &["abab", "babab", "b"],
            &["abc", "bc", "c", "cabca"],
        ];
        for forms in sets {
            let literals = literals(forms);
            for number in 0..4usize.pow(8) {
                let text: String = (0..8)
                    .map(|digit| ['a', 'b', 'c', 'd'][number / 4usize.pow(digit) % 4])
                    .collect();
                let state = literals.run(literals.start(), text.as_bytes(), |_, _, _| {});
                assert_eq!(
                    literals.alive(state),
                    expected(forms, &text),
                    "{forms:?} {text}"
                );
            }
        }
    }

    #[test]
    fn finds_overlapping_forms_and_both_engines_agree() {
        let short = ["abcabd", "bcab", "cab"];
        let long = "x".repeat(DFA_FORM_BYTES_MAX + 1);
        let (fast, small) = (
            literals(&short),
            literals(&[short[0], short[1], short[2], &long]),
        );
        assert!(matches!(fast.engine, Engine::Fast(_)) && matches!(small.engine, Engine::Small(_)));
        let hits = |literals: &Literals| {
            let mut hits = Vec::new();
            literals.run(literals.start(), b"..abcabcabd", |len, end, _| {
                hits.push((end, len))
            });
            hits.sort_unstable();
            hits
        };
        assert_eq!(hits(&fast), [(7, 3), (7, 4), (10, 3), (10, 4), (11, 6)]);
        assert_eq!(hits(&fast), hits(&small));
    }
}
