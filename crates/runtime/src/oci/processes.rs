//! A namespace of processes that the containers of a pod share. Such a namespace lives as long as its first process:
//! one that does nothing but collect orphans, and belongs to no container.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::Pid;
use tripod_model::{Error, Result};

/// First argument of the program that becomes the first process.
pub(crate) const FIRST: &str = "first-process";
/// Where the namespace is kept, and the number of its first process.
const NAMES: (&str, &str) = ("pid", "first");

/// Makes the namespace `dir/pid`, if it is not there or its first process is not.
pub(super) fn keep(dir: &Path) -> Result<()> {
    if first(dir).is_some() {
        return Ok(());
    }
    let dir = dir.to_owned();
    // A thread of its own, which ends: what it starts is in the new namespace, nobody else is.
    let made = std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(move || -> std::io::Result<()> {
            nix::sched::unshare(CloneFlags::CLONE_NEWPID)?;
            let child = Command::new("/proc/self/exe")
                .arg(FIRST)
                .current_dir("/")
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // The daemon's end, and signals to its group, are not its own.
                .process_group(0)
                .spawn()?;
            let path = dir.join(NAMES.0);
            let _ = nix::mount::umount2(&path, MntFlags::MNT_DETACH);
            File::create(&path)?;
            let source = format!("/proc/{}/ns/pid", child.id());
            let bind = MsFlags::MS_BIND;
            nix::mount::mount(Some(source.as_str()), &path, None::<&str>, bind, None::<&str>)?;
            fs::write(dir.join(NAMES.1), child.id().to_string())
        })?
        .join();
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(Error::internal(format!(
            "the processes of a pod cannot be shared: {e}"
        ))),
        Err(_) => Err(Error::internal("the processes of a pod cannot be shared")),
    }
}

/// The first process, if it is there: a process of that number whose namespace is the kept one.
fn first(dir: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(dir.join(NAMES.1)).ok()?.parse().ok()?;
    let kept = fs::metadata(dir.join(NAMES.0)).ok()?;
    let its = fs::metadata(format!("/proc/{pid}/ns/pid")).ok()?;
    ((kept.ino(), kept.dev()) == (its.ino(), its.dev())).then_some(pid)
}

/// Ends the first process, and with it all that is left in the namespace; none there is no error.
pub(super) fn drop_kept(dir: &Path) -> Result<()> {
    if let Some(pid) = first(dir).map(Pid::from_raw) {
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        // A child of this daemon; of a former one, somebody else collects it.
        let _ = nix::sys::wait::waitpid(pid, None);
    }
    let path = dir.join(NAMES.0);
    match nix::mount::umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(e) => return Err(Error::internal(format!("{}: {}", path.display(), e.desc()))),
    }
    for name in [NAMES.0, NAMES.1] {
        let _ = fs::remove_file(dir.join(name));
    }
    Ok(())
}

/// Is the first process, until it is killed.
#[allow(unsafe_code)]
pub(crate) fn be_first() -> ExitCode {
    // SAFETY: no handler is installed: the kernel collects the orphans of who ignores this signal.
    let ignored = unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    if ignored.is_err() {
        return ExitCode::FAILURE;
    }
    let _ = nix::unistd::setsid();
    loop {
        nix::unistd::pause();
    }
}
