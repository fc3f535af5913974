//! What pods refer to, resolved for their node: ConfigMaps, Secrets, claims with their volumes, Services for the
//! environment, runtime classes, tokens. Read as stored; only what changed is decoded and sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use tripod_model::k8s_openapi::ByteString;
use tripod_model::k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeSpec, Secret};
use tripod_model::node::Node;
use tripod_model::pod::Pod;
use tripod_model::session::{
    Assignment, ClaimVolume, ConfigData, InputKey, NamespaceServices, NodeSettings, PodInput, ServiceAddress,
    Token, TokenRequest,
};
use tripod_model::{Error, Result};
use tripod_store::{Key, KindId, State, StoredObject};

use crate::manager::Manager;

/// The kinds whose changes may concern a node's inputs.
const KINDS: [&str; 7] = [
    "configmaps",
    "secrets",
    "persistentvolumeclaims",
    "persistentvolumes",
    "services",
    "nodes",
    "runtimeclasses.node.k8s.io",
];
const DOMAIN: &str = "cluster.local";

/// Makes tokens of service accounts: set by who holds the signing key.
#[async_trait]
pub trait TokenIssuer: Send + Sync {
    /// A token for a pod that runs on `node`: what was asked for has been checked against the pod.
    async fn issue(&self, node: &str, request: &TokenRequest) -> Result<Token>;
}

/// Counts changes that may concern inputs, and shares what many nodes need.
#[derive(Default)]
pub(crate) struct Shared {
    epoch: std::sync::atomic::AtomicU64,
    services: Mutex<HashMap<String, (u64, Arc<PodInput>)>>,
}

/// What was sent last to a node.
#[derive(Default)]
pub(crate) struct Sent {
    epoch: Option<u64>,
    /// What each pod refers to; the pod tells whether that is still so.
    references: HashMap<String, (Arc<Pod>, BTreeSet<InputKey>)>,
    /// With the revisions of the objects behind it.
    inputs: HashMap<InputKey, (Vec<u64>, Arc<PodInput>)>,
    node: Option<Arc<NodeSettings>>,
}

impl Manager {
    /// Lets nodes have tokens. Set once, by the wiring.
    pub fn set_token_issuer(&self, issuer: Arc<dyn TokenIssuer>) {
        let _ = self.tokens.set(issuer);
    }

    /// Takes note of a change of the store.
    pub(crate) fn note_input(&self, kind: &str) {
        if KINDS.contains(&kind) {
            self.note_all_inputs();
        }
    }

    /// Anything may have changed.
    pub(crate) fn note_all_inputs(&self) {
        self.inputs
            .epoch
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// A token for a pod of a node.
    pub(crate) async fn token_for(&self, node: &str, request: TokenRequest) -> Result<Token> {
        let refused = |why: &str| {
            Err(Error::forbidden(format_args!(
                "node {node} may not have a token for pod {}/{}: {why}",
                request.namespace, request.pod
            )))
        };
        let key = format!("{}/{}", request.namespace, request.pod);
        let Some(pod) = self.with_view(|view| view.pod(&key).cloned()) else {
            return refused("there is no such pod");
        };
        if pod.spec.node_name != node || pod.metadata.uid != request.pod_uid {
            return refused("it does not run there");
        }
        let account = pod.spec.rest.get("serviceAccountName").and_then(Value::as_str);
        if account.unwrap_or("default") != request.service_account {
            return refused("it runs as another service account");
        }
        match self.tokens.get() {
            Some(issuer) => issuer.issue(node, &request).await,
            None => Err(Error::unavailable("tokens are not issued yet")),
        }
    }
}

/// Adds what changed for a node to its next assignment. `pods` are all of the node's.
pub(crate) fn difference(
    manager: &Manager,
    node: &str,
    pods: &HashMap<String, Arc<Pod>>,
    sent: &mut Sent,
    next: &mut Assignment,
) {
    let epoch = manager.inputs.epoch.load(std::sync::atomic::Ordering::Relaxed);
    let pods_changed = !next.pods.is_empty() || !next.removed_pods.is_empty();
    if sent.epoch == Some(epoch) && !pods_changed {
        return;
    }
    sent.epoch = Some(epoch);
    let needed = needed(pods, &mut sent.references);
    let state = manager.db().cluster().read();
    let mut present = BTreeSet::new();
    for key in needed {
        let found = match &key {
            InputKey::Services(namespace) => {
                let input = services(manager, &state, epoch, namespace);
                (sent.inputs.get(&key).is_none_or(|(_, known)| *known != input))
                    .then_some((Vec::new(), input))
            }
            _ => match resolve(&state, &key, sent.inputs.get(&key).map(|(r, _)| r.as_slice())) {
                Resolved::Missing => continue,
                Resolved::Unchanged => None,
                Resolved::New(revisions, input) => Some((revisions, Arc::new(input))),
            },
        };
        if let Some((revisions, input)) = found {
            if sent.inputs.get(&key).is_none_or(|(_, known)| *known != input) {
                next.inputs.push(input.clone());
            }
            sent.inputs.insert(key.clone(), (revisions, input));
        }
        present.insert(key);
    }
    sent.inputs.retain(|key, _| {
        let stays = present.contains(key);
        if !stays {
            next.removed_inputs.push(key.clone());
        }
        stays
    });
    let settings = manager.with_view(|view| {
        let dns = IpAddr::V4(tripod_plan::network::Ranges::of(view).dns());
        view.node(node).map(|n| settings(&state, dns, n))
    });
    if let Some(settings) = settings
        && sent.node.as_deref() != Some(&settings)
    {
        let settings = Arc::new(settings);
        sent.node = Some(settings.clone());
        next.node = Some(settings);
    }
}

/// What live pods refer to.
fn needed(
    pods: &HashMap<String, Arc<Pod>>,
    known: &mut HashMap<String, (Arc<Pod>, BTreeSet<InputKey>)>,
) -> BTreeSet<InputKey> {
    known.retain(|key, _| pods.contains_key(key));
    let mut all = BTreeSet::new();
    for (name, pod) in pods {
        if pod.swarm().is_some() || pod.state.observed.is_final() {
            continue;
        }
        let fresh = known.get(name).is_some_and(|(old, _)| Arc::ptr_eq(old, pod));
        if !fresh {
            known.insert(name.clone(), (pod.clone(), references(pod)));
        }
        if let Some((_, keys)) = known.get(name) {
            all.extend(keys.iter().cloned());
        }
    }
    all
}

/// Everything that a pod refers to.
fn references(pod: &Pod) -> BTreeSet<InputKey> {
    let namespace = &pod.metadata.namespace;
    let mut keys = BTreeSet::from([InputKey::Services(namespace.clone())]);
    let spec = match pod.kube_spec() {
        Ok(spec) => spec,
        // The node says of the pod what is wrong with it.
        Err(_) => return keys,
    };
    let config = |name: &str| InputKey::ConfigMap(namespace.clone(), name.to_owned());
    let secret = |name: &str| InputKey::Secret(namespace.clone(), name.to_owned());
    let claim = |name: &str| InputKey::Claim(namespace.clone(), name.to_owned());
    for volume in spec.volumes.iter().flatten() {
        keys.extend(volume.config_map.iter().map(|c| config(&c.name)));
        keys.extend(
            volume
                .secret
                .iter()
                .filter_map(|s| s.secret_name.as_deref())
                .map(secret),
        );
        keys.extend(
            volume
                .persistent_volume_claim
                .iter()
                .map(|c| claim(&c.claim_name)),
        );
        if volume.ephemeral.is_some() {
            keys.insert(claim(&format!("{}-{}", pod.metadata.name, volume.name)));
        }
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            keys.extend(source.config_map.iter().map(|c| config(&c.name)));
            keys.extend(source.secret.iter().map(|s| secret(&s.name)));
        }
    }
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let environments = containers
        .map(|c| (&c.env, &c.env_from))
        .chain(ephemeral.map(|c| (&c.env, &c.env_from)));
    for (env, from) in environments {
        for source in env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            keys.extend(source.config_map_key_ref.iter().map(|r| config(&r.name)));
            keys.extend(source.secret_key_ref.iter().map(|r| secret(&r.name)));
        }
        for source in from.iter().flatten() {
            keys.extend(source.config_map_ref.iter().map(|r| config(&r.name)));
            keys.extend(source.secret_ref.iter().map(|r| secret(&r.name)));
        }
    }
    keys.extend(spec.image_pull_secrets.iter().flatten().map(|r| secret(&r.name)));
    keys.extend(spec.runtime_class_name.into_iter().map(InputKey::RuntimeClass));
    keys
}

enum Resolved {
    Missing,
    /// The same objects at the same revisions as before.
    Unchanged,
    New(Vec<u64>, PodInput),
}

fn resolve(state: &State, key: &InputKey, known: Option<&[u64]>) -> Resolved {
    let get = |kind: &str, namespace: &str, name: &str| {
        let found = state.get(&Key::new(kind, namespace, name));
        found.cloned().into_iter().collect::<Vec<_>>()
    };
    let objects = match key {
        InputKey::ConfigMap(ns, name) => get("configmaps", ns, name),
        InputKey::Secret(ns, name) => get("secrets", ns, name),
        InputKey::RuntimeClass(name) => get("runtimeclasses.node.k8s.io", "", name),
        InputKey::Claim(ns, name) => {
            let mut objects = get("persistentvolumeclaims", ns, name);
            let claim = objects
                .first()
                .and_then(|c| serde_json::from_slice::<Value>(&c.bytes).ok());
            let volume = claim.as_ref().and_then(|c| c.pointer("/spec/volumeName"));
            if let Some(name) = volume.and_then(Value::as_str) {
                objects.extend(get("persistentvolumes", "", name));
            }
            objects
        }
        InputKey::Services(_) => Vec::new(),
    };
    let revisions: Vec<u64> = objects.iter().map(|o| o.revision).collect();
    let Some(first) = objects.first() else {
        return Resolved::Missing;
    };
    if known == Some(&revisions) {
        return Resolved::Unchanged;
    }
    let input = match key {
        InputKey::ConfigMap(..) => config_map(first),
        InputKey::Secret(..) => secret(first),
        InputKey::RuntimeClass(_) => runtime_class(first),
        InputKey::Claim(..) => claim_volume(&objects),
        InputKey::Services(_) => None,
    };
    input.map_or(Resolved::Missing, |input| Resolved::New(revisions, input))
}

fn meta(m: &tripod_model::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> (String, String) {
    (
        m.namespace.clone().unwrap_or_default(),
        m.name.clone().unwrap_or_default(),
    )
}

fn config_map(object: &StoredObject) -> Option<PodInput> {
    let object: ConfigMap = serde_json::from_slice(&object.bytes).ok()?;
    let (namespace, name) = meta(&object.metadata);
    let text = object.data.into_iter().flatten();
    let mut data: BTreeMap<String, ByteString> = text.map(|(k, v)| (k, ByteString(v.into_bytes()))).collect();
    data.extend(object.binary_data.into_iter().flatten());
    Some(PodInput::ConfigMap(ConfigData {
        namespace,
        name,
        type_: String::new(),
        immutable: object.immutable.unwrap_or(false),
        data,
    }))
}

fn secret(object: &StoredObject) -> Option<PodInput> {
    let object: Secret = serde_json::from_slice(&object.bytes).ok()?;
    let (namespace, name) = meta(&object.metadata);
    Some(PodInput::Secret(ConfigData {
        namespace,
        name,
        type_: object.type_.unwrap_or_default(),
        immutable: object.immutable.unwrap_or(false),
        data: object.data.unwrap_or_default(),
    }))
}

fn runtime_class(object: &StoredObject) -> Option<PodInput> {
    let value: Value = serde_json::from_slice(&object.bytes).ok()?;
    Some(PodInput::RuntimeClass {
        name: value.pointer("/metadata/name")?.as_str()?.to_owned(),
        handler: value.get("handler")?.as_str()?.to_owned(),
    })
}

fn claim_volume(objects: &[Arc<StoredObject>]) -> Option<PodInput> {
    let claim: Value = serde_json::from_slice(&objects[0].bytes).ok()?;
    let text = |path: &str| {
        let found = claim.pointer(path).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let bound = text("/status/phase") == "Bound";
    let spec = objects.get(1).filter(|_| bound).and_then(|volume| {
        let volume: Value = serde_json::from_slice(&volume.bytes).ok()?;
        serde_json::from_value::<Box<PersistentVolumeSpec>>(volume.get("spec")?.clone()).ok()
    });
    Some(PodInput::Claim(ClaimVolume {
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        volume: if bound {
            text("/spec/volumeName")
        } else {
            String::new()
        },
        spec,
        deleting: !text("/metadata/deletionTimestamp").is_empty(),
    }))
}

/// The Services of a namespace, and the API server's: computed once for all nodes.
fn services(manager: &Manager, state: &State, epoch: u64, namespace: &str) -> Arc<PodInput> {
    let cache = &manager.inputs.services;
    {
        let known = cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, input)) = known.get(namespace)
            && *at == epoch
        {
            return input.clone();
        }
    }
    let mut services: Vec<ServiceAddress> = state
        .iter(&"services".into(), Some(namespace))
        .filter_map(|o| service_address(o))
        .collect();
    if namespace != "default"
        && let Some(api) = state.get(&Key::new("services", "default", "kubernetes"))
    {
        services.retain(|s| s.name != "kubernetes");
        services.extend(service_address(api));
    }
    let input = Arc::new(PodInput::Services(NamespaceServices {
        namespace: namespace.to_owned(),
        services,
    }));
    let mut known = cache.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|_, (at, _)| *at == epoch);
    known.insert(namespace.to_owned(), (epoch, input.clone()));
    input
}

fn service_address(object: &StoredObject) -> Option<ServiceAddress> {
    let value: Value = serde_json::from_slice(&object.bytes).ok()?;
    let address = value.pointer("/spec/clusterIP")?.as_str()?;
    if address.is_empty() || address == "None" {
        return None;
    }
    let ports = value.pointer("/spec/ports").and_then(Value::as_array);
    let port = |p: &Value| {
        Some((
            p.get("name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            u16::try_from(p.get("port")?.as_u64()?).ok()?,
            p.get("protocol")
                .and_then(Value::as_str)
                .unwrap_or("TCP")
                .to_owned(),
        ))
    };
    Some(ServiceAddress {
        name: value.pointer("/metadata/name")?.as_str()?.to_owned(),
        address: address.to_owned(),
        ports: ports.into_iter().flatten().filter_map(port).collect(),
    })
}

fn settings(state: &State, usual_dns: IpAddr, node: &Node) -> NodeSettings {
    let spec = &node.spec.rest;
    let many = spec.get("podCIDRs").and_then(Value::as_array);
    let one = spec.get("podCIDR").into_iter();
    let blocks = many.into_iter().flatten().chain(one).filter_map(Value::as_str);
    let mut pod_blocks: Vec<ipnet::IpNet> = blocks.filter_map(|b| b.parse().ok()).collect();
    pod_blocks.dedup();
    let listed = node.status.rest.get("addresses").and_then(Value::as_array);
    let internal = listed.into_iter().flatten().filter(|a| a["type"] == "InternalIP");
    let mut addresses: Vec<IpAddr> = internal
        .filter_map(|a| a["address"].as_str()?.parse().ok())
        .collect();
    if addresses.is_empty() {
        addresses.extend(node.status.addr.parse::<IpAddr>());
    }
    let dns = state
        .get(&Key::new("services", "kube-system", "kube-dns"))
        .and_then(|o| service_address(o)?.address.parse().ok());
    let allocatable = node.status.rest.get("allocatable").and_then(Value::as_object);
    let volumes = KindId::from("persistentvolumes");
    let reclaimed = state
        .iter(&volumes, None)
        .filter(|v| v.labels.get(tripod_plan::kube::RECLAIM) == Some(&*node.metadata.name))
        .filter_map(|v| {
            let value: Value = serde_json::from_slice(&v.bytes).ok()?;
            Some(value.pointer("/spec/hostPath/path")?.as_str()?.to_owned())
        });
    NodeSettings {
        name: node.metadata.name.clone(),
        labels: node.metadata.labels.clone(),
        pod_blocks,
        addresses,
        dns: vec![dns.unwrap_or(usual_dns)],
        domain: DOMAIN.into(),
        reclaim: reclaimed.collect(),
        allocatable: allocatable
            .into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
            .collect(),
    }
}

/// The conditions for which a pod's readiness waits, as they stand.
pub(crate) fn gates(pod: &Pod) -> Vec<(&str, bool)> {
    let types = pod.spec.rest.get("readinessGates").and_then(Value::as_array);
    let conditions = pod.status.rest.get("conditions").and_then(Value::as_array);
    let holds = |kind: &str| {
        let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
        found.is_some_and(|c| c["status"] == "True")
    };
    let types = types.into_iter().flatten();
    types
        .filter_map(|g| g.get("conditionType")?.as_str())
        .map(|kind| (kind, holds(kind)))
        .collect()
}
