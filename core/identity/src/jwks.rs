//! JWK sets (RFC 7517): the public keys of an issuer, each with the one
//! signature algorithm that it may be used with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use crate::error::JwksError;
use crate::limits::{JWKS_BYTES_MAX, JWKS_KEYS_MAX};

/// The verifying keys of one issuer. Empty until the first fetch.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<VerifyingKey>,
    skipped: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct VerifyingKey {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

impl KeySet {
    /// Reads a JWK set: an object with an array `keys`.
    ///
    /// Used are RSA keys of 2048 to 8192 bits (RS256, or the RSA algorithm that
    /// the key's `alg` names), EC keys on P-256 (ES256) and P-384 (ES384), and
    /// Ed25519 (EdDSA). Skipped are keys for encryption, of other types or
    /// curves, symmetric ones, and those whose `alg` is none of these: issuers
    /// publish them beside the others.
    ///
    /// # Errors
    /// See [`JwksError`]; a key that would be used but does not parse refuses
    /// the whole set, so that a half-read rotation is not taken for a whole one.
    pub fn parse(document: &[u8]) -> Result<Self, JwksError> {
        if document.len() > JWKS_BYTES_MAX {
            return Err(JwksError::TooLarge {
                bytes: document.len(),
                bytes_max: JWKS_BYTES_MAX,
            });
        }
        let document: Value = serde_json::from_slice(document).map_err(|_| JwksError::NotASet)?;
        let entries = document
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(JwksError::NotASet)?;
        if entries.len() > JWKS_KEYS_MAX {
            return Err(JwksError::TooMany {
                count: entries.len(),
                count_max: JWKS_KEYS_MAX,
            });
        }
        let mut set = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            let entry = entry.as_object().ok_or(JwksError::NotASet)?;
            match read_key(entry, index)? {
                None => set.skipped += 1,
                Some(key) => {
                    let repeats = |old: &VerifyingKey| {
                        old.id.is_some() && old.id == key.id && old.algorithm == key.algorithm
                    };
                    if set.keys.iter().any(repeats) {
                        return Err(JwksError::Repeated { index });
                    }
                    set.keys.push(key);
                }
            }
        }
        if set.keys.is_empty() {
            return Err(JwksError::NoUsableKey);
        }
        Ok(set)
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used: nothing was fetched yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many entries were passed over.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The key for a token: by id where the token names one; else the only key
    /// of that algorithm, so that there is never a choice to make.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found<'_> {
        match id {
            Some(id) => {
                let mut named = self
                    .keys
                    .iter()
                    .filter(|key| key.id.as_deref() == Some(id))
                    .peekable();
                if named.peek().is_none() {
                    return Found::None;
                }
                named
                    .find(|key| key.algorithm == algorithm)
                    .map_or(Found::OtherAlgorithm, Found::Key)
            }
            None => {
                let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
                match (fitting.next(), fitting.next()) {
                    (Some(key), None) => Found::Key(key),
                    (Some(_), Some(_)) => Found::None,
                    (None, _) if self.keys.is_empty() => Found::None,
                    (None, _) => Found::OtherAlgorithm,
                }
            }
        }
    }
}

pub(crate) enum Found<'a> {
    Key(&'a VerifyingKey),
    OtherAlgorithm,
    None,
}

fn read_key(entry: &Map<String, Value>, index: usize) -> Result<Option<VerifyingKey>, JwksError> {
    let bad = |member| JwksError::BadKey { index, member };
    let text = |name: &'static str| match entry.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(bad(name)),
    };
    if matches!(text("use")?, Some(usage) if usage != "sig") {
        return Ok(None);
    }
    if let Some(operations) = entry.get("key_ops") {
        let operations = operations.as_array().ok_or_else(|| bad("key_ops"))?;
        if !operations.iter().any(|operation| operation == "verify") {
            return Ok(None);
        }
    }
    let stated = text("alg")?;
    let bytes = |name: &'static str| {
        let encoded = text(name)?.ok_or_else(|| bad(name))?;
        URL_SAFE_NO_PAD.decode(encoded).map_err(|_| bad(name))
    };
    let (algorithm, key) = match (text("kty")?.ok_or_else(|| bad("kty"))?, text("crv")?) {
        ("RSA", _) => {
            let algorithm = match stated {
                None | Some("RS256") => Algorithm::RS256,
                Some("RS384") => Algorithm::RS384,
                Some("RS512") => Algorithm::RS512,
                Some("PS256") => Algorithm::PS256,
                Some("PS384") => Algorithm::PS384,
                Some("PS512") => Algorithm::PS512,
                Some(_) => return Ok(None),
            };
            let modulus = bytes("n")?;
            let significant = modulus.iter().skip_while(|byte| **byte == 0).count();
            if !(256..=1024).contains(&significant) {
                return Err(bad("n"));
            }
            let exponent = bytes("e")?;
            if exponent.is_empty()
                || exponent.len() > 8
                || exponent.last().is_some_and(|b| b & 1 == 0)
            {
                return Err(bad("e"));
            }
            (
                algorithm,
                DecodingKey::from_rsa_raw_components(&modulus, &exponent),
            )
        }
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let (algorithm, name, coordinate) = match curve {
                "P-256" => (Algorithm::ES256, "ES256", 32),
                _ => (Algorithm::ES384, "ES384", 48),
            };
            if matches!(stated, Some(stated) if stated != name) {
                return Ok(None);
            }
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != coordinate {
                return Err(bad("x"));
            }
            if y.len() != coordinate {
                return Err(bad("y"));
            }
            let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let key = DecodingKey::from_ec_components(&encoded(&x), &encoded(&y))
                .map_err(|_| bad("x"))?;
            (algorithm, key)
        }
        ("OKP", Some("Ed25519")) => {
            if matches!(stated, Some(stated) if stated != "EdDSA" && stated != "Ed25519") {
                return Ok(None);
            }
            let x = bytes("x")?;
            if x.len() != 32 {
                return Err(bad("x"));
            }
            (Algorithm::EdDSA, DecodingKey::from_ed_der(&x))
        }
        _ => return Ok(None),
    };
    if entry.contains_key("d") {
        return Err(JwksError::PrivateKey { index });
    }
    Ok(Some(VerifyingKey {
        id: text("kid")?.map(str::to_owned),
        algorithm,
        key,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const X: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn parse(keys: Value) -> Result<KeySet, JwksError> {
        KeySet::parse(&serde_json::to_vec(&json!({ "keys": keys })).unwrap())
    }

    fn modulus(bytes: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xC5; bytes])
    }

    #[test]
    fn each_key_type_has_its_one_algorithm() {
        let wide = URL_SAFE_NO_PAD.encode([1; 48]);
        let set = parse(json!([
            { "kty": "RSA", "kid": "a", "n": modulus(256), "e": "AQAB" },
            { "kty": "RSA", "kid": "b", "n": modulus(256), "e": "AQAB", "alg": "PS256" },
            { "kty": "EC", "kid": "c", "crv": "P-256", "x": X, "y": X },
            { "kty": "EC", "kid": "d", "crv": "P-384", "x": wide, "y": wide, "use": "sig" },
            { "kty": "OKP", "kid": "e", "crv": "Ed25519", "x": X, "key_ops": ["verify"] },
        ]))
        .unwrap();
        let algorithms: Vec<_> = set.keys.iter().map(|key| key.algorithm).collect();
        use Algorithm::{ES256, ES384, EdDSA, PS256, RS256};
        assert_eq!(algorithms, [RS256, PS256, ES256, ES384, EdDSA]);
        assert_eq!((set.len(), set.skipped()), (5, 0));
    }

    #[test]
    fn skips_what_it_cannot_or_must_not_use() {
        let good = json!({ "kty": "OKP", "crv": "Ed25519", "x": X });
        for other in [
            json!({ "kty": "oct", "k": "c2VjcmV0" }),
            json!({ "kty": "OKP", "crv": "X25519", "x": X }),
            json!({ "kty": "EC", "crv": "secp256k1", "x": X, "y": X }),
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": X, "alg": "ECDH-ES" }),
            json!({ "kty": "OKP", "crv": "Ed25519", "x": X, "use": "enc" }),
            json!({ "kty": "OKP", "crv": "Ed25519", "x": X, "key_ops": ["sign"] }),
            json!({ "kty": "RSA", "n": modulus(256), "e": "AQAB", "alg": "RSA-OAEP" }),
            json!({ "kty": "RSA", "n": modulus(256), "e": "AQAB", "alg": "HS256" }),
            json!({ "kty": "new" }),
        ] {
            let set = parse(json!([good, other])).unwrap();
            assert_eq!((set.len(), set.skipped()), (1, 1), "{other}");
        }
    }

    #[test]
    fn refuses_malformed_keys_by_member() {
        for (entry, member) in [
            (json!({}), "kty"),
            (json!({ "kty": 7 }), "kty"),
            (json!({ "kty": "RSA", "e": "AQAB" }), "n"),
            (json!({ "kty": "RSA", "n": modulus(255), "e": "AQAB" }), "n"),
            (
                json!({ "kty": "RSA", "n": modulus(1025), "e": "AQAB" }),
                "n",
            ),
            (json!({ "kty": "RSA", "n": modulus(256), "e": "AQAC" }), "e"),
            (json!({ "kty": "RSA", "n": modulus(256), "e": "" }), "e"),
            (json!({ "kty": "RSA", "n": "a+b", "e": "AQAB" }), "n"),
            (
                json!({ "kty": "EC", "crv": "P-256", "x": X, "y": "AAAA" }),
                "y",
            ),
            (json!({ "kty": "EC", "crv": "P-384", "x": X, "y": X }), "x"),
            (json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }), "x"),
            (
                json!({ "kty": "OKP", "crv": "Ed25519", "x": X, "kid": 1 }),
                "kid",
            ),
            (
                json!({ "kty": "OKP", "crv": "Ed25519", "x": X, "key_ops": "verify" }),
                "key_ops",
            ),
        ] {
            let error = parse(json!([entry])).unwrap_err();
            assert_eq!(error, JwksError::BadKey { index: 0, member }, "{entry}");
        }
    }

    #[test]
    fn refuses_private_keys_repeats_empty_sets_and_other_documents() {
        let private = json!([{ "kty": "OKP", "crv": "Ed25519", "x": X, "d": X }]);
        assert_eq!(
            parse(private).unwrap_err(),
            JwksError::PrivateKey { index: 0 }
        );
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": X, "kid": "k" });
        assert_eq!(
            parse(json!([key, key])).unwrap_err(),
            JwksError::Repeated { index: 1 }
        );
        assert_eq!(parse(json!([])).unwrap_err(), JwksError::NoUsableKey);
        assert_eq!(parse(json!([1])).unwrap_err(), JwksError::NotASet);
        for text in [
            "",
            "[]",
            "{}",
            "{\"keys\":{}}",
            "{\"keys\":[]",
            "null",
            "\u{0}",
        ] {
            assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
        }
        let many = vec![key; JWKS_KEYS_MAX + 1];
        assert!(matches!(
            parse(json!(many)).unwrap_err(),
            JwksError::TooMany { .. }
        ));
        let large = vec![b' '; JWKS_BYTES_MAX + 1];
        assert!(matches!(
            KeySet::parse(&large).unwrap_err(),
            JwksError::TooLarge { .. }
        ));
    }

    #[test]
    fn refuses_every_truncation_of_a_set() {
        let whole = serde_json::to_vec(&json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "x": X, "y": X, "kid": "k" } ] }))
        .unwrap();
        assert!(KeySet::parse(&whole).is_ok());
        for cut in 0..whole.len() {
            assert!(KeySet::parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
