//! Cancel keys: what an agent may present to cancel its own statement.
//!
//! The keys are ours, drawn at random, and mean nothing to the target; the
//! process id beside a key is the target's real one, since clients match it
//! against `pg_locks`. A key finds exactly one session, on whichever shard.

use recorder::SessionId;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Bytes of a key for protocol 3.0, which has room for no more.
pub const KEY_BYTES_3_0: usize = 4;
/// Bytes of a key for protocol 3.2.
pub const KEY_BYTES_3_2: usize = 32;

/// Process id, and the SHA-256 of the key: the table itself holds no key, and
/// finding one takes the same time whatever was guessed.
type Key = (u32, [u8; 32]);

fn hashed(process_id: u32, key: &[u8]) -> Key {
    let mut hash = [0; 32];
    hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key).as_ref());
    (process_id, hash)
}

/// Where a cancel request goes.
#[derive(Clone)]
pub struct CancelTarget {
    /// The session it cancels.
    pub session: SessionId,
    /// The shard that the session lives on.
    pub shard: engine::ShardHandle,
}

/// All live keys of the process.
#[derive(Clone, Default)]
pub struct CancelKeys(Arc<Mutex<HashMap<Key, CancelTarget>>>);

/// One registered key; dropping it takes it out.
pub struct Registered {
    keys: CancelKeys,
    process_id: u32,
    key: Zeroizing<Vec<u8>>,
}

impl Registered {
    /// The key's bytes, for BackendKeyData.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

impl CancelKeys {
    /// Registers a fresh key of `bytes` bytes drawn by `random`.
    pub fn register(
        &self,
        process_id: u32,
        bytes: usize,
        target: CancelTarget,
        mut random: impl FnMut(&mut [u8]),
    ) -> Registered {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut key = Zeroizing::new(vec![0; bytes]);
            random(&mut key);
            // Two sessions may share process id and a 4-byte key by chance
            // (targets count their ids alone): draw again.
            if let std::collections::hash_map::Entry::Vacant(place) =
                map.entry(hashed(process_id, &key))
            {
                place.insert(target);
                return Registered {
                    keys: self.clone(),
                    process_id,
                    key,
                };
            }
        }
    }

    /// The session that a key belongs to.
    pub fn find(&self, process_id: u32, key: &[u8]) -> Option<CancelTarget> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&hashed(process_id, key))
            .cloned()
    }

    /// Keys registered now.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let key = hashed(self.process_id, &self.key);
        self.keys
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }
}

/// Guesses of cancel keys per source: a 4-byte key has 2^32 values, and a
/// source that has missed this often is not listened to for the rest of the
/// minute.
pub const MISSES_PER_MINUTE_MAX: u32 = 20;
/// Sources remembered; beyond it the table starts anew, which forgets misses
/// but never hits.
const SOURCES_MAX: usize = 10_000;

/// Counts wrong keys per source and minute.
#[derive(Default)]
pub struct Misses(Mutex<(u64, HashMap<IpAddr, u32>)>);

impl Misses {
    /// Whether `source` may present a key at all in this minute.
    pub fn allows(&self, source: IpAddr, minute: u64) -> bool {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0 != minute
            || guard
                .1
                .get(&source)
                .is_none_or(|n| *n < MISSES_PER_MINUTE_MAX)
    }

    /// Notes a wrong key.
    pub fn missed(&self, source: IpAddr, minute: u64) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.0 != minute || guard.1.len() >= SOURCES_MAX {
            *guard = (minute, HashMap::new());
        }
        *guard.1.entry(source).or_insert(0) += 1;
    }
}
