//! The only command of the store: a transaction.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::TxnError;
use crate::key::Key;
use crate::object::StoredObject;

/// What a precondition expects of an object before the transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// There is no such object.
    Absent,
    /// There is one, of any revision.
    Exists,
    /// There is one, last written at this revision.
    Revision(u64),
    /// There is one with this `metadata.uid` (a name may have been reused).
    Uid(Arc<str>),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no object"),
            Self::Exists => f.write_str("an object"),
            Self::Revision(r) => write!(f, "revision {r}"),
            Self::Uid(uid) => write!(f, "uid {uid}"),
        }
    }
}

/// One condition of a transaction, judged on the state before any of its writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precondition {
    /// The object.
    pub key: Key,
    /// What must hold.
    pub expected: Expected,
}

/// A value that at most one object may hold within an index. The index name is chosen by the caller
/// (`swarm.tripod.dev/services#spec.name`); include the namespace in it where uniqueness ends at a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// The index.
    pub index: Arc<str>,
    /// The value.
    pub value: Arc<str>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Create or replace an object.
    Put {
        /// Where.
        key: Key,
        /// The object as JSON. `metadata.resourceVersion` is set by the store, whatever it says here.
        bytes: Bytes,
        /// All unique values that the object holds from now on; those it held before are freed.
        unique: Vec<Claim>,
    },
    /// Remove an object, and free its unique values. Removing what is not there is no write; add
    /// [`Expected::Exists`] to make it an error.
    Delete {
        /// Which.
        key: Key,
    },
}

impl Op {
    /// The object that this write concerns.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Conditions and writes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// All must hold before the first write.
    pub checks: Vec<Precondition>,
    /// The writes, in order. Each takes a revision of its own.
    pub ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    pub fn check(mut self, key: Key, expected: Expected) -> Self {
        self.checks.push(Precondition { key, expected });
        self
    }

    /// Adds an unconditional write of an object without unique values.
    pub fn put(self, key: Key, bytes: impl Into<Bytes>) -> Self {
        self.put_unique(key, bytes, Vec::new())
    }

    /// Adds an unconditional write of an object that holds unique values.
    pub fn put_unique(mut self, key: Key, bytes: impl Into<Bytes>, unique: Vec<Claim>) -> Self {
        self.ops.push(Op::Put {
            key,
            bytes: bytes.into(),
            unique,
        });
        self
    }

    /// Adds a write that fails if the object exists.
    pub fn create(self, key: Key, bytes: impl Into<Bytes>, unique: Vec<Claim>) -> Self {
        self.check(key.clone(), Expected::Absent)
            .put_unique(key, bytes, unique)
    }

    /// Adds a write that fails unless the object was last written at `revision`.
    pub fn update(self, key: Key, revision: u64, bytes: impl Into<Bytes>, unique: Vec<Claim>) -> Self {
        self.check(key.clone(), Expected::Revision(revision))
            .put_unique(key, bytes, unique)
    }

    /// Adds the removal of an object.
    pub fn delete(mut self, key: Key) -> Self {
        self.ops.push(Op::Delete { key });
        self
    }

    /// The form that goes into the log.
    pub fn encode(&self) -> Vec<u8> {
        // Only a custom `Serialize` can fail here, and the types above derive theirs.
        postcard::to_stdvec(self).expect("a transaction is plain data")
    }

    /// Reads back what [`Txn::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are not one whole transaction.
    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        match postcard::take_from_bytes(bytes)? {
            (txn, []) => Ok(txn),
            _ => Err(postcard::Error::DeserializeBadEncoding),
        }
    }
}

/// What a successful transaction did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnOk {
    /// The store's revision after the transaction.
    pub revision: u64,
    /// One element per write, in order: the object as it is served from now on; for a removal, its last state with
    /// the revision of the removal (`None` if there was nothing to remove).
    pub objects: Vec<Option<Arc<StoredObject>>>,
}

/// The outcome of one transaction.
pub type TxnResult = Result<TxnOk, TxnError>;
