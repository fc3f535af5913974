//! The life of a task: made ready, started, serving; and what can go wrong on the way.

use std::sync::Arc;
use std::time::Duration;

use tripod_model::container::ContainerStatus::Created;
use tripod_model::container::{HealthCheck, HealthStatus};
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::session::{Assignment, DataItem};
use tripod_model::swarm::{DataFile, DataReference, TaskState};
use tripod_model::{Error, ErrorKind};

use crate::support::*;

/// A full assignment of pods in the overlay network.
fn full(pods: &[&Pod]) -> Assignment {
    Assignment {
        revision: 7,
        full: true,
        pods: pods.iter().map(|p| Arc::new((*p).clone())).collect(),
        networks: vec![overlay()],
        ..Assignment::default()
    }
}

#[test]
fn a_task_is_prepared_started_and_then_served() {
    let w = World::new();
    w.net.be_silent();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let pod = task("t1", Some("10.0.1.7/24"));
            session.assign(full(&[&pod]));
            let report = session.until_state(&pod, TaskState::Running).await;
            assert!(!report.serving, "nothing listens yet");
            let id = agent.container_of("uid-t1").unwrap();
            assert_eq!(
                (report.container_id.as_str(), report.pod.as_str()),
                (id.as_str(), "swarm/t1")
            );
            assert_eq!(report.pid, w.runtime.process(&id).unwrap().pid);
            assert_eq!(report.message, "started");
            assert_eq!(
                session.states(&pod),
                [
                    TaskState::Preparing,
                    TaskState::Ready,
                    TaskState::Starting,
                    TaskState::Running
                ]
            );
            assert_eq!(session.acknowledged(), [7]);
            let record = agent.container(&id).unwrap();
            assert_eq!(record.name, "web.1.t1");
            assert_eq!(record.spec.labels["com.docker.swarm.task.id"], "t1");
            assert_eq!(address(&agent, &id), "10.0.1.7");
            assert!(w.net.has_network("overlay"));
            w.settle(&agent).await;
            assert!(!session.reports(&pod).iter().any(|r| r.serving));
            w.net.listen();
            session.until(&pod, |r| r.serving).await;
            assert_eq!(session.reports(&pod).len(), 5);
        })
        .await;
    });
}

#[test]
fn a_task_that_listens_on_nothing_is_served_after_some_seconds() {
    let w = World::new();
    w.net.be_silent();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let pod = task("t1", None);
            session.assign(full(&[&pod]));
            session.until_state(&pod, TaskState::Running).await;
            w.pass(&agent, Duration::from_millis(3900)).await;
            assert!(!session.reports(&pod).iter().any(|r| r.serving));
            w.pass(&agent, Duration::from_millis(200)).await;
            session.until(&pod, |r| r.serving).await;
        })
        .await;
    });
}

#[test]
fn a_task_with_a_check_runs_when_it_is_healthy() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let mut pod = task("t1", None);
            let swarm = pod.extension.swarm.as_mut().unwrap();
            swarm.template.container.healthcheck = Some(HealthCheck {
                test: vec!["CMD".into(), "check".into()],
                interval: 1_000_000_000,
                retries: 2,
                ..HealthCheck::default()
            });
            session.assign(full(&[&pod]));
            session.until_state(&pod, TaskState::Starting).await;
            w.settle(&agent).await;
            let id = agent.container_of("uid-t1").unwrap();
            assert!(w.runtime.process(&id).is_some());
            assert_eq!(session.states(&pod).last(), Some(&TaskState::Starting));
            w.pass(&agent, Duration::from_secs(1)).await;
            session.until(&pod, |r| r.serving).await;
            // It falls ill.
            w.runtime.answer_checks(&[Some(1), Some(1)]);
            w.pass(&agent, Duration::from_secs(1)).await;
            w.pass(&agent, Duration::from_secs(1)).await;
            let report = session.until_state(&pod, TaskState::Failed).await;
            assert_eq!(report.error, "task: non-zero exit (unhealthy container)");
            assert!(!report.serving);
            w.assert_down(&id);
            let health = agent.container(&id).unwrap().state.health.clone().unwrap();
            assert_eq!(health.status, HealthStatus::Unhealthy);
        })
        .await;
    });
}

#[test]
fn a_task_that_is_to_be_ready_waits_for_its_start() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let pod = task("t1", None);
            let ready = with_state(&pod, DesiredState::Ready, TaskState::Assigned);
            session.assign(full(&[&ready]));
            session.until_state(&pod, TaskState::Ready).await;
            w.pass(&agent, Duration::from_secs(60)).await;
            let id = agent.container_of("uid-t1").unwrap();
            assert_eq!(status(&agent, &id), Created);
            assert_eq!(session.states(&pod).last(), Some(&TaskState::Ready));
            session.assign_pods(&[&with_state(&pod, DesiredState::Running, TaskState::Ready)]);
            session.until(&pod, |r| r.serving).await;
        })
        .await;
    });
}

#[test]
fn a_missing_image_is_pulled_or_the_task_rejected() {
    let w = World::new();
    w.images.add_remote("shop");
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let with_image = |name: &str, image: &str| {
                let mut pod = task(name, None);
                let swarm = pod.extension.swarm.as_mut().unwrap();
                swarm.template.container.image = image.into();
                pod
            };
            let (good, bad) = (with_image("good", "shop"), with_image("bad", "nothing"));
            session.assign(full(&[&good, &bad]));
            session.until_state(&good, TaskState::Running).await;
            let report = session.until_state(&bad, TaskState::Rejected).await;
            assert!(
                report.error.contains("No such image: nothing"),
                "{}",
                report.error
            );
            assert_eq!(agent.containers().len(), 1);
            // Its end is no news.
            session.assign(Assignment {
                removed_pods: vec!["swarm/bad".into()],
                ..Assignment::default()
            });
            w.settle(&agent).await;
            assert_eq!(session.states(&bad).last(), Some(&TaskState::Rejected));
        })
        .await;
    });
}

#[test]
fn a_failed_start_is_a_failed_task_and_leaves_no_run_behind() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let pod = task("t1", Some("10.0.1.7/24"));
            w.script
                .fail("runtime.start", Error::invalid("executable file not found"));
            session.assign(full(&[&pod]));
            let report = session.until_state(&pod, TaskState::Failed).await;
            assert_eq!(
                report.error,
                "starting container failed: executable file not found"
            );
            w.pass(&agent, Duration::from_secs(60)).await;
            let id = agent.container_of("uid-t1").unwrap();
            w.assert_down(&id);
            assert_eq!(session.states(&pod).last(), Some(&TaskState::Failed));
            // Forgotten with the pod.
            session.assign(Assignment {
                removed_pods: vec!["swarm/t1".into()],
                ..Assignment::default()
            });
            w.settle(&agent).await;
            w.assert_gone(&id);
        })
        .await;
    });
}

#[test]
fn a_task_that_is_to_end_while_its_image_is_pulled_ends_at_once() {
    let w = World::new();
    w.images.add_remote("shop");
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let mut pod = task("t1", None);
            pod.extension.swarm.as_mut().unwrap().template.container.image = "shop".into();
            let pull = w.script.hold("images.pull");
            session.assign(full(&[&pod]));
            pull.reached().await;
            session.assign_pods(&[&with_state(&pod, DesiredState::Shutdown, TaskState::Preparing)]);
            session.until_state(&pod, TaskState::Shutdown).await;
            assert!(agent.containers().is_empty());
        })
        .await;
    });
}

#[test]
fn a_task_that_is_to_end_while_its_container_is_made_leaves_nothing_behind() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let pod = task("t1", None);
            let hold = w.script.hold("images.prepare");
            session.assign(full(&[&pod]));
            hold.reached().await;
            session.assign_pods(&[&with_state(&pod, DesiredState::Shutdown, TaskState::Preparing)]);
            w.settle(&agent).await;
            hold.release();
            session.until_state(&pod, TaskState::Shutdown).await;
            w.settle(&agent).await;
            assert_eq!(w.images.snapshot_ids(), Vec::<String>::new());
            assert_eq!(w.files(), Vec::<String>::new());
            assert!(agent.containers().is_empty());
        })
        .await;
    });
}

#[test]
fn secrets_and_configs_are_there_while_it_runs() {
    use std::os::unix::fs::MetadataExt;
    let uid = std::fs::metadata("/proc/self").unwrap().uid().to_string();
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let mut pod = task("t1", None);
            let reference = |id: &str, name: &str| DataReference {
                id: id.into(),
                name: name.into(),
                file: Some(DataFile {
                    name: name.into(),
                    uid: uid.clone(),
                    gid: uid.clone(),
                    mode: 0o400,
                }),
            };
            let container = &mut pod.extension.swarm.as_mut().unwrap().template.container;
            container.env = vec!["MODE=fast".into()];
            container.secrets = vec![reference("s1", "key")];
            container.configs = vec![reference("c1", "conf")];
            let item = |id: &str, templating: &str, data: &str| {
                Arc::new(DataItem {
                    id: id.into(),
                    name: id.into(),
                    secret: id == "s1",
                    templating: templating.into(),
                    data: data.into(),
                })
            };
            let mut assignment = full(&[&pod]);
            assignment.data = vec![
                item("s1", "", "hush"),
                item(
                    "c1",
                    "golang",
                    "{{.Task.Name}} {{env \"MODE\"}} {{secret \"key\"}}",
                ),
            ];
            session.assign(assignment);
            session.until_state(&pod, TaskState::Running).await;
            let id = agent.container_of("uid-t1").unwrap();
            let mounts = w.runtime.requests(&id).remove(0).mounts;
            let read = |target: &str| {
                let mount = mounts.iter().find(|m| m.target == target).unwrap();
                std::fs::read_to_string(mount.source.as_ref().unwrap()).unwrap()
            };
            assert_eq!(read("/run/secrets/key"), "hush");
            assert_eq!(read("/conf"), "web.1.t1 fast hush");
            w.runtime.exit(&id, 0);
            session.until_state(&pod, TaskState::Complete).await;
            w.settle(&agent).await;
            w.assert_down(&id);

            // One that is not there keeps a task from its start.
            let mut poor = task("t2", None);
            let container = &mut poor.extension.swarm.as_mut().unwrap().template.container;
            container.secrets = vec![reference("s9", "other")];
            session.assign_pods(&[&poor]);
            let report = session.until_state(&poor, TaskState::Rejected).await;
            assert!(report.error.contains("secret other"), "{}", report.error);
        })
        .await;
        assert_eq!(agent.exec("nothing").unwrap_err().kind, ErrorKind::NotFound);
    });
}
