//! What a local cluster is: written down when it is made, read by every later command.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tripod_model::{Error, Result};

/// Under whose name a cluster was made: it decides the names of contexts and nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tool {
    /// `tripod` itself.
    #[default]
    Tripod,
    /// The program was called as `minikube`.
    Minikube,
    /// The program was called as `kind`.
    Kind,
}

impl Tool {
    /// Name of the program.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tripod => "tripod",
            Self::Minikube => "minikube",
            Self::Kind => "kind",
        }
    }

    /// The cluster that is meant when none is named.
    pub(crate) fn default_cluster(self) -> &'static str {
        self.as_str()
    }

    /// Name of a cluster's contexts.
    pub(crate) fn context(self, cluster: &str) -> String {
        match self {
            Self::Kind => format!("kind-{cluster}"),
            Self::Minikube => cluster.to_owned(),
            Self::Tripod if cluster == "tripod" => cluster.to_owned(),
            Self::Tripod => format!("tripod-{cluster}"),
        }
    }
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// A manager.
    ControlPlane,
    /// Runs workloads only.
    Worker,
}

/// A port of this machine that leads to one of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mapping {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address of this machine.
    pub listen: std::net::IpAddr,
    /// Port of this machine.
    pub host_port: u16,
    /// Port of the node.
    pub node_port: u16,
}

/// A directory or file of this machine that a node sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mount {
    /// Path on this machine.
    pub host_path: PathBuf,
    /// Path on the node.
    pub node_path: PathBuf,
    /// Not to be written to.
    #[serde(default)]
    pub read_only: bool,
}

/// A node of a local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRecord {
    /// Host name, which is the node's name in every API.
    pub name: String,
    /// Manager or worker.
    pub role: Role,
    /// Address at the cluster's switch.
    pub address: Ipv4Addr,
    /// Ports of this machine that lead to it.
    #[serde(default)]
    pub mappings: Vec<Mapping>,
    /// What of this machine it sees.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Labels of the node.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints of the node (`key=value:Effect`).
    #[serde(default)]
    pub taints: Vec<String>,
}

/// A local cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Name.
    pub name: String,
    /// Under whose name it was made.
    pub tool: Tool,
    /// Name of its bridge on this machine.
    pub bridge: String,
    /// Its subnet, with this machine's address.
    pub gateway: Ipv4Net,
    /// Nodes; the first founds the cluster.
    pub nodes: Vec<NodeRecord>,
    /// The Kubernetes version that is reported, when one was asked for (`v1.25.3`).
    #[serde(default)]
    pub kubernetes_version: Option<String>,
    /// Feature gates that were set.
    #[serde(default)]
    pub feature_gates: BTreeMap<String, bool>,
    /// Processors of each node; all of the machine's when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Bytes of memory of each node; all of the machine's when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Port of 127.0.0.1 on which the Kubernetes API answers, where clients are to use that.
    #[serde(default)]
    pub api_port: Option<u16>,
    /// Registries that are asked in the clear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub insecure_registries: Vec<String>,
    /// Port of 127.0.0.1 on which the registry of its images answers, while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<u16>,
    /// All nodes' containers are frozen.
    #[serde(default)]
    pub paused: bool,
}

impl Record {
    /// Reads the record of the cluster in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("cluster.json");
        let text = fs::read(&path)?;
        serde_json::from_slice(&text)
            .map_err(|e| Error::internal(format_args!("{} cannot be read: {e}", path.display())))
    }

    /// Writes it, whole or not at all.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let draft = dir.join("cluster.json.new");
        fs::write(&draft, serde_json::to_vec_pretty(self).map_err(Error::internal)?)?;
        Ok(fs::rename(draft, dir.join("cluster.json"))?)
    }

    /// Name of its contexts for kubectl and docker.
    pub(crate) fn context(&self) -> String {
        self.tool.context(&self.name)
    }

    /// The node that founded the cluster.
    pub(crate) fn first(&self) -> &NodeRecord {
        &self.nodes[0]
    }

    /// A node by its name; the first one when none is named.
    pub(crate) fn node(&self, name: Option<&str>) -> Result<&NodeRecord> {
        let Some(name) = name else { return Ok(self.first()) };
        self.nodes
            .iter()
            .find(|n| n.name == name)
            .ok_or_else(|| Error::not_found(format_args!("cluster {} has no node {name}", self.name)))
    }

    /// URL of the Kubernetes API for clients on this machine.
    pub(crate) fn server(&self) -> String {
        match self.api_port {
            Some(port) => format!("https://127.0.0.1:{port}"),
            None => format!("https://{}:6443", self.first().address),
        }
    }
}

/// Names of nodes as each tool gives them: the `n`th (from 0) of its role.
pub(crate) fn node_name(tool: Tool, cluster: &str, role: Role, n: usize, index: usize) -> String {
    match tool {
        Tool::Kind => {
            let stem = match role {
                Role::ControlPlane => "control-plane",
                Role::Worker => "worker",
            };
            match n {
                0 => format!("{cluster}-{stem}"),
                n => format!("{cluster}-{stem}{}", n + 1),
            }
        }
        Tool::Tripod | Tool::Minikube => match index {
            0 => cluster.to_owned(),
            i => format!("{cluster}-m{:02}", i + 1),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_and_contexts() {
        use Role::{ControlPlane, Worker};
        assert_eq!(node_name(Tool::Kind, "a", ControlPlane, 0, 0), "a-control-plane");
        assert_eq!(node_name(Tool::Kind, "a", ControlPlane, 2, 2), "a-control-plane3");
        assert_eq!(node_name(Tool::Kind, "a", Worker, 0, 1), "a-worker");
        assert_eq!(
            node_name(Tool::Minikube, "minikube", Worker, 0, 1),
            "minikube-m02"
        );
        assert_eq!(Tool::Kind.context("a"), "kind-a");
        assert_eq!(Tool::Minikube.context("minikube"), "minikube");
        assert_eq!(Tool::Tripod.context("tripod"), "tripod");
        assert_eq!(Tool::Tripod.context("two"), "tripod-two");
    }
}
