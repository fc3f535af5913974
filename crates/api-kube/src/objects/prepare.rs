//! What becomes of an object between a request and the store: metadata, defaults, admission, validation.

use serde_json::{Map, Value};
use tripod_model::Time;
use tripod_schema::decode::format_time;
use tripod_schema::failure::Result;
use tripod_schema::value::{default_to, object_mut, text};
use tripod_schema::{Failure, Kind, registry};
use tripod_store::Claim;

use crate::call::Call;
use crate::target::Target;

/// Bytes that an object may have in the store.
const LIMIT: usize = 1_572_864;

/// A new object's metadata: a name, an identity, a beginning.
pub(super) fn birth(call: &Call, target: &Target, object: &mut Value) -> Result<()> {
    let namespace = target.namespace.clone();
    let meta = object_mut(object, &["metadata"]);
    if !text(&Value::Object(meta.clone()), &["resourceVersion"]).is_empty() {
        return Err(
            Failure::internal("resourceVersion should not be set on objects to be created").with(400),
        );
    }
    for gone in [
        "uid",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        meta.remove(gone);
    }
    let prefix = meta
        .get("generateName")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let named = meta
        .get("name")
        .and_then(Value::as_str)
        .is_some_and(|n| !n.is_empty());
    if !named && !prefix.is_empty() {
        meta.insert("name".into(), generated(&prefix).into());
    }
    if target.kind.namespaced {
        meta.insert("namespace".into(), namespace.into());
    } else {
        meta.remove("namespace");
    }
    meta.insert("uid".into(), new_uid().into());
    meta.insert("creationTimestamp".into(), format_time(call.now(), false).into());
    if target.kind.generation {
        meta.insert("generation".into(), 1.into());
    }
    Ok(())
}

/// A name with five letters after its prefix.
pub(crate) fn generated(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let end = prefix.char_indices().nth(58).map_or(prefix.len(), |(i, _)| i);
    let mut name = prefix[..end].to_owned();
    for _ in 0..5 {
        name.push(char::from(LETTERS[rand::random_range(0..LETTERS.len())]));
    }
    name
}

/// A random (version 4) UUID.
pub(crate) fn new_uid() -> String {
    let bits = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// What a kind's own rules make of a new object: its status is not the client's to set.
pub(super) fn strategy_create(kind: &Kind, object: &mut Value) {
    let Value::Object(map) = object else { return };
    match kind.resource().as_str() {
        "namespaces" => {
            let mut status = Map::new();
            status.insert("phase".into(), "Active".into());
            map.insert("status".into(), status.into());
            let spec = object_mut(object, &["spec"]);
            let list = spec
                .entry("finalizers")
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list
                && !list.iter().any(|f| f == "kubernetes")
            {
                list.push("kubernetes".into());
            }
        }
        "pods" => {
            let mut status = Map::new();
            status.insert("phase".into(), "Pending".into());
            map.insert("status".into(), status.into());
        }
        "persistentvolumes" | "persistentvolumeclaims" => {
            let mut status = Map::new();
            status.insert("phase".into(), "Pending".into());
            map.insert("status".into(), status.into());
        }
        "nodes" => {}
        _ if kind.has_status() => {
            map.insert("status".into(), Map::new().into());
        }
        _ => {}
    }
}

/// What follows from the old object: identity stays, parts that a request may not write are kept, changes are counted.
pub(super) fn inherit(kind: &Kind, old: &Value, new: &mut Value, sub: Option<&str>) {
    let meta = object_mut(new, &["metadata"]);
    for kept in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "name",
        "namespace",
    ] {
        match old["metadata"].get(kept) {
            Some(value) => drop(meta.insert(kept.into(), value.clone())),
            None => drop(meta.remove(kept)),
        }
    }
    meta.remove("selfLink");
    keep_own(kind, old, new);
    let Value::Object(map) = new else { return };
    let keep = |map: &mut Map<String, Value>, name: &str| match old.get(name) {
        Some(value) => drop(map.insert(name.into(), value.clone())),
        None => drop(map.remove(name)),
    };
    match sub {
        Some("status" | "approval") => {
            let names: Vec<String> = old
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, _)| k.clone())
                .chain(map.keys().cloned())
                .filter(|k| !["status", "metadata", "apiVersion", "kind"].contains(&k.as_str()))
                .collect();
            names.iter().for_each(|name| keep(map, name));
        }
        Some("finalize") => {
            // Only who must agree before the namespace goes.
            let finalizers = map.get("spec").and_then(|s| s.get("finalizers")).cloned();
            let metadata = old["metadata"].clone();
            *map = old.as_object().cloned().unwrap_or_default();
            map.insert("metadata".into(), metadata);
            let spec = object_mut(new, &["spec"]);
            match finalizers {
                Some(list) => drop(spec.insert("finalizers".into(), list)),
                None => drop(spec.remove("finalizers")),
            }
        }
        Some("ephemeralcontainers") => {
            let list = map
                .get("spec")
                .and_then(|s| s.get("ephemeralContainers"))
                .cloned();
            *map = old.as_object().cloned().unwrap_or_default();
            if let Some(list) = list {
                object_mut(new, &["spec"]).insert("ephemeralContainers".into(), list);
            }
        }
        Some("resize") => {
            let said = map.get("spec").cloned().unwrap_or_default();
            *map = old.as_object().cloned().unwrap_or_default();
            resized(new, &said);
        }
        _ if kind.has_status() => keep(map, "status"),
        _ => {}
    }
}

/// Takes over the resources of containers, and how a resize is done.
fn resized(pod: &mut Value, said: &Value) {
    for member in ["containers", "initContainers"] {
        let wanted = tripod_schema::value::list(said, &[member]).to_vec();
        if let Some(Value::Array(containers)) = object_mut(pod, &["spec"]).get_mut(member) {
            for container in containers {
                let same = wanted.iter().find(|w| w["name"] == container["name"]);
                for part in ["resources", "resizePolicy"] {
                    if let Some(value) = same.and_then(|w| w.get(part)) {
                        container[part] = value.clone();
                    }
                }
            }
        }
    }
}

/// Counts a change of what is wanted.
pub(super) fn count(kind: &Kind, old: &Value, new: &mut Value, sub: Option<&str>) {
    if kind.generation && sub != Some("status") && spec_changed(old, new) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        new["metadata"]["generation"] = generation.into();
    }
}

/// When a taint came that ends pods: tolerations count from then.
pub(super) fn stamp_taints(kind: &Kind, object: &mut Value, now: Time) {
    if kind.resource() != "nodes" {
        return;
    }
    let Some(Value::Array(taints)) = object.pointer_mut("/spec/taints") else {
        return;
    };
    for taint in taints {
        if taint["effect"] == "NoExecute" && taint["timeAdded"].is_null() {
            taint["timeAdded"] = format_time(now, false).into();
        }
    }
}

/// What Tripod adds to built-in kinds is not the client's to drop.
fn keep_own(kind: &Kind, old: &Value, new: &mut Value) {
    let paths: &[&[&str]] = match kind.resource().as_str() {
        "nodes" => &[
            &["spec", "swarm"],
            &["status", "state"],
            &["status", "message"],
            &["status", "addr"],
            &["status", "dataPathAddr"],
            &["status", "manager"],
            &["status", "description"],
            &["status", "since"],
            &["status", "updatedAt"],
        ],
        "secrets" | "configmaps" => &[&["swarm"]],
        "pods" => &[
            &["metadata", "annotations", "tripod.dev/pod"],
            &["metadata", "annotations", "tripod.dev/state"],
        ],
        _ => &[],
    };
    for path in paths {
        let Some((last, above)) = path.split_last() else {
            continue;
        };
        match tripod_schema::value::at(old, path) {
            Some(value) => drop(object_mut(new, above).insert((*last).into(), value.clone())),
            None => {
                if tripod_schema::value::at(new, path).is_some() {
                    object_mut(new, above).remove(*last);
                }
            }
        }
    }
}

/// Whether anything but metadata and status differs.
pub(super) fn spec_changed(old: &Value, new: &Value) -> bool {
    let parts = |v: &Value| -> Map<String, Value> {
        let mut map = v.as_object().cloned().unwrap_or_default();
        for name in ["metadata", "status", "apiVersion", "kind"] {
            map.remove(name);
        }
        map
    };
    parts(old) != parts(new)
}

/// The canonical bytes of an object.
///
/// # Errors
/// 413 when it is too large.
pub(super) fn stored_bytes(kind: &Kind, object: &mut Value) -> Result<Vec<u8>> {
    let kind = registry().stored(&kind.stored()).unwrap_or(kind);
    let map = object_mut(object, &[]);
    map.insert("apiVersion".into(), kind.api_version().into());
    map.insert("kind".into(), kind.kind.into());
    let bytes = tripod_schema::value::to_bytes(object);
    if bytes.len() > LIMIT {
        return Err(Failure::new(
            413,
            "RequestEntityTooLarge",
            format_args!("etcdserver: request is too large: an object may have {LIMIT} bytes"),
        ));
    }
    Ok(bytes)
}

/// The unique values that an object holds: addresses and ports of services; what others gave it stays.
pub(crate) fn claims(kind: &Kind, object: &Value, before: &[Claim]) -> Vec<Claim> {
    if kind.resource() != "services" {
        return before.to_vec();
    }
    let claim = |index: &str, value: String| Claim {
        index: index.into(),
        value: value.into(),
    };
    let mut claims = Vec::new();
    let spec = &object["spec"];
    let ip = text(spec, &["clusterIP"]);
    if !ip.is_empty() && ip != "None" && text(spec, &["type"]) != "ExternalName" {
        claims.push(claim("services#clusterIP", ip.to_owned()));
    }
    for port in tripod_schema::value::list(spec, &["ports"]) {
        if let Some(number) = port["nodePort"].as_i64().filter(|n| *n > 0) {
            claims.push(claim(
                "services#nodePort",
                format!("{}/{number}", text(port, &["protocol"])),
            ));
        }
    }
    if let Some(number) = spec["healthCheckNodePort"].as_i64().filter(|n| *n > 0) {
        claims.push(claim("services#nodePort", format!("TCP/{number}")));
    }
    claims
}

/// Marks an object that waits for its finalizers.
pub(super) fn mark_deleted(object: &mut Value, now: Time, grace: i64) {
    let meta = object_mut(object, &["metadata"]);
    default_to(meta, "deletionTimestamp", format_time(now, false));
    default_to(meta, "deletionGracePeriodSeconds", grace);
    if let Some(generation) = meta.get("generation").and_then(Value::as_i64) {
        meta.insert("generation".into(), (generation + 1).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn updates_keep_identity_and_status_and_count_changes() {
        let kind = registry().find("apps", "v1", "deployments").unwrap();
        let old = json!({"metadata": {"name": "a", "uid": "u", "generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        let mut new = json!({"metadata": {"name": "a", "uid": "x", "labels": {"l": "1"}}, "spec": {"replicas": 2}, "status": {}});
        inherit(kind, &old, &mut new, None);
        count(kind, &old, &mut new, None);
        assert_eq!(
            new,
            json!({"metadata": {"name": "a", "uid": "u", "generation": 4, "labels": {"l": "1"}}, "spec": {"replicas": 2}, "status": {"replicas": 1}})
        );
        let mut new = json!({"metadata": {"name": "a"}, "spec": {"replicas": 9}, "status": {"replicas": 5}});
        inherit(kind, &old, &mut new, Some("status"));
        assert_eq!(new["spec"]["replicas"], 1);
        assert_eq!(new["status"]["replicas"], 5);
        assert_eq!(new["metadata"]["generation"], 3);
    }

    #[test]
    fn tripods_own_members_of_nodes_stay() {
        let kind = registry().find("", "v1", "nodes").unwrap();
        let old = json!({"metadata": {"name": "n"}, "spec": {"swarm": {"nodeId": "x"}}, "status": {"state": "ready"}});
        let mut new = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}});
        inherit(kind, &old, &mut new, None);
        assert_eq!(
            new["spec"],
            json!({"unschedulable": true, "swarm": {"nodeId": "x"}})
        );
        assert_eq!(new["status"], json!({"state": "ready"}));
    }

    #[test]
    fn generated_names_fit() {
        let name = generated(&"a".repeat(80));
        assert_eq!(name.len(), 63);
        assert_ne!(generated("x-"), generated("x-"));
        assert_eq!(new_uid().len(), 36);
    }

    #[test]
    fn services_claim_addresses_and_ports() {
        let kind = registry().find("", "v1", "services").unwrap();
        let s = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.5", "ports": [{"protocol": "TCP", "nodePort": 30001}]}});
        let claims = claims(kind, &s, &[]);
        assert_eq!(
            claims.iter().map(|c| &*c.value).collect::<Vec<_>>(),
            ["10.96.0.5", "TCP/30001"]
        );
    }
}
