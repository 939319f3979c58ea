//! TLS by rustls, driven without IO: fed from a connection's received bytes, sealed
//! into its send queue.
//!
//! Many queued slices are sealed by one vectored write, so records are full
//! (16 KiB of clear text each) whatever the sizes of the slices, and at most
//! `SEND_BYTES_MAX` are sealed ahead of the socket.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CipherSuite, ClientConfig, ClientConnection, Connection, ProtocolVersion};
use rustls::{ServerConfig, ServerConnection};

use crate::error::{End, TlsError};
use crate::sock::{SEND_BYTES_MAX, SEND_SLICES_MAX, Sock};

/// Clear text given out by one `recv`, at most about this much plus one record.
const OPEN_BYTES_MAX: usize = 128 * 1024;

/// What a handshake settled.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// The protocol chosen by ALPN.
    pub alpn: Option<Vec<u8>>,
    /// As server: the name the client asked for (SNI). As client: the name verified.
    pub server_name: Option<String>,
    /// The peer's certificates, its own first; empty if it showed none.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// The protocol version.
    pub version: Option<ProtocolVersion>,
    /// The cipher suite.
    pub cipher_suite: Option<CipherSuite>,
}

/// The TLS state of one connection.
pub(crate) struct Tls {
    connection: Connection,
    /// Received, not yet read by rustls.
    incoming: VecDeque<Bytes>,
    end: Option<End>,
    error: Option<rustls::Error>,
    close_sent: bool,
}

impl Tls {
    fn new(connection: impl Into<Connection>) -> Tls {
        let mut connection = connection.into();
        // No limit of its own: what is sealed is taken out at once, and the amount
        // sealed ahead is bounded by `SEND_BYTES_MAX`.
        connection.set_buffer_limit(None);
        Tls {
            connection,
            incoming: VecDeque::new(),
            end: None,
            error: None,
            close_sent: false,
        }
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    pub(crate) fn feed(&mut self, bytes: Bytes) {
        self.incoming.push_back(bytes);
    }

    /// Clear text from what was fed; `None` when more must be fed first.
    pub(crate) fn open(&mut self) -> Result<Option<Bytes>, End> {
        let mut clear = Vec::new();
        self.take_clear(&mut clear);
        while clear.len() < OPEN_BYTES_MAX && self.step() {
            self.take_clear(&mut clear);
        }
        if !clear.is_empty() {
            return Ok(Some(Bytes::from(clear)));
        }
        match &self.end {
            Some(end) => Err(end.clone()),
            None => Ok(None),
        }
    }

    fn take_clear(&mut self, clear: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        while let Ok(chunk) = reader.fill_buf() {
            let length = chunk.len();
            if length == 0 {
                break;
            }
            clear.extend_from_slice(chunk);
            reader.consume(length);
        }
    }

    /// Lets rustls read some of what was fed; false if there is nothing or it is over.
    fn step(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let Some(front) = self.incoming.front_mut() else {
            return false;
        };
        let mut unread: &[u8] = front;
        let read = self.connection.read_tls(&mut unread);
        match read {
            Ok(count) if count > 0 => front.advance(count.min(front.len())),
            Ok(_) => {
                self.end = Some(End::Eof);
                return false;
            }
            Err(error) => {
                self.end = Some(End::Tls(error.to_string()));
                return false;
            }
        }
        if front.is_empty() {
            self.incoming.pop_front();
        }
        match self.connection.process_new_packets() {
            Ok(state) => {
                if state.peer_has_closed() {
                    self.end = Some(End::Eof);
                    self.incoming.clear();
                }
            }
            Err(error) => {
                self.end = Some(End::Tls(error.to_string()));
                self.error = Some(error);
                self.incoming.clear();
            }
        }
        true
    }

    /// Moves sealed bytes to `wire`, then seals from `queue` while less than
    /// `SEND_BYTES_MAX` lie ahead. Returns (clear bytes taken, sealed bytes added).
    pub(crate) fn seal(
        &mut self,
        queue: &mut VecDeque<Bytes>,
        wire: &mut VecDeque<Bytes>,
        wire_bytes: usize,
        finishing: bool,
    ) -> (usize, usize) {
        let mut taken = 0;
        let mut sealed = self.pull(wire);
        if self.error.is_some() {
            // Nothing more can be sealed; only the alert goes out.
            taken = queue.drain(..).map(|piece| piece.len()).sum();
            return (taken, sealed);
        }
        while !self.connection.is_handshaking()
            && !queue.is_empty()
            && wire_bytes + sealed < SEND_BYTES_MAX
        {
            let mut slices = Vec::with_capacity(queue.len().min(SEND_SLICES_MAX));
            let mut room = SEND_BYTES_MAX - (wire_bytes + sealed);
            for piece in queue.iter().take(SEND_SLICES_MAX) {
                let part = piece.get(..room.min(piece.len())).unwrap_or_default();
                room -= part.len();
                slices.push(IoSlice::new(part));
                if room == 0 {
                    break;
                }
            }
            let Ok(count) = self.connection.writer().write_vectored(&slices) else {
                break;
            };
            if count == 0 {
                break;
            }
            taken += count;
            advance(queue, count);
            sealed += self.pull(wire);
        }
        if finishing && !self.close_sent && queue.is_empty() && !self.connection.is_handshaking() {
            self.close_sent = true;
            self.connection.send_close_notify();
            sealed += self.pull(wire);
        }
        (taken, sealed)
    }

    fn pull(&mut self, wire: &mut VecDeque<Bytes>) -> usize {
        let mut sealed = Vec::new();
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Collect(&mut sealed)) {
                Ok(count) if count > 0 => {}
                _ => break,
            }
        }
        let count = sealed.len();
        if count > 0 {
            wire.push_back(Bytes::from(sealed));
        }
        count
    }

    fn info(&self, asked: Option<String>) -> TlsInfo {
        let server_name = match &self.connection {
            Connection::Server(server) => server.server_name().map(str::to_owned),
            Connection::Client(_) => asked,
        };
        TlsInfo {
            alpn: self.connection.alpn_protocol().map(<[u8]>::to_vec),
            server_name,
            peer_certificates: self
                .connection
                .peer_certificates()
                .map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect())
                .unwrap_or_default(),
            version: self.connection.protocol_version(),
            cipher_suite: self
                .connection
                .negotiated_cipher_suite()
                .map(|suite| suite.suite()),
        }
    }
}

/// Drops `count` bytes from the front.
fn advance(queue: &mut VecDeque<Bytes>, mut count: usize) {
    while count > 0 {
        let Some(front) = queue.front_mut() else {
            return;
        };
        if front.len() <= count {
            count -= front.len();
            queue.pop_front();
        } else {
            front.advance(count);
            return;
        }
    }
}

/// Takes all that rustls writes.
struct Collect<'a>(&'a mut Vec<u8>);

impl Write for Collect<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = pieces.iter().map(|piece| piece.len()).sum();
        self.0.reserve(count);
        for piece in pieces {
            self.0.extend_from_slice(piece);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts TLS on as server. `already_read` comes before what the connection still holds.
pub(crate) async fn accept(
    sock: &Rc<Sock>,
    config: Arc<ServerConfig>,
    already_read: Bytes,
) -> Result<TlsInfo, TlsError> {
    let connection = ServerConnection::new(config)?;
    handshake(sock, Tls::new(connection), already_read, None).await
}

/// Puts TLS on as client of `name`.
pub(crate) async fn dial(
    sock: &Rc<Sock>,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<TlsInfo, TlsError> {
    let asked = name.to_str().into_owned();
    let connection = ClientConnection::new(config, name)?;
    handshake(sock, Tls::new(connection), Bytes::new(), Some(asked)).await
}

async fn handshake(
    sock: &Rc<Sock>,
    mut tls: Tls,
    already_read: Bytes,
    asked: Option<String>,
) -> Result<TlsInfo, TlsError> {
    if !already_read.is_empty() {
        tls.feed(already_read);
    }
    for bytes in sock.rx.unread.take() {
        tls.feed(bytes);
    }
    sock.seal_off_clear_text();
    if sock
        .tls
        .set(std::cell::RefCell::new(Box::new(tls)))
        .is_err()
    {
        return Err(rustls::Error::General("TLS is on already".into()).into());
    }
    poll_fn(|cx| poll_handshake(sock, cx)).await?;
    let tls = sock
        .tls
        .get()
        .ok_or_else(|| rustls::Error::General("no TLS".into()))?;
    let info = tls.borrow().info(asked);
    Ok(info)
}

fn poll_handshake(sock: &Rc<Sock>, cx: &mut Context<'_>) -> Poll<Result<(), TlsError>> {
    let Some(cell) = sock.tls.get() else {
        return Poll::Ready(Ok(()));
    };
    loop {
        let mut tls = cell.borrow_mut();
        while tls.connection.is_handshaking() && tls.step() {}
        let wants_write = tls.wants_write();
        let handshaking = tls.connection.is_handshaking();
        let error = tls.error.clone();
        let end = tls.end.clone();
        drop(tls);
        if wants_write {
            sock.mark_dirty();
        }
        if let Some(error) = error {
            return Poll::Ready(Err(TlsError::Rustls(error)));
        }
        if !handshaking {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = end {
            return Poll::Ready(Err(TlsError::End(end)));
        }
        if let Some(end) = sock.tx_error() {
            return Poll::Ready(Err(TlsError::End(end)));
        }
        let raw = sock.rx.raw.borrow_mut().pop_front();
        match raw {
            Some(bytes) => cell.borrow_mut().feed(bytes),
            None => match sock.poll_raw_end(cx) {
                Poll::Ready(end) => return Poll::Ready(Err(TlsError::End(end))),
                Poll::Pending => return Poll::Pending,
            },
        }
    }
}
