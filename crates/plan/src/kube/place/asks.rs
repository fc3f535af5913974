//! What the pods of a class ask of a node.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tripod_model::k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, PodAffinityTerm, PreferredSchedulingTerm, Toleration, TopologySpreadConstraint,
    WeightedPodAffinityTerm,
};

use super::super::pod::{Amounts, KPod};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tripod_model::network::PortProtocol;

/// The fields of a specification that decide on a place.
pub(super) const FIELDS: [&str; 7] = [
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "schedulingGates",
    "preemptionPolicy",
    "resourceClaims",
];

pub(super) struct Asks {
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) requests: Amounts,
    pub(super) host_ports: Vec<(Option<IpAddr>, PortProtocol, u16)>,
    pub(super) node_selector: BTreeMap<String, String>,
    pub(super) node_required: Option<NodeSelector>,
    pub(super) node_preferred: Vec<PreferredSchedulingTerm>,
    pub(super) near: Vec<PodAffinityTerm>,
    pub(super) apart: Vec<PodAffinityTerm>,
    /// Weight (negative: apart) and term.
    pub(super) preferred: Vec<(i64, PodAffinityTerm)>,
    pub(super) spread: Vec<TopologySpreadConstraint>,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) images: Vec<String>,
    pub(super) gated: bool,
    pub(super) never_preempts: bool,
    pub(super) priority: i32,
}

fn read<T: DeserializeOwned + Default>(pod: &KPod, field: &str) -> T {
    let value = pod.pod.spec.rest.get(field);
    value
        .and_then(|v| serde_json::from_value(v.clone()).ok())
        .unwrap_or_default()
}

impl Asks {
    pub(super) fn of(pod: &KPod) -> Self {
        let affinity: Affinity = read(pod, "affinity");
        let node = affinity.node_affinity.unwrap_or_default();
        let near = affinity.pod_affinity.unwrap_or_default();
        let apart = affinity.pod_anti_affinity.unwrap_or_default();
        let weigh = |terms: Option<Vec<WeightedPodAffinityTerm>>, sign: i64| {
            let terms = terms.unwrap_or_default().into_iter();
            terms.map(move |t| (sign * i64::from(t.weight), t.pod_affinity_term))
        };
        let preferred = weigh(near.preferred_during_scheduling_ignored_during_execution, 1).chain(weigh(
            apart.preferred_during_scheduling_ignored_during_execution,
            -1,
        ));
        let gates = pod.pod.spec.rest.get("schedulingGates").and_then(Value::as_array);
        Self {
            namespace: pod.namespace().into(),
            labels: pod.pod.metadata.labels.clone(),
            requests: pod.info.requests.clone(),
            host_ports: pod.info.host_ports.clone(),
            node_selector: read(pod, "nodeSelector"),
            node_required: node.required_during_scheduling_ignored_during_execution,
            node_preferred: node
                .preferred_during_scheduling_ignored_during_execution
                .unwrap_or_default(),
            near: near
                .required_during_scheduling_ignored_during_execution
                .unwrap_or_default(),
            apart: apart
                .required_during_scheduling_ignored_during_execution
                .unwrap_or_default(),
            preferred: preferred.collect(),
            spread: read(pod, "topologySpreadConstraints"),
            tolerations: read(pod, "tolerations"),
            images: pod.pod.spec.containers.iter().map(|c| c.image.clone()).collect(),
            gated: gates.is_some_and(|g| !g.is_empty()),
            never_preempts: read::<String>(pod, "preemptionPolicy") == "Never",
            priority: pod.info.priority,
        }
    }
}
