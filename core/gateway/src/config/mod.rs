//! The configuration file: read, held against the key table, checked as a
//! whole, and turned into a [`Config`]. Touches nothing but the files that it
//! names, and those only to see whether they can be read.

mod check;
pub mod checked;
pub mod document;
pub mod keys;
pub mod raw;
pub mod reference;
mod roles;
pub mod secret;
#[cfg(test)]
mod tests;

pub use checked::Config;
pub use document::{Complaint, ConfigErrors};
use std::path::Path;

/// Why a configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself cannot be read.
    #[error("cannot read {file}: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has errors; each with its place.
    #[error("{0}")]
    Invalid(ConfigErrors),
}

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Loads and checks a file.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let file = path.display().to_string();
    let unreadable = |source| LoadError::Unreadable {
        file: file.clone(),
        source,
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(std::io::Error::other(format!(
            "larger than {FILE_BYTES_MAX} bytes"
        ))));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let base = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    parse(&text, &file, base).map_err(LoadError::Invalid)
}

/// Checks a text; relative paths in it are relative to `base`.
pub fn parse(text: &str, file: &str, base: &Path) -> Result<Config, ConfigErrors> {
    let fail = |mut complaints: Vec<Complaint>| {
        complaints.sort_by_key(|c| c.span.start);
        ConfigErrors {
            file: file.to_string(),
            text: text.to_string(),
            complaints,
        }
    };
    let (document, complaints) = document::Document::parse(text);
    if !complaints.is_empty() {
        return Err(fail(complaints));
    }
    let raw: raw::RawConfig = toml::from_str(text).map_err(|e| {
        fail(vec![Complaint {
            span: e.span().unwrap_or(0..0),
            message: e.message().to_string(),
            help: String::new(),
        }])
    })?;
    check::check(raw, &document, base).map_err(fail)
}
