//! The registry of kinds: everything that the Kubernetes door serves derives from these rows.
//!
//! A row says what a kind is called, which verbs and subresources it has, and which schema its objects follow. Several
//! versions or groups may show one stored kind (`stored`): the door converts between them.

use std::collections::HashMap;
use std::sync::OnceLock;

/// A kind of object in one group and version.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Group; empty for the core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// `Pod`.
    pub kind: &'static str,
    /// `pods`.
    pub plural: &'static str,
    /// Abbreviations that clients accept.
    pub short: &'static [&'static str],
    /// Sets of kinds that it belongs to (`all`).
    pub categories: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What may be done.
    pub verbs: &'static [&'static str],
    /// What hangs below an object.
    pub subs: &'static [Sub],
    /// Name of its schema (`core.v1.Pod`); empty where any fields are kept.
    pub schema: &'static str,
    /// `group/plural` of the kind that is stored, when this is another view of it.
    pub view_of: Option<&'static str>,
    /// Whether `metadata.generation` counts changes of its spec.
    pub generation: bool,
}

/// A subresource.
#[derive(Debug, Clone, Copy)]
pub struct Sub {
    /// `status`, `scale`, `log` …
    pub name: &'static str,
    /// Group of its body, where that is not the parent's.
    pub group: &'static str,
    /// Version of its body, where it is not the parent's.
    pub version: &'static str,
    /// Kind of its body; empty: the parent's.
    pub kind: &'static str,
    /// What may be done.
    pub verbs: &'static [&'static str],
}

/// All that stored kinds offer.
pub const FULL: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const CREATE: &[&str] = &["create"];
const READ: &[&str] = &["get", "list", "watch"];
const GPU: &[&str] = &["get", "patch", "update"];
const GET: &[&str] = &["get"];
const STREAM: &[&str] = &["create", "get"];
const ALL_METHODS: &[&str] = &["create", "delete", "get", "patch", "update"];

const fn sub(name: &'static str, verbs: &'static [&'static str]) -> Sub {
    Sub {
        name,
        group: "",
        version: "",
        kind: "",
        verbs,
    }
}

const fn sub_of(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Sub {
    Sub {
        name,
        group,
        version,
        kind,
        verbs,
    }
}

const STATUS: Sub = sub("status", GPU);
const SCALE: Sub = sub_of("scale", "autoscaling", "v1", "Scale", GPU);
const STATUS_ONLY: &[Sub] = &[STATUS];
const SCALED: &[Sub] = &[SCALE, STATUS];

impl Kind {
    const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        schema: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
            short: &[],
            categories: &[],
            namespaced: true,
            verbs: FULL,
            subs: &[],
            schema,
            view_of: None,
            generation: false,
        }
    }
    const fn short(mut self, short: &'static [&'static str]) -> Self {
        self.short = short;
        self
    }
    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }
    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }
    const fn subs(mut self, subs: &'static [Sub]) -> Self {
        self.subs = subs;
        self
    }
    const fn status(self) -> Self {
        self.subs(STATUS_ONLY)
    }
    const fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }
    const fn counted(mut self) -> Self {
        self.generation = true;
        self
    }
    const fn view_of(mut self, stored: &'static str) -> Self {
        self.view_of = Some(stored);
        self
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The name of the kind as errors and authorisation write it: `pods`, `deployments.apps`.
    pub fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The store's name of the kind.
    pub fn stored(&self) -> String {
        match self.view_of {
            Some(name) => name.to_owned(),
            None => self.resource(),
        }
    }

    /// `pod`, what commands accept for one.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// `PodList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// Whether there is such a verb.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// The subresource of that name.
    pub fn sub(&self, name: &str) -> Option<&'static Sub> {
        self.subs.iter().find(|s| s.name == name)
    }

    /// Whether `status` is written apart from the rest.
    pub fn has_status(&self) -> bool {
        self.sub("status").is_some()
    }

    /// The kind in whose form objects of this one are stored.
    pub fn storage(&'static self) -> &'static Self {
        registry().stored(&self.stored()).unwrap_or(self)
    }

    /// Whether objects are kept in the store (reviews are only answered).
    pub fn is_stored(&self) -> bool {
        self.can("get") && self.group != "metrics.k8s.io"
    }
}

const POD_SUBS: &[Sub] = &[
    sub_of("attach", "", "v1", "PodAttachOptions", STREAM),
    sub_of("binding", "", "v1", "Binding", CREATE),
    sub("ephemeralcontainers", GPU),
    sub_of("eviction", "policy", "v1", "Eviction", CREATE),
    sub_of("exec", "", "v1", "PodExecOptions", STREAM),
    sub("log", GET),
    sub_of("portforward", "", "v1", "PodPortForwardOptions", STREAM),
    sub_of("proxy", "", "v1", "PodProxyOptions", ALL_METHODS),
    sub("resize", GPU),
    STATUS,
];

const fn core(kind: &'static str, plural: &'static str, schema: &'static str) -> Kind {
    Kind::new("", "v1", kind, plural, schema)
}
const fn apps(kind: &'static str, plural: &'static str, schema: &'static str) -> Kind {
    Kind::new("apps", "v1", kind, plural, schema).all().counted()
}
const fn authz(kind: &'static str, plural: &'static str, schema: &'static str) -> Kind {
    Kind::new("authorization.k8s.io", "v1", kind, plural, schema).verbs(CREATE)
}
const fn rbac(kind: &'static str, plural: &'static str, schema: &'static str) -> Kind {
    Kind::new("rbac.authorization.k8s.io", "v1", kind, plural, schema)
}
const fn storage(kind: &'static str, plural: &'static str, schema: &'static str) -> Kind {
    Kind::new("storage.k8s.io", "v1", kind, plural, schema).cluster()
}
const fn dra(kind: &'static str, plural: &'static str, schema: &'static str) -> Kind {
    Kind::new("resource.k8s.io", "v1", kind, plural, schema).counted()
}
const fn net(kind: &'static str, plural: &'static str, schema: &'static str) -> Kind {
    Kind::new("networking.k8s.io", "v1", kind, plural, schema)
}

const KINDS: &[Kind] = &[
    core("Binding", "bindings", "core.v1.Binding").verbs(CREATE),
    core("ConfigMap", "configmaps", "core.v1.ConfigMap").short(&["cm"]),
    core("Endpoints", "endpoints", "core.v1.Endpoints").short(&["ep"]),
    core("Event", "events", "core.v1.Event").short(&["ev"]),
    core("LimitRange", "limitranges", "core.v1.LimitRange").short(&["limits"]),
    core("Namespace", "namespaces", "core.v1.Namespace")
        .short(&["ns"])
        .cluster()
        .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
        .subs(&[sub("finalize", &["update"]), STATUS]),
    core("Node", "nodes", "core.v1.Node")
        .short(&["no"])
        .cluster()
        .subs(&[sub_of("proxy", "", "v1", "NodeProxyOptions", ALL_METHODS), STATUS]),
    core(
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "core.v1.PersistentVolumeClaim",
    )
    .short(&["pvc"])
    .status(),
    core(
        "PersistentVolume",
        "persistentvolumes",
        "core.v1.PersistentVolume",
    )
    .short(&["pv"])
    .cluster()
    .status(),
    core("Pod", "pods", "core.v1.Pod")
        .short(&["po"])
        .all()
        .counted()
        .subs(POD_SUBS),
    core("PodTemplate", "podtemplates", "core.v1.PodTemplate").counted(),
    core(
        "ReplicationController",
        "replicationcontrollers",
        "core.v1.ReplicationController",
    )
    .short(&["rc"])
    .all()
    .counted()
    .subs(SCALED),
    core("ResourceQuota", "resourcequotas", "core.v1.ResourceQuota")
        .short(&["quota"])
        .status(),
    core("Secret", "secrets", "core.v1.Secret"),
    core("ServiceAccount", "serviceaccounts", "core.v1.ServiceAccount")
        .short(&["sa"])
        .subs(&[sub_of(
            "token",
            "authentication.k8s.io",
            "v1",
            "TokenRequest",
            CREATE,
        )]),
    core("Service", "services", "core.v1.Service")
        .short(&["svc"])
        .all()
        .subs(&[
            sub_of("proxy", "", "v1", "ServiceProxyOptions", ALL_METHODS),
            STATUS,
        ]),
    apps(
        "ControllerRevision",
        "controllerrevisions",
        "apps.v1.ControllerRevision",
    )
    .uncounted(),
    apps("DaemonSet", "daemonsets", "apps.v1.DaemonSet")
        .short(&["ds"])
        .status(),
    apps("Deployment", "deployments", "apps.v1.Deployment")
        .short(&["deploy"])
        .subs(SCALED),
    apps("ReplicaSet", "replicasets", "apps.v1.ReplicaSet")
        .short(&["rs"])
        .subs(SCALED),
    apps("StatefulSet", "statefulsets", "apps.v1.StatefulSet")
        .short(&["sts"])
        .subs(SCALED),
    Kind::new(
        "authentication.k8s.io",
        "v1",
        "SelfSubjectReview",
        "selfsubjectreviews",
        "authentication.v1.SelfSubjectReview",
    )
    .cluster()
    .verbs(CREATE),
    Kind::new(
        "authentication.k8s.io",
        "v1",
        "TokenReview",
        "tokenreviews",
        "authentication.v1.TokenReview",
    )
    .cluster()
    .verbs(CREATE),
    authz(
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "authorization.v1.LocalSubjectAccessReview",
    ),
    authz(
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "authorization.v1.SelfSubjectAccessReview",
    )
    .cluster(),
    authz(
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "authorization.v1.SelfSubjectRulesReview",
    )
    .cluster(),
    authz(
        "SubjectAccessReview",
        "subjectaccessreviews",
        "authorization.v1.SubjectAccessReview",
    )
    .cluster(),
    Kind::new(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "autoscaling.v2.HorizontalPodAutoscaler",
    )
    .short(&["hpa"])
    .all()
    .status(),
    Kind::new(
        "autoscaling",
        "v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "autoscaling.v1.HorizontalPodAutoscaler",
    )
    .short(&["hpa"])
    .all()
    .status(),
    Kind::new("batch", "v1", "CronJob", "cronjobs", "batch.v1.CronJob")
        .short(&["cj"])
        .all()
        .counted()
        .status(),
    Kind::new("batch", "v1", "Job", "jobs", "batch.v1.Job")
        .all()
        .counted()
        .status(),
    Kind::new(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "certificates.v1.CertificateSigningRequest",
    )
    .short(&["csr"])
    .cluster()
    .subs(&[sub("approval", GPU), STATUS]),
    Kind::new(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        "coordination.v1.Lease",
    ),
    Kind::new(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "discovery.v1.EndpointSlice",
    )
    .counted(),
    Kind::new("events.k8s.io", "v1", "Event", "events", "events.v1.Event")
        .short(&["ev"])
        .view_of("events"),
    Kind::new("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", "")
        .cluster()
        .verbs(&["get", "list"]),
    Kind::new("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", "").verbs(&["get", "list"]),
    Kind::new(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "FlowSchema",
        "flowschemas",
        "flowcontrol.v1.FlowSchema",
    )
    .cluster()
    .counted()
    .status(),
    Kind::new(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
        "flowcontrol.v1.PriorityLevelConfiguration",
    )
    .cluster()
    .counted()
    .status(),
    net("IngressClass", "ingressclasses", "networking.v1.IngressClass")
        .cluster()
        .counted(),
    net("Ingress", "ingresses", "networking.v1.Ingress")
        .short(&["ing"])
        .counted()
        .status(),
    net("IPAddress", "ipaddresses", "networking.v1.IPAddress")
        .short(&["ip"])
        .cluster()
        .counted(),
    net("NetworkPolicy", "networkpolicies", "networking.v1.NetworkPolicy")
        .short(&["netpol"])
        .counted(),
    net("ServiceCIDR", "servicecidrs", "networking.v1.ServiceCIDR")
        .cluster()
        .counted()
        .status(),
    Kind::new(
        "node.k8s.io",
        "v1",
        "RuntimeClass",
        "runtimeclasses",
        "node.v1.RuntimeClass",
    )
    .cluster(),
    Kind::new(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "policy.v1.PodDisruptionBudget",
    )
    .short(&["pdb"])
    .counted()
    .status(),
    rbac(
        "ClusterRoleBinding",
        "clusterrolebindings",
        "rbac.v1.ClusterRoleBinding",
    )
    .cluster(),
    rbac("ClusterRole", "clusterroles", "rbac.v1.ClusterRole").cluster(),
    rbac("RoleBinding", "rolebindings", "rbac.v1.RoleBinding"),
    rbac("Role", "roles", "rbac.v1.Role"),
    Kind::new(
        "scheduling.k8s.io",
        "v1",
        "PriorityClass",
        "priorityclasses",
        "scheduling.v1.PriorityClass",
    )
    .short(&["pc"])
    .cluster()
    .counted(),
    dra("DeviceClass", "deviceclasses", "resource.v1.DeviceClass").cluster(),
    dra("ResourceClaim", "resourceclaims", "resource.v1.ResourceClaim").status(),
    dra(
        "ResourceClaimTemplate",
        "resourceclaimtemplates",
        "resource.v1.ResourceClaimTemplate",
    ),
    dra("ResourceSlice", "resourceslices", "resource.v1.ResourceSlice").cluster(),
    storage("CSIDriver", "csidrivers", "storage.v1.CSIDriver"),
    storage("CSINode", "csinodes", "storage.v1.CSINode"),
    Kind::new(
        "storage.k8s.io",
        "v1",
        "CSIStorageCapacity",
        "csistoragecapacities",
        "storage.v1.CSIStorageCapacity",
    ),
    storage("StorageClass", "storageclasses", "storage.v1.StorageClass").short(&["sc"]),
    storage(
        "VolumeAttachment",
        "volumeattachments",
        "storage.v1.VolumeAttachment",
    )
    .status(),
    storage(
        "VolumeAttributesClass",
        "volumeattributesclasses",
        "storage.v1.VolumeAttributesClass",
    )
    .short(&["vac"]),
    Kind::new("swarm.tripod.dev", "v1", "SwarmService", "swarmservices", "").verbs(READ),
    Kind::new("swarm.tripod.dev", "v1", "SwarmCluster", "swarmclusters", "")
        .cluster()
        .verbs(READ),
    Kind::new("ecs.tripod.dev", "v1", "EcsCluster", "ecsclusters", "")
        .cluster()
        .verbs(READ),
    Kind::new("ecs.tripod.dev", "v1", "TaskDefinition", "taskdefinitions", "")
        .cluster()
        .verbs(READ),
    Kind::new("ecs.tripod.dev", "v1", "EcsService", "ecsservices", "").verbs(READ),
    Kind::new("aws.tripod.dev", "v1", "Role", "roles", "")
        .cluster()
        .verbs(READ),
    Kind::new("aws.tripod.dev", "v1", "User", "users", "")
        .cluster()
        .verbs(READ),
    Kind::new("aws.tripod.dev", "v1", "Policy", "policies", "")
        .cluster()
        .verbs(READ),
    Kind::new("aws.tripod.dev", "v1", "SecurityGroup", "securitygroups", "")
        .cluster()
        .verbs(READ),
    Kind::new("aws.tripod.dev", "v1", "LogGroup", "loggroups", "")
        .cluster()
        .verbs(READ),
    Kind::new("aws.tripod.dev", "v1", "LogStream", "logstreams", "")
        .cluster()
        .verbs(READ),
    Kind::new("tripod.dev", "v1", "Network", "networks", "")
        .cluster()
        .verbs(READ),
    Kind::new("tripod.dev", "v1", "Image", "images", "")
        .cluster()
        .verbs(READ),
];

impl Kind {
    const fn uncounted(mut self) -> Self {
        self.categories = &[];
        self.generation = false;
        self
    }
}

/// All kinds that are served, by path and by name.
#[derive(Debug)]
pub struct Registry {
    by_plural: HashMap<(&'static str, &'static str, &'static str), &'static Kind>,
    groups: Vec<Group>,
}

/// A group with its versions, the preferred one first.
#[derive(Debug)]
pub struct Group {
    /// Name; empty for the core.
    pub name: &'static str,
    /// Versions with their kinds.
    pub versions: Vec<(&'static str, Vec<&'static Kind>)>,
}

/// The registry.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_plural = HashMap::new();
        for kind in KINDS {
            by_plural.insert((kind.group, kind.version, kind.plural), kind);
            if !groups.iter().any(|g| g.name == kind.group) {
                groups.push(Group {
                    name: kind.group,
                    versions: Vec::new(),
                });
            }
            let Some(group) = groups.iter_mut().find(|g| g.name == kind.group) else {
                continue;
            };
            match group.versions.iter_mut().find(|(v, _)| *v == kind.version) {
                Some((_, kinds)) => kinds.push(kind),
                None => group.versions.push((kind.version, vec![kind])),
            }
        }
        Registry { by_plural, groups }
    })
}

impl Registry {
    /// The kind behind `/apis/GROUP/VERSION/PLURAL`.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.by_plural.get(&(group, version, plural)).copied()
    }

    /// The kind of an object's `apiVersion` and `kind`.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kinds()
            .find(|k| k.group == group && k.version == version && k.kind == kind)
    }

    /// A kind of a group in its preferred version, by its plural name.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&'static Kind> {
        self.kinds().find(|k| k.group == group && k.plural == plural)
    }

    /// The groups in the order of discovery.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// All kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &'static Kind> + use<> {
        KINDS.iter()
    }

    /// The kind whose objects are stored under this name of the store.
    pub fn stored(&self, resource: &str) -> Option<&'static Kind> {
        self.kinds()
            .find(|k| k.view_of.is_none() && k.is_stored() && k.resource() == resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_path_and_by_name() {
        let r = registry();
        let deployments = r.find("apps", "v1", "deployments").unwrap();
        assert_eq!(deployments.resource(), "deployments.apps");
        assert_eq!(r.by_kind("v1", "Pod").unwrap().plural, "pods");
        assert_eq!(
            r.preferred("autoscaling", "horizontalpodautoscalers")
                .unwrap()
                .version,
            "v2"
        );
        assert_eq!(r.stored("events").unwrap().group, "");
        assert!(r.find("apps", "v1", "pods").is_none());
        assert!(r.by_kind("v1", "Deployment").is_none());
        assert_eq!(r.groups()[0].name, "");
    }
}
