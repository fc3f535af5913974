//! An object at rest: final JSON bytes, and the few fields that the store itself needs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::key::Key;
use crate::txn::Claim;

/// An object as the store holds and serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Where it lives.
    pub key: Key,
    /// `metadata.uid`; empty if the object has none.
    pub uid: Arc<str>,
    /// The revision of its last write, also in `bytes` as `metadata.resourceVersion`.
    pub revision: u64,
    /// The revision of the write that created it.
    pub created_revision: u64,
    /// The object's JSON, ready to be sent.
    pub bytes: Bytes,
    /// `metadata.labels`.
    pub labels: Labels,
    /// The uids in `metadata.ownerReferences`.
    pub owners: Box<[Arc<str>]>,
    /// The unique values it holds.
    pub claims: Box<[Claim]>,
}

impl StoredObject {
    /// About how many bytes of memory this object takes.
    pub fn weight(&self) -> usize {
        std::mem::size_of::<Self>() + self.bytes.len() + self.labels.0.len() + 64 * self.claims.len()
    }
}

/// Labels in one allocation: sorted `key NUL value NUL` pairs. A cluster holds many pods with few labels each, so a
/// map per pod would cost more than the labels.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Arc<str>);

impl Default for Labels {
    fn default() -> Self {
        Self("".into())
    }
}

impl Labels {
    /// The pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.0.split_terminator('\0');
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }

    /// The value of one label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn from_map(map: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut text = String::with_capacity(map.iter().map(|(k, v)| k.len() + v.len() + 2).sum());
        for part in map.iter().flat_map(|(k, v)| [k, v]) {
            if part.contains('\0') {
                return Err("metadata.labels: a NUL character".into());
            }
            text.push_str(part);
            text.push('\0');
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The parts of an object's JSON that the store reads, found without decoding the rest.
pub(crate) struct Parsed {
    pub(crate) uid: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) owners: Box<[Arc<str>]>,
    splice: Splice,
}

/// Where the revision goes.
enum Splice {
    /// Replace the value at these offsets.
    Replace(usize, usize),
    /// Insert the member here, right after the brace that opens `metadata`; a comma follows if there are others.
    Insert { at: usize, comma: bool },
}

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<Arc<str>>,
    #[serde(borrow)]
    resource_version: Option<&'a RawValue>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Deserialize)]
struct Owner {
    uid: Arc<str>,
}

/// Offset of `part` within `whole`, of which it is a sub-slice.
fn offset(whole: &[u8], part: &str) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

/// Reads the metadata of an object that is to be stored under `key`.
pub(crate) fn parse(key: &Key, bytes: &[u8]) -> Result<Parsed, String> {
    let outer: Outer<'_> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let raw = outer.metadata.get();
    let meta: Meta<'_> = serde_json::from_str(raw).map_err(|e| format!("metadata: {e}"))?;
    for (field, said, stored) in [
        ("name", &meta.name, &key.name),
        ("namespace", &meta.namespace, &key.namespace),
    ] {
        if said.as_deref().is_some_and(|said| said != &**stored) {
            return Err(format!("metadata.{field} differs from the key"));
        }
    }
    let splice = match meta.resource_version {
        Some(value) => {
            let start = offset(bytes, value.get());
            Splice::Replace(start, start + value.get().len())
        }
        None => {
            // `null` is read as None; a second member of the same name would then be written.
            if has_null_version(raw) {
                return Err("metadata.resourceVersion: null".into());
            }
            let rest = raw[1..].trim_start();
            Splice::Insert {
                at: offset(bytes, raw) + 1,
                comma: !rest.starts_with('}'),
            }
        }
    };
    Ok(Parsed {
        uid: meta.uid.unwrap_or_else(|| "".into()),
        labels: Labels::from_map(&meta.labels.unwrap_or_default())?,
        owners: meta
            .owner_references
            .unwrap_or_default()
            .into_iter()
            .map(|o| o.uid)
            .collect(),
        splice,
    })
}

fn has_null_version(metadata: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Null {
        #[serde(default, deserialize_with = "present")]
        resource_version: bool,
    }
    fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
        serde::de::IgnoredAny::deserialize(d).map(|_| true)
    }
    metadata.contains("\"resourceVersion\"")
        && serde_json::from_str::<Null>(metadata).is_ok_and(|n| n.resource_version)
}

impl Parsed {
    /// The final bytes of the object at `revision`.
    pub(crate) fn splice(&self, bytes: &[u8], revision: u64) -> Bytes {
        let mut out = Vec::with_capacity(bytes.len() + 48);
        match self.splice {
            Splice::Replace(start, end) => {
                out.extend_from_slice(&bytes[..start]);
                out.extend_from_slice(format!("\"{revision}\"").as_bytes());
                out.extend_from_slice(&bytes[end..]);
            }
            Splice::Insert { at, comma } => {
                out.extend_from_slice(&bytes[..at]);
                let comma = if comma { "," } else { "" };
                out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\"{comma}").as_bytes());
                out.extend_from_slice(&bytes[at..]);
            }
        }
        // What is held for long should not hold spare capacity with it.
        out.shrink_to_fit();
        out.into()
    }
}

/// The object's last state with the revision of its removal, as a watch shows it.
pub(crate) fn tombstone(object: &StoredObject, revision: u64) -> Arc<StoredObject> {
    let mut gone = object.clone();
    gone.revision = revision;
    if let Ok(parsed) = parse(&gone.key, &object.bytes) {
        gone.bytes = parsed.splice(&object.bytes, revision);
    }
    Arc::new(gone)
}
