//! NetworkPolicies as what each pod of a node may do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use tripod_model::k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use tripod_model::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use tripod_model::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tripod_model::network::PortProtocol;
use tripod_model::network::policy::{Allow, Others, Policies, PortRange};

use crate::kube::pod::KPod;
use crate::kube::{kinds, selector};
use crate::view::View;

/// The store's name of NetworkPolicies.
pub(crate) const NETWORK_POLICIES: &str = "networkpolicies.networking.k8s.io";

/// What the pods of a node may do.
pub fn policies(view: &View, node: &str) -> Policies {
    let mut work = Work {
        view,
        out: Policies::default(),
    };
    for object in view.kube().all(NETWORK_POLICIES) {
        let Some(policy) = object.get::<NetworkPolicy>() else {
            continue;
        };
        let Some(spec) = &policy.spec else { continue };
        let everybody = LabelSelector::default();
        let chosen = spec.pod_selector.as_ref().unwrap_or(&everybody);
        for pod in view.kube().pods_in(&object.key.namespace) {
            let here = pod.pod.spec.node_name == node;
            if !here || !has_own_address(pod) || !selector::matches(chosen, &pod.pod.metadata.labels) {
                continue;
            }
            match own_address(pod) {
                Some(address) => work.restrict(&object.key.namespace, spec, pod, address),
                None => drop(work.out.waiting.insert(pod.pod.metadata.uid.clone())),
            }
        }
    }
    work.out
}

/// Whether a pod has, or will have, an address of its own.
fn has_own_address(pod: &KPod) -> bool {
    let host = pod.pod.spec.rest.get("hostNetwork") == Some(&Value::Bool(true));
    pod.pod.swarm().is_none() && !host && !pod.info.phase.is_final()
}

/// The address of a pod that has one of its own.
fn own_address(pod: &KPod) -> Option<IpAddr> {
    pod.pod.status.pod_ip.filter(|_| has_own_address(pod))
}

struct Work<'v> {
    view: &'v View,
    out: Policies,
}

impl Work<'_> {
    /// Adds what one policy says of a pod.
    fn restrict(&mut self, namespace: &str, spec: &NetworkPolicySpec, pod: &KPod, address: IpAddr) {
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let says = |t: &str| types.iter().any(|x| x == t);
        let inwards = types.is_empty() || says("Ingress");
        let outwards = says("Egress") || types.is_empty() && spec.egress.is_some();
        if inwards {
            let mut allowed = Vec::new();
            for rule in spec.ingress.iter().flatten() {
                let others = self.others(namespace, rule.from.as_deref());
                let ports = rule.ports.as_deref().filter(|p| !p.is_empty());
                let ports = ports.map(|all| all.iter().filter_map(|p| range(p, Some(pod))).collect());
                allowed.push(Allow {
                    others,
                    ports,
                    ..Allow::default()
                });
            }
            let own = self.out.pods.entry(address).or_default();
            own.ingress.get_or_insert_default().extend(allowed);
        }
        if outwards {
            let mut allowed = Vec::new();
            for rule in spec.egress.iter().flatten() {
                let peers = rule.to.as_deref();
                let ports = rule.ports.as_deref().filter(|p| !p.is_empty());
                let Some(ports) = ports else {
                    let others = self.others(namespace, peers);
                    allowed.push(Allow {
                        others,
                        ports: None,
                        ..Allow::default()
                    });
                    continue;
                };
                let plain: Vec<PortRange> = ports.iter().filter_map(|p| range(p, None)).collect();
                if !plain.is_empty() {
                    let others = self.others(namespace, peers);
                    allowed.push(Allow {
                        others,
                        ports: Some(plain),
                        ..Allow::default()
                    });
                }
                for port in ports {
                    allowed.extend(self.named(namespace, peers, port));
                }
            }
            let own = self.out.pods.entry(address).or_default();
            own.egress.get_or_insert_default().extend(allowed);
        }
    }

    /// The other sides that a rule names; none named is anybody.
    fn others(&mut self, namespace: &str, peers: Option<&[NetworkPolicyPeer]>) -> Option<Vec<Others>> {
        let peers = peers.filter(|p| !p.is_empty())?;
        Some(peers.iter().filter_map(|p| self.side(namespace, p)).collect())
    }

    fn side(&mut self, namespace: &str, peer: &NetworkPolicyPeer) -> Option<Others> {
        if let Some(block) = &peer.ip_block {
            let except = block.except.iter().flatten();
            return Some(Others::Block {
                net: block.cidr.parse().ok()?,
                except: except.filter_map(|e| e.parse().ok()).collect(),
            });
        }
        let name = set_name(namespace, peer);
        if !self.out.sets.contains_key(&name) {
            let members = self.members(namespace, peer);
            let addresses = members.iter().filter_map(|p| own_address(p)).collect();
            self.out.sets.insert(name.clone(), addresses);
        }
        Some(Others::Set(name))
    }

    /// The pods that a rule names.
    fn members(&self, namespace: &str, peer: &NetworkPolicyPeer) -> Vec<Arc<KPod>> {
        let kube = self.view.kube();
        let spaces: Vec<Arc<str>> = match &peer.namespace_selector {
            None => vec![namespace.into()],
            Some(s) => kube
                .all(kinds::NAMESPACES)
                .filter(|n| selector::matches(s, &n.meta.labels))
                .map(|n| n.key.name.clone())
                .collect(),
        };
        let chosen = |p: &&Arc<KPod>| {
            let by = peer.pod_selector.as_ref();
            by.is_none_or(|s| selector::matches(s, &p.pod.metadata.labels))
        };
        let pods = spaces.iter().flat_map(|n| kube.pods_in(n));
        pods.filter(chosen).cloned().collect()
    }

    /// Permissions for a port that is known by its name: the pods that have it, by its number there.
    fn named(
        &mut self,
        namespace: &str,
        peers: Option<&[NetworkPolicyPeer]>,
        port: &NetworkPolicyPort,
    ) -> Vec<Allow> {
        let Some(IntOrString::String(name)) = &port.port else {
            return Vec::new();
        };
        let everybody = [NetworkPolicyPeer {
            namespace_selector: Some(LabelSelector::default()),
            ..NetworkPolicyPeer::default()
        }];
        let peers = peers.filter(|p| !p.is_empty()).unwrap_or(&everybody);
        let transport = transport(port);
        let mut allowed = Vec::new();
        for peer in peers.iter().filter(|p| p.ip_block.is_none()) {
            let mut by_number: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
            for pod in self.members(namespace, peer) {
                if let (Some(address), Some(number)) = (own_address(&pod), number_of(&pod, name, transport)) {
                    by_number.entry(number).or_default().insert(address);
                }
            }
            for (number, members) in by_number {
                let set = format!("{} {transport}/{number}={name}", set_name(namespace, peer));
                self.out.sets.insert(set.clone(), members);
                allowed.push(Allow {
                    others: Some(vec![Others::Set(set)]),
                    ports: Some(vec![single(transport, number)]),
                    ..Allow::default()
                });
            }
        }
        allowed
    }
}

/// A name for the pods that a rule names, the same for equal rules.
fn set_name(namespace: &str, peer: &NetworkPolicyPeer) -> String {
    let spaces = match &peer.namespace_selector {
        None => format!("={namespace}"),
        Some(s) => selector::text(s),
    };
    let pods = peer.pod_selector.as_ref().map(selector::text);
    format!("namespaces({spaces}) pods({})", pods.unwrap_or_default())
}

fn transport(port: &NetworkPolicyPort) -> PortProtocol {
    let text = port.protocol.as_deref().unwrap_or("TCP");
    text.parse().unwrap_or_default()
}

fn single(protocol: PortProtocol, port: u16) -> PortRange {
    PortRange {
        protocol,
        from: port,
        to: port,
    }
}

/// Ports by number; a name is one of the pod's that is connected to.
fn range(port: &NetworkPolicyPort, pod: Option<&KPod>) -> Option<PortRange> {
    let protocol = transport(port);
    match &port.port {
        None => Some(PortRange {
            protocol,
            from: 0,
            to: u16::MAX,
        }),
        Some(IntOrString::Int(n)) => {
            let from = u16::try_from(*n).ok()?;
            let end = port.end_port.and_then(|e| u16::try_from(e).ok());
            Some(PortRange {
                protocol,
                from,
                to: end.unwrap_or(from),
            })
        }
        Some(IntOrString::String(name)) => number_of(pod?, name, protocol).map(|n| single(protocol, n)),
    }
}

/// The number of a pod's port by its name.
fn number_of(pod: &KPod, name: &str, protocol: PortProtocol) -> Option<u16> {
    let lists = pod.pod.spec.containers.iter().map(|c| c.rest.get("ports"));
    let mut ports = lists.flatten().filter_map(Value::as_array).flatten();
    let found = ports.find(|p| {
        let own = p["protocol"].as_str().unwrap_or("TCP");
        p["name"] == *name && own.parse::<PortProtocol>().is_ok_and(|o| o == protocol)
    })?;
    u16::try_from(found["containerPort"].as_u64()?).ok()
}
