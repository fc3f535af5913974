//! The node's events: a bounded past and live subscribers.

use std::collections::{BTreeMap, VecDeque};

use std::sync::Mutex;
use tokio::sync::broadcast;
use tripod_model::Time;
use tripod_model::event::Event;

/// How many past events can be asked for (Docker keeps as many).
const KEPT: usize = 256;
/// How far a subscriber may fall behind before it misses events.
const BUFFER: usize = 1024;

/// Publishes events and remembers the last ones.
pub struct Events {
    past: Mutex<VecDeque<Event>>,
    live: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            past: Mutex::default(),
            live: broadcast::channel(BUFFER).0,
        }
    }
}

impl Events {
    /// Publishes an event that has just happened.
    pub fn emit(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        self.publish(Event {
            kind: kind.into(),
            action: action.into(),
            id: id.into(),
            attributes,
            time: Time::now(),
            scope: "local".into(),
        });
    }

    /// Publishes an event made elsewhere (the cluster's).
    pub fn publish(&self, event: Event) {
        let mut past = self
            .past
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Sent under the lock, so that a subscriber sees each event once: in the past or live. No subscriber is no
        // error.
        let _ = self.live.send(event);
    }

    /// Past events from `since` on, and the live ones after them.
    pub fn subscribe(&self, since: Option<Time>) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self
            .past
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let events = since.map_or_else(Vec::new, |t| {
            past.iter().filter(|e| e.time >= t).cloned().collect()
        });
        (events, self.live.subscribe())
    }
}
