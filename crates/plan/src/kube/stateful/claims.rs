//! The claims of a StatefulSet's pods: made from templates, kept or given up with the set or the pod.

use serde_json::{Value, json};

use super::super::kinds::{CLAIMS, STATEFUL_SETS};
use super::super::pod::KPod;
use super::{COMPONENT, Set, ordinal, owner_reference};

impl Set<'_, '_> {
    fn templates(&self) -> Vec<Value> {
        let value = self.object.value();
        value["spec"]["volumeClaimTemplates"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    fn deletes(&self, scaled: bool) -> bool {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        let when = policy.and_then(|p| {
            if scaled {
                p.when_scaled.as_deref()
            } else {
                p.when_deleted.as_deref()
            }
        });
        when == Some("Delete")
    }

    fn set_reference(&self) -> Value {
        owner_reference(
            "apps/v1",
            "StatefulSet",
            self.object.name(),
            &self.object.meta.uid,
        )
    }

    /// Makes the claims of a pod that are missing. Whether all are there and stay.
    pub(super) fn make_claims(&mut self, pod: &str) -> bool {
        for template in self.templates() {
            let name = format!(
                "{}-{pod}",
                template["metadata"]["name"].as_str().unwrap_or_default()
            );
            let namespace = self.object.namespace().to_owned();
            if let Some(known) = self.w.k.get(CLAIMS, &namespace, &name) {
                if known.meta.is_deleted() {
                    return false;
                }
                continue;
            }
            let mut metadata = json!({
                "name": name, "namespace": namespace, "finalizers": ["kubernetes.io/pvc-protection"],
            });
            let selected = self.spec.selector.match_labels.clone().unwrap_or_default();
            let mut labels = template["metadata"]["labels"].clone();
            for (key, value) in selected {
                super::super::object::at(&mut labels, &[])[&key] = value.into();
            }
            if labels.is_object() {
                metadata["labels"] = labels;
            }
            if template["metadata"]["annotations"].is_object() {
                metadata["annotations"] = template["metadata"]["annotations"].clone();
            }
            if self.deletes(false) {
                metadata["ownerReferences"] = json!([self.set_reference()]);
            }
            let claim = json!({
                "metadata": metadata, "spec": template["spec"], "status": { "phase": "Pending" },
            });
            if self.w.create(CLAIMS, claim).is_some() {
                let set = self.object.name();
                let text = format!("create Claim {name} Pod {pod} in StatefulSet {set} success");
                self.w.note(&self.object, COMPONENT, "SuccessfulCreate", text);
            }
        }
        true
    }

    /// Has the claims of the set belong to it, or not, as its retention policy says.
    pub(super) fn claims_follow(&mut self) {
        let wanted = self.deletes(false);
        let reference = self.set_reference();
        let uid = self.object.meta.uid.clone();
        for claim in self.own_claims() {
            let Some((_, object)) = claim else { continue };
            let owned = object.meta.owner_references.iter().any(|r| *r.uid == *uid);
            if owned != wanted {
                self.w.update(&object, |v| {
                    let list = v["metadata"].get("ownerReferences").and_then(Value::as_array);
                    let mut list: Vec<Value> = list.cloned().unwrap_or_default();
                    list.retain(|r| r["uid"] != *uid);
                    if wanted {
                        list.push(reference.clone());
                    }
                    v["metadata"]["ownerReferences"] = list.into();
                });
            }
        }
    }

    /// Claims by the number of their pod.
    #[allow(clippy::type_complexity, reason = "a list of what was found, and where")]
    fn own_claims(&self) -> Vec<Option<(i32, std::sync::Arc<super::super::object::KObject>)>> {
        debug_assert_eq!(&*self.object.key.resource, STATEFUL_SETS);
        let templates = self.templates();
        if templates.is_empty() {
            return Vec::new();
        }
        let claims = self.w.k.list(CLAIMS, self.object.namespace());
        claims
            .map(|c| {
                let number = templates.iter().find_map(|t| {
                    let prefix = t["metadata"]["name"].as_str()?;
                    let pod = c.name().strip_prefix(prefix)?.strip_prefix('-')?;
                    ordinal(self.object.name(), pod)
                });
                number.map(|n| (n, c.clone()))
            })
            .collect()
    }

    /// Has the claims of a pod that goes for good go with it, when the set says so. Whether they do by now.
    pub(super) fn release_claims(&mut self, pod: &KPod) -> bool {
        if !self.deletes(true) {
            return true;
        }
        let number = ordinal(self.object.name(), pod.name());
        let reference = owner_reference("v1", "Pod", pod.name(), &pod.pod.metadata.uid);
        let mut done = true;
        for (n, claim) in self.own_claims().into_iter().flatten() {
            let has = claim
                .meta
                .owner_references
                .iter()
                .any(|r| r.uid == pod.pod.metadata.uid);
            if Some(n) == number && !has {
                done = false;
                self.w.update(&claim, |v| {
                    v["metadata"]["ownerReferences"] = json!([reference.clone()]);
                });
            }
        }
        done
    }
}
