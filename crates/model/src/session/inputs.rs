//! What the pods of a node need beside their own specification: it travels with the assignment, resolved.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::PersistentVolumeSpec;
use serde::{Deserialize, Serialize};

use crate::Time;

/// One thing that pods of a node refer to. What a pod refers to and is not among the inputs does not exist.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodInput {
    /// A ConfigMap; text and binary values alike.
    ConfigMap(ConfigData),
    /// A Secret.
    Secret(ConfigData),
    /// A PersistentVolumeClaim with the volume it is bound to.
    Claim(ClaimVolume),
    /// The Services of a namespace, for the environment of its pods.
    Services(NamespaceServices),
    /// A RuntimeClass.
    RuntimeClass {
        /// Name.
        name: String,
        /// Name of the OCI runtime.
        handler: String,
    },
}

/// Which input: unique among the inputs of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum InputKey {
    /// Namespace and name.
    ConfigMap(String, String),
    /// Namespace and name.
    Secret(String, String),
    /// Namespace and name.
    Claim(String, String),
    /// Namespace.
    Services(String),
    /// Name.
    RuntimeClass(String),
}

impl PodInput {
    /// Which one it is.
    pub fn key(&self) -> InputKey {
        match self {
            Self::ConfigMap(d) => InputKey::ConfigMap(d.namespace.clone(), d.name.clone()),
            Self::Secret(d) => InputKey::Secret(d.namespace.clone(), d.name.clone()),
            Self::Claim(c) => InputKey::Claim(c.namespace.clone(), c.name.clone()),
            Self::Services(s) => InputKey::Services(s.namespace.clone()),
            Self::RuntimeClass { name, .. } => InputKey::RuntimeClass(name.clone()),
        }
    }
}

impl std::fmt::Debug for PodInput {
    /// Never shows the bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key().fmt(f)
    }
}

/// The values of a ConfigMap or Secret.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigData {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `Opaque`, `kubernetes.io/dockerconfigjson` … (secrets).
    pub type_: String,
    /// It never changes.
    pub immutable: bool,
    /// Values by key.
    pub data: BTreeMap<String, ByteString>,
}

/// A claim and its volume.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimVolume {
    /// Namespace.
    pub namespace: String,
    /// Name of the claim.
    pub name: String,
    /// Name of the volume; empty while the claim is not bound.
    pub volume: String,
    /// The volume, when there is one.
    pub spec: Option<Box<PersistentVolumeSpec>>,
    /// The claim is being deleted.
    pub deleting: bool,
}

/// Services of a namespace that have an address of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NamespaceServices {
    /// Namespace.
    pub namespace: String,
    /// By name.
    pub services: Vec<ServiceAddress>,
}

/// A Service as the environment of a container names it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceAddress {
    /// Name.
    pub name: String,
    /// Cluster address.
    pub address: String,
    /// Name (may be empty), number and protocol (`TCP`) of each port, in the order of the Service.
    pub ports: Vec<(String, u16, String)>,
}

/// What a node needs to know of the cluster, and of itself as the cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSettings {
    /// `metadata.name` of the node.
    pub name: String,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Addresses of its pods are picked from these blocks (`spec.podCIDRs`).
    pub pod_blocks: Vec<IpNet>,
    /// Its own addresses, the first one for `status.hostIP`.
    pub addresses: Vec<IpAddr>,
    /// Cluster DNS.
    pub dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub domain: String,
    /// `status.allocatable`, for `resourceFieldRef` of containers without a limit.
    pub allocatable: BTreeMap<String, String>,
    /// Directories of provisioned volumes that nobody claims any more: to be removed.
    pub reclaim: Vec<String>,
}

/// A node asks for a service account's token on behalf of one of its pods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TokenRequest {
    /// Namespace of the pod and of the service account.
    pub namespace: String,
    /// Pod to which the token is bound: it ends with it.
    pub pod: String,
    /// Unique identifier of the pod.
    pub pod_uid: String,
    /// Name of the service account.
    pub service_account: String,
    /// For whom it is; empty is the API server.
    pub audiences: Vec<String>,
    /// Seconds for which it is to hold; `None` is the default (3600).
    pub expiration_seconds: Option<i64>,
}

/// A service account's token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// What is sent to the API server.
    pub token: String,
    /// Until when it holds.
    pub expires_at: Time,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(until {})", self.expires_at)
    }
}
