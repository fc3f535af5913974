//! Writes trees of files as tar (ustar with PAX headers for what does not fit), for `export`, `cp`, `commit`.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};
use tripod_model::{Error, Result};

use super::beneath::{self, fault};
use super::unpack::OPAQUE_XATTR;

const CAPABILITY: &str = "security.capability";

/// Writes entries; hard links among them stay links.
pub(crate) struct TarWriter<W: Write> {
    out: Builder<W>,
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Translate overlayfs's marks into whiteouts.
    layer: bool,
    /// Directories or files laid over the tree: path in the tree and path on the host.
    over: Vec<(Vec<u8>, PathBuf)>,
}

impl<W: Write> TarWriter<W> {
    /// For files as they are.
    pub(crate) fn new(out: W, over: Vec<(Vec<u8>, PathBuf)>) -> Self {
        Self {
            out: Builder::new(out),
            links: HashMap::new(),
            layer: false,
            over,
        }
    }

    /// For the upper directory of an overlay, as a layer.
    pub(crate) fn layer(out: W) -> Self {
        Self {
            out: Builder::new(out),
            links: HashMap::new(),
            layer: true,
            over: Vec::new(),
        }
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> Result<W> {
        self.out.into_inner().map_err(Error::from)
    }

    /// Writes what is in a directory. `inside` is its path in the tree, `prefix` the path in the archive.
    pub(crate) fn children(&mut self, dir: BorrowedFd<'_>, inside: &[u8], prefix: &[u8]) -> Result<()> {
        for name in beneath::names(dir).map_err(|e| fault(e, "read directory"))? {
            self.entry(dir, &name, &join(inside, &name), &join(prefix, &name))?;
        }
        Ok(())
    }

    /// Writes one name of a directory, with all that is below it.
    pub(crate) fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        inside: &[u8],
        path: &[u8],
    ) -> Result<()> {
        if let Some((_, host)) = self.over.iter().find(|(at, _)| at == inside) {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let fd = rustix::fs::open(host, flags, Mode::empty()).map_err(|e| fault(e, host.display()))?;
            let stat = rustix::fs::fstat(&fd).map_err(|e| fault(e, host.display()))?;
            let reopen =
                |flags: OFlags| rustix::fs::open(beneath::proc_path(fd.as_fd()), flags, Mode::empty());
            return self.one(&stat, reopen, || Ok(Vec::new()), inside, path);
        }
        let Some(stat) = beneath::stat(dir, name).map_err(|e| fault(e, "stat"))? else {
            return Ok(());
        };
        let open = |flags: OFlags| rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty());
        let link = || rustix::fs::readlinkat(dir, name, Vec::new()).map(std::ffi::CString::into_bytes);
        self.one(&stat, open, link, inside, path)
    }

    fn one(
        &mut self,
        stat: &Stat,
        open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>,
        link: impl Fn() -> rustix::io::Result<Vec<u8>>,
        inside: &[u8],
        path: &[u8],
    ) -> Result<()> {
        let shown = || String::from_utf8_lossy(path).into_owned();
        let mut header = header(stat);
        match beneath::kind(stat) {
            FileType::Directory => {
                let fd = match open(beneath::DIR) {
                    Ok(fd) => fd,
                    // It went while the archive was written.
                    Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
                    Err(e) => return Err(fault(e, shown())),
                };
                header.set_entry_type(EntryType::Directory);
                let mut slashed = path.to_vec();
                slashed.push(b'/');
                self.put(header, &slashed, &[], &xattrs(&fd), io::empty())?;
                if self.layer && is_opaque(&fd) {
                    self.marker(&join(path, b".wh..wh..opq"))?;
                }
                self.children(fd.as_fd(), inside, path)
            }
            FileType::Symlink => {
                header.set_entry_type(EntryType::Symlink);
                let target = link().map_err(|e| fault(e, shown()))?;
                self.put(header, path, &target, &[], io::empty())
            }
            FileType::CharacterDevice if self.layer && stat.st_rdev == 0 => {
                let (dir, name) = match path.iter().rposition(|b| *b == b'/') {
                    Some(at) => (&path[..at], &path[at + 1..]),
                    None => (&[][..], path),
                };
                self.marker(&join(dir, &[b".wh.", name].concat()))
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) => {
                header.set_entry_type(match kind {
                    FileType::CharacterDevice => EntryType::Char,
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                });
                if kind != FileType::Fifo {
                    header.set_device_major(rustix::fs::major(stat.st_rdev))?;
                    header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
                }
                self.put(header, path, &[], &[], io::empty())
            }
            FileType::RegularFile => self.file(header, stat, open, path),
            // Sockets mean nothing in an archive.
            _ => Ok(()),
        }
    }

    fn file(
        &mut self,
        mut header: Header,
        stat: &Stat,
        open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>,
        path: &[u8],
    ) -> Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                header.set_entry_type(EntryType::Link);
                return self.put(header, path, &first, &[], io::empty());
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        // Not to hang if somebody puts a FIFO in its place.
        let fd = match open(OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP) => return Ok(()),
            Err(e) => return Err(fault(e, String::from_utf8_lossy(path))),
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        header.set_size(size);
        header.set_entry_type(EntryType::Regular);
        let attributes = xattrs(&fd);
        // A file that shrinks meanwhile is filled up, one that grows is cut: the header is out already.
        let data = std::fs::File::from(fd).chain(io::repeat(0)).take(size);
        self.put(header, path, &[], &attributes, data)
    }

    fn marker(&mut self, path: &[u8]) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        self.put(header, path, &[], &[], io::empty())
    }

    /// Writes a header, with a PAX header before it for what ustar has no room for.
    fn put(
        &mut self,
        mut header: Header,
        path: &[u8],
        link: &[u8],
        attributes: &[(String, Vec<u8>)],
        data: impl Read,
    ) -> Result<()> {
        let mut extra: Vec<(&str, &[u8])> = attributes
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_slice()))
            .collect();
        if path.len() > 100 {
            extra.push(("path", path));
        }
        if link.len() > 100 {
            extra.push(("linkpath", link));
        }
        if !extra.is_empty() {
            self.out.append_pax_extensions(extra)?;
        }
        let old = header.as_old_mut();
        let n = path.len().min(100);
        old.name[..n].copy_from_slice(&path[..n]);
        let n = link.len().min(100);
        old.linkname[..n].copy_from_slice(&link[..n]);
        header.set_cksum();
        self.out.append(&header, data).map_err(Error::from)
    }

    /// Writes a file that is in memory, or whose bytes a reader gives.
    pub(crate) fn plain(&mut self, path: &str, size: u64, data: impl Read, mtime: u64) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_mtime(mtime);
        self.put(header, path.as_bytes(), &[], &[], data)
    }
}

fn header(stat: &Stat) -> Header {
    let mut header = Header::new_ustar();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

/// File capabilities are what programs need to work; as other engines, nothing else is taken along.
fn xattrs(fd: &OwnedFd) -> Vec<(String, Vec<u8>)> {
    let mut buf = [0u8; 256];
    match rustix::fs::fgetxattr(fd, CAPABILITY, &mut buf[..]) {
        Ok(n) => vec![(format!("SCHILY.xattr.{CAPABILITY}"), buf[..n].to_vec())],
        Err(_) => Vec::new(),
    }
}

/// Whether an overlay's directory hides what is below it.
pub(crate) fn is_opaque(fd: &OwnedFd) -> bool {
    let mut buf = [0u8; 8];
    rustix::fs::fgetxattr(fd, OPAQUE_XATTR, &mut buf[..]).is_ok_and(|n| &buf[..n] == b"y")
}
