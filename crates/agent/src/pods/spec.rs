//! From a Swarm task to a container: the template's fields, names, labels, networks, ports, secrets and configs.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use serde_json::Value;
use tripod_model::container::{
    ContainerSpec, InjectedFile, LogConfig, Mount, MountKind, NetworkAttachment, PortBinding, PortSpec,
    Resources, Security,
};
use tripod_model::image::RegistryAuth;
use tripod_model::network::Endpoint;
use tripod_model::pod::{Pod, PodNetwork, SwarmTask};
use tripod_model::session::DataItem;
use tripod_model::swarm::{DataReference, TaskMount};
use tripod_model::{Error, Result};

use super::template::{Scope, expand};
use crate::{CreateContainer, Owner, names};

/// The node, as templates and labels see it.
#[derive(Debug, Clone, Default)]
pub struct NodeIdentity {
    /// Swarm identifier.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// `x86_64`, `linux`.
    pub platform: (String, String),
}

/// What a task needs on a node.
pub(crate) struct TaskPlan {
    pub create: CreateContainer,
    /// For the image's registry.
    pub credentials: Option<RegistryAuth>,
    pub files: Vec<InjectedFile>,
}

/// Name of a task, `web.1.<task id>`; global tasks have the node's identifier for a slot.
pub(crate) fn task_name(task: &SwarmTask) -> String {
    let slot = if task.slot == 0 {
        task.node_id.clone()
    } else {
        task.slot.to_string()
    };
    format!("{}.{slot}.{}", task.service_name, task.task_id)
}

/// Translates a pod that is a Swarm task.
pub(crate) fn plan(
    pod: &Pod,
    node: &NodeIdentity,
    data: &BTreeMap<String, Arc<DataItem>>,
) -> Result<TaskPlan> {
    let task = pod
        .swarm()
        .ok_or_else(|| Error::not_implemented("only Swarm tasks can be run"))?;
    let c = &task.template.container;
    let scope = scope(task, node);
    let mut env = Vec::with_capacity(c.env.len());
    for variable in &c.env {
        env.push(expand(variable, &scope)?);
    }
    let mut mounts = Vec::with_capacity(c.mounts.len());
    for m in &c.mounts {
        mounts.push(mount(m, &scope)?);
    }
    let mut spec = ContainerSpec {
        image: c.image.clone(),
        entrypoint: c.command.clone(),
        command: c.args.clone(),
        env,
        working_dir: c.dir.clone(),
        user: c.user.clone(),
        group_add: c.groups.clone(),
        hostname: expand(&c.hostname, &scope)?,
        labels: labels(task, node),
        tty: c.tty,
        open_stdin: c.open_stdin,
        stop_signal: c.stop_signal.clone(),
        // Whole seconds, rounded up: half a second of grace must not become none.
        stop_timeout: c.stop_grace_period.map(|ns| (ns + 999_999_999) / 1_000_000_000),
        healthcheck: c.healthcheck.clone(),
        mounts,
        resources: resources(task),
        security: security(task),
        log: log(task),
        init: c.init.unwrap_or(false),
        network: network(task),
        ..ContainerSpec::default()
    };
    let endpoints = endpoints(&pod.extension.networks, &mut spec.network);
    let files = files(task, scope, &spec.env, data)?;
    let create = CreateContainer {
        name: Some(task_name(task)),
        spec,
        owner: Owner::Pod {
            pod: format!("{}/{}", pod.metadata.namespace, pod.metadata.name),
            uid: pod.metadata.uid.clone(),
            container: String::new(),
            attempt: 0,
        },
        endpoints,
        image: None,
    };
    Ok(TaskPlan {
        create,
        credentials: c.registry_auth.0.clone(),
        files,
    })
}

fn scope(task: &SwarmTask, node: &NodeIdentity) -> Scope {
    let slot = if task.slot == 0 {
        task.node_id.clone()
    } else {
        task.slot.to_string()
    };
    let values = [
        (".Service.ID", task.service_id.clone()),
        (".Service.Name", task.service_name.clone()),
        (".Node.ID", node.id.clone()),
        (".Node.Hostname", node.hostname.clone()),
        (".Node.Platform.Architecture", node.platform.0.clone()),
        (".Node.Platform.OS", node.platform.1.clone()),
        (".Task.ID", task.task_id.clone()),
        (".Task.Name", task_name(task)),
        (".Task.Slot", slot),
    ];
    Scope {
        values: values.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        service_labels: task.service_labels.clone(),
        ..Scope::default()
    }
}

fn labels(task: &SwarmTask, node: &NodeIdentity) -> BTreeMap<String, String> {
    let mut labels = task.template.container.labels.clone();
    for (key, value) in [
        ("com.docker.swarm.node.id", node.id.clone()),
        ("com.docker.swarm.service.id", task.service_id.clone()),
        ("com.docker.swarm.service.name", task.service_name.clone()),
        ("com.docker.swarm.task", String::new()),
        ("com.docker.swarm.task.id", task.task_id.clone()),
        ("com.docker.swarm.task.name", task_name(task)),
    ] {
        labels.insert(key.to_owned(), value);
    }
    labels
}

fn resources(task: &SwarmTask) -> Resources {
    let mut out = Resources {
        ulimits: task.template.container.ulimits.clone(),
        ..Resources::default()
    };
    let Some(wanted) = &task.template.resources else {
        return out;
    };
    if let Some(limits) = &wanted.limits {
        out.nano_cpus = limits.nano_cpus;
        out.memory = limits.memory;
        out.pids_limit = (limits.pids > 0).then_some(limits.pids);
    }
    if let Some(reserved) = &wanted.reservations {
        out.memory_reservation = reserved.memory;
    }
    out
}

fn security(task: &SwarmTask) -> Security {
    let c = &task.template.container;
    let mut out = Security {
        cap_add: c.capability_add.clone(),
        cap_drop: c.capability_drop.clone(),
        read_only_rootfs: c.read_only,
        sysctls: c.sysctls.clone(),
        oom_score_adj: c.oom_score_adj,
        ..Security::default()
    };
    let Some(privileges) = &c.privileges else {
        return out;
    };
    let text = |path: &[&str]| {
        let found = path.iter().try_fold(privileges, |v, key| {
            v.get(key).or_else(|| v.get(lower_first(key)))
        });
        found.and_then(Value::as_str).map(str::to_owned)
    };
    let flag = privileges
        .get("NoNewPrivileges")
        .or_else(|| privileges.get("noNewPrivileges"));
    out.no_new_privileges = flag.and_then(Value::as_bool).unwrap_or(false);
    match text(&["Seccomp", "Mode"]).as_deref() {
        Some("unconfined") => out.seccomp = Some("unconfined".into()),
        // Go clients send bytes as base64.
        Some("custom") => {
            out.seccomp = text(&["Seccomp", "Profile"]).map(|profile| {
                let decoded = base64::engine::general_purpose::STANDARD.decode(&profile);
                decoded
                    .ok()
                    .and_then(|b| String::from_utf8(b).ok())
                    .unwrap_or(profile)
            });
        }
        _ => {}
    }
    if text(&["AppArmor", "Mode"]).as_deref() == Some("disabled") {
        out.apparmor = Some("unconfined".into());
    }
    out
}

fn lower_first(key: &str) -> String {
    let mut chars = key.chars();
    chars
        .next()
        .map(|c| c.to_ascii_lowercase())
        .into_iter()
        .chain(chars)
        .collect()
}

fn log(task: &SwarmTask) -> LogConfig {
    task.template
        .log_driver
        .as_ref()
        .map_or_else(LogConfig::default, |d| LogConfig {
            driver: d.name.clone(),
            options: d.options.clone(),
        })
}

fn network(task: &SwarmTask) -> NetworkAttachment {
    let c = &task.template.container;
    let dns = c.dns_config.clone().unwrap_or_default();
    NetworkAttachment {
        port_bindings: task
            .host_ports
            .iter()
            .map(|p| PortBinding {
                target: PortSpec {
                    port: p.target,
                    protocol: p.protocol,
                },
                host_ip: None,
                host_port: p.published,
                host_port_end: 0,
            })
            .collect(),
        dns: dns.nameservers,
        dns_options: dns.options,
        dns_search: dns.search,
        extra_hosts: c
            .hosts
            .iter()
            .flat_map(|line| {
                let mut words = line.split_whitespace();
                let address = words.next().unwrap_or_default().to_owned();
                words
                    .map(move |name| format!("{name}:{address}"))
                    .collect::<Vec<_>>()
            })
            .collect(),
        ..NetworkAttachment::default()
    }
}

/// Cluster networks become endpoints with settled addresses; a node-local one is the container's network mode.
fn endpoints(networks: &[PodNetwork], attachment: &mut NetworkAttachment) -> Vec<Endpoint> {
    let mut out = Vec::new();
    for n in networks {
        let Some(address) = n.address else {
            attachment.mode.clone_from(&n.network_name);
            continue;
        };
        out.push(Endpoint {
            id: names::new_id(),
            network_id: n.network_id.clone(),
            network_name: n.network_name.clone(),
            ipv4: Some(address),
            ipv6: None,
            gateway: None,
            gateway6: None,
            mac: String::new(),
            interface: String::new(),
            default_route: false,
            names: Vec::new(),
            aliases: n.aliases.clone(),
            links: Vec::new(),
            // Settled by the leader: kept when the container is not running.
            fixed_ipv4: true,
            fixed_ipv6: false,
            driver_opts: n.driver_opts.clone(),
            gw_priority: 0,
        });
    }
    if let Some(first) = out.first() {
        attachment.mode.clone_from(&first.network_id);
    }
    out
}

fn mount(m: &TaskMount, scope: &Scope) -> Result<Mount> {
    let kind = match m.type_.as_str() {
        "bind" => MountKind::Bind,
        "volume" | "" => MountKind::Volume,
        "tmpfs" => MountKind::Tmpfs,
        other => return Err(Error::invalid(format_args!("invalid mount type: {other}"))),
    };
    // These come from the API as they were written there: either spelling of a key.
    let get = |options: &Option<Value>, key: &str| -> Option<Value> {
        let options = options.as_ref()?;
        options
            .get(key)
            .or_else(|| options.get(lower_first(key)))
            .cloned()
    };
    let strings = |v: Option<Value>| -> BTreeMap<String, String> {
        v.and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default()
    };
    let mut out = Mount {
        kind,
        source: expand(&m.source, scope)?,
        target: expand(&m.target, scope)?,
        read_only: m.read_only,
        ..Mount::default()
    };
    if let Some(Value::String(p)) = get(&m.bind_options, "Propagation") {
        out.propagation = p;
    }
    out.non_recursive = get(&m.bind_options, "NonRecursive")
        .and_then(|v| v.as_bool())
        .unwrap_or(false);
    out.create_source = get(&m.bind_options, "CreateMountpoint")
        .and_then(|v| v.as_bool())
        .unwrap_or(false);
    out.no_copy = get(&m.volume_options, "NoCopy")
        .and_then(|v| v.as_bool())
        .unwrap_or(false);
    out.subpath = get(&m.volume_options, "Subpath")
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default();
    out.volume_labels = strings(get(&m.volume_options, "Labels"));
    if let Some(driver) = get(&m.volume_options, "DriverConfig") {
        out.driver = get(&Some(driver.clone()), "Name")
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default();
        out.driver_opts = strings(get(&Some(driver), "Options"));
    }
    out.tmpfs_size = get(&m.tmpfs_options, "SizeBytes")
        .and_then(|v| v.as_i64())
        .unwrap_or(0);
    // `[["noexec"], ["uid", "1000"]]`
    let options: Option<Vec<Vec<String>>> =
        get(&m.tmpfs_options, "Options").and_then(|v| serde_json::from_value(v).ok());
    out.tmpfs_options = options
        .unwrap_or_default()
        .iter()
        .map(|words| words.join("="))
        .collect();
    out.tmpfs_mode = get(&m.tmpfs_options, "Mode")
        .and_then(|v| v.as_u64())
        .map_or(0, |v| v as u32);
    Ok(out)
}

fn files(
    task: &SwarmTask,
    mut scope: Scope,
    env: &[String],
    data: &BTreeMap<String, Arc<DataItem>>,
) -> Result<Vec<InjectedFile>> {
    let c = &task.template.container;
    scope.env = env
        .iter()
        .filter_map(|e| e.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let find = |r: &DataReference, what: &str| {
        data.get(&r.id).cloned().ok_or_else(|| {
            Error::not_found(format_args!("{what} {} of the service is not available", r.name))
        })
    };
    for r in &c.secrets {
        let item = find(r, "secret")?;
        scope
            .secrets
            .insert(target_name(r), String::from_utf8_lossy(&item.data).into_owned());
    }
    for r in &c.configs {
        let item = find(r, "config")?;
        scope
            .configs
            .insert(target_name(r), String::from_utf8_lossy(&item.data).into_owned());
    }
    let mut out = Vec::with_capacity(c.secrets.len() + c.configs.len());
    for (references, secret) in [(&c.secrets, true), (&c.configs, false)] {
        for r in references {
            let Some(file) = &r.file else { continue };
            let item = find(r, if secret { "secret" } else { "config" })?;
            let bytes = match item.templating.is_empty() {
                true => item.data.clone(),
                false => expand(&String::from_utf8_lossy(&item.data), &scope)?.into_bytes(),
            };
            let path = match (file.name.starts_with('/'), secret) {
                (true, _) => file.name.clone(),
                (false, true) => format!("/run/secrets/{}", file.name),
                (false, false) => format!("/{}", file.name),
            };
            out.push(InjectedFile {
                path,
                data: bytes,
                uid: file.uid.clone(),
                gid: file.gid.clone(),
                mode: file.mode,
                secret,
            });
        }
    }
    Ok(out)
}

fn target_name(r: &DataReference) -> String {
    r.file.as_ref().map_or_else(|| r.name.clone(), |f| f.name.clone())
}
