//! JWTs: what is accepted, and every way of being refused.
//!
//! Tokens are put together here by hand, so that they can be wrong in ways
//! that a library would not write.

use std::sync::Arc;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::limits::TOKEN_BYTES_MAX;
use crate::{Verifier, VerifierConfig};

const NOW: u64 = 1_000_000;
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "portcullis.example";

struct Keys {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    rsa: RsaKeyPair,
    set: Value,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Keys {
    fn new() -> Self {
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let ed = Ed25519KeyPair::generate().unwrap();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let point = ec.public_key().as_ref();
        let rsa_public = rsa.public_key();
        let set = json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": "ec", "x": b64(&point[1..33]),
              "y": b64(&point[33..65]) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(ed.public_key()) },
            { "kty": "RSA", "kid": "rsa",
              "n": b64(rsa_public.modulus().big_endian_without_leading_zero()),
              "e": b64(rsa_public.exponent().big_endian_without_leading_zero()) },
        ]});
        Self { ec, ed, rsa, set }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match algorithm {
            "ES256" => self.ec.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            other => panic!("no key for {other}"),
        }
    }

    /// Signs whatever header says, with the key that `with` names.
    fn token_raw(&self, header: &Value, payload: &str, with: &str) -> String {
        let message = format!("{}.{}", b64(header.to_string()), b64(payload));
        let signature = self.sign(with, message.as_bytes());
        format!("{message}.{}", b64(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.token_raw(
            &json!({ "alg": "ES256", "kid": "ec" }),
            &claims.to_string(),
            "ES256",
        )
    }

    fn issuer(&self) -> IssuerConfig {
        let set = KeySet::parse(self.set.to_string().as_bytes()).unwrap();
        IssuerConfig::new(ISSUER, vec!["other".into(), AUDIENCE.into()], set)
    }

    fn verifier(&self) -> Verifier {
        verifier(self.issuer())
    }
}

fn verifier(issuer: IssuerConfig) -> Verifier {
    Verifier::new(VerifierConfig {
        issuers: vec![issuer],
        ..Default::default()
    })
    .unwrap()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "agent-7", "exp": NOW + 100, "nbf": NOW - 100,
        "jti": "t-1", "groups": ["etl", "readers", "etl"],
    })
}

fn without(claim: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(claim);
    claims
}

fn with(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[claim] = value;
    claims
}

fn verify(verifier: &Verifier, token: &str) -> Result<Principal, IdentityError> {
    verifier.verify_token(token.as_bytes(), NOW)
}

#[test]
fn a_good_token_of_each_key_type_is_its_principal() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    for (algorithm, id) in [("ES256", "ec"), ("EdDSA", "ed"), ("RS256", "rsa")] {
        for header in [
            json!({ "alg": algorithm, "kid": id }),
            json!({ "alg": algorithm, "kid": id, "typ": "at+JWT" }),
            // One key of that type only: no id is needed.
            json!({ "alg": algorithm }),
        ] {
            let token = keys.token_raw(&header, &claims().to_string(), algorithm);
            let principal = verify(&verifier, &token).unwrap();
            assert_eq!(principal.subject, "agent-7");
            assert_eq!(principal.issuer, ISSUER);
            assert_eq!(principal.groups, ["etl", "readers"]);
            assert_eq!(principal.expires_at, Some(NOW + 100 + LEEWAY_S_DEFAULT));
            assert_eq!(principal.credential, CredentialKind::Jwt);
            assert_eq!(principal.credential_id, "t-1");
            assert_eq!(principal.claims["aud"], AUDIENCE);
        }
    }
}

#[test]
fn each_required_claim_must_be_there_and_be_of_its_type() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    for claim in ["exp", "iss", "aud", "sub"] {
        let missing = Err(IdentityError::MissingClaim {
            claim: claim.to_owned(),
        });
        assert_eq!(
            verify(&verifier, &keys.token(&without(claim))),
            missing,
            "{claim}"
        );
        assert_eq!(
            verify(&verifier, &keys.token(&with(claim, Value::Null))),
            missing,
            "{claim}"
        );
        for wrong in [json!({}), json!([]), json!(true), json!([7]), json!("")] {
            let token = keys.token(&with(claim, wrong.clone()));
            assert!(verify(&verifier, &token).is_err(), "{claim} = {wrong}");
        }
    }
    // These may be missing.
    assert!(verify(&verifier, &keys.token(&without("nbf"))).is_ok());
    assert!(
        verify(&verifier, &keys.token(&without("groups")))
            .unwrap()
            .groups
            .is_empty()
    );
    let unnamed = verify(&verifier, &keys.token(&without("jti"))).unwrap();
    assert!(unnamed.credential_id.starts_with("sha256:"));
}

#[test]
fn time_is_that_of_the_caller_with_the_configured_leeway() {
    let keys = Keys::new();
    for leeway_s in [0, 30] {
        let verifier = verifier(IssuerConfig {
            leeway_s,
            ..keys.issuer()
        });
        let at = |exp: Value, nbf: Value| {
            let mut claims = with("exp", exp);
            claims["nbf"] = nbf;
            verify(&verifier, &keys.token(&claims))
        };
        assert_eq!(
            at(json!(NOW - leeway_s), json!(0)),
            Err(IdentityError::Expired)
        );
        assert!(at(json!(NOW - leeway_s + 1), json!(0)).is_ok());
        assert!(at(json!(NOW + 9), json!(NOW + leeway_s)).is_ok());
        let early = at(json!(NOW + 9), json!(NOW + leeway_s + 1));
        assert_eq!(early, Err(IdentityError::NotYetValid));
        // Fractions shorten a life, they do not prolong it.
        let at_the_end = (NOW - leeway_s) as f64 + 0.9;
        assert_eq!(at(json!(at_the_end), json!(0)), Err(IdentityError::Expired));
        let at_the_start = (NOW + leeway_s) as f64 + 0.1;
        assert_eq!(
            at(json!(NOW + 9), json!(at_the_start)),
            Err(IdentityError::NotYetValid)
        );
        for wrong in [json!(-1), json!(1e300), json!("1000100"), json!([NOW])] {
            assert!(at(wrong.clone(), json!(0)).is_err(), "exp {wrong}");
            assert!(at(json!(NOW + 9), wrong.clone()).is_err(), "nbf {wrong}");
        }
        assert!(at(json!(u64::MAX), json!(0)).is_ok());
    }
}

#[test]
fn issuer_and_audience_are_matched_exactly() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    for issuer in [
        "https://issuer.example/",
        "https://ISSUER.example",
        "evil",
        "portcullis",
    ] {
        let token = keys.token(&with("iss", json!(issuer)));
        assert_eq!(
            verify(&verifier, &token),
            Err(IdentityError::UnknownIssuer),
            "{issuer}"
        );
    }
    let listed = keys.token(&with("iss", json!([ISSUER])));
    assert!(verify(&verifier, &listed).is_err());
    for audience in [
        json!("x"),
        json!(["x", "y"]),
        json!("portcullis.example "),
        json!([]),
    ] {
        let token = keys.token(&with("aud", audience.clone()));
        let refused = verify(&verifier, &token);
        assert_eq!(refused, Err(IdentityError::WrongAudience), "{audience}");
    }
    for audience in [json!("other"), json!(["x", AUDIENCE])] {
        assert!(verify(&verifier, &keys.token(&with("aud", audience))).is_ok());
    }
}

#[test]
fn the_algorithm_is_that_of_the_key_and_never_of_the_token() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    let payload = claims().to_string();
    for (algorithm, id) in [
        ("none", "ec"),
        ("None", "ec"),
        ("HS256", "ec"),
        ("HS256", "rsa"),
        ("HS512", "ed"),
        ("ES384", "ec"),
        ("ES256", "rsa"),
        ("RS256", "ec"),
        ("PS256", "rsa"),
        ("EdDSA", "ec"),
        ("es256", "ec"),
        ("", "ec"),
    ] {
        let header = json!({ "alg": algorithm, "kid": id });
        for signer in ["ES256", "EdDSA", "RS256"] {
            let token = keys.token_raw(&header, &payload, signer);
            assert_eq!(
                verify(&verifier, &token),
                Err(IdentityError::WrongAlgorithm),
                "{algorithm} against {id}"
            );
        }
        let unsigned = format!("{}.{}.", b64(header.to_string()), b64(&payload));
        assert_eq!(
            verify(&verifier, &unsigned),
            Err(IdentityError::WrongAlgorithm)
        );
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    // The classic confusion: HMAC with the published key as its secret.
    let keys = Keys::new();
    let der = keys.ec.public_key().as_der().unwrap();
    let spki = der.as_ref();
    let point = keys.ec.public_key().as_ref();
    for secret in [spki, point] {
        let header = json!({ "alg": "HS256", "kid": "ec" });
        let message = format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        let token = format!("{message}.{}", b64(tag));
        assert_eq!(
            verify(&keys.verifier(), &token),
            Err(IdentityError::WrongAlgorithm)
        );
    }
}

#[test]
fn an_unknown_key_asks_for_a_refresh_of_its_issuer() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    let payload = claims().to_string();
    let header = json!({ "alg": "ES256", "kid": "rotated" });
    let error = verify(&verifier, &keys.token_raw(&header, &payload, "ES256")).unwrap_err();
    assert_eq!(error.stale_issuer(), Some(ISSUER));
    let empty = verifier.with_keys(ISSUER, KeySet::default()).unwrap();
    let error = verify(&empty, &keys.token(&claims())).unwrap_err();
    assert_eq!(error.stale_issuer(), Some(ISSUER));
    // Two keys that would fit and no id: no guess is made.
    let mut set = keys.set.clone();
    let mut second = set["keys"][0].clone();
    second["kid"] = json!("ec2");
    set["keys"].as_array_mut().unwrap().push(second);
    let set = KeySet::parse(set.to_string().as_bytes()).unwrap();
    let two = verifier.with_keys(ISSUER, set).unwrap();
    let header = json!({ "alg": "ES256" });
    let unnamed = keys.token_raw(&header, &payload, "ES256");
    assert!(verify(&two, &unnamed).is_err());
    assert!(verify(&two, &keys.token(&claims())).is_ok());
}

#[test]
fn another_issuers_key_does_not_sign_for_this_one() {
    let (ours, theirs) = (Keys::new(), Keys::new());
    let other = IssuerConfig {
        issuer: "https://other.example".into(),
        ..theirs.issuer()
    };
    let verifier = Verifier::new(VerifierConfig {
        issuers: vec![ours.issuer(), other],
        ..Default::default()
    })
    .unwrap();
    assert!(verify(&verifier, &ours.token(&claims())).is_ok());
    let forged = theirs.token(&claims());
    assert_eq!(verify(&verifier, &forged), Err(IdentityError::BadSignature));
}

#[test]
fn refuses_critical_and_foreign_headers() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    let payload = claims().to_string();
    let sign = |header: Value| verify(&verifier, &keys.token_raw(&header, &payload, "ES256"));
    for crit in [json!(["b64"]), json!([]), json!(null), json!(["exp"])] {
        let header = json!({ "alg": "ES256", "kid": "ec", "b64": true, "crit": crit });
        assert_eq!(sign(header), Err(IdentityError::CriticalHeader));
    }
    for kind in [json!("logout+jwt"), json!("dpop+jwt"), json!(""), json!(7)] {
        let refused = sign(json!({ "alg": "ES256", "kid": "ec", "typ": kind }));
        assert_eq!(
            refused,
            Err(IdentityError::Malformed { part: "header" }),
            "{kind}"
        );
    }
    assert!(sign(json!({ "alg": "ES256", "kid": 7 })).is_err());
    assert!(sign(json!({ "kid": "ec" })).is_err());
    assert!(sign(json!([])).is_err());
    // A key that the token brings along is not looked at.
    let attacker = Keys::new();
    let header = json!({ "alg": "ES256", "kid": "ec", "jwk": attacker.set["keys"][0],
        "jku": "https://evil.example/jwks" });
    let token = attacker.token_raw(&header, &payload, "ES256");
    assert_eq!(verify(&verifier, &token), Err(IdentityError::BadSignature));
    let large = json!({ "alg": "ES256", "kid": "x".repeat(2 * 1024) });
    assert!(matches!(sign(large), Err(IdentityError::TooLarge { .. })));
}

#[test]
fn groups_subject_and_delegation_follow_the_configuration() {
    let keys = Keys::new();
    let mut config = keys.issuer();
    config.subject_claim = "email".into();
    config.groups_claim = Some("/realm_access/roles".into());
    config.on_behalf_of_claim = Some("/act/sub".into());
    let verifier = verifier(config);
    let mut claims = claims();
    assert_eq!(
        verify(&verifier, &keys.token(&claims)),
        Err(IdentityError::MissingClaim {
            claim: "email".into()
        })
    );
    claims["email"] = json!("seven@example.org");
    claims["realm_access"] = json!({ "roles": "admin" });
    claims["act"] = json!({ "sub": "alice" });
    let principal = verify(&verifier, &keys.token(&claims)).unwrap();
    assert_eq!(principal.subject, "seven@example.org");
    assert_eq!(principal.groups, ["admin"]);
    assert_eq!(principal.on_behalf_of.as_deref(), Some("alice"));
    for roles in [
        json!([1]),
        json!({}),
        json!([""]),
        json!(["a\nb"]),
        json!(["x".repeat(257)]),
    ] {
        claims["realm_access"]["roles"] = roles.clone();
        assert!(verify(&verifier, &keys.token(&claims)).is_err(), "{roles}");
    }
    claims["realm_access"]["roles"] = json!(vec!["g"; GROUPS_MAX + 1]);
    assert!(verify(&verifier, &keys.token(&claims)).is_err());
    claims["realm_access"] = json!("no object");
    assert!(
        verify(&verifier, &keys.token(&claims))
            .unwrap()
            .groups
            .is_empty()
    );
    for email in [
        json!("a\u{1b}[2J"),
        json!("x".repeat(513)),
        json!(""),
        json!(["a"]),
    ] {
        claims["email"] = email.clone();
        assert!(verify(&verifier, &keys.token(&claims)).is_err(), "{email}");
    }
}

#[test]
fn refuses_every_truncation_every_changed_character_and_any_tail() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    let header = json!({ "alg": "EdDSA", "kid": "ed" });
    let good = keys.token_raw(&header, &claims().to_string(), "EdDSA");
    assert!(verify(&verifier, &good).is_ok());
    for cut in 0..good.len() {
        assert!(verify(&verifier, &good[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..good.len() {
        for flip in [1_u8, 2, 0x20] {
            let mut bad = good.clone().into_bytes();
            bad[at] ^= flip;
            assert!(
                verifier.verify_token(&bad, NOW).is_err(),
                "character {at} by {flip}"
            );
        }
    }
    for tail in ["=", "A", ".", " ", "\n", "\0", ".x"] {
        assert!(
            verify(&verifier, &format!("{good}{tail}")).is_err(),
            "{tail:?}"
        );
        assert!(
            verify(&verifier, &format!("{tail}{good}")).is_err(),
            "{tail:?}"
        );
    }
    let oversized = format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX));
    assert!(matches!(
        verify(&verifier, &oversized),
        Err(IdentityError::TooLarge { .. })
    ));
}

#[test]
fn refuses_payloads_that_are_no_claims() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    let header = json!({ "alg": "ES256", "kid": "ec" });
    let deep = format!("{{\"iss\":{}{}}}", "[".repeat(4000), "]".repeat(4000));
    for payload in [
        "",
        "null",
        "[]",
        "7",
        "{",
        "{}x",
        "\u{feff}{}",
        deep.as_str(),
    ] {
        let token = keys.token_raw(&header, payload, "ES256");
        let refused = verify(&verifier, &token).unwrap_err();
        assert!(
            matches!(refused, IdentityError::Malformed { .. }),
            "{refused:?}"
        );
    }
    // A repeated claim could be read two ways.
    let twice = claims().to_string().replacen('{', "{\"sub\":\"root\",", 1);
    assert!(verify(&verifier, &keys.token_raw(&header, &twice, "ES256")).is_err());
}

#[test]
fn no_error_carries_the_token_or_what_it_claims() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    let planted = "planted-Zq3vT9";
    for claims in [
        with("sub", json!(format!("{planted}\u{7}"))),
        with("iss", json!(planted)),
        with("aud", json!(planted)),
        with("exp", json!(planted)),
        with("groups", json!([planted, 7])),
        with("jti", json!([planted])),
    ] {
        let token = keys.token(&claims);
        let error = verify(&verifier, &token).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(planted), "{shown}");
        for part in token.split('.') {
            assert!(!shown.contains(part), "{shown}");
        }
    }
}

#[test]
fn a_verifier_is_shared_between_threads() {
    let keys = Keys::new();
    let token = keys.token(&claims());
    let verifier = Arc::new(keys.verifier());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert!(verify(&verifier, &token).is_ok()));
        }
    });
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_pass(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let verifier = verifier(IssuerConfig::new(ISSUER, vec![AUDIENCE.into()], KeySet::default()));
        prop_assert!(verifier.verify_token(&bytes, NOW).is_err());
        prop_assert!(KeySet::parse(&bytes).is_err());
    }

    #[test]
    fn arbitrary_parts_never_panic_and_never_pass(
        header in "\\{\"alg\":\"(ES256|EdDSA|none)\"(,\"kid\":\"ec\")?\\}",
        payload in "\\{(\"(iss|aud|exp|sub)\":(1|\"a\"|null|\\[\\]|\"https://issuer.example\"),?){0,4}\\}",
        signature in "[A-Za-z0-9_-]{0,90}",
    ) {
        let keys = KeySet::parse(br#"{"keys":[{"kty":"EC","crv":"P-256","kid":"ec",
            "x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#).unwrap();
        let verifier = verifier(IssuerConfig::new(ISSUER, vec![AUDIENCE.into()], keys));
        let token = format!("{}.{}.{signature}", b64(header), b64(payload));
        prop_assert!(verifier.verify_token(token.as_bytes(), NOW).is_err());
    }
}
