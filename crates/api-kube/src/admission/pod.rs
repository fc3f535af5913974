//! New pods: service account and its token, priority, tolerations, overhead.

use serde_json::{Map, Value, json};
use tripod_schema::failure::Result;
use tripod_schema::value::{default_to, is_true, list, object_mut, text};

use super::{Scene, refused};

/// Where a service account's token is mounted.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds that a node has to come back before its pods go.
const TOLERATION: i64 = 300;

/// Completes a pod.
pub(super) fn complete(scene: &Scene<'_>, pod: &mut Value) -> Result<()> {
    service_account(scene, pod)?;
    priority(scene, pod)?;
    runtime_class(scene, pod)?;
    tolerations(object_mut(pod, &["spec"]));
    Ok(())
}

fn service_account(scene: &Scene<'_>, pod: &mut Value) -> Result<()> {
    if pod
        .pointer("/metadata/annotations/kubernetes.io~1config.mirror")
        .is_some()
    {
        return Ok(());
    }
    let named = text(pod, &["spec", "serviceAccountName"]).to_owned();
    let name = if named.is_empty() {
        "default".to_owned()
    } else {
        named
    };
    let account = scene.get("serviceaccounts", scene.namespace, &name);
    if account.is_none() && name != "default" {
        let why = format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found",
            scene.namespace
        );
        return Err(refused(scene, pod, why));
    }
    let account = account.unwrap_or_else(|| json!({}));
    let says = |v: &Value| v.get("automountServiceAccountToken").and_then(Value::as_bool);
    let mount = says(&pod["spec"]).or_else(|| says(&account)).unwrap_or(true);
    let secrets = list(&account, &["imagePullSecrets"]).to_vec();
    let spec = object_mut(pod, &["spec"]);
    spec.insert("serviceAccountName".into(), name.clone().into());
    spec.insert("serviceAccount".into(), name.into());
    if !secrets.is_empty() && list(&Value::Object(spec.clone()), &["imagePullSecrets"]).is_empty() {
        spec.insert("imagePullSecrets".into(), secrets.into());
    }
    if mount {
        mount_token(spec);
    }
    Ok(())
}

fn mount_token(spec: &mut Map<String, Value>) {
    let volume = format!(
        "kube-api-access-{}",
        crate::objects::generated("").trim_start_matches('-')
    );
    let mut needed = false;
    for member in ["initContainers", "containers"] {
        let Some(Value::Array(containers)) = spec.get_mut(member) else {
            continue;
        };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Value::Array(mounts) = mounts else { continue };
            if !mounts.iter().any(|m| m["mountPath"] == TOKEN_PATH) {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH}));
                needed = true;
            }
        }
    }
    if !needed {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if let Value::Array(volumes) = volumes {
        volumes.push(json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

fn priority(scene: &Scene<'_>, pod: &mut Value) -> Result<()> {
    let named = text(pod, &["spec", "priorityClassName"]).to_owned();
    let builtin = match named.as_str() {
        "system-cluster-critical" => Some(2_000_000_000),
        "system-node-critical" => Some(2_000_001_000),
        _ => None,
    };
    let class = if named.is_empty() {
        let mut classes = scene.all("priorityclasses.scheduling.k8s.io", None);
        classes.retain(|c| is_true(c, &["globalDefault"]));
        classes.sort_by_key(|c| c["value"].as_i64());
        classes.into_iter().next()
    } else {
        scene.get("priorityclasses.scheduling.k8s.io", "", &named)
    };
    if !named.is_empty() && class.is_none() && builtin.is_none() {
        return Err(refused(
            scene,
            pod,
            format!("no PriorityClass with name {named} was found"),
        ));
    }
    let value = class
        .as_ref()
        .and_then(|c| c["value"].as_i64())
        .or(builtin)
        .unwrap_or(0);
    let policy = class.as_ref().map_or("", |c| text(c, &["preemptionPolicy"]));
    let policy = if policy.is_empty() {
        "PreemptLowerPriority"
    } else {
        policy
    }
    .to_owned();
    if let Some(said) = pod["spec"]["priority"].as_i64().filter(|p| *p != value) {
        let why = format!(
            "the integer value of priority ({said}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(refused(scene, pod, why));
    }
    let spec = object_mut(pod, &["spec"]);
    if let (true, Some(class)) = (named.is_empty(), &class) {
        spec.insert("priorityClassName".into(), class["metadata"]["name"].clone());
    }
    spec.insert("priority".into(), value.into());
    default_to(spec, "preemptionPolicy", policy);
    Ok(())
}

fn runtime_class(scene: &Scene<'_>, pod: &mut Value) -> Result<()> {
    let named = text(pod, &["spec", "runtimeClassName"]).to_owned();
    if named.is_empty() {
        return Ok(());
    }
    let Some(class) = scene.get("runtimeclasses.node.k8s.io", "", &named) else {
        let why = format!("pod rejected: RuntimeClass {named:?} not found");
        return Err(refused(scene, pod, why));
    };
    if let Some(overhead) = class.pointer("/overhead/podFixed") {
        if pod["spec"].get("overhead").is_some_and(|o| o != overhead) {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(refused(scene, pod, why));
        }
        object_mut(pod, &["spec"]).insert("overhead".into(), overhead.clone());
    } else if pod["spec"].get("overhead").is_some() {
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return Err(refused(scene, pod, why));
    }
    if let Some(Value::Object(selector)) = class.pointer("/scheduling/nodeSelector") {
        let own = object_mut(pod, &["spec", "nodeSelector"]);
        for (key, value) in selector {
            own.insert(key.clone(), value.clone());
        }
    }
    let more = list(&class, &["scheduling", "tolerations"]).to_vec();
    if !more.is_empty() {
        let own = object_mut(pod, &["spec"])
            .entry("tolerations")
            .or_insert_with(|| json!([]));
        if let Value::Array(own) = own {
            own.extend(more.into_iter().filter(|t| !own.contains(t)).collect::<Vec<_>>());
        }
    }
    Ok(())
}

/// A pod stays on a node that is not ready, or not reachable, for a while.
fn tolerations(spec: &mut Map<String, Value>) {
    let own = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Value::Array(own) = own else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = own.iter().any(|t| {
            let (said, effect) = (text(t, &["key"]), text(t, &["effect"]));
            (said == key || said.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            own.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION}));
        }
    }
}

/// A job finds its pods by its own identity, unless it says how.
pub(super) fn job_labels(job: &mut Value) {
    if is_true(job, &["spec", "manualSelector"]) {
        return;
    }
    let (uid, name) = (
        text(job, &["metadata", "uid"]).to_owned(),
        text(job, &["metadata", "name"]).to_owned(),
    );
    let labels = object_mut(job, &["spec", "template", "metadata", "labels"]);
    for (key, value) in [
        ("controller-uid", &uid),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        default_to(labels, key, value.as_str());
    }
    let spec = object_mut(job, &["spec"]);
    default_to(
        spec,
        "selector",
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}),
    );
}
