//! The mounts of a container, made below its root directory before it becomes the root.
//!
//! Paths inside are resolved by the kernel within that directory (`RESOLVE_IN_ROOT`), and the mount is made on the
//! descriptor that came of it, so that links in an image never lead out.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use oci_spec::runtime::Mount;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::super::Failure;
use super::root::attributes;
use crate::images::beneath;

/// What the options of a mount say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Options {
    flags: Flags,
    /// For the filesystem.
    data: String,
    /// Set on the mount once it is there.
    propagation: Vec<MsFlags>,
    /// Attributes of the mount and all below it (`mount_setattr`): set and cleared.
    recursive: (u64, u64),
}

#[derive(Debug, PartialEq)]
struct Flags(MsFlags);

impl Default for Flags {
    fn default() -> Self {
        Self(MsFlags::empty())
    }
}

/// Options that set a flag, and those that clear it.
const FLAGS: [(&str, &str, MsFlags); 12] = [
    ("ro", "rw", MsFlags::MS_RDONLY),
    ("nosuid", "suid", MsFlags::MS_NOSUID),
    ("nodev", "dev", MsFlags::MS_NODEV),
    ("noexec", "exec", MsFlags::MS_NOEXEC),
    ("sync", "async", MsFlags::MS_SYNCHRONOUS),
    ("dirsync", "", MsFlags::MS_DIRSYNC),
    ("mand", "nomand", MsFlags::MS_MANDLOCK),
    ("noatime", "atime", MsFlags::MS_NOATIME),
    ("nodiratime", "diratime", MsFlags::MS_NODIRATIME),
    ("relatime", "norelatime", MsFlags::MS_RELATIME),
    ("strictatime", "nostrictatime", MsFlags::MS_STRICTATIME),
    ("bind", "", MsFlags::MS_BIND),
];

/// Kinds of propagation; with an `r` before it they go for everything below.
const PROPAGATION: [(&str, MsFlags); 4] = [
    ("private", MsFlags::MS_PRIVATE),
    ("shared", MsFlags::MS_SHARED),
    ("slave", MsFlags::MS_SLAVE),
    ("unbindable", MsFlags::MS_UNBINDABLE),
];

/// Attributes that go for everything below with an `r` before their name (`linux/mount.h`).
const RECURSIVE: [(&str, &str, u64); 6] = [
    ("rro", "rrw", libc::MOUNT_ATTR_RDONLY),
    ("rnosuid", "rsuid", libc::MOUNT_ATTR_NOSUID),
    ("rnodev", "rdev", libc::MOUNT_ATTR_NODEV),
    ("rnoexec", "rexec", libc::MOUNT_ATTR_NOEXEC),
    ("rnodiratime", "rdiratime", libc::MOUNT_ATTR_NODIRATIME),
    ("rnosymfollow", "rsymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Propagation by its name in the specification.
pub(super) fn propagation(name: &str) -> Option<MsFlags> {
    let plain = PROPAGATION.iter().find(|(n, _)| *n == name).map(|(_, f)| *f);
    plain.or_else(|| {
        let (_, f) = PROPAGATION
            .iter()
            .find(|(n, _)| name.strip_prefix('r') == Some(n))?;
        Some(*f | MsFlags::MS_REC)
    })
}

impl Options {
    pub(super) fn of(list: &[String]) -> Self {
        let mut all = Self::default();
        let mut data: Vec<&str> = Vec::new();
        for o in list {
            let o = o.as_str();
            if let Some((set, _, flag)) = FLAGS.iter().find(|(set, clear, _)| o == *set || o == *clear) {
                all.flags.0.set(*flag, o == *set);
            } else if o == "rbind" {
                all.flags.0 |= MsFlags::MS_BIND | MsFlags::MS_REC;
            } else if let Some(p) = propagation(o) {
                all.propagation.push(p);
            } else if let Some((set, _, a)) =
                RECURSIVE.iter().find(|(set, clear, _)| o == *set || o == *clear)
            {
                let (add, remove) = if o == *set { (*a, 0) } else { (0, *a) };
                all.recursive = (all.recursive.0 & !remove | add, all.recursive.1 & !add | remove);
            } else if !matches!(o, "defaults" | "" | "nofail") {
                data.push(o);
            }
        }
        all.data = data.join(",");
        all
    }

    fn is_bind(&self) -> bool {
        self.flags.0.contains(MsFlags::MS_BIND)
    }
}

/// The container's root directory on its way to become the root.
pub(super) struct Tree {
    root: OwnedFd,
    /// Memory filesystems to be made read-only when everything in them is there.
    finish: Vec<PathBuf>,
}

impl Tree {
    /// From a descriptor of the root directory, opened through the mount that is to become the root.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            finish: Vec::new(),
        }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Directory inside, made where missing.
    pub(super) fn directory(&self, path: &Path) -> Result<OwnedFd, Failure> {
        let parts = beneath::parts(path.as_os_str().as_bytes())
            .ok_or_else(|| Failure::invalid(format!("invalid mount path: {}", path.display())))?;
        beneath::make_dirs(self.root(), &parts)
            .map_err(|e| failed(path, path, &nix::Error::from_raw(e.raw_os_error())))
    }

    /// What is at a path inside, following links there; an empty file is made where nothing is.
    fn file(&self, path: &Path) -> Result<OwnedFd, Failure> {
        let bytes = path.as_os_str().as_bytes();
        let fault = |e: rustix::io::Errno| failed(path, path, &nix::Error::from_raw(e.raw_os_error()));
        match beneath::open_in(self.root(), bytes, OFlags::PATH) {
            Err(rustix::io::Errno::NOENT) => {}
            other => return other.map_err(fault),
        }
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        rustix::fs::openat2(
            self.root(),
            bytes,
            OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::from_raw_mode(0o644),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
        .map_err(fault)
    }

    /// Makes one mount of the specification.
    pub(super) fn mount(&mut self, m: &Mount) -> Result<(), Failure> {
        let none = Vec::new();
        let options = Options::of(m.options().as_ref().unwrap_or(&none));
        let kind = m.typ().as_deref().unwrap_or("none");
        if options.is_bind() || kind == "bind" {
            self.bind(m, &options)?;
        } else {
            self.filesystem(m, kind, &options)?;
        }
        let target = m.destination();
        if options.propagation.is_empty() && options.recursive == (0, 0) {
            return Ok(());
        }
        let top = self.top(target)?;
        for p in &options.propagation {
            let nothing = None::<&str>;
            mount(nothing, &by_number(&top), nothing, *p, nothing).map_err(|e| failed(target, target, &e))?;
        }
        if options.recursive != (0, 0) {
            let (set, clear) = options.recursive;
            attributes(top.as_fd(), set, clear, true).map_err(|e| failed(target, target, &e))?;
        }
        Ok(())
    }

    fn bind(&self, m: &Mount, options: &Options) -> Result<(), Failure> {
        let target = m.destination();
        let source = m.source().as_deref().unwrap_or(Path::new(""));
        let is_dir = std::fs::metadata(source)
            .map_err(|e| {
                failed(
                    source,
                    target,
                    &nix::Error::from_raw(e.raw_os_error().unwrap_or(libc::EIO)),
                )
            })?
            .is_dir();
        let place = if is_dir {
            self.directory(target)
                .or_else(|f| self.existing(target).ok_or(f))?
        } else {
            self.file(target)?
        };
        let nothing = None::<&str>;
        let how = options.flags.0 & (MsFlags::MS_BIND | MsFlags::MS_REC) | MsFlags::MS_BIND;
        mount(Some(source), &by_number(&place), nothing, how, nothing)
            .map_err(|e| failed(source, target, &e))?;
        let flags = options.flags.0 - MsFlags::MS_REC - MsFlags::MS_BIND;
        if !flags.is_empty() {
            let top = self.top(target)?;
            let change = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
            mount(nothing, &by_number(&top), nothing, change, nothing)
                .map_err(|e| failed(source, target, &e))?;
        }
        self.aliases(target)
    }

    /// Whatever is there, a file in the place of a directory too: the kernel then says what is wrong.
    fn existing(&self, path: &Path) -> Option<OwnedFd> {
        beneath::open_in(self.root(), path.as_os_str().as_bytes(), OFlags::PATH).ok()
    }

    fn filesystem(&mut self, m: &Mount, kind: &str, options: &Options) -> Result<(), Failure> {
        let target = m.destination();
        let place = self.directory(target)?;
        // One hierarchy: its own kind; those of version 1 are bound one by one (`spec::mounts`).
        let kind = if kind == "cgroup" { "cgroup2" } else { kind };
        let mut flags = options.flags.0;
        if kind == "tmpfs" && flags.contains(MsFlags::MS_RDONLY) {
            flags -= MsFlags::MS_RDONLY;
            self.finish.push(target.clone());
        }
        let source = m.source().clone().unwrap_or_else(|| kind.into());
        let data = (!options.data.is_empty()).then_some(options.data.as_str());
        mount(Some(&source), &by_number(&place), Some(kind), flags, data)
            .map_err(|e| failed(&source, target, &e))
    }

    /// A hierarchy of version 1 that serves several controllers is mounted as `cpu,cpuacct`, and found by each name.
    fn aliases(&self, target: &Path) -> Result<(), Failure> {
        let (Some(dir), Some(name)) = (target.parent(), target.file_name().and_then(|n| n.to_str())) else {
            return Ok(());
        };
        if dir != Path::new("/sys/fs/cgroup") || !name.contains(',') {
            return Ok(());
        }
        let dir = self.directory(dir)?;
        for controller in name.split(',') {
            // One that exists already is a hierarchy of its own.
            let _ = rustix::fs::symlinkat(name, &dir, controller);
        }
        Ok(())
    }

    /// The mount on top of a path.
    fn top(&self, path: &Path) -> Result<OwnedFd, Failure> {
        beneath::open_in(self.root(), path.as_os_str().as_bytes(), OFlags::PATH)
            .map_err(|e| failed(path, path, &nix::Error::from_raw(e.raw_os_error())))
    }

    /// Makes read-only what was only waiting for its content.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        for path in &self.finish {
            let top = self.top(path)?;
            attributes(top.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false).map_err(|e| failed(path, path, &e))?;
        }
        Ok(())
    }
}

/// A path that leads to what a descriptor of this process stands for.
pub(super) fn by_number(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

fn failed(source: &Path, target: &Path, e: &nix::Error) -> Failure {
    let what = format!(
        "error during container init: error mounting {:?} to rootfs at {:?}: {}",
        source.display().to_string(),
        target.display().to_string(),
        e.desc().to_lowercase()
    );
    if *e == nix::Error::ENOTDIR {
        return Failure::invalid(format!(
            "{what}: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
        ));
    }
    Failure::internal(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &str) -> Options {
        Options::of(&list.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_flags_data_and_propagation() {
        let o = of("nosuid ro size=64k mode=755 rprivate strictatime");
        assert_eq!(
            o.flags.0,
            MsFlags::MS_NOSUID | MsFlags::MS_RDONLY | MsFlags::MS_STRICTATIME
        );
        assert_eq!(o.data, "size=64k,mode=755");
        assert_eq!(o.propagation, [MsFlags::MS_PRIVATE | MsFlags::MS_REC]);
        assert!(!o.is_bind());
    }

    #[test]
    fn later_options_win() {
        assert_eq!(of("ro rw noexec exec defaults").flags.0, MsFlags::empty());
        assert_eq!(of("rro rrw").recursive, (0, libc::MOUNT_ATTR_RDONLY));
        assert_eq!(of("rbind rro").recursive, (libc::MOUNT_ATTR_RDONLY, 0));
        assert!(of("rbind").is_bind());
    }

    #[test]
    fn propagation_by_name() {
        assert_eq!(propagation("slave"), Some(MsFlags::MS_SLAVE));
        assert_eq!(propagation("rshared"), Some(MsFlags::MS_SHARED | MsFlags::MS_REC));
        assert_eq!(propagation("ro"), None);
    }
}
