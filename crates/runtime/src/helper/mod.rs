//! Work done in short-lived children of the keeper: making and starting a container, and running a process in
//! one. The keeper has one thread and little memory, so a plain fork is the cheapest way to get such a child:
//! nothing is loaded or relocated again.
//!
//! A helper tells its result in one packet on a socket ([`Report`]), with the terminal's descriptor where there
//! is one, and leaves. The process that it made then becomes a child of the keeper, which is a subreaper.

#![allow(unsafe_code)]

pub(crate) mod command;
pub(crate) mod create;
pub(crate) mod enter;
pub(crate) mod external;
pub(crate) mod init;
mod process;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};

use crate::keeper::wire::ErrorCode;

/// What a helper tells the keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The process runs; the terminal's descriptor comes along where there is one.
    Started {
        /// Number on the host.
        pid: i32,
    },
    /// Nothing runs.
    Failed {
        /// Whose fault.
        kind: ErrorCode,
        /// Text for the user.
        message: String,
    },
}

/// A failure of a helper, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorCode,
    pub(crate) message: String,
}

impl Failure {
    /// The user's fault.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorCode::Invalid,
            message: message.into(),
        }
    }

    /// The machine's fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorCode::Internal,
            message: message.into(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::internal(e.to_string())
    }
}

impl From<nix::Error> for Failure {
    fn from(e: nix::Error) -> Self {
        Self::internal(e.desc())
    }
}

/// Words an error of starting a container as Docker does, so that its clients recognise it.
pub(crate) fn create_failed(f: Failure) -> Failure {
    Failure {
        message: format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process: {}: unknown",
            f.message
        ),
        kind: f.kind,
    }
}

/// Words an error of an exec as Docker does.
pub(crate) fn exec_failed(f: Failure) -> Failure {
    Failure {
        message: format!(
            "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown",
            f.message
        ),
        kind: f.kind,
    }
}

/// Forks a helper. In the child `work` runs with `stdio` as descriptors 0 to 2, nothing else of the keeper's open,
/// and signals as a new program expects them; its result is sent on `report` and the child ends.
pub(crate) fn spawn(
    stdio: [RawFd; 3],
    report: OwnedFd,
    work: impl FnOnce() -> Result<(i32, Option<OwnedFd>), Failure>,
) -> io::Result<i32> {
    // SAFETY: the keeper has one thread, so the child may do what any program may; it never returns from here.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(child.as_raw()),
        nix::unistd::ForkResult::Child => {
            let code = match take_over(stdio, report) {
                Ok(report) => {
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
                        .unwrap_or_else(|_| Err(Failure::internal("the helper panicked")));
                    i32::from(send_report(report, result).is_err())
                }
                Err(_) => 1,
            };
            // SAFETY: ends the child without the exit handlers of the keeper.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Where the report socket is in a helper.
const REPORT_FD: RawFd = 3;

fn take_over(stdio: [RawFd; 3], report: OwnedFd) -> io::Result<RawFd> {
    // Descriptors move up first, so that none is overwritten before it was copied.
    let mut high = [0; 4];
    for (i, fd) in stdio.iter().chain([&report.as_raw_fd()]).enumerate() {
        // SAFETY: plain descriptor duplication.
        high[i] = unsafe { libc::fcntl(*fd, libc::F_DUPFD, 64) };
        if high[i] < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    for (i, fd) in high.iter().enumerate() {
        // SAFETY: as above; descriptor 3 is closed on exec.
        let r = unsafe { libc::dup3(*fd, i as RawFd, if i == 3 { libc::O_CLOEXEC } else { 0 }) };
        if r < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    std::mem::forget(report);
    // SAFETY: everything else is the keeper's; the child's copies of its objects are never used or dropped.
    if unsafe { libc::close_range(4, libc::c_uint::MAX, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    reset_signals();
    // SAFETY: sets the mask that Docker's containers start with.
    unsafe { libc::umask(0o022) };
    Ok(REPORT_FD)
}

/// Default dispositions and an empty mask: both are inherited by what is executed (Rust ignores SIGPIPE).
fn reset_signals() {
    // SAFETY: no handlers are installed by this program; the calls only reset kernel state.
    unsafe {
        for s in 1..=64 {
            if s != libc::SIGKILL && s != libc::SIGSTOP {
                libc::signal(s, libc::SIG_DFL);
            }
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

fn send_report(fd: RawFd, result: Result<(i32, Option<OwnedFd>), Failure>) -> io::Result<()> {
    let (report, tty) = match result {
        Ok((pid, tty)) => (Report::Started { pid }, tty),
        Err(Failure { kind, message }) => (Report::Failed { kind, message }, None),
    };
    let bytes = serde_json::to_vec(&report)?;
    let raw: Vec<_> = tty.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    sendmsg::<()>(
        fd,
        &[io::IoSlice::new(&bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Reads a helper's report.
pub(crate) fn receive_report(fd: BorrowedFd<'_>) -> io::Result<(Report, Option<OwnedFd>)> {
    let mut buf = vec![0u8; 64 * 1024];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut iov = [io::IoSliceMut::new(&mut buf)];
    let (n, tty) = {
        let msg = nix::sys::socket::recvmsg::<()>(
            fd.as_raw_fd(),
            &mut iov,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
        )?;
        let mut tty = None;
        for c in msg.cmsgs().map_err(io::Error::from)? {
            if let nix::sys::socket::ControlMessageOwned::ScmRights(fds) = c {
                tty = fds.into_iter().map(crate::keeper::own_fd).next();
            }
        }
        (msg.bytes, tty)
    };
    if n == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((serde_json::from_slice(&buf[..n])?, tty))
}
