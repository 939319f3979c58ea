//! A request that waits for a human, from the shard's side.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A request to be approved, as the approver sees it. Everything in it has
/// been masked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRequest {
    /// SHA-256 over principal, target, database, account, the state that gives
    /// the request its meaning, the exact request and the policy version. Two
    /// requests of one digest are the same request: what is approved for one
    /// may be spent by the other. A session whose state has no name (temporary
    /// objects, functions of its own) sets `reuse` to false.
    pub digest: [u8; 32],
    /// The session's id.
    pub session: String,
    /// The principal's issuer.
    pub principal_issuer: String,
    /// The principal's subject: never the approver.
    pub principal_subject: String,
    /// On whose behalf the principal acts, to be shown.
    pub on_behalf_of: Option<String>,
    /// The role that decided.
    pub role: String,
    /// The target's name.
    pub target: String,
    /// The database (or what stands for it).
    pub database: String,
    /// The account used at the target.
    pub account: String,
    /// The policy version that decided.
    pub policy_version: String,
    /// The rule that wants a human.
    pub rule: String,
    /// The statement, whole.
    pub text: Vec<u8>,
    /// The bind values as they are to be shown; `None` is NULL.
    pub binds: Vec<Option<Vec<u8>>>,
    /// Session state that gives the text its meaning: (`role`, ..),
    /// (`search_path`, ..).
    pub state: Vec<(String, String)>,
    /// Whether the session is inside a transaction and holds locks.
    pub in_transaction: bool,
    /// When this wait ends, in Unix milliseconds; the request stays asked.
    pub wait_deadline_unix_ms: u64,
    /// Whether a grant given before, and not used, may be spent. If not, only
    /// an answer given while this request waits counts.
    pub reuse: bool,
}

impl HoldRequest {
    /// Bytes that are shown and stored for the approver.
    pub(crate) fn shown_bytes(&self) -> usize {
        let binds = self.binds.iter().flatten().map(Vec::len);
        let state = self
            .state
            .iter()
            .map(|(name, value)| name.len() + value.len());
        binds
            .chain(state)
            .fold(self.text.len(), usize::saturating_add)
    }
}

/// The one answer to a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldAnswer {
    /// Yes, and durably spent: exactly this request runs, now, once. If it
    /// cannot run any more the grant is lost; that is the safe side.
    Granted {
        /// The approval that was spent.
        approval_id: String,
        /// Who said yes.
        by: String,
        /// Why; may be empty.
        reason: String,
    },
    /// No.
    Denied {
        /// The approval.
        approval_id: String,
        /// Who said no.
        by: String,
        /// Why; may be empty.
        reason: String,
    },
    /// Nobody answered. `still_asked`: only this wait has ended, and the same
    /// request made again meets the same approval; else the approval itself
    /// has expired.
    Expired {
        /// The approval.
        approval_id: String,
        /// Whether the request stays asked.
        still_asked: bool,
    },
    /// The control plane cannot take or keep the request: the answer is no.
    Unavailable {
        /// A short reason without content, for the log and the agent.
        why: &'static str,
    },
    /// Too many requests of this principal (or of all) wait already.
    CapReached {
        /// The limit that was met.
        pending_max: u32,
    },
    /// The same request of this principal was denied a moment ago.
    CoolingDown {
        /// The approval that was denied.
        approval_id: String,
        /// When it may be asked again, in Unix milliseconds.
        until_unix_ms: u64,
    },
}

/// Told while a request waits; may come more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldNotice {
    /// The request is on file under this id and waits.
    Asked {
        /// The approval to be answered.
        approval_id: String,
        /// When the approval itself ends, in Unix milliseconds.
        expires_unix_ms: u64,
        /// Whether an identical request had asked before.
        joined: bool,
    },
    /// An identical request spent the answer; this one waits under a new id.
    Moved {
        /// The approval to be answered now.
        approval_id: String,
        /// When it ends, in Unix milliseconds.
        expires_unix_ms: u64,
    },
}

/// Why nobody waits any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbandonReason {
    /// The agent's connection is gone.
    AgentGone,
    /// The agent cancelled.
    Cancelled,
    /// The gateway's own deadline passed.
    TimedOut,
    /// The gateway stops, or the session ends for a reason of its own.
    SessionEnded,
}

impl AbandonReason {
    /// The word used in the audit trail.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentGone => "agent gone",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed out",
            Self::SessionEnded => "session ended",
        }
    }
}

const WAITING: u8 = 0;
const ABANDONED: u8 = 1;
const CLAIMED: u8 = 2;

/// What ticket and broker share about one waiter: which of the two was first.
#[derive(Debug)]
pub(crate) struct WaitState {
    step: AtomicU8,
    approval_id: Mutex<String>,
}

impl WaitState {
    pub(crate) fn new(approval_id: String) -> Self {
        Self {
            step: AtomicU8::new(WAITING),
            approval_id: Mutex::new(approval_id),
        }
    }

    /// The broker is about to answer: true unless the waiter went away first.
    pub(crate) fn claim(&self) -> bool {
        self.leave(CLAIMED)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.step.load(Ordering::Acquire) == WAITING
    }

    fn abandon(&self) -> bool {
        self.leave(ABANDONED)
    }

    fn leave(&self, to: u8) -> bool {
        // AcqRel pairs the two sides' exchanges: exactly one of them succeeds.
        self.step
            .compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub(crate) fn set_approval_id(&self, id: &str) {
        id.clone_into(
            &mut self
                .approval_id
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    pub(crate) fn approval_id(&self) -> String {
        self.approval_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A place in the queue of those who wait. Dropping it is
/// [`AbandonReason::AgentGone`]; after an answer both do nothing.
#[must_use = "dropping the ticket gives up the wait"]
pub struct HoldTicket {
    pub(crate) state: Arc<WaitState>,
    pub(crate) on_abandon: Option<Box<dyn FnOnce(AbandonReason) + Send>>,
}

impl HoldTicket {
    /// The approval this request waits for, known at once so that the agent
    /// can be told. It may change while waiting (see [`HoldNotice::Moved`]).
    #[must_use]
    pub fn approval_id(&self) -> String {
        self.state.approval_id()
    }

    /// Stops waiting. The request stays asked: made again, it meets the same
    /// approval or the unused grant. False if an answer was already under way:
    /// then the answer callback has been or will be called, and a grant in it
    /// is spent.
    pub fn abandon(mut self, reason: AbandonReason) -> bool {
        self.leave(reason)
    }

    fn leave(&mut self, reason: AbandonReason) -> bool {
        let first = self.state.abandon();
        if let Some(tell) = self.on_abandon.take()
            && first
        {
            tell(reason);
        }
        first
    }
}

impl Drop for HoldTicket {
    fn drop(&mut self) {
        self.leave(AbandonReason::AgentGone);
    }
}

impl fmt::Debug for HoldTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HoldTicket")
            .field("approval_id", &self.approval_id())
            .finish()
    }
}
