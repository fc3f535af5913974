//! One request on its way through the API: what was asked, and the reading of its body.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CONTENT_TYPE, EXPECT, HeaderMap};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, BodyStream};
use hyper::body::{Body as _, Incoming};
use serde::de::DeserializeOwned;
use tripod_agent::ports::BoxRead;
use tripod_edge::{Peer, Request};

use crate::decode::decode;
use crate::fault::Fault;
use crate::query::Query;

/// Bytes that a JSON body may have.
const JSON_LIMIT: usize = 8 << 20;

/// Bytes that are read before a client is cut off.
const PATIENCE: usize = 64 << 20;

/// Bytes of an unwanted body that are read nevertheless, and for how long.
const DRAIN: usize = 256 << 10;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The version of the API that a client speaks: 1.N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u16);

/// A request.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    /// Who asks; for the requests whose answer depends on it.
    #[allow(dead_code)]
    pub(crate) peer: Arc<Peer>,
    /// The head of the request, for an upgrade.
    head: http::Request<()>,
    body: Unread,
}

/// The body of a request until somebody reads it.
#[derive(Clone)]
pub(crate) struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Unread {
    fn take(&self) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reads a body that nobody wanted, as far as it is short: a client that still sends would otherwise find the
    /// connection closed and never see the answer.
    pub(crate) async fn drain(&self) {
        let Some(mut body) = self.take().filter(|b| !b.is_end_stream()) else {
            return;
        };
        let reading = async {
            let mut left = DRAIN;
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
        };
        // A client that stalls waits no longer for its answer than this.
        let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
    }
}

impl Call {
    pub(crate) fn new(request: Request, version: Version, peer: Arc<Peer>) -> Self {
        let (mut head, body) = request.into_parts();
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let headers = std::mem::take(&mut head.headers);
        Self {
            method: head.method.clone(),
            version,
            query,
            headers,
            peer,
            head: http::Request::from_parts(head, ()),
            body: Unread(Arc::new(Mutex::new(Some(body)))),
        }
    }

    /// A handle to the body, to drain it when the answer is made; none where the client waits for a go-ahead.
    pub(crate) fn unread(&self) -> Option<Unread> {
        (!self.headers.contains_key(EXPECT)).then(|| self.body.clone())
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether a body is announced.
    fn has_body(&self) -> bool {
        let body = self.body.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.as_ref().is_some_and(|b| !b.is_end_stream())
    }

    /// The JSON body.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, Fault> {
        self.check_content_type()?;
        decode(&self.bytes().await?)
    }

    /// The JSON body, or the default where there is none.
    pub(crate) async fn json_or_default<T: DeserializeOwned + Default>(self) -> Result<T, Fault> {
        if !self.has_body() {
            return Ok(T::default());
        }
        self.check_content_type()?;
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            Ok(T::default())
        } else {
            decode(&bytes)
        }
    }

    fn check_content_type(&self) -> Result<(), Fault> {
        let text = self.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let kind = text.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/json") || (text.is_empty() && !self.has_body()) {
            return Ok(());
        }
        if text.is_empty() {
            return Err(Fault::bad(
                "malformed Content-Type header (): mime: no media type",
            ));
        }
        Err(Fault::bad(format_args!(
            "unsupported Content-Type header ({text}): must be 'application/json'"
        )))
    }

    /// The whole body, bounded. What is too long is read to a second bound and thrown away: a client reads the answer
    /// only when it could send all.
    pub(crate) async fn bytes(self) -> Result<Bytes, Fault> {
        let Some(mut body) = self.body.take() else {
            return Ok(Bytes::new());
        };
        let mut bytes = BytesMut::new();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Fault::bad(format_args!("cannot read the request's body: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            length += data.len();
            if length <= JSON_LIMIT {
                bytes.extend_from_slice(&data);
            } else if length > PATIENCE {
                break;
            } else {
                bytes = BytesMut::new();
            }
        }
        if length > JSON_LIMIT {
            return Err(Fault::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "http: request body too large",
            ));
        }
        Ok(bytes.freeze())
    }

    /// The body as a reader, unbounded: archives.
    pub(crate) fn reader(self) -> BoxRead {
        match self.body.take() {
            Some(body) => reader(body),
            None => Box::new(tokio::io::empty()),
        }
    }

    /// The connection to come, when the client asks for this protocol; to be taken before the body is read.
    pub(crate) fn upgrade(&mut self, protocol: &str) -> Option<hyper::upgrade::OnUpgrade> {
        self.wants_upgrade(protocol)
            .then(|| hyper::upgrade::on(&mut self.head))
    }
}

/// A body as a reader.
pub(crate) fn reader(body: Incoming) -> BoxRead {
    let pieces = BodyStream::new(body).filter_map(|frame| async {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(e) => Some(Err(std::io::Error::other(e))),
        }
    });
    Box::new(tokio_util::io::StreamReader::new(Box::pin(pieces)))
}
