//! Paths inside a root directory that somebody else controls. The kernel does the resolution (`openat2` with
//! `RESOLVE_IN_ROOT`): `..` and symbolic links, relative or absolute, never lead out of the root, not even when
//! they are changed at the same time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use tripod_model::{Error, Result};

/// What to open a directory with, to work below it.
pub(crate) const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// A path cut into its parts, without `.`, with `..` applied to the text. `None` when it rises above its start.
pub(crate) fn parts(path: &[u8]) -> Option<Vec<&[u8]>> {
    let mut out: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                out.pop()?;
            }
            part => out.push(part),
        }
    }
    Some(out)
}

/// Opens a directory by its path on the host.
pub(crate) fn open_dir(path: &std::path::Path) -> Result<OwnedFd> {
    rustix::fs::open(path, DIR, Mode::empty()).map_err(|e| fault(e, path.display()))
}

/// Opens something inside the root, following symbolic links inside it.
pub(crate) fn open_in(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), INSIDE)
}

/// Opens (and makes where missing, mode 0755) the directory of these parts inside the root.
pub(crate) fn make_dirs(root: BorrowedFd<'_>, parts: &[&[u8]]) -> rustix::io::Result<OwnedFd> {
    let joined = parts.join(&b'/');
    match open_in(root, &joined, DIR) {
        Err(Errno::NOENT) if !parts.is_empty() => {}
        other => return other,
    }
    let (last, before) = parts.split_last().expect("not empty");
    let parent = make_dirs(root, before)?;
    match rustix::fs::mkdirat(&parent, *last, Mode::from_raw_mode(0o755)) {
        // A symbolic link that leads nowhere also exists; opening it below then fails, as it must.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    open_in(root, &joined, DIR)
}

/// Metadata of a name in a directory, the link itself when it is one. `None` when there is none.
pub(crate) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Type of file of a `stat`.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Removes a name and, when it is a directory, everything in it, never following a link or entering a mount.
pub(crate) fn remove_all(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    let flags = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let inner = rustix::fs::openat2(dir, name, DIR | OFlags::NOFOLLOW, Mode::empty(), flags)?;
    for child in names(inner.as_fd())? {
        remove_all(inner.as_fd(), &child)?;
    }
    drop(inner);
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Removes a path of the host's own (not a container's) with everything in it.
pub(crate) fn remove_path(path: &std::path::Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::internal(format!("cannot remove {}", path.display())));
    };
    let parent = open_dir(parent)?;
    remove_all(parent.as_fd(), name.as_encoded_bytes()).map_err(|e| fault(e, path.display()))
}

/// Names in a directory, without `.` and `..`, sorted, so that what is made of them is the same each time.
pub(crate) fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            out.push(name.to_vec());
        }
    }
    out.sort_unstable();
    Ok(out)
}

/// Path of an open file, for calls that take no descriptor.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A failed system call as an error with the path it was about.
pub(crate) fn fault(e: Errno, what: impl std::fmt::Display) -> Error {
    let text = std::io::Error::from(e);
    match e {
        Errno::NOSPC | Errno::DQUOT => Error::unavailable(format!("{what}: no space left on device")),
        Errno::NOENT => Error::not_found(format!("{what}: no such file or directory")),
        _ => Error::internal(format!("{what}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut() {
        assert_eq!(parts(b"/a/./b//c/").unwrap(), [&b"a"[..], b"b", b"c"]);
        assert_eq!(parts(b"a/../b").unwrap(), [&b"b"[..]]);
        assert!(parts(b"a/../../b").is_none());
        assert!(parts(b"../x").is_none());
    }

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../../../../", root.join("up")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("abs")).unwrap();
        let fd = open_dir(&root).unwrap();
        assert!(open_in(fd.as_fd(), b"up/secret", OFlags::RDONLY).is_err());
        assert!(open_in(fd.as_fd(), b"../secret", OFlags::RDONLY).is_err());
        assert!(open_in(fd.as_fd(), b"abs/passwd", OFlags::RDONLY).is_err());
        make_dirs(fd.as_fd(), &[b"up", b"abs", b"new"]).unwrap();
        assert!(root.join("etc/new").is_dir());
        remove_path(&root).unwrap();
        assert!(!root.exists() && dir.path().join("secret").exists());
    }
}
