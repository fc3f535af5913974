//! The Raft group over the link.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;
use tripod_raft::{NodeId, Request, Response, Transport, TransportError};

use super::message::Purpose;
use super::mux::Stream;
use super::{Link, frame};

/// How long the leader may take for a write that was passed on to it.
const SUBMIT: Duration = Duration::from_secs(20);

/// Since when managers do not answer this one.
#[derive(Clone, Debug)]
pub(crate) struct Reach(watch::Sender<BTreeMap<NodeId, Option<Instant>>>);

impl Default for Reach {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl Reach {
    pub(super) fn clear(&self) {
        self.0.send_replace(BTreeMap::new());
    }

    fn note(&self, target: NodeId, answered: bool) {
        self.0
            .send_if_modified(|known| match (known.get(&target), answered) {
                (Some(None), true) | (Some(Some(_)), false) => false,
                (_, true) => known.insert(target, None).is_none_or(|before| before.is_some()),
                (_, false) => {
                    known.insert(target, Some(Instant::now()));
                    true
                }
            });
    }

    /// Follows since when each manager has not answered; `None`: it does.
    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<NodeId, Option<Instant>>> {
        self.0.subscribe()
    }
}

fn lost(e: impl std::fmt::Display) -> TransportError {
    TransportError::Lost(e.to_string())
}

#[async_trait]
impl Transport for Link {
    async fn call(
        &self,
        target: NodeId,
        address: &str,
        request: Request,
    ) -> Result<Response, TransportError> {
        // Told also when the caller gives up waiting, which it does by dropping this.
        let mut outcome = Outcome {
            link: self,
            target,
            counts: matches!(request, Request::Append(_) | Request::Vote(_)),
            answered: false,
        };
        if let Request::Append(_) | Request::Vote(_) = request {
            let response = self.by_lane(address, request).await?;
            outcome.answered = true;
            return Ok(response);
        }
        let stream = self
            .open(address, &Purpose::Raft)
            .await
            .map_err(|e| TransportError::NotSent(e.message))?;
        let deadline = match &request {
            Request::Submit(_) | Request::ReadIndex => Some(SUBMIT),
            _ => None,
        };
        let exchange = exchange(stream, request);
        let response = match deadline {
            Some(limit) => tokio::time::timeout(limit, exchange).await.map_err(lost)?,
            None => exchange.await,
        }?;
        outcome.answered = true;
        Ok(response)
    }
}

/// Notes how a request ended.
struct Outcome<'a> {
    link: &'a Link,
    target: NodeId,
    counts: bool,
    answered: bool,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if self.counts {
            self.link.reach().note(self.target, self.answered);
        }
    }
}

async fn exchange(mut stream: Stream, request: Request) -> Result<Response, TransportError> {
    let (bytes, content) = match request.carries_snapshot() {
        true => tokio::task::spawn_blocking(|| request.encode())
            .await
            .map_err(lost)??,
        false => request.encode()?,
    };
    let asked = async {
        frame::write(&mut stream, &bytes).await?;
        if let Some(content) = content {
            for part in content.chunks(1 << 20) {
                frame::write(&mut stream, part).await?;
            }
            frame::write(&mut stream, &[]).await?;
        }
        frame::read(&mut stream, frame::MAX)
            .await?
            .ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))
    };
    Response::decode(&asked.await.map_err(lost)?)
}

/// Answers one request of the group.
pub(crate) async fn answer(link: &Link, stream: &mut Stream) -> Result<(), TransportError> {
    let cluster = link.cluster().ok_or_else(|| lost("this node is no manager"))?;
    let bytes = frame::read(stream, frame::MAX).await.map_err(lost)?;
    let bytes = bytes.ok_or_else(|| lost("nothing was asked"))?;
    let request = match Request::has_content(&bytes)? {
        false => Request::decode(&bytes, None)?,
        true => {
            let mut content = Vec::new();
            loop {
                let part = frame::read(stream, frame::MAX).await.map_err(lost)?;
                match part.ok_or_else(|| lost("a snapshot is cut short"))? {
                    part if part.is_empty() => break,
                    part => content.extend_from_slice(&part),
                }
            }
            tokio::task::spawn_blocking(move || Request::decode(&bytes, Some(&content)))
                .await
                .map_err(lost)??
        }
    };
    let response = cluster.handle(request).await;
    frame::write(stream, &response.encode()?).await.map_err(lost)
}
