//! A node's door over a stream: the question, its answer, then what flows.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tripod_model::door::{AttachRequest, ExecRequest, LogRequest, NodeStats, PortForwardRequest};
use tripod_model::image::ImageOffer;
use tripod_model::{Error, Result};

use crate::link::frame;

/// What is asked of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Question {
    Logs(LogRequest),
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(PortForwardRequest),
    Stats,
    Image(String),
    Blob { digest: String, from: u64 },
}

/// What follows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Messages, or bytes.
    Open,
    Stats(Box<NodeStats>),
    Image(Box<ImageOffer>),
    /// So many bytes in all.
    Blob(u64),
}

pub(crate) fn broken(e: impl std::fmt::Display) -> Error {
    Error::unavailable(format_args!("the connection to the node is lost: {e}"))
}

/// Writes one item of a stream.
pub(crate) async fn put(to: &mut (impl AsyncWrite + Unpin), item: &impl Serialize) -> Result<()> {
    let bytes = postcard::to_stdvec(item).map_err(Error::internal)?;
    frame::write(to, &bytes).await.map_err(broken)
}

/// Reads one item of a stream; `None` at its end.
pub(crate) async fn take<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<T>> {
    match frame::read(from, frame::MAX).await.map_err(broken)? {
        Some(bytes) => postcard::from_bytes(&bytes).map(Some).map_err(broken),
        None => Ok(None),
    }
}

/// A process's input, in the form of the stream.
#[derive(Serialize, Deserialize)]
pub(crate) enum Input {
    Stdin(Bytes),
    CloseStdin,
    Resize(u16, u16),
}
