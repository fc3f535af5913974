//! What only the cluster's own controllers say of pods: users cannot reach around admission with it.

use serde_json::Value;

use super::Scene;

const ANNOTATIONS: [&str; 2] = ["tripod.dev/pod", "tripod.dev/state"];
/// Where pods and templates of pods have their annotations.
const PLACES: [&str; 4] = [
    "/metadata/annotations",
    "/spec/template/metadata/annotations",
    "/spec/jobTemplate/spec/template/metadata/annotations",
    "/template/metadata/annotations",
];

/// Leaves them out of a new object, and of the templates of one that changes.
pub(super) fn strip(scene: &Scene<'_>, object: &mut Value, new: bool) {
    for place in PLACES.iter().skip(usize::from(!new)) {
        let Some(Value::Object(annotations)) = object.pointer_mut(place) else {
            continue;
        };
        for name in ANNOTATIONS {
            if annotations.remove(name).is_some() {
                scene.call.warn(format!(
                    "annotation {name:?} is the cluster's own and was left out"
                ));
            }
        }
    }
}
