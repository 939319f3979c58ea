//! The per-shard verdict cache, bounded in bytes.
//!
//! A verdict is entered when its text is seen for the second time, so that
//! texts with ever new literals do not flush it. The key is everything that
//! the verdict depends on: what the session is (policy version, role, target,
//! database, account, and the principal where rules read it), the state of the
//! session, the parameter types, and the whole text. The hash only finds the
//! place; the key is compared in full.
//!
//! A text whose facts cannot depend on its integer constants is entered by its
//! *shape* (`sql::shape`) instead, so that one entry serves all of them.

use crate::decision::Decision;
use crate::sql::SqlFacts;
use bytes::Bytes;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Places of the first-sight table; each remembers one hash.
const SEEN_COUNT: usize = 8192;
/// What an entry costs beside its text and facts: map, queue, key, decision.
const ENTRY_OVERHEAD_BYTES: usize = 640;

/// What is known of one text.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub facts: Arc<SqlFacts>,
    /// What the rules say of the text by itself.
    pub decision: Decision,
    /// Whether the text does nothing to names, settings or the session's
    /// state, so that the decision stands as it is.
    pub plain: bool,
    /// The text, when the verdict is for exactly one.
    pub text: Option<Bytes>,
}

/// The key of one look-up.
#[derive(Clone, Copy)]
pub(crate) struct Key<'a> {
    pub context: &'a Arc<[u8]>,
    pub state: u8,
    pub types: &'a [u32],
    pub text: &'a [u8],
    pub shaped: bool,
}

#[derive(Debug)]
struct Entry {
    context: Arc<[u8]>,
    state: u8,
    shaped: bool,
    used: bool,
    types: Box<[u32]>,
    text: Bytes,
    cost: usize,
    verdict: Arc<Verdict>,
}

impl Entry {
    fn is(&self, key: &Key<'_>) -> bool {
        self.state == key.state
            && self.shaped == key.shaped
            && *self.types == *key.types
            && self.text == key.text
            && (Arc::ptr_eq(&self.context, key.context) || self.context == *key.context)
    }
}

/// The map's keys are hashes already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// Verdicts of repeated texts; one per shard, shared by its sessions.
#[derive(Debug)]
pub struct VerdictCache {
    bytes_max: usize,
    bytes: usize,
    entries: HashMap<u64, Entry, BuildHasherDefault<Hashed>>,
    queue: VecDeque<u64>,
    seen: Box<[u64]>,
    hasher: RandomState,
    hits: u64,
    misses: u64,
}

impl VerdictCache {
    /// An empty cache that holds at most `bytes_max` bytes, its own
    /// bookkeeping estimated in.
    pub fn new(bytes_max: usize) -> Self {
        VerdictCache {
            bytes_max,
            bytes: 0,
            entries: HashMap::default(),
            queue: VecDeque::new(),
            seen: vec![0; SEEN_COUNT].into_boxed_slice(),
            hasher: RandomState::new(),
            hits: 0,
            misses: 0,
        }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Entries held now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Look-ups that found a verdict, and that did not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    fn hash(&self, key: &Key<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key.text);
        for t in key.types {
            hasher.write_u32(*t);
        }
        hasher.write_usize(key.context.len());
        hasher.write_u8(key.state | (u8::from(key.shaped) << 7));
        // The context's first bytes are its digest.
        hasher.write(key.context.get(..8).unwrap_or_default());
        hasher.finish()
    }

    pub(crate) fn find(&mut self, key: &Key<'_>) -> Option<Arc<Verdict>> {
        if self.entries.is_empty() {
            self.misses += 1;
            return None;
        }
        let hash = self.hash(key);
        match self.entries.get_mut(&hash) {
            Some(entry) if entry.is(key) => {
                entry.used = true;
                self.hits += 1;
                Some(entry.verdict.clone())
            }
            _ => {
                self.misses += 1;
                None
            }
        }
    }

    /// Enters a verdict if its key was seen before; remembers the key else.
    pub(crate) fn enter(&mut self, key: &Key<'_>, verdict: &Arc<Verdict>) {
        let cost = ENTRY_OVERHEAD_BYTES
            + key.text.len()
            + key.types.len() * 4
            + facts_bytes(&verdict.facts);
        if cost > self.bytes_max / 8 {
            return;
        }
        let hash = self.hash(key);
        let place = usize::try_from(hash % SEEN_COUNT as u64).unwrap_or(0);
        let Some(seen) = self.seen.get_mut(place) else {
            return;
        };
        if *seen != hash {
            *seen = hash;
            return;
        }
        self.remove(hash);
        while self.bytes + cost > self.bytes_max {
            if !self.evict() {
                return;
            }
        }
        let text = match &verdict.text {
            Some(text) if !key.shaped => text.clone(),
            _ => Bytes::copy_from_slice(key.text),
        };
        self.bytes += cost;
        self.queue.push_back(hash);
        self.entries.insert(
            hash,
            Entry {
                context: key.context.clone(),
                state: key.state,
                shaped: key.shaped,
                used: false,
                types: key.types.into(),
                text,
                cost,
                verdict: verdict.clone(),
            },
        );
        debug_assert!(self.bytes <= self.bytes_max, "the cache is over its bound");
    }

    fn remove(&mut self, hash: u64) {
        if let Some(old) = self.entries.remove(&hash) {
            self.bytes -= old.cost;
            self.queue.retain(|h| *h != hash);
        }
    }

    /// Drops the oldest entry that was not used since it was last looked at.
    fn evict(&mut self) -> bool {
        while let Some(hash) = self.queue.pop_front() {
            let Some(entry) = self.entries.get_mut(&hash) else {
                continue;
            };
            if entry.used {
                entry.used = false;
                self.queue.push_back(hash);
                continue;
            }
            if let Some(old) = self.entries.remove(&hash) {
                self.bytes -= old.cost;
            }
            return true;
        }
        false
    }
}

/// Estimated size of facts in bytes.
pub(crate) fn facts_bytes(facts: &SqlFacts) -> usize {
    facts
        .statements
        .iter()
        .map(|s| {
            512 + s.kinds.len() * 16
                + (s.tables_read.len() + s.tables_written.len() + s.functions.len()) * 80
                + s.columns
                    .iter()
                    .map(|c| 80 + c.tables.len() * 80)
                    .sum::<usize>()
                + (s.names.len() + s.settings.len() + s.opaque.len()) * 256
        })
        .sum()
}
