//! Containers made by another OCI runtime that has runc's command line.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Failure;
use crate::keeper::wire::{ExecOrder, StartOrder};

/// Socket on which the runtime hands over the terminal, in the bundle.
const CONSOLE: &str = "oci-console";

/// Where the runtime keeps its own state, beside the bundle.
fn state_dir(bundle: &Path) -> std::path::PathBuf {
    bundle.join("oci-root")
}

fn base(runtime: &Path, bundle: &Path) -> Command {
    let mut c = Command::new(runtime);
    c.arg("--root")
        .arg(state_dir(bundle))
        .arg("--log")
        .arg(bundle.join("oci.log"));
    c.env_clear().env("PATH", crate::RUNTIME_PATH);
    c
}

/// `create` and `start`. The container's streams are the helper's own.
pub(crate) fn create(order: &StartOrder, runtime: &Path) -> Result<(i32, Option<OwnedFd>), Failure> {
    let root = state_dir(&order.bundle);
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&root)?;
    let _ = std::fs::remove_file(order.bundle.join("oci.log"));
    let pid_file = order.bundle.join("oci.pid");
    let mut create = base(runtime, &order.bundle);
    create
        .arg("create")
        .arg("--bundle")
        .arg(&order.bundle)
        .arg("--pid-file")
        .arg(&pid_file);
    let listener = if order.tty {
        std::env::set_current_dir(&order.bundle)?;
        let _ = std::fs::remove_file(CONSOLE);
        let l = UnixListener::bind(CONSOLE)?;
        // Relative, so that its length does not matter; runtimes look for it from the bundle.
        create
            .current_dir(&order.bundle)
            .arg("--console-socket")
            .arg(CONSOLE);
        create
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Some(l)
    } else {
        None
    };
    create.arg(&order.id);
    let mut child = create
        .spawn()
        .map_err(|e| Failure::internal(format!("{}: {e}", runtime.display())))?;
    let status = child.wait()?;
    if !status.success() {
        let _ = std::fs::remove_file(order.bundle.join(CONSOLE));
        return Err(failure(&order.bundle));
    }
    let pid: i32 = std::fs::read_to_string(&pid_file)?
        .trim()
        .parse()
        .map_err(|_| Failure::internal("the OCI runtime wrote no process number"))?;
    let tty = match listener {
        Some(l) => Some(super::create::terminal(&l, order, pid)?),
        None => None,
    };
    let _ = std::fs::remove_file(order.bundle.join(CONSOLE));
    let mut start = base(runtime, &order.bundle);
    start
        .arg("start")
        .arg(&order.id)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if !start.status()?.success() {
        let why = failure(&order.bundle);
        delete(runtime, &order.bundle, &order.id);
        return Err(why);
    }
    Ok((pid, tty))
}

/// `delete --force`: what is left of a container of this runtime.
pub(crate) fn delete(runtime: &Path, bundle: &Path, id: &str) {
    let mut c = base(runtime, bundle);
    let _ = c
        .arg("delete")
        .arg("--force")
        .arg(id)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// `exec --detach`.
pub(crate) fn exec(
    order: &ExecOrder,
    bundle: &Path,
    runtime: &Path,
) -> Result<(i32, Option<OwnedFd>), Failure> {
    let dir = state_dir(bundle).join(format!("exec-{}", order.exec_id));
    std::fs::create_dir_all(&dir)?;
    let result = exec_in(order, bundle, runtime, &dir);
    let _ = std::fs::remove_dir_all(&dir);
    result
}

fn exec_in(
    order: &ExecOrder,
    bundle: &Path,
    runtime: &Path,
    dir: &Path,
) -> Result<(i32, Option<OwnedFd>), Failure> {
    let process = dir.join("process.json");
    std::fs::write(
        &process,
        serde_json::to_vec(&order.process).map_err(std::io::Error::from)?,
    )?;
    let pid_file = dir.join("pid");
    let _ = std::fs::remove_file(bundle.join("oci.log"));
    let mut c = base(runtime, bundle);
    c.arg("exec")
        .arg("--detach")
        .arg("--process")
        .arg(&process)
        .arg("--pid-file")
        .arg(&pid_file);
    let listener = if order.tty {
        std::env::set_current_dir(dir)?;
        let l = UnixListener::bind("console")?;
        c.current_dir(dir).arg("--console-socket").arg("console");
        c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Some(l)
    } else {
        None
    };
    c.arg(&order.id);
    if !c.status()?.success() {
        return Err(failure(bundle));
    }
    let pid: i32 = std::fs::read_to_string(&pid_file)?
        .trim()
        .parse()
        .map_err(|_| Failure::internal("the OCI runtime wrote no process number"))?;
    let tty = match listener {
        Some(l) => {
            let sized = StartOrder {
                console_size: order.console_size,
                ..StartOrder::default()
            };
            Some(super::create::terminal(&l, &sized, pid)?)
        }
        None => None,
    };
    Ok((pid, tty))
}

/// The last error in the runtime's log; which of them are the user's is told by their words.
fn failure(bundle: &Path) -> Failure {
    let log = std::fs::read_to_string(bundle.join("oci.log")).unwrap_or_default();
    let last = log
        .lines()
        .rev()
        .find(|l| l.contains("error"))
        .unwrap_or("the OCI runtime failed");
    let message = last
        .split("msg=\"")
        .nth(1)
        .map_or(last, |m| m.trim_end().trim_end_matches('"'))
        .replace("\\\"", "\"")
        .replace("\\\\", "\\");
    let users = [
        "executable file not found",
        "executable file `",
        "no such file or directory",
        "permission denied",
        "not a directory",
    ];
    if users.iter().any(|u| message.to_lowercase().contains(u)) {
        Failure::invalid(message)
    } else {
        Failure::internal(message)
    }
}
