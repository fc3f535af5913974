//! What changes, as server-sent events: the script asks for the page again when something on it changed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::{self, HeaderValue};
use http::{Response as HttpResponse, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tripod_edge::{BoxError, Response};
use tripod_engine::{Engine, Manager, Membership};
use tripod_store::WatchFilter;

use crate::call::Call;
use crate::reply;

/// Changes within this time are told as one: a browser cannot show more.
const TOGETHER: Duration = Duration::from_millis(400);
/// Without changes something is said this often, so that a lost connection is noticed.
const QUIET: Duration = Duration::from_secs(20);

/// Follows the kinds that the page names.
pub(crate) fn follow(manager: &Arc<Manager>, call: &Call) -> Response {
    let kinds = call.query("kinds");
    let filter = match kinds {
        "" | "*" => WatchFilter::all(),
        list => WatchFilter::kinds(list.split(',')),
    };
    let cluster = manager.db().cluster().clone();
    let start = cluster.read().revision();
    // A watch from now on cannot be too old; when it is lost, the script comes again.
    let watch = cluster.watch(filter, start).ok();
    let changes = stream::unfold((watch, true), |(watch, first)| async move {
        let mut watch = watch?;
        if first {
            return Some((": hello\n\n".to_owned(), (Some(watch), false)));
        }
        match tokio::time::timeout(QUIET, watch.next()).await {
            Err(_) => Some((": quiet\n\n".to_owned(), (Some(watch), false))),
            Ok(Some(Ok(event))) => {
                tokio::time::sleep(TOGETHER).await;
                let mut revision = event.revision;
                loop {
                    match watch.ready() {
                        Ok(more) if more.is_empty() => break,
                        Ok(more) => revision = more.last().map_or(revision, |e| e.revision),
                        Err(_) => return Some((told(revision), (None, false))),
                    }
                }
                Some((told(revision), (Some(watch), false)))
            }
            Ok(_) => None,
        }
    });
    events(changes)
}

/// Where there is no cluster to follow: tells when the daemon's standing changes.
pub(crate) fn standing(engine: &Engine) -> Response {
    use futures::StreamExt as _;
    let mut standing = engine.watch_membership();
    let change = stream::once(async move {
        // An error says that the daemon ends; the script tries again then.
        let before = *standing.borrow_and_update();
        let _ = standing
            .wait_for(|now| *now != before && *now != Membership::Pending)
            .await;
        told(0)
    });
    events(stream::iter([": hello\n\n".to_owned()]).chain(change))
}

fn told(revision: u64) -> String {
    format!("event: change\ndata: {revision}\n\n")
}

/// A stream of server-sent events as an answer.
pub(crate) fn events(texts: impl futures::Stream<Item = String> + Send + 'static) -> Response {
    use futures::StreamExt as _;
    let frames = texts.map(|text| Ok::<_, BoxError>(Frame::data(Bytes::from(text))));
    let mut response = HttpResponse::new(StreamBody::new(frames).boxed_unsync());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply::safe(&mut response);
    response
}
