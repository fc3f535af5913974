//! Namespaces that the containers of a pod share, kept by bind mounts while no process is in them.

use std::fs::{self, File};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use tripod_model::{Error, Result};

/// `NSFS_MAGIC`: what `statfs` says of a mounted namespace.
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// The namespaces, by their names below `/proc/PID/ns`.
const KINDS: [&str; 2] = ["ipc", "uts"];

/// Keeps an IPC and a UTS namespace with this host name at `dir/ipc` and `dir/uts`, if they are not there yet.
pub(super) fn keep(dir: &Path, hostname: &str) -> Result<()> {
    let kept =
        |path: &Path| nix::sys::statfs::statfs(path).is_ok_and(|s| s.filesystem_type().0 == NSFS_MAGIC);
    if KINDS.iter().all(|kind| kept(&dir.join(kind))) {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let (dir, hostname) = (dir.to_owned(), hostname.to_owned());
    // A thread of its own, which ends: nobody finds himself in another namespace.
    let made = std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(move || -> nix::Result<()> {
            nix::sched::unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
            nix::unistd::sethostname(&hostname)?;
            for kind in KINDS {
                let path = dir.join(kind);
                let _ = nix::mount::umount2(&path, MntFlags::MNT_DETACH);
                File::create(&path)
                    .map_err(|e| nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
                let source = format!("/proc/thread-self/ns/{kind}");
                nix::mount::mount(
                    Some(source.as_str()),
                    &path,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )?;
            }
            Ok(())
        })?
        .join();
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(Error::internal(format!(
            "namespaces of a pod cannot be made: {}",
            e.desc()
        ))),
        Err(_) => Err(Error::internal("namespaces of a pod cannot be made")),
    }
}

/// Lets them go; none there is no error.
pub(super) fn drop_kept(dir: &Path) -> Result<()> {
    for kind in KINDS {
        let path = dir.join(kind);
        match nix::mount::umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(e) => return Err(Error::internal(format!("{}: {}", path.display(), e.desc()))),
        }
        let _ = fs::remove_file(path);
    }
    let _ = fs::remove_dir(dir);
    Ok(())
}
