//! From a container of a pod to the neutral description that the node runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tripod_model::container::{
    ContainerSpec, HealthCheck, Mount, MountKind, NamespaceMode, NetworkAttachment, PortSpec, Resources,
    Security,
};
use tripod_model::image::Image;
use tripod_model::k8s_openapi::api::core::v1::{Container, SeccompProfile, SecurityContext};
use tripod_model::{Error, Result};

use super::desc::{Desc, PodDesc, Role};
use super::env;
use super::inputs::Inputs;
use super::place::Place;
use super::quantity::{milli, units};
use super::resources;
use super::volumes::beneath;
use crate::ports::SANDBOX_MODE;

/// Where profiles named by `localhostProfile` are, as for every kubelet.
const SECCOMP_PROFILES: &str = "/var/lib/kubelet/seccomp";

/// The least limit of processor time, in thousand-millionths of a processor.
pub(super) const LEAST_CPU: i64 = 10_000_000;

/// What a container's description is made from.
pub(super) struct Sources<'a> {
    pub desc: &'a PodDesc,
    pub c: &'a Desc,
    pub image: &'a Image,
    pub inputs: &'a Inputs,
    pub place: &'a Place,
    /// Where the files of images are that it mounts, by name of the volume.
    pub image_volumes: &'a BTreeMap<String, PathBuf>,
    /// File for the termination message, on the host.
    pub message: &'a Path,
    /// Containers of the pod that run, by name.
    pub running: &'a BTreeMap<String, String>,
    /// Memory of the node, in bytes.
    pub node_memory: i64,
}

/// Describes a container.
///
/// # Errors
/// What the kubelet calls a CreateContainerConfigError.
pub(super) fn describe(s: &Sources<'_>) -> Result<ContainerSpec> {
    let (desc, c) = (s.desc, s.c);
    let k = &c.container;
    let variables = env::environment(desc, k, s.inputs, &s.place.addresses)?;
    let known: BTreeMap<&str, &str> = variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let expand = |text: &String| env::expand(text, |n| known.get(n).map(|v| (*v).to_owned()));
    check_root(desc, k, s.image)?;
    let mut spec = ContainerSpec {
        image: k.image.clone().unwrap_or_default(),
        entrypoint: k.command.iter().flatten().map(expand).collect(),
        command: k.args.iter().flatten().map(expand).collect(),
        env: variables.iter().map(|(n, v)| format!("{n}={v}")).collect(),
        working_dir: k.working_dir.clone().unwrap_or_default(),
        user: user(desc, c, s.image),
        group_add: groups(desc),
        hostname: s.place.hostname.clone(),
        labels: labels(desc, c),
        tty: k.tty.unwrap_or(false),
        open_stdin: k.stdin.unwrap_or(false),
        stdin_once: k.stdin_once.unwrap_or(false),
        exposed_ports: exposed(k),
        stop_signal: stop_signal(c),
        // An image's own check is not Kubernetes' business.
        healthcheck: Some(c.ext.health_check.clone().unwrap_or(HealthCheck {
            test: vec!["NONE".into()],
            ..HealthCheck::default()
        })),
        mounts: mounts(s, &expand)?,
        resources: limits(desc, c),
        security: security(s)?,
        log: c.ext.log.clone().unwrap_or_default(),
        init: c.ext.init,
        network: NetworkAttachment {
            mode: match desc.host_network() {
                true => "host".into(),
                false => format!("{SANDBOX_MODE}{}", s.place.sandbox),
            },
            ..NetworkAttachment::default()
        },
        runtime: runtime(desc, s.inputs)?,
        ..ContainerSpec::default()
    };
    spec.resources.ulimits.clone_from(&c.ext.ulimits);
    spec.resources.devices.clone_from(&c.ext.devices);
    Ok(spec)
}

fn runtime(desc: &PodDesc, inputs: &Inputs) -> Result<String> {
    match desc.spec.runtime_class_name.as_deref().filter(|c| !c.is_empty()) {
        None => Ok(String::new()),
        Some(class) => inputs
            .handler(class)
            .ok_or_else(|| Error::not_found(format_args!("RuntimeClass \"{class}\" not found"))),
    }
}

fn stop_signal(c: &Desc) -> String {
    match (c.ext.stop_signal.is_empty(), &c.container.lifecycle) {
        (false, _) => c.ext.stop_signal.clone(),
        (true, Some(l)) => l.stop_signal.clone().unwrap_or_default(),
        (true, None) => String::new(),
    }
}

fn labels(desc: &PodDesc, c: &Desc) -> BTreeMap<String, String> {
    let mut labels = c.ext.labels.clone();
    for (key, value) in [
        ("io.kubernetes.container.name", c.name()),
        ("io.kubernetes.pod.name", desc.name()),
        ("io.kubernetes.pod.namespace", desc.namespace()),
        ("io.kubernetes.pod.uid", desc.uid()),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

fn exposed(k: &Container) -> Vec<PortSpec> {
    let ports = k.ports.iter().flatten();
    ports
        .filter_map(|p| {
            Some(PortSpec {
                port: u16::try_from(p.container_port).ok()?,
                protocol: p.protocol.as_deref().unwrap_or("TCP").parse().ok()?,
            })
        })
        .collect()
}

fn context(k: &Container) -> SecurityContext {
    k.security_context.clone().unwrap_or_default()
}

/// `uid[:gid]` of the security contexts; what they leave open is the image's.
fn user(desc: &PodDesc, c: &Desc, image: &Image) -> String {
    if !c.ext.user.is_empty() {
        return c.ext.user.clone();
    }
    let own = context(&c.container);
    let of_pod = desc.spec.security_context.clone().unwrap_or_default();
    let uid = own.run_as_user.or(of_pod.run_as_user);
    match (uid, own.run_as_group.or(of_pod.run_as_group)) {
        (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
        (Some(uid), None) => uid.to_string(),
        (None, Some(gid)) => {
            let name = image.config.user.split(':').next().unwrap_or_default();
            format!("{}:{gid}", if name.is_empty() { "0" } else { name })
        }
        (None, None) => String::new(),
    }
}

fn groups(desc: &PodDesc) -> Vec<String> {
    let Some(context) = &desc.spec.security_context else {
        return Vec::new();
    };
    let more = context.supplemental_groups.iter().flatten();
    more.chain(&context.fs_group).map(ToString::to_string).collect()
}

/// `runAsNonRoot`.
fn check_root(desc: &PodDesc, k: &Container, image: &Image) -> Result<()> {
    let own = context(k);
    let of_pod = desc.spec.security_context.clone().unwrap_or_default();
    if !own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false) {
        return Ok(());
    }
    let whose = format!(
        "(pod: \"{}_{}({})\", container: {})",
        desc.name(),
        desc.namespace(),
        desc.uid(),
        k.name
    );
    if let Some(uid) = own.run_as_user.or(of_pod.run_as_user) {
        return match uid {
            0 => Err(Error::invalid(format_args!(
                "container's runAsUser breaks non-root policy {whose}"
            ))),
            _ => Ok(()),
        };
    }
    let name = image.config.user.split(':').next().unwrap_or_default();
    match name.parse::<i64>() {
        Ok(uid) if uid != 0 => Ok(()),
        Err(_) if !name.is_empty() && name != "root" => Err(Error::invalid(format_args!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {whose}"
        ))),
        _ => Err(Error::invalid(format_args!(
            "container has runAsNonRoot and image will run as root {whose}"
        ))),
    }
}

fn limits(desc: &PodDesc, c: &Desc) -> Resources {
    let k = &c.container;
    let ext = &c.ext;
    let listed = |limits: bool, name: &str| {
        let r = k.resources.as_ref()?;
        if limits {
            r.limits.as_ref()
        } else {
            r.requests.as_ref()
        }?
        .get(name)
    };
    let limit = listed(true, "cpu").and_then(milli);
    let request = listed(false, "cpu").and_then(milli).or(limit).unwrap_or(0);
    let memory = listed(true, "memory").and_then(units).unwrap_or(0);
    let shares = i64::try_from(request * 1024 / 1000).unwrap_or(i64::MAX);
    Resources {
        memory,
        // No swap, where the container's own options do not ask for it.
        memory_swap: if ext.memory_swap == 0 {
            memory
        } else {
            ext.memory_swap
        },
        memory_swappiness: ext.memory_swappiness,
        memory_reservation: ext.memory_reservation,
        // The kernel knows no quota below a hundredth of a processor.
        nano_cpus: limit
            .and_then(|m| i64::try_from(m * 1_000_000).ok())
            .map_or(0, |n| if n > 0 { n.max(LEAST_CPU) } else { 0 }),
        cpu_shares: if ext.cpu_shares > 0 {
            ext.cpu_shares
        } else {
            shares.clamp(2, 262_144)
        },
        cgroup_parent: resources::cgroup(desc),
        ..Resources::default()
    }
}

/// The limits of a container anew, for a resize in place; what is no limit of core/v1 stays.
pub(super) fn resized(desc: &PodDesc, c: &Desc, before: &Resources) -> Resources {
    Resources {
        // A pod's class never changes, and with it the place of its cgroup.
        cgroup_parent: before.cgroup_parent.clone(),
        ulimits: before.ulimits.clone(),
        devices: before.devices.clone(),
        ..limits(desc, c)
    }
}

fn security(s: &Sources<'_>) -> Result<Security> {
    let (desc, k) = (s.desc, &s.c.container);
    let own = context(k);
    let of_pod = desc.spec.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let caps = own.capabilities.unwrap_or_default();
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let profile = own.seccomp_profile.or(of_pod.seccomp_profile);
    let private = !desc.host_network();
    let host_ipc = desc.spec.host_ipc.unwrap_or(false);
    Ok(Security {
        privileged,
        cap_add: caps.add.unwrap_or_default(),
        cap_drop: caps.drop.unwrap_or_default(),
        read_only_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        seccomp: if privileged {
            Some("unconfined".into())
        } else {
            seccomp(profile.as_ref())?
        },
        masked_paths: unmasked.then(Vec::new),
        readonly_paths: unmasked.then(Vec::new),
        sysctls: of_pod
            .sysctls
            .into_iter()
            .flatten()
            .filter(|c| private || !c.name.starts_with("net."))
            .map(|c| (c.name, c.value))
            .collect(),
        oom_score_adj: resources::oom_score(desc, k, s.node_memory),
        pid: processes(s),
        ipc: match (host_ipc, &s.place.namespaces) {
            (true, _) => NamespaceMode::Host,
            (false, Some(dir)) => NamespaceMode::Path(dir.join("ipc")),
            (false, None) => NamespaceMode::Private,
        },
        uts: match (private, &s.place.namespaces) {
            (false, _) => NamespaceMode::Host,
            (true, Some(dir)) => NamespaceMode::Path(dir.join("uts")),
            (true, None) => NamespaceMode::Private,
        },
        shm_size: s.c.ext.shm_size,
        ..Security::default()
    })
}

/// Whose processes a container sees.
fn processes(s: &Sources<'_>) -> NamespaceMode {
    let spec = &s.desc.spec;
    if spec.host_pid.unwrap_or(false) {
        return NamespaceMode::Host;
    }
    if spec.share_process_namespace.unwrap_or(false)
        && let Some(dir) = &s.place.namespaces
    {
        return NamespaceMode::Path(dir.join("pid"));
    }
    let target = s.c.target.as_ref().and_then(|t| s.running.get(t));
    match target {
        Some(id) => NamespaceMode::Container(id.clone()),
        None => NamespaceMode::Private,
    }
}

/// `None` is the built-in profile. Without a wish there is none, as the API says.
fn seccomp(profile: Option<&SeccompProfile>) -> Result<Option<String>> {
    let Some(profile) = profile else {
        return Ok(Some("unconfined".into()));
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(None),
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            let path = Path::new(SECCOMP_PROFILES).join(name.trim_start_matches('/'));
            let text = std::fs::read_to_string(&path).map_err(|e| {
                Error::invalid(format_args!(
                    "cannot load seccomp profile \"{}\": {e}",
                    path.display()
                ))
            })?;
            Ok(Some(text))
        }
        _ => Ok(Some("unconfined".into())),
    }
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        kind: MountKind::Bind,
        source: source.to_string_lossy().into_owned(),
        target: target.to_owned(),
        read_only,
        ..Mount::default()
    }
}

fn mounts(s: &Sources<'_>, expand: &dyn Fn(&String) -> String) -> Result<Vec<Mount>> {
    let k = &s.c.container;
    let volumes = &s.place.volumes;
    let mut all: Vec<Mount> = Vec::new();
    for m in k.volume_mounts.iter().flatten() {
        let image = s.image_volumes.get(&m.name);
        let root = volumes.paths.get(&m.name).or(image).ok_or_else(|| {
            Error::invalid(format_args!(
                "cannot find volume \"{}\" to mount into container \"{}\"",
                m.name, k.name
            ))
        })?;
        let sub = match (&m.sub_path_expr, &m.sub_path) {
            (Some(expr), _) if !expr.is_empty() => {
                let sub = expand(expr);
                if sub.contains("$(") {
                    return Err(Error::invalid(format_args!(
                        "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": missing value for {sub}",
                        m.name, k.name
                    )));
                }
                sub
            }
            (_, Some(sub)) => sub.clone(),
            _ => String::new(),
        };
        let source = beneath(root, &sub)?;
        let target = match m.mount_path.starts_with('/') {
            true => m.mount_path.clone(),
            false => format!("/{}", m.mount_path),
        };
        let read_only =
            m.read_only.unwrap_or(false) || image.is_some() || volumes.read_only.contains(&m.name);
        all.push(Mount {
            propagation: match m.mount_propagation.as_deref() {
                Some("HostToContainer") => "rslave".into(),
                Some("Bidirectional") => "rshared".into(),
                _ => String::new(),
            },
            ..bind(&source, &target, read_only)
        });
    }
    for m in &s.c.ext.mounts {
        all.push(m.clone());
    }
    let taken: Vec<String> = all.iter().map(|m| crate::merge::clean(&m.target)).collect();
    let mut own = |source: &Path, target: &str| {
        if !taken.iter().any(|t| t == target) {
            all.push(bind(source, target, false));
        }
    };
    own(&s.place.etc.join("hosts"), "/etc/hosts");
    own(&s.place.etc.join("resolv.conf"), "/etc/resolv.conf");
    own(&s.place.etc.join("hostname"), "/etc/hostname");
    if let Some(shm) = s.place.shm.as_ref().filter(|_| s.c.ext.shm_size == 0) {
        own(shm, "/dev/shm");
    }
    let path = k
        .termination_message_path
        .as_deref()
        .unwrap_or("/dev/termination-log");
    if !path.is_empty() && s.c.role != Role::Ephemeral {
        own(s.message, &crate::merge::clean(path));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::desc::tests::pod;
    use super::*;

    fn image(user: &str) -> Image {
        let mut image = Image::default();
        image.config.user = user.into();
        image
    }

    #[test]
    fn users_come_from_the_nearest_context() {
        let of = |pod_context: serde_json::Value, own: serde_json::Value, of_image: &str| {
            let desc = pod(
                json!({"securityContext": pod_context, "containers": [{"name": "a", "securityContext": own}]}),
                json!({}),
            );
            user(&desc, &desc.containers[0], &image(of_image))
        };
        for (pod_context, own, of_image, want) in [
            (json!({}), json!({}), "7", ""),
            (json!({"runAsUser": 5}), json!({}), "7", "5"),
            (
                json!({"runAsUser": 5, "runAsGroup": 6}),
                json!({"runAsUser": 8}),
                "",
                "8:6",
            ),
            (json!({}), json!({"runAsGroup": 6}), "web:www", "web:6"),
            (json!({}), json!({"runAsGroup": 6}), "", "0:6"),
        ] {
            assert_eq!(of(pod_context, own, of_image), want);
        }
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let check = |own: serde_json::Value, of_image: &str| {
            let desc = pod(
                json!({"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a", "securityContext": own}]}),
                json!({}),
            );
            check_root(&desc, &desc.containers[0].container, &image(of_image))
                .err()
                .map(|e| e.message)
        };
        let starts = |text: Option<String>, with: &str| assert!(text.unwrap().starts_with(with));
        starts(
            check(json!({}), ""),
            "container has runAsNonRoot and image will run as root",
        );
        starts(
            check(json!({}), "web"),
            "container has runAsNonRoot and image has non-numeric user (web)",
        );
        starts(
            check(json!({"runAsUser": 0}), "5"),
            "container's runAsUser breaks non-root policy",
        );
        assert_eq!(check(json!({}), "5"), None);
        assert_eq!(check(json!({"runAsUser": 1}), ""), None);
        assert_eq!(check(json!({"runAsNonRoot": false}), ""), None);
    }
}
