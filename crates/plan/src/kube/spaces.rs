//! Namespaces: their end with all that is in them, and what each of them is given.

use std::collections::BTreeMap;

use serde_json::json;

use super::conditions::{self, Say};
use super::kinds::{CONFIG_MAPS, NAMESPACES, PODS, SECRETS, SERVICE_ACCOUNTS};
use super::pods::is_foreign;
use super::work::Work;

/// Decides about a namespace: everything in one that goes is asked to go, and then its finalizer is dropped.
pub(super) fn decide(w: &mut Work<'_>, name: &str) {
    let Some(space) = w.k.get(NAMESPACES, "", name).cloned() else {
        return;
    };
    if !space.meta.is_deleted() {
        return;
    }
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
    let contents: Vec<_> = w.k.contents(name).cloned().collect();
    for object in &contents {
        if object.meta.is_deleted() || !object.meta.finalizers.is_empty() {
            *left.entry(object.key.resource.to_string()).or_default() += 1;
        }
        for finalizer in &object.meta.finalizers {
            *finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
    let pods: Vec<_> = w.k.pods_in(name).cloned().collect();
    for pod in pods.iter().filter(|p| !is_foreign(&p.pod)) {
        let there = !pod.pod.spec.node_name.is_empty() || !pod.pod.metadata.finalizers.is_empty();
        *left.entry(PODS.into()).or_default() += usize::from(there);
        for finalizer in &pod.pod.metadata.finalizers {
            *finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        w.delete_pod(pod, None);
    }
    // What pods may need to end well goes after them.
    if pods.iter().all(|p| is_foreign(&p.pod)) {
        contents.iter().for_each(|object| w.delete(object));
    }
    left.retain(|_, n| *n > 0);
    let empty = w.k.contents(name).next().is_none() && pods.is_empty();
    let value = space.value();
    let others = value["spec"]["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let others: Vec<_> = others.into_iter().filter(|f| f != "kubernetes").collect();
    if empty && space.meta.finalizers.is_empty() && others.is_empty() {
        w.remove(&space);
        return;
    }
    let mut list = space.value()["status"]["conditions"].clone();
    say_what_is_left(w, &mut list, &left, &finalizers);
    w.update(&space, |v| {
        v["status"]["phase"] = "Terminating".into();
        v["status"]["conditions"] = list;
        if empty {
            v["spec"]["finalizers"] = json!(others);
        }
    });
}

fn say_what_is_left(
    w: &Work<'_>,
    list: &mut serde_json::Value,
    left: &BTreeMap<String, usize>,
    finalizers: &BTreeMap<String, usize>,
) {
    let joined = |map: &BTreeMap<String, usize>, what: &str| {
        let texts = map
            .iter()
            .map(|(k, n)| format!("{k} {what} {n} resource instances"));
        texts.collect::<Vec<_>>().join(", ")
    };
    let remain = format!("Some resources are remaining: {}", joined(left, "has"));
    let held = format!(
        "Some content in the namespace has finalizers remaining: {}",
        joined(finalizers, "in")
    );
    let pick = |bad: bool, good: &'static str, worse: &'static str| if bad { worse } else { good };
    let says = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            !left.is_empty(),
            pick(!left.is_empty(), "ContentRemoved", "SomeResourcesRemain"),
            pick(!left.is_empty(), "All content successfully removed", ""),
        ),
        (
            "NamespaceFinalizersRemaining",
            !finalizers.is_empty(),
            pick(
                !finalizers.is_empty(),
                "ContentHasNoFinalizers",
                "SomeFinalizersRemain",
            ),
            pick(
                !finalizers.is_empty(),
                "All content-preserving finalizers finished",
                "",
            ),
        ),
    ];
    for (kind, bad, reason, message) in says {
        let message = match (message, kind) {
            ("", "NamespaceContentRemaining") => &remain,
            ("", _) => &held,
            (text, _) => text,
        };
        let say = Say {
            kind,
            status: if bad { "True" } else { "False" },
            reason,
            message,
        };
        conditions::set(list, say, w.now);
    }
}

/// Ends a secret that holds the token of an account that is no more.
pub(super) fn token(w: &mut Work<'_>, namespace: &str, name: &str) {
    let Some(secret) = w.k.get(SECRETS, namespace, name).cloned() else {
        return;
    };
    let value = secret.value();
    if value["type"] != "kubernetes.io/service-account-token" || secret.meta.is_deleted() {
        return;
    }
    let said = |what: &str| {
        let key = format!("kubernetes.io/service-account.{what}");
        value["metadata"]["annotations"][&key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (account, uid) = (said("name"), said("uid"));
    let there = w.k.get(SERVICE_ACCOUNTS, namespace, &account);
    if there.is_none_or(|a| !uid.is_empty() && *a.meta.uid != *uid) {
        w.delete(&secret);
    }
}

/// Gives a namespace its default account and the certificate of the cluster's CA.
pub(super) fn furnish(w: &mut Work<'_>, name: &str) {
    let lives =
        w.k.get(NAMESPACES, "", name)
            .is_some_and(|n| !n.meta.is_deleted());
    if !lives {
        return;
    }
    if w.k.get(SERVICE_ACCOUNTS, name, "default").is_none() {
        w.create(
            SERVICE_ACCOUNTS,
            json!({ "metadata": { "name": "default", "namespace": name } }),
        );
    }
    let ca = w.view.cluster().map(|c| c.status.ca_cert.clone());
    let Some(ca) = ca.filter(|c| !c.is_empty()) else {
        return;
    };
    let about = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints \
                 such as the internal service IP or kubernetes.default.svc.";
    match w.k.get(CONFIG_MAPS, name, "kube-root-ca.crt").cloned() {
        None => {
            w.create(
                CONFIG_MAPS,
                json!({
                    "metadata": {
                        "name": "kube-root-ca.crt", "namespace": name,
                        "annotations": { "kubernetes.io/description": about },
                    },
                    "data": { "ca.crt": ca },
                }),
            );
        }
        Some(map) => {
            w.update(&map, |v| v["data"] = json!({ "ca.crt": ca }));
        }
    }
}
