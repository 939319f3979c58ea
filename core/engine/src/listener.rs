//! Listening sockets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::conn::Conn;
use crate::ring::listen::RingListener;
use crate::shard::{Driver, current, try_current};
use crate::sock::Sock;

/// Connections accepted ahead of `accept`; beyond it the kernel's backlog holds them.
pub(crate) const ACCEPTED_AHEAD_MAX: usize = 128;

/// How to listen.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// `SO_REUSEPORT`: each shard binds the same address, the kernel spreads.
    pub reuse_port: bool,
    /// The kernel's queue of connections not yet accepted. Default 1024.
    pub backlog: u32,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            reuse_port: false,
            backlog: 1024,
        }
    }
}

pub(crate) enum ListenerIo {
    Ring(RingListener),
    Sim,
}

/// What a listener and its driver share.
pub(crate) struct ListenerCore {
    pub(crate) io: ListenerIo,
    pub(crate) local: SocketAddr,
    pub(crate) accepted: RefCell<VecDeque<Rc<Sock>>>,
    pub(crate) error: Cell<Option<i32>>,
    pub(crate) closed: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl ListenerCore {
    pub(crate) fn new(io: ListenerIo, local: SocketAddr) -> Rc<ListenerCore> {
        Rc::new(ListenerCore {
            io,
            local,
            accepted: RefCell::new(VecDeque::new()),
            error: Cell::new(None),
            closed: Cell::new(false),
            wakers: RefCell::new(Vec::new()),
        })
    }

    pub(crate) fn push(&self, sock: Rc<Sock>) {
        self.accepted.borrow_mut().push_back(sock);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        for waker in self.wakers.take() {
            waker.wake();
        }
    }
}

/// A listening socket of this shard. Dropping it closes it, and the connections
/// that nobody accepted.
pub struct Listener {
    core: Rc<ListenerCore>,
}

impl Listener {
    /// Binds and listens; port 0 takes a free one.
    ///
    /// # Errors
    /// What the system answers, such as address in use.
    ///
    /// # Panics
    /// If called off a shard.
    pub fn bind(addr: SocketAddr, options: ListenOptions) -> io::Result<Listener> {
        let shard = current();
        let core = match &shard.driver {
            Driver::Ring(ring) => ring.listen(addr, &options)?,
            Driver::Sim(sim) => sim.listen(addr)?,
        };
        Ok(Listener { core })
    }

    /// The address bound to, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.core.local
    }

    /// The next connection and its peer. Cancel-safe. When file descriptors run out
    /// accepting pauses for 100 ms at a time; that is not an error here.
    ///
    /// # Errors
    /// What makes the listener unusable.
    pub async fn accept(&self) -> io::Result<(Conn, SocketAddr)> {
        let shard = current();
        poll_fn(|cx| {
            let next = self.core.accepted.borrow_mut().pop_front();
            if let Some(sock) = next {
                let peer = sock.peer;
                return Poll::Ready(Ok((Conn::new(sock), peer)));
            }
            if let Some(errno) = self.core.error.get() {
                return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
            }
            let mut wakers = self.core.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            drop(wakers);
            if let Driver::Ring(ring) = &shard.driver {
                ring.arm_accept(&self.core);
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.core.closed.set(true);
        if let Some(shard) = try_current() {
            match &shard.driver {
                Driver::Ring(ring) => ring.close_listener(&self.core),
                Driver::Sim(sim) => sim.close_listener(&self.core),
            }
        }
        for sock in self.core.accepted.take() {
            drop(Conn::new(sock));
        }
    }
}
