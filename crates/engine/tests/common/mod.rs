//! A cluster of one in a temporary directory, and a node that pretends to run what it is assigned.
#![allow(dead_code, unreachable_pub)]

pub mod host;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tripod_engine::{Engine, InitRequest, Manager, Options, Reporter};
use tripod_model::Time;
use tripod_model::node::NodeDescription;
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::session::{DataItem, PodReport};
use tripod_model::swarm::{ServiceMode, ServiceSpec, SwarmService, TaskContainer, TaskSpec, TaskState};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn options() -> Options {
    let description = NodeDescription {
        hostname: "host_1".into(),
        nano_cpus: 4_000_000_000,
        memory: 8 << 30,
        engine_version: "0.1.0".into(),
        ..NodeDescription::default()
    };
    Options {
        description,
        node_listen: Some(([127, 0, 0, 1], 0).into()),
    }
}

pub struct Cluster {
    pub dir: TempDir,
    pub engine: Engine,
    pub manager: Arc<Manager>,
}

pub async fn cluster() -> Cluster {
    cluster_with(InitRequest::default()).await
}

pub async fn cluster_with(request: InitRequest) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), options()).await.unwrap();
    let request = InitRequest {
        advertise_addr: "192.0.2.1".into(),
        ..request
    };
    engine.swarm_init(request).await.unwrap();
    let manager = engine.manager().unwrap();
    Cluster { dir, engine, manager }
}

impl Cluster {
    /// Waits until a look at the manager gives something.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&Manager) -> Option<T>) -> T {
        until(&self.manager, what, look).await
    }

    pub async fn running(&self, service: &str, n: u64) -> SwarmService {
        self.until(&format!("{n} tasks of {service}"), |m| {
            let service = m.service(service).ok()?;
            (m.service_counts(&service).running == n).then_some(service)
        })
        .await
    }
}

pub async fn until<T>(manager: &Manager, what: &str, look: impl Fn(&Manager) -> Option<T>) -> T {
    let mut revision = manager.view_revision();
    let wait = async {
        loop {
            revision.borrow_and_update();
            if let Some(found) = look(manager) {
                return found;
            }
            revision.changed().await.expect("the manager runs");
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(found) => found,
        Err(_) => {
            let tasks = manager.tasks(&tripod_engine::Filters::new()).unwrap();
            let tasks: Vec<String> = tasks
                .iter()
                .map(|t| format!("{} {:?}", t.pod.metadata.name, t.pod.state))
                .collect();
            panic!("waited in vain for {what}; tasks:\n{}", tasks.join("\n"));
        }
    }
}

/// What the pretended node saw.
#[derive(Default)]
pub struct Seen {
    pub pods: HashMap<String, Arc<Pod>>,
    pub data: BTreeMap<String, Arc<DataItem>>,
    pub frontends: Vec<tripod_model::network::Frontend>,
    pub networks: BTreeMap<String, Arc<tripod_model::network::NetworkSpec>>,
    pub names: BTreeMap<String, Arc<Vec<tripod_model::network::NameRecord>>>,
    pub assignments: usize,
    states: HashMap<String, TaskState>,
}

pub struct FakeNode {
    pub seen: Arc<Mutex<Seen>>,
    pub reporter: Reporter,
    task: JoinHandle<()>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeNode {
    /// A node on which every pod does what is asked of it; images named `broken` fail at start.
    pub fn start(manager: &Arc<Manager>) -> Self {
        let mut session = manager.session(manager.node_id()).unwrap();
        let (seen, reporter) = (Arc::new(Mutex::new(Seen::default())), session.reporter());
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                while let Some(assignment) = session.next().await {
                    let mut reports = Vec::new();
                    {
                        let mut seen = seen.lock().unwrap();
                        assert_eq!(assignment.full, seen.assignments == 0, "full exactly once");
                        seen.assignments += 1;
                        for pod in &assignment.pods {
                            let key = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
                            seen.pods.insert(key.clone(), pod.clone());
                            reports.extend(obey(&mut seen.states, &key, pod));
                        }
                        for key in &assignment.removed_pods {
                            seen.pods.remove(key).expect("only known pods go");
                        }
                        seen.networks
                            .extend(assignment.networks.iter().map(|n| (n.id.clone(), n.clone())));
                        assignment.removed_networks.iter().for_each(|id| {
                            seen.networks.remove(id);
                            seen.names.remove(id);
                        });
                        seen.data
                            .extend(assignment.data.iter().map(|d| (d.id.clone(), d.clone())));
                        assignment.removed_data.iter().for_each(|id| {
                            seen.data.remove(id);
                        });
                        if let Some(frontends) = &assignment.frontends {
                            seen.frontends = frontends.to_vec();
                        }
                        seen.names.extend(assignment.names.iter().cloned());
                    }
                    session.report(reports).await.unwrap();
                    session.reporter().acknowledge(assignment.revision);
                }
            }
        });
        Self { seen, reporter, task }
    }

    /// The process of a pod ends by itself.
    pub fn exit(&self, pod: &Pod, state: TaskState, code: i64) {
        let mut report = report(pod, state);
        report.exit_code = Some(code);
        if code != 0 {
            report.error = format!("task: non-zero exit ({code})");
        }
        self.reporter.report(vec![report]).unwrap();
    }
}

fn report(pod: &Pod, state: TaskState) -> PodReport {
    PodReport {
        pod: format!("{}/{}", pod.metadata.namespace, pod.metadata.name),
        uid: pod.metadata.uid.clone(),
        state,
        at: Some(Time::now()),
        message: state.as_str().into(),
        container_id: "c".repeat(64),
        pid: 1,
        serving: state == TaskState::Running,
        ..PodReport::default()
    }
}

fn obey(states: &mut HashMap<String, TaskState>, key: &str, pod: &Pod) -> Vec<PodReport> {
    use TaskState::{Accepted, Complete, Failed, Preparing, Ready, Running, Shutdown, Starting};
    let state = states.entry(key.to_owned()).or_insert(pod.state.observed);
    let broken = pod
        .swarm()
        .is_some_and(|t| t.template.container.image.contains("broken"));
    let way: &[TaskState] = match pod.state.desired {
        DesiredState::Ready => &[Accepted, Preparing, Ready],
        DesiredState::Running if broken => &[Accepted, Preparing, Ready, Starting, Failed],
        DesiredState::Running => &[Accepted, Preparing, Ready, Starting, Running],
        DesiredState::Complete => &[Accepted, Preparing, Ready, Starting, Running, Complete],
        DesiredState::Shutdown | DesiredState::Remove => &[Shutdown],
    };
    let mut reports = Vec::new();
    for next in way {
        if *next > *state && !state.is_final() {
            *state = *next;
            let mut report = report(pod, *next);
            if *next == Failed {
                report.exit_code = Some(1);
                report.error = "task: non-zero exit (1)".into();
            }
            reports.push(report);
        }
    }
    reports
}

pub fn service(name: &str, replicas: u64) -> ServiceSpec {
    let container = TaskContainer {
        image: "busybox:1".into(),
        ..TaskContainer::default()
    };
    ServiceSpec {
        name: name.into(),
        task_template: TaskSpec {
            container,
            ..TaskSpec::default()
        },
        mode: ServiceMode::Replicated { replicas },
        ..ServiceSpec::default()
    }
}

pub fn replicas(spec: &ServiceSpec, n: u64) -> ServiceSpec {
    ServiceSpec {
        mode: ServiceMode::Replicated { replicas: n },
        ..spec.clone()
    }
}
