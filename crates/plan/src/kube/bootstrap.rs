//! What a cluster has from the beginning: its namespaces, the service of the API, the storage class, priorities.

use serde_json::json;

use super::kinds::{
    ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, PRIORITY_CLASSES, SERVICE_CIDRS, SERVICES, STORAGE_CLASSES,
};
use super::nodes;
use super::storage::PROVISIONER;
use super::work::Work;
use crate::network::Ranges;

const SPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Port of the API on managers.
const API_PORT: u16 = 6443;
const MAX_USER_PRIORITY: i64 = 1_000_000_000;

/// Makes what is missing.
pub(super) fn decide(w: &mut Work<'_>) {
    if w.view.cluster().is_none() {
        return;
    }
    for name in SPACES {
        if w.k.get(NAMESPACES, "", name).is_none() {
            let space = json!({
                "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } },
                "spec": { "finalizers": ["kubernetes"] },
                "status": { "phase": "Active" },
            });
            w.create(NAMESPACES, space);
        }
    }
    for (name, value, about) in [
        (
            "system-cluster-critical",
            2 * MAX_USER_PRIORITY,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2 * MAX_USER_PRIORITY + 1000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        if w.k.get(PRIORITY_CLASSES, "", name).is_none() {
            let class = json!({
                "metadata": { "name": name }, "value": value, "description": about,
                "preemptionPolicy": "PreemptLowerPriority",
            });
            w.create(PRIORITY_CLASSES, class);
        }
    }
    if w.k.all(STORAGE_CLASSES).next().is_none() {
        let class = json!({
            "metadata": {
                "name": "standard",
                "annotations": { "storageclass.kubernetes.io/is-default-class": "true" },
            },
            "provisioner": PROVISIONER, "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true,
        });
        w.create(STORAGE_CLASSES, class);
    }
    api_service(w);
    dns_service(w);
    service_range(w);
}

/// The object that names the range of services' addresses.
fn service_range(w: &mut Work<'_>) {
    if w.k.get(SERVICE_CIDRS, "", "kubernetes").is_some() {
        return;
    }
    let range = Ranges::of(w.view).services.to_string();
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
        "lastTransitionTime": super::work::stamp(w.now),
    });
    let object = json!({
        "metadata": { "name": "kubernetes" },
        "spec": { "cidrs": [range] },
        "status": { "conditions": [ready] },
    });
    w.create(SERVICE_CIDRS, object);
}

/// The service `kube-dns`: it only names the address at which every node answers for the cluster's DNS, and has no
/// endpoints.
fn dns_service(w: &mut Work<'_>) {
    if w.k.get(SERVICES, "kube-system", "kube-dns").is_some() {
        return;
    }
    let address = Ranges::of(w.view).dns().to_string();
    let labels = json!({
        "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
    });
    let service = json!({
        "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": labels },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 },
            ],
        },
        "status": { "loadBalancer": {} },
    });
    w.create(SERVICES, service);
}

/// The service `kubernetes`, which leads to the managers.
fn api_service(w: &mut Work<'_>) {
    let labels = json!({ "component": "apiserver", "provider": "kubernetes" });
    if w.k.get(SERVICES, "default", "kubernetes").is_none() {
        let address = nodes::api_address(w);
        let service = json!({
            "metadata": { "name": "kubernetes", "namespace": "default", "labels": labels },
            "spec": {
                "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": API_PORT }],
            },
            "status": { "loadBalancer": {} },
        });
        w.create(SERVICES, service);
    }
    let managers = nodes::managers(w);
    if managers.is_empty() {
        return;
    }
    let addresses: Vec<_> = managers.iter().map(|ip| json!({ "ip": ip })).collect();
    let subsets = json!([{
        "addresses": addresses, "ports": [{ "name": "https", "port": API_PORT, "protocol": "TCP" }],
    }]);
    let skip = json!({ "endpointslice.kubernetes.io/skip-mirror": "true" });
    match w.k.get(ENDPOINTS, "default", "kubernetes").cloned() {
        None => {
            let metadata = json!({ "name": "kubernetes", "namespace": "default", "labels": skip });
            w.create(ENDPOINTS, json!({ "metadata": metadata, "subsets": subsets }));
        }
        Some(object) => {
            w.update(&object, |v| v["subsets"] = subsets);
        }
    }
    let endpoints: Vec<_> = managers
        .iter()
        .map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true } }))
        .collect();
    match w.k.get(ENDPOINT_SLICES, "default", "kubernetes").cloned() {
        None => {
            let slice = json!({
                "metadata": {
                    "name": "kubernetes", "namespace": "default",
                    "labels": { "kubernetes.io/service-name": "kubernetes" },
                },
                "addressType": "IPv4", "endpoints": endpoints,
                "ports": [{ "name": "https", "port": API_PORT, "protocol": "TCP" }],
            });
            w.create(ENDPOINT_SLICES, slice);
        }
        Some(object) => {
            w.update(&object, |v| v["endpoints"] = endpoints.into());
        }
    }
}
