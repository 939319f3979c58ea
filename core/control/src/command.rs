//! What the broker can be asked, from shards and from the API.

use std::sync::Arc;

use identity::GatewayToken;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::handle::{FetchError, FetchLimits};
use crate::hold::{AbandonReason, HoldAnswer, HoldNotice, HoldRequest, WaitState};
use crate::store::{Approval, ApprovalFilter, AuditEntry};

/// From shards; the queue is bounded and never waited for.
pub(crate) enum Command {
    Hold(Box<Hold>),
    Abandoned {
        wait: u64,
        reason: AbandonReason,
    },
    Fetch {
        url: String,
        limits: FetchLimits,
        answer: Box<dyn FnOnce(Result<Vec<u8>, FetchError>) + Send>,
    },
}

/// One wait: a request and who wants to know.
pub(crate) struct Hold {
    /// Numbers waits within this process.
    pub(crate) wait: u64,
    pub(crate) request: HoldRequest,
    pub(crate) state: Arc<WaitState>,
    pub(crate) notice: Box<dyn FnMut(HoldNotice) + Send>,
    pub(crate) answer: Box<dyn FnOnce(HoldAnswer) + Send>,
}

/// From the API; its callers wait.
pub(crate) enum Admin {
    Approvals {
        filter: ApprovalFilter,
        reply: Reply<Vec<(Approval, usize)>>,
    },
    Approval {
        id: String,
        reply: Reply<(Approval, usize)>,
    },
    Approve {
        id: String,
        by: String,
        reason: String,
        reply: Reply<(Approval, usize)>,
    },
    Deny {
        id: String,
        by: String,
        reason: String,
        reply: Reply<(Approval, usize)>,
    },
    Mint {
        subject: String,
        groups: Vec<String>,
        ttl_s: u64,
        by: String,
        reply: Reply<(GatewayToken, Zeroizing<String>)>,
    },
    Tokens {
        reply: Reply<Vec<GatewayToken>>,
    },
    RevokeToken {
        id: String,
        by: String,
        reply: Reply<()>,
    },
    Audit {
        after: u64,
        limit: u32,
        reply: Reply<Vec<AuditEntry>>,
    },
    Ping {
        reply: Reply<()>,
    },
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// Why the broker did not do what the API asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotFound,
    /// The approval is no longer where the answer would apply.
    Conflict {
        state: &'static str,
        followed_by: String,
    },
    /// The approver is the requester.
    OwnRequest,
    /// A limit was met.
    Full {
        what: &'static str,
    },
    /// The store failed; nothing was changed that anyone may rely on.
    Store,
}
