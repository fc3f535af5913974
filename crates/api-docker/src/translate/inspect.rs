//! From a container's record to the answer of inspect.

use std::collections::BTreeMap;

use tripod_agent::ports::Rootfs;
use tripod_agent::{ContainerRecord, MountPoint};
use tripod_model::container::{ContainerStatus, HealthStatus, Mount, MountKind, MountOrigin};

use super::{mounts, network, show};
use crate::when;
use crate::wire::container::{self as wire, GraphDriver, Health, HealthLog, Inspect, NetworkSettings, State};
use crate::wire::host_config::{PortBinding, PortMap};

/// What inspect needs beside the record.
#[derive(Default)]
pub(crate) struct Beside {
    /// Execs that have not ended.
    pub(crate) exec_ids: Vec<String>,
    /// Where the layers are.
    pub(crate) rootfs: Option<Rootfs>,
    /// Path of the log.
    pub(crate) log_path: Option<String>,
    /// Bytes of the writable layer and in all, when asked for.
    pub(crate) size: Option<(u64, u64)>,
}

/// The answer of inspect.
pub(crate) fn inspect(r: &ContainerRecord, beside: Beside) -> Inspect<'_> {
    let mut line = r
        .spec
        .entrypoint
        .iter()
        .chain(&r.spec.command)
        .map(String::as_str);
    let file = |name: &str| {
        if r.run > 0 {
            format!("{}/{name}", r.dir)
        } else {
            String::new()
        }
    };
    Inspect {
        id: &r.id,
        created: when::rfc3339(r.created),
        path: line.next().unwrap_or_default(),
        args: line.collect(),
        state: state(r),
        image: &r.spec.image_id,
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: beside.log_path.unwrap_or_default(),
        name: format!("/{}", r.name),
        restart_count: r.state.restart_count,
        driver: "overlay2",
        platform: "linux",
        image_manifest_descriptor: r.manifest.as_ref(),
        mount_label: "",
        process_label: "",
        app_armor_profile: r.spec.security.apparmor.as_deref().unwrap_or_default(),
        exec_ids: beside.exec_ids,
        host_config: show::host_config(&r.spec),
        graph_driver: graph_driver(beside.rootfs),
        size_rw: beside.size.map(|(rw, _)| rw),
        size_root_fs: beside.size.map(|(_, all)| all),
        mounts: mount_points(&r.mounts),
        config: show::config(&r.spec),
        network_settings: network_settings(r),
    }
}

fn graph_driver(rootfs: Option<Rootfs>) -> GraphDriver {
    let data = rootfs.map_or_else(BTreeMap::new, |r| {
        let lower: Vec<_> = r.lower.iter().map(|p| p.to_string_lossy()).collect();
        BTreeMap::from([
            ("LowerDir".to_owned(), lower.join(":")),
            ("MergedDir".to_owned(), r.path.to_string_lossy().into_owned()),
            ("UpperDir".to_owned(), r.upper.to_string_lossy().into_owned()),
            ("WorkDir".to_owned(), r.work.to_string_lossy().into_owned()),
        ])
    });
    GraphDriver {
        name: "overlay2",
        data,
    }
}

fn state(r: &ContainerRecord) -> State<'_> {
    let s = &r.state;
    let health = s.health.as_ref().map(|h| Health {
        status: health_word(h.status),
        failing_streak: h.failing_streak,
        log: h
            .log
            .iter()
            .map(|l| HealthLog {
                start: when::rfc3339(l.start),
                end: when::rfc3339(l.end),
                exit_code: l.exit_code,
                output: &l.output,
            })
            .collect(),
    });
    State {
        status: s.status.as_str(),
        // A container that waits for its restart counts as running for clients.
        running: r.is_running() || s.status == ContainerStatus::Restarting,
        paused: s.status == ContainerStatus::Paused,
        restarting: s.status == ContainerStatus::Restarting,
        oom_killed: s.oom_killed,
        dead: s.status == ContainerStatus::Dead,
        pid: s.pid,
        exit_code: s.exit_code,
        error: &s.error,
        started_at: when::or_never(s.started_at),
        finished_at: when::or_never(s.finished_at),
        health,
    }
}

/// The word for a verdict.
pub(crate) fn health_word(h: HealthStatus) -> &'static str {
    match h {
        HealthStatus::None => "none",
        HealthStatus::Starting => "starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
    }
}

/// Mounts with their places.
pub(crate) fn mount_points(list: &[MountPoint]) -> Vec<wire::MountPoint> {
    let one = |m: &MountPoint| {
        let volume = m.mount.kind == MountKind::Volume;
        let propagation = match m.mount.kind {
            MountKind::Bind if m.mount.propagation.is_empty() => "rprivate".to_owned(),
            MountKind::Bind => m.mount.propagation.clone(),
            _ => String::new(),
        };
        wire::MountPoint {
            r#type: mounts::kind(m.mount.kind),
            name: if volume {
                m.mount.source.clone()
            } else {
                String::new()
            },
            source: m.path.clone(),
            destination: m.mount.target.clone(),
            driver: if volume { "local" } else { "" },
            mode: mode(&m.mount),
            rw: !m.mount.read_only,
            propagation,
        }
    };
    // Docker lists tmpfs mounts only when they were asked for as mounts.
    let shown = |m: &&MountPoint| m.mount.origin != MountOrigin::Tmpfs;
    list.iter().filter(shown).map(one).collect()
}

/// The mode of a bind. The real daemon tells `z` of volumes that were given without one.
fn mode(m: &Mount) -> String {
    let unsaid = m.kind == MountKind::Volume && m.origin == MountOrigin::Binds && m.mode.is_empty();
    if unsaid { "z".into() } else { m.mode.clone() }
}

fn network_settings(r: &ContainerRecord) -> NetworkSettings {
    let running = r.is_running();
    let mut out = NetworkSettings {
        ports: if running { ports(r) } else { PortMap::new() },
        networks: networks(r),
        ..NetworkSettings::default()
    };
    if running {
        out.sandbox_id.clone_from(&r.id);
        out.sandbox_key = format!("/var/run/docker/netns/{}", r.short_id());
    }
    // The fields of old clients repeat the default bridge.
    if let Some(b) = out.networks.get("bridge") {
        out.endpoint_id.clone_from(&b.endpoint_id);
        out.gateway.clone_from(&b.gateway);
        out.ip_address.clone_from(&b.ip_address);
        out.ip_prefix_len = b.ip_prefix_len;
        out.ipv6_gateway.clone_from(&b.ipv6_gateway);
        out.global_ipv6_address.clone_from(&b.global_ipv6_address);
        out.global_ipv6_prefix_len = b.global_ipv6_prefix_len;
        out.mac_address.clone_from(&b.mac_address);
    }
    out
}

/// Endpoints by the name of their network.
pub(crate) fn networks(r: &ContainerRecord) -> BTreeMap<String, wire::EndpointSettings> {
    let running = r.is_running();
    r.endpoints
        .iter()
        .map(|e| {
            let asked = r
                .spec
                .network
                .endpoints
                .iter()
                .find(|a| a.network == e.network_name || a.network == e.network_id);
            (e.network_name.clone(), network::show_endpoint(e, asked, running))
        })
        .collect()
}

/// Exposed ports, with the ports of the host that lead there.
fn ports(r: &ContainerRecord) -> PortMap {
    let mut map: PortMap = r
        .spec
        .exposed_ports
        .iter()
        .map(|p| (p.to_string(), None))
        .collect();
    for p in &r.ports {
        let list = map
            .entry(format!("{}/{}", p.target_port, p.protocol))
            .or_default()
            .get_or_insert_default();
        list.push(PortBinding {
            host_ip: p.host_ip.to_string(),
            host_port: p.host_port.to_string(),
        });
    }
    map
}
