//! What can be wrong with a credential, a key set, a token table or a
//! configuration. No variant carries bytes of a credential.

use thiserror::Error;

/// Why a credential was refused. The agent learns only that it was; this is
/// for the log and for counters (see [`IdentityError::kind`]).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Agent's fault: longer than [`crate::limits::TOKEN_BYTES_MAX`], or
    /// a certificate longer than [`crate::limits::CERTIFICATE_BYTES_MAX`].
    #[error("credential of {bytes} bytes is larger than {bytes_max}")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// Agent's fault: neither a gateway token nor a JWT by its shape.
    #[error("credential has an unknown shape")]
    UnknownShape,
    /// Agent's fault: the part named does not parse.
    #[error("credential is malformed: {part}")]
    Malformed {
        /// Which part: `header`, `payload`, `claim groups`, ...
        part: &'static str,
    },
    /// Agent's fault: no such gateway token, or a wrong secret for it. The two
    /// are one on purpose.
    #[error("gateway token is not known")]
    UnknownToken,
    /// Agent's fault: the gateway token was revoked.
    #[error("gateway token was revoked")]
    Revoked {
        /// The token's id, which is no secret.
        token_id: String,
    },
    /// Agent's fault: `now` is past the credential's end.
    #[error("credential has expired")]
    Expired,
    /// Agent's fault (or two clocks differ): not valid yet.
    #[error("credential is not valid yet")]
    NotYetValid,
    /// Agent's fault: the token names an issuer that is not configured.
    #[error("issuer is not configured")]
    UnknownIssuer,
    /// The issuer's key set holds no key of this id. The issuer may have
    /// rotated: one refresh of its keys is worth trying (rate limited).
    #[error("no key for this token in the key set of {issuer}")]
    UnknownKey {
        /// The configured issuer, not text out of the token.
        issuer: String,
    },
    /// Agent's fault: the algorithm in the header is not that of the key.
    #[error("signature algorithm does not fit the key")]
    WrongAlgorithm,
    /// Agent's fault: the header marks a parameter as critical (RFC 7515,
    /// section 4.1.11); none is understood here.
    #[error("header has critical parameters")]
    CriticalHeader,
    /// Agent's fault: the signature does not verify.
    #[error("signature does not verify")]
    BadSignature,
    /// Agent's fault: none of the token's audiences is ours.
    #[error("token is for another audience")]
    WrongAudience,
    /// Agent's fault: a claim that must be there is not.
    #[error("claim {claim} is missing")]
    MissingClaim {
        /// The claim's configured name.
        claim: String,
    },
    /// Agent's fault or the configuration's: the certificate has no name of
    /// the configured kind, or several.
    #[error("certificate does not name one {what}")]
    CertificateName {
        /// The kind of name that was looked for.
        what: &'static str,
    },
    /// Policy: client certificates are not configured here.
    #[error("client certificates are not accepted")]
    CertificatesOff,
}

impl IdentityError {
    /// A short fixed word for logs and counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::UnknownShape => "unknown_shape",
            Self::Malformed { .. } => "malformed",
            Self::UnknownToken => "unknown_token",
            Self::Revoked { .. } => "revoked",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownKey { .. } => "unknown_key",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::CriticalHeader => "critical_header",
            Self::BadSignature => "bad_signature",
            Self::WrongAudience => "wrong_audience",
            Self::MissingClaim { .. } => "missing_claim",
            Self::CertificateName { .. } => "certificate_name",
            Self::CertificatesOff => "certificates_off",
        }
    }

    /// The issuer whose key set may be out of date, if that is what is wrong.
    #[must_use]
    pub fn stale_issuer(&self) -> Option<&str> {
        match self {
            Self::UnknownKey { issuer } => Some(issuer),
            _ => None,
        }
    }
}

/// What is wrong with a JWK set document (the issuer's fault, or that of who
/// fetched it). The set before it stays in force.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JwksError {
    /// Larger than [`crate::limits::JWKS_BYTES_MAX`].
    #[error("key set of {bytes} bytes is larger than {bytes_max}")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// Not a JSON object with an array `keys` of objects.
    #[error("key set is not a JWK set (RFC 7517)")]
    NotASet,
    /// More keys than [`crate::limits::JWKS_KEYS_MAX`].
    #[error("key set of {count} keys is larger than {count_max}")]
    TooMany {
        /// How many it has.
        count: usize,
        /// How many are allowed.
        count_max: usize,
    },
    /// A key that we would use does not parse.
    #[error("key {index} of the set is malformed: {member}")]
    BadKey {
        /// Position in `keys`, from 0.
        index: usize,
        /// The member at fault.
        member: &'static str,
    },
    /// A key carries its private part: whoever published it must replace it.
    #[error("key {index} of the set carries a private key")]
    PrivateKey {
        /// Position in `keys`, from 0.
        index: usize,
    },
    /// Two keys of one id and one algorithm.
    #[error("key {index} of the set repeats an earlier key id")]
    Repeated {
        /// Position in `keys` of the second one, from 0.
        index: usize,
    },
    /// Nothing in it can verify a signature.
    #[error("key set has no key that can verify RS256, ES256, ES384 or EdDSA")]
    NoUsableKey,
}

/// What is wrong with a set of gateway tokens (our own fault).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenTableError {
    /// Two tokens of one id.
    #[error("two gateway tokens have the id {id}")]
    Repeated {
        /// The id.
        id: String,
    },
    /// More than [`crate::limits::TOKENS_MAX`].
    #[error("more than {count_max} gateway tokens")]
    TooMany {
        /// How many are allowed.
        count_max: usize,
    },
}

/// What is wrong with a verifier's configuration (the operator's fault).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Two issuers of one name, or one that is named as the gateway's own.
    #[error("issuer {issuer} is configured twice, or is reserved")]
    IssuerRepeated {
        /// Its name.
        issuer: String,
    },
    /// An issuer without a name.
    #[error("an issuer has no name")]
    IssuerEmpty,
    /// An issuer without an audience: its tokens for anyone would be good here.
    #[error("issuer {issuer} has no audience")]
    NoAudience {
        /// Its name.
        issuer: String,
    },
    /// A number or a count is over its limit.
    #[error("{key} of issuer {issuer} is larger than {max}")]
    OverLimit {
        /// The issuer, or empty where it concerns the whole.
        issuer: String,
        /// Which setting.
        key: &'static str,
        /// The limit.
        max: u64,
    },
    /// Keys were to be replaced for an issuer that is not configured.
    #[error("issuer {issuer} is not configured")]
    UnknownIssuer {
        /// The name given.
        issuer: String,
    },
}
