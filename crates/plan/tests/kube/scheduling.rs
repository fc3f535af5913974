//! Where pods go, and the reasons when they go nowhere.

use serde_json::{Value, json};

use crate::sim::{Kube, pod};

fn node_of(kube: &Kube, name: &str) -> String {
    kube.value("pods", "default", name)["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn scheduled(kube: &Kube, name: &str) -> Value {
    let pod = kube.value("pods", "default", name);
    let list = pod["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    list.into_iter()
        .find(|c| c["type"] == "PodScheduled")
        .unwrap_or_default()
}

fn put(kube: &mut Kube, name: &str, change: impl FnOnce(&mut Value)) {
    kube.apply("pods", pod(name, change));
    kube.settle();
}

fn asks(p: &mut Value, cpu: &str) {
    p["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": cpu } });
}

/// Three nodes: `a` in zone x, `b` and `c` in zone y; `c` is tainted.
fn zones() -> Kube {
    let mut kube = Kube::new(0);
    for (name, zone) in [("a", "x"), ("b", "y"), ("c", "y")] {
        kube.node(name, |n| {
            n.metadata
                .labels
                .insert("topology.kubernetes.io/zone".into(), zone.into());
        });
    }
    kube.node("c", |n| {
        let taint = json!([{ "key": "only", "value": "some", "effect": "NoSchedule" }]);
        n.spec.rest.insert("taints".into(), taint);
    });
    kube.settle();
    kube
}

#[test]
fn reasons_are_the_usual_ones() {
    let mut kube = zones();
    type Case = (&'static str, fn(&mut Value), &'static str);
    let cases: [Case; 6] = [
        (
            "cpu",
            |p| asks(p, "5"),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: 0/3 nodes \
             are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod.",
        ),
        (
            "selector",
            |p| p["spec"]["nodeSelector"] = json!({ "disk": "fast" }),
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node \
             affinity/selector. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
        ),
        (
            "claim",
            |p| {
                p["spec"]["volumes"] =
                    json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "none" } }]);
            },
            "0/3 nodes are available: persistentvolumeclaim \"none\" not found.",
        ),
        (
            "gated",
            |p| p["spec"]["schedulingGates"] = json!([{ "name": "x" }]),
            "Scheduling is blocked due to non-empty scheduling gates",
        ),
        (
            "near",
            |p| {
                p["spec"]["affinity"] = json!({ "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
                    { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "no": "one" } } },
                ] } });
            },
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match pod affinity rules. \
             preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
        ),
        (
            "extended",
            |p| {
                p["spec"]["containers"][0]["resources"] = json!({ "limits": { "example.com/gpu": "1" } });
                p["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": "a" });
            },
            "0/3 nodes are available: 1 Insufficient example.com/gpu, 1 node(s) didn't match Pod's node \
             affinity/selector, 1 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: 1 No \
             preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.",
        ),
    ];
    for (name, change, text) in cases {
        put(&mut kube, name, change);
        let condition = scheduled(&kube, name);
        assert_eq!(condition["message"], text, "{name}");
        let reason = if name == "gated" {
            "SchedulingGated"
        } else {
            "Unschedulable"
        };
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("False"), &json!(reason))
        );
    }
    let mut empty = Kube::new(0);
    put(&mut empty, "any", |_| {});
    assert_eq!(
        scheduled(&empty, "any")["message"],
        "no nodes available to schedule pods"
    );
}

#[test]
fn selectors_affinity_and_tolerations_choose() {
    let mut kube = zones();
    put(&mut kube, "tolerant", |p| {
        p["spec"]["tolerations"] =
            json!([{ "key": "only", "operator": "Equal", "value": "some", "effect": "NoSchedule" }]);
        p["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": "c" });
    });
    assert_eq!(node_of(&kube, "tolerant"), "c");
    assert_eq!(scheduled(&kube, "tolerant")["status"], "True");
    put(&mut kube, "affine", |p| {
        p["spec"]["affinity"] = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["x"] },
            ] }],
        } } });
    });
    assert_eq!(node_of(&kube, "affine"), "b");
    for n in 0..4 {
        put(&mut kube, &format!("prefers{n}"), |p| {
            p["spec"]["affinity"] = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
                { "weight": 100, "preference": { "matchExpressions": [
                    { "key": "topology.kubernetes.io/zone", "operator": "In", "values": ["x"] },
                ] } },
            ] } });
        });
        assert_eq!(node_of(&kube, &format!("prefers{n}")), "a");
    }
}

#[test]
fn pods_near_and_apart() {
    let mut kube = zones();
    let apart = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "topologyKey": "topology.kubernetes.io/zone", "labelSelector": { "matchLabels": { "app": "one" } } },
    ] } });
    for name in ["one-1", "one-2", "one-3"] {
        put(&mut kube, name, |p| {
            p["metadata"]["labels"] = json!({ "app": "one" });
            p["spec"]["affinity"] = apart.clone();
        });
    }
    assert_ne!(node_of(&kube, "one-1"), node_of(&kube, "one-2"));
    let text = scheduled(&kube, "one-3")["message"].as_str().unwrap().to_owned();
    assert!(
        text.contains("2 node(s) didn't match pod anti-affinity rules")
            || text.contains("existing pods anti-affinity"),
        "{text}"
    );
    put(&mut kube, "near", |p| {
        p["spec"]["affinity"] = json!({ "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
            { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "one" } } },
        ] } });
        p["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": "b" });
    });
    assert_eq!(node_of(&kube, "near"), "b");
    // Symmetric: one that those want to be apart from finds no place where they are.
    kube.delete("pods", "default", "one-3");
    put(&mut kube, "like", |p| {
        p["metadata"]["labels"] = json!({ "app": "one" });
    });
    let text = scheduled(&kube, "like")["message"].as_str().unwrap().to_owned();
    assert!(
        text.contains("2 node(s) didn't satisfy existing pods anti-affinity rules"),
        "{text}"
    );
}

#[test]
fn spread_keeps_domains_even() {
    let mut kube = zones();
    for n in 0..6 {
        put(&mut kube, &format!("s{n}"), |p| {
            p["metadata"]["labels"] = json!({ "app": "s" });
            p["spec"]["topologySpreadConstraints"] = json!([{
                "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": { "matchLabels": { "app": "s" } },
            }]);
        });
    }
    let on_a = (0..6).filter(|n| node_of(&kube, &format!("s{n}")) == "a").count();
    assert_eq!(on_a, 3);
}

#[test]
fn host_ports_are_taken_once() {
    let mut kube = Kube::new(2);
    for name in ["p1", "p2", "p3"] {
        put(&mut kube, name, |p| {
            p["spec"]["containers"][0]["ports"] =
                json!([{ "containerPort": 80, "hostPort": 8080, "protocol": "TCP" }]);
        });
    }
    assert_ne!(node_of(&kube, "p1"), node_of(&kube, "p2"));
    let text = scheduled(&kube, "p3")["message"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with(
            "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports."
        ),
        "{text}"
    );
}

#[test]
fn init_containers_and_sidecars_count_by_their_rule() {
    let mut kube = Kube::new(1);
    let big = |p: &mut Value, cpu: &str, always: bool| {
        asks(p, "1");
        let mut init = json!({ "name": "i", "image": "x", "resources": { "requests": { "cpu": cpu } } });
        if always {
            init["restartPolicy"] = "Always".into();
        }
        p["spec"]["initContainers"] = json!([init]);
    };
    // The larger of both: 3 of 4; then a sidecar beside its container: 1 + 2 do not fit any more.
    put(&mut kube, "init", |p| big(p, "3", false));
    assert_eq!(node_of(&kube, "init"), "node1");
    put(&mut kube, "sidecar", |p| big(p, "500m", true));
    assert_eq!(node_of(&kube, "sidecar"), "");
    kube.delete("pods", "default", "init");
    kube.settle();
    assert_eq!(node_of(&kube, "sidecar"), "node1", "room was made");
}

#[test]
fn the_more_important_pod_takes_the_place_of_the_less() {
    let mut kube = Kube::new(2);
    for n in 0..4 {
        put(&mut kube, &format!("low{n}"), |p| {
            asks(p, "2");
            p["spec"]["priority"] = if n == 2 { 5.into() } else { 10.into() };
        });
    }
    kube.run(2);
    put(&mut kube, "high", |p| {
        asks(p, "2");
        p["spec"]["priority"] = 1000.into();
    });
    let victim = kube.value("pods", "default", "low2");
    assert!(
        victim["metadata"]["deletionTimestamp"].is_string(),
        "the least important goes"
    );
    let disrupted = victim["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .any(|c| c["type"] == "DisruptionTarget" && c["reason"] == "PreemptionByScheduler");
    assert!(disrupted);
    let nominated = kube.value("pods", "default", "high")["status"]["nominatedNodeName"].clone();
    assert_eq!(nominated, victim["spec"]["nodeName"]);
    assert_eq!(kube.active("default").len(), 4, "only one");
    // A pod that comes meanwhile does not take the room.
    put(&mut kube, "late", |p| {
        asks(p, "2");
        p["spec"]["priority"] = 1.into();
    });
    kube.run(3);
    assert_eq!(
        node_of(&kube, "high"),
        victim["spec"]["nodeName"].as_str().unwrap()
    );
    assert_eq!(node_of(&kube, "late"), "");
    put(&mut kube, "polite", |p| {
        asks(p, "2");
        p["spec"]["priority"] = 2000.into();
        p["spec"]["preemptionPolicy"] = "Never".into();
    });
    assert_eq!(
        kube.active("default").len(),
        6,
        "nobody goes for one that does not preempt"
    );
}

#[test]
fn many_pods_are_placed_fast_and_evenly() {
    let mut kube = Kube::new(0);
    for n in 0..200 {
        kube.node(&format!("n{n:03}"), |_| {});
    }
    kube.settle();
    for n in 0..2_000 {
        kube.apply("pods", pod(&format!("p{n}"), |p| asks(p, "100m")));
    }
    let before = std::time::Instant::now();
    kube.settle();
    let took = before.elapsed();
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for pod in kube.pods("default") {
        *counts.entry(pod.pod.spec.node_name.clone()).or_default() += 1;
    }
    assert_eq!(counts.len(), 200);
    assert!(counts.values().all(|n| *n == 10), "{counts:?}");
    // Generous: this is an unoptimised build on whatever machine.
    assert!(took.as_secs() < 30, "{took:?}");
}
