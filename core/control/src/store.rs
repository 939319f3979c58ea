//! The store: one connection, used by the broker alone.
//!
//! SQLite with a write-ahead log and `synchronous = FULL`: a commit that has
//! returned survives a power cut. The file is locked for this process while it
//! is open, since those who wait for an answer are known to one process only.
//!
//! Every change and its audit entry are one transaction. Statements use only
//! text and 64-bit integers, `$n` parameters and what SQLite and PostgreSQL
//! share, through sqlx's `Any`; bytes are kept as base64 or hex, and "none" as
//! 0 or the empty text, so that no column is ever NULL.

mod approvals;
mod audit;
mod schema;
mod tokens;

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Connection as _, Row as _};
use thiserror::Error;

pub(crate) use approvals::{Approval, ApprovalFilter, ApprovalState, Key};
pub(crate) use audit::{AuditEntry, Change};

use crate::error::ControlError;

/// The store failed; what it would have kept did not happen, as far as anyone
/// may act on it.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// What SQLite said.
    #[error("store: {0}")]
    Sql(#[from] sqlx::Error),
    /// A stored value is not what this program writes.
    #[error("store: value in column {0} is damaged")]
    Damaged(&'static str),
    /// Shown to the caller as a conflict, not as a failure.
    #[error("store is full: {0}")]
    Full(&'static str),
}

#[derive(Debug)]
pub(crate) struct Store {
    connection: AnyConnection,
    /// The last entry of the audit trail.
    audit_sequence: i64,
}

impl Store {
    /// Opens the file, makes it if missing, brings its schema up to date.
    pub(crate) async fn open(path: &Path) -> Result<Self, ControlError> {
        let path = prepare_file(path)?;
        let failed = |error: &sqlx::Error| {
            if is_locked(error) {
                ControlError::StoreInUse { path: path.clone() }
            } else {
                ControlError::Store {
                    path: path.clone(),
                    what: error.to_string(),
                }
            }
        };
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&url(&path)?)
            .await
            .map_err(|error| failed(&error))?;
        // The lock is not waited for: who holds it holds it for good.
        for pragma in [
            "PRAGMA busy_timeout = 0",
            "PRAGMA locking_mode = EXCLUSIVE",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA busy_timeout = 2000",
        ] {
            sqlx::query(pragma)
                .execute(&mut connection)
                .await
                .map_err(|error| failed(&error))?;
        }
        schema::upgrade(&mut connection)
            .await
            .map_err(|what| ControlError::Store {
                path: path.clone(),
                what,
            })?;
        let mut store = Self {
            connection,
            audit_sequence: 0,
        };
        store.audit_sequence =
            store
                .last_audit_sequence()
                .await
                .map_err(|error| ControlError::Store {
                    path: path.clone(),
                    what: error.to_string(),
                })?;
        Ok(store)
    }

    /// Writes the log back and gives up the lock.
    pub(crate) async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "store did not close cleanly");
        }
    }

    /// Whether the store answers.
    pub(crate) async fn ping(&mut self) -> bool {
        sqlx::query("SELECT 1")
            .execute(&mut self.connection)
            .await
            .is_ok()
    }
}

fn prepare_file(path: &Path) -> Result<PathBuf, ControlError> {
    let file_error = |source| ControlError::File {
        path: path.to_owned(),
        source,
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(ControlError::Config {
        key: "store",
        why: "must name a file",
    })?;
    // The folder's true name, so that nothing is resolved twice.
    let path = parent.canonicalize().map_err(file_error)?.join(name);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| ControlError::File {
            path: path.clone(),
            source,
        })?;
    // SQLite gives its log the same mode as the file.
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(|source| ControlError::File {
            path: path.clone(),
            source,
        })?;
    Ok(path)
}

fn url(path: &Path) -> Result<String, ControlError> {
    let text = path.to_str().ok_or(ControlError::Config {
        key: "store",
        why: "must be UTF-8",
    })?;
    let mut url = String::from("sqlite://");
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                url.push(char::from(byte));
            }
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    url.push_str("?mode=rw");
    Ok(url)
}

fn is_locked(error: &sqlx::Error) -> bool {
    // SQLITE_BUSY and SQLITE_LOCKED, and their extended codes.
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| matches!(code & 0xFF, 5 | 6))
}

fn text(row: &AnyRow, column: &'static str) -> Result<String, StoreError> {
    Ok(row.try_get::<String, _>(column)?)
}

fn number(row: &AnyRow, column: &'static str) -> Result<u64, StoreError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| StoreError::Damaged(column))
}

/// Times and counts as the store keeps them; beyond 2^63 they stay there.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
impl Store {
    /// Runs a statement of a test's own, such as one that does damage.
    pub(crate) async fn run_for_test(&mut self, statement: &'static str) {
        sqlx::query(statement)
            .execute(&mut self.connection)
            .await
            .unwrap();
    }
}
