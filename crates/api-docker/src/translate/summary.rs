//! From a container's record to its line in the list.

use tripod_agent::ContainerRecord;
use tripod_model::Time;
use tripod_model::container::{ContainerStatus, HealthStatus};
use tripod_model::network::PortProtocol;

use super::{inspect, show};
use crate::when::human;
use crate::wire::container::{Port, Summary, SummaryHostConfig, SummaryNetworks};

/// The line of a container.
pub(crate) fn summary(
    r: &ContainerRecord,
    now: Time,
    size: Option<(u64, u64)>,
    manifest: bool,
) -> Summary<'_> {
    Summary {
        id: &r.id,
        names: [format!("/{}", r.name)],
        image: &r.spec.image,
        image_id: &r.spec.image_id,
        image_manifest_descriptor: r.manifest.as_ref().filter(|_| manifest),
        command: command(r),
        created: r.created.as_second(),
        ports: ports(r),
        size_rw: size.map(|(rw, _)| rw),
        size_root_fs: size.map(|(_, all)| all),
        labels: &r.spec.labels,
        state: r.state.status.as_str(),
        status: status(r, now),
        host_config: SummaryHostConfig {
            network_mode: &r.spec.network.mode,
            annotations: show::annotations(&r.spec),
        },
        network_settings: SummaryNetworks {
            networks: inspect::networks(r),
        },
        mounts: inspect::mount_points(&r.mounts),
    }
}

/// Path and arguments; those with a space in them are quoted, as the real daemon does.
fn command(r: &ContainerRecord) -> String {
    let mut out = String::new();
    for (i, word) in r.spec.entrypoint.iter().chain(&r.spec.command).enumerate() {
        if i == 0 {
            out.push_str(word);
        } else if word.contains(' ') {
            out.push_str(" '");
            out.push_str(word);
            out.push('\'');
        } else {
            out.push(' ');
            out.push_str(word);
        }
    }
    out
}

fn ports(r: &ContainerRecord) -> Vec<Port> {
    if !r.is_running() {
        return Vec::new();
    }
    let word = |p: PortProtocol| p.to_string();
    let mut out: Vec<Port> = r
        .ports
        .iter()
        .map(|p| Port {
            ip: Some(p.host_ip.to_string()),
            private_port: p.target_port,
            public_port: Some(p.host_port),
            r#type: word(p.protocol),
        })
        .collect();
    for e in &r.spec.exposed_ports {
        let published = r
            .ports
            .iter()
            .any(|p| p.target_port == e.port && p.protocol == e.protocol);
        if !published {
            out.push(Port {
                ip: None,
                private_port: e.port,
                public_port: None,
                r#type: word(e.protocol),
            });
        }
    }
    out
}

/// `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago` …
pub(crate) fn status(r: &ContainerRecord, now: Time) -> String {
    let s = &r.state;
    let since = |t: Option<Time>| human(t.map_or(0, |t| now.as_second() - t.as_second()));
    match s.status {
        ContainerStatus::Created => "Created".into(),
        ContainerStatus::Running => {
            let health = match s.health.as_ref().map(|h| h.status) {
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
                _ => "",
            };
            format!("Up {}{health}", since(s.started_at))
        }
        ContainerStatus::Paused => format!("Up {} (Paused)", since(s.started_at)),
        ContainerStatus::Restarting => format!("Restarting ({}) {} ago", s.exit_code, since(s.finished_at)),
        ContainerStatus::Removing => "Removal In Progress".into(),
        ContainerStatus::Dead => "Dead".into(),
        // A start that failed leaves no end of a run.
        ContainerStatus::Exited if s.finished_at.is_none() => format!("Exited ({})", s.exit_code),
        ContainerStatus::Exited => format!("Exited ({}) {} ago", s.exit_code, since(s.finished_at)),
    }
}
