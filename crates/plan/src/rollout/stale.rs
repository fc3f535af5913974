//! Whether a task is still what its service asks for.

use tripod_model::node::Node;
use tripod_model::pod::SwarmTask;
use tripod_model::swarm::{SwarmCluster, SwarmService};

use crate::constraint;
use crate::planner::Planner;
use crate::task::task_ports;

/// How the template of a task differs from its service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Staleness {
    /// Not in anything that matters.
    Clean,
    /// In its placement only: the task stays where its node satisfies the new constraints.
    Placement,
    /// In what it runs.
    Stale,
}

/// Whether a new task must take the place of this one. Changes of names, labels, replicas and rollout settings need
/// none.
pub fn is_task_dirty(
    service: &SwarmService,
    task: &SwarmTask,
    node: Option<&Node>,
    cluster: Option<&SwarmCluster>,
) -> bool {
    is_dirty_by(staleness(service, task, cluster), service, node)
}

/// The same for a task of the working set. All tasks of one generation have one template: it is compared once.
pub(super) fn is_dirty(p: &mut Planner<'_, '_>, i: usize) -> bool {
    let generation = p.task(i).service_generation;
    let kind = match p.staleness.get(&generation) {
        Some(kind) => *kind,
        None => {
            let cluster = p.d.view.cluster().map(AsRef::as_ref);
            let kind = staleness(&p.service, p.task(i), cluster);
            p.staleness.insert(generation, kind);
            kind
        }
    };
    is_dirty_by(kind, &p.service, p.node_of(i).map(AsRef::as_ref))
}

fn is_dirty_by(kind: Staleness, service: &SwarmService, node: Option<&Node>) -> bool {
    match kind {
        Staleness::Clean => false,
        Staleness::Stale => true,
        Staleness::Placement => !node.is_some_and(|n| constraint::satisfied(&service.spec.task_template, n)),
    }
}

fn staleness(service: &SwarmService, task: &SwarmTask, cluster: Option<&SwarmCluster>) -> Staleness {
    if task.service_generation == service.metadata.generation {
        return Staleness::Clean;
    }
    let (new, old) = (&service.spec.task_template, &task.template);
    let networks = if new.networks.is_empty() {
        &service.spec.networks
    } else {
        &new.networks
    };
    let log = old.log_driver == new.log_driver
        || new.log_driver.is_none() && old.log_driver == cluster.and_then(|c| c.spec.log_driver.clone());
    let (host_ports, mesh_ports) = task_ports(service);
    let same = log
        && *networks == old.networks
        && new.force_update == old.force_update
        && new.container == old.container
        && new.resources == old.resources
        && new.restart_policy == old.restart_policy
        && new.runtime == old.runtime
        && host_ports == task.host_ports
        && mesh_ports == task.mesh_ports;
    match same {
        false => Staleness::Stale,
        true if new.placement == old.placement => Staleness::Clean,
        true => Staleness::Placement,
    }
}
