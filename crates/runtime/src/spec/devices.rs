//! Devices of a container and the rules of its device cgroup.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};
use tripod_model::container::ContainerSpec;
use tripod_model::{Error, Result};

/// What every container may use (moby's default): make any node; null, zero, full, random, urandom, tty, console,
/// ptmx and terminals.
const DEFAULT_RULES: [&str; 9] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:* rwm",
    "c 136:* rwm",
];

/// Nodes to be made and rules to be set.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Devices {
    /// Nodes, as the OCI spec has them.
    pub(crate) nodes: Vec<Value>,
    /// Rules of the device cgroup, all of which allow.
    pub(crate) rules: Vec<String>,
}

/// Looks the wanted devices up on this machine.
pub(crate) fn resolve(spec: &ContainerSpec) -> Result<Devices> {
    let mut all = Devices::default();
    if spec.security.privileged {
        add(&mut all, Path::new("/dev"), Path::new("/dev"), "rwm", true)?;
        all.rules = vec!["a *:* rwm".into()];
        return Ok(all);
    }
    all.rules = DEFAULT_RULES.iter().map(ToString::to_string).collect();
    for d in &spec.resources.devices {
        let access = if d.permissions.is_empty() {
            "rwm"
        } else {
            &d.permissions
        };
        if !access.chars().all(|c| "rwm".contains(c)) {
            return Err(Error::invalid(format!("invalid device mode: {access}")).at("HostConfig.Devices"));
        }
        let target = if d.container_path.is_empty() {
            &d.host_path
        } else {
            &d.container_path
        };
        add(
            &mut all,
            Path::new(&d.host_path),
            Path::new(target),
            access,
            false,
        )?;
    }
    for r in &spec.resources.device_cgroup_rules {
        all.rules.push(checked(r)?);
    }
    Ok(all)
}

fn add(all: &mut Devices, host: &Path, target: &Path, access: &str, lenient: bool) -> Result<()> {
    let meta = match std::fs::metadata(host) {
        Ok(m) => m,
        Err(_) if lenient => return Ok(()),
        Err(e) => {
            let why = if e.kind() == std::io::ErrorKind::NotFound {
                "no such file or directory".into()
            } else {
                e.to_string()
            };
            return Err(Error::invalid(format!(
                "error gathering device information while adding custom device {:?}: {why}",
                host.display().to_string()
            )));
        }
    };
    let kind = meta.file_type();
    if kind.is_dir() {
        // These hold other things than the machine's devices.
        let own = [
            "pts",
            "shm",
            "fd",
            "mqueue",
            "console",
            ".lxc",
            ".lxd-mounts",
            ".udev",
        ];
        for e in std::fs::read_dir(host)?.flatten() {
            let (name, is_link) = (e.file_name(), e.file_type().is_ok_and(|t| t.is_symlink()));
            if !is_link && !own.iter().any(|o| name == *o) {
                add(all, &e.path(), &target.join(&name), access, true)?;
            }
        }
        return Ok(());
    }
    let letter = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => "c",
        (_, true) => "b",
        _ if lenient => return Ok(()),
        _ => {
            return Err(Error::invalid(format!(
                "error gathering device information while adding custom device {:?}: not a device node",
                host.display().to_string()
            )));
        }
    };
    let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
    all.nodes.push(json!({
        "path": target, "type": letter, "major": major, "minor": minor,
        "fileMode": meta.mode() & 0o777, "uid": meta.uid(), "gid": meta.gid(),
    }));
    all.rules.push(format!("{letter} {major}:{minor} {access}"));
    Ok(())
}

/// `--device-cgroup-rule`: `TYPE MAJOR:MINOR ACCESS`.
fn checked(rule: &str) -> Result<String> {
    let bad = || {
        Error::invalid(format!("invalid device cgroup rule format: '{rule}'"))
            .at("HostConfig.DeviceCgroupRules")
    };
    let fields: Vec<&str> = rule.split_whitespace().collect();
    let [kind, numbers, access] = fields[..] else {
        return Err(bad());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |n: &str| n == "*" || n.parse::<u32>().is_ok();
    let ok = matches!(kind, "a" | "b" | "c")
        && number(major)
        && number(minor)
        && !access.is_empty()
        && access.chars().all(|c| "rwm".contains(c));
    if ok {
        Ok(format!("{kind} {numbers} {access}"))
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tripod_model::container::Device;

    #[test]
    fn devices_and_rules() {
        let mut spec = ContainerSpec::default();
        spec.resources.devices.push(Device {
            host_path: "/dev/null".into(),
            container_path: "/dev/x".into(),
            permissions: "r".into(),
        });
        spec.resources.device_cgroup_rules.push("c 42:* rmw".into());
        let d = resolve(&spec).unwrap();
        assert_eq!(d.nodes[0]["path"], "/dev/x");
        assert_eq!(d.rules[d.rules.len() - 2..], ["c 1:3 r", "c 42:* rmw"]);
        spec.resources.devices[0].host_path = "/dev/nope".into();
        assert!(
            resolve(&spec)
                .unwrap_err()
                .message
                .contains("no such file or directory")
        );
        assert!(checked("x 1:2 r").is_err() && checked("c 1 r").is_err());
    }

    #[test]
    fn privileged_containers_get_all() {
        let mut spec = ContainerSpec::default();
        spec.security.privileged = true;
        let d = resolve(&spec).unwrap();
        assert_eq!(d.rules, ["a *:* rwm"]);
        assert!(d.nodes.iter().any(|n| n["path"] == "/dev/null"));
    }
}
