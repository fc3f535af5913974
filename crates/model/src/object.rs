//! Kubernetes-style objects: metadata that every kind has, and the trait of a kind.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Time;

/// Annotation with the user's name of an object whose `metadata.name` cannot be it (Docker and AWS names are not
/// Kubernetes names).
pub const NAME_ANNOTATION: &str = "tripod.dev/name";

/// `metadata` of an object (meta/v1 ObjectMeta), as far as Tripod's own code looks at it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMeta {
    /// Unique in its kind and namespace.
    pub name: String,
    /// Prefix from which the name was made.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub generate_name: String,
    /// Empty for kinds of the whole cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Unique over all time.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Revision of the last write, decimal; the store sets it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Counts changes of `spec`.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: i64,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Time>,
    /// When it was asked to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Time>,
    /// Seconds that it has until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_grace_period_seconds: Option<i64>,
    /// For selectors.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Not for selectors.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Objects with which this one goes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
    /// Who must agree before it goes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
    /// Who manages which fields: kept as text, since only server-side apply reads it.
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    pub managed_fields: Option<Box<str>>,
}

/// A value that is kept as its JSON text, which takes a fraction of the memory of its tree.
mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Option<Box<str>>, s: S) -> Result<S::Ok, S::Error> {
        let value: Option<serde_json::Value> = text.as_deref().and_then(|t| serde_json::from_str(t).ok());
        value.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Box<str>>, D::Error> {
        let value = Option::<serde_json::Value>::deserialize(d)?;
        Ok(value.map(|v| v.to_string().into()))
    }
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

impl ObjectMeta {
    /// The revision as a number; 0 before the first write.
    pub fn revision(&self) -> u64 {
        self.resource_version.parse().unwrap_or(0)
    }

    /// The user's name: the annotation's, or `name`.
    pub fn display_name(&self) -> &str {
        self.annotations
            .get(NAME_ANNOTATION)
            .map_or(self.name.as_str(), String::as_str)
    }
}

/// A reference to an owner (meta/v1 OwnerReference).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerReference {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Unique identifier.
    pub uid: String,
    /// It manages this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// In foreground deletion the owner waits until this object is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// A kind of object with a typed form.
pub trait Kind: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Group and version, `v1` or `swarm.tripod.dev/v1`.
    const API_VERSION: &'static str;
    /// `Pod`.
    const KIND: &'static str;
    /// The store's name of the kind: plural, with the group where there is one (`pods`,
    /// `swarmservices.swarm.tripod.dev`).
    const RESOURCE: &'static str;
    /// Whether objects of it live in namespaces.
    const NAMESPACED: bool;
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
}

/// Canonical bytes of an object: its JSON with `apiVersion` and `kind` first.
pub fn encode<K: Kind>(object: &K) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed<'a, K> {
        api_version: &'a str,
        kind: &'a str,
        #[serde(flatten)]
        object: &'a K,
    }
    let typed = Typed {
        api_version: K::API_VERSION,
        kind: K::KIND,
        object,
    };
    // Maps with string keys and no floats: cannot fail.
    serde_json::to_vec(&typed).unwrap_or_default()
}

/// The typed form of stored bytes.
pub fn decode<K: Kind>(bytes: &[u8]) -> crate::Result<K> {
    serde_json::from_slice(bytes)
        .map_err(|e| crate::Error::internal(format_args!("stored {} does not decode: {e}", K::KIND)))
}

/// Implements [`Kind`] for a struct with a field `metadata`.
#[macro_export]
macro_rules! kind {
    ($type:ty, $api_version:literal, $kind:literal, $resource:literal, namespaced: $namespaced:literal) => {
        impl $crate::object::Kind for $type {
            const API_VERSION: &'static str = $api_version;
            const KIND: &'static str = $kind;
            const RESOURCE: &'static str = $resource;
            const NAMESPACED: bool = $namespaced;
            fn meta(&self) -> &$crate::object::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut $crate::object::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
