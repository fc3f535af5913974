//! A service of the cluster as the API writes it: as it was given, or with the defaults of the cluster filled in where a
//! client asks for them (`insertDefaults`).

use serde_json::{Value, json};
use tripod_model::container::HealthCheck;
use tripod_model::node::GenericResource;
use tripod_model::swarm as model;

use super::service_spec as wire;

/// `ServiceSpec`. What nobody gave is left out unless `defaults` are asked for.
pub(super) fn service(spec: &model::ServiceSpec, defaults: bool) -> Value {
    let rollout = |given: Option<&model::UpdateConfig>| {
        let shown = !spec.mode.is_job() && (defaults || given.is_some());
        shown.then(|| update_config(given, defaults))
    };
    let wire = wire::ServiceSpec {
        name: spec.name.clone(),
        labels: Some(spec.labels.clone()),
        task_template: wire::TaskSpec::default(),
        mode: mode(&spec.mode),
        update_config: rollout(spec.update_config.as_ref()),
        rollback_config: rollout(spec.rollback_config.as_ref()),
        networks: spec.networks.iter().map(network).collect(),
        endpoint_spec: spec.endpoint_spec.as_ref().map(endpoint_spec),
    };
    let mut value = serde_json::to_value(&wire).unwrap_or_default();
    value["TaskTemplate"] = task(&spec.task_template, defaults);
    value["TaskTemplate"]["Runtime"] = "container".into();
    value["Labels"] = json!(spec.labels);
    value
}

fn mode(mode: &model::ServiceMode) -> wire::Mode {
    match mode {
        model::ServiceMode::Replicated { replicas } => wire::Mode {
            replicated: Some(wire::Replicated {
                replicas: Some(*replicas),
            }),
            ..wire::Mode::default()
        },
        model::ServiceMode::Global {} => wire::Mode {
            global: Some(wire::Empty {}),
            ..wire::Mode::default()
        },
        model::ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        } => wire::Mode {
            replicated_job: Some(wire::ReplicatedJob {
                max_concurrent: Some(*max_concurrent),
                total_completions: Some(*total_completions),
            }),
            ..wire::Mode::default()
        },
        model::ServiceMode::GlobalJob {} => wire::Mode {
            global_job: Some(wire::Empty {}),
            ..wire::Mode::default()
        },
    }
}

/// `TaskSpec`.
pub(super) fn task(spec: &model::TaskSpec, defaults: bool) -> Value {
    let given_or = |is_given: bool| is_given || defaults;
    let wire = wire::TaskSpec {
        container_spec: Some(container(&spec.container, defaults)),
        plugin_spec: None,
        network_attachment_spec: None,
        resources: given_or(spec.resources.is_some())
            .then(|| spec.resources.as_ref().map(resources).unwrap_or_default()),
        restart_policy: given_or(spec.restart_policy.is_some())
            .then(|| restart_policy(&spec.restart_policy.clone().unwrap_or_default(), defaults)),
        placement: given_or(spec.placement.is_some())
            .then(|| spec.placement.as_ref().map(placement).unwrap_or_default()),
        networks: spec.networks.iter().map(network).collect(),
        log_driver: spec.log_driver.as_ref().map(|d| wire::Driver {
            name: d.name.clone(),
            options: Some(d.options.clone()),
        }),
        runtime: String::new(),
    };
    wire.to_value(spec.force_update)
}

fn restart_policy(r: &model::TaskRestartPolicy, defaults: bool) -> wire::RestartPolicy {
    wire::RestartPolicy {
        condition: match r.condition.as_str() {
            "" => "any".into(),
            given => given.to_owned(),
        },
        delay: r.delay.or(defaults.then_some(5_000_000_000)),
        max_attempts: Some(r.max_attempts.unwrap_or(0)),
        window: r.window,
    }
}

fn container(c: &model::TaskContainer, defaults: bool) -> wire::ContainerSpec {
    wire::ContainerSpec {
        image: c.image.clone(),
        labels: c.labels.clone(),
        command: c.command.clone(),
        args: c.args.clone(),
        hostname: c.hostname.clone(),
        env: c.env.clone(),
        dir: c.dir.clone(),
        user: c.user.clone(),
        groups: c.groups.clone(),
        privileges: c.privileges.clone(),
        init: c.init,
        stop_signal: c.stop_signal.clone(),
        tty: c.tty,
        open_stdin: c.open_stdin,
        read_only: c.read_only,
        mounts: c.mounts.iter().map(mount).collect(),
        stop_grace_period: c.stop_grace_period.or(defaults.then_some(10_000_000_000)),
        healthcheck: c.healthcheck.as_ref().map(healthcheck),
        hosts: c.hosts.clone(),
        dns_config: dns_config(c.dns_config.as_ref(), defaults),
        secrets: c
            .secrets
            .iter()
            .map(|r| wire::SecretReference {
                file: r.file.as_ref().map(file),
                secret_id: r.id.clone(),
                secret_name: r.name.clone(),
            })
            .collect(),
        configs: c
            .configs
            .iter()
            .map(|r| wire::ConfigReference {
                file: r.file.as_ref().map(file),
                runtime: r.file.is_none().then(|| json!({})),
                config_id: r.id.clone(),
                config_name: r.name.clone(),
            })
            .collect(),
        isolation: if c.isolation.is_empty() {
            "default".into()
        } else {
            c.isolation.clone()
        },
        sysctls: c.sysctls.clone(),
        capability_add: c.capability_add.clone(),
        capability_drop: c.capability_drop.clone(),
        ulimits: c
            .ulimits
            .iter()
            .map(|u| wire::Ulimit {
                name: u.name.clone(),
                soft: u.soft,
                hard: u.hard,
            })
            .collect(),
        oom_score_adj: c.oom_score_adj,
    }
}

fn dns_config(given: Option<&model::DnsConfig>, defaults: bool) -> Option<wire::DnsConfig> {
    match given {
        Some(d) => Some(wire::DnsConfig {
            nameservers: d.nameservers.clone(),
            search: d.search.clone(),
            options: d.options.clone(),
        }),
        None => defaults.then(wire::DnsConfig::default),
    }
}

fn healthcheck(h: &HealthCheck) -> wire::HealthConfig {
    wire::HealthConfig {
        test: h.test.clone(),
        interval: h.interval,
        timeout: h.timeout,
        start_period: h.start_period,
        start_interval: h.start_interval,
        retries: h.retries,
    }
}

fn mount(m: &model::TaskMount) -> wire::Mount {
    wire::Mount {
        kind: m.type_.clone(),
        source: m.source.clone(),
        target: m.target.clone(),
        read_only: m.read_only,
        consistency: m.consistency.clone(),
        bind_options: m.bind_options.clone(),
        volume_options: m.volume_options.clone(),
        tmpfs_options: m.tmpfs_options.clone(),
        image_options: None,
        cluster_options: None,
    }
}

fn file(f: &model::DataFile) -> wire::File {
    wire::File {
        name: f.name.clone(),
        uid: f.uid.clone(),
        gid: f.gid.clone(),
        mode: f.mode,
    }
}

fn resources(r: &model::TaskResources) -> wire::Resources {
    wire::Resources {
        limits: r.limits.as_ref().map(|l| wire::Limits {
            nano_cpus: l.nano_cpus,
            memory_bytes: l.memory,
            pids: l.pids,
        }),
        reservations: r.reservations.as_ref().map(|l| wire::Reservations {
            nano_cpus: l.nano_cpus,
            memory_bytes: l.memory,
            generic_resources: l.generic.iter().map(generic).collect(),
        }),
    }
}

/// A named or counted resource.
pub(super) fn generic(g: &GenericResource) -> wire::GenericResource {
    if g.name.is_empty() {
        let counted = wire::DiscreteResource {
            kind: g.kind.clone(),
            value: g.count,
        };
        return wire::GenericResource {
            discrete_resource_spec: Some(counted),
            ..Default::default()
        };
    }
    let named = wire::NamedResource {
        kind: g.kind.clone(),
        value: g.name.clone(),
    };
    wire::GenericResource {
        named_resource_spec: Some(named),
        ..Default::default()
    }
}

fn placement(p: &model::Placement) -> wire::Placement {
    wire::Placement {
        constraints: p.constraints.clone(),
        preferences: p
            .preferences
            .iter()
            .map(|d| wire::Preference {
                spread: Some(wire::Spread {
                    spread_descriptor: d.clone(),
                }),
            })
            .collect(),
        max_replicas: p.max_replicas,
        platforms: p
            .platforms
            .iter()
            .map(|p| wire::Platform {
                architecture: p.architecture.clone(),
                os: p.os.clone(),
            })
            .collect(),
    }
}

fn network(n: &model::NetworkAttachmentConfig) -> wire::NetworkAttachment {
    wire::NetworkAttachment {
        target: n.target.clone(),
        aliases: n.aliases.clone(),
        driver_opts: n.driver_opts.clone(),
    }
}

fn update_config(u: Option<&model::UpdateConfig>, defaults: bool) -> wire::UpdateConfig {
    let u = u.cloned().unwrap_or_default();
    wire::UpdateConfig {
        parallelism: u.parallelism,
        delay: u.delay,
        failure_action: match u.failure_action {
            model::FailureAction::Pause => "pause",
            model::FailureAction::Continue => "continue",
            model::FailureAction::Rollback => "rollback",
        }
        .into(),
        monitor: if u.monitor == 0 && defaults {
            5_000_000_000
        } else {
            u.monitor
        },
        max_failure_ratio: u.max_failure_ratio,
        order: match u.order {
            model::UpdateOrder::StopFirst => "stop-first",
            model::UpdateOrder::StartFirst => "start-first",
        }
        .into(),
    }
}

/// `EndpointSpec`.
pub(super) fn endpoint_spec(e: &model::EndpointSpec) -> wire::EndpointSpec {
    let mode = match e.mode {
        model::EndpointMode::Vip => "vip",
        model::EndpointMode::Dnsrr => "dnsrr",
    };
    wire::EndpointSpec {
        mode: mode.into(),
        ports: e.ports.iter().map(port).collect(),
    }
}

/// `PortConfig`.
pub(super) fn port(p: &model::PortConfig) -> wire::PortConfig {
    wire::PortConfig {
        name: p.name.clone(),
        protocol: p.protocol.to_string(),
        target_port: p.target_port.into(),
        published_port: p.published_port.into(),
        publish_mode: match p.publish_mode {
            model::PublishMode::Ingress => "ingress",
            model::PublishMode::Host => "host",
        }
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::from_value;

    #[test]
    fn round_trip() {
        let given = json!({
            "Name": "web",
            "Labels": {"Some.Key": "v"},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "x:1", "Labels": {"Up": "Case"}, "Args": ["a"], "Env": ["A=b"], "Init": true, "TTY": true,
                    "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"Propagation": "rslave"}}],
                    "DNSConfig": {"Nameservers": ["1.1.1.1"]},
                    "Secrets": [{"File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "i", "SecretName": "n"}],
                    "Sysctls": {"net.core.somaxconn": "9"}, "StopGracePeriod": 7, "Isolation": "default",
                },
                "Resources": {
                    "Limits": {"NanoCPUs": 5, "MemoryBytes": 6, "Pids": 7},
                    "Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]},
                },
                "RestartPolicy": {"Condition": "on-failure", "Delay": 1, "MaxAttempts": 3},
                "Placement": {"Constraints": ["node.role==manager"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}], "MaxReplicas": 2},
                "Networks": [{"Target": "n1", "Aliases": ["al"]}],
                "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
                "Runtime": "container", "ForceUpdate": 4,
            },
            "Mode": {"Replicated": {"Replicas": 3}},
            "UpdateConfig": {"Parallelism": 2, "Delay": 9, "FailureAction": "rollback", "Monitor": 11, "MaxFailureRatio": 0.5, "Order": "start-first"},
            "RollbackConfig": {"Parallelism": 1, "FailureAction": "pause", "Monitor": 12, "MaxFailureRatio": 0.0, "Order": "stop-first"},
            "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 80, "PublishMode": "ingress"}]},
        });
        let wire: wire::ServiceSpec = from_value(&given).unwrap();
        let model = super::super::from_wire::service(wire, 4).unwrap();
        assert_eq!(service(&model, true), given);
    }

    #[test]
    fn defaults_are_filled_in() {
        let wire: wire::ServiceSpec =
            from_value(&json!({"Name": "w", "TaskTemplate": {"ContainerSpec": {"Image": "x"}}})).unwrap();
        let value = service(&super::super::from_wire::service(wire, 0).unwrap(), true);
        assert_eq!(value["Mode"]["Replicated"]["Replicas"], 1);
        assert_eq!(value["UpdateConfig"]["Monitor"], 5_000_000_000_i64);
        assert_eq!(value["TaskTemplate"]["RestartPolicy"]["Delay"], 5_000_000_000_i64);
        assert_eq!(
            value["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"],
            10_000_000_000_i64
        );
    }

    #[test]
    fn what_nobody_gave_is_not_shown() {
        let wire: wire::ServiceSpec =
            from_value(&json!({"Name": "w", "TaskTemplate": {"ContainerSpec": {"Image": "x"}}})).unwrap();
        let value = service(&super::super::from_wire::service(wire, 0).unwrap(), false);
        assert_eq!(
            value,
            json!({
                "Name": "w", "Labels": {}, "Mode": {"Replicated": {"Replicas": 1}},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "x", "Isolation": "default"}, "ForceUpdate": 0, "Runtime": "container",
                },
            })
        );
    }

    #[test]
    fn words_are_checked() {
        for (pointer, bad, message) in [
            (
                "/EndpointSpec",
                json!({"Mode": "x"}),
                "unrecognized endpoint mode x",
            ),
            (
                "/EndpointSpec",
                json!({"Ports": [{"TargetPort": 70000}]}),
                "TargetPort: 70000 is not a port number",
            ),
            (
                "/Mode",
                json!({"Global": {}, "Replicated": {}}),
                "must specify only one service mode",
            ),
            (
                "/UpdateConfig",
                json!({"Order": "x"}),
                "unrecognized update order x",
            ),
        ] {
            let mut spec = json!({"Name": "w", "TaskTemplate": {"ContainerSpec": {"Image": "x"}}});
            spec[&pointer[1..]] = bad;
            let error = super::super::from_wire::service(from_value(&spec).unwrap(), 0).unwrap_err();
            assert!(error.message.starts_with(message), "{}", error.message);
        }
    }
}
