//! Dialling on the ring.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use io_uring::opcode;
use io_uring::types::Fd;
use socket2::{Domain, SockAddr, Socket, Type};

use super::sock::{RingSock, addresses, set_options};
use super::{Op, RingDriver};
use crate::error::ConnectError;
use crate::shard::Shard;
use crate::sock::{Io, Sock};
use crate::stats::bump;

/// One dial, shared by its operation and the future that waits.
pub(super) struct Dial {
    /// Read by the kernel; boxed with this struct, which does not move.
    address: SockAddr,
    socket: RefCell<Option<OwnedFd>>,
    result: Cell<Option<i32>>,
    waker: RefCell<Option<Waker>>,
}

impl Dial {
    pub(super) fn done(&self, result: i32) {
        self.result.set(Some(result));
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Takes the dial back if nobody waits for it any more.
struct CancelOnDrop<'a> {
    ring: &'a RingDriver,
    dial: Rc<Dial>,
    user_data: u64,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.dial.result.get().is_none() {
            self.ring.cancel(self.user_data);
        }
    }
}

impl RingDriver {
    pub(crate) async fn connect(
        &self,
        shard: &Rc<Shard>,
        addr: SocketAddr,
    ) -> Result<Rc<Sock>, ConnectError> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)
            .map_err(ConnectError::Other)?;
        let descriptor = OwnedFd::from(socket);
        set_options(&descriptor).map_err(ConnectError::Other)?;
        let fd = Fd(descriptor.as_raw_fd());
        let dial = Rc::new(Dial {
            address: SockAddr::from(addr),
            socket: RefCell::new(Some(descriptor)),
            result: Cell::new(None),
            waker: RefCell::new(None),
        });
        let user_data = self.start(Op::Connect(dial.clone()), |_| {
            opcode::Connect::new(fd, dial.address.as_ptr().cast(), dial.address.len()).build()
        });
        let waiting = CancelOnDrop {
            ring: self,
            dial: dial.clone(),
            user_data,
        };
        let result = poll_fn(|cx| match dial.result.get() {
            Some(result) => Poll::Ready(result),
            None => {
                *dial.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
        drop(waiting);
        if result < 0 {
            return Err(ConnectError::from_errno(-result));
        }
        let descriptor = dial.socket.borrow_mut().take();
        let descriptor = descriptor.ok_or(ConnectError::Refused)?;
        let (peer, local) = addresses(&descriptor).map_err(ConnectError::Other)?;
        bump(&shard.counters.connects, 1);
        Ok(Sock::new(
            shard,
            Io::Ring(RingSock::new(descriptor)),
            peer,
            local,
        ))
    }
}
