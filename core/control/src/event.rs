//! What the gateway gives the control plane to call.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One part of the gateway's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthCheck {
    /// Short fixed name: `recorder`, `shards`, `store`.
    pub name: String,
    /// Whether it works.
    pub ok: bool,
}

/// The gateway's health. `/healthz` shows it to anyone who can reach the API,
/// so names are all it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthReport {
    /// The parts; the gateway is well if all of them are.
    pub checks: Vec<HealthCheck>,
}

impl HealthReport {
    /// Whether every part works.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// What happened to an approval; on disk by the time it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalEvent {
    /// The approval.
    pub approval_id: String,
    /// Which session it concerns: the one that asked, or the one that spent.
    pub session: String,
    /// SHA-256 of the exact request.
    pub digest: [u8; 32],
    /// What happened.
    pub kind: ApprovalEventKind,
    /// When, in Unix milliseconds.
    pub at_unix_ms: u64,
}

/// See [`ApprovalEvent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalEventKind {
    /// A request was put on file, for the first time.
    Requested,
    /// A further identical request joined one that was pending.
    Joined,
    /// A human said yes.
    Granted {
        /// Who.
        by: String,
        /// Why; may be empty.
        reason: String,
    },
    /// A human said no.
    Denied {
        /// Who.
        by: String,
        /// Why; may be empty.
        reason: String,
    },
    /// Nobody answered in time, or a grant was not used in time.
    Expired,
    /// The grant was spent: this session's request runs now.
    Spent,
    /// Who waited went away; the request stays asked.
    Abandoned {
        /// Why.
        reason: &'static str,
    },
}

type TextHook = Arc<dyn Fn() -> String + Send + Sync>;
type HealthHook = Arc<dyn Fn() -> HealthReport + Send + Sync>;
type EventHook = Arc<dyn Fn(&ApprovalEvent) + Send + Sync>;
type ClockHook = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Called on the control thread: they must return soon and must not wait for a
/// shard that may be waiting for an approval.
#[derive(Clone)]
pub struct Hooks {
    /// The text of `/metrics`, in Prometheus' exposition format.
    pub metrics: TextHook,
    /// The gateway's parts; the store is added here.
    pub health: HealthHook,
    /// Told of every change of an approval, once it is on disk.
    pub on_event: EventHook,
    /// The wall clock in Unix milliseconds; tests give their own.
    pub clock: ClockHook,
}

impl Default for Hooks {
    /// No metrics, well, nobody told, the system's clock.
    fn default() -> Self {
        Self {
            metrics: Arc::new(String::new),
            health: Arc::new(HealthReport::default),
            on_event: Arc::new(|_| {}),
            clock: Arc::new(system_clock_ms),
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks(..)")
    }
}

fn system_clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
