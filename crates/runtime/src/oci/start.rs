//! Starting a container: everything on the host is prepared here, the keeper does the rest.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tripod_agent::ports::{StartRequest, Started};
use tripod_model::container::{ContainerSpec, NamespaceMode};
use tripod_model::{Error, Result, Time};

use super::{BUILTIN, Entry, Kept, Shared, blocking, files};
use crate::cgroup::{Cgroup, Limits};
use crate::keeper::wire::{LogTarget, Reply, Request, StartOrder};
use crate::spec::{self, Settled, devices, user};

struct Prepared {
    order: StartOrder,
    kept: Kept,
    cgroup: Cgroup,
    warnings: Vec<String>,
}

/// Creates and starts a container; when that fails, nothing is left of the attempt.
pub(super) async fn start(shared: &Arc<Shared>, request: StartRequest) -> Result<Started> {
    let (id, run, dir) = (request.id.clone(), request.run, request.dir.clone());
    if dir != shared.dir(&id) {
        return Err(Error::internal(format!(
            "{} is not the directory of container {id}",
            dir.display()
        )));
    }
    if shared.running(&id).is_ok() {
        return Err(Error::conflict(format!("container {id} is already running")));
    }
    let worker = shared.clone();
    let prepared = blocking(move || {
        prepare(&worker, &request).inspect_err(|_| {
            if let Ok(c) = worker.cgroup(&request.id, &request.spec.resources.cgroup_parent) {
                let _ = c.remove();
            }
            files::release(&request.dir);
        })
    })
    .await?;
    let entry = Entry {
        pid: 0,
        run,
        kept: Arc::new(prepared.kept),
        cgroup: prepared.cgroup,
        running: Arc::new(watch::Sender::new(true)),
    };
    // Known before it runs, since it may end before the answer is read.
    let earlier = shared.entries().insert(id.clone(), entry.clone());
    match shared
        .client
        .call(Request::Start(Box::new(prepared.order)), Vec::new())
        .await
    {
        Ok((Reply::Pid { pid }, _)) => {
            if let Some(e) = shared.entries().get_mut(&id).filter(|e| e.run == run) {
                e.pid = pid;
            }
            Ok(Started {
                pid,
                at: Time::now(),
                warnings: prepared.warnings,
            })
        }
        other => {
            let error = other
                .err()
                .unwrap_or_else(|| Error::internal("the keeper gave a wrong answer"));
            match earlier {
                Some(e) => shared.entries().insert(id, e),
                None => shared.entries().remove(&id),
            };
            entry.running.send_replace(false);
            let _ = blocking(move || {
                let _ = entry.cgroup.remove();
                files::release(&dir);
                Ok(())
            })
            .await;
            Err(error)
        }
    }
}

fn prepare(shared: &Shared, request: &StartRequest) -> Result<Prepared> {
    let spec = &*request.spec;
    std::fs::create_dir_all(&request.dir)?;
    let oci_runtime = oci_runtime(shared, &spec.runtime)?;
    let cgroup = shared.cgroup(&request.id, &spec.resources.cgroup_parent)?;
    let mut settled = Settled {
        identity: user::resolve(&request.rootfs, &spec.user, &spec.group_add)?,
        cgroup: cgroup.oci_path(),
        hierarchies: cgroup.hierarchies(),
        devices: devices::resolve(spec)?,
        ..Settled::default()
    };
    for peer in spec::peers(spec) {
        settled.peers.push((
            peer.clone(),
            shared.running(&peer).map(|e| e.pid).unwrap_or_default(),
        ));
    }
    settled.peers.retain(|(_, pid)| *pid > 0);
    settled.shm = match &spec.security.ipc {
        NamespaceMode::Container(other) => Some(shared.dir(other).join("shm")).filter(|p| p.exists()),
        _ => files::shared_memory(&request.dir, spec)?,
    };
    settled.files = files::inject(&request.dir, &request.rootfs, &spec.files)?;
    files::working_dir(&request.rootfs, &spec.working_dir)?;
    let builtin = oci_runtime.is_none();
    let mut rendered = spec::render(request, &shared.host, &settled, builtin)?;
    let mut limits = shared.limits(&spec.resources)?;
    if builtin && !spec.security.privileged {
        limits.devices = Some(settled.devices.rules.clone());
    }
    rendered.warnings.extend(cgroup.create(&if builtin {
        limits.clone()
    } else {
        Limits::default()
    })?);
    let filter = match rendered.config["linux"].as_object_mut() {
        // Compiled: the profile itself need not be written and read for each container.
        Some(linux) if builtin => shared
            .filters
            .compiled(&linux.remove("seccomp").unwrap_or_default())?,
        _ => None,
    };
    std::fs::write(
        request.dir.join("config.json"),
        serde_json::to_vec(&rendered.config)?,
    )?;
    let kept = Kept {
        log: log_target(request)?,
        cgroup_parent: spec.resources.cgroup_parent.clone(),
        shared_pid: matches!(
            spec.security.pid,
            NamespaceMode::Host | NamespaceMode::Container(_) | NamespaceMode::Path(_)
        ),
        tty: spec.tty,
        stdin: spec.open_stdin,
        oci_runtime: oci_runtime.clone(),
        filter: filter.clone(),
    };
    std::fs::write(request.dir.join("runtime.json"), serde_json::to_vec(&kept)?)?;
    let order = StartOrder {
        id: request.id.clone(),
        run: request.run,
        bundle: request.dir.clone(),
        oci_runtime,
        tty: spec.tty,
        console_size: spec.console_size,
        stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        owner: (settled.identity.uid, settled.identity.gid),
        init: spec.init,
        log: kept.log.clone(),
        join: if builtin { cgroup.all_procs() } else { Vec::new() },
        filter,
        oom_file: cgroup.oom_file(),
        oom_watch: limits.memory.is_some(),
    };
    Ok(Prepared {
        order,
        kept,
        cgroup,
        warnings: rendered.warnings,
    })
}

/// Program of the OCI runtime that a container asks for; `None` is the built-in one.
fn oci_runtime(shared: &Shared, name: &str) -> Result<Option<PathBuf>> {
    // Clients name Docker's default runtime without meaning that program.
    let name = if name.is_empty() {
        &shared.options.default_runtime
    } else {
        name
    };
    match shared.options.runtimes.iter().find(|(n, _)| n == name) {
        Some((_, path)) => Ok(Some(path.clone())),
        None if name == BUILTIN || name == "runc" || name == "io.containerd.runc.v2" => Ok(None),
        None => {
            Err(Error::invalid(format!("unknown or invalid runtime name: {name}")).at("HostConfig.Runtime"))
        }
    }
}

/// Where the log goes, from Docker's log options.
fn log_target(request: &StartRequest) -> Result<LogTarget> {
    let log = &request.spec.log;
    let driver = if log.driver.is_empty() {
        "json-file"
    } else {
        log.driver.as_str()
    };
    let option = |name: &str| log.options.get(name).map(String::as_str);
    let name = match driver {
        "json-file" => format!("{}-json.log", request.id),
        "local" => "local.log".into(),
        "none" => String::new(),
        other => {
            return Err(
                Error::invalid(format!("logger: no log driver named '{other}' is registered"))
                    .at("HostConfig.LogConfig"),
            );
        }
    };
    // Docker's defaults for `local`: five files of 20 MB, compressed.
    let local = driver == "local";
    let max_size = match option("max-size") {
        Some(s) => size(s).ok_or_else(|| Error::invalid(format!("invalid size: '{s}'")))?,
        None => {
            if local {
                20 << 20
            } else {
                0
            }
        }
    };
    let max_files = match option("max-file") {
        Some(s) => s
            .parse()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| Error::invalid("max-file cannot be less than 1"))?,
        None => {
            if local {
                5
            } else {
                1
            }
        }
    };
    let compress = match option("compress") {
        Some(s) => s
            .parse()
            .map_err(|_| Error::invalid(format!("invalid value for compress: {s}")))?,
        None => local,
    };
    let path = if name.is_empty() {
        PathBuf::new()
    } else {
        request.dir.join(name)
    };
    let attrs = log_attributes(&request.id, &request.spec);
    Ok(LogTarget {
        driver: driver.into(),
        path,
        max_size,
        max_files,
        compress: compress && max_files > 1,
        attrs,
    })
}

/// `10`, `10k`, `5m`, `1g`, with or without a `b`.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower
        .strip_suffix("ib")
        .or_else(|| lower.strip_suffix('b'))
        .unwrap_or(&lower);
    let (number, factor) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 1 << 10),
        b'm' => (&lower[..lower.len() - 1], 1 << 20),
        b'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower, 1),
    };
    let value: f64 = number.trim().parse().ok()?;
    (value >= 0.0).then_some((value * f64::from(factor)) as u64)
}

/// Labels and variables that the options `labels`, `env` and `tag` add to every line.
fn log_attributes(id: &str, spec: &ContainerSpec) -> std::collections::BTreeMap<String, String> {
    let mut attrs = std::collections::BTreeMap::new();
    let list = |name: &str| {
        spec.log
            .options
            .get(name)
            .map(|v| v.split(',').map(str::trim).collect::<Vec<_>>())
            .unwrap_or_default()
    };
    for label in list("labels") {
        if let Some(v) = spec.labels.get(label) {
            attrs.insert(label.to_owned(), v.clone());
        }
    }
    for name in list("env") {
        let found = spec
            .env
            .iter()
            .rev()
            .find_map(|e| e.split_once('=').filter(|(n, _)| *n == name));
        if let Some((_, v)) = found {
            attrs.insert(name.to_owned(), v.to_owned());
        }
    }
    if let Some(tag) = spec.log.options.get("tag") {
        let name = spec
            .annotations
            .get("tripod.dev/container-name")
            .cloned()
            .unwrap_or_default();
        let short = |s: &str| s.chars().take(12).collect::<String>();
        let image_id = spec.image_id.trim_start_matches("sha256:");
        let text = tag
            .replace("{{.ID}}", &short(id))
            .replace("{{.FullID}}", id)
            .replace("{{.Name}}", &name)
            .replace("{{.ImageID}}", &short(image_id))
            .replace("{{.ImageFullID}}", &spec.image_id)
            .replace("{{.ImageName}}", &spec.image)
            .replace("{{.DaemonName}}", "docker");
        attrs.insert("tag".into(), text);
    }
    attrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("10"), Some(10));
        assert_eq!(size("10k"), Some(10 << 10));
        assert_eq!(size("1.5MB"), Some(3 << 19));
        assert_eq!(size("2g"), Some(2 << 30));
        assert_eq!(size("x"), None);
    }

    #[test]
    fn log_options() {
        let mut spec = ContainerSpec::default();
        spec.log.options.insert("labels".into(), "a,b".into());
        spec.log.options.insert("tag".into(), "{{.ID}}/x".into());
        spec.labels.insert("a".into(), "1".into());
        let attrs = log_attributes(&"f".repeat(64), &spec);
        assert_eq!(attrs.get("a").unwrap(), "1");
        assert_eq!(attrs.get("tag").unwrap(), "ffffffffffff/x");
        assert_eq!(attrs.len(), 2);
    }
}
