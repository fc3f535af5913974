//! Removing what is not used.

use tripod_model::Result;

use crate::record::ContainerRecord;
use crate::{Agent, RemoveOptions};

/// What was removed, and the bytes won.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Identifiers or names.
    pub removed: Vec<String>,
    /// Bytes on disk.
    pub reclaimed: u64,
}

impl Agent {
    /// Removes containers that do not run and that `wanted` admits.
    pub async fn prune_containers(&self, wanted: impl Fn(&ContainerRecord) -> bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for record in self.containers() {
            if record.is_running() || record.owner != crate::Owner::Local || !wanted(&record) {
                continue;
            }
            let (size, _) = self.images().container_size(&record.id).await.unwrap_or_default();
            if self
                .remove_container(&record.id, RemoveOptions::default())
                .await
                .is_ok()
            {
                pruned.removed.push(record.id.clone());
                pruned.reclaimed += size;
            }
        }
        Ok(pruned)
    }

    /// Removes volumes that no container uses and that `wanted` admits.
    pub async fn prune_volumes(
        &self,
        wanted: impl Fn(&tripod_model::volume::Volume) -> bool,
    ) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for volume in self.volumes() {
            if !wanted(&volume) || !self.volume_users(&volume.name).is_empty() {
                continue;
            }
            let size = self.volume_size(&volume.name).await.unwrap_or_default();
            if self.remove_volume(&volume.name, false).await.is_ok() {
                pruned.removed.push(volume.name.clone());
                pruned.reclaimed += size;
            }
        }
        Ok(pruned)
    }

    /// Removes local networks without containers that `wanted` admits.
    pub async fn prune_networks(
        &self,
        wanted: impl Fn(&tripod_model::network::NetworkSpec) -> bool,
    ) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for network in self.local_networks() {
            let predefined = matches!(
                network.name.as_str(),
                "bridge" | "host" | "none" | "docker_gwbridge"
            );
            if predefined || !wanted(&network) || !self.network_users(&network.id).is_empty() {
                continue;
            }
            if self.remove_network(&network.id).await.is_ok() {
                pruned.removed.push(network.name.clone());
            }
        }
        Ok(pruned)
    }
}
