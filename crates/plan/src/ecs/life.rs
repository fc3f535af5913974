//! A task's life: PROVISIONING → PENDING → RUNNING → DEACTIVATING … STOPPED, from what its node reports of its pod.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::Value;
use tripod_model::Time;
use tripod_model::container::HealthStatus;
use tripod_model::ecs::{EcsTask, EcsTaskState};
use tripod_model::pod::{DesiredState, Pod};

/// Waiting reasons of containers whose image cannot be had.
const NO_IMAGE: &[&str] = &[
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
];
/// Waiting reasons of containers that cannot be made.
const NO_CONTAINER: &[&str] = &[
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// `seconds` after a time.
pub fn after(at: Time, seconds: i64) -> Time {
    at.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Time::MAX)
}

/// A container as its node tells of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Runs now.
    pub running: bool,
    /// Ran, and ended.
    pub ended: bool,
    /// Exit status, when it ended.
    pub exit_code: Option<i64>,
    /// `OOMKilled`, `ErrImagePull` …
    pub reason: String,
    /// For people.
    pub message: String,
    /// Identifier on the node.
    pub runtime_id: String,
    /// Digest of its image.
    pub image_digest: String,
    /// What its health check says.
    pub health: Option<HealthStatus>,
}

/// The containers of a task by their names in the PodSpec.
pub fn containers(pod: &Pod) -> BTreeMap<String, Observed> {
    let mut out = BTreeMap::new();
    let list = pod.status.rest.get("containerStatuses").and_then(Value::as_array);
    for status in list.into_iter().flatten() {
        let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = text(status.get("name"));
        let state = status.get("state");
        let of = |what: &str| state.and_then(|s| s.get(what));
        let detail = of("terminated").or_else(|| of("waiting"));
        let id = text(status.get("containerID"));
        let image = text(status.get("imageID"));
        let observed = Observed {
            running: of("running").is_some(),
            ended: of("terminated").is_some(),
            exit_code: of("terminated")
                .and_then(|t| t.get("exitCode"))
                .and_then(Value::as_i64),
            reason: text(detail.and_then(|d| d.get("reason"))),
            message: text(detail.and_then(|d| d.get("message"))),
            runtime_id: id.rsplit('/').next().unwrap_or_default().to_owned(),
            image_digest: image
                .rsplit('@')
                .next()
                .filter(|d| d.starts_with("sha256:"))
                .unwrap_or("")
                .to_owned(),
            health: pod.state.health.get(&name).copied(),
        };
        out.insert(name, observed);
    }
    out
}

/// Tells a task to end. What was said first stays.
pub fn stop(pod: &mut Pod, code: &str, reason: &str, now: Time) {
    if pod.state.desired >= DesiredState::Shutdown {
        return;
    }
    pod.state.desired = DesiredState::Shutdown;
    let s = pod.state.ecs.get_or_insert_default();
    s.stop_code = code.to_owned();
    s.stopped_reason = reason.to_owned();
    s.stopping_at = Some(now);
    s.version += 1;
}

/// Whether nothing of a task runs any more.
pub fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") || pod.state.observed.is_final()
}

/// Brings a task's state in line with its pod. Called whenever a report was merged into the pod, and by plans.
pub fn observe(pod: &mut Pod, now: Time) {
    let Some(task) = pod.extension.ecs.clone() else {
        return;
    };
    let before = pod.state.ecs.clone().unwrap_or_default();
    if before.stopped_at.is_some() {
        return;
    }
    let seen = containers(pod);
    if let Some((code, reason)) = fate(pod, &task, &seen) {
        stop(pod, &code, &reason, now);
    }
    let mut s = pod.state.ecs.clone().unwrap_or_default();
    reasons(&mut s, &task, &seen);
    times(&mut s, pod, &task, &seen, now);
    s.last_status = status(&s, pod).into();
    if s != before {
        s.version = s.version.max(before.version) + i64::from(s.version == before.version);
    }
    pod.state.ecs = Some(s);
}

/// Why a task that is to run must end.
fn fate(pod: &Pod, task: &EcsTask, seen: &BTreeMap<String, Observed>) -> Option<(String, String)> {
    if pod.state.desired >= DesiredState::Shutdown {
        return None;
    }
    let failed = |reason: String| Some(("TaskFailedToStart".to_owned(), reason));
    for container in &task.containers {
        let Some(o) = seen.get(&container.pod_name) else {
            continue;
        };
        if NO_IMAGE.contains(&o.reason.as_str()) {
            return failed(cannot_pull(&container.image, &o.message));
        }
        if NO_CONTAINER.contains(&o.reason.as_str()) && !o.ended {
            return failed(format!("CannotStartContainerError: {}", o.message));
        }
    }
    let ended =
        |c: &&tripod_model::ecs::EcsContainer| c.essential && seen.get(&c.pod_name).is_some_and(|o| o.ended);
    let ran = pod.state.ecs.as_ref().is_some_and(|s| s.started_at.is_some());
    if let Some(container) = task.containers.iter().find(ended) {
        let o = seen.get(&container.pod_name).cloned().unwrap_or_default();
        if !ran && matches!(o.reason.as_str(), "StartError" | "ContainerCannotRun") {
            return failed(format!("CannotStartContainerError: {}", o.message));
        }
        return Some((
            "EssentialContainerExited".into(),
            "Essential container in task exited".into(),
        ));
    }
    if !is_over(pod) {
        return None;
    }
    if ran {
        return Some((
            "EssentialContainerExited".into(),
            "Essential container in task exited".into(),
        ));
    }
    let why = [
        pod.status.message.as_str(),
        pod.state.error.as_str(),
        pod.status.reason.as_str(),
    ];
    let why = why
        .into_iter()
        .find(|w| !w.is_empty())
        .unwrap_or("the task did not start");
    failed(why.to_owned())
}

fn cannot_pull(image: &str, message: &str) -> String {
    if message.contains(image) {
        return format!("CannotPullContainerError: {message}");
    }
    format!("CannotPullContainerError: {image}: {message}")
}

/// Reasons of single containers.
fn reasons(s: &mut EcsTaskState, task: &EcsTask, seen: &BTreeMap<String, Observed>) {
    for container in &task.containers {
        let Some(o) = seen.get(&container.pod_name) else {
            continue;
        };
        let reason = match o.reason.as_str() {
            "OOMKilled" => "OutOfMemoryError: Container killed due to memory usage".to_owned(),
            r if NO_IMAGE.contains(&r) => cannot_pull(&container.image, &o.message),
            r if NO_CONTAINER.contains(&r) => format!("CannotStartContainerError: {}", o.message),
            _ => continue,
        };
        s.reasons.insert(container.name.clone(), reason);
    }
}

fn times(s: &mut EcsTaskState, pod: &Pod, task: &EcsTask, seen: &BTreeMap<String, Observed>, now: Time) {
    let on_node = !pod.spec.node_name.is_empty();
    let heard = pod.status.start_time.is_some() || !seen.is_empty();
    if on_node && s.connectivity_at.is_none() {
        s.connectivity_at = Some(now);
    }
    if on_node && heard && s.pull_started_at.is_none() {
        s.pull_started_at = Some(now);
    }
    let begun = |name: &str| seen.get(name).is_some_and(|o| o.running || o.ended);
    if s.pull_stopped_at.is_none() && task.containers.iter().any(|c| begun(&c.pod_name)) {
        s.pull_stopped_at = Some(now);
    }
    let all = !task.containers.is_empty() && task.containers.iter().all(|c| begun(&c.pod_name));
    if s.started_at.is_none() && all && pod.state.desired < DesiredState::Shutdown {
        s.started_at = Some(now);
    }
    if is_over(pod) && pod.state.desired >= DesiredState::Shutdown {
        if s.pull_stopped_at.is_none() && s.pull_started_at.is_some() {
            s.pull_stopped_at = Some(now);
        }
        s.execution_stopped_at = s.execution_stopped_at.or(Some(now));
        s.stopping_at = s.stopping_at.or(Some(now));
        s.stopped_at = Some(now);
    }
}

fn status(s: &EcsTaskState, pod: &Pod) -> &'static str {
    if s.stopped_at.is_some() {
        "STOPPED"
    } else if pod.state.desired >= DesiredState::Shutdown {
        "DEACTIVATING"
    } else if s.started_at.is_some() {
        "RUNNING"
    } else if s.pull_stopped_at.is_some() {
        "ACTIVATING"
    } else if !pod.spec.node_name.is_empty() {
        "PENDING"
    } else {
        "PROVISIONING"
    }
}

/// HEALTHY, UNHEALTHY or UNKNOWN, of the essential containers that have a check.
pub fn health(pod: &Pod) -> &'static str {
    let Some(task) = pod.ecs() else { return "UNKNOWN" };
    let mut verdict = "UNKNOWN";
    for container in task.containers.iter().filter(|c| c.essential && c.health_check) {
        match pod.state.health.get(&container.pod_name) {
            Some(HealthStatus::Healthy) if verdict == "UNKNOWN" => verdict = "HEALTHY",
            Some(HealthStatus::Healthy) => {}
            Some(HealthStatus::Unhealthy) => return "UNHEALTHY",
            _ => return "UNKNOWN",
        }
    }
    verdict
}

/// `desiredStatus`.
pub fn desired(pod: &Pod) -> &'static str {
    if pod.state.desired >= DesiredState::Shutdown {
        "STOPPED"
    } else {
        "RUNNING"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tripod_model::ecs::EcsContainer;

    use super::*;

    fn time(second: i64) -> Time {
        Time::from_second(second).unwrap()
    }

    fn pod(statuses: Value, phase: &str) -> Pod {
        let mut pod = Pod::default();
        let container = |name: &str, essential| EcsContainer {
            name: name.into(),
            pod_name: name.into(),
            image: "web:1".into(),
            essential,
            ..EcsContainer::default()
        };
        pod.extension.ecs = Some(EcsTask {
            containers: vec![container("main", true), container("side", false)],
            ..EcsTask::default()
        });
        pod.spec.node_name = "n".into();
        pod.status.phase = phase.into();
        pod.status.rest.insert("containerStatuses", statuses);
        pod
    }

    fn running(name: &str) -> Value {
        json!({ "name": name, "state": { "running": {} }, "containerID": "tripod://c0" })
    }

    fn ended(name: &str, code: i64, reason: &str) -> Value {
        json!({ "name": name, "state": { "terminated": { "exitCode": code, "reason": reason } } })
    }

    #[test]
    fn a_task_runs_when_all_its_containers_do() {
        let mut p = pod(json!([running("main")]), "Pending");
        observe(&mut p, time(1));
        assert_eq!(p.state.ecs.as_ref().unwrap().last_status, "ACTIVATING");
        let first = p.state.ecs.as_ref().unwrap().version;
        p.status
            .rest
            .insert("containerStatuses", json!([running("main"), running("side")]));
        observe(&mut p, time(2));
        let s = p.state.ecs.clone().unwrap();
        assert_eq!((s.last_status.as_str(), s.started_at), ("RUNNING", Some(time(2))));
        assert!(s.version > first);
        observe(&mut p, time(3));
        assert_eq!(p.state.ecs.unwrap(), s, "nothing new");
    }

    #[test]
    fn another_container_may_end_an_essential_one_may_not() {
        let mut p = pod(json!([running("main"), running("side")]), "Running");
        observe(&mut p, time(1));
        p.status.rest.insert(
            "containerStatuses",
            json!([running("main"), ended("side", 3, "Error")]),
        );
        observe(&mut p, time(2));
        assert_eq!(
            (desired(&p), p.state.ecs.as_ref().unwrap().last_status.as_str()),
            ("RUNNING", "RUNNING")
        );
        p.status.rest.insert(
            "containerStatuses",
            json!([ended("main", 1, "OOMKilled"), ended("side", 3, "Error")]),
        );
        p.status.phase = "Failed".into();
        observe(&mut p, time(3));
        let s = p.state.ecs.clone().unwrap();
        assert_eq!(s.stop_code, "EssentialContainerExited");
        assert_eq!((s.last_status.as_str(), s.stopped_at), ("STOPPED", Some(time(3))));
        assert!(s.reasons["main"].starts_with("OutOfMemoryError"));
    }

    #[test]
    fn an_image_that_cannot_be_had() {
        let waiting = json!([{ "name": "main", "state": { "waiting": { "reason": "ErrImagePull", "message": "no" } } }]);
        let mut p = pod(waiting, "Pending");
        observe(&mut p, time(1));
        let s = p.state.ecs.clone().unwrap();
        assert_eq!(s.stop_code, "TaskFailedToStart");
        assert_eq!(s.stopped_reason, "CannotPullContainerError: web:1: no");
        assert_eq!((desired(&p), s.last_status.as_str()), ("STOPPED", "DEACTIVATING"));
        p.status.phase = "Failed".into();
        observe(&mut p, time(2));
        assert_eq!(p.state.ecs.unwrap().last_status, "STOPPED");
    }

    #[test]
    fn the_first_reason_stays() {
        let mut p = pod(json!([]), "Pending");
        stop(&mut p, "UserInitiated", "because", time(1));
        stop(&mut p, "TaskFailedToStart", "other", time(2));
        assert_eq!(p.state.ecs.as_ref().unwrap().stopped_reason, "because");
    }
}
