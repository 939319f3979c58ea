//! Listening on the ring: multishot accept, bounded, paused when the machine runs
//! out of descriptors.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::opcode;
use io_uring::types::Fd;
use socket2::{Domain, SockAddr, Socket, Type};

use super::sock::{RingSock, addresses, set_options};
use super::{Op, RingDriver};
use crate::exec::{Kind, spawn_on};
use crate::listener::{ACCEPTED_AHEAD_MAX, ListenOptions, ListenerCore, ListenerIo};
use crate::shard::Shard;
use crate::sock::{Io, Sock};
use crate::stats::bump;
use crate::time::sleep_until;

/// How long accepting pauses when descriptors or memory ran out.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening descriptor and its accept operation.
pub(crate) struct RingListener {
    descriptor: OwnedFd,
    op: Cell<Option<u64>>,
    /// Being cancelled because too many were accepted ahead, or paused.
    held: Cell<bool>,
}

impl RingDriver {
    pub(crate) fn listen(
        &self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<Rc<ListenerCore>> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&SockAddr::from(addr))?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        let local = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        let io = RingListener {
            descriptor: OwnedFd::from(socket),
            op: Cell::new(None),
            held: Cell::new(false),
        };
        Ok(ListenerCore::new(ListenerIo::Ring(io), local))
    }

    /// Starts accepting unless it goes on already or is held back.
    pub(crate) fn arm_accept(&self, listener: &Rc<ListenerCore>) {
        let ListenerIo::Ring(io) = &listener.io else {
            return;
        };
        if io.op.get().is_some() || io.held.get() || listener.closed.get() {
            return;
        }
        let fd = Fd(io.descriptor.as_raw_fd());
        let user_data = self.start(Op::Accept(listener.clone()), |_| {
            opcode::AcceptMulti::new(fd)
                .flags(libc::SOCK_CLOEXEC)
                .build()
        });
        io.op.set(Some(user_data));
    }

    pub(crate) fn close_listener(&self, listener: &Rc<ListenerCore>) {
        if let ListenerIo::Ring(io) = &listener.io
            && let Some(user_data) = io.op.get()
        {
            self.cancel(user_data);
        }
    }

    pub(super) fn accepted(
        &self,
        shard: &Rc<Shard>,
        listener: &Rc<ListenerCore>,
        result: i32,
        more: bool,
    ) {
        let ListenerIo::Ring(io) = &listener.io else {
            return;
        };
        if !more {
            io.op.set(None);
        }
        if result >= 0 {
            // SAFETY: a successful accept gives a new descriptor that is ours alone.
            let descriptor = unsafe { OwnedFd::from_raw_fd(result) };
            self.take_in(shard, listener, descriptor);
        } else {
            match -result {
                libc::ECANCELED => {}
                libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
                    self.pause(shard, listener);
                    return;
                }
                libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT => {
                    listener.error.set(Some(-result));
                    listener.wake();
                    return;
                }
                // One connection went wrong before we had it: the next, please.
                _ => {}
            }
        }
        if listener.accepted.borrow().len() >= ACCEPTED_AHEAD_MAX {
            // `accept` arms again when it has emptied the queue.
            if let Some(user_data) = io.op.get() {
                self.cancel(user_data);
            }
        } else if io.op.get().is_none() {
            self.arm_accept(listener);
        }
    }

    fn take_in(&self, shard: &Rc<Shard>, listener: &ListenerCore, descriptor: OwnedFd) {
        if listener.closed.get() || set_options(&descriptor).is_err() {
            return;
        }
        // A peer that has reset already has no address: not worth a word.
        let Ok((peer, local)) = addresses(&descriptor) else {
            return;
        };
        bump(&shard.counters.accepts, 1);
        listener.push(Sock::new(
            shard,
            Io::Ring(RingSock::new(descriptor)),
            peer,
            local,
        ));
    }

    fn pause(&self, shard: &Rc<Shard>, listener: &Rc<ListenerCore>) {
        let ListenerIo::Ring(io) = &listener.io else {
            return;
        };
        bump(&shard.counters.accept_pauses, 1);
        tracing::warn!(
            shard = shard.index,
            address = %listener.local,
            pause_ms = PAUSE.as_millis() as u64,
            "accept paused: out of file descriptors or memory"
        );
        io.held.set(true);
        let listener = listener.clone();
        let until = shard.now().after(PAUSE);
        let home = shard.clone();
        spawn_on(shard, Kind::System, async move {
            sleep_until(until).await;
            if let ListenerIo::Ring(io) = &listener.io {
                io.held.set(false);
            }
            if let Some(ring) = home.driver.ring()
                && !home.ending.get()
            {
                ring.arm_accept(&listener);
            }
        })
        .detach();
    }
}
