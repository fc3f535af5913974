//! A container's files as the container sees them: its root with volumes laid over it. Paths are walked one
//! name at a time on open directories, links are followed in the container's own terms, so that no path, link or
//! race leads out.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tripod_model::Result;

use super::beneath::{self, fault};

/// As in the kernel.
const MAX_LINKS: usize = 40;
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Root and overlays.
pub(crate) struct View {
    root: OwnedFd,
    over: Vec<(Vec<Vec<u8>>, PathBuf)>,
}

/// Something found.
pub(crate) struct Place {
    /// `O_PATH` descriptor of it.
    pub(crate) fd: OwnedFd,
    /// The directory it is in; the root is in none.
    pub(crate) parent: Option<OwnedFd>,
    /// Where it really is, in the container.
    pub(crate) path: Vec<Vec<u8>>,
}

impl Place {
    pub(crate) fn stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.fd).map_err(|e| fault(e, self.text()))
    }

    /// Its absolute path in the container.
    pub(crate) fn text(&self) -> String {
        format!("/{}", String::from_utf8_lossy(&self.path.join(&b'/')))
    }
}

impl View {
    /// Over a mounted root. Overlays: path in the container, path on the host.
    pub(crate) fn new(root: &Path, over: &[(String, PathBuf)]) -> Result<Self> {
        let over = over.iter().map(|(at, host)| {
            let parts = beneath::parts(at.as_bytes()).unwrap_or_default();
            (parts.into_iter().map(<[u8]>::to_vec).collect(), host.clone())
        });
        Ok(Self {
            root: beneath::open_dir(root)?,
            over: over.collect(),
        })
    }

    /// Overlays in the form that the archive writer takes.
    pub(crate) fn overlays(&self) -> Vec<(Vec<u8>, PathBuf)> {
        self.over
            .iter()
            .map(|(at, host)| (at.join(&b'/'), host.clone()))
            .collect()
    }

    /// Finds a path. Links on the way are followed, the last name only with `follow`; with `make` missing
    /// directories are made (mode 0755).
    pub(crate) fn find(&self, path: &[u8], follow: bool, make: bool) -> rustix::io::Result<Place> {
        let mut todo: VecDeque<Vec<u8>> = split(path);
        let mut stack: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                stack.pop();
                continue;
            }
            let at = stack.last().map_or(&self.root, |(_, fd)| fd);
            let fd = match self.step(at, &stack, &name) {
                Err(Errno::NOENT) if make => {
                    let dir = real_dir(at)?;
                    match rustix::fs::mkdirat(&dir, &name[..], Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(e) => return Err(e),
                    }
                    self.step(at, &stack, &name)?
                }
                other => other?,
            };
            let is_link = beneath::kind(&rustix::fs::fstat(&fd)?) == FileType::Symlink;
            if is_link && (follow || !todo.is_empty()) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes();
                if target.first() == Some(&b'/') {
                    stack.clear();
                }
                for part in split(&target).into_iter().rev() {
                    todo.push_front(part);
                }
                continue;
            }
            stack.push((name, fd));
        }
        let path = stack.iter().map(|(name, _)| name.clone()).collect();
        let fd = match stack.pop() {
            Some((_, fd)) => fd,
            None => rustix::io::dup(&self.root)?,
        };
        let parent = match stack.pop() {
            Some((_, parent)) => Some(parent),
            None => Some(rustix::io::dup(&self.root)?),
        };
        Ok(Place { fd, parent, path })
    }

    fn step(&self, at: &OwnedFd, stack: &[(Vec<u8>, OwnedFd)], name: &[u8]) -> rustix::io::Result<OwnedFd> {
        let here = |over: &[Vec<u8>]| {
            over.len() == stack.len() + 1
                && over.last().is_some_and(|last| last == name)
                && stack.iter().zip(over).all(|((a, _), b)| a == b)
        };
        match self.over.iter().rfind(|(over, _)| here(over)) {
            Some((_, host)) => rustix::fs::open(host, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
            None => rustix::fs::openat(at, name, HANDLE, Mode::empty()),
        }
    }

    /// A directory to work in.
    pub(crate) fn dir(&self, path: &[u8], make: bool) -> rustix::io::Result<OwnedFd> {
        real_dir(&self.find(path, true, make)?.fd)
    }
}

/// Opens what an `O_PATH` descriptor of a directory stands for.
pub(crate) fn real_dir(fd: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(fd.as_fd(), ".", beneath::DIR, Mode::empty())
}

fn split(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|b| *b == b'/')
        .filter(|p| !p.is_empty() && *p != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_in_the_containers_terms() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        std::fs::create_dir_all(root.join("data")).unwrap();
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::write(volume.join("in-volume"), "x").unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, root.join(at)).unwrap();
        link("/data", "abs");
        link("../../../../outside", "up");
        link("loop", "loop");
        let view = View::new(&root, &[("/data".into(), volume)]).unwrap();
        let found = view.find(b"/abs/in-volume", true, false).unwrap();
        assert_eq!(found.text(), "/data/in-volume");
        assert_eq!(view.find(b"up", true, false).err(), Some(Errno::NOENT));
        assert_eq!(view.find(b"loop", true, false).err(), Some(Errno::LOOP));
        assert_eq!(view.find(b"/../../..", true, false).unwrap().text(), "/");
        assert_eq!(
            view.find(b"abs/../abs/../data", true, false).unwrap().text(),
            "/data"
        );
        assert_eq!(view.find(b"abs", false, false).unwrap().text(), "/abs");
        view.dir(b"abs/new/deep", true).unwrap();
        assert!(dir.path().join("volume/new/deep").is_dir());
    }
}
