//! Mounting overlayfs, with the file-descriptor mount API (Linux 5.2; `lowerdir+` since 6.8), which has no limit on
//! the length of all options together, and with mount(2) where the kernel is older.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use tripod_model::Result;

use super::beneath::{self, fault};

/// What a root filesystem is made of; `lower` has the highest layer last, as images list them.
pub(crate) struct Stack<'a> {
    pub(crate) lower: &'a [PathBuf],
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
    pub(crate) target: &'a Path,
}

// The kernel's defaults are a matter of its build. Redirects and metadata-only copies would leave files in the
// upper layer that mean nothing without the layers below, and `index` would pin a container to one mount.
const FIXED: [(&str, &str); 3] = [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off")];

/// Longest value that one `fsconfig` takes.
const MAX_VALUE: usize = 255;

/// Mounts it.
pub(crate) fn mount(stack: &Stack<'_>) -> Result<()> {
    let done = match modern(stack) {
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => classic(stack),
        other => other,
    };
    done.map_err(|e| fault(e, format_args!("mount overlay on {}", stack.target.display())))
}

fn modern(stack: &Stack<'_>) -> rustix::io::Result<()> {
    let fs = mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    mount::fsconfig_set_string(&fs, "source", "overlay")?;
    let mut open = Vec::new();
    for layer in stack.lower.iter().rev() {
        set_path(&fs, "lowerdir+", layer, &mut open)?;
    }
    set_path(&fs, "upperdir", stack.upper, &mut open)?;
    set_path(&fs, "workdir", stack.work, &mut open)?;
    for (key, value) in FIXED {
        match mount::fsconfig_set_string(&fs, key, value) {
            // A kernel built without the feature has it off.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(e) => return Err(e),
        }
    }
    mount::fsconfig_create(&fs)?;
    let mnt = mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    mount::move_mount(
        &mnt,
        "",
        CWD,
        stack.target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

fn set_path(fs: &OwnedFd, key: &str, path: &Path, open: &mut Vec<OwnedFd>) -> rustix::io::Result<()> {
    if path.as_os_str().len() <= MAX_VALUE {
        return mount::fsconfig_set_string(fs, key, path);
    }
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let done = mount::fsconfig_set_string(fs, key, beneath::proc_path(fd.as_fd()));
    open.push(fd);
    done
}

/// mount(2) takes one page of options: layers go in as `/proc/self/fd/N`, 128 of which fit.
fn classic(stack: &Stack<'_>) -> rustix::io::Result<()> {
    let path_only = OFlags::PATH | OFlags::CLOEXEC;
    let mut open = Vec::new();
    let mut options = String::from("lowerdir=");
    for (i, layer) in stack.lower.iter().rev().enumerate() {
        let fd = rustix::fs::open(layer, path_only, Mode::empty())?;
        let _ = write!(
            options,
            "{}{}",
            if i == 0 { "" } else { ":" },
            beneath::proc_path(fd.as_fd())
        );
        open.push(fd);
    }
    for (key, path) in [("upperdir", stack.upper), ("workdir", stack.work)] {
        let fd = rustix::fs::open(path, path_only, Mode::empty())?;
        let _ = write!(options, ",{key}={}", beneath::proc_path(fd.as_fd()));
        open.push(fd);
    }
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    mount::mount(
        "overlay",
        stack.target,
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )
}

/// Whether something is mounted exactly there.
pub(crate) fn is_mounted(path: &Path) -> bool {
    rustix::fs::statx(CWD, path, AtFlags::NO_AUTOMOUNT, StatxFlags::empty())
        .is_ok_and(|s| s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Takes the mount out of sight. The descriptor keeps the filesystem alive: closing it syncs the disk below, which
/// may take long, so that the caller does it where nobody waits. `None` when nothing was mounted.
pub(crate) fn detach(path: &Path) -> Result<Option<OwnedFd>> {
    if !is_mounted(path) {
        return Ok(None);
    }
    let held = mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .map_err(|e| fault(e, path.display()))?;
    mount::unmount(path, UnmountFlags::DETACH)
        .map_err(|e| fault(e, format_args!("unmount {}", path.display())))?;
    Ok(Some(held))
}

/// Unmounts all that is stacked there.
pub(crate) fn unmount_all(path: &Path) {
    while is_mounted(path) && mount::unmount(path, UnmountFlags::DETACH).is_ok() {}
}
