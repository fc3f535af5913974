//! ResourceQuotas: what is used, and whether another pod is within them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tripod_model::k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use tripod_model::pod::Pod;

use super::kinds::{CLAIMS, RESOURCE_QUOTAS, SERVICES};
use super::object::KObject;
use super::pod::{Amounts, requests};
use super::quantity::{Format, Quantity};
use super::work::Work;

type Use = BTreeMap<String, Quantity>;
/// Resource, what is asked, what is used, what is allowed.
type Excess = (String, Quantity, Quantity, Quantity);

/// Decides about the status of a quota.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(object) = w.k.get(RESOURCE_QUOTAS, namespace, name).cloned() else {
        return;
    };
    let Some(spec) = object.get::<ResourceQuota>().and_then(|q| q.spec.clone()) else {
        return;
    };
    let hard = spec.hard.clone().unwrap_or_default();
    let used = usage(w, namespace, &spec);
    let used: BTreeMap<&String, String> = hard
        .keys()
        .map(|k| (k, used.get(k).copied().unwrap_or_default().to_string()))
        .collect();
    w.set_status(&object, json!({ "hard": hard, "used": used }));
}

/// What is used of the resources that a quota names.
pub(super) fn usage(w: &Work<'_>, namespace: &str, spec: &ResourceQuotaSpec) -> Use {
    let mut used = Use::new();
    for pod in
        w.k.pods_in(namespace)
            .filter(|p| p.info.kube && !p.info.phase.is_final())
    {
        if covers(spec, &pod.pod) {
            charge(&mut used, &pod_use(&pod.pod));
        }
    }
    let scoped = spec.scopes.as_ref().is_some_and(|s| !s.is_empty()) || spec.scope_selector.is_some();
    if !scoped {
        objects(w, namespace, &mut used);
    }
    used
}

fn charge(used: &mut Use, more: &Use) {
    for (key, quantity) in more {
        let total = used.entry(key.clone()).or_default();
        *total = total.plus(*quantity);
    }
}

fn objects(w: &Work<'_>, namespace: &str, used: &mut Use) {
    for object in w.k.contents(namespace) {
        let resource = &*object.key.resource;
        let mut one = |key: String| {
            let total = used.entry(key).or_default();
            *total = total.plus(Quantity::of(1, Format::Decimal));
        };
        one(format!("count/{resource}"));
        if !resource.contains('.') {
            one(resource.to_owned());
        }
        let value = match resource {
            SERVICES | CLAIMS => object.value(),
            _ => continue,
        };
        if resource == SERVICES {
            let kind = value["spec"]["type"].as_str().unwrap_or_default();
            if kind == "LoadBalancer" {
                one("services.loadbalancers".into());
            }
            if kind == "LoadBalancer" || kind == "NodePort" {
                let ports = value["spec"]["ports"].as_array().map_or(0, Vec::len);
                (0..ports).for_each(|_| one("services.nodeports".into()));
            }
            continue;
        }
        let class = value["spec"]["storageClassName"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let asked = value["spec"]["resources"]["requests"]["storage"]
            .as_str()
            .unwrap_or_default();
        let asked: Quantity = asked.parse().unwrap_or_default();
        let mut more = Use::from([("requests.storage".into(), asked)]);
        if !class.is_empty() {
            let of = format!("{class}.storageclass.storage.k8s.io");
            more.insert(format!("{of}/requests.storage"), asked);
            more.insert(
                format!("{of}/persistentvolumeclaims"),
                Quantity::of(1, Format::Decimal),
            );
        }
        charge(used, &more);
    }
}

/// What a pod uses of the resources that quotas name.
fn pod_use(pod: &Pod) -> Use {
    let mut used = Use::new();
    let mut put = |key: String, nano: i128, format: Format| {
        used.insert(key, Quantity { nano, format });
    };
    let one = i128::from(1_000_000_000_i64);
    put("pods".into(), one, Format::Decimal);
    put("count/pods".into(), one, Format::Decimal);
    let mut amounts = |prefix: &str, a: &Amounts| {
        let milli = i128::from(a.cpu) * 1_000_000;
        put(format!("{prefix}.cpu"), milli, Format::Decimal);
        put(
            format!("{prefix}.memory"),
            i128::from(a.memory) * one,
            Format::Binary,
        );
        put(
            format!("{prefix}.ephemeral-storage"),
            i128::from(a.ephemeral) * one,
            Format::Binary,
        );
        for (name, n) in &a.other {
            put(format!("{prefix}.{name}"), i128::from(*n) * one, Format::Decimal);
        }
        if prefix == "requests" {
            put("cpu".into(), milli, Format::Decimal);
            put("memory".into(), i128::from(a.memory) * one, Format::Binary);
            put(
                "ephemeral-storage".into(),
                i128::from(a.ephemeral) * one,
                Format::Binary,
            );
        }
    };
    amounts("requests", &requests(pod));
    amounts("limits", &limits(pod));
    used
}

fn limits(pod: &Pod) -> Amounts {
    let mut sum = Amounts::default();
    for container in &pod.spec.containers {
        let resources = container.rest.get("resources");
        sum.add(&Amounts::of(resources.and_then(|r| r.get("limits"))), 1);
    }
    let inits = pod.spec.rest.get("initContainers").and_then(Value::as_array);
    for container in inits.into_iter().flatten() {
        let own = Amounts::of(container["resources"].get("limits"));
        if container["restartPolicy"] == "Always" {
            sum.add(&own, 1);
        } else {
            sum.max(&own);
        }
    }
    sum
}

/// Whether a quota's scopes cover a pod.
fn covers(spec: &ResourceQuotaSpec, pod: &Pod) -> bool {
    let qos = pod
        .status
        .rest
        .get("qosClass")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let terminating = pod.spec.rest.get("activeDeadlineSeconds").is_some();
    let class = pod
        .spec
        .rest
        .get("priorityClassName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let holds = |scope: &str| match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => qos == "BestEffort",
        "NotBestEffort" => qos != "BestEffort",
        "PriorityClass" => !class.is_empty(),
        _ => false,
    };
    let terms = spec
        .scope_selector
        .as_ref()
        .and_then(|s| s.match_expressions.as_ref());
    spec.scopes.iter().flatten().all(|s| holds(s))
        && terms.into_iter().flatten().all(|t| {
            let among = || t.values.iter().flatten().any(|v| v == class);
            match (t.scope_name.as_str(), t.operator.as_str()) {
                ("PriorityClass", "In") => among(),
                ("PriorityClass", "NotIn") => !among(),
                (scope, "DoesNotExist") => !holds(scope),
                (scope, _) => holds(scope),
            }
        })
}

/// Charges a new pod to the quotas of its namespace, or says which of them it exceeds.
pub(super) fn charge_pod(w: &mut Work<'_>, namespace: &str, value: &Value) -> Result<(), String> {
    let quotas: Vec<Arc<KObject>> = w.k.list(RESOURCE_QUOTAS, namespace).cloned().collect();
    if quotas.is_empty() {
        return Ok(());
    }
    let pod: Pod = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    let meta = &pod.metadata;
    let name = if meta.name.is_empty() {
        &meta.generate_name
    } else {
        &meta.name
    }
    .clone();
    let asked = pod_use(&pod);
    let mut charges = Vec::new();
    for quota in &quotas {
        let Some(spec) = quota.get::<ResourceQuota>().and_then(|q| q.spec.clone()) else {
            continue;
        };
        if !covers(&spec, &pod) {
            continue;
        }
        let used = usage(w, namespace, &spec);
        let mut excess: Vec<Excess> = Vec::new();
        for (key, limit) in spec.hard.iter().flatten() {
            let Some(more) = asked.get(key) else { continue };
            let names = [
                "cpu",
                "memory",
                "requests.cpu",
                "requests.memory",
                "limits.cpu",
                "limits.memory",
            ];
            if more.nano == 0 && names.contains(&key.as_str()) && !is_named(&pod, key) {
                return Err(format!(
                    "pods \"{name}\" is forbidden: failed quota: {}: must specify {key} for: {}",
                    quota.name(),
                    pod.spec
                        .containers
                        .iter()
                        .map(|c| c.name.as_str())
                        .collect::<Vec<_>>()
                        .join(",")
                ));
            }
            let pending = w
                .charges
                .get(&(quota.key.clone(), key.clone()))
                .copied()
                .unwrap_or(0);
            let before = used.get(key).map_or(0, |q| q.nano) + pending;
            let limit: Quantity = limit.0.parse().unwrap_or_default();
            if before + more.nano > limit.nano {
                excess.push((
                    key.clone(),
                    *more,
                    Quantity {
                        nano: before,
                        format: more.format,
                    },
                    limit,
                ));
            }
            charges.push(((quota.key.clone(), key.clone()), more.nano));
        }
        if !excess.is_empty() {
            let list = |of: &dyn Fn(&Excess) -> String| {
                excess
                    .iter()
                    .map(|e| format!("{}={}", e.0, of(e)))
                    .collect::<Vec<_>>()
                    .join(",")
            };
            return Err(format!(
                "pods \"{name}\" is forbidden: exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.name(),
                list(&|e| e.1.to_string()),
                list(&|e| e.2.to_string()),
                list(&|e| e.3.to_string())
            ));
        }
    }
    for (key, nano) in charges {
        *w.charges.entry(key).or_default() += nano;
    }
    Ok(())
}

/// Whether every container says what it asks of a resource.
fn is_named(pod: &Pod, key: &str) -> bool {
    let (field, name) = key.split_once('.').unwrap_or(("requests", key));
    pod.spec.containers.iter().all(|c| {
        let resources = c.rest.get("resources");
        resources.and_then(|r| r.get(field)?.get(name)).is_some()
    })
}
