//! A keeper that starts after another was killed: it knows the containers from their records, opens the FIFOs
//! again and watches the processes, which are not its children, by pidfds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::sys::epoll::EpollFlags;

use super::procs::{Proc, Role};
use super::server::{Server, Source};
use super::wire::Record;
use super::{records, streams};
use crate::helper::init::exit_code;
use crate::logs::writer::LogWriter;

impl Server {
    /// Reads the records of an earlier keeper.
    pub(super) fn take_over(&mut self) -> io::Result<()> {
        for record in self.records.load()? {
            self.take_over_one(record);
        }
        Ok(())
    }

    fn take_over_one(&mut self, record: Record) {
        let n = self.number();
        let order = record.order;
        let mut p = Proc::new(Role::Container(Box::new(order.clone())), order.tty);
        (p.pid, p.start_ticks, p.exit) = (record.pid, record.start_ticks, record.exit);
        self.by_id.insert(order.id.clone(), n);
        if p.exit.is_some() {
            self.procs.insert(n, p);
            return;
        }
        p.log = LogWriter::open(order.log.clone()).ok().flatten();
        if !order.tty && streams::open_output(&order.bundle, &mut p).is_ok() {
            self.watch_streams(n, &p);
        }
        // The pidfd first: only then does the start time tell that it is the right process.
        let pidfd = pidfd_open(p.pid).ok();
        let alive = records::start_ticks(p.pid).is_some_and(|t| t == p.start_ticks);
        let code = if alive { None } else { zombie_code(&p) };
        self.by_pid.insert(p.pid, n);
        if let (true, Some(fd)) = (alive, pidfd) {
            let _ = self.watch(fd.as_fd(), Source::Pidfd, n, EpollFlags::EPOLLIN);
            p.pidfd = Some(fd);
            self.procs.insert(n, p);
        } else {
            self.procs.insert(n, p);
            self.ended(n, code);
        }
    }

    /// A process that is not a child ended.
    pub(super) fn pidfd_ready(&mut self, n: u64) {
        let Some(p) = self.procs.get(&n) else { return };
        let Some(fd) = &p.pidfd else { return };
        let code = exit_info(fd.as_raw_fd())
            .map(|s| i64::from(exit_code(s)))
            .or_else(|| zombie_code(p));
        self.ended(n, code);
    }
}

/// The status in `/proc/PID/stat` while nobody has collected the process.
fn zombie_code(p: &Proc) -> Option<i64> {
    let fields = records::stat_fields(p.pid)?;
    let same = fields.get(19)?.parse() == Ok(p.start_ticks);
    (same && fields.first()? == "Z")
        .then(|| fields.get(49)?.parse().ok().map(|s: i32| i64::from(exit_code(s))))?
}

fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain system call; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as RawFd;
    if fd < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(super::own_fd(fd))
    }
}

/// `struct pidfd_info` of linux/pidfd.h (version 1 of its size, 64 bytes, is what `PIDFD_INFO_EXIT` needs).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    numbers: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<PidfdInfo>() as libc::c_ulong) << 16 | 0xff << 8 | 11;

/// The wait status of a process that has been collected by its own parent (Linux 6.15).
fn exit_info(pidfd: RawFd) -> Option<i32> {
    let mut info = PidfdInfo {
        mask: INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the structure is as long as the request says.
    let r = unsafe { libc::ioctl(pidfd, GET_INFO, &raw mut info) };
    (r == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_was_collected_tells_its_status() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "exit 7"])
            .spawn()
            .unwrap();
        let fd = pidfd_open(child.id() as i32).unwrap();
        child.wait().unwrap();
        match exit_info(fd.as_raw_fd()) {
            Some(status) => assert_eq!(exit_code(status), 7),
            None => eprintln!("skipped: this kernel has no PIDFD_INFO_EXIT"),
        }
    }
}
