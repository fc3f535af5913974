//! Bodies of network and volume requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::container::EndpointBody;

type Map = BTreeMap<String, String>;

/// Body of network create.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct CreateBody {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) scope: String,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) ingress: bool,
    pub(crate) config_only: bool,
    pub(crate) config_from: Option<ConfigFrom>,
    #[serde(rename = "IPAM")]
    pub(crate) ipam: Ipam,
    #[serde(rename = "EnableIPv4")]
    pub(crate) enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub(crate) enable_ipv6: bool,
    pub(crate) options: Map,
    pub(crate) labels: Map,
}

/// A network that gives its configuration.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ConfigFrom {
    pub(crate) network: String,
}

/// Address management.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Ipam {
    pub(crate) driver: String,
    #[serde(serialize_with = "super::null_if_empty")]
    pub(crate) options: Map,
    pub(crate) config: Vec<IpamPool>,
}

/// One pool.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct IpamPool {
    pub(crate) subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub(crate) ip_range: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) gateway: String,
    #[serde(
        rename = "AuxiliaryAddresses",
        alias = "AuxAddress",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(crate) auxiliary_addresses: Map,
}

/// Body of connect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ConnectBody {
    pub(crate) container: String,
    pub(crate) endpoint_config: EndpointBody,
}

/// Body of disconnect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct DisconnectBody {
    pub(crate) container: String,
    pub(crate) force: bool,
}

/// A network as list and inspect show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Network<'a> {
    pub(crate) name: &'a str,
    pub(crate) id: &'a str,
    pub(crate) created: String,
    pub(crate) scope: &'static str,
    pub(crate) driver: &'static str,
    #[serde(rename = "EnableIPv4")]
    pub(crate) enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub(crate) enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub(crate) ipam: Ipam,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) ingress: bool,
    pub(crate) config_from: ConfigFrom,
    pub(crate) config_only: bool,
    pub(crate) containers: BTreeMap<String, NetworkContainer>,
    pub(crate) options: &'a Map,
    pub(crate) labels: &'a Map,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) peers: Vec<serde_json::Value>,
}

/// A container in a network.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkContainer {
    pub(crate) name: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint_id: String,
    pub(crate) mac_address: String,
    #[serde(rename = "IPv4Address")]
    pub(crate) ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub(crate) ipv6_address: String,
}

/// Body of volume create.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct VolumeBody {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) driver_opts: Map,
    pub(crate) labels: Map,
    pub(crate) cluster_volume_spec: Option<serde_json::Value>,
}
