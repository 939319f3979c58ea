//! Known secrets in every form, masks that are known again, and no secret in
//! anything that is printed.

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use masking::{
    Config, Detector, Fill, Findings, KNOWN_BYTES_MAX, KnownSecret, MaskError, Masker, RuleSet,
    TAG_BYTES,
};
use portcullis_masking as masking;
use support::{FILLS, Random, assert_cut_anywhere, compile, default_rules, engines, whole};

const SECRET: &[u8] = b"Tq7v\"Xz2/L\\mP9'd+R&k 4W";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The secret as programs write it, with what stands around.
fn shapes() -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(SECRET).expect("text");
    let percent = |upper: bool| -> String {
        SECRET
            .iter()
            .map(|byte| match byte {
                b if b.is_ascii_alphanumeric() => char::from(*b).to_string(),
                b if upper => format!("%{b:02X}"),
                b => format!("%{b:02x}"),
            })
            .collect()
    };
    let mut shapes = [
        text.to_string(),
        hex(SECRET),
        hex(SECRET).to_uppercase(),
        format!("\\x{}", hex(SECRET)),
        format!("\\\\x00{}ff", hex(SECRET)),
        percent(true),
        percent(false),
        percent(true).replace("%20", "+"),
        format!("{text:?}"),
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('/', "\\/"),
        text.replace('\'', "''"),
        text.replace('"', "\"\""),
        text.replace('\\', "\\\\"),
        text.replace('\'', "'\\''"),
        text.replace('&', "&amp;")
            .replace('"', "&quot;")
            .replace('\'', "&#39;"),
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('&', "\\u0026"),
        SECRET.iter().map(|byte| format!("\\x{byte:02x}")).collect(),
        SECRET.iter().map(|byte| format!("%{byte:02x}")).collect(),
    ]
    .map(String::into_bytes)
    .to_vec();
    for lead in 0..4 {
        for trail in 0..3 {
            let around = [&b"abcd"[..lead], SECRET, &b"xyz"[..trail]].concat();
            shapes.push(STANDARD.encode(&around).into_bytes());
            shapes.push(URL_SAFE_NO_PAD.encode(&around).into_bytes());
        }
    }
    shapes.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
    shapes.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
    shapes
}

#[test]
fn a_planted_secret_is_masked_in_every_form() {
    for engine in engines() {
        let mut masker =
            Masker::new(default_rules(&[("password:prod", SECRET)], engine)).expect("memory");
        for shape in shapes() {
            for (before, after) in [
                ("", ""),
                ("{\"p\":\"", "\"}"),
                // A NUL behind UTF-16 would read as the end of the other order.
                ("\0\0\0\x17", "\x01"),
                ("row ", "\n"),
            ] {
                let value = [before.as_bytes(), &shape, after.as_bytes()].concat();
                assert!(!masker.is_clean(&value), "{}", value.escape_ascii());
                let (out, findings) = whole(&mut masker, &value, Fill::Placeholder);
                assert_eq!(
                    findings.count("password:prod"),
                    1,
                    "{}",
                    value.escape_ascii()
                );
                // Nothing of it remains but what surrounds it: at most one
                // character of base64 at each end and the neighbours' own ones.
                let mask = b"[masked:password:prod]".len();
                assert!(
                    out.len() <= before.len() + mask + after.len() + 12,
                    "{} left {}",
                    value.escape_ascii(),
                    out.escape_ascii()
                );
                assert!(
                    out.starts_with(before.as_bytes()) && out.ends_with(after.as_bytes()),
                    "{} became {}",
                    value.escape_ascii(),
                    out.escape_ascii()
                );
            }
            assert_cut_anywhere(&mut masker, &shape);
        }
    }
}

#[test]
fn a_piece_of_a_known_secret_is_left_alone() {
    for engine in engines() {
        let mut masker =
            Masker::new(compile(vec![], &[("password:prod", SECRET)], engine)).expect("memory");
        for len in 1..SECRET.len() {
            assert!(
                whole(&mut masker, &SECRET[..len], Fill::Placeholder)
                    .1
                    .is_empty()
            );
            assert!(
                whole(&mut masker, &SECRET[len..], Fill::Placeholder)
                    .1
                    .is_empty()
            );
        }
    }
}

#[test]
fn secrets_of_every_length_and_content_are_found() {
    for engine in engines() {
        let mut random = Random(3);
        for len in [6, 7, 8, 15, 16, 17, 40, 300, 2000] {
            let secret: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            let mut masker =
                Masker::new(compile(vec![], &[("k", &secret)], engine)).expect("memory");
            for form in [
                secret.clone(),
                hex(&secret).into_bytes(),
                STANDARD.encode(&secret).into_bytes(),
            ] {
                let value = [b"<", form.as_slice(), b">"].concat();
                assert_eq!(
                    whole(&mut masker, &value, Fill::Placeholder).0,
                    b"<[masked:k]>",
                    "{len}"
                );
                let every: Vec<usize> = (1..value.len()).collect();
                assert_eq!(
                    support::cut(&mut masker, &value, Fill::Placeholder, &every).0,
                    b"<[masked:k]>"
                );
            }
        }
    }
}

#[test]
fn masks_of_both_fills_are_known_again_and_only_with_the_same_key() {
    for engine in engines() {
        let mut masker =
            Masker::new(default_rules(&[("password:prod", SECRET)], engine)).expect("memory");
        let other = RuleSet::compile(Config {
            tag_key: [8; 32],
            engine,
            ..Config::default()
        });
        let mut other = Masker::new(other.expect("an empty rule set")).expect("memory");
        let value = [b"update t set p = '", SECRET, b"'"].concat();
        assert!(!masker.contains_mask(&value));
        for fill in FILLS {
            let (out, _) = whole(&mut masker, &value, fill);
            assert!(masker.contains_mask(&out), "{}", out.escape_ascii());
            assert_eq!(other.contains_mask(&out), fill == Fill::Placeholder);
        }
        let (out, _) = whole(&mut masker, &value, Fill::SameLength);
        assert_eq!(out.len(), value.len());
        assert!(out.is_ascii());
    }
}

#[test]
fn spans_too_short_for_the_tag_are_stars() {
    for engine in engines() {
        let mut masker = Masker::new(compile(vec![], &[("k", b"sEcr7t")], engine)).expect("memory");
        assert!(b"sEcr7t".len() < TAG_BYTES);
        assert_eq!(
            whole(&mut masker, b"a sEcr7t b", Fill::SameLength).0,
            b"a ****** b"
        );
    }
}

#[test]
fn an_empty_rule_set_finds_nothing() {
    for engine in engines() {
        let mut masker = Masker::new(compile(vec![], &[], engine)).expect("memory");
        assert_eq!(masker.rules().hold_back_max(), 0);
        assert!(masker.is_clean(SECRET) && masker.is_clean(b""));
        assert_cut_anywhere(&mut masker, SECRET);
        assert_eq!(
            masker.mask_value(SECRET, Fill::Placeholder, &mut Findings::new()),
            None
        );
    }
}

#[test]
fn weak_and_short_known_secrets_are_named() {
    let rules = compile(
        vec![],
        &[
            ("strong", b"wJalrXUtnFEMI/K7MDENG/bPxRfiCY"),
            ("weak", b"hunter22"),
            ("short", b"pw1"),
            ("empty", b""),
        ],
        engines()[0],
    );
    let weak: Vec<_> = rules
        .weak_known()
        .iter()
        .map(|weak| (weak.kind.as_str(), weak.searched))
        .collect();
    assert_eq!(weak, [("weak", true), ("short", false), ("empty", false)]);
    let mut masker = Masker::new(rules).expect("memory");
    assert!(masker.is_clean(b"pw1 pw1"));
    assert_eq!(
        whole(&mut masker, b"hunter22", Fill::Placeholder).0,
        b"[masked:weak]"
    );
}

#[test]
fn refuses_what_it_cannot_keep_its_word_for() {
    let refused = |detectors: Vec<Detector>, known: Vec<KnownSecret>| {
        RuleSet::compile(Config {
            detectors,
            known,
            ..Config::default()
        })
        .err()
    };
    let detector = |pattern: &str| vec![Detector::new("some-kind", pattern)];
    for (pattern, part) in [
        ("secret-.*", "some-kind: pattern has no upper length"),
        ("(secret", "some-kind: pattern cannot be read"),
        (
            "secret-[a-z]{1,9000}",
            "some-kind: pattern can match 9007 bytes",
        ),
        ("abc", "some-kind: pattern can match as little as 3 bytes"),
        ("secret-key$", "some-kind: anchors"),
    ] {
        let error = refused(detector(pattern), vec![]).unwrap_or_else(|| panic!("{pattern}"));
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(matches!(
        refused(vec![Detector::new("bad kind]", "secret-key")], vec![]),
        Some(MaskError::KindInvalid { .. })
    ));
    assert!(matches!(
        refused(
            vec![],
            vec![KnownSecret::new("k", vec![b'x'; KNOWN_BYTES_MAX + 1])]
        ),
        Some(MaskError::KnownTooLong { .. })
    ));
    let mut tailed = detector("secret-key").remove(0);
    tailed.tail = Some(masking::Tail::While(masking::ByteSet::of("a-z")));
    tailed.keep = (0, 1);
    assert!(matches!(
        refused(vec![tailed], vec![]),
        Some(MaskError::DetectorInconsistent { .. })
    ));
}

#[test]
fn nothing_that_is_printed_shows_a_secret() {
    let config = Config {
        known: vec![KnownSecret::new("password:prod", "planted-s3cr3t")],
        ..Config::default()
    };
    let mut shown = format!("{config:?}");
    let rules = RuleSet::compile(config).expect("compiles");
    let mut masker = Masker::new(rules.clone()).expect("memory");
    let mut stream = masker.stream(Fill::Placeholder);
    let (mut out, mut findings) = (Vec::new(), Findings::new());
    stream.push(&mut masker, b"x planted-s3", &mut out, &mut findings);
    stream.push(&mut masker, b"cr3t planted-s", &mut out, &mut findings);
    shown += &format!(
        "{rules:?} {masker:?} {stream:?} {findings:?} {:?}",
        rules.weak_known()
    );
    let bytes = format!("{:?}", b"planted").replace(['[', ']'], "");
    assert!(
        !shown.contains("planted") && !shown.contains(&bytes),
        "{shown}"
    );
    assert_eq!(out, b"x [masked:password:prod] ");
    // An error that names a secret names its label.
    let long = KnownSecret::new("password:prod", "planted".repeat(2000));
    let error = RuleSet::compile(Config {
        known: vec![long],
        ..Config::default()
    });
    let error = error.expect_err("too long");
    assert!(!format!("{error} {error:?}").contains("planted"));
}
