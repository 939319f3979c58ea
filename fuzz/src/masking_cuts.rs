//! The law of cuts: the same bytes cut anywhere give the same output and findings, and no
//! known secret is left in it.

use std::cell::RefCell;

use masking::{
    Boundary, ByteSet, Config, Detector, Engine, Fill, Findings, KnownSecret, Masker, RuleSet,
    Tail, builtin_pack,
};

use crate::input::{Input, contains, pieces};

/// A known secret of the first rule set.
pub const KNOWN: &[u8] = b"Tq7vXz2LmP9dRk4WbN8s";

thread_local! {
    static MASKERS: RefCell<[Masker; 2]> = RefCell::new([
        masker(builtin_pack("default").expect("the default pack"), &[KNOWN, b"sk-ant-password"]),
        masker(tangled(), &[b"abcabc-abca", b"ca-ca-", b"bca-cab"]),
    ]);
}

fn masker(detectors: Vec<Detector>, known: &[&[u8]]) -> Masker {
    let name = |(index, bytes): (usize, &&[u8])| KnownSecret::new(format!("known:{index}"), *bytes);
    let config = Config {
        detectors,
        known: known.iter().enumerate().map(name).collect(),
        tag_key: [7; 32],
        engine: Engine::Portable,
    };
    Masker::new(RuleSet::compile(config).expect("rules that compile")).expect("memory")
}

/// Detectors that overlap, share beginnings and run into each other.
fn tangled() -> Vec<Detector> {
    let until = Tail::Until {
        set: ByteSet::of("a-c-"),
        end: "cac-".into(),
    };
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
            tail: Some(until),
            ..Detector::new("until", "cc-[abc-]{5}")
        },
        Detector {
            keep: (3, 1),
            ..Detector::new("kept", "b-b[ab]{4,9}-")
        },
        Detector {
            context: vec!["CBA".into()],
            right: Boundary::NotAlnum,
            ..Detector::new("word", "[ab]{8}")
        },
        Detector {
            min_entropy: Some(1.5),
            ..Detector::new("random", "c[abc-]{8,10}c")
        },
    ]
}

/// Input: the rule set and fill (bits 0 and 1; 2: the value is spelt in a, b, c and -),
/// read sizes, the value.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let sizes = input.sizes();
    let mut value = input.rest().to_vec();
    if flags & 4 != 0 {
        for byte in &mut value {
            *byte = b"abc-"[usize::from(*byte & 3)];
        }
    }
    let fill = if flags & 2 == 0 {
        Fill::Placeholder
    } else {
        Fill::SameLength
    };
    MASKERS.with_borrow_mut(|maskers| {
        let masker = &mut maskers[usize::from(flags & 1)];
        let mut findings = Findings::new();
        let masked = masker.mask_value(&value, fill, &mut findings);
        assert_eq!(masked.is_none(), findings.is_empty());
        let expected = masked.unwrap_or_else(|| value.clone());
        assert!(fill == Fill::Placeholder || expected.len() == value.len());
        if flags & 1 == 0 {
            assert!(!contains(&expected, KNOWN), "a known secret is left");
        }
        for sizes in [sizes, &[1]] {
            let mut found = Findings::new();
            let mut out = Vec::new();
            let mut stream = masker.stream(fill);
            for piece in pieces(&value, sizes) {
                stream.push(masker, piece, &mut out, &mut found);
                assert!(stream.held() <= masker.rules().hold_back_max());
            }
            stream.finish(masker, &mut out, &mut found);
            assert_eq!(
                out.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "cut by {sizes:?}"
            );
            assert_eq!(found, findings);
        }
    });
}
