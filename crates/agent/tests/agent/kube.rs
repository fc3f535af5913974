//! Pods that run from their PodSpec, on a machine in memory.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tripod_agent::{Agent, ContainerRecord};
use tripod_model::k8s_openapi::ByteString;
use tripod_model::k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use tripod_model::network::fabric::{POD_RANGE, SERVICE_RANGE, pod_network};
use tripod_model::pod::Pod;
use tripod_model::session::{Assignment, ConfigData, InputKey, NodeSettings, PodInput, PodReport};

use crate::support::*;

/// A pod of these fields of its spec.
fn pod(spec: Value) -> Pod {
    let object = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1"},
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn container(name: &str) -> Value {
    json!({"name": name, "image": "web", "args": ["serve"], "imagePullPolicy": "IfNotPresent"})
}

fn full(pods: &[&Pod]) -> Assignment {
    let network = pod_network(
        POD_RANGE.parse().unwrap(),
        "10.244.3.0/24".parse().unwrap(),
        SERVICE_RANGE.parse().unwrap(),
        "10.96.0.10".parse().unwrap(),
    );
    Assignment {
        revision: 1,
        full: true,
        pods: pods.iter().map(|p| Arc::new((*p).clone())).collect(),
        networks: vec![Arc::new(network)],
        node: Some(Arc::new(NodeSettings {
            name: "node1".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            dns: vec!["10.96.0.10".parse().unwrap()],
            ..NodeSettings::default()
        })),
        ..Assignment::default()
    }
}

fn kube(report: &PodReport) -> &PodStatus {
    report.kube.as_ref().expect("a status")
}

fn status_of<'a>(report: &'a PodReport, name: &str) -> &'a ContainerStatus {
    let s = kube(report);
    let lists = [&s.container_statuses, &s.init_container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    all.find(|c| c.name == name).unwrap()
}

fn phase(report: &PodReport) -> &str {
    kube(report).phase.as_deref().unwrap()
}

/// The newest run of a container of the pod.
fn newest(agent: &Agent, name: &str) -> Option<Arc<ContainerRecord>> {
    let mut all = agent.containers();
    all.retain(|r| r.name.starts_with(&format!("k8s_{name}_p_ns_u1_")));
    all.into_iter().max_by_key(|r| r.owner.attempt())
}

fn reasons(session: &FakeSession, pod: &Pod) -> Vec<String> {
    let reports = session.reports(pod);
    reports
        .iter()
        .flat_map(|r| &r.events)
        .map(|e| e.reason.clone())
        .collect()
}

#[test]
fn a_pod_runs_with_its_containers_in_one_sandbox() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let pod = pod(json!({"initContainers": [container("init")], "containers": [container("a"), container("b")]}));
            session.assign(full(&[&pod]));
            let is_up = |name: &'static str| move |r: &PodReport| status_of(r, name).state.as_ref().unwrap().running.is_some();
            session.until(&pod, is_up("init")).await;
            assert!(newest(&agent, "a").is_none(), "the init container comes first");
            w.runtime.exit(&newest(&agent, "init").unwrap().id, 0);
            let report = session.until(&pod, |r| phase(r) == "Running" && r.serving).await;
            assert_eq!(kube(&report).pod_ip.as_deref(), Some("10.244.3.2"));
            assert_eq!(kube(&report).host_ip.as_deref(), Some("192.0.2.1"));
            assert_eq!(kube(&report).qos_class.as_deref(), Some("BestEffort"));
            let (a, b) = (newest(&agent, "a").unwrap(), newest(&agent, "b").unwrap());
            assert_eq!(a.name, "k8s_a_p_ns_u1_0");
            assert_eq!(a.spec.network.mode, b.spec.network.mode);
            assert_eq!(a.spec.labels["io.kubernetes.pod.name"], "p");
            assert!(w.net.sandbox(a.spec.network.mode.strip_prefix("sandbox:").unwrap()).is_some());
            assert!(w.net.sandbox(&a.id).is_none());
            let events = reasons(session, &pod);
            for reason in ["Pulled", "Created", "Started"] {
                assert!(events.iter().any(|r| r == reason), "{events:?}");
            }
            // It is deleted: everything goes, and the manager hears of it.
            let mut going = pod.clone();
            going.metadata.deletion_timestamp = Some(tripod_model::Time::UNIX_EPOCH);
            going.metadata.deletion_grace_period_seconds = Some(30);
            session.assign_pods(&[&going]);
            session.until(&pod, |r| r.gone).await;
            assert!(agent.containers().is_empty());
            w.assert_gone(&a.id);
            session.assign(Assignment {
                removed_pods: vec!["ns/p".into()],
                ..Assignment::default()
            });
            w.settle(&agent).await;
        })
        .await;
    });
}

#[test]
fn a_container_that_crashes_is_started_again_less_and_less_often() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let pod = pod(json!({"containers": [container("a")]}));
            session.assign(full(&[&pod]));
            let restarts = |n: i32| {
                move |r: &PodReport| {
                    let c = status_of(r, "a");
                    c.restart_count == n && c.state.as_ref().unwrap().running.is_some()
                }
            };
            session.until(&pod, restarts(0)).await;
            w.runtime.exit(&newest(&agent, "a").unwrap().id, 3);
            session.until(&pod, restarts(1)).await;
            w.runtime.exit(&newest(&agent, "a").unwrap().id, 3);
            let report = session
                .until(&pod, |r| {
                    status_of(r, "a").state.as_ref().unwrap().waiting.is_some()
                        && status_of(r, "a").restart_count == 1
                })
                .await;
            let waiting = status_of(&report, "a").state.clone().unwrap().waiting.unwrap();
            assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
            assert_eq!(
                waiting.message.as_deref(),
                Some("back-off 10s restarting failed container=a pod=p_ns(u1)")
            );
            let last = status_of(&report, "a")
                .last_state
                .clone()
                .unwrap()
                .terminated
                .unwrap();
            assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
            w.pass(&agent, Duration::from_secs(9)).await;
            assert_eq!(newest(&agent, "a").unwrap().owner.attempt(), 1);
            w.pass(&agent, Duration::from_secs(2)).await;
            session.until(&pod, restarts(2)).await;
            assert!(reasons(session, &pod).iter().any(|r| r == "BackOff"));
            assert_eq!(agent.containers().len(), 2, "the run before is kept for its log");
        })
        .await;
    });
}

#[test]
fn a_pod_that_is_never_restarted_succeeds_or_fails() {
    for (code, want) in [(0, "Succeeded"), (1, "Failed")] {
        let w = World::new();
        w.life(async |agent| {
            in_session(&agent, async |session| {
                let pod = pod(json!({"restartPolicy": "Never", "containers": [container("a")]}));
                session.assign(full(&[&pod]));
                session.until(&pod, |r| phase(r) == "Running").await;
                w.runtime.exit(&newest(&agent, "a").unwrap().id, code);
                let report = session.until(&pod, |r| phase(r) == want).await;
                assert_eq!(report.exit_code, Some(code));
                w.settle(&agent).await;
                assert!(w.net.sandbox_ids().is_empty(), "its network has gone");
                assert!(newest(&agent, "a").is_some(), "its log is kept");
            })
            .await;
        });
    }
}

#[test]
fn a_killed_daemon_adopts_its_pods() {
    let w = World::new();
    let pod = pod(json!({"containers": [container("a")]}));
    let id = w.life(async |agent| {
        in_session(&agent, async |session| {
            session.assign(full(&[&pod]));
            session.until(&pod, |r| r.serving).await;
            newest(&agent, "a").unwrap().id.clone()
        })
        .await
    });
    w.life(async |agent| {
        in_session(&agent, async |session| {
            session.assign(full(&[&pod]));
            let report = session.until(&pod, |r| r.serving).await;
            let c = status_of(&report, "a");
            assert_eq!(c.restart_count, 0);
            assert_eq!(c.container_id.as_deref(), Some(format!("tripod://{id}").as_str()));
            assert_eq!(kube(&report).pod_ip.as_deref(), Some("10.244.3.2"));
            assert_eq!(w.runtime.requests(&id).len(), 1, "it was not started again");
        })
        .await;
    });
    // The manager does not know it any more.
    w.life(async |agent| {
        in_session(&agent, async |session| {
            session.assign(full(&[]));
            w.settle(&agent).await;
            w.settle(&agent).await;
            w.assert_gone(&id);
            assert!(w.net.sandbox_ids().is_empty());
        })
        .await;
    });
}

#[test]
fn what_a_pod_refers_to_is_waited_for() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let mut a = container("a");
            a["env"] = json!([{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "colour"}}},
                {"name": "TEXT", "value": "is $(COLOUR)"}]);
            let pod = pod(json!({"containers": [a]}));
            session.assign(full(&[&pod]));
            let waits = |r: &PodReport| {
                let waiting = status_of(r, "a").state.as_ref().unwrap().waiting.clone();
                waiting.is_some_and(|w| w.reason.as_deref() == Some("CreateContainerConfigError"))
            };
            let report = session.until(&pod, waits).await;
            let waiting = status_of(&report, "a").state.clone().unwrap().waiting.unwrap();
            assert_eq!(waiting.message.as_deref(), Some("configmap \"c\" not found"));
            let data = ConfigData {
                namespace: "ns".into(),
                name: "c".into(),
                data: [("colour".to_owned(), ByteString(b"red".to_vec()))].into(),
                ..ConfigData::default()
            };
            session.assign(Assignment {
                inputs: vec![Arc::new(PodInput::ConfigMap(data))],
                ..Assignment::default()
            });
            session.until(&pod, |r| r.serving).await;
            let env = &newest(&agent, "a").unwrap().spec.env;
            assert!(env.contains(&"COLOUR=red".to_owned()) && env.contains(&"TEXT=is red".to_owned()), "{env:?}");
            assert_eq!(InputKey::ConfigMap("ns".into(), "c".into()), InputKey::ConfigMap("ns".into(), "c".into()));
        })
        .await;
    });
}

#[test]
fn probes_say_what_is_ready_and_what_is_to_be_restarted() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let mut a = container("a");
            let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 2});
            a["livenessProbe"] = probe;
            let pod = pod(json!({"containers": [a]}));
            session.assign(full(&[&pod]));
            session.until(&pod, |r| r.serving).await;
            w.runtime.answer_checks(&[Some(1), Some(1)]);
            for _ in 0..3 {
                w.pass(&agent, Duration::from_secs(1)).await;
            }
            session
                .until(&pod, |r| status_of(r, "a").restart_count == 1)
                .await;
            let events = reasons(session, &pod);
            assert!(
                events.iter().any(|r| r == "Unhealthy") && events.iter().any(|r| r == "Killing"),
                "{events:?}"
            );
        })
        .await;
    });
}

#[test]
fn a_namesake_waits_for_nobody() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let first = pod(json!({"containers": [container("a")]}));
            session.assign(full(&[&first]));
            session.until(&first, |r| r.serving).await;
            let mut second = first.clone();
            second.metadata.uid = "u2".into();
            session.assign_pods(&[&second]);
            session.until(&second, |r| r.serving).await;
            session.until(&first, |r| r.gone).await;
            let left = agent.containers();
            assert!(left.iter().all(|r| r.name.contains("_u2_")), "{:?}", left.len());
        })
        .await;
    });
}
