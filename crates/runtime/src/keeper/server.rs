//! The keeper's loop: one epoll set with everything that can happen.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::procs::{Helper, Proc};
use super::records::Records;
use super::streams::Attachment;
use super::wire::{self, Answer, Event, Inbox, Outbox, Reply};

/// How long the keeper stays without a container and without a daemon.
const IDLE_MS: u16 = 30_000;

/// What an epoll event is about; the lower 56 bits of the token are the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Source {
    Listener,
    Signal,
    Connection,
    Stdout,
    Stderr,
    Stdin,
    Attachment,
    Helper,
    Pidfd,
    Oom,
}

const SOURCES: [Source; 10] = [
    Source::Listener,
    Source::Signal,
    Source::Connection,
    Source::Stdout,
    Source::Stderr,
    Source::Stdin,
    Source::Attachment,
    Source::Helper,
    Source::Pidfd,
    Source::Oom,
];

/// The event that tells that something happened to `source` number `n`.
pub(super) fn token(source: Source, n: u64, flags: EpollFlags) -> EpollEvent {
    EpollEvent::new(flags, (source as u64) << 56 | n)
}

/// A daemon's connection.
pub(super) struct Connection {
    pub(super) socket: UnixStream,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) greeted: bool,
}

/// The keeper.
pub(super) struct Server {
    pub(super) epoll: Epoll,
    listener: UnixListener,
    signals: SignalFd,
    pub(super) records: Records,
    next: u64,
    pub(super) connections: HashMap<u64, Connection>,
    pub(super) procs: HashMap<u64, Proc>,
    /// Containers by identifier.
    pub(super) by_id: HashMap<String, u64>,
    /// Execs by identifier.
    pub(super) by_exec: HashMap<String, u64>,
    pub(super) by_pid: HashMap<i32, u64>,
    pub(super) helpers: HashMap<u64, Helper>,
    /// Exit statuses of processes whose helper has not reported yet.
    pub(super) early: HashMap<i32, i32>,
    pub(super) attachments: HashMap<u64, Attachment>,
    /// Attachments to the next run of a container.
    pub(super) waiting: HashMap<String, Vec<u64>>,
    /// Descriptors kept for the daemon.
    pub(super) kept: HashMap<String, Vec<OwnedFd>>,
    pub(super) bye: bool,
    pub(super) buf: Vec<u8>,
}

impl Server {
    /// Serves in `dir`, continuing what an earlier keeper left.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        for s in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGPIPE] {
            // SAFETY: ignoring a signal installs no handler.
            unsafe { nix::sys::signal::signal(s, nix::sys::signal::SigHandler::SigIgn) }?;
        }
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // By a relative name, since the path of a socket may not be long.
        std::env::set_current_dir(dir)?;
        let _ = std::fs::remove_file(super::SOCKET);
        let listener = UnixListener::bind(super::SOCKET)?;
        std::fs::set_permissions(super::SOCKET, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let mut server = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            listener,
            signals,
            records: Records::open(dir)?,
            next: 0,
            connections: HashMap::new(),
            procs: HashMap::new(),
            by_id: HashMap::new(),
            by_exec: HashMap::new(),
            by_pid: HashMap::new(),
            helpers: HashMap::new(),
            early: HashMap::new(),
            attachments: HashMap::new(),
            waiting: HashMap::new(),
            kept: HashMap::new(),
            bye: false,
            buf: vec![0; 64 * 1024],
        };
        server.watch(server.listener.as_fd(), Source::Listener, 0, EpollFlags::EPOLLIN)?;
        server.watch(server.signals.as_fd(), Source::Signal, 0, EpollFlags::EPOLLIN)?;
        server.take_over()?;
        Ok(server)
    }

    /// A number never used before.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn watch(
        &self,
        fd: BorrowedFd<'_>,
        source: Source,
        n: u64,
        flags: EpollFlags,
    ) -> io::Result<()> {
        Ok(self.epoll.add(fd, token(source, n, flags))?)
    }

    pub(super) fn rewatch(&self, fd: BorrowedFd<'_>, source: Source, n: u64, flags: EpollFlags) {
        let _ = self.epoll.modify(fd, &mut token(source, n, flags));
    }

    /// Runs until nothing is left to do.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 32];
        loop {
            if self.idle() && self.bye {
                return Ok(());
            }
            let timeout = if self.idle() {
                EpollTimeout::from(IDLE_MS)
            } else {
                EpollTimeout::NONE
            };
            let n = match self.epoll.wait(&mut events, timeout) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(nix::Error::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            for e in &events[..n] {
                let (kind, number) = ((e.data() >> 56) as usize, e.data() & ((1 << 56) - 1));
                if let Some(source) = SOURCES.get(kind) {
                    self.handle(*source, number, e.events());
                }
            }
        }
    }

    fn idle(&self) -> bool {
        self.connections.is_empty()
            && self.helpers.is_empty()
            && self.attachments.is_empty()
            && self.procs.values().all(|p| p.exit.is_some())
    }

    fn handle(&mut self, source: Source, n: u64, flags: EpollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Signal => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            Source::Connection => self.connection_ready(n, flags),
            Source::Stdout => self.output_ready(n, 1),
            Source::Stderr => self.output_ready(n, 2),
            Source::Stdin => self.stdin_ready(n),
            Source::Attachment => self.attachment_ready(n, flags),
            Source::Helper => self.helper_ready(n),
            Source::Pidfd => self.pidfd_ready(n),
            Source::Oom => self.oom_ready(n),
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            let n = self.number();
            let ready = socket.set_nonblocking(true).is_ok()
                && self
                    .watch(socket.as_fd(), Source::Connection, n, EpollFlags::EPOLLIN)
                    .is_ok();
            if ready {
                self.bye = false;
                self.connections.insert(
                    n,
                    Connection {
                        socket,
                        inbox: Inbox::default(),
                        outbox: Outbox::default(),
                        greeted: false,
                    },
                );
            }
        }
    }

    fn connection_ready(&mut self, n: u64, flags: EpollFlags) {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.flush(n);
        }
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            self.read_calls(n);
        }
    }

    fn read_calls(&mut self, n: u64) {
        let Some(mut c) = self.connections.remove(&n) else {
            return;
        };
        let mut calls = Vec::new();
        let outcome = loop {
            match c.inbox.fill(c.socket.as_fd()) {
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(e) => break Err(e),
            }
            if let Err(e) = take_calls(&mut c.inbox, &mut calls) {
                break Err(e);
            }
        };
        self.connections.insert(n, c);
        for (call, fds) in calls {
            self.call(n, call, fds);
        }
        if outcome.is_err() {
            self.connections.remove(&n);
        }
    }

    /// Answers a call.
    pub(super) fn reply(&mut self, n: u64, seq: u64, body: Reply, fds: Vec<OwnedFd>) {
        let answer = Answer::Reply {
            seq,
            fds: fds.len(),
            body,
        };
        if let (Some(c), Ok(bytes)) = (self.connections.get_mut(&n), wire::encode(&answer)) {
            c.outbox.push(bytes, fds);
            self.flush(n);
        }
    }

    /// Tells every daemon.
    pub(super) fn announce(&mut self, event: &Event) {
        let Ok(bytes) = wire::encode(&Answer::Event { event: event.clone() }) else {
            return;
        };
        let all: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.greeted)
            .map(|(n, _)| *n)
            .collect();
        for n in all {
            if let Some(c) = self.connections.get_mut(&n) {
                c.outbox.push(bytes.clone(), Vec::new());
            }
            self.flush(n);
        }
    }

    fn flush(&mut self, n: u64) {
        let Some(c) = self.connections.get_mut(&n) else {
            return;
        };
        let flags = match c.outbox.flush(c.socket.as_fd()) {
            Ok(true) => EpollFlags::EPOLLIN,
            Ok(false) => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            // The end is seen by the next read, too.
            Err(_) => EpollFlags::EPOLLIN,
        };
        let c = &self.connections[&n];
        self.rewatch(c.socket.as_fd(), Source::Connection, n, flags);
    }
}

type Received = (wire::Call, Vec<OwnedFd>);

fn take_calls(inbox: &mut Inbox, calls: &mut Vec<Received>) -> io::Result<()> {
    loop {
        let call: wire::Call = match inbox.next_frame()? {
            Some(frame) => serde_json::from_slice(frame)?,
            None => return Ok(()),
        };
        let fds = inbox.take_fds(call.fds)?;
        calls.push((call, fds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_source() {
        for (i, s) in SOURCES.iter().enumerate() {
            assert_eq!(*s as usize, i);
        }
    }
}
