//! A socket under a connection: its descriptor, and which buffers it reads into.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Receives shorter than a small buffer after which a bulk connection goes back.
const SHORT_READS_MAX: u8 = 4;
/// Idle time before the first keep-alive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Probes unanswered before the connection counts as dead.
const KEEPALIVE_PROBES: u32 = 4;

/// The descriptor is closed when the last reference to its connection goes; every
/// operation in flight holds one, so the number cannot be reused under it.
pub(crate) struct RingSock {
    descriptor: OwnedFd,
    /// The armed receive, by its user data.
    pub(crate) recv_op: Cell<Option<u64>>,
    /// The last receive left nothing behind: wait for readiness before trying.
    pub(crate) poll_first: Cell<bool>,
    bulk: Cell<bool>,
    short_reads: Cell<u8>,
}

impl RingSock {
    pub(crate) fn new(descriptor: OwnedFd) -> RingSock {
        RingSock {
            descriptor,
            recv_op: Cell::new(None),
            poll_first: Cell::new(false),
            bulk: Cell::new(false),
            short_reads: Cell::new(0),
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Whether the next receive goes into a large buffer.
    pub(crate) fn is_bulk(&self) -> bool {
        self.bulk.get()
    }

    /// Learns from a receive of `length` bytes: a filled small buffer makes a
    /// connection bulk, four short reads in a row make it small again.
    pub(crate) fn learn(&self, length: usize, small_size: usize) {
        if length >= small_size {
            self.bulk.set(true);
            self.short_reads.set(0);
        } else if self.bulk.get() {
            self.short_reads.set(self.short_reads.get() + 1);
            if self.short_reads.get() >= SHORT_READS_MAX {
                self.bulk.set(false);
                self.short_reads.set(0);
            }
        }
    }

    /// Sends the end of stream. An error means that the peer is gone already.
    pub(crate) fn shutdown_write(&self) {
        let _ = SockRef::from(&self.descriptor).shutdown(std::net::Shutdown::Write);
    }

    /// Resets the connection at once: what is in flight ends with an error.
    pub(crate) fn reset(&self) {
        let socket = SockRef::from(&self.descriptor);
        let _ = socket.set_linger(Some(Duration::ZERO));
        let mut nowhere = libc::sockaddr {
            sa_family: libc::AF_UNSPEC as libc::sa_family_t,
            sa_data: [0; 14],
        };
        // SAFETY: the descriptor is open, the address is a live sockaddr of the size
        // given. Connecting to AF_UNSPEC dissolves the association, for TCP by a reset.
        let answer = unsafe {
            libc::connect(
                self.fd(),
                &raw mut nowhere,
                size_of::<libc::sockaddr>() as libc::socklen_t,
            )
        };
        if answer != 0 {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// What every connection gets: no delay, keep-alive.
pub(crate) fn set_options(descriptor: &OwnedFd) -> io::Result<()> {
    let socket = SockRef::from(descriptor);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )
}

/// (peer, local) of a connected socket.
pub(crate) fn addresses(descriptor: &OwnedFd) -> io::Result<(SocketAddr, SocketAddr)> {
    let socket = SockRef::from(descriptor);
    let inet = |address: socket2::SockAddr| {
        address
            .as_socket()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
    };
    Ok((inet(socket.peer_addr()?)?, inet(socket.local_addr()?)?))
}
