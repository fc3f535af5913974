//! What admission adds to pods that controllers make, and what it refuses: the account and its token, priority, the
//! tolerations that every pod has, limits of the namespace, overhead of the runtime class, quotas.

use serde_json::{Map, Value, json};

use super::kinds::{LIMIT_RANGES, NAMESPACES, PRIORITY_CLASSES, RUNTIME_CLASSES, SERVICE_ACCOUNTS};
use super::object::at;
use super::quota;
use super::work::Work;

/// Directory of a pod's token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds that a token lasts, less than an hour before a round number so that renewals spread.
const TOKEN_SECONDS: i64 = 3607;
/// Seconds that pods stay on a node that is not heard, unless they say otherwise.
const TOLERATION_SECONDS: i64 = 300;

/// Completes a pod, or says why it must not be made.
pub(crate) fn pod(w: &mut Work<'_>, value: &mut Value) -> Result<(), String> {
    let namespace = value["metadata"]["namespace"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    value["status"] = json!({ "phase": "Pending" });
    account(w, &namespace, value)?;
    priority(w, value)?;
    tolerate(value);
    limits(w, &namespace, value)?;
    overhead(w, value)?;
    value["status"]["qosClass"] = qos(&value["spec"]).into();
    secure(w, &namespace, value)?;
    quota::charge_pod(w, &namespace, value)
}

fn name_of(value: &Value) -> &str {
    let meta = &value["metadata"];
    meta["name"]
        .as_str()
        .or_else(|| meta["generateName"].as_str())
        .unwrap_or_default()
}

/// Holds a pod to the Pod Security standard that its namespace enforces.
fn secure(w: &Work<'_>, namespace: &str, value: &Value) -> Result<(), String> {
    let level = w.k.get(NAMESPACES, "", namespace).map(|n| n.value());
    let level = level.unwrap_or_default()["metadata"]["labels"]["pod-security.kubernetes.io/enforce"].take();
    let level = level.as_str().unwrap_or_default();
    let faults = tripod_model::pod_security::faults(level, &value["spec"], &value["metadata"]["annotations"]);
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!(
        "pods \"{}\" is forbidden: violates PodSecurity \"{level}:latest\": {}",
        name_of(value),
        faults.join(", ")
    ))
}

fn account(w: &mut Work<'_>, namespace: &str, value: &mut Value) -> Result<(), String> {
    let spec = &value["spec"];
    let name = spec["serviceAccountName"]
        .as_str()
        .filter(|n| !n.is_empty())
        .unwrap_or("default")
        .to_owned();
    let Some(account) = w.k.get(SERVICE_ACCOUNTS, namespace, &name).cloned() else {
        return Err(format!(
            "pods \"{}\" is forbidden: error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found",
            name_of(value)
        ));
    };
    let account = account.value();
    let token = spec["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    value["spec"]["serviceAccountName"] = name.as_str().into();
    value["spec"]["serviceAccount"] = name.as_str().into();
    let secrets = &account["imagePullSecrets"];
    if value["spec"]["imagePullSecrets"]
        .as_array()
        .is_none_or(Vec::is_empty)
        && secrets.is_array()
    {
        value["spec"]["imagePullSecrets"] = secrets.clone();
    }
    if token {
        let volume = format!("kube-api-access-{}", w.generate_name(""));
        mount_token(&mut value["spec"], &volume);
    }
    Ok(())
}

fn mount_token(spec: &mut Value, volume: &str) {
    let mut used = false;
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().any(|m| m["mountPath"] == TOKEN_PATH) {
                continue;
            }
            used = true;
            let mount = json!({ "name": volume, "readOnly": true, "mountPath": TOKEN_PATH });
            let mut mounts = mounts;
            mounts.push(mount);
            container["volumeMounts"] = mounts.into();
        }
    }
    for list in ["containers", "initContainers"] {
        if spec[list].is_null()
            && let Some(map) = spec.as_object_mut()
        {
            map.remove(list);
        }
    }
    if !used {
        return;
    }
    let source = json!({ "name": volume, "projected": { "defaultMode": 420, "sources": [
        { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{
            "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
        }] } },
    ] } });
    match spec["volumes"].as_array_mut() {
        Some(all) => all.push(source),
        None => spec["volumes"] = json!([source]),
    }
}

fn priority(w: &Work<'_>, value: &mut Value) -> Result<(), String> {
    let named = value["spec"]["priorityClassName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let class = if named.is_empty() {
        let mut all = w.k.all(PRIORITY_CLASSES).map(|c| c.value());
        all.find(|c| c["globalDefault"] == true)
    } else {
        let found = w.k.get(PRIORITY_CLASSES, "", &named).map(|c| c.value());
        if found.is_none() {
            return Err(format!(
                "pods \"{}\" is forbidden: no PriorityClass with name {named} was found",
                name_of(value)
            ));
        }
        found
    };
    let spec = &mut value["spec"];
    let class = class.unwrap_or_default();
    if named.is_empty() && class["metadata"]["name"].is_string() {
        spec["priorityClassName"] = class["metadata"]["name"].clone();
    }
    spec["priority"] = class["value"].as_i64().unwrap_or(0).into();
    let policy = class["preemptionPolicy"]
        .as_str()
        .unwrap_or("PreemptLowerPriority");
    spec["preemptionPolicy"] = policy.into();
    Ok(())
}

fn tolerate(value: &mut Value) {
    let spec = &mut value["spec"];
    let mut all = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |t: &Value| {
            let effect = t["effect"].as_str().unwrap_or_default();
            let own = t["key"].as_str().unwrap_or_default();
            (effect.is_empty() || effect == "NoExecute")
                && (own == key || own.is_empty() && t["operator"] == "Exists")
        };
        if !all.iter().any(covers) {
            all.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
    spec["tolerations"] = all.into();
}

/// Defaults and bounds of the namespace's LimitRanges for containers.
fn limits(w: &Work<'_>, namespace: &str, value: &mut Value) -> Result<(), String> {
    let ranges: Vec<Value> = w.k.list(LIMIT_RANGES, namespace).map(|r| r.value()).collect();
    let items = ranges
        .iter()
        .flat_map(|r| r["spec"]["limits"].as_array().into_iter().flatten());
    let items: Vec<&Value> = items.filter(|i| i["type"] == "Container").collect();
    let pod = name_of(value).to_owned();
    for item in items {
        for list in ["containers", "initContainers"] {
            let Some(containers) = value["spec"].get_mut(list).and_then(Value::as_array_mut) else {
                continue;
            };
            for container in containers {
                limit_container(container, item);
                bounded(container, item).map_err(|e| format!("pods \"{pod}\" is forbidden: {e}"))?;
            }
        }
    }
    Ok(())
}

fn limit_container(container: &mut Value, item: &Value) {
    for (field, defaults) in [("limits", "default"), ("requests", "defaultRequest")] {
        for (name, quantity) in item[defaults].as_object().into_iter().flatten() {
            let limit = container["resources"]["limits"].get(name).cloned();
            let map = at(container, &["resources", field]);
            if map.get(name).is_none() {
                // A request follows a limit of the container's own.
                map[name] = limit
                    .filter(|_| field == "requests")
                    .unwrap_or_else(|| quantity.clone());
            }
        }
    }
}

fn bounded(container: &Value, item: &Value) -> Result<(), String> {
    use super::quantity::Quantity;
    let read = |v: Option<&Value>| v.and_then(Value::as_str).and_then(|s| s.parse::<Quantity>().ok());
    for (bound, field, words) in [("max", "limits", "maximum"), ("min", "requests", "minimum")] {
        for (name, quantity) in item[bound].as_object().into_iter().flatten() {
            let (Some(limit), text) = (read(Some(quantity)), quantity.as_str().unwrap_or_default()) else {
                continue;
            };
            let Some(asked) = read(container["resources"][field].get(name)) else {
                let what = if field == "limits" { "limit" } else { "request" };
                return Err(format!(
                    "{words} {name} usage per Container is {text}.  No {what} is specified"
                ));
            };
            let beyond = if bound == "max" {
                asked.nano > limit.nano
            } else {
                asked.nano < limit.nano
            };
            if beyond {
                let what = if field == "limits" { "limit" } else { "request" };
                return Err(format!(
                    "{words} {name} usage per Container is {text}, but {what} is {asked}"
                ));
            }
        }
    }
    Ok(())
}

fn overhead(w: &Work<'_>, value: &mut Value) -> Result<(), String> {
    let Some(name) = value["spec"]["runtimeClassName"].as_str().map(str::to_owned) else {
        return Ok(());
    };
    let Some(class) = w.k.get(RUNTIME_CLASSES, "", &name).map(|c| c.value()) else {
        return Err(format!(
            "pods \"{}\" is forbidden: pod rejected: RuntimeClass \"{name}\" not found",
            name_of(value)
        ));
    };
    let fixed = &class["overhead"]["podFixed"];
    if fixed.is_object() {
        value["spec"]["overhead"] = fixed.clone();
    }
    for (key, label) in class["scheduling"]["nodeSelector"]
        .as_object()
        .cloned()
        .unwrap_or_default()
    {
        at(value, &["spec", "nodeSelector"])[&key] = label;
    }
    Ok(())
}

/// `status.qosClass` of a pod with this specification.
pub fn qos(spec: &Value) -> &'static str {
    let lists = ["containers", "initContainers"]
        .into_iter()
        .filter_map(|l| spec.get(l)?.as_array());
    let empty = Map::new();
    let (mut any, mut all) = (false, true);
    for container in lists.flatten() {
        let resources = container.get("resources");
        let map = |f: &str| {
            resources
                .and_then(|r| r.get(f))
                .and_then(Value::as_object)
                .unwrap_or(&empty)
                .clone()
        };
        let (requests, limits) = (map("requests"), map("limits"));
        for name in ["cpu", "memory"] {
            let (asked, limit) = (requests.get(name), limits.get(name));
            any |= asked.is_some() || limit.is_some();
            all &= limit.is_some() && asked.is_none_or(|a| Some(a) == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
