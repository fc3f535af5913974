//! Making, starting, stopping and removing a local cluster.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tripod_model::{Error, Result};
use tripod_net::LocalNet;

use super::client::{self, block_on};
use super::kube::KubeClient;
use super::paths::ClusterPaths;
use super::record::{NodeRecord, Record, Role, Tool, node_name};
use super::{aws, context, kubeconfig, node};

/// How long the nodes of a new cluster may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often they are looked at until then.
const LOOK: Duration = Duration::from_millis(10);

/// What a cluster that is to be made must have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// Nodes by role, with what is special about each; their names and addresses are settled later.
    pub nodes: Vec<NodeWish>,
    /// See [`Record`].
    pub kubernetes_version: Option<String>,
    /// See [`Record`].
    pub feature_gates: std::collections::BTreeMap<String, bool>,
    /// See [`Record`].
    pub cpus: Option<u32>,
    /// See [`Record`].
    pub memory: Option<u64>,
    /// See [`Record`].
    pub insecure_registries: Vec<String>,
    /// Port of 127.0.0.1 for the Kubernetes API: `Some(0)` takes a free one.
    pub api_port: Option<u16>,
}

/// A node that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct NodeWish {
    /// Manager or worker.
    pub role: Role,
    /// See [`NodeRecord`].
    pub mappings: Vec<super::record::Mapping>,
    /// See [`NodeRecord`].
    pub mounts: Vec<super::record::Mount>,
    /// See [`NodeRecord`].
    pub labels: std::collections::BTreeMap<String, String>,
    /// Taints in place of those that a node of its role has.
    pub taints: Option<Vec<String>>,
}

impl NodeWish {
    /// A node with nothing special about it.
    pub(crate) fn plain(role: Role) -> Self {
        Self {
            role,
            mappings: Vec::new(),
            mounts: Vec::new(),
            labels: std::collections::BTreeMap::new(),
            taints: None,
        }
    }
}

/// What is being done, for those who show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Namespaces and networks of nodes are made.
    Nodes,
    /// Certificates and configuration are written.
    Configuration,
    /// The first manager starts to serve.
    ControlPlane,
    /// The network between pods is there.
    Network,
    /// The storage class is there.
    Storage,
    /// Further nodes join.
    Joining,
}

/// A local cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    /// Where it keeps its things.
    pub paths: ClusterPaths,
    /// What it is.
    pub record: Record,
}

impl Cluster {
    /// A cluster that exists.
    pub(crate) fn open(tool: Tool, name: &str) -> Result<Self> {
        let (paths, record) = ClusterPaths::existing(tool, name)?;
        Ok(Self { paths, record })
    }

    /// Settles what a new cluster is, and writes it down.
    pub(crate) fn create(tool: Tool, name: &str, wish: Wish) -> Result<Self> {
        let paths = ClusterPaths::of(tool, name)?;
        if paths.exists() {
            return Err(Error::conflict(format_args!(
                "there is a cluster named \"{name}\" already"
            )));
        }
        tripod_agent::host::HostFacts::check_share(wish.cpus, wish.memory).map_err(Error::invalid)?;
        let digest = Sha256::digest(paths.dir.as_os_str().as_encoded_bytes());
        let bridge = format!("tp{}", &hex::encode(digest)[..8]);
        let subnet = LocalNet::free_subnet(candidates())?;
        let gateway = Ipv4Net::new_assert(
            Ipv4Addr::from(u32::from(subnet.network()) + 1),
            subnet.prefix_len(),
        );
        let nodes = settle_nodes(tool, name, gateway, &wish)?;
        let api_port = match wish.api_port {
            Some(0) => Some(free_port()?),
            other => other,
        };
        let record = Record {
            name: name.to_owned(),
            tool,
            bridge,
            gateway,
            nodes,
            kubernetes_version: wish.kubernetes_version,
            feature_gates: wish.feature_gates,
            cpus: wish.cpus,
            memory: wish.memory,
            api_port,
            insecure_registries: wish.insecure_registries,
            registry: None,
            paused: false,
        };
        record.write(&paths.dir)?;
        Ok(Self { paths, record })
    }

    fn net(&self) -> LocalNet {
        LocalNet {
            bridge: self.record.bridge.clone(),
            gateway: self.record.gateway,
        }
    }

    /// Whether every node runs.
    pub(crate) fn is_running(&self) -> bool {
        let runs = |n: &NodeRecord| node::first_process(&self.paths.node(&n.name)).is_some();
        self.record.nodes.iter().all(runs)
    }

    /// Starts what does not run, and returns when all nodes are ready. `progress` is told of each step as it begins.
    pub(crate) fn up(&self, progress: &mut dyn FnMut(Step)) -> Result<()> {
        progress(Step::Nodes);
        let net = self.net();
        net.ensure()?;
        let mut starting = Vec::new();
        for n in &self.record.nodes {
            if node::first_process(&self.paths.node(&n.name)).is_none() {
                starting.push(node::start(&self.paths, &self.record, n, &net)?);
            }
        }
        progress(Step::Configuration);
        for s in starting {
            s.wait()?;
        }
        progress(Step::ControlPlane);
        block_on(self.assemble(progress))?;
        context::write(
            &self.record.context(),
            &self.paths.node(&self.record.first().name).socket,
        )
    }

    /// Makes one cluster of the daemons, and waits for the nodes.
    async fn assemble(&self, progress: &mut dyn FnMut(Step)) -> Result<()> {
        let first = self.record.first();
        let socket = self.paths.node(&first.name).socket;
        client::ensure_swarm(&socket, &first.address.to_string()).await?;
        progress(Step::Network);
        progress(Step::Storage);
        if self.record.nodes.len() > 1 {
            progress(Step::Joining);
            let (worker, manager) = client::join_tokens(&socket).await?;
            // Managers one after the other, as their group grows; workers at once.
            for n in self.record.nodes.iter().skip(1) {
                if n.role == Role::ControlPlane {
                    self.join(n, &manager).await?;
                }
            }
            let workers = self.record.nodes.iter().filter(|n| n.role == Role::Worker);
            futures::future::try_join_all(workers.map(|n| self.join(n, &worker))).await?;
        }
        self.await_nodes(&socket).await
    }

    async fn join(&self, n: &NodeRecord, token: &str) -> Result<()> {
        let socket = self.paths.node(&n.name).socket;
        let first = self.record.first().address.to_string();
        client::ensure_member(&socket, &n.address.to_string(), &first, token)
            .await
            .map_err(|e| Error::internal(format_args!("node {} cannot join: {e}", n.name)))
    }

    async fn await_nodes(&self, socket: &std::path::Path) -> Result<()> {
        let begun = Instant::now();
        loop {
            let nodes = client::list_nodes(socket).await?;
            let ready = |n: &Value| n["Status"]["State"] == "ready";
            let count = nodes
                .as_array()
                .map_or(0, |l| l.iter().filter(|n| ready(n)).count());
            if count >= self.record.nodes.len() && self.api_answers().await {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(Error::timeout(format_args!(
                    "{count} of {} nodes are ready",
                    self.record.nodes.len()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether the Kubernetes API serves the cluster's administrator.
    async fn api_answers(&self) -> bool {
        let Ok(client) = self.kubeconfig().and_then(|c| KubeClient::new(&c)) else {
            return false;
        };
        client.ready().await
    }

    /// The kubeconfig of the cluster's administrator, with the cluster's own names in it.
    ///
    /// # Errors
    /// The cluster was never started.
    pub(crate) fn kubeconfig(&self) -> Result<String> {
        let data = self.paths.node(&self.record.first().name).data;
        let text = tripod_api_kube::kubeconfig(&data)?;
        let config: serde_yaml::Value = serde_yaml::from_str(&text).map_err(Error::internal)?;
        let name = serde_yaml::Value::from(self.record.context());
        let mut cluster = config["clusters"][0]["cluster"].clone();
        cluster["server"] = self.record.server().into();
        let user = config["users"][0]["user"].clone();
        let ours: serde_yaml::Value = serde_yaml::from_str(
            "apiVersion: v1\nkind: Config\npreferences: {}\nclusters: [{}]\ncontexts: [{}]\nusers: [{}]\n",
        )
        .map_err(Error::internal)?;
        let mut ours = ours;
        ours["clusters"][0]["cluster"] = cluster;
        ours["clusters"][0]["name"] = name.clone();
        ours["contexts"][0]["context"] =
            serde_yaml::from_str("{cluster: '', user: ''}").map_err(Error::internal)?;
        ours["contexts"][0]["context"]["cluster"] = name.clone();
        ours["contexts"][0]["context"]["user"] = name.clone();
        ours["contexts"][0]["name"] = name.clone();
        ours["users"][0]["name"] = name.clone();
        ours["users"][0]["user"] = user;
        ours["current-context"] = name;
        serde_yaml::to_string(&ours).map_err(Error::internal)
    }

    /// The environment that points `aws` at the cluster: name and value.
    pub(crate) fn aws_environment(&self) -> Result<Vec<(String, String)>> {
        let data = self.paths.node(&self.record.first().name).data;
        let text = own_output(&["aws-env", "--data-root", &data.display().to_string()])?;
        let pair = |l: &str| {
            let (name, value) = l.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        };
        Ok(text.lines().filter_map(pair).collect())
    }

    /// Points the clients of this user at the cluster.
    pub(crate) fn write_contexts(&self, kubeconfig: Option<&std::path::Path>) -> Result<()> {
        kubeconfig::add(kubeconfig, &self.record.context(), &self.kubeconfig()?)?;
        aws::write(&self.record.context(), &self.aws_environment()?)
    }

    /// Stops every node, workers first; false when none ran.
    pub(crate) fn stop(&self) -> Result<bool> {
        let mut ran = false;
        let nodes = &self.record.nodes;
        let managers = nodes.iter().filter(|n| n.role == Role::ControlPlane);
        let workers = nodes.iter().filter(|n| n.role == Role::Worker);
        for n in workers.chain(managers) {
            let paths = self.paths.node(&n.name);
            ran |= node::stop(&paths)?;
            LocalNet::remove_node(&paths.netns)?;
        }
        self.net().remove()?;
        Ok(ran)
    }

    /// Removes the cluster with all it holds.
    pub(crate) fn delete(&self, kubeconfig: Option<&std::path::Path>) -> Result<()> {
        for n in &self.record.nodes {
            node::kill(&self.paths.node(&n.name))?;
        }
        self.net().remove()?;
        context::remove(&self.record.context())?;
        kubeconfig::remove(kubeconfig, &self.record.context())?;
        aws::remove(&self.record.context())?;
        fs::remove_dir_all(&self.paths.dir)?;
        Ok(())
    }
}

/// Names, addresses and taints of the nodes.
fn settle_nodes(tool: Tool, cluster: &str, gateway: Ipv4Net, wish: &Wish) -> Result<Vec<NodeRecord>> {
    let mut ordered: Vec<&NodeWish> = wish.nodes.iter().collect();
    ordered.sort_by_key(|n| n.role == Role::Worker);
    if ordered.first().is_none_or(|n| n.role != Role::ControlPlane) {
        return Err(Error::invalid("a cluster needs a node with role control-plane").at("nodes"));
    }
    if ordered.len() > 250 {
        return Err(Error::invalid("a local cluster has 250 nodes at most").at("nodes"));
    }
    let managers = ordered.iter().filter(|n| n.role == Role::ControlPlane).count();
    // Where there are workers, kind keeps workloads off the control plane.
    let tainted = tool == Tool::Kind && managers < ordered.len();
    let nodes = ordered.iter().enumerate().map(|(index, n)| {
        let in_role = match n.role {
            Role::ControlPlane => index,
            Role::Worker => index - managers,
        };
        let taints = match (&n.taints, n.role) {
            (Some(own), _) => own.clone(),
            (None, Role::ControlPlane) if tainted => {
                vec!["node-role.kubernetes.io/control-plane=:NoSchedule".to_owned()]
            }
            _ => Vec::new(),
        };
        NodeRecord {
            name: node_name(tool, cluster, n.role, in_role, index),
            role: n.role,
            address: Ipv4Addr::from(u32::from(gateway.addr()) + 1 + u32::try_from(index).unwrap_or_default()),
            mappings: n.mappings.clone(),
            mounts: n.mounts.clone(),
            labels: n.labels.clone(),
            taints,
        }
    });
    Ok(nodes.collect())
}

/// Subnets for the nodes of local clusters.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    (49..=254).map(|third| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third, 0), 24))
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// What this program prints when it is run with these arguments.
fn own_output(args: &[&str]) -> Result<String> {
    let out = Command::new(std::env::current_exe()?)
        .args(args)
        .stdin(std::process::Stdio::null())
        .output()?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(Error::internal(String::from_utf8_lossy(&out.stderr).trim()))
}
