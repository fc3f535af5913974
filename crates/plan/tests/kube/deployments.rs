//! Deployments and ReplicaSets on virtual time.

use crate::sim::{Kube, deployment};
use serde_json::{Value, json};

const D: &str = "deployments.apps";
const RS: &str = "replicasets.apps";

fn condition(object: &Value, kind: &str) -> Value {
    let list = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    list.into_iter().find(|c| c["type"] == kind).unwrap_or_default()
}

#[test]
fn a_deployment_comes_up() {
    let mut kube = Kube::new(3);
    kube.apply(D, deployment("web", 3, "nginx:1"));
    kube.run(3);
    let d = kube.value(D, "default", "web");
    assert_eq!(d["status"]["readyReplicas"], 3, "{d:#}");
    assert_eq!(d["status"]["availableReplicas"], 3);
    assert_eq!(d["status"]["updatedReplicas"], 3);
    assert_eq!(d["status"]["observedGeneration"], 1);
    assert_eq!(
        d["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "1"
    );
    assert_eq!(condition(&d, "Available")["status"], "True");
    assert_eq!(condition(&d, "Progressing")["reason"], "NewReplicaSetAvailable");
    let sets = kube.list(RS, "default");
    assert_eq!(sets.len(), 1);
    let hash = sets[0]["metadata"]["labels"]["pod-template-hash"]
        .as_str()
        .unwrap();
    assert_eq!(sets[0]["metadata"]["name"], format!("web-{hash}"));
    assert_eq!(sets[0]["status"]["availableReplicas"], 3);
    let pods = kube.pods("default");
    for pod in &pods {
        let prefix = format!("web-{hash}-");
        assert!(pod.name().starts_with(&prefix) && pod.name().len() == prefix.len() + 5);
        assert_eq!(pod.pod.metadata.labels["pod-template-hash"], hash);
        assert_eq!(pod.pod.spec.rest["serviceAccountName"], "default");
        assert_eq!(pod.pod.spec.rest["priority"], 0);
    }
    let nodes: std::collections::BTreeSet<_> = pods.iter().map(|p| p.pod.spec.node_name.clone()).collect();
    assert_eq!(nodes.len(), 3, "replicas go apart");
    assert_eq!(kube.events("default", "ScalingReplicaSet").len(), 1);
    assert_eq!(kube.events("default", "SuccessfulCreate").len(), 3);
    assert_eq!(kube.events("default", "Scheduled").len(), 3);
}

#[test]
fn a_rolling_update_keeps_within_its_bounds() {
    let mut kube = Kube::new(3);
    kube.apply(D, deployment("web", 8, "nginx:1"));
    kube.run(3);
    kube.edit(D, "default", "web", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = "nginx:2".into();
    });
    for _ in 0..40 {
        kube.run(1);
        let ready = kube.ready("default");
        assert!(ready >= 6, "{ready} of 8 ready: two may be missing");
        assert!(kube.active("default").len() <= 10, "two more than asked for");
    }
    let images: Vec<String> = kube
        .active("default")
        .iter()
        .map(|p| p.pod.spec.containers[0].image.clone())
        .collect();
    assert_eq!(images, vec!["nginx:2"; 8]);
    let d = kube.value(D, "default", "web");
    assert_eq!(
        d["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "2"
    );
    assert_eq!(condition(&d, "Progressing")["reason"], "NewReplicaSetAvailable");
    assert_eq!(kube.list(RS, "default").len(), 2);
    // Back to the first template: its set is found again and gets the latest number.
    kube.edit(D, "default", "web", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = "nginx:1".into();
    });
    kube.run(40);
    assert_eq!(kube.list(RS, "default").len(), 2);
    let d = kube.value(D, "default", "web");
    assert_eq!(
        d["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "3"
    );
    let sets = kube.list(RS, "default");
    let present = sets.iter().find(|s| s["spec"]["replicas"] == 8).unwrap();
    assert_eq!(
        present["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"],
        "1"
    );
}

#[test]
fn recreate_ends_all_before_it_begins() {
    let mut kube = Kube::new(2);
    let mut d = deployment("web", 4, "nginx:1");
    d["spec"]["strategy"] = json!({ "type": "Recreate" });
    kube.apply(D, d);
    kube.run(3);
    kube.edit(D, "default", "web", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = "nginx:2".into();
    });
    for _ in 0..10 {
        kube.run(1);
        let mut images: Vec<String> = kube
            .pods("default")
            .iter()
            .map(|p| p.pod.spec.containers[0].image.clone())
            .collect();
        images.dedup();
        assert!(images.len() <= 1, "{images:?}");
    }
    assert_eq!(kube.ready("default"), 4);
}

#[test]
fn a_broken_image_stops_the_rollout_and_passes_the_deadline() {
    let mut kube = Kube::new(2);
    kube.broken.insert("broken".into());
    kube.apply(D, deployment("web", 4, "nginx:1"));
    kube.run(3);
    kube.edit(D, "default", "web", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = "broken".into();
        d["spec"]["progressDeadlineSeconds"] = 30.into();
    });
    kube.run(10);
    assert_eq!(kube.ready("default"), 3, "one may be missing");
    let d = kube.value(D, "default", "web");
    assert_eq!(
        condition(&d, "Progressing")["reason"],
        "ReplicaSetUpdated",
        "{d:#}"
    );
    kube.run(40);
    let d = kube.value(D, "default", "web");
    assert_eq!(
        condition(&d, "Progressing")["reason"],
        "ProgressDeadlineExceeded",
        "{d:#}"
    );
    assert_eq!(condition(&d, "Progressing")["status"], "False");
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_in_proportion() {
    let mut kube = Kube::new(4);
    kube.broken.insert("broken".into());
    let mut d = deployment("web", 10, "nginx:1");
    d["spec"]["strategy"]["rollingUpdate"] = json!({ "maxSurge": 3, "maxUnavailable": 2 });
    kube.apply(D, d);
    kube.run(3);
    kube.edit(D, "default", "web", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = "broken".into();
    });
    kube.run(5);
    let sizes = |kube: &Kube| {
        let mut sizes: Vec<i64> = kube
            .list(RS, "default")
            .iter()
            .map(|s| s["spec"]["replicas"].as_i64().unwrap())
            .collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&kube), [5, 8]);
    kube.edit(D, "default", "web", |d| d["spec"]["replicas"] = 15.into());
    kube.run(3);
    assert_eq!(sizes(&kube), [7, 11]);
}

#[test]
fn paused_deployments_scale_but_do_not_roll() {
    let mut kube = Kube::new(2);
    kube.apply(D, deployment("web", 2, "nginx:1"));
    kube.run(3);
    kube.edit(D, "default", "web", |d| {
        d["spec"]["paused"] = true.into();
        d["spec"]["replicas"] = 3.into();
        d["spec"]["template"]["spec"]["containers"][0]["image"] = "nginx:2".into();
    });
    kube.run(3);
    assert_eq!(kube.list(RS, "default").len(), 1);
    assert_eq!(kube.ready("default"), 3);
    kube.edit(D, "default", "web", |d| d["spec"]["paused"] = false.into());
    kube.run(15);
    assert_eq!(kube.ready("default"), 3);
    assert!(
        kube.active("default")
            .iter()
            .all(|p| p.pod.spec.containers[0].image == "nginx:2")
    );
}

#[test]
fn sets_adopt_and_release_pods() {
    let mut kube = Kube::new(1);
    kube.apply(
        "pods",
        crate::sim::pod("stray", |p| p["metadata"]["labels"] = json!({ "app": "web" })),
    );
    let set = json!({
        "metadata": { "name": "web", "namespace": "default" },
        "spec": { "replicas": 2, "selector": { "matchLabels": { "app": "web" } }, "template": crate::sim::template("web", "x") },
    });
    kube.apply(RS, set);
    kube.run(3);
    assert_eq!(kube.pods("default").len(), 2, "the stray is one of them");
    assert_eq!(
        kube.value("pods", "default", "stray")["metadata"]["ownerReferences"][0]["name"],
        "web"
    );
    kube.edit("pods", "default", "stray", |p| {
        p["metadata"]["labels"] = json!({ "app": "other" });
    });
    kube.run(3);
    assert!(kube.value("pods", "default", "stray")["metadata"]["ownerReferences"].is_null());
    assert_eq!(kube.pods("default").len(), 3);
    // The owner goes: its pods go, the stray stays.
    kube.delete(RS, "default", "web");
    kube.run(3);
    assert_eq!(kube.pods("default").len(), 1);
}

#[test]
fn a_quota_holds_pods_back_and_says_so() {
    let mut kube = Kube::new(1);
    let quota =
        json!({ "metadata": { "name": "q", "namespace": "default" }, "spec": { "hard": { "pods": "2" } } });
    kube.apply("resourcequotas", quota);
    kube.apply(D, deployment("web", 3, "nginx:1"));
    kube.run(3);
    assert_eq!(kube.pods("default").len(), 2);
    let set = &kube.list(RS, "default")[0];
    let failure = condition(set, "ReplicaFailure");
    let text = failure["message"].as_str().unwrap();
    assert!(
        text.contains("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"),
        "{text}"
    );
    assert_eq!(
        kube.value("resourcequotas", "default", "q")["status"]["used"]["pods"],
        "2"
    );
    assert_eq!(
        condition(&kube.value(D, "default", "web"), "ReplicaFailure")["status"],
        "True"
    );
}

#[test]
fn old_sets_beyond_the_history_go() {
    let mut kube = Kube::new(2);
    let mut d = deployment("web", 1, "nginx:0");
    d["spec"]["revisionHistoryLimit"] = 2.into();
    kube.apply(D, d);
    kube.run(3);
    for n in 1..6 {
        kube.edit(D, "default", "web", |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] = format!("nginx:{n}").into();
        });
        kube.run(8);
    }
    assert_eq!(
        kube.list(RS, "default").len(),
        3,
        "two old ones and the present one"
    );
}
