//! Pods that a node does not take.

use super::desc::PodDesc;
use super::status::Verdict;

/// Kernel parameters that belong to a pod's namespaces and harm nobody else.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why a pod is not run here.
pub(super) fn refusal(desc: &PodDesc) -> Option<Verdict> {
    // What ECS allows its tasks is its own matter.
    if desc.pod.extension.ecs.is_some() {
        return None;
    }
    let context = desc.spec.security_context.as_ref()?;
    let own = |name: &str| {
        let host_ipc = desc.spec.host_ipc.unwrap_or(false);
        SAFE.contains(&name)
            && !(name.starts_with("net.") && desc.host_network())
            && !(name.starts_with("kernel.") && host_ipc)
    };
    let mut names = context.sysctls.iter().flatten().map(|s| s.name.replace('/', "."));
    let bad = names.find(|name| !own(name))?;
    Some(Verdict {
        reason: "SysctlForbidden".into(),
        message: format!("Pod was rejected: forbidden sysctl: \"{bad}\" not allowlisted"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::desc::tests::pod;
    use super::*;

    #[test]
    fn kernel_parameters() {
        for (name, host_network, taken) in [
            ("kernel.shm_rmid_forced", false, true),
            ("net/ipv4/tcp_rmem", false, true),
            ("net.ipv4.tcp_rmem", true, false),
            ("kernel.msgmax", false, false),
            ("vm.swappiness", false, false),
        ] {
            let desc = pod(
                json!({"hostNetwork": host_network, "containers": [{"name": "a"}],
                       "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}),
                json!({}),
            );
            assert_eq!(refusal(&desc).is_none(), taken, "{name}");
        }
    }
}
