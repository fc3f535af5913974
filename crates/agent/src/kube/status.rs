//! The status of a pod (core/v1 PodStatus) from what is there: a pure function.

use std::collections::BTreeMap;

use tripod_model::Time;
use tripod_model::container::HealthStatus;
use tripod_model::k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, PodCondition, PodIP, PodStatus, ResourceRequirements,
    VolumeMountStatus,
};
use tripod_model::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as KubeTime;

use super::desc::{Desc, PodDesc, Role};
use super::env::Addresses;
use super::resize::Pending;
use super::resources;
use super::step::{Life, restarts};

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub id: String,
    pub code: i64,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` …
    pub reason: String,
    pub message: String,
    pub started: Option<Time>,
    pub finished: Option<Time>,
}

impl Ended {
    /// Seconds for which it ran.
    pub(super) fn ran(&self) -> i64 {
        match (self.started, self.finished) {
            (Some(a), Some(b)) => b.as_second().saturating_sub(a.as_second()).max(0),
            _ => 0,
        }
    }
}

/// The newest run of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Run {
    #[default]
    None,
    Running {
        at: Time,
    },
    Ended(Ended),
}

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Known {
    pub run: Run,
    /// The run before.
    pub last: Option<Ended>,
    /// Identifier of the newest run on the node.
    pub id: String,
    pub image_id: String,
    pub restarts: u32,
    /// Why it waits: reason and message.
    pub waiting: Option<(String, String)>,
    /// Its startup probe passed, or it has none.
    pub started: bool,
    /// Its readiness probe passed, or it has none.
    pub ready: bool,
    pub health: HealthStatus,
    /// It was ended to be run anew.
    pub again: bool,
    /// Requests and limits with which it runs.
    pub resources: Option<ResourceRequirements>,
    /// They are being changed; why that failed, where it did.
    pub resizing: Option<String>,
    /// User, group and further groups of its process.
    pub user: Option<(i64, i64, Vec<i64>)>,
}

impl Known {
    /// Where it is in its life.
    pub(super) fn life(&self) -> Life {
        match &self.run {
            Run::None => Life::None,
            Run::Running { .. } => Life::Running {
                started: self.started,
            },
            Run::Ended(e) => Life::Ended {
                code: e.code,
                ran: e.ran(),
            },
        }
    }
}

/// Why a pod ends, where it is not for its deletion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Verdict {
    pub reason: String,
    pub message: String,
}

impl Verdict {
    /// Of a pod that takes more of its node than it may.
    pub(super) const EVICTED: &str = "Evicted";
}

/// What a status is made of.
pub(super) struct Facts<'a> {
    pub desc: &'a PodDesc,
    pub known: &'a BTreeMap<String, Known>,
    pub addresses: &'a Addresses,
    /// Network and volumes are there.
    pub placed: bool,
    /// It is being ended.
    pub ending: bool,
    /// All containers have ended and stay so.
    pub over: bool,
    /// It failed as a whole.
    pub verdict: Option<&'a Verdict>,
    /// Why resources that it is to have are not given to it.
    pub pending: Option<&'a Pending>,
    pub started: Option<Time>,
    pub before: Option<&'a PodStatus>,
    pub now: Time,
}

fn kube(time: Option<Time>) -> Option<KubeTime> {
    time.map(|t| KubeTime(Time::from_second(t.as_second()).unwrap_or(t)))
}

/// The status.
pub(super) fn status(f: &Facts<'_>) -> PodStatus {
    let phase = phase(f);
    let list = |roles: &[Role]| -> Option<Vec<ContainerStatus>> {
        let of = f.desc.containers.iter().filter(|c| roles.contains(&c.role));
        let all: Vec<_> = of.map(|c| container(f, c)).collect();
        (!all.is_empty()).then_some(all)
    };
    let mut containers = list(&[Role::Regular]);
    if let Some(all) = &mut containers {
        all.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let pod_ips: Vec<_> = f
        .addresses
        .pod
        .iter()
        .map(|a| PodIP { ip: a.to_string() })
        .collect();
    let host_ips: Vec<_> = f
        .addresses
        .host
        .iter()
        .map(|a| HostIP { ip: a.to_string() })
        .collect();
    let generation = f.desc.pod.metadata.generation;
    PodStatus {
        conditions: Some(conditions(f, phase)),
        container_statuses: containers,
        init_container_statuses: list(&[Role::Init, Role::Sidecar]),
        ephemeral_container_statuses: list(&[Role::Ephemeral]),
        host_ip: host_ips.first().map(|h| h.ip.clone()),
        host_ips: (!host_ips.is_empty()).then_some(host_ips),
        pod_ip: pod_ips.first().map(|p| p.ip.clone()),
        pod_ips: (!pod_ips.is_empty()).then_some(pod_ips),
        message: f.verdict.and_then(|v| text(&v.message)),
        reason: f.verdict.and_then(|v| text(&v.reason)),
        observed_generation: (generation > 0).then_some(generation),
        phase: Some(phase.to_owned()),
        qos_class: Some(resources::qos(f.desc).to_owned()),
        start_time: kube(f.started),
        ..PodStatus::default()
    }
}

/// Pending, Running, Succeeded, Failed.
fn phase(f: &Facts<'_>) -> &'static str {
    let known = |c: &Desc| f.known.get(c.name()).cloned().unwrap_or_default();
    let (mut unborn, mut running, mut failed, mut again) = (0, 0, 0, 0);
    for c in f.desc.of_role(Role::Regular) {
        let k = known(c);
        match &k.run {
            Run::None => unborn += 1,
            Run::Running { .. } => running += 1,
            Run::Ended(e) => {
                failed += usize::from(e.code != 0);
                again += usize::from(k.again || restarts(f.desc, c, e.code, e.ran()));
            }
        }
    }
    let init_failed = f.desc.of_role(Role::Init).any(|c| match known(c).run {
        Run::Ended(e) => e.code != 0 && !restarts(f.desc, c, e.code, e.ran()),
        _ => false,
    });
    if f.over {
        let bad = f.verdict.is_some() || failed > 0 || init_failed || unborn > 0;
        return if bad { "Failed" } else { "Succeeded" };
    }
    match (running, unborn) {
        (_, 1..) => "Pending",
        (1.., 0) => "Running",
        // What ended and is to be started again, or the last of its sidecars end.
        (0, 0) if again > 0 || f.ending || sidecars_run(f) => "Running",
        (0, 0) if failed > 0 => "Failed",
        (0, 0) => "Succeeded",
        _ => "Running",
    }
}

fn sidecars_run(f: &Facts<'_>) -> bool {
    let runs = |c: &Desc| {
        f.known
            .get(c.name())
            .is_some_and(|k| matches!(k.run, Run::Running { .. }))
    };
    f.desc.of_role(Role::Sidecar).any(runs)
}

fn container(f: &Facts<'_>, c: &Desc) -> ContainerStatus {
    let k = f.known.get(c.name()).cloned().unwrap_or_default();
    let (state, last) = states(f, &k);
    let running = matches!(k.run, Run::Running { .. });
    let done = matches!(&k.run, Run::Ended(e) if e.code == 0);
    let ready = match c.role {
        Role::Init => done,
        Role::Ephemeral => false,
        _ => running && k.ready && k.started,
    };
    let id = |id: &str| (!id.is_empty()).then(|| format!("tripod://{id}"));
    let some = |r: &ResourceRequirements| r.limits.is_some() || r.requests.is_some();
    let allocated = c.container.resources.as_ref().and_then(|r| r.requests.clone());
    let resources = match running {
        true => k.resources.clone(),
        false => c.container.resources.clone(),
    };
    ContainerStatus {
        name: c.name().to_owned(),
        image: c.container.image.clone().unwrap_or_default(),
        image_id: k.image_id.clone(),
        container_id: id(&k.id),
        ready,
        started: Some(match c.role {
            Role::Init => running,
            _ => running && k.started,
        }),
        restart_count: i32::try_from(k.restarts).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: Some(last),
        allocated_resources: allocated,
        resources: resources.filter(some),
        user: k.user.map(|(uid, gid, groups)| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid,
                gid,
                supplemental_groups: Some(groups),
            }),
        }),
        volume_mounts: mounts(c),
        ..ContainerStatus::default()
    }
}

fn mounts(c: &Desc) -> Option<Vec<VolumeMountStatus>> {
    let mounts = c.container.volume_mounts.iter().flatten();
    let all: Vec<_> = mounts
        .map(|m| VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only.filter(|r| *r),
            recursive_read_only: m.read_only.filter(|r| *r).map(|_| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        })
        .collect();
    (!all.is_empty()).then_some(all)
}

fn terminated(e: &Ended) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: (!e.id.is_empty()).then(|| format!("tripod://{}", e.id)),
            exit_code: i32::try_from(e.code).unwrap_or(255),
            reason: Some(e.reason.clone()),
            message: (!e.message.is_empty()).then(|| e.message.clone()),
            started_at: kube(e.started),
            finished_at: kube(e.finished),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// Present and last state.
fn states(f: &Facts<'_>, k: &Known) -> (ContainerState, ContainerState) {
    let last = k.last.as_ref().map(terminated).unwrap_or_default();
    let waiting = |reason: &str, message: &str| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    };
    match (&k.run, &k.waiting) {
        (Run::Running { at }, _) => (
            ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: kube(Some(*at)),
                }),
                ..ContainerState::default()
            },
            last,
        ),
        // It is to run again: the run that ended is the last one by now.
        (Run::Ended(e), Some((reason, message))) if !f.over && !f.ending => {
            (waiting(reason, message), terminated(e))
        }
        (Run::Ended(e), _) => (terminated(e), last),
        (Run::None, Some((reason, message))) => (waiting(reason, message), last),
        (Run::None, None) => {
            let has_init = f.desc.init().next().is_some();
            let reason = if has_init {
                "PodInitializing"
            } else {
                "ContainerCreating"
            };
            (waiting(reason, ""), last)
        }
    }
}

fn conditions(f: &Facts<'_>, phase: &str) -> Vec<PodCondition> {
    let over = matches!(phase, "Succeeded" | "Failed");
    let known = |c: &Desc| f.known.get(c.name()).cloned().unwrap_or_default();
    let initialised = |c: &Desc| {
        let k = known(c);
        match (c.role, &k.run) {
            (Role::Init, Run::Ended(e)) => e.code == 0,
            (Role::Sidecar, Run::Running { .. }) => k.started,
            _ => false,
        }
    };
    let begun = f
        .desc
        .of_role(Role::Regular)
        .any(|c| known(c).run != Run::None || known(c).last.is_some());
    let incomplete: Vec<&str> = f
        .desc
        .init()
        .filter(|c| !initialised(c))
        .map(Desc::name)
        .collect();
    let is_ready = |c: &Desc| {
        let k = known(c);
        matches!(k.run, Run::Running { .. }) && k.ready && k.started
    };
    let counted = f
        .desc
        .containers
        .iter()
        .filter(|c| matches!(c.role, Role::Regular | Role::Sidecar));
    let unready: Vec<&str> = counted.filter(|c| !is_ready(c)).map(Desc::name).collect();
    let completed = phase == "Succeeded";
    let initialized = match (begun || incomplete.is_empty(), completed) {
        (_, true) => (true, "PodCompleted", String::new()),
        (true, _) => (true, "", String::new()),
        (false, _) => (
            false,
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", incomplete.join(" ")),
        ),
    };
    let containers_ready = match (over, completed, unready.is_empty()) {
        (_, true, _) => (false, "PodCompleted", String::new()),
        (true, ..) => (false, "PodFailed", String::new()),
        (_, _, true) => (true, "", String::new()),
        _ => (
            false,
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        ),
    };
    let ready = match gate(f.desc) {
        Some(message) if containers_ready.0 => (false, "ReadinessGatesNotReady", message),
        _ => containers_ready.clone(),
    };
    let placed = (f.placed, "", String::new());
    let mut more = Vec::new();
    if let Some(pending) = f.pending {
        more.push((
            "PodResizePending",
            (true, pending.reason, pending.message.clone()),
        ));
    }
    if let Some(verdict) = f.verdict.filter(|v| v.reason == Verdict::EVICTED) {
        more.push((
            "DisruptionTarget",
            (true, "TerminationByKubelet", verdict.message.clone()),
        ));
    }
    if let Some(error) = f.known.values().filter_map(|k| k.resizing.clone()).max() {
        let reason = if error.is_empty() { "" } else { "Error" };
        more.push(("PodResizeInProgress", (true, reason, error)));
    }
    [
        ("PodReadyToStartContainers", placed),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
    ]
    .into_iter()
    .chain(more)
    .map(|(kind, (holds, reason, message))| {
        let status = if holds { "True" } else { "False" };
        let before = f
            .before
            .and_then(|b| b.conditions.as_ref()?.iter().find(|c| c.type_ == kind));
        let same = before
            .filter(|c| c.status == status)
            .and_then(|c| c.last_transition_time.clone());
        let generation = f.desc.pod.metadata.generation;
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: (!message.is_empty()).then_some(message),
            last_transition_time: same.or_else(|| kube(Some(f.now))),
            observed_generation: (generation > 0).then_some(generation),
            ..PodCondition::default()
        }
    })
    .collect()
}

/// What the first readiness gate lacks that does not hold.
fn gate(desc: &PodDesc) -> Option<String> {
    let conditions = desc.pod.status.rest.get("conditions").and_then(|c| c.as_array());
    for gate in desc.spec.readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        let found = conditions
            .into_iter()
            .flatten()
            .find(|c| c["type"] == kind.as_str());
        match found.and_then(|c| c["status"].as_str()) {
            Some("True") => {}
            Some(other) => {
                return Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {other}"
                ));
            }
            None => {
                return Some(format!(
                    "corresponding condition of pod readiness gate \"{kind}\" does not exist."
                ));
            }
        }
    }
    None
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
