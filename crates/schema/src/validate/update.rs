//! What an update may not change.

use serde_json::{Map, Value};

use super::Causes;
use crate::failure::Cause;
use crate::kinds::Kind;
use crate::value::{at, is_true, list, text};

const IMMUTABLE: &str = "field is immutable";

pub(super) fn check(kind: &Kind, old: &Value, new: &Value, sub: Option<&str>, causes: &mut Causes) {
    let same = |path: &[&str], causes: &mut Causes| {
        let (before, after) = (at(old, path), at(new, path));
        if before != after {
            causes.push(Cause::invalid(
                path.join("."),
                after.unwrap_or(&Value::Null),
                IMMUTABLE,
            ));
        }
    };
    match kind.resource().as_str() {
        "pods" => pod(old, new, sub, causes),
        "configmaps" => frozen(old, new, &["data", "binaryData"], causes),
        "secrets" => {
            same(&["type"], causes);
            frozen(old, new, &["data"], causes);
        }
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" => same(&["spec", "selector"], causes),
        "statefulsets.apps" => stateful(old, new, causes),
        "jobs.batch" => job(old, new, causes),
        "services" => service(old, new, causes),
        "persistentvolumeclaims" => claim(old, new, causes),
        "persistentvolumes" => volume(old, new, causes),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io"
            if old["roleRef"] != new["roleRef"] =>
        {
            causes.push(Cause::invalid(
                "roleRef",
                &new["roleRef"],
                "cannot change roleRef",
            ));
        }
        "servicecidrs.networking.k8s.io" => {
            let (before, after) = (list(old, &["spec", "cidrs"]), list(new, &["spec", "cidrs"]));
            // A range of the other family may join the first one.
            let joined = before.len() == 1 && after.len() == 2 && before.first() == after.first();
            if before != after && !joined {
                causes.push(Cause::invalid("spec.cidrs", &new["spec"]["cidrs"], IMMUTABLE));
            }
        }
        "ipaddresses.networking.k8s.io" => same(&["spec", "parentRef"], causes),
        "priorityclasses.scheduling.k8s.io" => {
            if old["value"] != new["value"] {
                causes.push(Cause::forbidden("value", "may not be changed in an update."));
            }
            same(&["preemptionPolicy"], causes);
        }
        "storageclasses.storage.k8s.io" => {
            for member in ["parameters", "provisioner"] {
                if old.get(member) != new.get(member) {
                    causes.push(Cause::forbidden(
                        member,
                        format_args!("updates to {member} are forbidden."),
                    ));
                }
            }
            for member in ["reclaimPolicy", "volumeBindingMode"] {
                same(&[member], causes);
            }
        }
        "runtimeclasses.node.k8s.io" => same(&["handler"], causes),
        "endpointslices.discovery.k8s.io" => same(&["addressType"], causes),
        "ingressclasses.networking.k8s.io" => same(&["spec", "controller"], causes),
        "controllerrevisions.apps" => same(&["data"], causes),
        "certificatesigningrequests.certificates.k8s.io" => same(&["spec"], causes),
        "nodes"
            if !text(old, &["spec", "podCIDR"]).is_empty()
                && old["spec"]["podCIDR"] != new["spec"]["podCIDR"] =>
        {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            causes.push(Cause::forbidden("spec.podCIDR", why));
        }
        _ => {}
    }
}

/// What says of itself that it does not change.
fn frozen(old: &Value, new: &Value, members: &[&str], causes: &mut Causes) {
    if !is_true(old, &["immutable"]) {
        return;
    }
    const WHY: &str = "field is immutable when `immutable` is set";
    if !is_true(new, &["immutable"]) {
        causes.push(Cause::forbidden("immutable", WHY));
    }
    for member in members {
        if old.get(*member) != new.get(*member) {
            causes.push(Cause::forbidden(*member, WHY));
        }
    }
}

fn pod(old: &Value, new: &Value, sub: Option<&str>, causes: &mut Causes) {
    match sub {
        Some("ephemeralcontainers") => {
            let before = list(old, &["spec", "ephemeralContainers"]);
            let after = list(new, &["spec", "ephemeralContainers"]);
            for container in before {
                let name = text(container, &["name"]);
                match after.iter().find(|c| c["name"] == container["name"]) {
                    None => causes.push(Cause::forbidden(
                        "spec.ephemeralContainers",
                        format_args!("existing ephemeral containers {name:?} may not be removed\n"),
                    )),
                    Some(same) if same != container => causes.push(Cause::forbidden(
                        "spec.ephemeralContainers",
                        format_args!("existing ephemeral containers {name:?} may not be changed\n"),
                    )),
                    Some(_) => {}
                }
            }
            return;
        }
        Some("resize") => return super::limits::resize(old, new, causes),
        _ => {}
    }
    let strip = |pod: &Value| -> Map<String, Value> {
        let mut spec = pod["spec"].as_object().cloned().unwrap_or_default();
        for member in ["containers", "initContainers"] {
            if let Some(Value::Array(all)) = spec.get_mut(member) {
                all.iter_mut()
                    .filter_map(Value::as_object_mut)
                    .for_each(|c| drop(c.remove("image")));
            }
        }
        for member in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            spec.remove(member);
        }
        // A pod that no node has may be narrowed while it is gated; it may be given to a node by its binding.
        if !list(old, &["spec", "schedulingGates"]).is_empty() {
            spec.remove("nodeSelector");
            spec.remove("affinity");
        }
        if text(old, &["spec", "nodeName"]).is_empty() {
            spec.remove("nodeName");
        }
        spec
    };
    if strip(old) != strip(new) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        causes.push(Cause::forbidden("spec", why));
    }
    let before = list(old, &["spec", "tolerations"]);
    let after = list(new, &["spec", "tolerations"]);
    let key = |t: &Value| {
        (
            t["key"].clone(),
            t["operator"].clone(),
            t["effect"].clone(),
            t["value"].clone(),
        )
    };
    if before.iter().any(|t| !after.iter().any(|a| key(a) == key(t))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        causes.push(Cause::forbidden("spec.tolerations", why));
    }
    let gates = list(old, &["spec", "schedulingGates"]);
    if list(new, &["spec", "schedulingGates"])
        .iter()
        .any(|g| !gates.contains(g))
    {
        causes.push(Cause::forbidden(
            "spec.schedulingGates",
            "only deletion is allowed, but found new scheduling gate",
        ));
    }
}

fn stateful(old: &Value, new: &Value, causes: &mut Causes) {
    let strip = |set: &Value| -> Map<String, Value> {
        let mut spec = set["spec"].as_object().cloned().unwrap_or_default();
        for member in [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ] {
            spec.remove(member);
        }
        spec
    };
    if strip(old) != strip(new) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        causes.push(Cause::forbidden("spec", why));
    }
}

fn job(old: &Value, new: &Value, causes: &mut Causes) {
    for member in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        if old["spec"].get(member) != new["spec"].get(member) {
            causes.push(Cause::invalid(
                format!("spec.{member}"),
                &new["spec"][member],
                IMMUTABLE,
            ));
        }
    }
    if old["spec"]["completionMode"] != "Indexed"
        && old["spec"].get("completions") != new["spec"].get("completions")
    {
        causes.push(Cause::invalid(
            "spec.completions",
            &new["spec"]["completions"],
            IMMUTABLE,
        ));
    }
    // One that waits may still be placed elsewhere.
    let suspended = is_true(old, &["spec", "suspend"]) && old["status"].get("startTime").is_none();
    if !suspended && old["spec"]["template"] != new["spec"]["template"] {
        causes.push(Cause::invalid(
            "spec.template",
            &new["spec"]["template"],
            IMMUTABLE,
        ));
    }
}

fn service(old: &Value, new: &Value, causes: &mut Causes) {
    let external = |s: &Value| text(s, &["spec", "type"]) == "ExternalName";
    let (before, after) = (
        text(old, &["spec", "clusterIP"]),
        text(new, &["spec", "clusterIP"]),
    );
    if !external(old) && !external(new) && !before.is_empty() && before != after {
        causes.push(Cause::invalid(
            "spec.clusterIPs[0]",
            &Value::Array(vec![after.into()]),
            "may not change once set",
        ));
    }
}

fn claim(old: &Value, new: &Value, causes: &mut Causes) {
    let strip = |claim: &Value| -> Map<String, Value> {
        let mut spec = claim["spec"].as_object().cloned().unwrap_or_default();
        for member in ["resources", "volumeAttributesClassName"] {
            spec.remove(member);
        }
        for member in ["volumeName", "storageClassName"] {
            if old["spec"].get(member).is_none_or(|v| v == "") {
                spec.remove(member);
            }
        }
        spec
    };
    if strip(old) != strip(new) {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        causes.push(Cause::forbidden("spec", why));
    }
    let size = |claim: &Value| {
        crate::quantity::Quantity::parse(text(claim, &["spec", "resources", "requests", "storage"]))
    };
    if let (Some(before), Some(after)) = (size(old), size(new))
        && after < before
    {
        causes.push(Cause::forbidden(
            "spec.resources.requests.storage",
            "field can not be less than status.capacity",
        ));
    }
}

fn volume(old: &Value, new: &Value, causes: &mut Causes) {
    const PLAIN: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let source = |volume: &Value| -> Map<String, Value> {
        let mut spec = volume["spec"].as_object().cloned().unwrap_or_default();
        spec.retain(|k, _| !PLAIN.contains(&k.as_str()));
        spec
    };
    if source(old) != source(new) {
        causes.push(Cause::forbidden(
            "spec.persistentvolumesource",
            "spec.persistentvolumesource is immutable after creation",
        ));
    }
}
