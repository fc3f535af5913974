//! A cluster in memory, on virtual time: executes plans, moves tasks along as nodes would, and checks the
//! invariants after each step.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use tripod_model::Time;
use tripod_model::data::Network;
use tripod_model::network::{NetworkDriver, NetworkSpec};
use tripod_model::node::{Node, NodeRole, NodeState};
use tripod_model::object::ObjectMeta;
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::session::PodReport;
use tripod_model::swarm::*;
use tripod_plan::allocate::complete_network;
use tripod_plan::project::serves;
use tripod_plan::report::merge_report;
use tripod_plan::rollout::{new_service, rollback_service, update_service};
use tripod_plan::view::pod_key;
use tripod_plan::{Object, Plan, View, Write, reconcile};

/// What a task does once it is started, by image.
#[derive(Clone, Copy, PartialEq)]
pub enum Behaviour {
    /// Runs until it is stopped.
    Runs,
    /// Fails instead of running.
    Crashes,
    /// Runs and fails after so many seconds.
    DiesAfter(i64),
    /// Ends with status 0 after so many seconds.
    CompletesAfter(i64),
}

pub struct Sim {
    pub view: View,
    pub now: Time,
    pub revision: u64,
    pub behaviour: BTreeMap<String, Behaviour>,
    /// Seconds that a task takes to start and to stop.
    pub start_seconds: i64,
    pub stop_seconds: i64,
    /// Nodes that say nothing.
    pub silent: BTreeSet<String>,
    pub wake_at: Option<Time>,
    /// When a pod's present step is over, by key.
    timers: BTreeMap<String, Time>,
    /// Reasons given by plans.
    pub explanations: Vec<String>,
    pub writes: usize,
    /// Replicas are moved: two may run at one place.
    pub two_at_a_place: bool,
}

pub fn seconds(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

pub const ID: &str = "svc1";

impl Sim {
    pub fn new(nodes: usize) -> Self {
        let mut sim = Self {
            view: View::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            revision: 0,
            behaviour: BTreeMap::new(),
            start_seconds: 1,
            stop_seconds: 1,
            silent: BTreeSet::new(),
            wake_at: None,
            timers: BTreeMap::new(),
            explanations: Vec::new(),
            writes: 0,
            two_at_a_place: false,
        };
        sim.view.upsert_cluster(Arc::new(SwarmCluster::default()));
        sim.network("ingress", true);
        for n in 1..=nodes {
            sim.node(&format!("node{n}"), |_| {});
        }
        sim
    }

    pub fn network(&mut self, name: &str, ingress: bool) -> String {
        let id = format!("net-{name}");
        let spec = NetworkSpec {
            id: id.clone(),
            name: name.into(),
            driver: NetworkDriver::Overlay,
            cluster: true,
            created_at: self.now,
            internal: false,
            attachable: false,
            ingress,
            ipv4: true,
            ipv6: false,
            subnets: Vec::new(),
            options: BTreeMap::new(),
            ipam_options: BTreeMap::new(),
            labels: BTreeMap::new(),
            vni: 0,
            mtu: 0,
            encrypted: false,
        };
        let spec = complete_network(&self.view, spec).unwrap();
        let metadata = ObjectMeta {
            name: id.clone(),
            ..ObjectMeta::default()
        };
        self.view.upsert_network(Arc::new(Network { metadata, spec }));
        id
    }

    pub fn node(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        let mut node = self.view.node(name).map_or_else(
            || {
                let mut node = Node::default();
                node.metadata.name = name.into();
                node.spec.swarm.node_id = format!("id-{name}");
                node.spec.swarm.role = NodeRole::Manager;
                node.status.state = NodeState::Ready;
                node.status.addr = "10.9.0.1".into();
                node.status.description.hostname = name.into();
                node.status.description.nano_cpus = 4_000_000_000;
                node.status.description.memory = 8 << 30;
                node.status.description.platform.os = "linux".into();
                node.status.description.platform.architecture = "x86_64".into();
                node
            },
            |n| n.as_ref().clone(),
        );
        change(&mut node);
        self.view.upsert_node(Arc::new(node));
    }

    pub fn create(&mut self, spec: ServiceSpec) {
        let service = new_service(ID.into(), "uid".into(), spec, self.now);
        self.put(service);
    }

    pub fn update(&mut self, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.view.service(ID).unwrap().clone();
        let mut spec = service.spec.clone();
        change(&mut spec);
        self.put(update_service(&service, spec, self.now));
    }

    pub fn rollback(&mut self) {
        let service = rollback_service(self.view.service(ID).unwrap(), self.now).unwrap();
        self.put(service);
    }

    pub fn put(&mut self, mut service: SwarmService) {
        self.revision += 1;
        service.metadata.resource_version = self.revision.to_string();
        self.view.upsert_service(Arc::new(service));
    }

    pub fn service(&self) -> &SwarmService {
        self.view.service(ID).unwrap()
    }

    pub fn update_status(&self) -> Option<&UpdateStatus> {
        self.service().status.update.as_ref()
    }

    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.view.pods_of_service(ID).cloned().collect()
    }

    pub fn wanted(&self) -> Vec<Arc<Pod>> {
        self.pods().into_iter().filter(|p| p.is_live()).collect()
    }

    pub fn running(&self) -> Vec<Arc<Pod>> {
        self.pods()
            .into_iter()
            .filter(|p| p.is_live() && serves(p))
            .collect()
    }

    pub fn running_image(&self, image: &str) -> usize {
        self.running()
            .iter()
            .filter(|p| p.spec.containers[0].image == image)
            .count()
    }

    /// Plans and executes until nothing more is to be done now.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 20, "plans go on and on");
            let dirty = self.view.take_dirty();
            let plan = reconcile(&self.view, &dirty, self.now, self.revision);
            self.wake_at = [self.wake_at, plan.wake_at].into_iter().flatten().min();
            if plan.is_empty() {
                break;
            }
            self.execute(&plan);
            self.check();
        }
        // A fixpoint: everything planned again changes nothing.
        self.view.mark_all_dirty();
        let all = self.view.take_dirty();
        let again = reconcile(&self.view, &all, self.now, 1);
        assert!(
            again.is_empty(),
            "not a fixpoint: {:#?} {:#?}",
            again.writes.len(),
            self.summary()
        );
        self.wake_at = again.wake_at;
    }

    pub fn execute(&mut self, plan: &Plan) {
        self.explanations
            .extend(plan.explanations.iter().map(|e| e.message.clone()));
        for write in &plan.writes {
            self.writes += 1;
            self.revision += 1;
            if let Write::Update { based_on, .. } | Write::Delete { based_on, .. } = write {
                let current = match write.object() {
                    Object::Pod(p) => self.view.pod(&pod_key(p)).unwrap().metadata.revision(),
                    Object::Service(s) => self.view.service(&s.metadata.name).unwrap().metadata.revision(),
                    _ => unreachable!(),
                };
                assert_eq!(*based_on, current, "out of sequence");
            }
            match write {
                Write::Delete {
                    object: Object::Pod(p),
                    ..
                } => self.view.remove_pod(&pod_key(p)),
                Write::Create(Object::Pod(p))
                | Write::Update {
                    object: Object::Pod(p),
                    ..
                } => {
                    let fresh = matches!(write, Write::Create(_));
                    assert_eq!(fresh, self.view.pod(&pod_key(p)).is_none());
                    let mut pod = p.as_ref().clone();
                    pod.metadata.resource_version = self.revision.to_string();
                    self.view.upsert_pod(Arc::new(pod));
                }
                Write::Update {
                    object: Object::Service(s),
                    ..
                } => {
                    let mut service = s.as_ref().clone();
                    service.metadata.resource_version = self.revision.to_string();
                    self.view.upsert_service(Arc::new(service));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Runs for so many seconds, in steps of one.
    pub fn run(&mut self, secs: i64) {
        self.run_with(secs, |_| {});
    }

    pub fn run_with(&mut self, secs: i64, mut each: impl FnMut(&Sim)) {
        self.settle();
        each(self);
        for _ in 0..secs {
            self.now = self.now.checked_add(seconds(1)).unwrap();
            if self.wake_at.is_some_and(|t| t <= self.now) {
                self.wake_at = None;
                self.view.mark_all_dirty();
            }
            self.nodes_act();
            self.settle();
            each(self);
        }
    }

    pub fn run_until(&mut self, limit: i64, done: impl Fn(&Sim) -> bool) {
        self.settle();
        for _ in 0..limit {
            if done(self) {
                return;
            }
            self.run(1);
        }
        panic!("not reached in {limit} s: {:#?}", self.summary());
    }

    pub fn summary(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .pods()
            .iter()
            .map(|p| {
                let t = p.swarm().unwrap();
                format!(
                    "{}{} gen {} {} on {:?}: {:?} -> {:?} {} {}",
                    t.slot,
                    t.node_id,
                    t.service_generation,
                    p.spec.containers[0].image,
                    p.spec.node_name,
                    p.state.observed,
                    p.state.desired,
                    p.state.message,
                    p.state.error
                )
            })
            .collect();
        lines.push(format!("{:?}", self.update_status()));
        lines
    }

    /// What the nodes do in a second: tasks come up, run, end.
    pub fn nodes_act(&mut self) {
        let pods: Vec<Arc<Pod>> = self.view.pods().cloned().collect();
        for pod in pods {
            if pod.spec.node_name.is_empty()
                || pod.state.observed.is_final()
                || self.silent.contains(&pod.spec.node_name)
            {
                continue;
            }
            if let Some(report) = self.next_report(&pod)
                && let Some(mut next) = merge_report(&pod, &report, self.now)
            {
                self.revision += 1;
                next.metadata.resource_version = self.revision.to_string();
                self.view.upsert_pod(Arc::new(next));
            }
        }
    }

    fn next_report(&mut self, pod: &Pod) -> Option<PodReport> {
        use TaskState::*;
        let key = pod_key(pod);
        let behaviour = self
            .behaviour
            .get(&pod.spec.containers[0].image)
            .copied()
            .unwrap_or(Behaviour::Runs);
        let ending = pod.state.desired > DesiredState::Complete;
        let state = match (pod.state.observed, ending) {
            (_, true) => {
                let delay = if pod.state.observed >= Starting {
                    self.stop_seconds
                } else {
                    0
                };
                if !self.after(format!("{key} stop"), delay) {
                    return None;
                }
                Shutdown
            }
            (Assigned, _) => Ready,
            (Ready, _) if pod.state.desired == DesiredState::Ready => return None,
            (Ready, _) => Starting,
            (Starting, _) => {
                if !self.after(format!("{key} start"), self.start_seconds) {
                    return None;
                }
                if behaviour == Behaviour::Crashes {
                    Failed
                } else {
                    Running
                }
            }
            (Running, _) => match behaviour {
                Behaviour::DiesAfter(n) if self.after(format!("{key} run"), n) => Failed,
                Behaviour::CompletesAfter(n) if self.after(format!("{key} run"), n) => Complete,
                _ if !pod.state.serving => Running,
                _ => return None,
            },
            _ => return None,
        };
        Some(PodReport {
            pod: key,
            uid: pod.metadata.uid.clone(),
            state,
            at: Some(self.now),
            message: state.as_str().into(),
            error: if state == Failed {
                "task: non-zero exit (1)".into()
            } else {
                String::new()
            },
            exit_code: state.is_final().then_some(i64::from(state == Failed)),
            serving: state == Running,
            ..PodReport::default()
        })
    }

    fn after(&mut self, timer: String, secs: i64) -> bool {
        let now = self.now;
        let due = *self
            .timers
            .entry(timer)
            .or_insert_with(|| now.checked_add(seconds(secs)).unwrap());
        due <= now
    }

    /// What holds at all times.
    pub fn check(&self) {
        let mut addresses = BTreeSet::new();
        let mut live: BTreeMap<(u64, String), Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in self.view.pods() {
            let task = pod.swarm().unwrap();
            if !pod.state.observed.is_final() {
                for net in pod.extension.networks.iter().filter_map(|n| n.address) {
                    assert!(addresses.insert(net.addr()), "address {net} given out twice");
                }
            }
            if pod.is_live() && pod.state.desired >= DesiredState::Running {
                live.entry((task.slot, task.node_id.clone()))
                    .or_default()
                    .push(pod.clone());
            }
            if !pod.spec.node_name.is_empty() {
                assert!(pod.state.observed >= TaskState::Assigned);
            }
        }
        for service in self.view.services() {
            for vip in service.status.endpoint.iter().flat_map(|e| &e.virtual_ips) {
                assert!(
                    addresses.insert(vip.ip()),
                    "virtual address {} given out twice",
                    vip.ip()
                );
            }
        }
        let start_first = self.view.service(ID).is_some_and(|s| {
            s.spec
                .update_config
                .as_ref()
                .is_some_and(|u| u.order == UpdateOrder::StartFirst)
                || s.spec
                    .rollback_config
                    .as_ref()
                    .is_some_and(|u| u.order == UpdateOrder::StartFirst)
        });
        if !start_first && !self.two_at_a_place {
            for (place, pods) in live {
                assert!(
                    pods.len() <= 1,
                    "two tasks are to run at {place:?}: {:#?}",
                    self.summary()
                );
            }
        }
    }
}

pub fn replicated(image: &str, replicas: u64) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: "web".into(),
        mode: ServiceMode::Replicated { replicas },
        ..ServiceSpec::default()
    };
    spec.task_template.container.image = image.into();
    spec
}

pub fn published(mut spec: ServiceSpec, port: u16, target: u16) -> ServiceSpec {
    spec.endpoint_spec = Some(EndpointSpec {
        mode: EndpointMode::Vip,
        ports: vec![PortConfig {
            target_port: target,
            published_port: port,
            ..PortConfig::default()
        }],
    });
    spec
}

pub fn update_config(parallelism: u64, order: UpdateOrder, action: FailureAction) -> UpdateConfig {
    UpdateConfig {
        parallelism,
        order,
        failure_action: action,
        ..UpdateConfig::default()
    }
}
