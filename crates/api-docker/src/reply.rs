//! Responses: JSON, streams of JSON, bytes.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde::Serialize;
use tripod_edge::{Body, BoxError, empty, full};

use crate::fault::Fault;

/// What a handler comes to.
pub(crate) type Reply = Result<tripod_edge::Response, Fault>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A response with a status and a JSON body.
pub(crate) fn json_status(status: StatusCode, value: &impl Serialize) -> Reply {
    let mut out = BytesMut::with_capacity(512).writer();
    serde_json::to_writer(&mut out, value).map_err(|e| {
        Fault::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format_args!("cannot encode the answer: {e}"),
        )
    })?;
    let mut out = out.into_inner();
    out.put_u8(b'\n');
    let mut response = Response::new(full(out.freeze()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// 200 with a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Reply {
    json_status(StatusCode::OK, value)
}

/// 201 with a JSON body.
pub(crate) fn created(value: &impl Serialize) -> Reply {
    json_status(StatusCode::CREATED, value)
}

/// A status without a body.
pub(crate) fn status(status: StatusCode) -> Reply {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    Ok(response)
}

/// 204.
pub(crate) fn no_content() -> Reply {
    status(StatusCode::NO_CONTENT)
}

/// The body of a stream of pieces.
pub(crate) fn stream_body<E: Into<BoxError>>(
    stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Body {
    StreamBody::new(stream.map(|piece| piece.map(Frame::data).map_err(Into::into))).boxed_unsync()
}

/// 200 with a stream of pieces.
pub(crate) fn stream<E: Into<BoxError>>(
    content_type: &'static str,
    stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Reply {
    let mut response = Response::new(stream_body(stream));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// 200 with the bytes of a reader.
pub(crate) fn reader(content_type: &'static str, reader: tripod_agent::ports::BoxRead) -> Reply {
    stream(
        content_type,
        tokio_util::io::ReaderStream::with_capacity(reader, 64 << 10),
    )
}

/// One JSON value as a line of a stream.
pub(crate) fn json_line(value: &impl Serialize) -> Bytes {
    // The values are our own, with string keys only: they always can be encoded.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.extend_from_slice(b"\r\n");
    line.into()
}

/// The response that an error is.
pub(crate) fn fault(fault: &Fault) -> tripod_edge::Response {
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    let bodiless = fault.status == StatusCode::NOT_MODIFIED;
    let made = if bodiless {
        status(fault.status)
    } else {
        json_status(
            fault.status,
            &Message {
                message: &fault.message,
            },
        )
    };
    made.unwrap_or_else(|_| Response::new(empty()))
}
