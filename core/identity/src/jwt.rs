//! JWTs (RFC 7519, RFC 8725) of configured issuers: claims become a principal.
//!
//! Order of checks: shape, header, issuer, key, signature with the key's own
//! algorithm, then claims. Time is checked here and not by the library, which
//! reads the system's clock; so are presence and type of every claim used.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use crate::error::{ConfigError, IdentityError};
use crate::gateway_token::GATEWAY_ISSUER;
use crate::jwks::{Found, KeySet};
use crate::limits::{
    AUDIENCES_MAX, GROUP_BYTES_MAX, GROUPS_MAX, JWT_HEADER_BYTES_MAX, LEEWAY_S_MAX, NAME_BYTES_MAX,
    TOKEN_ID_BYTES_MAX,
};
use crate::principal::{CredentialKind, Principal, is_acceptable_name};

/// The leeway where the configuration names none, in seconds.
pub const LEEWAY_S_DEFAULT: u64 = 30;

/// The largest `NumericDate` taken at its word, 9999-12-31 in Unix seconds.
const DATE_MAX: f64 = 253_402_300_799.0;

/// One issuer whose tokens are accepted.
///
/// A claim is named by its plain name (`groups`) or, where it lies deeper, by
/// a JSON pointer (RFC 6901), which begins with `/`: `/realm_access/roles`.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// Exactly the token's `iss`.
    pub issuer: String,
    /// A token must be for one of these; at least one.
    pub audiences: Vec<String>,
    /// Its keys: a parsed file or fetched document. Empty until fetched; then
    /// every token is refused with [`IdentityError::UnknownKey`].
    pub keys: KeySet,
    /// Seconds of clock difference granted at both ends of a token's life,
    /// 0 to [`LEEWAY_S_MAX`].
    pub leeway_s: u64,
    /// The claim that is the subject. `sub` must be there in any case.
    pub subject_claim: String,
    /// The claim that lists groups: a string or an array of strings. A token
    /// without it has no groups; one where it is anything else is refused.
    /// `None`: tokens of this issuer have no groups.
    pub groups_claim: Option<String>,
    /// The claim that says on whose behalf the agent acts: a string. `None`:
    /// not asked for. Where named, a token without it acts for itself.
    pub on_behalf_of_claim: Option<String>,
}

impl IssuerConfig {
    /// An issuer with defaults: leeway 30 s, subject from `sub`, groups from
    /// `groups`, no delegation.
    #[must_use]
    pub fn new(issuer: impl Into<String>, audiences: Vec<String>, keys: KeySet) -> Self {
        Self {
            issuer: issuer.into(),
            audiences,
            keys,
            leeway_s: LEEWAY_S_DEFAULT,
            subject_claim: "sub".to_owned(),
            groups_claim: Some("groups".to_owned()),
            on_behalf_of_claim: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let issuer = self.issuer.clone();
        if issuer.is_empty() {
            return Err(ConfigError::IssuerEmpty);
        }
        if issuer == GATEWAY_ISSUER {
            return Err(ConfigError::IssuerRepeated { issuer });
        }
        if self.audiences.is_empty() || self.audiences.iter().any(String::is_empty) {
            return Err(ConfigError::NoAudience { issuer });
        }
        if self.audiences.len() > AUDIENCES_MAX {
            return Err(ConfigError::OverLimit {
                issuer,
                key: "audiences",
                max: AUDIENCES_MAX as u64,
            });
        }
        if self.leeway_s > LEEWAY_S_MAX {
            return Err(ConfigError::OverLimit {
                issuer,
                key: "leeway_s",
                max: LEEWAY_S_MAX,
            });
        }
        Ok(())
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&self.audiences);
        // Both are checked below, against the `now` that was handed in.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation
    }
}

/// Whether bytes have a JWT's shape: three parts between two dots (RFC 7515,
/// section 7.1).
pub(crate) fn has_shape(token: &[u8]) -> bool {
    token.iter().filter(|byte| **byte == b'.').count() == 2
}

/// Verifies a token that [`has_shape`] and whose size was checked.
pub(crate) fn verify<'a>(
    token: &[u8],
    now_unix_s: u64,
    issuer_named: impl FnOnce(&str) -> Option<&'a IssuerConfig>,
) -> Result<Principal, IdentityError> {
    let header = read_header(token)?;
    let unverified = read_part(token, 1, "payload")?;
    let named = match unverified.get("iss") {
        Some(Value::String(issuer)) => issuer.as_str(),
        None | Some(Value::Null) => return Err(missing("iss")),
        Some(_) => return Err(IdentityError::Malformed { part: "claim iss" }),
    };
    let issuer = issuer_named(named).ok_or(IdentityError::UnknownIssuer)?;
    let key = match issuer.keys.find(header.key_id.as_deref(), header.algorithm) {
        Found::Key(key) => key,
        Found::OtherAlgorithm => return Err(IdentityError::WrongAlgorithm),
        Found::None => {
            return Err(IdentityError::UnknownKey {
                issuer: issuer.issuer.clone(),
            });
        }
    };
    let validation = issuer.validation(key.algorithm);
    let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation)
        .map_err(|error| from_library(error.kind()))?
        .claims;
    principal(issuer, claims, token, now_unix_s)
}

struct Header {
    algorithm: Algorithm,
    key_id: Option<String>,
}

fn read_header(token: &[u8]) -> Result<Header, IdentityError> {
    let header = read_part(token, 0, "header")?;
    let malformed = IdentityError::Malformed { part: "header" };
    if header.contains_key("crit") {
        return Err(IdentityError::CriticalHeader);
    }
    // RFC 8725, section 3.11: tokens made for something else (logout tokens,
    // proofs of possession) say so in `typ`.
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) => {
            let kind = kind.to_ascii_lowercase();
            let kind = kind.strip_prefix("application/").unwrap_or(&kind);
            if !matches!(kind, "jwt" | "at+jwt" | "jose") {
                return Err(malformed);
            }
        }
        Some(_) => return Err(malformed),
    }
    let algorithm = match header
        .get("alg")
        .and_then(Value::as_str)
        .ok_or(malformed.clone())?
    {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return Err(IdentityError::WrongAlgorithm),
    };
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(malformed),
    };
    Ok(Header { algorithm, key_id })
}

fn read_part(
    token: &[u8],
    index: usize,
    part: &'static str,
) -> Result<Map<String, Value>, IdentityError> {
    let malformed = IdentityError::Malformed { part };
    let encoded = token
        .split(|byte| *byte == b'.')
        .nth(index)
        .ok_or(malformed.clone())?;
    if index == 0 && encoded.len() > JWT_HEADER_BYTES_MAX {
        return Err(IdentityError::TooLarge {
            bytes: encoded.len(),
            bytes_max: JWT_HEADER_BYTES_MAX,
        });
    }
    let json = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| malformed.clone())?;
    serde_json::from_slice(&json).map_err(|_| malformed)
}

fn from_library(kind: &ErrorKind) -> IdentityError {
    match kind {
        ErrorKind::InvalidSignature => IdentityError::BadSignature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => IdentityError::WrongAlgorithm,
        ErrorKind::InvalidIssuer => IdentityError::UnknownIssuer,
        ErrorKind::InvalidAudience => IdentityError::WrongAudience,
        ErrorKind::MissingRequiredClaim(claim) => missing(claim),
        _ => IdentityError::Malformed { part: "token" },
    }
}

fn missing(claim: &str) -> IdentityError {
    IdentityError::MissingClaim {
        claim: claim.to_owned(),
    }
}

fn principal(
    issuer: &IssuerConfig,
    claims: Map<String, Value>,
    token: &[u8],
    now_unix_s: u64,
) -> Result<Principal, IdentityError> {
    // What the library checked is checked again where it can be seen.
    if claims.get("iss").and_then(Value::as_str) != Some(issuer.issuer.as_str()) {
        return Err(IdentityError::UnknownIssuer);
    }
    let ours = |audience: &Value| {
        audience
            .as_str()
            .is_some_and(|audience| issuer.audiences.iter().any(|a| a == audience))
    };
    let for_us = match claims.get("aud") {
        Some(Value::Array(audiences)) => audiences.iter().any(ours),
        Some(audience) => ours(audience),
        None => return Err(missing("aud")),
    };
    if !for_us {
        return Err(IdentityError::WrongAudience);
    }
    let end = date(&claims, "exp")?.ok_or_else(|| missing("exp"))?;
    let end = end.saturating_add(issuer.leeway_s);
    if now_unix_s >= end {
        return Err(IdentityError::Expired);
    }
    if let Some(start) = date(&claims, "nbf")?
        && now_unix_s.saturating_add(issuer.leeway_s) < start
    {
        return Err(IdentityError::NotYetValid);
    }
    name(&claims, "sub", "claim sub", NAME_BYTES_MAX)?.ok_or_else(|| missing("sub"))?;
    let subject = name(
        &claims,
        &issuer.subject_claim,
        "subject claim",
        NAME_BYTES_MAX,
    )?
    .ok_or_else(|| missing(&issuer.subject_claim))?;
    let groups = match &issuer.groups_claim {
        Some(claim) => groups(claim_at(&claims, claim))?,
        None => Vec::new(),
    };
    let on_behalf_of = match &issuer.on_behalf_of_claim {
        Some(claim) => name(&claims, claim, "on-behalf-of claim", NAME_BYTES_MAX)?,
        None => None,
    };
    let credential_id = match name(&claims, "jti", "claim jti", TOKEN_ID_BYTES_MAX)? {
        Some(id) => id,
        None => fingerprint(token),
    };
    Ok(Principal {
        issuer: issuer.issuer.clone(),
        subject,
        groups,
        claims,
        on_behalf_of,
        expires_at: Some(end),
        credential: CredentialKind::Jwt,
        credential_id,
    })
}

fn claim_at<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let found = match name.strip_prefix('/') {
        None => claims.get(name),
        Some(path) => {
            let unescape = |step: &str| step.replace("~1", "/").replace("~0", "~");
            let mut steps = path.split('/').map(unescape);
            let first = claims.get(&steps.next()?)?;
            steps.try_fold(first, |value, step| value.as_object()?.get(&step))
        }
    };
    found.filter(|value| !value.is_null())
}

fn name(
    claims: &Map<String, Value>,
    claim: &str,
    part: &'static str,
    bytes_max: usize,
) -> Result<Option<String>, IdentityError> {
    match claim_at(claims, claim) {
        None => Ok(None),
        Some(Value::String(name)) if is_acceptable_name(name, bytes_max) => Ok(Some(name.clone())),
        Some(_) => Err(IdentityError::Malformed { part }),
    }
}

fn groups(value: Option<&Value>) -> Result<Vec<String>, IdentityError> {
    let malformed = || IdentityError::Malformed {
        part: "groups claim",
    };
    let listed = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(listed)) => listed.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    if listed.len() > GROUPS_MAX {
        return Err(malformed());
    }
    let mut seen = std::collections::HashSet::with_capacity(listed.len());
    let mut groups = Vec::with_capacity(listed.len());
    for group in listed {
        let group = group
            .as_str()
            .filter(|group| is_acceptable_name(group, GROUP_BYTES_MAX))
            .ok_or_else(malformed)?;
        if seen.insert(group) {
            groups.push(group.to_owned());
        }
    }
    Ok(groups)
}

/// A `NumericDate` (RFC 7519, section 2) in whole seconds, rounded towards the
/// shorter life at the end and the longer wait at the start.
fn date(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<u64>, IdentityError> {
    let part = if claim == "exp" {
        "claim exp"
    } else {
        "claim nbf"
    };
    let value = match claims.get(claim) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds));
    }
    match value.as_f64() {
        Some(seconds) if (0.0..=DATE_MAX).contains(&seconds) => {
            let whole = if claim == "exp" {
                seconds.floor()
            } else {
                seconds.ceil()
            };
            // In range, so the cast loses nothing.
            Ok(Some(whole as u64))
        }
        _ => Err(IdentityError::Malformed { part }),
    }
}

/// Names a token that has no `jti`, for logs: 64 bits of its hash.
fn fingerprint(token: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, token);
    let mut text = String::from("sha256:");
    for byte in hash.as_ref().iter().take(8) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
