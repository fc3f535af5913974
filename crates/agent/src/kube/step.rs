//! What to do next for a pod: a pure function of its specification and of what is there.

use std::collections::BTreeMap;

use tripod_model::Time;
use tripod_model::container::HealthStatus;
use tripod_model::pod::DependencyCondition;

use super::desc::{Desc, PodDesc, Role};

/// A container as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    pub life: Life,
    /// Something is being done to it.
    pub busy: bool,
    /// Not started again before.
    pub not_before: Option<Time>,
    /// Verdict of its health check.
    pub health: HealthStatus,
    /// It was ended to be run anew, whatever its restart policy.
    pub again: bool,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Life {
    /// It has not run.
    #[default]
    None,
    /// It runs; `started`: its startup probe, if any, has passed.
    Running { started: bool },
    /// It ran to an end.
    Ended {
        /// Exit status.
        code: i64,
        /// Seconds for which it ran.
        ran: i64,
    },
}

impl Life {
    fn runs(self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

/// Network, volumes and namespaces of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Place {
    /// There is none; the time before which it is not tried again.
    #[default]
    None,
    /// Failed; tried again at that time.
    Waiting(Time),
    /// Being made or taken away.
    Busy,
    /// There.
    Ready,
}

/// Everything that decides.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub desc: &'a PodDesc,
    pub seen: &'a BTreeMap<String, Seen>,
    pub place: Place,
    /// It is to end (deletion, deadline, shut down, an essential container ended).
    pub ending: bool,
    pub now: Time,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Make the pod's place.
    Settle,
    /// Start a container (again).
    Start(String),
    /// End a container.
    Stop(String),
    /// Take the pod's place away.
    Leave,
}

/// What was decided.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub actions: Vec<Action>,
    /// Look again at this time.
    pub wake: Option<Time>,
    /// Its containers have ended and will not run again.
    pub over: bool,
}

impl Plan {
    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }
}

impl View<'_> {
    fn seen(&self, name: &str) -> Seen {
        self.seen.get(name).cloned().unwrap_or_default()
    }

    /// Whether a container that ended is to run again.
    fn restarts(&self, c: &Desc, code: i64, ran: i64) -> bool {
        self.seen.get(c.name()).is_some_and(|s| s.again) || restarts(self.desc, c, code, ran)
    }

    fn life(&self, name: &str) -> Life {
        self.seen(name).life
    }
}

/// Whether a container that ended is to run again.
pub(super) fn restarts(desc: &PodDesc, c: &Desc, code: i64, ran: i64) -> bool {
    if let Some(own) = &c.ext.restart {
        return !own.ignored_exit_codes.contains(&code) && ran >= own.attempt_period;
    }
    for rule in c.container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|v| i64::from(*v) == code);
        let holds = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if holds && rule.action == "Restart" {
            return true;
        }
    }
    let own = c.container.restart_policy.as_deref();
    match (c.role, own.unwrap_or(desc.restart_policy())) {
        (Role::Ephemeral, _) => false,
        (Role::Sidecar, _) => true,
        // Success is what an init container is for.
        (Role::Init, "Always") => code != 0,
        (_, "Always") => true,
        (_, "OnFailure") => code != 0,
        _ => false,
    }
}

/// Decides.
pub(super) fn decide(view: &View<'_>) -> Plan {
    if view.ending || finished(view) {
        return wind_down(view);
    }
    let mut plan = Plan::default();
    match view.place {
        Place::Ready => {}
        Place::Busy => return plan,
        Place::Waiting(at) if at > view.now => {
            plan.wake_at(at);
            return plan;
        }
        Place::None | Place::Waiting(_) => {
            plan.actions.push(Action::Settle);
            return plan;
        }
    }
    if initialise(view, &mut plan) {
        for c in view.desc.of_role(Role::Regular) {
            if depends(view, c) {
                consider(view, c, &mut plan);
            }
        }
    }
    for c in view.desc.of_role(Role::Ephemeral) {
        if view.life(c.name()) == Life::None {
            consider(view, c, &mut plan);
        }
    }
    plan
}

/// Whether no regular container runs or will run again, or an init container failed for good.
pub(super) fn finished(view: &View<'_>) -> bool {
    let done = |c: &Desc| match view.life(c.name()) {
        Life::Ended { code, ran } => !view.restarts(c, code, ran),
        _ => false,
    };
    let essential = |c: &Desc| c.ext.essential && done(c);
    let failed = |c: &Desc| match view.life(c.name()) {
        Life::Ended { code, .. } => c.role == Role::Init && code != 0 && done(c),
        _ => false,
    };
    view.desc.of_role(Role::Regular).all(done)
        || view.desc.of_role(Role::Regular).any(essential)
        || !begun(view) && view.desc.init().any(failed)
}

/// Whether a regular container has ever run: init containers are not gone through again.
pub(super) fn begun(view: &View<'_>) -> bool {
    view.desc.of_role(Role::Regular).any(|c| {
        let seen = view.seen(c.name());
        seen.life != Life::None || seen.busy
    })
}

/// Goes through the init containers; whether the regular ones may start.
fn initialise(view: &View<'_>, plan: &mut Plan) -> bool {
    let begun = begun(view);
    for c in view.desc.init() {
        let seen = view.seen(c.name());
        let passed = match (c.role, seen.life) {
            (Role::Sidecar, Life::Running { started }) => started,
            (Role::Init, Life::Ended { code: 0, .. }) => true,
            (Role::Init, _) if begun => continue,
            _ => false,
        };
        if passed {
            continue;
        }
        if !seen.life.runs() {
            consider(view, c, plan);
        }
        if !begun {
            return false;
        }
    }
    true
}

/// Whether what a container waits for has come to pass.
fn depends(view: &View<'_>, c: &Desc) -> bool {
    c.ext.depends_on.iter().all(|d| {
        let other = view.seen(&d.container);
        match (d.condition, other.life) {
            (DependencyCondition::Start, life) => life != Life::None,
            (DependencyCondition::Complete, Life::Ended { .. })
            | (DependencyCondition::Success, Life::Ended { code: 0, .. }) => true,
            (DependencyCondition::Healthy, life) => life.runs() && other.health == HealthStatus::Healthy,
            _ => false,
        }
    })
}

/// Starts a container that does not run and may.
fn consider(view: &View<'_>, c: &Desc, plan: &mut Plan) {
    let seen = view.seen(c.name());
    if seen.busy || seen.life.runs() {
        return;
    }
    if let Life::Ended { code, ran } = seen.life
        && !view.restarts(c, code, ran)
    {
        return;
    }
    match seen.not_before {
        Some(at) if at > view.now => plan.wake_at(at),
        _ => plan.actions.push(Action::Start(c.name().to_owned())),
    }
}

/// Ends what runs: sidecars after the others, the last one first.
fn wind_down(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut stop = |c: &Desc| {
        let seen = view.seen(c.name());
        if seen.life.runs() && !seen.busy {
            plan.actions.push(Action::Stop(c.name().to_owned()));
        }
        seen.life.runs() || seen.busy
    };
    let others = view.desc.containers.iter().filter(|c| c.role != Role::Sidecar);
    // Each is looked at: they end at the same time.
    let left = others.map(&mut stop).fold(false, |a, b| a | b);
    let left = left || view.desc.of_role(Role::Sidecar).rev().any(stop);
    if left {
        return plan;
    }
    match view.place {
        Place::Ready => plan.actions.push(Action::Leave),
        Place::Busy => {}
        Place::None | Place::Waiting(_) => plan.over = true,
    }
    plan
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
