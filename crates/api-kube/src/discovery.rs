//! What groups, versions and kinds there are.

use serde_json::{Value, json};
use tripod_schema::kinds::Group;
use tripod_schema::{Kind, Sub, registry};

use crate::call::Call;
use crate::encode::value_reply;
use crate::negotiate::Shape;
use crate::reply::Reply;
use http::StatusCode;
use tripod_schema::Failure;

/// Answers a path of discovery; `None` where it is none.
pub(crate) fn serve(call: &Call, segments: &[&str]) -> Option<Reply> {
    let aggregated = match call.accept.shape {
        Shape::Discovery(version) => Some(version),
        _ => None,
    };
    let value = match (segments, aggregated) {
        (["api"], Some(version)) => return Some(aggregate(call, version, true)),
        (["apis"], Some(version)) => return Some(aggregate(call, version, false)),
        (["api"], None) => json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{
                "clientCIDR": "0.0.0.0/0",
                "serverAddress": format!("{}:{}", call.manager.advertised(), call.shared.port()),
            }],
        }),
        (["apis"], None) => {
            let groups: Vec<Value> = registry()
                .groups()
                .iter()
                .filter(|g| !g.name.is_empty())
                .map(group)
                .collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        (["api", version], _) => resources("", version)?,
        (["apis", name], _) => {
            let found = registry()
                .groups()
                .iter()
                .find(|g| g.name == *name && !name.is_empty());
            let Some(found) = found else {
                return Some(Err(Failure::no_page()));
            };
            let mut value = group(found);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        (["apis", name, version], _) => match resources(name, version) {
            Some(value) => value,
            None => return Some(Err(Failure::no_page())),
        },
        _ => return None,
    };
    Some(value_reply(call, StatusCode::OK, &value))
}

fn group(group: &Group) -> Value {
    let version = |v: &str| json!({"groupVersion": format!("{}/{v}", group.name), "version": v});
    let versions: Vec<Value> = group.versions.iter().map(|(v, _)| version(v)).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

/// `APIResourceList` of a group and version.
fn resources(group: &str, version: &str) -> Option<Value> {
    let group = registry().groups().iter().find(|g| g.name == group)?;
    let (_, kinds) = group.versions.iter().find(|(v, _)| *v == version)?;
    let mut all = Vec::new();
    for kind in kinds {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs,
        });
        if !kind.short.is_empty() {
            resource["shortNames"] = kind.short.into();
        }
        if !kind.categories.is_empty() {
            resource["categories"] = kind.categories.into();
        }
        if kind.is_stored() {
            resource["storageVersionHash"] = hash(kind).into();
        }
        all.push(resource);
        for sub in kind.subs {
            let mut resource = json!({
                "name": format!("{}/{}", kind.plural, sub.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub_kind(kind, sub),
                "verbs": sub.verbs,
            });
            if !sub.version.is_empty() && (sub.group != kind.group || sub.version != kind.version) {
                resource["group"] = sub.group.into();
                resource["version"] = sub.version.into();
            }
            all.push(resource);
        }
    }
    let group_version = if group.name.is_empty() {
        version.to_owned()
    } else {
        format!("{}/{version}", group.name)
    };
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": all});
    if !group.name.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

/// A word that changes when the stored form of a kind does.
fn hash(kind: &Kind) -> String {
    use base64::Engine as _;
    let text = format!("{}/{}/{}", kind.group, kind.version, kind.kind);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..8])
}

fn sub_kind(kind: &Kind, sub: &Sub) -> &'static str {
    if sub.kind.is_empty() { kind.kind } else { sub.kind }
}

/// All groups with all their kinds, in one answer.
fn aggregate(call: &Call, version: &str, core: bool) -> Reply {
    let groups = registry().groups().iter().filter(|g| g.name.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|(version, kinds)| {
                    let resources: Vec<Value> = kinds.iter().map(|k| aggregated(k)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group.name, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let mut response = value_reply(call, StatusCode::OK, &list)?;
    let kind = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static(kind));
    Ok(response)
}

fn aggregated(kind: &Kind) -> Value {
    let group_kind =
        |group: &str, version: &str, name: &str| json!({"group": group, "version": version, "kind": name});
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": group_kind(kind.group, kind.version, kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular(),
        "verbs": kind.verbs,
    });
    if !kind.short.is_empty() {
        resource["shortNames"] = kind.short.into();
    }
    if !kind.categories.is_empty() {
        resource["categories"] = kind.categories.into();
    }
    let subs: Vec<Value> = kind
        .subs
        .iter()
        .map(|sub| {
            let (group, version) = if sub.version.is_empty() {
                (kind.group, kind.version)
            } else {
                (sub.group, sub.version)
            };
            json!({
                "subresource": sub.name,
                "responseKind": group_kind(group, version, sub_kind(kind, sub)),
                "verbs": sub.verbs,
            })
        })
        .collect();
    if !subs.is_empty() {
        resource["subresources"] = subs.into();
    }
    resource
}

/// The paths that the root lists.
pub(crate) fn paths() -> Value {
    let mut paths: Vec<String> = vec!["/api".into(), "/api/v1".into(), "/apis".into()];
    for group in registry().groups().iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(
            group
                .versions
                .iter()
                .map(|(v, _)| format!("/apis/{}/{v}", group.name)),
        );
    }
    for path in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ] {
        paths.push(path.into());
    }
    paths.sort();
    json!({ "paths": paths })
}
