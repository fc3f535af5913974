//! Secrets and configs (core/v1 Secret and ConfigMap) and cluster networks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::network::NetworkSpec;
use crate::object::ObjectMeta;

/// Key under which Swarm's secrets and configs keep their bytes.
pub const SWARM_DATA_KEY: &str = "data";

/// A secret. Values are base64, as in Kubernetes' JSON.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Secret {
    /// Metadata; the user's name of a Swarm secret is in its annotation.
    pub metadata: ObjectMeta,
    /// `Opaque` or another type.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub type_: String,
    /// Base64 of each value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// Cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    /// Swarm: driver and templating.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swarm: Option<SwarmData>,
}

crate::kind!(Secret, "v1", "Secret", "secrets", namespaced: true);

/// A config.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigMap {
    /// Metadata; the user's name of a Swarm config is in its annotation.
    pub metadata: ObjectMeta,
    /// Text values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// Base64 of other values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub binary_data: BTreeMap<String, String>,
    /// Cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
    /// Swarm: templating.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swarm: Option<SwarmData>,
}

crate::kind!(ConfigMap, "v1", "ConfigMap", "configmaps", namespaced: true);

/// What Swarm adds to a secret or config. Labels of the user are `metadata.annotations` free: they are kept here, as
/// Docker's labels are not Kubernetes labels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SwarmData {
    /// Labels of the user.
    pub labels: BTreeMap<String, String>,
    /// Templating driver, such as `golang`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub templating: String,
    /// External secret driver, when given.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// When it was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<crate::Time>,
}

/// A network of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Metadata; name is the identifier.
    pub metadata: ObjectMeta,
    /// The network.
    pub spec: NetworkSpec,
}

crate::kind!(Network, "tripod.dev/v1", "Network", "networks.tripod.dev", namespaced: false);
