//! Network namespaces kept by bind mounts, and work done inside them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// `NSFS_MAGIC`: what `statfs` says of a mounted namespace.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Returns the thread to the namespace it came from.
struct Return(File);

impl Return {
    fn here() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?))
    }
}

impl Drop for Return {
    fn drop(&mut self) {
        if let Err(e) = setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET) {
            // The thread belongs to a pool: work of others done in the wrong namespace would be worse than an end.
            tracing::error!("cannot return to the host's network namespace: {e}");
            std::process::abort();
        }
    }
}

/// Runs `work` on this thread inside the namespace. It must not await, and not leave threads behind.
pub(crate) fn within<T>(ns: impl AsFd, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let _back = Return::here()?;
    setns(ns, CloneFlags::CLONE_NEWNET)?;
    work()
}

/// Makes a namespace, keeps it at `path`, and runs `work` inside it. When anything fails nothing is left behind.
pub(crate) fn create<T>(path: &Path, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
    File::options().create_new(true).write(true).open(path)?;
    let made = (|| {
        let _back = Return::here()?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(
            Some("/proc/thread-self/ns/net"),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        let ns = File::open(path)?;
        work(&ns)
    })();
    if made.is_err() {
        let _ = remove(path);
    }
    made
}

/// Lets a namespace go; it ends with the last process and socket in it. None there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether a namespace is mounted at the path (and not just a file left there).
pub(crate) fn is_kept(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|s| s.filesystem_type().0 == NSFS_MAGIC)
}

/// Namespaces kept in a directory whose names begin with `prefix`: the rest of the name. Files left by a machine
/// that went down are removed.
pub(crate) fn list(dir: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix(prefix)) else {
            continue;
        };
        if is_kept(&entry.path()) {
            found.push(rest.to_owned());
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    found.sort();
    Ok(found)
}

/// The directory of kept namespaces below the daemon's run directory.
pub(crate) fn directory(run_dir: &Path) -> io::Result<PathBuf> {
    let dir = run_dir.join("netns");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Writes a network setting of the calling thread's namespace, such as `ipv4/ip_forward`.
pub(crate) fn sysctl(name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys/net").join(name), value)
}

/// Reads a network setting of the calling thread's namespace.
pub(crate) fn read_sysctl(name: &str) -> io::Result<String> {
    fs::read_to_string(Path::new("/proc/sys/net").join(name))
}
