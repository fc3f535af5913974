//! What goes on for as long as somebody looks: logs and terminals of containers, by way of their nodes' doors.
//!
//! Output comes as server-sent events; what is typed into a terminal is posted. Nothing has to be upgraded on the way,
//! and every request that reaches a process carries the token of the page.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::StatusCode;
use serde_json::json;
use tokio::sync::mpsc;
use tripod_edge::Response;
use tripod_engine::NodeDoor;
use tripod_model::door::{ContainerTarget, ExecRequest, LogRecord, LogRequest, ProcessInput, ProcessOutput};
use tripod_model::{Error, Result};

use crate::call::{Call, Ctx};
use crate::live::events;
use crate::object::{Obj, text};
use crate::reply;

/// Lines of a log that are shown at first.
const TAIL: usize = 1000;
/// Lines that are sent together at most.
const TOGETHER: usize = 400;
/// What runs in a terminal: the best shell that the image has.
const SHELL: [&str; 3] = [
    "/bin/sh",
    "-c",
    "export TERM=xterm-256color; if [ -x /bin/bash ]; then exec /bin/bash; else exec /bin/sh; fi",
];

/// The terminals that are open, by a number that cannot be guessed.
#[derive(Default)]
pub(crate) struct Terminals(Mutex<HashMap<String, mpsc::Sender<ProcessInput>>>);

impl Terminals {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::Sender<ProcessInput>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a terminal when nobody looks at it any more, and tells its shell that nothing more is typed.
struct Open(Arc<Terminals>, String);

impl Drop for Open {
    fn drop(&mut self) {
        let Some(input) = self.0.lock().remove(&self.1) else {
            return;
        };
        // Ctrl-D; a process that is not at its prompt goes on, as one does after `kubectl exec`.
        let _ = input.try_send(ProcessInput::Stdin(Bytes::from_static(b"\x04")));
        let _ = input.try_send(ProcessInput::CloseStdin);
    }
}

/// The containers of a pod, in the order of its specification; a Swarm task has one without a name.
pub(crate) fn containers(pod: &Obj) -> Vec<String> {
    if pod.pod_extension().get("swarm").is_some() {
        return vec![String::new()];
    }
    let all = [
        "/spec/containers",
        "/spec/initContainers",
        "/spec/ephemeralContainers",
    ];
    let lists = all.iter().flat_map(|p| pod.list(p));
    lists.map(|c| text(c, "/name").to_owned()).collect()
}

/// The container that is asked for, or the first.
pub(crate) fn target(pod: &Obj, call: &Call) -> ContainerTarget {
    let container = match call.query("container") {
        "" => containers(pod).into_iter().next().unwrap_or_default(),
        named => named.to_owned(),
    };
    ContainerTarget {
        namespace: pod.namespace().to_owned(),
        pod: pod.name().to_owned(),
        uid: pod.str("/metadata/uid").to_owned(),
        container,
    }
}

fn door(ctx: &Ctx, pod: &Obj) -> Result<Arc<dyn NodeDoor>> {
    let node = pod.str("/spec/nodeName");
    if node.is_empty() {
        return Err(Error::conflict(ctx.t("No log: the container has not run yet.")));
    }
    let manager = ctx.manager.as_ref();
    manager
        .ok_or_else(|| Error::unavailable("this node is no manager"))?
        .door(node)
}

fn request(pod: &Obj, call: &Call, follow: bool) -> LogRequest {
    LogRequest {
        target: target(pod, call),
        follow,
        previous: !call.query("previous").is_empty(),
        tail: Some(TAIL),
        ..LogRequest::default()
    }
}

/// The end of a log, as text.
pub(crate) async fn log_text(ctx: &Ctx, pod: &Obj, call: &Call) -> Result<String> {
    let mut lines = door(ctx, pod)?.logs(request(pod, call, false)).await?;
    let mut text = String::new();
    while let Some(record) = lines.next().await {
        text.push_str(&String::from_utf8_lossy(&record?.data));
    }
    Ok(text)
}

/// A log as it goes on.
pub(crate) async fn log_events(ctx: &Ctx, pod: &Obj, call: &Call) -> Response {
    let opened = async { door(ctx, pod)?.logs(request(pod, call, true)).await };
    match opened.await {
        Err(e) => events(stream::iter([end(&e.to_string())])),
        Ok(lines) => {
            let lines = lines.map(|record| record.map_or_else(|e| end(&e.to_string()), |r| line(&r)));
            let lines = lines.ready_chunks(TOGETHER).map(|texts| texts.concat());
            events(lines.chain(stream::iter([end("")])))
        }
    }
}

fn line(record: &LogRecord) -> String {
    let text = String::from_utf8_lossy(&record.data);
    let data = json!({"text": text.trim_end_matches(['\n', '\r']), "err": record.stderr});
    format!("event: line\ndata: {data}\n\n")
}

/// The last event: with the reason, where there is one. JSON keeps line ends out of it.
fn end(why: &str) -> String {
    format!("event: end\ndata: {}\n\n", why.replace(['\n', '\r'], " "))
}

/// Runs a shell in a container; its output are the events.
pub(crate) async fn terminal_events(
    ctx: &Ctx,
    terminals: &Arc<Terminals>,
    pod: &Obj,
    call: &Call,
) -> Response {
    let started = async {
        let exec = ExecRequest {
            target: target(pod, call),
            command: SHELL.map(str::to_owned).to_vec(),
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        };
        door(ctx, pod)?.exec(exec).await
    };
    let process = match started.await {
        Ok(process) => process,
        Err(e) => return events(stream::iter([end(&e.to_string())])),
    };
    if let Some(size) = resize(call) {
        // A process that has ended already says so in its output.
        let _ = process.input.send(size).await;
    }
    let id = hex::encode(rand::random::<[u8; 16]>());
    terminals.lock().insert(id.clone(), process.input);
    let open = Open(terminals.clone(), id.clone());
    let output = process.output.map(move |item| {
        // Held for as long as the stream is.
        let _open = &open;
        match item {
            Ok(ProcessOutput::Stdout(data) | ProcessOutput::Stderr(data)) => {
                format!("event: output\ndata: {}\n\n", STANDARD.encode(&data))
            }
            Ok(ProcessOutput::Exit(code)) => end(&format!("[exit {code}]")),
            Err(e) => end(&e.to_string()),
        }
    });
    let hello = stream::iter([format!("event: ready\ndata: {id}\n\n")]);
    events(hello.chain(output).chain(stream::iter([end("")])))
}

fn resize(call: &Call) -> Option<ProcessInput> {
    let size = |name: &str| call.query(name).parse().ok().filter(|n| (1..=2000).contains(n));
    Some(ProcessInput::Resize {
        height: size("rows")?,
        width: size("cols")?,
    })
}

/// Takes what was typed into a terminal, or its new size.
pub(crate) async fn type_in(terminals: &Terminals, call: &Call, body: Bytes) -> Response {
    let input = terminals.lock().get(call.query("terminal")).cloned();
    let Some(input) = input else {
        return reply::plain(
            StatusCode::GONE,
            "text/plain; charset=utf-8",
            "the terminal is closed\n",
        );
    };
    let item = resize(call).unwrap_or(ProcessInput::Stdin(body));
    let status = match input.send(item).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::GONE,
    };
    reply::plain(status, "text/plain; charset=utf-8", "")
}
