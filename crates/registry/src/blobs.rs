//! Blobs: those of the node's images, and those on the shelf.

use futures::TryStreamExt as _;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use tripod_agent::ports::BoxRead;
use tripod_edge::{BoxError, Response};
use tripod_model::ErrorKind;

use crate::fault::Fault;
use crate::{Answer, Inner, bare, put};

/// A blob from a byte on: bytes in all, and the rest of them.
pub(crate) async fn open(inner: &Inner, digest: &str, from: u64) -> Result<Option<(u64, BoxRead)>, Fault> {
    match inner.images.content(digest, from).await {
        Ok(found) => return Ok(Some(found)),
        Err(e) if e.kind == ErrorKind::NotFound => {}
        Err(e) => return Err(e.into()),
    }
    let mut file = match tokio::fs::File::open(inner.shelf.blob(digest)).await {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let size = file.metadata().await?.len();
    file.seek(std::io::SeekFrom::Start(from)).await?;
    Ok(Some((size, Box::new(file))))
}

/// Whether there is a blob; its size in bytes.
pub(crate) async fn size(inner: &Inner, digest: &str) -> Result<Option<u64>, Fault> {
    Ok(open(inner, digest, 0).await?.map(|(size, _)| size))
}

/// All of a blob that is a document.
pub(crate) async fn document(inner: &Inner, digest: &str) -> Result<Option<Vec<u8>>, Fault> {
    let Some((_, read)) = open(inner, digest, 0).await? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    read.take(crate::manifests::MAX).read_to_end(&mut bytes).await?;
    Ok(Some(bytes))
}

/// Answers with a blob, or the part that is asked for.
pub(crate) async fn get(inner: &Inner, digest: &str, headers: &HeaderMap, head: bool) -> Answer {
    let size = size(inner, digest)
        .await?
        .ok_or_else(|| Fault::blob_unknown(digest))?;
    let range = headers.get(header::RANGE).and_then(|r| r.to_str().ok());
    let (from, to) = match range.map(|r| span(r, size)) {
        None | Some(Span::Whole) => (0, size),
        Some(Span::Part(from, to)) => (from, to),
        Some(Span::Nothing) => return Err(Fault::range_invalid(size)),
    };
    let part = to - from < size;
    let mut response = match head {
        true => bare(StatusCode::OK),
        false => {
            let opened = open(inner, digest, from).await?;
            let (_, read) = opened.ok_or_else(|| Fault::blob_unknown(digest))?;
            let frames = ReaderStream::with_capacity(read.take(to - from), 64 << 10)
                .map_ok(Frame::data)
                .map_err(BoxError::from);
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
    };
    if part && !head {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        put(
            &mut response,
            "content-range",
            &format!("bytes {from}-{}/{size}", to - 1),
        );
    }
    let length = if head { size } else { to - from };
    put(&mut response, "content-type", "application/octet-stream");
    put(&mut response, "content-length", &length.to_string());
    put(&mut response, "accept-ranges", "bytes");
    put(&mut response, "docker-content-digest", digest);
    put(&mut response, "etag", &format!("\"{digest}\""));
    Ok(response)
}

/// What of a blob a `Range` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Span {
    /// No range that is understood.
    Whole,
    /// Bytes from the first to before the second.
    Part(u64, u64),
    /// None of the blob's.
    Nothing,
}

fn span(range: &str, size: u64) -> Span {
    let Some((from, to)) = range.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Span::Whole;
    };
    match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), _) if from >= size => Span::Nothing,
        (Ok(from), Ok(to)) if to >= from => Span::Part(from, size.min(to.saturating_add(1))),
        (Ok(from), Err(_)) if to.is_empty() => Span::Part(from, size),
        (Err(_), Ok(last)) if from.is_empty() && last > 0 => Span::Part(size.saturating_sub(last), size),
        _ => Span::Whole,
    }
}

/// Removes a blob from the shelf, also one that a document needs: that is the client's affair. Those of images go with
/// their images.
pub(crate) fn delete(inner: &Inner, digest: &str) -> Answer {
    match inner.shelf.drop_blob(digest) {
        Ok(()) => Ok(bare(StatusCode::ACCEPTED)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Fault::blob_unknown(digest)),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, span_is) in [
            ("bytes=0-3", Span::Part(0, 4)),
            ("bytes=5-", Span::Part(5, 10)),
            ("bytes=5-99", Span::Part(5, 10)),
            ("bytes=-3", Span::Part(7, 10)),
            ("bytes=10-", Span::Nothing),
            ("bytes=3-1", Span::Whole),
            ("lines=1-2", Span::Whole),
        ] {
            assert_eq!(span(range, 10), span_is, "{range}");
        }
    }
}
