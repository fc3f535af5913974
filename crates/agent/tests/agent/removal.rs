//! Removing containers, and what goes and stays with them.

use tripod_agent::{RemoveOptions, StopOptions};
use tripod_model::container::ContainerStatus;
use tripod_model::image::ImageConfig;
use tripod_model::{Error, ErrorKind};

use crate::support::*;

const PLAIN: RemoveOptions = RemoveOptions {
    force: false,
    volumes: false,
};
const FORCE: RemoveOptions = RemoveOptions {
    force: true,
    volumes: false,
};
const VOLUMES: RemoveOptions = RemoveOptions {
    force: true,
    volumes: true,
};

#[test]
fn what_runs_is_removed_by_force_only() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", publish(spec(), 80)).await;
        let text = refused(agent.remove_container("web", PLAIN).await, ErrorKind::Conflict);
        assert!(text.contains("container is running"), "{text}");
        agent.pause_container(&id).await.unwrap();
        let text = refused(agent.remove_container("web", PLAIN).await, ErrorKind::Conflict);
        assert!(text.contains("container is paused"), "{text}");
        w.script.forget();
        agent.remove_container("web", FORCE).await.unwrap();
        assert_eq!(w.script.steps(&id)[..2], ["runtime.unpause", "runtime.signal 9"]);
        w.assert_gone(&id);
        refused(agent.container("web"), ErrorKind::NotFound);
        refused(agent.remove_container(&id, FORCE).await, ErrorKind::NotFound);
        create(&agent, "web", spec()).await.unwrap();
    });
    w.life(async |agent| assert_eq!(agent.containers().len(), 1));
}

#[test]
fn a_container_that_never_ran_has_nothing_in_the_runtime() {
    let w = World::new();
    w.life(async |agent| {
        let id = create(&agent, "web", spec()).await.unwrap();
        agent.remove_container(&id, PLAIN).await.unwrap();
        assert!(!w.script.steps(&id).contains(&"runtime.remove".to_owned()));
        w.assert_gone(&id);
    });
}

#[test]
fn a_removal_that_failed_can_be_tried_again_and_nothing_else() {
    let w = World::new();
    w.life(async |agent| {
        let id = create(&agent, "web", spec()).await.unwrap();
        w.script.fail("images.discard", Error::internal("busy"));
        refused(agent.remove_container(&id, PLAIN).await, ErrorKind::Internal);
        assert_eq!(status(&agent, &id), ContainerStatus::Dead);
        refused(agent.start_container(&id).await, ErrorKind::Conflict);
        agent.remove_container(&id, PLAIN).await.unwrap();
        w.assert_gone(&id);
    });
}

#[test]
fn of_two_removals_one_finds_nothing() {
    let w = World::new();
    w.life(async |agent| {
        let id = run(&agent, "web", spec()).await;
        let (a, b) = tokio::join!(
            agent.remove_container(&id, FORCE),
            agent.remove_container(&id, FORCE)
        );
        assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
        w.assert_gone(&id);
    });
}

#[test]
fn a_container_of_a_short_life_removes_itself_with_its_anonymous_volumes() {
    let w = World::new();
    w.images.add(
        "db",
        ImageConfig {
            cmd: vec!["db".into()],
            volumes: vec!["/var/lib/db".into()],
            ..ImageConfig::default()
        },
    );
    w.life(async |agent| {
        let mut spec = spec();
        spec.image = "db".into();
        spec.auto_remove = true;
        spec.mounts = vec![volume_at("kept", "/kept")];
        let id = run(&agent, "db", spec).await;
        assert_eq!(w.volumes.all().len(), 2);
        let removed = agent
            .wait_container(&id, tripod_agent::WaitCondition::Removed)
            .unwrap();
        w.runtime.exit(&id, 3);
        assert_eq!(removed.await.0, 3);
        w.assert_gone(&id);
        assert_eq!(w.volumes.all().into_keys().collect::<Vec<_>>(), ["kept"]);
        assert_eq!(agent.volumes().len(), 1);
        assert!(w.runtime.unacknowledged().is_empty());
    });
    w.life(async |agent| assert!(agent.containers().is_empty()));
}

#[test]
fn a_container_of_a_short_life_goes_when_it_cannot_be_started() {
    let w = World::new();
    w.life(async |agent| {
        let mut spec = spec();
        spec.auto_remove = true;
        let id = create(&agent, "web", spec).await.unwrap();
        let removed = agent
            .wait_container(&id, tripod_agent::WaitCondition::Removed)
            .unwrap();
        let no = "exec: \"serve\": executable file not found in $PATH";
        w.script.fail("runtime.start", Error::invalid(no));
        refused(agent.start_container(&id).await, ErrorKind::Invalid);
        let (code, error) = removed.await;
        assert_eq!((code, error.as_str()), (127, no));
        w.assert_gone(&id);
        refused(agent.container(&id), ErrorKind::NotFound);
    });
}

#[test]
fn anonymous_volumes_go_only_when_asked_and_named_ones_never() {
    let w = World::new();
    w.life(async |agent| {
        let with_volumes = || {
            let mut spec = spec();
            spec.mounts = vec![volume_at("", "/cache"), volume_at("named", "/data")];
            spec
        };
        let a = create(&agent, "one", with_volumes()).await.unwrap();
        agent.remove_container(&a, PLAIN).await.unwrap();
        assert_eq!(agent.volumes().len(), 2);
        let b = run(&agent, "two", with_volumes()).await;
        assert_eq!(agent.volumes().len(), 3);
        refused(agent.remove_volume("named", true).await, ErrorKind::Conflict);
        agent.remove_container(&b, VOLUMES).await.unwrap();
        assert_eq!(agent.volumes().len(), 2);
        agent.remove_volume("named", false).await.unwrap();
    });
}

#[test]
fn volumes_of_another_container_live_as_long_as_one_of_the_two() {
    let w = World::new();
    w.life(async |agent| {
        let mut first = spec();
        first.mounts = vec![volume_at("", "/cache"), volume_at("named", "/data")];
        let first = run(&agent, "first", first).await;
        let mut second = spec();
        second.volumes_from = vec!["first:ro".into()];
        let second = run(&agent, "second", second).await;
        let mounts = |id: &str| {
            let record = agent.container(id).unwrap();
            let mut all: Vec<_> = record
                .mounts
                .iter()
                .map(|m| (m.mount.target.clone(), m.mount.source.clone(), m.mount.read_only))
                .collect();
            all.sort();
            all
        };
        let (of_first, of_second) = (mounts(&first), mounts(&second));
        assert_eq!(of_second.len(), 2);
        for (a, b) in of_first.iter().zip(&of_second) {
            assert_eq!((&a.0, &a.1, a.2, b.2), (&b.0, &b.1, false, true));
        }
        assert!(w.volumes.all().values().all(|users| *users == 2));
        agent.remove_container(&first, VOLUMES).await.unwrap();
        assert_eq!(w.volumes.all().values().copied().collect::<Vec<_>>(), [1, 1]);
        agent.remove_container(&second, VOLUMES).await.unwrap();
        assert_eq!(w.volumes.all().into_keys().collect::<Vec<_>>(), ["named"]);

        let mut orphan = spec();
        orphan.volumes_from = vec!["first".into()];
        refused(create(&agent, "orphan", orphan).await, ErrorKind::NotFound);
    });
}

#[test]
fn pruning_takes_what_does_not_run() {
    let w = World::new();
    w.life(async |agent| {
        let made = create(&agent, "made", spec()).await.unwrap();
        let runs = run(&agent, "runs", spec()).await;
        let ended = run(&agent, "ended", spec()).await;
        agent
            .stop_container(&ended, StopOptions::default())
            .await
            .unwrap();
        let mut pruned = agent.prune_containers(|_| true).await.unwrap().removed;
        pruned.sort();
        let mut expected = [made, ended];
        expected.sort();
        assert_eq!(pruned, expected);
        assert_eq!(agent.containers()[0].id, runs);
    });
}
