//! Slices of Endpoints that somebody else writes for a Service without a selector.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tripod_model::k8s_openapi::api::core::v1::Service;

use super::endpoints::{MANAGED_BY, SERVICE_NAME, place, slices_of};
use super::kinds::{ENDPOINTS, SERVICES};
use super::work::{Work, controller_ref};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Decides about the slices of an Endpoints object.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let existing = slices_of(w, namespace, name, MANAGER);
    let service =
        w.k.get(SERVICES, namespace, name)
            .and_then(|s| s.get::<Service>());
    let bare = service.is_some_and(|s| {
        s.spec
            .as_ref()
            .is_some_and(|s| s.selector.as_ref().is_none_or(BTreeMap::is_empty))
    });
    let object = w.k.get(ENDPOINTS, namespace, name).cloned();
    let skipped = |labels: &BTreeMap<String, String>| labels.get(SKIP).is_some_and(|v| v == "true");
    let Some(object) = object.filter(|o| bare && !skipped(&o.meta.labels) && !o.meta.is_deleted()) else {
        for slice in existing {
            w.delete(&slice);
        }
        return;
    };
    let value = object.value();
    let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for subset in value["subsets"].as_array().into_iter().flatten() {
        let mut ports = subset["ports"].as_array().cloned().unwrap_or_default();
        for port in &mut ports {
            if port["name"].is_null() {
                port["name"] = "".into();
            }
        }
        let ports = Value::from(ports);
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in subset[field].as_array().into_iter().flatten() {
                let mut endpoint = json!({ "addresses": [address["ip"]], "conditions": { "ready": ready } });
                for key in ["hostname", "nodeName", "targetRef"] {
                    if !address[key].is_null() {
                        endpoint[key] = address[key].clone();
                    }
                }
                let ip = address["ip"].as_str().unwrap_or_default();
                let family = if ip.contains(':') { "6" } else { "4" };
                let group = groups
                    .entry(format!("{family}{ports}"))
                    .or_insert_with(|| (ports.clone(), Vec::new()));
                group.1.push(endpoint);
            }
        }
    }
    let own = object.meta.labels.iter().filter(|(k, _)| *k != SKIP);
    let mut labels: Map<String, Value> = own.map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    labels.insert(SERVICE_NAME.into(), name.into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut shape = Map::new();
    shape.insert("labels".into(), labels.into());
    shape.insert("ownerReferences".into(), json!([controller_ref(&object)]));
    place(w, &object, groups.into_values().collect(), existing, &shape);
}
