//! Garbage, namespaces, nodes, endpoints, budgets, volumes.

use serde_json::{Value, json};
use tripod_model::node::{Availability, NodeState};

use crate::sim::{Kube, deployment, pod};

const D: &str = "deployments.apps";
const RS: &str = "replicasets.apps";

#[test]
fn a_cluster_begins_with_what_clients_expect() {
    let kube = Kube::new(1);
    for space in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert_eq!(kube.value("namespaces", "", space)["status"]["phase"], "Active");
        assert!(!kube.value("serviceaccounts", space, "default").is_null());
        assert_eq!(
            kube.value("configmaps", space, "kube-root-ca.crt")["data"]["ca.crt"],
            "PEM"
        );
    }
    assert_eq!(
        kube.value("services", "default", "kubernetes")["spec"]["clusterIP"],
        "10.96.0.1"
    );
    let endpoints = kube.value("endpoints", "default", "kubernetes");
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "10.9.0.1");
    let node = kube.view.node("node1").unwrap();
    assert_eq!(node.metadata.labels["kubernetes.io/hostname"], "node1");
    assert_eq!(node.status.rest["allocatable"]["cpu"], "4");
    assert_eq!(node.status.rest["nodeInfo"]["architecture"], "amd64");
    let ready = node.status.rest["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "Ready")
        .unwrap();
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("True"), &json!("KubeletReady"))
    );
}

#[test]
fn dependents_go_with_their_owner() {
    let mut kube = Kube::new(1);
    kube.apply(D, deployment("web", 2, "nginx"));
    kube.run(3);
    kube.delete(D, "default", "web");
    kube.run(3);
    assert!(kube.list(RS, "default").is_empty() && kube.pods("default").is_empty());
}

#[test]
fn orphans_stay() {
    let mut kube = Kube::new(1);
    kube.apply(D, deployment("web", 2, "nginx"));
    kube.run(3);
    kube.edit(D, "default", "web", |d| {
        d["metadata"]["finalizers"] = json!(["orphan"]);
        d["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:10Z".into();
    });
    kube.run(3);
    assert!(kube.value(D, "default", "web").is_null());
    let sets = kube.list(RS, "default");
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0]["metadata"]["ownerReferences"], json!([]));
    assert_eq!(kube.active("default").len(), 2);
}

#[test]
fn in_the_foreground_the_owner_goes_last() {
    let mut kube = Kube::new(1);
    kube.apply(D, deployment("web", 2, "nginx"));
    kube.run(3);
    kube.edit(D, "default", "web", |d| {
        d["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
        d["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:10Z".into();
    });
    kube.settle();
    assert!(!kube.value(D, "default", "web").is_null(), "it waits");
    assert!(kube.active("default").is_empty(), "pods were asked to go");
    kube.run(4);
    assert!(kube.pods("default").is_empty());
    assert!(kube.value(D, "default", "web").is_null() && kube.list(RS, "default").is_empty());
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it() {
    let mut kube = Kube::new(1);
    kube.apply(
        "namespaces",
        json!({ "metadata": { "name": "x" }, "spec": { "finalizers": ["kubernetes"] } }),
    );
    let mut d = deployment("web", 2, "nginx");
    d["metadata"]["namespace"] = "x".into();
    kube.apply(D, d);
    let held = json!({ "metadata": { "name": "held", "namespace": "x", "finalizers": ["a/b"] }, "data": {} });
    kube.apply("configmaps", held);
    kube.run(3);
    assert_eq!(kube.ready("x"), 2);
    kube.edit("namespaces", "", "x", |n| {
        n["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:10Z".into();
    });
    kube.run(5);
    let space = kube.value("namespaces", "", "x");
    assert_eq!(space["status"]["phase"], "Terminating");
    let left = space["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "NamespaceContentRemaining")
        .unwrap();
    assert_eq!(
        left["message"], "Some resources are remaining: configmaps has 1 resource instances",
        "{space:#}"
    );
    assert!(kube.pods("x").is_empty() && kube.list(RS, "x").is_empty());
    kube.edit("configmaps", "x", "held", |c| {
        c["metadata"]["finalizers"] = json!([]);
    });
    kube.delete("configmaps", "x", "held");
    kube.run(2);
    assert!(kube.value("namespaces", "", "x").is_null());
    assert_eq!(kube.view.kube().contents("x").count(), 0);
}

fn service() -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "default", "labels": { "a": "b" } },
        "spec": {
            "selector": { "app": "web" }, "clusterIP": "10.96.0.9", "type": "ClusterIP",
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }],
        },
    })
}

#[test]
fn endpoints_follow_pods() {
    let mut kube = Kube::new(2);
    kube.apply("services", service());
    kube.settle();
    let slices = |kube: &Kube| -> Vec<Value> {
        let all = kube
            .list("endpointslices.discovery.k8s.io", "default")
            .into_iter();
        all.filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
            .collect()
    };
    assert_eq!(
        slices(&kube)[0]["endpoints"],
        json!([]),
        "an empty slice says that nobody is there"
    );
    kube.apply(D, deployment("web", 2, "nginx"));
    kube.run(3);
    let all = slices(&kube);
    assert_eq!(all.len(), 1);
    assert_eq!(
        all[0]["ports"],
        json!([{ "name": "http", "port": 8080, "protocol": "TCP" }])
    );
    assert_eq!(all[0]["endpoints"].as_array().unwrap().len(), 2);
    let endpoint = &all[0]["endpoints"][0];
    assert_eq!(
        endpoint["conditions"],
        json!({ "ready": true, "serving": true, "terminating": false })
    );
    assert!(endpoint["nodeName"].is_string() && endpoint["targetRef"]["uid"].is_string());
    let e = kube.value("endpoints", "default", "web");
    assert_eq!(e["subsets"][0]["addresses"].as_array().unwrap().len(), 2, "{e:#}");
    assert_eq!(e["subsets"][0]["ports"][0]["name"], "http");
    // One that stops serves on, but is not ready.
    let name = kube.active("default")[0].name().to_owned();
    kube.edit("pods", "default", &name, |p| {
        p["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z".into();
    });
    kube.settle();
    let all = slices(&kube);
    let endpoints = all[0]["endpoints"].as_array().unwrap();
    let stopping = endpoints
        .iter()
        .find(|e| e["targetRef"]["name"] == *name)
        .unwrap();
    assert_eq!(
        stopping["conditions"],
        json!({ "ready": false, "serving": true, "terminating": true })
    );
    kube.delete("services", "default", "web");
    kube.settle();
    assert!(slices(&kube).is_empty() && kube.value("endpoints", "default", "web").is_null());
}

#[test]
fn load_balancers_have_the_addresses_of_the_nodes() {
    let mut kube = Kube::new(1);
    let mut s = service();
    s["spec"]["type"] = "LoadBalancer".into();
    kube.apply("services", s);
    kube.node("node2", |n| n.status.addr = "10.9.0.2".into());
    kube.settle();
    let ips = |kube: &Kube| {
        let s = kube.value("services", "default", "web");
        let list = s["status"]["loadBalancer"]["ingress"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        list.iter()
            .map(|i| i["ip"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ips(&kube), ["10.9.0.1", "10.9.0.2"]);
    kube.node("node2", |n| n.status.state = NodeState::Down);
    kube.settle();
    assert_eq!(ips(&kube), ["10.9.0.1"]);
    kube.edit("services", "default", "web", |s| {
        s["spec"]["type"] = "ClusterIP".into();
    });
    kube.settle();
    assert!(ips(&kube).is_empty());
}

#[test]
fn endpoints_of_others_are_mirrored() {
    let mut kube = Kube::new(1);
    let mut s = service();
    s["spec"].as_object_mut().unwrap().remove("selector");
    kube.apply("services", s);
    kube.apply("endpoints", json!({
        "metadata": { "name": "web", "namespace": "default" },
        "subsets": [{ "addresses": [{ "ip": "192.0.2.7" }], "ports": [{ "port": 8080, "protocol": "TCP" }] }],
    }));
    kube.settle();
    let all = kube.list("endpointslices.discovery.k8s.io", "default");
    let mine = all
        .iter()
        .find(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web")
        .unwrap();
    assert_eq!(mine["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
    kube.delete("endpoints", "default", "web");
    kube.settle();
    assert_eq!(
        kube.list("endpointslices.discovery.k8s.io", "default").len(),
        1,
        "only the API's own is left"
    );
}

#[test]
fn pods_leave_a_lost_node_in_time() {
    let mut kube = Kube::new(2);
    kube.apply(D, deployment("web", 2, "nginx"));
    kube.run(3);
    kube.node("node1", |n| n.status.state = NodeState::Down);
    kube.run(5);
    let node = kube.view.node("node1").unwrap();
    let taints = node.spec.rest["taints"].as_array().unwrap().clone();
    assert!(
        taints
            .iter()
            .any(|t| t["key"] == "node.kubernetes.io/unreachable" && t["effect"] == "NoExecute")
    );
    assert_eq!(kube.ready("default"), 1, "the lost one is not ready");
    assert_eq!(kube.active("default").len(), 2, "five minutes are its own");
    kube.jump(301);
    kube.run(3);
    let active = kube.active("default");
    assert_eq!(active.len(), 2);
    assert!(active.iter().all(|p| p.pod.spec.node_name == "node2"));
    assert_eq!(
        kube.pods("default").len(),
        3,
        "the lost node cannot say that its pod ended"
    );
    kube.node("node1", |n| n.status.state = NodeState::Ready);
    kube.run(3);
    assert_eq!(kube.pods("default").len(), 2);
    assert!(!kube.view.node("node1").unwrap().spec.rest.contains_key("taints"));
}

#[test]
fn drain_and_cordon_agree_on_both_doors() {
    let mut kube = Kube::new(2);
    kube.apply(D, deployment("web", 4, "nginx"));
    kube.run(3);
    kube.node("node1", |n| n.spec.swarm.availability = Availability::Drain);
    kube.run(5);
    assert!(kube.view.node("node1").unwrap().spec.unschedulable);
    assert!(
        kube.active("default")
            .iter()
            .all(|p| p.pod.spec.node_name == "node2")
    );
    kube.node("node1", |n| n.spec.unschedulable = false);
    kube.settle();
    assert_eq!(
        kube.view.node("node1").unwrap().spec.swarm.availability,
        Availability::Active
    );
    kube.node("node2", |n| n.spec.unschedulable = true);
    kube.settle();
    assert_eq!(
        kube.view.node("node2").unwrap().spec.swarm.availability,
        Availability::Pause
    );
    assert_eq!(kube.active("default").len(), 4, "a cordoned node keeps its pods");
}

#[test]
fn budgets_hold_a_drain_back() {
    let mut kube = Kube::new(2);
    kube.apply(
        "poddisruptionbudgets.policy",
        json!({
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "minAvailable": 3, "selector": { "matchLabels": { "app": "web" } } },
        }),
    );
    kube.apply(D, deployment("web", 4, "nginx"));
    kube.run(3);
    let budget = kube.value("poddisruptionbudgets.policy", "default", "web");
    assert_eq!(budget["status"]["disruptionsAllowed"], 1, "{budget:#}");
    assert_eq!(
        (
            &budget["status"]["expectedPods"],
            &budget["status"]["desiredHealthy"]
        ),
        (&json!(4), &json!(3))
    );
    kube.node("node1", |n| n.spec.swarm.availability = Availability::Drain);
    for _ in 0..40 {
        kube.run(1);
        assert!(kube.ready("default") >= 3);
    }
    assert!(
        kube.active("default")
            .iter()
            .all(|p| p.pod.spec.node_name == "node2")
    );
}

#[test]
fn pods_of_a_removed_node_are_collected() {
    let mut kube = Kube::new(2);
    kube.apply(D, deployment("web", 2, "nginx"));
    kube.run(3);
    kube.view.remove_node("node1");
    kube.run(3);
    assert_eq!(kube.pods("default").len(), 2);
    assert!(
        kube.pods("default")
            .iter()
            .all(|p| p.pod.spec.node_name == "node2")
    );
}

#[test]
fn volumes_bind_and_are_released() {
    let mut kube = Kube::new(1);
    kube.apply(
        "persistentvolumes",
        json!({
            "metadata": { "name": "v" },
            "spec": {
                "capacity": { "storage": "5Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": { "path": "/x" },
            },
        }),
    );
    kube.settle();
    assert_eq!(
        kube.value("persistentvolumes", "", "v")["status"]["phase"],
        "Available"
    );
    kube.apply(
        "persistentvolumeclaims",
        json!({
            "metadata": { "name": "c", "namespace": "default" },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                "resources": { "requests": { "storage": "1Gi" } },
            },
        }),
    );
    kube.settle();
    let claim = kube.value("persistentvolumeclaims", "default", "c");
    assert_eq!(
        (&claim["status"]["phase"], &claim["spec"]["volumeName"]),
        (&json!("Bound"), &json!("v"))
    );
    assert_eq!(claim["status"]["capacity"]["storage"], "5Gi");
    assert_eq!(
        kube.value("persistentvolumes", "", "v")["status"]["phase"],
        "Bound"
    );
    kube.delete("persistentvolumeclaims", "default", "c");
    kube.settle();
    assert_eq!(
        kube.value("persistentvolumes", "", "v")["status"]["phase"],
        "Released"
    );
}

#[test]
fn a_node_removes_the_directory_of_a_volume_before_it_goes() {
    let mut kube = Kube::new(1);
    kube.apply(
        "persistentvolumes",
        json!({
            "metadata": {
                "name": "pvc-1", "annotations": { "pv.kubernetes.io/provisioned-by": "tripod.dev/local" },
                "finalizers": ["kubernetes.io/pv-protection"],
            },
            "spec": {
                "capacity": { "storage": "5Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
                "persistentVolumeReclaimPolicy": "Delete", "hostPath": { "path": "/x" },
                "claimRef": { "name": "gone", "namespace": "default", "uid": "u" },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [{
                    "key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"],
                }] }] } },
            },
        }),
    );
    kube.settle();
    let volume = kube.value("persistentvolumes", "", "pvc-1");
    assert_eq!(volume["metadata"]["labels"]["tripod.dev/reclaim"], "node1");
    assert_eq!(volume["status"]["phase"], "Released");
    kube.run(3);
    assert_eq!(kube.value("persistentvolumes", "", "pvc-1"), json!(null));
}

#[test]
fn events_are_counted_and_forgotten() {
    let mut kube = Kube::new(1);
    kube.apply(
        "pods",
        pod("big", |p| {
            p["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "64" } });
        }),
    );
    kube.settle();
    let events = kube.events("default", "FailedScheduling");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["type"], "Warning");
    assert_eq!(events[0]["involvedObject"]["name"], "big");
    kube.jump(3700);
    kube.jump(70);
    assert!(kube.events("default", "FailedScheduling").is_empty());
}
