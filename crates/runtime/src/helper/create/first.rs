//! What the first process of a container does before it executes its command.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sched::CloneFlags;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use oci_spec::runtime::{Process, Spec};

use super::super::command::Command;
use super::super::process::{become_process, open_terminal};
use super::super::{Failure, init};
use super::namespaces::Namespaces;
use super::root;
use crate::keeper::wire::StartOrder;

/// Becomes the container's command, or the small init that starts it; returns only to tell why not.
pub(super) fn run(
    order: &StartOrder,
    spec: &Spec,
    namespaces: &Namespaces,
    filter: Option<&[u8]>,
    socket: &OwnedFd,
) -> Failure {
    match prepare(order, spec, namespaces, filter, socket) {
        Ok(command) if order.init => init::run(&command, socket.as_raw_fd()),
        Ok(command) => command.execute(),
        Err(f) => f,
    }
}

fn prepare(
    order: &StartOrder,
    spec: &Spec,
    namespaces: &Namespaces,
    filter: Option<&[u8]>,
    socket: &OwnedFd,
) -> Result<Command, Failure> {
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Failure::internal("no process in the spec"))?;
    let mut go = [0u8; 1];
    if nix::unistd::read(socket, &mut go)? == 0 {
        return Err(Failure::internal("the helper went away"));
    }
    if let Some(adj) = process.oom_score_adj() {
        std::fs::write("/proc/self/oom_score_adj", adj.to_string())
            .map_err(|e| Failure::internal(format!("setting the OOM score: {e}")))?;
    }
    namespaces.enter()?;
    names(spec, namespaces)?;
    let mut tree = root::open(spec)?;
    for m in spec.mounts().iter().flatten() {
        tree.mount(m)?;
    }
    root::devices(&tree, spec)?;
    tree.finish()?;
    root::pivot(&tree)?;
    drop(tree);
    root::seal(spec)?;
    let slave = if order.tty {
        let (master, slave) = open_terminal(order.console_size)?;
        root::console(&slave)?;
        hand_over(socket, &master)?;
        Some(slave)
    } else {
        None
    };
    confine(process)?;
    become_process(process, filter, slave.as_ref().map(AsRawFd::as_raw_fd))
}

fn names(spec: &Spec, namespaces: &Namespaces) -> Result<(), Failure> {
    if !namespaces.makes(CloneFlags::CLONE_NEWUTS) {
        return Ok(());
    }
    if let Some(name) = spec.hostname() {
        nix::unistd::sethostname(name)
            .map_err(|e| Failure::internal(format!("sethostname: {}", e.desc())))?;
    }
    if let Some(name) = spec.domainname() {
        // SAFETY: the pointer and length describe the string.
        let r = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
        nix::Error::result(r).map_err(|e| Failure::internal(format!("setdomainname: {}", e.desc())))?;
    }
    Ok(())
}

/// Asks AppArmor to confine what is executed next.
fn confine(process: &Process) -> Result<(), Failure> {
    let Some(profile) = process.apparmor_profile() else {
        return Ok(());
    };
    let order = format!("exec {profile}");
    std::fs::write("/proc/self/attr/apparmor/exec", &order)
        .or_else(|_| std::fs::write("/proc/self/attr/exec", &order))
        .map_err(|e| {
            Failure::internal(format!(
                "unable to apply apparmor profile: apparmor failed to apply profile: {e}"
            ))
        })
}

/// Sends the terminal's master to the helper.
fn hand_over(socket: &OwnedFd, master: &OwnedFd) -> Result<(), Failure> {
    let fds = [master.as_raw_fd()];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[std::io::IoSlice::new(b"t")],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::empty(),
        None,
    )?;
    Ok(())
}
