//! `tripod node-init`: a node of a local cluster as a machine of its own.
//!
//! The command is run twice. The first run joins the node's network namespace, makes namespaces for mounts, host name,
//! System V IPC and processes, and starts the second, which is process 1 of the node: it sets up what a machine has
//! (`/proc`, `/run`, a host name), starts the daemon, starts it again should it die, and collects orphans. When it ends,
//! the kernel ends every process of the node.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};
use serde::{Deserialize, Serialize};
use tripod_model::{Error, Result};

use super::record::Mount;

/// A daemon that ended sooner than this after its start is not started at once.
const HASTE: Duration = Duration::from_secs(1);

/// Environment variable with the number of the file that is the machine's network namespace.
const MACHINE: &str = "TRIPOD_MACHINE_NETNS";

/// What the node's first process is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodePlan {
    /// The node's network namespace.
    pub netns: PathBuf,
    /// Its host name.
    pub hostname: String,
    /// Where the process number of the node's first process is written.
    pub pid_file: PathBuf,
    /// A directory of the node for files made here.
    pub dir: PathBuf,
    /// What of this machine it sees.
    pub mounts: Vec<Mount>,
    /// Arguments of the daemon.
    pub daemon: Vec<String>,
}

impl NodePlan {
    fn read(path: &Path) -> Result<Self> {
        serde_json::from_slice(&fs::read(path)?)
            .map_err(|e| Error::internal(format_args!("{}: {e}", path.display())))
    }
}

fn failed(what: &str) -> impl FnOnce(nix::errno::Errno) -> Error {
    move |e| Error::internal(format_args!("cannot {what}: {e}"))
}

/// Runs the command: `second` is the run inside.
pub(crate) fn run(plan: &Path, second: bool) -> Result<()> {
    if second { inside(plan) } else { outside(plan) }
}

fn outside(path: &Path) -> Result<()> {
    let plan = NodePlan::read(path)?;
    let program = std::env::current_exe()?;
    // The daemon forwards ports of the machine, whose namespace it cannot find by itself: it inherits this.
    let machine = File::open("/proc/thread-self/ns/net")?;
    rustix::io::fcntl_setfd(&machine, rustix::io::FdFlags::empty()).map_err(std::io::Error::from)?;
    setns(File::open(&plan.netns)?, CloneFlags::CLONE_NEWNET).map_err(failed("join the node's network"))?;
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID;
    unshare(own).map_err(failed("make the node's namespaces"))?;
    let child = Command::new(program)
        .args(["node-init", "--second"])
        .arg(path)
        .env(MACHINE, machine.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .spawn()?;
    fs::write(&plan.pid_file, child.id().to_string())?;
    Ok(())
}

fn inside(path: &Path) -> Result<()> {
    let plan = NodePlan::read(path)?;
    // Before any thread is made: all inherit it.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block().map_err(failed("block signals"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(failed("detach mounts"))?;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        none,
    )
    .map_err(failed("mount /proc"))?;
    let resolver = resolver()?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=755"),
    )
    .map_err(failed("mount /run"))?;
    if !Path::new("/var/run").exists() {
        symlink("/run", "/var/run")?;
    }
    if let Some((target, content)) = resolver {
        place_resolver(&plan.dir, &target, &content)?;
    }
    for m in &plan.mounts {
        bind(m)?;
    }
    sethostname(&plan.hostname).map_err(failed("set the host name"))?;
    supervise(&plan, &signals)
}

/// The resolver configuration that the node is to have, and where, if what is there will not do: one below `/run`
/// disappears under the node's own, and a name server at this machine's loopback cannot be reached from the node.
fn resolver() -> Result<Option<(PathBuf, Vec<u8>)>> {
    let Ok(target) = fs::canonicalize("/etc/resolv.conf") else {
        return Ok(None);
    };
    let text = fs::read_to_string(&target)?;
    let local = |l: &str| l.split_whitespace().nth(1).is_some_and(|a| a.starts_with("127."));
    let mut servers = text.lines().filter(|l| l.starts_with("nameserver"));
    let useless = text.contains("nameserver") && servers.all(local);
    let upstream = match fs::read("/run/systemd/resolve/resolv.conf") {
        Ok(bytes) if useless => bytes,
        _ if target.starts_with("/run") => text.into_bytes(),
        _ => return Ok(None),
    };
    Ok(Some((target, upstream)))
}

fn place_resolver(dir: &Path, target: &Path, content: &[u8]) -> Result<()> {
    if target.starts_with("/run") {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        return Ok(fs::write(target, content)?);
    }
    let file = dir.join("resolv.conf");
    fs::write(&file, content)?;
    mount(Some(&file), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(failed("mount resolv.conf"))
}

/// Makes the directory or file that something is mounted on, where there is none.
pub(super) fn place(path: &Path, is_dir: bool) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    if is_dir {
        return Ok(fs::create_dir_all(path)?);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(path)?;
    Ok(())
}

fn bind(m: &Mount) -> Result<()> {
    place(&m.node_path, m.host_path.is_dir())?;
    let none = None::<&str>;
    let what = format!("mount {} at {}", m.host_path.display(), m.node_path.display());
    mount(
        Some(&m.host_path),
        &m.node_path,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .map_err(failed(&what))?;
    if m.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &m.node_path, none, flags, none).map_err(failed(&what))?;
    }
    Ok(())
}

fn start(plan: &NodePlan) -> Result<Child> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("/proc/self/exe");
    let machine = std::env::var(MACHINE).ok();
    command
        .arg0("tripod")
        .args(&plan.daemon)
        .env_remove(MACHINE)
        .stdin(Stdio::null())
        .current_dir("/");
    if let Some(number) = machine {
        command
            .arg("--outer-netns")
            .arg(format!("/proc/self/fd/{number}"));
    }
    Ok(command.spawn()?)
}

/// Process 1: keeps the daemon running until it is told to end, and collects what nobody else waits for.
fn supervise(plan: &NodePlan, signals: &SigSet) -> Result<()> {
    let mut ending = false;
    let mut begun = Instant::now();
    let mut daemon = Pid::from_raw(i32::try_from(start(plan)?.id()).unwrap_or_default());
    loop {
        match signals.wait().map_err(failed("wait for signals"))? {
            Signal::SIGCHLD => {
                let Some(how) = reap(daemon) else { continue };
                if ending {
                    return Ok(());
                }
                eprintln!("tripod: the daemon ended ({how}); it is started again");
                if begun.elapsed() < HASTE {
                    std::thread::sleep(HASTE);
                }
                begun = Instant::now();
                daemon = Pid::from_raw(i32::try_from(start(plan)?.id()).unwrap_or_default());
            }
            _ => {
                ending = true;
                if kill(daemon, Signal::SIGTERM).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Collects all that ended; how the daemon did, if it was among them.
fn reap(daemon: Pid) -> Option<String> {
    let mut how = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return how,
            Ok(status) if status.pid() == Some(daemon) => {
                how = Some(match status {
                    WaitStatus::Exited(_, code) => format!("exit status {code}"),
                    WaitStatus::Signaled(_, signal, _) => format!("signal {signal}"),
                    other => format!("{other:?}"),
                });
            }
            Ok(_) => {}
        }
    }
}

/// Runs a command on a node, with this terminal, and returns its exit status.
pub(super) fn enter(first: i32, command: &mut Command) -> Result<i32> {
    let pid = rustix::process::Pid::from_raw(first).ok_or_else(|| Error::internal("no process"))?;
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .map_err(|e| Error::unavailable(format_args!("the node does not run: {e}")))?;
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID;
    setns(fd, all).map_err(failed("enter the node"))?;
    let status = command
        .spawn()
        .and_then(|mut c| c.wait())
        .map_err(|e| Error::internal(format_args!("{}: {e}", command.get_program().to_string_lossy())))?;
    Ok(status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}
