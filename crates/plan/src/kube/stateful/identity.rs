//! What makes each pod of a StatefulSet its own.

use serde_json::{Value, json};

use super::super::object::at;
use super::super::template::{REVISION_HASH, pod_of};
use super::{COMPONENT, Set};

impl Set<'_, '_> {
    /// Makes the pod of a number, after its claims.
    pub(super) fn create(&mut self, n: i32) {
        let name = format!("{}-{n}", self.object.name());
        if !self.make_claims(&name) {
            return;
        }
        let below = self.rolls() && n < self.start + self.partition();
        let revision = match below {
            true => self.history.named(&self.current).unwrap_or(&self.history.latest),
            false => &self.history.latest,
        };
        let mut pod = pod_of(&revision.template, &self.object);
        let revision = revision.name.clone();
        pod["metadata"]["name"] = name.as_str().into();
        pod["metadata"]["generateName"] = format!("{}-", self.object.name()).into();
        let labels = at(&mut pod, &["metadata", "labels"]);
        labels["statefulset.kubernetes.io/pod-name"] = name.as_str().into();
        labels["apps.kubernetes.io/pod-index"] = n.to_string().into();
        labels[REVISION_HASH] = revision.into();
        pod["spec"]["hostname"] = name.as_str().into();
        if let Some(service) = self.spec.service_name.as_deref().filter(|s| !s.is_empty()) {
            pod["spec"]["subdomain"] = service.into();
        }
        self.mount_claims(&mut pod, &name);
        let set = self.object.name().to_owned();
        match self.w.create_pod(pod) {
            Ok(_) => {
                let text = format!("create Pod {name} in StatefulSet {set} successful");
                self.w.note(&self.object, COMPONENT, "SuccessfulCreate", text);
            }
            Err(error) => {
                let text = format!("create Pod {name} in StatefulSet {set} failed error: {error}");
                self.w.warn(&self.object, COMPONENT, "FailedCreate", text);
                let at = super::super::work::later(self.w.now, 10);
                self.w.wake(at);
            }
        }
    }

    /// Has volumes named as claim templates be the pod's own claims.
    fn mount_claims(&self, pod: &mut Value, name: &str) {
        let templates = self.spec.volume_claim_templates.iter().flatten();
        let own: Vec<Value> = templates
            .filter_map(|t| t.metadata.name.as_deref())
            .map(|t| json!({ "name": t, "persistentVolumeClaim": { "claimName": format!("{t}-{name}") } }))
            .collect();
        if own.is_empty() {
            return;
        }
        let volumes = pod["spec"]
            .get("volumes")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let others = volumes
            .into_iter()
            .filter(|v| !own.iter().any(|o| o["name"] == v["name"]));
        let all: Vec<Value> = own.iter().cloned().chain(others).collect();
        pod["spec"]["volumes"] = all.into();
    }
}
