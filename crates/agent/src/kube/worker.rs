//! One pod's worker: looks at what is wanted and what is there, has the next things done, and tells the manager.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tripod_model::Time;
use tripod_model::k8s_openapi::api::core::v1::PodStatus;
use tripod_model::session::{PodEvent, PodReport};

use super::actions::{Notifier, StartOrder};
use super::desc::PodDesc;
use super::env::Addresses;
use super::inputs::Inputs;
use super::resize::Pending;
use super::status::{self, Facts, Known, Verdict};
use super::step::{self, Action, Plan, Seen};
use super::track::{Busy, Clock, Ending, Note, PlaceState, Track};
use crate::Agent;
use crate::pods::Wish;

/// How long a worker whose session is over waits for what it began.
const PATIENCE: Duration = Duration::from_secs(30);

/// When resources for which there was no room are asked for again.
const RETRY: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);

/// A pod's worker.
pub(super) struct Worker {
    pub clock: Clock,
    pub agent: Agent,
    pub inputs: Arc<Inputs>,
    pub reports: mpsc::UnboundedSender<PodReport>,
    pub wishes: watch::Receiver<Wish>,
    pub desc: Arc<PodDesc>,
    pub gone: bool,
    pub tracks: BTreeMap<String, Track>,
    pub place: PlaceState,
    pub addresses: Addresses,
    pub notify: Notifier,
    pub notes: mpsc::UnboundedReceiver<Note>,
    pub events: Vec<PodEvent>,
    pub last: Option<PodStatus>,
    pub health_told: bool,
    pub ending: Option<Ending>,
    pub verdict: Option<Verdict>,
    pub started: Option<Time>,
    /// Why other resources that it is to have are not given to it.
    pub pending: Option<Pending>,
    pub over: bool,
    /// When tokens are to be replaced.
    pub rotation: Option<Time>,
    pub told_gone: bool,
    /// Cancelled when the pod is to end: nothing is waited for any more.
    pub halt: CancellationToken,
    /// Told of each change of what pods refer to.
    pub changes: watch::Receiver<u64>,
}

/// Runs a pod until it is gone from the store and from the node.
pub(crate) fn spawn(
    agent: Agent,
    inputs: Arc<Inputs>,
    wishes: watch::Receiver<Wish>,
    reports: mpsc::UnboundedSender<PodReport>,
    (key, ended): (String, mpsc::UnboundedSender<String>),
) {
    tokio::spawn(async move {
        let wish = wishes.borrow().clone();
        match PodDesc::new(wish.pod.clone()) {
            Ok(desc) => {
                let (sender, notes) = mpsc::unbounded_channel();
                let changes = inputs.changes();
                let mut worker = Worker {
                    clock: Clock::start(),
                    started: wish.pod.status.start_time,
                    gone: wish.gone,
                    agent: agent.clone(),
                    inputs,
                    reports,
                    wishes,
                    desc: Arc::new(desc),
                    tracks: BTreeMap::new(),
                    place: PlaceState::None,
                    addresses: Addresses::default(),
                    notify: Notifier(sender),
                    notes,
                    events: Vec::new(),
                    last: None,
                    health_told: false,
                    ending: None,
                    verdict: None,
                    pending: None,
                    over: false,
                    rotation: None,
                    told_gone: false,
                    halt: CancellationToken::new(),
                    changes,
                };
                // A worker of a former session may be at work still.
                let lock = agent.pod_lock(worker.desc.uid());
                let _alone = lock.lock().await;
                worker.run().await;
                worker.finish().await;
            }
            Err(e) => super::report::refuse(&reports, &wish, &e.message, wishes).await,
        }
        if let Some((name, uid)) = key.split_once(' ') {
            agent.forget_pod(name, uid);
        }
        let _ = ended.send(key);
    });
}

impl Worker {
    async fn run(&mut self) {
        self.recover().await;
        if self.started.is_none() {
            self.started = Some(self.clock.now());
        }
        if self.tracks.is_empty() && self.verdict.is_none() {
            self.verdict = super::admit::refusal(&self.desc);
            if let Some(verdict) = &self.verdict {
                self.notify.warn_pod(&verdict.reason, &verdict.message);
            }
        }
        loop {
            self.take_wish();
            let plan = self.step();
            self.report();
            if self.over && (self.gone || self.desc.deleting()) && !self.told_gone {
                self.agent.discard_pod(self.desc.uid()).await;
                self.told_gone = true;
                self.report_gone();
            }
            if self.told_gone && self.gone {
                return;
            }
            if !self.wait(plan.wake).await {
                return;
            }
        }
    }

    /// Waits for what is being done: nobody else may begin before.
    async fn finish(&mut self) {
        self.halt.cancel();
        while self.tracks.values().any(|t| t.busy == Some(Busy::Starting))
            || matches!(self.place, PlaceState::Busy(_))
        {
            match tokio::time::timeout(PATIENCE, self.notes.recv()).await {
                Ok(Some(Note::Begun(name, _))) => {
                    if let Some(track) = self.tracks.get_mut(&name) {
                        track.busy = None;
                    }
                }
                Ok(Some(Note::Placed(_) | Note::Left)) => self.place = PlaceState::None,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Takes over what is wanted now.
    fn take_wish(&mut self) {
        let wish = self.wishes.borrow_and_update().clone();
        self.gone = wish.gone;
        let deferred = self.pending.as_ref().is_some_and(|p| p.reason == "Deferred");
        if !Arc::ptr_eq(&wish.pod, &self.desc.pod) || deferred {
            match PodDesc::new(wish.pod.clone()) {
                Ok(desc) => {
                    let before = self.desc.clone();
                    self.accept(desc);
                    // Labels and annotations may be files.
                    if before.pod.metadata.labels != self.desc.pod.metadata.labels
                        || before.pod.metadata.annotations != self.desc.pod.metadata.annotations
                    {
                        self.rotation = Some(Time::UNIX_EPOCH);
                    }
                }
                Err(e) => self.notify.warn_pod("InvalidSpec", &e.message),
            }
        }
        let now = self.clock.now();
        if self.verdict.is_none()
            && !self.over
            && self.desc.deadline(self.started).is_some_and(|at| at <= now)
        {
            let message = "Pod was active on the node longer than the specified deadline";
            self.verdict = Some(Verdict {
                reason: "DeadlineExceeded".into(),
                message: message.into(),
            });
            self.events.push(PodEvent {
                reason: "DeadlineExceeded".into(),
                message: message.into(),
                at: Some(now),
                ..PodEvent::default()
            });
        }
        if self.ends() {
            self.halt.cancel();
            self.hurry();
        }
    }

    fn ends(&self) -> bool {
        self.gone || self.desc.deleting() || self.desc.shut_down() || self.verdict.is_some()
    }

    /// Keeps the time until which everything is to have ended; a shorter grace brings it forward.
    fn hurry(&mut self) {
        let forced = self.gone && !self.desc.deleting();
        let evicted = self
            .verdict
            .as_ref()
            .is_some_and(|v| v.reason == Verdict::EVICTED);
        let grace = match (forced, evicted) {
            (true, _) => 1,
            (_, true) => 0,
            _ => self.desc.grace(),
        };
        let shorter = self.ending.is_none_or(|e| grace < e.grace);
        if !shorter {
            return;
        }
        let until = Instant::now() + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let again = self.ending.is_some();
        self.ending = Some(Ending { until, grace });
        if !again {
            return;
        }
        for track in self.tracks.values().filter(|t| t.busy == Some(Busy::Stopping)) {
            let (agent, id) = (self.agent.clone(), track.known.id.clone());
            tokio::spawn(async move {
                tokio::time::sleep_until(until).await;
                // It may have ended in the meantime.
                let _ = agent.kill_container(&id, crate::signals::SIGKILL).await;
            });
        }
    }

    pub(super) fn facts<'a>(&'a self, known: &'a BTreeMap<String, Known>, now: Time) -> Facts<'a> {
        Facts {
            desc: &self.desc,
            known,
            addresses: &self.addresses,
            placed: matches!(self.place, PlaceState::Ready(_)),
            ending: self.ends(),
            over: self.over,
            verdict: self.verdict.as_ref(),
            pending: self.pending.as_ref(),
            started: self.started,
            before: self.last.as_ref(),
            now,
        }
    }

    /// Decides, and has it done.
    fn step(&mut self) -> Plan {
        let ends = self.ends();
        let seen: BTreeMap<String, Seen> = self
            .tracks
            .iter()
            .map(|(name, t)| {
                // A handler that is still at work after the start does not keep a pod that is to go.
                let handled = ends
                    && t.busy == Some(Busy::Starting)
                    && matches!(t.known.run, status::Run::Running { .. });
                let seen = Seen {
                    life: t.known.life(),
                    busy: t.busy.is_some() && !handled,
                    not_before: t.not_before,
                    health: t.known.health,
                    again: t.known.again,
                };
                (name.clone(), seen)
            })
            .collect();
        let place = match &self.place {
            PlaceState::None => step::Place::None,
            PlaceState::Waiting(at, _) => step::Place::Waiting(*at),
            PlaceState::Busy(_) => step::Place::Busy,
            PlaceState::Ready(_) => step::Place::Ready,
        };
        let desc = self.desc.clone();
        let view = step::View {
            desc: &desc,
            seen: &seen,
            place,
            ending: self.ends(),
            now: self.clock.now(),
        };
        let mut plan = match self.over {
            true => Plan::default(),
            false => step::decide(&view),
        };
        self.over |= plan.over;
        for action in std::mem::take(&mut plan.actions) {
            match action {
                Action::Settle => self.settle(),
                Action::Leave => self.leave(),
                Action::Start(name) => self.start(&name),
                Action::Stop(name) => self.stop(&name, None),
            }
        }
        plan
    }

    fn settle(&mut self) {
        let pause = match &self.place {
            PlaceState::Waiting(_, pause) => *pause,
            _ => Duration::from_millis(500),
        };
        self.place = PlaceState::Busy(pause);
        let (agent, desc, inputs) = (self.agent.clone(), self.desc.clone(), self.inputs.clone());
        let notes = self.notify.0.clone();
        tokio::spawn(async move {
            let placed = agent.settle_place(&desc, &inputs).await;
            let _ = notes.send(Note::Placed(placed.map(Box::new)));
        });
    }

    fn leave(&mut self) {
        self.place = PlaceState::Busy(Duration::ZERO);
        let (agent, uid) = (self.agent.clone(), self.desc.uid().to_owned());
        let notes = self.notify.0.clone();
        tokio::spawn(async move {
            agent.leave_place(&uid).await;
            let _ = notes.send(Note::Left);
        });
    }

    fn start(&mut self, name: &str) {
        let PlaceState::Ready(place) = &self.place else {
            return;
        };
        let running = self
            .tracks
            .iter()
            .filter(|(_, t)| matches!(t.known.run, status::Run::Running { .. }))
            .map(|(n, t)| (n.clone(), t.known.id.clone()))
            .collect();
        let place = place.clone();
        let track = self.tracks.entry(name.to_owned()).or_default();
        track.busy = Some(Busy::Starting);
        let order = StartOrder {
            desc: self.desc.clone(),
            name: name.to_owned(),
            attempt: track.attempt,
            place,
            inputs: self.inputs.clone(),
            running,
            notify: self.notify.clone(),
            halt: self.halt.clone(),
        };
        let (agent, notes) = (self.agent.clone(), self.notify.0.clone());
        tokio::spawn(async move {
            let begun = agent.start_pod_container(&order).await;
            let id = begun.as_ref().ok().map(|b| b.id.clone());
            let _ = notes.send(Note::Begun(order.name.clone(), begun));
            if let Some(id) = id {
                let done = agent.post_start(&order, &id).await.is_ok();
                let _ = notes.send(Note::Hooked(order.name.clone(), id, done));
            }
        });
    }

    /// Ends a container; `why` where it is not because the pod ends.
    pub(super) fn stop(&mut self, name: &str, why: Option<&str>) {
        let desc = self.desc.clone();
        let (Some(track), Some(c)) = (self.tracks.get_mut(name), desc.get(name)) else {
            return;
        };
        track.busy = Some(Busy::Stopping);
        track.probes.cancel();
        let grace = track.grace.take().unwrap_or(desc.grace());
        let own = Instant::now() + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let until = self.ending.map_or(own, |e| e.until.min(own));
        let message = match why {
            Some(why) => format!("Container {name} {why}, will be restarted"),
            None => format!("Stopping container {name}"),
        };
        self.notify.note(c, "Killing", &message);
        let place = match &self.place {
            PlaceState::Ready(place) => Some(place.clone()),
            _ => None,
        };
        let (agent, id, notify) = (self.agent.clone(), track.known.id.clone(), self.notify.clone());
        let name = name.to_owned();
        tokio::spawn(async move {
            if let Some(c) = desc.get(&name) {
                agent
                    .stop_pod_container(c, &id, place.as_deref(), until, &notify)
                    .await;
            }
            let _ = notify.0.send(Note::Stopped(name));
        });
    }

    /// Waits until something changes; false when the session is over.
    async fn wait(&mut self, wake: Option<Time>) -> bool {
        let deadline = self
            .desc
            .deadline(self.started)
            .filter(|_| self.verdict.is_none() && !self.over);
        let rotation = self.rotation.filter(|_| !self.over);
        let deferred = self
            .pending
            .as_ref()
            .filter(|p| p.reason == "Deferred" && !self.over);
        let retry = deferred.and_then(|_| self.clock.now().checked_add(RETRY).ok());
        let at = [wake, deadline, rotation, retry].into_iter().flatten().min();
        let timer = async {
            match at {
                None => std::future::pending().await,
                Some(at) => {
                    let wait = at.duration_since(self.clock.now());
                    tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
                }
            }
        };
        tokio::select! {
            changed = self.wishes.changed() => if changed.is_err() { return false },
            note = self.notes.recv() => {
                if let Some(note) = note {
                    self.take(note).await;
                }
            }
            _ = self.changes.changed(), if !self.over => self.inputs_changed(),
            () = timer => {}
        }
        while let Ok(note) = self.notes.try_recv() {
            self.take(note).await;
        }
        if self.rotation.is_some_and(|at| at <= self.clock.now()) && !self.over {
            self.refresh().await;
        }
        true
    }

    /// What was missing may be there; files may have changed.
    fn inputs_changed(&mut self) {
        self.rotation = Some(Time::UNIX_EPOCH);
        if let PlaceState::Waiting(_, pause) = self.place {
            self.place = PlaceState::Waiting(Time::UNIX_EPOCH, pause);
        }
        for track in self.tracks.values_mut() {
            let waits = track
                .known
                .waiting
                .as_ref()
                .is_some_and(|(r, _)| r == "CreateContainerConfigError");
            if waits {
                track.not_before = None;
            }
        }
    }

    async fn refresh(&mut self) {
        self.rotation = match self.place {
            PlaceState::Ready(_) => {
                self.agent
                    .refresh_volumes(&self.desc, &self.inputs, &self.addresses)
                    .await
            }
            _ => None,
        };
    }
}
