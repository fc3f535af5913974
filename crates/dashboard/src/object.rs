//! A stored object with ways to look into its JSON.

use std::sync::Arc;

use serde_json::Value;
use tripod_model::Time;
use tripod_model::object::NAME_ANNOTATION;
use tripod_model::pod::{EXTENSION_ANNOTATION, STATE_ANNOTATION};
use tripod_store::{KindId, State, StoredObject};

/// An object, decoded.
#[derive(Debug, Clone)]
pub(crate) struct Obj {
    pub(crate) stored: Arc<StoredObject>,
    pub(crate) value: Value,
}

impl Obj {
    pub(crate) fn new(stored: &Arc<StoredObject>) -> Self {
        Self {
            stored: stored.clone(),
            // What is stored is JSON; what cannot be read shows as an empty object.
            value: serde_json::from_slice(&stored.bytes).unwrap_or_default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.stored.key.name
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.stored.key.namespace
    }

    pub(crate) fn kind(&self) -> &str {
        self.str("/kind")
    }

    /// The user's name of it.
    pub(crate) fn display(&self) -> &str {
        match (self.annotation(NAME_ANNOTATION), self.kind()) {
            ("", "SwarmService" | "EcsService" | "EcsCluster" | "Network")
                if !self.str("/spec/name").is_empty() =>
            {
                self.str("/spec/name")
            }
            ("", _) => self.name(),
            (name, _) => name,
        }
    }

    /// Text at a JSON pointer; empty when it is not there.
    pub(crate) fn str(&self, pointer: &str) -> &str {
        text(&self.value, pointer)
    }

    /// A number at a JSON pointer; 0 when it is not there.
    pub(crate) fn int(&self, pointer: &str) -> i64 {
        self.value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
    }

    pub(crate) fn bool(&self, pointer: &str) -> bool {
        self.value
            .pointer(pointer)
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }

    /// The items at a JSON pointer.
    pub(crate) fn list(&self, pointer: &str) -> &[Value] {
        list(&self.value, pointer)
    }

    /// A map of texts as `key=value`.
    pub(crate) fn pairs(&self, pointer: &str) -> Vec<(String, String)> {
        pairs(&self.value, pointer)
    }

    /// A moment at a JSON pointer.
    pub(crate) fn time(&self, pointer: &str) -> Option<Time> {
        self.str(pointer).parse().ok()
    }

    pub(crate) fn created(&self) -> Option<Time> {
        self.time("/metadata/creationTimestamp")
    }

    pub(crate) fn annotation(&self, name: &str) -> &str {
        self.value
            .pointer("/metadata/annotations")
            .and_then(|a| a.get(name))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// What controllers and nodes say of a pod beyond Kubernetes' status.
    pub(crate) fn pod_state(&self) -> Value {
        serde_json::from_str(self.annotation(STATE_ANNOTATION)).unwrap_or_default()
    }

    /// What a pod has beyond its specification.
    pub(crate) fn pod_extension(&self) -> Value {
        serde_json::from_str(self.annotation(EXTENSION_ANNOTATION)).unwrap_or_default()
    }

    /// The owner that manages it: kind, name.
    pub(crate) fn owner(&self) -> Option<(&str, &str)> {
        let owners = self.list("/metadata/ownerReferences");
        let owner = owners
            .iter()
            .find(|o| o["controller"] == true)
            .or(owners.first())?;
        Some((text(owner, "/kind"), text(owner, "/name")))
    }
}

/// Text at a JSON pointer; empty when it is not there.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items at a JSON pointer.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A map of texts.
pub(crate) fn pairs(value: &Value, pointer: &str) -> Vec<(String, String)> {
    let map = value.pointer(pointer).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
        .collect()
}

/// A JSON number or text as text.
pub(crate) fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// All objects of a kind, or of one namespace of it.
pub(crate) fn all<'a>(
    state: &'a State,
    resource: &str,
    namespace: Option<&'a str>,
) -> impl Iterator<Item = &'a Arc<StoredObject>> + use<'a> {
    let kind: Option<&KindId> = state.kinds().find(|k| k.as_str() == resource);
    kind.into_iter().flat_map(move |kind| state.iter(kind, namespace))
}

/// The same, decoded.
pub(crate) fn decoded<'a>(
    state: &'a State,
    resource: &str,
    namespace: Option<&'a str>,
) -> impl Iterator<Item = Obj> + use<'a> {
    all(state, resource, namespace).map(Obj::new)
}

/// One object.
pub(crate) fn get(state: &State, resource: &str, namespace: &str, name: &str) -> Option<Obj> {
    state
        .get(&tripod_store::Key::new(resource, namespace, name))
        .map(Obj::new)
}
