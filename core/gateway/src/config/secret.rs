//! References to secrets, and how what they point at is fetched: at the
//! moment it is needed, into memory that is wiped, and never written anywhere.

use super::raw::RawSecret;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of one secret. Credentials are short; a reference to the wrong file
/// must not read gigabytes.
pub const SECRET_BYTES_MAX: usize = 65_536;
/// Time that a command may take to print a secret.
pub const COMMAND_TIME_MAX: Duration = Duration::from_secs(10);

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// An environment variable of the gateway.
    Env(String),
    /// A file; one trailing line end is left out.
    File(PathBuf),
    /// A program's standard output; one trailing line end is left out.
    Command(Vec<String>),
}

/// Why a secret could not be had. Never holds any of its bytes.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("environment variable {0} is not set")]
    EnvMissing(String),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program cannot be run.
    #[error("cannot run {program}: {source}")]
    Command {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program failed.
    #[error("{program} ended with {status}")]
    CommandFailed {
        /// The program.
        program: String,
        /// Its exit status.
        status: String,
    },
    /// The program did not end in time.
    #[error("{0} did not end within {COMMAND_TIME_MAX:?}")]
    CommandTimeout(String),
    /// More than [`SECRET_BYTES_MAX`].
    #[error("the secret is larger than {SECRET_BYTES_MAX} bytes")]
    TooLarge,
    /// Nothing there.
    #[error("the secret is empty")]
    Empty,
}

impl SecretSource {
    /// Reads a checked reference; a relative file is relative to `base`.
    pub fn from_raw(raw: &RawSecret, base: &Path) -> Option<SecretSource> {
        match (&raw.env, &raw.file, &raw.command) {
            (Some(name), None, None) => Some(SecretSource::Env(name.clone())),
            (None, Some(path), None) => Some(SecretSource::File(base.join(path))),
            (None, None, Some(argv)) if !argv.is_empty() => {
                Some(SecretSource::Command(argv.clone()))
            }
            _ => None,
        }
    }

    /// Fetches the secret. Blocks: never call it on a shard.
    pub fn fetch(&self) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let mut bytes = match self {
            SecretSource::Env(name) => {
                let value =
                    std::env::var_os(name).ok_or_else(|| SecretError::EnvMissing(name.clone()))?;
                Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value))
            }
            SecretSource::File(path) => {
                let fault = |source| SecretError::File {
                    path: path.clone(),
                    source,
                };
                let file = std::fs::File::open(path).map_err(fault)?;
                trimmed(read_bounded(file).map_err(fault)?)
            }
            SecretSource::Command(argv) => trimmed(run(argv)?),
        };
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(SecretError::TooLarge);
        }
        if bytes.is_empty() {
            return Err(SecretError::Empty);
        }
        bytes.shrink_to_fit();
        Ok(bytes)
    }
}

fn read_bounded(from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // Room for the whole bound at once, so that growth leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 2));
    from.take(SECRET_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn trimmed(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

fn run(argv: &[String]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let program = argv[0].clone(); // `from_raw` lets no empty list through.
    let fault = |source| SecretError::Command {
        program: program.clone(),
        source,
    };
    let mut child = Command::new(&program)
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(fault)?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || stdout.map(read_bounded));
    let until = Instant::now() + COMMAND_TIME_MAX;
    let status = loop {
        match child.try_wait().map_err(fault)? {
            Some(status) => break status,
            None if Instant::now() >= until => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(SecretError::CommandTimeout(program));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if !status.success() {
        return Err(SecretError::CommandFailed {
            program,
            status: status.to_string(),
        });
    }
    match reader.join() {
        Ok(Some(bytes)) => bytes.map_err(fault),
        _ => Err(SecretError::Empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_command_and_trims_one_line_end() {
        let source = SecretSource::Command(vec!["printf".into(), "abc\\n\\n".into()]);
        assert_eq!(source.fetch().expect("printf runs").as_slice(), b"abc\n");
    }

    #[test]
    fn a_failing_command_is_an_error_without_its_output() {
        let source =
            SecretSource::Command(vec!["sh".into(), "-c".into(), "echo leak; exit 3".into()]);
        let error = source.fetch().expect_err("exit 3 is a failure").to_string();
        assert!(
            error.contains("exit status: 3") && !error.contains("leak"),
            "{error}"
        );
    }

    #[test]
    fn refuses_an_empty_and_an_endless_secret() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "\n").expect("writable");
        assert!(matches!(
            SecretSource::File(empty).fetch(),
            Err(SecretError::Empty)
        ));
        assert!(matches!(
            SecretSource::File("/dev/zero".into()).fetch(),
            Err(SecretError::TooLarge)
        ));
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error = SecretSource::Env("PORTCULLIS_NO_SUCH_VARIABLE".into())
            .fetch()
            .expect_err("not set");
        assert!(error.to_string().contains("PORTCULLIS_NO_SUCH_VARIABLE"));
    }
}
