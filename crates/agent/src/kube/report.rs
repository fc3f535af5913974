//! A pod's status as the manager is told of it.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, watch};
use tripod_model::Time;
use tripod_model::container::HealthStatus;
use tripod_model::k8s_openapi::api::core::v1::PodStatus;
use tripod_model::session::PodReport;
use tripod_model::swarm::TaskState;

use super::desc::{PodDesc, Role};
use super::status::{Known, Run};
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
