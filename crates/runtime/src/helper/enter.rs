//! Runs a further process in a running container (`exec`): joins its cgroups and namespaces, and becomes the
//! command with the identity, limits and filters that the OCI process asks for.

use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use oci_spec::runtime::Process;

use super::Failure;
use super::create::{marked, tell};
use super::process::{become_process, open_terminal};
use crate::keeper::wire::ExecOrder;

/// Enters the container whose first process is `target`. Standard streams are already in place.
pub(crate) fn run(order: &ExecOrder, target: i32) -> Result<(i32, Option<OwnedFd>), Failure> {
    let process: Process = serde_json::from_value(order.process.clone())
        .map_err(|e| Failure::internal(format!("process description: {e}")))?;
    let filter = order.filter.as_ref().map(std::fs::read).transpose()?;
    for procs in &order.join {
        match std::fs::write(procs, "0") {
            // A cgroup without the controller's processes may be gone already with the container.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            r => r.map_err(|e| Failure::internal(format!("joining {}: {e}", procs.display())))?,
        }
    }
    if let Some(adj) = process.oom_score_adj() {
        std::fs::write("/proc/self/oom_score_adj", adj.to_string())?;
    }
    // Processes of the container must not look into this one once it is in their namespaces.
    nix::sys::prctl::set_dumpable(false)?;
    join_namespaces(target)?;
    let tty = if order.tty {
        Some(open_terminal(order.console_size)?)
    } else {
        None
    };
    let (why, told) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread; the child executes the command or leaves by `_exit`.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            let slave = tty.as_ref().map(|(_, slave)| slave.as_raw_fd());
            let failure = match become_process(&process, filter.as_deref(), slave) {
                Ok(command) => command.execute(),
                Err(f) => f,
            };
            tell(told.as_raw_fd(), &failure);
            // SAFETY: leaves without exit handlers.
            unsafe { libc::_exit(127) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(told);
            let mut text = String::new();
            std::fs::File::from(why).read_to_string(&mut text)?;
            if text.is_empty() {
                Ok((child.as_raw(), tty.map(|(master, _)| master)))
            } else {
                let _ = nix::sys::wait::waitpid(child, None);
                Err(marked(&text))
            }
        }
    }
}

/// Joins all namespaces of a process at once (`setns` on a pidfd, Linux 5.8).
fn join_namespaces(target: i32) -> Result<(), Failure> {
    // SAFETY: plain system call; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, target, 0) } as RawFd;
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    nix::sched::setns(&pidfd, all)
        .map_err(|e| Failure::internal(format!("joining the container's namespaces: {}", e.desc())))
}
