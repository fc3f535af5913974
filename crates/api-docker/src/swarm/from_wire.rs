//! A service as the API writes it, turned into a service of the cluster. Words are checked here, meanings at
//! admission.

use tripod_model::container::{HealthCheck, Ulimit};
use tripod_model::image;
use tripod_model::network::PortProtocol;
use tripod_model::node::GenericResource;
use tripod_model::swarm as model;
use tripod_model::{Error, Result};

use super::service_spec as wire;

pub(super) fn service(spec: wire::ServiceSpec, force_update: u64) -> Result<model::ServiceSpec> {
    Ok(model::ServiceSpec {
        name: spec.name,
        labels: spec.labels.unwrap_or_default(),
        mode: mode(&spec.mode)?,
        task_template: task(spec.task_template, force_update)?,
        update_config: spec.update_config.map(update_config).transpose()?,
        rollback_config: spec.rollback_config.map(update_config).transpose()?,
        networks: spec.networks.into_iter().map(network).collect(),
        endpoint_spec: spec.endpoint_spec.map(endpoint).transpose()?,
    })
}

fn mode(mode: &wire::Mode) -> Result<model::ServiceMode> {
    let given = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    if given.iter().filter(|g| **g).count() > 1 {
        return Err(Error::invalid("must specify only one service mode").at("Mode"));
    }
    Ok(if mode.global.is_some() {
        model::ServiceMode::Global {}
    } else if mode.global_job.is_some() {
        model::ServiceMode::GlobalJob {}
    } else if let Some(job) = &mode.replicated_job {
        let max_concurrent = job.max_concurrent.unwrap_or(1);
        model::ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions: job.total_completions.unwrap_or(max_concurrent),
        }
    } else {
        let replicas = mode.replicated.as_ref().and_then(|r| r.replicas).unwrap_or(1);
        model::ServiceMode::Replicated { replicas }
    })
}

fn task(spec: wire::TaskSpec, force_update: u64) -> Result<model::TaskSpec> {
    if spec.plugin_spec.is_some() || spec.runtime == "plugin" {
        return Err(Error::not_implemented(
            "services of the runtime \"plugin\" are not implemented by Tripod",
        ));
    }
    if spec.network_attachment_spec.is_some() || spec.runtime == "attachment" {
        return Err(
            Error::invalid("network attachments cannot be made with services").at("TaskTemplate.Runtime")
        );
    }
    if !matches!(spec.runtime.as_str(), "" | "container") {
        return Err(
            Error::invalid(format_args!("unknown runtime: {}", spec.runtime)).at("TaskTemplate.Runtime")
        );
    }
    let container = spec
        .container_spec
        .ok_or_else(|| Error::invalid("ContainerSpec: must be given").at("TaskTemplate.ContainerSpec"))?;
    Ok(model::TaskSpec {
        runtime: "container".into(),
        container: self::container(container)?,
        resources: spec.resources.map(resources),
        restart_policy: spec.restart_policy.map(|r| model::TaskRestartPolicy {
            condition: r.condition,
            delay: r.delay,
            max_attempts: r.max_attempts,
            window: r.window,
        }),
        placement: spec.placement.map(placement),
        force_update,
        networks: spec.networks.into_iter().map(network).collect(),
        log_driver: spec.log_driver.map(|d| model::Driver {
            name: d.name,
            options: d.options.unwrap_or_default(),
        }),
    })
}

fn container(c: wire::ContainerSpec) -> Result<model::TaskContainer> {
    if !matches!(c.isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format_args!(
            "isolation mode {} is not supported on Linux",
            c.isolation
        ))
        .at("TaskTemplate.ContainerSpec.Isolation"));
    }
    Ok(model::TaskContainer {
        image: c.image,
        registry_auth: model::Credentials::default(),
        labels: c.labels,
        command: c.command,
        args: c.args,
        hostname: c.hostname,
        env: c.env,
        dir: c.dir,
        user: c.user,
        groups: c.groups,
        privileges: c.privileges,
        tty: c.tty,
        open_stdin: c.open_stdin,
        read_only: c.read_only,
        mounts: c.mounts.into_iter().map(mount).collect::<Result<_>>()?,
        stop_signal: c.stop_signal,
        stop_grace_period: c.stop_grace_period,
        healthcheck: c.healthcheck.map(|h| HealthCheck {
            test: h.test,
            interval: h.interval,
            timeout: h.timeout,
            start_period: h.start_period,
            start_interval: h.start_interval,
            retries: h.retries,
        }),
        hosts: c.hosts,
        dns_config: c.dns_config.map(|d| model::DnsConfig {
            nameservers: d.nameservers,
            search: d.search,
            options: d.options,
        }),
        secrets: c
            .secrets
            .into_iter()
            .map(|s| model::DataReference {
                id: s.secret_id,
                name: s.secret_name,
                file: s.file.map(file),
            })
            .collect(),
        configs: c
            .configs
            .into_iter()
            .map(|s| model::DataReference {
                id: s.config_id,
                name: s.config_name,
                file: s.file.map(file),
            })
            .collect(),
        oom_score_adj: c.oom_score_adj,
        isolation: c.isolation,
        init: c.init,
        sysctls: c.sysctls,
        capability_add: c.capability_add,
        capability_drop: c.capability_drop,
        ulimits: c
            .ulimits
            .into_iter()
            .map(|u| Ulimit {
                name: u.name,
                soft: u.soft,
                hard: u.hard,
            })
            .collect(),
    })
}

fn mount(m: wire::Mount) -> Result<model::TaskMount> {
    if m.cluster_options.is_some() || m.kind == "cluster" {
        return Err(Error::not_implemented(
            "cluster volumes are not implemented by Tripod",
        ));
    }
    Ok(model::TaskMount {
        type_: m.kind,
        source: m.source,
        target: m.target,
        read_only: m.read_only,
        consistency: m.consistency,
        bind_options: m.bind_options,
        volume_options: m.volume_options,
        tmpfs_options: m.tmpfs_options,
    })
}

fn file(f: wire::File) -> model::DataFile {
    model::DataFile {
        name: f.name,
        uid: f.uid,
        gid: f.gid,
        mode: f.mode,
    }
}

fn resources(r: wire::Resources) -> model::TaskResources {
    model::TaskResources {
        limits: r.limits.map(|l| model::ResourceAmounts {
            nano_cpus: l.nano_cpus,
            memory: l.memory_bytes,
            pids: l.pids,
            generic: Vec::new(),
        }),
        reservations: r.reservations.map(|l| model::ResourceAmounts {
            nano_cpus: l.nano_cpus,
            memory: l.memory_bytes,
            pids: 0,
            generic: l.generic_resources.into_iter().filter_map(generic).collect(),
        }),
    }
}

fn generic(g: wire::GenericResource) -> Option<GenericResource> {
    match (g.named_resource_spec, g.discrete_resource_spec) {
        (Some(n), _) => Some(GenericResource {
            kind: n.kind,
            name: n.value,
            count: 0,
        }),
        (None, Some(d)) => Some(GenericResource {
            kind: d.kind,
            name: String::new(),
            count: d.value,
        }),
        (None, None) => None,
    }
}

fn placement(p: wire::Placement) -> model::Placement {
    model::Placement {
        constraints: p.constraints,
        preferences: p
            .preferences
            .into_iter()
            .filter_map(|p| p.spread)
            .map(|s| s.spread_descriptor)
            .collect(),
        max_replicas: p.max_replicas,
        platforms: p
            .platforms
            .into_iter()
            .map(|p| image::Platform {
                os: p.os,
                architecture: p.architecture,
                variant: String::new(),
            })
            .collect(),
    }
}

fn network(n: wire::NetworkAttachment) -> model::NetworkAttachmentConfig {
    model::NetworkAttachmentConfig {
        target: n.target,
        aliases: n.aliases,
        driver_opts: n.driver_opts,
    }
}

fn update_config(u: wire::UpdateConfig) -> Result<model::UpdateConfig> {
    Ok(model::UpdateConfig {
        parallelism: u.parallelism,
        delay: u.delay,
        failure_action: match u.failure_action.as_str() {
            "" | "pause" => model::FailureAction::Pause,
            "continue" => model::FailureAction::Continue,
            "rollback" => model::FailureAction::Rollback,
            other => {
                return Err(Error::invalid(format_args!(
                    "unrecognized update failure action {other}"
                )));
            }
        },
        monitor: u.monitor,
        max_failure_ratio: u.max_failure_ratio,
        order: match u.order.as_str() {
            "" | "stop-first" => model::UpdateOrder::StopFirst,
            "start-first" => model::UpdateOrder::StartFirst,
            other => return Err(Error::invalid(format_args!("unrecognized update order {other}"))),
        },
    })
}

pub(super) fn endpoint(e: wire::EndpointSpec) -> Result<model::EndpointSpec> {
    let mode = match e.mode.to_ascii_lowercase().as_str() {
        "" | "vip" => model::EndpointMode::Vip,
        "dnsrr" => model::EndpointMode::Dnsrr,
        other => {
            return Err(
                Error::invalid(format_args!("unrecognized endpoint mode {other}")).at("EndpointSpec.Mode")
            );
        }
    };
    let ports = e.ports.into_iter().map(port).collect::<Result<_>>()?;
    Ok(model::EndpointSpec { mode, ports })
}

fn port(p: wire::PortConfig) -> Result<model::PortConfig> {
    let number = |value: u32, field: &str| {
        u16::try_from(value).map_err(|_| {
            Error::invalid(format_args!(
                "{field}: {value} is not a port number, 65535 is the highest"
            ))
            .at(format!("EndpointSpec.Ports.{field}"))
        })
    };
    Ok(model::PortConfig {
        name: p.name,
        protocol: p.protocol.parse::<PortProtocol>()?,
        target_port: number(p.target_port, "TargetPort")?,
        published_port: number(p.published_port, "PublishedPort")?,
        publish_mode: match p.publish_mode.as_str() {
            "" | "ingress" => model::PublishMode::Ingress,
            "host" => model::PublishMode::Host,
            other => return Err(Error::invalid(format_args!("invalid publish mode: {other}"))),
        },
    })
}
