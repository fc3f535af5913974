//! What a pod's worker knows of its pod, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tripod_model::Time;
use tripod_model::session::PodEvent;

use super::actions::{Begun, Failure};
use super::desc::PodDesc;
use super::place::{Place, PlaceError};
use super::probes::Kind;
use super::status::Known;
use super::usage::Usage;

/// What tasks tell the worker.
pub(super) enum Note {
    Event(PodEvent),
    Placed(Result<Box<Place>, PlaceError>),
    Left,
    Begun(String, Result<Begun, Failure>),
    /// The handler after the start is done; false: it failed.
    Hooked(String, String, bool),
    /// The run of that identifier changed: it ended, or its health did.
    Changed(String, String),
    Stopped(String),
    /// The limits of a run are those of a description, or could not be made so.
    Resized(String, String, Arc<PodDesc>, Result<(), String>),
    /// What the pod takes of its node's disk.
    Used(Usage),
    Probed {
        name: String,
        id: String,
        kind: Kind,
        ok: bool,
        verdict: Option<bool>,
        message: String,
    },
    /// It has been told that its image cannot be pulled: now it waits.
    Backing(String),
}

/// What is being done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    Starting,
    Stopping,
}

/// A container as the worker knows it.
#[derive(Default)]
pub(super) struct Track {
    pub known: Known,
    pub busy: Option<Busy>,
    pub not_before: Option<Time>,
    /// Seconds of the pause before the next start but one; 0 is none.
    pub pause: i64,
    /// Seconds of the pause before the next pull.
    pub image_pause: i64,
    /// Number of the next run.
    pub attempt: u32,
    /// Cancels the probes of the run.
    pub probes: CancellationToken,
    /// Seconds of grace of a probe that ended it.
    pub grace: Option<i64>,
}

/// The pod's place, and what is known of it.
pub(super) enum PlaceState {
    None,
    /// Failed; tried again then, and the pause after that.
    Waiting(Time, Duration),
    Busy(Duration),
    Ready(Arc<Place>),
}

/// Since when, and until when, it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub until: Instant,
    /// Seconds of grace that `until` follows from.
    pub grace: i64,
}

/// The time by a clock that nobody sets while the worker lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant, Time);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now(), Time::now())
    }

    pub(super) fn now(&self) -> Time {
        let elapsed = jiff::SignedDuration::try_from(self.0.elapsed()).unwrap_or_default();
        self.1.saturating_add(elapsed).unwrap_or(Time::MAX)
    }
}
