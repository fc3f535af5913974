//! What a pod's worker makes of what it is told, and of what it finds when it begins.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tripod_model::Time;
use tripod_model::container::HealthStatus;

use super::actions::{Begun, Failure, Waits, probed};
use super::desc::{Desc, Role};
use super::place::PlaceError;
use super::probes::{self, Kind};
use super::status::{Ended, Run};
use super::step::restarts;
use super::track::{Busy, Note, PlaceState};
use super::worker::Worker;
use crate::record::Owner;

/// The first and the longest pause before a container is started again, in seconds.
pub(super) const PAUSES: (i64, i64) = (10, 300);
/// A container that ran for so many seconds starts with a clean slate.
const FORGIVEN: i64 = 600;
/// The longest pause before a place is tried again.
const PLACE_PAUSE: Duration = Duration::from_secs(120);
/// Between the news that an image cannot be pulled and the word that it is waited for.
const TOLD: Duration = Duration::from_secs(1);

fn after(from: Time, seconds: i64) -> Time {
    from.saturating_add(jiff::SignedDuration::from_secs(seconds))
        .unwrap_or(Time::MAX)
}

/// The pause before a container that ended is started again, and the one after that; pure.
pub(super) fn pauses(pause: i64, ran: i64) -> (i64, i64) {
    if ran >= FORGIVEN {
        return (0, PAUSES.0);
    }
    (pause, (pause * 2).clamp(PAUSES.0, PAUSES.1))
}

impl Worker {
    pub(super) async fn take(&mut self, note: Note) {
        match note {
            Note::Event(event) => self.events.push(event),
            Note::Placed(placed) => self.placed(placed),
            Note::Left => self.place = PlaceState::None,
            Note::Begun(name, Ok(begun)) => self.begun(&name, begun),
            Note::Begun(name, Err(failure)) => self.failed(&name, failure),
            Note::Hooked(name, id, done) => self.hooked(&name, &id, done),
            Note::Changed(name, id) => self.changed(&name, &id).await,
            Note::Resized(name, id, desc, done) => self.resized(&name, &id, &desc, done),
            Note::Used(usage) => self.used(&usage),
            Note::Stopped(name) => {
                if let Some(track) = self.tracks.get_mut(&name) {
                    track.busy = None;
                    let id = track.known.id.clone();
                    // It has ended: the record says how, perhaps before the watcher does.
                    self.changed(&name, &id).await;
                }
            }
            Note::Probed {
                name,
                id,
                kind,
                ok,
                verdict,
                message,
            } => self.probed(&name, &id, kind, (ok, verdict), &message),
            Note::Backing(name) => self.backing(&name),
        }
    }

    pub(super) fn placed(&mut self, placed: Result<Box<super::place::Place>, PlaceError>) {
        let error = match placed {
            Ok(place) => {
                self.addresses = place.addresses.clone();
                self.place = PlaceState::Ready(Arc::new(*place));
                // Tokens have a time to be replaced: found out at the first look.
                self.rotation = Some(self.clock.now());
                self.watch_usage();
                return;
            }
            Err(error) => error,
        };
        let pause = match &self.place {
            PlaceState::Busy(pause) => *pause,
            _ => Duration::from_millis(500),
        };
        match error {
            PlaceError::Sandbox(e) => self.notify.warn_pod(
                "FailedCreatePodSandBox",
                &format!("Failed to create pod sandbox: {}", e.message),
            ),
            PlaceError::Volume(f) => self.notify.warn_pod(
                "FailedMount",
                &format!(
                    "MountVolume.SetUp failed for volume \"{}\" : {}",
                    f.volume, f.error.message
                ),
            ),
        }
        let at = jiff::SignedDuration::try_from(pause).unwrap_or_default();
        let at = self.clock.now().saturating_add(at).unwrap_or(Time::MAX);
        self.place = PlaceState::Waiting(at, (pause * 2).min(PLACE_PAUSE));
    }

    fn begun(&mut self, name: &str, begun: Begun) {
        let desc = self.desc.clone();
        let Some(c) = desc.get(name) else { return };
        let track = self.tracks.entry(name.to_owned()).or_default();
        track.known.restarts = track.attempt;
        track.attempt += 1;
        if let Run::Ended(before) = std::mem::replace(&mut track.known.run, Run::Running { at: begun.at }) {
            track.known.last = Some(before);
        }
        track.known.id = begun.id;
        track.known.image_id = begun.image_id;
        track.known.user = begun.user;
        track.known.waiting = None;
        (track.known.again, track.known.resizing) = (false, None);
        track.known.resources = begun.resources;
        track.known.health = c
            .ext
            .health_check
            .as_ref()
            .map_or(HealthStatus::None, |_| HealthStatus::Starting);
        track.known.started = c.container.startup_probe.is_none();
        track.known.ready = track.known.started && c.container.readiness_probe.is_none();
        track.not_before = None;
        track.image_pause = 0;
        // Busy until the handler after the start is done; probes and restarts wait for it.
        let (id, attempt) = (track.known.id.clone(), track.known.restarts);
        if c.container
            .lifecycle
            .as_ref()
            .is_none_or(|l| l.post_start.is_none())
        {
            track.busy = None;
        }
        self.follow(name, &id);
        self.probe(c, &id);
        self.forget_old_runs(name, attempt);
    }

    /// Only the run before the newest is kept, for its log.
    fn forget_old_runs(&self, name: &str, attempt: u32) {
        let uid = self.desc.uid();
        for record in self.agent.containers() {
            let old = matches!(&record.owner, Owner::Pod { uid: u, container, attempt: a, .. }
                if u == uid && container == name && *a + 1 < attempt);
            if old {
                let agent = self.agent.clone();
                tokio::spawn(async move { agent.remove_run(&record).await });
            }
        }
    }

    fn hooked(&mut self, name: &str, id: &str, done: bool) {
        let Some(track) = self.tracks.get_mut(name) else {
            return;
        };
        if track.known.id != id || track.busy != Some(Busy::Starting) {
            return;
        }
        track.busy = None;
        if !done && matches!(track.known.run, Run::Running { .. }) {
            self.stop(name, Some("failed its PostStart hook"));
        }
    }

    fn failed(&mut self, name: &str, failure: Failure) {
        let (desc, now) = (self.desc.clone(), self.clock.now());
        let Some(c) = desc.get(name) else { return };
        let track = self.tracks.entry(name.to_owned()).or_default();
        track.busy = None;
        match failure {
            Failure::Waits(Waits {
                reason,
                message,
                image,
            }) => {
                let seconds = match image {
                    true => {
                        track.image_pause = (track.image_pause * 2).clamp(PAUSES.0, PAUSES.1);
                        track.image_pause
                    }
                    false => PAUSES.0,
                };
                track.not_before = Some(after(now, seconds));
                if reason == "ErrImagePull" {
                    let (notes, name) = (self.notify.0.clone(), name.to_owned());
                    tokio::spawn(async move {
                        tokio::time::sleep(TOLD).await;
                        let _ = notes.send(Note::Backing(name));
                    });
                }
                track.known.waiting = Some((reason, message));
            }
            Failure::Ran(ended) => {
                track.known.restarts = track.attempt;
                track.attempt += 1;
                track.known.id.clone_from(&ended.id);
                self.ran_out(c, ended);
            }
        }
    }

    fn backing(&mut self, name: &str) {
        let desc = self.desc.clone();
        let Some(c) = desc.get(name) else { return };
        let Some(track) = self.tracks.get_mut(name) else {
            return;
        };
        if track
            .known
            .waiting
            .as_ref()
            .is_none_or(|(reason, _)| reason != "ErrImagePull")
            || track.busy.is_some()
        {
            return;
        }
        let message = format!(
            "Back-off pulling image \"{}\"",
            c.container.image.as_deref().unwrap_or_default()
        );
        self.notify.note(c, "BackOff", &message);
        self.notify.warn(c, "Failed", "Error: ImagePullBackOff");
        let why = track.known.waiting.take().map(|(_, m)| m).unwrap_or_default();
        track.known.waiting = Some((
            "ImagePullBackOff".into(),
            format!("{message}: ErrImagePull: {why}"),
        ));
    }

    /// A run changed: it ended, or its health did.
    async fn changed(&mut self, name: &str, id: &str) {
        let desc = self.desc.clone();
        let Some(c) = desc.get(name) else { return };
        let current = self
            .tracks
            .get(name)
            .is_some_and(|t| t.known.id == id && matches!(t.known.run, Run::Running { .. }));
        if !current {
            return;
        }
        let ended = match self.agent.container(id) {
            Ok(record) if record.is_running() => {
                if let Some(health) = record.state.health.as_ref().map(|h| h.status) {
                    self.health(c, health);
                }
                return;
            }
            Ok(record) => self.agent.ended(c, &record).await,
            // Somebody removed it.
            Err(_) => Ended {
                id: id.to_owned(),
                code: 137,
                reason: "ContainerStatusUnknown".into(),
                message: "The container could not be located when the pod was terminated".into(),
                started: None,
                finished: Some(self.clock.now()),
            },
        };
        self.ran_out(c, ended);
    }

    fn health(&mut self, c: &Desc, health: HealthStatus) {
        let Some(track) = self.tracks.get_mut(c.name()) else {
            return;
        };
        if std::mem::replace(&mut track.known.health, health) == health {
            return;
        }
        self.health_told = true;
        if health == HealthStatus::Unhealthy {
            self.notify
                .warn(c, "Unhealthy", "the container's health check failed");
        }
    }

    /// A run is over: when, if ever, is the next?
    pub(super) fn ran_out(&mut self, c: &Desc, ended: Ended) {
        let (desc, now) = (self.desc.clone(), self.clock.now());
        let Some(track) = self.tracks.get_mut(c.name()) else {
            return;
        };
        track.probes.cancel();
        (track.known.ready, track.known.started) = (false, false);
        let ran = ended.ran();
        let again = track.known.again || restarts(&desc, c, ended.code, ran);
        if track.known.again {
            track.pause = 0;
        }
        if let Run::Ended(before) = std::mem::replace(&mut track.known.run, Run::Ended(ended)) {
            track.known.last = Some(before);
        }
        track.known.waiting = None;
        if !again {
            return;
        }
        let (pause, next) = pauses(track.pause, ran);
        track.pause = next;
        track.not_before = Some(after(now, pause));
        if pause == 0 {
            return;
        }
        let whose = format!("{}_{}({})", desc.name(), desc.namespace(), desc.uid());
        let name = c.name();
        let text = format!(
            "back-off {} restarting failed container={name} pod={whose}",
            go_duration(pause)
        );
        track.known.waiting = Some(("CrashLoopBackOff".into(), text));
        let text = format!("Back-off restarting failed container {name} in pod {whose}");
        self.notify.warn(c, "BackOff", &text);
    }

    fn probed(
        &mut self,
        name: &str,
        id: &str,
        kind: Kind,
        (ok, verdict): (bool, Option<bool>),
        message: &str,
    ) {
        let desc = self.desc.clone();
        let Some(c) = desc.get(name) else { return };
        let Some(track) = self.tracks.get_mut(name) else {
            return;
        };
        if track.known.id != id || !matches!(track.known.run, Run::Running { .. }) {
            return;
        }
        if !ok {
            let text = format!("{} probe failed: {message}", kind.word());
            self.notify.warn(c, "Unhealthy", &text);
        }
        match (kind, verdict) {
            (_, None) => {}
            (Kind::Readiness, Some(ready)) => track.known.ready = ready,
            (Kind::Startup, Some(true)) => {
                track.known.started = true;
                track.known.ready = c.container.readiness_probe.is_none();
                let id = id.to_owned();
                self.probe_started(c, &id);
            }
            (Kind::Startup | Kind::Liveness, Some(false)) if track.busy.is_none() => {
                let probe = match kind {
                    Kind::Startup => &c.container.startup_probe,
                    _ => &c.container.liveness_probe,
                };
                track.grace = probe.as_ref().and_then(|p| p.termination_grace_period_seconds);
                let why = format!("failed {} probe", kind.word().to_lowercase());
                self.stop(name, Some(&why));
            }
            _ => {}
        }
    }

    /// Tells of a run's end and of its health.
    pub(super) fn follow(&self, name: &str, id: &str) {
        let Ok(mut changes) = self.agent.watch_container(id) else {
            let _ = self.notify.0.send(Note::Changed(name.to_owned(), id.to_owned()));
            return;
        };
        let (notes, name, id) = (self.notify.0.clone(), name.to_owned(), id.to_owned());
        tokio::spawn(async move {
            let mut health = None;
            loop {
                let (running, now) = {
                    let record = changes.borrow_and_update();
                    (
                        record.is_running(),
                        record.state.health.as_ref().map(|h| h.status),
                    )
                };
                if !running || now != health {
                    health = now;
                    if notes.send(Note::Changed(name.clone(), id.clone())).is_err() || !running {
                        return;
                    }
                }
                if changes.changed().await.is_err() {
                    let _ = notes.send(Note::Changed(name, id));
                    return;
                }
            }
        });
    }

    /// Begins the probes of a run: the others wait until it has started.
    pub(super) fn probe(&mut self, c: &Desc, id: &str) {
        if let Some(track) = self.tracks.get_mut(c.name()) {
            track.probes = CancellationToken::new();
        }
        if matches!(c.role, Role::Init | Role::Ephemeral) {
            return;
        }
        match &c.container.startup_probe {
            Some(probe) if !self.tracks.get(c.name()).is_some_and(|t| t.known.started) => {
                self.probe_with(c, id, Kind::Startup, probe.clone());
            }
            _ => self.probe_started(c, id),
        }
    }

    fn probe_started(&mut self, c: &Desc, id: &str) {
        for (kind, probe) in [
            (Kind::Readiness, &c.container.readiness_probe),
            (Kind::Liveness, &c.container.liveness_probe),
        ] {
            if let Some(probe) = probe {
                self.probe_with(c, id, kind, probe.clone());
            }
        }
    }

    fn probe_with(
        &mut self,
        c: &Desc,
        id: &str,
        kind: Kind,
        probe: tripod_model::k8s_openapi::api::core::v1::Probe,
    ) {
        let PlaceState::Ready(place) = &self.place else {
            return;
        };
        let Some(track) = self.tracks.get(c.name()) else {
            return;
        };
        let (agent, token, notes) = (self.agent.clone(), track.probes.clone(), self.notify.0.clone());
        let probed = probed(c, id, place);
        let (name, id) = (c.name().to_owned(), id.to_owned());
        tokio::spawn(async move {
            probes::watch(&agent, &probed, kind, &probe, &token, |ok, verdict, message| {
                let note = Note::Probed {
                    name: name.clone(),
                    id: id.clone(),
                    kind,
                    ok,
                    verdict,
                    message,
                };
                // A startup probe has done its work when it passed.
                notes.send(note).is_ok() && !(kind == Kind::Startup && verdict == Some(true))
            })
            .await;
        });
    }
}

/// As Go prints durations: `10s`, `1m20s`, `5m0s`.
fn go_duration(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        _ => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double() {
        let mut pause = 0;
        let mut all = Vec::new();
        for _ in 0..8 {
            let (now, next) = pauses(pause, 1);
            all.push(now);
            pause = next;
        }
        assert_eq!(all, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pauses(300, 600), (0, 10));
        assert_eq!((go_duration(10), go_duration(80)), ("10s".into(), "1m20s".into()));
    }
}
