//! `/exec` and `/containers/{id}/exec`.

use std::future::Future;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use http::StatusCode;
use serde_json::json;
use tripod_agent::ExecRecord;
use tripod_agent::ports::ExecRequest;
use tripod_model::container::ContainerStatus;

use crate::Docker;
use crate::call::Call;
use crate::containers::terminal_size;
use crate::fault::Fault;
use crate::hijack::{self, Client, DetachKeys, Session};
use crate::reply::{self, Reply};
use crate::translate::create::console_size;
use crate::wire::container::{ExecBody, ExecStartBody};

/// `parts` is what follows `/exec`.
pub(crate) async fn route(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    match (call.method.as_str(), parts) {
        ("POST", [id, "start"]) => start(docker, call, id).await,
        ("POST", [id, "resize"]) => resize(docker, &call, id).await,
        ("GET", [id, "json"]) => inspect(docker, id),
        _ => Err(Fault::page_not_found()),
    }
}

pub(crate) async fn create(docker: &Docker, call: Call, container: &str) -> Reply {
    let body: ExecBody = call.json().await?;
    if body.cmd.0.is_empty() {
        return Err(Fault::bad("No exec command specified"));
    }
    DetachKeys::parse(&body.detach_keys)?;
    let request = ExecRequest {
        command: body.cmd.0,
        env: body.env,
        working_dir: body.working_dir,
        user: body.user,
        privileged: body.privileged,
        tty: body.tty,
        console_size: body.console_size.as_deref().and_then(console_size),
        ..ExecRequest::default()
    };
    let attach = (body.attach_stdin, body.attach_stdout, body.attach_stderr);
    let id = docker
        .agent()
        .create_exec(container, request, attach, body.detach_keys)?;
    reply::created(&json!({ "Id": id }))
}

async fn start(docker: &Docker, mut call: Call, id: &str) -> Reply {
    let exec = docker.agent().exec(id)?;
    let client = Client {
        multiplexed: call.version.0 >= 42,
        upgrade: call.upgrade("tcp"),
    };
    let body: ExecStartBody = call.json_or_default().await?;
    let size = body.console_size.as_deref().and_then(console_size);
    if size.is_some() && !exec.request.tty {
        return Err(Fault::bad("console size is only supported when allocating a TTY"));
    }
    let agent = docker.agent().clone();
    let id = exec.id.clone();
    if body.detach {
        let streams = agent.start_exec(&id, size).await?;
        // Somebody must read what nobody hears, or the process would stand still.
        tokio::spawn(streams.output.for_each(|_| async {}));
        return reply::status(StatusCode::OK);
    }
    check(docker, &exec)?;
    let keys = DetachKeys::parse(&exec.detach_keys)?;
    let (stdin, stdout, stderr) = exec.attach;
    // Whether pieces have headers is the choice of the start's body, whatever the process has.
    let (tty, raw) = (exec.request.tty, body.tty);
    // Subscribed before the start, so that the end cannot be missed.
    let ended = ended(docker, &id);
    let open = async move {
        let streams = agent.start_exec(&id, size).await?;
        Ok(Session {
            stdin: streams.stdin.filter(|_| stdin),
            // The client asks for the exit code as soon as the streams end: it must be known by then.
            output: streams
                .output
                .chain(stream::once(ended).filter_map(|()| async { None }))
                .boxed(),
            stdout: stdout || tty,
            stderr,
            tty: raw,
            keys: (tty && stdin).then_some(keys),
        })
    };
    hijack::serve_when_open(client, raw, open).await
}

/// What can be told before the process is started: it must not have run, and its container must run.
fn check(docker: &Docker, exec: &ExecRecord) -> Result<(), Fault> {
    let conflict = |text: String| Err(Fault::new(StatusCode::CONFLICT, text));
    if exec.running || exec.exit_code.is_some() {
        return conflict(format!("exec {} has already run", exec.id));
    }
    let container = docker.agent().container(&exec.container)?;
    match container.state.status {
        ContainerStatus::Running => Ok(()),
        ContainerStatus::Paused => conflict(format!(
            "container {} is paused, unpause the container before exec",
            container.name
        )),
        _ => conflict(format!("container {} is not running", container.id)),
    }
}

/// How long the report of an exec's end may come after the end of its streams.
const REPORT: Duration = Duration::from_secs(5);

/// Waits until the exit code of an exec is known.
fn ended(docker: &Docker, id: &str) -> impl Future<Output = ()> + Send + 'static {
    let (_, mut events) = docker.agent().events().subscribe(None);
    let (agent, id) = (docker.agent().clone(), id.to_owned());
    let known = async move {
        while agent.exec(&id).is_ok_and(|e| e.exit_code.is_none()) {
            if let Err(tokio::sync::broadcast::error::RecvError::Closed) = events.recv().await {
                return;
            }
        }
    };
    async move {
        // A process that closed its streams and runs on keeps nobody waiting for ever.
        let _ = tokio::time::timeout(REPORT, known).await;
    }
}

async fn resize(docker: &Docker, call: &Call, id: &str) -> Reply {
    let (height, width) = terminal_size(call)?;
    docker.agent().resize_exec(id, height, width).await?;
    reply::status(StatusCode::OK)
}

fn inspect(docker: &Docker, id: &str) -> Reply {
    let exec = docker.agent().exec(id)?;
    let r = &exec.request;
    let mut words = r.command.iter();
    reply::json(&json!({
        "ID": exec.id,
        "Running": exec.running,
        "ExitCode": exec.exit_code,
        "ProcessConfig": {
            "tty": r.tty, "entrypoint": words.next(), "arguments": words.collect::<Vec<_>>(),
            "privileged": r.privileged, "user": r.user,
        },
        "OpenStdin": exec.attach.0, "OpenStdout": exec.attach.1, "OpenStderr": exec.attach.2,
        "CanRemove": false,
        "ContainerID": exec.container,
        "DetachKeys": exec.detach_keys,
        "Pid": exec.pid,
    }))
}
