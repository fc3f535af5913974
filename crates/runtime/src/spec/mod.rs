//! What the OCI runtime is told: a pure translation of a [`ContainerSpec`] and what the machine offers ([`Host`])
//! into `config.json` of the OCI runtime specification 1.2.
//!
//! The document is made as JSON, in which the specification is written; tests read it back with `oci-spec`.

pub(crate) mod caps;
pub(crate) mod devices;
mod mounts;
mod process;
mod resources;
pub(crate) mod seccomp;
mod syscalls;
pub(crate) mod user;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tripod_agent::ports::StartRequest;
use tripod_model::container::{ContainerSpec, NamespaceMode};
use tripod_model::{Error, Result};

pub(crate) use process::exec_process;
use user::Identity;

/// What the machine and this daemon can give.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    /// Capabilities that can be handed out.
    pub(crate) bounding: caps::Set,
    /// Own hard limits by OCI name; above them only CAP_SYS_RESOURCE goes.
    pub(crate) hard_limits: Vec<(&'static str, u64)>,
    /// Own OOM score adjustment, the lowest possible one without CAP_SYS_RESOURCE.
    pub(crate) oom_score_adj: i64,
    /// cgroup version 2.
    pub(crate) cgroup_v2: bool,
    /// The kernel has seccomp filters.
    pub(crate) seccomp: bool,
}

/// What was settled for this start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settled {
    /// Who the process is.
    pub(crate) identity: Identity,
    /// Path of the cgroup.
    pub(crate) cgroup: PathBuf,
    /// Its directory in each hierarchy of version 1, by the name that the hierarchy's mount has.
    pub(crate) hierarchies: Vec<(String, PathBuf)>,
    /// Processes whose namespaces are joined, by the container's identifier.
    pub(crate) peers: Vec<(String, i32)>,
    /// Where `/dev/shm` of this container (or of the one whose IPC namespace it joins) is on the host.
    pub(crate) shm: Option<PathBuf>,
    /// Secrets and configs: file on the host, path in the container.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Devices to be made, and rules for them.
    pub(crate) devices: devices::Devices,
}

/// The document and what had to be clamped.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) config: Value,
    pub(crate) warnings: Vec<String>,
}

/// Paths that containers must not see (moby's `DefaultSpec`).
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
/// Paths that containers must not change.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Renders `config.json`. `for_builtin` leaves out what the built-in runtime has done already (limits).
pub(crate) fn render(
    request: &StartRequest,
    host: &Host,
    settled: &Settled,
    for_builtin: bool,
) -> Result<Rendered> {
    let spec = &*request.spec;
    let mut warnings = Vec::new();
    let namespaces = namespaces(request, host, settled)?;
    let own_uts = namespaces
        .iter()
        .any(|n| n["type"] == "uts" && n.get("path").is_none());
    let process = process::render(spec, host, &settled.identity, &mut warnings)?;
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": settled.cgroup,
        "sysctl": spec.security.sysctls,
        "devices": settled.devices.nodes,
    });
    if let Some(p) = root_propagation(request) {
        linux["rootfsPropagation"] = json!(p);
    }
    let (masked, read_only) = hidden_paths(spec);
    linux["maskedPaths"] = json!(masked);
    linux["readonlyPaths"] = json!(read_only);
    let seccomp = seccomp::for_container(spec, host)?;
    if !seccomp.is_null() {
        linux["seccomp"] = seccomp;
    }
    if !for_builtin {
        linux["resources"] = resources::render(&spec.resources, &settled.devices.rules)?;
    }
    let mut config = json!({
        // What is said to other runtimes is of 1.0, and some refuse newer numbers.
        "ociVersion": if for_builtin { "1.2.0" } else { "1.0.2" },
        "process": process,
        "root": {"path": request.rootfs, "readonly": spec.security.read_only_rootfs},
        "mounts": mounts::render(request, host, settled, &linux["namespaces"], for_builtin)?,
        "annotations": spec.annotations,
        "linux": linux,
    });
    if own_uts {
        config["hostname"] = json!(spec.hostname);
        if !spec.domainname.is_empty() {
            config["domainname"] = json!(spec.domainname);
        }
    }
    Ok(Rendered { config, warnings })
}

fn hidden_paths(spec: &ContainerSpec) -> (Vec<String>, Vec<String>) {
    let or = |given: &Option<Vec<String>>, default: &[&str]| match given {
        Some(list) => list.clone(),
        None if spec.security.privileged => Vec::new(),
        None => default.iter().map(ToString::to_string).collect(),
    };
    (
        or(&spec.security.masked_paths, &MASKED),
        or(&spec.security.readonly_paths, &READ_ONLY),
    )
}

/// The container's root must share (or follow) mounts when one of its binds is to.
fn root_propagation(request: &StartRequest) -> Option<&'static str> {
    let has = |kind: &str| {
        request
            .mounts
            .iter()
            .any(|m| m.propagation.trim_start_matches('r') == kind)
    };
    ["shared", "slave"].into_iter().find(|k| has(k))
}

fn namespaces(request: &StartRequest, host: &Host, settled: &Settled) -> Result<Vec<Value>> {
    let security = &request.spec.security;
    let mut all = vec![json!({"type": "mount"})];
    if let Some(path) = &request.netns {
        all.push(json!({"type": "network", "path": path}));
    }
    let cgroupns = match security.cgroupns {
        NamespaceMode::Host => NamespaceMode::Host,
        NamespaceMode::Default if !host.cgroup_v2 || security.privileged => NamespaceMode::Host,
        _ => NamespaceMode::Private,
    };
    for (kind, proc_name, mode) in [
        ("pid", "pid", &security.pid),
        ("ipc", "ipc", &security.ipc),
        ("uts", "uts", &security.uts),
        ("cgroup", "cgroup", &cgroupns),
    ] {
        match mode {
            NamespaceMode::Host => {}
            NamespaceMode::Path(path) => all.push(json!({"type": kind, "path": path})),
            NamespaceMode::Container(id) => {
                let pid = peer(settled, id)?;
                all.push(json!({"type": kind, "path": format!("/proc/{pid}/ns/{proc_name}")}));
            }
            _ => all.push(json!({"type": kind})),
        }
    }
    Ok(all)
}

fn peer(settled: &Settled, id: &str) -> Result<i32> {
    settled
        .peers
        .iter()
        .find(|(i, _)| i == id)
        .map(|(_, p)| *p)
        .ok_or_else(|| {
            Error::conflict(format!(
                "cannot join namespace of a non running container: container {id} is not running"
            ))
        })
}

/// Containers whose namespaces are joined.
pub(crate) fn peers(spec: &ContainerSpec) -> Vec<String> {
    [&spec.security.pid, &spec.security.ipc, &spec.security.uts]
        .into_iter()
        .filter_map(|m| match m {
            NamespaceMode::Container(id) => Some(id.clone()),
            _ => None,
        })
        .collect()
}

/// A path of the container as the specification wants it.
fn in_container(path: &str) -> PathBuf {
    if path.starts_with('/') {
        path.into()
    } else {
        Path::new("/").join(path)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Arc;

    pub(crate) fn request(spec: ContainerSpec) -> StartRequest {
        StartRequest {
            id: "a".repeat(64),
            run: 1,
            spec: Arc::new(spec),
            rootfs: "/rootfs".into(),
            netns: Some("/run/netns/x".into()),
            mounts: vec![],
            dir: "/dir".into(),
        }
    }

    pub(crate) fn host() -> Host {
        Host {
            bounding: caps::all(),
            hard_limits: vec![("RLIMIT_NOFILE", 20_000)],
            oom_score_adj: 0,
            cgroup_v2: false,
            seccomp: true,
        }
    }

    fn render_with(spec: ContainerSpec) -> (Value, Vec<String>) {
        let r = render(&request(spec), &host(), &Settled::default(), false).unwrap();
        let _: oci_spec::runtime::Spec = serde_json::from_value(r.config.clone()).unwrap();
        (r.config, r.warnings)
    }

    fn kinds(config: &Value) -> Vec<String> {
        config["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n["type"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_default_container() {
        let spec = ContainerSpec {
            command: vec!["true".into()],
            hostname: "h".into(),
            ..ContainerSpec::default()
        };
        let (c, warnings) = render_with(spec);
        assert!(warnings.is_empty());
        assert_eq!(kinds(&c), ["mount", "network", "pid", "ipc", "uts"]);
        assert_eq!(c["hostname"], "h");
        assert_eq!(c["linux"]["maskedPaths"].as_array().unwrap().len(), MASKED.len());
        assert!(c["linux"]["seccomp"]["syscalls"].is_array());
        assert_eq!(c["process"]["cwd"], "/");
    }

    #[test]
    fn a_privileged_container_sees_everything() {
        let mut spec = ContainerSpec {
            command: vec!["true".into()],
            ..ContainerSpec::default()
        };
        spec.security.privileged = true;
        let (c, _) = render_with(spec);
        assert_eq!(c["linux"]["maskedPaths"], json!([]));
        assert_eq!(c["linux"]["readonlyPaths"], json!([]));
        assert!(c["linux"].get("seccomp").is_none());
        assert_eq!(
            c["process"]["capabilities"]["bounding"].as_array().unwrap().len(),
            41
        );
    }

    #[test]
    fn namespaces_of_host_and_of_others() {
        let mut spec = ContainerSpec {
            command: vec!["true".into()],
            ..ContainerSpec::default()
        };
        spec.security.pid = NamespaceMode::Container("other".into());
        spec.security.uts = NamespaceMode::Host;
        spec.security.cgroupns = NamespaceMode::Private;
        let settled = Settled {
            peers: vec![("other".into(), 42)],
            ..Settled::default()
        };
        let c = render(&request(spec.clone()), &host(), &settled, true)
            .unwrap()
            .config;
        assert_eq!(kinds(&c), ["mount", "network", "pid", "ipc", "cgroup"]);
        assert_eq!(c["linux"]["namespaces"][2]["path"], "/proc/42/ns/pid");
        assert!(c.get("hostname").is_none());
        let e = render(&request(spec), &host(), &Settled::default(), true).unwrap_err();
        assert!(e.message.contains("not running"));
    }
}
