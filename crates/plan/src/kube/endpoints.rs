//! Endpoints and EndpointSlices of Services: the pods that their selector matches, with what each is good for.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tripod_model::k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use tripod_model::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::kinds::{ENDPOINT_SLICES, ENDPOINTS, SERVICES};
use super::object::KObject;
use super::pod::KPod;
use super::selector;
use super::work::{Work, controller_ref, stamp};

/// Label with the Service of a slice.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label with who manages a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const SLICES_MANAGER: &str = "endpointslice-controller.k8s.io";
const ENDPOINTS_MANAGER: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
const HEADLESS: &str = "service.kubernetes.io/headless";
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Endpoints in one slice.
pub(super) const SLICE_SIZE: usize = 100;
/// Addresses in one Endpoints object.
const ENDPOINTS_SIZE: usize = 1000;

/// A pod behind a Service, with the ports by which it is reached.
struct Behind {
    pod: Arc<KPod>,
    address: String,
    ports: Vec<Value>,
    ready: bool,
}

/// Addresses that are ready, those that are not, and their ports.
type Subset = (Vec<Value>, Vec<Value>, Vec<Value>);

/// Decides about the endpoints of a Service.
pub(super) fn decide(w: &mut Work<'_>, namespace: &str, name: &str) {
    let service = w.k.get(SERVICES, namespace, name).cloned();
    let Some(service) = service.filter(|s| !s.meta.is_deleted()) else {
        forget(w, namespace, name);
        return;
    };
    let Some(spec) = service.get::<Service>().and_then(|s| s.spec.clone()) else {
        return;
    };
    let selector = spec.selector.clone().unwrap_or_default();
    if selector.is_empty() || spec.type_.as_deref() == Some("ExternalName") {
        return;
    }
    let mut behind = Vec::new();
    for pod in w.k.pods_in(namespace) {
        if pod.info.kube && selector::matches_pairs(&selector, &pod.pod.metadata.labels) {
            behind.extend(reached(&spec, pod));
        }
    }
    slices(w, &service, &spec, &behind);
    endpoints(w, &service, &spec, &behind);
}

/// What is left of a Service that is gone goes with it.
fn forget(w: &mut Work<'_>, namespace: &str, name: &str) {
    let managed = |o: &KObject| {
        o.meta
            .labels
            .get(ENDPOINTS_MANAGER.0)
            .is_some_and(|v| v == ENDPOINTS_MANAGER.1)
    };
    if let Some(object) =
        w.k.get(ENDPOINTS, namespace, name)
            .cloned()
            .filter(|o| managed(o))
    {
        w.delete(&object);
    }
    for slice in slices_of(w, namespace, name, SLICES_MANAGER) {
        w.delete(&slice);
    }
}

pub(super) fn slices_of(w: &Work<'_>, namespace: &str, service: &str, manager: &str) -> Vec<Arc<KObject>> {
    let all = w.k.list(ENDPOINT_SLICES, namespace);
    let mine = all.filter(|s| {
        let label = |key: &str| s.meta.labels.get(key).map(String::as_str);
        label(SERVICE_NAME) == Some(service) && label(MANAGED_BY) == Some(manager)
    });
    mine.cloned().collect()
}

fn reached(spec: &ServiceSpec, pod: &Arc<KPod>) -> Option<Behind> {
    if pod.info.phase.is_final() {
        return None;
    }
    let address = pod.pod.status.pod_ip?.to_string();
    let ports: Vec<Value> = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|p| Some(port_json(p, target(p, pod)?)))
        .collect();
    Some(Behind {
        ready: pod.info.ready || spec.publish_not_ready_addresses == Some(true),
        pod: pod.clone(),
        address,
        ports,
    })
}

fn port_json(port: &ServicePort, number: u16) -> Value {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let mut json =
        json!({ "name": port.name.as_deref().unwrap_or_default(), "port": number, "protocol": protocol });
    if let Some(app) = &port.app_protocol {
        json["appProtocol"] = app.as_str().into();
    }
    json
}

/// The number of a Service's target port on a pod.
fn target(port: &ServicePort, pod: &KPod) -> Option<u16> {
    match &port.target_port {
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let inits = pod.pod.spec.rest.get("initContainers").and_then(Value::as_array);
            let inits = inits
                .into_iter()
                .flatten()
                .filter(|c| c["restartPolicy"] == "Always");
            let lists = pod.pod.spec.containers.iter().map(|c| c.rest.get("ports"));
            let lists = lists.chain(inits.map(|c| c.get("ports")));
            let mut ports = lists.flatten().filter_map(Value::as_array).flatten();
            let found =
                ports.find(|p| p["name"] == **name && p["protocol"].as_str().unwrap_or("TCP") == protocol)?;
            u16::try_from(found["containerPort"].as_u64()?).ok()
        }
        Some(IntOrString::Int(n)) if *n != 0 => u16::try_from(*n).ok(),
        _ => u16::try_from(port.port).ok(),
    }
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

/// The labels that a Service's endpoints have from it.
fn labels(service: &KObject, spec: &ServiceSpec) -> Map<String, Value> {
    let own = service.meta.labels.iter().filter(|(k, _)| k.as_str() != HEADLESS);
    let mut labels: Map<String, Value> = own.map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    if is_headless(spec) {
        labels.insert(HEADLESS.into(), "".into());
    }
    labels
}

fn reference(pod: &KPod) -> Value {
    json!({ "kind": "Pod", "name": pod.name(), "namespace": pod.namespace(), "uid": pod.pod.metadata.uid })
}

fn endpoint(w: &Work<'_>, service: &KObject, b: &Behind) -> Value {
    let pod = &b.pod;
    let published = b.ready && !pod.info.ready;
    let ready = if published { true } else { b.ready && !pod.leaves() };
    let mut json = json!({
        "addresses": [b.address],
        "conditions": {
            "ready": ready, "serving": pod.info.ready || published, "terminating": pod.leaves(),
        },
        "targetRef": reference(pod),
    });
    let node = &pod.pod.spec.node_name;
    if !node.is_empty() {
        json["nodeName"] = node.as_str().into();
        let zone = w
            .view
            .node(node)
            .and_then(|n| n.metadata.labels.get("topology.kubernetes.io/zone"));
        if let Some(zone) = zone {
            json["zone"] = zone.as_str().into();
        }
    }
    if let Some(hostname) = hostname(service, pod) {
        json["hostname"] = hostname.into();
    }
    json
}

/// The name of a pod below a Service of its subdomain.
fn hostname<'p>(service: &KObject, pod: &'p KPod) -> Option<&'p str> {
    let text = |field: &str| pod.pod.spec.rest.get(field).and_then(Value::as_str);
    let hostname = text("hostname").filter(|h| !h.is_empty())?;
    (text("subdomain") == Some(service.name())).then_some(hostname)
}

fn slices(w: &mut Work<'_>, service: &KObject, spec: &ServiceSpec, behind: &[Behind]) {
    let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for b in behind {
        let ports = Value::from(b.ports.clone());
        let endpoint = endpoint(w, service, b);
        let group = groups
            .entry(ports.to_string())
            .or_insert_with(|| (ports, Vec::new()));
        group.1.push(endpoint);
    }
    if groups.is_empty() {
        // An empty slice says that nobody is there, rather than that nobody looked.
        groups.insert(String::new(), (json!([]), Vec::new()));
    }
    let existing = slices_of(w, service.namespace(), service.name(), SLICES_MANAGER);
    let mut shape = Map::new();
    let mut labels = labels(service, spec);
    labels.insert(SERVICE_NAME.into(), service.name().into());
    labels.insert(MANAGED_BY.into(), SLICES_MANAGER.into());
    shape.insert("labels".into(), labels.into());
    shape.insert("ownerReferences".into(), json!([controller_ref(service)]));
    place(w, service, groups.into_values().collect(), existing, &shape);
}

/// Writes groups of endpoints into slices: what is in a slice stays there, so that few of them change.
pub(super) fn place(
    w: &mut Work<'_>,
    owner: &KObject,
    groups: Vec<(Value, Vec<Value>)>,
    existing: Vec<Arc<KObject>>,
    shape: &Map<String, Value>,
) {
    let mut free: Vec<(Arc<KObject>, Value)> = existing.into_iter().map(|s| (s.clone(), s.value())).collect();
    let id = |e: &Value| {
        let uid = e["targetRef"]["uid"].as_str().map(str::to_owned);
        uid.unwrap_or_else(|| e["addresses"].to_string())
    };
    for (ports, endpoints) in groups {
        let mut left: BTreeMap<String, Value> = endpoints.into_iter().map(|e| (id(&e), e)).collect();
        let same = |v: &Value| v["ports"] == ports || v["ports"].is_null() && ports == json!([]);
        let (mine, others): (Vec<_>, Vec<_>) = free.into_iter().partition(|(_, v)| same(v));
        free = others;
        let mut kept: Vec<(Arc<KObject>, Vec<Value>)> = Vec::new();
        for (object, value) in mine {
            let before = value["endpoints"].as_array().cloned().unwrap_or_default();
            let stay: Vec<Value> = before.iter().filter_map(|e| left.remove(&id(e))).collect();
            kept.push((object, stay));
        }
        let mut rest: Vec<Value> = left.into_values().collect();
        for (_, endpoints) in &mut kept {
            let room = SLICE_SIZE.saturating_sub(endpoints.len()).min(rest.len());
            endpoints.extend(rest.drain(..room));
        }
        let filled = kept.iter().filter(|(_, e)| !e.is_empty()).count();
        let mut spare = usize::from(filled == 0 && rest.is_empty());
        for (object, endpoints) in kept {
            if endpoints.is_empty() {
                if spare == 0 {
                    w.delete(&object);
                    continue;
                }
                spare -= 1;
            }
            rewrite(w, &object, &endpoints, shape);
        }
        let fresh: Vec<Vec<Value>> = match (rest.is_empty(), spare) {
            (true, 0) => Vec::new(),
            (true, _) => vec![Vec::new()],
            (false, _) => rest.chunks(SLICE_SIZE).map(<[Value]>::to_vec).collect(),
        };
        for endpoints in fresh {
            make(w, owner, &ports, &endpoints, shape);
        }
    }
    for (object, _) in free {
        w.delete(&object);
    }
}

fn rewrite(w: &mut Work<'_>, object: &KObject, endpoints: &[Value], shape: &Map<String, Value>) {
    let now = stamp(w.now);
    w.update(object, |v| {
        if v["endpoints"].as_array().map(Vec::as_slice) != Some(endpoints)
            && !(v["endpoints"].is_null() && endpoints.is_empty())
        {
            v["endpoints"] = endpoints.to_vec().into();
            super::object::at(v, &["metadata", "annotations"])[TRIGGER] = now;
        }
        for (key, value) in shape {
            v["metadata"][key] = value.clone();
        }
    });
}

fn make(w: &mut Work<'_>, owner: &KObject, ports: &Value, endpoints: &[Value], shape: &Map<String, Value>) {
    let prefix = format!("{}-", owner.name());
    let mut metadata = shape.clone();
    metadata.insert("name".into(), w.generate_name(&prefix).into());
    metadata.insert("generateName".into(), prefix.into());
    metadata.insert("namespace".into(), owner.namespace().into());
    let six = endpoints
        .iter()
        .any(|e| e["addresses"][0].as_str().is_some_and(|a| a.contains(':')));
    let kind = if six { "IPv6" } else { "IPv4" };
    let slice = json!({
        "metadata": metadata, "addressType": kind, "endpoints": endpoints, "ports": ports,
    });
    w.create(ENDPOINT_SLICES, slice);
}

fn endpoints(w: &mut Work<'_>, service: &KObject, spec: &ServiceSpec, behind: &[Behind]) {
    let mut subsets: BTreeMap<String, Subset> = BTreeMap::new();
    let mut total = 0;
    for b in behind {
        let going = b.pod.info.deleted && spec.publish_not_ready_addresses != Some(true);
        if going || b.ports.is_empty() && !is_headless(spec) || total >= ENDPOINTS_SIZE {
            continue;
        }
        total += 1;
        let mut address = json!({ "ip": b.address, "targetRef": reference(&b.pod) });
        if !b.pod.pod.spec.node_name.is_empty() {
            address["nodeName"] = b.pod.pod.spec.node_name.as_str().into();
        }
        if let Some(hostname) = hostname(service, &b.pod) {
            address["hostname"] = hostname.into();
        }
        let mut ports = b.ports.clone();
        for port in &mut ports {
            if port["name"] == "" {
                port.as_object_mut().map(|p| p.remove("name"));
            }
        }
        let key = Value::from(ports.clone()).to_string();
        let subset = subsets
            .entry(key)
            .or_insert_with(|| (Vec::new(), Vec::new(), ports));
        if b.ready {
            subset.0.push(address);
        } else {
            subset.1.push(address);
        }
    }
    let mut list = Vec::new();
    for (_, (ready, waiting, ports)) in subsets {
        let mut subset = Map::new();
        for (key, value) in [
            ("addresses", ready),
            ("notReadyAddresses", waiting),
            ("ports", ports),
        ] {
            if !value.is_empty() {
                subset.insert(key.into(), value.into());
            }
        }
        list.push(Value::from(subset));
    }
    let mut labels = labels(service, spec);
    labels.insert(ENDPOINTS_MANAGER.0.into(), ENDPOINTS_MANAGER.1.into());
    write_endpoints(w, service, labels, list);
}

fn write_endpoints(w: &mut Work<'_>, service: &KObject, labels: Map<String, Value>, list: Vec<Value>) {
    let now = stamp(w.now);
    match w.k.get(ENDPOINTS, service.namespace(), service.name()).cloned() {
        None => {
            let metadata = json!({
                "name": service.name(), "namespace": service.namespace(), "labels": labels,
                "annotations": { TRIGGER: now },
            });
            let mut object = json!({ "metadata": metadata });
            if !list.is_empty() {
                object["subsets"] = list.into();
            }
            w.create(ENDPOINTS, object);
        }
        Some(object) => {
            w.update(&object, |v| {
                v["metadata"]["labels"] = labels.into();
                let empty = v["subsets"].as_array().is_none_or(Vec::is_empty) && list.is_empty();
                if v["subsets"].as_array() != Some(&list) && !empty {
                    v["subsets"] = list.into();
                    super::object::at(v, &["metadata", "annotations"])[TRIGGER] = now;
                } else if v["subsets"].is_null()
                    && let Some(map) = v.as_object_mut()
                {
                    map.remove("subsets");
                }
            });
        }
    }
}
