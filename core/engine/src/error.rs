//! What can go wrong in the engine, by who meets it: the starter of shards, a
//! reader or writer, a dialler, a TLS handshake.

use std::io;

/// Why shards could not start, or how one ended badly.
///
/// Ours or the machine's fault, never a peer's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The kernel refused `io_uring_setup`.
    #[error("io_uring is refused by the kernel ({source}); likely cause: {likely}")]
    IoUringRefused {
        /// What `io_uring_setup` answered.
        source: io::Error,
        /// The likely cause and the next step, in words for the operator.
        likely: &'static str,
    },
    /// The kernel has io_uring but lacks an operation or feature the engine needs.
    #[error("the kernel's io_uring lacks {what}; Linux {needed} or newer is needed")]
    KernelTooOld {
        /// What is missing.
        what: &'static str,
        /// The first kernel that has it.
        needed: &'static str,
    },
    /// `RLIMIT_MEMLOCK` is below what a shard needs.
    #[error(
        "the locked-memory limit is {limit_bytes} bytes, a shard needs {needed_bytes}; \
         raise it (systemd: LimitMEMLOCK=, container: --ulimit memlock=, shell: ulimit -l)"
    )]
    MemoryLock {
        /// The soft limit in force, in bytes.
        limit_bytes: u64,
        /// The least that is needed, in bytes.
        needed_bytes: u64,
    },
    /// A configuration value that cannot work.
    #[error("engine configuration: {key} = {value} is outside {range}")]
    Config {
        /// The field of `EngineConfig`.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The values allowed, in words.
        range: &'static str,
    },
    /// A system call failed while a shard started.
    #[error("starting shard {shard}: {step}: {source}")]
    Start {
        /// The shard's index.
        shard: usize,
        /// What was being done.
        step: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// The executor could not start or stopped by itself.
    #[error("shard {shard}: executor: {reason}")]
    Executor {
        /// The shard's index.
        shard: usize,
        /// What it said.
        reason: String,
    },
    /// The `main` future of a shard panicked; the shard is gone.
    #[error("shard {shard}: main task panicked")]
    Panicked {
        /// The shard's index.
        shard: usize,
    },
}

/// How a connection's direction ended. Sticky: asked again, it says the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The peer finished sending in order (with TLS: after its `close_notify`).
    #[error("end of stream")]
    Eof,
    /// The connection was reset, by the peer or by `abort`.
    #[error("connection reset")]
    Reset,
    /// Another error of the socket.
    #[error("socket error: {0}")]
    Error(io::ErrorKind),
    /// The TLS layer refuses to go on: a bad record, a fatal alert, or an end of
    /// stream without `close_notify`, which may be a truncation attack.
    #[error("TLS: {0}")]
    Tls(String),
}

impl End {
    /// The end that an operating-system error means.
    pub(crate) fn from_errno(errno: i32) -> End {
        match errno {
            libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED => End::Reset,
            other => End::Error(io::Error::from_raw_os_error(other).kind()),
        }
    }
}

/// Why a connection to a target did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// The deadline passed, ours or the kernel's.
    #[error("connection timed out")]
    Timeout,
    /// No route to the host or network.
    #[error("host or network unreachable")]
    Unreachable,
    /// Anything else, out of file descriptors among it.
    #[error("connect: {0}")]
    Other(io::Error),
}

impl ConnectError {
    pub(crate) fn from_errno(errno: i32) -> ConnectError {
        match errno {
            libc::ECONNREFUSED => ConnectError::Refused,
            libc::ETIMEDOUT => ConnectError::Timeout,
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
                ConnectError::Unreachable
            }
            other => ConnectError::Other(io::Error::from_raw_os_error(other)),
        }
    }
}

/// A deadline passed before the future was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline passed")]
pub struct Elapsed;

/// Why a TLS handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refused: the peer's certificate, its messages, or no common ground.
    /// The alert that says so has been queued for the peer.
    #[error("TLS handshake: {0}")]
    Rustls(#[from] rustls::Error),
    /// The connection ended in the middle of the handshake.
    #[error("TLS handshake: {0}")]
    End(End),
}
