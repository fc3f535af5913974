//! Taking over what a node says of a pod: states only grow, each transition has one owner, and Kubernetes' status
//! follows.

use serde_json::{Value, json};
use tripod_model::Time;
use tripod_model::pod::Pod;
use tripod_model::session::PodReport;
use tripod_model::swarm::TaskState;

/// Who may bring a task into a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The controllers of a manager.
    Manager,
    /// The task's node.
    Node,
}

/// One allowed transition, from any state of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// First state from which it is allowed.
    pub from: TaskState,
    /// Last state from which it is allowed.
    pub until: TaskState,
    /// The state that it leads to.
    pub to: TaskState,
    /// Who makes it.
    pub owner: Owner,
}

const fn by(owner: Owner, from: TaskState, until: TaskState, to: TaskState) -> Transition {
    Transition {
        from,
        until,
        to,
        owner,
    }
}

/// All transitions: states up to `assigned` are the manager's, those after it the node's, until the node is given up.
/// A node may skip states on the way up.
pub const TRANSITIONS: &[Transition] = {
    use Owner::{Manager, Node};
    use TaskState::*;
    &[
        by(Manager, New, New, Pending),
        by(Manager, New, Pending, Assigned),
        by(Manager, New, Pending, Shutdown),
        by(Manager, Assigned, Running, Orphaned),
        by(Node, Assigned, Assigned, Accepted),
        by(Node, Assigned, Accepted, Preparing),
        by(Node, Assigned, Preparing, Ready),
        by(Node, Assigned, Ready, Starting),
        by(Node, Assigned, Starting, Running),
        by(Node, Assigned, Running, Complete),
        by(Node, Assigned, Running, Shutdown),
        by(Node, Assigned, Running, Failed),
        by(Node, Assigned, Running, Rejected),
        by(Node, Assigned, Running, Remove),
    ]
};

/// Whether `owner` may bring a task from one state into another.
pub fn allowed(owner: Owner, from: TaskState, to: TaskState) -> bool {
    TRANSITIONS
        .iter()
        .any(|t| t.owner == owner && t.to == to && t.from <= from && from <= t.until)
}

/// The pod as it is after a report of its node; `None` when the report says nothing new, is late, or is about a
/// namesake. `now` stands in where the node names no time.
pub fn merge_report(pod: &Pod, report: &PodReport, now: Time) -> Option<Pod> {
    let namesake = !report.uid.is_empty() && report.uid != pod.metadata.uid;
    if let (Some(status), false) = (&report.kube, namesake) {
        return crate::kube::report::merge(pod, report, status, now);
    }
    let (from, to) = (pod.state.observed, report.state);
    if namesake || (from != to && !allowed(Owner::Node, from, to)) {
        return None;
    }
    if from == to && (from.is_final() || from < TaskState::Accepted) {
        return None;
    }
    let at = report.at.unwrap_or(now);
    let mut next = pod.clone();
    let s = &mut next.state;
    if from != to {
        s.observed = to;
        s.at = Some(at);
    }
    if to == TaskState::Running && s.running_at.is_none() {
        s.running_at = Some(at);
    }
    if !report.message.is_empty() {
        s.message.clone_from(&report.message);
    }
    // A reason that a controller gave for ending the task outlives a report without one.
    if !report.error.is_empty() || !to.is_final() {
        s.error.clone_from(&report.error);
    }
    if !report.container_id.is_empty() {
        s.container_id.clone_from(&report.container_id);
    }
    s.pid = if to.is_final() { 0 } else { report.pid };
    s.exit_code = report.exit_code.or(s.exit_code);
    s.serving = report.serving && to == TaskState::Running;
    s.ports = if to.is_final() {
        Vec::new()
    } else {
        report.ports.clone()
    };
    kubernetes_status(&mut next);
    (next != *pod).then_some(next)
}

/// Sets phase, addresses and container statuses from the pod's state.
pub fn kubernetes_status(pod: &mut Pod) {
    let s = &pod.state;
    let ok = s.exit_code.unwrap_or(0) == 0 && s.error.is_empty();
    pod.status.phase = match s.observed {
        TaskState::Running => "Running",
        TaskState::Complete => "Succeeded",
        TaskState::Shutdown | TaskState::Remove if ok => "Succeeded",
        o if o.is_final() => "Failed",
        _ => "Pending",
    }
    .into();
    if s.observed >= TaskState::Accepted {
        pod.status.start_time = pod.status.start_time.or(s.at);
    }
    let first = pod.extension.networks.iter().find_map(|n| n.address);
    if s.observed >= TaskState::Preparing {
        pod.status.pod_ip = first.map(|a| a.addr());
    }
    pod.status.message.clone_from(&s.error);
    pod.status.reason = match s.observed {
        o if o.is_final() && !ok => reason(o).into(),
        _ => String::new(),
    };
    let Some(container) = pod.spec.containers.first() else {
        return;
    };
    let time = |t: Option<Time>| t.map_or(Value::Null, |t| t.to_string().into());
    let state = match s.observed {
        TaskState::Running => json!({ "running": { "startedAt": time(s.running_at) } }),
        o if o.is_final() => json!({ "terminated": {
            "exitCode": s.exit_code.unwrap_or(if ok { 0 } else { 255 }),
            "reason": reason(o),
            "message": s.error,
            "startedAt": time(s.running_at),
            "finishedAt": time(s.at),
        } }),
        _ => json!({ "waiting": { "reason": "ContainerCreating", "message": s.message } }),
    };
    let running = s.observed == TaskState::Running;
    let ready = crate::project::serves(pod);
    let id = if s.container_id.is_empty() {
        String::new()
    } else {
        format!("tripod://{}", s.container_id)
    };
    let status = json!([{
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "containerID": id,
        "ready": ready,
        "started": running,
        "restartCount": 0,
        "state": state,
    }]);
    pod.status.rest.insert("containerStatuses", status);
    conditions(pod);
}

/// The usual conditions, for clients that wait for them.
fn conditions(pod: &mut Pod) {
    let s = &pod.state;
    let ready = crate::project::serves(pod);
    let reason = match s.observed {
        o if o.is_final() => "PodCompleted",
        _ if ready => "",
        _ => "ContainersNotReady",
    };
    let at = s.at.unwrap_or(Time::UNIX_EPOCH);
    let all = [
        ("PodScheduled", s.observed >= TaskState::Assigned, ""),
        ("Initialized", s.observed >= TaskState::Starting, ""),
        ("ContainersReady", ready, reason),
        ("Ready", ready, reason),
    ];
    pod.status.rest.edit("conditions", |list| {
        for (kind, holds, reason) in all {
            let say = crate::kube::conditions::Say {
                kind,
                status: if holds { "True" } else { "False" },
                reason,
                message: "",
            };
            crate::kube::conditions::set(list, say, at);
        }
    });
}

fn reason(state: TaskState) -> &'static str {
    match state {
        TaskState::Complete => "Completed",
        TaskState::Shutdown | TaskState::Remove => "Shutdown",
        TaskState::Rejected => "Rejected",
        TaskState::Orphaned => "NodeLost",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(observed: TaskState) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.uid = "u".into();
        pod.state.observed = observed;
        pod.spec.containers.push(Default::default());
        pod
    }

    fn report(state: TaskState) -> PodReport {
        PodReport {
            uid: "u".into(),
            state,
            ..PodReport::default()
        }
    }

    #[test]
    fn states_never_go_backwards() {
        use TaskState::*;
        let all = [
            New, Pending, Assigned, Accepted, Preparing, Ready, Starting, Running, Complete, Shutdown,
            Failed, Rejected, Remove, Orphaned,
        ];
        for from in all {
            for to in all {
                let merged = merge_report(&pod(from), &report(to), Time::UNIX_EPOCH);
                if let Some(next) = merged {
                    assert!(next.state.observed >= from, "{from:?} to {to:?}");
                    assert!(from >= Assigned && !from.is_final(), "{from:?} is not the node's");
                }
                if to < from {
                    assert!(!allowed(Owner::Node, from, to) && !allowed(Owner::Manager, from, to));
                }
            }
        }
    }

    #[test]
    fn each_transition_has_one_owner() {
        for t in TRANSITIONS {
            for from in TRANSITIONS
                .iter()
                .map(|t| t.from)
                .filter(|f| t.from <= *f && *f <= t.until)
            {
                assert!(
                    !(allowed(Owner::Manager, from, t.to) && allowed(Owner::Node, from, t.to)),
                    "{t:?}"
                );
            }
        }
    }

    #[test]
    fn kubernetes_status_follows() {
        let mut r = report(TaskState::Running);
        r.serving = true;
        r.container_id = "c0ffee".into();
        let running = merge_report(&pod(TaskState::Assigned), &r, Time::UNIX_EPOCH).unwrap();
        assert_eq!(running.status.phase, "Running");
        assert_eq!(running.status.rest["containerStatuses"][0]["ready"], true);
        assert_eq!(
            running.status.rest["containerStatuses"][0]["containerID"],
            "tripod://c0ffee"
        );
        assert!(
            merge_report(&running, &r, Time::UNIX_EPOCH).is_none(),
            "nothing new"
        );
        let mut end = report(TaskState::Failed);
        end.exit_code = Some(3);
        end.error = "task: non-zero exit (3)".into();
        let failed = merge_report(&running, &end, Time::UNIX_EPOCH).unwrap();
        assert_eq!(
            (failed.status.phase.as_str(), failed.state.serving),
            ("Failed", false)
        );
        assert_eq!(
            failed.status.rest["containerStatuses"][0]["state"]["terminated"]["exitCode"],
            3
        );
        assert!(merge_report(&failed, &r, Time::UNIX_EPOCH).is_none(), "late");
        end.uid = "other".into();
        assert!(
            merge_report(&running, &end, Time::UNIX_EPOCH).is_none(),
            "namesake"
        );
    }
}
