//! Networks between nodes and of pods: blocks, peers, Services, policies.

#[allow(unreachable_pub, missing_docs, reason = "a module of tests")]
mod sim;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use sim::Sim;
use tripod_model::network::fabric::{POD_NETWORK, RemoteRoute};
use tripod_model::network::names::NameTarget;
use tripod_model::network::policy::{Others, PodPolicy};
use tripod_model::network::{Frontend, PortProtocol};
use tripod_model::pod::Pod;
use tripod_plan::kube::{KObject, ObjKey};
use tripod_plan::network::{assign_blocks, block_of, cluster_services, fabric, pods_on, policies};
use tripod_plan::project::project;
use tripod_plan::{Object, View, Write};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A cluster whose nodes have addresses and blocks.
fn cluster(nodes: usize) -> View {
    let mut view = Sim::new(nodes).view;
    let named: Vec<_> = view.nodes().cloned().collect();
    for (i, node) in named.into_iter().enumerate() {
        let mut node = node.as_ref().clone();
        node.status.addr = format!("192.0.2.{}", i + 1);
        view.upsert_node(Arc::new(node));
    }
    blocks(&mut view);
    view
}

fn blocks(view: &mut View) -> usize {
    let plan = assign_blocks(view);
    let written = plan.writes.len();
    for write in plan.writes {
        let Write::Update {
            object: Object::Node(node),
            ..
        } = write
        else {
            panic!()
        };
        view.upsert_node(node);
    }
    written
}

fn put(view: &mut View, resource: &str, namespace: &str, name: &str, mut object: Value) {
    object["metadata"]["name"] = name.into();
    object["metadata"]["namespace"] = namespace.into();
    let key = ObjKey::new(resource, namespace, name);
    let bytes = object.to_string().into_bytes();
    let object = KObject::new(key, 1, bytes.into()).unwrap();
    view.kube_mut().upsert(Arc::new(object));
}

fn service(view: &mut View, name: &str, spec: Value) {
    put(view, "services", "default", name, json!({ "spec": spec }));
}

fn slice(view: &mut View, service: &str, ports: Value, endpoints: Value) {
    let object = json!({
        "metadata": { "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    });
    let name = format!("{service}-1");
    put(view, "endpointslices.discovery.k8s.io", "default", &name, object);
}

fn pod(view: &mut View, namespace: &str, name: &str, node: &str, address: &str, labels: Value) {
    let object = json!({
        "metadata": { "name": name, "namespace": namespace, "uid": name, "labels": labels },
        "spec": {
            "nodeName": node,
            "containers": [{ "name": "c", "image": "i", "ports": [{ "name": "web", "containerPort": 8080 }] }],
        },
        "status": { "phase": "Running", "podIP": (!address.is_empty()).then_some(address) },
    });
    let pod: Pod = serde_json::from_value(object).unwrap();
    view.upsert_pod(Arc::new(pod));
}

#[test]
fn each_node_has_a_block_of_its_own() {
    let mut view = cluster(3);
    let of = |view: &View, n: &str| block_of(view.node(n).unwrap()).map(|b| b.to_string());
    assert_eq!(of(&view, "node1").as_deref(), Some("10.244.0.0/24"));
    assert_eq!(of(&view, "node3").as_deref(), Some("10.244.2.0/24"));
    assert_eq!(blocks(&mut view), 0, "settled");
    // What a node gave up is given to the next; the others keep theirs.
    let node = view.node("node2").unwrap().as_ref().clone();
    view.remove_node("node2");
    let mut new = node.clone();
    new.metadata.name = "node4".into();
    new.spec.rest.clear();
    view.upsert_node(Arc::new(new));
    assert_eq!(blocks(&mut view), 1);
    assert_eq!(of(&view, "node4").as_deref(), Some("10.244.1.0/24"));
    let spec = pods_on(&view, "node4").unwrap();
    assert_eq!(spec.subnets[0].gateway, Some(ip("10.244.1.1")));
}

#[test]
fn a_range_that_is_used_up_is_explained() {
    let mut view = cluster(2);
    let mut status = view.cluster().unwrap().as_ref().clone();
    status.status.pod_range = Some("10.244.0.0/23".parse().unwrap());
    view.upsert_cluster(Arc::new(status));
    let mut node = view.node("node1").unwrap().as_ref().clone();
    node.metadata.name = "node9".into();
    node.spec.rest.clear();
    view.upsert_node(Arc::new(node));
    let plan = assign_blocks(&view);
    assert!(plan.writes.is_empty());
    assert_eq!(plan.explanations[0].reason, "CIDRNotAvailable");
}

#[test]
fn what_others_have() {
    let mut view = cluster(3);
    view.upsert_lease("node2/c1", vec![("net".into(), ip("10.0.0.9"))]);
    let told = fabric(&view, "node1", &["net".to_owned()].into());
    assert_eq!(told.address, Some(ip("192.0.2.1")));
    let peers: Vec<&str> = told.peers.iter().map(|p| p.node.as_str()).collect();
    assert_eq!(peers, ["node2", "node3"]);
    let of = |network: &str| {
        &told
            .routes
            .iter()
            .find(|r| r.network_id == network)
            .unwrap()
            .routes
    };
    let route = |to: &str, node: &str| RemoteRoute {
        to: to.parse().unwrap(),
        node: node.into(),
    };
    assert_eq!(
        *of(POD_NETWORK),
        [route("10.244.1.0/24", "node2"), route("10.244.2.0/24", "node3")]
    );
    assert_eq!(*of("net"), [route("10.0.0.9/32", "node2")]);
    assert!(fabric(&view, "node2", &["net".to_owned()].into()).routes.len() == 1);
    let all = project(&view, "node1", &Default::default());
    assert!(all.networks.iter().any(|n| n.id == POD_NETWORK));
}

#[test]
fn services_become_frontends_and_names() {
    let mut view = cluster(2);
    service(
        &mut view,
        "web",
        json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local",
            "externalIPs": ["198.51.100.1"], "loadBalancerSourceRanges": ["203.0.113.0/24"],
            "ports": [
                { "name": "http", "port": 80, "targetPort": "web", "protocol": "TCP", "nodePort": 30080 },
                { "name": "dns", "port": 53, "protocol": "UDP" },
            ],
        }),
    );
    let endpoints = json!([
        { "addresses": ["10.244.0.2"], "conditions": { "ready": true }, "nodeName": "node1",
          "targetRef": { "name": "web-1" } },
        { "addresses": ["10.244.1.2"], "conditions": { "ready": false, "serving": true, "terminating": true },
          "nodeName": "node2" },
        { "addresses": ["10.244.1.3"], "conditions": { "ready": false, "serving": false } },
    ]);
    let ports = json!([
        { "name": "http", "port": 8080, "protocol": "TCP" },
        { "name": "dns", "port": 5353, "protocol": "UDP" },
    ]);
    slice(&mut view, "web", ports, endpoints);
    let all = cluster_services(&view);
    let [http, dns]: &[Frontend; 2] = all.frontends.as_slice().try_into().unwrap();
    assert_eq!(http.vip, Some(ip("10.96.0.7")));
    let behind: Vec<_> = http
        .backends
        .iter()
        .map(|b| (b.address, b.port, b.node.as_str(), b.terminating))
        .collect();
    assert_eq!(
        behind,
        [
            (ip("10.244.0.2"), Some(8080), "node1", false),
            (ip("10.244.1.2"), Some(8080), "node2", true)
        ]
    );
    assert_eq!(http.affinity_seconds, 10_800);
    assert!(http.external_local && !http.internal_local);
    assert_eq!(http.published[0].host_port, 30080);
    assert_eq!(http.source_ranges.len(), 1);
    assert_eq!(dns.backends[0].port, Some(5353));
    assert_eq!(dns.published, []);
    assert_ne!(http.id, dns.id);
    let NameTarget::Addresses { addresses, ports } = &all.names.services[0].target else {
        panic!()
    };
    assert_eq!((addresses.len(), ports.len()), (1, 2));
    assert_eq!(ports[1].protocol, PortProtocol::Udp);
}

#[test]
fn services_without_addresses() {
    let mut view = cluster(1);
    service(
        &mut view,
        "db",
        json!({ "clusterIP": "None", "ports": [{ "name": "sql", "port": 5432 }] }),
    );
    let endpoints = json!([
        { "addresses": ["10.244.0.2"], "hostname": "db-0", "conditions": { "ready": true } },
        { "addresses": ["10.244.0.3"], "hostname": "db-1", "conditions": { "ready": false } },
    ]);
    slice(
        &mut view,
        "db",
        json!([{ "name": "sql", "port": 5432 }]),
        endpoints,
    );
    service(
        &mut view,
        "away",
        json!({ "type": "ExternalName", "externalName": "example.org" }),
    );
    let all = cluster_services(&view);
    assert_eq!(all.frontends, []);
    let of = |name: &str| {
        let found = all.names.services.iter().find(|s| s.name == name);
        found.unwrap().target.clone()
    };
    let NameTarget::Endpoints(ready) = of("db") else {
        panic!()
    };
    assert_eq!((ready.len(), ready[0].hostname.as_str()), (1, "db-0"));
    assert_eq!(of("away"), NameTarget::Name("example.org".into()));
}

#[test]
fn policies_of_pods() {
    let mut view = cluster(2);
    for (name, team) in [("default", "a"), ("other", "b")] {
        put(
            &mut view,
            "namespaces",
            "",
            name,
            json!({ "metadata": { "labels": { "team": team } } }),
        );
    }
    pod(
        &mut view,
        "default",
        "web",
        "node1",
        "10.244.0.2",
        json!({ "app": "web" }),
    );
    pod(
        &mut view,
        "default",
        "client",
        "node2",
        "10.244.1.2",
        json!({ "app": "client" }),
    );
    pod(
        &mut view,
        "other",
        "client",
        "node2",
        "10.244.1.3",
        json!({ "app": "client" }),
    );
    let policy = |view: &mut View, name: &str, spec: Value| {
        put(
            view,
            "networkpolicies.networking.k8s.io",
            "default",
            name,
            json!({ "spec": spec }),
        );
    };
    let of = |view: &View| policies(view, "node1").pods.get(&ip("10.244.0.2")).cloned();
    assert_eq!(of(&view), None);

    policy(&mut view, "deny", json!({ "podSelector": {} }));
    let closed = PodPolicy {
        ingress: Some(Vec::new()),
        egress: None,
    };
    assert_eq!(of(&view), Some(closed));
    // Of other nodes' pods, those nodes are told.
    assert_eq!(policies(&view, "node1").pods.len(), 1);
    // One that has no address yet waits for its policies.
    pod(&mut view, "default", "new", "node1", "", json!({ "app": "new" }));
    assert_eq!(policies(&view, "node1").waiting.len(), 1);
    assert!(policies(&view, "node2").waiting.is_empty());
    pod(
        &mut view,
        "default",
        "new",
        "node2",
        "10.244.1.9",
        json!({ "app": "new" }),
    );
    assert!(policies(&view, "node1").waiting.is_empty());
    view.remove_pod("default/new");

    policy(
        &mut view,
        "allow",
        json!({
            "podSelector": { "matchLabels": { "app": "web" } },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [
                    { "podSelector": { "matchLabels": { "app": "client" } } },
                    { "namespaceSelector": { "matchLabels": { "team": "b" } }, "podSelector": {} },
                    { "ipBlock": { "cidr": "192.0.2.0/24", "except": ["192.0.2.1/32"] } },
                ],
                "ports": [{ "port": "web" }, { "port": 9000, "endPort": 9010, "protocol": "UDP" }],
            }],
            "egress": [{ "to": [{ "namespaceSelector": {} }], "ports": [{ "port": "web" }] }],
        }),
    );
    let all = policies(&view, "node1");
    let own = of(&view).unwrap();
    let allow = &own.ingress.unwrap()[0];
    let sets: Vec<Vec<String>> = allow
        .others
        .iter()
        .flatten()
        .filter_map(|o| match o {
            Others::Set(name) => Some(all.sets[name].iter().map(ToString::to_string).collect()),
            Others::Block { .. } => None,
        })
        .collect();
    assert_eq!(
        sets,
        [vec!["10.244.1.2".to_owned()], vec!["10.244.1.3".to_owned()]]
    );
    let ports = allow.ports.clone().unwrap();
    assert_eq!((ports[0].from, ports[0].to), (8080, 8080));
    assert_eq!((ports[1].from, ports[1].to), (9000, 9010));
    // By name, the port is that of each pod which is connected to.
    let egress = &own.egress.unwrap()[0];
    let Some([Others::Set(named)]) = egress.others.as_deref() else {
        panic!()
    };
    assert_eq!(all.sets[named].len(), 3);
    assert_eq!(egress.ports.as_ref().unwrap()[0].from, 8080);
}

#[test]
fn changes_are_counted() {
    let mut view = cluster(1);
    let mut epoch = view.network_epoch();
    let mut moved = |view: &View| std::mem::replace(&mut epoch, view.network_epoch()) != view.network_epoch();
    service(&mut view, "web", json!({ "clusterIP": "10.96.0.7" }));
    assert!(moved(&view));
    put(
        &mut view,
        "networkpolicies.networking.k8s.io",
        "default",
        "p",
        json!({ "spec": {} }),
    );
    assert!(moved(&view));
    pod(
        &mut view,
        "default",
        "web",
        "node1",
        "10.244.0.2",
        json!({ "app": "web" }),
    );
    assert!(moved(&view));
    pod(
        &mut view,
        "default",
        "web",
        "node1",
        "10.244.0.2",
        json!({ "app": "other" }),
    );
    assert!(moved(&view));
    put(&mut view, "configmaps", "default", "c", json!({}));
    assert!(!moved(&view));
    view.upsert_lease("node1/c", vec![("n".into(), ip("10.0.0.1"))]);
    assert!(moved(&view));
}
