//! What controllers and the scheduler read of a pod, computed once when it changes.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tripod_model::Time;
use tripod_model::network::PortProtocol;
use tripod_model::pod::Pod;

use super::object::controller_of;
use super::quantity;

/// What pods ask of a node, in whole units: millionths of nothing are lost, as sums are made of thousandths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Thousandths of processors.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the node's disk.
    pub ephemeral: i64,
    /// Other resources (`hugepages-2Mi`, `example.com/gpu`), sorted by name.
    pub other: Vec<(String, i64)>,
}

impl Amounts {
    /// The amounts of a `requests` or `limits` map, or of a node's `allocatable`.
    pub fn of(map: Option<&Value>) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in map.and_then(Value::as_object).into_iter().flatten() {
            let text = match quantity {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            };
            amounts.set(name, &text);
        }
        amounts
    }

    fn set(&mut self, name: &str, text: &str) {
        match name {
            "cpu" => self.cpu = quantity::milli(text),
            "memory" => self.memory = quantity::whole(text),
            "ephemeral-storage" => self.ephemeral = quantity::whole(text),
            "pods" => {}
            other => {
                *self.entry(other) = quantity::whole(text);
            }
        }
    }

    fn entry(&mut self, name: &str) -> &mut i64 {
        let at = match self.other.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(at) => at,
            Err(at) => {
                self.other.insert(at, (name.to_owned(), 0));
                at
            }
        };
        &mut self.other[at].1
    }

    /// The amount of another resource.
    pub fn other(&self, name: &str) -> i64 {
        self.other.iter().find(|(n, _)| n == name).map_or(0, |(_, a)| *a)
    }

    /// Adds `sign` times as much.
    pub fn add(&mut self, more: &Self, sign: i64) {
        self.cpu += sign * more.cpu;
        self.memory += sign * more.memory;
        self.ephemeral += sign * more.ephemeral;
        for (name, amount) in &more.other {
            *self.entry(name) += sign * amount;
        }
    }

    /// The larger of both, each resource by itself.
    pub fn max(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral = self.ephemeral.max(other.ephemeral);
        for (name, amount) in &other.other {
            let mine = self.entry(name);
            *mine = (*mine).max(*amount);
        }
    }
}

/// `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Phase {
    /// Not all containers were started.
    #[default]
    Pending,
    /// Bound, and its containers were started.
    Running,
    /// All ended well.
    Succeeded,
    /// All ended, some of them badly.
    Failed,
    /// Its node is not heard.
    Unknown,
}

impl Phase {
    /// Whether its containers have ended for good.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What is read of a pod again and again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PodInfo {
    /// `status.phase`.
    pub phase: Phase,
    /// The condition `Ready` is true.
    pub ready: bool,
    /// Since when.
    pub ready_since: Option<Time>,
    /// It was asked to go.
    pub deleted: bool,
    /// `uid` of the owner that manages it.
    pub controller: Option<Arc<str>>,
    /// What it asks of its node.
    pub requests: Amounts,
    /// Ports of the node.
    pub host_ports: Vec<(Option<IpAddr>, PortProtocol, u16)>,
    /// `spec.priority`.
    pub priority: i32,
    /// It is none of Swarm's or another family's that decides on its own pods.
    pub kube: bool,
}

impl PodInfo {
    /// Reads a pod.
    pub fn of(pod: &Pod) -> Self {
        let phase = match pod.status.phase.as_str() {
            "Running" => Phase::Running,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            "Unknown" => Phase::Unknown,
            _ => Phase::Pending,
        };
        let ready = condition(pod, "Ready").filter(|c| c["status"] == "True");
        let priority = pod.spec.rest.get("priority").and_then(Value::as_i64);
        let controller = controller_of(&pod.metadata.owner_references);
        Self {
            phase,
            ready: ready.is_some(),
            ready_since: ready
                .and_then(|c| c["lastTransitionTime"].as_str())
                .and_then(|t| t.parse().ok()),
            deleted: pod.metadata.deletion_timestamp.is_some(),
            controller: controller.map(|c| c.uid.as_str().into()),
            requests: requests(pod),
            host_ports: host_ports(pod),
            priority: priority.map_or(0, |p| i32::try_from(p).unwrap_or(i32::MAX)),
            kube: pod.swarm().is_none(),
        }
    }

    /// Whether it is to run, runs, and was not asked to go: what ReplicaSets count.
    pub fn is_active(&self) -> bool {
        !self.deleted && !self.phase.is_final()
    }

    /// Whether it has been ready for `seconds`; otherwise when that will be.
    pub fn available(&self, seconds: i64, now: Time) -> Result<(), Option<Time>> {
        if !self.ready {
            return Err(None);
        }
        if seconds <= 0 {
            return Ok(());
        }
        let since = self.ready_since.unwrap_or(now);
        let at = crate::draft::after(since, seconds.saturating_mul(1_000_000_000));
        if at <= now { Ok(()) } else { Err(Some(at)) }
    }
}

/// A pod of any family with what is read of it.
#[derive(Debug, Clone)]
pub struct KPod {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Read once.
    pub info: PodInfo,
    /// What the scheduler tells pods apart by, computed once it is needed.
    pub(super) class: OnceLock<u64>,
}

impl KPod {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.pod.metadata.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.pod.metadata.namespace
    }

    /// Whether it was asked to go: deleted, or to end and be remembered.
    pub fn leaves(&self) -> bool {
        self.info.deleted || self.pod.state.desired >= tripod_model::pod::DesiredState::Shutdown
    }
}

/// A condition of a pod's status.
pub fn condition<'p>(pod: &'p Pod, kind: &str) -> Option<&'p Value> {
    let all = pod.status.rest.get("conditions")?.as_array()?;
    all.iter().find(|c| c["type"] == kind)
}

/// The volumes of a pod, when claims may be among them: most pods have none, and theirs need not be read.
pub(super) fn claiming(pod: &Pod) -> &[Value] {
    let rest = &pod.spec.rest;
    if !["persistentVolumeClaim", "ephemeral"]
        .iter()
        .any(|key| rest.mentions("volumes", key))
    {
        return &[];
    }
    let volumes = rest.get("volumes").and_then(Value::as_array);
    volumes.map_or(&[], Vec::as_slice)
}

/// What a pod asks of its node: its containers together, or its largest init container with the sidecars started
/// before it, whichever is more; with `spec.overhead`, and `spec.resources` in their place where it names them.
pub fn requests(pod: &Pod) -> Amounts {
    let mut sum = Amounts::default();
    for container in &pod.spec.containers {
        sum.add(&container_requests(container.rest.get("resources")), 1);
    }
    let inits = pod.spec.rest.get("initContainers").and_then(Value::as_array);
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in inits.into_iter().flatten() {
        let mut own = container_requests(container.get("resources"));
        if container["restartPolicy"] == "Always" {
            sidecars.add(&own, 1);
            own = sidecars.clone();
        } else {
            own.add(&sidecars, 1);
        }
        peak.max(&own);
    }
    sum.add(&sidecars, 1);
    sum.max(&peak);
    if let Some(of_pod) = pod.spec.rest.get("resources").and_then(Value::as_object) {
        let of_pod = container_requests(Some(&Value::Object(of_pod.clone())));
        if of_pod.cpu > 0 {
            sum.cpu = of_pod.cpu;
        }
        if of_pod.memory > 0 {
            sum.memory = of_pod.memory;
        }
    }
    sum.add(&Amounts::of(pod.spec.rest.get("overhead")), 1);
    if let Some(reserved) = crate::view::reservations(pod) {
        sum.cpu = reserved.nano_cpus / 1_000_000;
        sum.memory = reserved.memory;
        sum.other.clear();
    }
    sum
}

/// Requests of one container; a limit stands in for a request that is not there.
fn container_requests(resources: Option<&Value>) -> Amounts {
    let Some(resources) = resources else {
        return Amounts::default();
    };
    let asked = resources.get("requests");
    let mut amounts = Amounts::of(asked);
    let limits = resources.get("limits").and_then(Value::as_object);
    for (name, limit) in limits.into_iter().flatten() {
        if asked.and_then(|r| r.get(name)).is_none()
            && let Some(text) = limit.as_str()
        {
            amounts.set(name, text);
        }
    }
    amounts
}

/// Ports of the node that a pod takes: all ports of its containers when it is in the node's own network.
pub fn host_ports(pod: &Pod) -> Vec<(Option<IpAddr>, PortProtocol, u16)> {
    let host_network = pod.spec.rest.get("hostNetwork") == Some(&Value::Bool(true));
    let ports = pod
        .spec
        .containers
        .iter()
        .filter_map(|c| c.rest.get("ports")?.as_array());
    ports
        .flatten()
        .filter_map(|p| {
            let own = host_network.then(|| p.get("containerPort")).flatten();
            let port = p.get("hostPort").or(own)?.as_u64()?;
            let protocol = match p.get("protocol").and_then(Value::as_str) {
                Some("UDP") => PortProtocol::Udp,
                Some("SCTP") => PortProtocol::Sctp,
                _ => PortProtocol::Tcp,
            };
            let ip = p
                .get("hostIP")
                .and_then(Value::as_str)
                .and_then(|s| s.parse().ok());
            let ip = ip.filter(|ip: &IpAddr| !ip.is_unspecified());
            Some((ip, protocol, u16::try_from(port).ok().filter(|p| *p != 0)?))
        })
        .collect()
}
