//! The shard engine: sockets, TLS, timers, tasks and mailboxes, one world per core.
//!
//! A *shard* is one thread with one executor and one io_uring of its own; nothing in
//! it is shared or locked on the hot path. glommio gives the executor and its
//! placement, and is named nowhere else in the program; the sockets live on our own
//! ring beside it (see `ring`).
//!
//! ```no_run
//! use engine::{EngineConfig, ListenOptions, Listener, spawn, spawn_shards};
//! # use portcullis_engine as engine;
//! let shards = spawn_shards(EngineConfig::default(), |_shard| async {
//!     let address = "127.0.0.1:7000".parse().unwrap();
//!     let listener = Listener::bind(address, ListenOptions::default()).unwrap();
//!     while let Ok((conn, _peer)) = listener.accept().await {
//!         spawn(async move {
//!             let (mut reader, writer) = conn.split();
//!             while let Ok(bytes) = reader.recv().await {
//!                 writer.queue(bytes);
//!                 if writer.is_over_high_mark() && writer.drained().await.is_err() {
//!                     break;
//!                 }
//!             }
//!         })
//!         .detach();
//!     }
//! })?;
//! shards.join()?;
//! # Ok::<(), engine::EngineError>(())
//! ```
//!
//! All bytes are [`bytes::Bytes`]: slices of a read buffer that is given back to its
//! shard's pool when the last slice goes, on whatever thread. Whoever holds bytes for
//! long (a request held for a human) copies them.
//!
//! The same code runs in a simulation, [`sim::run`]: one thread, virtual time, a
//! network with partial reads, short writes, delays, stalls and resets, all from one
//! seed. What the public functions stand on is found through a thread-local, so no
//! type of this crate is generic over it.
//!
//! What this crate leaves to others: limits on connections, handshake deadlines
//! (`deadline` around the handshake), protocols.

mod config;
mod conn;
mod error;
mod exec;
mod listener;
mod local;
mod mailbox;
mod offload;
mod probe;
mod random;
mod ring;
mod shard;
pub mod sim;
mod sock;
mod stats;
mod time;
mod tls;

pub use config::{BufferConfig, EngineConfig};
pub use conn::{Conn, Reader, Writer, connect};
pub use error::{ConnectError, Elapsed, End, EngineError, TlsError};
pub use exec::{Task, spawn, yield_now};
pub use listener::{ListenOptions, Listener};
pub use local::{Notify, QueueReceiver, QueueSender, queue};
pub use mailbox::{Reply, ReplySender, ShardHandle, reply, this_shard};
pub use offload::offload;
pub use probe::{Caps, probe};
pub use random::fill_random;
pub use shard::{Shards, shard_index, spawn_shards};
pub use stats::{ShardStats, stats};
pub use time::{Sleep, Time, deadline, now, sleep_until, wall_clock_us};
pub use tls::TlsInfo;
