//! The API's bearer token: a file for people, a hash for us.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use aws_lc_rs::{constant_time, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::encoding::random;
use crate::error::ControlError;

/// Least characters of a token that an operator wrote into the file.
const TOKEN_CHARS_MIN: usize = 32;

/// Bytes of the file at most.
const FILE_BYTES_MAX: u64 = 4096;

/// What the API compares with: the token itself is not kept.
#[derive(Clone)]
pub(crate) struct AdminToken {
    hash: [u8; 32],
}

impl AdminToken {
    /// The token in the file; the file is made if missing.
    pub(crate) fn load_or_make(path: &Path) -> Result<Self, ControlError> {
        let file_error = |source| ControlError::File {
            path: path.to_owned(),
            source,
        };
        match make(path) {
            Ok(()) => tracing::info!("made an admin token"),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file_error(error)),
        }
        Ok(Self {
            hash: hash(read(path)?.as_bytes()),
        })
    }

    /// Whether this is the token. Both are hashed first, so that the comparison
    /// has one length, and takes one time.
    pub(crate) fn is(&self, presented: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.hash, &hash(presented)).is_ok()
    }
}

/// Reads the token from its file.
///
/// # Errors
/// The file is missing, readable by others, or holds no token.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, ControlError> {
    let file_error = |source| ControlError::File {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .open(path)
        .map_err(file_error)?;
    let mode = file.metadata().map_err(file_error)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ControlError::FileExposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(file_error)?;
    let token = text.trim();
    if token.len() < TOKEN_CHARS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ControlError::WeakAdminToken {
            path: path.to_owned(),
            chars_min: TOKEN_CHARS_MIN,
        });
    }
    Ok(Zeroizing::new(token.to_owned()))
}

fn make(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let bytes = random::<32>().ok_or_else(|| io::Error::other("no random bytes"))?;
    let bytes = Zeroizing::new(bytes);
    let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_ref()));
    let line = Zeroizing::new(format!("pca_{}\n", encoded.as_str()));
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

fn hash(token: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_missing_file_is_made_for_its_owner_only_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin");
        let token = AdminToken::load_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = read(&path).unwrap();
        assert!(text.starts_with("pca_") && text.len() == 4 + 43);
        assert!(token.is(text.as_bytes()) && !token.is(b"") && !token.is(b"pca_"));
        assert!(AdminToken::load_or_make(&path).unwrap().is(text.as_bytes()));
    }

    #[test]
    fn refuses_files_that_others_can_read_and_weak_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin");
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        write(&"x".repeat(40), 0o640);
        let exposed = AdminToken::load_or_make(&path).err().unwrap();
        assert!(matches!(
            exposed,
            ControlError::FileExposed { mode: 0o640, .. }
        ));
        for weak in [
            String::new(),
            "short".into(),
            "x".repeat(31),
            "y ".repeat(30),
        ] {
            write(&weak, 0o600);
            let refused = AdminToken::load_or_make(&path).err().unwrap();
            assert!(
                matches!(refused, ControlError::WeakAdminToken { .. }),
                "{weak:?}"
            );
            assert!(weak.is_empty() || !refused.to_string().contains(&weak));
        }
        let missing = folder.path().join("no/such/folder/admin");
        assert!(matches!(
            AdminToken::load_or_make(&missing),
            Err(ControlError::File { .. })
        ));
    }
}
