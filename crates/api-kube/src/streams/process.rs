//! `exec` and `attach`: what is asked, and how it ended.

use serde_json::{Value, json};
use tripod_model::door::{AttachRequest, ExecRequest};
use tripod_schema::{Cause, Failure};

use super::{Transport, channel, container, node_failure, pod, spdy, transport, upgrade};
use crate::call::Call;
use crate::reply::Reply;
use crate::target::Target;

const PROTOCOLS: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

/// Which streams a request wants.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

pub(super) async fn serve(call: &Call, target: &Target) -> Reply {
    let pod = pod(call, target)?;
    let attach = target.sub.is_some_and(|s| s.name == "attach");
    let tty = call.query.flag("tty");
    let wanted = Wanted {
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        // A terminal has one stream.
        stderr: call.query.flag("stderr") && !tty,
        tty,
    };
    let command: Vec<String> = call.query.all("command").map(str::to_owned).collect();
    if !attach && command.is_empty() {
        let causes = vec![Cause::required("command", "")];
        return Err(Failure::invalid_named("", "PodExecOptions", "", causes));
    }
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Failure::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    let (who, node) = container(call, &pod)?;
    let transport = transport(call, &PROTOCOLS)?;
    let door = call.manager.door(&node).map_err(|e| node_failure(&e))?;
    let Wanted {
        stdin,
        stdout,
        stderr,
        tty,
    } = wanted;
    let started = if attach {
        let request = AttachRequest {
            target: who,
            stdin,
            stdout,
            stderr,
            tty,
        };
        door.attach(request).await
    } else {
        let request = ExecRequest {
            target: who,
            command,
            stdin,
            stdout,
            stderr,
            tty,
        };
        door.exec(request).await
    };
    let process = match started {
        Ok(process) => process,
        // The connection stands before the process does: its failure is told on it.
        Err(e) if e.kind == tripod_model::ErrorKind::Internal => failed(e),
        Err(e) => return Err(node_failure(&e)),
    };
    let (response, coming) = upgrade(call, &transport);
    tokio::spawn(async move {
        let Some(connection) = coming.await else { return };
        match transport {
            Transport::WebSocket { .. } => channel::carry(connection, process).await,
            Transport::Spdy { .. } => spdy::carry(connection, process, wanted).await,
        }
    });
    Ok(response)
}

/// A process that failed at once.
fn failed(error: tripod_model::Error) -> tripod_engine::Process {
    let (input, _) = tokio::sync::mpsc::channel(1);
    let output = futures::stream::once(async move { Err(error) });
    tripod_engine::Process {
        input,
        output: Box::pin(output),
    }
}

/// How a process ended, as the last stream tells it.
pub(super) fn outcome(end: Result<i64, tripod_model::Error>) -> Value {
    match end {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(e) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: error executing command in container: {e}"),
            "reason": "InternalError",
            "details": {"causes": [{"message": format!("error executing command in container: {e}")}]},
            "code": 500,
        }),
    }
}
