//! A slow, plain reading of what is to be masked, as the judge of the fast
//! one; and the screen's promise.

mod support;

use std::collections::BTreeMap;

use masking::{Boundary, ByteSet, CONTEXT_BYTES, Detector, Fill, Masker, Tail};
use portcullis_masking as masking;
use regex_automata::{Anchored, Input, nfa::thompson::pikevm::PikeVM, util::syntax};
use support::{Random, compile, default_rules, engines, tokens, whole};

/// Every (begin, head end, end, order) that counts, by trying all positions
/// and all lengths.
fn matches(
    detectors: &[Detector],
    known: &[(&str, &[u8])],
    value: &[u8],
) -> Vec<(usize, usize, usize, usize)> {
    let mut found = Vec::new();
    for (order, (_, secret)) in known.iter().enumerate() {
        for begin in 0..value.len() {
            if value[begin..].starts_with(secret) {
                let end = begin + secret.len();
                found.push((begin, end, end, order));
            }
        }
    }
    for (index, detector) in detectors.iter().enumerate() {
        let order = known.len() + index;
        let regex = PikeVM::builder()
            .syntax(
                syntax::Config::new()
                    .unicode(false)
                    .utf8(false)
                    .dot_matches_new_line(true),
            )
            .thompson(regex_automata::nfa::thompson::Config::new().utf8(false))
            .build(&format!("(?:{})\\z", detector.pattern))
            .expect("a pattern");
        let mut cache = regex.create_cache();
        for start in 0..value.len() {
            if !detector
                .left
                .allows(start.checked_sub(1).map(|at| value[at]))
            {
                continue;
            }
            let words = &value[start.saturating_sub(CONTEXT_BYTES)..start];
            let words = String::from_utf8_lossy(words).to_ascii_lowercase();
            if !detector.context.is_empty()
                && !detector
                    .context
                    .iter()
                    .any(|word| words.contains(&word.to_ascii_lowercase()))
            {
                continue;
            }
            let end = (start + 1..=value.len()).rev().find(|end| {
                let text = &value[start..*end];
                let input = Input::new(text).anchored(Anchored::Yes);
                regex.is_match(&mut cache, input)
                    && detector.right.allows(value.get(*end).copied())
                    && detector
                        .min_entropy
                        .is_none_or(|least| entropy(text) >= least)
            });
            let Some(end) = end else { continue };
            let mut last = end;
            match &detector.tail {
                None => {}
                Some(Tail::While(set)) => {
                    while value.get(last).is_some_and(|byte| set.has(*byte)) {
                        last += 1;
                    }
                }
                Some(Tail::Until { set, end: stop }) => {
                    while value.get(last).is_some_and(|byte| set.has(*byte)) {
                        last += 1;
                        if value[end..last].ends_with(stop.as_bytes()) {
                            break;
                        }
                    }
                }
            }
            let head = end - detector.keep.1;
            found.push((start + detector.keep.0, head, last - detector.keep.1, order));
        }
    }
    found
}

fn entropy(bytes: &[u8]) -> f32 {
    let mut counts = BTreeMap::new();
    for byte in bytes {
        *counts.entry(byte).or_insert(0u32) += 1;
    }
    counts
        .values()
        .map(|count| {
            let share = *count as f32 / bytes.len() as f32;
            -share * share.log2()
        })
        .sum()
}

fn judged(detectors: &[Detector], known: &[(&str, &[u8])], value: &[u8]) -> String {
    let mut found = matches(detectors, known, value);
    found.sort_by_key(|(begin, head, _, order)| (*begin, std::cmp::Reverse(*head), *order));
    let kinds: Vec<&str> = known
        .iter()
        .map(|(kind, _)| *kind)
        .chain(detectors.iter().map(|d| d.kind.as_str()))
        .collect();
    let mut out = Vec::new();
    let (mut pos, mut masked_to) = (0, 0);
    for (begin, _, end, order) in found {
        if begin < masked_to {
            masked_to = masked_to.max(end);
        } else {
            out.extend_from_slice(&value[pos.max(masked_to)..begin]);
            out.extend_from_slice(format!("[masked:{}]", kinds[order]).as_bytes());
            masked_to = end;
        }
        pos = masked_to;
    }
    out.extend_from_slice(&value[masked_to.max(pos)..]);
    String::from_utf8_lossy(&out).into_owned()
}

fn detectors() -> Vec<Detector> {
    vec![
        Detector {
            right: Boundary::NotAlnum,
            ..Detector::new("ends", "ab[abc]{6,12}")
        },
        Detector {
            left: Boundary::NotAlnum,
            tail: Some(Tail::While(ByteSet::of("a-c-"))),
            ..Detector::new("tail", "-a[ab]{6}")
        },
        Detector {
            left: Boundary::NotWord,
            tail: Some(Tail::Until {
                set: ByteSet::of("a-c-"),
                end: "cac-".into(),
            }),
            ..Detector::new("until", "cc-[abc-]{5}")
        },
        Detector {
            keep: (3, 1),
            ..Detector::new("kept", "b-b[ab]{4,9}-")
        },
        Detector {
            context: vec!["CBA".into(), "--".into()],
            right: Boundary::NotAlnum,
            ..Detector::new("word", "[ab]{8}")
        },
        Detector {
            min_entropy: Some(1.5),
            ..Detector::new("random", "c[abc-]{8,10}c")
        },
        Detector::new("either", "(?:(?i)AB|bc)(?:-|a{1,3}){6,7}"),
    ]
}

#[test]
fn the_fast_masker_masks_what_the_slow_reading_says() {
    // Derived forms of these are never hit by this alphabet, except those that
    // equal the secret.
    let known: &[(&str, &[u8])] = &[("known:one", b"abcabc-abca"), ("known:two", b"ca-ca-")];
    for engine in engines() {
        let mut masker = Masker::new(compile(detectors(), known, engine)).expect("memory");
        let mut masked = 0;
        for seed in 1..1200u64 {
            let mut random = Random(seed);
            let len = 10 + random.below(50);
            let value: Vec<u8> = (0..len)
                .map(|_| b"aaabbbcc-- B"[random.below(12)])
                .collect();
            let (out, findings) = whole(&mut masker, &value, Fill::Placeholder);
            let expected = judged(&detectors(), known, &value);
            assert_eq!(
                String::from_utf8_lossy(&out),
                expected,
                "{engine:?} seed {seed}: {}",
                value.escape_ascii()
            );
            masked += findings.total();
        }
        assert!(masked > 300, "{masked}");
    }
}

#[test]
fn both_engines_find_the_same_in_the_default_pack() {
    if engines().len() < 2 {
        return;
    }
    let known: &[(&str, &[u8])] = &[("password:prod", b"Tq7vXz2LmP9dRk4WbN8s")];
    let mut maskers = engines()
        .into_iter()
        .map(|engine| Masker::new(default_rules(known, engine)).expect("memory"));
    let (mut one, mut two) = (maskers.next().expect("one"), maskers.next().expect("two"));
    let tokens = tokens();
    for seed in 1..1500u64 {
        let mut random = Random(seed);
        let mut value = Vec::new();
        for _ in 0..1 + random.below(6) {
            let token = tokens[random.below(tokens.len())].as_bytes();
            value.extend_from_slice(token);
            // Damage some.
            if random.below(2) == 0 {
                let at = random.below(value.len());
                value[at] = random.next() as u8;
            }
            value.extend_from_slice(
                random
                    .pick(&["", " ", "a", "=", "Tq7vXz2LmP9dRk4WbN8s"])
                    .as_bytes(),
            );
        }
        assert_eq!(
            whole(&mut one, &value, Fill::Placeholder),
            whole(&mut two, &value, Fill::Placeholder),
            "seed {seed}: {}",
            value.escape_ascii()
        );
        assert_eq!(one.is_clean(&value), two.is_clean(&value), "seed {seed}");
    }
}

#[test]
fn a_clean_buffer_has_no_finding_in_any_slice() {
    let known: &[(&str, &[u8])] = &[
        ("password:prod", b"Tq7vXz2LmP9dRk4WbN8s"),
        ("known:two", b"ca-ca-"),
    ];
    let tokens = tokens();
    for engine in engines() {
        let rules = [
            default_rules(known, engine),
            compile(detectors(), known, engine),
        ];
        for (which, rules) in rules.into_iter().enumerate() {
            let mut masker = Masker::new(rules).expect("memory");
            let (mut clean, mut dirty) = (0, 0);
            for seed in 1..400u64 {
                let mut random = Random(seed);
                let mut buffer: Vec<u8> = match which {
                    0 => (0..random.below(80)).map(|_| random.next() as u8).collect(),
                    _ => (0..20 + random.below(30))
                        .map(|_| b"aaabbbcc-- B"[random.below(12)])
                        .collect(),
                };
                let at = random.below(buffer.len() + 1);
                let token = tokens[random.below(tokens.len())].as_bytes();
                // Whole or cut short, with any neighbour.
                let token = &token[..token.len() - random.below(3) * 3];
                if which == 0 {
                    buffer.splice(at..at, token.iter().copied());
                }
                let is_clean = masker.is_clean(&buffer);
                let mut found = false;
                for from in 0..buffer.len() {
                    for to in [
                        buffer.len(),
                        from + random.below(buffer.len() - from + 1),
                        (at + token.len()).min(buffer.len()),
                    ] {
                        if from <= to {
                            found |= whole(&mut masker, &buffer[from..to], Fill::Placeholder)
                                .1
                                .total()
                                > 0;
                        }
                    }
                }
                assert!(
                    !(is_clean && found),
                    "{engine:?} seed {seed}: {}",
                    buffer.escape_ascii()
                );
                clean += usize::from(is_clean);
                dirty += usize::from(found);
            }
            assert!(clean > 20 && dirty > 20, "{which} {clean} {dirty}");
        }
    }
}
