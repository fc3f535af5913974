//! Names in networks: what the cluster says, and the containers of this node.

use std::sync::{Arc, PoisonError};

use tripod_model::Result;
use tripod_model::network::{NameRecord, NetworkSpec};

use crate::Agent;
use crate::record::{ContainerRecord, Owner};

impl Agent {
    /// Tells the name server about the networks that a container is in, after it started, ended or was renamed.
    pub(crate) async fn refresh_names(&self, record: &ContainerRecord) -> Result<()> {
        for endpoint in &record.endpoints {
            if self.serves_names(&endpoint.network_name, record) {
                self.refresh_network_names(&endpoint.network_id).await?;
            }
        }
        Ok(())
    }

    /// Pods in cluster networks are named by the cluster, and the default networks have no names.
    fn serves_names(&self, network_name: &str, record: &ContainerRecord) -> bool {
        !matches!(network_name, "bridge" | "host" | "none") && record.owner == Owner::Local
    }

    /// Tells the name server all names of a network.
    pub(crate) async fn refresh_network_names(&self, network_id: &str) -> Result<()> {
        let _naming = self.inner.networks.naming.lock().await;
        let mut records: Vec<NameRecord> = {
            let given = self
                .inner
                .networks
                .cluster_names
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            given
                .get(network_id)
                .map_or_else(Vec::new, |names| names.to_vec())
        };
        for container in self.network_users(network_id) {
            if !container.is_running() || container.owner != Owner::Local {
                continue;
            }
            for e in container.endpoints.iter().filter(|e| e.network_id == network_id) {
                let Some(net) = e.ipv4 else { continue };
                for (i, name) in e.names.iter().enumerate() {
                    records.push(NameRecord {
                        name: name.clone(),
                        addresses: vec![net.addr()],
                        owner: e.id.clone(),
                        reverse: i == 0,
                    });
                }
            }
        }
        self.inner.ports.net.set_names(network_id, &records).await
    }

    /// Takes over the names that the cluster gives in a network.
    pub(crate) async fn set_cluster_names(
        &self,
        network_id: &str,
        names: Arc<Vec<NameRecord>>,
    ) -> Result<()> {
        {
            let mut given = self
                .inner
                .networks
                .cluster_names
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            given.insert(network_id.to_owned(), names);
        }
        self.refresh_network_names(network_id).await
    }

    /// Remembers a cluster network that this node takes part in.
    pub(crate) fn adopt_cluster_network(&self, spec: &Arc<NetworkSpec>) {
        if spec.cluster {
            let mut cluster = self
                .inner
                .networks
                .cluster
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            cluster.insert(spec.id.clone(), spec.clone());
        }
    }

    /// Identifiers of the cluster networks that this node takes part in.
    pub(crate) fn cluster_network_ids(&self) -> Vec<String> {
        let cluster = self
            .inner
            .networks
            .cluster
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        cluster.keys().cloned().collect()
    }

    /// Takes a cluster network away from this node, unless a container is still in it.
    pub(crate) async fn drop_cluster_network(&self, network_id: &str) -> Result<bool> {
        if self.network_users(network_id).iter().any(|r| r.is_running()) {
            return Ok(false);
        }
        self.inner.ports.net.remove_network(network_id).await?;
        self.inner.networks.real.lock().await.remove(network_id);
        self.inner
            .networks
            .cluster
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(network_id);
        self.inner
            .networks
            .cluster_names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(network_id);
        Ok(true)
    }
}
