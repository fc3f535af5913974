//! Quality of service, and what follows from requests and limits for a pod as a whole.

use std::collections::BTreeMap;

use tripod_model::container::Resources;
use tripod_model::k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use tripod_model::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::desc::{PodDesc, Role};
use super::quantity::{milli, units};

/// Highest adjustment of the OOM score.
const MOST: i64 = 1000;
const GUARANTEED: i64 = -997;

type List = BTreeMap<String, Quantity>;

/// `Guaranteed`, `Burstable`, `BestEffort`.
pub(super) fn qos(desc: &PodDesc) -> &'static str {
    let of = |c: &Container| c.resources.clone().unwrap_or_default();
    let all: Vec<ResourceRequirements> = match &desc.spec.resources {
        Some(pod) if pod.limits.is_some() || pod.requests.is_some() => vec![pod.clone()],
        _ => desc
            .containers
            .iter()
            .filter(|c| c.role != Role::Ephemeral)
            .map(|c| of(&c.container))
            .collect(),
    };
    let value = |list: &Option<List>, name: &str| {
        list.as_ref()
            .and_then(|l| l.get(name))
            .and_then(milli)
            .filter(|v| *v > 0)
    };
    let names = ["cpu", "memory"];
    let any = all.iter().any(|r| {
        names
            .iter()
            .any(|n| value(&r.limits, n).or(value(&r.requests, n)).is_some())
    });
    let full = all.iter().all(|r| {
        names.iter().all(|n| {
            let limit = value(&r.limits, n);
            limit.is_some() && value(&r.requests, n).is_none_or(|q| Some(q) == limit)
        })
    });
    match (any, full) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The cgroup of a pod, below which its containers have theirs.
pub(super) fn cgroup(desc: &PodDesc) -> String {
    let class = match qos(desc) {
        "Guaranteed" => "",
        "Burstable" => "burstable/",
        _ => "besteffort/",
    };
    format!("tripod/kubepods/{class}pod{}", desc.uid())
}

/// Limits of the pod's cgroup: the sum over its containers, where each has one; the pod's own before that.
pub(super) fn pod_limits(desc: &PodDesc) -> Resources {
    let own = desc.spec.resources.as_ref();
    let listed = |limits: bool, name: &str| -> (i128, bool) {
        let list = own.and_then(|r| {
            if limits {
                r.limits.as_ref()
            } else {
                r.requests.as_ref()
            }
        });
        if let Some(value) = list.and_then(|l| l.get(name)).and_then(milli) {
            return (value, true);
        }
        sum(desc, limits, name)
    };
    let overhead = |name: &str| {
        let list = desc.spec.overhead.as_ref();
        list.and_then(|l| l.get(name)).and_then(milli).unwrap_or(0)
    };
    let (cpu, every_cpu) = listed(true, "cpu");
    let (memory, every_memory) = listed(true, "memory");
    let (request, _) = listed(false, "cpu");
    let shares = (request + overhead("cpu")) * 1024 / 1000;
    let nano = if every_cpu {
        (cpu + overhead("cpu")) * 1_000_000
    } else {
        0
    };
    let bytes = if every_memory {
        (memory + overhead("memory")) / 1000
    } else {
        0
    };
    let number = |n: i128| i64::try_from(n).unwrap_or(i64::MAX);
    Resources {
        cpu_shares: number(shares).clamp(2, 262_144),
        nano_cpus: match number(nano) {
            0 => 0,
            n => n.max(super::translate::LEAST_CPU),
        },
        memory: number(bytes),
        memory_swap: number(bytes),
        ..Resources::default()
    }
}

/// What the containers need at most at the same time, in thousandths, and whether every one says so.
fn sum(desc: &PodDesc, limits: bool, name: &str) -> (i128, bool) {
    let of = |c: &Container| -> Option<i128> {
        let r = c.resources.as_ref()?;
        let list = if limits {
            r.limits.as_ref()
        } else {
            r.requests.as_ref()
        };
        let value = list.and_then(|l| l.get(name)).or_else(|| match limits {
            true => None,
            false => r.limits.as_ref()?.get(name),
        });
        value.and_then(milli)
    };
    let mut every = true;
    let mut take = |c: &Container| {
        let value = of(c);
        every &= value.is_some();
        value.unwrap_or(0)
    };
    let (mut sidecars, mut peak) = (0, 0);
    for c in desc.init() {
        let value = take(&c.container);
        match c.role {
            Role::Sidecar => sidecars += value,
            _ => peak = peak.max(sidecars + value),
        }
        peak = peak.max(sidecars);
    }
    let regular: i128 = desc.of_role(Role::Regular).map(|c| take(&c.container)).sum();
    (peak.max(sidecars + regular), every)
}

/// What a pod asks of its node, in thousandths.
pub(super) fn requested(desc: &PodDesc, name: &str) -> i128 {
    sum(desc, false, name).0
}

/// How readily the kernel kills a container when memory is short.
pub(super) fn oom_score(desc: &PodDesc, c: &Container, node_memory: i64) -> i64 {
    let critical = desc.spec.priority.is_some_and(|p| p >= 2_000_000_000);
    match qos(desc) {
        "Guaranteed" => GUARANTEED,
        _ if critical => GUARANTEED,
        "BestEffort" => MOST,
        _ => {
            let r = c.resources.as_ref();
            let request = r
                .and_then(|r| r.requests.as_ref()?.get("memory"))
                .and_then(units)
                .unwrap_or(0);
            let share = i128::from(MOST) * i128::from(request) / i128::from(node_memory.max(1));
            let score = MOST - i64::try_from(share).unwrap_or(MOST);
            // Between those that never go and those that go first.
            score.clamp(MOST + GUARANTEED, MOST - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::desc::tests::pod;
    use super::*;

    fn with(resources: Value) -> PodDesc {
        pod(
            json!({"containers": [{"name": "a", "resources": resources}]}),
            json!({}),
        )
    }

    #[test]
    fn classes_of_service() {
        for (resources, want) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}),
                "Burstable",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
                "Burstable",
            ),
        ] {
            assert_eq!(qos(&with(resources)), want);
        }
    }

    #[test]
    fn a_pod_is_limited_where_all_its_containers_are() {
        let desc = pod(
            json!({
                "initContainers": [{"name": "i", "resources": {"limits": {"memory": "300Mi"}}}],
                "containers": [
                    {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "100Mi"}}},
                    {"name": "b", "resources": {"limits": {"memory": "100Mi"}}}],
            }),
            json!({}),
        );
        let limits = pod_limits(&desc);
        assert_eq!(limits.memory, 300 << 20);
        assert_eq!(limits.nano_cpus, 0);
        assert_eq!(limits.cpu_shares, 512);
    }

    #[test]
    fn oom_scores() {
        let gib = 1 << 30;
        assert_eq!(oom_score(&with(json!({})), &Container::default(), gib), 1000);
        let half = with(json!({"requests": {"memory": "512Mi"}}));
        assert_eq!(oom_score(&half, &half.containers[0].container, gib), 500);
    }
}
