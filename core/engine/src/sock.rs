//! One connection's queues and state, common to the ring and the simulation.
//!
//! ```text
//!  Writer::queue ─▶ tx.queue ─(TLS: sealed)─▶ tx.wire ─▶ one send in flight ─▶ peer
//!  Reader::recv ◀─ rx.unread ◀─(TLS: opened)─ rx.raw ◀─ one receive armed  ◀─ peer
//! ```
//! A receive is armed only while somebody waits in `recv` and nothing is there, so
//! not calling `recv` is backpressure: at most one buffer comes in beyond it. Bytes
//! land in `rx.raw`, never in a future, so a dropped `recv` loses nothing.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use crate::error::End;
use crate::ring::sock::RingSock;
use crate::shard::{Driver, Shard, try_current};
use crate::sim::net::SimSock;
use crate::stats::bump;
use crate::tls::Tls;

/// Slices in one vectored send. The kernel takes 1024; beyond some tens nothing is
/// gained, and the array is allocated per send.
pub(crate) const SEND_SLICES_MAX: usize = 64;
/// Bytes in one send: what leaves a queue at once, and what TLS seals ahead.
pub(crate) const SEND_BYTES_MAX: usize = 256 * 1024;
/// Above this many queued bytes a writer is over its high mark.
pub(crate) const HIGH_MARK_BYTES: usize = 256 * 1024;
/// `drained` waits until fewer are left.
pub(crate) const LOW_MARK_BYTES: usize = HIGH_MARK_BYTES / 2;

/// What carries the bytes.
pub(crate) enum Io {
    Ring(RingSock),
    Sim(SimSock),
}

/// The receiving side.
#[derive(Default)]
pub(crate) struct Rx {
    /// Put back by the reader; comes first, never goes through TLS.
    pub(crate) unread: RefCell<VecDeque<Bytes>>,
    /// As received.
    pub(crate) raw: RefCell<VecDeque<Bytes>>,
    pub(crate) end: RefCell<Option<End>>,
    pub(crate) armed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// How far the sending side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TxState {
    Open,
    /// `finish` was called: what is queued goes out, then the end of stream.
    Finishing,
    /// The end of stream was sent.
    Finished,
}

/// The sending side.
pub(crate) struct Tx {
    queue: RefCell<VecDeque<Bytes>>,
    queue_bytes: Cell<usize>,
    wire: RefCell<VecDeque<Bytes>>,
    wire_bytes: Cell<usize>,
    in_flight_bytes: Cell<usize>,
    in_flight: Cell<bool>,
    state: Cell<TxState>,
    error: RefCell<Option<End>>,
    pub(crate) dirty: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

/// One connection.
pub(crate) struct Sock {
    pub(crate) io: Io,
    pub(crate) rx: Rx,
    pub(crate) tx: Tx,
    pub(crate) tls: OnceCell<RefCell<Box<Tls>>>,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    counted: Rc<Shard>,
}

impl Sock {
    pub(crate) fn new(shard: &Rc<Shard>, io: Io, peer: SocketAddr, local: SocketAddr) -> Rc<Sock> {
        bump(&shard.counters.connections, 1);
        Rc::new(Sock {
            io,
            rx: Rx::default(),
            tx: Tx {
                queue: RefCell::new(VecDeque::new()),
                queue_bytes: Cell::new(0),
                wire: RefCell::new(VecDeque::new()),
                wire_bytes: Cell::new(0),
                in_flight_bytes: Cell::new(0),
                in_flight: Cell::new(false),
                state: Cell::new(TxState::Open),
                error: RefCell::new(None),
                dirty: Cell::new(false),
                wakers: RefCell::new(Vec::new()),
            },
            tls: OnceCell::new(),
            peer,
            local,
            counted: shard.clone(),
        })
    }

    fn tls(&self) -> Option<&RefCell<Box<Tls>>> {
        self.tls.get()
    }

    // ---- receiving ----

    /// The next bytes, or how the stream ended.
    pub(crate) fn poll_recv(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        if let Some(bytes) = self.rx.unread.borrow_mut().pop_front() {
            return Poll::Ready(Ok(bytes));
        }
        loop {
            if let Some(tls) = self.tls() {
                let opened = tls.borrow_mut().open();
                if tls.borrow().wants_write() {
                    self.mark_dirty();
                }
                match opened {
                    Ok(Some(bytes)) => return Poll::Ready(Ok(bytes)),
                    Ok(None) => {}
                    Err(end) => return Poll::Ready(Err(end)),
                }
            }
            let raw = self.rx.raw.borrow_mut().pop_front();
            match (raw, self.tls()) {
                (Some(bytes), None) => return Poll::Ready(Ok(bytes)),
                (Some(bytes), Some(tls)) => tls.borrow_mut().feed(bytes),
                (None, tls) => match self.poll_raw_end(cx) {
                    Poll::Ready(End::Eof) if tls.is_some() => {
                        let text = "the peer closed without close_notify".to_owned();
                        return Poll::Ready(Err(End::Tls(text)));
                    }
                    Poll::Ready(end) => return Poll::Ready(Err(end)),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// `rx.raw` is empty: the end if it has come, else arms a receive.
    pub(crate) fn poll_raw_end(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(end) = self.rx.end.borrow().clone() {
            return Poll::Ready(end);
        }
        *self.rx.waker.borrow_mut() = Some(cx.waker().clone());
        self.arm_recv();
        Poll::Pending
    }

    fn arm_recv(self: &Rc<Self>) {
        if self.rx.armed.get() {
            return;
        }
        let Some(shard) = try_current() else { return };
        self.rx.armed.set(true);
        match &shard.driver {
            Driver::Ring(ring) => ring.arm_recv(&shard, self),
            Driver::Sim(sim) => sim.arm_recv(self),
        }
    }

    /// The driver brings bytes. An empty piece is the end of the stream.
    pub(crate) fn received(&self, shard: &Shard, bytes: Bytes) {
        self.rx.armed.set(false);
        if bytes.is_empty() {
            self.end_rx(End::Eof);
            return;
        }
        bump(&shard.counters.recvs, 1);
        bump(&shard.counters.received_bytes, bytes.len() as u64);
        self.rx.raw.borrow_mut().push_back(bytes);
        self.wake_reader();
    }

    /// The driver says that nothing more comes. The first end stands.
    pub(crate) fn end_rx(&self, end: End) {
        self.rx.armed.set(false);
        self.rx.end.borrow_mut().get_or_insert(end);
        self.wake_reader();
    }

    /// Wakes who waits in `recv`, to look again.
    pub(crate) fn wake_reader(&self) {
        let waker = self.rx.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    // ---- sending ----

    /// Bytes that the kernel has not taken yet.
    pub(crate) fn queued(&self) -> usize {
        self.tx.queue_bytes.get() + self.tx.wire_bytes.get() + self.tx.in_flight_bytes.get()
    }

    pub(crate) fn tx_error(&self) -> Option<End> {
        self.tx.error.borrow().clone()
    }

    pub(crate) fn tx_state(&self) -> TxState {
        self.tx.state.get()
    }

    pub(crate) fn queue(self: &Rc<Self>, bytes: Bytes) {
        if bytes.is_empty() || self.tx.state.get() != TxState::Open {
            return;
        }
        if self.tx.error.borrow().is_some() {
            return;
        }
        self.tx
            .queue_bytes
            .set(self.tx.queue_bytes.get() + bytes.len());
        self.tx.queue.borrow_mut().push_back(bytes);
        self.mark_dirty();
    }

    pub(crate) fn mark_dirty(self: &Rc<Self>) {
        if let Some(shard) = try_current() {
            shard.mark_dirty(self);
        }
    }

    /// Everything queued so far leaves as it is, even if TLS is put on now.
    pub(crate) fn seal_off_clear_text(&self) {
        let mut queue = self.tx.queue.borrow_mut();
        self.tx.wire.borrow_mut().append(&mut queue);
        self.tx
            .wire_bytes
            .set(self.tx.wire_bytes.get() + self.tx.queue_bytes.take());
    }

    pub(crate) fn finish(self: &Rc<Self>) {
        if self.tx.state.get() == TxState::Open {
            self.tx.state.set(TxState::Finishing);
            self.mark_dirty();
        }
    }

    /// Starts one send of what is queued, unless one is in flight; sends the end of
    /// stream when all is out and `finish` was called.
    pub(crate) fn start_send(self: &Rc<Self>, shard: &Shard) {
        if self.tx.in_flight.get() || self.tx.error.borrow().is_some() {
            return;
        }
        let batch = self.next_batch();
        if !batch.is_empty() {
            self.tx.in_flight.set(true);
            match &shard.driver {
                Driver::Ring(ring) => ring.send(self, batch),
                Driver::Sim(sim) => sim.send(self, batch),
            }
        } else if self.tx.state.get() == TxState::Finishing && self.queued() == 0 {
            self.tx.state.set(TxState::Finished);
            match &self.io {
                Io::Ring(ring) => ring.shutdown_write(),
                Io::Sim(_) => {
                    if let Some(sim) = shard.driver.sim() {
                        sim.shutdown_write(self);
                    }
                }
            }
            self.wake_writers();
        }
    }

    /// Takes up to [`SEND_SLICES_MAX`] slices of about [`SEND_BYTES_MAX`] bytes.
    fn next_batch(&self) -> Vec<Bytes> {
        let mut wire = self.tx.wire.borrow_mut();
        let mut queue = self.tx.queue.borrow_mut();
        if let Some(tls) = self.tls() {
            let before = wire_sum(&wire, self.tx.wire_bytes.get());
            let finishing = self.tx.state.get() != TxState::Open;
            let (taken, sealed) = tls
                .borrow_mut()
                .seal(&mut queue, &mut wire, before, finishing);
            self.tx.queue_bytes.set(self.tx.queue_bytes.get() - taken);
            self.tx.wire_bytes.set(before + sealed);
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut take_from = |from: &mut VecDeque<Bytes>, sum: &Cell<usize>| {
            while batch.len() < SEND_SLICES_MAX && bytes < SEND_BYTES_MAX {
                let Some(piece) = from.pop_front() else { break };
                sum.set(sum.get() - piece.len());
                bytes += piece.len();
                batch.push(piece);
            }
        };
        take_from(&mut wire, &self.tx.wire_bytes);
        if self.tls().is_none() {
            take_from(&mut queue, &self.tx.queue_bytes);
        }
        self.tx.in_flight_bytes.set(bytes);
        batch
    }

    /// The driver has sent `count` bytes of `batch`; the rest goes out next.
    pub(crate) fn sent(self: &Rc<Self>, shard: &Shard, batch: Vec<Bytes>, count: usize) {
        bump(&shard.counters.sends, 1);
        bump(&shard.counters.sent_bytes, count as u64);
        self.tx.in_flight.set(false);
        self.tx.in_flight_bytes.set(0);
        if self.tx.error.borrow().is_none() {
            let mut left = count;
            let mut rest = Vec::new();
            for mut piece in batch {
                if left >= piece.len() {
                    left -= piece.len();
                } else {
                    piece.advance(left);
                    left = 0;
                    rest.push(piece);
                }
            }
            let mut wire = self.tx.wire.borrow_mut();
            for piece in rest.into_iter().rev() {
                self.tx
                    .wire_bytes
                    .set(self.tx.wire_bytes.get() + piece.len());
                wire.push_front(piece);
            }
        }
        if self.queued() > 0 || self.tx.state.get() == TxState::Finishing {
            shard.mark_dirty(self);
        }
        if self.queued() < LOW_MARK_BYTES {
            self.wake_writers();
        }
    }

    /// The sending side is broken: what is queued is dropped.
    pub(crate) fn fail_tx(&self, end: End) {
        self.tx.in_flight.set(false);
        self.tx.in_flight_bytes.set(0);
        self.tx.error.borrow_mut().get_or_insert(end);
        let queue = self.tx.queue.take();
        let wire = self.tx.wire.take();
        self.tx.queue_bytes.set(0);
        self.tx.wire_bytes.set(0);
        drop((queue, wire));
        self.wake_writers();
    }

    fn wake_writers(&self) {
        for waker in self.tx.wakers.take() {
            waker.wake();
        }
    }

    /// Ready once fewer than `below` bytes are queued, or the side is broken.
    pub(crate) fn poll_queued_below(
        &self,
        cx: &mut Context<'_>,
        below: usize,
    ) -> Poll<Result<(), End>> {
        if let Some(end) = self.tx_error() {
            return Poll::Ready(Err(end));
        }
        if self.queued() < below && (below > 1 || self.tls_idle()) {
            return Poll::Ready(Ok(()));
        }
        let mut wakers = self.tx.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ready once the end of stream was sent, or the side is broken.
    pub(crate) fn poll_finished(&self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if let Some(end) = self.tx_error() {
            return Poll::Ready(Err(end));
        }
        if self.tx.state.get() == TxState::Finished {
            return Poll::Ready(Ok(()));
        }
        self.tx.wakers.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }

    fn tls_idle(&self) -> bool {
        self.tls().is_none_or(|tls| !tls.borrow().wants_write())
    }

    // ---- ending ----

    /// Resets the connection now: both directions end, queued bytes are dropped.
    pub(crate) fn abort(self: &Rc<Self>) {
        self.rx.unread.borrow_mut().clear();
        self.rx.raw.borrow_mut().clear();
        self.end_rx(End::Reset);
        self.fail_tx(End::Reset);
        match &self.io {
            Io::Ring(ring) => ring.reset(),
            Io::Sim(_) => {
                if let Some(shard) = try_current()
                    && let Some(sim) = shard.driver.sim()
                {
                    sim.reset(self);
                }
            }
        }
    }

    /// Nobody will read or write any more: takes back an armed receive, so that the
    /// last reference goes and the socket is closed.
    pub(crate) fn release(self: &Rc<Self>, shard: &Shard) {
        match &shard.driver {
            Driver::Ring(ring) => ring.cancel_recv(self),
            Driver::Sim(sim) => sim.close(self),
        }
    }
}

fn wire_sum(wire: &VecDeque<Bytes>, sum: usize) -> usize {
    debug_assert_eq!(wire.iter().map(Bytes::len).sum::<usize>(), sum);
    sum
}

impl Drop for Sock {
    fn drop(&mut self) {
        let open = &self.counted.counters.connections;
        open.set(open.get().saturating_sub(1));
    }
}
