//! What changes while a pod runs: requests and limits in place, images by another run.

use std::collections::BTreeMap;
use std::sync::Arc;

use tripod_model::k8s_openapi::api::core::v1::ResourceRequirements;
use tripod_model::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::desc::{Desc, PodDesc, Role};
use super::quantity::milli;
use super::resources;
use super::status::Run;
use super::track::Note;
use super::worker::Worker;
use crate::UpdateContainer;

/// Thousandths of processors, and of bytes of memory.
pub(super) type Amounts = BTreeMap<&'static str, i128>;

const NAMES: [&str; 2] = ["cpu", "memory"];

/// Why resources that a running pod is to have are not given to it: reason and message of PodResizePending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    /// `Infeasible`: never on this node; `Deferred`: not now.
    pub reason: &'static str,
    pub message: String,
}

fn shown(name: &str, amount: i128) -> String {
    match name {
        "cpu" => amount.to_string(),
        _ => (amount / 1000).to_string(),
    }
}

/// Whether a node has room for what a pod asks now, beside what the others there have.
pub(super) fn judge(wanted: &PodDesc, others: &Amounts, has: &BTreeMap<String, String>) -> Option<Pending> {
    for name in NAMES {
        let Some(capacity) = has.get(name).and_then(|t| milli(&Quantity(t.clone()))) else {
            continue;
        };
        let requested = resources::requested(wanted, name);
        let used = others.get(name).copied().unwrap_or(0);
        if requested > capacity {
            return Some(Pending {
                reason: "Infeasible",
                message: format!(
                    "Node didn't have enough capacity: {name}, requested: {}, capacity: {}",
                    shown(name, requested),
                    shown(name, capacity)
                ),
            });
        }
        if requested > capacity - used {
            return Some(Pending {
                reason: "Deferred",
                message: format!(
                    "Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                    shown(name, requested),
                    shown(name, used),
                    shown(name, capacity)
                ),
            });
        }
    }
    None
}

/// Whether a resource of a container is another than it was, so that its policy asks for a restart.
fn must_restart(old: Option<&ResourceRequirements>, c: &Desc) -> bool {
    let list = |r: Option<&ResourceRequirements>, name: &str| {
        let r = r.cloned().unwrap_or_default();
        (
            r.limits.and_then(|l| l.get(name).cloned()),
            r.requests.and_then(|l| l.get(name).cloned()),
        )
    };
    c.container.resize_policy.iter().flatten().any(|p| {
        p.restart_policy == "RestartContainer"
            && list(c.container.resources.as_ref(), &p.resource_name) != list(old, &p.resource_name)
    })
}

impl Worker {
    /// Takes a new specification over; resources for which there is no room stay what they were.
    pub(super) fn accept(&mut self, mut desc: PodDesc) {
        let before = self.desc.clone();
        let differs = |c: &Desc| {
            let old = before.get(c.name());
            old.is_some_and(|o| o.container.resources != c.container.resources)
        };
        self.pending = None;
        if desc.containers.iter().any(differs) {
            let others = self.agent.allocated_to_others(desc.uid());
            self.pending = judge(&desc, &others, &self.inputs.node().allocatable);
            if self.pending.is_some() {
                desc.keep_resources(&before);
            }
        }
        self.desc = Arc::new(desc);
        self.renew(&before);
        self.resize();
    }

    /// Containers whose image changed run anew, whatever the restart policy.
    fn renew(&mut self, before: &PodDesc) {
        let desc = self.desc.clone();
        for c in desc.containers.iter().filter(|c| c.role != Role::Ephemeral) {
            let same = before
                .get(c.name())
                .is_none_or(|old| old.container.image == c.container.image);
            let Some(track) = self.tracks.get_mut(c.name()).filter(|_| !same) else {
                continue;
            };
            // What went wrong went wrong with another image.
            (track.not_before, track.pause, track.image_pause) = (None, 0, 0);
            if matches!(track.known.run, Run::Running { .. }) && track.busy.is_none() {
                track.known.again = true;
                self.stop(c.name(), Some("definition changed"));
            }
        }
    }

    /// Takes up a resize that a former daemon did not come to.
    pub(super) fn resume_resize(&mut self) {
        self.resize();
    }

    /// Limits that differ from what a container runs with are changed in place, or by a restart where the container's
    /// policy says so.
    fn resize(&mut self) {
        let desc = self.desc.clone();
        let mut changed = Vec::new();
        for c in &desc.containers {
            let Some(track) = self.tracks.get_mut(c.name()) else {
                continue;
            };
            let idle = matches!(track.known.run, Run::Running { .. }) && track.busy.is_none();
            if !idle || track.known.resources == c.container.resources {
                continue;
            }
            if must_restart(track.known.resources.as_ref(), c) {
                track.known.resources.clone_from(&c.container.resources);
                self.stop(c.name(), Some("resize requires restart"));
                continue;
            }
            track.known.resizing = Some(String::new());
            changed.push((c.name().to_owned(), track.known.id.clone()));
        }
        if changed.is_empty() {
            return;
        }
        let (agent, notes) = (self.agent.clone(), self.notify.0.clone());
        tokio::spawn(async move {
            let (group, limits) = (resources::cgroup(&desc), resources::pod_limits(&desc));
            // Before the containers where it grows, after them where it shrinks: at worst it is asked for twice.
            let early = agent.runtime().group(&group, &limits).await;
            for (name, id) in changed {
                let done = agent.resize_container(&desc, &name, &id).await;
                let done = done.map_err(|e| e.message);
                let _ = notes.send(Note::Resized(name, id, desc.clone(), done));
            }
            if early.is_err()
                && let Err(e) = agent.runtime().group(&group, &limits).await
            {
                tracing::warn!("the limits of pod {} stay: {e}", desc.key());
            }
        });
    }

    /// Limits of a container are what they were to be, or could not be.
    pub(super) fn resized(&mut self, name: &str, id: &str, desc: &PodDesc, done: Result<(), String>) {
        let now = self.desc.clone();
        let Some(track) = self.tracks.get_mut(name).filter(|t| t.known.id == id) else {
            return;
        };
        let Some(c) = desc.get(name) else { return };
        match done {
            Ok(()) => {
                track.known.resources.clone_from(&c.container.resources);
                track.known.resizing = None;
                if now.get(name).map(|c| &c.container.resources) != Some(&c.container.resources) {
                    self.resize();
                }
            }
            Err(message) => {
                self.notify
                    .warn(c, "ResizeError", &format!("resize failed: {message}"));
                track.known.resizing = Some(message);
            }
        }
    }
}

impl crate::Agent {
    async fn resize_container(&self, desc: &PodDesc, name: &str, id: &str) -> tripod_model::Result<()> {
        let (Some(c), Ok(record)) = (desc.get(name), self.container(id)) else {
            return Ok(());
        };
        let resources = super::translate::resized(desc, c, &record.spec.resources);
        let update = UpdateContainer {
            resources: Some(resources),
            restart: None,
        };
        self.update_container(id, update).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::desc::tests::pod;
    use super::*;

    #[test]
    fn room_is_judged() {
        let has = BTreeMap::from([
            ("cpu".to_owned(), "2".to_owned()),
            ("memory".to_owned(), "1Gi".to_owned()),
        ]);
        let others = Amounts::from([("cpu", 1500)]);
        for (cpu, memory, want) in [
            ("500m", "1Gi", ""),
            (
                "600m",
                "1Mi",
                "Deferred Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000",
            ),
            (
                "3",
                "1Mi",
                "Infeasible Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000",
            ),
            (
                "1m",
                "2Gi",
                "Infeasible Node didn't have enough capacity: memory, requested: 2147483648, capacity: 1073741824",
            ),
        ] {
            let desc = pod(
                json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}),
                json!({}),
            );
            let said = judge(&desc, &others, &has).map(|p| format!("{} {}", p.reason, p.message));
            assert_eq!(said.unwrap_or_default(), want);
        }
    }
}
