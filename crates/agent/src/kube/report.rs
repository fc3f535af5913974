//! A pod's status as the manager is told of it.

use std::collections::BTreeMap;

use tripod_model::Time;
use tripod_model::container::HealthStatus;
use tripod_model::k8s_openapi::api::core::v1::PodStatus;
use tripod_model::session::PodReport;
use tripod_model::swarm::TaskState;

use super::desc::{PodDesc, Role};
use super::status::{Known, Run};

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
