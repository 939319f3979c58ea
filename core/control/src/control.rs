//! Start and end of the control plane.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use identity::TokenStore;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{self, Api};
use crate::broker::{self, Hints};
use crate::config::{ControlConfig, ControlListen};
use crate::error::ControlError;
use crate::event::Hooks;
use crate::handle::{ControlHandle, QUEUE_MAX};
use crate::secret_file::AdminToken;
use crate::server::Listener;

/// API requests that may wait for the broker.
const ADMIN_QUEUE_MAX: usize = 64;

/// The running control plane. Dropping it is [`Control::stop`] without grace.
pub struct Control {
    stop: Option<oneshot::Sender<Duration>>,
    thread: Option<JoinHandle<()>>,
    listens: ControlListen,
}

struct Started {
    handle: ControlHandle,
    listens: ControlListen,
}

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
        let (stop, stopped) = oneshot::channel();
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("portcullis-ctl".to_owned())
            .spawn(move || {
                match tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                {
                    Ok(runtime) => {
                        runtime.block_on(main(config, hooks, report, stopped));
                        runtime.shutdown_timeout(Duration::from_secs(1));
                    }
                    Err(source) => {
                        let _ = report.send(Err(ControlError::Thread { source }));
                    }
                }
            })
            .map_err(|source| ControlError::Thread { source })?;
        match started.recv() {
            Ok(Ok(Started { handle, listens })) => Ok((
                Self {
                    stop: Some(stop),
                    thread: Some(thread),
                    listens,
                },
                handle,
            )),
            failed => {
                // It ends by itself.
                let _ = thread.join();
                let gone = || ControlError::Thread {
                    source: io::Error::other("it ended"),
                };
                Err(failed.ok().and_then(Result::err).unwrap_or_else(gone))
            }
        }
    }

    /// Where the API listens; port 0 has become the port that was found.
    #[must_use]
    pub fn listens(&self) -> &ControlListen {
        &self.listens
    }

    /// Answers everyone who waits with [`crate::HoldAnswer::Unavailable`] (their
    /// requests stay asked), lets API requests under way end within `grace`,
    /// closes the store, ends the thread.
    pub fn stop(mut self, grace: Duration) {
        self.end(grace);
    }

    fn end(&mut self, grace: Duration) {
        if let Some(stop) = self.stop.take() {
            // Gone already: nothing to stop.
            let _ = stop.send(grace);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("control thread had panicked");
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("listens", &self.listens)
            .finish_non_exhaustive()
    }
}

async fn main(
    config: ControlConfig,
    hooks: Hooks,
    report: std::sync::mpsc::SyncSender<Result<Started, ControlError>>,
    stopped: oneshot::Receiver<Duration>,
) {
    let tokens = Arc::new(TokenStore::default());
    let hints: Hints = Arc::new(Mutex::new(HashMap::new()));
    let (commands, command_queue) = mpsc::channel(QUEUE_MAX);
    let (admin, admin_queue) = mpsc::channel(ADMIN_QUEUE_MAX);
    let opened = async {
        let admin_token = AdminToken::load_or_make(&config.admin_token_file)?;
        let broker = broker::open(
            &config.store,
            config.limits.clone(),
            hooks.clone(),
            Arc::clone(&tokens),
            Arc::clone(&hints),
        )
        .await?;
        let listener = Listener::bind(&config.listen).await?;
        Ok((admin_token, broker, listener))
    };
    let (admin_token, broker, listener) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            let _ = report.send(Err(error));
            return;
        }
    };
    let api = Api::new(admin, admin_token, hooks, config.metrics_need_token);
    let (stop_server, server_stopped) = watch::channel(false);
    let (stop_broker, broker_stopped) = oneshot::channel();
    let listens = listener.listens().unwrap_or(config.listen);
    let server = tokio::spawn(listener.serve(api::router(api), server_stopped));
    let mut broker = tokio::spawn(broker.run(command_queue, admin_queue, broker_stopped));
    let handle = ControlHandle::new(commands, hints, tokens);
    if report.send(Ok(Started { handle, listens })).is_err() {
        return;
    }
    let grace = tokio::select! {
        grace = stopped => grace.unwrap_or(Duration::ZERO),
        ended = &mut broker => {
            // Without its broker the API would only refuse: end with it, so
            // that every hold is answered at once and health shows it.
            tracing::error!(panicked = ended.is_err(), "control broker ended");
            return;
        }
    };
    let _ = stop_server.send(true);
    let _ = stop_broker.send(());
    let ending = async {
        let _ = server.await;
    };
    // The broker ends first or last, whatever the API's clients do.
    let _ = tokio::time::timeout(grace, ending).await;
    let _ = broker.await;
}
