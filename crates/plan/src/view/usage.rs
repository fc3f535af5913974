//! What the pods of a node use up.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tripod_model::network::PortProtocol;
use tripod_model::pod::{DesiredState, Pod};
use tripod_model::swarm::{ResourceAmounts, TaskState};

use crate::kube::pod::{host_ports, requests};

/// Whether a pod holds resources of its node: placed or to be placed, and not ended (also while it stops).
pub(crate) fn holds(pod: &Pod) -> bool {
    if pod.swarm().is_none() {
        let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        return !ended && !pod.spec.node_name.is_empty();
    }
    pod.state.observed >= TaskState::Pending && !pod.state.observed.is_final()
}

/// What a pod reserves.
pub(crate) fn reservations(pod: &Pod) -> Option<&ResourceAmounts> {
    pod.swarm()?.template.resources.as_ref()?.reservations.as_ref()
}

/// A port of a node: on one of its addresses or on all, its protocol and number.
pub(crate) type HostPortKey = (Option<IpAddr>, PortProtocol, u16);

/// Sums over the pods of a node.
#[derive(Debug, Clone, Default)]
pub struct NodeUse {
    /// Reserved billionths of processors.
    pub nano_cpus: i64,
    /// Reserved bytes.
    pub memory: i64,
    /// Reserved bytes of the node's disk.
    pub ephemeral: i64,
    /// Reserved named resources.
    pub generic: BTreeMap<String, i64>,
    /// Pods that are to run or run.
    pub active: i64,
    /// The same, by service.
    pub by_service: HashMap<String, i64>,
    /// Ports of the node that are taken, on one of its addresses or on all (`None`), with the number of takers.
    pub host_ports: HashMap<HostPortKey, i64>,
}

impl NodeUse {
    /// How many have a port, on whichever address.
    pub(crate) fn takers(&self, protocol: PortProtocol, port: u16) -> i64 {
        let same = self
            .host_ports
            .iter()
            .filter(|((_, p, n), _)| (*p, *n) == (protocol, port));
        same.map(|(_, count)| count).sum()
    }

    /// Adds (`sign` 1) or takes away (`sign` -1) a pod.
    pub(crate) fn count(&mut self, pod: &Pod, sign: i64) {
        if !holds(pod) {
            return;
        }
        if let Some(r) = reservations(pod) {
            self.nano_cpus += sign * r.nano_cpus;
            self.memory += sign * r.memory;
            for g in &r.generic {
                add(&mut self.generic, g.kind.clone(), sign * g.count.max(1));
            }
        }
        let Some(task) = pod.swarm() else {
            self.active += sign;
            self.count_kube(pod, sign);
            return;
        };
        for port in task.host_ports.iter().filter(|p| p.published != 0) {
            self.count_port((None, port.protocol, port.published), sign);
        }
        if pod.state.desired <= DesiredState::Complete {
            self.active += sign;
            match self.by_service.get_mut(&task.service_id) {
                Some(n) => *n += sign,
                None => {
                    self.by_service.insert(task.service_id.clone(), sign);
                }
            }
            if self.by_service.get(&task.service_id) == Some(&0) {
                self.by_service.remove(&task.service_id);
            }
        }
    }
}

impl NodeUse {
    /// What a pod of another family asks for.
    fn count_kube(&mut self, pod: &Pod, sign: i64) {
        let asked = requests(pod);
        self.nano_cpus += sign * asked.cpu.saturating_mul(1_000_000);
        self.memory += sign * asked.memory;
        self.ephemeral += sign * asked.ephemeral;
        for (name, amount) in asked.other {
            add(&mut self.generic, name, sign * amount);
        }
        for port in host_ports(pod) {
            self.count_port(port, sign);
        }
    }

    fn count_port(&mut self, port: HostPortKey, sign: i64) {
        let n = self.host_ports.entry(port).or_default();
        *n += sign;
        if *n == 0 {
            self.host_ports.remove(&port);
        }
    }
}

fn add(map: &mut BTreeMap<String, i64>, key: String, n: i64) {
    let total = map.entry(key).or_default();
    *total += n;
}

/// A node's pods and what they use.
#[derive(Debug, Clone, Default)]
pub struct NodeLoad {
    /// By `namespace/name`.
    pub pods: BTreeMap<String, Arc<Pod>>,
    /// Sums.
    pub usage: NodeUse,
}
