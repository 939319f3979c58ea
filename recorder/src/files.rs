//! The archive's folder: its permissions, its lock, its segment files.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::{RecorderError, SEGMENT_BYTES_MAX};
use crate::frame::{FRAME_BYTES_MAX, HEADER_BYTES};

/// Most segments of one archive: a reader lists them all.
const SEGMENTS_MAX: usize = 1 << 20;
/// Largest number of a segment, far beyond what a disk holds, so that sums of numbers stay sums.
const SEGMENT_NUMBER_MAX: u64 = 1 << 53;
/// Largest file that a reader takes for a segment: a full one with the largest record on top.
const FILE_BYTES_MAX: u64 = SEGMENT_BYTES_MAX + (FRAME_BYTES_MAX + HEADER_BYTES) as u64;

/// One segment's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentFile {
    pub number: u64,
    pub path: PathBuf,
    pub bytes: u64,
}

pub(crate) fn io_error(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> RecorderError + use<> {
    let path = path.to_owned();
    move |source| RecorderError::Io { what, path, source }
}

/// The path of a segment: its number in at least eight digits.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

/// Makes the folder where it is missing and takes its lock, which lives as long as the file.
pub(crate) fn open_directory(dir: &Path) -> Result<File, RecorderError> {
    if !dir.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io_error("create", dir))?;
    }
    let mode = fs::metadata(dir)
        .map_err(io_error("look at", dir))?
        .permissions()
        .mode()
        & 0o7777;
    if mode & 0o077 != 0 {
        return Err(RecorderError::Permissions {
            dir: dir.to_owned(),
            mode,
        });
    }
    let path = dir.join("recorder.lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(RecorderError::InUse {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(RecorderError::Io {
            what: "lock",
            path,
            source,
        }),
    }
}

/// All segments, in order of their numbers.
pub(crate) fn list_segments(dir: &Path) -> Result<Vec<SegmentFile>, RecorderError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        let path = entry.path();
        let Some(number) = segment_number(&path) else {
            continue;
        };
        // A segment may be deleted by retention between the listing and this look.
        let bytes = match entry.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => {
                return Err(RecorderError::Io {
                    what: "look at",
                    path,
                    source,
                });
            }
        };
        segments.push(SegmentFile {
            number,
            path,
            bytes,
        });
        if segments.len() > SEGMENTS_MAX {
            return Err(RecorderError::Damaged {
                segment: 0,
                what: format!("the archive has more than {SEGMENTS_MAX} segments"),
            });
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

/// Only the one spelling that the writer uses is a segment's name, so no two files share a number.
fn segment_number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number: u64 = name.strip_suffix(".seg")?.parse().ok()?;
    let is_number = (1..=SEGMENT_NUMBER_MAX).contains(&number);
    (is_number && format!("{number:08}.seg") == name).then_some(number)
}

/// A whole segment in memory; `None` if it is not there (any more).
pub(crate) fn read_segment(segment: &SegmentFile) -> Result<Option<Vec<u8>>, RecorderError> {
    let length = match fs::metadata(&segment.path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(RecorderError::Io {
                what: "look at",
                path: segment.path.clone(),
                source,
            });
        }
    };
    if length > FILE_BYTES_MAX {
        return Err(RecorderError::Damaged {
            segment: segment.number,
            what: format!("the file has {length} bytes, no segment has more than {FILE_BYTES_MAX}"),
        });
    }
    match fs::read(&segment.path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RecorderError::Io {
            what: "read",
            path: segment.path.clone(),
            source,
        }),
    }
}

/// The first bytes of a segment, as many as a header has or fewer.
pub(crate) fn read_header(path: &Path) -> Result<Vec<u8>, RecorderError> {
    use std::io::Read;
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    File::open(path)
        .and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut bytes))
        .map_err(io_error("read", path))?;
    Ok(bytes)
}

/// Where a segment's header waits until the segment before it is closed.
pub(crate) fn prepared_path(dir: &Path, number: u64) -> PathBuf {
    segment_path(dir, number).with_extension("tmp")
}

/// Writes a segment's header, durable, under a name that is not a segment's yet. A crash on the way
/// to `publish_segment` leaves a `.tmp` file, never a segment without its header.
pub(crate) fn prepare_segment(
    dir: &Path,
    number: u64,
    header: &[u8; HEADER_BYTES],
) -> Result<File, RecorderError> {
    let path = prepared_path(dir, number);
    remove_if_there(&path)?;
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("create", &path))?;
    file.write_all(header)
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", &path))?;
    sync_directory(dir)?;
    Ok(file)
}

/// Gives a prepared segment its name, durable.
pub(crate) fn publish_segment(dir: &Path, number: u64) -> Result<(), RecorderError> {
    let path = segment_path(dir, number);
    if path.exists() {
        return Err(RecorderError::Damaged {
            segment: number,
            what: "a file of this number is there already".to_owned(),
        });
    }
    fs::rename(prepared_path(dir, number), &path).map_err(io_error("name", &path))?;
    sync_directory(dir)
}

/// Deletes a file and makes that durable.
pub(crate) fn delete_segment(dir: &Path, path: &Path) -> Result<(), RecorderError> {
    remove_if_there(path)?;
    sync_directory(dir)
}

fn remove_if_there(path: &Path) -> Result<(), RecorderError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(RecorderError::Io {
            what: "delete",
            path: path.to_owned(),
            source,
        }),
    }
}

fn sync_directory(dir: &Path) -> Result<(), RecorderError> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(io_error("sync", dir))
}
