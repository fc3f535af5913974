//! Small files that are replaced whole, and the directory they lie in.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::error::RaftError;

/// Makes a directory that only its owner can enter, and takes its lock for the life of the returned file.
pub(crate) fn claim_dir(dir: &Path) -> Result<File, RaftError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(RaftError::io(dir))?;
    let path = dir.join("lock");
    let lock = create(&path, false)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(RaftError::Busy(dir.to_owned())),
        Err(e) => Err(RaftError::io(path)(e.into())),
    }
}

/// Opens a file for reading and writing, readable by its owner only.
pub(crate) fn create(path: &Path, truncate: bool) -> Result<File, RaftError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(truncate)
        .mode(0o600)
        .open(path)
        .map_err(RaftError::io(path))
}

/// The content of a file, if it exists.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, RaftError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(RaftError::io(path)(e)),
    }
}

/// Replaces a file's content so that a crash leaves either the old or the new one, and the new one once this returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), RaftError> {
    let temporary = path.with_extension("tmp");
    let mut file = create(&temporary, true)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(RaftError::io(&temporary))?;
    rename(&temporary, path)
}

/// Renames within one directory, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), RaftError> {
    fs::rename(from, to).map_err(RaftError::io(from))?;
    sync_dir(to.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), RaftError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(RaftError::io(dir))
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), RaftError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(RaftError::io(path)(e)),
        _ => Ok(()),
    }
}
