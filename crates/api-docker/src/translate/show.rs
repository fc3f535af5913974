//! From a specification back to `Config` and `HostConfig`.

use std::collections::BTreeMap;

use tripod_model::container::{ContainerSpec, HealthCheck, RestartCondition};

use super::{mounts, ports, resources, security};
use crate::wire::container::{Config, HealthConfig};
use crate::wire::host_config::{HostConfig, LogConfig, RestartPolicy};
use crate::wire::set;

/// Docker's masked paths, where a container has the default.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Docker's read-only paths.
const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// `HostConfig`.
pub(crate) fn host_config(spec: &ContainerSpec) -> HostConfig {
    let (network, sec) = (&spec.network, &spec.security);
    let paths = |own: &Option<Vec<String>>, default: &[&str]| match own {
        Some(list) => Some(list.clone()),
        None if sec.privileged => None,
        None => Some(default.iter().map(|p| (*p).to_owned()).collect()),
    };
    let mut h = HostConfig {
        container_id_file: spec.container_id_file.clone(),
        log_config: LogConfig {
            r#type: if spec.log.driver.is_empty() {
                "json-file".into()
            } else {
                spec.log.driver.clone()
            },
            config: spec.log.options.clone(),
        },
        network_mode: network.mode.clone(),
        port_bindings: ports::show_bindings(&network.port_bindings),
        restart_policy: restart_policy(spec),
        auto_remove: spec.auto_remove,
        volumes_from: spec.volumes_from.clone(),
        console_size: spec.console_size.map_or_else(|| vec![0, 0], |(h, w)| vec![h, w]),
        annotations: annotations(spec),
        cap_add: sec.cap_add.clone(),
        cap_drop: sec.cap_drop.clone(),
        cgroupns_mode: security::show_namespace(&sec.cgroupns, "host"),
        dns: network.dns.clone(),
        dns_options: network.dns_options.clone(),
        dns_search: network.dns_search.clone(),
        extra_hosts: network.extra_hosts.clone(),
        group_add: spec.group_add.clone(),
        ipc_mode: security::show_namespace(&sec.ipc, "private"),
        links: network.links.clone(),
        oom_score_adj: sec.oom_score_adj,
        pid_mode: security::show_namespace(&sec.pid, ""),
        privileged: sec.privileged,
        publish_all_ports: network.publish_all,
        readonly_rootfs: sec.read_only_rootfs,
        security_opt: sec.options.clone(),
        storage_opt: spec.storage_opt.clone(),
        uts_mode: security::show_namespace(&sec.uts, ""),
        userns_mode: security::show_namespace(&sec.userns, ""),
        shm_size: if sec.shm_size == 0 { 64 << 20 } else { sec.shm_size },
        sysctls: sec.sysctls.clone(),
        runtime: spec.runtime.clone(),
        isolation: spec.isolation.clone(),
        masked_paths: paths(&sec.masked_paths, &MASKED),
        readonly_paths: paths(&sec.readonly_paths, &READONLY),
        init: spec.init.then_some(true),
        ..HostConfig::default()
    };
    mounts::show(&spec.mounts, &mut h);
    resources::show(&spec.resources, &mut h);
    h
}

/// The annotations that the user gave: what the daemon notes for itself is left out.
pub(super) fn annotations(spec: &ContainerSpec) -> BTreeMap<String, String> {
    let given = spec
        .annotations
        .iter()
        .filter(|(key, _)| !key.starts_with("tripod.dev/"));
    given.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn restart_policy(spec: &ContainerSpec) -> RestartPolicy {
    let name = match spec.restart.condition {
        RestartCondition::No => "no",
        RestartCondition::Always => "always",
        RestartCondition::UnlessStopped => "unless-stopped",
        RestartCondition::OnFailure => "on-failure",
    };
    RestartPolicy {
        name: name.into(),
        maximum_retry_count: spec.restart.max_retries,
    }
}

/// `Config`.
pub(crate) fn config(spec: &ContainerSpec) -> Config<'_> {
    let words = |w: &'_ [String]| !w.is_empty();
    Config {
        hostname: &spec.hostname,
        domainname: &spec.domainname,
        user: &spec.user,
        attach_stdin: spec.attach.stdin,
        attach_stdout: spec.attach.stdout,
        attach_stderr: spec.attach.stderr,
        exposed_ports: set(&spec.exposed_ports),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        env: &spec.env,
        cmd: words(&spec.command).then_some(&spec.command[..]),
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
        image: &spec.image,
        volumes: set(&spec.volumes),
        working_dir: &spec.working_dir,
        entrypoint: words(&spec.entrypoint).then_some(&spec.entrypoint[..]),
        network_disabled: spec.network.disabled,
        on_build: None,
        labels: &spec.labels,
        stop_signal: &spec.stop_signal,
        stop_timeout: spec.stop_timeout,
        shell: &spec.shell,
    }
}

/// A health check.
pub(crate) fn healthcheck(h: &HealthCheck) -> HealthConfig {
    HealthConfig {
        test: h.test.clone(),
        interval: h.interval,
        timeout: h.timeout,
        start_period: h.start_period,
        start_interval: h.start_interval,
        retries: h.retries,
    }
}
