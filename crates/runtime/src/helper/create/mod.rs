//! Creates and starts a container, in one run: a child in its namespaces becomes its first process, step by step as the
//! OCI runtime specification orders it, while this helper puts it into its cgroups and hears how it went.
//!
//! One socket joins the two. The helper sends a byte when the cgroups are joined; the child sends the terminal's
//! master, or why it failed; the socket closes by itself when the command is executed.

mod first;
mod mounts;
mod namespaces;
mod root;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use oci_spec::runtime::Spec;

use super::Failure;
use crate::keeper::wire::{ErrorCode, StartOrder};
use namespaces::Namespaces;

/// Begins and ends what a child says of a failure.
const MARK: &str = "\u{1}";
/// Room for what a child says.
const LONGEST: usize = 64 * 1024;

/// Makes the container described by `config.json` in the order's bundle. Standard streams are already in place.
pub(crate) fn run(order: &StartOrder) -> Result<(i32, Option<OwnedFd>), Failure> {
    if let Some(runtime) = &order.oci_runtime {
        return super::external::create(order, runtime);
    }
    let spec: Spec = serde_json::from_slice(&std::fs::read(order.bundle.join("config.json"))?)
        .map_err(|e| Failure::internal(format!("config.json: {e}")))?;
    let filter = order.filter.as_ref().map(std::fs::read).transpose()?;
    let namespaces = Namespaces::of(&spec)?;
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    // Processes of a container must not look into this one or its child once they share a PID namespace.
    nix::sys::prctl::set_dumpable(false)?;
    namespaces.before_fork()?;
    // SAFETY: this process has one thread; the child becomes the container's first process or leaves by `_exit`.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            drop(ours);
            let failure = first::run(order, &spec, &namespaces, filter.as_deref(), &theirs);
            tell(theirs.as_raw_fd(), &failure);
            // SAFETY: leaves without exit handlers.
            unsafe { libc::_exit(127) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(theirs);
            match attend(order, child.as_raw(), &ours) {
                Ok(tty) => Ok((child.as_raw(), tty)),
                Err(f) => {
                    let _ = nix::sys::signal::kill(child, nix::sys::signal::SIGKILL);
                    let _ = nix::sys::wait::waitpid(child, None);
                    Err(f)
                }
            }
        }
    }
}

/// Puts the child into its cgroups, lets it go on, and waits until it has executed its command. By the child's number
/// rather than by joining first: a limit of one process leaves no room for this one.
fn attend(order: &StartOrder, child: i32, socket: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    for procs in &order.join {
        std::fs::write(procs, child.to_string())
            .map_err(|e| Failure::internal(format!("joining {}: {e}", procs.display())))?;
    }
    nix::unistd::write(socket, b"+")?;
    let mut tty = None;
    loop {
        let mut buf = vec![0u8; LONGEST];
        let (n, fd) = receive(socket, &mut buf)?;
        match n {
            0 => return Ok(tty),
            _ if fd.is_some() => tty = fd,
            n => return Err(marked(&String::from_utf8_lossy(&buf[..n]))),
        }
    }
}

/// Reads one packet, and the descriptor that comes with it.
fn receive(socket: &OwnedFd, buf: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut iov = [io::IoSliceMut::new(buf)];
    let msg = loop {
        match recvmsg::<()>(
            socket.as_raw_fd(),
            &mut iov,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(nix::Error::EINTR) => {}
            // A child that was killed while it had something to read resets the connection.
            Err(nix::Error::ECONNRESET) => return Ok((0, None)),
            other => break other?,
        }
    };
    let fd = msg.cmsgs().map_err(io::Error::from)?.find_map(|c| match c {
        ControlMessageOwned::ScmRights(fds) => fds.first().map(|fd| crate::keeper::own_fd(*fd)),
        _ => None,
    });
    Ok((msg.bytes, fd))
}

/// Receives the terminal, and gives it its size and owner before the command sees it.
pub(super) fn terminal(listener: &UnixListener, order: &StartOrder, pid: i32) -> Result<OwnedFd, Failure> {
    let (socket, _) = listener.accept()?;
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut buf = [0u8; 4096];
    let mut iov = [std::io::IoSliceMut::new(&mut buf)];
    let msg = nix::sys::socket::recvmsg::<()>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut space),
        nix::sys::socket::MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let fd = msg
        .cmsgs()?
        .find_map(|c| match c {
            nix::sys::socket::ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })
        .ok_or_else(|| Failure::internal("the runtime sent no terminal"))?;
    // SAFETY: the descriptor was just received and has no other owner.
    let tty = unsafe { OwnedFd::from_raw_fd(fd) };
    if let Some((height, width)) = order.console_size {
        crate::keeper::set_size(&tty, height, width)?;
    }
    if order.owner != (0, 0) {
        // The container's /dev is fresh and its command has not run yet: this path leads nowhere else.
        let console = format!("/proc/{pid}/root/dev/console");
        let _ = std::os::unix::fs::chown(console, Some(order.owner.0), None);
    }
    Ok(tty)
}

/// Writes a failure to the pipe that the helper reads.
pub(super) fn tell(notify: RawFd, failure: &Failure) {
    let text = mark(failure);
    // SAFETY: writes initialised bytes to this process's own descriptor.
    unsafe { libc::write(notify, text.as_ptr().cast(), text.len()) };
}

fn mark(f: &Failure) -> String {
    let kind = if f.kind == ErrorCode::Invalid { 'u' } else { 'i' };
    format!("{MARK}{kind}{}{MARK}", f.message)
}

/// Takes a marked failure out of a text.
pub(super) fn marked(text: &str) -> Failure {
    let inner = text.split(MARK).nth(1).unwrap_or(text);
    match inner.split_at_checked(1) {
        Some(("u", m)) => Failure::invalid(m),
        Some(("i", m)) => Failure::internal(m),
        _ => Failure::internal(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_errors_come_back() {
        for f in [
            Failure::invalid("exec: \"x\": not found"),
            Failure::internal("no memory"),
        ] {
            let back = marked(&mark(&f));
            assert_eq!((back.kind, &back.message), (f.kind, &f.message));
        }
        assert_eq!(marked("something").kind, ErrorCode::Internal);
    }
}
