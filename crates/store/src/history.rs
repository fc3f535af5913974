//! The bounded memory of recent changes, from which watches are served.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::key::KindId;
use crate::object::StoredObject;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It was created.
    Added,
    /// It was replaced.
    Modified,
    /// It was removed.
    Deleted,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The write's revision. No other event has it.
    pub revision: u64,
    /// What happened.
    pub change: Change,
    /// The object after the write; for a removal, its last state with the revision of the removal.
    pub object: Arc<StoredObject>,
    /// The object before the write.
    pub previous: Option<Arc<StoredObject>>,
}

/// Which events a watch wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchFilter {
    /// Only these kinds; empty means all.
    pub kinds: Vec<KindId>,
    /// Only this namespace.
    pub namespace: Option<Arc<str>>,
}

impl WatchFilter {
    /// All events.
    pub fn all() -> Self {
        Self::default()
    }

    /// Events of some kinds.
    pub fn kinds<K: Into<KindId>>(kinds: impl IntoIterator<Item = K>) -> Self {
        Self {
            kinds: kinds.into_iter().map(Into::into).collect(),
            namespace: None,
        }
    }

    /// Events of one namespace only.
    pub fn namespace(mut self, namespace: impl Into<Arc<str>>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Whether the event is wanted.
    pub fn matches(&self, event: &Event) -> bool {
        let key = &event.object.key;
        (self.kinds.is_empty() || self.kinds.contains(&key.kind))
            && self.namespace.as_ref().is_none_or(|ns| *ns == key.namespace)
    }
}

/// The changes after the asked revision are no longer remembered: list again (410 Gone, `Expired`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} (oldest is {oldest})")]
pub struct Gone {
    /// The revision asked for.
    pub asked: u64,
    /// The oldest revision from which a watch can start.
    pub oldest: u64,
}

/// How much a [`History`] remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// At most this many events.
    pub events: usize,
    /// At most about this many bytes of objects.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            events: 20_000,
            bytes: 8 << 20,
        }
    }
}

/// The most recent events. Revisions in it are consecutive, since each write takes one.
#[derive(Debug)]
pub struct History {
    limits: HistoryLimits,
    /// The revision of the last event; all after `floor` up to here are held.
    last: u64,
    events: VecDeque<Event>,
    bytes: usize,
}

/// What an event adds to memory: the version it replaced, which only the history still holds.
fn weight(event: &Event) -> usize {
    let tombstone = if event.change == Change::Deleted {
        event.object.weight()
    } else {
        0
    };
    std::mem::size_of::<Event>() + tombstone + event.previous.as_ref().map_or(0, |p| p.weight())
}

impl History {
    /// An empty history of a state at `revision`.
    pub fn new(revision: u64, limits: HistoryLimits) -> Self {
        Self {
            limits,
            last: revision,
            events: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Remembers an event, and forgets the oldest ones beyond the limits.
    ///
    /// # Panics
    /// If its revision does not follow the last one: an event would be lost to watchers.
    pub fn push(&mut self, event: Event) {
        assert_eq!(event.revision, self.last + 1, "events are consecutive");
        self.last = event.revision;
        self.bytes += weight(&event);
        self.events.push_back(event);
        while self.events.len() > self.limits.events || self.bytes > self.limits.bytes {
            let Some(old) = self.events.pop_front() else { break };
            self.bytes -= weight(&old);
        }
    }

    /// The revision of the last event.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The oldest revision from which [`History::watch_from`] works.
    pub fn oldest(&self) -> u64 {
        self.last - self.events.len() as u64
    }

    /// Up to `limit` matching events after `revision`, oldest first, and the revision up to which the answer is
    /// complete (ask from there next).
    ///
    /// # Errors
    /// [`Gone`] if events after `revision` have been forgotten.
    pub fn watch_page(
        &self,
        revision: u64,
        filter: &WatchFilter,
        limit: usize,
    ) -> Result<(Vec<Event>, u64), Gone> {
        let oldest = self.oldest();
        if revision < oldest {
            return Err(Gone {
                asked: revision,
                oldest,
            });
        }
        // A revision from the future: nothing happened after it yet.
        let skip = usize::try_from(revision - oldest).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        for event in self
            .events
            .iter()
            .skip(skip)
            .filter(|event| filter.matches(event))
        {
            if found.len() == limit {
                let complete = found.last().map_or(revision, |e: &Event| e.revision);
                return Ok((found, complete));
            }
            found.push(event.clone());
        }
        Ok((found, self.last.max(revision)))
    }

    /// All matching events after `revision`, oldest first.
    ///
    /// # Errors
    /// [`Gone`] if events after `revision` have been forgotten.
    pub fn watch_from(&self, revision: u64, filter: &WatchFilter) -> Result<Vec<Event>, Gone> {
        self.watch_page(revision, filter, usize::MAX)
            .map(|(events, _)| events)
    }
}
