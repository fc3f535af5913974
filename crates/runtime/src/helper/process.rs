//! The last steps of a process that the user asked for, container or exec: its terminal, and everything that the OCI
//! process says of identity, limits, capabilities and filters, up to finding its command.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sys::resource::setrlimit;
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{Capabilities, PosixRlimitType, Process};

use super::Failure;
use super::command::Command;
use crate::spec::caps;

/// A terminal of the container's own devpts: master and slave.
pub(super) fn open_terminal(size: Option<(u16, u16)>) -> Result<(OwnedFd, OwnedFd), Failure> {
    let open = |path: &str| {
        nix::fcntl::open(
            path,
            OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
    };
    let master = open("/dev/pts/ptmx").or_else(|_| open("/dev/ptmx"))?;
    let unlock: libc::c_int = 0;
    // SAFETY: the ioctl reads an int.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the ioctl makes a descriptor of the other end, without going by a path of the container.
    let peer = unsafe {
        libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCGPTPEER,
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        )
    };
    if peer < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let slave = unsafe { OwnedFd::from_raw_fd(peer) };
    if let Some((height, width)) = size {
        crate::keeper::set_size(&master, height, width)?;
    }
    Ok((master, slave))
}

/// Everything between the fork and `execve`, in the order that the privileges for each step allow.
pub(super) fn become_process(
    process: &Process,
    filter: Option<&[u8]>,
    terminal: Option<RawFd>,
) -> Result<Command, Failure> {
    nix::unistd::setsid()?;
    let user = process.user();
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    if let Some(slave) = terminal {
        take_terminal(slave, uid)?;
    }
    for l in process.rlimits().iter().flatten() {
        set_limit(l.typ(), l.soft(), l.hard())?;
    }
    let no_new_privileges = process.no_new_privileges() == Some(true);
    if no_new_privileges {
        nix::sys::prctl::set_no_new_privs()?;
    } else if let Some(filter) = filter {
        load(filter)?;
    }
    let cwd = process.cwd();
    let early = nix::unistd::chdir(cwd);
    let groups: Vec<Gid> = user
        .additional_gids()
        .iter()
        .flatten()
        .map(|g| Gid::from_raw(*g))
        .collect();
    nix::unistd::setgroups(&groups)?;
    drop_bounding(process)?;
    nix::sys::prctl::set_keepcaps(true)?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    nix::sys::prctl::set_keepcaps(false)?;
    set_capabilities(process)?;
    early
        .or_else(|e| {
            if e == nix::Error::EACCES {
                nix::unistd::chdir(cwd)
            } else {
                Err(e)
            }
        })
        .map_err(|e| {
            Failure::invalid(format!(
                "chdir to cwd ({cwd:?}) set in config.json failed: {}",
                e.desc().to_lowercase()
            ))
        })?;
    if no_new_privileges && let Some(filter) = filter {
        load(filter)?;
    }
    let none = Vec::new();
    Command::find(
        process.args().as_ref().unwrap_or(&none),
        process.env().as_ref().unwrap_or(&none),
    )
}

fn load(filter: &[u8]) -> Result<(), Failure> {
    crate::filter::load(filter).map_err(|e| Failure::internal(format!("loading the seccomp filter: {e}")))
}

fn take_terminal(slave: RawFd, owner: Uid) -> Result<(), Failure> {
    // SAFETY: plain descriptor and terminal calls on a descriptor that this process holds.
    unsafe {
        libc::fchown(slave, owner.as_raw(), libc::gid_t::MAX);
        for fd in 0..3 {
            if libc::dup2(slave, fd) < 0 {
                return Err(std::io::Error::last_os_error().into());
            }
        }
        if libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    Ok(())
}

fn set_limit(kind: PosixRlimitType, soft: u64, hard: u64) -> Result<(), Failure> {
    use nix::sys::resource::Resource as R;
    let resource = match kind {
        PosixRlimitType::RlimitCpu => R::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => R::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => R::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => R::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => R::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => R::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => R::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => R::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => R::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => R::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => R::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => R::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => R::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => R::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => R::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => R::RLIMIT_RTTIME,
    };
    setrlimit(resource, soft, hard)
        .map_err(|e| Failure::internal(format!("error setting rlimit type {kind:?}: {}", e.desc())))
}

fn bits(set: Option<&Capabilities>) -> u64 {
    set.into_iter()
        .flatten()
        .filter_map(|c| caps::bit(&c.to_string()))
        .fold(0, |m, b| m | 1 << b)
}

fn drop_bounding(process: &Process) -> Result<(), Failure> {
    let keep = bits(
        process
            .capabilities()
            .as_ref()
            .and_then(|c| c.bounding().as_ref()),
    );
    for b in 0..64 {
        // SAFETY: plain system calls on numbers; those beyond the kernel's last capability fail and end the loop.
        unsafe {
            let has = libc::prctl(libc::PR_CAPBSET_READ, b, 0, 0, 0);
            if has < 0 {
                break;
            }
            if has == 1 && keep & 1 << b == 0 && libc::prctl(libc::PR_CAPBSET_DROP, b, 0, 0, 0) != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
        }
    }
    Ok(())
}

fn set_capabilities(process: &Process) -> Result<(), Failure> {
    let Some(c) = process.capabilities() else {
        return Ok(());
    };
    let (effective, permitted) = (bits(c.effective().as_ref()), bits(c.permitted().as_ref()));
    let inheritable = bits(c.inheritable().as_ref());
    // Layout of `capset`'s version 3 (linux/capability.h).
    let header = [0x2008_0522_u32, 0];
    let low = |m: u64| m as u32;
    let high = |m: u64| (m >> 32) as u32;
    let data = [
        low(effective),
        low(permitted),
        low(inheritable),
        high(effective),
        high(permitted),
        high(inheritable),
    ];
    // SAFETY: header and data have the layout that the kernel reads for version 3.
    if unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    for b in 0..64 {
        if bits(c.ambient().as_ref()) & 1 << b != 0 {
            // SAFETY: plain system call; a capability that cannot be ambient is left out, as runc does.
            unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, b, 0, 0) };
        }
    }
    Ok(())
}
