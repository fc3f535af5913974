//! Waiting for containers, their health under virtual time, and processes run beside the first one.

use std::time::Duration;

use tripod_agent::ports::{ExecRequest, RuntimeEvent};
use tripod_agent::{RemoveOptions, StopOptions, WaitCondition};
use tripod_model::ErrorKind::{Conflict, Invalid, NotFound};
use tripod_model::container::ContainerStatus::Exited;
use tripod_model::container::{ContainerSpec, HealthCheck, HealthStatus, RestartCondition, RestartPolicy};
use tripod_model::{Error, Time};

use crate::support::*;

const SECOND: i64 = 1_000_000_000;

#[test]
fn waiting_until_it_does_not_run() {
    let w = World::new();
    w.life(async |agent| {
        let id = create(&agent, "web", spec()).await.unwrap();
        // It does not run yet: at once.
        let wait = agent.wait_container("web", WaitCondition::NotRunning).unwrap();
        assert_eq!(wait.await, (0, String::new()));
        agent.start_container(&id).await.unwrap();
        let wait = tokio::spawn(agent.wait_container("web", WaitCondition::NotRunning).unwrap());
        w.settle(&agent).await;
        assert!(!wait.is_finished());
        w.runtime.exit(&id, 5);
        assert_eq!(wait.await.unwrap().0, 5);
        // What it had is free by then.
        w.assert_down(&id);
        let wait = agent.wait_container("web", WaitCondition::NotRunning).unwrap();
        assert_eq!(wait.await.0, 5);
        assert!(agent.wait_container("nobody", WaitCondition::NotRunning).is_err());
    });
}

#[test]
fn waiting_for_the_next_end() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", spec()).await;
        w.runtime.exit(&id, 5);
        until_status(&agent, &id, Exited).await;
        let wait = tokio::spawn(agent.wait_container("web", WaitCondition::NextExit).unwrap());
        w.settle(&agent).await;
        agent.start_container(&id).await.unwrap();
        w.settle(&agent).await;
        assert!(!wait.is_finished());
        w.pass(&agent, Duration::from_secs(1)).await;
        w.runtime.exit(&id, 6);
        assert_eq!(wait.await.unwrap().0, 6);

        // A start that fails is an end.
        let wait = tokio::spawn(agent.wait_container("web", WaitCondition::NextExit).unwrap());
        w.settle(&agent).await;
        w.script
            .fail("runtime.start", Error::invalid("executable file not found"));
        agent.start_container(&id).await.unwrap_err();
        assert_eq!(wait.await.unwrap(), (127, "executable file not found".to_owned()));
    });
}

#[test]
fn an_end_that_is_followed_by_a_restart_is_an_end() {
    let w = World::new();
    w.life(async |agent| {
        let spec = ContainerSpec {
            restart: RestartPolicy {
                condition: RestartCondition::Always,
                max_retries: 0,
            },
            ..spec()
        };
        let id = run(&agent, "web", spec).await;
        let waits = [WaitCondition::NotRunning, WaitCondition::NextExit]
            .map(|c| tokio::spawn(agent.wait_container("web", c).unwrap()));
        w.settle(&agent).await;
        w.runtime.exit(&id, 5);
        for wait in waits {
            assert_eq!(wait.await.unwrap().0, 5);
        }
    });
}

#[test]
fn waiting_until_it_is_removed() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", spec()).await;
        let wait = tokio::spawn(agent.wait_container("web", WaitCondition::Removed).unwrap());
        let next = tokio::spawn(agent.wait_container("web", WaitCondition::NotRunning).unwrap());
        w.runtime.exit(&id, 5);
        until_status(&agent, &id, Exited).await;
        w.settle(&agent).await;
        assert!(next.is_finished() && !wait.is_finished());
        agent
            .remove_container(&id, RemoveOptions::default())
            .await
            .unwrap();
        assert_eq!(wait.await.unwrap().0, 5);
    });
}

fn checked(start_period: i64) -> ContainerSpec {
    ContainerSpec {
        healthcheck: Some(HealthCheck {
            test: vec!["CMD-SHELL".into(), "curl localhost".into()],
            interval: 10 * SECOND,
            timeout: SECOND,
            start_period,
            start_interval: 2 * SECOND,
            retries: 2,
        }),
        ..spec()
    }
}

#[test]
fn health_goes_from_starting_to_healthy_to_unhealthy_and_back() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", checked(0)).await;
        let health = || agent.container(&id).unwrap().state.health.clone().unwrap();
        assert_eq!(health().status, HealthStatus::Starting);
        w.runtime.answer_checks(&[Some(0), Some(1), None, Some(0)]);
        w.pass(&agent, Duration::from_secs(9)).await;
        assert!(health().log.is_empty());
        let mut seen = Vec::new();
        w.pass(&agent, Duration::from_secs(1)).await;
        for _ in 0..4 {
            seen.push((health().status, health().failing_streak));
            w.pass(&agent, Duration::from_secs(10)).await;
        }
        assert_eq!(
            seen,
            [
                (HealthStatus::Healthy, 0),
                (HealthStatus::Healthy, 1),
                (HealthStatus::Unhealthy, 2),
                (HealthStatus::Healthy, 0)
            ]
        );
        let log = health().log;
        assert_eq!(log.len(), 5);
        assert_eq!(log[0].output, "checked");
        assert!(log[2].output.contains("exceeded timeout"));
        let (events, _) = agent.events().subscribe(Some(Time::UNIX_EPOCH));
        let told: Vec<_> = events
            .iter()
            .filter_map(|e| e.action.strip_prefix("health_status: "))
            .collect();
        assert_eq!(told, ["healthy", "unhealthy", "healthy"]);
    });
}

#[test]
fn failures_in_the_start_period_do_not_count() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", checked(9 * SECOND)).await;
        let health = || agent.container(&id).unwrap().state.health.clone().unwrap();
        w.runtime.answer_checks(&[Some(1); 20]);
        for n in 1..=4 {
            w.pass(&agent, Duration::from_secs(2)).await;
            assert_eq!(health().log.len(), n, "checked every two seconds at first");
            assert_eq!(health().failing_streak, 0);
        }
        // At 10, 20 s: after it.
        w.pass(&agent, Duration::from_secs(2)).await;
        assert_eq!(
            (health().status, health().failing_streak),
            (HealthStatus::Starting, 1)
        );
        w.pass(&agent, Duration::from_secs(10)).await;
        assert_eq!(
            (health().status, health().failing_streak),
            (HealthStatus::Unhealthy, 2)
        );
    });
}

#[test]
fn a_frozen_or_ended_container_is_not_checked() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", checked(0)).await;
        let checks = || {
            w.script
                .steps(&id)
                .iter()
                .filter(|s| *s == "runtime.exec_sync")
                .count()
        };
        w.pass(&agent, Duration::from_secs(10)).await;
        assert_eq!(checks(), 1);
        agent.pause_container(&id).await.unwrap();
        for _ in 0..5 {
            w.pass(&agent, Duration::from_secs(10)).await;
        }
        assert_eq!(checks(), 1);
        agent.unpause_container(&id).await.unwrap();
        w.pass(&agent, Duration::from_secs(10)).await;
        assert_eq!(checks(), 2);
        agent.stop_container(&id, StopOptions::default()).await.unwrap();
        w.pass(&agent, Duration::from_secs(60)).await;
        assert_eq!(checks(), 2);
        // The next run begins anew, with one series of checks.
        agent.start_container(&id).await.unwrap();
        let health = agent.container(&id).unwrap().state.health.clone().unwrap();
        assert_eq!((health.status, health.log.len()), (HealthStatus::Starting, 0));
        w.pass(&agent, Duration::from_secs(10)).await;
        assert_eq!(checks(), 3);
    });
}

fn command(words: &[&str]) -> ExecRequest {
    ExecRequest {
        command: words.iter().map(|w| (*w).to_owned()).collect(),
        ..ExecRequest::default()
    }
}

#[test]
fn execs_are_remembered_until_their_container_goes() {
    let w = World::new();
    w.life(async |agent| {
        let id = create(&agent, "web", spec()).await.unwrap();
        let make = |request| agent.create_exec("web", request, (false, true, true), String::new());
        refused(make(command(&["ls"])), Conflict);
        agent.start_container(&id).await.unwrap();
        refused(make(command(&[])), Invalid);
        let exec = make(command(&["ls", "-l"])).unwrap();
        assert_eq!(agent.exec_ids(&id), std::slice::from_ref(&exec));
        let _streams = agent.start_exec(&exec, None).await.unwrap();
        let record = agent.exec(&exec).unwrap();
        assert_eq!((record.running, record.pid, record.exit_code), (true, 4711, None));
        assert!(
            agent
                .start_exec(&exec, None)
                .await
                .is_err_and(|e| e.kind == Conflict)
        );
        agent.resize_exec(&exec, 24, 80).await.unwrap();
        w.runtime.tell(RuntimeEvent::ExecExited {
            id: id.clone(),
            exec_id: exec.clone(),
            code: 2,
        });
        w.settle(&agent).await;
        let record = agent.exec(&exec).unwrap();
        assert_eq!((record.running, record.exit_code), (false, Some(2)));
        assert!(agent.exec_ids(&id).is_empty());
        refused(agent.resize_exec(&exec, 24, 80).await, Conflict);

        let broken = make(command(&["nothing"])).unwrap();
        w.script
            .fail("runtime.exec", Error::invalid("executable file not found"));
        assert!(agent.start_exec(&broken, None).await.is_err());
        assert_eq!(agent.exec(&broken).unwrap().exit_code, Some(127));

        agent.pause_container(&id).await.unwrap();
        refused(make(command(&["ls"])), Conflict);
        let force = RemoveOptions {
            force: true,
            volumes: false,
        };
        agent.remove_container(&id, force).await.unwrap();
        refused(agent.exec(&exec), NotFound);
    });
}

#[test]
fn memory_killers_are_told_as_events() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", spec()).await;
        w.runtime.tell(RuntimeEvent::Oom { id: id.clone() });
        w.settle(&agent).await;
        let (events, _) = agent.events().subscribe(Some(Time::UNIX_EPOCH));
        assert_eq!(events.iter().filter(|e| e.action == "oom").count(), 1);
    });
}
