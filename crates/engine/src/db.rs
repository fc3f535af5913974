//! Typed access to the store: encode, decode, unique names, preconditions, and errors in the model's terms.

use std::sync::Arc;

use tripod_model::data::{ConfigMap, Network, Secret};
use tripod_model::node::Node;
use tripod_model::object::{Kind, decode, encode};
use tripod_model::pod::Pod;
use tripod_model::swarm::{SwarmCluster, SwarmService};
use tripod_model::{Error, Result};
use tripod_raft::{Cluster, RaftError};
use tripod_store::{Claim, Expected, Key, State, StoredObject, Txn, TxnError, TxnOk};

/// A kind whose objects may hold unique values.
pub trait Stored: Kind {
    /// The unique values that this object holds.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }
}

/// Names that differ only in case are the same name, as in Swarm.
fn claim(index: &str, value: &str) -> Vec<Claim> {
    vec![Claim {
        index: index.into(),
        value: value.to_lowercase().into(),
    }]
}

/// Unique index of the names of Swarm services.
pub const SERVICE_NAMES: &str = "swarmservices#name";
/// Unique index of the names of cluster networks.
pub const NETWORK_NAMES: &str = "networks#name";
/// Unique index of the names of Swarm secrets.
pub const SECRET_NAMES: &str = "secrets#swarm-name";
/// Unique index of the names of Swarm configs.
pub const CONFIG_NAMES: &str = "configmaps#swarm-name";
/// Unique index of the Swarm identifiers of nodes.
pub const NODE_IDS: &str = "nodes#swarm-id";

impl Stored for Pod {}
impl Stored for SwarmCluster {}
impl Stored for SwarmService {
    fn claims(&self) -> Vec<Claim> {
        claim(SERVICE_NAMES, &self.spec.name)
    }
}
impl Stored for Network {
    fn claims(&self) -> Vec<Claim> {
        claim(NETWORK_NAMES, &self.spec.name)
    }
}
impl Stored for Node {
    fn claims(&self) -> Vec<Claim> {
        match self.spec.swarm.node_id.as_str() {
            "" => Vec::new(),
            id => claim(NODE_IDS, id),
        }
    }
}
impl Stored for Secret {
    fn claims(&self) -> Vec<Claim> {
        if self.swarm.is_some() {
            claim(SECRET_NAMES, self.metadata.display_name())
        } else {
            Vec::new()
        }
    }
}
impl Stored for ConfigMap {
    fn claims(&self) -> Vec<Claim> {
        if self.swarm.is_some() {
            claim(CONFIG_NAMES, self.metadata.display_name())
        } else {
            Vec::new()
        }
    }
}

/// The key of an object of a kind.
pub(crate) fn key<K: Kind>(namespace: &str, name: &str) -> Key {
    Key::new(K::RESOURCE, namespace, name)
}

/// The key of this object.
pub(crate) fn key_of<K: Kind>(object: &K) -> Key {
    key::<K>(&object.meta().namespace, &object.meta().name)
}

/// A transaction that is built from typed objects.
pub trait TypedTxn: Sized {
    /// Creates; refused when it exists.
    fn insert<K: Stored>(self, object: &K) -> Self;
    /// Replaces; refused unless it is still at the revision in the object's metadata.
    fn replace<K: Stored>(self, object: &K) -> Self;
    /// Removes; refused unless it is still at the revision in the object's metadata.
    fn remove<K: Stored>(self, object: &K) -> Self;
    /// Requires that the object be there.
    fn require<K: Stored>(self, namespace: &str, name: &str) -> Self;
}

impl TypedTxn for Txn {
    fn insert<K: Stored>(self, object: &K) -> Self {
        self.create(key_of(object), encode(object), object.claims())
    }
    fn replace<K: Stored>(self, object: &K) -> Self {
        self.update(
            key_of(object),
            object.meta().revision(),
            encode(object),
            object.claims(),
        )
    }
    fn remove<K: Stored>(self, object: &K) -> Self {
        let key = key_of(object);
        self.check(key.clone(), Expected::Revision(object.meta().revision()))
            .delete(key)
    }
    fn require<K: Stored>(self, namespace: &str, name: &str) -> Self {
        self.check(key::<K>(namespace, name), Expected::Exists)
    }
}

/// Reads of one consistent state.
#[derive(Clone)]
pub struct Snapshot(Arc<State>);

impl Snapshot {
    /// The revision of this state.
    pub fn revision(&self) -> u64 {
        self.0.revision()
    }

    /// One object.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Internal`] if its bytes do not decode.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Result<Option<K>> {
        self.0
            .get(&key::<K>(namespace, name))
            .map(|o| decode(&o.bytes))
            .transpose()
    }

    /// The object that holds a unique value.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn by_unique<K: Kind>(&self, index: &str, value: &str) -> Result<Option<K>> {
        self.0
            .by_unique(index, &value.to_lowercase())
            .map(|o| decode(&o.bytes))
            .transpose()
    }

    /// All objects of a kind, by namespace and name.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn list<K: Kind>(&self, namespace: Option<&str>) -> Result<Vec<K>> {
        self.raw::<K>(namespace).map(|o| decode(&o.bytes)).collect()
    }

    /// All objects of a kind, as stored.
    pub fn raw<K: Kind>(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<StoredObject>> {
        let kind = self.0.kinds().find(|kind| kind.as_str() == K::RESOURCE);
        kind.into_iter()
            .flat_map(move |kind| self.0.iter(kind, namespace))
    }

    /// The objects whose name starts with `prefix`.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn by_prefix<K: Kind>(&self, namespace: &str, prefix: &str) -> Result<Vec<K>> {
        let of_prefix = self
            .raw::<K>(Some(namespace))
            .filter(|o| o.key.name.starts_with(prefix));
        of_prefix.map(|o| decode(&o.bytes)).collect()
    }
}

/// A handle on the store.
#[derive(Clone)]
pub struct Db {
    cluster: Cluster,
}

impl Db {
    /// Over an open store.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// The replicated store below.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The state now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.cluster.read())
    }

    /// Writes, with the store's own verdict when it refuses.
    ///
    /// # Errors
    /// Those of [`Cluster::submit`].
    pub async fn try_submit(&self, txn: Txn) -> Result<TxnOk, RaftError> {
        self.cluster.submit(txn).await
    }

    /// Writes.
    ///
    /// # Errors
    /// See [`to_error`].
    pub async fn submit(&self, txn: Txn) -> Result<TxnOk> {
        self.cluster.submit(txn).await.map_err(to_error)
    }

    /// Creates an object and returns it as stored.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::AlreadyExists`] when the name or a unique value is taken.
    pub async fn create<K: Stored>(&self, object: &K) -> Result<K> {
        stored(
            self.try_submit(Txn::new().insert(object))
                .await
                .map_err(|e| match e {
                    RaftError::Rejected(TxnError::Conflict { key, .. }) => {
                        Error::already_exists(format_args!("{key} already exists"))
                    }
                    e => to_error(e),
                })?,
        )
    }

    /// Replaces an object that is still at the revision in its metadata, and returns it as stored.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::OutOfSequence`] when it changed meanwhile.
    pub async fn update<K: Stored>(&self, object: &K) -> Result<K> {
        stored(self.submit(Txn::new().replace(object)).await?)
    }

    /// Removes an object that is still at the revision in its metadata.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::OutOfSequence`] when it changed meanwhile.
    pub async fn delete<K: Stored>(&self, object: &K) -> Result<()> {
        self.submit(Txn::new().remove(object)).await.map(drop)
    }
}

/// The first object that a transaction wrote.
pub(crate) fn stored<K: Kind>(ok: TxnOk) -> Result<K> {
    let object = ok.objects.into_iter().flatten().next();
    decode(
        &object
            .ok_or_else(|| Error::internal("the transaction wrote nothing"))?
            .bytes,
    )
}

/// The error for the user of a store's refusal or failure.
pub(crate) fn to_error(error: RaftError) -> Error {
    match error {
        RaftError::Rejected(TxnError::Conflict { .. }) => Error::out_of_sequence("update out of sequence"),
        RaftError::Rejected(TxnError::UniqueTaken { value, .. }) => {
            Error::already_exists(format_args!("name conflicts with an existing object: {value}"))
        }
        RaftError::Rejected(TxnError::Invalid { message, .. }) => Error::invalid(message),
        e @ RaftError::TooLarge { .. } => Error::invalid(e),
        RaftError::NotLeader { .. } => crate::members::no_leader(),
        // Whether the write was made is not known when the leader went while it was under way.
        RaftError::Unreachable(why) => crate::members::no_leader_because(&why),
        e @ (RaftError::NotInitialized
        | RaftError::Closed
        | RaftError::Locked
        | RaftError::StorageFull(_)) => Error::unavailable(e),
        RaftError::Gone(e) => Error::new(tripod_model::ErrorKind::Gone, e),
        e => Error::internal(e),
    }
}
