//! The law: the same bytes cut anywhere give the same output; and nothing that
//! was released turns out to have been the start of a secret.

mod support;

use masking::{Boundary, ByteSet, Detector, Fill, Findings, Masker, Tail};
use portcullis_masking as masking;
use proptest::prelude::*;
use support::{
    FILLS, Random, assert_cut_anywhere, assert_same, compile, cut, default_rules, engines, tokens,
    whole,
};

/// Detectors that overlap, share beginnings, have many ends, tails that run
/// into other matches, kept edges and right boundaries.
fn tangled() -> Vec<Detector> {
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

const TANGLED_KNOWN: &[(&str, &[u8])] = &[
    ("known:one", b"abcabc-abca"),
    ("known:two", b"ca-ca-"),
    ("known:three", b"bca-cab"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn tangled_matches_come_out_the_same_however_they_are_cut(
        value in proptest::collection::vec(prop_oneof![8 => Just(b'a'), 8 => Just(b'b'), 8 => Just(b'c'), 6 => Just(b'-'), 1 => Just(b' ')], 0..120),
        seed in 1u64..,
    ) {
        let mut random = Random(seed);
        for engine in engines() {
            let mut masker = Masker::new(compile(tangled(), TANGLED_KNOWN, engine)).expect("memory");
            for fill in FILLS {
                let expected = whole(&mut masker, &value, fill);
                let every: Vec<usize> = (1..value.len().max(1)).collect();
                assert_same(&cut(&mut masker, &value, fill, &every), &expected, &value, &every);
                for count in [1, 2, 5, 20] {
                    let cuts = random.cuts(value.len(), count);
                    assert_same(&cut(&mut masker, &value, fill, &cuts), &expected, &value, &cuts);
                }
            }
        }
    }
}

#[test]
fn tangled_matches_come_out_the_same_at_every_cut() {
    for engine in engines() {
        let mut masker = Masker::new(compile(tangled(), TANGLED_KNOWN, engine)).expect("memory");
        let mut random = Random(11);
        for _ in 0..40 {
            let value: Vec<u8> = (0..60).map(|_| b"aabbcc-"[random.below(7)]).collect();
            assert_cut_anywhere(&mut masker, &value);
        }
    }
}

#[test]
fn tokens_among_text_come_out_the_same_however_they_are_cut() {
    let known: &[(&str, &[u8])] = &[
        ("password:prod", b"Tq7vXz2LmP9dRk4WbN8s"),
        ("password:dev", b"sk-ant-password"),
    ];
    let tokens = tokens();
    let mut pieces: Vec<&str> = tokens.iter().map(String::as_str).collect();
    pieces.extend([
        "Tq7vXz2LmP9dRk4WbN8s",
        "Tq7vXz2LmP9dR",
        "sk-ant-password",
        " ",
        "\n",
        "\"",
        "x",
        "-",
        ".",
        "aws ",
        "eyJ",
    ]);
    for engine in engines() {
        let mut masker = Masker::new(default_rules(known, engine)).expect("memory");
        for seed in 1..60u64 {
            let mut random = Random(seed);
            let mut value = Vec::new();
            for _ in 0..12 {
                let piece = random.pick(&pieces).as_bytes();
                let len = if random.below(4) == 0 {
                    random.below(piece.len() + 1)
                } else {
                    piece.len()
                };
                value.extend_from_slice(&piece[..len]);
            }
            for fill in FILLS {
                let expected = whole(&mut masker, &value, fill);
                let every: Vec<usize> = (1..value.len()).collect();
                assert_same(
                    &cut(&mut masker, &value, fill, &every),
                    &expected,
                    &value,
                    &every,
                );
                for count in [1, 3, 10, 50] {
                    let cuts = random.cuts(value.len(), count);
                    assert_same(
                        &cut(&mut masker, &value, fill, &cuts),
                        &expected,
                        &value,
                        &cuts,
                    );
                }
            }
        }
    }
}

#[test]
fn large_streams_come_out_the_same_in_large_and_uneven_pieces() {
    let known: &[(&str, &[u8])] = &[("password:prod", b"Tq7vXz2LmP9dRk4WbN8s")];
    let tokens = tokens();
    for engine in engines() {
        let mut masker = Masker::new(default_rules(known, engine)).expect("memory");
        let mut random = Random(5);
        let mut value = Vec::new();
        while value.len() < 300_000 {
            match random.below(200) {
                0 => value.extend_from_slice(b"Tq7vXz2LmP9dRk4WbN8s"),
                1 => value.extend_from_slice(tokens[random.below(tokens.len())].as_bytes()),
                _ => value.extend_from_slice(
                    format!("row {} plain text, {{\"n\":1}}\n", random.below(1000)).as_bytes(),
                ),
            }
        }
        // A secret across each seam of the pieces that streams work in.
        for seam in [65_536, 131_072, 262_144] {
            value[seam - 7..seam + 13].copy_from_slice(b"Tq7vXz2LmP9dRk4WbN8s");
        }
        let expected = whole(&mut masker, &value, Fill::Placeholder);
        assert!(expected.1.count("password:prod") > 20 && expected.1.total() > 50);
        for count in [0, 1, 7, 60, 900] {
            let cuts = random.cuts(value.len(), count);
            assert_same(
                &cut(&mut masker, &value, Fill::Placeholder, &cuts),
                &expected,
                b"(large)",
                &[],
            );
        }
    }
}

#[test]
fn no_start_of_a_secret_is_ever_released() {
    let secret: &[u8] = b"Tq7vXz2LmP9dRk4WbN8s";
    for engine in engines() {
        let mut masker =
            Masker::new(default_rules(&[("password:prod", secret)], engine)).expect("memory");
        let mut targets: Vec<Vec<u8>> = tokens()
            .into_iter()
            .take(8)
            .map(String::into_bytes)
            .collect();
        targets.push(secret.to_vec());
        for target in &targets {
            let mut stream = masker.stream(Fill::Placeholder);
            let (mut out, mut findings) = (Vec::new(), Findings::new());
            stream.push(&mut masker, b"prompt: ", &mut out, &mut findings);
            assert_eq!(out, b"prompt: ");
            for byte in target {
                stream.push(&mut masker, &[*byte], &mut out, &mut findings);
                assert!(
                    out == b"prompt: " || out.starts_with(b"prompt: [masked:"),
                    "{}",
                    out.escape_ascii()
                );
            }
            stream.push(&mut masker, b"\n", &mut out, &mut findings);
            stream.finish(&mut masker, &mut out, &mut findings);
            assert!(
                out.starts_with(b"prompt: [masked:") && out.ends_with(b"]\n"),
                "{}",
                out.escape_ascii()
            );
            assert_eq!(findings.total(), 1);
        }
    }
}

#[test]
fn ordinary_text_is_not_held_back() {
    for engine in engines() {
        let mut masker = Masker::new(default_rules(
            &[("password:prod", b"Tq7vXz2LmP9dRk4WbN8s")],
            engine,
        ))
        .expect("memory");
        let mut stream = masker.stream(Fill::Placeholder);
        let (mut out, mut findings) = (Vec::new(), Findings::new());
        for line in [
            "id | name\n",
            "----+-----\n",
            " 17 | Ada\n",
            "$ ",
            "user@host:~$ ls -l /tmp/x\r\n",
        ] {
            stream.push(&mut masker, line.as_bytes(), &mut out, &mut findings);
            assert_eq!(stream.held(), 0, "{line}");
        }
        assert!(findings.is_empty());
    }
}

#[test]
fn an_idle_terminal_gets_its_prompt_but_no_half_known_secret() {
    let secret: &[u8] = b"Tq7vXz2LmP9dRk4WbN8s";
    for engine in engines() {
        let mut masker =
            Masker::new(default_rules(&[("password:prod", secret)], engine)).expect("memory");
        let (mut out, mut findings) = (Vec::new(), Findings::new());
        let mut stream = masker.stream(Fill::Placeholder);
        // A prompt that ends like the start of a token.
        stream.push(&mut masker, b"enter eyJ", &mut out, &mut findings);
        assert_eq!(stream.held(), 3);
        stream.flush_idle(&mut masker, &mut out, &mut findings);
        assert_eq!(
            (out.as_slice(), stream.held()),
            (b"enter eyJ".as_slice(), 0)
        );
        // Half a known secret stays, and again, and is masked in the end.
        stream.push(
            &mut masker,
            &[b" ", &secret[..10]].concat(),
            &mut out,
            &mut findings,
        );
        for _ in 0..3 {
            stream.flush_idle(&mut masker, &mut out, &mut findings);
            assert_eq!(
                (out.as_slice(), stream.held()),
                (b"enter eyJ ".as_slice(), 10)
            );
        }
        stream.push(&mut masker, &secret[10..], &mut out, &mut findings);
        stream.push(&mut masker, b" ok", &mut out, &mut findings);
        // A whole token that waits for its right neighbour is masked, not released.
        let token = ["AKIA", "IOSFODNN7EXAMPLE"].concat();
        stream.push(
            &mut masker,
            format!(" {token}").as_bytes(),
            &mut out,
            &mut findings,
        );
        stream.flush_idle(&mut masker, &mut out, &mut findings);
        stream.flush_idle(&mut masker, &mut out, &mut findings);
        stream.push(&mut masker, b"\n", &mut out, &mut findings);
        stream.finish(&mut masker, &mut out, &mut findings);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "enter eyJ [masked:password:prod] ok [masked:aws-access-key-id]\n"
        );
    }
}

#[test]
fn a_secret_typed_with_pauses_loses_three_bytes_at_most() {
    let secret: &[u8] = b"Tq7vXz2LmP9dRk4WbN8s";
    for engine in engines() {
        let mut masker =
            Masker::new(default_rules(&[("password:prod", secret)], engine)).expect("memory");
        let (mut out, mut findings) = (Vec::new(), Findings::new());
        let mut stream = masker.stream(Fill::Placeholder);
        for byte in secret {
            stream.push(&mut masker, &[*byte], &mut out, &mut findings);
            stream.flush_idle(&mut masker, &mut out, &mut findings);
        }
        stream.push(&mut masker, b" x", &mut out, &mut findings);
        stream.finish(&mut masker, &mut out, &mut findings);
        assert_eq!(String::from_utf8_lossy(&out), "Tq7[masked:password:prod] x");
    }
}

#[test]
fn a_stream_keeps_its_rule_set_when_the_shard_has_a_new_one() {
    for engine in engines() {
        let mut old = Masker::new(compile(
            vec![],
            &[("password:old", b"Tq7vXz2LmP9dRk4WbN8s")],
            engine,
        ))
        .expect("memory");
        let mut new = Masker::new(compile(
            vec![],
            &[("password:new", b"another-password-now")],
            engine,
        ))
        .expect("memory");
        let (mut out, mut findings) = (Vec::new(), Findings::new());
        let mut stream = old.stream(Fill::Placeholder);
        stream.push(&mut old, b"a Tq7vXz2LmP", &mut out, &mut findings);
        drop(old);
        stream.push(&mut new, b"9dRk4WbN8s b", &mut out, &mut findings);
        stream.finish(&mut new, &mut out, &mut findings);
        assert_eq!(String::from_utf8_lossy(&out), "a [masked:password:old] b");
    }
}
