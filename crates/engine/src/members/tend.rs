//! What the managers keep true by themselves: who is in their group, how each stands, and what nodes are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tripod_model::node::{ManagerStatus, Node, NodeRole};
use tripod_model::object::Kind as _;
use tripod_model::swarm::SwarmCluster;
use tripod_model::{Result, Time};
use tripod_raft::Metrics;
use tripod_raft::store::WatchFilter;

use super::Common;
use crate::manager::Manager;
use crate::request::RemoteManager;
use crate::swarm::cluster::roots;

/// A manager that has not answered for so long is unreachable.
const UNREACHABLE: Duration = Duration::from_secs(2);
/// When something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);

type Silent = BTreeMap<u64, Option<Instant>>;

impl Manager {
    /// Runs for as long as the manager does. Wakes when nodes or the cluster change, when a manager stops or begins to
    /// answer, and when leadership changes.
    pub(crate) async fn tend(self: Arc<Self>) {
        let (mut leads, mut reach) = (self.watch_leads(), self.link.reach().watch());
        let mut leadership = self.db().cluster().leadership();
        let mut keys = String::new();
        loop {
            let kinds = WatchFilter::kinds([Node::RESOURCE, SwarmCluster::RESOURCE]);
            let from = self.db().snapshot().revision();
            let Ok(mut changes) = self.db().cluster().watch(kinds, from) else {
                continue;
            };
            loop {
                leads.borrow_and_update();
                leadership.borrow_and_update();
                let silent = reach.borrow_and_update().clone();
                let again = match self.tend_once(&silent, &mut keys).await {
                    Ok(again) => again,
                    Err(error) => {
                        tracing::warn!(%error, "the standing of managers is not up to date");
                        Some(AGAIN)
                    }
                };
                let later = async {
                    match again {
                        Some(again) => tokio::time::sleep(again).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    change = changes.next() => match change {
                        // Many may have come at once.
                        Some(Ok(_)) => if changes.ready().is_err() { break },
                        Some(Err(_)) => break,
                        None => return,
                    },
                    changed = leads.changed() => if changed.is_err() { return },
                    changed = leadership.changed() => if changed.is_err() { return },
                    changed = reach.changed() => if changed.is_err() { return },
                    () = later => {}
                }
            }
        }
    }

    async fn tend_once(&self, silent: &Silent, keys: &mut String) -> Result<Option<Duration>> {
        let cluster = self.swarm_inspect()?;
        // What this node itself must follow: unlock key and authority.
        let now = format!(
            "{}{}{}",
            cluster.status.unlock_key, cluster.status.ca_cert, cluster.status.old_ca_cert
        );
        if *keys != now {
            self.apply_keys(&cluster, false).await?;
            self.describe_trust(&cluster).await?;
            *keys = now;
        }
        let nodes = self.db().snapshot().list::<Node>(None)?;
        let metrics = self.db().cluster().metrics();
        self.tell_common(&cluster, &nodes, &metrics);
        if !self.leads() {
            return Ok(None);
        }
        let again = self.tend_managers(&nodes, &metrics, silent).await?;
        self.end_rotation(&cluster, &nodes).await?;
        Ok(again)
    }

    /// Writes which root this manager trusts.
    pub(crate) async fn describe_trust(&self, cluster: &SwarmCluster) -> Result<()> {
        self.change_node(self.node_id(), |node| {
            let description = &mut node.status.description;
            description.trust_root.clone_from(&cluster.status.ca_cert);
            description
                .issuer_subject
                .clone_from(&cluster.status.issuer_subject);
            description
                .issuer_public_key
                .clone_from(&cluster.status.issuer_public_key);
        })
        .await
    }

    fn tell_common(&self, cluster: &SwarmCluster, nodes: &[Node], metrics: &Metrics) {
        let managers = nodes.iter().filter_map(|node| {
            let manager = node.status.manager.as_ref()?;
            metrics
                .voters
                .contains_key(&manager.raft_id)
                .then(|| RemoteManager {
                    node_id: node.spec.swarm.node_id.clone(),
                    addr: manager.addr.clone(),
                })
        });
        let common = Common {
            managers: managers.collect(),
            heartbeat_ms: cluster.spec.heartbeat_period.unsigned_abs() / 1_000_000,
            roots: roots(cluster),
            issuer: cluster.status.issuer_public_key.clone(),
            group: metrics
                .voters
                .keys()
                .chain(metrics.learners.keys())
                .copied()
                .collect(),
        };
        self.common.send_if_modified(|known| {
            let changed = **known != common;
            if changed {
                *known = Arc::new(common);
            }
            changed
        });
    }

    /// Takes those out of the group that are to be workers, and writes how the managers stand.
    async fn tend_managers(
        &self,
        nodes: &[Node],
        metrics: &Metrics,
        silent: &Silent,
    ) -> Result<Option<Duration>> {
        let mut again: Option<Duration> = None;
        for node in nodes {
            let Some(manager) = &node.status.manager else {
                continue;
            };
            let id = &node.spec.swarm.node_id;
            if node.spec.swarm.role == NodeRole::Worker {
                let itself = manager.raft_id == metrics.node;
                self.diminish(manager.raft_id).await?;
                if itself {
                    // The next leader writes what became of this one.
                    return Ok(None);
                }
                self.change_node(id, |node| node.status.manager = None).await?;
                continue;
            }
            let reachable = match silent.get(&manager.raft_id).copied().flatten() {
                _ if manager.raft_id == metrics.node => true,
                _ if !metrics.voters.contains_key(&manager.raft_id) => false,
                None => true,
                Some(since) if since.elapsed() >= UNREACHABLE => false,
                Some(since) => {
                    let rest = UNREACHABLE.saturating_sub(since.elapsed());
                    again = Some(again.map_or(rest, |again| again.min(rest)));
                    manager.reachable
                }
            };
            let standing = ManagerStatus {
                leader: metrics.leadership.leader == Some(manager.raft_id),
                reachable,
                ..manager.clone()
            };
            if standing != *manager {
                self.change_node(id, |node| node.status.manager = Some(standing.clone()))
                    .await?;
            }
        }
        Ok(again)
    }

    /// A rotation of the authority is over when every node has a certificate of the new one.
    async fn end_rotation(&self, cluster: &SwarmCluster, nodes: &[Node]) -> Result<()> {
        let new = &cluster.status.issuer_public_key;
        if !cluster.status.root_rotation
            || nodes
                .iter()
                .any(|n| n.status.description.issuer_public_key != *new)
        {
            return Ok(());
        }
        let _one = self.settings().lock().await;
        let mut cluster = self.swarm_inspect()?;
        cluster.status.root_rotation = false;
        cluster.status.old_ca_cert.clear();
        cluster.status.cross_cert.clear();
        cluster.status.updated_at = Some(Time::now());
        self.db().update(&cluster).await.map(drop)
    }
}
