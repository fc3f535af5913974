//! OpenAPI documents, made from the registry of kinds and the definitions of the typed library.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::definitions::{definitions, full_name, short_name};
use crate::kinds::{Kind, registry};
use crate::types::{Merge, Ty, types};

/// `api/v1`, `apis/apps/v1` …
pub fn group_versions() -> Vec<String> {
    let mut all = Vec::new();
    for group in registry().groups() {
        for (version, _) in &group.versions {
            all.push(match group.name {
                "" => format!("api/{version}"),
                name => format!("apis/{name}/{version}"),
            });
        }
    }
    all
}

/// The document of version 3 for one group and version.
pub fn v3(group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<&Kind> = registry()
        .kinds()
        .filter(|k| k.group == group && k.version == version)
        .collect();
    if kinds.is_empty() {
        return None;
    }
    let all = definitions();
    let mut needed: Vec<String> = kinds
        .iter()
        .filter(|k| !k.schema.is_empty())
        .map(|k| full_name(k.schema))
        .collect();
    needed.extend(
        ["DeleteOptions", "ListMeta", "Status", "ObjectMeta"].map(|n| full_name(&format!("meta.v1.{n}"))),
    );
    for sub in kinds.iter().flat_map(|k| k.subs) {
        needed.extend(match sub.kind {
            "Scale" => Some(full_name("autoscaling.v1.Scale")),
            "Eviction" => Some(full_name("policy.v1.Eviction")),
            "TokenRequest" => Some(full_name("authentication.v1.TokenRequest")),
            _ => None,
        });
    }
    let mut schemas = Map::new();
    let mut seen = BTreeSet::new();
    while let Some(name) = needed.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        if let Some(schema) = all.get(&name) {
            references(schema, &mut needed);
            schemas.insert(
                name.clone(),
                described(&name, schema, "#/components/schemas/", true),
            );
        }
    }
    let mut paths = Map::new();
    for kind in &kinds {
        add_kind(kind, &mut schemas, "#/components/schemas/");
        add_paths(kind, &mut paths, "#/components/schemas/", true);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
        },
    }))
}

/// The document of version 2.
pub fn v2() -> Value {
    let mut schemas = Map::new();
    for (name, schema) in &definitions() {
        schemas.insert(name.clone(), described(name, schema, "#/definitions/", false));
    }
    let mut paths = Map::new();
    for kind in registry().kinds() {
        add_kind(kind, &mut schemas, "#/definitions/");
        add_paths(kind, &mut paths, "#/definitions/", false);
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "definitions": schemas,
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
        "security": [{"BearerToken": []}],
    })
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.extend(reference.rsplit('/').next().map(str::to_owned));
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

/// A definition as documents write it, with how its lists merge.
fn described(name: &str, schema: &Value, prefix: &str, three: bool) -> Value {
    let mut schema = rewritten(schema, prefix, three);
    let short = short_name(name);
    if let Ty::Object(id) = types().named(short)
        && let Some(Value::Object(properties)) = schema.get_mut("properties")
    {
        for (field, known) in &types().object(id).fields {
            if let Some(Value::Object(property)) = properties.get_mut(field) {
                annotate(property, known);
            }
        }
    }
    if let Some(kind) = registry().kinds().find(|k| k.schema == short) {
        schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
    }
    if short == "meta.v1.DeleteOptions" {
        let all = group_versions().into_iter().map(|gv| {
            let mut parts = gv.split('/').skip(1).collect::<Vec<_>>();
            let version = parts.pop().unwrap_or_default().to_owned();
            json!({"group": parts.first().copied().unwrap_or_default(), "version": version, "kind": "DeleteOptions"})
        });
        schema["x-kubernetes-group-version-kind"] = all.collect();
    }
    schema
}

fn annotate(property: &mut Map<String, Value>, field: &crate::types::Field) {
    let list = matches!(field.ty, Ty::List(_));
    match &field.merge {
        Merge::Atomic if list => drop(property.insert("x-kubernetes-list-type".into(), "atomic".into())),
        Merge::Atomic if matches!(field.ty, Ty::Object(_) | Ty::Map(_)) => {
            property.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        Merge::Set => drop(property.insert("x-kubernetes-list-type".into(), "set".into())),
        Merge::Keys(keys) => {
            property.insert("x-kubernetes-list-type".into(), "map".into());
            property.insert("x-kubernetes-list-map-keys".into(), json!(keys));
        }
        _ => {}
    }
    if let Some(key) = &field.patch_key {
        let strategy = if field.retain_keys {
            "merge,retainKeys"
        } else {
            "merge"
        };
        property.insert("x-kubernetes-patch-strategy".into(), strategy.into());
        if !key.is_empty() {
            property.insert("x-kubernetes-patch-merge-key".into(), key.as_str().into());
        }
    } else if field.retain_keys {
        property.insert("x-kubernetes-patch-strategy".into(), "retainKeys".into());
    }
}

fn rewritten(schema: &Value, prefix: &str, three: bool) -> Value {
    match schema {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("$ref", Value::String(reference)) => {
                        let name = reference.rsplit('/').next().unwrap_or_default();
                        let reference = format!("{prefix}{name}");
                        // Beside other members version 3 allows no reference.
                        if three && map.len() > 1 {
                            out.insert("allOf".into(), json!([{"$ref": reference}]));
                        } else {
                            out.insert("$ref".into(), reference.into());
                        }
                    }
                    ("x-kubernetes-int-or-string", _) => {
                        if three {
                            out.insert("oneOf".into(), json!([{"type": "string"}, {"type": "number"}]));
                        } else {
                            out.insert("type".into(), "string".into());
                        }
                    }
                    (_, value) => drop(out.insert(key.clone(), rewritten(value, prefix, three))),
                }
            }
            Value::Object(out)
        }
        Value::Array(list) => list.iter().map(|v| rewritten(v, prefix, three)).collect(),
        other => other.clone(),
    }
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// The name of a kind's schema in documents.
fn schema_name(kind: &Kind) -> String {
    if !kind.schema.is_empty() {
        return full_name(kind.schema);
    }
    let mut parts: Vec<&str> = kind.group.split('.').rev().collect();
    parts.push(kind.version);
    parts.push(kind.kind);
    parts.join(".")
}

/// Adds what the definitions lack: lists, and Tripod's own kinds.
fn add_kind(kind: &Kind, schemas: &mut Map<String, Value>, prefix: &str) {
    let name = schema_name(kind);
    if kind.schema.is_empty() {
        schemas.insert(
            name.clone(),
            json!({
                "type": "object",
                "description": format!("{} of {}.", kind.kind, kind.group),
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"$ref": format!("{prefix}{}", full_name("meta.v1.ObjectMeta"))},
                },
                "x-kubernetes-preserve-unknown-fields": true,
                "x-kubernetes-group-version-kind": [gvk(kind)],
            }),
        );
    }
    if !kind.can("list") {
        return;
    }
    schemas.insert(
        format!("{name}List"),
        json!({
            "type": "object",
            "description": format!("A list of {}.", kind.plural),
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"$ref": format!("{prefix}{}", full_name("meta.v1.ListMeta"))},
                "items": {"type": "array", "items": {"$ref": format!("{prefix}{name}")}},
            },
            "x-kubernetes-group-version-kind": [{"group": kind.group, "version": kind.version, "kind": kind.list_kind()}],
        }),
    );
}

const WRITES: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const LISTS: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const DELETES: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "orphanDependents",
    "propagationPolicy",
];

fn add_paths(kind: &Kind, paths: &mut Map<String, Value>, prefix: &str, three: bool) {
    let root = match kind.group {
        "" => format!("/api/{}", kind.version),
        group => format!("/apis/{group}/{}", kind.version),
    };
    let within = if kind.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("{root}{within}/{}", kind.plural);
    let schema = format!("{prefix}{}", schema_name(kind));
    let op = |verb: &str, action: &str, parameters: &[&str], body: bool| {
        operation(
            kind,
            verb,
            action,
            parameters,
            body.then_some(schema.as_str()),
            &schema,
            three,
        )
    };
    let mut many = json!({"parameters": path_parameters(kind.namespaced, false, three)});
    if kind.can("create") {
        many["post"] = op("create", "post", WRITES, true);
    }
    if kind.can("list") {
        many["get"] = op("list", "list", LISTS, false);
    }
    if kind.can("deletecollection") {
        many["delete"] = op("deleteCollection", "deletecollection", DELETES, false);
    }
    paths.insert(collection.clone(), many);
    if !kind.is_stored() {
        return;
    }
    if kind.namespaced && kind.can("list") {
        let everywhere = json!({"get": op("listForAllNamespaces", "list", LISTS, false)});
        paths.insert(format!("{root}/{}", kind.plural), everywhere);
    }
    let mut one = json!({"parameters": path_parameters(kind.namespaced, true, three)});
    one["get"] = op("read", "get", &[], false);
    if kind.can("update") {
        one["put"] = op("replace", "put", WRITES, true);
        one["patch"] = op("patch", "patch", &[WRITES, &["force"]].concat(), true);
    }
    if kind.can("delete") {
        one["delete"] = op("delete", "delete", DELETES, false);
    }
    paths.insert(format!("{collection}/{{name}}"), one);
    for sub in kind
        .subs
        .iter()
        .filter(|s| s.kind.is_empty() && s.verbs.contains(&"patch"))
    {
        let mut below = json!({"parameters": path_parameters(kind.namespaced, true, three)});
        let suffix = |verb: &str| format!("{verb}{}", sub.name);
        below["get"] = op(&suffix("read"), "get", &[], false);
        below["put"] = op(&suffix("replace"), "put", WRITES, true);
        below["patch"] = op(&suffix("patch"), "patch", &[WRITES, &["force"]].concat(), true);
        paths.insert(format!("{collection}/{{name}}/{}", sub.name), below);
    }
}

fn path_parameters(namespaced: bool, named: bool, three: bool) -> Value {
    let mut all = Vec::new();
    for (name, wanted) in [("namespace", namespaced), ("name", named)] {
        if wanted {
            let mut parameter = json!({"name": name, "in": "path", "required": true});
            set_type(&mut parameter, "string", three);
            all.push(parameter);
        }
    }
    all.into()
}

fn set_type(parameter: &mut Value, ty: &str, three: bool) {
    if three {
        parameter["schema"] = json!({"type": ty, "uniqueItems": true});
    } else {
        parameter["type"] = ty.into();
        parameter["uniqueItems"] = true.into();
    }
}

fn operation(
    kind: &Kind,
    verb: &str,
    action: &str,
    parameters: &[&str],
    body: Option<&str>,
    answer: &str,
    three: bool,
) -> Value {
    let mut all: Vec<Value> = parameters
        .iter()
        .map(|name| {
            let ty = match *name {
                "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
                "watch" | "allowWatchBookmarks" | "sendInitialEvents" | "orphanDependents" | "force" => {
                    "boolean"
                }
                _ => "string",
            };
            let mut parameter = json!({"name": name, "in": "query"});
            set_type(&mut parameter, ty, three);
            parameter
        })
        .collect();
    let answer = if action == "list" {
        format!("{answer}List")
    } else {
        answer.to_owned()
    };
    let id = format!(
        "{verb}{}{}{}",
        capital(kind.group.split('.').next().unwrap_or("core")),
        capital(kind.version),
        kind.kind
    );
    let mut operation = json!({
        "operationId": id,
        "tags": [kind.api_version().replace('/', "_")],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(kind),
    });
    if three {
        operation["responses"] = json!({"200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": answer}}}}});
        if let Some(body) = body {
            operation["requestBody"] =
                json!({"required": true, "content": {"*/*": {"schema": {"$ref": body}}}});
        }
    } else {
        operation["responses"] = json!({"200": {"description": "OK", "schema": {"$ref": answer}}});
        operation["produces"] = json!([
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf"
        ]);
        operation["consumes"] = json!(["*/*"]);
        if let Some(body) = body {
            all.push(json!({"name": "body", "in": "body", "required": true, "schema": {"$ref": body}}));
        }
    }
    operation["parameters"] = all.into();
    operation
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_somewhere() {
        let document = v3("apps", "v1").unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100);
        for name in found {
            assert!(schemas.contains_key(&name), "{name}");
        }
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(
            schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"][0]["kind"],
            "Deployment"
        );
        assert!(v3("nope", "v1").is_none());
    }

    #[test]
    fn version_two_is_whole() {
        let document = v2();
        let schemas = document["definitions"].as_object().unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        for name in found {
            assert!(schemas.contains_key(&name), "{name}");
        }
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert!(
            patch["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["name"] == "fieldValidation")
        );
    }
}
