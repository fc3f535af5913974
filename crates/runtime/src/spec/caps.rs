//! Capabilities: the kernel's names and numbers, Docker's default set, and what `--cap-add` and `--cap-drop`
//! make of it.

use tripod_model::{Error, Result};

/// Names in the order of the kernel's numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container gets that asks for nothing (Docker Engine's documented default).
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, a bit for each number.
pub(crate) type Set = u64;

/// The number of a capability, with or without `CAP_`, in any case.
pub(crate) fn bit(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == short).map(|n| n as u32)
}

/// All capabilities with a name.
pub(crate) fn all() -> Set {
    (1 << NAMES.len()) - 1
}

fn one(name: &str) -> Result<Set> {
    bit(name).map(|b| 1 << b).ok_or_else(|| {
        Error::invalid(format!(
            "invalid capability: unknown capability: \"CAP_{}\"",
            name.to_ascii_uppercase().trim_start_matches("CAP_")
        ))
    })
}

/// What a container gets, before it is limited to what the daemon itself has.
pub(crate) fn effective(privileged: bool, add: &[String], drop: &[String]) -> Result<Set> {
    let is_all = |n: &String| n.eq_ignore_ascii_case("ALL") || n.eq_ignore_ascii_case("CAP_ALL");
    let sum = |names: &[String]| -> Result<Set> {
        names
            .iter()
            .filter(|n| !is_all(n))
            .map(|n| one(n))
            .try_fold(0, |m, b| Ok(m | b?))
    };
    let (added, dropped) = (sum(add)?, sum(drop)?);
    if privileged {
        return Ok(all());
    }
    let base = if add.iter().any(is_all) {
        all()
    } else if drop.iter().any(is_all) {
        0
    } else {
        DEFAULT.iter().filter_map(|n| bit(n)).fold(0, |m, b| m | 1 << b)
    };
    let dropped = if add.iter().any(is_all) && drop.iter().any(is_all) {
        all()
    } else {
        dropped
    };
    Ok(base & !dropped | added)
}

/// `CAP_…` names of a set, in the kernel's order.
pub(crate) fn names(set: Set) -> Vec<String> {
    NAMES
        .iter()
        .enumerate()
        .filter(|(i, _)| set & 1 << i != 0)
        .map(|(_, n)| format!("CAP_{n}"))
        .collect()
}

/// What this process may hand out: its bounding set.
pub(crate) fn bounding() -> Set {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:"))
        .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
        .unwrap_or_else(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_set_is_dockers() {
        // The mask that every Docker container shows in /proc/self/status.
        assert_eq!(effective(false, &[], &[]).unwrap(), 0xa804_25fb);
    }

    #[test]
    fn add_and_drop() {
        let set = |a: &[&str], d: &[&str]| effective(false, &s(a), &s(d)).unwrap();
        assert_eq!(names(set(&[], &["ALL"])), Vec::<String>::new());
        assert_eq!(names(set(&["net_admin"], &["ALL"])), ["CAP_NET_ADMIN"]);
        assert_eq!(set(&["ALL"], &[]), all());
        assert_eq!(set(&["ALL"], &["CAP_SYS_ADMIN"]), all() & !(1 << 21));
        assert_eq!(set(&[], &["MKNOD"]), 0xa804_25fb & !(1 << 27));
        assert_eq!(effective(true, &[], &s(&["ALL"])).unwrap(), all());
    }

    #[test]
    fn unknown_names_are_refused() {
        let e = effective(false, &s(&["NOPE"]), &[]).unwrap_err();
        assert_eq!(e.message, "invalid capability: unknown capability: \"CAP_NOPE\"");
    }
}
