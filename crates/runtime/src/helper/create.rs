//! Creates and starts a container with `libcontainer`, in one run.

use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::fcntl::OFlag;
use oci_spec::runtime::Spec;

use super::command::Command;
use super::{Failure, init, trace};
use crate::keeper::wire::{ErrorCode, StartOrder};

/// Marks the user's errors in libcontainer's chain of messages.
const MARK: &str = "\u{1}";

/// Makes the container described by `config.json` in the order's bundle. Standard streams are already in place.
pub(crate) fn run(order: &StartOrder) -> Result<(i32, Option<OwnedFd>), Failure> {
    for procs in &order.join {
        std::fs::write(procs, "0")
            .map_err(|e| Failure::internal(format!("joining {}: {e}", procs.display())))?;
    }
    if let Some(runtime) = &order.oci_runtime {
        return super::external::create(order, runtime);
    }
    let state = order.bundle.join("oci-state");
    let _ = std::fs::remove_dir_all(&state);
    std::fs::create_dir_all(&state)?;
    let result = with_libcontainer(order, &state);
    let _ = std::fs::remove_dir_all(&state);
    result
}

fn with_libcontainer(order: &StartOrder, state: &Path) -> Result<(i32, Option<OwnedFd>), Failure> {
    let (notify, told) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let errors = state.join("errors");
    trace::keep_errors(&errors)?;
    let console = state.join("console");
    let listener = if order.tty { Some(listen(state)?) } else { None };
    let mut container = ContainerBuilder::new(order.id.clone(), SyscallType::default())
        .with_root_path(state)
        .map_err(|e| Failure::internal(chain(&e)))?
        .with_executor(Launcher {
            notify: told.as_raw_fd(),
            init: order.init,
        })
        .with_console_socket(listener.is_some().then_some(&console))
        .as_init(&order.bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|e| build_error(&chain(&e), trace::first_error(&errors)))?;
    let pid = container
        .pid()
        .map(|p| p.as_raw())
        .ok_or_else(|| Failure::internal("no process was made"))?;
    let tty = match listener {
        Some(l) => Some(terminal(&l, order, pid)?),
        None => None,
    };
    container.start().map_err(|e| Failure::internal(chain(&e)))?;
    drop(told);
    // The pipe closes when the command is executed; what comes before that says why it is not.
    let mut why = String::new();
    std::fs::File::from(notify).read_to_string(&mut why)?;
    if why.is_empty() {
        Ok((pid, tty))
    } else {
        Err(marked(&why))
    }
}

/// A listening socket `console` in a directory whose path may be longer than a socket's may be.
fn listen(dir: &Path) -> Result<UnixListener, Failure> {
    std::env::set_current_dir(dir)?;
    let l = UnixListener::bind("console")?;
    std::env::set_current_dir("/")?;
    Ok(l)
}

/// Receives the terminal, and gives it its size and owner before the command sees it.
pub(super) fn terminal(listener: &UnixListener, order: &StartOrder, pid: i32) -> Result<OwnedFd, Failure> {
    let (socket, _) = listener.accept()?;
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut buf = [0u8; 4096];
    let mut iov = [std::io::IoSliceMut::new(&mut buf)];
    let msg = nix::sys::socket::recvmsg::<()>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut space),
        nix::sys::socket::MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let fd = msg
        .cmsgs()?
        .find_map(|c| match c {
            nix::sys::socket::ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        })
        .ok_or_else(|| Failure::internal("the runtime sent no terminal"))?;
    // SAFETY: the descriptor was just received and has no other owner.
    let tty = unsafe { OwnedFd::from_raw_fd(fd) };
    if let Some((height, width)) = order.console_size {
        crate::keeper::set_size(&tty, height, width)?;
    }
    if order.owner != (0, 0) {
        // The container's /dev is fresh and its command has not run yet: this path leads nowhere else.
        let console = format!("/proc/{pid}/root/dev/console");
        let _ = std::os::unix::fs::chown(console, Some(order.owner.0), None);
    }
    Ok(tty)
}

/// Starts the command in place of libcontainer's own executor: order and duplicates in the environment are
/// kept, and failures come back in Docker's words.
#[derive(Clone)]
struct Launcher {
    notify: RawFd,
    init: bool,
}

impl Launcher {
    fn command(spec: &Spec) -> Result<Command, Failure> {
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| Failure::internal("no process in the spec"))?;
        let none = Vec::new();
        Command::find(
            process.args().as_ref().unwrap_or(&none),
            process.env().as_ref().unwrap_or(&none),
        )
    }
}

impl Executor for Launcher {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        Self::command(spec)
            .map(drop)
            .map_err(|f| ExecutorValidationError::ArgValidationError(mark(&f)))
    }

    fn setup_envs(
        &self,
        _: std::collections::HashMap<String, String>,
    ) -> Result<(), libcontainer::workload::ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure = match Self::command(spec) {
            Ok(command) if self.init => init::run(&command, self.notify),
            Ok(command) => command.execute(),
            Err(f) => f,
        };
        tell(self.notify, &failure);
        // SAFETY: leaves without exit handlers.
        unsafe { libc::_exit(127) }
    }
}

/// Writes a failure to the pipe that the helper reads.
pub(super) fn tell(notify: RawFd, failure: &Failure) {
    let text = mark(failure);
    // SAFETY: writes initialised bytes to this process's own descriptor.
    unsafe { libc::write(notify, text.as_ptr().cast(), text.len()) };
}

fn mark(f: &Failure) -> String {
    let kind = if f.kind == ErrorCode::Invalid { 'u' } else { 'i' };
    format!("{MARK}{kind}{}{MARK}", f.message)
}

/// Takes a marked failure out of a text.
pub(super) fn marked(text: &str) -> Failure {
    let inner = text.split(MARK).nth(1).unwrap_or(text);
    match inner.split_at_checked(1) {
        Some(("u", m)) => Failure::invalid(m),
        Some(("i", m)) => Failure::internal(m),
        _ => Failure::internal(inner),
    }
}

/// An error with its causes, as runc prints them.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(s) = source {
        let s_text = s.to_string();
        if !text.ends_with(&s_text) {
            text = format!("{text}: {s_text}");
        }
        source = s.source();
    }
    text
}

/// Sorts libcontainer's failures into the user's and the machine's.
fn build_error(text: &str, cause: Option<String>) -> Failure {
    if text.contains(MARK) {
        return marked(text);
    }
    let cause = cause.unwrap_or_else(|| text.to_owned());
    if cause.contains("ENOTDIR") {
        return Failure::invalid(format!(
            "error during container init: error mounting: {cause}: not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
        ));
    }
    if cause.starts_with("failed to chdir") || cause.contains("sysctl") {
        return Failure::invalid(format!(
            "error during container init: {}",
            cause.replace("ENOENT", "no such file or directory")
        ));
    }
    Failure::internal(format!("error during container init: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_errors_survive_the_chain() {
        let f = Failure::invalid("exec: \"x\": executable file not found in $PATH");
        let text = format!(
            "failed to create container: exec process failed with error {}",
            mark(&f)
        );
        let back = build_error(&text, Some("x".into()));
        assert_eq!(back.kind, ErrorCode::Invalid);
        assert_eq!(back.message, f.message);
        assert_eq!(build_error("something", None).kind, ErrorCode::Internal);
    }
}
