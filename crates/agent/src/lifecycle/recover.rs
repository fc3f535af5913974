//! Taking over, when the daemon starts, what ran without it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tripod_model::Result;
use tripod_model::container::ContainerStatus;

use crate::ports::{Adopted, SandboxDns};
use crate::record::ContainerRecord;
use crate::signals::SIGKILL;
use crate::store::Table;
use crate::table::Container;
use crate::{Agent, files, restart};

impl Agent {
    /// Loads the containers, adopts those that run, settles those that ended meanwhile, removes what nobody owns and
    /// starts what is to run with the daemon.
    pub(crate) async fn recover(&self) -> Result<()> {
        let rows = self.inner.store.load::<ContainerRecord>(Table::Containers)?;
        for (_, record) in rows {
            self.inner.table.insert(Arc::new(Container::new(record)));
        }
        let adopted: HashMap<String, Adopted> = self
            .runtime()
            .adopt()
            .await?
            .into_iter()
            .map(|a| (a.id.clone(), a))
            .collect();
        self.follow_runtime();
        self.recover_places().await?;
        self.remove_strangers(&adopted).await?;
        let mut adoptions = tokio::task::JoinSet::new();
        for container in self.inner.table.all() {
            let found = adopted.get(&container.get().id).cloned();
            let agent = self.clone();
            adoptions.spawn(async move { agent.recover_one(&container, found).await });
        }
        adoptions.join_all().await;
        self.refresh_all_names().await;
        self.start_with_daemon();
        Ok(())
    }

    async fn recover_one(&self, container: &Arc<Container>, found: Option<Adopted>) {
        let record = container.get();
        match found {
            Some(found) if found.run == record.run && found.exit.is_none() => {
                self.hold_mounts(&record).await;
                self.adopt_running(container, &found).await;
            }
            Some(Adopted { exit: Some(exit), .. }) if exit.run == record.run && record.is_running() => {
                self.hold_mounts(&record).await;
                self.handle_exit(exit).await;
            }
            // The daemon died between a start and its record, or between the record of an end and its
            // acknowledgement. The number of that run is not used again: its end may yet be reported.
            Some(found) => {
                container.modify(|r| r.run = r.run.max(found.run));
                match &found.exit {
                    Some(exit) => drop(self.runtime().acknowledge_exit(&exit.id, exit.run).await),
                    None => drop(self.runtime().signal(&record.id, SIGKILL).await),
                }
                self.lost(container).await;
            }
            None => self.lost(container).await,
        }
        let Some(container) = self.inner.table.by_id(&record.id) else {
            return;
        };
        let record = container.get();
        if record.spec.auto_remove && record.state.status == ContainerStatus::Exited && record.run > 0 {
            self.remove_ended(&record).await;
        }
        if record.state.status == ContainerStatus::Removing {
            let options = crate::RemoveOptions {
                force: true,
                ..Default::default()
            };
            if let Err(e) = self.remove_container(&record.id, options).await {
                tracing::warn!("{} cannot be removed: {e}", record.name);
            }
        }
    }

    async fn adopt_running(&self, container: &Arc<Container>, found: &Adopted) {
        let status = if found.paused {
            ContainerStatus::Paused
        } else {
            ContainerStatus::Running
        };
        let record = container.modify(|r| {
            r.state.status = status;
            r.state.pid = found.pid;
        });
        self.hold_addresses(&record.endpoints);
        let mode = record.spec.network.mode.as_str();
        if super::start::has_own_sandbox(mode) {
            let embedded = self.has_embedded_dns(&record.endpoints);
            let (_, upstream) = files::resolv_conf(&record.spec, embedded);
            let real: Vec<_> = record
                .endpoints
                .iter()
                .filter(|e| e.ipv4.is_some())
                .cloned()
                .collect();
            for e in &real {
                if let Ok(spec) = self.network(&e.network_id)
                    && let Err(error) = self.ensure_real(&spec).await
                {
                    tracing::warn!("network {} of {} is broken: {error}", spec.name, record.name);
                }
            }
            let dns = SandboxDns { embedded, upstream };
            if let Err(e) = self
                .net()
                .adopt_sandbox(&record.id, &dns, &real, &record.ports)
                .await
            {
                tracing::warn!("the network of {} is not what it was: {e}", record.name);
                container.modify(|r| r.warnings.push(format!("network not adopted: {e}")));
            }
        }
        self.watch_health(&record, container.new_run_token());
    }

    /// Nothing runs: ends the run that the record tells of, if any, and takes away what is left of one.
    async fn lost(&self, container: &Arc<Container>) {
        let before = container.get();
        self.withdraw_files(&before);
        // Addresses belong to a run; one that merely wishes for an address does not have it.
        let mut endpoints = &before.endpoints[..];
        if before.is_running() {
            self.record_lost_run(container);
        } else if before.run == container.get().run && before.state.status != ContainerStatus::Created {
            return;
        } else {
            endpoints = &[];
        }
        // Its volumes are not counted: that was another daemon.
        self.network_down(&before, endpoints).await;
        if let Err(e) = self.images().unmount(&before.id).await {
            tracing::warn!("the root filesystem of {} stays mounted: {e}", before.name);
        }
        self.save_soon(&container.get());
    }

    /// What the keeper, the network and the disk have that no record knows.
    async fn remove_strangers(&self, adopted: &HashMap<String, Adopted>) -> Result<()> {
        let known: HashSet<String> = self.containers().iter().map(|r| r.id.clone()).collect();
        for id in adopted.keys().filter(|id| !known.contains(*id)) {
            let _ = self.runtime().signal(id, SIGKILL).await;
            let _ = self.runtime().remove(id).await;
        }
        let running: HashSet<&String> = adopted
            .iter()
            .filter(|(_, a)| a.exit.is_none())
            .map(|(id, _)| id)
            .collect();
        let places = self.pod_places();
        for sandbox in self.net().sandboxes().await? {
            if places.iter().any(|(_, s)| *s == sandbox) {
                continue;
            }
            if !known.contains(&sandbox) || !running.contains(&sandbox) {
                self.net().remove_sandbox(&sandbox).await?;
            }
        }
        let of_pods = |snapshot: &str| {
            let images = |uid: &str| crate::kube::image_volume_snapshot(uid, "");
            places.iter().any(|(uid, _)| snapshot.starts_with(&images(uid)))
        };
        for snapshot in self.images().snapshots().await? {
            if !known.contains(&snapshot) && !of_pods(&snapshot) {
                self.images().discard(&snapshot).await?;
            }
        }
        let dir = self.options().root.join("containers");
        for entry in std::fs::read_dir(dir)?.flatten() {
            if !known.contains(&*entry.file_name().to_string_lossy()) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    async fn refresh_all_names(&self) {
        let networks: HashSet<String> = self
            .containers()
            .iter()
            .filter(|r| r.is_running())
            .flat_map(|r| {
                r.endpoints
                    .iter()
                    .map(|e| (e.network_id.clone(), e.network_name.clone()))
                    .collect::<Vec<_>>()
            })
            .filter(|(_, name)| !matches!(name.as_str(), "bridge" | "host" | "none"))
            .map(|(id, _)| id)
            .collect();
        for id in networks {
            if let Err(e) = self.refresh_network_names(&id).await {
                tracing::warn!("names of network {id} are not served: {e}");
            }
        }
    }

    /// Starts, without holding up the daemon, what its policy wants to run.
    fn start_with_daemon(&self) {
        for record in self.containers() {
            // A restart that was due when the daemon ended is made up for, and counted as one.
            if record.state.status == ContainerStatus::Restarting {
                if let Some(container) = self.inner.table.by_id(&record.id) {
                    self.restart_after(&container, std::time::Duration::ZERO);
                }
                continue;
            }
            if record.is_running() || !restart::starts_with_daemon(&record) {
                continue;
            }
            let agent = self.clone();
            tokio::spawn(async move {
                if let Err(e) = agent.start_container(&record.id).await {
                    tracing::warn!("{} does not start with the daemon: {e}", record.name);
                }
            });
        }
    }
}
