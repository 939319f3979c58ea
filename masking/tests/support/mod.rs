//! Shared by the tests of masking: rule sets, whole and cut runs, a small
//! seeded generator.
#![allow(dead_code)]

use std::sync::Arc;

use masking::{
    Config, Detector, Engine, Fill, Findings, KnownSecret, Masker, RuleSet, builtin_pack,
};
use portcullis_masking as masking;

pub const FILLS: [Fill; 2] = [Fill::Placeholder, Fill::SameLength];

pub fn engines() -> Vec<Engine> {
    if cfg!(feature = "hyperscan") {
        vec![Engine::Hyperscan, Engine::Portable]
    } else {
        vec![Engine::Portable]
    }
}

pub fn compile(detectors: Vec<Detector>, known: &[(&str, &[u8])], engine: Engine) -> Arc<RuleSet> {
    RuleSet::compile(Config {
        detectors,
        known: known
            .iter()
            .map(|(kind, bytes)| KnownSecret::new(*kind, *bytes))
            .collect(),
        tag_key: [7; 32],
        engine,
    })
    .expect("a rule set that compiles")
}

pub fn default_rules(known: &[(&str, &[u8])], engine: Engine) -> Arc<RuleSet> {
    compile(
        builtin_pack("default").expect("the default pack"),
        known,
        engine,
    )
}

/// The value masked whole.
pub fn whole(masker: &mut Masker, value: &[u8], fill: Fill) -> (Vec<u8>, Findings) {
    let mut findings = Findings::new();
    let masked = masker.mask_value(value, fill, &mut findings);
    assert_eq!(masked.is_none(), findings.is_empty());
    (masked.unwrap_or_else(|| value.to_vec()), findings)
}

/// The value masked as a stream, cut at the given places (ascending).
pub fn cut(masker: &mut Masker, value: &[u8], fill: Fill, cuts: &[usize]) -> (Vec<u8>, Findings) {
    let hold_back_max = masker.rules().hold_back_max();
    let mut findings = Findings::new();
    let mut stream = masker.stream(fill);
    let mut out = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([value.len()]) {
        stream.push(masker, &value[from..to], &mut out, &mut findings);
        assert!(stream.held() <= hold_back_max, "held {}", stream.held());
        from = to;
    }
    stream.finish(masker, &mut out, &mut findings);
    (out, findings)
}

/// Whole, byte by byte, and every way to cut in two give the same.
pub fn assert_cut_anywhere(masker: &mut Masker, value: &[u8]) {
    for fill in FILLS {
        let expected = whole(masker, value, fill);
        let every: Vec<usize> = (1..value.len().max(1)).collect();
        assert_same(&cut(masker, value, fill, &every), &expected, value, &every);
        for at in 0..=value.len() {
            assert_same(&cut(masker, value, fill, &[at]), &expected, value, &[at]);
        }
    }
}

pub fn assert_same(
    got: &(Vec<u8>, Findings),
    expected: &(Vec<u8>, Findings),
    value: &[u8],
    cuts: &[usize],
) {
    assert!(
        got == expected,
        "value {}\ncuts {cuts:?}\ngot      {} {:?}\nexpected {} {:?}",
        value.escape_ascii(),
        got.0.escape_ascii(),
        got.1,
        expected.0.escape_ascii(),
        expected.1
    );
}

/// A small generator (xorshift64*); the seed is printed by what fails.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 16) % limit.max(1) as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// `count` ascending places in `0..=len`.
    pub fn cuts(&mut self, len: usize, count: usize) -> Vec<usize> {
        let mut cuts: Vec<usize> = (0..count).map(|_| self.below(len + 1)).collect();
        cuts.sort_unstable();
        cuts
    }
}

/// Made-up tokens of the default pack, put together at run time so that no
/// scanner of repositories takes them for real.
pub fn tokens() -> Vec<String> {
    [
        ["AKIA", "IOSFODNN7EXAMPLE"],
        ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"],
        ["glpat-", "x7Kq2mZpT9vLrB4cN8sW"],
        ["sk_live_", "4eC39HqLyjWDarjtT1zdp7dc"],
        ["sk-ant-", "api03-AbCdEfGhIjKlMnOpQrSt_0123"],
        ["xoxb-", "123456789012-1234567890123-AbCd"],
        ["AIza", "SyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe"],
        [
            "eyJ",
            "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl",
        ],
        ["postgres://app:", "s3cr3t@db/app"],
        [
            "-----BEGIN RSA ",
            "PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----",
        ],
        ["aws secret ", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"],
    ]
    .iter()
    .map(|[a, b]| format!("{a}{b}"))
    .collect()
}
