//! The objects, and `apply`.

use std::ops::Bound;
use std::sync::Arc;

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::error::TxnError;
use crate::history::{Change, Event};
use crate::key::{Key, KindId, Place};
use crate::object::{self, StoredObject};
use crate::txn::{Claim, Expected, Op, Precondition, Txn, TxnOk, TxnResult};

pub(crate) type Table = RedBlackTreeMapSync<Place, Arc<StoredObject>>;

/// All objects at one revision.
///
/// A clone shares everything with its origin until one of them changes, so `clone` is how a reader takes a
/// consistent snapshot.
#[derive(Clone)]
pub struct State {
    pub(crate) revision: u64,
    pub(crate) tables: RedBlackTreeMapSync<KindId, Table>,
    /// Who holds which unique value.
    unique: RedBlackTreeMapSync<Claim, Key>,
    /// (owner uid, dependent): found by range.
    owned: RedBlackTreeSetSync<(Arc<str>, Key)>,
    /// Kinds and namespaces seen so far, so that a hundred thousand keys share a few strings. Never freed: a cluster
    /// has few of them.
    strings: RedBlackTreeSetSync<Arc<str>>,
}

/// What a batch of transactions did.
#[derive(Debug)]
pub struct Applied {
    /// One result per transaction, in order.
    pub results: Vec<TxnResult>,
    /// The changes, by revision.
    pub events: Vec<Event>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            revision: 0,
            tables: RedBlackTreeMapSync::new_sync(),
            unique: RedBlackTreeMapSync::new_sync(),
            owned: RedBlackTreeSetSync::new_sync(),
            strings: RedBlackTreeSetSync::new_sync(),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("revision", &self.revision)
            .field("objects", &self.len())
            .finish()
    }
}

impl State {
    /// An empty store at revision 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.tables.values().map(Table::size).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tables.values().all(Table::is_empty)
    }

    /// The kinds that have had objects, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &KindId> {
        self.tables.keys()
    }

    /// How many objects of one kind there are.
    pub fn count(&self, kind: &KindId) -> usize {
        self.tables.get(kind).map_or(0, Table::size)
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<&Arc<StoredObject>> {
        self.tables.get(&key.kind)?.get(&key.place())
    }

    /// The object that holds a unique value.
    pub fn by_unique(&self, index: &str, value: &str) -> Option<&Arc<StoredObject>> {
        let claim = Claim {
            index: index.into(),
            value: value.into(),
        };
        self.get(self.unique.get(&claim)?)
    }

    /// The objects whose owner references name this uid, by key.
    pub fn dependents(&self, owner_uid: &str) -> impl Iterator<Item = &Arc<StoredObject>> {
        let owner: Arc<str> = owner_uid.into();
        let first = (owner.clone(), Key::cluster("", ""));
        self.owned
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |(uid, _)| *uid == owner)
            .filter_map(|(_, key)| self.get(key))
    }

    /// All objects of a kind, or of one namespace of it, by namespace and name.
    pub fn iter(&self, kind: &KindId, namespace: Option<&str>) -> impl Iterator<Item = &Arc<StoredObject>> {
        let namespace = namespace.map(str::to_owned);
        let first = Place {
            namespace: namespace.as_deref().unwrap_or("").into(),
            name: "".into(),
        };
        self.tables
            .get(kind)
            .into_iter()
            .flat_map(move |table| table.range((Bound::Included(first.clone()), Bound::Unbounded)))
            .take_while(move |(place, _)| namespace.as_deref().is_none_or(|ns| *place.namespace == *ns))
            .map(|(_, object)| object)
    }

    /// Applies transactions in order. Each one sees what those before it wrote.
    ///
    /// Deterministic: the same transactions on the same state give the same state, results and events everywhere.
    pub fn apply(&mut self, batch: &[Txn]) -> Applied {
        let mut events = Vec::new();
        let results = batch.iter().map(|txn| self.apply_one(txn, &mut events)).collect();
        Applied { results, events }
    }

    fn apply_one(&mut self, txn: &Txn, events: &mut Vec<Event>) -> TxnResult {
        for (check, precondition) in txn.checks.iter().enumerate() {
            self.judge(check, precondition)?;
        }
        // A transaction of one write fails before it changes anything; a longer one needs a way back.
        let before = (txn.ops.len() > 1).then(|| (self.clone(), events.len()));
        let mut objects = Vec::with_capacity(txn.ops.len());
        for (op, write) in txn.ops.iter().enumerate() {
            match self.write(op, write, events) {
                Ok(object) => objects.push(object),
                Err(error) => {
                    if let Some((state, len)) = before {
                        *self = state;
                        events.truncate(len);
                    }
                    return Err(error);
                }
            }
        }
        Ok(TxnOk {
            revision: self.revision,
            objects,
        })
    }

    fn judge(&self, check: usize, Precondition { key, expected }: &Precondition) -> Result<(), TxnError> {
        let found = self.get(key);
        let holds = match (expected, found) {
            (Expected::Absent, found) => found.is_none(),
            (_, None) => false,
            (Expected::Exists, Some(_)) => true,
            (Expected::Revision(revision), Some(object)) => object.revision == *revision,
            (Expected::Uid(uid), Some(object)) => object.uid == *uid,
        };
        if holds {
            return Ok(());
        }
        let actual = found.map(|object| object.revision);
        Err(TxnError::Conflict {
            check,
            key: key.clone(),
            expected: expected.clone(),
            actual,
        })
    }

    fn write(
        &mut self,
        op: usize,
        write: &Op,
        events: &mut Vec<Event>,
    ) -> Result<Option<Arc<StoredObject>>, TxnError> {
        match write {
            Op::Put { key, bytes, unique } => self.put(op, key, bytes, unique, events).map(Some),
            Op::Delete { key } => Ok(self.delete(key, events)),
        }
    }

    fn put(
        &mut self,
        op: usize,
        key: &Key,
        bytes: &[u8],
        unique: &[Claim],
        events: &mut Vec<Event>,
    ) -> Result<Arc<StoredObject>, TxnError> {
        let parsed = object::parse(key, bytes).map_err(|message| TxnError::Invalid {
            op,
            key: key.clone(),
            message,
        })?;
        for claim in unique {
            if let Some(holder) = self.unique.get(claim).filter(|holder| *holder != key) {
                let Claim { index, value } = claim.clone();
                return Err(TxnError::UniqueTaken {
                    op,
                    index,
                    value,
                    holder: holder.clone(),
                });
            }
        }
        let previous = self.get(key).cloned();
        self.revision += 1;
        let key = match &previous {
            Some(previous) => previous.key.clone(),
            None => self.intern(key),
        };
        // An update seldom changes labels: share them with the version before.
        let labels = match &previous {
            Some(previous) if previous.labels == parsed.labels => previous.labels.clone(),
            _ => parsed.labels.clone(),
        };
        let object = Arc::new(StoredObject {
            key,
            revision: self.revision,
            created_revision: previous.as_ref().map_or(self.revision, |p| p.created_revision),
            bytes: parsed.splice(bytes, self.revision),
            uid: parsed.uid,
            labels,
            owners: parsed.owners,
            claims: unique.into(),
        });
        if let Some(previous) = &previous {
            self.unindex(previous);
        }
        self.insert(object.clone());
        let change = if previous.is_some() {
            Change::Modified
        } else {
            Change::Added
        };
        events.push(Event {
            revision: self.revision,
            change,
            object: object.clone(),
            previous,
        });
        Ok(object)
    }

    fn delete(&mut self, key: &Key, events: &mut Vec<Event>) -> Option<Arc<StoredObject>> {
        let previous = self.get(key)?.clone();
        self.revision += 1;
        self.unindex(&previous);
        if let Some(table) = self.tables.get_mut(&key.kind) {
            table.remove_mut(&key.place());
        }
        let object = object::tombstone(&previous, self.revision);
        let previous = Some(previous);
        events.push(Event {
            revision: self.revision,
            change: Change::Deleted,
            object: object.clone(),
            previous,
        });
        Some(object)
    }

    /// Adds an object and its index entries, without taking a revision.
    pub(crate) fn insert(&mut self, object: Arc<StoredObject>) {
        for claim in &object.claims {
            self.unique.insert_mut(claim.clone(), object.key.clone());
        }
        for owner in &object.owners {
            self.owned.insert_mut((owner.clone(), object.key.clone()));
        }
        let place = object.key.place();
        match self.tables.get_mut(&object.key.kind) {
            Some(table) => table.insert_mut(place, object),
            None => {
                let kind = object.key.kind.clone();
                self.tables
                    .insert_mut(kind, Table::new_sync().insert(place, object));
            }
        }
    }

    fn unindex(&mut self, object: &StoredObject) {
        for claim in &object.claims {
            self.unique.remove_mut(claim);
        }
        for owner in &object.owners {
            self.owned.remove_mut(&(owner.clone(), object.key.clone()));
        }
    }

    /// The same key with shared strings for kind and namespace.
    pub(crate) fn intern(&mut self, key: &Key) -> Key {
        let mut share = |text: &Arc<str>| match self.strings.get(text) {
            Some(known) => known.clone(),
            None => {
                self.strings.insert_mut(text.clone());
                text.clone()
            }
        };
        Key {
            kind: KindId(share(&key.kind.0)),
            namespace: share(&key.namespace),
            name: key.name.clone(),
        }
    }
}
