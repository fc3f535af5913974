//! Limit ranges: what containers get when they do not say, and what they may not exceed.

use serde_json::{Map, Value, json};
use tripod_schema::failure::Result;
use tripod_schema::quantity::Quantity;
use tripod_schema::value::{default_to, list, object_mut, text};

use super::{Scene, refused};

/// Applies the limit ranges of the namespace to a pod.
pub(super) fn apply(scene: &Scene<'_>, pod: &mut Value) -> Result<()> {
    let ranges = scene.all("limitranges", Some(scene.namespace));
    for range in &ranges {
        for item in list(range, &["spec", "limits"])
            .iter()
            .filter(|i| text(i, &["type"]) == "Container")
        {
            fill(pod, item);
        }
    }
    let mut faults = Vec::new();
    for range in &ranges {
        for item in list(range, &["spec", "limits"]) {
            match text(item, &["type"]) {
                "Container" => {
                    for c in containers(pod) {
                        check(
                            item,
                            "Container",
                            &|what, name| amount(c, what, name),
                            &mut faults,
                        );
                    }
                }
                "Pod" => {
                    let sum = |what: &str, name: &str| {
                        let all: Vec<_> = list(pod, &["spec", "containers"])
                            .iter()
                            .map(|c| amount(c, what, name))
                            .collect();
                        all.into_iter().flatten().reduce(Quantity::plus)
                    };
                    check(item, "Pod", &sum, &mut faults);
                }
                _ => {}
            }
        }
    }
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(refused(scene, pod, one)),
        many => Err(refused(scene, pod, format!("[{}]", many.join(", ")))),
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, &["spec", "containers"])
        .iter()
        .chain(list(pod, &["spec", "initContainers"]))
}

fn amount(container: &Value, what: &str, name: &str) -> Option<Quantity> {
    Quantity::parse(text(container, &["resources", what, name]))
}

fn fill(pod: &mut Value, item: &Value) {
    let spec = object_mut(pod, &["spec"]);
    for member in ["initContainers", "containers"] {
        let Some(Value::Array(all)) = spec.get_mut(member) else {
            continue;
        };
        for container in all {
            let resources = object_mut(container, &["resources"]);
            let mut put = |what: &str, from: &str| {
                let Some(Value::Object(defaults)) = item.get(from) else {
                    return;
                };
                let target = resources.entry(what).or_insert_with(|| json!({}));
                if let Value::Object(target) = target {
                    merge(target, defaults);
                }
            };
            put("limits", "default");
            put("requests", "defaultRequest");
        }
    }
}

fn merge(target: &mut Map<String, Value>, defaults: &Map<String, Value>) {
    for (name, amount) in defaults {
        default_to(target, name, amount.clone());
    }
}

fn check(item: &Value, what: &str, get: &dyn Fn(&str, &str) -> Option<Quantity>, faults: &mut Vec<String>) {
    let each = |member: &str| -> Vec<(String, Quantity)> {
        let map = item.get(member).and_then(Value::as_object).into_iter().flatten();
        map.filter_map(|(k, v)| Some((k.clone(), Quantity::parse(v.as_str()?)?)))
            .collect()
    };
    for (name, least) in each("min") {
        match get("requests", &name).or_else(|| get("limits", &name)) {
            None => faults.push(format!(
                "minimum {name} usage per {what} is {least}.  No request is specified"
            )),
            Some(has) if has < least => {
                faults.push(format!(
                    "minimum {name} usage per {what} is {least}, but request is {has}"
                ));
            }
            Some(_) => {}
        }
    }
    for (name, most) in each("max") {
        match get("limits", &name) {
            None => faults.push(format!(
                "maximum {name} usage per {what} is {most}.  No limit is specified"
            )),
            Some(has) if has > most => {
                faults.push(format!(
                    "maximum {name} usage per {what} is {most}, but limit is {has}"
                ));
            }
            Some(_) => {}
        }
        if let Some(has) = get("requests", &name).filter(|has| *has > most) {
            faults.push(format!(
                "maximum {name} usage per {what} is {most}, but request is {has}"
            ));
        }
    }
    for (name, ratio) in each("maxLimitRequestRatio") {
        if let (Some(limit), Some(request)) = (get("limits", &name), get("requests", &name))
            && !request.is_zero()
        {
            let has = limit.millis() as f64 / request.millis() as f64;
            if has > ratio.millis() as f64 / 1000.0 {
                faults.push(format!(
                    "{name} max limit to request ratio per {what} is {ratio}, but provided ratio is {has:.6}"
                ));
            }
        }
    }
}

/// A claim's size against the ranges for claims.
pub(super) fn claim(scene: &Scene<'_>, claim: &Value) -> Result<()> {
    let size = Quantity::parse(text(claim, &["spec", "resources", "requests", "storage"]));
    let mut faults = Vec::new();
    for range in scene.all("limitranges", Some(scene.namespace)) {
        for item in list(&range, &["spec", "limits"])
            .iter()
            .filter(|i| text(i, &["type"]) == "PersistentVolumeClaim")
        {
            let limit = |which: &str| Quantity::parse(text(item, &[which, "storage"]));
            if let (Some(least), Some(size)) = (limit("min"), size)
                && size < least
            {
                faults.push(format!(
                    "minimum storage usage per PersistentVolumeClaim is {least}, but request is {size}"
                ));
            }
            if let (Some(most), Some(size)) = (limit("max"), size)
                && size > most
            {
                faults.push(format!(
                    "maximum storage usage per PersistentVolumeClaim is {most}, but request is {size}"
                ));
            }
        }
    }
    match faults.first() {
        None => Ok(()),
        Some(fault) => Err(refused(scene, claim, fault)),
    }
}
