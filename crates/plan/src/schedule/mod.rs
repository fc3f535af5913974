//! Where tasks run. The tasks of one template are one class: nodes are filtered once for all of them, and each
//! placement then costs a step in a heap.

mod filter;
mod spread;

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::SignedDuration;
use tripod_model::pod::Pod;
use tripod_model::swarm::TaskState;

use crate::draft::Draft;
use crate::planner::Planner;
use filter::{Checks, Verdict};
pub(crate) use spread::branch;
use spread::{Candidate, Spread};

/// Failures of a service on a node within this time count against the node.
const FAILURE_MEMORY: SignedDuration = SignedDuration::from_mins(5);
/// From so many on. A slot remembers about four (the history's retention), so that more would never be seen.
const FAILURE_LIMIT: usize = 3;

/// A class: generation of the service whose template the tasks have, and the node to which they belong (global
/// services).
type Class = (i64, String);

/// Gives nodes to the tasks that have none, or says why there is none.
pub(crate) fn place(p: &mut Planner<'_, '_>) {
    let mut classes: BTreeMap<Class, Vec<usize>> = BTreeMap::new();
    for i in 0..p.tasks.len() {
        let pod = p.pod(i);
        if !p.tasks[i].removed
            && pod.is_live()
            && pod.state.observed == TaskState::Pending
            && pod.spec.node_name.is_empty()
        {
            let task = p.task(i);
            classes
                .entry((task.service_generation, task.node_id.clone()))
                .or_default()
                .push(i);
        }
    }
    if classes.is_empty() {
        return;
    }
    let failing = failing_nodes(p);
    for ((_, node_id), tasks) in classes {
        place_class(p, &node_id, &tasks, &failing);
    }
}

fn place_class(p: &mut Planner<'_, '_>, node_id: &str, tasks: &[usize], failing: &HashSet<String>) {
    let sample = p.tasks[tasks[0]].pod.clone();
    let Some((mut spread, verdicts)) = survey(p.d, &sample, node_id, failing) else {
        return;
    };
    let mut refusal = None;
    for &i in tasks {
        match spread.next() {
            Some(node) => assign(p, i, &node, !node_id.is_empty()),
            None => {
                // Once nothing is left, the reasons stay the same.
                let text = refusal
                    .get_or_insert_with(|| verdicts.with(spread.exhausted()).explain(!node_id.is_empty()));
                pend(p, i, text);
            }
        }
    }
}

/// The nodes that would do for tasks like this one, and the reasons against the others.
fn survey(
    d: &Draft<'_>,
    sample: &Pod,
    node_id: &str,
    failing: &HashSet<String>,
) -> Option<(Spread, filter::Verdicts)> {
    let task = sample.swarm()?;
    let checks = Checks::new(d.view, sample, task);
    let mut verdicts = filter::Verdicts::default();
    let mut candidates = Vec::new();
    let own = d.view.node_by_id(node_id);
    let everywhere = node_id.is_empty().then(|| d.view.nodes()).into_iter().flatten();
    for node in own.into_iter().chain(everywhere) {
        match checks.judge(d, node) {
            Verdict::Fits(room) => candidates.push(Candidate {
                node: node.clone(),
                room,
                failing: failing.contains(&node.metadata.name),
                of_service: d.node_sum(&node.metadata.name, |u| {
                    u.by_service.get(&task.service_id).copied().unwrap_or(0)
                }),
                total: d.node_sum(&node.metadata.name, |u| u.active),
                last_refusal: None,
            }),
            Verdict::Refused(reason) => verdicts.add(reason),
        }
    }
    let placement = task.template.placement.as_ref();
    let preferences = placement.map_or(&[][..], |p| &p.preferences);
    Some((Spread::new(candidates, preferences, &checks), verdicts))
}

/// The node on which one more task like this would be placed.
pub(crate) fn best(d: &Draft<'_>, sample: &Pod) -> Option<String> {
    survey(d, sample, "", &HashSet::new())?.0.next()
}

fn assign(p: &mut Planner<'_, '_>, i: usize, node: &str, preassigned: bool) {
    let now = p.now();
    p.edit(i, |pod| {
        pod.spec.node_name = node.to_owned();
        pod.state.observed = TaskState::Assigned;
        pod.state.at = Some(now);
        pod.state.error.clear();
        pod.state.message = if preassigned {
            "scheduler confirmed task can run on preassigned node".into()
        } else {
            "scheduler assigned task to node".into()
        };
        pod.status.message.clear();
        pod.status.reason.clear();
    });
}

fn pend(p: &mut Planner<'_, '_>, i: usize, text: &str) {
    if p.pod(i).state.error == text {
        return;
    }
    let pod = p.tasks[i].edit();
    pod.state.error = text.to_owned();
    pod.status.reason = "Unschedulable".into();
    pod.status.message = text.to_owned();
    let pod = p.tasks[i].pod.clone();
    p.d.explain(pod.as_ref(), "FailedScheduling", text);
}

/// Nodes on which tasks of this service fail again and again.
fn failing_nodes(p: &Planner<'_, '_>) -> HashSet<String> {
    let mut failures: HashMap<&str, usize> = HashMap::new();
    for task in &p.tasks {
        let state = &task.pod.state;
        let failed = matches!(state.observed, TaskState::Failed | TaskState::Rejected);
        if failed
            && state
                .at
                .is_some_and(|at| p.now().duration_since(at) < FAILURE_MEMORY)
        {
            *failures.entry(&task.pod.spec.node_name).or_default() += 1;
        }
    }
    failures.retain(|_, n| *n >= FAILURE_LIMIT);
    failures.into_keys().map(str::to_owned).collect()
}
