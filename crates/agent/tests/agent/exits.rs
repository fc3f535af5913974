//! Ends of containers: restart policies, marks of stop and kill, and reports that come late.

use std::time::Duration;

use tripod_agent::ports::Exit;
use tripod_agent::{RemoveOptions, StopOptions, UpdateContainer};
use tripod_model::container::ContainerStatus::{Exited, Restarting, Running};
use tripod_model::container::{ContainerSpec, RestartCondition, RestartPolicy};
use tripod_model::{Error, ErrorKind};

use crate::support::*;

fn restarting(condition: RestartCondition, max_retries: i64) -> ContainerSpec {
    ContainerSpec {
        restart: RestartPolicy {
            condition,
            max_retries,
        },
        ..spec()
    }
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn restarts_come_after_a_delay_that_doubles_and_is_forgotten_after_a_steady_run() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", restarting(RestartCondition::Always, 0)).await;
        for (n, delay) in [100, 200, 400, 800].into_iter().enumerate() {
            w.runtime.exit(&id, 0);
            let record = until_status(&agent, &id, Restarting).await;
            assert_eq!(record.state.restart_count, n as i64);
            w.settle(&agent).await;
            w.assert_down(&id);
            w.pass(&agent, MS(delay - 2)).await;
            assert_eq!(status(&agent, &id), Restarting, "too early");
            w.pass(&agent, MS(2)).await;
            let record = until_status(&agent, &id, Running).await;
            assert_eq!(
                (record.run, record.state.restart_count),
                (n as u64 + 2, n as i64 + 1)
            );
        }
        w.pass(&agent, Duration::from_secs(11)).await;
        w.runtime.exit(&id, 0);
        until_status(&agent, &id, Restarting).await;
        w.pass(&agent, MS(101)).await;
        assert_eq!(status(&agent, &id), Running);
    });
}

#[test]
fn on_failure_gives_up_after_its_retries_and_lets_success_be() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", restarting(RestartCondition::OnFailure, 2)).await;
        for _ in 0..2 {
            w.runtime.exit(&id, 1);
            until_status(&agent, &id, Restarting).await;
            w.pass(&agent, Duration::from_secs(1)).await;
            assert_eq!(status(&agent, &id), Running);
        }
        w.runtime.exit(&id, 1);
        until_status(&agent, &id, Exited).await;
        w.pass(&agent, Duration::from_secs(100)).await;
        assert_eq!(status(&agent, &id), Exited);

        // A start of the user's counts anew.
        agent.start_container(&id).await.unwrap();
        w.runtime.exit(&id, 1);
        until_status(&agent, &id, Restarting).await;
        w.pass(&agent, Duration::from_secs(1)).await;
        w.runtime.exit(&id, 0);
        until_status(&agent, &id, Exited).await;
    });
    // Neither does a new daemon start what ended well.
    w.life(async |agent| {
        w.pass(&agent, Duration::from_secs(100)).await;
        assert_eq!(agent.containers()[0].state.status, Exited);
    });
}

#[test]
fn a_stop_during_the_back_off_ends_it() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", restarting(RestartCondition::Always, 0)).await;
        w.runtime.exit(&id, 1);
        until_status(&agent, &id, Restarting).await;
        refused(
            agent.remove_container(&id, RemoveOptions::default()).await,
            ErrorKind::Conflict,
        );
        agent.stop_container(&id, StopOptions::default()).await.unwrap();
        assert_eq!(status(&agent, &id), Exited);
        w.pass(&agent, Duration::from_secs(100)).await;
        assert_eq!(status(&agent, &id), Exited);
        assert_eq!(w.runtime.requests(&id).len(), 1);
    });
}

#[test]
fn a_start_during_the_back_off_is_the_next_run() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", restarting(RestartCondition::Always, 0)).await;
        w.runtime.exit(&id, 1);
        until_status(&agent, &id, Restarting).await;
        agent.start_container(&id).await.unwrap();
        w.pass(&agent, Duration::from_secs(100)).await;
        let record = agent.container(&id).unwrap();
        assert_eq!((record.run, record.state.restart_count), (2, 0));
    });
}

/// A restart by policy that is under way, held in the runtime.
async fn held_restart(w: &World, agent: &tripod_agent::Agent) -> (String, std::sync::Arc<Hold>) {
    let id = run(agent, "web", restarting(RestartCondition::Always, 0)).await;
    w.runtime.exit(&id, 1);
    until_status(agent, &id, Restarting).await;
    let hold = w.script.hold("runtime.start");
    w.pass(agent, MS(100)).await;
    hold.reached().await;
    (id, hold)
}

#[test]
fn a_stop_while_the_restart_is_under_way_stops_it() {
    let w = World::new();
    w.life(async |agent| {
        let (id, hold) = held_restart(&w, &agent).await;
        let (stopped, ()) = tokio::join!(agent.stop_container(&id, StopOptions::default()), async {
            w.settle(&agent).await;
            hold.release();
        });
        stopped.unwrap();
        w.pass(&agent, Duration::from_secs(100)).await;
        assert_eq!(status(&agent, &id), Exited);
        w.assert_down(&id);
    });
}

#[test]
fn a_forced_removal_while_the_restart_is_under_way_removes_it() {
    let w = World::new();
    w.life(async |agent| {
        let (id, hold) = held_restart(&w, &agent).await;
        let force = RemoveOptions {
            force: true,
            volumes: false,
        };
        let (removed, ()) = tokio::join!(agent.remove_container(&id, force), async {
            w.settle(&agent).await;
            hold.release();
        });
        removed.unwrap();
        w.assert_gone(&id);
    });
}

#[test]
fn what_a_user_stopped_or_killed_is_not_started_again() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", restarting(RestartCondition::Always, 0)).await;
        agent.stop_container(&id, StopOptions::default()).await.unwrap();
        agent.start_container(&id).await.unwrap();
        agent.kill_container(&id, 9).await.unwrap();
        w.pass(&agent, Duration::from_secs(100)).await;
        let record = agent.container(&id).unwrap();
        assert_eq!((record.state.status, record.state.exit_code), (Exited, 137));
        assert!(record.state.stopped_by_user);

        // Another signal is no wish to end it: the process that dies of it is started again.
        agent.start_container(&id).await.unwrap();
        agent.kill_container(&id, 1).await.unwrap();
        assert_eq!(status(&agent, &id), Running);
        agent.kill_container(&id, 2).await.unwrap();
        until_status(&agent, &id, Restarting).await;
    });
}

#[test]
fn a_restart_that_fails_ends_the_matter() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", restarting(RestartCondition::Always, 0)).await;
        w.script.fail("runtime.start", Error::internal("no luck"));
        w.runtime.exit(&id, 1);
        until_status(&agent, &id, Restarting).await;
        w.pass(&agent, MS(100)).await;
        let record = until_status(&agent, &id, Exited).await;
        assert_eq!(record.state.error, "no luck");
        w.assert_down(&id);
    });
}

#[test]
fn a_new_policy_holds_at_the_next_end() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", spec()).await;
        let update = UpdateContainer {
            restart: Some(restarting(RestartCondition::Always, 0).restart),
            ..UpdateContainer::default()
        };
        agent.update_container(&id, update).await.unwrap();
        w.runtime.exit(&id, 0);
        until_status(&agent, &id, Restarting).await;
    });
}

#[test]
fn memory_and_unknown_ends_are_told() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", spec()).await;
        w.runtime.end(&id, Some(137), true);
        let record = until_status(&agent, &id, Exited).await;
        assert!(record.state.oom_killed && record.state.exit_code == 137);
        agent.start_container(&id).await.unwrap();
        assert!(!agent.container(&id).unwrap().state.oom_killed);
        w.runtime.end(&id, None, false);
        let record = until_status(&agent, &id, Exited).await;
        assert_eq!(record.state.exit_code, 255);
        assert!(record.state.error.contains("not known"));
        let actions: Vec<_> = agent.events().subscribe(Some(tripod_model::Time::UNIX_EPOCH)).0;
        let actions: Vec<_> = actions
            .iter()
            .filter(|e| e.id == id)
            .map(|e| e.action.as_str())
            .collect();
        assert_eq!(actions, ["create", "start", "oom", "die", "start", "die"]);
    });
}

#[test]
fn a_late_report_of_an_earlier_run_is_acknowledged_and_changes_nothing() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", spec()).await;
        agent
            .restart_container(&id, StopOptions::default())
            .await
            .unwrap();
        w.settle(&agent).await;
        assert!(w.runtime.unacknowledged().is_empty());
        for run in [1, 9] {
            w.runtime.report(Exit {
                id: id.clone(),
                run,
                code: Some(1),
                oom_killed: false,
                at: w.script.now(),
            });
            w.settle(&agent).await;
            assert!(w.runtime.unacknowledged().is_empty());
            assert_eq!(status(&agent, &id), Running);
        }
        // And so is one of a container that nobody knows.
        w.runtime.report(Exit {
            id: "stranger".into(),
            run: 1,
            code: Some(0),
            oom_killed: false,
            at: w.script.now(),
        });
        w.settle(&agent).await;
        assert!(w.runtime.unacknowledged().is_empty());
        w.runtime.exit(&id, 4);
        assert_eq!(until_status(&agent, &id, Exited).await.state.exit_code, 4);
    });
}

#[test]
fn an_end_before_the_start_is_recorded_is_the_end_of_that_run() {
    let w = World::new();
    w.life(async |agent| {
        let id = create(&agent, "web", spec()).await.unwrap();
        // The exit comes while the start is still being written.
        let (started, ()) = tokio::join!(agent.start_container(&id), async {
            while w.runtime.process(&id).is_none() {
                tokio::task::yield_now().await;
            }
            w.runtime.exit(&id, 7);
        });
        started.unwrap();
        let record = until_status(&agent, &id, Exited).await;
        assert_eq!((record.state.exit_code, record.run), (7, 1));
        w.settle(&agent).await;
        w.assert_down(&id);
    });
}

#[test]
fn an_end_by_itself_during_a_stop_or_removal_is_no_failure() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", spec()).await;
        let hold = w.script.hold("runtime.signal 15");
        let (stopped, ()) = tokio::join!(agent.stop_container(&id, StopOptions::default()), async {
            hold.reached().await;
            w.runtime.exit(&id, 0);
            w.settle(&agent).await;
            hold.release();
        });
        stopped.unwrap();
        assert_eq!(agent.container(&id).unwrap().state.exit_code, 0);

        agent.start_container(&id).await.unwrap();
        let hold = w.script.hold("runtime.signal 9");
        let force = RemoveOptions {
            force: true,
            volumes: false,
        };
        let (removed, ()) = tokio::join!(agent.remove_container(&id, force), async {
            hold.reached().await;
            w.runtime.exit(&id, 0);
            hold.release();
        });
        removed.unwrap();
        w.assert_gone(&id);
    });
}
