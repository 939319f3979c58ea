//! Detectors that come with the program. Cases for and against each stand in
//! `testdata/`.
//!
//! A pattern is the head of a secret that is certain by itself: a provider's
//! prefix and the least that follows it. What follows beyond is a tail, so a
//! token of any length is masked whole and a stream waits for the head alone.

use crate::{Boundary, ByteSet, Checksum, Detector, Tail};

const ALNUM: ByteSet = ByteSet::of("A-Za-z0-9");
const WORD: ByteSet = ByteSet::of("A-Za-z0-9_");
const BASE64URL: ByteSet = ByteSet::of("A-Za-z0-9_-");
const DOTTED: ByteSet = ByteSet::of("A-Za-z0-9_.-");
const BASE64: ByteSet = ByteSet::of("A-Za-z0-9+/=");
const PATH: ByteSet = ByteSet::of("A-Za-z0-9/");

/// What stands between the lines of a private key in PEM (RFC 7468; RFC 1421
/// headers) or OpenPGP armour: base64, white space, header fields, also with
/// `\n` for line ends, comment and diff marks, and terminal colours. No quote,
/// bracket or prompt character: if the end never comes, one of those ends it.
const ARMOUR: ByteSet = ByteSet::of("A-Za-z0-9+/= \t\r\n\\:,.()|>;[\x1b-");

/// One line of the table below.
struct Line {
    kind: &'static str,
    pattern: &'static str,
    left: Boundary,
    right: Boundary,
    tail: Option<ByteSet>,
}

const fn line(kind: &'static str, pattern: &'static str, tail: ByteSet) -> Line {
    Line {
        kind,
        pattern,
        left: Boundary::NotAlnum,
        right: Boundary::None,
        tail: Some(tail),
    }
}

const fn fixed(kind: &'static str, pattern: &'static str) -> Line {
    Line {
        kind,
        pattern,
        left: Boundary::NotAlnum,
        right: Boundary::NotAlnum,
        tail: None,
    }
}

const TOKENS: &[Line] = &[
    // Long-term (AKIA), temporary (ASIA), bearer and context ids.
    fixed("aws-access-key-id", "(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    // Personal, OAuth, user-to-server, server-to-server, refresh. The
    // checksum is not asked for: the shape is certain, and masking a token
    // with a wrong checksum harms nobody.
    line("github-token", "gh[opsur]_[A-Za-z0-9]{36}", ALNUM),
    line(
        "github-token",
        "github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{20}",
        WORD,
    ),
    line(
        "gitlab-token",
        "gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[A-Za-z0-9_-]{20}",
        DOTTED,
    ),
    line(
        "slack-token",
        "xox[abeoprs](?:\\.xox[bp])?-[A-Za-z0-9-]{16}",
        BASE64URL,
    ),
    line(
        "slack-token",
        "xapp-[0-9]-A[A-Z0-9]{8}[A-Za-z0-9-]{8}",
        BASE64URL,
    ),
    line(
        "slack-webhook",
        "hooks\\.slack\\.com/(?:services|workflows|triggers)/[A-Z][A-Z0-9]{6}[A-Z0-9/]{8}",
        PATH,
    ),
    line(
        "stripe-key",
        "(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16}",
        ALNUM,
    ),
    line("stripe-webhook-secret", "whsec_[A-Za-z0-9+/]{32}", BASE64),
    fixed("google-api-key", "AIza[A-Za-z0-9_-]{35}"),
    line("google-oauth-token", "ya29\\.[A-Za-z0-9_-]{20}", DOTTED),
    line(
        "google-client-secret",
        "GOCSPX-[A-Za-z0-9_-]{28}",
        BASE64URL,
    ),
    line("anthropic-key", "sk-ant-[A-Za-z0-9_-]{20}", BASE64URL),
    line(
        "openai-key",
        "sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20}",
        BASE64URL,
    ),
    line("openai-key", "sk-[A-Za-z0-9]{32}", ALNUM),
    line("huggingface-token", "hf_[A-Za-z0-9]{34}", ALNUM),
    line("npm-token", "npm_[A-Za-z0-9]{36}", ALNUM),
    // "pypi-" and the base64 of the macaroon that every such token opens with.
    line("pypi-token", "pypi-AgE[A-Za-z0-9_-]{30}", BASE64URL),
    line(
        "docker-token",
        "dckr_(?:pat|oat)_[A-Za-z0-9_-]{24}",
        BASE64URL,
    ),
    line("digitalocean-token", "do[opr]_v1_[a-f0-9]{64}", ALNUM),
    line(
        "sendgrid-key",
        "SG\\.[A-Za-z0-9_-]{22}\\.[A-Za-z0-9_-]{40}",
        BASE64URL,
    ),
    line(
        "shopify-token",
        "shp(?:at|ca|pa|ss|tka)_[A-Fa-f0-9]{32}",
        ALNUM,
    ),
    line("databricks-token", "dapi[a-f0-9]{32}", BASE64URL),
    line("vault-token", "hv[bsr]\\.[A-Za-z0-9_-]{24}", BASE64URL),
    line("azure-storage-key", "AccountKey=[A-Za-z0-9+/]{80}", BASE64),
    line("age-secret-key", "AGE-SECRET-KEY-1[A-Z0-9]{58}", ALNUM),
    // Header and payload of a JWS or JWE in compact form (RFC 7515, section
    // 7.1): `eyJ` is the base64 of `{"`.
    line(
        "jwt",
        "eyJ[A-Za-z0-9_-]{8,512}\\.eyJ[A-Za-z0-9_-]{8}",
        DOTTED,
    ),
];

/// Words of which one stands before an AWS secret access key.
const AWS_WORDS: &[&str] = &[
    "aws",
    "secret_access_key",
    "secretaccesskey",
    "secretkey",
    "secret_key",
    "akia",
    "asia",
];

fn default_pack() -> Vec<Detector> {
    let mut pack: Vec<Detector> = TOKENS
        .iter()
        .map(|line| Detector {
            left: line.left,
            right: line.right,
            tail: line.tail.map(Tail::While),
            ..Detector::new(line.kind, line.pattern)
        })
        .collect();
    // Forty characters of base64 and nothing else to know it by: words before
    // it, and more entropy than forty hexadecimal digits (4.0) can have.
    pack.push(Detector {
        left: Boundary::NotBase64,
        right: Boundary::NotBase64,
        min_entropy: Some(4.1),
        context: AWS_WORDS.iter().map(|word| (*word).to_string()).collect(),
        ..Detector::new("aws-secret-access-key", "[A-Za-z0-9/+]{40}")
    });
    for (begin, end) in [
        (
            "-----BEGIN [A-Z0-9 ]{0,24}PRIVATE KEY-----",
            "PRIVATE KEY-----",
        ),
        (
            "-----BEGIN PGP PRIVATE KEY BLOCK-----",
            "PRIVATE KEY BLOCK-----",
        ),
    ] {
        pack.push(Detector {
            tail: Some(Tail::Until {
                set: ARMOUR,
                end: end.to_string(),
            }),
            ..Detector::new("private-key", begin)
        });
    }
    // The userinfo of a URL with a password (RFC 3986, section 3.2.1), masked
    // between `://` and `@`. An empty user is how Redis writes it.
    pack.push(Detector {
        keep: (3, 1),
        ..Detector::new(
            "url-credentials",
            "://[^\\x00-\\x20\"'<>`\\\\^{|}:/?#@]{0,64}:[^\\x00-\\x20\"'<>`\\\\^{|}/?#@]{3,128}@",
        )
    });
    pack
}

/// Payment card numbers, 13 to 19 digits in a row (ISO/IEC 7812-1) of the
/// large networks, with a right check digit.
fn payment_card_pack() -> Vec<Detector> {
    vec![Detector {
        left: Boundary::NotAlnum,
        right: Boundary::NotAlnum,
        checksum: Some(Checksum::Luhn),
        ..Detector::new(
            "payment-card",
            "(?:[2456][0-9]{3}|3[0-9]{3})[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{1,7}",
        )
    }]
}

/// The detectors of a named pack: `default` (tokens and keys of providers,
/// private keys, JWTs, passwords in URLs), `payment-cards`. `None` for any
/// other name.
pub fn builtin_pack(name: &str) -> Option<Vec<Detector>> {
    match name {
        "default" => Some(default_pack()),
        "payment-cards" => Some(payment_card_pack()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Engine, RuleSet};

    #[test]
    fn every_pack_compiles_on_every_engine_of_the_build() {
        for name in ["default", "payment-cards"] {
            for engine in [Engine::Auto, Engine::Portable] {
                let rules = RuleSet::compile(Config {
                    detectors: builtin_pack(name).expect("a pack"),
                    engine,
                    ..Config::default()
                });
                let rules = rules.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(rules.hold_back_max() < 600, "{}", rules.hold_back_max());
            }
        }
        assert!(builtin_pack("no-such-pack").is_none());
    }
}
