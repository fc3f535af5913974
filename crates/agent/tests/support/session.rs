//! A manager in memory: hands out assignments, collects reports.

use std::sync::Mutex;

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::sync::{Notify, mpsc};
use tripod_agent::pods::Session;
use tripod_model::network::PortProtocol;
use tripod_model::pod::{DesiredState, HostPort, Pod, PodNetwork, SwarmTask};
use tripod_model::session::{Assignment, PodReport, Token, TokenRequest};
use tripod_model::swarm::TaskState;
use tripod_model::{Error, Result};

/// The double of a session.
pub struct FakeSession {
    sender: mpsc::UnboundedSender<Assignment>,
    receiver: tokio::sync::Mutex<mpsc::UnboundedReceiver<Assignment>>,
    reports: Mutex<Vec<PodReport>>,
    acknowledged: Mutex<Vec<u64>>,
    news: Notify,
}

impl Default for FakeSession {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            sender,
            receiver: tokio::sync::Mutex::new(receiver),
            reports: Mutex::default(),
            acknowledged: Mutex::default(),
            news: Notify::new(),
        }
    }
}

impl FakeSession {
    /// Hands out an assignment.
    pub fn assign(&self, assignment: Assignment) {
        self.sender.send(assignment).unwrap();
    }

    /// Hands out pods that are new or changed.
    pub fn assign_pods(&self, pods: &[&Pod]) {
        self.assign(Assignment {
            pods: pods.iter().map(|p| std::sync::Arc::new((*p).clone())).collect(),
            ..Assignment::default()
        });
    }

    /// The reports about a pod, in order.
    pub fn reports(&self, pod: &Pod) -> Vec<PodReport> {
        let all = self.reports.lock().unwrap();
        let about = all.iter().filter(|r| r.uid == pod.metadata.uid);
        about.cloned().collect()
    }

    /// The states that a pod was reported in, each once.
    pub fn states(&self, pod: &Pod) -> Vec<TaskState> {
        let mut states: Vec<_> = self.reports(pod).iter().map(|r| r.state).collect();
        states.dedup();
        states
    }

    /// Revisions that were acknowledged.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Waits for a report about a pod.
    pub async fn until(&self, pod: &Pod, wanted: impl Fn(&PodReport) -> bool) -> PodReport {
        loop {
            let news = self.news.notified();
            if let Some(found) = self.reports(pod).into_iter().find(&wanted) {
                return found;
            }
            news.await;
        }
    }

    /// Waits until a pod is reported in a state.
    pub async fn until_state(&self, pod: &Pod, state: TaskState) -> PodReport {
        self.until(pod, |r| r.state == state).await
    }
}

#[async_trait]
impl Session for FakeSession {
    async fn next(&self) -> Result<Assignment> {
        let next = self.receiver.lock().await.recv().await;
        next.ok_or_else(|| Error::unavailable("the manager is gone"))
    }

    async fn report(&self, reports: Vec<PodReport>) -> Result<()> {
        self.reports.lock().unwrap().extend(reports);
        self.news.notify_waiters();
        Ok(())
    }

    async fn acknowledge(&self, revision: u64) -> Result<()> {
        self.acknowledged.lock().unwrap().push(revision);
        self.news.notify_waiters();
        Ok(())
    }

    async fn token(&self, request: TokenRequest) -> Result<Token> {
        Ok(Token {
            token: format!("token of {}", request.service_account),
            expires_at: tripod_model::Time::MAX,
        })
    }
}

/// A task of a service, as pod; with an address it is in the overlay network `overlay`.
pub fn task(name: &str, address: Option<&str>) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.namespace = "swarm".into();
    pod.metadata.name = name.into();
    pod.metadata.uid = format!("uid-{name}");
    pod.state.observed = TaskState::Assigned;
    let mut task = SwarmTask {
        task_id: name.into(),
        service_id: "service".into(),
        service_name: "web".into(),
        slot: 1,
        mesh_ports: vec![HostPort {
            target: 8080,
            published: 80,
            protocol: PortProtocol::Tcp,
        }],
        ..SwarmTask::default()
    };
    task.template.container.image = "web".into();
    task.template.container.args = vec!["serve".into()];
    pod.extension.swarm = Some(task);
    if let Some(address) = address {
        pod.extension.networks = vec![PodNetwork {
            network_id: "overlay".into(),
            network_name: "backend".into(),
            address: Some(address.parse::<IpNet>().unwrap()),
            aliases: Vec::new(),
            driver_opts: Default::default(),
        }];
    }
    pod
}

/// The pod with another desired state and what was last observed of it.
pub fn with_state(pod: &Pod, desired: DesiredState, observed: TaskState) -> Pod {
    let mut pod = pod.clone();
    pod.state.desired = desired;
    pod.state.observed = observed;
    pod
}

/// The overlay network `backend`.
pub fn overlay() -> std::sync::Arc<tripod_model::network::NetworkSpec> {
    use tripod_model::network::{NetworkDriver, NetworkSpec, Subnet};
    std::sync::Arc::new(NetworkSpec {
        id: "overlay".into(),
        name: "backend".into(),
        driver: NetworkDriver::Overlay,
        cluster: true,
        created_at: tripod_model::Time::UNIX_EPOCH,
        internal: false,
        attachable: false,
        ingress: false,
        ipv4: true,
        ipv6: false,
        subnets: vec![Subnet {
            subnet: "10.0.1.0/24".parse().unwrap(),
            gateway: Some("10.0.1.1".parse().unwrap()),
            ip_range: None,
            aux_addresses: Default::default(),
        }],
        options: Default::default(),
        ipam_options: Default::default(),
        labels: Default::default(),
        vni: 4097,
        mtu: 0,
        encrypted: false,
    })
}

/// Runs a session of the agent until `body` has ended.
pub async fn in_session<R>(agent: &tripod_agent::Agent, body: impl AsyncFnOnce(&FakeSession) -> R) -> R {
    let session = std::sync::Arc::new(FakeSession::default());
    let stop = tokio_util::sync::CancellationToken::new();
    let node = tripod_agent::pods::NodeIdentity {
        id: "node1".into(),
        hostname: "host".into(),
        platform: ("x86_64".into(), "linux".into()),
    };
    let running = {
        let (agent, session, stop) = (agent.clone(), session.clone(), stop.clone());
        tokio::spawn(async move { agent.run_session(node, session, stop).await })
    };
    let out = body(&session).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    out
}
