//! Metadata.

use serde_json::Value;

use super::Causes;
use crate::failure::Cause;
use crate::kinds::Kind;
use crate::selector::{BAD_SUBDOMAIN, bad_key, bad_value_why, is_label, is_subdomain};
use crate::value::{at, list, text};

/// What a DNS label must be, in the words of the API.
pub(super) const BAD_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const BAD_LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
/// Bytes that all annotations together may have.
const ANNOTATIONS: usize = 256 << 10;

/// Why a name is not one of a kind's.
fn bad_name(resource: &str, name: &str) -> Option<String> {
    match resource {
        "namespaces" => (!is_label(name)).then(|| BAD_LABEL.into()),
        "services" => {
            let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
            (!(is_label(name) && starts)).then(|| BAD_LABEL_1035.into())
        }
        // Any segment of a path.
        "roles.rbac.authorization.k8s.io"
        | "clusterroles.rbac.authorization.k8s.io"
        | "rolebindings.rbac.authorization.k8s.io"
        | "clusterrolebindings.rbac.authorization.k8s.io" => match name {
            "." | ".." => Some(format!("may not be '{name}'")),
            name if name.contains('/') => Some("may not contain '/'".into()),
            name if name.contains('%') => Some("may not contain '%'".into()),
            _ => None,
        },
        "ipaddresses.networking.k8s.io" => name
            .parse::<std::net::IpAddr>()
            .is_err()
            .then(|| "must be a valid IP address".into()),
        "certificatesigningrequests.certificates.k8s.io" | "events" => {
            (name.contains('/') || name.contains('%')).then(|| "may not contain '/' or '%'".into())
        }
        _ if name.len() > 253 => Some("must be no more than 253 bytes".into()),
        _ => (!is_subdomain(name)).then(|| BAD_SUBDOMAIN.into()),
    }
}

pub(super) fn check(kind: &Kind, object: &Value, causes: &mut Causes) {
    let name = text(object, &["metadata", "name"]);
    if !kind.schema.is_empty()
        && let Some(why) = bad_name(&kind.resource(), name)
    {
        causes.push(Cause::invalid_text("metadata.name", name, why));
    }
    labels(at(object, &["metadata", "labels"]), "metadata.labels", causes);
    let mut size = 0;
    for (key, value) in at(object, &["metadata", "annotations"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        size += key.len() + value.as_str().map_or(0, str::len);
        if let Some(why) = bad_key(&key.to_lowercase()) {
            causes.push(Cause::invalid_text("metadata.annotations", key, why));
        }
    }
    if size > ANNOTATIONS {
        causes.push(Cause::too_long("metadata.annotations", ANNOTATIONS));
    }
    for (i, owner) in list(object, &["metadata", "ownerReferences"]).iter().enumerate() {
        for member in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &[member]).is_empty() {
                let path = format!("metadata.ownerReferences[{i}].{member}");
                causes.push(Cause::invalid_text(
                    path,
                    "",
                    format_args!("{member} must not be empty"),
                ));
            }
        }
    }
    let controllers = list(object, &["metadata", "ownerReferences"])
        .iter()
        .filter(|o| o["controller"] == Value::Bool(true));
    if controllers.count() > 1 {
        let why = "Only one reference can have Controller set to true.";
        causes.push(Cause::invalid(
            "metadata.ownerReferences",
            &at(object, &["metadata", "ownerReferences"])
                .cloned()
                .unwrap_or_default(),
            why,
        ));
    }
    for finalizer in list(object, &["metadata", "finalizers"])
        .iter()
        .filter_map(Value::as_str)
    {
        if let Some(why) = bad_key(finalizer) {
            causes.push(Cause::invalid_text("metadata.finalizers", finalizer, why));
        } else if !finalizer.contains('/')
            && !["orphan", "foregroundDeletion", "kubernetes"].contains(&finalizer)
        {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid_text("metadata.finalizers", finalizer, why));
        }
    }
}

/// Keys and values of labels.
pub(super) fn labels(labels: Option<&Value>, field: &str, causes: &mut Causes) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        if let Some(why) = bad_key(key) {
            causes.push(Cause::invalid_text(field, key, why));
        }
        let value = value.as_str().unwrap_or_default();
        if let Some(why) = bad_value_why(value) {
            causes.push(Cause::invalid_text(field, value, why));
        }
    }
}

/// A selector of labels.
pub(super) fn selector(selector: &Value, field: &str, causes: &mut Causes) {
    labels(
        selector.get("matchLabels"),
        &format!("{field}.matchLabels"),
        causes,
    );
    for (i, e) in list(selector, &["matchExpressions"]).iter().enumerate() {
        let path = format!("{field}.matchExpressions[{i}]");
        let (operator, values) = (text(e, &["operator"]), list(e, &["values"]));
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                causes.push(Cause::required(
                    format!("{path}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                causes.push(Cause::forbidden(
                    format!("{path}.values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => causes.push(Cause::invalid_text(
                format!("{path}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
        let key = text(e, &["key"]);
        if let Some(why) = bad_key(key) {
            causes.push(Cause::invalid_text(format!("{path}.key"), key, why));
        }
    }
}

pub(super) fn check_update(old: &Value, new: &Value, causes: &mut Causes) {
    if text(old, &["metadata", "deletionTimestamp"]).is_empty() {
        return;
    }
    // What is on its way out takes no new finalizer.
    let before = list(old, &["metadata", "finalizers"]);
    let added: Vec<&Value> = list(new, &["metadata", "finalizers"])
        .iter()
        .filter(|f| !before.contains(f))
        .collect();
    if !added.is_empty() {
        let names: Vec<String> = added.iter().map(|f| f.to_string()).collect();
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            names.join(", ")
        );
        causes.push(Cause::forbidden("metadata.finalizers", why));
    }
}
