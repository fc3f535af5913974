//! Hosts of the cluster (core/v1 Node) with what Swarm adds to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::image::Platform;
use crate::object::ObjectMeta;

/// A host.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Node {
    /// Name: the host's name, made unique.
    pub metadata: ObjectMeta,
    /// What the user wants of it.
    pub spec: NodeSpec,
    /// What it says of itself.
    pub status: NodeStatus,
}

crate::kind!(Node, "v1", "Node", "nodes", namespaced: false);

impl Node {
    /// Whether somebody else runs it and says how it is: it was made through the Kubernetes API and never joined.
    pub fn is_foreign(&self) -> bool {
        self.spec.swarm.node_id.is_empty()
    }

    /// Status of the condition `Ready`; empty where there is none.
    pub fn ready_condition(&self) -> &str {
        let conditions = self
            .status
            .rest
            .get("conditions")
            .and_then(serde_json::Value::as_array);
        let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready");
        ready.and_then(|c| c["status"].as_str()).unwrap_or_default()
    }
}

/// What the user wants of a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSpec {
    /// No new pods.
    #[serde(skip_serializing_if = "is_false")]
    pub unschedulable: bool,
    /// Swarm's view.
    pub swarm: NodeSwarmSpec,
    /// Everything else.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// Swarm's NodeSpec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSwarmSpec {
    /// Swarm identifier, 25 base-36 digits.
    pub node_id: String,
    /// Name given by the user, usually empty.
    pub name: String,
    /// Labels for `node.labels.…` constraints.
    pub labels: BTreeMap<String, String>,
    /// Manager or worker, as wanted.
    pub role: NodeRole,
    /// Active, pause, drain.
    pub availability: Availability,
    /// Revision that the node had when these wishes were last changed: who saw a later one saw them, whatever the
    /// controllers have written to the node since.
    #[serde(skip_serializing_if = "is_zero")]
    pub changed_after: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Manager or worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Runs pods.
    #[default]
    Worker,
    /// Holds the store, and runs pods.
    Manager,
}

/// Whether a node takes pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Takes pods.
    #[default]
    Active,
    /// Keeps its pods, takes no new ones.
    Pause,
    /// Gives up its pods.
    Drain,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    /// Ready, down, unknown.
    pub state: NodeState,
    /// Why, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Address at which managers see it.
    pub addr: String,
    /// Its address for traffic between containers, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_path_addr: Option<std::net::IpAddr>,
    /// Manager's address and standing, for managers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager: Option<ManagerStatus>,
    /// What the machine is.
    pub description: NodeDescription,
    /// When it was last seen to change state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When anything of it last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

/// Whether a node can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not yet heard of.
    #[default]
    Unknown,
    /// Lost.
    Down,
    /// Here.
    Ready,
    /// Went away in an orderly way, or must not connect.
    Disconnected,
}

/// A manager's standing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ManagerStatus {
    /// It leads.
    pub leader: bool,
    /// Its peers reach it.
    pub reachable: bool,
    /// `IP:2377`.
    pub addr: String,
    /// Its number in the Raft group.
    pub raft_id: u64,
}

/// What a machine is and has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// `x86_64` and `linux`, in Docker's spelling of `docker info`.
    pub platform: Platform,
    /// Billionths of processors.
    pub nano_cpus: i64,
    /// Bytes.
    pub memory: i64,
    /// Named resources, `gpu` → `["UUID1"]` or a count.
    pub generic: Vec<GenericResource>,
    /// Version of the daemon.
    pub engine_version: String,
    /// Labels of the daemon (`engine.labels.…`).
    pub engine_labels: BTreeMap<String, String>,
    /// Kind and name of plugins: (`Network`, `overlay`).
    pub plugins: Vec<(String, String)>,
    /// Version that its node agent reports to Kubernetes' clients; empty is that of the API served.
    pub kubernetes_version: String,
    /// Labels that the node has from the start.
    pub node_labels: BTreeMap<String, String>,
    /// Taints that the node has from the start: `key=value:Effect`.
    pub taints: Vec<String>,
    /// PEM of the CA certificate that the node trusts.
    pub trust_root: String,
    /// DER of the issuer's subject, base64.
    pub issuer_subject: String,
    /// DER of the issuer's public key, base64.
    pub issuer_public_key: String,
}

/// A named or counted resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenericResource {
    /// `gpu`.
    pub kind: String,
    /// One of a set of names, or empty when counted.
    #[serde(default)]
    pub name: String,
    /// How many, when counted.
    #[serde(default)]
    pub count: i64,
}
