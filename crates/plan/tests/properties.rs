//! Properties over random clusters, services and histories.

#[allow(unreachable_pub, missing_docs, reason = "a module of tests")]
mod sim;

use std::collections::BTreeMap;

use proptest::prelude::*;
use sim::*;
use tripod_model::node::{Availability, NodeState};
use tripod_model::swarm::*;

/// Something that happens to a service or its cluster.
#[derive(Debug, Clone)]
enum Event {
    Scale(u64),
    Image(u8),
    Force,
    Rollback,
    Order(bool),
    Availability(usize, u8),
    Down(usize),
    Up(usize),
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..7_u64).prop_map(Event::Scale),
        (0..4_u8).prop_map(Event::Image),
        Just(Event::Force),
        Just(Event::Rollback),
        any::<bool>().prop_map(Event::Order),
        (0..3_usize, 0..3_u8).prop_map(|(n, a)| Event::Availability(n, a)),
        (0..3_usize).prop_map(Event::Down),
        (0..3_usize).prop_map(Event::Up),
        (1..15_u8).prop_map(Event::Wait),
    ]
}

fn apply(sim: &mut Sim, event: &Event) {
    let name = |n: &usize| format!("node{}", n + 1);
    match event {
        Event::Scale(n) => sim.update(|s| s.mode = ServiceMode::Replicated { replicas: *n }),
        Event::Image(n) => sim.update(|s| s.task_template.container.image = format!("image{n}")),
        Event::Force => sim.update(|s| s.task_template.force_update += 1),
        Event::Rollback if sim.service().previous_spec.is_some() => sim.rollback(),
        Event::Rollback => {}
        Event::Order(start_first) => sim.update(|s| {
            let order = if *start_first {
                UpdateOrder::StartFirst
            } else {
                UpdateOrder::StopFirst
            };
            s.update_config = Some(update_config(1, order, FailureAction::Continue));
        }),
        Event::Availability(n, a) => sim.node(&name(n), |node| {
            node.spec.swarm.availability =
                [Availability::Active, Availability::Pause, Availability::Drain][usize::from(*a)];
        }),
        Event::Down(n) => {
            sim.silent.insert(name(n));
            sim.node(&name(n), |node| node.status.state = NodeState::Down);
        }
        Event::Up(n) => {
            sim.silent.remove(&name(n));
            sim.node(&name(n), |node| node.status.state = NodeState::Ready);
        }
        Event::Wait(n) => sim.run(i64::from(*n)),
    }
    sim.settle();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, the service converges to what was asked for last: as many tasks, of that template, one in
    /// each slot; and each plan is a fixpoint (asserted by the simulation).
    #[test]
    fn services_converge(events in prop::collection::vec(event(), 1..12)) {
        let mut sim = Sim::new(3);
        sim.create(published(replicated("image0", 3), 80, 8080));
        sim.settle();
        for event in &events {
            apply(&mut sim, event);
        }
        for n in 0..3 {
            apply(&mut sim, &Event::Up(n));
            apply(&mut sim, &Event::Availability(n, 0));
        }
        sim.run(150);
        let ServiceMode::Replicated { replicas } = sim.service().spec.mode else { unreachable!() };
        let image = sim.service().spec.task_template.container.image.clone();
        prop_assert_eq!(sim.running_image(&image) as u64, replicas, "{:#?}", sim.summary());
        prop_assert_eq!(sim.wanted().len() as u64, replicas, "{:#?}", sim.summary());
        let slots: std::collections::BTreeSet<u64> = sim.wanted().iter().map(|p| p.swarm().unwrap().slot).collect();
        prop_assert_eq!(slots.len() as u64, replicas);
        let states = [None, Some(UpdateState::Completed), Some(UpdateState::RollbackCompleted)];
        prop_assert!(states.contains(&sim.update_status().map(|u| u.state)), "{:#?}", sim.summary());
    }

    /// An update never has more than its parallelism under way, and start-first never serves with fewer.
    #[test]
    fn updates_keep_their_bounds(
        replicas in 1..9_u64,
        parallelism in 1..4_u64,
        start_first in any::<bool>(),
        start in 1..4_i64,
        stop in 1..4_i64,
        delay in 0..4_i64,
    ) {
        let mut sim = Sim::new(2);
        let order = if start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
        let mut spec = published(replicated("blue", replicas), 80, 8080);
        let mut config = update_config(parallelism, order, FailureAction::Pause);
        config.delay = delay * 1_000_000_000;
        spec.update_config = Some(config);
        sim.create(spec);
        sim.run(10);
        sim.start_seconds = start;
        sim.stop_seconds = stop;
        sim.update(|s| s.task_template.container.image = "green".into());
        sim.run_with(20 * replicas as i64 + 20, |s| {
            let rising = s.wanted().iter()
                .filter(|p| p.spec.containers[0].image == "green" && !p.state.serving).count();
            assert!(rising as u64 <= parallelism, "{:#?}", s.summary());
            let serving = s.running().len() as u64;
            let least = if start_first { replicas } else { replicas.saturating_sub(parallelism) };
            assert!(serving >= least, "{serving} of {replicas}: {:#?}", s.summary());
        });
        prop_assert_eq!(sim.running_image("green") as u64, replicas);
        prop_assert_eq!(sim.update_status().unwrap().state, UpdateState::Completed);
    }

    /// No node takes more than it has, tasks are where their constraints and limits allow, and what pends could not
    /// have been placed.
    #[test]
    fn placement_respects_nodes(
        nodes in prop::collection::vec((1..9_i64, 0..2_u8), 1..6),
        replicas in 0..30_u64,
        cpus in 1..4_i64,
        limit in 0..4_u64,
        zone in prop::option::of(0..2_u8),
    ) {
        let mut sim = Sim::new(0);
        for (i, (n, z)) in nodes.iter().enumerate() {
            sim.node(&format!("n{i}"), |node| {
                node.status.description.nano_cpus = n * 1_000_000_000;
                node.spec.swarm.labels.insert("zone".into(), format!("z{z}"));
            });
        }
        let mut spec = replicated("blue", replicas);
        let reservations = Some(ResourceAmounts { nano_cpus: cpus * 1_000_000_000, ..ResourceAmounts::default() });
        spec.task_template.resources = Some(TaskResources { limits: None, reservations });
        let constraints = zone.map(|z| format!("node.labels.zone==z{z}")).into_iter().collect();
        spec.task_template.placement = Some(Placement { constraints, max_replicas: limit, ..Placement::default() });
        sim.create(spec);
        sim.settle();
        let mut per_node: BTreeMap<String, u64> = BTreeMap::new();
        for pod in sim.wanted().iter().filter(|p| !p.spec.node_name.is_empty()) {
            *per_node.entry(pod.spec.node_name.clone()).or_default() += 1;
        }
        let mut room = 0;
        for (i, (n, z)) in nodes.iter().enumerate() {
            let eligible = zone.is_none_or(|zone| zone == *z);
            let by_cpus = (n / cpus) as u64;
            let most = if !eligible { 0 } else if limit == 0 { by_cpus } else { by_cpus.min(limit) };
            let has = per_node.get(&format!("n{i}")).copied().unwrap_or(0);
            prop_assert!(has <= most);
            room += most;
        }
        prop_assert_eq!(per_node.values().sum::<u64>(), room.min(replicas));
    }

    /// Scaling from any number to any other leaves exactly that many.
    #[test]
    fn scaling_is_exact(steps in prop::collection::vec(0..12_u64, 1..6)) {
        let mut sim = Sim::new(3);
        sim.create(replicated("blue", 1));
        for n in steps {
            sim.update(|s| s.mode = ServiceMode::Replicated { replicas: n });
            sim.run(4);
            prop_assert_eq!(sim.running().len() as u64, n);
            prop_assert_eq!(sim.pods().len() as u64, n);
        }
    }
}
