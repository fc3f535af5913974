//! Unpacks tar archives below a directory: layers of images (whiteouts become overlayfs's form) and archives
//! that clients copy into containers. Nothing in the archive can reach outside that directory.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;
use tripod_model::{Error, Result};

use super::beneath::{self, fault};
use super::tarread::{self, Entry, Kind, TarReader};
use super::view::View;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const CHUNK: usize = 128 * 1024;

/// Marks a directory that hides what lower layers have in it.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// What the archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A layer: whiteouts are translated.
    Layer,
    /// Files for a container: names are taken as they are. With `keep_kinds` a directory and a file never
    /// replace each other.
    Copy { keep_kinds: bool },
}

/// Where an archive goes. Nothing above is ever touched.
pub(crate) enum Into<'a> {
    /// A directory of the store's own.
    Root(OwnedFd),
    /// A directory of a container; links inside lead where the container would follow them.
    View(&'a View, Vec<Vec<u8>>),
}

impl Into<'_> {
    /// Opens the directory of these parts, and with `make` makes it where it is missing.
    fn dir(&self, parts: &[&[u8]], make: bool) -> rustix::io::Result<OwnedFd> {
        match self {
            Self::Root(root) if make => beneath::make_dirs(root.as_fd(), parts),
            Self::Root(root) => beneath::open_in(root.as_fd(), &parts.join(&b'/'), beneath::DIR),
            Self::View(view, base) => {
                let base = base.iter().map(Vec::as_slice);
                view.dir(
                    &base.chain(parts.iter().copied()).collect::<Vec<_>>().join(&b'/'),
                    make,
                )
            }
        }
    }
}

/// Unpacks one archive. `limit` is the number of bytes that its files may have together.
pub(crate) fn unpack(root: &Path, archive: impl Read, purpose: Purpose, limit: u64) -> Result<u64> {
    unpack_into(Into::Root(beneath::open_dir(root)?), archive, purpose, limit)
}

/// As [`unpack`], also into containers.
pub(crate) fn unpack_into(root: Into<'_>, archive: impl Read, purpose: Purpose, limit: u64) -> Result<u64> {
    let mut u = Unpacker {
        root,
        purpose,
        parent: None,
        dirs: Vec::new(),
        left: limit,
        size: 0,
        buf: vec![0; CHUNK],
    };
    let mut tar = TarReader::new(archive);
    while let Some(entry) = tar.next()? {
        u.entry(&entry, &mut tar)
            .map_err(|e| e.context(format!("unpacking {:?}", entry.name())))?;
    }
    u.finish();
    // Trailing blocks belong to the stream too: whoever digests it must see them.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(tarread::bad)?;
    Ok(u.size)
}

/// Bytes that an archive may take on the filesystem of a path: what is free, less a reserve.
pub(crate) fn free_space(path: &Path) -> Result<u64> {
    let s = rustix::fs::statvfs(path).map_err(|e| fault(e, path.display()))?;
    // Something is left for the daemon's own files: less on a small filesystem.
    let reserve = (s.f_blocks * s.f_frsize / 32).min(64 << 20);
    Ok((s.f_bavail * s.f_frsize).saturating_sub(reserve))
}

struct Unpacker<'a> {
    root: Into<'a>,
    purpose: Purpose,
    /// The directory of the last entry: neighbours come one after the other.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories whose time is set at the end, when nothing is put into them any more.
    dirs: Vec<(Vec<u8>, Timespec)>,
    left: u64,
    size: u64,
    buf: Vec<u8>,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<()> {
        let outside = || Error::invalid("the path leads out of the archive");
        let parts = beneath::parts(&entry.path).ok_or_else(outside)?;
        let Some((name, before)) = parts.split_last() else {
            return if entry.kind == Kind::Dir {
                self.root_dir(entry)
            } else {
                Err(outside())
            };
        };
        if name.len() > 255 {
            return Err(Error::invalid("file name too long"));
        }
        self.enter(before)?;
        if self.purpose == Purpose::Layer && name.starts_with(WHITEOUT) {
            return self.whiteout(name);
        }
        let opaque = self.make_room(name, entry)?;
        match entry.kind {
            Kind::File => self.file(name, entry, tar),
            Kind::Dir => self.dir(&parts, name, entry, opaque),
            Kind::Symlink => self.symlink(name, entry),
            Kind::Hardlink => self.hardlink(name, entry),
            Kind::Char(..) | Kind::Block(..) | Kind::Fifo => self.node(name, entry),
        }
    }

    fn enter(&mut self, before: &[&[u8]]) -> Result<()> {
        let joined = before.join(&b'/');
        if self.parent.as_ref().is_some_and(|(path, _)| *path == joined) {
            return Ok(());
        }
        let fd = self.root.dir(before, true).map_err(|e| match e {
            Errno::NOTDIR | Errno::LOOP | Errno::NOENT | Errno::NAMETOOLONG => {
                Error::invalid(format!("cannot make its directory: {}", io::Error::from(e)))
            }
            e => fault(e, "directory"),
        })?;
        self.parent = Some((joined, fd));
        Ok(())
    }

    fn parent(&self) -> &OwnedFd {
        &self.parent.as_ref().expect("entered").1
    }

    /// `.wh.NAME` hides NAME of the layers below, as a device 0:0; `.wh..wh..opq` hides all of them.
    fn whiteout(&mut self, name: &[u8]) -> Result<()> {
        let parent = self.parent();
        if name == OPAQUE {
            return set_opaque(parent);
        }
        let hidden = &name[WHITEOUT.len()..];
        if hidden.is_empty() || hidden.starts_with(WHITEOUT) || hidden == b"." || hidden == b".." {
            // Other names of this prefix are aufs's own.
            return Ok(());
        }
        match beneath::stat(parent.as_fd(), hidden).map_err(|e| fault(e, "whiteout"))? {
            None => make_whiteout(parent, hidden),
            // The layer both removes and makes it: a directory starts anew, a file replaces by itself.
            Some(stat) if beneath::kind(&stat) == FileType::Directory => {
                let dir = open_child(parent, hidden)?;
                set_opaque(&dir)
            }
            Some(_) => Ok(()),
        }
    }

    /// Removes what stands where the entry goes. True when that was a whiteout that a directory replaces.
    fn make_room(&mut self, name: &[u8], entry: &Entry) -> Result<bool> {
        let parent = self.parent();
        let Some(stat) = beneath::stat(parent.as_fd(), name).map_err(|e| fault(e, "stat"))? else {
            return Ok(false);
        };
        let is_dir = beneath::kind(&stat) == FileType::Directory;
        if is_dir && entry.kind == Kind::Dir {
            return Ok(false);
        }
        if self.purpose == (Purpose::Copy { keep_kinds: true }) && is_dir != (entry.kind == Kind::Dir) {
            let name = String::from_utf8_lossy(name);
            return Err(Error::invalid(if is_dir {
                format!("cannot overwrite directory \"{name}\" with non-directory")
            } else {
                format!("cannot overwrite non-directory \"{name}\" with directory")
            }));
        }
        let was_whiteout = beneath::kind(&stat) == FileType::CharacterDevice && stat.st_rdev == 0;
        beneath::remove_all(parent.as_fd(), name).map_err(|e| fault(e, "replace"))?;
        if is_dir {
            self.parent = None;
            let parts = beneath::parts(&entry.path).unwrap_or_default();
            self.enter(&parts[..parts.len() - 1])?;
        }
        Ok(was_whiteout && self.purpose == Purpose::Layer && entry.kind == Kind::Dir)
    }

    fn file<R: Read>(&mut self, name: &[u8], entry: &Entry, tar: &mut TarReader<R>) -> Result<()> {
        if entry.size > self.left {
            return Err(Error::unavailable(
                "no space left on device for what the archive unpacks to",
            ));
        }
        self.left -= entry.size;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.parent(), name, flags, Mode::from_raw_mode(0o600))
            .map_err(|e| fault(e, "create"))?;
        match &entry.pieces {
            None => self.data(&fd, 0, entry.size, tar)?,
            Some(pieces) => {
                for (offset, len) in pieces {
                    self.data(&fd, *offset, *len, tar)?;
                }
            }
        }
        if entry.size > 0 {
            rustix::fs::ftruncate(&fd, entry.size).map_err(|e| fault(e, "size"))?;
        }
        self.size += entry.size;
        finish_fd(&fd, entry)?;
        rustix::fs::futimens(&fd, &times(mtime(entry))).map_err(|e| fault(e, "time"))
    }

    /// Copies bytes; long runs of zeros become holes.
    fn data<R: Read>(
        &mut self,
        fd: &OwnedFd,
        mut offset: u64,
        len: u64,
        tar: &mut TarReader<R>,
    ) -> Result<()> {
        let mut left = len;
        while left > 0 {
            let want = self.buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = tar.read(&mut self.buf[..want]).map_err(tarread::bad)?;
            if n == 0 {
                return Err(tarread::truncated());
            }
            let chunk = &self.buf[..n];
            if n < 4096 || chunk.iter().any(|b| *b != 0) {
                let mut done = 0;
                while done < n {
                    done += rustix::io::pwrite(fd, &chunk[done..], offset + done as u64)
                        .map_err(|e| fault(e, "write"))?;
                }
            }
            offset += n as u64;
            left -= n as u64;
        }
        Ok(())
    }

    fn root_dir(&mut self, entry: &Entry) -> Result<()> {
        // The directory that a client copies into stays as it is.
        if let Into::Root(root) = &self.root {
            finish_fd(root, entry)?;
            self.dirs.push((Vec::new(), mtime(entry)));
        }
        Ok(())
    }

    fn dir(&mut self, parts: &[&[u8]], name: &[u8], entry: &Entry, opaque: bool) -> Result<()> {
        match rustix::fs::mkdirat(self.parent(), name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(fault(e, "mkdir")),
        }
        let fd = open_child(self.parent(), name)?;
        finish_fd(&fd, entry)?;
        if opaque {
            set_opaque(&fd)?;
        }
        self.dirs.push((parts.join(&b'/'), mtime(entry)));
        Ok(())
    }

    fn symlink(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        if entry.link.is_empty() {
            return Err(Error::invalid("symbolic link without a target"));
        }
        rustix::fs::symlinkat(&entry.link[..], self.parent(), name).map_err(|e| fault(e, "symlink"))?;
        self.finish_name(name, entry)
    }

    fn hardlink(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let wrong = |why: &str| {
            Error::invalid(format!(
                "hard link to {:?}: {why}",
                String::from_utf8_lossy(&entry.link)
            ))
        };
        let parts = beneath::parts(&entry.link).ok_or_else(|| wrong("leads out of the archive"))?;
        let (target, before) = parts.split_last().ok_or_else(|| wrong("not a file"))?;
        let dir = self
            .root
            .dir(before, false)
            .map_err(|_| wrong("no such file in the archive"))?;
        rustix::fs::linkat(&dir, *target, self.parent(), name, AtFlags::empty()).map_err(|e| match e {
            Errno::NOENT | Errno::PERM | Errno::XDEV => wrong("no such file in the archive"),
            e => fault(e, "link"),
        })
    }

    fn node(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let (kind, device) = match entry.kind {
            Kind::Char(major, minor) => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            Kind::Block(major, minor) => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
            _ => (FileType::Fifo, 0),
        };
        let mode = Mode::from_raw_mode(entry.mode);
        match rustix::fs::mknodat(self.parent(), name, kind, mode, device) {
            Ok(()) => {}
            // Without the right to make devices an image still unpacks, as in other engines' user namespaces.
            Err(Errno::PERM) => {
                tracing::warn!(path = %entry.name(), "device node left out: not permitted");
                return Ok(());
            }
            Err(e) => return Err(fault(e, "mknod")),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(self.parent(), name, flags, Mode::empty()).map_err(|e| fault(e, "open"))?;
        self.finish_name(name, entry)?;
        rustix::fs::chmod(beneath::proc_path(fd.as_fd()), mode).map_err(|e| fault(e, "chmod"))
    }

    /// Owner and time of what cannot be opened.
    fn finish_name(&self, name: &[u8], entry: &Entry) -> Result<()> {
        let at = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(
            self.parent(),
            name,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
            at,
        )
        .map_err(|e| fault(e, "chown"))?;
        rustix::fs::utimensat(self.parent(), name, &times(mtime(entry)), at).map_err(|e| fault(e, "time"))
    }

    fn finish(&mut self) {
        self.parent = None;
        for (path, time) in self.dirs.drain(..).rev() {
            // A directory that a later entry replaced has no time to keep.
            let parts = beneath::parts(&path).unwrap_or_default();
            if let Ok(fd) = self.root.dir(&parts, false) {
                let _ = rustix::fs::futimens(&fd, &times(time));
            }
        }
    }
}

/// Makes overlayfs's whiteout.
pub(crate) fn make_whiteout(dir: &OwnedFd, name: &[u8]) -> Result<()> {
    match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(fault(e, "whiteout")),
    }
}

fn set_opaque(dir: &OwnedFd) -> Result<()> {
    rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())
        .map_err(|e| fault(e, "opaque directory"))
}

fn open_child(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd> {
    rustix::fs::openat(parent, name, beneath::DIR | OFlags::NOFOLLOW, Mode::empty())
        .map_err(|e| fault(e, "open"))
}

/// Owner, mode and attributes, in this order: a change of owner clears the set-user-id bit and capabilities.
fn finish_fd(fd: &OwnedFd, entry: &Entry) -> Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
        .map_err(|e| fault(e, "chown"))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(|e| fault(e, "chmod"))?;
    for (name, value) in &entry.xattrs {
        // overlayfs's own attributes would let an image redirect lookups.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let Ok(name) = CString::new(name.clone()) else {
            continue;
        };
        match rustix::fs::fsetxattr(fd, &name, value, XattrFlags::empty()) {
            // Attributes that this filesystem or machine has no use for.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) => {}
            Err(e) => return Err(fault(e, "extended attribute")),
        }
    }
    Ok(())
}

fn mtime(entry: &Entry) -> Timespec {
    Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: entry.mtime.1.into(),
    }
}

fn times(mtime: Timespec) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: mtime,
    }
}
