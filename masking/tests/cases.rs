//! The cases in `testdata/`, each whole, cut anywhere, and on every engine.

mod support;

use masking::{Fill, Masker, builtin_pack};
use portcullis_masking as masking;
use support::{assert_cut_anywhere, compile, engines, whole};

struct Case {
    line: usize,
    input: Vec<u8>,
    /// `None`: stays as it is.
    masked: Option<Vec<u8>>,
}

fn read(text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (input, masked) = match line.split_at_checked(2) {
            Some(("+ ", rest)) => {
                let (input, masked) = rest
                    .split_once(" => ")
                    .unwrap_or_else(|| panic!("line {}", index + 1));
                (input, Some(unescape(masked)))
            }
            Some(("- ", rest)) => (rest, None),
            _ => {
                assert!(
                    line.is_empty() || line.starts_with(['#', '[']),
                    "line {}: {line}",
                    index + 1
                );
                continue;
            }
        };
        cases.push(Case {
            line: index + 1,
            input: unescape(input),
            masked,
        });
    }
    cases
}

fn unescape(text: &str) -> Vec<u8> {
    let text = text.replace("<+>", "");
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'\\') => out.push(b'\\'),
            Some(b'x') => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&digits, 16).expect("two hexadecimal digits"));
            }
            other => panic!("escape {other:?}"),
        }
    }
    out
}

fn run(pack: &str, text: &str, least: usize) {
    let cases = read(text);
    assert!(cases.len() >= least, "{} cases", cases.len());
    for engine in engines() {
        let rules = compile(builtin_pack(pack).expect("a pack"), &[], engine);
        let mut masker = Masker::new(rules).expect("memory");
        for case in &cases {
            let (out, _) = whole(&mut masker, &case.input, Fill::Placeholder);
            let expected = case.masked.as_ref().unwrap_or(&case.input);
            assert!(
                &out == expected,
                "{pack}, line {}, {engine:?}\ngot      {}\nexpected {}",
                case.line,
                out.escape_ascii(),
                expected.escape_ascii()
            );
            if case.masked.is_some() {
                assert!(!masker.is_clean(&case.input), "line {}", case.line);
                assert!(masker.contains_mask(&out), "line {}", case.line);
            }
            let (same, _) = whole(&mut masker, &case.input, Fill::SameLength);
            assert_eq!(same.len(), case.input.len(), "line {}", case.line);
            assert_eq!(
                same == case.input,
                case.masked.is_none(),
                "line {}",
                case.line
            );
            assert_cut_anywhere(&mut masker, &case.input);
        }
    }
}

#[test]
fn the_default_pack_masks_what_its_cases_say() {
    run("default", include_str!("../testdata/default.txt"), 95);
}

#[test]
fn the_payment_card_pack_masks_what_its_cases_say() {
    run(
        "payment-cards",
        include_str!("../testdata/payment-cards.txt"),
        10,
    );
}

#[test]
fn every_kind_of_the_default_pack_has_a_case() {
    let text = include_str!("../testdata/default.txt");
    for detector in builtin_pack("default").expect("a pack") {
        let mask = format!("[masked:{}]", detector.kind);
        assert!(text.contains(&mask), "{}", detector.kind);
    }
}
