//! Lists in pages.

use std::fmt;
use std::ops::Bound;
use std::str::FromStr;
use std::sync::Arc;

use crate::history::{Change, Event};
use crate::key::{KindId, Place};
use crate::object::StoredObject;
use crate::state::State;

/// What to list. `Default` lists nothing sensible; start from [`ListQuery::new`].
pub struct ListQuery<'a> {
    /// The kind.
    pub kind: KindId,
    /// One namespace, or all.
    pub namespace: Option<&'a str>,
    /// At most this many objects in the page; 0 means no limit.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<&'a Continue>,
    /// Which objects count (a label or field selector, already parsed).
    pub filter: Option<&'a dyn Fn(&StoredObject) -> bool>,
}

impl<'a> ListQuery<'a> {
    /// All objects of a kind.
    pub fn new(kind: impl Into<KindId>) -> Self {
        Self {
            kind: kind.into(),
            namespace: None,
            limit: 0,
            after: None,
            filter: None,
        }
    }

    /// Only those of one namespace.
    pub fn namespace(mut self, namespace: &'a str) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Only those that the closure accepts.
    pub fn filter(mut self, filter: &'a dyn Fn(&StoredObject) -> bool) -> Self {
        self.filter = Some(filter);
        self
    }

    /// At most `limit` per page, starting after the end of another page.
    pub fn page(mut self, limit: usize, after: Option<&'a Continue>) -> Self {
        self.limit = limit;
        self.after = after;
        self
    }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct List {
    /// The revision of the snapshot the page was read from.
    pub revision: u64,
    /// The objects, by namespace and name.
    pub items: Vec<Arc<StoredObject>>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Continue>,
}

/// The end of a page: the revision of its snapshot and its last object. As text it is the `continue` token
/// (wrap it in base64 where a client expects an opaque word).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// The revision that the whole list is read at.
    pub revision: u64,
    namespace: Arc<str>,
    name: Arc<str>,
}

impl Continue {
    /// The same place in the list of another revision.
    pub fn at(&self, revision: u64) -> Self {
        Self {
            revision,
            ..self.clone()
        }
    }
}

/// The text is no continue token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a continue token")]
pub struct ParseContinueError;

impl fmt::Display for Continue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names may contain colons, namespaces may not.
        write!(f, "{}:{}:{}", self.revision, self.namespace, self.name)
    }
}

impl FromStr for Continue {
    type Err = ParseContinueError;

    fn from_str(text: &str) -> Result<Self, ParseContinueError> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(ParseContinueError);
        let revision = part()?.parse().map_err(|_| ParseContinueError)?;
        Ok(Self {
            revision,
            namespace: part()?.into(),
            name: part()?.into(),
        })
    }
}

impl State {
    /// Reads one page. The caller passes the state of `after.revision` when a list goes on.
    pub fn list(&self, query: &ListQuery<'_>) -> List {
        let mut list = List {
            revision: self.revision,
            items: Vec::new(),
            next: None,
        };
        let Some(table) = self.tables.get(&query.kind) else {
            return list;
        };
        let start = match query.after {
            Some(c) => Bound::Excluded(Place {
                namespace: c.namespace.clone(),
                name: c.name.clone(),
            }),
            None => Bound::Included(Place {
                namespace: query.namespace.unwrap_or("").into(),
                name: "".into(),
            }),
        };
        for (place, object) in table.range((start, Bound::Unbounded)) {
            if let Some(namespace) = query.namespace {
                match (*place.namespace).cmp(namespace) {
                    // Only a token of another namespace starts before.
                    std::cmp::Ordering::Less => continue,
                    std::cmp::Ordering::Equal => {}
                    std::cmp::Ordering::Greater => break,
                }
            }
            if query.filter.is_some_and(|keep| !keep(object)) {
                continue;
            }
            if query.limit != 0 && list.items.len() == query.limit {
                list.next = list.items.last().map(|last| Continue {
                    revision: self.revision,
                    namespace: last.key.namespace.clone(),
                    name: last.key.name.clone(),
                });
                break;
            }
            list.items.push(object.clone());
        }
        list
    }

    /// The objects of one kind as they were at an earlier revision; other kinds are left out. `events` are all changes
    /// of the kind after that revision, oldest first; what is newer than this state is passed over.
    pub fn rewound(&self, kind: &KindId, revision: u64, events: &[Event]) -> State {
        let mut table = self.tables.get(kind).cloned().unwrap_or_default();
        for event in events.iter().rev().filter(|e| e.revision <= self.revision) {
            let place = event.object.key.place();
            match (&event.previous, event.change) {
                (Some(previous), _) => table.insert_mut(place, previous.clone()),
                (None, Change::Added) => drop(table.remove_mut(&place)),
                (None, _) => {}
            }
        }
        let mut state = State::default();
        state.revision = revision;
        state.tables.insert_mut(kind.clone(), table);
        state
    }
}
