//! Services of ECS on simulated nodes: rounds of plan and report until nothing changes.

use std::sync::Arc;

use serde_json::json;
use tripod_model::Time;
use tripod_model::ecs::*;
use tripod_model::object::{Kind, ObjectMeta, decode};
use tripod_model::pod::{DesiredState, Pod};
use tripod_plan::ecs::service::{begin, counts, is_live, is_ready};
use tripod_plan::ecs::{life, raw, reconcile_ecs, state};
use tripod_plan::{Object, Rng, View, Write};

const NAMESPACE: &str = "ecs-1";

struct World {
    view: View,
    now: Time,
    revision: u64,
    /// Images that cannot be had.
    broken: Vec<&'static str>,
    /// Images whose program ends with an error as soon as it runs.
    crashing: Vec<&'static str>,
    /// Fewest ready and most live tasks seen.
    fewest: usize,
    most: usize,
}

fn definition(revision: i64, image: &str) -> TaskDefinition {
    let spec = TaskDefinitionSpec {
        region: "r".into(),
        account: "1".into(),
        family: "web".into(),
        revision,
        status: "ACTIVE".into(),
        definition: json!({ "networkMode": "awsvpc", "cpu": "256", "memory": "512", "containerDefinitions": [
            { "name": "main", "image": image, "essential": true } ] })
        .as_object()
        .cloned()
        .unwrap(),
        ..TaskDefinitionSpec::default()
    };
    TaskDefinition {
        metadata: meta("", &format!("web.{revision}")),
        spec,
    }
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: namespace.into(),
        name: name.into(),
        ..ObjectMeta::default()
    }
}

fn template(revision: i64) -> EcsTemplate {
    EcsTemplate {
        task_definition: format!("arn:aws:ecs:r:1:task-definition/web:{revision}"),
        launch_type: "FARGATE".into(),
        network_configuration: Some(json!({ "awsvpcConfiguration": { "subnets": ["subnet-1"] } })),
        ..EcsTemplate::default()
    }
}

impl World {
    fn new(desired: i64, change: impl Fn(&mut EcsServiceSpec)) -> Self {
        let mut w = Self {
            view: View::new(),
            now: Time::from_second(1_000_000).unwrap(),
            revision: 0,
            broken: Vec::new(),
            crashing: Vec::new(),
            fewest: usize::MAX,
            most: 0,
        };
        let spec = EcsClusterSpec {
            region: "r".into(),
            account: "1".into(),
            name: "c".into(),
            ..EcsClusterSpec::default()
        };
        w.view.ecs_mut().upsert_cluster(Arc::new(EcsCluster {
            metadata: meta("", NAMESPACE),
            spec,
        }));
        for (revision, image) in [(1, "good:1"), (2, "good:2"), (3, "bad")] {
            w.view
                .ecs_mut()
                .upsert_definition(Arc::new(definition(revision, image)));
        }
        let mut service = EcsService {
            metadata: meta(NAMESPACE, &service_name("web")),
            ..EcsService::default()
        };
        service.metadata.creation_timestamp = Some(w.now);
        service.spec = EcsServiceSpec {
            region: "r".into(),
            account: "1".into(),
            cluster: "c".into(),
            name: "web".into(),
            desired_count: desired,
            propagate_tags: "NONE".into(),
            ..EcsServiceSpec::default()
        };
        change(&mut service.spec);
        service.status.state = "ACTIVE".into();
        begin(&mut service, template(1), "", w.now, &mut Rng::new(1));
        w.take(Write::Create(raw(&service)));
        w
    }

    fn take(&mut self, write: Write) {
        self.revision += 1;
        let revision = self.revision.to_string();
        match write {
            Write::Create(Object::Pod(pod))
            | Write::Update {
                object: Object::Pod(pod),
                ..
            } => {
                let mut pod = Pod::clone(&pod);
                pod.metadata.resource_version = revision;
                self.view.upsert_pod(Arc::new(pod));
            }
            Write::Delete {
                object: Object::Pod(pod),
                ..
            } => {
                self.view
                    .remove_pod(&format!("{}/{}", pod.metadata.namespace, pod.metadata.name));
            }
            Write::Create(Object::Raw(o))
            | Write::Update {
                object: Object::Raw(o),
                ..
            } => {
                assert_eq!(&*o.key.resource, EcsService::RESOURCE);
                let mut service: EcsService = decode(&o.bytes).unwrap();
                service.metadata.resource_version = revision;
                self.view.ecs_mut().upsert_service(Arc::new(service));
            }
            other => panic!("{other:?}"),
        }
    }

    fn service(&self) -> EcsService {
        EcsService::clone(self.view.ecs().service(NAMESPACE, &service_name("web")).unwrap())
    }

    fn change(&mut self, change: impl Fn(&mut EcsService)) {
        let mut service = self.service();
        change(&mut service);
        self.take(Write::Create(raw(&service)));
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        self.view.ecs().tasks(NAMESPACE).cloned().collect()
    }

    /// One step of the nodes: what is to run runs, what is to end ends.
    fn report(&mut self) {
        for pod in self.pods() {
            if state(&pod).stopped_at.is_some() {
                continue;
            }
            let mut next = Pod::clone(&pod);
            next.spec.node_name = "n".into();
            let image = next.spec.containers[0].image.clone();
            let status = if next.state.desired >= DesiredState::Shutdown {
                next.status.phase = "Failed".into();
                json!({ "terminated": { "exitCode": 137 } })
            } else if self.broken.contains(&image.as_str()) {
                json!({ "waiting": { "reason": "ErrImagePull", "message": "not there" } })
            } else if self.crashing.contains(&image.as_str()) && state(&pod).started_at.is_some() {
                next.status.phase = "Failed".into();
                json!({ "terminated": { "exitCode": 1 } })
            } else {
                next.status.phase = "Running".into();
                json!({ "running": {} })
            };
            next.status
                .rest
                .insert("containerStatuses", json!([{ "name": "main", "state": status }]));
            life::observe(&mut next, self.now);
            if next != *pod {
                self.take(Write::Create(Object::Pod(Arc::new(next))));
            }
        }
    }

    /// Plans and reports for so many seconds.
    fn run(&mut self, seconds: i64) {
        // The node's object must be there, or its tasks are lost.
        let mut node = tripod_model::node::Node::default();
        node.metadata.name = "n".into();
        node.status.state = tripod_model::node::NodeState::Ready;
        self.view.upsert_node(Arc::new(node));
        for _ in 0..seconds {
            for _ in 0..4 {
                self.view.ecs_mut().mark_all();
                let dirty = self.view.ecs_mut().take_dirty();
                let plan = reconcile_ecs(&self.view, &dirty, self.now, self.revision);
                let written = !plan.writes.is_empty();
                plan.writes.into_iter().for_each(|w| self.take(w));
                let pods = self.pods();
                self.fewest = self.fewest.min(pods.iter().filter(|p| is_ready(p)).count());
                self.most = self.most.max(pods.iter().filter(|p| is_live(p)).count());
                if !written {
                    break;
                }
            }
            self.report();
            self.now = life::after(self.now, 1);
        }
    }

    fn running(&self) -> i64 {
        counts(&self.pods(), "").0
    }

    fn told(&self, text: &str) -> usize {
        self.service()
            .status
            .events
            .iter()
            .filter(|e| e.message.contains(text))
            .count()
    }
}

#[test]
fn a_service_gets_steady_and_says_so_once() {
    let mut w = World::new(3, |_| {});
    w.run(20);
    assert_eq!(w.running(), 3);
    let s = w.service();
    assert_eq!(
        (
            s.status.deployments.len(),
            s.status.deployments[0].rollout.as_str()
        ),
        (1, "COMPLETED")
    );
    assert!(
        s.status.events[0]
            .message
            .ends_with("has reached a steady state.")
    );
    assert!(
        s.status
            .events
            .last()
            .unwrap()
            .message
            .starts_with("(service web) has started 3 tasks: (task ")
    );
    assert_eq!((w.told("steady"), w.told("deployment completed")), (1, 1));
}

#[test]
fn a_rolling_update_keeps_enough_and_not_too_many() {
    for (minimum, maximum, fewest, most) in [(100, 200, 4, 8), (50, 100, 2, 4), (100, 150, 4, 6)] {
        let mut w = World::new(4, |s| {
            s.deployment.minimum_healthy_percent = minimum;
            s.deployment.maximum_percent = maximum;
        });
        w.run(10);
        (w.fewest, w.most) = (usize::MAX, 0);
        let now = w.now;
        w.change(|s| begin(s, template(2), "", now, &mut Rng::new(2)));
        w.run(30);
        assert!(
            w.fewest >= fewest && w.most <= most,
            "{minimum} {maximum}: {} {}",
            w.fewest,
            w.most
        );
        let s = w.service();
        assert_eq!((w.running(), s.status.deployments.len()), (4, 1));
        assert!(s.status.deployments[0].template.task_definition.ends_with(":2"));
    }
}

#[test]
fn the_circuit_breaker_goes_back() {
    let mut w = World::new(2, |s| {
        s.deployment.circuit_breaker = true;
        s.deployment.rollback = true;
    });
    w.broken = vec!["bad"];
    // The first deployment is replaced while the breaker still watches it.
    w.run(3);
    assert!(w.service().status.deployments[0].on_trial);
    let now = w.now;
    w.change(|s| begin(s, template(3), "", now, &mut Rng::new(2)));
    w.run(60);
    let s = w.service();
    assert!(
        s.spec.template.task_definition.ends_with(":1"),
        "{:?}",
        s.status.events
    );
    assert_eq!(
        (w.running(), s.status.deployments.len(), w.told("rolling back")),
        (2, 1, 1)
    );
    assert!(
        s.status
            .past
            .iter()
            .any(|d| d.rollout == "FAILED" && d.failed >= 3)
    );
}

/// Tasks that run for a second do start, and are of no use: the breaker counts them too, though all of them may run for
/// a moment.
#[test]
fn the_circuit_breaker_counts_tasks_that_end_at_once() {
    for desired in [1, 4] {
        let mut w = World::new(desired, |s| {
            s.deployment.circuit_breaker = true;
            s.deployment.rollback = true;
        });
        w.crashing = vec!["bad"];
        w.run(20);
        assert_eq!(w.service().status.deployments[0].rollout, "COMPLETED");
        let now = w.now;
        w.change(|s| begin(s, template(3), "", now, &mut Rng::new(2)));
        w.run(90);
        let s = w.service();
        assert!(
            s.spec.template.task_definition.ends_with(":1"),
            "{desired}: {:?}",
            s.status.events
        );
        assert_eq!((w.running(), w.told("rolling back")), (desired, 1));
    }
}

#[test]
fn failing_starts_wait_longer_and_longer() {
    let mut w = World::new(1, |_| {});
    w.broken = vec!["good:1"];
    w.run(120);
    let started = w.told("has started");
    assert!((4..20).contains(&started), "{started} starts in two minutes");
    assert!(w.told("unable to consistently start") >= 1);
}

#[test]
fn scaling_in_spares_what_is_protected_and_deletion_ends_everything() {
    let mut w = World::new(3, |_| {});
    w.run(10);
    let spared = w.pods()[0].metadata.name.clone();
    for pod in w.pods().iter().filter(|p| p.metadata.name == spared) {
        let mut next = Pod::clone(pod);
        next.state.ecs.as_mut().unwrap().protected_until = Some(life::after(w.now, 3600));
        w.take(Write::Create(Object::Pod(Arc::new(next))));
    }
    w.change(|s| s.spec.desired_count = 1);
    w.run(10);
    let live: Vec<String> = w
        .pods()
        .iter()
        .filter(|p| is_live(p))
        .map(|p| p.metadata.name.clone())
        .collect();
    assert_eq!(live, [spared]);
    w.change(|s| s.status.state = "DRAINING".into());
    w.run(10);
    assert_eq!((w.running(), w.service().status.state.as_str()), (0, "INACTIVE"));
    w.run(1);
    w.now = life::after(w.now, 3601);
    w.run(2);
    assert!(w.pods().is_empty(), "stopped tasks are forgotten after an hour");
}
