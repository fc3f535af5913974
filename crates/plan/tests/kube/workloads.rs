//! StatefulSets, DaemonSets, Jobs and CronJobs.

use serde_json::{Value, json};

use crate::sim::{Kube, template};

const SS: &str = "statefulsets.apps";
const DS: &str = "daemonsets.apps";
const JOB: &str = "jobs.batch";
const CRON: &str = "cronjobs.batch";

fn names(kube: &Kube) -> Vec<String> {
    kube.pods("default").iter().map(|p| p.name().to_owned()).collect()
}

fn set(replicas: i64) -> Value {
    json!({
        "metadata": { "name": "db", "namespace": "default" },
        "spec": {
            "replicas": replicas, "serviceName": "db",
            "selector": { "matchLabels": { "app": "db" } },
            "template": template("db", "db:1"),
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
        },
    })
}

fn condition(object: &Value, kind: &str) -> Value {
    let list = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    list.into_iter().find(|c| c["type"] == kind).unwrap_or_default()
}

#[test]
fn stateful_pods_come_and_go_in_order() {
    let mut kube = Kube::new(2);
    kube.apply(SS, set(3));
    kube.settle();
    assert_eq!(names(&kube), ["db-0"], "the second waits for the first");
    kube.run(5);
    assert_eq!(names(&kube), ["db-0", "db-1", "db-2"]);
    let s = kube.value(SS, "default", "db");
    assert_eq!(s["status"]["readyReplicas"], 3, "{s:#}");
    assert_eq!(s["status"]["currentRevision"], s["status"]["updateRevision"]);
    let pod = kube.value("pods", "default", "db-1");
    assert_eq!(pod["spec"]["hostname"], "db-1");
    assert_eq!(pod["spec"]["subdomain"], "db");
    assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");
    kube.edit(SS, "default", "db", |s| s["spec"]["replicas"] = 1.into());
    kube.settle();
    assert!(kube.value("pods", "default", "db-2")["metadata"]["deletionTimestamp"].is_string());
    assert!(kube.value("pods", "default", "db-1")["metadata"]["deletionTimestamp"].is_null());
    kube.run(4);
    assert_eq!(names(&kube), ["db-0"]);
}

#[test]
fn stateful_rollouts_go_down_to_the_partition() {
    let mut kube = Kube::new(2);
    kube.apply(SS, set(3));
    kube.run(6);
    let image = |kube: &Kube, name: &str| {
        kube.value("pods", "default", name)["spec"]["containers"][0]["image"].clone()
    };
    kube.edit(SS, "default", "db", |s| {
        s["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 2.into();
        s["spec"]["template"]["spec"]["containers"][0]["image"] = "db:2".into();
    });
    for _ in 0..10 {
        kube.run(1);
        assert!(kube.ready("default") >= 2);
    }
    assert_eq!(image(&kube, "db-2"), "db:2");
    assert_eq!(image(&kube, "db-1"), "db:1");
    let s = kube.value(SS, "default", "db");
    assert_ne!(s["status"]["currentRevision"], s["status"]["updateRevision"]);
    assert_eq!(
        (&s["status"]["updatedReplicas"], &s["status"]["currentReplicas"]),
        (&json!(1), &json!(2))
    );
    // A pod below the partition that is lost comes back as it was.
    kube.delete("pods", "default", "db-0");
    kube.run(3);
    assert_eq!(image(&kube, "db-0"), "db:1");
    kube.edit(SS, "default", "db", |s| {
        s["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 0.into();
    });
    kube.run(15);
    assert_eq!([image(&kube, "db-0"), image(&kube, "db-1")], ["db:2", "db:2"]);
    let s = kube.value(SS, "default", "db");
    assert_eq!(s["status"]["currentRevision"], s["status"]["updateRevision"]);
    assert_eq!(kube.list("controllerrevisions.apps", "default").len(), 2);
}

#[test]
fn stateful_claims_are_made_bound_and_kept() {
    let mut kube = Kube::new(2);
    let mut s = set(2);
    s["spec"]["volumeClaimTemplates"] = json!([{
        "metadata": { "name": "data" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    }]);
    s["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({ "whenDeleted": "Retain", "whenScaled": "Delete" });
    kube.apply(SS, s);
    kube.run(8);
    assert_eq!(kube.ready("default"), 2);
    let claim = kube.value("persistentvolumeclaims", "default", "data-db-1");
    assert_eq!(claim["status"]["phase"], "Bound", "{claim:#}");
    assert_eq!(claim["spec"]["storageClassName"], "standard");
    let volume = kube.value(
        "persistentvolumes",
        "",
        claim["spec"]["volumeName"].as_str().unwrap(),
    );
    let node = kube.value("pods", "default", "db-1")["spec"]["nodeName"].clone();
    let terms = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"][0], node);
    // The pod comes back where its volume is.
    kube.delete("pods", "default", "db-1");
    kube.run(4);
    assert_eq!(kube.value("pods", "default", "db-1")["spec"]["nodeName"], node);
    kube.edit(SS, "default", "db", |s| s["spec"]["replicas"] = 1.into());
    kube.run(6);
    assert!(
        kube.value("persistentvolumeclaims", "default", "data-db-1")
            .is_null(),
        "it goes with its pod"
    );
    assert_eq!(
        kube.value("persistentvolumeclaims", "default", "data-db-0")["status"]["phase"],
        "Bound"
    );
    assert_eq!(kube.list("persistentvolumes", "").len(), 1, "its volume too");
}

#[test]
fn daemons_run_on_each_node_and_roll_one_by_one() {
    let mut kube = Kube::new(3);
    kube.apply(DS, json!({
        "metadata": { "name": "agent", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "agent" } }, "template": template("agent", "agent:1"),
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } },
        },
    }));
    kube.run(3);
    let on = |kube: &Kube| {
        let mut nodes: Vec<String> = kube
            .active("default")
            .iter()
            .map(|p| p.pod.spec.node_name.clone())
            .collect();
        nodes.sort();
        nodes
    };
    assert_eq!(on(&kube), ["node1", "node2", "node3"]);
    let d = kube.value(DS, "default", "agent");
    assert_eq!(d["status"]["numberAvailable"], 3, "{d:#}");
    assert_eq!(d["status"]["updatedNumberScheduled"], 3);
    kube.node("node4", |_| {});
    kube.node("node2", |n| n.spec.unschedulable = true);
    kube.run(3);
    assert_eq!(on(&kube).len(), 4, "a new node gets one, a cordoned one keeps it");
    kube.edit(DS, "default", "agent", |d| {
        d["spec"]["template"]["spec"]["containers"][0]["image"] = "agent:2".into();
    });
    for _ in 0..20 {
        kube.run(1);
        assert!(kube.ready("default") >= 3);
    }
    assert!(
        kube.active("default")
            .iter()
            .all(|p| p.pod.spec.containers[0].image == "agent:2")
    );
    kube.edit(DS, "default", "agent", |d| {
        d["spec"]["template"]["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": "node1" });
    });
    kube.run(10);
    assert_eq!(on(&kube), ["node1"]);
}

fn job(change: impl FnOnce(&mut Value)) -> Value {
    let mut template = template("work", "work");
    template["spec"]["restartPolicy"] = "Never".into();
    let mut job = json!({
        "metadata": { "name": "work", "namespace": "default" },
        "spec": {
            "parallelism": 1, "completions": 1, "backoffLimit": 2, "completionMode": "NonIndexed",
            "template": template,
        },
    });
    change(&mut job);
    job
}

#[test]
fn jobs_complete() {
    let mut kube = Kube::new(2);
    kube.exits.insert("work".into(), (2, 0));
    kube.apply(
        JOB,
        job(|j| {
            j["spec"]["parallelism"] = 2.into();
            j["spec"]["completions"] = 5.into();
        }),
    );
    for _ in 0..20 {
        kube.run(1);
        assert!(kube.active("default").len() <= 2);
    }
    let j = kube.value(JOB, "default", "work");
    assert_eq!(j["status"]["succeeded"], 5, "{j:#}");
    assert_eq!(condition(&j, "Complete")["status"], "True");
    assert_eq!(
        condition(&j, "SuccessCriteriaMet")["reason"],
        "CompletionsReached"
    );
    assert!(j["status"]["completionTime"].is_string());
    assert!(
        kube.pods("default")
            .iter()
            .all(|p| p.pod.metadata.finalizers.is_empty())
    );
}

#[test]
fn jobs_give_up_after_so_many_failures_and_rest_between_them() {
    let mut kube = Kube::new(1);
    kube.exits.insert("work".into(), (0, 1));
    kube.apply(JOB, job(|_| {}));
    kube.run(8);
    assert_eq!(
        kube.pods("default").len(),
        1,
        "the second comes ten seconds later"
    );
    kube.run(60);
    let j = kube.value(JOB, "default", "work");
    assert_eq!(condition(&j, "Failed")["reason"], "BackoffLimitExceeded", "{j:#}");
    assert_eq!(j["status"]["failed"], 3);
    assert_eq!(kube.events("default", "BackoffLimitExceeded").len(), 1);
}

#[test]
fn indexed_jobs_run_each_index() {
    let mut kube = Kube::new(2);
    kube.exits.insert("work".into(), (1, 0));
    kube.apply(
        JOB,
        job(|j| {
            j["spec"]["completionMode"] = "Indexed".into();
            j["spec"]["completions"] = 4.into();
            j["spec"]["parallelism"] = 3.into();
            j["spec"]["ttlSecondsAfterFinished"] = 30.into();
        }),
    );
    kube.run(2);
    let pod = &kube.pods("default")[0];
    assert!(pod.name().starts_with("work-0-"), "{}", pod.name());
    assert_eq!(pod.pod.spec.rest["hostname"], "work-0");
    kube.run(10);
    let j = kube.value(JOB, "default", "work");
    assert_eq!(j["status"]["completedIndexes"], "0-3");
    kube.run(40);
    assert!(
        kube.value(JOB, "default", "work").is_null(),
        "gone after its time"
    );
    assert!(kube.pods("default").is_empty(), "and its pods with it");
}

#[test]
fn a_failure_policy_and_a_deadline_end_jobs() {
    let mut kube = Kube::new(1);
    kube.exits.insert("work".into(), (1, 42));
    kube.apply(
        JOB,
        job(|j| {
            j["spec"]["podFailurePolicy"] = json!({ "rules": [
            { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
        ] });
        }),
    );
    kube.run(5);
    let j = kube.value(JOB, "default", "work");
    assert_eq!(condition(&j, "Failed")["reason"], "PodFailurePolicy");
    let text = condition(&j, "Failed")["message"].as_str().unwrap().to_owned();
    assert!(
        text.ends_with("failed with exit code 42 matching FailJob rule at index 0"),
        "{text}"
    );
    let mut kube = Kube::new(1);
    kube.apply(JOB, job(|j| j["spec"]["activeDeadlineSeconds"] = 5.into()));
    kube.run(10);
    let j = kube.value(JOB, "default", "work");
    assert_eq!(condition(&j, "Failed")["reason"], "DeadlineExceeded", "{j:#}");
    assert!(kube.active("default").is_empty());
}

#[test]
fn suspended_jobs_have_no_pods() {
    let mut kube = Kube::new(1);
    kube.apply(JOB, job(|j| j["spec"]["suspend"] = true.into()));
    kube.run(2);
    assert!(kube.pods("default").is_empty());
    assert_eq!(
        condition(&kube.value(JOB, "default", "work"), "Suspended")["status"],
        "True"
    );
    kube.edit(JOB, "default", "work", |j| j["spec"]["suspend"] = false.into());
    kube.run(2);
    assert_eq!(kube.active("default").len(), 1);
    assert_eq!(
        condition(&kube.value(JOB, "default", "work"), "Suspended")["reason"],
        "JobResumed"
    );
}

#[test]
fn cron_jobs_start_jobs_and_keep_a_history() {
    let mut kube = Kube::new(1);
    kube.exits.insert("work".into(), (5, 0));
    let template = job(|_| {});
    kube.apply(
        CRON,
        json!({
            "metadata": { "name": "tick", "namespace": "default" },
            "spec": {
                "schedule": "*/1 * * * *", "concurrencyPolicy": "Forbid",
                "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1,
                "jobTemplate": { "spec": template["spec"] },
            },
        }),
    );
    kube.run(30);
    assert!(kube.list(JOB, "default").is_empty());
    kube.run(32);
    let jobs = kube.list(JOB, "default");
    assert_eq!(jobs.len(), 1);
    let minutes = (kube.now.as_second() / 60).to_string();
    assert_eq!(jobs[0]["metadata"]["name"], format!("tick-{minutes}"));
    let c = kube.value(CRON, "default", "tick");
    assert_eq!(c["status"]["active"][0]["name"], jobs[0]["metadata"]["name"]);
    assert_eq!(c["status"]["lastScheduleTime"], "2026-01-01T00:01:00Z");
    kube.run(240);
    let c = kube.value(CRON, "default", "tick");
    let done = kube
        .list(JOB, "default")
        .iter()
        .filter(|j| condition(j, "Complete")["status"] == "True")
        .count();
    assert_eq!(done, 2, "two are kept");
    assert!(c["status"]["lastSuccessfulTime"].is_string(), "{c:#}");
    kube.edit(CRON, "default", "tick", |c| c["spec"]["suspend"] = true.into());
    let names = |kube: &Kube| -> std::collections::BTreeSet<String> {
        let jobs = kube.list(JOB, "default").into_iter();
        jobs.map(|j| j["metadata"]["name"].to_string()).collect()
    };
    let before = names(&kube);
    kube.run(120);
    assert!(names(&kube).is_subset(&before), "no new one");
}
