//! The shard's own io_uring: operations, each with a generation, and what their
//! completions do.
//!
//! An operation owns everything the kernel may touch for it (addresses, slices,
//! the socket's descriptor) from before it is pushed until its last completion; the
//! future that asked may go at any time. User data = generation << 32 | index, so a
//! completion that names a slot used anew is told apart and counted.

pub(crate) mod buffers;
mod connect;
pub(crate) mod host;
pub(crate) mod listen;
pub(crate) mod sock;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use slab::Slab;

use self::buffers::Group;
use self::connect::Dial;
use crate::config::EngineConfig;
use crate::error::End;
use crate::listener::ListenerCore;
use crate::mailbox::Mailbox;
use crate::shard::Shard;
use crate::sock::{Io, Sock};
use crate::stats::bump;
use crate::time::Time;

/// Entries of the submission queue. When it is full it is submitted on the spot.
const SUBMISSION_ENTRIES: u32 = 512;
/// Entries of the completion queue; beyond it the kernel keeps completions back.
const COMPLETION_ENTRIES: u32 = 4096;
/// Completions handled in one go.
const REAP_MAX: usize = 256;

const GROUP_SMALL: u16 = 0;
const GROUP_LARGE: u16 = 1;
/// User data of operations whose completion nobody waits for (cancellations).
const NOBODY: u64 = 0;
/// `IORING_RECVSEND_POLL_FIRST`: wait for readiness before the first try.
const POLL_FIRST: u16 = 1;

/// What an operation in flight owns.
enum Op {
    /// The standing tick under traffic.
    Tick(Box<Timespec>),
    /// The nearest timer, armed while glommio is parked.
    Alarm(Box<Timespec>),
    /// A read of the mailbox's bell.
    Bell(Box<u64>),
    Accept(Rc<ListenerCore>),
    Connect(Rc<Dial>),
    Recv(Rc<Sock>),
    Send(Rc<Sock>, Box<SendState>),
}

/// The slices of one send and the headers that point to them.
struct SendState {
    batch: Vec<Bytes>,
    slices: Vec<libc::iovec>,
    header: libc::msghdr,
}

struct OpSlot {
    generation: u32,
    op: Op,
}

/// One shard's ring. Fields are dropped in this order: the ring before the memory
/// that it knows of.
pub(crate) struct RingDriver {
    ring: RefCell<IoUring>,
    ops: RefCell<Slab<OpSlot>>,
    generation: Cell<u32>,
    /// Entries that found the submission queue full.
    backlog: RefCell<VecDeque<Entry>>,
    small: Group,
    large: Group,
    bell: RawFd,
    tick: Duration,
    tick_armed: Cell<bool>,
    tick_fired: Cell<bool>,
    /// Something moved on a socket since the last tick.
    traffic: Cell<bool>,
    alarm: Cell<Option<(Time, u64)>>,
    /// The shard ends: the bell is not armed again.
    stopping: Cell<bool>,
    reaped: RefCell<Vec<(u64, i32, u32)>>,
}

impl RingDriver {
    /// Makes the ring on the thread that will use it, for it alone.
    pub(crate) fn new(config: &EngineConfig, mailbox: &Arc<Mailbox>) -> io::Result<RingDriver> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETION_ENTRIES)
            .dontfork()
            .build(SUBMISSION_ENTRIES)?;
        let buffers = &config.buffers;
        let small = Group::register(
            &ring,
            GROUP_SMALL,
            buffers.small_count,
            buffers.small_bytes,
            mailbox,
        )?;
        let large = Group::register(
            &ring,
            GROUP_LARGE,
            buffers.large_count,
            buffers.large_bytes,
            mailbox,
        )?;
        let bell = mailbox
            .bells()
            .ok_or_else(|| io::Error::other("mailbox without bells"))?
            .ring
            .as_raw_fd();
        let driver = RingDriver {
            ring: RefCell::new(ring),
            ops: RefCell::new(Slab::new()),
            generation: Cell::new(1),
            backlog: RefCell::new(VecDeque::new()),
            small,
            large,
            bell,
            tick: Duration::from_millis(config.tick_ms),
            tick_armed: Cell::new(false),
            tick_fired: Cell::new(false),
            traffic: Cell::new(false),
            alarm: Cell::new(None),
            stopping: Cell::new(false),
            reaped: RefCell::new(Vec::with_capacity(REAP_MAX)),
        };
        driver.arm_bell();
        Ok(driver)
    }

    pub(crate) fn group(&self, group: u16) -> &Group {
        if group == GROUP_SMALL {
            &self.small
        } else {
            &self.large
        }
    }

    /// (small, large) buffers held by code of ours.
    pub(crate) fn buffers_out(&self) -> (u64, u64) {
        (u64::from(self.small.out()), u64::from(self.large.out()))
    }

    /// Operations in flight.
    pub(crate) fn operations(&self) -> usize {
        self.ops.borrow().len()
    }

    // ---- submitting ----

    /// Keeps `op` until its last completion and pushes what `entry` makes of it.
    /// `entry` may point into boxes and reference-counted values inside the op, not
    /// at the op itself, which moves when the slab grows.
    fn start(&self, op: Op, entry: impl FnOnce(&mut Op) -> Entry) -> u64 {
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1).max(1));
        let (user_data, entry) = {
            let mut ops = self.ops.borrow_mut();
            let vacant = ops.vacant_entry();
            let user_data = u64::from(generation) << 32 | vacant.key() as u64;
            let slot = vacant.insert(OpSlot { generation, op });
            (user_data, entry(&mut slot.op).user_data(user_data))
        };
        self.push(entry);
        user_data
    }

    fn push(&self, entry: Entry) {
        let mut backlog = self.backlog.borrow_mut();
        if backlog.is_empty() {
            let mut ring = self.ring.borrow_mut();
            for _ in 0..2 {
                // SAFETY: what the entry points to is owned by its operation in
                // `ops` (or is nothing, for cancellations) and stays there until
                // its last completion has been reaped.
                if unsafe { ring.submission().push(&entry) }.is_ok() {
                    return;
                }
                // Full: hand it over now. An error shows again at the next enter.
                let _ = ring.submit();
            }
        }
        backlog.push_back(entry);
    }

    fn push_backlog(&self) {
        let mut backlog = self.backlog.borrow_mut();
        let mut ring = self.ring.borrow_mut();
        while let Some(entry) = backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { ring.submission().push(entry) }.is_err() {
                return;
            }
            backlog.pop_front();
        }
    }

    /// Hands over what is pushed and lets finished work post, without waiting.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.push_backlog();
        let mut ring = self.ring.borrow_mut();
        let submission = ring.submission();
        if submission.is_empty() && !submission.taskrun() && !submission.cq_overflow() {
            return Ok(());
        }
        drop(submission);
        forgive(ring.submit())
    }

    /// Hands over what is pushed and waits for a completion, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.push_backlog();
        let mut ring = self.ring.borrow_mut();
        if !ring.completion().is_empty() || !self.backlog.borrow().is_empty() {
            return forgive(ring.submit());
        }
        match timeout {
            None => forgive(ring.submit_and_wait(1)),
            Some(timeout) => {
                let timeout = timespec(timeout);
                forgive(
                    ring.submitter()
                        .submit_with_args(1, &SubmitArgs::new().timespec(&timeout)),
                )
            }
        }
    }

    // ---- completions ----

    /// Handles what has completed; whether anything had.
    pub(crate) fn reap(&self, shard: &Rc<Shard>) -> bool {
        let mut any = false;
        loop {
            let mut reaped = self.reaped.take();
            {
                let mut ring = self.ring.borrow_mut();
                for entry in ring.completion().take(REAP_MAX) {
                    reaped.push((entry.user_data(), entry.result(), entry.flags()));
                }
            }
            if reaped.is_empty() {
                *self.reaped.borrow_mut() = reaped;
                return any;
            }
            any = true;
            for (user_data, result, flags) in reaped.drain(..) {
                self.complete(shard, user_data, result, flags);
            }
            *self.reaped.borrow_mut() = reaped;
        }
    }

    fn complete(&self, shard: &Rc<Shard>, user_data: u64, result: i32, flags: u32) {
        if user_data == NOBODY {
            return;
        }
        let (index, generation) = (user_data as u32 as usize, (user_data >> 32) as u32);
        let op = {
            let mut ops = self.ops.borrow_mut();
            match ops.get(index) {
                Some(slot) if slot.generation == generation => {
                    if cqueue::more(flags) {
                        // Only accept is multishot.
                        match &slot.op {
                            Op::Accept(listener) => Op::Accept(listener.clone()),
                            _ => return,
                        }
                    } else {
                        ops.remove(index).op
                    }
                }
                _ => {
                    bump(&shard.counters.stale_completions, 1);
                    return;
                }
            }
        };
        match op {
            Op::Tick(_) => {
                self.tick_armed.set(false);
                self.tick_fired.set(true);
            }
            Op::Alarm(_) => {
                if self
                    .alarm
                    .get()
                    .is_some_and(|(_, armed)| armed == user_data)
                {
                    self.alarm.set(None);
                }
            }
            Op::Bell(_) => {
                if !self.stopping.get() {
                    self.arm_bell();
                }
            }
            Op::Accept(listener) => {
                self.traffic.set(true);
                self.accepted(shard, &listener, result, cqueue::more(flags));
            }
            Op::Connect(dial) => {
                self.traffic.set(true);
                dial.done(result);
            }
            Op::Recv(sock) => {
                self.traffic.set(true);
                self.recv_done(shard, &sock, result, flags);
            }
            Op::Send(sock, state) => {
                self.traffic.set(true);
                match usize::try_from(result) {
                    Ok(count) => sock.sent(shard, state.batch, count),
                    Err(_) if -result == libc::EINTR || -result == libc::EAGAIN => {
                        sock.sent(shard, state.batch, 0);
                    }
                    Err(_) if -result == libc::ECANCELED => sock.fail_tx(End::Reset),
                    Err(_) => sock.fail_tx(End::from_errno(-result)),
                }
            }
        }
    }

    // ---- receiving ----

    /// Starts a single-shot receive into a buffer that the kernel picks when bytes
    /// are there, so that an idle connection holds none.
    pub(crate) fn arm_recv(&self, _shard: &Shard, sock: &Rc<Sock>) {
        let Io::Ring(io) = &sock.io else { return };
        let group = if io.is_bulk() {
            GROUP_LARGE
        } else {
            GROUP_SMALL
        };
        let fd = Fd(io.fd());
        let ioprio = if io.poll_first.get() { POLL_FIRST } else { 0 };
        let user_data = self.start(Op::Recv(sock.clone()), |_| {
            opcode::Recv::new(fd, ptr::null_mut(), 0)
                .buf_group(group)
                .ioprio(ioprio)
                .build()
                .flags(Flags::BUFFER_SELECT)
        });
        io.recv_op.set(Some(user_data));
    }

    fn recv_done(&self, shard: &Rc<Shard>, sock: &Rc<Sock>, result: i32, flags: u32) {
        let Io::Ring(io) = &sock.io else { return };
        io.recv_op.set(None);
        // Which group it was armed for: the mode only changes below.
        let group = self.group(if io.is_bulk() {
            GROUP_LARGE
        } else {
            GROUP_SMALL
        });
        io.poll_first.set(!cqueue::sock_nonempty(flags));
        let length = usize::try_from(result).unwrap_or(0);
        let bytes = cqueue::buffer_select(flags).map(|id| group.take(shard, id, length));
        match result {
            1.. => {
                io.learn(length, self.small.size());
                match bytes {
                    Some(bytes) => sock.received(shard, bytes),
                    None => sock.end_rx(End::Error(io::ErrorKind::Other)),
                }
            }
            0 => sock.received(shard, Bytes::new()),
            _ => match -result {
                libc::ENOBUFS => {
                    bump(&shard.counters.enobufs, 1);
                    group.starve(sock.clone());
                }
                libc::EINTR | libc::EAGAIN => self.arm_recv(shard, sock),
                libc::ECANCELED => sock.rx.armed.set(false),
                errno => sock.end_rx(End::from_errno(errno)),
            },
        }
    }

    /// Arms the receives of connections that found no buffer, now that some are back.
    pub(crate) fn relieve(&self, shard: &Shard) {
        for group in [&self.small, &self.large] {
            for sock in group.relieve() {
                self.arm_recv(shard, &sock);
            }
        }
    }

    /// Takes an armed receive back; when its completion has come the socket closes.
    pub(crate) fn cancel_recv(&self, sock: &Rc<Sock>) {
        let Io::Ring(io) = &sock.io else { return };
        if let Some(user_data) = io.recv_op.get() {
            self.cancel(user_data);
        }
        let _ = self.small.forget(sock) || self.large.forget(sock);
    }

    pub(crate) fn cancel(&self, user_data: u64) {
        self.push(
            opcode::AsyncCancel::new(user_data)
                .build()
                .user_data(NOBODY),
        );
    }

    // ---- sending ----

    /// Starts one send of all slices of `batch`.
    pub(crate) fn send(&self, sock: &Rc<Sock>, batch: Vec<Bytes>) {
        let Io::Ring(io) = &sock.io else { return };
        let fd = Fd(io.fd());
        // SAFETY: all-zero is a valid msghdr: no name, no slices, no control data.
        let header: libc::msghdr = unsafe { std::mem::zeroed() };
        let state = Box::new(SendState {
            batch,
            slices: Vec::new(),
            header,
        });
        self.start(Op::Send(sock.clone(), state), |op| {
            let Op::Send(_, state) = op else {
                unreachable!("made above")
            };
            if let [only] = &state.batch[..] {
                return opcode::Send::new(fd, only.as_ptr(), only.len() as u32)
                    .flags(libc::MSG_NOSIGNAL)
                    .build();
            }
            state.slices = state
                .batch
                .iter()
                .map(|piece| libc::iovec {
                    iov_base: piece.as_ptr().cast_mut().cast(),
                    iov_len: piece.len(),
                })
                .collect();
            state.header.msg_iov = state.slices.as_mut_ptr();
            state.header.msg_iovlen = state.slices.len();
            opcode::SendMsg::new(fd, &raw const state.header)
                .flags(libc::MSG_NOSIGNAL as u32)
                .build()
        });
    }

    // ---- the shard's own operations ----

    fn arm_bell(&self) {
        let fd = Fd(self.bell);
        self.start(Op::Bell(Box::new(0)), |op| {
            let Op::Bell(buffer) = op else {
                unreachable!("made above")
            };
            let buffer: *mut u64 = &raw mut **buffer;
            opcode::Read::new(fd, buffer.cast(), 8).build()
        });
    }

    /// Keeps the standing tick going.
    pub(crate) fn arm_tick(&self) {
        if self.tick_armed.replace(true) {
            return;
        }
        self.start(Op::Tick(Box::new(timespec(self.tick))), |op| {
            let Op::Tick(at) = op else {
                unreachable!("made above")
            };
            opcode::Timeout::new(&raw const **at).build()
        });
    }

    /// Sees that the ring wakes when the nearest timer is due.
    pub(crate) fn arm_alarm(&self, at: Time, now: Time) {
        if let Some((armed_at, user_data)) = self.alarm.get() {
            if armed_at <= at {
                return;
            }
            self.cancel(user_data);
        }
        let user_data = self.start(Op::Alarm(Box::new(timespec(at.since(now)))), |op| {
            let Op::Alarm(at) = op else {
                unreachable!("made above")
            };
            opcode::Timeout::new(&raw const **at).build()
        });
        self.alarm.set(Some((at, user_data)));
    }

    pub(crate) fn tick(&self) -> Duration {
        self.tick
    }

    /// Whether a tick has come since it was last asked.
    pub(crate) fn take_tick(&self) -> bool {
        self.tick_fired.take()
    }

    /// Whether there was traffic since it was last asked.
    pub(crate) fn take_traffic(&self) -> bool {
        self.traffic.take()
    }

    /// From now on completions ring `fd`: registered anew at each park, which also
    /// frees the one nested signal that the kernel gives (see `Bells`).
    pub(crate) fn watch(&self, fd: RawFd) -> io::Result<()> {
        self.ring.borrow().submitter().register_eventfd(fd)
    }

    pub(crate) fn unwatch(&self) -> io::Result<()> {
        self.ring.borrow().submitter().unregister_eventfd()
    }

    /// The bell is not armed again when it completes.
    pub(crate) fn stop_bell(&self) {
        self.stopping.set(true);
    }

    /// Cancels every operation. Their completions are still to be reaped.
    pub(crate) fn cancel_everything(&self) {
        self.push(
            opcode::AsyncCancel2::new(CancelBuilder::any())
                .build()
                .user_data(NOBODY),
        );
    }
}

impl Drop for RingDriver {
    fn drop(&mut self) {
        if self.ops.get_mut().is_empty() {
            return;
        }
        // Operations that did not end: the kernel may still touch what they own, so
        // it stays for ever. Seen only when a shard breaks down.
        tracing::error!(
            count = self.ops.get_mut().len(),
            "operations outlived their shard"
        );
        std::mem::forget(self.ops.take());
        self.small.leak();
        self.large.leak();
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::new()
        .sec(duration.as_secs())
        .nsec(duration.subsec_nanos())
}

/// Errors of an enter that say "again", not "broken".
fn forgive(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::shard::{current, spawn_shards};

    #[test]
    fn a_completion_of_an_operation_that_is_gone_touches_nothing() {
        let (sender, receiver) = mpsc::channel();
        let config = EngineConfig {
            pin: false,
            ..EngineConfig::default()
        };
        let shards = spawn_shards(config, move |_| {
            let sender = sender.clone();
            async move {
                let shard = current();
                let ring = shard.driver.ring().unwrap();
                let before = ring.operations();
                let (index, generation) = {
                    let ops = ring.ops.borrow();
                    let (index, slot) = ops.iter().next().unwrap();
                    (index as u64, u64::from(slot.generation))
                };
                // The right slot of an older life, and a slot that never was.
                ring.complete(&shard, (generation + 77) << 32 | index, 5, 0);
                ring.complete(&shard, 1 << 32 | 0xffff_ffff, -1, u32::MAX);
                // Nobody's completions are not even counted.
                ring.complete(&shard, NOBODY, 0, 0);
                sender
                    .send((
                        before == ring.operations(),
                        shard.counters.stale_completions.get(),
                    ))
                    .unwrap();
            }
        })
        .unwrap();
        shards.join().unwrap();
        assert_eq!(receiver.recv().unwrap(), (true, 2));
    }
}
