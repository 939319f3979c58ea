//! What can keep the control plane from starting or from doing its work.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why the control plane did not start, or could not do what was asked.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Operator's fault: a value makes no sense.
    #[error("{key}: {why}")]
    Config {
        /// The key.
        key: &'static str,
        /// What it must be.
        why: &'static str,
    },
    /// The store cannot be opened or brought to its present shape.
    #[error("store {}: {what}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What the store said.
        what: String,
    },
    /// Another process has the store open.
    #[error("store {} is in use by another process", path.display())]
    StoreInUse {
        /// The file.
        path: PathBuf,
    },
    /// A file that holds a secret is readable by others.
    #[error("{} can be read by others (mode {mode:03o}): it must be 0600, and the token in it replaced", path.display())]
    FileExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The admin token in the file is too short to be one.
    #[error("{} holds no token of at least {chars_min} characters", path.display())]
    WeakAdminToken {
        /// The file.
        path: PathBuf,
        /// The least length.
        chars_min: usize,
    },
    /// A file could not be read or made.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The API cannot listen where it should.
    #[error("cannot listen on {at}: {source}")]
    Listen {
        /// The address or path.
        at: String,
        /// What the system said.
        source: io::Error,
    },
    /// The thread or its runtime could not be started.
    #[error("control thread: {source}")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}
