//! What a configuration becomes when it is in force: compiled policy, compiled
//! detectors, TLS, the verifier. Made as a whole off the shards and swapped as
//! a whole; a session keeps the one it started with until it is told of a newer.

use crate::config::checked::{Config, JwksSource, TargetTls};
use crate::config::secret::SecretSource;
use crate::serve::tls;
use arc_swap::ArcSwap;
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
pub struct Secrets(Mutex<Known>);

#[derive(Default)]
struct Known {
    secrets: Vec<Secret>,
    /// Counts changes, so that who compiles knows what it has compiled.
    generation: u64,
}

struct Secret {
    kind: String,
    value: Zeroizing<Vec<u8>>,
    /// Named by the configuration: never forgotten.
    guard: bool,
}

/// Injected credentials remembered; a source that gives a new value each time
/// must not grow the matcher without end. The oldest of them is forgotten first.
const CREDENTIALS_MAX: usize = 512;
/// Shorter values are not masked as known secrets: they would mask half of
/// every page. The `masking` crate has the same bound per derived form.
const SECRET_MASKED_BYTES_MIN: usize = 8;

impl Secrets {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, kind: &str, value: &[u8], guard: bool) {
        if value.len() < SECRET_MASKED_BYTES_MIN {
            return;
        }
        let mut known = self.known();
        if let Some(old) = known
            .secrets
            .iter_mut()
            .find(|s| s.value.as_slice() == value)
        {
            old.guard |= guard;
            return;
        }
        if known.secrets.iter().filter(|s| !s.guard).count() >= CREDENTIALS_MAX
            && let Some(oldest) = known.secrets.iter().position(|s| !s.guard)
        {
            known.secrets.remove(oldest);
        }
        known.secrets.push(Secret {
            kind: kind.to_string(),
            value: Zeroizing::new(value.to_vec()),
            guard,
        });
        known.generation += 1;
    }

    /// Adds a credential that is about to be injected.
    pub fn learn(&self, value: &[u8]) {
        self.add("credential", value, false);
    }

    /// Grows with every secret that was not known before.
    pub fn generation(&self) -> u64 {
        self.known().generation
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
            self.add(&guard.name, &value, true);
        }
        for target in &config.targets {
            match target.password.as_ref().map(SecretSource::fetch) {
                Some(Ok(value)) => self.learn(&value),
                Some(Err(e)) => {
                    tracing::warn!(target_name = %target.name, reason = %e, "credential cannot be fetched yet")
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Compiles detectors and all known secrets; with the generation that the
    /// result covers. Takes up to a second: never on a shard.
    pub fn compile(
        &self,
        config: &Config,
        tag_key: [u8; 32],
    ) -> Result<(Arc<RuleSet>, u64), LiveError> {
        let (known, generation) = {
            let known = self.known();
            let copy = |s: &Secret| KnownSecret {
                kind: s.kind.clone(),
                bytes: s.value.clone(),
            };
            (known.secrets.iter().map(copy).collect(), known.generation)
        };
        let rules = RuleSet::compile(masking::Config {
            detectors: config.masking.detectors.clone(),
            known,
            tag_key,
            ..masking::Config::default()
        });
        let rules = rules.map_err(|e| LiveError::Masking(e.to_string()))?;
        Ok((rules, generation))
    }
}

/// The rules in force. Whoever changes what they are made from holds the lock
/// from before it looks until the result is published: no older compilation can
/// overtake a newer one, and nobody goes on with a secret that another thread is
/// still compiling, or has failed to.
pub struct Rules {
    current: ArcSwap<RuleSet>,
    covered: Mutex<u64>,
}

impl Rules {
    /// Rules that cover a generation of the secrets.
    pub fn new((rules, generation): (Arc<RuleSet>, u64)) -> Rules {
        Rules {
            current: ArcSwap::from(rules),
            covered: Mutex::new(generation),
        }
    }

    /// The rules in force.
    pub fn load(&self) -> arc_swap::Guard<Arc<RuleSet>> {
        self.current.load()
    }

    /// Makes sure that every secret known now is covered. Blocks.
    pub fn cover(
        &self,
        secrets: &Secrets,
        config: &ArcSwap<Live>,
        tag_key: [u8; 32],
    ) -> Result<(), LiveError> {
        let mut covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        if *covered < secrets.generation() {
            let (rules, generation) = secrets.compile(&config.load().config, tag_key)?;
            self.current.store(rules);
            *covered = generation;
        }
        Ok(())
    }

    /// Puts a new configuration in force together with its rules. Blocks.
    pub fn reload(
        &self,
        secrets: &Secrets,
        config: &ArcSwap<Live>,
        next: Live,
        tag_key: [u8; 32],
    ) -> Result<(), LiveError> {
        let mut covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        let (rules, generation) = secrets.compile(&next.config, tag_key)?;
        self.current.store(rules);
        *covered = generation;
        config.store(Arc::new(next));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_change_each_time_push_out_no_guarded_secret() {
        let secrets = Secrets::default();
        secrets.add("guard", b"a-guarded-secret-value", true);
        for n in 0..2 * CREDENTIALS_MAX {
            secrets.learn(format!("credential number {n}").as_bytes());
        }
        let known = secrets.known();
        assert_eq!(known.secrets.len(), CREDENTIALS_MAX + 1);
        assert!(known.secrets.iter().any(|s| s.guard));
    }

    #[test]
    fn a_known_value_is_no_new_generation_and_a_new_one_is() {
        let secrets = Secrets::default();
        secrets.learn(b"one credential");
        let before = secrets.generation();
        secrets.learn(b"one credential");
        assert_eq!(secrets.generation(), before);
        secrets.learn(b"two credential");
        assert_eq!(secrets.generation(), before + 1);
    }

    /// A configuration whose masking does not compile, and one whose does.
    fn live(masking_works: bool) -> ArcSwap<Live> {
        let text = "[[listeners]]\nname = \"l\"\naddress = \"127.0.0.1:0\"\n\
                    [[targets]]\nname = \"t\"\nhosts = [\"127.0.0.1:5432\"]\ntls = \"off\"\naccount = \"a\"\n\
                    [[roles]]\nname = \"r\"\ngroups = [\"*\"]\ntargets = [\"*\"]\n";
        let mut config = crate::config::parse(text, "t", std::path::Path::new(".")).expect("valid");
        if !masking_works {
            config
                .masking
                .detectors
                .push(masking::Detector::new("broken", "("));
        }
        ArcSwap::from_pointee(Live::build(config).expect("builds"))
    }

    #[test]
    fn a_secret_whose_compilation_failed_is_not_taken_for_covered() {
        let secrets = Secrets::default();
        let good = live(true);
        let rules = Rules::new(
            secrets
                .compile(&good.load().config, [7; 32])
                .expect("compiles"),
        );
        secrets.learn(b"a credential to be injected");
        let broken = live(false);
        // As often as it is asked: the second dial must not go on either.
        for _ in 0..2 {
            assert!(rules.cover(&secrets, &broken, [7; 32]).is_err());
        }
        assert!(rules.cover(&secrets, &good, [7; 32]).is_ok());
        let mut masker = masking::Masker::new(rules.load().clone()).expect("scratch");
        assert!(!masker.is_clean(b"-- a credential to be injected --"));
    }

    #[test]
    fn many_dials_at_once_leave_rules_that_cover_every_secret() {
        let secrets = Secrets::default();
        let live = live(true);
        let rules = Rules::new(
            secrets
                .compile(&live.load().config, [7; 32])
                .expect("compiles"),
        );
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (secrets, live, rules) = (&secrets, &live, &rules);
                scope.spawn(move || {
                    let value = format!("credential of dial {n}");
                    secrets.learn(value.as_bytes());
                    rules.cover(secrets, live, [7; 32]).expect("compiles");
                    // What this dial injects is masked from here on.
                    let now = rules.load().clone();
                    let mut masker = masking::Masker::new(now).expect("scratch");
                    assert!(!masker.is_clean(value.as_bytes()), "dial {n}");
                });
            }
        });
        let mut masker = masking::Masker::new(rules.load().clone()).expect("scratch");
        for n in 0..8 {
            assert!(!masker.is_clean(format!("credential of dial {n}").as_bytes()));
        }
    }
}
