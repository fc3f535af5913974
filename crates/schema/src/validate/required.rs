//! Fields that must be there, by the types.

use serde_json::{Map, Value};

use super::Causes;
use crate::failure::Cause;
use crate::kinds::Kind;
use crate::types::{Ty, types};

/// Finds what is missing, except in the status.
pub(super) fn check(kind: &Kind, object: &Value, causes: &mut Causes) {
    let (Ty::Object(id), Value::Object(map)) = (types().named(kind.schema), object) else {
        return;
    };
    let fields = &types().object(id).fields;
    for (name, field) in fields {
        if ["metadata", "status"].contains(&name.as_str()) {
            continue;
        }
        match map.get(name) {
            Some(value) => walk(value, &field.ty, name, causes),
            None if field.required && name != "rules" => {
                causes.push(Cause::required(name.as_str(), ""));
            }
            // A spec that is not there at all lacks what it must have.
            None if name == "spec" => walk(&Value::Object(Map::new()), &field.ty, name, causes),
            None => {}
        }
    }
}

fn walk(value: &Value, ty: &Ty, path: &str, causes: &mut Causes) {
    match (value, ty) {
        (Value::Object(map), Ty::Object(id)) => {
            let object = types().object(*id);
            for (name, field) in &object.fields {
                // Of templates inside of other objects.
                if name == "status" {
                    continue;
                }
                let below = format!("{path}.{name}");
                match map.get(name) {
                    Some(value) => {
                        let missing =
                            field.required && value.as_str() == Some("") && !may_be_empty(&object.name, name);
                        if missing {
                            causes.push(Cause::required(below, ""));
                        } else {
                            walk(value, &field.ty, &below, causes);
                        }
                    }
                    None if field.required && !may_be_empty(&object.name, name) => {
                        causes.push(Cause::required(below, ""));
                    }
                    None => {}
                }
            }
        }
        (Value::Array(list), Ty::List(inner)) => {
            for (i, item) in list.iter().enumerate() {
                walk(item, inner, &format!("{path}[{i}]"), causes);
            }
        }
        (Value::Object(map), Ty::Map(inner)) => {
            for (key, item) in map {
                walk(item, inner, &format!("{path}[{key}]"), causes);
            }
        }
        _ => {}
    }
}

/// What the types call required and the API takes when it is not there.
fn may_be_empty(object: &str, field: &str) -> bool {
    matches!(
        (object, field),
        ("rbac.v1.RoleRef", "apiGroup")
            | (
                "core.v1.TopologySelectorLabelRequirement" | "meta.v1.OwnerReference",
                _
            )
            | ("core.v1.ObjectReference", _)
            | ("core.v1.ComponentCondition", _)
            | ("policy.v1.PodDisruptionBudgetSpec", _)
            | ("core.v1.KeyToPath" | "core.v1.DownwardAPIVolumeFile", "key")
            | ("apps.v1.ControllerRevision", _)
            | ("discovery.v1.EndpointSlice", "endpoints")
            | ("core.v1.ConfigMapProjection" | "core.v1.SecretProjection", _)
            | ("core.v1.Taint", "key")
            | ("storage.v1.CSINodeSpec", "drivers")
            | ("autoscaling.v2.HPAScalingRules", _)
    )
}
