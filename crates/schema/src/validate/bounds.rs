//! Resource quotas and limit ranges.

use serde_json::Value;

use super::Causes;
use super::core::amounts;
use crate::failure::Cause;
use crate::quantity::Quantity;
use crate::value::{at, list, text};

/// Scopes that cannot hold of the same pod.
const OPPOSITES: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

pub(super) fn quota(object: &Value, causes: &mut Causes) {
    let hard = at(object, &["spec", "hard"]);
    amounts(hard, "spec.hard", causes);
    let scopes: Vec<&str> = list(object, &["spec", "scopes"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let shown = Value::from(scopes.clone());
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            causes.push(Cause::invalid("spec.scopes", &shown, "unsupported scope"));
        }
        for name in hard
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(k, _)| k)
        {
            if !fits(scope, name) {
                causes.push(Cause::invalid(
                    "spec.scopes",
                    &shown,
                    "unsupported scope applied to resource",
                ));
                break;
            }
        }
    }
    for (one, other) in OPPOSITES {
        if scopes.contains(&one) && scopes.contains(&other) {
            causes.push(Cause::invalid("spec.scopes", &shown, "conflicting scopes"));
        }
    }
    for (i, term) in list(object, &["spec", "scopeSelector", "matchExpressions"])
        .iter()
        .enumerate()
    {
        let path = format!("spec.scopeSelector.matchExpressions[{i}]");
        let (scope, operator) = (text(term, &["scopeName"]), text(term, &["operator"]));
        if !SCOPES.contains(&scope) {
            causes.push(Cause::invalid_text(
                format!("{path}.scopeName"),
                scope,
                "unsupported scope",
            ));
        }
        let values = list(term, &["values"]);
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                causes.push(Cause::required(format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                causes.push(Cause::invalid(
                    format!("{path}.values"),
                    &Value::from(values.to_vec()),
                    why,
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => causes.push(Cause::invalid_text(
                format!("{path}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
    }
}

/// Whether a scope can narrow the count of a resource: most are about pods, one about claims.
fn fits(scope: &str, resource: &str) -> bool {
    let computed = resource.starts_with("requests.") || resource.starts_with("limits.");
    let of_claims = resource == "persistentvolumeclaims"
        || resource == "requests.storage"
        || resource.contains("storageclass");
    match scope {
        "BestEffort" => resource == "pods" || resource == "count/pods",
        "VolumeAttributesClass" => of_claims,
        _ if of_claims => false,
        _ => {
            computed
                || ["pods", "count/pods", "cpu", "memory", "ephemeral-storage"].contains(&resource)
                || resource.starts_with("hugepages-")
        }
    }
}

pub(super) fn limits(object: &Value, causes: &mut Causes) {
    let mut kinds: Vec<&str> = Vec::new();
    for (i, limit) in list(object, &["spec", "limits"]).iter().enumerate() {
        let path = format!("spec.limits[{i}]");
        let kind = text(limit, &["type"]);
        if kinds.contains(&kind) {
            causes.push(Cause::duplicate(format!("{path}.type"), &kind.into()));
        }
        kinds.push(kind);
        for member in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            amounts(limit.get(member), &format!("{path}.{member}"), causes);
        }
        if kind == "Pod" {
            for member in ["default", "defaultRequest"] {
                if limit
                    .get(member)
                    .and_then(Value::as_object)
                    .is_some_and(|m| !m.is_empty())
                {
                    causes.push(Cause::forbidden(
                        format!("{path}.{member}"),
                        "may not be specified when `type` is 'Pod'",
                    ));
                }
            }
        }
        order(limit, &path, causes);
    }
}

/// Of one resource: least ≤ default request ≤ default limit ≤ most.
fn order(limit: &Value, path: &str, causes: &mut Causes) {
    const STEPS: [(&str, &str); 4] = [
        ("min", "min"),
        ("defaultRequest", "default request"),
        ("default", "default"),
        ("max", "max"),
    ];
    for (above, (high, high_words)) in STEPS.iter().enumerate() {
        for (low, low_words) in &STEPS[..above] {
            for (name, value) in limit[*low].as_object().into_iter().flatten() {
                let (text, other) = (value.as_str().unwrap_or_default(), limit[*high][name].as_str());
                let (Some(least), Some(most)) = (Quantity::parse(text), other.and_then(Quantity::parse))
                else {
                    continue;
                };
                if least > most {
                    let why = format!(
                        "{low_words} value {text} is greater than {high_words} value {}",
                        other.unwrap_or_default()
                    );
                    causes.push(Cause::invalid_text(format!("{path}.{low}[{name}]"), text, why));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(check: fn(&Value, &mut Causes), object: Value) -> Vec<String> {
        let mut causes = Vec::new();
        check(&object, &mut causes);
        causes
            .into_iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[test]
    fn scopes() {
        let of = |scopes: &[&str], resource: &str| {
            said(
                quota,
                json!({"spec": {"hard": {resource: "1"}, "scopes": scopes}}),
            )
        };
        assert!(of(&["BestEffort"], "pods").is_empty());
        assert!(of(&["Terminating"], "limits.cpu").is_empty());
        assert!(of(&["BestEffort", "NotBestEffort"], "pods")[0].contains("conflicting scopes"));
        assert!(of(&["BestEffort"], "services")[0].contains("unsupported scope applied to resource"));
        assert!(of(&["BestEffort"], "cpu")[0].contains("unsupported scope applied to resource"));
        assert!(of(&["Nope"], "pods")[0].contains("unsupported scope"));
    }

    #[test]
    fn ranges() {
        let of = |limit: Value| said(limits, json!({"spec": {"limits": [limit]}}));
        assert!(of(json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}})).is_empty());
        assert_eq!(
            of(json!({"type": "Container", "min": {"cpu": "3"}, "max": {"cpu": "2"}})),
            ["spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2"]
        );
        assert_eq!(of(json!({"type": "Pod", "default": {"cpu": "3"}})).len(), 1);
    }
}
