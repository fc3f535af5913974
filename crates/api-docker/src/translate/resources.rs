//! Limits.

use tripod_model::container::{Device, DeviceLimit, Resources, Ulimit};
use tripod_model::{Error, Result};

use crate::wire::host_config::{self as wire, HostConfig};

/// The limits of a request, checked.
pub(crate) fn resources(h: &HostConfig, warnings: &mut Vec<String>) -> Result<Resources> {
    if !h.device_requests.is_empty() {
        let e = "could not select device driver \"\" with capabilities: [[gpu]]";
        return Err(Error::internal(e).at("HostConfig.DeviceRequests"));
    }
    let mut r = Resources {
        memory: h.memory,
        memory_reservation: h.memory_reservation,
        memory_swap: h.memory_swap,
        memory_swappiness: h.memory_swappiness.filter(|s| *s != -1),
        kernel_memory_tcp: h.kernel_memory_tcp,
        nano_cpus: h.nano_cpus,
        cpu_shares: if h.cpu_shares == 0 {
            0
        } else {
            h.cpu_shares.clamp(2, 262_144)
        },
        cpu_period: h.cpu_period,
        cpu_quota: h.cpu_quota,
        cpu_realtime_period: h.cpu_realtime_period,
        cpu_realtime_runtime: h.cpu_realtime_runtime,
        cpuset_cpus: h.cpuset_cpus.clone(),
        cpuset_mems: h.cpuset_mems.clone(),
        pids_limit: h.pids_limit,
        blkio_weight: h.blkio_weight,
        blkio_weight_device: h
            .blkio_weight_device
            .iter()
            .map(|d| DeviceLimit {
                path: d.path.clone(),
                value: d.weight.into(),
            })
            .collect(),
        blkio_read_bps: throttles(&h.blkio_device_read_bps),
        blkio_write_bps: throttles(&h.blkio_device_write_bps),
        blkio_read_iops: throttles(&h.blkio_device_read_iops),
        blkio_write_iops: throttles(&h.blkio_device_write_iops),
        oom_kill_disable: h.oom_kill_disable.unwrap_or(false),
        ulimits: ulimits(&h.ulimits)?,
        devices: devices(&h.devices)?,
        device_cgroup_rules: h.device_cgroup_rules.clone(),
        cgroup_parent: h.cgroup_parent.clone(),
    };
    if h.cpu_shares < 0 {
        return Err(invalid("shares: invalid argument", "CpuShares"));
    }
    check(&r, false, warnings)?;
    if r.memory > 0 && r.memory_swap == 0 {
        r.memory_swap = r.memory.saturating_mul(2);
    }
    Ok(r)
}

fn throttles(list: &[wire::ThrottleDevice]) -> Vec<DeviceLimit> {
    list.iter()
        .map(|d| DeviceLimit {
            path: d.path.clone(),
            value: d.rate,
        })
        .collect()
}

fn invalid(text: impl std::fmt::Display, field: &str) -> Error {
    Error::invalid(text).at(format!("HostConfig.{field}"))
}

/// Six mebibytes: less is not enough to start a process in.
const MIN_MEMORY: i64 = 6 << 20;

/// The daemon's rules for limits; those of an update allow swap without memory.
pub(crate) fn check(r: &Resources, update: bool, warnings: &mut Vec<String>) -> Result<()> {
    memory(r, update)?;
    cpu(r)?;
    if r.blkio_weight > 0 && !(10..=1000).contains(&r.blkio_weight) {
        return Err(invalid("Range of blkio weight is from 10 to 1000", "BlkioWeight"));
    }
    for rule in &r.device_cgroup_rules {
        if !is_device_rule(rule) {
            return Err(invalid(
                format_args!("invalid device cgroup rule format: '{rule}'"),
                "DeviceCgroupRules",
            ));
        }
    }
    if r.oom_kill_disable && r.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running \
             out of resources."
                .into(),
        );
    }
    Ok(())
}

fn memory(r: &Resources, update: bool) -> Result<()> {
    if r.memory != 0 && r.memory < MIN_MEMORY {
        return Err(invalid("Minimum memory limit allowed is 6MB", "Memory"));
    }
    if r.memory > 0 && r.memory_swap > 0 && r.memory_swap < r.memory {
        return Err(invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
            "MemorySwap",
        ));
    }
    if r.memory == 0 && r.memory_swap > 0 && !update {
        return Err(invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
            "MemorySwap",
        ));
    }
    if let Some(s) = r.memory_swappiness.filter(|s| !(0..=100).contains(s)) {
        let text = format!("Invalid value: {s}, valid memory swappiness range is 0-100");
        return Err(invalid(text, "MemorySwappiness"));
    }
    if r.memory_reservation != 0 && r.memory_reservation < MIN_MEMORY {
        return Err(invalid(
            "Minimum memory reservation allowed is 6MB",
            "MemoryReservation",
        ));
    }
    if r.memory > 0 && r.memory < r.memory_reservation {
        let text = "Minimum memory limit can not be less than memory reservation limit, see usage";
        return Err(invalid(text, "MemoryReservation"));
    }
    Ok(())
}

fn cpu(r: &Resources) -> Result<()> {
    if r.nano_cpus > 0 && (r.cpu_period > 0 || r.cpu_quota > 0) {
        let which = if r.cpu_period > 0 {
            "CPU Period"
        } else {
            "CPU Quota"
        };
        let text = format!("Conflicting options: Nano CPUs and {which} cannot both be set");
        return Err(invalid(text, "NanoCpus"));
    }
    if r.nano_cpus != 0 {
        let cpus = tripod_agent::host::HostFacts::read_cpus();
        if r.nano_cpus < 0 || r.nano_cpus > i64::from(cpus) * 1_000_000_000 {
            let text =
                format!("range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available");
            return Err(invalid(text, "NanoCpus"));
        }
    }
    if r.cpu_period != 0 && !(1000..=1_000_000).contains(&r.cpu_period) {
        return Err(invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            "CpuPeriod",
        ));
    }
    if r.cpu_quota > 0 && r.cpu_quota < 1000 {
        return Err(invalid(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
            "CpuQuota",
        ));
    }
    for (text, field, dir, what) in [
        (
            &r.cpuset_cpus,
            "CpusetCpus",
            "/sys/devices/system/cpu/online",
            "CPUs",
        ),
        (
            &r.cpuset_mems,
            "CpusetMems",
            "/sys/devices/system/node/online",
            "memory nodes",
        ),
    ] {
        if text.is_empty() {
            continue;
        }
        let wanted = cpu_set(text).ok_or_else(|| {
            invalid(
                format_args!("Invalid value {text} for {}", field_words(field)),
                field,
            )
        })?;
        let there = std::fs::read_to_string(dir).ok();
        if let Some(there) = there.as_deref().map(str::trim)
            && let Some(have) = cpu_set(there)
            && !wanted.iter().all(|w| have.contains(w))
        {
            let text = format!("Requested {what} are not available - requested {text}, available: {there}");
            return Err(invalid(text, field));
        }
    }
    Ok(())
}

fn field_words(field: &str) -> &'static str {
    if field == "CpusetCpus" {
        "cpuset cpus"
    } else {
        "cpuset mems"
    }
}

/// `0-2,4` as numbers.
fn cpu_set(text: &str) -> Option<Vec<u32>> {
    let mut out = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        // No machine has more; a huge range would only waste memory.
        if first > last || last > 8192 {
            return None;
        }
        out.extend(first..=last);
    }
    Some(out)
}

/// `[acb] MAJOR:MINOR [rwm]`, numbers or `*`.
fn is_device_rule(rule: &str) -> bool {
    let number = |s: &str| s == "*" || (!s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()));
    let parts: Vec<&str> = rule.split(' ').collect();
    let [kind, numbers, access] = parts.as_slice() else {
        return false;
    };
    matches!(*kind, "a" | "b" | "c")
        && numbers
            .split_once(':')
            .is_some_and(|(major, minor)| number(major) && number(minor))
        && (1..=3).contains(&access.len())
        && access.bytes().all(|b| b"rwm".contains(&b))
}

const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn ulimits(list: &[wire::Ulimit]) -> Result<Vec<Ulimit>> {
    list.iter()
        .map(|u| {
            let name = u.name.to_ascii_lowercase();
            if !ULIMITS.contains(&name.as_str()) {
                return Err(invalid(
                    format_args!("invalid ulimit type: {}", u.name),
                    "Ulimits",
                ));
            }
            if u.hard != -1 && (u.soft > u.hard || u.soft == -1) {
                let text = format!(
                    "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                    u.soft, u.hard
                );
                return Err(invalid(text, "Ulimits"));
            }
            Ok(Ulimit {
                name,
                soft: u.soft,
                hard: u.hard,
            })
        })
        .collect()
}

fn devices(list: &[wire::DeviceMapping]) -> Result<Vec<Device>> {
    list.iter()
        .map(|d| {
            let permissions = if d.cgroup_permissions.is_empty() { "rwm" } else { &d.cgroup_permissions };
            if !permissions.bytes().all(|b| b"rwm".contains(&b)) {
                return Err(invalid(format_args!("invalid device mode: {permissions}"), "Devices"));
            }
            if !d.path_on_host.starts_with('/') {
                return Err(invalid(format_args!("{} is not an absolute path", d.path_on_host), "Devices"));
            }
            if !std::path::Path::new(&d.path_on_host).exists() {
                let text = format!(
                    "error gathering device information while adding custom device \"{}\": no such file or directory",
                    d.path_on_host
                );
                return Err(invalid(text, "Devices"));
            }
            let inside = if d.path_in_container.is_empty() { &d.path_on_host } else { &d.path_in_container };
            Ok(Device {
                host_path: d.path_on_host.clone(),
                container_path: inside.clone(),
                permissions: permissions.to_owned(),
            })
        })
        .collect()
}

/// The limits in the fields of `HostConfig`.
pub(crate) fn show(r: &Resources, h: &mut HostConfig) {
    let show_throttles = |list: &[DeviceLimit]| {
        list.iter()
            .map(|d| wire::ThrottleDevice {
                path: d.path.clone(),
                rate: d.value,
            })
            .collect()
    };
    h.memory = r.memory;
    h.memory_reservation = r.memory_reservation;
    h.memory_swap = r.memory_swap;
    h.memory_swappiness = r.memory_swappiness;
    h.kernel_memory_tcp = r.kernel_memory_tcp;
    h.nano_cpus = r.nano_cpus;
    h.cpu_shares = r.cpu_shares;
    h.cpu_period = r.cpu_period;
    h.cpu_quota = r.cpu_quota;
    h.cpu_realtime_period = r.cpu_realtime_period;
    h.cpu_realtime_runtime = r.cpu_realtime_runtime;
    h.cpuset_cpus.clone_from(&r.cpuset_cpus);
    h.cpuset_mems.clone_from(&r.cpuset_mems);
    h.pids_limit = r.pids_limit;
    h.blkio_weight = r.blkio_weight;
    h.blkio_weight_device = r
        .blkio_weight_device
        .iter()
        .map(|d| wire::WeightDevice {
            path: d.path.clone(),
            weight: d.value as u16,
        })
        .collect();
    h.blkio_device_read_bps = show_throttles(&r.blkio_read_bps);
    h.blkio_device_write_bps = show_throttles(&r.blkio_write_bps);
    h.blkio_device_read_iops = show_throttles(&r.blkio_read_iops);
    h.blkio_device_write_iops = show_throttles(&r.blkio_write_iops);
    h.oom_kill_disable = Some(r.oom_kill_disable);
    let ulimit = |u: &Ulimit| wire::Ulimit {
        name: u.name.clone(),
        hard: u.hard,
        soft: u.soft,
    };
    h.ulimits = r.ulimits.iter().map(ulimit).collect();
    let device = |d: &Device| wire::DeviceMapping {
        path_on_host: d.host_path.clone(),
        path_in_container: d.container_path.clone(),
        cgroup_permissions: d.permissions.clone(),
    };
    h.devices = r.devices.iter().map(device).collect();
    h.device_cgroup_rules.clone_from(&r.device_cgroup_rules);
    h.cgroup_parent.clone_from(&r.cgroup_parent);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Resources> {
        resources(
            &crate::decode::decode::<HostConfig>(json.as_bytes()).unwrap(),
            &mut Vec::new(),
        )
    }

    #[test]
    fn defaults_and_clamps() {
        let r = of(r#"{"Memory":67108864,"CpuShares":1,"MemorySwappiness":-1}"#).unwrap();
        assert_eq!(
            (r.memory_swap, r.cpu_shares, r.memory_swappiness),
            (128 << 20, 2, None)
        );
    }

    #[test]
    fn what_is_refused() {
        for (json, text) in [
            (r#"{"Memory":1024}"#, "Minimum memory limit allowed is 6MB"),
            (r#"{"Memory":-5}"#, "Minimum memory limit allowed is 6MB"),
            (
                r#"{"Memory":67108864,"MemorySwap":33554432}"#,
                "Minimum memoryswap limit",
            ),
            (
                r#"{"MemorySwap":67108864}"#,
                "You should always set the Memory limit",
            ),
            (
                r#"{"MemorySwappiness":101}"#,
                "valid memory swappiness range is 0-100",
            ),
            (
                r#"{"MemoryReservation":5}"#,
                "Minimum memory reservation allowed is 6MB",
            ),
            (
                r#"{"NanoCpus":1000000000,"CpuQuota":5000}"#,
                "Nano CPUs and CPU Quota cannot both be set",
            ),
            (r#"{"NanoCpus":1000000000000000}"#, "range of CPUs is from 0.01"),
            (r#"{"CpuPeriod":5}"#, "CPU cfs period can not be less than 1ms"),
            (r#"{"CpuQuota":5}"#, "CPU cfs quota can not be less than 1ms"),
            (r#"{"CpuShares":-1}"#, "shares: invalid argument"),
            (r#"{"CpusetCpus":"a"}"#, "Invalid value a for cpuset cpus"),
            (r#"{"CpusetCpus":"8000"}"#, "Requested CPUs are not available"),
            (r#"{"BlkioWeight":5}"#, "Range of blkio weight is from 10 to 1000"),
            (
                r#"{"Ulimits":[{"Name":"nope","Soft":1,"Hard":1}]}"#,
                "invalid ulimit type: nope",
            ),
            (
                r#"{"Ulimits":[{"Name":"nofile","Soft":2,"Hard":1}]}"#,
                "ulimit soft limit must be",
            ),
            (
                r#"{"DeviceCgroupRules":["x"]}"#,
                "invalid device cgroup rule format",
            ),
            (
                r#"{"Devices":[{"PathOnHost":"/dev/no-such"}]}"#,
                "error gathering device information",
            ),
        ] {
            let e = of(json).unwrap_err();
            assert!(e.message.contains(text), "{json}: {e}");
        }
    }

    #[test]
    fn there_and_back() {
        let json = r#"{"Memory":67108864,"MemorySwap":-1,"PidsLimit":50,"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}],
            "Devices":[{"PathOnHost":"/dev/null"}],"BlkioWeight":100}"#;
        let mut h = HostConfig::default();
        let r = of(json).unwrap();
        show(&r, &mut h);
        assert_eq!(resources(&h, &mut Vec::new()).unwrap(), r);
    }
}
