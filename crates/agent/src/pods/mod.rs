//! Pods of the cluster on this node: assignments taken from a session, one worker per pod, reports sent back.

mod spec;
mod step;
mod template;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tripod_model::Result;
use tripod_model::network::NetworkSpec;
use tripod_model::network::fabric::Fabric;
use tripod_model::network::names::ClusterNames;
use tripod_model::network::policy::Policies;
use tripod_model::pod::Pod;
use tripod_model::session::{Assignment, DataItem, PodReport, Token, TokenRequest};

use crate::{Agent, Owner, RemoveOptions, kube};
pub use spec::NodeIdentity;

/// A node's connection to a manager.
#[async_trait]
pub trait Session: Send + Sync {
    /// The next assignment; the first one is full. Waits until there is one.
    async fn next(&self) -> Result<Assignment>;
    /// Tells the manager about pods.
    async fn report(&self, reports: Vec<PodReport>) -> Result<()>;
    /// Tells the manager that frontends and names of this revision hold on this node.
    async fn acknowledge(&self, revision: u64) -> Result<()>;
    /// Asks the manager for a service account's token, for a pod of this node.
    async fn token(&self, request: TokenRequest) -> Result<Token>;
}

/// What a worker is told of its pod.
#[derive(Clone)]
pub(crate) struct Wish {
    pub pod: Arc<Pod>,
    /// It is not in the store any more.
    pub gone: bool,
}

/// The pods of this node during one membership of a cluster.
struct Pods {
    agent: Agent,
    node: NodeIdentity,
    workers: HashMap<String, watch::Sender<Wish>>,
    /// Workers of pods whose names other pods have by now.
    departing: Vec<watch::Sender<Wish>>,
    /// What pods that run from their PodSpec refer to.
    inputs: Arc<kube::Inputs>,
    data: Arc<Mutex<BTreeMap<String, Arc<DataItem>>>>,
    reports: mpsc::UnboundedSender<PodReport>,
    /// Networks to be taken away as soon as no container is in them.
    leaving: BTreeSet<String>,
    /// Told by workers that have ended.
    ended: mpsc::UnboundedSender<String>,
}

impl Agent {
    /// Runs the pods that a manager assigns to this node until `stop` is cancelled (they go on running) or the
    /// session fails.
    pub async fn run_session(
        &self,
        node: NodeIdentity,
        session: Arc<dyn Session>,
        stop: CancellationToken,
    ) -> Result<()> {
        let (reports, queue) = mpsc::unbounded_channel();
        let (ended, mut endings) = mpsc::unbounded_channel();
        let mut pods = Pods {
            inputs: Arc::new(kube::Inputs::new(session.clone())),
            departing: Vec::new(),
            agent: self.clone(),
            node,
            workers: HashMap::new(),
            data: Arc::default(),
            reports,
            leaving: BTreeSet::new(),
            ended,
        };
        let sender = tokio::spawn(send_reports(session.clone(), queue));
        let result = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                Some(key) = endings.recv() => pods.worker_ended(&key).await,
                assignment = session.next() => match assignment {
                    Ok(assignment) => {
                        let revision = assignment.revision;
                        pods.apply(assignment).await;
                        if let Err(e) = session.acknowledge(revision).await {
                            break Err(e);
                        }
                    }
                    Err(e) => break Err(e),
                },
            }
        };
        sender.abort();
        result
    }

    /// Removes every pod, cluster network and frontend of this node: it has left its cluster.
    pub async fn leave_cluster(&self) -> Result<()> {
        let mut removals = tokio::task::JoinSet::new();
        for record in self.containers() {
            if record.owner != Owner::Local {
                let agent = self.clone();
                removals.spawn(async move {
                    let options = RemoveOptions {
                        force: true,
                        volumes: true,
                    };
                    if let Err(e) = agent.remove_container(&record.id, options).await {
                        tracing::warn!("{} stays: {e}", record.name);
                    }
                });
            }
        }
        removals.join_all().await;
        for (uid, _) in self.pod_places() {
            self.discard_pod(&uid).await;
        }
        self.net().set_frontends(&[]).await?;
        self.net().set_policies(&Policies::default()).await?;
        self.net().set_cluster_names(&ClusterNames::default()).await?;
        for network in self.cluster_network_ids() {
            self.drop_cluster_network(&network).await?;
        }
        self.net().set_fabric(&Fabric::default()).await?;
        Ok(())
    }
}

/// Sends reports in batches: all that wait, together.
async fn send_reports(session: Arc<dyn Session>, mut queue: mpsc::UnboundedReceiver<PodReport>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, 256).await > 0 {
        if let Err(e) = session.report(std::mem::take(&mut batch)).await {
            tracing::warn!("the manager does not take reports: {e}");
            return;
        }
    }
}

impl Pods {
    async fn apply(&mut self, assignment: Assignment) {
        let Assignment {
            full,
            pods,
            removed_pods,
            networks,
            removed_networks,
            data,
            removed_data,
            frontends,
            names,
            fabric,
            policies,
            cluster_names,
            inputs,
            removed_inputs,
            node,
            ..
        } = assignment;
        if let Some(dirs) = node.as_ref().map(|n| n.reclaim.clone()).filter(|d| !d.is_empty()) {
            tokio::task::spawn_blocking(move || kube::reclaim(&dirs));
        }
        self.inputs.apply(full, inputs, &removed_inputs, node);
        {
            let mut known = self.data.lock().unwrap_or_else(PoisonError::into_inner);
            known.extend(data.into_iter().map(|d| (d.id.clone(), d)));
            for id in &removed_data {
                known.remove(id);
            }
        }
        let mut failures = Vec::new();
        if full {
            self.drop_unknown(&pods, &networks).await;
        }
        if let Some(fabric) = fabric
            && let Err(e) = self.agent.net().set_fabric(&fabric).await
        {
            failures.push(format!("paths to other nodes: {e}"));
        }
        for network in &networks {
            self.leaving.remove(&network.id);
            self.agent.adopt_cluster_network(network);
            if let Err(e) = self.agent.ensure_real(network).await {
                failures.push(format!("network {}: {e}", network.name));
            }
        }
        // Connections must find their new way before a pod that goes is told to: frontends first.
        if let Some(frontends) = frontends {
            match self.agent.net().set_frontends(&frontends).await {
                Ok(refused) => failures.extend(refused.iter().map(|f| {
                    format!(
                        "published port {}/{}: {}",
                        f.port.host_port, f.port.protocol, f.reason
                    )
                })),
                Err(e) => failures.push(format!("frontends: {e}")),
            }
        }
        if let Some(policies) = policies {
            match self.agent.net().set_policies(&policies).await {
                // Those that may start now are told after all of this holds.
                Ok(()) => self.inputs.set_waiting(policies.waiting.clone()),
                Err(e) => failures.push(format!("network policies: {e}")),
            }
        }
        if let Some(names) = cluster_names
            && let Err(e) = self.agent.net().set_cluster_names(&names).await
        {
            failures.push(format!("names of the cluster: {e}"));
        }
        for (network, records) in names {
            if let Err(e) = self.agent.set_cluster_names(&network, records).await {
                failures.push(format!("names of network {network}: {e}"));
            }
        }
        for failure in failures {
            tracing::error!("{failure}");
            let attributes = BTreeMap::from([("error".to_owned(), failure)]);
            self.agent
                .events()
                .emit("node", "error", &self.node.id, attributes);
        }
        let mut wanted = BTreeSet::new();
        for pod in pods {
            wanted.insert(pod.metadata.uid.clone());
            self.tell(pod);
        }
        for key in removed_pods {
            self.forget(&key);
        }
        if full {
            self.remove_unassigned(&wanted);
        }
        self.leaving.extend(removed_networks);
        self.leave_networks().await;
    }

    fn tell(&mut self, pod: Arc<Pod>) {
        let key = pod_key(&pod);
        let wish = Wish { pod, gone: false };
        let uid = wish.pod.metadata.uid.clone();
        // A namesake of a pod that has not ended yet.
        if self
            .workers
            .get(&key)
            .is_some_and(|w| w.borrow().pod.metadata.uid != uid)
            && let Some(old) = self.workers.remove(&key)
        {
            old.send_modify(|wish| wish.gone = true);
            self.departing.push(old);
        }
        match self.workers.get(&key) {
            Some(worker) => {
                worker.send_replace(wish);
            }
            None => {
                let swarm = wish.pod.swarm().is_some();
                let (sender, receiver) = watch::channel(wish);
                self.workers.insert(key.clone(), sender);
                let ended = (format!("{key} {uid}"), self.ended.clone());
                if !swarm {
                    kube::spawn(
                        self.agent.clone(),
                        self.inputs.clone(),
                        receiver,
                        self.reports.clone(),
                        ended,
                    );
                    return;
                }
                worker::spawn(
                    self.agent.clone(),
                    self.node.clone(),
                    receiver,
                    self.data.clone(),
                    self.reports.clone(),
                    ended,
                );
            }
        }
    }

    fn forget(&mut self, key: &str) {
        if let Some(worker) = self.workers.get(key) {
            worker.send_modify(|wish| wish.gone = true);
        }
    }

    /// A full assignment names all that is to be: pods that it does not name end, and networks of an earlier life go.
    async fn drop_unknown(&mut self, pods: &[Arc<Pod>], networks: &[Arc<NetworkSpec>]) {
        let named: BTreeSet<String> = pods.iter().map(|p| pod_key(p)).collect();
        for (key, worker) in &self.workers {
            if !named.contains(key) {
                worker.send_modify(|wish| wish.gone = true);
            }
        }
        let local: BTreeSet<String> = self.agent.local_networks().iter().map(|n| n.id.clone()).collect();
        match self.agent.net().networks().await {
            Ok(real) => self.leaving.extend(
                real.into_iter()
                    .filter(|id| !local.contains(id) && !networks.iter().any(|n| n.id == *id)),
            ),
            Err(e) => tracing::warn!("networks of an earlier life stay: {e}"),
        }
    }

    /// Containers of pods that this node is not to run: left over from before.
    fn remove_unassigned(&self, wanted: &BTreeSet<String>) {
        let live = self.workers.values().chain(&self.departing);
        let live: BTreeSet<String> = live.map(|w| w.borrow().pod.metadata.uid.clone()).collect();
        let unwanted = |uid: &str| !wanted.contains(uid) && !live.contains(uid);
        let mut pods: BTreeSet<String> = self.agent.pod_places().into_iter().map(|(uid, _)| uid).collect();
        pods.retain(|uid| unwanted(uid));
        for record in self.agent.containers() {
            let Owner::Pod { uid, container, .. } = &record.owner else {
                continue;
            };
            if !unwanted(uid) {
                continue;
            }
            if container.is_empty() {
                let agent = self.agent.clone();
                let ended = self.ended.clone();
                tokio::spawn(async move {
                    let _ = agent
                        .stop_container(&record.id, crate::StopOptions::default())
                        .await;
                    let options = RemoveOptions {
                        force: true,
                        volumes: true,
                    };
                    if let Err(e) = agent.remove_container(&record.id, options).await {
                        tracing::warn!("{} stays: {e}", record.name);
                    }
                    // No worker's key: its networks may be empty now.
                    let _ = ended.send(String::new());
                });
            } else {
                pods.insert(uid.clone());
            }
        }
        for uid in pods {
            let (agent, ended) = (self.agent.clone(), self.ended.clone());
            tokio::spawn(async move {
                agent.discard_pod(&uid).await;
                let _ = ended.send(String::new());
            });
        }
    }

    /// A worker has ended: `namespace/name`, a space, and the pod's unique identifier.
    async fn worker_ended(&mut self, ended: &str) {
        self.departing.retain(|sender| !sender.is_closed());
        if let Some((key, uid)) = ended.split_once(' ')
            && self
                .workers
                .get(key)
                .is_some_and(|w| w.borrow().pod.metadata.uid == uid)
        {
            self.workers.remove(key);
        }
        self.leave_networks().await;
    }

    async fn leave_networks(&mut self) {
        for id in self.leaving.clone() {
            match self.agent.drop_cluster_network(&id).await {
                Ok(true) => drop(self.leaving.remove(&id)),
                Ok(false) => {}
                Err(e) => tracing::warn!("network {id} stays: {e}"),
            }
        }
    }
}

fn pod_key(pod: &Pod) -> String {
    format!("{}/{}", pod.metadata.namespace, pod.metadata.name)
}
