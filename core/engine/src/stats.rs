//! Plain counters of one shard, for metrics.

use std::cell::Cell;

use crate::shard::current;

/// A snapshot of one shard's counters. Gauges say how many there are now, counters
/// how many there were since the shard began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Gauge: open connections, lingering ones included.
    pub connections: u64,
    /// Gauge: small read buffers held by code of ours.
    pub buffers_out_small: u64,
    /// Gauge: large read buffers held by code of ours.
    pub buffers_out_large: u64,
    /// Counter: receives that found no free buffer and had to wait.
    pub enobufs: u64,
    /// Counter: receives that were copied out at once because buffers ran low.
    pub pressure_copies: u64,
    /// Gauge: armed timers.
    pub timers: u64,
    /// Gauge: live tasks, the engine's own included.
    pub tasks: u64,
    /// Counter: tasks and jobs that ended by a panic.
    pub panics: u64,
    /// Counter: vectored sends completed.
    pub sends: u64,
    /// Counter: bytes the kernel took.
    pub sent_bytes: u64,
    /// Counter: receives that brought bytes.
    pub recvs: u64,
    /// Counter: bytes received.
    pub received_bytes: u64,
    /// Counter: connections accepted.
    pub accepts: u64,
    /// Counter: pauses of accepting because file descriptors or memory ran out.
    pub accept_pauses: u64,
    /// Counter: connections dialled successfully.
    pub connects: u64,
    /// Gauge: kernel operations in flight.
    pub operations: u64,
    /// Counter: completions that named an operation no longer known. Not zero is a bug.
    pub stale_completions: u64,
    /// Counter: times the shard went to sleep with nothing to do.
    pub parks: u64,
    /// Counter: jobs that came through the mailbox.
    pub mailbox_jobs: u64,
}

/// The counters of this shard.
///
/// # Panics
/// If called off a shard.
#[must_use]
pub fn stats() -> ShardStats {
    let shard = current();
    let c = &shard.counters;
    let mut stats = ShardStats {
        connections: c.connections.get(),
        enobufs: c.enobufs.get(),
        pressure_copies: c.pressure_copies.get(),
        timers: shard.timers.len() as u64,
        tasks: shard.exec.len() as u64,
        panics: c.panics.get(),
        sends: c.sends.get(),
        sent_bytes: c.sent_bytes.get(),
        recvs: c.recvs.get(),
        received_bytes: c.received_bytes.get(),
        accepts: c.accepts.get(),
        accept_pauses: c.accept_pauses.get(),
        connects: c.connects.get(),
        stale_completions: c.stale_completions.get(),
        parks: c.parks.get(),
        mailbox_jobs: c.mailbox_jobs.get(),
        ..ShardStats::default()
    };
    if let Some(ring) = shard.driver.ring() {
        (stats.buffers_out_small, stats.buffers_out_large) = ring.buffers_out();
        stats.operations = ring.operations() as u64;
    }
    stats
}

/// The live cells behind [`ShardStats`].
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) connections: Cell<u64>,
    pub(crate) enobufs: Cell<u64>,
    pub(crate) pressure_copies: Cell<u64>,
    pub(crate) panics: Cell<u64>,
    pub(crate) sends: Cell<u64>,
    pub(crate) sent_bytes: Cell<u64>,
    pub(crate) recvs: Cell<u64>,
    pub(crate) received_bytes: Cell<u64>,
    pub(crate) accepts: Cell<u64>,
    pub(crate) accept_pauses: Cell<u64>,
    pub(crate) connects: Cell<u64>,
    pub(crate) stale_completions: Cell<u64>,
    pub(crate) parks: Cell<u64>,
    pub(crate) mailbox_jobs: Cell<u64>,
}

/// Adds to a counter cell.
pub(crate) fn bump(cell: &Cell<u64>, by: u64) {
    cell.set(cell.get().wrapping_add(by));
}
