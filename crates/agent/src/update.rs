//! Changing limits of containers, and removing containers.

use std::sync::Arc;

use tripod_model::container::{ContainerStatus, Resources, RestartPolicy};
use tripod_model::{Error, Result};

use crate::record::ContainerRecord;
use crate::signals::SIGKILL;
use crate::store::Table;
use crate::table::Container;
use crate::{Agent, lifecycle::StopOptions};

/// New limits and restart policy of a container; `None` leaves what is.
#[derive(Debug, Clone, Default)]
pub struct UpdateContainer {
    /// All limits, the unchanged ones included.
    pub resources: Option<Resources>,
    /// Restart policy.
    pub restart: Option<RestartPolicy>,
}

/// How to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first when it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

impl Agent {
    /// Changes limits and restart policy, at once when it runs.
    pub async fn update_container(&self, reference: &str, update: UpdateContainer) -> Result<()> {
        let container = self.inner.table.find(reference)?;
        let _busy = container.busy.lock().await;
        let record = container.get();
        if matches!(
            record.state.status,
            ContainerStatus::Removing | ContainerStatus::Dead
        ) {
            return Err(Error::conflict(
                "container is marked for removal and cannot be \"update\"",
            ));
        }
        if record.spec.auto_remove
            && update
                .restart
                .as_ref()
                .is_some_and(|r| *r != RestartPolicy::default())
        {
            return Err(Error::conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        if let Some(resources) = &update.resources
            && record.is_running()
        {
            self.runtime().update(&record.id, resources).await?;
        }
        let record = container.modify(|r| {
            let spec = Arc::make_mut(&mut r.spec);
            if let Some(resources) = update.resources {
                spec.resources = resources;
            }
            if let Some(restart) = update.restart {
                spec.restart = restart;
            }
        });
        self.inner
            .store
            .put(Table::Containers, &record.id, &*record)
            .await?;
        self.container_event(&record, "update", &[]);
        Ok(())
    }

    /// Removes a container with all it has. Errors when it runs and force is off, or when a removal is under way.
    pub async fn remove_container(&self, reference: &str, options: RemoveOptions) -> Result<()> {
        let container = self.inner.table.find(reference)?;
        let record = container.get();
        if record.is_running() || record.state.status == ContainerStatus::Restarting {
            if !options.force {
                let what = match record.state.status {
                    ContainerStatus::Paused => "paused",
                    ContainerStatus::Restarting => "restarting",
                    _ => "running",
                };
                return Err(Error::conflict(format_args!(
                    "cannot remove container \"/{}\": container is {what}: stop the container before removing or force remove",
                    record.name
                )));
            }
            self.end_for_removal(&container).await?;
        }
        let _busy = container.busy.lock().await;
        if self.inner.table.by_id(&record.id).is_none() {
            return Err(Error::not_found(format_args!("No such container: {reference}")));
        }
        if container.get().is_running() {
            return Err(Error::conflict(format_args!(
                "cannot remove container \"/{}\": container is running: stop the container before removing or force remove",
                record.name
            )));
        }
        let record = container.modify(|r| r.state.status = ContainerStatus::Removing);
        // A daemon that dies on the way finds what it was about.
        self.save_soon(&record);
        if let Err(e) = self.remove_parts(&record, options).await {
            container.modify(|r| r.state.status = ContainerStatus::Dead);
            return Err(e);
        }
        self.container_event(&record, "destroy", &[]);
        // Subscribers wake up with this last change and find it gone; the channel closes with the last handle.
        self.inner.table.remove(&record.id);
        container.modify(|_| {});
        Ok(())
    }

    async fn end_for_removal(&self, container: &Arc<Container>) -> Result<()> {
        let options = StopOptions {
            timeout: Some(0),
            signal: Some(SIGKILL),
        };
        if container.get().state.status == ContainerStatus::Restarting {
            return self.abandon_restart(container, options).await;
        }
        self.stop_running(container, options).await
    }

    async fn remove_parts(&self, record: &ContainerRecord, options: RemoveOptions) -> Result<()> {
        container_cleanup(self, record).await?;
        self.inner.store.remove(Table::Containers, &record.id).await?;
        self.inner.execs.forget_container(&record.id);
        if options.volumes {
            let table = &self.inner.table;
            let own = |r: &ContainerRecord| r.id == record.id;
            for m in record.mounts.iter().filter(|m| m.mount.anonymous) {
                let shared = table.all().iter().any(|c| {
                    let other = c.get();
                    !own(&other) && other.mounts.iter().any(|x| x.mount.source == m.mount.source)
                });
                if !shared && !m.mount.source.is_empty() {
                    self.remove_volume_of(&m.mount.source).await;
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn discard_container_files(&self, record: &ContainerRecord) {
        if let Err(e) = container_cleanup(self, record).await {
            tracing::warn!("something is left of {}: {e}", record.name);
        }
        self.remove_anonymous(&record.mounts).await;
    }
}

async fn container_cleanup(agent: &Agent, record: &ContainerRecord) -> Result<()> {
    let (processes, snapshot) = tokio::join!(
        async {
            if record.run > 0 {
                agent.runtime().remove(&record.id).await
            } else {
                Ok(())
            }
        },
        agent.images().discard(&record.id)
    );
    processes?;
    snapshot?;
    agent.withdraw_files(record);
    match std::fs::remove_dir_all(&record.dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}
