//! The keeper: one small process per node that outlives the daemon. It owns the streams, terminals and log files
//! of containers, is the parent of their first processes, and remembers how they ended until the daemon has
//! stored it.
//!
//! It has one thread, an epoll loop and no other runtime, so that its helpers may be plain forks and its memory
//! stays small. What it knows about containers is also on disk ([`records`]), so that a further keeper can
//! continue after it was killed: containers write to FIFOs which that one opens again.

#![allow(unsafe_code)]

mod calls;
mod procs;
mod records;
mod server;
mod streams;
mod takeover;
pub(crate) mod wire;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;

/// Name of the socket in the keeper's directory.
pub(crate) const SOCKET: &str = "keeper.sock";

/// Takes a descriptor that the kernel just made for this process.
pub(crate) fn own_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass descriptors that they received from the kernel and that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Sets the size of a terminal.
pub(crate) fn set_size(tty: &OwnedFd, height: u16, width: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the ioctl reads a `winsize`.
    if unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &size) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The keeper's main function: `keeper DIR`. Prints `ready` on standard output when it serves, and goes into the
/// background. When another keeper serves the directory already, that is success too.
pub(crate) fn main(dir: &Path) -> ExitCode {
    match start(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("keeper: {}: {e}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn start(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    // SAFETY: the process has one thread; the parent only leaves.
    if let nix::unistd::ForkResult::Parent { .. } = unsafe { nix::unistd::fork() }? {
        // The caller reads `ready` (or nothing) from the pipe that the child holds too.
        return Ok(());
    }
    nix::unistd::setsid()?;
    // SAFETY: nothing was opened yet; what the caller left open by mistake is not kept for ever.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let lock = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("keeper.lock"))?;
    let Ok(_lock) = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock) else {
        println!("ready");
        return Ok(());
    };
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut server = server::Server::open(dir)?;
    println!("ready");
    detach_from_terminal()?;
    // What it took to get here is not needed again; the keeper lives long, and each helper is a fork of it.
    let _ = crate::memory::let_go_of_code();
    server.run()
}

/// From here on nobody reads what this process prints.
fn detach_from_terminal() -> io::Result<()> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for fd in 0..3 {
        // SAFETY: replaces the standard descriptors by /dev/null.
        if unsafe { libc::dup2(null.as_raw_fd(), fd) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
