//! Nodes of a local cluster: started as machines of their own, found again, ended.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tripod_model::{Error, Result};
use tripod_net::LocalNet;

use super::init::NodePlan;
use super::paths::{ClusterPaths, NodePaths};
use super::record::{NodeRecord, Record};

/// How long a daemon may take to serve.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to stop all containers within their grace periods.
const STOP_PATIENCE: i64 = 120;

/// A node that was started and is not known to serve yet.
pub(super) struct Starting {
    paths: NodePaths,
    ready: UnixDatagram,
}

/// Starts a node: its network, its first process, its daemon.
pub(super) fn start(
    cluster: &ClusterPaths,
    record: &Record,
    node: &NodeRecord,
    net: &LocalNet,
) -> Result<Starting> {
    let paths = cluster.node(&node.name);
    fs::create_dir_all(&paths.dir)?;
    if let Some(parent) = paths.netns.parent() {
        fs::create_dir_all(parent)?;
    }
    net.add_node(&paths.netns, node.address)?;
    let notify = paths.dir.join("notify.sock");
    let _ = fs::remove_file(&notify);
    let ready = UnixDatagram::bind(&notify)?;
    ready.set_read_timeout(Some(Duration::from_millis(100)))?;
    let plan = NodePlan {
        netns: paths.netns.clone(),
        hostname: node.name.clone(),
        pid_file: paths.pid.clone(),
        dir: paths.dir.clone(),
        mounts: node.mounts.clone(),
        daemon: daemon_arguments(&paths, record, node),
    };
    fs::write(
        &paths.plan,
        serde_json::to_vec_pretty(&plan).map_err(Error::internal)?,
    )?;
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&paths.log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg0("tripod")
        .arg("node-init")
        .arg(&paths.plan)
        .env("NOTIFY_SOCKET", &notify)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Of a group of its own, so that Ctrl-C in this terminal does not reach it.
        .process_group(0);
    let status = command.spawn()?.wait()?;
    if status.success() {
        return Ok(Starting { paths, ready });
    }
    Err(Error::internal(format_args!(
        "node {} cannot be started:\n{}",
        node.name,
        tail(&paths)
    )))
}

fn daemon_arguments(paths: &NodePaths, record: &Record, node: &NodeRecord) -> Vec<String> {
    let mut args: Vec<String> = vec![
        "daemon".into(),
        "--data-root".into(),
        paths.data.display().to_string(),
        "--host".into(),
        format!("unix://{}", paths.socket.display()),
        "--host".into(),
        "unix:///run/docker.sock".into(),
        "--dashboard-socket".into(),
        paths.dashboard.display().to_string(),
        "--registry-socket".into(),
        paths.registry.display().to_string(),
        "--advertise-addr".into(),
        node.address.to_string(),
        "--stop-containers".into(),
    ];
    let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
    if let Some(cpus) = record.cpus {
        option("--cpus", cpus.to_string());
    }
    if let Some(memory) = record.memory {
        option("--memory", format!("{memory}b"));
    }
    if let Some(version) = &record.kubernetes_version {
        option("--kubernetes-version", version.clone());
    }
    if let Some(port) = record.registry.filter(|_| node.name == record.first().name) {
        option("--registry-listen", format!("127.0.0.1:{port}"));
    }
    for registry in &record.insecure_registries {
        option("--insecure-registry", registry.clone());
    }
    for (gate, on) in &record.feature_gates {
        option("--feature-gate", format!("{gate}={on}"));
    }
    for (key, value) in &node.labels {
        option("--node-label", format!("{key}={value}"));
    }
    for taint in &node.taints {
        option("--node-taint", taint.clone());
    }
    for m in &node.mappings {
        args.push("--outer-forward".into());
        args.push(format!(
            "{}={}/{}",
            std::net::SocketAddr::new(m.listen, m.host_port),
            m.node_port,
            m.protocol
        ));
    }
    if let Some(port) = record.api_port.filter(|_| node.name == record.first().name) {
        args.push("--outer-forward".into());
        args.push(format!("127.0.0.1:{port}=6443"));
    }
    args
}

impl Starting {
    /// Returns when the node's daemon serves.
    pub(super) fn wait(self) -> Result<()> {
        let result = self.await_ready();
        let _ = fs::remove_file(self.paths.dir.join("notify.sock"));
        result
    }

    fn await_ready(&self) -> Result<()> {
        let begun = Instant::now();
        let mut message = [0; 64];
        while begun.elapsed() < START_PATIENCE {
            match self.ready.recv(&mut message) {
                Ok(n) if message[..n].starts_with(b"READY=1") => return Ok(()),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) => return Err(e.into()),
            }
            if first_process(&self.paths).is_none() {
                return Err(Error::internal(format_args!(
                    "the node ended:\n{}",
                    tail(&self.paths)
                )));
            }
        }
        Err(Error::timeout(format_args!(
            "the daemon does not get ready:\n{}",
            tail(&self.paths)
        )))
    }
}

/// The last lines of the daemon's log.
fn tail(paths: &NodePaths) -> String {
    let text = fs::read_to_string(&paths.log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// The node's first process, if that process is (still) this node's.
pub(super) fn first_process(paths: &NodePaths) -> Option<Pid> {
    let number: i32 = fs::read_to_string(&paths.pid).ok()?.trim().parse().ok()?;
    let line = fs::read(format!("/proc/{number}/cmdline")).ok()?;
    let plan = paths.plan.to_string_lossy();
    let mut words = line.split(|b| *b == 0);
    let ours = words.any(|w| w == b"node-init") && words.any(|w| w == plan.as_bytes());
    if ours { Pid::from_raw(number) } else { None }
}

/// Asks a node to end and waits until it has; false when it did not run.
pub(super) fn stop(paths: &NodePaths) -> Result<bool> {
    let Some(pid) = first_process(paths) else {
        let _ = fs::remove_file(&paths.pid);
        return Ok(false);
    };
    let internal = |e: rustix::io::Errno| Error::internal(format_args!("cannot end the node: {e}"));
    let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(internal)?;
    pidfd_send_signal(&fd, Signal::TERM).map_err(internal)?;
    let wait = |seconds| {
        let patience = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&patience)).map_err(internal)
    };
    if wait(STOP_PATIENCE)? == 0 {
        // The kernel ends everything on the node with its first process.
        pidfd_send_signal(&fd, Signal::KILL).map_err(internal)?;
        if wait(10)? == 0 {
            return Err(Error::timeout(format_args!(
                "the node (process {}) does not end",
                pid.as_raw_nonzero()
            )));
        }
    }
    let _ = fs::remove_file(&paths.pid);
    Ok(true)
}

/// Ends a node at once, with everything on it.
pub(super) fn kill(paths: &NodePaths) -> Result<()> {
    if let Some(pid) = first_process(paths) {
        let internal = |e: rustix::io::Errno| Error::internal(format_args!("cannot end the node: {e}"));
        let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(internal)?;
        pidfd_send_signal(&fd, Signal::KILL).map_err(internal)?;
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).map_err(internal)?;
    }
    let _ = fs::remove_file(&paths.pid);
    if let Ok(data) = paths.data.canonicalize() {
        let group = crate::daemon::node_group(&crate::daemon::default_run_dir(&data));
        tripod_runtime::remove_node_group(&group)?;
    }
    LocalNet::remove_node(&paths.netns)
}
