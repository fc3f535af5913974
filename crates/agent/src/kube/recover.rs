//! What a pod's worker finds when it begins.

use std::sync::Arc;

use tripod_model::Time;
use tripod_model::container::{ContainerStatus, HealthStatus};

use super::desc::{Desc, Role};
use super::notes::PAUSES;
use super::status::{Ended, Run};
use super::worker::Worker;
use crate::record::{ContainerRecord, Owner};

impl Worker {
    /// Takes over what a former daemon, or a former session of this one, left of the pod.
    pub(super) async fn recover(&mut self) {
        let desc = self.desc.clone();
        let mut here = false;
        for c in &desc.containers {
            let mut runs: Vec<Arc<ContainerRecord>> = self
                .agent
                .containers()
                .into_iter()
                .filter(|r| {
                    matches!(&r.owner, Owner::Pod { uid, container, .. }
                        if uid == desc.uid() && container == c.name())
                })
                .collect();
            runs.sort_by_key(|r| r.owner.attempt());
            // Made and never started: as if it were not.
            if let Some(last) = runs
                .last()
                .filter(|r| r.run == 0 && r.state.status == ContainerStatus::Created)
            {
                self.agent.remove_run(last).await;
                runs.pop();
            }
            here |= !runs.is_empty();
            let Some(newest) = runs.pop() else { continue };
            let before = match runs.pop() {
                Some(r) => Some(self.agent.ended(c, &r).await),
                None => None,
            };
            self.recover_run(c, &newest, before).await;
        }
        if !here {
            return;
        }
        // Its network may have gone with the machine: then it is made anew, and the containers with it.
        let uid = desc.uid();
        if self.agent.place_of(uid).is_none() {
            return;
        }
        match self.agent.settle_place(&desc, &self.inputs).await {
            Ok(place) => self.placed(Ok(Box::new(place))),
            Err(error) => self.placed(Err(error)),
        }
        for c in &desc.containers {
            let running = self
                .tracks
                .get(c.name())
                .filter(|t| matches!(t.known.run, Run::Running { .. }));
            if let Some(id) = running.map(|t| t.known.id.clone()) {
                self.follow(c.name(), &id);
                self.probe(c, &id);
            }
        }
        self.resume_resize();
    }

    async fn recover_run(&mut self, c: &Desc, newest: &ContainerRecord, before: Option<Ended>) {
        let desc = self.desc.clone();
        let told = desc.pod.status.rest.get(match c.role {
            Role::Init | Role::Sidecar => "initContainerStatuses",
            Role::Regular => "containerStatuses",
            Role::Ephemeral => "ephemeralContainerStatuses",
        });
        let told = told
            .and_then(|t| t.as_array())
            .into_iter()
            .flatten()
            .find(|s| s["name"] == c.name());
        let flag = |key: &str| told.and_then(|t| t.get(key)?.as_bool()).unwrap_or(false);
        let image = told
            .and_then(|t| t.get("imageID")?.as_str())
            .unwrap_or_default()
            .to_owned();
        let attempt = newest.owner.attempt();
        let track = self.tracks.entry(c.name().to_owned()).or_default();
        track.attempt = attempt + 1;
        track.known.restarts = attempt;
        track.known.id.clone_from(&newest.id);
        track.known.image_id = if image.is_empty() {
            newest.spec.image_id.clone()
        } else {
            image
        };
        track.known.last = before;
        track.pause = if attempt == 0 { 0 } else { PAUSES.0 };
        if newest.is_running() {
            let told = told.and_then(|t| serde_json::from_value(t.get("resources")?.clone()).ok());
            track.known.resources = told.or_else(|| c.container.resources.clone());
            track.known.run = Run::Running {
                at: newest.state.started_at.unwrap_or_else(Time::now),
            };
            track.known.started = c.container.startup_probe.is_none() || flag("started");
            track.known.ready = c.container.readiness_probe.is_none() && track.known.started || flag("ready");
            track.known.health = newest
                .state
                .health
                .as_ref()
                .map_or(HealthStatus::None, |h| h.status);
        } else {
            let ended = self.agent.ended(c, newest).await;
            self.ran_out(c, ended);
        }
    }
}
