//! The broker: the one task that moves approvals and tokens.
//!
//! It owns the store's only connection and does one thing at a time, so what
//! it decides on is what is there. Whatever it tells anybody is on disk first.
//! It knows which requests are pending (bounded by `pending_max`), who waits
//! for them, and when the next of them ends; all else it reads from the store.

mod answers;
mod holds;
mod tokens;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::TokenStore;
use tokio::sync::{mpsc, oneshot};

use crate::command::{Admin, Command, Hold, Refusal, Reply};
use crate::config::ControlLimits;
use crate::error::ControlError;
use crate::event::{ApprovalEvent, ApprovalEventKind, Hooks};
use crate::fetch::Fetcher;
use crate::hold::{AbandonReason, HoldAnswer};
use crate::store::{Approval, ApprovalState, Change, Key, Store, StoreError};

/// The actor of changes that time makes.
const ITSELF: &str = "portcullis";

/// How often what has ended long ago is forgotten.
const PRUNE_EVERY_MS: u64 = 3_600_000;

/// Longest sleep while something is due, so that a wall clock that was set
/// shows within it.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// Pause before the store is asked again for what it refused to do.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Which approval an identical request will meet; shards read it to tell the
/// agent an id at once. A hint: the broker's answer is what counts.
pub(crate) type Hints = Arc<Mutex<HashMap<Key, String>>>;

pub(crate) struct Broker {
    store: Store,
    limits: ControlLimits,
    hooks: Hooks,
    tokens: Arc<TokenStore>,
    hints: Hints,
    fetcher: Fetcher,
    pending: HashMap<String, Pending>,
    pending_by_key: HashMap<Key, String>,
    /// Which approval each wait is in.
    waits: HashMap<u64, String>,
    due: BTreeSet<(u64, Due)>,
    prune_at_ms: u64,
}

struct Pending {
    key: Key,
    expires_ms: u64,
    /// In the order they came.
    waiters: VecDeque<Hold>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A pending request or an unspent grant ends.
    Approval(String),
    /// One wait ends.
    Wait(u64),
}

impl Broker {
    /// Takes up what the store holds: pending requests, unspent grants, tokens.
    pub(crate) async fn new(
        mut store: Store,
        limits: ControlLimits,
        hooks: Hooks,
        tokens: Arc<TokenStore>,
        hints: Hints,
    ) -> Result<Self, StoreError> {
        let live = store.live_approvals().await?;
        let mut broker = Self {
            store,
            limits,
            hooks,
            tokens,
            hints,
            fetcher: Fetcher::default(),
            pending: HashMap::new(),
            pending_by_key: HashMap::new(),
            waits: HashMap::new(),
            due: BTreeSet::new(),
            prune_at_ms: 0,
        };
        for approval in live {
            if approval.state == ApprovalState::Pending {
                broker.remember(&approval);
            } else {
                broker
                    .due
                    .insert((approval.expires_ms, Due::Approval(approval.id)));
            }
        }
        broker.publish_tokens().await?;
        Ok(broker)
    }

    /// Serves until `stop` resolves, then answers everyone who waits and
    /// closes the store.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut admin: mpsc::Receiver<Admin>,
        mut stop: oneshot::Receiver<()>,
    ) {
        loop {
            self.run_due().await;
            let sleep = self.sleep();
            // Chosen at random where several are ready: neither agents nor
            // approvers can keep the other waiting for long.
            tokio::select! {
                _ = &mut stop => break,
                Some(request) = admin.recv() => {
                    self.run_due().await;
                    self.serve(request).await;
                }
                Some(command) = commands.recv() => {
                    self.run_due().await;
                    self.obey(command).await;
                }
                () = tokio::time::sleep(sleep) => {}
            }
        }
        commands.close();
        let stopping = HoldAnswer::Unavailable {
            why: "gateway is stopping",
        };
        while let Ok(command) = commands.try_recv() {
            if let Command::Hold(hold) = command {
                answer(*hold, stopping.clone());
            }
        }
        for (_, pending) in self.pending.drain() {
            for hold in pending.waiters {
                answer(hold, stopping.clone());
            }
        }
        self.store.close().await;
    }

    fn now(&self) -> u64 {
        (self.hooks.clock)()
    }

    fn sleep(&self) -> Duration {
        let next = self.due.first().map_or(self.prune_at_ms, |(at, _)| *at);
        match next.min(self.prune_at_ms).checked_sub(self.now()) {
            // Overdue: the store refused to move it a moment ago.
            None | Some(0) => RETRY_AFTER,
            Some(wait) => Duration::from_millis(wait).min(SLEEP_MAX),
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Hold(hold) => self.hold(*hold).await,
            Command::Abandoned { wait, reason } => self.abandoned(wait, reason).await,
            Command::Fetch {
                url,
                limits,
                answer,
            } => self.fetcher.start(url, limits, answer),
        }
    }

    async fn serve(&mut self, request: Admin) {
        match request {
            Admin::Approvals { filter, reply } => {
                let listed = self.store.approvals(filter).await.map(|list| {
                    list.into_iter()
                        .map(|approval| self.with_waiters(approval))
                        .collect()
                });
                send(reply, listed.map_err(failed));
            }
            Admin::Approval { id, reply } => send(reply, self.find(&id).await),
            Admin::Approve {
                id,
                by,
                reason,
                reply,
            } => {
                send(reply, self.approve(&id, &by, &reason).await);
            }
            Admin::Deny {
                id,
                by,
                reason,
                reply,
            } => {
                send(reply, self.deny(&id, &by, &reason).await);
            }
            Admin::Mint {
                subject,
                groups,
                ttl_s,
                by,
                reply,
            } => {
                send(reply, self.mint(subject, groups, ttl_s, &by).await);
            }
            Admin::Tokens { reply } => send(reply, self.store.tokens().await.map_err(failed)),
            Admin::RevokeToken { id, by, reply } => send(reply, self.revoke(&id, &by).await),
            Admin::Audit {
                after,
                limit,
                reply,
            } => {
                send(
                    reply,
                    self.store.audit_after(after, limit).await.map_err(failed),
                );
            }
            Admin::Ping { reply } => {
                let well = self.store.ping().await;
                send(reply, if well { Ok(()) } else { Err(Refusal::Store) });
            }
        }
    }

    /// Ends what has come to its end.
    async fn run_due(&mut self) {
        let now = self.now();
        if now >= self.prune_at_ms {
            self.prune(now).await;
        }
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            let Some((at, due)) = self.due.pop_first() else {
                break;
            };
            match due {
                Due::Wait(wait) => self.wait_ended(wait).await,
                Due::Approval(id) => {
                    if let Err(error) = self.expire(&id, now).await {
                        tracing::error!(approval_id = %id, %error, "approval not expired");
                        // Tried again with the next turn; a grant past its
                        // time is not spendable meanwhile.
                        self.due.insert((at, Due::Approval(id)));
                        break;
                    }
                }
            }
        }
    }

    async fn prune(&mut self, now: u64) {
        self.prune_at_ms = now.saturating_add(PRUNE_EVERY_MS);
        let before = now.saturating_sub(self.limits.retention_ms);
        let pruned = match self.store.prune_approvals(before).await {
            Ok(approvals) => self
                .store
                .prune_tokens(before / 1000)
                .await
                .map(|t| (approvals, t)),
            Err(error) => Err(error),
        };
        match pruned {
            Ok((approvals, tokens)) if approvals + tokens > 0 => {
                tracing::info!(approvals, tokens, "forgot what ended long ago");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "store not pruned"),
        }
    }

    fn remember(&mut self, approval: &Approval) {
        let key = Key::of(&approval.request);
        self.due
            .insert((approval.expires_ms, Due::Approval(approval.id.clone())));
        self.pending_by_key.insert(key.clone(), approval.id.clone());
        self.hint(&key);
        let pending = Pending {
            key,
            expires_ms: approval.expires_ms,
            waiters: VecDeque::new(),
        };
        self.pending.insert(approval.id.clone(), pending);
    }

    /// No longer pending: hands over who waited.
    fn forget(&mut self, id: &str) -> VecDeque<Hold> {
        let Some(pending) = self.pending.remove(id) else {
            return VecDeque::new();
        };
        self.pending_by_key.remove(&pending.key);
        self.hint(&pending.key);
        self.due
            .remove(&(pending.expires_ms, Due::Approval(id.to_owned())));
        for hold in &pending.waiters {
            self.waits.remove(&hold.wait);
            self.due
                .remove(&(hold.request.wait_deadline_unix_ms, Due::Wait(hold.wait)));
        }
        pending.waiters
    }

    /// Brings the hint for a request in line with what is pending.
    fn hint(&self, key: &Key) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        match self.pending_by_key.get(key) {
            Some(id) => hints.insert(key.clone(), id.clone()),
            None => hints.remove(key),
        };
    }

    fn tell(&self, approval_id: &str, session: &str, digest: [u8; 32], kind: ApprovalEventKind) {
        (self.hooks.on_event)(&ApprovalEvent {
            approval_id: approval_id.to_owned(),
            session: session.to_owned(),
            digest,
            kind,
            at_unix_ms: self.now(),
        });
    }

    fn change<'a>(&self, actor: &'a str) -> Change<'a> {
        Change {
            actor,
            at_ms: self.now(),
        }
    }
}

/// Starts the store for a broker.
pub(crate) async fn open(
    path: &std::path::Path,
    limits: ControlLimits,
    hooks: Hooks,
    tokens: Arc<TokenStore>,
    hints: Hints,
) -> Result<Broker, ControlError> {
    let store = Store::open(path).await?;
    let failed = |error: StoreError| ControlError::Store {
        path: path.to_owned(),
        what: error.to_string(),
    };
    Broker::new(store, limits, hooks, tokens, hints)
        .await
        .map_err(failed)
}

/// Answers a wait unless it was given up first.
fn answer(hold: Hold, with: HoldAnswer) {
    if hold.state.claim() {
        (hold.answer)(with);
    }
}

fn send<T>(reply: Reply<T>, result: Result<T, Refusal>) {
    // Who asked may have hung up; what was done is done.
    let _ = reply.send(result);
}

fn failed(error: StoreError) -> Refusal {
    match error {
        StoreError::Full(what) => Refusal::Full { what },
        error => {
            tracing::error!(%error, "store failed");
            Refusal::Store
        }
    }
}

#[cfg(test)]
mod tests;
