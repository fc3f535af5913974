//! Deployments of a service: made, ended, undone.

use jiff::Timestamp as Time;
use tripod_model::ecs::{EcsDeployment, EcsService, EcsTemplate, ServiceEvent};

use crate::rng::Rng;

/// Events that are kept.
const EVENTS: usize = 100;
/// Deployments that are remembered.
const PAST: usize = 20;

/// Digits of a deployment's number.
fn digits(rng: &mut Rng) -> String {
    format!("{:019}", rng.next_u64() >> 1)
}

/// A new deployment of a service, which becomes the primary one.
pub fn begin(service: &mut EcsService, template: EcsTemplate, undoes: &str, now: Time, rng: &mut Rng) {
    let id = format!("ecs-svc/{}", digits(rng));
    let reason = if undoes.is_empty() {
        format!("ECS deployment {id} in progress.")
    } else {
        format!("ECS deployment circuit breaker: rolling back to deploymentId {undoes}.")
    };
    let deployment = EcsDeployment {
        reason,
        id,
        revision: digits(rng),
        desired_count: service.spec.desired_count,
        rollout: "IN_PROGRESS".into(),
        created_at: Some(now),
        updated_at: Some(now),
        undoes: undoes.to_owned(),
        template: template.clone(),
        ..EcsDeployment::default()
    };
    service.spec.template = template;
    service.status.deployments.insert(0, deployment);
    service.status.steady = false;
    service.status.not_before = None;
}

/// Remembers a deployment that is over.
pub(super) fn remember(service: &mut EcsService, deployment: EcsDeployment) {
    service.status.past.insert(0, deployment);
    service.status.past.truncate(PAST);
}

/// What the last deployment that completed, before the primary one, was made of, with its identifier. One that was
/// replaced when all its tasks ran, before the breaker was satisfied, is as good.
pub fn last_good(service: &EcsService) -> Option<(EcsTemplate, String)> {
    let earlier = service
        .status
        .deployments
        .iter()
        .skip(1)
        .chain(&service.status.past);
    let good = earlier
        .into_iter()
        .find(|d| d.rollout == "COMPLETED" || d.on_trial)?;
    Some((good.template.clone(), good.id.clone()))
}

/// Adds an event.
pub fn event(service: &mut EcsService, message: String, now: Time, rng: &mut Rng) {
    let message = format!("(service {}) {message}", service.spec.name);
    let event = ServiceEvent {
        id: rng.uid(),
        at: Some(now),
        message,
    };
    service.status.events.insert(0, event);
    service.status.events.truncate(EVENTS);
}
