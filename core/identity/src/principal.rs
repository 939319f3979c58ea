//! Who an agent is, once its credential has been verified.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What kind of credential made a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A token that this gateway minted.
    GatewayToken,
    /// A JWT of a configured issuer.
    Jwt,
    /// A client certificate.
    Certificate,
}

impl CredentialKind {
    /// The name used in records and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GatewayToken => "gateway_token",
            Self::Jwt => "jwt",
            Self::Certificate => "certificate",
        }
    }
}

/// A verified agent. Holds nothing that could be used as a credential.
///
/// Subjects are unique within an issuer only: compare both, see
/// [`Principal::is_same_as`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Principal {
    /// Who vouches: a JWT's `iss`, [`crate::GATEWAY_ISSUER`], or what the
    /// certificate configuration names (else the certificate's issuer).
    pub issuer: String,
    /// Who it is, within the issuer. Not empty, no control characters.
    pub subject: String,
    /// Groups in the order given, without repeats.
    pub groups: Vec<String>,
    /// A JWT's whole verified payload; for certificates serial number,
    /// fingerprint and names; empty for gateway tokens.
    pub claims: Map<String, Value>,
    /// On whose behalf the agent acts, where the issuer's configuration says
    /// which claim tells.
    pub on_behalf_of: Option<String>,
    /// When the session must end at the latest, in Unix seconds: the
    /// credential's end plus the leeway it was verified with. The first second
    /// that is no longer good.
    pub expires_at: Option<u64>,
    /// What it was made from.
    pub credential: CredentialKind,
    /// Names the credential without being it: gateway token id, `jti` (or a
    /// hash of the token where it has none), or the certificate's serial number.
    pub credential_id: String,
}

impl Principal {
    /// Same issuer and same subject.
    #[must_use]
    pub fn is_same_as(&self, issuer: &str, subject: &str) -> bool {
        self.issuer == issuer && self.subject == subject
    }

    /// Whether the credential is still good at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now_unix_s: u64) -> bool {
        self.expires_at.is_none_or(|end| now_unix_s < end)
    }
}

/// Whether a name out of a credential may be a subject, a group or a name
/// behind one: not empty, within its limit, and without control characters,
/// which no directory has and every log suffers from.
pub(crate) fn is_acceptable_name(name: &str, bytes_max: usize) -> bool {
    !name.is_empty() && name.len() <= bytes_max && !name.chars().any(char::is_control)
}
