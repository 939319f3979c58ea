//! What a configuration becomes when it is in force: compiled policy, compiled
//! detectors, TLS, the verifier. Made as a whole off the shards and swapped as
//! a whole; a session keeps the one it started with until it is told of a newer.

use crate::config::checked::{Config, JwksSource, TargetTls};
use crate::config::secret::SecretSource;
use crate::serve::tls;
use identity::{IssuerConfig, KeySet, TokenStore, Verifier, VerifierConfig};
use masking::{KnownSecret, RuleSet};
use policy::PolicySet;
use rustls::{ClientConfig, ServerConfig};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Everything that follows from one configuration file.
pub struct Live {
    /// The checked file.
    pub config: Config,
    /// Its compiled policy.
    pub policy: Arc<PolicySet>,
    /// TLS of each listener, in the order of the file.
    pub listener_tls: Vec<Option<Arc<ServerConfig>>>,
    /// TLS of each target that has any, by name.
    pub target_tls: HashMap<String, Arc<ClientConfig>>,
}

/// Why a configuration cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The policy does not compile; `check` has said so before.
    #[error("policy: {0}")]
    Policy(String),
    /// A certificate, key or authority cannot be used.
    #[error("{what}: {source}")]
    Tls {
        /// Which listener or target.
        what: String,
        /// Why.
        source: tls::TlsSetupError,
    },
    /// An issuer's keys cannot be read.
    #[error("issuer {issuer}: {why}")]
    Keys {
        /// Which.
        issuer: String,
        /// Why.
        why: String,
    },
    /// The verifier refuses the configuration.
    #[error("identity: {0}")]
    Identity(String),
    /// The detectors and secrets do not compile.
    #[error("masking: {0}")]
    Masking(String),
    /// A guarded secret cannot be fetched.
    #[error("secret of {what}: {why}")]
    Secret {
        /// Which key.
        what: String,
        /// Why.
        why: String,
    },
    /// A guarded secret answers guesses.
    #[error(
        "guarded secret {name}: about {bits:.0} bits, under 80; its mask would answer guesses (`danger_weak_secrets` accepts it)"
    )]
    WeakSecret {
        /// Its name.
        name: String,
        /// Estimated bits.
        bits: f32,
    },
}

impl Live {
    /// Puts a checked configuration together. Blocks: never on a shard.
    pub fn build(config: Config) -> Result<Live, LiveError> {
        let policy = PolicySet::compile(&config.policy).map_err(|e| {
            LiveError::Policy(
                e.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; "),
            )
        })?;
        let mut listener_tls = Vec::new();
        for l in &config.listeners {
            let built = match &l.certificate {
                Some((chain, key)) => Some(
                    tls::server(chain, key, l.client_ca.as_deref()).map_err(|source| {
                        LiveError::Tls {
                            what: format!("listener {}", l.name),
                            source,
                        }
                    })?,
                ),
                None => None,
            };
            listener_tls.push(built);
        }
        let mut target_tls = HashMap::new();
        for t in &config.targets {
            if t.tls == TargetTls::Off {
                continue;
            }
            let built = tls::client(&t.tls, t.client_certificate.as_ref()).map_err(|source| {
                LiveError::Tls {
                    what: format!("target {}", t.name),
                    source,
                }
            })?;
            target_tls.insert(t.name.clone(), built);
        }
        Ok(Live {
            config,
            policy,
            listener_tls,
            target_tls,
        })
    }

    /// The verifier for this configuration; issuers by URL start without keys.
    pub fn verifier(&self, tokens: Arc<TokenStore>) -> Result<Verifier, LiveError> {
        let mut issuers = Vec::new();
        for i in &self.config.issuers {
            let keys = match &i.jwks {
                JwksSource::File(path) => {
                    let fault = |why: String| LiveError::Keys {
                        issuer: i.issuer.clone(),
                        why,
                    };
                    let text = std::fs::read(path)
                        .map_err(|e| fault(format!("cannot read {}: {e}", path.display())))?;
                    KeySet::parse(&text).map_err(|e| fault(e.to_string()))?
                }
                JwksSource::Url(_) => KeySet::default(),
            };
            let mut issuer = IssuerConfig::new(i.issuer.clone(), i.audiences.clone(), keys);
            issuer.leeway_s = i.leeway_s;
            issuer.groups_claim = Some(i.groups_claim.clone());
            issuer.subject_claim = i.subject_claim.clone();
            issuers.push(issuer);
        }
        let certificates = self
            .config
            .listeners
            .iter()
            .any(|l| l.client_ca.is_some())
            .then(Default::default);
        Verifier::new(VerifierConfig {
            issuers,
            tokens,
            certificates,
        })
        .map_err(|e| LiveError::Identity(e.to_string()))
    }
}

/// Secrets seen so far that are masked wherever they show. A rotated credential
/// stays in it: the old one may still open something.
#[derive(Default)]
pub struct Secrets(Mutex<Vec<(String, Zeroizing<Vec<u8>>)>>);

/// Secrets remembered; a source that gives a new value each time must not grow
/// the matcher without end. The oldest injected value is forgotten first.
const SECRETS_MAX: usize = 512;
/// Shorter values are not masked as known secrets: they would mask half of
/// every page. The `masking` crate has the same bound per derived form.
const SECRET_MASKED_BYTES_MIN: usize = 8;

impl Secrets {
    /// Adds a value; true if it was not known yet.
    pub fn learn(&self, kind: &str, value: &[u8]) -> bool {
        if value.len() < SECRET_MASKED_BYTES_MIN {
            return false;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.iter().any(|(_, v)| v.as_slice() == value) {
            return false;
        }
        if known.len() >= SECRETS_MAX {
            known.remove(0);
        }
        known.push((kind.to_string(), Zeroizing::new(value.to_vec())));
        true
    }

    /// Fetches everything the configuration refers to. Guards must be there;
    /// a target's credential may be missing until it is needed.
    pub fn learn_all(&self, config: &Config) -> Result<(), LiveError> {
        for guard in &config.masking.guards {
            let value = guard.secret.fetch().map_err(|e| LiveError::Secret {
                what: guard.path.clone(),
                why: e.to_string(),
            })?;
            let bits = masking::known_secret_bits(&value);
            if bits < 80.0 && !config.masking.danger_weak_secrets {
                return Err(LiveError::WeakSecret {
                    name: guard.name.clone(),
                    bits,
                });
            }
            self.learn(&guard.name, &value);
        }
        for target in &config.targets {
            match target.password.as_ref().map(SecretSource::fetch) {
                Some(Ok(value)) => {
                    self.learn("credential", &value);
                }
                Some(Err(e)) => {
                    tracing::warn!(target_name = %target.name, reason = %e, "credential cannot be fetched yet")
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Compiles detectors and all known secrets. Takes up to a second: never
    /// on a shard.
    pub fn compile(&self, config: &Config, tag_key: [u8; 32]) -> Result<Arc<RuleSet>, LiveError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known
            .iter()
            .map(|(kind, v)| KnownSecret {
                kind: kind.clone(),
                bytes: v.clone(),
            })
            .collect();
        RuleSet::compile(masking::Config {
            detectors: config.masking.detectors.clone(),
            known,
            tag_key,
            ..masking::Config::default()
        })
        .map_err(|e| LiveError::Masking(e.to_string()))
    }
}
