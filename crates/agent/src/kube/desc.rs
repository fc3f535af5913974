//! A pod as its node reads it: the typed specification, and its containers in the order in which they start.

use std::sync::Arc;

use tripod_model::k8s_openapi::api::core::v1::{Container, PodSpec};
use tripod_model::pod::{ContainerExtension, DesiredState, Pod};
use tripod_model::{Error, Result, Time};

/// Seconds between the stop signal and SIGKILL where the pod does not say.
const DEFAULT_GRACE: i64 = 30;

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that goes on running.
    Sidecar,
    /// Runs when the init containers are done.
    Regular,
    /// Added by a user for debugging; never restarted.
    Ephemeral,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Desc {
    pub role: Role,
    pub container: Container,
    pub ext: ContainerExtension,
    /// Ephemeral: the container whose processes it sees.
    pub target: Option<String>,
}

impl Desc {
    pub(super) fn name(&self) -> &str {
        &self.container.name
    }

    /// `spec.containers{web}`.
    pub(super) fn field_path(&self) -> String {
        let list = match self.role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::Regular => "containers",
            Role::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.name())
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodDesc {
    pub pod: Arc<Pod>,
    pub spec: PodSpec,
    /// Init containers and sidecars, then regular ones, then ephemeral ones.
    pub containers: Vec<Desc>,
}

impl PodDesc {
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`] when the specification cannot be read.
    pub(super) fn new(pod: Arc<Pod>) -> Result<Self> {
        let spec = pod.kube_spec()?;
        let ext = |name: &str| pod.extension.containers.get(name).cloned().unwrap_or_default();
        let mut containers = Vec::new();
        for c in spec.init_containers.iter().flatten() {
            let role = match c.restart_policy.as_deref() {
                Some("Always") => Role::Sidecar,
                _ => Role::Init,
            };
            containers.push(Desc {
                role,
                ext: ext(&c.name),
                container: c.clone(),
                target: None,
            });
        }
        for c in &spec.containers {
            containers.push(Desc {
                role: Role::Regular,
                ext: ext(&c.name),
                container: c.clone(),
                target: None,
            });
        }
        for e in spec.ephemeral_containers.iter().flatten() {
            // The same fields, but for the target.
            let container: Container = serde_json::to_value(e)
                .and_then(serde_json::from_value)
                .map_err(|e| Error::invalid(format_args!("ephemeral container: {e}")))?;
            containers.push(Desc {
                role: Role::Ephemeral,
                ext: ext(&container.name),
                container,
                target: e.target_container_name.clone(),
            });
        }
        Ok(Self {
            pod,
            spec,
            containers,
        })
    }

    /// Leaves requests and limits of containers as another description has them.
    pub(super) fn keep_resources(&mut self, of: &Self) {
        for c in &mut self.containers {
            if let Some(old) = of.get(c.name()) {
                c.container.resources.clone_from(&old.container.resources);
            }
        }
    }

    pub(super) fn uid(&self) -> &str {
        &self.pod.metadata.uid
    }

    pub(super) fn name(&self) -> &str {
        &self.pod.metadata.name
    }

    pub(super) fn namespace(&self) -> &str {
        &self.pod.metadata.namespace
    }

    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Desc> {
        self.containers.iter().find(|c| c.name() == name)
    }

    pub(super) fn of_role(&self, role: Role) -> impl DoubleEndedIterator<Item = &Desc> {
        self.containers.iter().filter(move |c| c.role == role)
    }

    /// Init containers and sidecars, in order.
    pub(super) fn init(&self) -> impl DoubleEndedIterator<Item = &Desc> {
        self.containers
            .iter()
            .filter(|c| matches!(c.role, Role::Init | Role::Sidecar))
    }

    pub(super) fn restart_policy(&self) -> &str {
        self.spec.restart_policy.as_deref().unwrap_or("Always")
    }

    pub(super) fn host_network(&self) -> bool {
        self.spec.host_network.unwrap_or(false)
    }

    /// Seconds that its containers are given to end.
    pub(super) fn grace(&self) -> i64 {
        let own = self
            .spec
            .termination_grace_period_seconds
            .unwrap_or(DEFAULT_GRACE);
        let asked = self.pod.metadata.deletion_grace_period_seconds;
        asked.filter(|_| self.deleting()).unwrap_or(own).max(0)
    }

    pub(super) fn deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// A controller wants it to end and to be remembered.
    pub(super) fn shut_down(&self) -> bool {
        self.pod.state.desired >= DesiredState::Shutdown
    }

    /// When it has been active for longer than it may.
    pub(super) fn deadline(&self, started: Option<Time>) -> Option<Time> {
        let seconds = self.spec.active_deadline_seconds?;
        started?
            .checked_add(jiff::SignedDuration::from_secs(seconds))
            .ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A pod of these fields of its spec, and extensions of its containers.
    pub(in crate::kube) fn pod(spec: Value, extensions: Value) -> PodDesc {
        let object = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": spec,
        });
        let mut pod: Pod = serde_json::from_value(object).unwrap();
        pod.extension.containers = serde_json::from_value(extensions).unwrap();
        PodDesc::new(Arc::new(pod)).unwrap()
    }

    #[test]
    fn containers_have_roles_and_an_order() {
        let desc = pod(
            json!({
                "containers": [{"name": "web", "image": "i"}],
                "initContainers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i", "restartPolicy": "Always"}],
                "ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "web"}],
            }),
            json!({"web": {"stopTimeout": 3}}),
        );
        let roles: Vec<_> = desc.containers.iter().map(|c| (c.name(), c.role)).collect();
        assert_eq!(
            roles,
            [
                ("a", Role::Init),
                ("b", Role::Sidecar),
                ("web", Role::Regular),
                ("e", Role::Ephemeral)
            ]
        );
        assert_eq!(desc.get("web").unwrap().ext.stop_timeout, Some(3));
        assert_eq!(desc.get("e").unwrap().target.as_deref(), Some("web"));
        assert_eq!(desc.get("b").unwrap().field_path(), "spec.initContainers{b}");
        assert_eq!(desc.grace(), 30);
    }
}
