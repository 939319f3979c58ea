//! The writer: one thread that drains all rings, chains, writes and commits.
//!
//! One round: take what the rings hold, encode and hash it into one buffer, write the buffer once;
//! commit (`fdatasync`) when a record asks for it or when the oldest unwritten promise is
//! `group_commit_ms` old; then sleep until there is something to do. Between the first record of a
//! quiet time and its commit the writer sleeps as well, and producers do not wake it: at full load
//! it costs one futex, one write and one commit per window, however many records there are.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::body::WriterBody;
use crate::config::{AtCap, Config, ROUND_BYTES_MAX, RecorderError, Stats};
use crate::files::{self, SegmentFile};
use crate::frame::{
    FRAME_OVERHEAD_BYTES, FrameHead, FrameKind, HEADER_BYTES, Hash, Header, SegmentHash,
    chain_start, encode_frame, sha256,
};
use crate::id::SessionId;
use crate::recorder::{Durable, STOPPED, Shared};
use crate::ring::Entry;
use crate::segment;

/// Records taken from one ring before the next ring has its turn.
const TURN_RECORDS_MAX: usize = 64;
/// Most sessions with a record and no end: what a gateway can hold at most, with room to spare.
const SESSIONS_OPEN_MAX: usize = 1 << 20;
/// Room that a segment keeps for its closing record.
const CLOSING_BYTES: u64 = (FRAME_OVERHEAD_BYTES + 16) as u64;

/// The end of a session's chain.
#[derive(Clone, Copy)]
struct ChainHead {
    sequence: u64,
    previous: Hash,
}

/// The segment that is being written.
struct Current {
    file: File,
    number: u64,
    /// Bytes in the file and in the batch.
    bytes: u64,
    hash: SegmentHash,
}

pub(crate) struct Writer {
    config: Config,
    shared: Arc<Shared>,
    durable: Durable,
    id: SessionId,
    _lock: File,
    current: Current,
    /// Older segments, oldest first.
    older: VecDeque<SegmentFile>,
    older_bytes: u64,
    next_position: u64,
    chains: HashMap<SessionId, ChainHead>,
    batch: Vec<u8>,
    /// The shard whose ring is next.
    turn: usize,
    /// Per shard: records taken from its ring and encoded.
    taken: Vec<u64>,
    /// Per shard: records that were last reported durable.
    reported: Vec<u64>,
    /// When the oldest record was written that is not committed yet.
    unsynced_since: Option<Instant>,
    oldest_wall_clock_us: u64,
    stats: Stats,
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}

impl Writer {
    /// Takes the archive over and begins a segment in it.
    pub fn open(
        config: Config,
        shared: Arc<Shared>,
        durable: Durable,
    ) -> Result<Self, RecorderError> {
        let lock = files::open_directory(&config.dir)?;
        let older = files::list_segments(&config.dir)?;
        let older_bytes: u64 = older.iter().map(|segment| segment.bytes).sum();
        let full = older_bytes.saturating_add(config.reserve_bytes()) > config.total_bytes_max;
        if full && config.at_cap == AtCap::Refuse {
            return Err(RecorderError::Full {
                bytes: older_bytes,
                bytes_max: config.total_bytes_max,
            });
        }
        let (number, first_position, previous, torn) = match older.last() {
            None => (1, 0, [0; 32], None),
            Some(last) => take_over(last)?,
        };
        let id = SessionId::generate();
        let current = prepare(&config, number, first_position, previous, id)?;
        files::publish_segment(&config.dir, number)?;
        let shards = config.shards;
        let mut writer = Self {
            config,
            shared,
            durable,
            id,
            _lock: lock,
            current,
            older: older.into(),
            older_bytes,
            next_position: first_position,
            chains: HashMap::new(),
            batch: Vec::new(),
            turn: 0,
            taken: vec![0; shards],
            reported: vec![0; shards],
            unsynced_since: None,
            oldest_wall_clock_us: u64::MAX,
            stats: Stats::default(),
        };
        writer.note(&WriterBody::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shards: shards as u64,
        });
        if let Some(torn) = torn {
            writer.note(&torn);
        }
        writer.write()?;
        writer.commit()?;
        Ok(writer)
    }

    /// The thread's body. However it ends, producers and waiters learn of it.
    pub fn run(mut self) -> Result<(), String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.work()));
        let result = match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the recorder's writer panicked".to_owned()),
        };
        if let Err(why) = &result {
            tracing::error!(why = %why, "recorder failed");
            self.shared.fail(why.clone());
        }
        self.shared.wake.close();
        self.wake_all();
        result
    }

    fn work(&mut self) -> Result<(), RecorderError> {
        let window = Duration::from_millis(self.config.group_commit_ms);
        loop {
            let stopping = self.shared.stopping.load(Ordering::SeqCst);
            if stopping {
                // From here on no append succeeds; what did is drained below.
                self.shared.fail(STOPPED.to_owned());
                self.shared.wake.close();
            }
            let urgent = self.take_urgent();
            let more = self.drain()?;
            self.write()?;
            self.keep_cap()?;
            let due = self
                .unsynced_since
                .is_some_and(|since| since.elapsed() >= window);
            if urgent || due || stopping {
                self.commit()?;
            }
            if more {
                continue;
            }
            if stopping {
                return self.close();
            }
            self.sleep(window);
        }
    }

    /// Sleeps until a commit is due or a producer calls.
    fn sleep(&mut self, window: Duration) {
        let shared = &self.shared;
        let wake = &shared.wake;
        wake.sleep(self.unsynced_since.is_some());
        let stopping = || shared.stopping.load(Ordering::SeqCst);
        let mut slept = false;
        match self.unsynced_since {
            Some(since) => {
                let called = || {
                    stopping()
                        || shared
                            .rings
                            .iter()
                            .any(|ring| ring.is_filling() || ring.urgent.load(Ordering::Acquire))
                };
                // A park may end early for no reason, so look at the clock each time.
                while !called() && !wake.ended() {
                    let Some(left) = window.checked_sub(since.elapsed()).filter(|d| !d.is_zero())
                    else {
                        break;
                    };
                    slept = true;
                    thread::park_timeout(left);
                }
            }
            None => {
                let called = || {
                    stopping()
                        || shared.rings.iter().any(|ring| {
                            !ring.queue.is_empty() || ring.urgent.load(Ordering::Acquire)
                        })
                };
                while !called() && !wake.ended() {
                    slept = true;
                    thread::park();
                }
            }
        }
        wake.awake();
        self.stats.sleeps += u64::from(slept);
    }

    fn take_urgent(&self) -> bool {
        // Acquire pairs with the producer's Release after its push: the drain sees that record.
        let mut urgent = false;
        for ring in &self.shared.rings {
            urgent |= ring.urgent.swap(false, Ordering::Acquire);
        }
        urgent
    }

    /// Takes records from the rings in turn until they are empty or a round's worth is taken.
    /// `true` when there may be more.
    fn drain(&mut self) -> Result<bool, RecorderError> {
        let drain_bytes_max = self.config.drain_bytes_max();
        let mut drained_bytes = 0;
        loop {
            let mut any = false;
            for _ in 0..self.config.shards {
                let shard = self.turn;
                self.turn = (shard + 1) % self.config.shards;
                for _ in 0..TURN_RECORDS_MAX {
                    if drained_bytes >= drain_bytes_max {
                        return Ok(true);
                    }
                    let shared = Arc::clone(&self.shared);
                    let ring = &shared.rings[shard];
                    let Some(entry) = ring.queue.pop() else {
                        break;
                    };
                    any = true;
                    let size = entry.body.len();
                    drained_bytes += size + FRAME_OVERHEAD_BYTES;
                    let recorded = self.record(shard, entry);
                    // Release pairs with the producer's Acquire.
                    ring.bytes.fetch_sub(size, Ordering::Release);
                    recorded?;
                }
            }
            if !any {
                return Ok(false);
            }
        }
    }

    fn record(&mut self, shard: usize, entry: Entry) -> Result<(), RecorderError> {
        let size = (entry.body.len() + FRAME_OVERHEAD_BYTES) as u64;
        self.make_room(size)?;
        if self.chains.len() >= SESSIONS_OPEN_MAX && !self.chains.contains_key(&entry.session) {
            return Err(RecorderError::Failed {
                why: format!("more than {SESSIONS_OPEN_MAX} sessions have no end"),
            });
        }
        self.oldest_wall_clock_us = self.oldest_wall_clock_us.min(entry.wall_clock_us);
        self.append(
            FrameKind::Session,
            shard as u16,
            entry.session,
            entry.wall_clock_us,
            &entry.body,
        );
        if entry.ends_session {
            self.chains.remove(&entry.session);
        }
        self.taken[shard] += 1;
        Ok(())
    }

    /// Adds a frame to the batch and moves its chain on.
    fn append(
        &mut self,
        kind: FrameKind,
        shard: u16,
        session: SessionId,
        wall_clock_us: u64,
        body: &[u8],
    ) {
        let chain = self.chains.entry(session).or_insert_with(|| ChainHead {
            sequence: 0,
            previous: chain_start(session),
        });
        let head = FrameHead {
            kind,
            shard,
            session,
            sequence: chain.sequence,
            position: self.next_position,
            wall_clock_us,
            previous: chain.previous,
        };
        let hash = encode_frame(&mut self.batch, &head, body);
        *chain = ChainHead {
            sequence: head.sequence + 1,
            previous: hash,
        };
        self.current.hash.add(&hash);
        self.current.bytes += (body.len() + FRAME_OVERHEAD_BYTES) as u64;
        self.next_position += 1;
        self.stats.records += 1;
    }

    /// Adds a record of the writer's own.
    fn note(&mut self, body: &WriterBody) {
        let bytes = body.encode().expect("a writer's record is small");
        self.append(FrameKind::Writer, 0, self.id, now_us(), &bytes);
    }

    /// Goes on in a new segment where this one cannot take `size` more bytes.
    fn make_room(&mut self, size: u64) -> Result<(), RecorderError> {
        let is_empty = self.current.bytes <= HEADER_BYTES as u64;
        if is_empty || self.current.bytes + size + CLOSING_BYTES <= self.config.segment_bytes_max {
            return Ok(());
        }
        self.rotate()
    }

    /// The next segment's header is on disk before this one says that there is a next one, so that
    /// a crash in between does not look like a segment that somebody took away.
    fn rotate(&mut self) -> Result<(), RecorderError> {
        self.note(&WriterBody::Closed { rotated: true });
        let number = self.current.number;
        let next = prepare(
            &self.config,
            number + 1,
            self.next_position,
            self.current.hash.value(),
            self.id,
        )?;
        self.write()?;
        self.commit()?;
        files::publish_segment(&self.config.dir, number + 1)?;
        let closed = SegmentFile {
            number,
            path: files::segment_path(&self.config.dir, number),
            bytes: self.current.bytes,
        };
        self.older_bytes += closed.bytes;
        self.older.push_back(closed);
        self.current = next;
        Ok(())
    }

    /// Writes the batch.
    fn write(&mut self) -> Result<(), RecorderError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let path = files::segment_path(&self.config.dir, self.current.number);
        self.current
            .file
            .write_all(&self.batch)
            .map_err(files::io_error("write", &path))?;
        self.stats.bytes += self.batch.len() as u64;
        self.batch.clear();
        if self.batch.capacity() > 2 * ROUND_BYTES_MAX {
            self.batch.shrink_to(ROUND_BYTES_MAX);
        }
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Makes what was written durable and says so.
    fn commit(&mut self) -> Result<(), RecorderError> {
        debug_assert!(
            self.batch.is_empty(),
            "only what is written can be committed"
        );
        if self.unsynced_since.take().is_some() {
            let path = files::segment_path(&self.config.dir, self.current.number);
            let began = Instant::now();
            self.current
                .file
                .sync_data()
                .map_err(files::io_error("sync", &path))?;
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.stats.commits += 1;
            self.stats.commit_us_total += took;
            self.stats.commit_us_max = self.stats.commit_us_max.max(took);
            if self.oldest_wall_clock_us != u64::MAX {
                let lag = now_us().saturating_sub(self.oldest_wall_clock_us);
                self.stats.durable_lag_us_max = self.stats.durable_lag_us_max.max(lag);
                self.oldest_wall_clock_us = u64::MAX;
            }
        }
        self.publish_stats();
        for shard in 0..self.config.shards {
            let taken = self.taken[shard];
            if taken > self.reported[shard] {
                self.reported[shard] = taken;
                // Release pairs with the producer's Acquire in `durable`.
                self.shared.rings[shard]
                    .durable
                    .store(taken, Ordering::Release);
                (self.durable)(shard, taken);
            }
        }
        Ok(())
    }

    fn publish_stats(&mut self) {
        self.stats.segment = self.current.number;
        self.stats.disk_bytes = self.disk_bytes();
        let writer_chain = usize::from(self.chains.contains_key(&self.id));
        self.stats.sessions_open = (self.chains.len() - writer_chain) as u64;
        *self
            .shared
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = self.stats;
    }

    fn disk_bytes(&self) -> u64 {
        self.older_bytes + self.current.bytes
    }

    fn is_at_cap(&self) -> bool {
        self.disk_bytes()
            .saturating_add(self.config.reserve_bytes())
            > self.config.total_bytes_max
    }

    /// Holds the archive below its cap, with room for all that the rings may still hold.
    fn keep_cap(&mut self) -> Result<(), RecorderError> {
        if !self.is_at_cap() || self.shared.is_failed() {
            return Ok(());
        }
        match self.config.at_cap {
            AtCap::Refuse => {
                // Appends fail from here on. What was taken before is still written: the reserve
                // is there for it.
                let why = format!(
                    "record full: {} bytes on disk, the cap is {} ({} are kept for what is on its way)",
                    self.disk_bytes(),
                    self.config.total_bytes_max,
                    self.config.reserve_bytes(),
                );
                tracing::error!(why = %why, "recorder failed");
                self.shared.fail(why);
                self.wake_all();
                Ok(())
            }
            AtCap::DeleteOldest => self.delete_oldest(),
        }
    }

    fn delete_oldest(&mut self) -> Result<(), RecorderError> {
        if self.older.is_empty() {
            // One record larger than a segment; its segment can go once the next one is begun.
            return Ok(());
        }
        let mut victims = Vec::new();
        while self.is_at_cap() {
            let Some(oldest) = self.older.pop_front() else {
                break;
            };
            let own = read_header(&oldest)?;
            // The next segment's header carries the hash of this one.
            let next = match self.older.front() {
                Some(next) => read_header(next)?,
                None => read_header(&SegmentFile {
                    number: self.current.number,
                    path: files::segment_path(&self.config.dir, self.current.number),
                    bytes: 0,
                })?,
            };
            self.older_bytes -= oldest.bytes;
            self.note(&WriterBody::Deleted {
                segment: oldest.number,
                bytes: oldest.bytes,
                records: next.first_position.saturating_sub(own.first_position),
                segment_hash: next.previous,
                next_position: next.first_position,
            });
            victims.push(oldest);
        }
        // On record and durable before anything goes.
        self.write()?;
        self.commit()?;
        for victim in victims {
            files::delete_segment(&self.config.dir, &victim.path)?;
            self.stats.segments_deleted += 1;
        }
        self.publish_stats();
        Ok(())
    }

    /// Ends the archive's last segment in order.
    fn close(&mut self) -> Result<(), RecorderError> {
        self.note(&WriterBody::Closed { rotated: false });
        self.write()?;
        self.commit()
    }

    /// Lets whoever waits look again.
    fn wake_all(&self) {
        for shard in 0..self.config.shards {
            (self.durable)(shard, self.reported[shard]);
        }
    }
}

/// Number, first position and previous hash for the segment after `last`, and what to say of its
/// torn tail.
type Continuation = (u64, u64, Hash, Option<WriterBody>);

fn take_over(last: &SegmentFile) -> Result<Continuation, RecorderError> {
    let damaged = |what: String| RecorderError::Damaged {
        segment: last.number,
        what,
    };
    let bytes = files::read_segment(last)?.ok_or_else(|| damaged("the file is gone".to_owned()))?;
    let scan = segment::scan(&bytes, &mut |_| {}).map_err(|error| damaged(error.to_string()))?;
    if scan.header.segment != last.number {
        return Err(damaged(format!(
            "its header says that it is segment {}",
            scan.header.segment
        )));
    }
    let torn = scan.tail.map(|tail| {
        let from = usize::try_from(tail.offset).unwrap_or(usize::MAX);
        WriterBody::Torn {
            segment: last.number,
            kept_bytes: tail.offset,
            torn_bytes: tail.bytes,
            digest: sha256(&[bytes.get(from..).unwrap_or_default()]),
        }
    });
    Ok((last.number + 1, scan.next_position, scan.hash.value(), torn))
}

/// A segment that waits for `files::publish_segment`.
fn prepare(
    config: &Config,
    number: u64,
    first_position: u64,
    previous: Hash,
    writer: SessionId,
) -> Result<Current, RecorderError> {
    let header = Header {
        segment: number,
        first_position,
        created_us: now_us(),
        writer,
        previous,
    }
    .encode();
    Ok(Current {
        file: files::prepare_segment(&config.dir, number, &header)?,
        number,
        bytes: HEADER_BYTES as u64,
        hash: SegmentHash::new(&header),
    })
}

fn read_header(segment: &SegmentFile) -> Result<Header, RecorderError> {
    let bytes = files::read_header(&segment.path)?;
    Header::decode(&bytes).map_err(|error| RecorderError::Damaged {
        segment: segment.number,
        what: error.to_string(),
    })
}
