//! Tasks: the pods of Swarm services.

use std::sync::Arc;

use tripod_model::pod::{DesiredState, Pod};
use tripod_model::swarm::NAMESPACE;
use tripod_model::{Error, Result};

use super::filters::Filters;
use super::find::only;
use super::nodes::find_node;
use super::services::find_service;
use crate::manager::Manager;

/// A task and where it is.
#[derive(Clone, Debug)]
pub struct Task {
    /// The pod. Its extension holds the task, `metadata.resource_version` the version.
    pub pod: Arc<Pod>,
    /// Swarm identifier of its node; empty until it has one.
    pub node_id: String,
}

impl Task {
    /// Its identifier.
    pub fn id(&self) -> &str {
        self.pod.swarm().map_or("", |t| &t.task_id)
    }
}

impl Manager {
    /// A task by identifier, name, or beginning of the identifier.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::NotFound`], or [`tripod_model::ErrorKind::Invalid`] when several are meant.
    pub fn task(&self, word: &str) -> Result<Task> {
        let tasks = self.all_tasks();
        if let Some(task) = tasks.iter().find(|t| t.id() == word) {
            return Ok(task.clone());
        }
        let named: Vec<Task> = tasks
            .iter()
            .filter(|t| full_name(&t.pod) == word)
            .cloned()
            .collect();
        if !named.is_empty() {
            return only(named, "task", word);
        }
        let begun = |t: &&Task| !word.is_empty() && t.id().starts_with(word);
        only(tasks.iter().filter(begun).cloned().collect(), "task", word)
    }

    /// Tasks. Filters: `id`, `name`, `label`, `service`, `node` (`self` is this one), `desired-state`, `runtime`.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] for other filters, [`tripod_model::ErrorKind::NotFound`] for services and
    /// nodes that do not exist.
    pub fn tasks(&self, filters: &Filters) -> Result<Vec<Task>> {
        const KNOWN: [&str; 8] = [
            "id",
            "name",
            "label",
            "service",
            "node",
            "desired-state",
            "runtime",
            "_up-to-date",
        ];
        filters.known(&KNOWN)?;
        let state = self.db().snapshot();
        let services = filters
            .values("service")
            .iter()
            .map(|s| Ok(find_service(&state, s)?.metadata.name));
        let services = services.collect::<Result<Vec<String>>>()?;
        let nodes = filters.values("node").iter().map(|n| match n.as_str() {
            "self" => Ok(self.node_id().to_owned()),
            n => Ok(find_node(&state, n)?.spec.swarm.node_id),
        });
        let nodes = nodes.collect::<Result<Vec<String>>>()?;
        let desired = filters.values("desired-state").iter().map(|d| desired_states(d));
        let desired: Vec<DesiredState> = desired.collect::<Result<Vec<_>>>()?.concat();
        let candidates = if services.is_empty() {
            self.all_tasks()
        } else {
            self.tasks_of(&services)
        };
        let fresh = filters.values("_up-to-date").first();
        let candidates = match fresh {
            Some(wanted) => self.with_view(|view| {
                let wanted = wanted == "true" || wanted == "1";
                let chosen = candidates.into_iter();
                chosen.filter(|t| is_up_to_date(view, t) == wanted).collect()
            }),
            None => candidates,
        };
        Ok(candidates
            .into_iter()
            .filter(|task| {
                let Some(swarm) = task.pod.swarm() else {
                    return false;
                };
                filters.prefix("id", &swarm.task_id)
                    && filters.any("name", |n| matches_name(&task.pod, n))
                    && filters.labels("label", &swarm.template.container.labels)
                    && (nodes.is_empty() || nodes.contains(&task.node_id))
                    && (desired.is_empty() || desired.contains(&task.pod.state.desired))
                    && filters.any("runtime", |r| r == "container")
            })
            .collect())
    }

    fn all_tasks(&self) -> Vec<Task> {
        self.with_view(|view| {
            view.pods()
                .filter(|p| is_task(p))
                .map(|p| located(view, p))
                .collect()
        })
    }

    fn tasks_of(&self, services: &[String]) -> Vec<Task> {
        self.with_view(|view| {
            let pods = services.iter().flat_map(|id| view.pods_of_service(id));
            pods.filter(|p| is_task(p)).map(|p| located(view, p)).collect()
        })
    }
}

/// Whether a task is what its service asks for, also where the service changed in what does not concern the task (or
/// was changed and changed back).
fn is_up_to_date(view: &tripod_plan::View, task: &Task) -> bool {
    let Some((swarm, service)) = task
        .pod
        .swarm()
        .and_then(|t| Some((t, view.service(&t.service_id)?)))
    else {
        return false;
    };
    let node = view.node(&task.pod.spec.node_name).map(AsRef::as_ref);
    let cluster = view.cluster().map(AsRef::as_ref);
    !tripod_plan::rollout::is_task_dirty(service, swarm, node, cluster)
}

fn is_task(pod: &Pod) -> bool {
    pod.metadata.namespace == NAMESPACE && pod.swarm().is_some()
}

fn located(view: &tripod_plan::View, pod: &Arc<Pod>) -> Task {
    let assigned = view
        .node(&pod.spec.node_name)
        .map(|n| n.spec.swarm.node_id.clone());
    let bound = || pod.swarm().map(|t| t.node_id.clone());
    Task {
        pod: pod.clone(),
        node_id: assigned.or_else(bound).unwrap_or_default(),
    }
}

/// `service.slot.task`, or `service.node.task` for global services.
fn full_name(pod: &Pod) -> String {
    let Some(t) = pod.swarm() else {
        return String::new();
    };
    match t.slot {
        0 => format!("{}.{}.{}", t.service_name, t.node_id, t.task_id),
        slot => format!("{}.{slot}.{}", t.service_name, t.task_id),
    }
}

fn matches_name(pod: &Pod, wanted: &str) -> bool {
    let full = full_name(pod);
    full == wanted || full.starts_with(wanted)
}

fn desired_states(word: &str) -> Result<Vec<DesiredState>> {
    Ok(match word.to_ascii_lowercase().as_str() {
        "running" => vec![DesiredState::Running, DesiredState::Complete],
        "complete" => vec![DesiredState::Complete],
        "shutdown" => vec![DesiredState::Shutdown],
        "ready" | "accepted" => vec![DesiredState::Ready],
        "remove" => vec![DesiredState::Remove],
        _ => return Err(Error::invalid(format_args!("unknown task state '{word}'"))),
    })
}
