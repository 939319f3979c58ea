//! What all shards of the process share: swapped whole, counted per connection,
//! never locked per request.

use crate::config::checked::{Config, ControlAddress};
use crate::serve::cancel::{CancelKeys, Misses};
use crate::serve::limits::{Admission, Counts, TargetPlaces};
use crate::serve::live::{Live, LiveError, Rules, Secrets};
use crate::serve::metrics::ShardMetrics;
use arc_swap::ArcSwap;
use control::ControlHandle;
use identity::Verifier;
use masking::RuleSet;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// SCRAM keys kept; each costs some 200 bytes.
const SCRAM_KEYS_MAX: usize = 1024;

/// Process-wide state.
pub struct Shared {
    /// The configuration in force.
    pub live: ArcSwap<Live>,
    /// Who verifies credentials.
    pub verifier: ArcSwap<Verifier>,
    /// Detectors and known secrets, compiled.
    pub rules: Rules,
    /// Secrets seen so far.
    pub secrets: Secrets,
    /// Key of the recognisable masks.
    pub tag_key: [u8; 32],
    /// The control plane.
    pub control: ControlHandle,
    /// The recorder's handle, for health and counters.
    pub recorder: Arc<recorder::Recorder>,
    /// Agent connections.
    pub admission: Admission,
    /// Sessions per role.
    pub roles: Counts<String>,
    /// Sessions per target and principal.
    pub principals: Counts<(String, String, String)>,
    /// Connections per target.
    targets: Mutex<HashMap<String, TargetPlaces>>,
    /// Cancel keys of live sessions.
    pub cancels: CancelKeys,
    /// Wrong cancel keys per source.
    pub cancel_misses: Misses,
    scram: Mutex<HashMap<ScramKey, postgres::scram::ScramKeys>>,
    /// Counters, one set per shard.
    pub metrics: Vec<Arc<ShardMetrics>>,
    /// The shards, once they run.
    pub shards: OnceLock<Vec<engine::ShardHandle>>,
    /// The gateway is stopping: nothing new begins.
    pub stopping: AtomicBool,
    own: OnceLock<Vec<SocketAddr>>,
}

/// Target, account, and a digest of the password: a rotated password finds no
/// stale keys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ScramKey {
    /// Name of the target.
    pub target: String,
    /// Account.
    pub account: String,
    /// SHA-256 over the process's own random key and the password.
    pub password: [u8; 32],
}

/// What [`Shared::new`] is made from.
pub struct Parts {
    /// The configuration.
    pub live: Live,
    /// The verifier.
    pub verifier: Verifier,
    /// The compiled masks.
    pub rules: (Arc<RuleSet>, u64),
    /// Secrets seen so far.
    pub secrets: Secrets,
    /// Key of the masks.
    pub tag_key: [u8; 32],
    /// The control plane.
    pub control: ControlHandle,
    /// The recorder.
    pub recorder: Arc<recorder::Recorder>,
}

impl Shared {
    /// Puts the parts together.
    pub fn new(parts: Parts, metrics: Vec<Arc<ShardMetrics>>) -> Arc<Shared> {
        Arc::new(Shared {
            metrics,
            live: ArcSwap::from_pointee(parts.live),
            verifier: ArcSwap::from_pointee(parts.verifier),
            rules: Rules::new(parts.rules),
            secrets: parts.secrets,
            tag_key: parts.tag_key,
            control: parts.control,
            recorder: parts.recorder,
            admission: Admission::default(),
            roles: Counts::default(),
            principals: Counts::default(),
            targets: Mutex::default(),
            cancels: CancelKeys::default(),
            cancel_misses: Misses::default(),
            scram: Mutex::default(),
            shards: OnceLock::new(),
            stopping: AtomicBool::new(false),
            own: OnceLock::new(),
        })
    }

    /// The places at a target.
    pub fn target_places(&self, target: &str) -> TargetPlaces {
        let mut map = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        map.entry(target.to_string()).or_default().clone()
    }

    /// Cached SCRAM keys, so that a login costs no 4096 rounds.
    pub fn scram_keys(&self, key: &ScramKey) -> Option<postgres::scram::ScramKeys> {
        self.scram
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// Keeps keys that a login has just derived.
    pub fn keep_scram_keys(&self, key: ScramKey, keys: postgres::scram::ScramKeys) {
        let mut map = self.scram.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= SCRAM_KEYS_MAX {
            map.clear();
        }
        map.insert(key, keys);
    }

    /// Masks a secret that was not known yet, from before it is used. Blocks
    /// while everything is compiled: never on a shard.
    pub fn learn(&self, value: &[u8]) -> Result<(), LiveError> {
        self.secrets.learn(value);
        // Also where it was known: its compilation may be under way, or have failed.
        self.rules.cover(&self.secrets, &self.live, self.tag_key)
    }

    /// Remembers the addresses that we listen on, once they are known.
    pub fn set_own_addresses(&self, listeners: Vec<SocketAddr>, config: &Config) {
        let mut own = listeners;
        if let ControlAddress::Loopback(address) = config.control.address {
            own.push(address);
        }
        let _ = self.own.set(own);
    }

    /// Whether an address is the gateway's own: never a target, whatever name
    /// led to it.
    pub fn is_own(&self, address: SocketAddr) -> bool {
        let same = |own: IpAddr| {
            own == address.ip()
                || (own.is_unspecified() && address.ip().is_loopback())
                || (own.is_loopback() && address.ip().is_unspecified())
        };
        self.own.get().is_some_and(|list| {
            list.iter()
                .any(|o| o.port() == address.port() && same(o.ip()))
        })
    }
}
