//! Services under virtual time.

#[allow(unreachable_pub, missing_docs, reason = "a module of tests")]
mod sim;

use sim::*;
use tripod_model::node::{Availability, NodeState};
use tripod_model::pod::DesiredState;
use tripod_model::swarm::*;

#[test]
fn a_replicated_service_comes_up_in_one_plan() {
    let mut sim = Sim::new(1);
    sim.create(published(replicated("blue", 3), 80, 8080));
    sim.settle();
    assert_eq!(sim.writes, 4, "three tasks and the endpoint");
    let pods = sim.pods();
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        assert_eq!(pod.state.observed, TaskState::Assigned);
        assert_eq!(pod.state.message, "scheduler assigned task to node");
        assert_eq!(pod.spec.node_name, "node1");
        let task = pod.swarm().unwrap();
        assert_eq!(pod.metadata.name, format!("web.{}.{}", task.slot, task.task_id));
        assert_eq!(pod.extension.networks.len(), 1);
        assert!(
            pod.extension.networks[0]
                .address
                .unwrap()
                .to_string()
                .starts_with("10.0.0.")
        );
    }
    let endpoint = sim.service().status.endpoint.clone().unwrap();
    assert_eq!(endpoint.virtual_ips[0].addr.to_string(), "10.0.0.2/24");
    sim.run(5);
    assert_eq!(sim.running().len(), 3);
    assert!(sim.update_status().is_none());
}

#[test]
fn scaling_down_leaves_as_many_as_asked_and_prefers_those_that_run() {
    let mut sim = Sim::new(2);
    sim.create(replicated("blue", 6));
    sim.run(5);
    sim.update(|s| s.mode = ServiceMode::Replicated { replicas: 2 });
    sim.run(5);
    let left = sim.pods();
    assert_eq!(left.len(), 2, "{:#?}", sim.summary());
    assert_ne!(left[0].spec.node_name, left[1].spec.node_name, "one on each node");
    assert!(sim.update_status().is_none(), "scaling is no update");
    sim.update(|s| s.mode = ServiceMode::Replicated { replicas: 0 });
    sim.run(5);
    assert!(sim.pods().is_empty());
}

#[test]
fn a_crash_loop_keeps_its_pace_and_its_history_short() {
    let mut sim = Sim::new(1);
    sim.behaviour.insert("bad".into(), Behaviour::Crashes);
    sim.create(replicated("bad", 1));
    sim.run(100);
    assert!(sim.pods().len() <= 6, "{:#?}", sim.summary());
    let live = sim.wanted();
    assert_eq!(live.len(), 1);
    // Each round is at least the delay of five seconds, and not much longer.
    assert!((40..120).contains(&sim.writes), "{} writes", sim.writes);
}

#[test]
fn restart_conditions_and_attempts_are_kept() {
    for (condition, attempts, behaviour, tasks) in [
        ("none", None, Behaviour::DiesAfter(1), 1),
        ("on-failure", None, Behaviour::CompletesAfter(1), 1),
        ("any", Some(2), Behaviour::DiesAfter(1), 3),
        ("on-failure", Some(1), Behaviour::Crashes, 2),
    ] {
        let mut sim = Sim::new(1);
        sim.behaviour.insert("x".into(), behaviour);
        let mut spec = replicated("x", 1);
        spec.task_template.restart_policy = Some(TaskRestartPolicy {
            condition: condition.into(),
            max_attempts: attempts,
            delay: Some(1_000_000_000),
            window: None,
        });
        sim.create(spec);
        sim.run(60);
        assert_eq!(
            sim.pods().len(),
            tasks,
            "{condition} {attempts:?}: {:#?}",
            sim.summary()
        );
        assert!(sim.wanted().is_empty());
    }
}

#[test]
fn a_window_forgets_old_restarts() {
    let mut sim = Sim::new(1);
    sim.behaviour.insert("x".into(), Behaviour::DiesAfter(20));
    let mut spec = replicated("x", 1);
    spec.task_template.restart_policy = Some(TaskRestartPolicy {
        condition: "any".into(),
        max_attempts: Some(2),
        delay: Some(1_000_000_000),
        window: Some(10_000_000_000),
    });
    sim.create(spec);
    sim.run(200);
    assert_eq!(sim.wanted().len(), 1, "{:#?}", sim.summary());
}

#[test]
fn drained_and_lost_nodes_give_up_their_tasks() {
    let mut sim = Sim::new(2);
    sim.create(replicated("blue", 4));
    sim.run(5);
    sim.node("node1", |n| n.spec.swarm.availability = Availability::Drain);
    sim.run(6);
    let running = sim.running();
    assert_eq!(running.len(), 4);
    assert!(running.iter().all(|p| p.spec.node_name == "node2"));
    sim.node("node1", |n| n.spec.swarm.availability = Availability::Active);
    sim.silent.insert("node2".into());
    sim.node("node2", |n| n.status.state = NodeState::Down);
    sim.run(6);
    let running = sim.running();
    assert_eq!(running.len(), 4, "{:#?}", sim.summary());
    assert!(running.iter().all(|p| p.spec.node_name == "node1"));
    sim.view.remove_node("node2");
    sim.run(2);
    let orphaned = sim
        .pods()
        .iter()
        .filter(|p| p.state.observed == TaskState::Orphaned)
        .count();
    assert!(
        orphaned > 0
            && sim
                .pods()
                .iter()
                .all(|p| p.is_live() || p.state.observed.is_final())
    );
}

#[test]
fn tasks_move_when_their_node_no_longer_satisfies_constraints() {
    let mut sim = Sim::new(2);
    for n in ["node1", "node2"] {
        sim.node(n, |n| drop(n.spec.swarm.labels.insert("zone".into(), "a".into())));
    }
    let mut spec = replicated("blue", 2);
    spec.task_template.placement = Some(Placement {
        constraints: vec!["node.labels.zone==a".into()],
        ..Placement::default()
    });
    sim.create(spec);
    sim.run(5);
    sim.node("node1", |n| {
        drop(n.spec.swarm.labels.insert("zone".into(), "b".into()));
    });
    sim.run(5);
    assert!(sim.running().iter().all(|p| p.spec.node_name == "node2"));
    assert_eq!(sim.running().len(), 2);
    let old = sim.pods().into_iter().find(|p| !p.is_live()).unwrap();
    assert_eq!(old.state.error, "assigned node no longer meets constraints");
}

#[test]
fn global_services_follow_the_nodes() {
    let mut sim = Sim::new(3);
    let mut spec = replicated("blue", 0);
    spec.mode = ServiceMode::Global {};
    spec.task_template.placement = Some(Placement {
        constraints: vec!["node.hostname!=node3".into()],
        ..Placement::default()
    });
    sim.create(spec);
    sim.run(5);
    assert_eq!(sim.running().len(), 2);
    sim.node("node4", |_| {});
    sim.run(5);
    assert_eq!(sim.running().len(), 3);
    sim.node("node1", |n| n.spec.swarm.availability = Availability::Drain);
    sim.run(5);
    assert_eq!(sim.running().len(), 2);
    sim.node("node1", |n| n.spec.swarm.availability = Availability::Active);
    sim.node("node2", |n| n.spec.swarm.availability = Availability::Pause);
    sim.run(5);
    assert_eq!(
        sim.running().len(),
        3,
        "a paused node keeps its task: {:#?}",
        sim.summary()
    );
    sim.view.remove_node("node4");
    sim.run(5);
    assert_eq!(sim.running().len(), 2);
    sim.update(|s| s.task_template.container.image = "green".into());
    sim.run(30);
    assert_eq!(
        sim.running_image("green"),
        1,
        "the paused node is left alone: {:#?}",
        sim.summary()
    );
}

#[test]
fn jobs_run_to_completion_and_again() {
    let mut sim = Sim::new(2);
    sim.behaviour.insert("job".into(), Behaviour::CompletesAfter(3));
    let mut spec = replicated("job", 0);
    spec.mode = ServiceMode::ReplicatedJob {
        max_concurrent: 2,
        total_completions: 5,
    };
    sim.create(spec);
    let mut most = 0;
    sim.run_with(40, |s| most = most.max(s.wanted().len()));
    assert_eq!(most, 2);
    let complete = |s: &Sim| {
        s.pods()
            .iter()
            .filter(|p| p.state.observed == TaskState::Complete)
            .count()
    };
    assert_eq!(complete(&sim), 5, "{:#?}", sim.summary());
    sim.update(|s| s.task_template.force_update += 1);
    sim.run(40);
    assert_eq!(complete(&sim), 5);
    assert!(
        sim.pods()
            .iter()
            .all(|p| p.swarm().unwrap().job_iteration == Some(1))
    );

    let mut sim = Sim::new(3);
    sim.behaviour.insert("job".into(), Behaviour::CompletesAfter(1));
    let mut spec = replicated("job", 0);
    spec.mode = ServiceMode::GlobalJob {};
    sim.create(spec);
    sim.run(10);
    assert_eq!(complete(&sim), 3);
}

#[test]
fn a_failing_job_task_is_tried_again() {
    let mut sim = Sim::new(1);
    sim.behaviour.insert("job".into(), Behaviour::Crashes);
    let mut spec = replicated("job", 0);
    spec.mode = ServiceMode::ReplicatedJob {
        max_concurrent: 1,
        total_completions: 1,
    };
    sim.create(spec);
    sim.run(12);
    sim.behaviour.insert("job".into(), Behaviour::CompletesAfter(1));
    sim.run(15);
    assert_eq!(
        sim.pods()
            .iter()
            .filter(|p| p.state.observed == TaskState::Complete)
            .count(),
        1
    );
    assert!(sim.wanted().is_empty());
}

#[test]
fn a_removed_service_takes_its_tasks_and_addresses_with_it() {
    let mut sim = Sim::new(1);
    sim.create(published(replicated("blue", 3), 80, 80));
    sim.run(5);
    sim.view.remove_service(ID);
    sim.settle();
    assert!(sim.pods().iter().all(|p| p.state.desired == DesiredState::Remove));
    sim.run(3);
    assert!(sim.pods().is_empty());
    assert!(sim.view.network_use("net-ingress").unwrap().used.is_empty());
    assert!(sim.view.ingress_port_holder(Default::default(), 80).is_none());
}
