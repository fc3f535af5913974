//! Replicas that move to nodes that have fewer of them.

#[allow(unreachable_pub, missing_docs, reason = "a module of tests")]
mod sim;

use std::collections::BTreeMap;

use sim::*;
use tripod_model::node::Availability;
use tripod_model::swarm::*;
use tripod_plan::rebalance::rebalance;

fn counts(sim: &Sim) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pod in sim.running() {
        *counts.entry(pod.spec.node_name.clone()).or_insert(0) += 1;
    }
    counts
}

/// A service on the first nodes of a cluster only; the others take tasks again after that.
fn uneven(nodes: usize, of: usize, mut spec: ServiceSpec, change: impl FnOnce(&mut ServiceSpec)) -> Sim {
    let mut sim = Sim::new(of);
    change(&mut spec);
    sim.two_at_a_place = true;
    for n in nodes + 1..=of {
        sim.node(&format!("node{n}"), |node| {
            node.spec.swarm.availability = Availability::Drain;
        });
    }
    for n in 1..=of {
        let zone = if n <= nodes { "a" } else { "b" };
        sim.node(&format!("node{n}"), |node| {
            node.spec.swarm.labels.insert("zone".into(), zone.into());
        });
    }
    sim.create(spec);
    sim.run(10);
    for n in nodes + 1..=of {
        sim.node(&format!("node{n}"), |node| {
            node.spec.swarm.availability = Availability::Active;
        });
    }
    sim.run(5);
    sim
}

fn ask(sim: &mut Sim) {
    let mut service = sim.service().clone();
    service.status.rebalancing = true;
    sim.put(service);
}

#[test]
fn what_would_move() {
    let placement = |change: fn(&mut Placement)| {
        move |spec: &mut ServiceSpec| change(spec.task_template.placement.get_or_insert_default())
    };
    type Change = Box<dyn FnOnce(&mut ServiceSpec)>;
    let rows: Vec<(&str, usize, usize, u64, Change, usize)> = vec![
        ("four on one of two nodes", 1, 2, 4, Box::new(|_| {}), 2),
        ("five on one of two nodes", 1, 2, 5, Box::new(|_| {}), 2),
        ("six on one of three nodes", 1, 3, 6, Box::new(|_| {}), 4),
        ("even enough", 2, 3, 2, Box::new(|_| {}), 0),
        ("one replica alone", 1, 2, 1, Box::new(|_| {}), 0),
        (
            "constraints hold",
            1,
            2,
            4,
            Box::new(placement(|p| p.constraints = vec!["node.labels.zone==a".into()])),
            0,
        ),
        (
            "one per node at most",
            2,
            4,
            2,
            Box::new(placement(|p| p.max_replicas = 1)),
            0,
        ),
        (
            "zones are even first",
            2,
            3,
            4,
            Box::new(placement(|p| p.preferences = vec!["node.labels.zone".into()])),
            2,
        ),
    ];
    for (what, nodes, of, replicas, change, want) in rows {
        let sim = uneven(nodes, of, replicated("blue", replicas), change);
        let found = rebalance(&sim.view, sim.now);
        assert_eq!(found.moves.len(), want, "{what}: {:#?}", found.moves);
        assert!(
            found.moves.iter().all(|m| m.from != m.to && m.service == "web"),
            "{what}"
        );
    }
}

#[test]
fn jobs_globals_updates_and_data_stay() {
    let keeps = |spec: ServiceSpec| {
        rebalance(
            &uneven(1, 2, spec, |_| {}).view,
            "2026-01-01T00:00:00Z".parse().unwrap(),
        )
    };
    let mut global = replicated("blue", 1);
    global.mode = ServiceMode::Global {};
    assert_eq!(keeps(global), tripod_plan::rebalance::Rebalancing::default());
    let mut data = replicated("blue", 4);
    data.task_template.container.mounts = vec![TaskMount {
        type_: "volume".into(),
        source: "db".into(),
        target: "/data".into(),
        ..TaskMount::default()
    }];
    let found = keeps(data);
    assert!(found.moves.is_empty());
    assert_eq!(
        found.kept[0].reason,
        "its tasks keep data in volume db of their nodes"
    );
}

#[test]
fn replicas_move_one_after_the_other_and_none_is_missed() {
    let mut sim = uneven(1, 3, replicated("blue", 6), |_| {});
    assert_eq!(
        counts(&sim).into_iter().collect::<Vec<_>>(),
        [("node1".to_owned(), 6)]
    );
    ask(&mut sim);
    sim.run_with(60, |sim| {
        assert!(sim.running().len() >= 6, "{:#?}", sim.summary());
        let moving = sim
            .pods()
            .iter()
            .filter(|p| p.is_live() && p.state.moving)
            .count();
        assert!(moving <= 1, "one at a time");
    });
    let even: Vec<_> = ["node1", "node2", "node3"].map(|n| (n.to_owned(), 2)).into();
    assert_eq!(counts(&sim).into_iter().collect::<Vec<_>>(), even);
    assert!(!sim.service().status.rebalancing);
    assert!(sim.update_status().is_none(), "that was no update");
}

#[test]
fn a_successor_that_fails_leaves_its_replica_in_place() {
    let mut sim = uneven(1, 2, replicated("blue", 4), |_| {});
    sim.behaviour.insert("blue".into(), Behaviour::Crashes);
    ask(&mut sim);
    sim.run_with(30, |sim| assert_eq!(sim.running().len(), 4));
    assert_eq!(
        counts(&sim).into_iter().collect::<Vec<_>>(),
        [("node1".to_owned(), 4)]
    );
    assert!(!sim.service().status.rebalancing);
    assert!(
        sim.explanations
            .iter()
            .any(|e| e.starts_with("a replica stays where it is: task: non-zero exit")),
        "{:?}",
        sim.explanations
    );
    assert_eq!(sim.wanted().len(), 4, "{:#?}", sim.summary());
}

#[test]
fn an_update_meanwhile_wins() {
    let mut sim = uneven(1, 2, replicated("blue", 4), |_| {});
    ask(&mut sim);
    sim.run(2);
    sim.update(|s| s.task_template.container.image = "green".into());
    sim.run(90);
    assert_eq!(sim.running_image("green"), 4, "{:#?}", sim.summary());
    assert_eq!(sim.running().len(), 4);
    assert_eq!(counts(&sim).values().copied().collect::<Vec<_>>(), [2, 2]);
}

/// An update that takes its slots one by one comes late to the one that has just moved: its old task does not wait
/// for that.
#[test]
fn what_has_moved_ends_before_the_update_comes_to_it() {
    let mut sim = uneven(1, 2, replicated("blue", 6), |_| {});
    ask(&mut sim);
    sim.run(2);
    let moving = |sim: &Sim| {
        sim.pods()
            .iter()
            .filter(|p| p.is_live() && p.state.moving)
            .count()
    };
    assert_eq!(moving(&sim), 1, "{:#?}", sim.summary());
    sim.update(|s| {
        s.task_template.container.image = "green".into();
        s.update_config = Some(UpdateConfig {
            parallelism: 1,
            delay: 60_000_000_000,
            ..UpdateConfig::default()
        });
    });
    sim.run(30);
    assert!(
        sim.running_image("blue") >= 4,
        "the update is not through: {:#?}",
        sim.summary()
    );
    assert_eq!(moving(&sim), 0, "{:#?}", sim.summary());
    assert_eq!(sim.running().len(), 6, "{:#?}", sim.summary());
}
