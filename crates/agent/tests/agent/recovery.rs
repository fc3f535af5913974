//! What the next daemon makes of what the one before it left: adopted, ended, removed, started again.

use std::time::Duration;

use tripod_agent::ports::Exit;
use tripod_agent::{RemoveOptions, StopOptions};
use tripod_model::container::ContainerStatus::{Created, Exited, Paused, Running};
use tripod_model::container::{ContainerSpec, HealthCheck, HealthStatus, RestartCondition, RestartPolicy};
use tripod_model::{Error, ErrorKind};

use crate::support::*;

fn policy(condition: RestartCondition) -> ContainerSpec {
    ContainerSpec {
        restart: RestartPolicy {
            condition,
            max_retries: 0,
        },
        ..spec()
    }
}

#[test]
fn what_runs_is_adopted_with_its_network_names_volumes_and_health() {
    let w = World::new();
    let (web, db, net) = w.life(async |agent| {
        let net = network(&agent, "front", "10.1.0.0/24").await;
        let mut spec = publish(spec_on("front", None), 80);
        spec.mounts = vec![volume_at("data", "/data")];
        spec.healthcheck = Some(HealthCheck {
            test: vec!["CMD".into(), "check".into()],
            ..HealthCheck::default()
        });
        let web = run(&agent, "web", spec.clone()).await;
        spec.network.port_bindings.clear();
        let db = run(&agent, "db", spec).await;
        agent.pause_container(&db).await.unwrap();
        w.settle(&agent).await;
        (web, db, net)
    });
    w.script.forget();
    w.life(async |agent| {
        assert_eq!(status(&agent, &web), Running);
        assert_eq!(status(&agent, &db), Paused);
        assert_eq!(w.script.steps(&web), ["net.adopt_sandbox"]);
        assert_eq!(w.net.adopted().len(), 2);
        assert_eq!(w.net.names(&net.id)["web"], "10.1.0.2");
        assert_eq!(w.volumes.all()["data"], 2);
        // Address and port are held.
        let next = run(&agent, "next", spec_on("front", None)).await;
        assert_eq!(address(&agent, &next), "10.1.0.4");
        let other = create(&agent, "other", publish(spec(), 80)).await.unwrap();
        refused(agent.start_container(&other).await, ErrorKind::Conflict);
        // It is watched as before.
        w.pass(&agent, Duration::from_secs(30)).await;
        let health = agent.container(&web).unwrap().state.health.clone().unwrap();
        assert_eq!(health.status, HealthStatus::Healthy);
        agent.stop_container(&web, StopOptions::default()).await.unwrap();
        assert_eq!(w.volumes.all()["data"], 1);
        w.settle(&agent).await;
        assert_eq!(w.runtime.unacknowledged().len(), 0);
    });
}

#[test]
fn an_end_while_no_daemon_was_there_is_known() {
    let w = World::new();
    let (web, rm) = w.life(async |agent| {
        let mut spec = publish(spec(), 80);
        spec.mounts = vec![volume_at("data", "/data")];
        let web = run(&agent, "web", spec).await;
        let mut short = crate::support::spec();
        short.auto_remove = true;
        let rm = run(&agent, "rm", short).await;
        (web, rm)
    });
    w.runtime.end(&web, Some(3), true);
    w.runtime.exit(&rm, 0);
    w.life(async |agent| {
        let record = agent.container(&web).unwrap();
        assert_eq!((record.state.status, record.state.exit_code), (Exited, 3));
        assert!(record.state.oom_killed && record.state.finished_at.is_some());
        assert!(w.runtime.unacknowledged().is_empty());
        w.assert_down(&web);
        refused(agent.container(&rm), ErrorKind::NotFound);
        assert_eq!(w.images.snapshot_ids(), std::slice::from_ref(&web));
        agent.start_container(&web).await.unwrap();
    });
}

#[test]
fn what_left_no_trace_is_ended_with_an_unknown_status() {
    let w = World::new();
    let web = w.life(async |agent| {
        network(&agent, "front", "10.1.0.0/24").await;
        run(&agent, "web", publish(spec_on("front", Some("10.1.0.9")), 80)).await
    });
    w.reboot();
    w.life(async |agent| {
        let record = agent.container(&web).unwrap();
        assert_eq!((record.state.status, record.state.exit_code), (Exited, 255));
        assert_eq!(w.images.mounted(&web), Some(false));
        agent.start_container(&web).await.unwrap();
        assert_eq!(address(&agent, &web), "10.1.0.9");
        assert_eq!(agent.container(&web).unwrap().run, 2);
    });
}

#[test]
fn what_nobody_owns_is_removed() {
    let w = World::new();
    let web = w.life(async |agent| run(&agent, "web", spec()).await);
    w.runtime.plant("stranger", 1);
    w.net.plant_sandbox("stranger");
    w.images.plant_snapshot("stranger");
    w.life(async |agent| {
        assert_eq!(w.runtime.running(), std::slice::from_ref(&web));
        assert_eq!(w.net.sandbox_ids(), std::slice::from_ref(&web));
        assert_eq!(w.images.snapshot_ids(), std::slice::from_ref(&web));
        assert_eq!(w.files(), [format!("root/containers/{web}")]);
        w.settle(&agent).await;
        assert!(w.runtime.unacknowledged().is_empty());
        assert_eq!(status(&agent, &web), Running);
    });
}

#[test]
fn a_start_that_was_never_recorded_is_undone_and_its_number_not_used_again() {
    let w = World::new();
    let web = w.life(async |agent| create(&agent, "web", spec()).await.unwrap());
    // The daemon died after the process was started and before that was on disk.
    w.runtime.plant(&web, 1);
    w.net.plant_sandbox(&web);
    w.life(async |agent| {
        assert!(w.runtime.process(&web).is_none());
        w.assert_down(&web);
        assert_eq!(status(&agent, &web), Created);
        w.settle(&agent).await;
        agent.start_container(&web).await.unwrap();
        // The end of the killed process is reported once more.
        w.runtime.report(Exit {
            id: web.clone(),
            run: 1,
            code: Some(137),
            oom_killed: false,
            at: w.script.now(),
        });
        w.settle(&agent).await;
        assert_eq!(status(&agent, &web), Running);
        assert!(w.runtime.unacknowledged().is_empty());
    });
}

#[test]
fn an_end_that_was_recorded_but_not_acknowledged_is_acknowledged() {
    let w = World::new();
    let web = w.life(async |agent| {
        let web = run(&agent, "web", spec()).await;
        w.script
            .fail("runtime.acknowledge_exit", Error::unavailable("keeper is busy"));
        agent.stop_container(&web, StopOptions::default()).await.unwrap();
        w.settle(&agent).await;
        assert_eq!(w.runtime.unacknowledged().len(), 1);
        web
    });
    w.life(async |agent| {
        assert!(w.runtime.unacknowledged().is_empty());
        let record = agent.container(&web).unwrap();
        assert_eq!((record.state.status, record.state.exit_code), (Exited, 143));
        assert!(record.state.stopped_by_user);
    });
}

#[test]
fn policies_start_containers_with_the_daemon() {
    use RestartCondition::{Always, No, OnFailure, UnlessStopped};
    let w = World::new();
    let ids = w.life(async |agent| {
        let mut ids = Vec::new();
        for (name, condition) in [
            ("no", No),
            ("always", Always),
            ("unless-stopped", UnlessStopped),
            ("on-failure", OnFailure),
        ] {
            ids.push(run(&agent, name, policy(condition)).await);
            // A twin that the user stopped.
            let stopped = run(&agent, &format!("{name}-stopped"), policy(condition)).await;
            agent
                .stop_container(&stopped, StopOptions::default())
                .await
                .unwrap();
            ids.push(stopped);
        }
        // Never started: not started now.
        ids.push(create(&agent, "new", policy(Always)).await.unwrap());
        w.settle(&agent).await;
        ids
    });
    w.reboot();
    w.life(async |agent| {
        w.settle(&agent).await;
        let running: Vec<bool> = ids.iter().map(|id| status(&agent, id) == Running).collect();
        assert_eq!(
            running,
            [false, false, true, true, true, false, true, false, false]
        );
    });
}

#[test]
fn an_end_while_no_daemon_was_there_is_answered_by_the_policy() {
    let w = World::new();
    let web = w.life(async |agent| run(&agent, "web", policy(RestartCondition::Always)).await);
    w.runtime.exit(&web, 1);
    w.life(async |agent| {
        until_status(&agent, &web, Running).await;
        w.pass(&agent, Duration::from_secs(10)).await;
        assert_eq!(w.runtime.requests(&web).len(), 2);
        // The daemon dies in the back-off.
        w.runtime.exit(&web, 1);
        w.settle(&agent).await;
    });
    w.life(async |agent| {
        until_status(&agent, &web, Running).await;
        w.pass(&agent, Duration::from_secs(10)).await;
        assert_eq!(w.runtime.requests(&web).len(), 3);
    });
}

#[test]
fn retries_that_are_used_up_stay_used_up() {
    let w = World::new();
    let web = w.life(async |agent| {
        let mut spec = policy(RestartCondition::OnFailure);
        spec.restart.max_retries = 1;
        let web = run(&agent, "web", spec).await;
        w.runtime.exit(&web, 1);
        w.pass(&agent, Duration::from_secs(1)).await;
        w.runtime.exit(&web, 1);
        until_status(&agent, &web, Exited).await;
        w.settle(&agent).await;
        web
    });
    w.life(async |agent| {
        w.pass(&agent, Duration::from_secs(10)).await;
        assert_eq!(status(&agent, &web), Exited);
    });
}

#[test]
fn a_removal_that_was_cut_short_is_finished() {
    let w = World::new();
    let web = w.life(async |agent| {
        let web = run(&agent, "web", spec()).await;
        let hold = w.script.hold("images.discard");
        let force = RemoveOptions {
            force: true,
            volumes: false,
        };
        tokio::select! {
            _ = agent.remove_container(&web, force) => panic!("it is held"),
            () = hold.reached() => {}
        }
        w.settle(&agent).await;
        web
    });
    w.life(async |agent| {
        refused(agent.container(&web), ErrorKind::NotFound);
        w.assert_gone(&web);
    });
    w.life(async |agent| assert!(agent.containers().is_empty()));
}

#[test]
fn an_orderly_end_of_the_daemon_leaves_the_wish_to_run() {
    let w = World::new();
    let (web, rm) = w.life(async |agent| {
        let web = run(&agent, "web", policy(RestartCondition::UnlessStopped)).await;
        let mut short = spec();
        short.auto_remove = true;
        let rm = run(&agent, "rm", short).await;
        agent.stop_all().await;
        w.settle(&agent).await;
        w.assert_down(&web);
        (web, rm)
    });
    w.life(async |agent| {
        w.settle(&agent).await;
        assert_eq!(status(&agent, &web), Running);
        refused(agent.container(&rm), ErrorKind::NotFound);
    });
}
