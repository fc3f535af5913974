//! The roles and bindings that every cluster starts with; what was deleted comes back when a manager starts.

use serde_json::{Value, json};
use tripod_engine::Manager;
use tripod_schema::Failure;
use tripod_schema::decode::format_time;
use tripod_schema::failure::Result;
use tripod_store::{Key, Txn};

const GROUP: &str = "rbac.authorization.k8s.io";
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn paths(paths: &[&str], verbs: &[&str]) -> Value {
    json!({"nonResourceURLs": paths, "verbs": verbs})
}

/// What readers of a namespace see: all but secrets and access rules.
fn view() -> Vec<Value> {
    let core = [
        "configmaps",
        "endpoints",
        "persistentvolumeclaims",
        "persistentvolumeclaims/status",
        "pods",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "serviceaccounts",
        "services",
        "services/status",
        "bindings",
        "events",
        "limitranges",
        "namespaces/status",
        "pods/log",
        "pods/status",
        "replicationcontrollers/status",
        "resourcequotas",
        "resourcequotas/status",
        "namespaces",
    ];
    let apps = [
        "controllerrevisions",
        "daemonsets",
        "daemonsets/status",
        "deployments",
        "deployments/scale",
        "deployments/status",
        "replicasets",
        "replicasets/scale",
        "replicasets/status",
        "statefulsets",
        "statefulsets/scale",
        "statefulsets/status",
    ];
    vec![
        rule(&[""], &core, READ),
        rule(&["discovery.k8s.io"], &["endpointslices"], READ),
        rule(&["apps"], &apps, READ),
        rule(
            &["autoscaling"],
            &["horizontalpodautoscalers", "horizontalpodautoscalers/status"],
            READ,
        ),
        rule(
            &["batch"],
            &["cronjobs", "cronjobs/status", "jobs", "jobs/status"],
            READ,
        ),
        rule(
            &["policy"],
            &["poddisruptionbudgets", "poddisruptionbudgets/status"],
            READ,
        ),
        rule(
            &["networking.k8s.io"],
            &["ingresses", "ingresses/status", "networkpolicies"],
            READ,
        ),
    ]
}

/// What those who work in a namespace may do beside reading.
fn edit() -> Vec<Value> {
    let streams = [
        "pods/attach",
        "pods/exec",
        "pods/portforward",
        "pods/proxy",
        "secrets",
        "services/proxy",
    ];
    let core = [
        "pods",
        "pods/attach",
        "pods/exec",
        "pods/portforward",
        "pods/proxy",
        "configmaps",
        "events",
        "persistentvolumeclaims",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "secrets",
        "serviceaccounts",
        "services",
        "services/proxy",
    ];
    let apps = [
        "daemonsets",
        "deployments",
        "deployments/rollback",
        "deployments/scale",
        "replicasets",
        "replicasets/scale",
        "statefulsets",
        "statefulsets/scale",
    ];
    vec![
        rule(&[""], &streams, READ),
        rule(&[""], &["serviceaccounts"], &["impersonate"]),
        rule(&[""], &core, WRITE),
        rule(&[""], &["pods/eviction", "serviceaccounts/token"], &["create"]),
        rule(&["apps"], &apps, WRITE),
        rule(&["autoscaling"], &["horizontalpodautoscalers"], WRITE),
        rule(&["batch"], &["cronjobs", "jobs"], WRITE),
        rule(&["policy"], &["poddisruptionbudgets"], WRITE),
        rule(&["networking.k8s.io"], &["ingresses", "networkpolicies"], WRITE),
        rule(&["coordination.k8s.io"], &["leases"], &[READ, WRITE].concat()),
    ]
}

fn admin() -> Vec<Value> {
    vec![
        rule(
            &["authorization.k8s.io"],
            &["localsubjectaccessreviews"],
            &["create"],
        ),
        rule(&[GROUP], &["rolebindings", "roles"], &[READ, WRITE].concat()),
    ]
}

/// Names, rules and, of those that gather others, the label of what they gather.
fn cluster_roles() -> Vec<(&'static str, Vec<Value>, Option<&'static str>)> {
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let reviews = || {
        vec![
            rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
            rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
        ]
    };
    vec![
        (
            "cluster-admin",
            vec![rule(&["*"], &["*"], &["*"]), paths(&["*"], &["*"])],
            None,
        ),
        ("admin", [admin(), edit(), view()].concat(), Some("admin")),
        ("edit", [edit(), view()].concat(), Some("edit")),
        ("view", view(), Some("view")),
        ("system:aggregate-to-admin", admin(), None),
        ("system:aggregate-to-edit", edit(), None),
        ("system:aggregate-to-view", view(), None),
        ("system:discovery", vec![paths(&discovery, &["get"])], None),
        (
            "system:public-info-viewer",
            vec![paths(
                &["/healthz", "/livez", "/readyz", "/version", "/version/"],
                &["get"],
            )],
            None,
        ),
        (
            "system:basic-user",
            vec![
                rule(
                    &["authorization.k8s.io"],
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    &["create"],
                ),
                rule(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
            ],
            None,
        ),
        (
            "system:service-account-issuer-discovery",
            vec![paths(
                &[
                    "/.well-known/openid-configuration",
                    "/.well-known/openid-configuration/",
                    "/openid/v1/jwks",
                    "/openid/v1/jwks/",
                ],
                &["get"],
            )],
            None,
        ),
        (
            "system:monitoring",
            vec![paths(
                &[
                    "/healthz",
                    "/healthz/*",
                    "/livez",
                    "/livez/*",
                    "/metrics",
                    "/metrics/slis",
                    "/readyz",
                    "/readyz/*",
                ],
                &["get"],
            )],
            None,
        ),
        ("system:auth-delegator", reviews(), None),
        (
            "system:kubelet-api-admin",
            vec![
                rule(&[""], &["nodes"], &["get", "list", "watch", "proxy"]),
                rule(
                    &[""],
                    &["nodes/log", "nodes/metrics", "nodes/proxy", "nodes/stats"],
                    &["*"],
                ),
            ],
            None,
        ),
        ("system:persistent-volume-provisioner", provisioner(), None),
        (
            "system:node-proxier",
            vec![
                rule(&[""], &["endpoints", "services"], &["list", "watch"]),
                rule(&[""], &["nodes"], READ),
                rule(
                    &["", "events.k8s.io"],
                    &["events"],
                    &["create", "patch", "update"],
                ),
                rule(&["discovery.k8s.io"], &["endpointslices"], &["list", "watch"]),
            ],
            None,
        ),
        (
            "system:node-bootstrapper",
            vec![rule(
                &["certificates.k8s.io"],
                &["certificatesigningrequests"],
                &["create", "get", "list", "watch"],
            )],
            None,
        ),
    ]
}

fn provisioner() -> Vec<Value> {
    vec![
        rule(
            &[""],
            &["persistentvolumes"],
            &["create", "delete", "get", "list", "watch"],
        ),
        rule(
            &[""],
            &["persistentvolumeclaims"],
            &["get", "list", "update", "watch"],
        ),
        rule(&["storage.k8s.io"], &["storageclasses"], READ),
        rule(
            &[""],
            &["events"],
            &["create", "list", "patch", "update", "watch"],
        ),
    ]
}

/// Names of bindings, their roles, and the groups they are for.
const BINDINGS: [(&str, &str, &[&str]); 5] = [
    ("cluster-admin", "cluster-admin", &["system:masters"]),
    ("system:discovery", "system:discovery", &["system:authenticated"]),
    (
        "system:basic-user",
        "system:basic-user",
        &["system:authenticated"],
    ),
    (
        "system:public-info-viewer",
        "system:public-info-viewer",
        &["system:authenticated", "system:unauthenticated"],
    ),
    ("system:monitoring", "system:monitoring", &["system:monitoring"]),
];
const ISSUER_BINDING: (&str, &[&str]) = (
    "system:service-account-issuer-discovery",
    &["system:serviceaccounts"],
);

fn meta(name: &str, now: &str) -> Value {
    json!({
        "name": name,
        "uid": crate::objects::new_uid(),
        "creationTimestamp": now,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn objects(now: &str) -> Vec<(Key, Value)> {
    let mut all = Vec::new();
    for (name, rules, gathers) in cluster_roles() {
        let mut metadata = meta(name, now);
        if let Some(to) = name.strip_prefix("system:aggregate-to-") {
            metadata["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{to}")] = "true".into();
        }
        let mut role = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": metadata, "rules": rules});
        if let Some(label) = gathers {
            let label = format!("rbac.authorization.k8s.io/aggregate-to-{label}");
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        }
        all.push((Key::cluster(format!("clusterroles.{GROUP}").as_str(), name), role));
    }
    let (issuer, for_issuer) = ISSUER_BINDING;
    for (name, role, groups) in BINDINGS.into_iter().chain([(issuer, issuer, for_issuer)]) {
        let subjects: Vec<Value> = groups
            .iter()
            .map(|g| json!({"kind": "Group", "apiGroup": GROUP, "name": g}))
            .collect();
        let binding = json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "ClusterRoleBinding",
            "metadata": meta(name, now),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
            "subjects": subjects,
        });
        all.push((
            Key::cluster(format!("clusterrolebindings.{GROUP}").as_str(), name),
            binding,
        ));
    }
    all
}

/// Makes what is missing.
///
/// # Errors
/// When the store cannot be written.
pub(crate) async fn ensure(manager: &Manager) -> Result<()> {
    let state = manager.state();
    let now = format_time(tripod_model::Time::now(), false);
    let mut txn = Txn::new();
    for (key, object) in objects(&now) {
        if state.get(&key).is_none() {
            txn = txn.create(key, tripod_schema::value::to_bytes(&object), Vec::new());
        }
    }
    drop(state);
    if txn.ops.is_empty() {
        return Ok(());
    }
    match manager.write(txn).await {
        Ok(_) => Ok(()),
        // Another manager makes them too.
        Err(tripod_engine::WriteError::Refused(_)) => Ok(()),
        Err(tripod_engine::WriteError::Failed(e)) => Err(Failure::unavailable(e)),
    }
}
