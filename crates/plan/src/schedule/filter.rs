//! Which nodes a task may run on, and the reasons against the others in SwarmKit's words.

use std::collections::BTreeMap;

use tripod_model::network::{NetworkDriver, PortProtocol};
use tripod_model::node::{Node, NodeDescription};
use tripod_model::pod::{Pod, SwarmTask};
use tripod_model::swarm::ResourceAmounts;

use crate::constraint::{self, Constraint, architecture};
use crate::draft::Draft;
use crate::enforce::takes_tasks;
use crate::view::{NodeUse, View, reservations};

/// Why a node is refused, in the order of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reason {
    NotAvailable,
    Resources,
    Plugin,
    Constraints,
    Platform,
    HostPort,
    MaxReplicas,
}

impl Reason {
    fn text(self, nodes: usize) -> String {
        let on = |what: &str| match nodes {
            1 => format!("{what} on 1 node"),
            n => format!("{what} on {n} nodes"),
        };
        match self {
            Self::NotAvailable if nodes == 1 => "1 node not available for new tasks".into(),
            Self::NotAvailable => format!("{nodes} nodes not available for new tasks"),
            Self::Resources => on("insufficient resources"),
            Self::Plugin => on("missing plugin"),
            Self::Constraints => on("scheduling constraints not satisfied"),
            Self::Platform => on("unsupported platform"),
            Self::HostPort => on("host-mode port already in use"),
            Self::MaxReplicas => "max replicas per node limit exceed".into(),
        }
    }
}

/// A node can take so many tasks, or none.
pub(super) enum Verdict {
    Fits(i64),
    Refused(Reason),
}

/// How many nodes were refused for which reason.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdicts(BTreeMap<Reason, usize>);

impl Verdicts {
    pub(super) fn add(&mut self, reason: Reason) {
        *self.0.entry(reason).or_default() += 1;
    }

    pub(super) fn with(&self, more: impl IntoIterator<Item = Reason>) -> Self {
        let mut all = self.clone();
        more.into_iter().for_each(|r| all.add(r));
        all
    }

    /// The reasons, the most frequent first.
    pub(super) fn explain(&self, preassigned: bool) -> String {
        let mut reasons: Vec<(Reason, usize)> = self.0.iter().map(|(r, n)| (*r, *n)).collect();
        reasons.sort_by_key(|&(reason, n)| (std::cmp::Reverse(n), reason));
        let texts: Vec<String> = reasons.into_iter().map(|(r, n)| r.text(n)).collect();
        match (texts.is_empty(), preassigned) {
            (true, _) => "no suitable node".into(),
            (false, true) => texts.join("; "),
            (false, false) => format!("no suitable node ({})", texts.join("; ")),
        }
    }
}

/// What the tasks of a class ask of a node.
pub(super) struct Checks<'a> {
    reserved: Option<&'a ResourceAmounts>,
    constraints: Option<Vec<Constraint>>,
    platforms: &'a [tripod_model::image::Platform],
    plugins: Vec<(&'static str, String)>,
    host_ports: Vec<(PortProtocol, u16)>,
    max_replicas: i64,
    service_id: &'a str,
}

impl<'a> Checks<'a> {
    pub(super) fn new(view: &View, pod: &'a Pod, task: &'a SwarmTask) -> Self {
        let placement = task.template.placement.as_ref();
        let ports = task.host_ports.iter().filter(|p| p.published != 0);
        Self {
            reserved: reservations(pod),
            constraints: constraint::parse(placement.map_or(&[], |p| &p.constraints)).ok(),
            platforms: placement.map_or(&[], |p| &p.platforms),
            plugins: plugins(view, pod, task),
            host_ports: ports.map(|p| (p.protocol, p.published)).collect(),
            max_replicas: placement.map_or(0, |p| i64::try_from(p.max_replicas).unwrap_or(i64::MAX)),
            service_id: &task.service_id,
        }
    }

    /// Whether, and for how many tasks, a node will do.
    pub(super) fn judge(&self, d: &Draft<'_>, node: &Node) -> Verdict {
        if !takes_tasks(node) {
            return Verdict::Refused(Reason::NotAvailable);
        }
        let by_resources = self.room_by_resources(d, node);
        if by_resources <= 0 {
            return Verdict::Refused(Reason::Resources);
        }
        let description = &node.status.description;
        if !self
            .plugins
            .iter()
            .all(|(kind, name)| has_plugin(description, kind, name))
        {
            return Verdict::Refused(Reason::Plugin);
        }
        if !self
            .constraints
            .as_ref()
            .is_some_and(|all| all.iter().all(|c| c.matches(node)))
        {
            return Verdict::Refused(Reason::Constraints);
        }
        if !self.platform_fits(description) {
            return Verdict::Refused(Reason::Platform);
        }
        let name = &node.metadata.name;
        let taken = |port: &(PortProtocol, u16)| d.node_sum(name, |u: &NodeUse| u.takers(port.0, port.1)) > 0;
        if self.host_ports.iter().any(taken) {
            return Verdict::Refused(Reason::HostPort);
        }
        let by_ports = if self.host_ports.is_empty() { i64::MAX } else { 1 };
        let by_limit = match self.max_replicas {
            0 => i64::MAX,
            n => n - d.node_sum(name, |u| u.by_service.get(self.service_id).copied().unwrap_or(0)),
        };
        if by_limit <= 0 {
            return Verdict::Refused(Reason::MaxReplicas);
        }
        Verdict::Fits(by_resources.min(by_ports).min(by_limit))
    }

    /// What a node that took all it can lacks next.
    pub(super) fn limiting(&self) -> Reason {
        if !self.host_ports.is_empty() {
            Reason::HostPort
        } else if self.max_replicas > 0 && self.reserved.is_none() {
            Reason::MaxReplicas
        } else {
            Reason::Resources
        }
    }

    fn room_by_resources(&self, d: &Draft<'_>, node: &Node) -> i64 {
        let Some(r) = self.reserved else { return i64::MAX };
        let has = &node.status.description;
        let name = &node.metadata.name;
        let fits = |need: i64, capacity: i64, used: i64| match need {
            n if n <= 0 => i64::MAX,
            n => (capacity - used).max(0) / n,
        };
        let cpus = fits(r.nano_cpus, has.nano_cpus, d.node_sum(name, |u| u.nano_cpus));
        let memory = fits(r.memory, has.memory, d.node_sum(name, |u| u.memory));
        let generic = r.generic.iter().map(|g| {
            let of_kind = has.generic.iter().filter(|h| h.kind == g.kind);
            let capacity = of_kind.map(|h| if h.name.is_empty() { h.count } else { 1 }).sum();
            fits(
                g.count.max(1),
                capacity,
                d.node_sum(name, |u| u.generic.get(&g.kind).copied().unwrap_or(0)),
            )
        });
        generic.fold(cpus.min(memory), i64::min)
    }

    fn platform_fits(&self, node: &NodeDescription) -> bool {
        let has = &node.platform;
        self.platforms.is_empty()
            || self.platforms.iter().any(|p| {
                (p.os.is_empty() || has.os.is_empty() || p.os.eq_ignore_ascii_case(&has.os))
                    && (p.architecture.is_empty()
                        || has.architecture.is_empty()
                        || architecture(&p.architecture) == architecture(&has.architecture))
            })
    }
}

/// Plugins that a task needs: volume, network and log drivers that are not of every node.
fn plugins(view: &View, pod: &Pod, task: &SwarmTask) -> Vec<(&'static str, String)> {
    let mut needed = Vec::new();
    for mount in &task.template.container.mounts {
        let options = mount.volume_options.as_ref();
        let key = |v: &serde_json::Value, a: &str, b: &str| v.get(a).or_else(|| v.get(b)).cloned();
        let driver = options
            .and_then(|o| key(o, "DriverConfig", "driverConfig"))
            .and_then(|d| key(&d, "Name", "name"))
            .and_then(|n| n.as_str().map(str::to_owned))
            .filter(|n| !n.is_empty() && n != "local");
        needed.extend(driver.map(|d| ("Volume", d)));
    }
    for net in &pod.extension.networks {
        if view
            .network(&net.network_id)
            .is_some_and(|n| n.spec.driver == NetworkDriver::Overlay)
        {
            needed.push(("Network", "overlay".to_owned()));
        }
    }
    if let Some(log) = &task.template.log_driver
        && !log.name.is_empty()
        && log.name != "none"
    {
        needed.push(("Log", log.name.clone()));
    }
    needed
}

/// Nodes that say nothing of a kind of plugin are given the benefit of the doubt.
fn has_plugin(node: &NodeDescription, kind: &str, name: &str) -> bool {
    let name = name.strip_suffix(":latest").unwrap_or(name);
    let mut of_kind = node
        .plugins
        .iter()
        .filter(|(k, _)| k.eq_ignore_ascii_case(kind))
        .peekable();
    of_kind.peek().is_none() || of_kind.any(|(_, n)| n.strip_suffix(":latest").unwrap_or(n) == name)
}
