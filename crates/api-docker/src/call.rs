//! One request on its way through the API: what was asked, and the reading of its body.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderMap};
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
    request: Request,
}

impl Call {
    pub(crate) fn new(mut request: Request, version: Version, peer: Arc<Peer>) -> Self {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let headers = std::mem::take(request.headers_mut());
        Self {
            method: request.method().clone(),
            version,
            query,
            headers,
            peer,
            request,
        }
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether a body is announced.
    fn has_body(&self) -> bool {
        !self.request.body().is_end_stream()
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
        let mut body = self.request.into_body();
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
        reader(self.request.into_body())
    }

    /// The connection to come, when the client asks for this protocol; to be taken before the body is read.
    pub(crate) fn upgrade(&mut self, protocol: &str) -> Option<hyper::upgrade::OnUpgrade> {
        self.wants_upgrade(protocol)
            .then(|| hyper::upgrade::on(&mut self.request))
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
