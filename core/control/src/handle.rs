//! The shards' side of the control plane.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use identity::{TokenStore, TokenTable};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::broker::Hints;
use crate::command::{Command, Hold};
use crate::encoding::new_approval_id;
use crate::hold::{HoldAnswer, HoldNotice, HoldRequest, HoldTicket, WaitState};
use crate::store::Key;

/// Commands that may wait for the control thread. One more hold is answered
/// [`HoldAnswer::Unavailable`], one more fetch [`FetchError::Unavailable`].
pub(crate) const QUEUE_MAX: usize = 1024;

/// Bounds on one fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchLimits {
    /// Bytes of the body. Default 1 MiB.
    pub body_bytes_max: usize,
    /// From start to last byte. Default 10 s.
    pub timeout: Duration,
    /// Authorities trusted beside the system's, PEM; usually empty.
    pub extra_roots_pem: Vec<u8>,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1024 * 1024,
            timeout: Duration::from_secs(10),
            extra_roots_pem: Vec::new(),
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
#[derive(Clone)]
pub struct ControlHandle {
    commands: mpsc::Sender<Command>,
    hints: Hints,
    waits: Arc<AtomicU64>,
    tokens: Arc<TokenStore>,
}

impl ControlHandle {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        hints: Hints,
        tokens: Arc<TokenStore>,
    ) -> Self {
        Self {
            commands,
            hints,
            waits: Arc::new(AtomicU64::new(1)),
            tokens,
        }
    }

    /// Asks for a human's answer; `answer` is called once, on the control
    /// thread (or on this one, before this call returns, where the queue is
    /// full or the control plane has stopped). It is dropped uncalled if the
    /// ticket is given up first, or if the control thread dies: take that for
    /// a no.
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
        // Relaxed: only that no two are the same matters.
        let wait = self.waits.fetch_add(1, Ordering::Relaxed);
        let key = Key::of(&request);
        let (id, is_made) = self.id_for(&key);
        let state = Arc::new(WaitState::new(id.clone()));
        let hold = Hold {
            wait,
            request,
            state: Arc::clone(&state),
            notice,
            answer,
        };
        let mut on_abandon = None;
        match self.commands.try_send(Command::Hold(Box::new(hold))) {
            Ok(()) => {
                let commands = self.commands.clone();
                let tell: Box<dyn FnOnce(_) + Send> = Box::new(move |reason| {
                    // Where the queue is full the broker finds the ticket given
                    // up when it comes to it.
                    let _ = commands.try_send(Command::Abandoned { wait, reason });
                });
                on_abandon = Some(tell);
            }
            Err(refused) => {
                if is_made {
                    self.unhint(&key, &id);
                }
                let why = match &refused {
                    mpsc::error::TrySendError::Full(_) => "control plane has too much to do",
                    mpsc::error::TrySendError::Closed(_) => "control plane has stopped",
                };
                if let Command::Hold(hold) = refused.into_inner()
                    && hold.state.claim()
                {
                    (hold.answer)(HoldAnswer::Unavailable { why });
                }
            }
        }
        HoldTicket { state, on_abandon }
    }

    /// The id of the approval that this request meets, or one made for it, and
    /// whether it was made.
    fn id_for(&self, key: &Key) -> (String, bool) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = hints.get(key) {
            return (id.clone(), false);
        }
        // Without random bytes the broker refuses the request.
        let id = new_approval_id().unwrap_or_default();
        if hints.len() < HINTS_MAX {
            hints.insert(key.clone(), id.clone());
        }
        (id, true)
    }

    /// Takes back a hint that was made for a request that was not queued.
    fn unhint(&self, key: &Key, id: &str) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        if hints.get(key).is_some_and(|hinted| hinted == id) {
            hints.remove(key);
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

    /// Fetches a document (a JWK set) on the control thread: `https`, or `http`
    /// from a loopback address; status 200 only. `answer` is called once, as
    /// for [`ControlHandle::hold`].
    pub fn fetch_url(
        &self,
        url: &str,
        limits: FetchLimits,
        answer: Box<dyn FnOnce(Result<Vec<u8>, FetchError>) + Send>,
    ) {
        let fetch = Command::Fetch {
            url: url.to_owned(),
            limits,
            answer,
        };
        if let Err(refused) = self.commands.try_send(fetch)
            && let Command::Fetch { answer, .. } = refused.into_inner()
        {
            answer(Err(FetchError::Unavailable));
        }
    }
}

/// Hints kept at most: all that can be pending, and what is queued beside it.
const HINTS_MAX: usize = 200_000;

impl fmt::Debug for ControlHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlHandle(..)")
    }
}
