//! The API's listener: a Unix socket for its owner, or a loopback port; a
//! bounded number of connections, each with deadlines.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use crate::config::ControlListen;
use crate::error::ControlError;

/// Connections at a time; one more waits to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// From accept or the answer before to a whole request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// One connection's whole life.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Pause after an accept that failed, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) enum Listener {
    Unix(UnixListener, Socket),
    Tcp(TcpListener),
}

/// Removes the socket's file at the end.
pub(crate) struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    pub(crate) async fn bind(listen: &ControlListen) -> Result<Self, ControlError> {
        match listen {
            ControlListen::Unix(path) => {
                let failed = |source| ControlError::Listen {
                    at: path.display().to_string(),
                    source,
                };
                remove_stale(path).map_err(failed)?;
                let listener = UnixListener::bind(path).map_err(failed)?;
                let socket = Socket(path.clone());
                std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
                Ok(Self::Unix(listener, socket))
            }
            ControlListen::Loopback(address) => {
                let failed = |source| ControlError::Listen {
                    at: address.to_string(),
                    source,
                };
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                Ok(Self::Tcp(listener))
            }
        }
    }

    /// Where it listens, with the port that was found.
    pub(crate) fn listens(&self) -> Option<ControlListen> {
        match self {
            Self::Unix(_, socket) => Some(ControlListen::Unix(socket.0.clone())),
            Self::Tcp(listener) => listener.local_addr().ok().map(ControlListen::Loopback),
        }
    }

    /// Serves until `stop` changes, then lets open connections end.
    pub(crate) async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // Closed never; without a slot nothing is accepted.
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot,
                _ = stop.changed() => break,
            };
            let Ok(slot) = slot else { break };
            let stopping = stop.clone();
            let accepted: io::Result<()> = tokio::select! {
                accepted = self.accept_one(&router, stopping, slot) => accepted,
                _ = stop.changed() => break,
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "control connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        drop(self);
        // All slots back: every connection has ended.
        let _ = slots
            .acquire_many(u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX))
            .await;
    }

    async fn accept_one(
        &self,
        router: &Router,
        stop: watch::Receiver<bool>,
        slot: tokio::sync::OwnedSemaphorePermit,
    ) -> io::Result<()> {
        match self {
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                spawn(stream, router.clone(), stop, slot);
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                spawn(stream, router.clone(), stop, slot);
            }
        }
        Ok(())
    }
}

fn spawn<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    mut stop: watch::Receiver<bool>,
    slot: tokio::sync::OwnedSemaphorePermit,
) {
    tokio::spawn(async move {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let served = tokio::time::timeout(CONNECTION_TIMEOUT, async {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                served = connection.as_mut() => return served,
                _ = stop.changed() => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        })
        .await;
        match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "control connection ended"),
            Err(_) => tracing::debug!("control connection took too long"),
        }
        drop(slot);
    });
}

/// A socket that nobody serves is left over from a process that died; anything
/// else in its place stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        )),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process serves this socket",
            )),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)
            }
            Err(error) => Err(error),
        },
    }
}
