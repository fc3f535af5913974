//! Processes: started by helpers, collected when they end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tripod_agent::ports::OutputStream;
use tripod_model::Time;

use super::calls::error;
use super::server::{Server, Source};
use super::wire::{ErrorCode, Event, ExecOrder, ExitRecord, Record, Reply, StartOrder};
use super::{records, streams};
use crate::helper::{self, Report, init::exit_code};
use crate::logs::split::Splitter;
use crate::logs::writer::LogWriter;

/// What a process is to the daemon.
pub(super) enum Role {
    /// First process of a container.
    Container(Box<StartOrder>),
    /// Made by exec.
    Exec { id: String, exec_id: String },
}

/// A process, its streams and its end.
pub(super) struct Proc {
    pub(super) role: Role,
    /// 0 while it is being made.
    pub(super) pid: i32,
    pub(super) start_ticks: u64,
    pub(super) tty: bool,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdin_backlog: Vec<u8>,
    pub(super) stdin_closing: bool,
    /// Standard output, or the terminal.
    pub(super) out: Option<OwnedFd>,
    pub(super) err: Option<OwnedFd>,
    pub(super) split: [Splitter; 2],
    pub(super) log: Option<LogWriter>,
    pub(super) attachments: Vec<u64>,
    /// Not read because an attached client is slow.
    pub(super) paused: bool,
    pub(super) exit: Option<ExitRecord>,
    /// Only after a take-over.
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) oom: Option<OomWatch>,
}

/// Notices kills for lack of memory while the container runs.
pub(super) struct OomWatch {
    fd: OwnedFd,
    _control: Option<OwnedFd>,
    seen: u64,
}

/// A helper at work.
pub(super) struct Helper {
    pub(super) socket: OwnedFd,
    proc: u64,
    connection: u64,
    seq: u64,
    /// Goes to the daemon with the answer (exec's stream socket).
    attachment: Option<OwnedFd>,
}

impl Proc {
    pub(super) fn new(role: Role, tty: bool) -> Self {
        Self {
            role,
            pid: 0,
            start_ticks: 0,
            tty,
            stdin: None,
            stdin_backlog: Vec::new(),
            stdin_closing: false,
            out: None,
            err: None,
            split: Default::default(),
            log: None,
            attachments: Vec::new(),
            paused: false,
            exit: None,
            pidfd: None,
            oom: None,
        }
    }

    /// The start order, when this is a container.
    pub(super) fn order(&self) -> Option<&StartOrder> {
        match &self.role {
            Role::Container(o) => Some(o),
            Role::Exec { .. } => None,
        }
    }

    /// What is to be remembered, when this is a container that runs or ran.
    pub(super) fn record(&self) -> Option<Record> {
        let order = self.order().filter(|_| self.pid > 0)?.clone();
        Some(Record {
            order,
            pid: self.pid,
            start_ticks: self.start_ticks,
            exit: self.exit.clone(),
        })
    }
}

/// The ends of a process's streams that its helper gets.
pub(super) struct Ends {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Ends {
    fn raw(&self) -> [RawFd; 3] {
        [
            self.stdin.as_raw_fd(),
            self.stdout.as_raw_fd(),
            self.stderr.as_raw_fd(),
        ]
    }
}

impl Server {
    /// Begins to start a container; the answer comes when its helper reports.
    pub(super) fn start(&mut self, connection: u64, seq: u64, order: StartOrder) -> io::Result<()> {
        if let Some(n) = self.by_id.get(&order.id).copied() {
            if self.procs.get(&n).is_some_and(|p| p.exit.is_none()) {
                let reply = error(
                    ErrorCode::Conflict,
                    format!("container {} is already running", order.id),
                );
                self.reply(connection, seq, reply, Vec::new());
                return Ok(());
            }
            self.procs.remove(&n);
        }
        let mut proc = Proc::new(Role::Container(Box::new(order.clone())), order.tty);
        let ends = streams::container_streams(&order, &mut proc)?;
        proc.log = LogWriter::open(order.log.clone())?;
        let helper_order = order.clone();
        let n = self.number();
        self.launch(n, &ends, (connection, seq), None, move || {
            helper::create::run(&helper_order).map_err(helper::create_failed)
        })?;
        proc.attachments = self.waiting.remove(&order.id).unwrap_or_default();
        for a in &proc.attachments {
            if let Some(a) = self.attachments.get_mut(a) {
                a.proc = Some(n);
            }
        }
        self.by_id.insert(order.id, n);
        self.watch_streams(n, &proc);
        self.procs.insert(n, proc);
        Ok(())
    }

    /// Begins to run a process in a container.
    pub(super) fn exec(&mut self, connection: u64, seq: u64, order: ExecOrder) -> Result<(), Reply> {
        let io_error = |e: io::Error| error(ErrorCode::Internal, e.to_string());
        let target = self
            .by_id
            .get(&order.id)
            .and_then(|n| self.procs.get(n))
            .filter(|p| p.exit.is_none() && p.pid > 0)
            .ok_or_else(|| {
                error(
                    ErrorCode::Conflict,
                    format!("container {} is not running", order.id),
                )
            })?;
        let (pid, bundle) = (
            target.pid,
            target.order().map(|o| o.bundle.clone()).unwrap_or_default(),
        );
        let role = Role::Exec {
            id: order.id.clone(),
            exec_id: order.exec_id.clone(),
        };
        let mut proc = Proc::new(role, order.tty);
        let ends = streams::exec_streams(order.tty, order.stdin, &mut proc).map_err(io_error)?;
        let n = self.number();
        let remote = self.new_attachment(Some(n)).map_err(io_error)?;
        proc.attachments.push(self.last_number());
        self.by_exec.insert(order.exec_id.clone(), n);
        let work = move || {
            match &order.oci_runtime {
                Some(runtime) => helper::external::exec(&order, &bundle, runtime),
                None => helper::enter::run(&order, pid),
            }
            .map_err(helper::exec_failed)
        };
        self.watch_streams(n, &proc);
        self.procs.insert(n, proc);
        self.launch(n, &ends, (connection, seq), Some(remote), work)
            .map_err(io_error)
    }

    fn launch(
        &mut self,
        proc: u64,
        ends: &Ends,
        (connection, seq): (u64, u64),
        attachment: Option<OwnedFd>,
        work: impl FnOnce() -> Result<(i32, Option<OwnedFd>), helper::Failure>,
    ) -> io::Result<()> {
        let (socket, report) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        helper::spawn(ends.raw(), report, work)?;
        let n = self.number();
        self.watch(socket.as_fd(), Source::Helper, n, EpollFlags::EPOLLIN)?;
        self.helpers.insert(
            n,
            Helper {
                socket,
                proc,
                connection,
                seq,
                attachment,
            },
        );
        Ok(())
    }

    /// A helper has something to say, or died.
    pub(super) fn helper_ready(&mut self, n: u64) {
        let Some(h) = self.helpers.remove(&n) else { return };
        let outcome = helper::receive_report(h.socket.as_fd());
        drop(h.socket);
        match outcome {
            Ok((Report::Started { pid }, tty)) => {
                self.started(h.proc, pid, tty, h.connection, h.seq, h.attachment);
            }
            Ok((Report::Failed { kind, message }, _)) => {
                self.not_started(h.proc);
                self.reply(h.connection, h.seq, error(kind, message), Vec::new());
            }
            Err(e) => {
                self.not_started(h.proc);
                let text = format!("the helper ended without a result: {e}");
                self.reply(h.connection, h.seq, error(ErrorCode::Internal, text), Vec::new());
            }
        }
        if self.helpers.is_empty() {
            self.early.clear();
        }
    }

    fn started(
        &mut self,
        n: u64,
        pid: i32,
        tty: Option<OwnedFd>,
        connection: u64,
        seq: u64,
        attachment: Option<OwnedFd>,
    ) {
        let Some(mut p) = self.procs.remove(&n) else {
            return;
        };
        p.pid = pid;
        if let Some(tty) = tty {
            let _ = streams::set_nonblocking(&tty);
            p.stdin = tty.try_clone().ok();
            p.out = Some(tty);
            self.watch_streams(n, &p);
        }
        let ended = self.early.remove(&pid);
        if let Role::Container(order) = &p.role {
            p.start_ticks = records::start_ticks(pid).unwrap_or(0);
            if order.oom_watch && ended.is_none() {
                p.oom = self.watch_oom(n, order).ok().flatten();
            }
            if let Some(record) = p.record() {
                let _ = self.records.save(&record);
            }
        }
        self.by_pid.insert(pid, n);
        self.procs.insert(n, p);
        self.forward_stdin(n);
        self.reply(
            connection,
            seq,
            Reply::Pid { pid },
            attachment.into_iter().collect(),
        );
        if let Some(status) = ended {
            self.ended(n, Some(i64::from(exit_code(status))));
        }
    }

    fn not_started(&mut self, n: u64) {
        let Some(mut p) = self.procs.remove(&n) else {
            return;
        };
        match &p.role {
            Role::Container(o) => {
                self.by_id.remove(&o.id);
                self.records.remove(&o.id);
                streams::remove_fifos(&o.bundle);
            }
            Role::Exec { exec_id, .. } => {
                self.by_exec.remove(exec_id);
            }
        }
        self.end_attachments(&mut p);
    }

    /// Collects children that ended.
    pub(super) fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: collects any child without waiting.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            match self.by_pid.get(&pid) {
                Some(n) => self.ended(*n, Some(i64::from(exit_code(status)))),
                None if !self.helpers.is_empty() => {
                    self.early.insert(pid, status);
                }
                None => {}
            }
        }
    }

    /// A process ended: its output is read to the end, its record written, the daemon told.
    pub(super) fn ended(&mut self, n: u64, code: Option<i64>) {
        self.drain(n);
        let Some(mut p) = self.procs.remove(&n) else {
            return;
        };
        self.by_pid.remove(&p.pid);
        let now = Time::now();
        if let Some(log) = &mut p.log {
            for (split, stream) in p
                .split
                .iter_mut()
                .zip([OutputStream::Stdout, OutputStream::Stderr])
            {
                split.finish(|m| log.add(stream, now, m));
            }
            log.flush();
        }
        p.log = None;
        (p.stdin, p.out, p.err, p.oom, p.pidfd) = (None, None, None, None, None);
        self.end_attachments(&mut p);
        let event = match &p.role {
            Role::Container(order) => {
                let oom_killed = order.oom_file.as_deref().is_some_and(|f| oom_kills(f) > 0);
                let at_nanos = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
                let exit = ExitRecord {
                    code,
                    oom_killed,
                    at_nanos,
                };
                streams::remove_fifos(&order.bundle);
                p.exit = Some(exit.clone());
                if let Some(record) = p.record() {
                    let _ = self.records.save(&record);
                }
                Event::Exited {
                    id: order.id.clone(),
                    run: order.run,
                    exit,
                }
            }
            Role::Exec { id, exec_id } => {
                self.by_exec.remove(exec_id);
                Event::ExecExited {
                    id: id.clone(),
                    exec_id: exec_id.clone(),
                    code: code.unwrap_or(-1),
                }
            }
        };
        if p.exit.is_some() {
            p.split = Default::default();
            self.procs.insert(n, p);
        }
        self.announce(&event);
    }

    fn watch_oom(&self, n: u64, order: &StartOrder) -> io::Result<Option<OomWatch>> {
        let Some(file) = &order.oom_file else {
            return Ok(None);
        };
        let (fd, control) = if file.ends_with("memory.oom_control") {
            let event = nix::sys::eventfd::EventFd::from_flags(
                nix::sys::eventfd::EfdFlags::EFD_CLOEXEC | nix::sys::eventfd::EfdFlags::EFD_NONBLOCK,
            )?;
            let control = OwnedFd::from(std::fs::File::open(file)?);
            let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
            std::fs::write(file.with_file_name("cgroup.event_control"), line)?;
            (event.into(), Some(control))
        } else {
            let watch = rustix::fs::inotify::init(
                rustix::fs::inotify::CreateFlags::CLOEXEC | rustix::fs::inotify::CreateFlags::NONBLOCK,
            )?;
            rustix::fs::inotify::add_watch(&watch, file.as_path(), rustix::fs::inotify::WatchFlags::MODIFY)?;
            (watch, None)
        };
        self.watch(fd.as_fd(), Source::Oom, n, EpollFlags::EPOLLIN)?;
        Ok(Some(OomWatch {
            fd,
            _control: control,
            seen: 0,
        }))
    }

    /// Something about memory changed.
    pub(super) fn oom_ready(&mut self, n: u64) {
        let Some(p) = self.procs.get_mut(&n) else { return };
        let Some((id, file)) = p.order().map(|o| (o.id.clone(), o.oom_file.clone())) else {
            return;
        };
        let Some(watch) = &mut p.oom else { return };
        let mut buf = [0u8; 4096];
        let _ = nix::unistd::read(&watch.fd, &mut buf);
        let Some(file) = file.filter(|f| f.exists()) else {
            // The cgroup is gone.
            p.oom = None;
            return;
        };
        let kills = oom_kills(&file);
        let more = kills > watch.seen;
        watch.seen = kills;
        if more {
            self.announce(&Event::Oom { id });
        }
    }
}

/// Processes that the kernel killed: the line `oom_kill N` of v1's `memory.oom_control` and v2's `memory.events`.
fn oom_kills(file: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}

/// A pipe whose first end the keeper reads or whose second it writes, not blocking on its side.
pub(super) fn pipe(keeper_reads: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let (r, w) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let (mine, theirs) = if keeper_reads { (r, w) } else { (w, r) };
    streams::set_nonblocking(&mine)?;
    Ok((mine, theirs))
}
