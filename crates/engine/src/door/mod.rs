//! The door of a node: logs, processes, connections and readings of the pods that run there, whichever node it is.
//!
//! Who serves an API asks [`Manager::door`] and never a node's agent: the door of this node leads to the agent in this
//! process, those of others over their sessions.

mod remote;
pub(crate) mod serve;
mod wire;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tripod_model::door::{
    AttachRequest, ExecRequest, LogRecord, LogRequest, NodeStats, PortForwardRequest, ProcessInput,
    ProcessOutput,
};
use tripod_model::image::ImageOffer;
use tripod_model::{Error, Result};

use crate::manager::Manager;

/// A stream of bytes in both directions. Shutting down its writing half tells the other side that nothing follows.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// The two directions of a process's streams. Dropping both detaches: the process goes on.
pub struct Process {
    /// What is sent to it. Items that it has no use for (a size without a terminal) are dropped.
    pub input: mpsc::Sender<ProcessInput>,
    /// What comes from it. Ends when the process has ended and all was read; of an exec the last item is
    /// [`ProcessOutput::Exit`].
    pub output: BoxStream<'static, Result<ProcessOutput>>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Process")
    }
}

/// Content of a node's image store.
pub struct Blob {
    /// Bytes in all.
    pub size: u64,
    /// The bytes.
    pub data: Pin<Box<dyn AsyncRead + Send>>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} bytes)", self.size)
    }
}

/// What can be asked of a node. Errors: [`tripod_model::ErrorKind::NotFound`] for a pod that the node does not run,
/// [`tripod_model::ErrorKind::Invalid`] for a container that the pod does not have or that has not run yet (the text
/// is the kubelet's), [`tripod_model::ErrorKind::Unavailable`] when the node cannot be reached.
#[async_trait]
pub trait NodeDoor: Send + Sync {
    /// Lines of a container's log. With `follow` the stream ends when the container has ended and all was sent.
    async fn logs(&self, request: LogRequest) -> Result<BoxStream<'static, Result<LogRecord>>>;

    /// Runs a process in a running container. An error means that it was not started (the command does not exist …).
    async fn exec(&self, request: ExecRequest) -> Result<Process>;

    /// The streams of a running container, from now on.
    async fn attach(&self, request: AttachRequest) -> Result<Process>;

    /// A connection to a port in the pod's network namespace; refused when nothing listens there.
    async fn port_forward(&self, request: PortForwardRequest) -> Result<Box<dyn ByteStream>>;

    /// A reading of the node and of everything that runs on it. Taken when asked for, at most a second old.
    async fn stats(&self) -> Result<NodeStats>;

    /// What is needed to take over an image (by name or identifier) from this node.
    async fn image(&self, name: &str) -> Result<ImageOffer> {
        Err(Error::not_implemented(format_args!(
            "image {name} cannot be had from this node"
        )))
    }

    /// Content of the image store by its digest, from a byte on.
    async fn blob(&self, digest: &str, from: u64) -> Result<Blob> {
        let _ = from;
        Err(Error::not_implemented(format_args!(
            "content {digest} cannot be fetched from this node"
        )))
    }
}

/// The doors of the nodes that have a session, by `metadata.name` of the node.
#[derive(Default)]
pub(crate) struct Doors(RwLock<HashMap<String, Numbered>>);

/// The door of this node, once it is known.
pub(crate) type OwnDoor = Arc<OnceLock<Arc<dyn NodeDoor>>>;

/// A door, and a number of its own, so that an older one does not close a newer one.
type Numbered = (u64, Arc<dyn NodeDoor>);

/// Keeps a door open: it closes when this is dropped.
pub struct OpenDoor {
    manager: Arc<Manager>,
    node: String,
    number: u64,
}

impl std::fmt::Debug for OpenDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenDoor({})", self.node)
    }
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        let mut doors = self
            .manager
            .doors
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if doors
            .get(&self.node)
            .is_some_and(|(number, _)| *number == self.number)
        {
            doors.remove(&self.node);
        }
    }
}

impl Manager {
    /// Opens the door of a node (by `metadata.name`) for as long as the answer is kept. A later one takes its place.
    pub fn open_door(self: &Arc<Self>, node: &str, door: Arc<dyn NodeDoor>) -> OpenDoor {
        let number = rand::random();
        self.doors
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.to_owned(), (number, door));
        OpenDoor {
            manager: self.clone(),
            node: node.to_owned(),
            number,
        }
    }

    /// The door of a node, by `metadata.name`: of this one, or of any that has a session with the leader.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] for a node that has no session.
    pub fn door(&self, node: &str) -> Result<Arc<dyn NodeDoor>> {
        let known = {
            let doors = self.doors.0.read().unwrap_or_else(PoisonError::into_inner);
            doors.get(node).map(|(_, door)| door.clone())
        };
        if let Some(door) = known {
            return Ok(door);
        }
        let unreachable = || Error::unavailable(format_args!("node {node} cannot be reached"));
        let node_id = self.with_view(|view| view.node(node).map(|n| n.spec.swarm.node_id.clone()));
        let node_id = node_id.ok_or_else(unreachable)?;
        if node_id == self.node_id() {
            return self.own_door.get().cloned().ok_or_else(unreachable);
        }
        if self.leads() && self.sessions.connections.get(&node_id).is_none() {
            return Err(unreachable());
        }
        Ok(Arc::new(remote::RemoteDoor {
            manager: self.me.upgrade().ok_or_else(unreachable)?,
            node_id,
            node_name: node.to_owned(),
        }))
    }
}

/// The bytes of a log as the Kubernetes API sends them: each line with its time in front where `timestamps` says so,
/// cut off after `limit` bytes.
pub fn log_bytes(
    records: BoxStream<'static, Result<LogRecord>>,
    timestamps: bool,
    limit: Option<u64>,
) -> BoxStream<'static, Result<Bytes>> {
    let mut left = limit.unwrap_or(u64::MAX);
    let text = records.map(move |record| {
        let record = record?;
        if !timestamps {
            return Ok(record.data);
        }
        let mut line = format!("{:.9} ", record.at).into_bytes();
        line.extend_from_slice(&record.data);
        Ok(Bytes::from(line))
    });
    text.scan((), move |(), item: Result<Bytes>| {
        let next = match item {
            _ if left == 0 => None,
            Ok(mut bytes) => {
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                left -= bytes.len() as u64;
                Some(Ok(bytes))
            }
            Err(e) => Some(Err(e)),
        };
        std::future::ready(next)
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tripod_model::Time;

    #[tokio::test]
    async fn log_bytes_have_times_and_a_limit() {
        let records = || {
            let lines = ["one\n", "two\n"];
            futures::stream::iter(lines.map(|l| {
                Ok(LogRecord {
                    stderr: false,
                    at: Time::UNIX_EPOCH,
                    data: Bytes::from_static(l.as_bytes()),
                    attrs: None,
                })
            }))
            .boxed()
        };
        let read = |s: BoxStream<'static, Result<Bytes>>| async move {
            let parts: Vec<_> = s.map(Result::unwrap).collect().await;
            String::from_utf8(parts.concat()).unwrap()
        };
        assert_eq!(read(log_bytes(records(), false, None)).await, "one\ntwo\n");
        assert_eq!(read(log_bytes(records(), false, Some(6))).await, "one\ntw");
        assert_eq!(
            read(log_bytes(records(), true, None)).await,
            "1970-01-01T00:00:00.000000000Z one\n1970-01-01T00:00:00.000000000Z two\n"
        );
    }
}
