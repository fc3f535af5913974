//! Streams of processes and the clients attached to them.
//!
//! A client's attachment is a socket pair: the keeper writes frames (a byte for the stream, three for the
//! length, the bytes), the daemon writes standard input as it is. A client that reads slowly fills its socket;
//! then the process's output waits until it reads on or leaves, as Docker does it. Log files never wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use tripod_agent::ports::OutputStream;
use tripod_model::Time;

use super::calls::error;
use super::procs::{Ends, Proc, Role, pipe};
use super::server::{Server, Source, token};
use super::wire::{ErrorCode, Reply, StartOrder, stream_header};

/// Names of the FIFOs in a container's directory.
const FIFOS: [&str; 3] = ["stdin", "stdout", "stderr"];

/// A client of a process's streams.
pub(super) struct Attachment {
    pub(super) socket: OwnedFd,
    /// `None` while its container has not started, or when the process has ended.
    pub(super) proc: Option<u64>,
    /// What the socket has not taken yet.
    backlog: Vec<u8>,
    /// The process has ended: closed when the backlog is out.
    ending: bool,
    input_open: bool,
}

pub(super) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn open(path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(
        path,
        flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY,
        Mode::empty(),
    )?)
}

fn null() -> io::Result<OwnedFd> {
    open(Path::new("/dev/null"), OFlag::O_RDWR)
}

/// Makes a FIFO that the process's user may open again by `/proc/self/fd`.
fn fifo(path: &Path, owner: (u32, u32)) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    if owner != (0, 0) {
        std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1))?;
    }
    Ok(())
}

/// Opens both ends of a container's streams. Output FIFOs are open for reading and writing on both sides, so that
/// the container neither blocks nor gets SIGPIPE when the keeper dies.
pub(super) fn container_streams(order: &StartOrder, proc: &mut Proc) -> io::Result<Ends> {
    if order.tty {
        return Ok(Ends {
            stdin: null()?,
            stdout: null()?,
            stderr: null()?,
        });
    }
    let path = |i: usize| order.bundle.join(FIFOS[i]);
    let stdin = if order.stdin {
        fifo(&path(0), order.owner)?;
        let hold = open(&path(0), OFlag::O_RDWR)?;
        let theirs = open(&path(0), OFlag::O_RDONLY)?;
        proc.stdin = Some(open(&path(0), OFlag::O_WRONLY | OFlag::O_NONBLOCK)?);
        drop(hold);
        theirs
    } else {
        null()?
    };
    for i in 1..3 {
        fifo(&path(i), order.owner)?;
    }
    open_output(&order.bundle, proc)?;
    Ok(Ends {
        stdin,
        stdout: open(&path(1), OFlag::O_RDWR)?,
        stderr: open(&path(2), OFlag::O_RDWR)?,
    })
}

/// The keeper's ends of the output FIFOs.
pub(super) fn open_output(bundle: &Path, proc: &mut Proc) -> io::Result<()> {
    proc.out = Some(open(&bundle.join(FIFOS[1]), OFlag::O_RDWR | OFlag::O_NONBLOCK)?);
    proc.err = Some(open(&bundle.join(FIFOS[2]), OFlag::O_RDWR | OFlag::O_NONBLOCK)?);
    Ok(())
}

pub(super) fn remove_fifos(bundle: &Path) {
    for name in FIFOS {
        let _ = std::fs::remove_file(bundle.join(name));
    }
}

/// Streams of an exec: pipes, which need not survive the keeper.
pub(super) fn exec_streams(tty: bool, stdin: bool, proc: &mut Proc) -> io::Result<Ends> {
    if tty {
        return Ok(Ends {
            stdin: null()?,
            stdout: null()?,
            stderr: null()?,
        });
    }
    let input = if stdin {
        let (mine, theirs) = pipe(false)?;
        proc.stdin = Some(mine);
        theirs
    } else {
        null()?
    };
    let (out, stdout) = pipe(true)?;
    let (err, stderr) = pipe(true)?;
    (proc.out, proc.err) = (Some(out), Some(err));
    Ok(Ends {
        stdin: input,
        stdout,
        stderr,
    })
}

impl Server {
    /// Number of the attachment made last.
    pub(super) fn last_number(&self) -> u64 {
        self.attachments.keys().copied().max().unwrap_or(0)
    }

    /// A new attachment; the daemon's end of its socket.
    pub(super) fn new_attachment(&mut self, proc: Option<u64>) -> io::Result<OwnedFd> {
        let (socket, remote) = socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        set_nonblocking(&socket)?;
        let n = self.number();
        // Input for a process that is yet to be started stays in the socket until it is (`forward_stdin`).
        let started = proc.and_then(|n| self.procs.get(&n)).is_some_and(|p| p.pid != 0);
        let flags = if started {
            EpollFlags::EPOLLIN
        } else {
            EpollFlags::empty()
        };
        self.watch(socket.as_fd(), Source::Attachment, n, flags)?;
        self.attachments.insert(
            n,
            Attachment {
                socket,
                proc,
                backlog: Vec::new(),
                ending: false,
                input_open: true,
            },
        );
        Ok(remote)
    }

    /// Attaches to a container, or to its next run.
    pub(super) fn attach(&mut self, id: &str, next: bool) -> Result<OwnedFd, Reply> {
        let running = self
            .by_id
            .get(id)
            .copied()
            .filter(|n| self.procs.get(n).is_some_and(|p| p.exit.is_none()));
        let io_error = |e: io::Error| error(ErrorCode::Internal, e.to_string());
        match running {
            Some(n) if !next => {
                let remote = self.new_attachment(Some(n)).map_err(io_error)?;
                let a = self.last_number();
                if let Some(p) = self.procs.get_mut(&n) {
                    p.attachments.push(a);
                }
                Ok(remote)
            }
            _ if next => {
                let remote = self.new_attachment(None).map_err(io_error)?;
                let a = self.last_number();
                self.waiting.entry(id.to_owned()).or_default().push(a);
                Ok(remote)
            }
            _ => Err(error(
                ErrorCode::Conflict,
                format!("container {id} is not running"),
            )),
        }
    }

    pub(super) fn watch_streams(&self, n: u64, p: &Proc) {
        for (fd, source) in [(&p.out, Source::Stdout), (&p.err, Source::Stderr)] {
            if let Some(fd) = fd {
                let _ = self.watch(fd.as_fd(), source, n, EpollFlags::EPOLLIN);
            }
        }
    }

    /// Reads what a stream has, once.
    pub(super) fn output_ready(&mut self, n: u64, stream: u8) {
        if self.read_output(n, stream) {
            self.pause_if_slow(n);
        }
        if let Some(log) = self.procs.get_mut(&n).and_then(|p| p.log.as_mut()) {
            log.flush();
        }
    }

    /// True when something was read.
    fn read_output(&mut self, n: u64, stream: u8) -> bool {
        let Some(p) = self.procs.get_mut(&n) else {
            return false;
        };
        let slot = if stream == 1 { &mut p.out } else { &mut p.err };
        let Some(fd) = slot else { return false };
        let len = match nix::unistd::read(&*fd, &mut self.buf) {
            Ok(len) if len > 0 => len,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return false,
            // The end of a pipe, or a terminal that nobody has open (EIO): no more events wanted.
            _ => {
                let _ = self.epoll.delete(&*fd);
                if !p.tty {
                    *slot = None;
                }
                return false;
            }
        };
        if let Some(log) = &mut p.log {
            let (at, which) = (
                Time::now(),
                if stream == 1 {
                    OutputStream::Stdout
                } else {
                    OutputStream::Stderr
                },
            );
            p.split[usize::from(stream) - 1].push(&self.buf[..len], |m| log.add(which, at, m));
        }
        for a in p.attachments.clone() {
            self.send_output(a, stream, len);
        }
        true
    }

    fn send_output(&mut self, a: u64, stream: u8, len: usize) {
        let Some(at) = self.attachments.get_mut(&a) else {
            return;
        };
        at.backlog.extend_from_slice(&stream_header(stream, len));
        at.backlog.extend_from_slice(&self.buf[..len]);
        self.push_backlog(a);
    }

    /// Writes an attachment's backlog as far as its socket takes it.
    fn push_backlog(&mut self, a: u64) {
        let Some(at) = self.attachments.get_mut(&a) else {
            return;
        };
        let mut done = 0;
        let broken = loop {
            if done == at.backlog.len() {
                break false;
            }
            let flags = nix::sys::socket::MsgFlags::MSG_NOSIGNAL | nix::sys::socket::MsgFlags::MSG_DONTWAIT;
            match nix::sys::socket::send(at.socket.as_raw_fd(), &at.backlog[done..], flags) {
                Ok(w) => done += w,
                Err(nix::Error::EAGAIN) => break false,
                Err(nix::Error::EINTR) => {}
                Err(_) => break true,
            }
        };
        at.backlog.drain(..done);
        let empty = at.backlog.is_empty();
        if empty && at.backlog.capacity() > 4096 {
            at.backlog = Vec::new();
        }
        if broken || (empty && at.ending) {
            self.drop_attachment(a);
            return;
        }
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLOUT, !empty);
        flags.set(EpollFlags::EPOLLIN, self.wants_input(a));
        if let Some(at) = self.attachments.get(&a) {
            self.rewatch(at.socket.as_fd(), Source::Attachment, a, flags);
        }
    }

    /// Whether standard input is read from an attachment now.
    fn wants_input(&self, a: u64) -> bool {
        let Some(at) = self.attachments.get(&a) else {
            return false;
        };
        let stuck = at
            .proc
            .and_then(|n| self.procs.get(&n))
            .is_none_or(|p| !p.stdin_backlog.is_empty() || p.pid == 0);
        at.input_open && !stuck
    }

    fn pause_if_slow(&mut self, n: u64) {
        let Some(p) = self.procs.get(&n) else { return };
        let slow = p
            .attachments
            .iter()
            .any(|a| self.attachments.get(a).is_some_and(|a| !a.backlog.is_empty()));
        if slow == p.paused {
            return;
        }
        for (fd, source) in [(&p.out, Source::Stdout), (&p.err, Source::Stderr)] {
            let Some(fd) = fd else { continue };
            if slow {
                let _ = self.epoll.delete(fd);
            } else {
                let _ = self.watch(fd.as_fd(), source, n, EpollFlags::EPOLLIN);
            }
        }
        if let Some(p) = self.procs.get_mut(&n) {
            p.paused = slow;
        }
    }

    /// A client reads, writes or leaves.
    pub(super) fn attachment_ready(&mut self, a: u64, flags: EpollFlags) {
        let proc = self.attachments.get(&a).and_then(|at| at.proc);
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.push_backlog(a);
        }
        if flags.contains(EpollFlags::EPOLLIN) {
            self.read_input(a);
        } else if flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.input_ended(a);
            self.drop_attachment(a);
        }
        if let Some(n) = proc {
            self.pause_if_slow(n);
        }
    }

    fn read_input(&mut self, a: u64) {
        let Some(at) = self.attachments.get_mut(&a) else {
            return;
        };
        let len = match nix::unistd::read(&at.socket, &mut self.buf[..16 * 1024]) {
            Ok(len) => len,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return,
            Err(_) => 0,
        };
        if len == 0 {
            self.input_ended(a);
            self.push_backlog(a);
            return;
        }
        let Some(p) = at.proc.and_then(|n| self.procs.get_mut(&n)) else {
            return;
        };
        let n = at.proc.unwrap_or(0);
        if p.stdin.is_some() && !p.stdin_closing {
            p.stdin_backlog.extend_from_slice(&self.buf[..len]);
            self.push_stdin(n);
        }
    }

    /// A client sends no more; the process's input ends with it where it was promised so.
    fn input_ended(&mut self, a: u64) {
        let Some(at) = self.attachments.get_mut(&a) else {
            return;
        };
        if !std::mem::replace(&mut at.input_open, false) {
            return;
        }
        let Some(n) = at.proc else { return };
        let Some(p) = self.procs.get_mut(&n) else { return };
        let once = match &p.role {
            Role::Container(o) => o.stdin_once,
            Role::Exec { .. } => true,
        };
        if once && !p.tty {
            p.stdin_closing = true;
            self.push_stdin(n);
        }
    }

    /// Standard input can be written again.
    pub(super) fn stdin_ready(&mut self, n: u64) {
        self.push_stdin(n);
    }

    fn push_stdin(&mut self, n: u64) {
        let Some(p) = self.procs.get_mut(&n) else { return };
        let Some(fd) = &p.stdin else { return };
        let mut done = 0;
        let full = loop {
            if done == p.stdin_backlog.len() {
                break false;
            }
            match nix::unistd::write(fd, &p.stdin_backlog[done..]) {
                Ok(w) => done += w,
                Err(nix::Error::EAGAIN) => break true,
                Err(nix::Error::EINTR) => {}
                // Nobody reads it any more.
                Err(_) => done = p.stdin_backlog.len(),
            }
        };
        p.stdin_backlog.drain(..done);
        let _ = self.epoll.delete(fd);
        if full {
            let _ = self.epoll.add(fd, token(Source::Stdin, n, EpollFlags::EPOLLOUT));
        } else {
            p.stdin_backlog = Vec::new();
            if p.stdin_closing {
                p.stdin = None;
            }
        }
        let Some(p) = self.procs.get(&n) else { return };
        for a in &p.attachments {
            if let Some(at) = self.attachments.get(a) {
                let mut flags = EpollFlags::empty();
                flags.set(EpollFlags::EPOLLOUT, !at.backlog.is_empty());
                flags.set(EpollFlags::EPOLLIN, self.wants_input(*a));
                self.rewatch(at.socket.as_fd(), Source::Attachment, *a, flags);
            }
        }
    }

    /// The process is there: what clients sent meanwhile is read now.
    pub(super) fn forward_stdin(&mut self, n: u64) {
        self.push_stdin(n);
        let Some(p) = self.procs.get(&n) else { return };
        for a in p.attachments.clone() {
            self.push_backlog(a);
        }
    }

    /// Reads streams to their end.
    pub(super) fn drain(&mut self, n: u64) {
        while self.read_output(n, 1) {}
        while self.read_output(n, 2) {}
    }

    /// The process has ended: its clients get what is left and then the end.
    pub(super) fn end_attachments(&mut self, p: &mut Proc) {
        for a in std::mem::take(&mut p.attachments) {
            if let Some(at) = self.attachments.get_mut(&a) {
                at.proc = None;
                at.ending = true;
                at.input_open = false;
            }
            self.push_backlog(a);
        }
    }

    fn drop_attachment(&mut self, a: u64) {
        let Some(at) = self.attachments.remove(&a) else {
            return;
        };
        if let Some(p) = at.proc.and_then(|n| self.procs.get_mut(&n)) {
            p.attachments.retain(|x| *x != a);
        }
        self.waiting.retain(|_, v| {
            v.retain(|x| *x != a);
            !v.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifos_belong_to_the_process_and_go_again() {
        let dir = tempfile::tempdir().unwrap();
        let order = StartOrder {
            bundle: dir.path().into(),
            stdin: true,
            ..StartOrder::default()
        };
        let mut proc = Proc::new(Role::Container(Box::new(order.clone())), false);
        let ends = container_streams(&order, &mut proc).unwrap();
        nix::unistd::write(&ends.stdout, b"x").unwrap();
        let mut buf = [0; 8];
        assert_eq!(nix::unistd::read(proc.out.as_ref().unwrap(), &mut buf), Ok(1));
        assert_eq!(
            nix::unistd::read(proc.out.as_ref().unwrap(), &mut buf),
            Err(nix::Error::EAGAIN)
        );
        // Closing the keeper's end of the input is its end.
        proc.stdin = None;
        assert_eq!(nix::unistd::read(&ends.stdin, &mut buf), Ok(0));
        remove_fifos(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
