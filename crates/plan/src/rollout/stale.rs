//! Whether a task is still what its service asks for.

use tripod_model::node::Node;
use tripod_model::pod::SwarmTask;
use tripod_model::swarm::{SwarmCluster, SwarmService, TaskSpec};

use crate::constraint;
use crate::planner::Planner;
use crate::restart;
use crate::task::task_ports;

/// How long a task has to stop when its service does not say, in nanoseconds (swarmkit's default service).
const STOP_GRACE_PERIOD: i64 = 10_000_000_000;

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

/// A template with what a field means that is not given. Clients send back what they were shown, with defaults filled in:
/// that changes nothing, and must not cost a running task.
fn spelled_out(template: &TaskSpec) -> TaskSpec {
    let mut t = template.clone();
    if t.runtime.is_empty() {
        t.runtime = "container".into();
    }
    let resources = t.resources.get_or_insert_default();
    resources.limits.get_or_insert_default();
    resources.reservations.get_or_insert_default();
    let restart = t.restart_policy.get_or_insert_default();
    if restart.condition.is_empty() {
        restart.condition = "any".into();
    }
    restart.delay.get_or_insert(restart::DEFAULT_DELAY);
    restart.max_attempts.get_or_insert(0);
    restart.window.get_or_insert(0);
    t.placement.get_or_insert_default();
    let c = &mut t.container;
    c.stop_grace_period.get_or_insert(STOP_GRACE_PERIOD);
    c.dns_config.get_or_insert_default();
    c.init.get_or_insert(false);
    if c.isolation.is_empty() {
        c.isolation = "default".into();
    }
    t
}

fn staleness(service: &SwarmService, task: &SwarmTask, cluster: Option<&SwarmCluster>) -> Staleness {
    if task.service_generation == service.metadata.generation {
        return Staleness::Clean;
    }
    let (new, old) = (
        &spelled_out(&service.spec.task_template),
        &spelled_out(&task.template),
    );
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

#[cfg(test)]
mod tests {
    use super::*;
    use tripod_model::swarm::{Placement, TaskResources, TaskRestartPolicy};

    fn stale_after(change: impl FnOnce(&mut TaskSpec)) -> bool {
        let mut service = SwarmService::default();
        service.metadata.generation = 2;
        let task = SwarmTask {
            service_generation: 1,
            ..SwarmTask::default()
        };
        change(&mut service.spec.task_template);
        staleness(&service, &task, None) == Staleness::Stale
    }

    #[test]
    fn what_a_client_sends_back_with_defaults_changes_nothing() {
        assert!(!stale_after(|t| {
            t.runtime = "container".into();
            t.resources = Some(TaskResources {
                limits: Some(Default::default()),
                reservations: Some(Default::default()),
            });
            t.restart_policy = Some(TaskRestartPolicy {
                condition: "any".into(),
                delay: Some(5_000_000_000),
                max_attempts: Some(0),
                window: None,
            });
            t.placement = Some(Placement::default());
            t.container.stop_grace_period = Some(10_000_000_000);
            t.container.dns_config = Some(Default::default());
            t.container.init = Some(false);
            t.container.isolation = "default".into();
        }));
    }

    #[test]
    fn what_a_task_would_notice_makes_it_stale() {
        let changes: [fn(&mut TaskSpec); 6] = [
            |t| t.container.image = "other".into(),
            |t| t.container.stop_grace_period = Some(0),
            |t| t.container.init = Some(true),
            |t| t.force_update = 1,
            |t| t.restart_policy.get_or_insert_default().delay = Some(1),
            |t| {
                t.resources
                    .get_or_insert_default()
                    .limits
                    .get_or_insert_default()
                    .pids = 3;
            },
        ];
        for (i, change) in changes.into_iter().enumerate() {
            assert!(stale_after(change), "change {i}");
        }
    }
}
