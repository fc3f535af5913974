//! The kinds on which the controllers act: the store's name of each, with its group, version and kind.

use super::view::Controller;

/// A built-in kind.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    /// The store's name, `deployments.apps`.
    pub resource: &'static str,
    /// Group and version, `apps/v1`.
    pub api_version: &'static str,
    /// `Deployment`.
    pub kind: &'static str,
    /// The controller whose key is the object's own.
    pub controller: Option<Controller>,
}

macro_rules! kinds {
    ($($name:ident = $resource:literal, $api_version:literal, $kind:literal, $controller:expr;)*) => {
        $(#[doc = concat!("`", $kind, "` of ", $api_version, ".")] pub const $name: &str = $resource;)*
        /// All of them.
        pub const KINDS: &[KindInfo] = &[$(KindInfo {
            resource: $resource, api_version: $api_version, kind: $kind, controller: $controller,
        }),*];
    };
}

kinds! {
    PODS = "pods", "v1", "Pod", None;
    NODES = "nodes", "v1", "Node", None;
    NAMESPACES = "namespaces", "v1", "Namespace", Some(Controller::Namespace);
    EVENTS = "events", "v1", "Event", None;
    SERVICES = "services", "v1", "Service", Some(Controller::Endpoints);
    ENDPOINTS = "endpoints", "v1", "Endpoints", Some(Controller::Mirror);
    CONFIG_MAPS = "configmaps", "v1", "ConfigMap", None;
    SECRETS = "secrets", "v1", "Secret", Some(Controller::Token);
    SERVICE_ACCOUNTS = "serviceaccounts", "v1", "ServiceAccount", None;
    RESOURCE_QUOTAS = "resourcequotas", "v1", "ResourceQuota", Some(Controller::Quota);
    LIMIT_RANGES = "limitranges", "v1", "LimitRange", None;
    CLAIMS = "persistentvolumeclaims", "v1", "PersistentVolumeClaim", Some(Controller::Claim);
    VOLUMES = "persistentvolumes", "v1", "PersistentVolume", Some(Controller::Volume);
    REPLICATION_CONTROLLERS = "replicationcontrollers", "v1", "ReplicationController", Some(Controller::ReplicationController);
    POD_TEMPLATES = "podtemplates", "v1", "PodTemplate", None;
    DEPLOYMENTS = "deployments.apps", "apps/v1", "Deployment", Some(Controller::Deployment);
    REPLICA_SETS = "replicasets.apps", "apps/v1", "ReplicaSet", Some(Controller::ReplicaSet);
    STATEFUL_SETS = "statefulsets.apps", "apps/v1", "StatefulSet", Some(Controller::StatefulSet);
    DAEMON_SETS = "daemonsets.apps", "apps/v1", "DaemonSet", Some(Controller::DaemonSet);
    CONTROLLER_REVISIONS = "controllerrevisions.apps", "apps/v1", "ControllerRevision", None;
    JOBS = "jobs.batch", "batch/v1", "Job", Some(Controller::Job);
    CRON_JOBS = "cronjobs.batch", "batch/v1", "CronJob", Some(Controller::CronJob);
    ENDPOINT_SLICES = "endpointslices.discovery.k8s.io", "discovery.k8s.io/v1", "EndpointSlice", None;
    DISRUPTION_BUDGETS = "poddisruptionbudgets.policy", "policy/v1", "PodDisruptionBudget", Some(Controller::Disruption);
    STORAGE_CLASSES = "storageclasses.storage.k8s.io", "storage.k8s.io/v1", "StorageClass", None;
    PRIORITY_CLASSES = "priorityclasses.scheduling.k8s.io", "scheduling.k8s.io/v1", "PriorityClass", None;
    RUNTIME_CLASSES = "runtimeclasses.node.k8s.io", "node.k8s.io/v1", "RuntimeClass", None;
    SERVICE_CIDRS = "servicecidrs.networking.k8s.io", "networking.k8s.io/v1", "ServiceCIDR", None;
    LEASES = "leases.coordination.k8s.io", "coordination.k8s.io/v1", "Lease", None;
}

/// A built-in kind by the store's name.
pub fn info(resource: &str) -> Option<&'static KindInfo> {
    KINDS.iter().find(|k| k.resource == resource)
}

/// A built-in kind by group, version and kind, as owner references name it.
pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static KindInfo> {
    KINDS
        .iter()
        .find(|k| k.kind == kind && k.api_version == api_version)
}
