//! What nodes report of their pods: merged into the stored pods, and told as events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tripod_model::Time;
use tripod_model::pod::Pod;
use tripod_plan::kube::{Note, record_events, report};
use tripod_plan::report::merge_report;
use tripod_plan::{Object, Write};

use crate::controller::{Controller, Refused};

impl Controller {
    /// Writes what nodes reported. Whether anything was written.
    pub(crate) async fn merge(&mut self) -> Result<bool, Refused> {
        if self.reports.is_empty() {
            return Ok(false);
        }
        let now = Time::now();
        let mut merged: BTreeMap<&str, Pod> = BTreeMap::new();
        let mut gone: BTreeSet<&str> = BTreeSet::new();
        let mut notes: Vec<Note> = Vec::new();
        let mut writes = Vec::new();
        self.manager.with_view(|view| {
            for (node, said) in &self.reports {
                // A node speaks for its own pods only.
                let stored = view.pod(&said.pod).filter(|pod| pod.spec.node_name == *node);
                let Some(stored) = stored.filter(|p| said.uid.is_empty() || said.uid == p.metadata.uid)
                else {
                    continue;
                };
                notes.extend(said.events.iter().map(|event| report::note(stored, node, event)));
                let pod = merged.get(said.pod.as_str()).unwrap_or(stored.as_ref());
                let ends = pod.metadata.deletion_timestamp.is_some() && pod.metadata.finalizers.is_empty();
                if said.gone && ends {
                    gone.insert(&said.pod);
                }
                if let Some(mut pod) = merge_report(pod, said, now) {
                    tripod_plan::ecs::life::observe(&mut pod, now);
                    merged.insert(&said.pod, pod);
                }
            }
            for key in &gone {
                merged.remove(key);
                if let Some(stored) = view.pod(key) {
                    writes.push(Write::Delete {
                        object: Object::Pod(stored.clone()),
                        based_on: stored.metadata.revision(),
                    });
                }
            }
        });
        writes.extend(merged.into_values().map(|pod| {
            let based_on = pod.metadata.revision();
            Write::Update {
                object: Object::Pod(Arc::new(pod)),
                based_on,
            }
        }));
        let wrote = self.execute(writes).await?;
        self.reports.clear();
        if !notes.is_empty() {
            let seed = rand::random();
            let told = self
                .manager
                .with_view(|view| record_events(view, notes, now, seed));
            // What an event tells has happened: that the event could not be written must not undo it.
            if self.execute(told.events).await.is_err() {
                tracing::warn!("events could not be written");
            }
        }
        Ok(wrote)
    }
}
