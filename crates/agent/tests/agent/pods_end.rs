//! The end of tasks: drained, stopped, reported, removed; and what is left over from an earlier life.

use std::sync::Arc;
use std::time::Duration;

use tripod_agent::RemoveOptions;
use tripod_model::container::ContainerStatus::{Exited, Running};
use tripod_model::network::{Backend, Frontend, FrontendPorts};
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::session::Assignment;
use tripod_model::swarm::TaskState;
use tripod_model::{Error, ErrorKind};

use crate::support::*;

fn full(pods: &[&Pod]) -> Assignment {
    Assignment {
        full: true,
        pods: pods.iter().map(|p| Arc::new((*p).clone())).collect(),
        networks: vec![overlay()],
        ..Assignment::default()
    }
}

fn frontend(backends: &[&str]) -> Frontend {
    Frontend {
        id: "service".into(),
        network_id: "overlay".into(),
        vip: Some("10.0.1.2".parse().unwrap()),
        ports: FrontendPorts::All,
        published: Vec::new(),
        backends: backends
            .iter()
            .map(|a| Backend::new(a.parse().unwrap(), "t1", ""))
            .collect(),
        ..Frontend::default()
    }
}

/// A task that serves, and its container.
async fn serving(agent: &tripod_agent::Agent, session: &FakeSession) -> (Pod, String) {
    let pod = task("t1", Some("10.0.1.7/24"));
    let mut assignment = full(&[&pod]);
    assignment.frontends = Some(Arc::new(vec![frontend(&["10.0.1.7"])]));
    session.assign(assignment);
    session.until(&pod, |r| r.serving).await;
    (pod, agent.container_of("uid-t1").unwrap())
}

#[test]
fn connections_go_elsewhere_then_drain_before_the_stop_signal() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let (pod, id) = serving(&agent, session).await;
            let address = "10.0.1.7".parse().unwrap();
            w.net.set_established(address, 2);
            w.script.forget();
            let down = with_state(&pod, DesiredState::Shutdown, TaskState::Running);
            session.assign(Assignment {
                pods: vec![Arc::new(down)],
                frontends: Some(Arc::new(vec![frontend(&[])])),
                ..Assignment::default()
            });
            w.settle(&agent).await;
            assert!(w.net.frontends()[0].backends.is_empty());
            for _ in 0..20 {
                w.pass(&agent, Duration::from_millis(50)).await;
            }
            assert_eq!(status(&agent, &id), Running, "connections are left");
            w.net.set_established(address, 0);
            w.pass(&agent, Duration::from_millis(50)).await;
            session.until_state(&pod, TaskState::Shutdown).await;
            let calls = w.script.calls();
            let at = |step: &str| calls.iter().position(|c| c.step == step).unwrap();
            assert!(at("net.set_frontends") < at("runtime.signal 15"));
            let report = session.reports(&pod).pop().unwrap();
            assert_eq!((report.exit_code, report.serving), (Some(143), false));
            // It is remembered until it is to be removed.
            w.pass(&agent, Duration::from_secs(60)).await;
            assert_eq!(status(&agent, &id), Exited);
            session.assign_pods(&[&with_state(&pod, DesiredState::Remove, TaskState::Shutdown)]);
            w.settle(&agent).await;
            w.assert_gone(&id);
        })
        .await;
    });
}

#[test]
fn connections_that_never_end_are_cut_after_half_the_grace() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let (pod, id) = serving(&agent, session).await;
            w.net.set_established("10.0.1.7".parse().unwrap(), 1);
            session.assign_pods(&[&with_state(&pod, DesiredState::Shutdown, TaskState::Running)]);
            w.pass(&agent, Duration::from_millis(4900)).await;
            assert_eq!(status(&agent, &id), Running);
            w.pass(&agent, Duration::from_millis(200)).await;
            session.until_state(&pod, TaskState::Shutdown).await;
        })
        .await;
    });
}

#[test]
fn an_end_by_itself_is_complete_or_failed() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            for (name, code, oom, state, error) in [
                ("t1", Some(0), false, TaskState::Complete, ""),
                ("t2", Some(3), false, TaskState::Failed, "task: non-zero exit (3)"),
                (
                    "t3",
                    Some(137),
                    true,
                    TaskState::Failed,
                    "task: non-zero exit (137): out of memory",
                ),
                ("t4", None, false, TaskState::Failed, "task: non-zero exit (255)"),
            ] {
                let pod = task(name, None);
                session.assign_pods(&[&pod]);
                session.until(&pod, |r| r.serving).await;
                let id = agent.container_of(&pod.metadata.uid).unwrap();
                w.runtime.end(&id, code, oom);
                let report = session.until_state(&pod, state).await;
                assert_eq!(report.error, error);
                assert_eq!(report.exit_code, Some(code.unwrap_or(255)));
                w.assert_down(&id);
                // Its restart is the cluster's to decide.
                w.pass(&agent, Duration::from_secs(60)).await;
                assert_eq!(status(&agent, &id), Exited);
            }
        })
        .await;
    });
}

#[test]
fn a_container_that_somebody_else_removed_is_a_failed_task() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let (pod, id) = serving(&agent, session).await;
            let force = RemoveOptions {
                force: true,
                volumes: true,
            };
            agent.remove_container(&id, force).await.unwrap();
            session.until_state(&pod, TaskState::Failed).await;
            w.settle(&agent).await;
            assert!(agent.containers().is_empty());
        })
        .await;
    });
}

#[test]
fn a_pod_that_is_gone_takes_its_container_with_it() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let (pod, id) = serving(&agent, session).await;
            // A stop that fails is told, and tried again.
            w.script.fail("runtime.signal 15", Error::internal("no luck"));
            session.assign(Assignment {
                removed_pods: vec!["swarm/t1".into()],
                ..Assignment::default()
            });
            w.settle(&agent).await;
            w.assert_gone(&id);
            assert_eq!(session.states(&pod).last(), Some(&TaskState::Shutdown));
            assert!(w.runtime.unacknowledged().is_empty());
        })
        .await;
    });
}

#[test]
fn networks_are_left_when_nobody_is_in_them() {
    let w = World::new();
    w.life(async |agent| {
        in_session(&agent, async |session| {
            let (_, id) = serving(&agent, session).await;
            w.runtime.ignore_stop(&id);
            session.assign(Assignment {
                removed_pods: vec!["swarm/t1".into()],
                removed_networks: vec!["overlay".into()],
                ..Assignment::default()
            });
            w.pass(&agent, Duration::from_secs(5)).await;
            assert!(w.net.has_network("overlay"), "a container is in it");
            assert_eq!(status(&agent, &id), Running);
            w.pass(&agent, Duration::from_secs(5)).await;
            w.assert_gone(&id);
            assert!(!w.net.has_network("overlay"));
            assert!(agent.network("backend").is_err());
        })
        .await;
    });
}

#[test]
fn pods_run_on_between_sessions_and_their_ends_are_told_in_the_next() {
    let w = World::new();
    w.life(async |agent| {
        let (pod, id) = in_session(&agent, async |session| serving(&agent, session).await).await;
        w.settle(&agent).await;
        assert_eq!(status(&agent, &id), Running);
        let mut known = with_state(&pod, DesiredState::Running, TaskState::Running);
        known.state.serving = true;
        in_session(&agent, async |session| {
            session.assign(full(&[&known]));
            w.settle(&agent).await;
            assert!(session.reports(&pod).is_empty(), "nothing new");
            assert_eq!(agent.containers().len(), 1);
        })
        .await;
        w.runtime.exit(&id, 1);
        w.settle(&agent).await;
        in_session(&agent, async |session| {
            session.assign(full(&[&known]));
            let report = session.until_state(&pod, TaskState::Failed).await;
            assert_eq!(report.error, "task: non-zero exit (1)");
        })
        .await;
    });
}

#[test]
fn a_daemon_that_died_before_it_told_that_a_task_serves_tells_it() {
    let w = World::new();
    let pod = w.life(async |agent| in_session(&agent, async |s| serving(&agent, s).await.0).await);
    w.life(async |agent| {
        in_session(&agent, async |session| {
            session.assign(full(&[&with_state(
                &pod,
                DesiredState::Running,
                TaskState::Running,
            )]));
            session.until(&pod, |r| r.serving).await;
            assert_eq!(w.net.adopted().len(), 1);
        })
        .await;
    });
}

#[test]
fn pods_and_networks_of_an_earlier_life_go_with_a_full_assignment() {
    let w = World::new();
    let (id, local) = w.life(async |agent| {
        let local = run(&agent, "local", spec()).await;
        let (_, id) = in_session(&agent, async |s| serving(&agent, s).await).await;
        (id, local)
    });
    w.life(async |agent| {
        in_session(&agent, async |session| {
            assert_eq!(status(&agent, &id), Running);
            let other = task("t2", None);
            session.assign(Assignment {
                networks: Vec::new(),
                ..full(&[&other])
            });
            session.until(&other, |r| r.serving).await;
            w.settle(&agent).await;
            assert_eq!(agent.container(&id).unwrap_err().kind, ErrorKind::NotFound);
            assert!(w.net.sandbox(&id).is_none());
            assert_eq!(status(&agent, &local), Running);
            assert!(!w.net.has_network("overlay"));
            assert!(w.net.has_network(&agent.network("bridge").unwrap().id));

            // A full assignment in the same session means what it says too.
            session.assign(full(&[]));
            session.until_state(&other, TaskState::Shutdown).await;
            w.settle(&agent).await;
            assert!(agent.container_of("uid-t2").is_none());
        })
        .await;
    });
}

#[test]
fn leaving_the_cluster_removes_all_that_was_the_clusters() {
    let w = World::new();
    w.life(async |agent| {
        let local = run(&agent, "local", spec()).await;
        let (_, id) = in_session(&agent, async |s| serving(&agent, s).await).await;
        agent.leave_cluster().await.unwrap();
        assert!(w.net.sandbox(&id).is_none() && w.images.mounted(&id).is_none());
        assert!(w.net.frontends().is_empty());
        assert!(!w.net.has_network("overlay"));
        assert_eq!(agent.containers().len(), 1);
        assert_eq!(status(&agent, &local), Running);
    });
}
