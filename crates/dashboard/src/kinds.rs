//! The kinds that have a place of their own in the page. All others are shown in a general way.

use crate::call::Ctx;
use crate::columns;
use crate::object::Obj;
use crate::view::Cell;

/// A kind as the page shows it.
#[derive(Clone, Copy)]
pub(crate) struct KindDef {
    /// The store's name of it.
    pub(crate) resource: &'static str,
    /// First part of its addresses.
    pub(crate) slug: &'static str,
    /// What a list of it is called, in English.
    pub(crate) title: &'static str,
    /// What one of it is called.
    pub(crate) kind: &'static str,
    pub(crate) namespaced: bool,
    /// Headings between namespace and age, in English.
    pub(crate) head: &'static [&'static str],
    /// Values below these headings.
    pub(crate) row: fn(&Ctx, &Obj) -> Vec<Cell>,
}

macro_rules! kinds {
    ($($slug:literal $resource:literal $kind:literal $title:literal $namespaced:literal [$($head:literal),*] $row:path;)*) => {
        &[$(KindDef {
            slug: $slug, resource: $resource, kind: $kind, title: $title, namespaced: $namespaced,
            head: &[$($head),*], row: $row,
        }),*]
    };
}

/// All of them.
pub(crate) static KINDS: &[KindDef] = kinds![
    "pods" "pods" "Pod" "Pods" true ["Status", "Ready", "Restarts", "Owner", "Node", "Address"] columns::pod;
    "deployments" "deployments.apps" "Deployment" "Deployments" true ["Status", "Ready", "Images"] columns::workload;
    "statefulsets" "statefulsets.apps" "StatefulSet" "Stateful sets" true ["Status", "Ready", "Images"] columns::workload;
    "daemonsets" "daemonsets.apps" "DaemonSet" "Daemon sets" true ["Status", "Ready", "Images"] columns::workload;
    "replicasets" "replicasets.apps" "ReplicaSet" "Replica sets" true ["Status", "Ready", "Images"] columns::workload;
    "jobs" "jobs.batch" "Job" "Jobs" true ["Status", "Ready", "Images"] columns::workload;
    "cronjobs" "cronjobs.batch" "CronJob" "Cron jobs" true ["Status", "Schedule", "Last run"] columns::cron_job;
    "swarm-services" "swarmservices.swarm.tripod.dev" "Swarm service" "Swarm services" true ["Status", "Ready", "Images"] columns::workload;
    "ecs-services" "ecsservices.ecs.tripod.dev" "ECS service" "ECS services" true ["Status", "Ready", "Images"] columns::workload;
    "ecs-clusters" "ecsclusters.ecs.tripod.dev" "ECS cluster" "ECS clusters" false [] columns::none;
    "task-definitions" "taskdefinitions.ecs.tripod.dev" "Task definition" "Task definitions" false [] columns::none;
    "services" "services" "Service" "Services" true ["Type", "Address", "Ports", "Reached at"] columns::service;
    "ingresses" "ingresses.networking.k8s.io" "Ingress" "Ingresses" true ["Hosts"] columns::ingress;
    "endpointslices" "endpointslices.discovery.k8s.io" "EndpointSlice" "Endpoint slices" true ["Addresses"] columns::slice;
    "networkpolicies" "networkpolicies.networking.k8s.io" "NetworkPolicy" "Network policies" true ["Selector"] columns::policy;
    "networks" "networks.tripod.dev" "Network" "Networks" false ["Driver", "Subnets"] columns::network;
    "nodes" "nodes" "Node" "Nodes" false ["Status", "Roles", "Address", "CPU", "Memory", "Version"] columns::node;
    "namespaces" "namespaces" "Namespace" "Namespaces" false ["Status"] columns::namespace;
    "configmaps" "configmaps" "ConfigMap" "Config maps" true ["Keys"] columns::keys;
    "secrets" "secrets" "Secret" "Secrets" true ["Type", "Keys"] columns::secret;
    "serviceaccounts" "serviceaccounts" "ServiceAccount" "Service accounts" true [] columns::none;
    "persistentvolumeclaims" "persistentvolumeclaims" "PersistentVolumeClaim" "Volume claims" true ["Status", "Volume", "Capacity", "Class"] columns::claim;
    "persistentvolumes" "persistentvolumes" "PersistentVolume" "Volumes" false ["Status", "Capacity", "Claim", "Class"] columns::volume;
    "storageclasses" "storageclasses.storage.k8s.io" "StorageClass" "Storage classes" false ["Provisioner"] columns::class;
    "events" "events" "Event" "Events" true ["Type", "Reason", "About", "Message", "Times"] columns::event;
];

impl KindDef {
    /// The kind of this first part of a path.
    pub(crate) fn by_slug(slug: &str) -> Option<&'static Self> {
        KINDS.iter().find(|k| k.slug == slug)
    }

    /// The kind of this name in the store.
    pub(crate) fn by_resource(resource: &str) -> Option<&'static Self> {
        KINDS.iter().find(|k| k.resource == resource)
    }

    /// The kind that an object reference calls so.
    pub(crate) fn by_kind(kind: &str) -> Option<&'static Self> {
        match kind {
            "SwarmService" => Self::by_slug("swarm-services"),
            "EcsService" => Self::by_slug("ecs-services"),
            kind => KINDS.iter().find(|k| k.kind == kind),
        }
    }
}

/// The parts of the address of an object.
pub(crate) fn parts<'a>(resource: &'a str, namespace: &'a str, name: &'a str) -> Vec<&'a str> {
    match KindDef::by_resource(resource) {
        Some(def) if def.namespaced => vec![def.slug, namespace, name],
        Some(def) => vec![def.slug, name],
        None if namespace.is_empty() => vec!["objects", resource, "-", name],
        None => vec!["objects", resource, namespace, name],
    }
}

/// A link to an object that is known by its kind.
pub(crate) fn link(ctx: &Ctx, kind: &str, namespace: &str, name: &str) -> Cell {
    match KindDef::by_kind(kind) {
        Some(def) => Cell::Link(ctx.ui.url(&parts(def.resource, namespace, name)), name.to_owned()),
        None => Cell::text(name),
    }
}
