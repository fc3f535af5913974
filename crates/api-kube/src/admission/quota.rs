//! Resource quotas: a new object must fit into what its namespace may use.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tripod_schema::failure::Result;
use tripod_schema::quantity::Quantity;
use tripod_schema::value::{list, name, object_mut, text};
use tripod_store::{Key, KindId, StoredObject, Txn};

use super::{Scene, refused};

type Amounts = BTreeMap<String, Quantity>;

/// A quota's object as it is once a new object is counted, and the revision that the count is based on.
pub(crate) struct Charge {
    key: Key,
    revision: u64,
    bytes: Vec<u8>,
}

impl Charge {
    /// Makes a transaction count what it writes, or fail when somebody else counted meanwhile.
    pub(crate) fn onto(self, txn: Txn) -> Txn {
        txn.update(self.key, self.revision, self.bytes, Vec::new())
    }
}

/// Refuses what would exceed a quota; else what quotas count from now on. `old`: what the object replaces.
pub(super) fn charge(scene: &Scene<'_>, old: Option<&Value>, object: &Value) -> Result<Vec<Charge>> {
    let mut charges = Vec::new();
    if !scene.kind.namespaced {
        return Ok(charges);
    }
    let quotas = stored(scene);
    if quotas.is_empty() {
        return Ok(charges);
    }
    let resource = scene.kind.resource();
    let mut adds = usage(&resource, object);
    if let Some(old) = old {
        adds = more(&usage(&resource, old), &adds);
    }
    if adds.is_empty() {
        return Ok(charges);
    }
    for (held, mut quota) in quotas {
        if !in_scope(&quota, &resource, object) {
            continue;
        }
        let hard = amounts(&quota["spec"]["hard"]);
        let title = text(&quota, &["metadata", "name"]).to_owned();
        if scene.kind.plural == "pods" && old.is_none() {
            unspecified(scene, object, &hard, &title)?;
        }
        let Some(used) = exceed(scene, object, &quota, &hard, &adds, &title)? else {
            continue;
        };
        let status = object_mut(&mut quota, &["status", "used"]);
        for (name, amount) in used {
            status.insert(name, amount.to_string().into());
        }
        charges.push(Charge {
            key: held.key.clone(),
            revision: held.revision,
            bytes: tripod_schema::value::to_bytes(&quota),
        });
    }
    Ok(charges)
}

fn stored(scene: &Scene<'_>) -> Vec<(Arc<StoredObject>, Value)> {
    let kind = KindId::from("resourcequotas");
    let held = scene.state.iter(&kind, Some(scene.namespace));
    held.filter_map(|o| Some((o.clone(), serde_json::from_slice(&o.bytes).ok()?)))
        .collect()
}

/// What an object uses beyond what it used before.
fn more(before: &Amounts, now: &Amounts) -> Amounts {
    let zero = Quantity::zero();
    let grown = now
        .iter()
        .map(|(k, v)| (k, v.minus(before.get(k).copied().unwrap_or(zero))));
    grown
        .filter(|(_, v)| *v > zero)
        .map(|(k, v)| (k.clone(), v))
        .collect()
}

/// A quota of a computed resource asks every container to say how much of it it wants.
fn unspecified(scene: &Scene<'_>, pod: &Value, hard: &Amounts, title: &str) -> Result<()> {
    const COMPUTED: [&str; 6] = [
        "cpu",
        "limits.cpu",
        "limits.memory",
        "memory",
        "requests.cpu",
        "requests.memory",
    ];
    let silent = |resource: &str| {
        let (what, name) = resource.split_once('.').unwrap_or(("requests", resource));
        let all = ["containers", "initContainers"].map(|m| list(pod, &["spec", m]));
        let names = all.into_iter().flatten();
        let names = names.filter(|c| c["resources"][what].get(name).is_none());
        names.map(|c| text(c, &["name"])).collect::<Vec<_>>().join(",")
    };
    let missing: Vec<String> = COMPUTED
        .iter()
        .filter(|r| hard.contains_key(**r))
        .map(|r| (r, silent(r)))
        .filter(|(_, names)| !names.is_empty())
        .map(|(r, names)| format!("{r} for: {names}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!("failed quota: {title}: must specify {}", missing.join("; "));
    Err(refused(scene, pod, why))
}

/// What will be used of what the quota limits; nothing where the object is not its concern.
fn exceed(
    scene: &Scene<'_>,
    object: &Value,
    quota: &Value,
    hard: &Amounts,
    adds: &Amounts,
    title: &str,
) -> Result<Option<Amounts>> {
    let concerned: Vec<&String> = adds.keys().filter(|k| hard.contains_key(*k)).collect();
    if concerned.is_empty() {
        return Ok(None);
    }
    let used = used(scene, quota);
    let zero = Quantity::zero();
    let after = |k: &String| used.get(k).copied().unwrap_or(zero).plus(adds[k]);
    let over: Vec<&&String> = concerned.iter().filter(|k| after(k) > hard[**k]).collect();
    if over.is_empty() {
        return Ok(Some(
            concerned.into_iter().map(|k| (k.clone(), after(k))).collect(),
        ));
    }
    let of = |amounts: &Amounts| {
        let each = over
            .iter()
            .map(|k| format!("{k}={}", amounts.get(**k).copied().unwrap_or(zero)));
        each.collect::<Vec<_>>().join(",")
    };
    let why = format!(
        "exceeded quota: {title}, requested: {}, used: {}, limited: {}",
        of(adds),
        of(&used),
        of(hard)
    );
    Err(refused(scene, object, why))
}

/// What is used now, counted from the objects themselves.
fn used(scene: &Scene<'_>, quota: &Value) -> Amounts {
    let mut total = Amounts::new();
    let wanted = amounts(&quota["spec"]["hard"]);
    for kind in tripod_schema::registry()
        .kinds()
        .filter(|k| k.namespaced && k.is_stored() && k.view_of.is_none())
    {
        let resource = kind.resource();
        let counted = wanted.keys().any(|k| concerns(k, &resource));
        if !counted {
            continue;
        }
        for object in scene.all(&resource, Some(scene.namespace)) {
            if !in_scope(quota, &resource, &object) || ended(&resource, &object) {
                continue;
            }
            for (key, amount) in usage(&resource, &object) {
                let sum = total.get(&key).copied().unwrap_or(Quantity::zero()).plus(amount);
                total.insert(key, sum);
            }
        }
    }
    total
}

fn ended(resource: &str, object: &Value) -> bool {
    resource == "pods" && ["Succeeded", "Failed"].contains(&text(object, &["status", "phase"]))
}

/// Whether a name of a quota counts objects of a kind.
fn concerns(key: &str, resource: &str) -> bool {
    let counted = key.strip_prefix("count/") == Some(resource) || key == resource;
    counted
        || match resource {
            "pods" => {
                !key.contains('/')
                    || key.starts_with("requests.")
                    || key.starts_with("limits.")
                    || key.starts_with("hugepages-")
            }
            "services" => key.starts_with("services"),
            "persistentvolumeclaims" => key.contains("storage") || key.contains("persistentvolumeclaims"),
            _ => false,
        }
}

/// What an object uses, by the names of quotas.
fn usage(resource: &str, object: &Value) -> Amounts {
    let mut usage = Amounts::new();
    let one = Quantity::whole(1);
    usage.insert(format!("count/{resource}"), one);
    match resource {
        "pods" => pod(object, &mut usage),
        "services" => {
            usage.insert("services".into(), one);
            let ports = i64::try_from(list(object, &["spec", "ports"]).len()).unwrap_or(0);
            match text(object, &["spec", "type"]) {
                "NodePort" => drop(usage.insert("services.nodeports".into(), Quantity::whole(ports))),
                "LoadBalancer" => {
                    usage.insert("services.loadbalancers".into(), one);
                    let given = object["spec"]["allocateLoadBalancerNodePorts"] != Value::Bool(false);
                    usage.insert(
                        "services.nodeports".into(),
                        Quantity::whole(if given { ports } else { 0 }),
                    );
                }
                _ => {}
            }
        }
        "persistentvolumeclaims" => {
            usage.insert("persistentvolumeclaims".into(), one);
            let size = Quantity::parse(text(object, &["spec", "resources", "requests", "storage"]));
            let class = text(object, &["spec", "storageClassName"]);
            if let Some(size) = size {
                usage.insert("requests.storage".into(), size);
                if !class.is_empty() {
                    let of = format!("{class}.storageclass.storage.k8s.io");
                    usage.insert(format!("{of}/requests.storage"), size);
                    usage.insert(format!("{of}/persistentvolumeclaims"), one);
                }
            }
        }
        "secrets" | "configmaps" | "resourcequotas" | "replicationcontrollers" => {
            usage.insert(resource.to_owned(), one);
        }
        _ => {}
    }
    usage
}

fn pod(pod: &Value, usage: &mut Amounts) {
    usage.insert("pods".into(), Quantity::whole(1));
    for (what, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        let mut total = Amounts::new();
        let add = |total: &mut Amounts, c: &Value| {
            for (name, amount) in amounts(&c["resources"][what]) {
                let sum = total.get(&name).copied().unwrap_or(Quantity::zero()).plus(amount);
                total.insert(name, sum);
            }
        };
        list(pod, &["spec", "containers"])
            .iter()
            .for_each(|c| add(&mut total, c));
        for c in list(pod, &["spec", "initContainers"]) {
            if text(c, &["restartPolicy"]) == "Always" {
                add(&mut total, c);
                continue;
            }
            for (name, amount) in amounts(&c["resources"][what]) {
                let most = total.get(&name).copied().map_or(amount, |t| t.max(amount));
                total.insert(name, most);
            }
        }
        for (name, amount) in amounts(&pod["spec"]["overhead"]) {
            let sum = total.get(&name).copied().unwrap_or(Quantity::zero()).plus(amount);
            total.insert(name, sum);
        }
        for (name, amount) in total {
            if what == "requests" && ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str()) {
                usage.insert(name.clone(), amount);
            }
            usage.insert(format!("{prefix}{name}"), amount);
        }
    }
}

fn amounts(map: &Value) -> Amounts {
    let map = map.as_object().into_iter().flatten();
    map.filter_map(|(k, v)| Some((k.clone(), Quantity::parse(v.as_str()?)?)))
        .collect()
}

/// Whether a quota counts this object at all.
fn in_scope(quota: &Value, resource: &str, object: &Value) -> bool {
    let mut terms: Vec<(String, String, Vec<String>)> = list(quota, &["spec", "scopes"])
        .iter()
        .filter_map(|s| Some((s.as_str()?.to_owned(), "Exists".to_owned(), Vec::new())))
        .collect();
    for e in list(quota, &["spec", "scopeSelector", "matchExpressions"]) {
        let values = list(e, &["values"])
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect();
        terms.push((
            text(e, &["scopeName"]).to_owned(),
            text(e, &["operator"]).to_owned(),
            values,
        ));
    }
    terms.iter().all(|(scope, operator, values)| {
        if resource != "pods" {
            return false;
        }
        let best_effort = tripod_schema::defaults::qos_class(&object["spec"]) == "BestEffort";
        let terminating = object["spec"]["activeDeadlineSeconds"].as_i64().is_some();
        match scope.as_str() {
            "BestEffort" => best_effort,
            "NotBestEffort" => !best_effort,
            "Terminating" => terminating,
            "NotTerminating" => !terminating,
            "PriorityClass" => {
                let class = text(object, &["spec", "priorityClassName"]);
                match operator.as_str() {
                    "In" => values.iter().any(|v| v == class),
                    "NotIn" => !values.iter().any(|v| v == class),
                    "DoesNotExist" => class.is_empty(),
                    _ => !class.is_empty(),
                }
            }
            "CrossNamespacePodAffinity" => false,
            _ => !name(object).is_empty(),
        }
    })
}
