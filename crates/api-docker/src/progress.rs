//! Long work as a stream of JSON lines: pull, push, load, import.

use std::future::Future;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;
use tripod_agent::ports::{Progress, ProgressSink};
use tripod_model::Result;

use crate::reply::{self, Reply};

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'a str,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    detail: Option<Detail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aux: Option<&'a Value>,
}

#[derive(Serialize)]
struct Detail {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn line(p: &Progress) -> Bytes {
    let counted = p.current > 0 || p.total > 0;
    let plain = p.stream.is_none() && p.aux.is_none() && !p.id.is_empty();
    reply::json_line(&Line {
        stream: p.stream.as_deref(),
        status: &p.status,
        detail: (counted || plain).then_some(Detail {
            current: p.current,
            total: p.total,
        }),
        progress: counted.then(|| bar(p.current, p.total)),
        id: &p.id,
        aux: p.aux.as_ref(),
    })
}

/// A bar of fifty places, and the bytes.
fn bar(current: u64, total: u64) -> String {
    if total == 0 || current > total {
        return size(current);
    }
    let done = usize::try_from(current * 50 / total).unwrap_or(50);
    let head = if done < 50 { ">" } else { "" };
    let open = 50 - done - head.len();
    format!(
        "[{}{head}{}]  {}/{}",
        "=".repeat(done),
        " ".repeat(open),
        size(current),
        size(total)
    )
}

/// Bytes with four significant digits in decimal units.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    let digits = if unit == "B" || value >= 1000.0 {
        0
    } else {
        3_usize.saturating_sub(value.log10().floor().max(0.0) as usize)
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

/// Runs the work and streams its steps. An error before the first step is the response's status; a later one is the
/// last line. When the client leaves, the work is given up.
pub(crate) async fn run<T, F>(quiet: bool, work: impl FnOnce(ProgressSink) -> F) -> Reply
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (sink, mut steps) = unbounded_channel();
    let task = AbortOnDropHandle::new(tokio::spawn(work(sink)));
    let Some(first) = steps.recv().await else {
        // It ended without a step.
        return match finish(task).await {
            Ok(_) => reply::stream(
                "application/json",
                stream::empty::<std::result::Result<Bytes, std::convert::Infallible>>(),
            ),
            Err(e) => Err(e.into()),
        };
    };
    let first = shown(quiet, &first);
    let rest = stream::unfold(Some((steps, task)), move |state| next(quiet, state));
    let lines = stream::iter(first).chain(rest.filter_map(|piece| async { piece }));
    reply::stream(
        "application/json",
        lines.map(Ok::<Bytes, std::convert::Infallible>),
    )
}

/// The same for work whose every error is the last line of a stream, also where nothing came before it.
pub(crate) async fn run_told<T, F>(quiet: bool, work: impl FnOnce(ProgressSink) -> F) -> Reply
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    match run(quiet, work).await {
        Err(fault) => {
            let message = &fault.message;
            let line = reply::json_line(&json!({ "errorDetail": { "message": message }, "error": message }));
            reply::stream(
                "application/json",
                stream::once(async { Ok::<Bytes, std::convert::Infallible>(line) }),
            )
        }
        done => done,
    }
}

type State<T> = Option<(UnboundedReceiver<Progress>, AbortOnDropHandle<Result<T>>)>;

async fn next<T: Send + 'static>(quiet: bool, state: State<T>) -> Option<(Option<Bytes>, State<T>)> {
    let (mut steps, task) = state?;
    match steps.recv().await {
        Some(step) => Some((shown(quiet, &step), Some((steps, task)))),
        None => {
            let last = finish(task).await.err().map(|e| {
                let message = &e.message;
                reply::json_line(&json!({ "errorDetail": { "message": message }, "error": message }))
            });
            Some((last, None))
        }
    }
}

/// Quiet work shows its results but not its bars.
fn shown(quiet: bool, step: &Progress) -> Option<Bytes> {
    (!quiet || step.stream.is_some() || step.aux.is_some()).then(|| line(step))
}

async fn finish<T>(task: AbortOnDropHandle<Result<T>>) -> Result<T> {
    task.await.unwrap_or_else(|e| {
        Err(tripod_model::Error::internal(format_args!(
            "the work broke off: {e}"
        )))
    })
}

/// A response of one line with a status, for work that has no steps.
pub(crate) fn status_line(status: &str) -> Reply {
    let line = reply::json_line(&json!({ "status": status }));
    reply::stream(
        "application/json",
        stream::once(async { Ok::<Bytes, std::convert::Infallible>(line) }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use tripod_model::Error;

    #[test]
    fn bars_and_sizes() {
        assert_eq!(size(999), "999B");
        assert_eq!(size(2_220_094), "2.22MB");
        assert_eq!(size(1_000), "1kB");
        assert_eq!(size(123_456), "123.5kB");
        assert_eq!(
            bar(5, 10),
            format!("[{}>{}]  5B/10B", "=".repeat(25), " ".repeat(24))
        );
        assert_eq!(bar(10, 10), format!("[{}]  10B/10B", "=".repeat(50)));
    }

    async fn text(reply: Reply) -> String {
        String::from_utf8(
            reply
                .unwrap()
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .to_vec(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn errors_before_and_after_the_first_step() {
        let early = run(false, |_| async { Err::<(), _>(Error::not_found("no such")) }).await;
        assert_eq!(early.unwrap_err().status.as_u16(), 404);
        let late = run(false, |sink| async move {
            let _ = sink.send(Progress {
                status: "Pulling".into(),
                id: "latest".into(),
                ..Progress::default()
            });
            Err::<(), _>(Error::internal("broke"))
        });
        let said = text(late.await).await;
        assert_eq!(
            said,
            "{\"status\":\"Pulling\",\"progressDetail\":{},\"id\":\"latest\"}\r\n\
             {\"error\":\"broke\",\"errorDetail\":{\"message\":\"broke\"}}\r\n"
        );
    }
}
