//! The decisions of ECS in the loop.

use std::collections::{BTreeMap, BTreeSet};

use tripod_model::Time;
use tripod_plan::View;
use tripod_plan::ecs::{Key, reconcile_ecs};

use crate::controller::{Controller, Refused};

/// When to decide about which keys again.
#[derive(Default)]
pub(crate) struct EcsWakes(BTreeMap<Time, BTreeSet<Key>>);

impl EcsWakes {
    /// The next time at which something is due.
    pub(crate) fn first(&self) -> Option<Time> {
        self.0.keys().next().copied()
    }

    /// Forgets and returns the keys that are due.
    pub(crate) fn take(&mut self, now: Time) -> BTreeSet<Key> {
        let mut due = BTreeSet::new();
        while let Some(entry) = self.0.first_entry().filter(|e| *e.key() <= now) {
            due.extend(entry.remove());
        }
        due
    }

    /// Only the earliest time of a key counts: deciding then names the next one.
    fn add(&mut self, at: Time, key: Key) {
        if self.0.range(..=at).any(|(_, keys)| keys.contains(&key)) {
            return;
        }
        self.0.entry(at).or_default().insert(key);
    }
}

impl Controller {
    /// Decides about the services and tasks that changes concern, and writes it. Whether anything was written.
    pub(crate) async fn plan_ecs(&mut self) -> Result<bool, Refused> {
        let dirty = self.manager.change_view(|view| view.ecs_mut().take_dirty());
        if dirty.is_empty() {
            return Ok(false);
        }
        let (now, seed) = (Time::now(), rand::random());
        let plan = self
            .manager
            .with_view(|view: &View| reconcile_ecs(view, &dirty, now, seed));
        let written = self.execute(plan.writes).await;
        if written.is_err() {
            self.remind_ecs(dirty);
            return written;
        }
        for (at, key) in plan.wakes {
            self.ecs_wakes.add(at, key);
        }
        written
    }

    /// Has keys decided about again.
    pub(crate) fn remind_ecs(&self, keys: BTreeSet<Key>) {
        if !keys.is_empty() {
            self.manager
                .change_view(|view| keys.into_iter().for_each(|key| view.ecs_mut().mark(key)));
        }
    }
}
