//! What a pod's failure means for its Job, and when fewer successes than all are enough.

use std::collections::BTreeSet;

use serde_json::Value;
use tripod_model::k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyRule};

use super::super::pod::{KPod, condition};
use super::indexes;

/// What a failure does.
pub(super) enum Action {
    /// It counts.
    Count,
    /// It does not count.
    Ignore,
    /// The Job fails, and why.
    FailJob(String),
    /// The pod's index fails.
    FailIndex,
}

/// What the failure of a pod does: the first rule that matches decides.
pub(super) fn action(spec: &JobSpec, pod: &KPod) -> Action {
    let rules = spec.pod_failure_policy.as_ref().map_or(&[][..], |p| &p.rules);
    for (i, rule) in rules.iter().enumerate() {
        let Some(why) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Action::Ignore,
            "FailIndex" => Action::FailIndex,
            "FailJob" => {
                let name = format!("{}/{}", pod.namespace(), pod.name());
                Action::FailJob(why.replace("{pod}", &name) + &format!(" matching FailJob rule at index {i}"))
            }
            _ => Action::Count,
        };
    }
    Action::Count
}

/// Why a rule matches a pod.
fn matches(rule: &PodFailurePolicyRule, pod: &KPod) -> Option<String> {
    if let Some(codes) = &rule.on_exit_codes {
        let lists = ["containerStatuses", "initContainerStatuses"];
        let statuses = lists
            .iter()
            .filter_map(|l| pod.pod.status.rest.get(l)?.as_array())
            .flatten();
        for status in statuses {
            let name = status["name"].as_str().unwrap_or_default();
            if codes.container_name.as_deref().is_some_and(|c| c != name) {
                continue;
            }
            let Some(code) = status["state"]["terminated"]["exitCode"]
                .as_i64()
                .filter(|c| *c != 0)
            else {
                continue;
            };
            let among = codes.values.iter().any(|v| i64::from(*v) == code);
            if among == (codes.operator == "In") {
                return Some(format!(
                    "Container {name} for pod {{pod}} failed with exit code {code}"
                ));
            }
        }
        return None;
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    patterns.iter().find_map(|pattern| {
        let found = condition(&pod.pod, &pattern.type_)?;
        let status = pattern.status.as_deref().unwrap_or_default();
        let wanted = if status.is_empty() { "True" } else { status };
        (found["status"].as_str() == Some(wanted))
            .then(|| format!("Pod {{pod}} has condition {}", pattern.type_))
    })
}

/// Why the indexes that succeeded are enough.
pub(super) fn success(spec: &JobSpec, completed: &BTreeSet<i32>) -> Option<String> {
    let rules = spec.success_policy.as_ref().map_or(&[][..], |p| &p.rules);
    let met = rules.iter().position(|rule| {
        let wanted = rule.succeeded_indexes.as_deref().map(indexes::parse);
        let among = wanted
            .as_ref()
            .map_or_else(|| completed.len(), |w| completed.intersection(w).count());
        match (rule.succeeded_count, &wanted) {
            (Some(n), _) => i64::try_from(among).unwrap_or(i64::MAX) >= i64::from(n),
            (None, Some(w)) => !w.is_empty() && among == w.len(),
            (None, None) => false,
        }
    })?;
    Some(format!("Matched rules at index {met}"))
}

/// The time at which a pod's last container ended.
pub(super) fn ended_at(pod: &KPod) -> Option<tripod_model::Time> {
    let statuses = pod
        .pod
        .status
        .rest
        .get("containerStatuses")
        .and_then(Value::as_array);
    let ends = statuses.into_iter().flatten().filter_map(|s| {
        let at = s["state"]["terminated"]["finishedAt"].as_str()?;
        at.parse().ok()
    });
    ends.max()
}
