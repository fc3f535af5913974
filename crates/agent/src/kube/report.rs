//! A pod's status as the manager is told of it.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, watch};
use tripod_model::Time;
use tripod_model::container::HealthStatus;
use tripod_model::k8s_openapi::api::core::v1::PodStatus;
use tripod_model::session::{PodEvent, PodReport};
use tripod_model::swarm::TaskState;

use super::desc::{PodDesc, Role};
use super::status::{self, Known, Run};
use super::track::Busy;
use super::worker::Worker;
use crate::pods::Wish;

/// The report; `status` is complete.
pub(super) fn report(desc: &PodDesc, status: PodStatus, known: &BTreeMap<String, Known>) -> PodReport {
    let state = match status.phase.as_deref() {
        Some("Running") => TaskState::Running,
        Some("Succeeded") => TaskState::Complete,
        Some("Failed") => TaskState::Failed,
        _ => TaskState::Preparing,
    };
    let ready =
        |c: &tripod_model::k8s_openapi::api::core::v1::PodCondition| c.type_ == "Ready" && c.status == "True";
    let ended = desc
        .of_role(Role::Regular)
        .filter_map(|c| match &known.get(c.name())?.run {
            Run::Ended(e) => Some(e.code),
            _ => None,
        });
    PodReport {
        pod: desc.key(),
        uid: desc.uid().to_owned(),
        state,
        at: Some(Time::now()),
        error: status.message.clone().unwrap_or_default(),
        exit_code: ended.max_by_key(|code| *code != 0).filter(|_| state.is_final()),
        serving: status.conditions.iter().flatten().any(ready),
        health: known
            .iter()
            .filter(|(_, k)| k.health != HealthStatus::None)
            .map(|(name, k)| (name.clone(), k.health))
            .collect(),
        kube: Some(Box::new(status)),
        ..PodReport::default()
    }
}

impl Worker {
    /// Tells the manager what is new.
    pub(super) fn report(&mut self) {
        let known: BTreeMap<String, Known> = self
            .tracks
            .iter()
            .map(|(n, t)| (n.clone(), t.known.clone()))
            .collect();
        let status = status::status(&self.facts(&known, self.clock.now()));
        let same = self.last.as_ref() == Some(&status) && !self.health_told;
        // What a start tells on its way goes with its outcome, which comes in a moment: one write instead of four.
        let on_the_way = |e: &PodEvent| matches!(e.reason.as_str(), "Pulled" | "Created" | "Started");
        let starting = self.tracks.values().any(|t| t.busy == Some(Busy::Starting));
        if same && (self.events.is_empty() || starting && self.events.iter().all(on_the_way)) {
            return;
        }
        self.health_told = false;
        self.agent
            .set_pod_status(&self.desc.key(), self.desc.uid(), &status);
        self.last = Some(status.clone());
        let mut report = report(&self.desc, status, &known);
        report.events = std::mem::take(&mut self.events);
        // The session has ended when nobody takes it: the next one begins with what is then true.
        let _ = self.reports.send(report);
    }

    pub(super) fn report_gone(&mut self) {
        let Some(status) = self.last.clone() else { return };
        let mut report = report(&self.desc, status, &BTreeMap::new());
        report.events = std::mem::take(&mut self.events);
        report.gone = true;
        let _ = self.reports.send(report);
    }
}

/// A pod that cannot be read fails, and goes when it is told to.
pub(super) async fn refuse(
    reports: &mpsc::UnboundedSender<PodReport>,
    wish: &Wish,
    why: &str,
    mut wishes: watch::Receiver<Wish>,
) {
    let report = |gone: bool| PodReport {
        pod: format!("{}/{}", wish.pod.metadata.namespace, wish.pod.metadata.name),
        uid: wish.pod.metadata.uid.clone(),
        state: TaskState::Failed,
        error: why.to_owned(),
        kube: Some(Box::new(PodStatus {
            phase: Some("Failed".into()),
            reason: Some("InvalidSpec".into()),
            message: Some(why.to_owned()),
            ..PodStatus::default()
        })),
        gone,
        ..PodReport::default()
    };
    let _ = reports.send(report(false));
    let leaves = |w: &Wish| w.gone || w.pod.metadata.deletion_timestamp.is_some();
    if wishes.wait_for(leaves).await.is_ok() {
        let _ = reports.send(report(true));
        let _ = wishes.wait_for(|w| w.gone).await;
    }
}
