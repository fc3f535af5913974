//! What the daemon asks of the keeper.

use std::os::fd::OwnedFd;

use super::server::Server;
use super::wire::{Call, ErrorCode, Reply, Request, VERSION};

/// An answer of the kind `Error`.
pub(super) fn error(kind: ErrorCode, message: impl Into<String>) -> Reply {
    Reply::Error {
        kind,
        message: message.into(),
    }
}

impl Server {
    /// Carries a call out. Starting and exec answer later.
    pub(super) fn call(&mut self, connection: u64, call: Call, fds: Vec<OwnedFd>) {
        let seq = call.seq;
        let (reply, out) = match call.body {
            Request::Start(order) => match self.start(connection, seq, *order) {
                Ok(()) => return,
                Err(e) => (error(ErrorCode::Internal, e.to_string()), Vec::new()),
            },
            Request::Exec(order) => match self.exec(connection, seq, *order) {
                Ok(()) => return,
                Err(reply) => (reply, Vec::new()),
            },
            Request::Attach { id, next } => match self.attach(&id, next) {
                Ok(fd) => (Reply::Ok, vec![fd]),
                Err(reply) => (reply, Vec::new()),
            },
            Request::FetchFds { name } => self.fetch(&name),
            other => (self.quick(connection, other, fds), Vec::new()),
        };
        self.reply(connection, seq, reply, out);
    }

    fn quick(&mut self, connection: u64, request: Request, fds: Vec<OwnedFd>) -> Reply {
        match request {
            Request::Hello { version } => {
                if version == VERSION
                    && let Some(c) = self.connections.get_mut(&connection)
                {
                    c.greeted = true;
                }
                return Reply::Hello {
                    version: VERSION,
                    pid: std::process::id() as i32,
                };
            }
            Request::Resize {
                id,
                exec_id,
                height,
                width,
            } => {
                return self.resize(&id, exec_id.as_deref(), height, width);
            }
            Request::Signal { id, signal } => return self.signal(&id, signal),
            Request::KillExec { exec_id } => return self.kill_exec(&exec_id),
            Request::List => {
                let containers = self.procs.values().filter_map(|p| p.record()).collect();
                return Reply::List { containers };
            }
            Request::Acknowledge { id, run } => self.acknowledge(&id, run),
            Request::Forget { id } => self.forget(&id),
            Request::StoreFds { name } => {
                self.kept.insert(name, fds);
            }
            Request::DropFds { name } => {
                self.kept.remove(&name);
            }
            Request::Bye => self.bye = true,
            Request::Start(_) | Request::Exec(_) | Request::Attach { .. } | Request::FetchFds { .. } => {}
        }
        Reply::Ok
    }

    fn fetch(&self, name: &str) -> (Reply, Vec<OwnedFd>) {
        let kept = self.kept.get(name).map_or(&[][..], Vec::as_slice);
        match kept
            .iter()
            .map(OwnedFd::try_clone)
            .collect::<std::io::Result<Vec<_>>>()
        {
            Ok(fds) => (Reply::Ok, fds),
            Err(e) => (error(ErrorCode::Internal, e.to_string()), Vec::new()),
        }
    }

    fn resize(&self, id: &str, exec_id: Option<&str>, height: u16, width: u16) -> Reply {
        let n = match exec_id {
            Some(e) => self.by_exec.get(e),
            None => self.by_id.get(id),
        };
        let Some(p) = n.and_then(|n| self.procs.get(n)).filter(|p| p.exit.is_none()) else {
            return error(
                ErrorCode::NotFound,
                format!("process {} is not running", exec_id.unwrap_or(id)),
            );
        };
        match &p.out {
            Some(tty) if p.tty => match super::set_size(tty, height, width) {
                Ok(()) => Reply::Ok,
                Err(e) => error(ErrorCode::Internal, e.to_string()),
            },
            // Without a terminal there is nothing to do; Docker answers with success.
            _ => Reply::Ok,
        }
    }

    /// The keeper is the parent, so the number cannot have been taken by another process meanwhile.
    fn signal(&self, id: &str, signal: i32) -> Reply {
        match self.by_id.get(id).and_then(|n| self.procs.get(n)) {
            Some(p) if p.exit.is_none() && p.pid > 0 => kill(p.pid, signal),
            _ => error(ErrorCode::Conflict, format!("container {id} is not running")),
        }
    }

    fn kill_exec(&self, exec_id: &str) -> Reply {
        match self.by_exec.get(exec_id).and_then(|n| self.procs.get(n)) {
            Some(p) if p.exit.is_none() && p.pid > 0 => kill(p.pid, libc::SIGKILL),
            _ => error(ErrorCode::NotFound, format!("exec {exec_id} is not running")),
        }
    }

    fn acknowledge(&mut self, id: &str, run: u64) {
        let ended = self
            .by_id
            .get(id)
            .and_then(|n| self.procs.get(n))
            .is_some_and(|p| p.exit.is_some() && p.order().is_some_and(|o| o.run == run));
        if ended {
            self.forget(id);
        }
    }

    /// Drops a container that has ended.
    fn forget(&mut self, id: &str) {
        if let Some(n) = self.by_id.get(id).copied()
            && self.procs.get(&n).is_some_and(|p| p.exit.is_some())
        {
            self.by_id.remove(id);
            self.procs.remove(&n);
        }
        if !self.by_id.contains_key(id) {
            self.records.remove(id);
        }
    }
}

fn kill(pid: i32, signal: i32) -> Reply {
    // SAFETY: plain system call on a child that has not been collected.
    if unsafe { libc::kill(pid, signal) } == 0 {
        Reply::Ok
    } else {
        error(ErrorCode::Internal, std::io::Error::last_os_error().to_string())
    }
}
