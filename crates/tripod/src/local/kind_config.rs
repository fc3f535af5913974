//! kind's configuration file (`kind.x-k8s.io/v1alpha4`), as far as it can be honoured; what cannot is named.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use tripod_model::{Error, Result};

use super::cluster::{NodeWish, Wish};
use super::kubeadm;
use super::record::{Mapping, Mount, Role};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    kind: String,
    api_version: String,
    name: Option<String>,
    nodes: Vec<Node>,
    networking: Networking,
    feature_gates: BTreeMap<String, bool>,
    runtime_config: BTreeMap<String, String>,
    kubeadm_config_patches: Vec<serde_yaml::Value>,
    #[serde(rename = "kubeadmConfigPatchesJSON6902")]
    kubeadm_config_patches_json6902: Vec<serde_yaml::Value>,
    containerd_config_patches: Vec<serde_yaml::Value>,
    #[serde(rename = "containerdConfigPatchesJSON6902")]
    containerd_config_patches_json6902: Vec<serde_yaml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    role: Option<String>,
    image: Option<String>,
    labels: BTreeMap<String, String>,
    extra_mounts: Vec<ExtraMount>,
    extra_port_mappings: Vec<PortMapping>,
    kubeadm_config_patches: Vec<serde_yaml::Value>,
    #[serde(rename = "kubeadmConfigPatchesJSON6902")]
    kubeadm_config_patches_json6902: Vec<serde_yaml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct ExtraMount {
    container_path: PathBuf,
    host_path: PathBuf,
    read_only: bool,
    selinux_relabel: bool,
    propagation: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct PortMapping {
    container_port: u16,
    host_port: u16,
    listen_address: Option<String>,
    protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Networking {
    ip_family: Option<String>,
    api_server_port: Option<u16>,
    api_server_address: Option<String>,
    pod_subnet: Option<String>,
    service_subnet: Option<String>,
    #[serde(rename = "disableDefaultCNI")]
    disable_default_cni: bool,
    kube_proxy_mode: Option<String>,
    dns_search: Option<Vec<String>>,
}

/// What a configuration asks for.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Name of the cluster, when the file has one.
    pub name: Option<String>,
    /// Image of the first node, which tells the Kubernetes version.
    pub image: Option<String>,
    /// The cluster.
    pub wish: Wish,
    /// What is passed over, as sentences.
    pub warnings: Vec<String>,
}

/// Reads a configuration.
///
/// # Errors
/// Another kind or version, unknown fields, unknown roles, a network plug-in of the user's own.
pub(super) fn parse(text: &str) -> Result<Parsed> {
    let config: Config = serde_yaml::from_str(text)
        .map_err(|e| Error::invalid(format_args!("unable to decode config: {e}")).at("config"))?;
    if config.kind != "Cluster" || config.api_version != "kind.x-k8s.io/v1alpha4" {
        return Err(Error::invalid(format_args!(
            "unknown apiVersion: {} or kind: {}",
            config.api_version, config.kind
        ))
        .at("apiVersion"));
    }
    let mut warnings = Vec::new();
    check_networking(&config.networking, &mut warnings)?;
    let cluster_patches = [
        (
            "kubeadmConfigPatchesJSON6902",
            config.kubeadm_config_patches_json6902.len(),
        ),
        ("containerdConfigPatches", config.containerd_config_patches.len()),
        (
            "containerdConfigPatchesJSON6902",
            config.containerd_config_patches_json6902.len(),
        ),
        ("runtimeConfig", config.runtime_config.len()),
    ];
    for (field, count) in cluster_patches {
        if count > 0 {
            warnings.push(format!(
                "{field} has no effect: there is no kubeadm or containerd to configure"
            ));
        }
    }
    let image = config.nodes.first().and_then(|n| n.image.clone());
    let mut nodes = Vec::new();
    for (i, n) in config.nodes.into_iter().enumerate() {
        nodes.push(node(i, n, &mut warnings)?);
    }
    if nodes.is_empty() {
        nodes.push(NodeWish::plain(Role::ControlPlane));
    }
    let asked = kubeadm::read(&config.kubeadm_config_patches);
    for n in &mut nodes {
        n.labels.extend(asked.labels.clone());
        n.taints = n.taints.take().or_else(|| asked.taints.clone());
    }
    warnings.extend(asked.left.iter().map(|p| no_effect("kubeadmConfigPatches", p)));
    Ok(Parsed {
        name: config.name,
        image,
        wish: Wish {
            nodes,
            feature_gates: config.feature_gates,
            api_port: config.networking.api_server_port,
            ..Wish::default()
        },
        warnings,
    })
}

fn check_networking(networking: &Networking, warnings: &mut Vec<String>) -> Result<()> {
    if networking.disable_default_cni {
        return Err(Error::invalid(
            "networking.disableDefaultCNI is not supported: the network between pods is part of tripod",
        )
        .at("networking.disableDefaultCNI"));
    }
    match networking.ip_family.as_deref() {
        None | Some("" | "ipv4") => {}
        Some(other) => {
            return Err(Error::invalid(format_args!(
                "networking.ipFamily {other} is not supported: only ipv4 is"
            ))
            .at("networking.ipFamily"));
        }
    }
    match networking.api_server_address.as_deref() {
        None | Some("" | "127.0.0.1") => {}
        Some(other) => warnings.push(format!(
            "networking.apiServerAddress {other} has no effect: the API answers at 127.0.0.1 and at the node's address"
        )),
    }
    if networking.kube_proxy_mode.is_some() {
        warnings.push("networking.kubeProxyMode has no effect: services are part of tripod".into());
    }
    if networking.pod_subnet.is_some() || networking.service_subnet.is_some() {
        warnings.push("networking.podSubnet and serviceSubnet have no effect: the ranges are 10.244.0.0/16 and 10.96.0.0/16".into());
    }
    if networking.dns_search.is_some() {
        warnings.push("networking.dnsSearch has no effect".into());
    }
    Ok(())
}

/// The warning about a part of a patch.
fn no_effect(field: &str, part: &str) -> String {
    format!("{field}: {part} has no effect: there is no kubeadm or kubelet to configure")
}

fn node(index: usize, n: Node, warnings: &mut Vec<String>) -> Result<NodeWish> {
    let role = match n.role.as_deref() {
        None | Some("control-plane") => Role::ControlPlane,
        Some("worker") => Role::Worker,
        Some(other) => {
            return Err(Error::invalid(format_args!(
                "nodes[{index}].role: {other:?} is not a valid node role"
            ))
            .at("nodes.role"));
        }
    };
    let asked = kubeadm::read(&n.kubeadm_config_patches);
    let field = format!("nodes[{index}].kubeadmConfigPatches");
    warnings.extend(asked.left.iter().map(|p| no_effect(&field, p)));
    if !n.kubeadm_config_patches_json6902.is_empty() {
        warnings.push(format!(
            "nodes[{index}].kubeadmConfigPatchesJSON6902 has no effect: there is no kubeadm"
        ));
    }
    let mut mounts = Vec::new();
    for m in n.extra_mounts {
        if m.selinux_relabel || m.propagation.as_deref().is_some_and(|p| p != "None") {
            warnings.push(format!(
                "nodes[{index}].extraMounts: selinuxRelabel and propagation have no effect"
            ));
        }
        if !m.container_path.is_absolute() {
            return Err(Error::invalid(format_args!(
                "nodes[{index}].extraMounts.containerPath must be absolute"
            ))
            .at("nodes.extraMounts.containerPath"));
        }
        mounts.push(Mount {
            host_path: std::path::absolute(&m.host_path)?,
            node_path: m.container_path,
            read_only: m.read_only,
        });
    }
    let mut mappings = Vec::new();
    for p in n.extra_port_mappings {
        mappings.push(mapping(index, &p)?);
    }
    Ok(NodeWish {
        role,
        mappings,
        mounts,
        labels: n.labels.into_iter().chain(asked.labels).collect(),
        taints: asked.taints,
    })
}

fn mapping(index: usize, p: &PortMapping) -> Result<Mapping> {
    let field = |f: &str| format!("nodes[{index}].extraPortMappings.{f}");
    if p.container_port == 0 {
        return Err(Error::invalid(format_args!(
            "{} is required",
            field("containerPort")
        )));
    }
    let protocol = p.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp") {
        return Err(Error::invalid(format_args!(
            "{}: {protocol} is not supported",
            field("protocol")
        )));
    }
    let listen = p.listen_address.as_deref().unwrap_or("0.0.0.0");
    let listen = listen.parse().map_err(|_| {
        Error::invalid(format_args!(
            "{}: {listen:?} is not an address",
            field("listenAddress")
        ))
    })?;
    Ok(Mapping {
        protocol,
        listen,
        host_port: p.host_port,
        node_port: p.container_port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_ports_mounts_and_gates() {
        let parsed = parse(
            "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nfeatureGates: {A: true, B: false}\nnodes:\n\
             - role: control-plane\n  image: kindest/node:v1.30.0\n  extraPortMappings:\n  - {containerPort: 30080, hostPort: 8088}\n\
             - role: worker\n  extraMounts: [{hostPath: /tmp, containerPath: /x, readOnly: true}]\n  labels: {tier: a}\n",
        )
        .unwrap();
        assert_eq!(parsed.image.as_deref(), Some("kindest/node:v1.30.0"));
        assert_eq!(parsed.wish.nodes[0].mappings[0].host_port, 8088);
        assert_eq!(parsed.wish.nodes[1].role, Role::Worker);
        assert!(parsed.wish.nodes[1].mounts[0].read_only);
        assert!(!parsed.wish.feature_gates["B"]);
        assert!(parsed.warnings.is_empty());
    }

    #[test]
    fn what_cannot_be_is_named() {
        let head = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";
        let error = |text: &str| parse(&format!("{head}{text}")).unwrap_err().to_string();
        assert!(error("networking: {disableDefaultCNI: true}\n").contains("disableDefaultCNI"));
        assert!(error("networking: {ipFamily: ipv6}\n").contains("ipFamily"));
        assert!(error("nodes: [{role: boss}]\n").contains("boss"));
        assert!(error("nodez: []\n").contains("nodez"));
        assert!(error("nodes: [{extraPortMappings: [{hostPort: 1}]}]\n").contains("containerPort"));
        assert!(parse("kind: Cluster\napiVersion: v1\n").is_err());
        let parsed = parse(&format!("{head}kubeadmConfigPatches: ['x']\n")).unwrap();
        assert_eq!(parsed.warnings.len(), 1);
    }
}
