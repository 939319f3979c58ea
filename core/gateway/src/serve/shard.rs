//! One shard's world: its masker, its record ring, its verdict cache, its
//! sessions. Nothing in it is shared or locked.

use crate::pg::session::PgSession;
use crate::serve::metrics::ShardMetrics;
use crate::serve::shared::Shared;
use engine::Notify;
use masking::{Masker, RuleSet};
use policy::VerdictCache;
use recorder::{AppendError, Body, Producer, SessionId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// The masker with the rule set it was made from.
pub type SharedMasker = Rc<RefCell<Masker>>;

/// A shard's state; one per thread, reached through [`Shard::current`].
pub struct Shard {
    /// What all shards share.
    pub shared: Arc<Shared>,
    /// Its counters.
    pub metrics: Arc<ShardMetrics>,
    masker: RefCell<SharedMasker>,
    producer: RefCell<Producer>,
    /// Verdicts of repeated statements.
    pub cache: RefCell<VerdictCache>,
    durable_up_to: Cell<u64>,
    record_moved: Notify,
    sessions: RefCell<HashMap<SessionId, Weak<PgSession>>>,
    /// Woken when a session has ended.
    pub session_ended: Notify,
    /// Told when the gateway starts to stop.
    pub stop: Notify,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Shard>>> = const { RefCell::new(None) };
}

impl Shard {
    /// Makes this thread's shard.
    pub fn start(
        index: usize,
        shared: Arc<Shared>,
        producer: Producer,
    ) -> Result<Rc<Shard>, masking::MaskError> {
        let rules = Arc::clone(&shared.rules.load());
        let cache_bytes = shared.live.load().config.limits.verdict_cache_bytes_max;
        let metrics = shared.metrics[index].clone();
        let shard = Rc::new(Shard {
            metrics,
            masker: RefCell::new(Rc::new(RefCell::new(Masker::new(rules)?))),
            producer: RefCell::new(producer),
            cache: RefCell::new(VerdictCache::new(cache_bytes)),
            durable_up_to: Cell::new(0),
            record_moved: Notify::new(),
            sessions: RefCell::default(),
            session_ended: Notify::new(),
            stop: Notify::new(),
            shared,
        });
        CURRENT.with(|c| *c.borrow_mut() = Some(shard.clone()));
        Ok(shard)
    }

    /// This thread's shard, for closures sent to it; `None` once it has ended.
    pub fn current() -> Option<Rc<Shard>> {
        CURRENT.with(|c| c.borrow().clone())
    }

    /// Ends this thread's shard.
    pub fn end() {
        CURRENT.with(|c| c.borrow_mut().take());
    }

    /// The masker for the rules in force. A stream that was begun keeps the
    /// masker it was begun with.
    pub fn masker(&self) -> SharedMasker {
        let current = self.masker.borrow().clone();
        let rules: arc_swap::Guard<Arc<RuleSet>> = self.shared.rules.load();
        if Arc::ptr_eq(current.borrow().rules(), &rules) {
            return current;
        }
        match Masker::new(rules.clone()) {
            Ok(masker) => {
                let fresh = Rc::new(RefCell::new(masker));
                *self.masker.borrow_mut() = fresh.clone();
                fresh
            }
            Err(error) => {
                // Out of memory for scratch. Rules that lack a secret of today
                // must not mask for it: whoever asks ends here, with its session.
                tracing::error!(%error, "masker for the rules in force cannot be made");
                panic!("masker for the rules in force cannot be made");
            }
        }
    }

    /// Appends a record; `urgent` asks the writer to commit at once.
    pub fn append(
        &self,
        session: SessionId,
        body: &Body,
        urgent: bool,
    ) -> Result<u64, AppendError> {
        let at = engine::wall_clock_us();
        let mut producer = self.producer.borrow_mut();
        if urgent {
            producer.append_urgent(session, at, body)
        } else {
            producer.append(session, at, body)
        }
    }

    /// As [`Shard::append`], and waits for room where the ring is full.
    pub async fn append_waiting(
        &self,
        session: SessionId,
        body: &Body,
        urgent: bool,
    ) -> Result<u64, AppendError> {
        loop {
            let moved = self.record_moved.notified();
            match self.append(session, body, urgent) {
                Err(AppendError::Full) => {
                    self.metrics.record_waits.add(1);
                    moved.await;
                }
                other => return other,
            }
        }
    }

    /// Ready once the writer has moved on after this call.
    pub fn record_moved(&self) -> impl Future<Output = ()> + use<> {
        self.record_moved.notified()
    }

    /// Waits until everything up to `sequence` is on disk; false if the
    /// recorder has failed.
    pub async fn durable(&self, sequence: u64) -> bool {
        loop {
            if self.durable_up_to.get() >= sequence {
                return true;
            }
            if self.shared.recorder.health() != recorder::Health::Ok {
                return false;
            }
            let moved = self.record_moved.notified();
            if self.durable_up_to.get() >= sequence {
                return true;
            }
            moved.await;
        }
    }

    /// The writer has committed, or failed.
    pub fn record_committed(&self, up_to: u64) {
        self.durable_up_to.set(self.durable_up_to.get().max(up_to));
        self.record_moved.notify_all();
    }

    /// Records appended so far: a simulation waits for the writer's thread, which
    /// knows nothing of its time.
    #[cfg(test)]
    pub fn appended(&self) -> u64 {
        self.producer.borrow().appended()
    }

    /// A session lives here.
    pub fn enter(&self, session: &Rc<PgSession>) {
        self.sessions
            .borrow_mut()
            .insert(session.id, Rc::downgrade(session));
    }

    /// It has ended.
    pub fn leave(&self, id: &SessionId) {
        self.sessions.borrow_mut().remove(id);
        self.session_ended.notify_all();
    }

    /// A session by its id.
    pub fn session(&self, id: &SessionId) -> Option<Rc<PgSession>> {
        self.sessions.borrow().get(id).and_then(Weak::upgrade)
    }

    /// All sessions of the shard.
    pub fn sessions(&self) -> Vec<Rc<PgSession>> {
        self.sessions
            .borrow()
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }
}
