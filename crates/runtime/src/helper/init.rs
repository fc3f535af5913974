//! The small init of `--init`: the first process of the container starts the command as its child, hands on
//! signals, collects orphans, and ends with the command's status.
//!
//! It is not a program of its own: the first process simply does not execute anything and stays in this code,
//! so it works whatever the container has inside, and costs the few pages that it touches.

use std::os::fd::RawFd;

use super::Failure;
use super::command::Command;

/// Runs the command as a child and ends with it. Returns only when the command could not be started.
pub(crate) fn run(command: &Command, notify: RawFd) -> Failure {
    let mut all = nix::sys::signal::SigSet::all();
    // Faults of this process itself must still end it.
    for s in [
        nix::sys::signal::SIGSEGV,
        nix::sys::signal::SIGBUS,
        nix::sys::signal::SIGILL,
        nix::sys::signal::SIGFPE,
    ] {
        all.remove(s);
    }
    if let Err(e) = all.thread_set_mask() {
        return e.into();
    }
    // Before the command can look; it gets its own name when it is executed.
    // SAFETY: names the process; the text is static.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"docker-init".as_ptr()) };
    // SAFETY: this process has one thread; the child executes the command or leaves by `_exit`.
    let child = match unsafe { nix::unistd::fork() } {
        Err(e) => return e.into(),
        Ok(nix::unistd::ForkResult::Parent { child }) => child,
        Ok(nix::unistd::ForkResult::Child) => {
            become_foreground();
            let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
            let failure = command.execute();
            super::create::tell(notify, &failure);
            // SAFETY: leaves without exit handlers.
            unsafe { libc::_exit(127) }
        }
    };
    // SAFETY: the descriptors are this process's own copies, and nothing below uses any but the standard ones; closing
    // `notify` tells the helper that the command runs.
    unsafe {
        libc::close(notify);
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
    serve(child.as_raw(), &all)
}

/// The command gets a process group of its own, in the foreground of the terminal if there is one, so that ^C
/// reaches it once.
fn become_foreground() {
    // SAFETY: plain process group and terminal calls on descriptor 0; failure means there is no terminal.
    unsafe {
        libc::setpgid(0, 0);
        if libc::isatty(0) == 1 {
            // SIGTTOU is blocked here, so that this does not stop the process.
            libc::tcsetpgrp(0, libc::getpgrp());
        }
    }
}

fn serve(child: i32, all: &nix::sys::signal::SigSet) -> Failure {
    loop {
        let Ok(signal) = all.wait() else { continue };
        match signal {
            nix::sys::signal::SIGCHLD => {
                if let Some(code) = reap(child) {
                    // SAFETY: leaves without exit handlers; the namespace's other processes end with this one.
                    unsafe { libc::_exit(code) }
                }
            }
            nix::sys::signal::SIGTTIN | nix::sys::signal::SIGTTOU => {}
            // SAFETY: sends the same signal on.
            other => unsafe {
                libc::kill(child, other as i32);
            },
        }
    }
}

/// Collects what ended; the status of the command when it was among them.
fn reap(child: i32) -> Option<i32> {
    let mut result = None;
    loop {
        let mut status = 0;
        // SAFETY: collects any child without waiting.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid <= 0 {
            return result;
        }
        if pid == child {
            result = Some(exit_code(status));
        }
    }
}

/// A wait status as the shell numbers it.
pub(crate) fn exit_code(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    }
}
