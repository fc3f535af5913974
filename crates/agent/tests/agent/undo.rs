//! Every failing step of making and starting a container is undone in full.

use tripod_agent::ports::Runtime;
use tripod_model::container::{ContainerStatus, InjectedFile};
use tripod_model::{Error, ErrorKind};

use crate::support::*;

/// A file to be put into the container.
fn secret(uid: &str) -> InjectedFile {
    InjectedFile {
        path: "/run/secrets/key".into(),
        data: b"hush".to_vec(),
        uid: uid.into(),
        gid: uid.into(),
        mode: 0o400,
        secret: true,
    }
}

/// Numbers that this process may give a file to.
fn own_uid() -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid().to_string()
}

#[test]
fn each_failing_step_of_a_start_leaves_nothing_behind() {
    for step in [
        "images.mount",
        "net.ensure_network",
        "net.create_sandbox",
        "net.connect",
        "net.publish",
        "volumes.mount",
        "volumes.mount second",
        "runtime.start",
    ] {
        let w = World::new();
        let (id, net) = w.life(async |agent| {
            let net = network(&agent, "front", "10.1.0.0/24").await;
            let mut spec = publish(spec_on("front", Some("10.1.0.9")), 80);
            spec.mounts = vec![volume_at("first", "/first"), volume_at("second", "/second")];
            (create(&agent, "web", spec).await.unwrap(), net)
        });
        // A new daemon, so that the network is made real by the start.
        w.life(async |agent| {
            w.script.fail(step, Error::forbidden("no luck"));
            let files = vec![secret(&own_uid())];
            let text = refused(
                agent.start_container_with(&id, files.clone()).await,
                ErrorKind::Forbidden,
            );
            assert!(text.contains("no luck"), "{text}");
            w.settle(&agent).await;
            w.assert_down(&id);
            let record = agent.container(&id).unwrap();
            assert_eq!(record.state.status, ContainerStatus::Created, "{step}");
            assert!(record.state.error.contains("no luck") && !record.wanted);
            assert!(record.ports.is_empty());

            // Address, port and volumes are free for another, and then for itself.
            let mut other = publish(spec_on("front", Some("10.1.0.9")), 80);
            other.mounts = vec![volume_at("first", "/first")];
            let other = run(&agent, "other", other).await;
            assert_eq!(address(&agent, &other), "10.1.0.9");
            let force = tripod_agent::RemoveOptions {
                force: true,
                volumes: false,
            };
            agent.remove_container(&other, force).await.unwrap();
            agent.start_container_with(&id, files).await.unwrap();
            assert_eq!(address(&agent, &id), "10.1.0.9");
            assert_eq!(w.net.names(&net.id)["web"], "10.1.0.9");
            let mounts = w.runtime.requests(&id).remove(0).mounts;
            assert!(mounts.iter().any(|m| m.target == "/run/secrets/key"));
        });
    }
}

#[test]
fn a_secret_of_a_user_that_is_not_there_fails_the_start_and_is_withdrawn() {
    let w = World::new();
    w.life(async |agent| {
        let id = create(&agent, "web", spec()).await.unwrap();
        let text = refused(
            agent.start_container_with(&id, vec![secret("nobody-here")]).await,
            ErrorKind::Invalid,
        );
        assert!(text.contains("unable to find user"), "{text}");
        w.assert_down(&id);
    });
}

#[test]
fn secrets_are_withdrawn_at_the_end_of_a_run() {
    let w = World::new();
    w.life(async |agent| {
        let id = create(&agent, "web", spec()).await.unwrap();
        let files = vec![secret(&own_uid())];
        agent.start_container_with(&id, files).await.unwrap();
        let mount = w.runtime.requests(&id).remove(0).mounts;
        let mount = mount.iter().find(|m| m.target == "/run/secrets/key").unwrap();
        assert_eq!(std::fs::read(mount.source.as_ref().unwrap()).unwrap(), b"hush");
        assert!(mount.read_only);
        w.runtime.exit(&id, 0);
        until_status(&agent, &id, ContainerStatus::Exited).await;
        w.settle(&agent).await;
        w.assert_down(&id);
    });
}

#[test]
fn a_failed_use_of_a_volume_does_not_take_it_from_another() {
    let w = World::new();
    w.life(async |agent| {
        let mut holder = spec();
        holder.mounts = vec![volume_at("first", "/first"), volume_at("second", "/second")];
        let holder = run(&agent, "holder", holder).await;
        let mut web = spec();
        web.mounts = vec![volume_at("first", "/first"), volume_at("second", "/second")];
        let web = create(&agent, "web", web).await.unwrap();
        for step in ["volumes.mount first", "volumes.mount second", "runtime.start"] {
            w.script.fail(step, Error::internal("no luck"));
            agent.start_container(&web).await.unwrap_err();
            let users = w.volumes.all();
            assert_eq!((users["first"], users["second"]), (1, 1), "{step}");
        }
        assert!(w.runtime.process(&holder).is_some());
    });
}

#[test]
fn each_failing_step_of_a_creation_leaves_nothing_behind() {
    for step in ["images.get", "volumes.create", "images.prepare", "images.copy_up"] {
        let w = World::new();
        w.life(async |agent| {
            w.script.fail(step, Error::internal("no luck"));
            let mut spec = spec();
            spec.mounts = vec![volume_at("", "/anonymous")];
            refused(create(&agent, "web", spec.clone()).await, ErrorKind::Internal);
            assert_eq!(w.images.snapshot_ids(), Vec::<String>::new(), "{step}");
            assert_eq!(w.files(), Vec::<String>::new(), "{step}");
            assert!(w.volumes.all().is_empty() && agent.volumes().is_empty(), "{step}");
            assert!(agent.containers().is_empty());
            create(&agent, "web", spec).await.unwrap();
        });
    }
}

#[test]
fn a_second_mount_at_one_place_is_refused() {
    let w = World::new();
    w.life(async |agent| {
        let mut spec = spec();
        spec.mounts = vec![volume_at("", "/data"), volume_at("named", "/data/")];
        refused(create(&agent, "web", spec).await, ErrorKind::Invalid);
        assert!(w.volumes.all().is_empty());
        assert_eq!(w.files(), Vec::<String>::new());
    });
}

#[test]
fn exit_codes_tell_why_a_command_could_not_be_started() {
    let w = World::new();
    w.life(async |agent| {
        let id = create(&agent, "web", spec()).await.unwrap();
        for (error, code) in [
            (
                Error::invalid("exec: \"x\": executable file not found in $PATH"),
                127,
            ),
            (Error::invalid("exec: \"x\": permission denied"), 126),
            (Error::internal("no luck"), 128),
        ] {
            w.script.fail("runtime.start", error);
            agent.start_container(&id).await.unwrap_err();
            assert_eq!(agent.container(&id).unwrap().state.exit_code, code);
        }
        // A new start wipes the traces of the old one.
        agent.start_container(&id).await.unwrap();
        let state = agent.container(&id).unwrap().state.clone();
        assert_eq!((state.exit_code, state.error.as_str()), (0, ""));
        assert_eq!(w.runtime.pids(&id).await.unwrap(), [state.pid]);
    });
}
