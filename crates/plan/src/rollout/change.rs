//! A service as it is after a request to make it, change it or roll it back.

use tripod_model::object::{NAME_ANNOTATION, ObjectMeta};
use tripod_model::swarm::{
    JobStatus, NAMESPACE, ServiceSpec, ServiceStatus, SwarmService, UpdateState, UpdateStatus,
};
use tripod_model::{Error, ErrorKind, Result, Time};

/// A new service. `id` is its Swarm identifier.
pub fn new_service(id: String, uid: String, spec: ServiceSpec, now: Time) -> SwarmService {
    let job = spec.mode.is_job().then_some(JobStatus {
        iteration: 0,
        last_execution: Some(now),
    });
    SwarmService {
        metadata: ObjectMeta {
            name: id,
            namespace: NAMESPACE.into(),
            uid,
            generation: 1,
            creation_timestamp: Some(now),
            annotations: [(NAME_ANNOTATION.to_owned(), spec.name.clone())].into(),
            ..ObjectMeta::default()
        },
        spec,
        previous_spec: None,
        status: ServiceStatus {
            updated_at: Some(now),
            job,
            ..ServiceStatus::default()
        },
    }
}

/// The service with a new specification, and the present one kept for rollback. A rollout in progress or paused ends
/// here: the plan begins a new one if tasks have to be replaced. A job runs again.
pub fn update_service(service: &SwarmService, spec: ServiceSpec, now: Time) -> SwarmService {
    let mut next = service.clone();
    let old = std::mem::replace(&mut next.spec, spec);
    changed(&mut next, &old, now);
    next.previous_spec = Some(old);
    next.status.update = None;
    next
}

/// The service with the specification it had before; asked for again, it goes forth once more, as in Docker.
pub fn rollback_service(service: &SwarmService, now: Time) -> Result<SwarmService> {
    let mut next = service.clone();
    let Some(previous) = next.previous_spec.take() else {
        let id = &service.metadata.name;
        return Err(Error::new(
            ErrorKind::Invalid,
            format_args!("service {id} does not have a previous spec"),
        ));
    };
    let old = std::mem::replace(&mut next.spec, previous);
    changed(&mut next, &old, now);
    next.previous_spec = Some(old);
    next.status.update = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: Some(now),
        completed_at: None,
        message: "manually requested rollback".into(),
        generation: next.metadata.generation,
        failed_tasks: Vec::new(),
        last_batch_at: None,
    });
    Ok(next)
}

fn changed(service: &mut SwarmService, old: &ServiceSpec, now: Time) {
    if service.spec != *old {
        service.metadata.generation += 1;
    }
    service
        .metadata
        .annotations
        .insert(NAME_ANNOTATION.to_owned(), service.spec.name.clone());
    service.status.updated_at = Some(now);
    if let Some(job) = &mut service.status.job {
        job.iteration += 1;
        job.last_execution = Some(now);
    }
}
