//! Create, start, stop, restart, pause, rename: their orders and what they refuse.

use std::time::Duration;

use tripod_agent::StopOptions;
use tripod_model::ErrorKind::{Conflict, Invalid, NotFound, NotModified};
use tripod_model::container::ContainerStatus::{Created, Exited, Paused, Running};

use crate::support::*;

const STOP: StopOptions = StopOptions {
    timeout: None,
    signal: None,
};

#[test]
fn a_start_makes_root_and_network_before_the_process_and_an_end_takes_them_away() {
    let w = World::new();
    w.life(async |agent| {
        let mut spec = publish(spec(), 8080);
        spec.mounts.push(volume_at("data", "/data"));
        let id = create(&agent, "web", spec).await.unwrap();
        assert_eq!(w.script.steps(&id), ["images.prepare", "images.copy_up"]);
        assert_eq!(status(&agent, &id), Created);
        w.script.forget();
        agent.start_container("web").await.unwrap();
        assert_eq!(
            w.script.steps(&id),
            [
                "images.mount",
                "net.create_sandbox",
                "net.connect",
                "net.publish",
                "runtime.start"
            ]
        );
        let record = agent.container(&id).unwrap();
        assert_eq!(
            (record.state.status, record.run, record.wanted),
            (Running, 1, true)
        );
        assert_eq!(record.ports[0].host_port, 8080);
        assert_eq!(w.volumes.all()["data"], 1);
        let request = w.runtime.requests(&id).remove(0);
        assert_eq!(request.netns.unwrap().to_str().unwrap(), format!("/netns/{id}"));
        let targets: Vec<_> = request.mounts.iter().map(|m| m.target.as_str()).collect();
        assert_eq!(
            targets,
            ["/data", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]
        );

        w.script.forget();
        agent.stop_container("web", STOP).await.unwrap();
        w.settle(&agent).await;
        let steps = w.script.steps(&id);
        assert_eq!(steps[0], "runtime.signal 15");
        for step in ["net.remove_sandbox", "images.unmount", "runtime.acknowledge_exit"] {
            assert_eq!(
                steps.iter().filter(|s| *s == step).count(),
                1,
                "{step} in {steps:?}"
            );
        }
        w.assert_down(&id);
        let record = agent.container(&id).unwrap();
        assert_eq!(
            (record.state.status, record.state.exit_code, record.wanted),
            (Exited, 143, false)
        );
        assert!(record.ports.is_empty() && record.endpoints[0].ipv4.is_none());
    });
}

#[test]
fn what_is_so_already_is_not_modified() {
    let w = World::new();
    w.life(async |agent| {
        let id = create(&agent, "web", spec()).await.unwrap();
        refused(agent.stop_container(&id, STOP).await, NotModified);
        agent.start_container(&id).await.unwrap();
        refused(agent.start_container(&id).await, NotModified);
        agent.pause_container(&id).await.unwrap();
        assert_eq!(status(&agent, &id), Paused);
        refused(agent.pause_container(&id).await, Conflict);
        refused(agent.start_container(&id).await, Conflict);
        agent.unpause_container(&id).await.unwrap();
        refused(agent.unpause_container(&id).await, Conflict);
        agent.stop_container(&id, STOP).await.unwrap();
        refused(agent.stop_container(&id, STOP).await, NotModified);
        refused(agent.pause_container(&id).await, Conflict);
        refused(agent.kill_container(&id, 9).await, Conflict);
        refused(agent.start_container("nobody").await, NotFound);
    });
}

#[test]
fn a_paused_container_is_thawed_to_be_stopped() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", spec()).await;
        agent.pause_container(&id).await.unwrap();
        w.script.forget();
        agent.stop_container(&id, STOP).await.unwrap();
        assert_eq!(w.script.steps(&id)[..2], ["runtime.unpause", "runtime.signal 15"]);
    });
}

#[test]
fn a_stop_kills_what_does_not_listen_when_its_time_is_over() {
    let w = World::new();
    w.life(async |agent| {
        let mut spec = spec();
        spec.stop_signal = "SIGINT".into();
        spec.stop_timeout = Some(7);
        let id = run(&agent, "web", spec).await;
        w.runtime.ignore_stop(&id);
        w.script.forget();
        let stop = tokio::spawn({
            let agent = agent.clone();
            async move { agent.stop_container("web", STOP).await }
        });
        w.pass(&agent, Duration::from_millis(6900)).await;
        assert_eq!(w.script.steps(&id), ["runtime.signal 2"]);
        assert_eq!(status(&agent, &id), Running);
        w.pass(&agent, Duration::from_millis(200)).await;
        stop.await.unwrap().unwrap();
        assert_eq!(w.script.steps(&id)[1], "runtime.signal 9");
        assert_eq!(agent.container(&id).unwrap().state.exit_code, 137);

        // A time of nought kills at once.
        agent.start_container(&id).await.unwrap();
        let now = StopOptions {
            timeout: Some(0),
            ..STOP
        };
        agent.stop_container(&id, now).await.unwrap();
        assert_eq!(agent.container(&id).unwrap().state.exit_code, 137);
    });
}

#[test]
fn ports_and_networks_are_free_when_a_stop_returns() {
    let w = World::new();
    w.life(async |agent| {
        let net = network(&agent, "front", "10.1.0.0/24").await;
        let id = run(&agent, "web", publish(spec_on("front", None), 80)).await;
        let next = create(&agent, "next", publish(spec(), 80)).await.unwrap();
        let text = refused(agent.start_container(&next).await, Conflict);
        assert!(text.contains("port is already allocated"), "{text}");
        // The kernel takes its time over the sandbox.
        let slow = w.script.hold("net.remove_sandbox");
        let stop = tokio::spawn({
            let agent = agent.clone();
            async move { agent.stop_container("web", STOP).await }
        });
        slow.reached().await;
        w.settle(&agent).await;
        assert!(!stop.is_finished(), "stopped while the port is still held");
        slow.release();
        stop.await.unwrap().unwrap();
        w.assert_down(&id);
        agent.start_container(&next).await.unwrap();
        agent.remove_network(&net.id).await.unwrap();
    });
}

#[test]
fn a_restart_is_a_stop_and_a_start() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", spec()).await;
        w.script.forget();
        agent.restart_container(&id, STOP).await.unwrap();
        w.settle(&agent).await;
        let steps = w.script.steps(&id);
        let at = |step: &str| steps.iter().position(|s| s == step).unwrap();
        assert!(at("runtime.signal 15") < at("net.remove_sandbox"), "{steps:?}");
        assert!(at("net.remove_sandbox") < at("net.create_sandbox"), "{steps:?}");
        assert!(at("images.unmount") < at("images.mount"), "{steps:?}");
        let record = agent.container(&id).unwrap();
        assert_eq!((record.run, record.state.status), (2, Running));
        assert!(!record.state.stopped_by_user && record.wanted);

        // One that does not run is started.
        agent.stop_container(&id, STOP).await.unwrap();
        agent.restart_container(&id, STOP).await.unwrap();
        assert_eq!(status(&agent, &id), Running);
    });
}

#[test]
fn a_restart_keeps_a_container_that_is_removed_at_its_end() {
    let w = World::new();
    w.life(async |agent| {
        let mut spec = spec();
        spec.auto_remove = true;
        let id = run(&agent, "web", spec).await;
        agent.restart_container(&id, STOP).await.unwrap();
        w.settle(&agent).await;
        assert_eq!(status(&agent, &id), Running);
        agent.stop_container(&id, STOP).await.unwrap();
        w.settle(&agent).await;
        refused(agent.container(&id), NotFound);
        w.assert_gone(&id);
    });
}

#[test]
fn names_are_unique_and_can_be_changed() {
    let w = World::new();
    w.life(async |agent| {
        let a = create(&agent, "web", spec()).await.unwrap();
        let text = refused(create(&agent, "web", spec()).await, Conflict);
        assert!(
            text.contains(&format!("\"/web\" is already in use by container \"{a}\"")),
            "{text}"
        );
        refused(create(&agent, "/web", spec()).await, Conflict);
        refused(create(&agent, "no/slash", spec()).await, Invalid);
        let b = create(&agent, "db", spec()).await.unwrap();
        refused(agent.rename_container(&b, "web").await, Conflict);
        refused(agent.rename_container(&b, "db").await, Invalid);
        agent.rename_container(&a, "old").await.unwrap();
        agent.rename_container(&b, "web").await.unwrap();
        assert_eq!(agent.container("web").unwrap().id, b);
        assert_eq!(agent.container("old").unwrap().id, a);
        refused(agent.container("db"), NotFound);
        // A name whose container could not be made is free again.
        w.script
            .fail("images.prepare", tripod_model::Error::internal("disk full"));
        create(&agent, "db", spec()).await.unwrap_err();
        create(&agent, "db", spec()).await.unwrap();
    });
    // And so it is on disk.
    w.life(async |agent| assert_eq!(agent.containers().len(), 3));
}

#[test]
fn a_running_container_answers_to_its_new_name() {
    let w = World::new();
    w.life(async |agent| {
        let net = network(&agent, "front", "10.1.0.0/24").await;
        let mut spec = spec_on("front", None);
        spec.network.endpoints[0].aliases = vec!["www".into()];
        let id = run(&agent, "web", spec).await;
        assert_eq!(w.net.names(&net.id)["web"], "10.1.0.2");
        agent.rename_container(&id, "shop").await.unwrap();
        let names = w.net.names(&net.id);
        assert_eq!(
            (names["shop"].as_str(), names["www"].as_str()),
            ("10.1.0.2", "10.1.0.2")
        );
        assert!(!names.contains_key("web"), "{names:?}");
    });
}

#[test]
fn a_container_must_have_an_image_and_a_command() {
    let w = World::new();
    w.life(async |agent| {
        let mut missing = spec();
        missing.image = "nothing".into();
        refused(create(&agent, "web", missing).await, NotFound);
        let mut idle = spec();
        idle.command.clear();
        refused(create(&agent, "web", idle).await, Invalid);
        assert!(w.images.snapshot_ids().is_empty() && w.files().is_empty());
    });
}
