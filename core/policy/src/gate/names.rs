//! The session's names: what the server may hold under each.
//!
//! One space for the protocol and for SQL: what Parse names, EXECUTE runs;
//! what DECLARE names, the Execute message runs. Until the server has answered,
//! a name stands for every text that it may still hold: the settled one and
//! every one on its way.

use crate::decision::Decision;
use crate::sql::SqlFacts;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// Most different texts that one name may stand for at a time: a pipeline
/// that redefines a name more often without waiting is refused.
const TEXTS_PER_NAME_MAX: usize = 256;

/// A text with its facts, as prepared or bound.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub text: Bytes,
    pub types: Box<[u32]>,
    pub facts: Arc<SqlFacts>,
    /// Whether it can run nobody's code.
    pub inert: bool,
    /// Whether the portal outlives its transaction.
    pub hold: bool,
}

/// One text that a name may stand for.
#[derive(Debug)]
pub(crate) struct Slot {
    pub prepared: Arc<Prepared>,
    /// The decision without bind values, and under which generation of policy
    /// and state.
    pub decided: Option<(u64, Decision)>,
    /// Whether the server may hold it already.
    settled: bool,
    /// Definitions on their way.
    pending: u32,
}

/// Why a name cannot take another text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Names,
    Texts,
    Bytes,
    Uses,
}

/// All names of one kind.
#[derive(Debug, Default)]
pub(crate) struct Names {
    map: HashMap<Box<[u8]>, Vec<Slot>>,
    bytes: usize,
}

impl Names {
    /// Every text that a name may stand for; empty = unknown.
    pub(crate) fn of(&mut self, name: &[u8]) -> &mut [Slot] {
        self.map
            .get_mut(name)
            .map_or(&mut [], |slots| slots.as_mut_slice())
    }

    /// The same, to look at.
    pub(crate) fn look(&self, name: &[u8]) -> &[Slot] {
        self.map.get(name).map_or(&[], |slots| slots.as_slice())
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A definition is on its way.
    ///
    /// Errors: a cap is reached; nothing has changed then.
    pub(crate) fn define(
        &mut self,
        name: &[u8],
        prepared: &Arc<Prepared>,
        decided: Option<(u64, Decision)>,
        names_max: usize,
        bytes_max: usize,
    ) -> Result<(), Full> {
        if let Some(slots) = self.map.get_mut(name) {
            if let Some(slot) = slots
                .iter_mut()
                .find(|s| Arc::ptr_eq(&s.prepared, prepared))
            {
                slot.pending = slot.pending.saturating_add(1);
                return Ok(());
            }
            if slots.len() >= TEXTS_PER_NAME_MAX {
                return Err(Full::Texts);
            }
        } else if self.map.len() >= names_max {
            return Err(Full::Names);
        }
        let cost = cost(name, prepared);
        if self.bytes.saturating_add(cost) > bytes_max {
            return Err(Full::Bytes);
        }
        self.bytes += cost;
        let slot = Slot {
            prepared: prepared.clone(),
            decided,
            settled: false,
            pending: 1,
        };
        self.map.entry(name.into()).or_default().push(slot);
        Ok(())
    }

    /// Finds a definition of the very same text and types, so that repeating
    /// it costs no memory.
    pub(crate) fn same(
        &self,
        name: &[u8],
        text: &[u8],
        types: &[u32],
        facts: &Arc<SqlFacts>,
    ) -> Option<Arc<Prepared>> {
        self.look(name)
            .iter()
            .find(|s| {
                s.prepared.text == text && *s.prepared.types == *types && s.prepared.facts == *facts
            })
            .map(|s| s.prepared.clone())
    }

    /// The definitions were made: the name stands for these and for what is
    /// still on its way.
    pub(crate) fn made(&mut self, name: &[u8], prepared: &[Arc<Prepared>]) {
        self.change(name, |slot| {
            let this = prepared.iter().any(|p| Arc::ptr_eq(p, &slot.prepared));
            slot.settled = this;
            if this {
                slot.pending = slot.pending.saturating_sub(1);
            }
        });
    }

    /// The definitions failed. `maybe` = they may have been made nevertheless
    /// (an earlier statement of a text that failed later).
    pub(crate) fn failed(&mut self, name: &[u8], prepared: &[Arc<Prepared>], maybe: bool) {
        self.change(name, |slot| {
            if prepared.iter().any(|p| Arc::ptr_eq(p, &slot.prepared)) {
                slot.settled |= maybe;
                slot.pending = slot.pending.saturating_sub(1);
            }
        });
    }

    /// The name was closed: only what is still on its way remains.
    pub(crate) fn closed(&mut self, name: &[u8]) {
        self.change(name, |slot| slot.settled = false);
    }

    /// All names were closed.
    pub(crate) fn closed_all(&mut self) {
        self.retain(|slot| {
            slot.settled = false;
            slot.pending > 0
        });
    }

    /// A transaction ended with nothing on its way: what does not outlive it
    /// is gone.
    pub(crate) fn transaction_ended(&mut self) {
        self.retain(|slot| slot.prepared.hold || slot.pending > 0);
    }

    fn change(&mut self, name: &[u8], mut f: impl FnMut(&mut Slot)) {
        let Some(slots) = self.map.get_mut(name) else {
            return;
        };
        let mut freed = 0;
        slots.retain_mut(|slot| {
            f(slot);
            let keep = slot.settled || slot.pending > 0;
            if !keep {
                freed += cost(name, &slot.prepared);
            }
            keep
        });
        self.bytes -= freed;
        if slots.is_empty() {
            self.map.remove(name);
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&mut Slot) -> bool) {
        let mut freed = 0;
        self.map.retain(|name, slots| {
            slots.retain_mut(|slot| {
                let keep = keep(slot);
                if !keep {
                    freed += cost(name, &slot.prepared);
                }
                keep
            });
            !slots.is_empty()
        });
        self.bytes -= freed;
    }
}

/// What one slot costs in bytes.
fn cost(name: &[u8], prepared: &Prepared) -> usize {
    256 + name.len() + prepared.text.len() + crate::cache::facts_bytes(&prepared.facts)
}
