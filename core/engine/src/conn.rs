//! A connection as the rest of the program sees it: an owned reader, cloneable
//! writers, TLS put on in place.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use crate::error::{ConnectError, End, TlsError};
use crate::exec::{Kind, spawn_on};
use crate::shard::{Driver, Shard, current, try_current};
use crate::sock::{HIGH_MARK_BYTES, LOW_MARK_BYTES, Sock, TxState};
use crate::time::{Time, deadline};
use crate::tls::{self, TlsInfo};

/// Bytes read and dropped while a closed connection waits for its peer to close.
const LINGER_DISCARD_BYTES_MAX: usize = 1024 * 1024;

/// Opens a connection; `TCP_NODELAY` and keep-alive are set. `at` is the deadline.
///
/// # Errors
/// [`ConnectError`].
///
/// # Panics
/// If called off a shard.
pub async fn connect(addr: SocketAddr, at: Time) -> Result<Conn, ConnectError> {
    let shard = current();
    let dial = async {
        match &shard.driver {
            Driver::Ring(ring) => ring.connect(&shard, addr).await,
            Driver::Sim(sim) => sim.connect(&shard, addr).await,
        }
    };
    match deadline(at, dial).await {
        Ok(dialled) => dialled.map(Conn::new),
        Err(_) => Err(ConnectError::Timeout),
    }
}

/// The last of these to go closes the connection.
struct Handle(Rc<Sock>);

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(shard) = try_current() {
            close(&shard, &self.0);
        }
    }
}

/// An open connection of this shard.
pub struct Conn {
    reader: Reader,
    writer: Writer,
}

/// The receiving half.
pub struct Reader {
    handle: Rc<Handle>,
}

/// A sending half. Clones share one queue.
#[derive(Clone)]
pub struct Writer {
    handle: Rc<Handle>,
}

impl Conn {
    pub(crate) fn new(sock: Rc<Sock>) -> Conn {
        let handle = Rc::new(Handle(sock));
        Conn {
            reader: Reader {
                handle: handle.clone(),
            },
            writer: Writer { handle },
        }
    }

    /// The peer's address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.reader.peer_addr()
    }

    /// Our own address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.reader.local_addr()
    }

    /// The two halves; [`Conn::from_parts`] joins them again.
    #[must_use]
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// Joins two halves, so that TLS can be put on after some bytes in the clear.
    ///
    /// # Panics
    /// If they are not of one connection.
    #[must_use]
    pub fn from_parts(reader: Reader, writer: Writer) -> Conn {
        assert!(
            Rc::ptr_eq(&reader.handle, &writer.handle),
            "halves of two connections"
        );
        Conn { reader, writer }
    }

    /// Puts bytes back: the next `recv` gives them first.
    pub fn unread(&mut self, bytes: Bytes) {
        self.reader.unread(bytes);
    }

    /// Runs the server's side of a TLS handshake, without a deadline of its own.
    /// The handshake reads `already_read` first, then what was put back by `unread`.
    /// What was queued in the clear still leaves in the clear; what is queued from
    /// now on is sealed. A caller that asked the peer to start TLS must itself refuse
    /// clear bytes that came early: here they would be read as TLS and fail.
    ///
    /// # Errors
    /// [`TlsError`]; the connection is then dropped, after its alert has gone out.
    pub async fn tls_server(
        self,
        config: Arc<ServerConfig>,
        already_read: Bytes,
    ) -> Result<(Conn, TlsInfo), TlsError> {
        let info = tls::accept(&self.reader.handle.0, config, already_read).await?;
        Ok((self, info))
    }

    /// Runs the client's side of a TLS handshake, without a deadline of its own.
    ///
    /// # Errors
    /// [`TlsError`]; the connection is then dropped, after its alert has gone out.
    pub async fn tls_client(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<(Conn, TlsInfo), TlsError> {
        let info = tls::dial(&self.reader.handle.0, config, name).await?;
        Ok((self, info))
    }
}

impl Reader {
    /// The next bytes, never empty; as many as came. Cancel-safe: a dropped `recv`
    /// loses nothing. Not calling it is backpressure.
    ///
    /// # Errors
    /// The [`End`] of the stream, again each time it is asked.
    pub async fn recv(&mut self) -> Result<Bytes, End> {
        let sock = &self.handle.0;
        poll_fn(|cx| sock.poll_recv(cx)).await
    }

    /// Puts bytes back in front; the next `recv` gives them.
    pub fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.handle.0.rx.unread.borrow_mut().push_front(bytes);
        }
    }

    /// The peer's address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.handle.0.peer
    }

    /// Our own address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.0.local
    }
}

impl Writer {
    /// Queues bytes and never blocks; all that is queued in one turn of the shard
    /// leaves as one vectored send. After [`Writer::finish`], or once the side is
    /// broken, the bytes are dropped: `flushed` and `drained` tell.
    pub fn queue(&self, bytes: Bytes) {
        self.handle.0.queue(bytes);
    }

    /// Bytes queued that the kernel has not taken yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.handle.0.queued()
    }

    /// Whether more than 256 KiB are queued: time to await [`Writer::drained`].
    #[must_use]
    pub fn is_over_high_mark(&self) -> bool {
        self.queued() > HIGH_MARK_BYTES
    }

    /// Waits until less than half the high mark is queued.
    ///
    /// # Errors
    /// How the sending side broke.
    pub async fn drained(&self) -> Result<(), End> {
        poll_fn(|cx| self.handle.0.poll_queued_below(cx, LOW_MARK_BYTES)).await
    }

    /// Waits until the kernel has taken everything.
    ///
    /// # Errors
    /// How the sending side broke.
    pub async fn flushed(&self) -> Result<(), End> {
        poll_fn(|cx| self.handle.0.poll_queued_below(cx, 1)).await
    }

    /// Sends what is queued, then the end of the stream (with TLS: `close_notify`
    /// first). Reading goes on.
    pub fn finish(&self) {
        self.handle.0.finish();
    }

    /// Resets the connection at once; queued bytes are dropped, `recv` gives
    /// [`End::Reset`].
    pub fn abort(&self) {
        self.handle.0.abort();
    }
}

/// Closes a connection nobody holds any more: flushes, sends the end of stream, then
/// waits for the peer's, since closing with unread bytes would reset the connection
/// and could take from the peer what it has not read yet. All under the linger
/// deadline.
fn close(shard: &Rc<Shard>, sock: &Rc<Sock>) {
    let broken = sock.tx_error().is_some();
    let at_end = sock.rx.end.borrow().is_some();
    let all_out =
        sock.queued() == 0 && (sock.tls.get().is_none() || sock.tx_state() == TxState::Finished);
    if broken || (at_end && all_out) {
        sock.release(shard);
        return;
    }
    let (home, sock) = (shard.clone(), sock.clone());
    spawn_on(shard, Kind::System, async move {
        let until = home.now().after(home.config.linger());
        sock.finish();
        match deadline(until, poll_fn(|cx| sock.poll_finished(cx))).await {
            Ok(Ok(())) => {
                let _ = deadline(until, discard(&home, &sock)).await;
            }
            Ok(Err(_)) => {}
            Err(_) => sock.abort(),
        }
        sock.release(&home);
    })
    .detach();
}

async fn discard(shard: &Shard, sock: &Rc<Sock>) {
    let mut discarded = 0;
    poll_fn(|cx| {
        loop {
            let raw = sock.rx.raw.borrow_mut().pop_front();
            if let Some(bytes) = raw {
                discarded += bytes.len();
                continue;
            }
            // A shard that ends does not wait for peers.
            if shard.ending.get() || discarded > LINGER_DISCARD_BYTES_MAX {
                return Poll::Ready(());
            }
            return sock.poll_raw_end(cx).map(drop);
        }
    })
    .await;
}
