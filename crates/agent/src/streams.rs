//! Attaching, logs, waiting and readings.

use std::future::Future;
use std::sync::Arc;

use tripod_model::container::ContainerStatus;
use tripod_model::{Error, Result};

use crate::Agent;
use crate::ports::{BoxStream, InterfaceStats, LogLine, LogQuery, Stats, Streams};
use crate::record::ContainerRecord;

/// What `docker wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// It does not run (at once, when it does not).
    #[default]
    NotRunning,
    /// The end of the present or next run.
    NextExit,
    /// It is gone.
    Removed,
}

impl Agent {
    /// The container's streams: from now on, or, when it does not run, of its next start.
    pub async fn attach(&self, reference: &str) -> Result<Streams> {
        let record = self.container(reference)?;
        match record.state.status {
            ContainerStatus::Paused => Err(Error::conflict(format_args!(
                "container {reference} is paused, unpause the container before attach"
            ))),
            ContainerStatus::Running => self.runtime().attach(&record.id).await,
            ContainerStatus::Removing | ContainerStatus::Dead => Err(Error::conflict(
                "container is marked for removal and cannot be attached to",
            )),
            _ => self.runtime().attach_next(&record.id).await,
        }
    }

    /// Lines of the container's log.
    pub async fn logs(&self, reference: &str, mut query: LogQuery) -> Result<BoxStream<Result<LogLine>>> {
        let record = self.container(reference)?;
        if record.spec.log.driver == "none" {
            return Err(Error::not_implemented(
                "configured logging driver does not support reading",
            ));
        }
        if record.run == 0 && !query.follow {
            return Ok(Box::pin(futures::stream::empty()));
        }
        query.follow &= record.is_running() || record.state.status == ContainerStatus::Created;
        self.runtime().logs(&record.id, query).await
    }

    /// Waits; the subscription is made before this returns, so that no change is missed. Yields exit code and the
    /// error of a failed start.
    pub fn wait_container(
        &self,
        reference: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = (i64, String)> + Send + 'static> {
        let mut changes = self.watch_container(reference)?;
        let first = changes.borrow_and_update().clone();
        let agent = self.clone();
        Ok(async move {
            let outcome = |r: &Arc<ContainerRecord>| (r.state.exit_code, r.state.error.clone());
            // What happened before this future was first polled counts too.
            let mut last = changes.borrow_and_update().clone();
            loop {
                let ended = !last.is_running()
                    && !matches!(
                        last.state.status,
                        ContainerStatus::Restarting | ContainerStatus::Removing
                    );
                // Docker's waiters hear of each end, also of one after which the container is started again.
                let another_end = last.state.finished_at != first.state.finished_at;
                let failed_start = last.run > first.run && !last.state.error.is_empty();
                let done = match condition {
                    WaitCondition::NotRunning => ended || another_end,
                    WaitCondition::NextExit => another_end || (ended && failed_start),
                    WaitCondition::Removed => {
                        failed_start && !last.spec.auto_remove || agent.inner.table.by_id(&first.id).is_none()
                    }
                };
                if done || changes.changed().await.is_err() {
                    return outcome(&last);
                }
                last = changes.borrow_and_update().clone();
            }
        })
    }

    /// Size of the container's terminal.
    pub async fn resize(&self, reference: &str, height: u16, width: u16) -> Result<()> {
        let record = self.container(reference)?;
        if !record.is_running() {
            return Err(Error::conflict(format_args!(
                "container {} is not running",
                record.id
            )));
        }
        self.runtime().resize(&record.id, height, width).await?;
        let more = [("height", height.to_string()), ("width", width.to_string())];
        self.container_event(&record, "resize", &more);
        Ok(())
    }

    /// A reading of a running container; `None` when it does not run.
    pub async fn stats(&self, reference: &str) -> Result<Option<(Stats, Vec<InterfaceStats>)>> {
        let record = self.container(reference)?;
        if !record.is_running() {
            return Ok(None);
        }
        let (stats, interfaces) = tokio::join!(
            self.runtime().stats(&record.id),
            self.net().sandbox_stats(&record.id)
        );
        // A container on the host's network has no sandbox of its own to be counted.
        Ok(Some((stats?, interfaces.unwrap_or_default())))
    }
}
