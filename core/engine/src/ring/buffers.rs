//! A group of read buffers that the kernel picks from, and their way back.
//!
//! A buffer is at any time in one of two places: *in*, an entry of the ring shared
//! with the kernel, which may write to it; or *out*, named by exactly one
//! [`PoolBuf`], which may only read it. `out` counts the latter.
//!
//! Code of ours never holds more than about three quarters of a group: below that
//! what came in is copied to the heap and the buffer goes straight back. So held
//! messages and slow writers cannot starve the other connections.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use bytes::Bytes;
use crossbeam::queue::SegQueue;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::mailbox::Mailbox;
use crate::shard::{Shard, try_current};
use crate::sock::Sock;
use crate::stats::bump;

/// Up to this many bytes are always copied: a copy costs less than holding a buffer.
const COPY_BYTES_MAX: usize = 1024;

/// Private anonymous memory; unmapped when the last owner goes.
pub(crate) struct Region {
    start: *mut u8,
    length: usize,
}

// SAFETY: the region is plain memory; who may touch which part of it is settled by
// buffer ids, each of which has one owner at a time.
unsafe impl Send for Region {}
// SAFETY: as above; `Region` itself offers no access.
unsafe impl Sync for Region {}

impl Region {
    fn map(length: usize) -> io::Result<Region> {
        // SAFETY: a new private anonymous mapping touches no existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Region {
            start: start.cast(),
            length,
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nobody owns a part any more.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// What buffers that are out share with their group; outlives the shard if need be.
struct Home {
    memory: Region,
    size: usize,
    group: u16,
    mailbox: Arc<Mailbox>,
    /// Ids dropped on foreign threads.
    returned: SegQueue<u16>,
    /// Connections wait for a buffer: a foreign return must wake the shard.
    starving: AtomicBool,
}

/// A buffer that is out: the owner behind a `Bytes`.
struct PoolBuf {
    home: Arc<Home>,
    id: u16,
    length: usize,
}

impl AsRef<[u8]> for PoolBuf {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `id` is below the group's count and `length` at most its size (both
        // checked in `Group::take`), so the range lies in the mapped region. While
        // this `PoolBuf` lives the id is not in the kernel's ring, so nobody writes.
        unsafe {
            let start = self
                .home
                .memory
                .start
                .add(usize::from(self.id) * self.home.size);
            std::slice::from_raw_parts(start, self.length)
        }
    }
}

impl Drop for PoolBuf {
    fn drop(&mut self) {
        if let Some(shard) = try_current()
            && Arc::ptr_eq(&shard.mailbox, &self.home.mailbox)
            && let Some(ring) = shard.driver.ring()
        {
            ring.group(self.home.group).give_back(self.id);
            return;
        }
        self.home.returned.push(self.id);
        // SeqCst: pairs with the store in `Group::starve`, which looks at the queue
        // after it.
        if self.home.starving.load(Ordering::SeqCst) {
            self.home.mailbox.push(Box::new(|| {}));
        }
    }
}

/// One group, owned by its shard.
pub(crate) struct Group {
    home: Arc<Home>,
    entries: Arc<Region>,
    count: u16,
    tail: Cell<u16>,
    out: Cell<u16>,
    starved: RefCell<VecDeque<Rc<Sock>>>,
}

impl Group {
    /// Maps the memory, hands all buffers to the kernel and registers the group.
    pub(crate) fn register(
        ring: &IoUring,
        group: u16,
        count: u16,
        size: usize,
        mailbox: &Arc<Mailbox>,
    ) -> io::Result<Group> {
        let memory = Region::map(usize::from(count) * size)?;
        let entries = Region::map(usize::from(count) * size_of::<BufRingEntry>())?;
        // SAFETY: `entries` is page-aligned, zeroed, large enough for `count` entries
        // and outlives the ring (see `RingDriver`'s order of fields and its `Drop`).
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(entries.start as u64, count, group, 0)?;
        }
        let made = Group {
            home: Arc::new(Home {
                memory,
                size,
                group,
                mailbox: mailbox.clone(),
                returned: SegQueue::new(),
                starving: AtomicBool::new(false),
            }),
            entries: Arc::new(entries),
            count,
            tail: Cell::new(0),
            out: Cell::new(count),
            starved: RefCell::new(VecDeque::new()),
        };
        for id in 0..count {
            made.give_back(id);
        }
        Ok(made)
    }

    /// Bytes of one buffer.
    pub(crate) fn size(&self) -> usize {
        self.home.size
    }

    /// Buffers held by code of ours.
    pub(crate) fn out(&self) -> u16 {
        self.out.get()
    }

    fn free(&self) -> u16 {
        self.count - self.out.get()
    }

    /// The kernel filled buffer `id` with `length` bytes.
    pub(crate) fn take(&self, shard: &Shard, id: u16, length: usize) -> Bytes {
        assert!(
            id < self.count && length <= self.home.size,
            "the kernel names a buffer of ours"
        );
        self.out.set(self.out.get() + 1);
        let buffer = PoolBuf {
            home: self.home.clone(),
            id,
            length,
        };
        // Rounded up, so that even of two buffers one always cycles.
        let low = self.free() < self.count.div_ceil(4);
        if low {
            bump(&shard.counters.pressure_copies, 1);
        }
        if low || length <= COPY_BYTES_MAX.max(self.home.size / 8) {
            return Bytes::copy_from_slice(buffer.as_ref());
        }
        Bytes::from_owner(buffer)
    }

    /// Buffer `id` goes back to the kernel. Only for an id that is out.
    pub(crate) fn give_back(&self, id: u16) {
        let tail = self.tail.get();
        let slot = usize::from(tail & (self.count - 1));
        let base: *mut BufRingEntry = self.entries.start.cast();
        // SAFETY: `slot` is below `count`, the entries region holds that many; the
        // kernel reads only entries between its head and the published tail, and with
        // at most `count` buffers in existence this slot is not among them. Setting
        // the three fields leaves the tail, which overlays entry 0, alone.
        unsafe {
            let entry = &mut *base.add(slot);
            let start = self.home.memory.start.add(usize::from(id) * self.home.size);
            entry.set_addr(start as u64);
            entry.set_len(self.home.size as u32);
            entry.set_bid(id);
        }
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        self.out.set(self.out.get() - 1);
        // SAFETY: the tail's address is inside the entries region and aligned for u16;
        // Release makes the entry visible before it, for the kernel's acquiring load.
        unsafe {
            let shared = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(shared).store(tail, Ordering::Release);
        }
    }

    /// `sock` found no buffer: it is asked again when some are back.
    pub(crate) fn starve(&self, sock: Rc<Sock>) {
        self.starved.borrow_mut().push_back(sock);
        self.home.starving.store(true, Ordering::SeqCst);
    }

    /// A connection is closing: it needs no buffer.
    pub(crate) fn forget(&self, sock: &Rc<Sock>) -> bool {
        let mut starved = self.starved.borrow_mut();
        let before = starved.len();
        starved.retain(|other| !Rc::ptr_eq(other, sock));
        before != starved.len()
    }

    /// Takes foreign returns in; gives connections that may try again, at most as
    /// many as buffers are free.
    pub(crate) fn relieve(&self) -> Vec<Rc<Sock>> {
        while let Some(id) = self.home.returned.pop() {
            self.give_back(id);
        }
        let mut starved = self.starved.borrow_mut();
        if starved.is_empty() {
            return Vec::new();
        }
        let count = starved.len().min(usize::from(self.free()));
        let relieved = starved.drain(..count).collect();
        if starved.is_empty() {
            self.home.starving.store(false, Ordering::SeqCst);
        }
        relieved
    }

    /// Keeps the memory for ever: the kernel may still write to it.
    pub(crate) fn leak(&self) {
        std::mem::forget(self.home.clone());
        std::mem::forget(self.entries.clone());
    }
}
