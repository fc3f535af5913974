//! Services and their EndpointSlices as frontends and as names.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tripod_model::k8s_openapi::api::core::v1::{Service, ServicePort as Port, ServiceSpec};
use tripod_model::k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use tripod_model::network::fabric::POD_NETWORK;
use tripod_model::network::names::{ClusterNames, NameTarget, NamedEndpoint, NamedPort, ServiceNames};
use tripod_model::network::{Backend, Frontend, FrontendPorts, PortProtocol, PublishedPort, ServicePort};

use super::{DOMAIN, Ranges, data_path};
use crate::kube::kinds;
use crate::view::View;

/// Label with the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// For how long clients are remembered unless a Service says otherwise, in seconds.
const AFFINITY: i32 = 10_800;

/// What the cluster's Services come to; the same for every node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClusterServices {
    /// One for each port of each Service.
    pub frontends: Vec<Frontend>,
    /// All names.
    pub names: ClusterNames,
}

/// Pods that are to go, by namespace and name.
type Going = HashSet<(String, String)>;
type Slices = HashMap<(Arc<str>, String), Vec<Arc<EndpointSlice>>>;

/// Renders all Services.
pub fn cluster_services(view: &View) -> ClusterServices {
    let mut slices: Slices = HashMap::new();
    for object in view.kube().all(kinds::ENDPOINT_SLICES) {
        let service = object.meta.labels.get(SERVICE_NAME);
        if let (Some(service), Some(slice)) = (service, object.get::<EndpointSlice>())
            && slice.address_type == "IPv4"
        {
            let key = (object.key.namespace.clone(), service.clone());
            slices.entry(key).or_default().push(slice);
        }
    }
    // A pod that is to go takes no new connections from now on, whatever the slices say still: its node is told both at
    // once, and changes the frontends before it ends the pod.
    let going: Going = view
        .kube()
        .pods()
        .filter(|p| p.leaves())
        .map(|p| (p.namespace().to_owned(), p.name().to_owned()))
        .collect();
    let hosts: BTreeSet<IpAddr> = view.nodes().filter_map(|n| data_path(n)).collect();
    let dns = IpAddr::from(Ranges::of(view).dns());
    let mut all = ClusterServices::default();
    all.names.domain = DOMAIN.into();
    let namespaces = view.kube().all(kinds::NAMESPACES);
    all.names.namespaces = namespaces.map(|n| n.key.name.to_string()).collect();
    for object in view.kube().all(kinds::SERVICES) {
        let Some(service) = object.get::<Service>() else {
            continue;
        };
        let Some(spec) = &service.spec else { continue };
        let key = (object.key.namespace.clone(), object.key.name.to_string());
        let behind = slices.get(&key).map(Vec::as_slice).unwrap_or_default();
        let target = target(spec, behind);
        all.names.services.push(Arc::new(ServiceNames {
            namespace: key.0.to_string(),
            name: key.1.clone(),
            target,
        }));
        // Each node answers at the DNS's address itself.
        let own = || Some(dns) == address(spec.cluster_ip.as_deref());
        if spec.type_.as_deref() != Some("ExternalName") && !own() {
            let balanced = balanced(&service);
            for port in spec.ports.iter().flatten() {
                all.frontends
                    .extend(frontend(&key, spec, port, behind, &balanced, (&hosts, &going)));
            }
        }
    }
    all
}

/// An address; `None`, `""` and nonsense are none.
fn address(text: Option<&str>) -> Option<IpAddr> {
    text?.parse().ok()
}

fn protocol(text: Option<&str>) -> PortProtocol {
    text.unwrap_or("TCP").parse().unwrap_or_default()
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|p| *p != 0)
}

/// The addresses that a Service has at a load balancer.
fn balanced(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let all = status.and_then(|l| l.ingress.as_ref()).into_iter().flatten();
    all.filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|i| address(i.ip.as_deref()))
        .collect()
}

fn frontend(
    (namespace, name): &(Arc<str>, String),
    spec: &ServiceSpec,
    port: &Port,
    slices: &[Arc<EndpointSlice>],
    balanced: &[IpAddr],
    (hosts, going): (&BTreeSet<IpAddr>, &Going),
) -> Option<Frontend> {
    let vip = address(spec.cluster_ip.as_deref());
    let node_port = port.node_port.and_then(number);
    let external: Vec<IpAddr> = spec
        .external_ips
        .iter()
        .flatten()
        .filter_map(|a| a.parse().ok())
        .collect();
    if vip.is_none() && node_port.is_none() && external.is_empty() && balanced.is_empty() {
        return None;
    }
    let own = number(port.port)?;
    let transport = protocol(port.protocol.as_deref());
    let publish = |host_port| PublishedPort {
        host_ip: Ipv4Addr::UNSPECIFIED.into(),
        host_port,
        target_port: own,
        protocol: transport,
    };
    // A load balancer at the nodes' own addresses: the port is one of the nodes'.
    let at_hosts = balanced.iter().any(|a| hosts.contains(a)).then_some(own);
    let config = spec.session_affinity_config.as_ref();
    let seconds = config
        .and_then(|c| c.client_ip.as_ref())
        .and_then(|c| c.timeout_seconds);
    let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    Some(Frontend {
        id: format!(
            "{namespace}/{name}:{}/{transport}",
            port.name.as_deref().unwrap_or_default()
        ),
        network_id: POD_NETWORK.into(),
        vip,
        ports: FrontendPorts::Some(vec![ServicePort {
            port: own,
            target_port: own,
            protocol: transport,
        }]),
        published: node_port.into_iter().chain(at_hosts).map(publish).collect(),
        backends: backends(namespace, port, transport, slices, going),
        affinity_seconds: if affinity {
            u32::try_from(seconds.unwrap_or(AFFINITY)).unwrap_or(0)
        } else {
            0
        },
        external_ips: external,
        load_balancer_ips: balanced.to_vec(),
        source_ranges: ranges.filter_map(|r| r.trim().parse().ok()).collect(),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
    })
}

/// Whether new connections may go to an endpoint; `Some(true)` only where nothing better is left.
fn standing(e: &Endpoint) -> Option<bool> {
    let c = e.conditions.as_ref();
    let ready = c.and_then(|c| c.ready).unwrap_or(true);
    let serving = c.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = c.and_then(|c| c.terminating).unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => Some(false),
        (false, true) => Some(true),
        (false, false) => None,
    }
}

/// The port of a slice behind a port of its Service.
fn slice_port(slice: &EndpointSlice, port: &Port, transport: PortProtocol) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let mut ports = slice.ports.iter().flatten();
    let found = ports.find(|p| {
        p.name.as_deref().unwrap_or_default() == name && protocol(p.protocol.as_deref()) == transport
    })?;
    found.port.and_then(number)
}

fn backends(
    namespace: &str,
    port: &Port,
    transport: PortProtocol,
    slices: &[Arc<EndpointSlice>],
    going: &Going,
) -> Vec<Backend> {
    let mut found: BTreeMap<(IpAddr, u16), Backend> = BTreeMap::new();
    for slice in slices {
        let Some(number) = slice_port(slice, port, transport) else {
            continue;
        };
        for e in slice.endpoints.iter().flatten() {
            let (Some(ip), Some(terminating)) =
                (address(e.addresses.first().map(String::as_str)), standing(e))
            else {
                continue;
            };
            let owner = e.target_ref.as_ref().and_then(|t| t.name.clone());
            let goes = |name: &String| going.contains(&(namespace.to_owned(), name.clone()));
            let terminating = terminating || owner.as_ref().is_some_and(goes);
            let backend = Backend {
                port: Some(number),
                terminating,
                ..Backend::new(
                    ip,
                    owner.unwrap_or_else(|| ip.to_string()),
                    e.node_name.clone().unwrap_or_default(),
                )
            };
            let known = found.entry((ip, number)).or_insert_with(|| backend.clone());
            if known.terminating && !terminating {
                *known = backend;
            }
        }
    }
    found.into_values().collect()
}

/// What a Service's name leads to.
fn target(spec: &ServiceSpec, slices: &[Arc<EndpointSlice>]) -> NameTarget {
    if spec.type_.as_deref() == Some("ExternalName") {
        return NameTarget::Name(spec.external_name.clone().unwrap_or_default());
    }
    let addresses: Vec<IpAddr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .filter_map(|a| a.parse().ok())
        .collect::<BTreeSet<IpAddr>>()
        .into_iter()
        .collect();
    if !addresses.is_empty() {
        let ports = spec.ports.iter().flatten();
        return NameTarget::Addresses {
            addresses,
            ports: ports
                .filter_map(|p| named(p.name.as_deref(), p.protocol.as_deref(), p.port))
                .collect(),
        };
    }
    let mut endpoints = Vec::new();
    for slice in slices {
        let ports: Vec<NamedPort> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|p| named(p.name.as_deref(), p.protocol.as_deref(), p.port?))
            .collect();
        for e in slice
            .endpoints
            .iter()
            .flatten()
            .filter(|e| standing(e) == Some(false))
        {
            if let Some(address) = address(e.addresses.first().map(String::as_str)) {
                endpoints.push(NamedEndpoint {
                    address,
                    hostname: e.hostname.clone().unwrap_or_default(),
                    ports: ports.clone(),
                });
            }
        }
    }
    endpoints.sort_by(|a, b| (a.address, &a.hostname).cmp(&(b.address, &b.hostname)));
    NameTarget::Endpoints(endpoints)
}

fn named(name: Option<&str>, transport: Option<&str>, port: i32) -> Option<NamedPort> {
    Some(NamedPort {
        name: name.unwrap_or_default().to_owned(),
        protocol: protocol(transport),
        port: number(port)?,
    })
}
