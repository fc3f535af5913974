//! Logs of containers.

use base64::Engine as _;
use futures::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use tripod_model::Time;
use tripod_model::door::LogRequest;
use tripod_schema::failure::Result;
use tripod_schema::{Cause, Failure};

use super::websocket::{Message, Sink, Source};
use super::{Transport, container, node_failure, pod, transport, upgrade};
use crate::call::Call;
use crate::reply::Reply;
use crate::target::Target;

/// `GET` of a pod's log.
pub(crate) async fn log(call: &Call, target: &Target) -> Reply {
    let pod = pod(call, target)?;
    let request = options(call)?;
    let (who, node) = container(call, &pod)?;
    let limit = call
        .query
        .number("limitBytes")?
        .and_then(|n| u64::try_from(n).ok());
    let door = call.manager.door(&node).map_err(|e| node_failure(&e))?;
    let request = LogRequest {
        target: who,
        ..request
    };
    let records = door.logs(request).await.map_err(|e| node_failure(&e))?;
    let bytes = tripod_engine::log_bytes(records, call.query.flag("timestamps"), limit);
    if call
        .header("upgrade")
        .is_some_and(|u| u.eq_ignore_ascii_case("websocket"))
    {
        return over_websocket(call, bytes);
    }
    let body = crate::watch::body(bytes.map(|piece| piece.map_err(Into::into)));
    let mut response = http::Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The log in messages of bytes, or of base64 where the client says so.
fn over_websocket(
    call: &Call,
    mut bytes: impl futures::Stream<Item = tripod_model::Result<bytes::Bytes>> + Send + Unpin + 'static,
) -> Reply {
    let transport = transport(call, &["binary.k8s.io", "base64.binary.k8s.io"])?;
    let coded =
        matches!(&transport, Transport::WebSocket { protocol: Some(p), .. } if p.starts_with("base64"));
    let (response, coming) = upgrade(call, &transport);
    tokio::spawn(async move {
        let Some(connection) = coming.await else { return };
        let (reader, writer) = tokio::io::split(connection);
        let (mut source, mut sink) = (Source::new(reader), Sink::new(writer));
        let sending = async {
            while let Some(Ok(piece)) = bytes.next().await {
                let sent = match coded {
                    true => {
                        let text = base64::engine::general_purpose::STANDARD.encode(&piece);
                        sink.text(text.as_bytes()).await
                    }
                    false => sink.binary(&[], &piece).await,
                };
                if sent.is_err() {
                    return;
                }
            }
            let _ = sink.close().await;
        };
        let leaving = async { while !matches!(source.next().await, None | Some(Message::Close)) {} };
        tokio::select! {
            () = sending => {}
            () = leaving => {}
        }
    });
    Ok(response)
}

fn options(call: &Call) -> Result<LogRequest> {
    let query = &call.query;
    let mut causes = Vec::new();
    let mut count = |name: &str, least: i64| -> Result<Option<i64>> {
        let number = query.number(name)?;
        if let Some(n) = number.filter(|n| *n < least) {
            let why = if least == 0 {
                "must be greater than or equal to 0"
            } else {
                "must be greater than 0"
            };
            causes.push(Cause::invalid(name, &n.into(), why));
        }
        Ok(number)
    };
    let tail = count("tailLines", 0)?;
    let seconds = count("sinceSeconds", 1)?;
    count("limitBytes", 1)?;
    let since_time = match query.get("sinceTime") {
        None | Some("") => None,
        Some(text) => Some(text.parse::<Time>().map_err(|_| {
            Failure::bad_request(format_args!("sinceTime: parsing time {text:?}: not RFC 3339"))
        })?),
    };
    if seconds.is_some() && since_time.is_some() {
        causes.push(Cause::forbidden(
            "sinceSeconds",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    let stream = query.get("stream").unwrap_or("All");
    if !["All", "Stdout", "Stderr", ""].contains(&stream) {
        causes.push(Cause::unsupported("stream", stream, &["All", "Stderr", "Stdout"]));
    }
    if !causes.is_empty() {
        return Err(Failure::invalid_named("", "PodLogOptions", "", causes));
    }
    let since = seconds
        .map(|s| Time::now() - jiff::SignedDuration::from_secs(s))
        .or(since_time);
    Ok(LogRequest {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        since,
        tail: tail.and_then(|n| usize::try_from(n).ok()),
        no_stdout: stream == "Stderr",
        no_stderr: stream == "Stdout",
        ..LogRequest::default()
    })
}
