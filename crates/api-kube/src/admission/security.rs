//! Pod security: what the standards that a namespace enforces forbid.

use serde_json::Value;
use tripod_model::pod_security::faults;
use tripod_schema::failure::Result;
use tripod_schema::value::text;

use super::{Scene, refused};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// Judges a pod, or a template of pods, by its namespace's labels.
pub(super) fn check(scene: &Scene<'_>, object: &Value) -> Result<()> {
    let pod = scene.kind.resource() == "pods";
    let (spec, meta) = if pod {
        (&object["spec"], &object["metadata"])
    } else {
        let template = match scene.kind.resource().as_str() {
            "cronjobs.batch" => object.pointer("/spec/jobTemplate/spec/template"),
            "podtemplates" => object.pointer("/template"),
            "deployments.apps"
            | "replicasets.apps"
            | "statefulsets.apps"
            | "daemonsets.apps"
            | "jobs.batch"
            | "replicationcontrollers" => object.pointer("/spec/template"),
            _ => None,
        };
        let Some(template) = template else { return Ok(()) };
        (&template["spec"], &template["metadata"])
    };
    let Some(namespace) = scene.get("namespaces", "", scene.namespace) else {
        return Ok(());
    };
    let label = |mode: &str| text(&namespace, &["metadata", "labels", &format!("{PREFIX}{mode}")]).to_owned();
    let annotations = &meta["annotations"];
    for mode in ["enforce", "warn"] {
        let level = label(mode);
        let faults = faults(&level, spec, annotations);
        if faults.is_empty() {
            continue;
        }
        let text = format!("violates PodSecurity \"{level}:latest\": {}", faults.join(", "));
        if mode == "enforce" && pod {
            return Err(refused(scene, object, text));
        }
        if mode == "warn" || !pod {
            scene.call.warn(if pod {
                text
            } else {
                format!("would {}", text.replacen("violates", "violate", 1))
            });
        }
    }
    Ok(())
}
