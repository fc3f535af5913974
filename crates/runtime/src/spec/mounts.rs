//! Mounts: Docker's own, then the user's.

use serde_json::{Value, json};
use tripod_agent::ports::{ResolvedMount, StartRequest};
use tripod_model::container::{ContainerSpec, NamespaceMode};
use tripod_model::{Error, Result};

use super::{Host, Settled, in_container};

/// Bytes of `/dev/shm` when nobody says otherwise.
pub(crate) const SHM_SIZE: i64 = 64 << 20;

pub(super) fn render(
    request: &StartRequest,
    host: &Host,
    settled: &Settled,
    namespaces: &Value,
    for_builtin: bool,
) -> Result<Vec<Value>> {
    let spec = &*request.spec;
    let privileged = spec.security.privileged;
    let cgroup_ro: &[&str] = if privileged {
        &["nosuid", "noexec", "nodev"]
    } else {
        &["nosuid", "noexec", "nodev", "ro"]
    };
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("/sys", "sysfs", "sysfs", cgroup_ro),
    ];
    all.extend(cgroups(spec, host, settled, cgroup_ro, for_builtin));
    let own_ipc = namespaces
        .as_array()
        .is_some_and(|n| n.iter().any(|n| n["type"] == "ipc"));
    if own_ipc {
        all.push(mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ));
    } else {
        all.push(bind("/dev/mqueue", "/dev/mqueue", &[]));
    }
    match (&spec.security.ipc, &settled.shm) {
        (NamespaceMode::None, _) => {}
        (NamespaceMode::Host, _) => all.push(bind("/dev/shm", "/dev/shm", &[])),
        (_, Some(path)) => all.push(bind(
            &path.to_string_lossy(),
            "/dev/shm",
            &["nosuid", "noexec", "nodev"],
        )),
        (_, None) => {
            let size = if spec.security.shm_size > 0 {
                spec.security.shm_size
            } else {
                SHM_SIZE
            };
            let size = format!("size={size}");
            all.push(mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &size],
            ));
        }
    }
    for m in &request.mounts {
        // What the user mounts at one of these places replaces the default there.
        let target = in_container(&m.target);
        all.retain(|d| d["destination"] != json!(target));
        all.push(user_mount(m)?);
    }
    for (source, target) in &settled.files {
        all.push(bind(
            &source.to_string_lossy(),
            target,
            &["ro", "nosuid", "nodev"],
        ));
    }
    Ok(all)
}

/// The container's view of its cgroups. For the hierarchies of version 1 the built-in runtime is told each directory.
/// Others find them by their own process's number, which means another process (or none) in the /proc of this machine
/// when the container joins the process namespace of another one: then they are told too.
fn cgroups(
    spec: &ContainerSpec,
    host: &Host,
    settled: &Settled,
    options: &[&str],
    for_builtin: bool,
) -> Vec<Value> {
    let joined = matches!(
        spec.security.pid,
        NamespaceMode::Container(_) | NamespaceMode::Path(_)
    );
    let named = for_builtin || joined;
    if !named || host.cgroup_v2 || settled.hierarchies.is_empty() {
        return vec![mount("/sys/fs/cgroup", "cgroup", "cgroup", options)];
    }
    let top = mount(
        "/sys/fs/cgroup",
        "tmpfs",
        "tmpfs",
        &[options, &["mode=755", "size=64k"]].concat(),
    );
    let each = settled
        .hierarchies
        .iter()
        .map(|(name, dir)| bind(&dir.to_string_lossy(), &format!("/sys/fs/cgroup/{name}"), options));
    std::iter::once(top).chain(each).collect()
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": kind, "source": source, "options": options})
}

fn bind(source: &str, target: &str, options: &[&str]) -> Value {
    let mut all = vec!["rbind", "rprivate"];
    all.extend(options);
    mount(&in_container(target).to_string_lossy(), "bind", source, &all)
}

fn user_mount(m: &ResolvedMount) -> Result<Value> {
    if m.target.split('/').any(|p| p == "..") || m.target.is_empty() {
        return Err(Error::invalid(format!("invalid mount path: {:?}", m.target)));
    }
    let target = in_container(&m.target);
    let mut options: Vec<String> = Vec::new();
    let Some(source) = &m.source else {
        options.extend(["noexec", "nosuid", "nodev"].map(str::to_owned));
        for o in &m.options {
            // `exec` takes `noexec` back, and so on.
            options.retain(|d| {
                d.strip_prefix("no") != Some(o.as_str()) && o.strip_prefix("no") != Some(d.as_str()) && d != o
            });
            options.push(o.clone());
        }
        if m.read_only {
            options.push("ro".into());
        }
        return Ok(json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}));
    };
    options.push(if m.non_recursive { "bind" } else { "rbind" }.into());
    options.push(if m.propagation.is_empty() {
        "rprivate".into()
    } else {
        m.propagation.clone()
    });
    if m.read_only {
        options.push("ro".into());
    }
    options.extend(m.options.iter().cloned());
    Ok(json!({"destination": target, "type": "bind", "source": source, "options": options}))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{host, request};
    use super::*;

    fn tmpfs(target: &str, options: &[&str]) -> ResolvedMount {
        ResolvedMount {
            source: None,
            target: target.into(),
            read_only: false,
            propagation: String::new(),
            non_recursive: false,
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_users_mounts_replace_defaults() {
        let mut r = request(ContainerSpec::default());
        r.mounts = vec![
            tmpfs("/dev/shm", &["exec", "size=1m"]),
            ResolvedMount {
                source: Some("/src".into()),
                read_only: true,
                propagation: "rslave".into(),
                ..tmpfs("data", &[])
            },
        ];
        let ns = json!([{"type": "ipc"}]);
        let all = render(&r, &host(), &Settled::default(), &ns, false).unwrap();
        let shm: Vec<_> = all.iter().filter(|m| m["destination"] == "/dev/shm").collect();
        assert_eq!(shm.len(), 1);
        assert_eq!(shm[0]["options"], json!(["nosuid", "nodev", "exec", "size=1m"]));
        let data = all.last().unwrap();
        assert_eq!(data["destination"], "/data");
        assert_eq!(data["options"], json!(["rbind", "rslave", "ro"]));
        assert!(user_mount(&tmpfs("/a/../b", &[])).is_err());
    }

    #[test]
    fn cgroups_are_named_where_process_numbers_are_anothers() {
        let mut spec = ContainerSpec::default();
        let settled = Settled {
            hierarchies: vec![("memory".into(), "/sys/fs/cgroup/memory/tripod/x".into())],
            ..Settled::default()
        };
        assert_eq!(cgroups(&spec, &host(), &settled, &["ro"], false).len(), 1);
        spec.security.pid = NamespaceMode::Container("other".into());
        let all = cgroups(&spec, &host(), &settled, &["ro"], false);
        assert_eq!(all[0]["type"], "tmpfs");
        assert_eq!(all[1]["destination"], "/sys/fs/cgroup/memory");
        assert_eq!(all[1]["options"], json!(["rbind", "rprivate", "ro"]));
    }

    #[test]
    fn ipc_modes_decide_shared_memory() {
        let shm = |mode, shm: Option<&str>| {
            let mut spec = ContainerSpec::default();
            spec.security.ipc = mode;
            let settled = Settled {
                shm: shm.map(Into::into),
                ..Settled::default()
            };
            let all = render(&request(spec), &host(), &settled, &json!([]), false).unwrap();
            all.iter()
                .find(|m| m["destination"] == "/dev/shm")
                .map(|m| m["source"].clone())
        };
        assert_eq!(shm(NamespaceMode::None, None), None);
        assert_eq!(shm(NamespaceMode::Host, None), Some(json!("/dev/shm")));
        assert_eq!(
            shm(NamespaceMode::Shareable, Some("/c/shm")),
            Some(json!("/c/shm"))
        );
        assert_eq!(shm(NamespaceMode::Default, None), Some(json!("shm")));
    }
}
