//! The container's root: the mount that becomes it, its device nodes, what is hidden and what cannot be written.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use rustix::fs::{FileType, Mode, OFlags};

use super::super::Failure;
use super::mounts::{Tree, by_number, propagation};
use crate::images::beneath;

const NOTHING: Option<&str> = None;

/// Character devices that every container has (OCI runtime specification, "Default Devices").
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Symbolic links in `/dev`: name and where it leads.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

fn fault(what: impl std::fmt::Display) -> impl FnOnce(nix::Error) -> Failure {
    move |e| {
        Failure::internal(format!(
            "error during container init: {what}: {}",
            e.desc().to_lowercase()
        ))
    }
}

/// Sets and clears attributes of a mount (`mount_setattr`, Linux 5.12).
pub(super) fn attributes(mount: BorrowedFd<'_>, set: u64, clear: u64, recursive: bool) -> nix::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure is whole and lives until the call returns; its size is told.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &attr,
            size_of::<libc::mount_attr>(),
        )
    };
    nix::Error::result(r).map(drop)
}

/// Makes the root directory a mount of its own in this namespace, cut off from the machine's as the specification
/// wants it, and opens it.
pub(super) fn open(spec: &Spec) -> Result<Tree, Failure> {
    let path = spec
        .root()
        .as_ref()
        .map(|r| r.path().clone())
        .ok_or_else(|| Failure::internal("no root in the spec"))?;
    let how = wanted_propagation(spec).unwrap_or(MsFlags::MS_SLAVE) | MsFlags::MS_REC;
    mount(NOTHING, "/", NOTHING, how, NOTHING).map_err(fault("setting the propagation of /"))?;
    // Neither the mount that becomes the root nor the one that it is on may be shared (pivot_root(2)).
    match mount(NOTHING, &path, NOTHING, MsFlags::MS_PRIVATE, NOTHING) {
        Ok(()) => {}
        // A directory that is no mount yet: its own one comes now, and is made private below.
        Err(nix::Error::EINVAL) => {
            bind_self(&path)?;
            mount(NOTHING, &path, NOTHING, MsFlags::MS_PRIVATE, NOTHING)
                .map_err(fault("setting the propagation of the root"))?;
        }
        Err(e) => return Err(fault(format!("rootfs {}", path.display()))(e)),
    }
    bind_self(&path)?;
    let root = rustix::fs::open(&path, beneath::DIR, Mode::empty()).map_err(std::io::Error::from)?;
    Ok(Tree::new(root))
}

fn bind_self(path: &Path) -> Result<(), Failure> {
    mount(
        Some(path),
        path,
        NOTHING,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        NOTHING,
    )
    .map_err(fault(format!("binding the root {}", path.display())))
}

fn wanted_propagation(spec: &Spec) -> Option<MsFlags> {
    let linux = spec.linux().as_ref()?;
    propagation(linux.rootfs_propagation().as_deref()?)
}

/// Device nodes and links, unless `/dev` is one of the machine's directories.
pub(super) fn devices(tree: &Tree, spec: &Spec) -> Result<(), Failure> {
    let at_dev = spec
        .mounts()
        .iter()
        .flatten()
        .rfind(|m| m.destination() == Path::new("/dev"));
    let bound = at_dev.is_none_or(|m| m.typ().as_deref() == Some("bind"));
    // Modes are meant as they are told.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let result = nodes(tree, spec, bound);
    nix::sys::stat::umask(before);
    result
}

fn nodes(tree: &Tree, spec: &Spec, bound: bool) -> Result<(), Failure> {
    let linux = spec.linux().as_ref();
    if bound {
        return Ok(());
    }
    for d in linux.and_then(|l| l.devices().as_ref()).into_iter().flatten() {
        device(tree, d)?;
    }
    let dev = tree.directory(Path::new("/dev"))?;
    for (name, major, minor) in DEVICES {
        make(
            &dev,
            name.as_bytes(),
            FileType::CharacterDevice,
            0o666,
            (major, minor),
        )
        .map_err(fault(format!("making /dev/{name}")))?;
    }
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(std::io::Error::from(e).into()),
        }
    }
    Ok(())
}

fn device(tree: &Tree, d: &LinuxDevice) -> Result<(), Failure> {
    let (Some(parent), Some(name)) = (d.path().parent(), d.path().file_name()) else {
        return Err(Failure::invalid(format!(
            "invalid device path {}",
            d.path().display()
        )));
    };
    let kind = match d.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let dir = tree.directory(parent)?;
    let what = || format!("making device {}", d.path().display());
    let number = (d.major() as u32, d.minor() as u32);
    make(
        &dir,
        name.as_bytes(),
        kind,
        d.file_mode().unwrap_or(0o666),
        number,
    )
    .map_err(fault(what()))?;
    let owner = |id: Option<u32>| id.map_or(u32::MAX, |id| id);
    rustix::fs::chownat(
        &dir,
        name,
        Some(rustix::fs::Uid::from_raw(owner(d.uid()))),
        Some(rustix::fs::Gid::from_raw(owner(d.gid()))),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(|e| fault(what())(nix::Error::from_raw(e.raw_os_error())))
}

fn make(
    dir: &OwnedFd,
    name: &[u8],
    kind: FileType,
    mode: u32,
    (major, minor): (u32, u32),
) -> nix::Result<()> {
    let number = rustix::fs::makedev(major, minor);
    match rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), number) {
        // One that the user gave stays.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(nix::Error::from_raw(e.raw_os_error())),
    }
}

/// Makes the tree the root of this process, and lets go of the machine's.
pub(super) fn pivot(tree: &Tree) -> Result<(), Failure> {
    nix::unistd::fchdir(tree.root())?;
    nix::unistd::pivot_root(".", ".").map_err(fault("pivot_root"))?;
    // The old root is on top of the new one now. What is unmounted in it must stay with the others who see it.
    mount(
        NOTHING,
        ".",
        NOTHING,
        MsFlags::MS_SLAVE | MsFlags::MS_REC,
        NOTHING,
    )
    .map_err(fault("letting go of the old root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(fault("unmounting the old root"))?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// What the specification sets once everything is in place: kernel settings, then what cannot be written or seen.
pub(super) fn seal(spec: &Spec) -> Result<(), Failure> {
    let linux = spec.linux().as_ref();
    for (key, value) in linux.and_then(|l| l.sysctl().as_ref()).into_iter().flatten() {
        sysctl(key, value)?;
    }
    if spec.root().as_ref().is_some_and(|r| r.readonly() == Some(true)) {
        read_only(Path::new("/")).map_err(fault("making the root read-only"))?;
    }
    if let Some(how) = wanted_propagation(spec) {
        mount(NOTHING, "/", NOTHING, how, NOTHING).map_err(fault("setting the propagation of the root"))?;
    }
    for path in linux
        .and_then(|l| l.readonly_paths().as_ref())
        .into_iter()
        .flatten()
    {
        let path = Path::new(path);
        match mount(
            Some(path),
            path,
            NOTHING,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            NOTHING,
        ) {
            Ok(()) => read_only(path).map_err(fault(path.display()))?,
            Err(nix::Error::ENOENT) => {}
            Err(e) => return Err(fault(path.display())(e)),
        }
    }
    for path in linux
        .and_then(|l| l.masked_paths().as_ref())
        .into_iter()
        .flatten()
    {
        mask(Path::new(path)).map_err(fault(format!("masking {path}")))?;
    }
    Ok(())
}

fn read_only(path: &Path) -> nix::Result<()> {
    let top = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| nix::Error::from_raw(e.raw_os_error()))?;
    attributes(top.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false)
}

/// Puts something empty over a path: a directory of its own, or the null device.
fn mask(path: &Path) -> nix::Result<()> {
    let meta = match std::fs::metadata(path) {
        Ok(m) => m,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        Err(e) => return Err(nix::Error::from_raw(e.raw_os_error().unwrap_or(libc::EIO))),
    };
    if meta.is_dir() {
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, NOTHING)
    } else {
        mount(Some("/dev/null"), path, NOTHING, MsFlags::MS_BIND, NOTHING)
    }
}

fn sysctl(key: &str, value: &str) -> Result<(), Failure> {
    // Names are written with dots or with slashes; whichever comes first is the separator.
    let path = match (key.find('.'), key.find('/')) {
        (Some(dot), Some(slash)) if slash < dot => key.to_owned(),
        (None, Some(_)) => key.to_owned(),
        _ => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
    };
    let path = format!("/proc/sys/{path}");
    std::fs::write(&path, value).map_err(|e| {
        let why = e.raw_os_error().map_or_else(
            || e.to_string(),
            |n| nix::Error::from_raw(n).desc().to_lowercase(),
        );
        Failure::invalid(format!(
            "error during container init: write sysctl key {key}: open {path}: {why}"
        ))
    })
}

/// Binds the terminal's other end to `/dev/console`.
pub(super) fn console(slave: &OwnedFd) -> Result<(), Failure> {
    let made = rustix::fs::open(
        "/dev/console",
        OFlags::CREATE
            | OFlags::WRONLY
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY,
        Mode::from_raw_mode(0o666),
    );
    drop(made.map_err(std::io::Error::from)?);
    mount(
        Some(&by_number(slave)),
        "/dev/console",
        NOTHING,
        MsFlags::MS_BIND,
        NOTHING,
    )
    .map_err(fault("binding /dev/console"))
}
