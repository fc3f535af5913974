//! Capabilities, security options and namespaces.

use tripod_model::container::{NamespaceMode, Security};
use tripod_model::{Error, Result};

use crate::wire::host_config::HostConfig;

/// Names that the kernel knows, without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

fn invalid(text: impl std::fmt::Display, field: &str) -> Error {
    Error::invalid(text).at(format!("HostConfig.{field}"))
}

/// The security of a request, checked.
pub(crate) fn security(h: &HostConfig) -> Result<Security> {
    let mut s = Security {
        privileged: h.privileged,
        cap_add: capabilities(&h.cap_add, "CapAdd")?,
        cap_drop: capabilities(&h.cap_drop, "CapDrop")?,
        read_only_rootfs: h.readonly_rootfs,
        options: h.security_opt.clone(),
        masked_paths: h.masked_paths.clone(),
        readonly_paths: h.readonly_paths.clone(),
        sysctls: h.sysctls.clone(),
        oom_score_adj: h.oom_score_adj,
        pid: namespace(&h.pid_mode, &["", "host", "container"], "pid mode", "PidMode")?,
        ipc: namespace(
            &h.ipc_mode,
            &["", "none", "private", "shareable", "host", "container"],
            "IPC mode",
            "IpcMode",
        )?,
        uts: namespace(&h.uts_mode, &["", "host"], "UTS mode", "UTSMode")?,
        cgroupns: namespace(
            &h.cgroupns_mode,
            &["", "private", "host"],
            "cgroup namespace mode",
            "CgroupnsMode",
        )?,
        userns: namespace(&h.userns_mode, &["", "host"], "user namespace mode", "UsernsMode")?,
        shm_size: h.shm_size,
        ..Security::default()
    };
    options(&h.security_opt, &mut s)?;
    if !(-1000..=1000).contains(&h.oom_score_adj) {
        let text = format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            h.oom_score_adj
        );
        return Err(invalid(text, "OomScoreAdj"));
    }
    if h.shm_size < 0 {
        return Err(invalid("SHM size can not be less than 0", "ShmSize"));
    }
    if h.readonly_rootfs && h.privileged {
        // Allowed: the root stays read-only also for a privileged process.
        s.read_only_rootfs = true;
    }
    if !h.isolation.is_empty() && h.isolation != "default" {
        return Err(invalid(
            format_args!("invalid isolation '{}' for the platform linux", h.isolation),
            "Isolation",
        ));
    }
    Ok(s)
}

fn capabilities(list: &[String], field: &str) -> Result<Vec<String>> {
    let one = |text: &String| {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" || CAPABILITIES.contains(&name) {
            return Ok(if name == "ALL" {
                "ALL".to_owned()
            } else {
                format!("CAP_{name}")
            });
        }
        Err(invalid(
            format_args!("invalid {field}: unknown capability: \"CAP_{name}\""),
            field,
        ))
    };
    list.iter().map(one).collect()
}

fn namespace(text: &str, allowed: &[&str], what: &str, field: &str) -> Result<NamespaceMode> {
    let bad = || invalid(format_args!("invalid {what}: {text}"), field);
    let (word, of) = text.split_once(':').map_or((text, None), |(w, of)| (w, Some(of)));
    if !allowed.contains(&word) {
        return Err(bad());
    }
    match (word, of) {
        ("container", Some(of)) if !of.is_empty() => Ok(NamespaceMode::Container(of.to_owned())),
        ("", None) => Ok(NamespaceMode::Default),
        ("host", None) => Ok(NamespaceMode::Host),
        ("none", None) => Ok(NamespaceMode::None),
        ("private", None) => Ok(NamespaceMode::Private),
        ("shareable", None) => Ok(NamespaceMode::Shareable),
        _ => Err(bad()),
    }
}

/// A namespace's mode in the words of the API.
pub(crate) fn show_namespace(mode: &NamespaceMode, default: &str) -> String {
    match mode {
        NamespaceMode::Default => default.to_owned(),
        NamespaceMode::Private => "private".into(),
        NamespaceMode::Shareable => "shareable".into(),
        NamespaceMode::None => "none".into(),
        NamespaceMode::Host => "host".into(),
        NamespaceMode::Container(id) => format!("container:{id}"),
        // A pod's: the API has no word for it.
        NamespaceMode::Path(_) => "private".into(),
    }
}

fn options(list: &[String], s: &mut Security) -> Result<()> {
    for option in list {
        let bad = || {
            invalid(
                format_args!("invalid --security-opt 2: \"{option}\""),
                "SecurityOpt",
            )
        };
        match option.split_once('=').or_else(|| option.split_once(':')) {
            None if option == "no-new-privileges" => s.no_new_privileges = true,
            None if option == "disable" => {}
            None => {
                return Err(invalid(
                    format_args!("invalid --security-opt 1: \"{option}\""),
                    "SecurityOpt",
                ));
            }
            // There is no SELinux here: labels change nothing, as with a daemon that runs without it.
            Some(("label", _)) => {}
            Some(("apparmor", profile)) => s.apparmor = Some(profile.to_owned()),
            Some(("seccomp", profile)) => s.seccomp = seccomp(profile)?,
            Some(("no-new-privileges", v)) => s.no_new_privileges = parse_bool(v).ok_or_else(bad)?,
            Some(("systempaths", "unconfined")) => {
                s.masked_paths = Some(Vec::new());
                s.readonly_paths = Some(Vec::new());
            }
            Some(("writable-cgroups", v)) => drop(parse_bool(v).ok_or_else(bad)?),
            _ => return Err(bad()),
        }
    }
    Ok(())
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `unconfined`, `builtin`, or a profile as JSON (the client sends the file's contents).
fn seccomp(profile: &str) -> Result<Option<String>> {
    match profile {
        "builtin" | "" => Ok(None),
        "unconfined" => Ok(Some("unconfined".into())),
        json => match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json) {
            Ok(map) if map.contains_key("defaultAction") => Ok(Some(json.to_owned())),
            Ok(_) => Err(invalid(
                "Decoding seccomp profile failed: no defaultAction",
                "SecurityOpt",
            )),
            Err(e) => Err(invalid(
                format_args!("Decoding seccomp profile failed: {e}"),
                "SecurityOpt",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Security> {
        security(&crate::decode::decode::<HostConfig>(json.as_bytes()).unwrap())
    }

    #[test]
    fn options_and_capabilities() {
        let s = of(r#"{"CapAdd":["net_admin","CAP_SYS_TIME","all"],"SecurityOpt":["no-new-privileges","seccomp=unconfined",
            "apparmor:x","label=disable"],"PidMode":"host","IpcMode":"container:abc"}"#)
        .unwrap();
        assert_eq!(s.cap_add, ["CAP_NET_ADMIN", "CAP_SYS_TIME", "ALL"]);
        assert!(s.no_new_privileges);
        assert_eq!(s.seccomp.as_deref(), Some("unconfined"));
        assert_eq!(s.apparmor.as_deref(), Some("x"));
        assert_eq!(
            (s.pid, s.ipc),
            (NamespaceMode::Host, NamespaceMode::Container("abc".into()))
        );
    }

    #[test]
    fn what_is_refused() {
        for (json, text) in [
            (r#"{"CapAdd":["FLY"]}"#, "unknown capability: \"CAP_FLY\""),
            (r#"{"SecurityOpt":["what"]}"#, "invalid --security-opt 1"),
            (r#"{"SecurityOpt":["what=x"]}"#, "invalid --security-opt 2"),
            (
                r#"{"SecurityOpt":["seccomp={"]}"#,
                "Decoding seccomp profile failed",
            ),
            (
                r#"{"SecurityOpt":["no-new-privileges=maybe"]}"#,
                "invalid --security-opt 2",
            ),
            (r#"{"PidMode":"own"}"#, "invalid pid mode: own"),
            (r#"{"IpcMode":"container:"}"#, "invalid IPC mode"),
            (r#"{"UTSMode":"private"}"#, "invalid UTS mode"),
            (r#"{"OomScoreAdj":5000}"#, "range for oom score adj"),
            (r#"{"ShmSize":-1}"#, "SHM size can not be less than 0"),
            (r#"{"Isolation":"hyperv"}"#, "invalid isolation"),
        ] {
            let e = of(json).unwrap_err();
            assert!(e.message.contains(text), "{json}: {e}");
        }
    }
}
