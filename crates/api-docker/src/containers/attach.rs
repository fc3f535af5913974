//! Attaching to a container's streams.

use futures::StreamExt as _;
use tripod_agent::ports::{BoxStream, LogQuery, OutputChunk, Streams};
use tripod_model::Result;

use crate::Docker;
use crate::call::Call;
use crate::fault::Fault;
use crate::hijack::{self, DetachKeys, Session};
use crate::reply::Reply;
use crate::websocket;

pub(crate) async fn attach(docker: &Docker, call: Call, id: &str) -> Reply {
    let session = session(docker, &call, id).await?;
    hijack::serve(call, session)
}

pub(crate) async fn websocket(docker: &Docker, call: Call, id: &str) -> Reply {
    let accept = websocket::accept(&call)?;
    let session = session(docker, &call, id).await?;
    websocket::serve(call, accept, session)
}

/// The streams, which end when the start that they wait for fails: nothing will ever come then.
async fn until_start_fails(docker: &Docker, id: &str) -> Result<Streams> {
    let mut changes = docker.agent().watch_container(id)?;
    let run = changes.borrow_and_update().run;
    let failed = async move {
        loop {
            {
                let now = changes.borrow_and_update();
                if now.run > run && !now.is_running() && !now.state.error.is_empty() {
                    return;
                }
            }
            if changes.changed().await.is_err() {
                break;
            }
        }
        // Removed. One that never ran has no streams that could end by themselves.
        if changes.borrow().run > run {
            std::future::pending::<()>().await;
        }
    };
    let streams = docker.agent().attach(id).await?;
    Ok(Streams {
        stdin: streams.stdin,
        output: streams.output.take_until(Box::pin(failed)).boxed(),
    })
}

/// Time for a client to read the head of the answer before the first output of a log.
const HEAD_FIRST: std::time::Duration = std::time::Duration::from_millis(10);

/// What the client is attached to.
async fn session(docker: &Docker, call: &Call, id: &str) -> Result<Session, Fault> {
    let q = &call.query;
    let keys = DetachKeys::parse(q.text("detachKeys"))?;
    let record = docker.agent().container(id)?;
    let (stdout, stderr) = (q.flag("stdout"), q.flag("stderr"));
    let stdin = q.flag("stdin") && record.spec.open_stdin;
    let mut streams = match q.flag("stream") {
        true => until_start_fails(docker, &record.id).await?,
        false => Streams {
            stdin: None,
            output: futures::stream::empty().boxed(),
        },
    };
    if q.flag("logs") {
        let query = LogQuery {
            stdout,
            stderr,
            ..LogQuery::default()
        };
        let past = docker.agent().logs(&record.id, query).await?;
        // Some clients lose what comes together with the head of the answer, and the log is there at once.
        let head_first =
            futures::stream::once(tokio::time::sleep(HEAD_FIRST)).filter_map(|()| async { None });
        let past = head_first.chain(past);
        let past: BoxStream<Result<OutputChunk>> = past
            .map(|line| {
                line.map(|l| OutputChunk {
                    stream: l.stream,
                    data: l.data,
                })
            })
            .boxed();
        streams.output = past.chain(streams.output).boxed();
    }
    Ok(Session {
        stdin: streams.stdin.filter(|_| stdin),
        output: streams.output,
        stdout,
        stderr,
        tty: record.spec.tty,
        keys: (record.spec.tty && stdin).then_some(keys),
    })
}
