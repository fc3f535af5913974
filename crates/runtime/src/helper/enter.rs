//! Runs a further process in a running container (`exec`): joins its cgroups and namespaces, and becomes the
//! command with the identity, limits and filters that the OCI process asks for.

use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::resource::setrlimit;
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{Capabilities, LinuxSeccomp, PosixRlimitType, Process};

use super::Failure;
use super::command::Command;
use super::create::{marked, tell};
use crate::keeper::wire::ExecOrder;
use crate::spec::caps;

/// Enters the container whose first process is `target`. Standard streams are already in place.
pub(crate) fn run(order: &ExecOrder, target: i32) -> Result<(i32, Option<OwnedFd>), Failure> {
    let process: Process = serde_json::from_value(order.process.clone())
        .map_err(|e| Failure::internal(format!("process description: {e}")))?;
    let seccomp: Option<LinuxSeccomp> = serde_json::from_value(order.seccomp.clone())
        .map_err(|e| Failure::internal(format!("seccomp profile: {e}")))?;
    for procs in &order.join {
        match std::fs::write(procs, "0") {
            // A cgroup without the controller's processes may be gone already with the container.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            r => r.map_err(|e| Failure::internal(format!("joining {}: {e}", procs.display())))?,
        }
    }
    if let Some(adj) = process.oom_score_adj() {
        std::fs::write("/proc/self/oom_score_adj", adj.to_string())?;
    }
    // Processes of the container must not look into this one once it is in their namespaces.
    nix::sys::prctl::set_dumpable(false)?;
    join_namespaces(target)?;
    let tty = if order.tty {
        Some(open_terminal(order.console_size)?)
    } else {
        None
    };
    let (why, told) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread; the child executes the command or leaves by `_exit`.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            let slave = tty.as_ref().map(|(_, slave)| slave.as_raw_fd());
            let failure = match become_process(&process, seccomp.as_ref(), slave) {
                Ok(command) => command.execute(),
                Err(f) => f,
            };
            tell(told.as_raw_fd(), &failure);
            // SAFETY: leaves without exit handlers.
            unsafe { libc::_exit(127) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(told);
            let mut text = String::new();
            std::fs::File::from(why).read_to_string(&mut text)?;
            if text.is_empty() {
                Ok((child.as_raw(), tty.map(|(master, _)| master)))
            } else {
                let _ = nix::sys::wait::waitpid(child, None);
                Err(marked(&text))
            }
        }
    }
}

/// Joins all namespaces of a process at once (`setns` on a pidfd, Linux 5.8).
fn join_namespaces(target: i32) -> Result<(), Failure> {
    // SAFETY: plain system call; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, target, 0) } as RawFd;
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    nix::sched::setns(&pidfd, all)
        .map_err(|e| Failure::internal(format!("joining the container's namespaces: {}", e.desc())))
}

/// A terminal of the container's own devpts: master and slave.
fn open_terminal(size: Option<(u16, u16)>) -> Result<(OwnedFd, OwnedFd), Failure> {
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
fn become_process(
    process: &Process,
    seccomp: Option<&LinuxSeccomp>,
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
    } else if let Some(profile) = seccomp {
        load_seccomp(profile)?;
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
    if no_new_privileges && let Some(profile) = seccomp {
        load_seccomp(profile)?;
    }
    let none = Vec::new();
    Command::find(
        process.args().as_ref().unwrap_or(&none),
        process.env().as_ref().unwrap_or(&none),
    )
}

fn load_seccomp(profile: &LinuxSeccomp) -> Result<(), Failure> {
    libcontainer::seccomp::initialize_seccomp(profile)
        .map(drop)
        .map_err(|e| Failure::internal(format!("seccomp: {e}")))
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
