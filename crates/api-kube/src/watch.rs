//! Watches: the changes of objects as a stream of events.

use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::time::Instant;
use tripod_edge::BoxError;
use tripod_engine::Watch;
use tripod_schema::failure::Result;
use tripod_schema::{Failure, Kind};
use tripod_store::{Change, Event, Gone, KindId, StoredObject, WatchFilter};

use crate::call::Call;
use crate::convert::outward_bytes;
use crate::encode::{Include, partial, row, table_of};
use crate::negotiate::{Accept, Shape};
use crate::objects::Selection;
use crate::reply::Reply;
use crate::target::Target;

/// Watches last at least this long unless the client says.
const SHORTEST: u64 = 1800;
/// Bookmarks come this often.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// Events that are put into one piece of the body, when they are there.
const BATCH: usize = 64;

/// Answers a watch.
pub(crate) async fn serve(call: &Call, target: &Target) -> Reply {
    let mut selection = Selection::of(call, target)?;
    if target.watch && !target.name.is_empty() {
        selection.only(&target.name);
    }
    let settings = Settings::of(call)?;
    let seconds = match call.query.number("timeoutSeconds")? {
        Some(n) if n > 0 => u64::try_from(n).unwrap_or(SHORTEST),
        _ => SHORTEST + rand::random_range(0..SHORTEST),
    };
    if let Some(revision) = settings.from {
        crate::objects::reached(call, revision).await?;
    }
    let follower = Follower::start(call, target, selection, settings, seconds);
    let stream = futures::stream::unfold(follower, |mut follower| async move {
        let piece = follower.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(piece)), follower))
    });
    let mut response = http::Response::new(StreamBody::new(stream).boxed_unsync());
    let kind = match call.accept.encoding {
        crate::negotiate::Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert("cache-control", HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// Where a watch starts, and what it tells beside changes.
struct Settings {
    /// `None`: with all there is.
    from: Option<u64>,
    /// All there is, then a bookmark.
    initial: bool,
    marked: bool,
    bookmarks: bool,
}

impl Settings {
    fn of(call: &Call) -> Result<Self> {
        let revision = crate::objects::revision(call)?;
        let bookmarks = call.query.flag("allowWatchBookmarks");
        let rule = call.query.get("resourceVersionMatch").unwrap_or_default();
        let forbidden = |why: &str| {
            Failure::new(
                422,
                "Invalid",
                format_args!("ListOptions.meta.k8s.io \"\" is invalid: {why}"),
            )
        };
        match call.query.get("sendInitialEvents") {
            Some(_) if rule != "NotOlderThan" => Err(forbidden(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )),
            None if !rule.is_empty() => Err(forbidden(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )),
            Some(_) => {
                let initial = call.query.flag("sendInitialEvents");
                let from = revision.filter(|r| *r > 0);
                Ok(Self {
                    from,
                    initial: initial || from.is_none(),
                    marked: initial && bookmarks,
                    bookmarks,
                })
            }
            None => Ok(Self {
                from: revision.filter(|r| *r > 0),
                initial: revision.is_none_or(|r| r == 0),
                marked: false,
                bookmarks,
            }),
        }
    }
}

/// A watch under way.
struct Follower {
    kind: &'static Kind,
    namespace: String,
    selection: Selection,
    accept: Accept,
    include: Include,
    first_table: bool,
    /// What is to be told before the changes.
    initial: std::vec::IntoIter<std::sync::Arc<StoredObject>>,
    /// The bookmark after the initial objects.
    mark: Option<u64>,
    events: Option<Pin<Box<Watch>>>,
    error: Option<Failure>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    told: u64,
}

impl Follower {
    fn start(call: &Call, target: &Target, selection: Selection, settings: Settings, seconds: u64) -> Self {
        let state = call.manager.state();
        let kind_id = KindId::new(target.kind.stored());
        let namespace = if target.kind.namespaced {
            target.namespace.clone()
        } else {
            String::new()
        };
        let within = (!namespace.is_empty()).then_some(namespace.as_str());
        let (from, initial) = if settings.initial {
            let objects = state.iter(&kind_id, within).filter(|o| selection.accepts(o));
            (state.revision(), objects.cloned().collect())
        } else {
            (settings.from.unwrap_or_else(|| state.revision()), Vec::new())
        };
        let mut filter = WatchFilter::kinds([kind_id]);
        if let Some(namespace) = within {
            filter = filter.namespace(namespace);
        }
        let (events, error) = match call.manager.watch(filter, from) {
            Ok(watch) => (Some(Box::pin(watch)), None),
            Err(gone) => (None, Some(expired(gone))),
        };
        let now = Instant::now();
        Self {
            kind: target.kind,
            namespace,
            selection,
            accept: call.accept,
            include: Include::of(call).unwrap_or(Include::Metadata),
            first_table: true,
            initial: initial.into_iter(),
            mark: settings.marked.then_some(from),
            events,
            error,
            bookmarks: settings.bookmarks,
            next_bookmark: now + BOOKMARKS,
            deadline: now + Duration::from_secs(seconds),
            told: from,
        }
    }

    /// The next piece of the body; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        for object in self.initial.by_ref().take(BATCH).collect::<Vec<_>>() {
            self.write(&mut out, "ADDED", &object);
        }
        if !out.is_empty() {
            return Some(out.freeze());
        }
        if let Some(revision) = self.mark.take() {
            self.bookmark(&mut out, revision, true);
            return Some(out.freeze());
        }
        if let Some(failure) = self.error.take() {
            self.event(&mut out, "ERROR", &failure.status());
            return Some(out.freeze());
        }
        loop {
            let wake = if self.bookmarks {
                self.deadline.min(self.next_bookmark)
            } else {
                self.deadline
            };
            let events = self.events.as_mut()?;
            let event = tokio::select! {
                biased;
                event = events.next() => Some(event),
                () = tokio::time::sleep_until(wake) => None,
            };
            match event {
                Some(Some(Ok(event))) => {
                    self.take(&mut out, &event);
                    self.drain(&mut out);
                    if !out.is_empty() {
                        return Some(out.freeze());
                    }
                }
                Some(Some(Err(gone))) => {
                    self.events = None;
                    self.event(&mut out, "ERROR", &expired(gone).status());
                    return Some(out.freeze());
                }
                // The store stops: the client finds another server.
                Some(None) => return None,
                None => {
                    let over = Instant::now() >= self.deadline;
                    let revision = events.revision();
                    if over {
                        self.events = None;
                    }
                    self.next_bookmark = Instant::now() + BOOKMARKS;
                    if self.bookmarks {
                        self.bookmark(&mut out, revision, false);
                        return Some(out.freeze());
                    }
                    return None;
                }
            }
        }
    }

    /// Takes over events that are there already.
    fn drain(&mut self, out: &mut BytesMut) {
        for _ in 0..BATCH {
            let Some(events) = self.events.as_mut() else {
                return;
            };
            match futures::FutureExt::now_or_never(events.next()) {
                Some(Some(Ok(event))) => self.take(out, &event),
                Some(Some(Err(gone))) => {
                    self.events = None;
                    self.error = Some(expired(gone));
                    return;
                }
                Some(None) => {
                    self.events = None;
                    return;
                }
                None => return,
            }
        }
    }

    /// Tells a change, as it looks through the selectors.
    fn take(&mut self, out: &mut BytesMut, event: &Event) {
        self.told = event.revision;
        let now = event.change != Change::Deleted && self.selection.accepts(&event.object);
        let before = event.previous.as_ref().is_some_and(|p| self.selection.accepts(p));
        match (before, now) {
            (false, true) => self.write(out, "ADDED", &event.object),
            (true, true) => self.write(out, "MODIFIED", &event.object),
            (true, false) if event.change == Change::Deleted => self.write(out, "DELETED", &event.object),
            (true, false) => {
                // It left the selection: its last selected state, at the revision of the change.
                let previous = event.previous.as_ref().unwrap_or(&event.object);
                self.write_at(out, "DELETED", previous, event.revision);
            }
            (false, false) => {}
        }
    }

    fn write(&mut self, out: &mut BytesMut, what: &str, object: &StoredObject) {
        let bytes = outward_bytes(self.kind, &object.bytes);
        self.write_bytes(out, what, &bytes);
    }

    fn write_at(&mut self, out: &mut BytesMut, what: &str, object: &StoredObject, revision: u64) {
        let bytes = outward_bytes(self.kind, &object.bytes);
        if let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) {
            value["metadata"]["resourceVersion"] = revision.to_string().into();
            self.write_bytes(out, what, &tripod_schema::value::to_bytes(&value));
        }
    }

    fn write_bytes(&mut self, out: &mut BytesMut, what: &str, bytes: &[u8]) {
        if self.accept.shape == Shape::Whole && crate::encode::is_json(self.accept) {
            out.put_slice(b"{\"type\":\"");
            out.put_slice(what.as_bytes());
            out.put_slice(b"\",\"object\":");
            out.put_slice(bytes);
            out.put_slice(b"}\n");
            return;
        }
        if let Ok(object) = serde_json::from_slice::<Value>(bytes) {
            let shown = self.shown(&object);
            self.event(out, what, &shown);
        }
    }

    fn shown(&mut self, object: &Value) -> Value {
        match self.accept.shape {
            Shape::Whole | Shape::Discovery(_) => object.clone(),
            Shape::Partial => partial(object),
            Shape::Table => {
                let version = object["metadata"]["resourceVersion"].clone();
                let rows = vec![row(self.kind, object, self.include, tripod_model::Time::now())];
                let mut table = table_of(self.kind, json!({"resourceVersion": version}), rows);
                // Columns are told once.
                if !std::mem::take(&mut self.first_table) {
                    table["columnDefinitions"] = Value::Null;
                }
                table
            }
        }
    }

    fn bookmark(&mut self, out: &mut BytesMut, revision: u64, initial: bool) {
        let mut object = json!({
            "apiVersion": self.kind.api_version(),
            "kind": self.kind.kind,
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
        });
        if initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.accept.shape {
            Shape::Partial => {
                object["apiVersion"] = "meta.k8s.io/v1".into();
                object["kind"] = "PartialObjectMetadata".into();
            }
            Shape::Table => object = self.shown(&object),
            _ => {}
        }
        self.event(out, "BOOKMARK", &object);
    }

    fn event(&self, out: &mut BytesMut, what: &str, object: &Value) {
        crate::encode::watch_event(self.accept, what, object, out);
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Follower({} in {:?} at {})",
            self.kind.plural, self.namespace, self.told
        )
    }
}

fn expired(gone: Gone) -> Failure {
    Failure::expired(format_args!(
        "too old resource version: {} ({})",
        gone.asked, gone.oldest
    ))
}

/// A stream of bytes as a body.
pub(crate) fn body(
    stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
) -> tripod_edge::Body {
    StreamBody::new(stream.map(|piece| piece.map(Frame::data))).boxed_unsync()
}
