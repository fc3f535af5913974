//! An object of any kind, as the view holds it: the metadata that controllers look at, the stored bytes (shared with
//! the store), and the typed form once somebody asked for it.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tripod_model::Time;
use tripod_model::object::{ObjectMeta, OwnerReference};

/// Where an object is: kind (the store's name), namespace (empty for kinds of the whole cluster) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjKey {
    /// `deployments.apps`.
    pub resource: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ObjKey {
    /// A key of these parts.
    pub fn new(
        resource: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for ObjKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.resource, self.name),
            ns => write!(f, "{} {ns}/{}", self.resource, self.name),
        }
    }
}

/// The metadata that controllers look at.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    /// Unique over all time.
    pub uid: Arc<str>,
    /// Counts changes of `spec`.
    pub generation: i64,
    /// When it was made.
    pub creation_timestamp: Option<Time>,
    /// When it was asked to go.
    pub deletion_timestamp: Option<Time>,
    /// For selectors.
    pub labels: BTreeMap<String, String>,
    /// Not for selectors.
    pub annotations: BTreeMap<String, String>,
    /// Objects with which this one goes.
    pub owner_references: Vec<OwnerReference>,
    /// Who must agree before it goes.
    pub finalizers: Vec<String>,
}

impl From<&ObjectMeta> for Meta {
    fn from(m: &ObjectMeta) -> Self {
        Self {
            uid: m.uid.as_str().into(),
            generation: m.generation,
            creation_timestamp: m.creation_timestamp,
            deletion_timestamp: m.deletion_timestamp,
            labels: m.labels.clone(),
            annotations: m.annotations.clone(),
            owner_references: m.owner_references.clone(),
            finalizers: m.finalizers.clone(),
        }
    }
}

impl Meta {
    /// The owner that manages the object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        controller_of(&self.owner_references)
    }

    /// Whether it was asked to go.
    pub fn is_deleted(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// The owner that manages an object with these references.
pub fn controller_of(references: &[OwnerReference]) -> Option<&OwnerReference> {
    references.iter().find(|r| r.controller == Some(true))
}

type Typed = Option<Arc<dyn Any + Send + Sync>>;

/// An object as stored.
#[derive(Debug, Clone)]
pub struct KObject {
    /// Where it is.
    pub key: ObjKey,
    /// What controllers look at of its metadata.
    pub meta: Meta,
    /// The revision of its last write.
    pub revision: u64,
    /// Its JSON.
    pub bytes: Bytes,
    typed: OnceLock<Typed>,
}

impl KObject {
    /// Reads the metadata of stored bytes.
    ///
    /// # Errors
    /// If they are not an object with metadata.
    pub fn new(key: ObjKey, revision: u64, bytes: Bytes) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Head {
            metadata: Meta,
        }
        let head: Head = serde_json::from_slice(&bytes)?;
        Ok(Self {
            key,
            meta: head.metadata,
            revision,
            bytes,
            typed: OnceLock::new(),
        })
    }

    /// The typed form, decoded once; `None` when the bytes are not of that type.
    pub fn get<T: DeserializeOwned + Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let typed = self.typed.get_or_init(|| {
            let value: T = serde_json::from_slice(&self.bytes).ok()?;
            Some(Arc::new(value) as Arc<dyn Any + Send + Sync>)
        });
        match typed.clone()?.downcast::<T>() {
            Ok(value) => Some(value),
            // Asked for as another type than the first time.
            Err(_) => serde_json::from_slice(&self.bytes).ok().map(Arc::new),
        }
    }

    /// The whole object as a tree, for changes.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.key.name
    }
}

/// Canonical bytes of an object: `apiVersion` and `kind` first.
pub fn encode_value(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    let empty = Map::new();
    let map = value.as_object().unwrap_or(&empty);
    let first = ["apiVersion", "kind"];
    let heads = first.iter().filter_map(|k| map.get_key_value(*k));
    let rest = map.iter().filter(|(k, _)| !first.contains(&k.as_str()));
    for (i, (key, value)) in heads.chain(rest).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        // Maps with string keys into memory: cannot fail.
        let _ = serde_json::to_writer(&mut out, key);
        out.push(b':');
        let _ = serde_json::to_writer(&mut out, value);
    }
    out.push(b'}');
    out
}

/// The member at a path of keys, made of objects where it is missing.
pub fn at<'v>(value: &'v mut Value, path: &[&str]) -> &'v mut Value {
    path.iter().fold(value, |v, key| {
        if !v.is_object() {
            *v = Value::Object(Map::new());
        }
        &mut v[*key]
    })
}
