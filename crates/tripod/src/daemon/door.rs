//! The door of this node: what managers ask about its pods is answered by the agent in this process.

use async_trait::async_trait;
use futures::stream::BoxStream;
use tripod_agent::{Agent, ProcessStreams};
use tripod_engine::{Blob, ByteStream, NodeDoor, Process};
use tripod_model::Result;
use tripod_model::door::{AttachRequest, ExecRequest, LogRecord, LogRequest, NodeStats, PortForwardRequest};
use tripod_model::image::ImageOffer;

/// Leads to the agent.
pub(super) struct LocalDoor(Agent);

impl LocalDoor {
    pub(super) fn new(agent: Agent) -> Self {
        Self(agent)
    }
}

fn process((input, output): ProcessStreams) -> Process {
    Process { input, output }
}

#[async_trait]
impl NodeDoor for LocalDoor {
    async fn logs(&self, request: LogRequest) -> Result<BoxStream<'static, Result<LogRecord>>> {
        self.0.pod_logs(request).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process> {
        self.0.pod_exec(request).await.map(process)
    }

    async fn attach(&self, request: AttachRequest) -> Result<Process> {
        self.0.pod_attach(request).await.map(process)
    }

    async fn port_forward(&self, request: PortForwardRequest) -> Result<Box<dyn ByteStream>> {
        let stream = self.0.pod_connect(request).await?;
        Ok(Box::new(stream))
    }

    async fn image(&self, name: &str) -> Result<ImageOffer> {
        self.0.images().offer(name).await
    }

    async fn blob(&self, digest: &str, from: u64) -> Result<Blob> {
        let (size, data) = self.0.images().content(digest, from).await?;
        Ok(Blob {
            size,
            data: Box::pin(data),
        })
    }

    async fn stats(&self) -> Result<NodeStats> {
        self.0.node_stats().await
    }
}
