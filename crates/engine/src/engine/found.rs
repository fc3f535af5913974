//! A cluster is made of this daemon, or goes on with this manager alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tripod_model::node::NodeRole;
use tripod_model::{Error, Result};
use tripod_raft::{Cluster, Options as RaftOptions};

use super::{Engine, LOCKED, MEMBER, NOT_MANAGER, Phase};
use crate::db::to_error;
use crate::paths::{Credentials, Standing};
use crate::request::{Addresses, InitRequest, no_advertise, parse_addr};
use crate::swarm::cluster::{Founding, authority, chain, roots};

impl Engine {
    /// Makes a cluster of this daemon and returns its node's identifier.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Unavailable`] when it is in one already; [`tripod_model::ErrorKind::Invalid`] for
    /// addresses, ports, pools and settings that cannot be.
    pub async fn swarm_init(&self, request: InitRequest) -> Result<String> {
        let _changing = self.0.changing.lock().await;
        let (listen, advertise) = (&request.listen_addr, &request.advertise_addr);
        let addresses = Addresses::of(listen, advertise, self.0.options.node_listen)?;
        if request.force_new_cluster && self.standing().is_some() {
            let advertise = addresses.advertise.filter(|_| !advertise.is_empty());
            return self.found_anew(addresses.listen, advertise).await;
        }
        match &*self.phase() {
            Phase::Inactive | Phase::Pending => {}
            Phase::Locked(_) => return Err(Error::unavailable(LOCKED)),
            _ => return Err(Error::unavailable(MEMBER)),
        }
        let advertise = addresses.advertise.ok_or_else(no_advertise)?;
        let founding = Founding::new(&request, &self.0.options.description, advertise)?;
        self.set(Phase::Pending);
        match self.found(&request, &addresses, advertise, founding).await {
            Ok(standing) => Ok(standing.node_id),
            Err(e) => {
                // Nothing of a cluster that never was remains.
                let _ = self.0.paths.forget();
                self.set(Phase::Inactive);
                Err(e)
            }
        }
    }

    async fn found(
        &self,
        request: &InitRequest,
        addresses: &Addresses,
        advertise: SocketAddr,
        founding: Founding,
    ) -> Result<Standing> {
        let unlock_key = Self::lock_of(&founding.cluster.status.unlock_key)?;
        let data_path_addr = match request.data_path_addr.as_str() {
            "" => advertise.ip(),
            text => parse_addr(text, 0, "DataPathAddr")?.ip(),
        };
        let standing = Standing {
            format: 1,
            node_id: founding.node.spec.swarm.node_id.clone(),
            node_name: founding.node.metadata.name.clone(),
            cluster_id: founding.cluster.metadata.name.clone(),
            role: NodeRole::Manager,
            raft_id: rand::random::<u64>().max(1),
            managers: Vec::new(),
            listen_addr: addresses.listen.to_string(),
            advertise_addr: advertise.to_string(),
            data_path_addr,
        };
        self.0.paths.forget()?;
        let cluster = &founding.cluster;
        let valid = Duration::from_nanos(cluster.spec.node_cert_expiry.unsigned_abs());
        let issued =
            authority(cluster).issue(&standing.node_id, NodeRole::Manager, &standing.cluster_id, valid)?;
        let credentials = Credentials {
            roots: roots(cluster),
            chain: chain(&issued.cert, cluster),
            key: issued.key,
        };
        // An address that cannot be had is told before anything is made.
        let probe = self.0.link.clone();
        probe.install(&credentials.roots, &credentials.chain, &credentials.key)?;
        let life = self.begin_life();
        self.listen(&standing, life.clone()).await?;
        let options = RaftOptions {
            unlock_key,
            transport: Arc::new(self.0.link.clone()),
            ..RaftOptions::default()
        };
        let store = Cluster::open(self.0.paths.store(), standing.raft_id, options)
            .await
            .map_err(to_error)?;
        let made = async {
            store
                .initialize(&standing.advertise_addr)
                .await
                .map_err(to_error)?;
            store.submit(founding.txn(&standing)).await.map_err(to_error)?;
            self.0
                .paths
                .write_credentials(&credentials, unlock_key.as_ref())?;
            self.0.paths.write_standing(&standing)
        };
        let made = made.await;
        match made {
            Ok(()) => {
                self.start(store, standing.clone()).await?;
                Ok(standing)
            }
            Err(e) => {
                life.cancel();
                store.shutdown().await;
                Err(e)
            }
        }
    }

    /// `docker swarm init --force-new-cluster`: the cluster goes on with this manager alone, from what it knows.
    async fn found_anew(&self, listen: SocketAddr, advertise: Option<SocketAddr>) -> Result<String> {
        let (mut standing, lock) = match &*self.phase() {
            Phase::Active(manager) => (manager.standing(), manager.unlock_key()?),
            Phase::Waiting(standing, _) => (standing.clone(), String::new()),
            Phase::Locked(_) => return Err(Error::unavailable(LOCKED)),
            Phase::Broken(_, e) => return Err(Error::unavailable(e)),
            Phase::Worker(_) | Phase::Inactive | Phase::Pending => {
                return Err(Error::unavailable(NOT_MANAGER));
            }
        };
        let lock = Self::lock_of(&lock)?;
        standing.listen_addr = listen.to_string();
        if let Some(advertise) = advertise {
            standing.advertise_addr = advertise.to_string();
        }
        standing.managers.clear();
        self.stop().await;
        self.set(Phase::Pending);
        let (dir, raft_id, address) = (
            self.0.paths.store(),
            standing.raft_id,
            standing.advertise_addr.clone(),
        );
        let options = RaftOptions {
            unlock_key: lock,
            ..RaftOptions::default()
        };
        let made = tokio::task::spawn_blocking(move || {
            tripod_raft::found_anew(&dir, raft_id, &address, &options).map_err(to_error)
        });
        let made = made.await.map_err(Error::internal)?;
        self.0.paths.write_standing(&standing)?;
        // Whatever came of it, the daemon goes on with what is on its disk.
        self.resume(standing.clone(), lock).await?;
        made?;
        self.manager()?.found_anew().await?;
        Ok(standing.node_id)
    }
}
