//! The controllers of the Kubernetes API in the loop: what changes concern is decided and written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tripod_model::Time;
use tripod_plan::View;
use tripod_plan::kube::{WorkKey, reconcile_kube};

use crate::controller::{Controller, Refused};

/// When to decide about which keys again. Only the earliest time of a key counts: deciding then names the next one.
#[derive(Default)]
pub(crate) struct KubeWakes {
    by_time: BTreeMap<Time, BTreeSet<WorkKey>>,
    by_key: HashMap<WorkKey, Time>,
}

impl KubeWakes {
    /// The next time at which something is due.
    pub(crate) fn first(&self) -> Option<Time> {
        self.by_time.keys().next().copied()
    }

    /// Forgets and returns the keys that are due.
    pub(crate) fn take(&mut self, now: Time) -> Vec<WorkKey> {
        let mut due = Vec::new();
        while let Some(entry) = self.by_time.first_entry().filter(|e| *e.key() <= now) {
            due.extend(entry.remove());
        }
        for key in &due {
            self.by_key.remove(key);
        }
        due
    }

    fn add(&mut self, at: Time, key: WorkKey) {
        match self.by_key.get(&key) {
            Some(known) if *known <= at => return,
            Some(known) => {
                if let Some(keys) = self.by_time.get_mut(known) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        self.by_time.remove(known);
                    }
                }
            }
            None => {}
        }
        self.by_key.insert(key.clone(), at);
        self.by_time.entry(at).or_default().insert(key);
    }
}

impl Controller {
    /// Has the controllers decide what changes concern, and writes it. Whether anything was written.
    pub(crate) async fn plan_kube(&mut self) -> Result<bool, Refused> {
        let dirty = self.manager.change_view(|view| view.kube_mut().take_dirty());
        if dirty.is_empty() {
            return Ok(false);
        }
        let (now, seed) = (Time::now(), rand::random());
        let plan = self
            .manager
            .with_view(|view: &View| reconcile_kube(view, &dirty, now, seed));
        for why in &plan.explanations {
            tracing::debug!(name = why.name, reason = why.reason, "{}", why.message);
        }
        let written = self.execute(plan.writes).await;
        let mut wrote = match written {
            Ok(wrote) => wrote,
            Err(refused) => {
                self.remind(dirty);
                return Err(refused);
            }
        };
        wrote |= !plan.again.is_empty();
        self.remind(plan.again);
        for (at, key) in plan.wakes {
            self.kube_wakes.add(at, key);
        }
        // What an event tells has happened: that the event could not be written must not undo it.
        if self.execute(plan.events).await.is_err() {
            tracing::warn!("events could not be written");
        }
        Ok(wrote)
    }

    fn remind(&self, keys: BTreeSet<WorkKey>) {
        if !keys.is_empty() {
            self.manager
                .change_view(|view| keys.into_iter().for_each(|key| view.kube_mut().mark_key(key)));
        }
    }
}
