//! The simulated network: listeners, connections as two ends, pieces under way.
//!
//! ```text
//!  end A: tx ─ send ─▶ [ under way: latency, stalls ] ─▶ inbound ─ receive ─▶ end B: rx
//!              └──────── at most window_bytes until B has received ────────┘
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Buf, Bytes};

use super::SimDriver;
use crate::error::{ConnectError, End};
use crate::listener::{ListenerCore, ListenerIo};
use crate::shard::Shard;
use crate::sock::{Io, Sock};
use crate::stats::bump;
use crate::time::Time;

/// First port given out for port 0 and for dialling ends.
const EPHEMERAL_FIRST: u16 = 32768;
/// Largest receive.
const RECEIVE_BYTES_MAX: usize = 64 * 1024;

/// What is still to come.
enum Event {
    /// Bytes reach their end.
    Deliver(Rc<Sock>, Bytes),
    /// The peer's end of stream reaches this end.
    Fin(Rc<Sock>),
    /// A reset reaches this end.
    Reset(Rc<Sock>),
    /// An armed receive may complete.
    Receive(Rc<Sock>),
    /// A send completes.
    Sent(Rc<Sock>, Vec<Bytes>, usize),
    /// A dial reaches its listener.
    Arrive(Weak<ListenerCore>, Rc<Sock>),
}

#[derive(Default)]
pub(super) struct Net {
    listeners: RefCell<HashMap<SocketAddr, Weak<ListenerCore>>>,
    events: RefCell<BTreeMap<(Time, u64), Event>>,
    sequence: Cell<u64>,
    port: Cell<u16>,
}

/// One end of a simulated connection.
#[derive(Default)]
pub(crate) struct SimSock {
    peer: RefCell<Weak<Sock>>,
    inbound: RefCell<VecDeque<Bytes>>,
    fin: Cell<bool>,
    /// Bytes sent by this end that the other has not received.
    outstanding: Cell<usize>,
    /// A send waits for the window.
    blocked: RefCell<Option<Vec<Bytes>>>,
    /// When the last thing sent by this end arrives; nothing overtakes it.
    last_arrival: Cell<Option<Time>>,
    closed: Cell<bool>,
    reset: Cell<bool>,
}

fn sim_io(sock: &Sock) -> &SimSock {
    match &sock.io {
        Io::Sim(io) => io,
        Io::Ring(_) => unreachable!("a simulation makes simulated sockets only"),
    }
}

impl SimDriver {
    fn schedule(&self, at: Time, event: Event) {
        let sequence = self.net.sequence.get();
        self.net.sequence.set(sequence + 1);
        self.net.events.borrow_mut().insert((at, sequence), event);
    }

    pub(super) fn next_event(&self) -> Option<Time> {
        self.net
            .events
            .borrow()
            .first_key_value()
            .map(|(key, _)| key.0)
    }

    /// Drops everything under way.
    pub(super) fn clear(&self) {
        while let Some((_, event)) = {
            let mut events = self.net.events.borrow_mut();
            events.pop_first()
        } {
            drop(event);
        }
    }

    fn port(&self) -> u16 {
        let port = self.net.port.get().max(EPHEMERAL_FIRST);
        self.net
            .port
            .set(port.checked_add(1).unwrap_or(EPHEMERAL_FIRST));
        port
    }

    // ---- listening and dialling ----

    pub(crate) fn listen(&self, mut addr: SocketAddr) -> io::Result<Rc<ListenerCore>> {
        if addr.port() == 0 {
            addr.set_port(self.port());
        }
        let mut listeners = self.net.listeners.borrow_mut();
        if listeners
            .get(&addr)
            .is_some_and(|other| other.strong_count() > 0)
        {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        let core = ListenerCore::new(ListenerIo::Sim, addr);
        listeners.insert(addr, Rc::downgrade(&core));
        Ok(core)
    }

    pub(crate) fn close_listener(&self, listener: &Rc<ListenerCore>) {
        self.net.listeners.borrow_mut().remove(&listener.local);
    }

    fn find_listener(&self, addr: SocketAddr) -> Option<Rc<ListenerCore>> {
        let listeners = self.net.listeners.borrow();
        let any = match addr.ip() {
            IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port()),
            IpAddr::V6(_) => SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), addr.port()),
        };
        [addr, any]
            .iter()
            .find_map(|addr| listeners.get(addr)?.upgrade())
    }

    pub(crate) async fn connect(
        &self,
        shard: &Rc<Shard>,
        addr: SocketAddr,
    ) -> Result<Rc<Sock>, ConnectError> {
        let there = self.now() + self.delay();
        let back = there + self.delay();
        let found = self
            .find_listener(addr)
            .filter(|_| !self.chance(self.config.refuse_per_10k));
        let Some(listener) = found else {
            crate::time::sleep_until(back).await;
            return Err(ConnectError::Refused);
        };
        let local = SocketAddr::new(Ipv4Addr::new(10, 255, 0, 1).into(), self.port());
        let near = Sock::new(shard, Io::Sim(SimSock::default()), addr, local);
        let far = Sock::new(shard, Io::Sim(SimSock::default()), local, addr);
        *sim_io(&near).peer.borrow_mut() = Rc::downgrade(&far);
        *sim_io(&far).peer.borrow_mut() = Rc::downgrade(&near);
        // Nothing that the far end sends arrives before the dial is answered.
        sim_io(&far).last_arrival.set(Some(back));
        self.schedule(there, Event::Arrive(Rc::downgrade(&listener), far));
        crate::time::sleep_until(back).await;
        bump(&shard.counters.connects, 1);
        Ok(near)
    }

    // ---- what a connection asks for ----

    pub(crate) fn arm_recv(&self, sock: &Rc<Sock>) {
        let io = sim_io(sock);
        if !io.inbound.borrow().is_empty() || io.fin.get() {
            self.schedule(self.now(), Event::Receive(sock.clone()));
        }
    }

    pub(crate) fn send(&self, sock: &Rc<Sock>, batch: Vec<Bytes>) {
        let io = sim_io(sock);
        let whole: usize = batch.iter().map(Bytes::len).sum();
        let room = self
            .config
            .window_bytes
            .max(1)
            .saturating_sub(io.outstanding.get());
        if room == 0 {
            *io.blocked.borrow_mut() = Some(batch);
            return;
        }
        let count = self.part(whole.min(room), self.config.short_writes);
        io.outstanding.set(io.outstanding.get() + count);
        let peer = io.peer.borrow().upgrade();
        if let Some(peer) = peer {
            let at = self.arrival(io);
            let mut left = count;
            for piece in &batch {
                let part = left.min(piece.len());
                if part == 0 {
                    break;
                }
                left -= part;
                self.schedule(at, Event::Deliver(peer.clone(), piece.slice(..part)));
            }
        } else {
            // Closed and gone: what is sent to it is answered with a reset.
            self.schedule(self.now() + self.delay(), Event::Reset(sock.clone()));
        }
        let done = self.now() + Duration::from_micros(1);
        self.schedule(done, Event::Sent(sock.clone(), batch, count));
    }

    /// When something sent now arrives: after latency, perhaps a stall, and never
    /// before what was sent earlier.
    fn arrival(&self, io: &SimSock) -> Time {
        let mut at = self.now() + self.delay();
        if self.chance(self.config.stall_per_10k) {
            at = at + Duration::from_micros(self.within(&self.config.stall_us));
        }
        if let Some(last) = io.last_arrival.get() {
            at = at.max(last);
        }
        io.last_arrival.set(Some(at));
        at
    }

    pub(crate) fn shutdown_write(&self, sock: &Rc<Sock>) {
        let io = sim_io(sock);
        let peer = io.peer.borrow().upgrade();
        if let Some(peer) = peer {
            let at = self.arrival(io);
            self.schedule(at, Event::Fin(peer));
        }
    }

    /// This end resets: the peer hears of it, in front of all that is under way.
    pub(crate) fn reset(&self, sock: &Rc<Sock>) {
        let io = sim_io(sock);
        io.blocked.take();
        if io.reset.replace(true) {
            return;
        }
        let peer = io.peer.borrow().upgrade();
        if let Some(peer) = peer {
            let at = self.now() + self.delay();
            self.schedule(at, Event::Reset(peer));
        }
    }

    /// This end is closed: what still comes for it is answered with a reset, and so
    /// is what came and was never read.
    pub(crate) fn close(&self, sock: &Rc<Sock>) {
        let io = sim_io(sock);
        if io.closed.replace(true) {
            return;
        }
        if !io.inbound.borrow().is_empty() {
            self.reset(sock);
        } else if !io.reset.get() && sock.tx_state() != crate::sock::TxState::Finished {
            self.shutdown_write(sock);
        }
    }

    // ---- what happens ----

    /// Lets the earliest event happen.
    pub(super) fn happen(&self, shard: &Rc<Shard>) {
        let first = self.net.events.borrow_mut().pop_first();
        let Some((_, event)) = first else { return };
        match event {
            Event::Arrive(listener, sock) => match listener.upgrade() {
                Some(listener) if !listener.closed.get() => {
                    bump(&shard.counters.accepts, 1);
                    listener.push(sock);
                }
                _ => self.reset(&sock),
            },
            Event::Deliver(sock, bytes) => {
                let io = sim_io(&sock);
                if io.reset.get() {
                    return;
                }
                if io.closed.get() {
                    self.reset(&sock);
                } else if self.chance(self.config.reset_per_10k) {
                    self.reset(&sock);
                    self.broken(&sock);
                } else {
                    io.inbound.borrow_mut().push_back(bytes);
                    self.receive(shard, &sock);
                }
            }
            Event::Fin(sock) => {
                sim_io(&sock).fin.set(true);
                self.receive(shard, &sock);
            }
            Event::Reset(sock) => {
                sim_io(&sock).reset.set(true);
                self.broken(&sock);
            }
            Event::Receive(sock) => self.receive(shard, &sock),
            Event::Sent(sock, batch, count) => {
                if sim_io(&sock).reset.get() {
                    drop(batch);
                    sock.fail_tx(End::Reset);
                } else {
                    sock.sent(shard, batch, count);
                }
            }
        }
    }

    /// This end has learnt that the connection is gone.
    fn broken(&self, sock: &Rc<Sock>) {
        let io = sim_io(sock);
        let blocked = io.blocked.take();
        let inbound = io.inbound.take();
        drop((blocked, inbound));
        sock.end_rx(End::Reset);
        sock.fail_tx(End::Reset);
    }

    /// Completes an armed receive if something is there.
    fn receive(&self, shard: &Rc<Shard>, sock: &Rc<Sock>) {
        if !sock.rx.armed.get() {
            return;
        }
        let io = sim_io(sock);
        if io.reset.get() {
            self.broken(sock);
            return;
        }
        let there: usize = io.inbound.borrow().iter().map(Bytes::len).sum();
        if there == 0 {
            if io.fin.get() {
                sock.received(shard, Bytes::new());
            }
            return;
        }
        let count = self.part(there.min(RECEIVE_BYTES_MAX), self.config.partial_reads);
        let bytes = take(&mut io.inbound.borrow_mut(), count);
        let peer = io.peer.borrow().upgrade();
        if let Some(peer) = peer {
            let far = sim_io(&peer);
            far.outstanding
                .set(far.outstanding.get().saturating_sub(count));
            let blocked = far.blocked.take();
            if let Some(batch) = blocked {
                self.send(&peer, batch);
            }
        }
        sock.received(shard, bytes);
    }
}

/// Takes `count` bytes off the front, as one piece.
fn take(inbound: &mut VecDeque<Bytes>, count: usize) -> Bytes {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        let Some(front) = inbound.front_mut() else {
            break;
        };
        let part = (count - taken.len()).min(front.len());
        taken.extend_from_slice(front.get(..part).unwrap_or_default());
        front.advance(part);
        if front.is_empty() {
            inbound.pop_front();
        }
    }
    Bytes::from(taken)
}
