//! Live watches: the history of the store, and the readers that follow it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::Notify;
use tripod_store::{Event, Gone, History, HistoryLimits, WatchFilter};

/// How many events a reader takes at a time; bounds how long it holds the lock that `apply` needs.
const PAGE: usize = 256;

/// Hands events to any number of readers. The writer never waits for one: a reader that is too slow finds its place
/// forgotten.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
}

struct Inner {
    history: History,
    /// The next identity of a reader.
    next: u64,
    readers: std::collections::BTreeMap<u64, Reader>,
    closed: bool,
}

struct Reader {
    filter: WatchFilter,
    /// All wanted events before this revision were delivered; `None`: all there are. While it is `None` the history may
    /// forget what the reader does not want anyway.
    pending: Option<u64>,
    wake: Arc<Notify>,
}

impl Hub {
    pub(crate) fn new(revision: u64, limits: HistoryLimits) -> Self {
        let history = History::new(revision, limits);
        Self {
            inner: Mutex::new(Inner {
                history,
                next: 0,
                readers: Default::default(),
                closed: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while locked")
    }

    /// Remembers events and wakes the readers that want one of them.
    pub(crate) fn publish(&self, events: Vec<Event>) {
        let mut inner = self.lock();
        for reader in inner
            .readers
            .values_mut()
            .filter(|reader| reader.pending.is_none())
        {
            if let Some(first) = events.iter().find(|event| reader.filter.matches(event)) {
                reader.pending = Some(first.revision);
                reader.wake.notify_one();
            }
        }
        events.into_iter().for_each(|event| inner.history.push(event));
    }

    /// Starts anew from another state: what led to it is unknown, so every reader has lost its place.
    pub(crate) fn reset(&self, revision: u64, limits: HistoryLimits) {
        let mut inner = self.lock();
        let oldest_unseen = inner.history.last() + 1;
        inner.history = History::new(revision, limits);
        for reader in inner.readers.values_mut() {
            reader.pending.get_or_insert(oldest_unseen);
            reader.wake.notify_one();
        }
    }

    /// All events of these after a revision, oldest first, and the revision up to which they are complete.
    pub(crate) fn events_after(
        &self,
        filter: &WatchFilter,
        revision: u64,
    ) -> Result<(Vec<Event>, u64), Gone> {
        self.lock().history.watch_page(revision, filter, usize::MAX)
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.readers.values().for_each(|reader| reader.wake.notify_one());
    }

    /// Follows the events after `revision`.
    pub(crate) fn watch(self: &Arc<Self>, filter: WatchFilter, revision: u64) -> Result<Watch, Gone> {
        let mut inner = self.lock();
        let oldest = inner.history.oldest();
        if revision < oldest {
            return Err(Gone {
                asked: revision,
                oldest,
            });
        }
        let (id, wake) = (inner.next, Arc::new(Notify::new()));
        inner.next += 1;
        inner.readers.insert(
            id,
            Reader {
                filter,
                pending: Some(revision + 1),
                wake: wake.clone(),
            },
        );
        drop(inner);
        Ok(Watch {
            hub: self.clone(),
            id,
            wake,
            revision,
            waiting: None,
            page: Vec::new().into_iter(),
            ended: false,
        })
    }
}

enum Next {
    Events(Vec<Event>, u64),
    Nothing(u64),
    Closed,
}

impl Inner {
    fn page(&mut self, id: u64, revision: u64) -> Result<Next, Gone> {
        let last = self.history.last();
        let Some(reader) = self.readers.get_mut(&id) else {
            return Ok(Next::Closed);
        };
        let Some(pending) = reader.pending else {
            return Ok(if self.closed {
                Next::Closed
            } else {
                Next::Nothing(last.max(revision))
            });
        };
        let from = revision.max(pending - 1);
        let (events, complete) = self.history.watch_page(from, &reader.filter, PAGE)?;
        reader.pending = (complete < last).then_some(complete + 1);
        if !events.is_empty() {
            return Ok(Next::Events(events, complete));
        }
        Ok(if self.closed {
            Next::Closed
        } else {
            Next::Nothing(complete)
        })
    }
}

/// The events after a revision, in order and without gaps, as they happen.
///
/// The stream ends after an error ([`Gone`]: the reader was slower than the history is long; list again), or when the
/// store is shut down.
pub struct Watch {
    hub: Arc<Hub>,
    id: u64,
    wake: Arc<Notify>,
    revision: u64,
    waiting: Option<Pin<Box<tokio::sync::futures::OwnedNotified>>>,
    page: std::vec::IntoIter<Event>,
    ended: bool,
}

impl Watch {
    /// Everything up to this revision has been delivered or was not wanted: a watch resumed from here misses nothing.
    /// Moves on while nothing wanted happens (the source of bookmarks); exact after `next` was polled.
    pub fn revision(&self) -> u64 {
        match self.page.as_slice().first() {
            Some(next) => next.revision - 1,
            None => {
                let inner = self.hub.lock();
                match inner.readers.get(&self.id) {
                    Some(reader) if reader.pending.is_none() => inner.history.last().max(self.revision),
                    _ => self.revision,
                }
            }
        }
    }

    /// The next event. `None` when the store was shut down, or after an error.
    pub async fn next(&mut self) -> Option<Result<Event, Gone>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// All events that are there without waiting; empty if there are none.
    ///
    /// # Errors
    /// [`Gone`], as the stream.
    pub fn ready(&mut self) -> Result<Vec<Event>, Gone> {
        let mut events: Vec<Event> = std::mem::take(&mut self.page).collect();
        while let Next::Events(page, complete) = self.hub.lock().page(self.id, self.revision)? {
            self.revision = complete;
            events.extend(page);
        }
        Ok(events)
    }
}

impl Stream for Watch {
    type Item = Result<Event, Gone>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.page.next() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(waiting) = &mut self.waiting {
                std::task::ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            let next = self.hub.lock().page(self.id, self.revision);
            match next {
                Ok(Next::Events(page, complete)) => {
                    self.revision = complete;
                    self.page = page.into_iter();
                }
                Ok(Next::Nothing(complete)) => {
                    self.revision = complete;
                    // A wake-up between the look above and here is stored by `Notify`.
                    self.waiting = Some(Box::pin(self.wake.clone().notified_owned()));
                }
                Ok(Next::Closed) => self.ended = true,
                Err(gone) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(gone)));
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.hub.lock().readers.remove(&self.id);
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}
