//! What the control plane is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::ControlError;

/// Where the API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlListen {
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
    /// A port on a loopback address; any other address is refused.
    Loopback(SocketAddr),
}

/// Bounds on approvals, each with its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlLimits {
    /// Requests of one principal that may wait for an answer at a time; beyond
    /// it a hold is answered [`crate::HoldAnswer::CapReached`]. Default 16.
    pub pending_per_principal_max: u32,
    /// The same for all principals together. Default 1000.
    pub pending_max: u32,
    /// Live connections that may wait for one approval. Default 64.
    pub waiters_per_approval_max: u32,
    /// How long a request may wait for its answer, from the first time it was
    /// asked; asking again does not prolong it. In ms; default one hour.
    pub approval_ttl_ms: u64,
    /// How long a grant may be used, from the answer on. In ms; default 15
    /// minutes.
    pub grant_ttl_ms: u64,
    /// How long a denied digest of a principal is refused without asking
    /// again. In ms; default 5 minutes.
    pub deny_cool_down_ms: u64,
    /// Bytes of one request as shown to the approver, statement and values
    /// together. A larger one is refused, since it could not be shown whole.
    /// Default 1 MiB.
    pub shown_bytes_max: usize,
    /// How long an approval stays readable after its end, in ms; default 90
    /// days. The audit trail is kept.
    pub retention_ms: u64,
}

impl Default for ControlLimits {
    fn default() -> Self {
        const MINUTE_MS: u64 = 60_000;
        Self {
            pending_per_principal_max: 16,
            pending_max: 1000,
            waiters_per_approval_max: 64,
            approval_ttl_ms: 60 * MINUTE_MS,
            grant_ttl_ms: 15 * MINUTE_MS,
            deny_cool_down_ms: 5 * MINUTE_MS,
            shown_bytes_max: 1024 * 1024,
            retention_ms: 90 * 24 * 60 * MINUTE_MS,
        }
    }
}

/// Where the control plane keeps things and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// The SQLite file; made with mode 0600 if missing. Its folder must exist.
    pub store: PathBuf,
    /// Where the API listens.
    pub listen: ControlListen,
    /// The file with the API's bearer token; made with mode 0600 and a random
    /// token if missing. A file that others can read is refused.
    pub admin_token_file: PathBuf,
    /// Whether `/metrics` wants the bearer token too. Default true.
    pub metrics_need_token: bool,
    /// Bounds on approvals.
    pub limits: ControlLimits,
}

impl ControlConfig {
    /// A configuration with defaults for all but the paths.
    #[must_use]
    pub fn new(store: PathBuf, listen: ControlListen, admin_token_file: PathBuf) -> Self {
        Self {
            store,
            listen,
            admin_token_file,
            metrics_need_token: true,
            limits: ControlLimits::default(),
        }
    }

    /// Whether the values make sense together; touches nothing.
    ///
    /// # Errors
    /// [`ControlError::Config`] naming the key.
    pub fn check(&self) -> Result<(), ControlError> {
        let refuse = |key, why| Err(ControlError::Config { key, why });
        if let ControlListen::Loopback(address) = &self.listen
            && !address.ip().is_loopback()
        {
            return refuse("listen", "must be a loopback address or a Unix socket");
        }
        let limits = &self.limits;
        for (key, value) in [
            (
                "pending_per_principal_max",
                limits.pending_per_principal_max,
            ),
            ("pending_max", limits.pending_max),
            ("waiters_per_approval_max", limits.waiters_per_approval_max),
        ] {
            if value == 0 || value > 100_000 {
                return refuse(key, "must be from 1 to 100000");
            }
        }
        const YEAR_MS: u64 = 366 * 24 * 3_600_000;
        for (key, value) in [
            ("approval_ttl_ms", limits.approval_ttl_ms),
            ("grant_ttl_ms", limits.grant_ttl_ms),
            ("retention_ms", limits.retention_ms),
        ] {
            if value == 0 || value > 10 * YEAR_MS {
                return refuse(key, "must be more than 0 and at most ten years");
            }
        }
        if limits.deny_cool_down_ms > YEAR_MS {
            return refuse("deny_cool_down_ms", "must be at most a year");
        }
        if limits.shown_bytes_max == 0 || limits.shown_bytes_max > 64 * 1024 * 1024 {
            return refuse("shown_bytes_max", "must be from 1 byte to 64 MiB");
        }
        Ok(())
    }
}
