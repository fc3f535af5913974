//! Admission of service specifications, with the Swarm API's errors.

use std::collections::{HashMap, HashSet};

use tripod_model::container::HealthCheck;
use tripod_model::reference::Reference;
use tripod_model::swarm::{
    DataReference, EndpointMode, EndpointSpec, NetworkAttachmentConfig, PublishMode, ResourceAmounts,
    ServiceMode, ServiceSpec, SwarmService, TaskContainer, TaskSpec, UpdateConfig,
};
use tripod_model::{Error, Result};

use crate::allocate::conflict;
use crate::constraint;
use crate::view::View;

const MIN_CPUS: i64 = 1_000_000;
const MIN_MEMORY: i64 = 4 << 20;
const MILLISECOND: i64 = 1_000_000;

fn refuse<T>(field: &str, message: impl std::fmt::Display) -> Result<T> {
    Err(Error::invalid(message).at(field))
}

/// Checks a service to be made.
pub fn create(view: &View, spec: &ServiceSpec) -> Result<()> {
    service_spec(spec)?;
    networks(view, spec)?;
    if view.service_by_name(&spec.name).is_some() {
        return Err(Error::already_exists(format_args!(
            "name conflicts with an existing object: service {} already exists",
            spec.name
        ))
        .at("Name"));
    }
    conflict(view, spec.endpoint_spec.as_ref(), None).map_err(|e| e.at("EndpointSpec.Ports"))
}

/// Checks a service to be changed.
pub fn update(view: &View, service: &SwarmService, spec: &ServiceSpec) -> Result<()> {
    service_spec(spec)?;
    networks(view, spec)?;
    if spec.name != service.spec.name {
        return refuse("Name", "renaming services is not supported");
    }
    if std::mem::discriminant(&spec.mode) != std::mem::discriminant(&service.spec.mode) {
        return refuse("Mode", "service mode change is not allowed");
    }
    if spec.endpoint_spec == service.spec.endpoint_spec {
        return Ok(());
    }
    conflict(view, spec.endpoint_spec.as_ref(), Some(&service.metadata.name))
        .map_err(|e| e.at("EndpointSpec.Ports"))
}

/// Checks a specification by itself.
pub fn service_spec(spec: &ServiceSpec) -> Result<()> {
    name(&spec.name)?;
    task(&spec.task_template)?;
    mode(spec)?;
    if spec.mode.is_job() {
        if spec.update_config.is_some() {
            return refuse("UpdateConfig", "Jobs may not have an update config");
        }
    } else {
        update_config("UpdateConfig", spec.update_config.as_ref())?;
        update_config("RollbackConfig", spec.rollback_config.as_ref())?;
    }
    endpoint(spec.endpoint_spec.as_ref())
}

/// Checks a name of a service, network, secret or config.
pub fn name(name: &str) -> Result<()> {
    if name.is_empty() {
        return refuse("Name", "meta: name must be provided");
    }
    let alphanumeric = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inner = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !inner || !alphanumeric(name.bytes().next()) || !alphanumeric(name.bytes().last()) {
        return refuse("Name", "name must be valid as a DNS name component");
    }
    if name.len() > 63 {
        return refuse("Name", "name must be 63 characters or fewer");
    }
    Ok(())
}

fn mode(spec: &ServiceSpec) -> Result<()> {
    let limit = i64::MAX as u64;
    match spec.mode {
        ServiceMode::Replicated { replicas } if replicas > limit => refuse(
            "Mode.Replicated.Replicas",
            "Number of replicas must be non-negative",
        ),
        ServiceMode::ReplicatedJob { max_concurrent, .. } if max_concurrent > limit => refuse(
            "Mode.ReplicatedJob.MaxConcurrent",
            "Maximum concurrent jobs must not be negative",
        ),
        ServiceMode::ReplicatedJob {
            total_completions, ..
        } if total_completions > limit => refuse(
            "Mode.ReplicatedJob.TotalCompletions",
            "Total completed jobs must not be negative",
        ),
        _ => Ok(()),
    }
}

fn task(task: &TaskSpec) -> Result<()> {
    let at = |field: &str| format!("TaskTemplate.{field}");
    if !matches!(task.runtime.as_str(), "" | "container") {
        return Err(
            Error::not_implemented("RuntimeSpec: unimplemented runtime in service spec").at(at("Runtime")),
        );
    }
    if let Some(r) = &task.resources {
        resources("TaskTemplate.Resources.Limits", r.limits.as_ref())?;
        resources("TaskTemplate.Resources.Reservations", r.reservations.as_ref())?;
    }
    if let Some(policy) = &task.restart_policy {
        if !matches!(policy.condition.as_str(), "" | "none" | "on-failure" | "any") {
            return refuse(
                &at("RestartPolicy.Condition"),
                format_args!("invalid RestartCondition: \"{}\"", policy.condition),
            );
        }
        if policy.delay.is_some_and(|d| d < 0) {
            return refuse(
                &at("RestartPolicy.Delay"),
                "TaskSpec: restart-delay cannot be negative",
            );
        }
        if policy.window.is_some_and(|w| w < 0) {
            return refuse(
                &at("RestartPolicy.Window"),
                "TaskSpec: restart-window cannot be negative",
            );
        }
    }
    if let Some(placement) = &task.placement {
        constraint::parse(&placement.constraints).map_err(|e| e.at(at("Placement.Constraints")))?;
    }
    container(&task.container)
}

fn resources(field: &str, amounts: Option<&ResourceAmounts>) -> Result<()> {
    let Some(r) = amounts else { return Ok(()) };
    if r.nano_cpus != 0 && r.nano_cpus < MIN_CPUS {
        let cpus = r.nano_cpus as f64 / 1e9;
        return refuse(
            &format!("{field}.NanoCPUs"),
            format_args!("invalid cpu value {cpus}: Must be at least 0.001"),
        );
    }
    if r.memory != 0 && r.memory < MIN_MEMORY {
        return refuse(
            &format!("{field}.MemoryBytes"),
            format_args!("invalid memory value {}: Must be at least 4MiB", r.memory),
        );
    }
    Ok(())
}

fn container(c: &TaskContainer) -> Result<()> {
    const AT: &str = "TaskTemplate.ContainerSpec";
    references("secret", &format!("{AT}.Secrets"), &c.secrets)?;
    references("config", &format!("{AT}.Configs"), &c.configs)?;
    let image = format!("{AT}.Image");
    if c.image.is_empty() {
        return refuse(&image, "ContainerSpec: image reference must be provided");
    }
    if Reference::parse(&c.image).is_err() {
        return refuse(
            &image,
            format_args!("ContainerSpec: {:?} is not a valid repository/tag", c.image),
        );
    }
    let mut targets = HashSet::new();
    for mount in &c.mounts {
        if !targets.insert(&mount.target) {
            return refuse(
                &format!("{AT}.Mounts"),
                format_args!("ContainerSpec: duplicate mount point: {}", mount.target),
            );
        }
    }
    match &c.healthcheck {
        Some(check) => health_check(&format!("{AT}.Healthcheck"), check),
        None => Ok(()),
    }
}

fn health_check(field: &str, check: &HealthCheck) -> Result<()> {
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
    ] {
        if value != 0 && value < MILLISECOND {
            return refuse(
                &format!("{field}.{name}"),
                format_args!("ContainerSpec: {name} in HealthConfig cannot be less than 1ms"),
            );
        }
    }
    if check.retries < 0 {
        return refuse(
            &format!("{field}.Retries"),
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        );
    }
    Ok(())
}

fn references(kind: &str, field: &str, references: &[DataReference]) -> Result<()> {
    let mut targets: HashMap<&str, &str> = HashMap::new();
    for r in references {
        if r.id.is_empty() || r.name.is_empty() {
            return refuse(field, format_args!("malformed {kind} reference"));
        }
        let Some(file) = &r.file else {
            // Configs may be for the runtime's use; secrets are always files.
            if kind == "secret" {
                return refuse(field, "malformed secret reference, no target provided");
            }
            continue;
        };
        if file.name.is_empty() {
            return refuse(
                field,
                format_args!("malformed file {kind} reference, invalid target file name provided"),
            );
        }
        if let Some(other) = targets.insert(&file.name, &r.name) {
            return refuse(
                field,
                format_args!(
                    "{kind} references '{other}' and '{}' have a conflicting target: '{}'",
                    r.name, file.name
                ),
            );
        }
    }
    Ok(())
}

fn update_config(field: &str, config: Option<&UpdateConfig>) -> Result<()> {
    let Some(c) = config else { return Ok(()) };
    if c.delay < 0 {
        return refuse(
            &format!("{field}.Delay"),
            "TaskSpec: update-delay cannot be negative",
        );
    }
    if c.monitor < 0 {
        return refuse(
            &format!("{field}.Monitor"),
            "TaskSpec: update-monitor cannot be negative",
        );
    }
    if !(0.0..=1.0).contains(&c.max_failure_ratio) {
        return refuse(
            &format!("{field}.MaxFailureRatio"),
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        );
    }
    Ok(())
}

fn endpoint(endpoint: Option<&EndpointSpec>) -> Result<()> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let mut published = HashSet::new();
    for port in &endpoint.ports {
        if endpoint.mode == EndpointMode::Dnsrr && port.publish_mode == PublishMode::Ingress {
            return refuse(
                "EndpointSpec.Ports",
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            );
        }
        if port.target_port == 0 {
            return refuse("EndpointSpec.Ports", "EndpointSpec: target port must be provided");
        }
        if port.published_port != 0 && !published.insert((port.published_port, port.protocol)) {
            return refuse(
                "EndpointSpec.Ports",
                "EndpointSpec: duplicate published ports provided",
            );
        }
    }
    Ok(())
}

fn networks(view: &View, spec: &ServiceSpec) -> Result<()> {
    let template = &spec.task_template.networks;
    let asked: &[NetworkAttachmentConfig] = if template.is_empty() {
        &spec.networks
    } else {
        template
    };
    for config in asked {
        match view.network(&config.target) {
            Some(network) if network.spec.ingress => {
                return refuse(
                    "TaskTemplate.Networks",
                    format_args!(
                        "Service cannot be explicitly attached to the ingress network {:?}",
                        network.spec.name
                    ),
                );
            }
            Some(_) => {}
            None if matches!(config.target.as_str(), "bridge" | "host" | "none") => {}
            None => {
                return Err(
                    Error::not_found(format_args!("network {} not found", config.target))
                        .at("TaskTemplate.Networks"),
                );
            }
        }
    }
    Ok(())
}
