//! The verifier: one immutable value that shards share and reloads replace.

use std::collections::HashMap;
use std::sync::Arc;

use crate::certificate::CertificateConfig;
use crate::error::{ConfigError, IdentityError};
use crate::gateway_token::{GATEWAY_TOKEN_PREFIX, TokenStore};
use crate::jwks::KeySet;
use crate::jwt::{self, IssuerConfig};
use crate::limits::{ISSUERS_MAX, TOKEN_BYTES_MAX};
use crate::principal::Principal;

/// What a verifier accepts.
#[derive(Debug, Clone, Default)]
pub struct VerifierConfig {
    /// Issuers of JWTs, at most [`ISSUERS_MAX`].
    pub issuers: Vec<IssuerConfig>,
    /// Where gateway tokens are published; a revocation there counts at once.
    pub tokens: Arc<TokenStore>,
    /// How client certificates are read; `None`: they are refused.
    pub certificates: Option<CertificateConfig>,
}

/// Turns credentials into principals. Cheap to clone behind an `Arc`; a reload
/// of the configuration or a refresh of keys makes a new one.
#[derive(Debug, Clone)]
pub struct Verifier {
    issuers: HashMap<String, IssuerConfig>,
    tokens: Arc<TokenStore>,
    certificates: Option<CertificateConfig>,
}

impl Verifier {
    /// Checks the configuration as a whole.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn new(config: VerifierConfig) -> Result<Self, ConfigError> {
        if config.issuers.len() > ISSUERS_MAX {
            return Err(ConfigError::OverLimit {
                issuer: String::new(),
                key: "issuers",
                max: ISSUERS_MAX as u64,
            });
        }
        let mut issuers = HashMap::with_capacity(config.issuers.len());
        for issuer in config.issuers {
            issuer.check()?;
            if let Some(old) = issuers.insert(issuer.issuer.clone(), issuer) {
                return Err(ConfigError::IssuerRepeated { issuer: old.issuer });
            }
        }
        Ok(Self {
            issuers,
            tokens: config.tokens,
            certificates: config.certificates,
        })
    }

    /// The same verifier with other keys for one issuer: after a fetch.
    ///
    /// # Errors
    /// [`ConfigError::UnknownIssuer`].
    pub fn with_keys(&self, issuer: &str, keys: KeySet) -> Result<Self, ConfigError> {
        let mut next = self.clone();
        match next.issuers.get_mut(issuer) {
            Some(config) => config.keys = keys,
            None => {
                return Err(ConfigError::UnknownIssuer {
                    issuer: issuer.to_owned(),
                });
            }
        }
        Ok(next)
    }

    /// Verifies a token as an agent presents it: a gateway token or a JWT, told
    /// apart by shape. Costs some 60 us for a JWT, some 2 us for a gateway
    /// token, and no more than that for rubbish.
    ///
    /// # Errors
    /// See [`IdentityError`]. To the agent all of them are one refusal.
    pub fn verify_token(&self, token: &[u8], now_unix_s: u64) -> Result<Principal, IdentityError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(IdentityError::TooLarge {
                bytes: token.len(),
                bytes_max: TOKEN_BYTES_MAX,
            });
        }
        if token.starts_with(GATEWAY_TOKEN_PREFIX.as_bytes()) {
            return self.tokens.snapshot().verify(token, now_unix_s);
        }
        if jwt::has_shape(token) {
            return jwt::verify(token, now_unix_s, |issuer| self.issuers.get(issuer));
        }
        Err(IdentityError::UnknownShape)
    }

    /// Reads the principal from a client certificate chain, the agent's own
    /// certificate first, DER. The caller vouches that rustls verified it
    /// against the configured authorities in this very handshake.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn verify_certificate<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
        now_unix_s: u64,
    ) -> Result<Principal, IdentityError> {
        let config = self
            .certificates
            .as_ref()
            .ok_or(IdentityError::CertificatesOff)?;
        let first = chain.first().ok_or(IdentityError::Malformed {
            part: "certificate",
        })?;
        config.verify(first.as_ref(), now_unix_s)
    }

    /// Where gateway tokens are read from.
    #[must_use]
    pub fn tokens(&self) -> &Arc<TokenStore> {
        &self.tokens
    }

    /// Issuers that have no keys yet: to be fetched before they can serve.
    pub fn issuers_without_keys(&self) -> impl Iterator<Item = &str> {
        self.issuers
            .values()
            .filter(|config| config.keys.is_empty())
            .map(|c| c.issuer.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{AUDIENCES_MAX, LEEWAY_S_MAX};

    fn issuer(name: &str) -> IssuerConfig {
        IssuerConfig::new(name, vec!["a".into()], KeySet::default())
    }

    fn build(issuers: Vec<IssuerConfig>) -> Result<Verifier, ConfigError> {
        Verifier::new(VerifierConfig {
            issuers,
            ..Default::default()
        })
    }

    #[test]
    fn refuses_a_configuration_that_would_accept_too_much() {
        assert!(build(vec![issuer("a"), issuer("b")]).is_ok());
        let repeated = |name: &str| ConfigError::IssuerRepeated {
            issuer: name.into(),
        };
        assert_eq!(
            build(vec![issuer("a"), issuer("a")]).unwrap_err(),
            repeated("a")
        );
        assert_eq!(
            build(vec![issuer("portcullis")]).unwrap_err(),
            repeated("portcullis")
        );
        assert_eq!(
            build(vec![issuer("")]).unwrap_err(),
            ConfigError::IssuerEmpty
        );
        for audiences in [vec![], vec![String::new()]] {
            let error = build(vec![IssuerConfig {
                audiences,
                ..issuer("a")
            }])
            .unwrap_err();
            assert_eq!(error, ConfigError::NoAudience { issuer: "a".into() });
        }
        for over in [
            IssuerConfig {
                leeway_s: LEEWAY_S_MAX + 1,
                ..issuer("a")
            },
            IssuerConfig {
                audiences: vec!["x".into(); AUDIENCES_MAX + 1],
                ..issuer("a")
            },
        ] {
            assert!(matches!(
                build(vec![over]).unwrap_err(),
                ConfigError::OverLimit { .. }
            ));
        }
        let many = (0..=ISSUERS_MAX).map(|i| issuer(&i.to_string())).collect();
        assert!(matches!(
            build(many).unwrap_err(),
            ConfigError::OverLimit { .. }
        ));
    }

    #[test]
    fn refuses_what_is_no_credential_by_its_shape() {
        let verifier = build(vec![issuer("a")]).unwrap();
        for token in [
            "",
            "password",
            "a.b",
            "a.b.c.d",
            "a.b.c.d.e",
            "PCT_x_y",
            "\0",
        ] {
            assert_eq!(
                verifier.verify_token(token.as_bytes(), 1),
                Err(IdentityError::UnknownShape),
                "{token}"
            );
        }
        let large = vec![b'.'; TOKEN_BYTES_MAX + 1];
        assert!(matches!(
            verifier.verify_token(&large, 1),
            Err(IdentityError::TooLarge { .. })
        ));
    }

    #[test]
    fn certificates_are_refused_where_none_are_configured() {
        let verifier = build(vec![]).unwrap();
        assert_eq!(
            verifier.verify_certificate(&[b"x"], 1),
            Err(IdentityError::CertificatesOff)
        );
        let verifier = Verifier::new(VerifierConfig {
            certificates: Some(CertificateConfig::default()),
            ..Default::default()
        })
        .unwrap();
        assert!(verifier.verify_certificate::<&[u8]>(&[], 1).is_err());
    }

    #[test]
    fn keys_are_replaced_for_configured_issuers_only() {
        let verifier = build(vec![issuer("a")]).unwrap();
        assert_eq!(verifier.issuers_without_keys().collect::<Vec<_>>(), ["a"]);
        assert!(verifier.with_keys("a", KeySet::default()).is_ok());
        assert!(verifier.with_keys("b", KeySet::default()).is_err());
    }
}
