//! What names an object: its kind, namespace and name.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A kind of object as the API paths spell it: `plural` for the core group (`pods`), `group/plural` for the
/// others (`swarm.tripod.dev/services`). Versions of one kind share one `KindId`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KindId(pub(crate) Arc<str>);

impl KindId {
    /// Names a kind, for example `KindId::new("pods")`.
    pub fn new(kind: impl Into<Arc<str>>) -> Self {
        Self(kind.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KindId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for KindId {
    fn from(kind: &str) -> Self {
        Self(kind.into())
    }
}

impl Borrow<str> for KindId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Where an object lives in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The kind.
    pub kind: KindId,
    /// The namespace; empty for kinds that belong to the whole cluster.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl Key {
    /// The key of an object in a namespace (or `""` for the whole cluster).
    pub fn new(kind: impl Into<KindId>, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object that belongs to no namespace.
    pub fn cluster(kind: impl Into<KindId>, name: impl Into<Arc<str>>) -> Self {
        Self::new(kind, "", name)
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A key within the table of its kind. The order (namespace first) is the order of lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}
