//! Updates and rollbacks under virtual time.

#[allow(unreachable_pub, missing_docs, reason = "a module of tests")]
mod sim;

use sim::*;
use tripod_model::pod::DesiredState;
use tripod_model::swarm::*;
use tripod_plan::rollout::is_task_dirty;

fn service(order: UpdateOrder, parallelism: u64, action: FailureAction) -> ServiceSpec {
    let mut spec = published(replicated("blue", 4), 80, 8080);
    spec.update_config = Some(update_config(parallelism, order, action));
    spec.rollback_config = Some(update_config(parallelism, order, FailureAction::Pause));
    spec
}

fn to(image: &'static str) -> impl FnOnce(&mut ServiceSpec) {
    move |s| s.task_template.container.image = image.into()
}

/// Tasks of the new image that do not serve yet.
fn in_flight(sim: &Sim, image: &str) -> usize {
    let new = sim
        .pods()
        .into_iter()
        .filter(|p| p.is_live() && p.spec.containers[0].image == image);
    new.filter(|p| !p.state.serving).count()
}

#[test]
fn start_first_never_serves_with_fewer() {
    let mut sim = Sim::new(2);
    sim.start_seconds = 3;
    sim.create(service(UpdateOrder::StartFirst, 1, FailureAction::Pause));
    sim.run(10);
    sim.update(to("green"));
    sim.run_with(60, |s| {
        assert!(s.running().len() >= 4, "{:#?}", s.summary());
        assert!(in_flight(s, "green") <= 1);
    });
    assert_eq!(sim.running_image("green"), 4, "{:#?}", sim.summary());
    let status = sim.update_status().unwrap();
    assert_eq!(
        (status.state, status.message.as_str()),
        (UpdateState::Completed, "update completed")
    );
}

#[test]
fn stop_first_waits_for_the_old_task_to_end() {
    let mut sim = Sim::new(1);
    sim.stop_seconds = 4;
    sim.create(service(UpdateOrder::StopFirst, 2, FailureAction::Pause));
    sim.run(10);
    sim.update(to("green"));
    sim.run_with(60, |s| {
        assert!(in_flight(s, "green") <= 2, "{:#?}", s.summary());
        assert!(s.running().len() >= 2);
        for pod in s
            .pods()
            .iter()
            .filter(|p| p.state.desired == DesiredState::Running)
        {
            let slot = pod.swarm().unwrap().slot;
            let old = s.pods().into_iter().filter(|o| {
                o.swarm().unwrap().slot == slot
                    && o.metadata.name != pod.metadata.name
                    && !o.state.observed.is_final()
            });
            assert_eq!(old.count(), 0, "{:#?}", s.summary());
        }
    });
    assert_eq!(sim.running_image("green"), 4);
    assert_eq!(sim.update_status().unwrap().state, UpdateState::Completed);
}

#[test]
fn delay_and_monitor_take_their_time() {
    let mut sim = Sim::new(1);
    let mut spec = service(UpdateOrder::StopFirst, 1, FailureAction::Pause);
    spec.update_config.as_mut().unwrap().delay = 10_000_000_000;
    sim.create(spec);
    sim.run(10);
    sim.update(to("green"));
    sim.settle();
    assert_eq!(sim.update_status().unwrap().message, "update in progress");
    sim.run(12);
    assert_eq!(sim.running_image("green"), 1, "{:#?}", sim.summary());
    sim.run_until(60, |s| s.running_image("green") == 4);
    assert_eq!(
        sim.update_status().unwrap().state,
        UpdateState::Updating,
        "still watched"
    );
    sim.run(6);
    assert_eq!(sim.update_status().unwrap().state, UpdateState::Completed);
}

#[test]
fn failures_pause_an_update() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut sim = Sim::new(1);
        sim.behaviour.insert("bad".into(), Behaviour::Crashes);
        sim.create(service(order, 1, FailureAction::Pause));
        sim.run(10);
        sim.update(to("bad"));
        sim.run(30);
        let status = sim.update_status().unwrap().clone();
        assert_eq!(status.state, UpdateState::Paused);
        let id = &status.failed_tasks[0];
        let want = format!("update paused due to failure or early termination of task {id}");
        assert_eq!(status.message, want);
        let blue = sim.running_image("blue");
        assert_eq!(
            blue,
            if order == UpdateOrder::StopFirst { 3 } else { 4 },
            "{:#?}",
            sim.summary()
        );
        // A new update goes on from there.
        sim.update(to("green"));
        sim.run(60);
        assert_eq!(sim.running_image("green"), 4, "{:#?}", sim.summary());
        assert_eq!(sim.update_status().unwrap().state, UpdateState::Completed);
    }
}

#[test]
fn failures_roll_an_update_back() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut sim = Sim::new(1);
        sim.behaviour.insert("bad".into(), Behaviour::DiesAfter(2));
        sim.create(service(order, 1, FailureAction::Rollback));
        sim.run(10);
        sim.update(to("bad"));
        sim.run_until(30, |s| {
            s.update_status()
                .is_some_and(|u| u.state == UpdateState::RollbackStarted)
        });
        let message = sim.update_status().unwrap().message.clone();
        assert!(
            message.starts_with("update rolled back due to failure or early termination of task "),
            "{message}"
        );
        sim.run(40);
        assert_eq!(sim.running_image("blue"), 4, "{:#?}", sim.summary());
        let status = sim.update_status().unwrap();
        assert_eq!(
            (status.state, status.message.as_str()),
            (UpdateState::RollbackCompleted, "rollback completed")
        );
        assert!(sim.service().previous_spec.is_none());
    }
}

#[test]
fn a_failing_rollback_pauses() {
    let mut sim = Sim::new(1);
    sim.create(service(UpdateOrder::StopFirst, 1, FailureAction::Rollback));
    sim.run(10);
    sim.behaviour.insert("bad".into(), Behaviour::Crashes);
    sim.behaviour.insert("blue".into(), Behaviour::Crashes);
    sim.update(to("bad"));
    sim.run(60);
    let status = sim.update_status().unwrap();
    assert_eq!(status.state, UpdateState::RollbackPaused, "{:#?}", sim.summary());
    assert!(
        status
            .message
            .starts_with("rollback paused due to failure or early termination of task ")
    );
}

#[test]
fn the_failure_ratio_is_a_limit() {
    let mut sim = Sim::new(1);
    let mut spec = service(UpdateOrder::StopFirst, 1, FailureAction::Pause);
    spec.update_config.as_mut().unwrap().max_failure_ratio = 0.5;
    sim.create(spec);
    sim.run(10);
    sim.behaviour.insert("bad".into(), Behaviour::DiesAfter(2));
    sim.update(to("bad"));
    sim.run(40);
    let status = sim.update_status().unwrap();
    assert_eq!(
        (status.state, status.failed_tasks.len()),
        (UpdateState::Paused, 3),
        "{:#?}",
        sim.summary()
    );
}

#[test]
fn continue_goes_through_all_the_same() {
    let mut sim = Sim::new(1);
    sim.create(service(UpdateOrder::StopFirst, 1, FailureAction::Continue));
    sim.run(10);
    sim.behaviour.insert("bad".into(), Behaviour::Crashes);
    sim.update(to("bad"));
    sim.run(120);
    assert_eq!(sim.running_image("blue"), 0, "{:#?}", sim.summary());
    assert_eq!(sim.update_status().unwrap().state, UpdateState::Completed);
}

#[test]
fn rollback_goes_back_and_forth() {
    let mut sim = Sim::new(2);
    sim.create(service(UpdateOrder::StartFirst, 2, FailureAction::Pause));
    sim.run(10);
    sim.update(to("green"));
    sim.run(40);
    sim.rollback();
    assert_eq!(
        sim.update_status().unwrap().message,
        "manually requested rollback"
    );
    sim.run_with(40, |s| assert!(s.running().len() >= 4));
    assert_eq!(sim.running_image("blue"), 4, "{:#?}", sim.summary());
    assert_eq!(sim.update_status().unwrap().message, "rollback completed");
    sim.rollback();
    sim.run(40);
    assert_eq!(sim.running_image("green"), 4);
}

#[test]
fn a_rollback_in_the_middle_keeps_what_was_not_touched() {
    let mut sim = Sim::new(1);
    sim.start_seconds = 5;
    sim.create(service(UpdateOrder::StopFirst, 1, FailureAction::Pause));
    sim.run(20);
    let before: Vec<String> = sim.running().iter().map(|p| p.metadata.name.clone()).collect();
    sim.update(to("green"));
    sim.run(8);
    sim.rollback();
    sim.run(60);
    let kept = sim
        .running()
        .iter()
        .filter(|p| before.contains(&p.metadata.name))
        .count();
    assert!(kept >= 2, "{kept} {:#?}", sim.summary());
    assert_eq!(sim.running_image("blue"), 4);
    assert_eq!(sim.update_status().unwrap().state, UpdateState::RollbackCompleted);
}

#[test]
fn what_needs_no_new_tasks_makes_none() {
    type Change = fn(&mut ServiceSpec);
    let changes: Vec<(&str, Change)> = vec![
        ("labels", |s| drop(s.labels.insert("a".into(), "b".into()))),
        ("rollback order", |s| {
            s.rollback_config = Some(UpdateConfig::default());
        }),
        ("replicas", |s| s.mode = ServiceMode::Replicated { replicas: 5 }),
        ("placement that still fits", |s| {
            s.task_template.placement = Some(Placement {
                constraints: vec!["node.role==manager".into()],
                ..Placement::default()
            });
        }),
    ];
    for (what, change) in changes {
        let mut sim = Sim::new(1);
        sim.create(service(UpdateOrder::StopFirst, 1, FailureAction::Pause));
        sim.run(10);
        let before: Vec<String> = sim.pods().iter().map(|p| p.metadata.name.clone()).collect();
        sim.update(change);
        sim.run(20);
        let after: Vec<String> = sim.pods().iter().map(|p| p.metadata.name.clone()).collect();
        assert!(before.iter().all(|n| after.contains(n)), "{what}");
        assert!(sim.update_status().is_none(), "{what}");
    }
    let mut sim = Sim::new(1);
    sim.create(service(UpdateOrder::StopFirst, 1, FailureAction::Pause));
    sim.run(10);
    sim.update(|s| s.task_template.force_update += 1);
    let pod = sim.pods().remove(0);
    let node = sim.view.node("node1").map(AsRef::as_ref);
    assert!(is_task_dirty(sim.service(), pod.swarm().unwrap(), node, None));
}

#[test]
fn an_update_that_nothing_fits_says_why() {
    let mut sim = Sim::new(1);
    sim.create(service(UpdateOrder::StartFirst, 1, FailureAction::Pause));
    sim.run(10);
    sim.update(|s| {
        s.task_template.placement = Some(Placement {
            constraints: vec!["node.labels.x==y".into()],
            ..Placement::default()
        });
    });
    sim.run(20);
    // The tasks' own constraints hold, so the old ones stay while the new one finds no node.
    assert_eq!(sim.running().len(), 4, "{:#?}", sim.summary());
    let pending = sim
        .wanted()
        .into_iter()
        .find(|p| p.spec.node_name.is_empty())
        .unwrap();
    assert_eq!(
        pending.state.error,
        "no suitable node (scheduling constraints not satisfied on 1 node)"
    );
    assert_eq!(pending.status.message, pending.state.error);
}

#[test]
fn an_update_survives_a_change_of_replicas() {
    let mut sim = Sim::new(2);
    sim.create(service(UpdateOrder::StopFirst, 1, FailureAction::Pause));
    sim.run(10);
    sim.update(to("green"));
    sim.run(4);
    sim.update(|s| s.mode = ServiceMode::Replicated { replicas: 6 });
    sim.run(60);
    assert_eq!(sim.running_image("green"), 6, "{:#?}", sim.summary());
    assert_eq!(sim.update_status().unwrap().state, UpdateState::Completed);
}
