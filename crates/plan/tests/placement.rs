//! Where tasks go, and the reasons why they do not.

#[allow(unreachable_pub, missing_docs, reason = "a module of tests")]
mod sim;

use std::collections::BTreeMap;

use sim::*;
use tripod_model::image::Platform;
use tripod_model::node::{Availability, GenericResource, Node};
use tripod_model::swarm::*;

fn counts(sim: &Sim) -> Vec<(String, usize)> {
    let mut counts = BTreeMap::new();
    for pod in sim.wanted() {
        *counts.entry(pod.spec.node_name.clone()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

fn pending(sim: &Sim) -> Vec<String> {
    let waiting = sim
        .wanted()
        .into_iter()
        .filter(|p| p.state.observed == TaskState::Pending);
    waiting.map(|p| p.state.error.clone()).collect()
}

fn placement(change: impl FnOnce(&mut Placement)) -> ServiceSpec {
    let mut spec = replicated("blue", 2);
    let mut placement = Placement::default();
    change(&mut placement);
    spec.task_template.placement = Some(placement);
    spec
}

fn reserving(change: impl FnOnce(&mut ResourceAmounts)) -> ServiceSpec {
    let mut spec = replicated("blue", 2);
    let mut amounts = ResourceAmounts::default();
    change(&mut amounts);
    spec.task_template.resources = Some(TaskResources {
        limits: None,
        reservations: Some(amounts),
    });
    spec
}

fn host_port() -> ServiceSpec {
    let mut spec = published(replicated("blue", 2), 80, 8080);
    for p in &mut spec.endpoint_spec.as_mut().unwrap().ports {
        p.publish_mode = PublishMode::Host;
    }
    spec
}

#[test]
fn refusals_are_worded_as_in_swarm() {
    let gpu = GenericResource {
        kind: "gpu".into(),
        name: String::new(),
        count: 1,
    };
    type Row = (ServiceSpec, fn(&mut Node), usize, &'static str);
    let rows: Vec<Row> = vec![
        (
            placement(|p| p.constraints = vec!["node.labels.a==b".into()]),
            |_| {},
            2,
            "no suitable node (scheduling constraints not satisfied on 1 node)",
        ),
        (
            reserving(|r| r.memory = 1 << 40),
            |_| {},
            2,
            "no suitable node (insufficient resources on 1 node)",
        ),
        (
            reserving(|r| r.nano_cpus = 3_000_000_000),
            |_| {},
            1,
            "no suitable node (insufficient resources on 1 node)",
        ),
        (
            reserving(|r| r.generic = vec![gpu]),
            |_| {},
            2,
            "no suitable node (insufficient resources on 1 node)",
        ),
        (
            host_port(),
            |_| {},
            1,
            "no suitable node (host-mode port already in use on 1 node)",
        ),
        (
            placement(|p| p.max_replicas = 1),
            |_| {},
            1,
            "no suitable node (max replicas per node limit exceed)",
        ),
        (
            placement(|p| {
                p.platforms = vec![Platform {
                    os: "linux".into(),
                    architecture: "arm64".into(),
                    variant: String::new(),
                }];
            }),
            |_| {},
            2,
            "no suitable node (unsupported platform on 1 node)",
        ),
        (
            replicated("blue", 2),
            |n| n.spec.swarm.availability = Availability::Pause,
            2,
            "no suitable node (1 node not available for new tasks)",
        ),
        (
            {
                let mut s = replicated("blue", 2);
                s.task_template.log_driver = Some(Driver {
                    name: "gelf".into(),
                    ..Driver::default()
                });
                s
            },
            |n| n.status.description.plugins = vec![("Log".into(), "json-file".into())],
            2,
            "no suitable node (missing plugin on 1 node)",
        ),
    ];
    for (spec, node, waiting, text) in rows {
        let mut sim = Sim::new(0);
        sim.node("node1", node);
        sim.create(spec);
        sim.run(2);
        let reasons = pending(&sim);
        assert_eq!(reasons.len(), waiting, "{text}");
        assert!(reasons.iter().all(|r| r == text), "{reasons:?} is not {text}");
        assert!(sim.explanations.iter().any(|e| e == text));
    }
}

#[test]
fn reasons_are_counted_the_most_frequent_first() {
    let mut sim = Sim::new(3);
    sim.node("node1", |n| n.status.description.memory = 1);
    let mut spec = reserving(|r| r.memory = 8 << 20);
    spec.task_template.placement = Some(Placement {
        constraints: vec!["node.hostname==node1".into()],
        ..Placement::default()
    });
    sim.create(spec);
    sim.settle();
    let want = "no suitable node (scheduling constraints not satisfied on 2 nodes; insufficient resources on 1 node)";
    assert_eq!(pending(&sim)[0], want);
    let mut none = Sim::new(0);
    none.create(replicated("blue", 1));
    none.settle();
    assert_eq!(pending(&none)[0], "no suitable node");
}

#[test]
fn pending_tasks_are_placed_when_a_node_fits() {
    let mut sim = Sim::new(1);
    sim.create(placement(|p| p.constraints = vec!["node.labels.a==b".into()]));
    sim.run(2);
    sim.node("node1", |n| {
        drop(n.spec.swarm.labels.insert("a".into(), "b".into()));
    });
    sim.run(4);
    assert_eq!(sim.running().len(), 2);
    assert!(
        sim.running()
            .iter()
            .all(|p| p.state.error.is_empty() && p.status.message.is_empty())
    );
}

#[test]
fn tasks_spread_over_nodes_then_by_load() {
    let mut sim = Sim::new(3);
    sim.create(replicated("blue", 7));
    sim.settle();
    let n: Vec<usize> = counts(&sim).into_iter().map(|(_, n)| n).collect();
    assert_eq!(n, [3, 2, 2]);
}

#[test]
fn preferences_spread_over_values_first() {
    let mut sim = Sim::new(4);
    for (node, zone) in [("node1", "a"), ("node2", "a"), ("node3", "a"), ("node4", "b")] {
        sim.node(node, |n| {
            drop(n.spec.swarm.labels.insert("zone".into(), zone.into()));
        });
    }
    let mut spec = placement(|p| p.preferences = vec!["node.labels.zone".into()]);
    spec.mode = ServiceMode::Replicated { replicas: 6 };
    sim.create(spec);
    sim.settle();
    let n: Vec<usize> = counts(&sim).into_iter().map(|(_, n)| n).collect();
    assert_eq!(n, [1, 1, 1, 3]);
}

#[test]
fn reservations_fill_nodes_and_no_more() {
    let mut sim = Sim::new(2);
    let mut spec = reserving(|r| r.nano_cpus = 1_500_000_000);
    spec.mode = ServiceMode::Replicated { replicas: 6 };
    sim.create(spec);
    sim.run(5);
    assert_eq!(sim.running().len(), 4);
    assert_eq!(pending(&sim).len(), 2);
    sim.node("node3", |_| {});
    sim.run(5);
    assert_eq!(sim.running().len(), 6);
}

#[test]
fn nodes_on_which_a_service_keeps_failing_are_avoided() {
    let mut sim = Sim::new(2);
    sim.behaviour.insert("x".into(), Behaviour::Crashes);
    let mut spec = replicated("x", 1);
    spec.task_template.restart_policy = Some(TaskRestartPolicy {
        delay: Some(1_000_000_000),
        ..TaskRestartPolicy::default()
    });
    sim.create(spec);
    sim.run(40);
    let nodes: std::collections::BTreeSet<String> =
        sim.pods().iter().map(|p| p.spec.node_name.clone()).collect();
    assert_eq!(nodes.len(), 2, "{:#?}", sim.summary());
}
