//! Events (core/v1): one object for what happens again, with a count, and an hour's memory.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::SignedDuration;
use serde_json::{Value, json};
use tripod_model::Time;
use tripod_model::k8s_openapi::api::core::v1::Event;

use super::kinds;
use super::object::{KObject, ObjKey};
use super::view::{Controller, KubeView};
use super::work::{Work, stamp};

/// How long events are kept after they last happened.
const KEPT: SignedDuration = SignedDuration::from_hours(1);

/// Something worth telling about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Group and version of the object.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `uid`.
    pub uid: String,
    /// `Warning` instead of `Normal`.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Who says so: `deployment-controller`, `kubelet`.
    pub component: String,
    /// Node from which it is said.
    pub host: String,
    /// The part of the object (`spec.containers{web}`).
    pub field_path: String,
}

impl Note {
    fn same(&self) -> u64 {
        identity(
            &self.uid,
            &self.reason,
            &self.message,
            &self.component,
            &self.field_path,
        )
    }
}

fn identity(uid: &str, reason: &str, message: &str, component: &str, field_path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (uid, reason, message, component, field_path).hash(&mut hasher);
    hasher.finish()
}

/// Events by what they say and by when they go.
#[derive(Debug, Clone, Default)]
pub(super) struct EventIndex {
    by_content: HashMap<u64, ObjKey>,
    by_expiry: BTreeSet<(Time, ObjKey)>,
}

impl EventIndex {
    pub(super) fn first_expiry(&self) -> Option<Time> {
        self.by_expiry.first().map(|(at, _)| *at)
    }
}

fn last_of(event: &Event) -> Option<Time> {
    let series = event
        .series
        .as_ref()
        .and_then(|s| s.last_observed_time.as_ref())
        .map(|t| t.0);
    let last = event.last_timestamp.as_ref().map(|t| t.0);
    let made = event.metadata.creation_timestamp.as_ref().map(|t| t.0);
    [series, last, event.event_time.as_ref().map(|t| t.0), made]
        .into_iter()
        .flatten()
        .max()
}

impl KubeView {
    pub(super) fn note_event(&mut self, old: Option<&KObject>, new: Option<&KObject>) {
        for (object, present) in [(old, false), (new, true)] {
            let Some(object) = object else { continue };
            // Not through the cache of the object: events are many, and read here only.
            let Ok(event) = serde_json::from_slice::<Event>(&object.bytes) else {
                continue;
            };
            let about = &event.involved_object;
            let content = identity(
                about.uid.as_deref().unwrap_or_default(),
                event.reason.as_deref().unwrap_or_default(),
                event.message.as_deref().unwrap_or_default(),
                event
                    .source
                    .as_ref()
                    .and_then(|s| s.component.as_deref())
                    .unwrap_or_default(),
                about.field_path.as_deref().unwrap_or_default(),
            );
            let expiry = last_of(&event).unwrap_or(Time::UNIX_EPOCH);
            let expiry = expiry.checked_add(KEPT).unwrap_or(Time::MAX);
            let entry = (expiry, object.key.clone());
            if present {
                self.events.by_content.insert(content, object.key.clone());
                let first = self.events.first_expiry();
                self.events.by_expiry.insert(entry);
                if first.is_none() {
                    self.mark_only(Controller::Events);
                }
            } else {
                self.events.by_expiry.remove(&entry);
                if self.events.by_content.get(&content) == Some(&object.key) {
                    self.events.by_content.remove(&content);
                }
            }
        }
    }
}

/// Removes events that are old.
pub(super) fn expire(w: &mut Work<'_>) {
    let due: Vec<ObjKey> =
        w.k.events
            .by_expiry
            .iter()
            .take_while(|(at, _)| *at <= w.now)
            .map(|(_, key)| key.clone())
            .collect();
    for key in due {
        if let Some(object) = w.k.get(kinds::EVENTS, &key.namespace, &key.name).cloned() {
            w.remove(&object);
        }
    }
    let now = w.now;
    if let Some(next) = w.k.first_expiry() {
        // Not for each of them: they go in batches.
        let batch = now.checked_add(SignedDuration::from_mins(1)).unwrap_or(Time::MAX);
        w.wake(next.max(batch));
    }
}

/// The writes that tell what happened.
pub(super) fn record(w: &mut Work<'_>, notes: Vec<Note>) {
    let mut counted: Vec<(Note, i64)> = Vec::new();
    let mut seen: HashMap<u64, usize> = HashMap::new();
    for note in notes {
        match seen.get(&note.same()) {
            Some(&at) => counted[at].1 += 1,
            None => {
                seen.insert(note.same(), counted.len());
                counted.push((note, 1));
            }
        }
    }
    let now = stamp(w.now);
    for (note, count) in counted {
        let namespace = if note.namespace.is_empty() {
            "default"
        } else {
            &note.namespace
        };
        if !w.k.namespace_lives(namespace) && w.k.by_uid(&note.uid).is_none() {
            continue;
        }
        let known = w.k.events.by_content.get(&note.same());
        let known = known
            .and_then(|key| w.k.get(kinds::EVENTS, &key.namespace, &key.name))
            .cloned();
        match known {
            Some(object) => {
                w.update(&object, |event| {
                    let before = event["count"].as_i64().unwrap_or(1);
                    event["count"] = (before + count).into();
                    event["lastTimestamp"] = now.clone();
                });
            }
            None if w.k.namespace_lives(namespace) => {
                let namespace = namespace.to_owned();
                let value = new_event(&note, &namespace, count, &now, w.rng.next_u64());
                w.create_raw(kinds::EVENTS, value);
            }
            None => {}
        }
    }
}

fn new_event(note: &Note, namespace: &str, count: i64, now: &Value, random: u64) -> Value {
    let mut about = json!({
        "apiVersion": note.api_version, "kind": note.kind, "name": note.name, "uid": note.uid,
    });
    for (key, value) in [("namespace", &note.namespace), ("fieldPath", &note.field_path)] {
        if !value.is_empty() {
            about[key] = value.as_str().into();
        }
    }
    let mut source = json!({ "component": note.component });
    if !note.host.is_empty() {
        source["host"] = note.host.as_str().into();
    }
    json!({
        "metadata": { "name": format!("{}.{random:016x}", note.name), "namespace": namespace },
        "involvedObject": about,
        "reason": note.reason,
        "message": note.message,
        "source": source,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": count,
        "type": if note.warning { "Warning" } else { "Normal" },
        "eventTime": Value::Null,
        "reportingComponent": note.component,
        "reportingInstance": note.host,
    })
}
