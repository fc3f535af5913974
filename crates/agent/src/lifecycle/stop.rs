//! Stopping, killing, restarting and freezing containers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tripod_model::container::ContainerStatus;
use tripod_model::{Error, Result};

use crate::Agent;
use crate::record::{ContainerRecord, Owner};
use crate::signals::{self, SIGKILL, SIGTERM};
use crate::table::Container;

/// Seconds between the stop signal and SIGKILL where nobody says otherwise.
const DEFAULT_STOP_SECONDS: i64 = 10;
/// How long a killed process may take to vanish before the caller is told.
const KILL_PATIENCE: Duration = Duration::from_secs(15);

/// How to stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// Seconds until SIGKILL; negative waits for ever; `None` is the container's or the default.
    pub timeout: Option<i64>,
    /// Instead of the container's stop signal.
    pub signal: Option<i32>,
}

impl Agent {
    /// Ends a container in an orderly way. `NotModified` when it does not run.
    pub async fn stop_container(&self, reference: &str, options: StopOptions) -> Result<()> {
        let container = self.inner.table.find(reference)?;
        let record = container.get();
        if record.state.status == ContainerStatus::Restarting {
            return self.abandon_restart(&container, options).await;
        }
        if !record.is_running() {
            return Err(Error::not_modified("container already stopped"));
        }
        self.stop_running(&container, options).await?;
        self.container_event(&container.get(), "stop", &[]);
        Ok(())
    }

    /// Signals a running container to end and waits until it has.
    pub(crate) async fn stop_running(&self, container: &Arc<Container>, options: StopOptions) -> Result<()> {
        let record = container.modify(|r| {
            r.state.stopped_by_user = true;
            r.wanted = false;
        });
        self.save_soon(&record);
        if record.state.status == ContainerStatus::Paused {
            self.runtime().unpause(&record.id).await?;
        }
        let signal = match options.signal {
            Some(signal) => signal,
            None => stop_signal(&record),
        };
        let seconds = options
            .timeout
            .or(record.spec.stop_timeout)
            .unwrap_or(DEFAULT_STOP_SECONDS);
        self.signal_event(&record, signal);
        // The process may end by itself at this very moment: then there is nobody to signal, and that is well.
        let signalled = self.runtime().signal(&record.id, signal).await;
        let gone = wait_for_end(container, record.run);
        match (signalled, u64::try_from(seconds)) {
            (Ok(()), Err(_)) => {
                gone.await;
                return Ok(());
            }
            (Ok(()), Ok(seconds)) => {
                if tokio::time::timeout(Duration::from_secs(seconds), gone)
                    .await
                    .is_ok()
                {
                    return Ok(());
                }
            }
            (Err(_), _) => {}
        }
        self.force_end(container, &record).await
    }

    async fn force_end(&self, container: &Arc<Container>, record: &ContainerRecord) -> Result<()> {
        self.signal_event(record, SIGKILL);
        let killed = self.runtime().signal(&record.id, SIGKILL).await;
        match tokio::time::timeout(KILL_PATIENCE, wait_for_end(container, record.run)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(killed.err().unwrap_or_else(|| {
                Error::internal(format_args!(
                    "cannot stop container: {}: tried to kill container, but did not receive an exit event",
                    record.id
                ))
            })),
        }
    }

    /// Sends a signal. With SIGKILL it returns when the container has ended.
    pub async fn kill_container(&self, reference: &str, signal: i32) -> Result<()> {
        let container = self.inner.table.find(reference)?;
        let record = container.get();
        if !record.is_running() {
            return Err(Error::conflict(format_args!(
                "cannot kill container: {reference}: container {} is not running",
                record.id
            )));
        }
        if signal == SIGKILL || signal == stop_signal(&record) {
            let record = container.modify(|r| {
                r.state.stopped_by_user = true;
                r.wanted = false;
            });
            self.save_soon(&record);
        }
        if record.state.status == ContainerStatus::Paused && signal == SIGKILL {
            self.runtime().unpause(&record.id).await?;
        }
        if signal == SIGKILL {
            return self.force_end(&container, &record).await;
        }
        self.signal_event(&record, signal);
        self.runtime().signal(&record.id, signal).await
    }

    /// Stops (if it runs) and starts a container.
    pub async fn restart_container(&self, reference: &str, options: StopOptions) -> Result<()> {
        let container = self.inner.table.find(reference)?;
        container.kept.store(true, Ordering::Relaxed);
        let stopped = match container.get().state.status {
            ContainerStatus::Restarting => self.abandon_restart(&container, options).await,
            ContainerStatus::Running | ContainerStatus::Paused => {
                self.stop_running(&container, options).await
            }
            _ => Ok(()),
        };
        container.kept.store(false, Ordering::Relaxed);
        stopped?;
        match self.start_container(&container.get().id).await {
            // The restart policy, or another client, was faster.
            Err(e) if e.kind == tripod_model::ErrorKind::NotModified => {}
            other => other?,
        }
        self.container_event(&container.get(), "restart", &[]);
        Ok(())
    }

    /// Gives up a restart that waits for its time; one that has begun meanwhile is stopped.
    pub(crate) async fn abandon_restart(
        &self,
        container: &Arc<Container>,
        options: StopOptions,
    ) -> Result<()> {
        container.cancel_run();
        let busy = container.busy.lock().await;
        let record = container.modify(|r| {
            r.state.stopped_by_user = true;
            r.wanted = false;
            if r.state.status == ContainerStatus::Restarting {
                r.state.status = ContainerStatus::Exited;
            }
        });
        self.save_soon(&record);
        drop(busy);
        if record.is_running() {
            self.stop_running(container, options).await?;
        }
        Ok(())
    }

    /// Freezes a container.
    pub async fn pause_container(&self, reference: &str) -> Result<()> {
        let container = self.inner.table.find(reference)?;
        let _busy = container.busy.lock().await;
        let record = container.get();
        match record.state.status {
            ContainerStatus::Running => {}
            ContainerStatus::Paused => {
                return Err(Error::conflict(format_args!(
                    "container {} is already paused",
                    record.id
                )));
            }
            _ => {
                return Err(Error::conflict(format_args!(
                    "container {} is not running",
                    record.id
                )));
            }
        }
        self.runtime().pause(&record.id).await?;
        let record = container.modify(|r| r.state.status = ContainerStatus::Paused);
        self.save_soon(&record);
        self.container_event(&record, "pause", &[]);
        Ok(())
    }

    /// Thaws a container.
    pub async fn unpause_container(&self, reference: &str) -> Result<()> {
        let container = self.inner.table.find(reference)?;
        let _busy = container.busy.lock().await;
        let record = container.get();
        if record.state.status != ContainerStatus::Paused {
            return Err(Error::conflict(format_args!(
                "container {} is not paused",
                record.id
            )));
        }
        self.runtime().unpause(&record.id).await?;
        let record = container.modify(|r| r.state.status = ContainerStatus::Running);
        self.save_soon(&record);
        self.container_event(&record, "unpause", &[]);
        Ok(())
    }

    /// Stops every container at the same time, each within its grace; they are wanted still.
    pub async fn stop_all(&self) {
        let mut stops = tokio::task::JoinSet::new();
        for record in self.containers().into_iter().filter(|r| r.is_running()) {
            let agent = self.clone();
            stops.spawn(async move {
                let Ok(container) = agent.inner.table.find(&record.id) else {
                    return;
                };
                if let Err(e) = agent.stop_running(&container, StopOptions::default()).await {
                    tracing::warn!("{} does not stop: {e}", record.name);
                }
                if record.spec.auto_remove {
                    return;
                }
                // The daemon's end is no wish of the user's: its policy holds at the next start.
                let record = container.modify(|r| {
                    r.state.stopped_by_user = false;
                    r.wanted = true;
                    r.resume = r.owner != Owner::Local && r.run == record.run;
                });
                agent.save_soon(&record);
            });
        }
        stops.join_all().await;
    }

    fn signal_event(&self, record: &ContainerRecord, signal: i32) {
        self.container_event(record, "kill", &[("signal", signal.to_string())]);
    }
}

/// The signal that asks a container to end.
pub(crate) fn stop_signal(record: &ContainerRecord) -> i32 {
    match record.spec.stop_signal.as_str() {
        "" => SIGTERM,
        name => signals::parse(name).unwrap_or(SIGTERM),
    }
}

/// Returns when the run has ended (or the container is gone).
pub(crate) async fn wait_for_end(container: &Arc<Container>, run: u64) {
    let mut changes = container.record.subscribe();
    let _ = changes.wait_for(|r| r.run != run || !r.is_running()).await;
}
