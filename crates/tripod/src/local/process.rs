//! The daemon of a local cluster as a process: started in the background, found again, ended.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tripod_model::{Error, Result};

use super::paths::ClusterPaths;

/// How long a daemon may take to serve.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to stop all containers within their grace periods.
const STOP_PATIENCE: i64 = 120;

/// Starts the daemon and returns when it serves.
pub(super) fn start_daemon(paths: &ClusterPaths) -> Result<()> {
    fs::create_dir_all(&paths.dir)?;
    let notify = paths.dir.join("notify.sock");
    let _ = fs::remove_file(&notify);
    let ready = UnixDatagram::bind(&notify)?;
    ready.set_read_timeout(Some(Duration::from_millis(250)))?;
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&paths.log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("daemon")
        .arg("--data-root")
        .arg(&paths.data)
        .arg("--host")
        .arg(paths.docker_host())
        .arg("--stop-containers")
        .env("NOTIFY_SOCKET", &notify)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Of a group of its own, so that Ctrl-C in this terminal does not reach it.
        .process_group(0);
    let mut child = command.spawn()?;
    fs::write(&paths.pid, child.id().to_string())?;
    let result = await_ready(&ready, &mut child, paths);
    let _ = fs::remove_file(&notify);
    if result.is_err() {
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_file(&paths.pid);
    }
    result
}

fn await_ready(ready: &UnixDatagram, child: &mut std::process::Child, paths: &ClusterPaths) -> Result<()> {
    let begun = std::time::Instant::now();
    let mut message = [0; 64];
    while begun.elapsed() < START_PATIENCE {
        match ready.recv(&mut message) {
            Ok(n) if message[..n].starts_with(b"READY=1") => return Ok(()),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e.into()),
        }
        if let Some(status) = child.try_wait()? {
            return Err(Error::internal(format_args!(
                "the daemon ended ({status}):\n{}",
                tail(paths)
            )));
        }
    }
    Err(Error::timeout(format_args!(
        "the daemon does not get ready:\n{}",
        tail(paths)
    )))
}

/// The last lines of the daemon's log.
fn tail(paths: &ClusterPaths) -> String {
    let text = fs::read_to_string(&paths.log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Whether the daemon's process is there.
pub(super) fn is_running(paths: &ClusterPaths) -> bool {
    daemon_pid(paths).is_some()
}

/// The daemon's process number, if that process is (still) this cluster's daemon.
fn daemon_pid(paths: &ClusterPaths) -> Option<Pid> {
    let number: i32 = fs::read_to_string(&paths.pid).ok()?.trim().parse().ok()?;
    let line = fs::read(format!("/proc/{number}/cmdline")).ok()?;
    let data = paths.data.to_string_lossy();
    let mut words = line.split(|b| *b == 0);
    let ours = words.any(|w| w == b"daemon") && words.any(|w| w == data.as_bytes());
    if ours { Pid::from_raw(number) } else { None }
}

/// Asks the daemon to end and waits until it has; false when it did not run.
pub(super) fn stop_daemon(paths: &ClusterPaths) -> Result<bool> {
    let Some(pid) = daemon_pid(paths) else {
        let _ = fs::remove_file(&paths.pid);
        return Ok(false);
    };
    let internal = |e: rustix::io::Errno| Error::internal(format_args!("cannot end the daemon: {e}"));
    let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(internal)?;
    pidfd_send_signal(&fd, Signal::TERM).map_err(internal)?;
    let patience = Timespec {
        tv_sec: STOP_PATIENCE,
        tv_nsec: 0,
    };
    let ended = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&patience)).map_err(internal)?;
    if ended == 0 {
        return Err(Error::timeout(format_args!(
            "the daemon (process {}) does not end",
            pid.as_raw_nonzero()
        )));
    }
    let _ = fs::remove_file(&paths.pid);
    Ok(true)
}
