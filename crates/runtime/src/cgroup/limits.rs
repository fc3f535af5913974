//! Limits: from Docker's resources to control files of either version.

use std::path::Path;

use tripod_model::container::{DeviceLimit, Resources};
use tripod_model::{Error, Result};

use super::{Cgroup, bpf, setup, write};

/// Limits, as they are written. `None` leaves the kernel's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) memory: Option<i64>,
    pub(crate) memory_reservation: Option<i64>,
    /// Memory and swap together, as v1 counts them; -1 is unlimited.
    pub(crate) memory_swap: Option<i64>,
    pub(crate) swappiness: Option<i64>,
    pub(crate) oom_kill_disable: bool,
    pub(crate) cpu_shares: Option<i64>,
    pub(crate) cpu_quota: Option<i64>,
    pub(crate) cpu_period: Option<i64>,
    pub(crate) cpus: String,
    pub(crate) mems: String,
    /// -1 is unlimited.
    pub(crate) pids: Option<i64>,
    pub(crate) blkio_weight: Option<u16>,
    /// Control file of v1, its v2 key, and lines `major:minor rate`.
    pub(crate) throttle: Vec<(&'static str, &'static str, Vec<String>)>,
    /// Rules of the device cgroup, `c 1:3 rwm`; `None` leaves all devices allowed.
    pub(crate) devices: Option<Vec<String>>,
}

fn set(v: i64) -> Option<i64> {
    (v != 0).then_some(v)
}

impl Limits {
    /// The limits that a user asked for. Devices are decided elsewhere.
    pub(crate) fn of(r: &Resources) -> Result<Self> {
        let (mut quota, mut period) = (set(r.cpu_quota), set(r.cpu_period));
        if r.nano_cpus > 0 {
            period = Some(100_000);
            quota = Some(r.nano_cpus / 10_000);
        }
        let memory = set(r.memory).filter(|m| *m > 0);
        let memory_swap = match (memory, r.memory_swap) {
            (Some(m), 0) => Some(m.saturating_mul(2)),
            (_, s) => set(s),
        };
        Ok(Self {
            memory,
            memory_reservation: set(r.memory_reservation),
            memory_swap,
            swappiness: r.memory_swappiness.filter(|s| *s >= 0),
            oom_kill_disable: r.oom_kill_disable,
            cpu_shares: set(r.cpu_shares),
            cpu_quota: quota,
            cpu_period: period,
            cpus: r.cpuset_cpus.clone(),
            mems: r.cpuset_mems.clone(),
            pids: r.pids_limit.map(|p| if p <= 0 { -1 } else { p }),
            blkio_weight: (r.blkio_weight != 0).then_some(r.blkio_weight),
            throttle: vec![
                (
                    "blkio.throttle.read_bps_device",
                    "rbps",
                    device_bps_lines(&r.blkio_read_bps)?,
                ),
                (
                    "blkio.throttle.write_bps_device",
                    "wbps",
                    device_bps_lines(&r.blkio_write_bps)?,
                ),
                (
                    "blkio.throttle.read_iops_device",
                    "riops",
                    device_bps_lines(&r.blkio_read_iops)?,
                ),
                (
                    "blkio.throttle.write_iops_device",
                    "wiops",
                    device_bps_lines(&r.blkio_write_iops)?,
                ),
            ],
            devices: None,
        })
    }

    /// The same, with no more of the processors than `outer` leaves: version 1 refuses a group more than its parent has.
    pub(crate) fn within(mut self, outer: &Self) -> Self {
        const PERIOD: i64 = 100_000;
        let Some(most) = outer.cpu_quota.filter(|q| *q > 0) else {
            return self;
        };
        let outer_period = outer.cpu_period.unwrap_or(PERIOD);
        if let Some(quota) = self.cpu_quota {
            let room = most.saturating_mul(self.cpu_period.unwrap_or(PERIOD)) / outer_period;
            self.cpu_quota = Some(quota.min(room));
        }
        self
    }

    /// Writes them; what this kernel cannot do is told in sentences.
    pub(crate) fn apply(&self, cgroup: &Cgroup) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        if cgroup.mounts.is_v2() {
            let dir = cgroup
                .unified()
                .ok_or_else(|| Error::internal("no cgroup hierarchy is mounted"))?;
            self.apply_v2(&dir, &mut warnings)?;
        } else {
            self.apply_memory_v1(cgroup, &mut warnings)?;
            self.apply_rest_v1(cgroup, &mut warnings)?;
        }
        Ok(warnings)
    }

    fn apply_memory_v1(&self, cgroup: &Cgroup, warnings: &mut Vec<String>) -> Result<()> {
        let wanted = self.memory.is_some() || self.memory_reservation.is_some() || self.memory_swap.is_some();
        let Some(dir) = cgroup.v1("memory") else {
            if wanted {
                warnings.push("Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.".into());
            }
            return Ok(());
        };
        let (limit, swap) = (
            dir.join("memory.limit_in_bytes"),
            dir.join("memory.memsw.limit_in_bytes"),
        );
        if let Some(m) = self.memory {
            let has_swap = swap.exists();
            // Neither may pass the other on the way: raise the outer one first, lower it last.
            let raising = has_swap
                && std::fs::read_to_string(&swap)?
                    .trim()
                    .parse::<i64>()
                    .is_ok_and(|now| self.memory_swap.is_some_and(|s| s == -1 || s > now));
            if raising && let Some(s) = self.memory_swap {
                write(&swap, &s.to_string())?;
            }
            write(&limit, &m.to_string())?;
            match self.memory_swap {
                Some(s) if has_swap && !raising => write(&swap, &s.to_string())?,
                Some(s) if !has_swap && s != m.saturating_mul(2) => {
                    warnings.push("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.".into());
                }
                _ => {}
            }
        }
        let options = [
            (self.memory_reservation, "memory.soft_limit_in_bytes"),
            (self.swappiness, "memory.swappiness"),
            (self.oom_kill_disable.then_some(1), "memory.oom_control"),
        ];
        for (value, file) in options {
            if let Some(v) = value {
                write(&dir.join(file), &v.to_string())?;
            }
        }
        Ok(())
    }

    fn apply_rest_v1(&self, cgroup: &Cgroup, warnings: &mut Vec<String>) -> Result<()> {
        if let Some(dir) = cgroup.v1("cpu") {
            for (value, file) in [
                (self.cpu_shares, "cpu.shares"),
                (self.cpu_period, "cpu.cfs_period_us"),
                (self.cpu_quota, "cpu.cfs_quota_us"),
            ] {
                if let Some(v) = value {
                    write(&dir.join(file), &v.to_string())?;
                }
            }
        }
        if let Some(dir) = cgroup.v1("cpuset") {
            for (value, file) in [(&self.cpus, "cpuset.cpus"), (&self.mems, "cpuset.mems")] {
                if !value.is_empty() {
                    write(&dir.join(file), value)?;
                }
            }
        }
        if let (Some(p), Some(dir)) = (self.pids, cgroup.v1("pids")) {
            write(&dir.join("pids.max"), &max_or(p))?;
        }
        if let Some(dir) = cgroup.v1("blkio") {
            if let Some(w) = self.blkio_weight {
                let file = ["blkio.weight", "blkio.bfq.weight"]
                    .map(|f| dir.join(f))
                    .into_iter()
                    .find(|f| f.exists());
                match file {
                    Some(f) => write(&f, &w.to_string())?,
                    None => warnings.push("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".into()),
                }
            }
            for (file, _, lines) in &self.throttle {
                for line in lines {
                    write(&dir.join(file), line)?;
                }
            }
        }
        if let (Some(rules), Some(dir)) = (&self.devices, cgroup.v1("devices")) {
            setup::devices(&dir, rules)?;
        }
        Ok(())
    }

    fn apply_v2(&self, dir: &Path, warnings: &mut Vec<String>) -> Result<()> {
        let mut put = |file: &str, value: Option<String>, what: &str| -> Result<()> {
            let Some(value) = value else { return Ok(()) };
            let path = dir.join(file);
            if path.exists() {
                write(&path, &value)
            } else {
                warnings.push(format!(
                    "Your kernel does not support {what} or the cgroup is not mounted. Limitation discarded."
                ));
                Ok(())
            }
        };
        if let Some(rules) = &self.devices {
            bpf::allow_devices(dir, rules)?;
        }
        put("memory.max", self.memory.map(max_or), "memory limit capabilities")?;
        let swap = match (self.memory_swap, self.memory) {
            (Some(-1), _) => Some("max".to_owned()),
            (Some(s), Some(m)) => Some((s - m).max(0).to_string()),
            _ => None,
        };
        put("memory.swap.max", swap, "swap limit capabilities")?;
        put(
            "memory.low",
            self.memory_reservation.map(|v| v.to_string()),
            "memory soft limit capabilities",
        )?;
        put(
            "cpu.weight",
            self.cpu_shares.map(|s| weight(s).to_string()),
            "CPU shares",
        )?;
        let max = (self.cpu_quota.is_some() || self.cpu_period.is_some()).then(|| {
            let quota = self
                .cpu_quota
                .filter(|q| *q > 0)
                .map_or("max".to_owned(), |q| q.to_string());
            format!("{quota} {}", self.cpu_period.unwrap_or(100_000))
        });
        put("cpu.max", max, "CPU CFS quota")?;
        put(
            "cpuset.cpus",
            (!self.cpus.is_empty()).then(|| self.cpus.clone()),
            "cpuset",
        )?;
        put(
            "cpuset.mems",
            (!self.mems.is_empty()).then(|| self.mems.clone()),
            "cpuset",
        )?;
        put("pids.max", self.pids.map(max_or), "PIDs limit capabilities")?;
        if let Some(w) = self.blkio_weight {
            let file = if dir.join("io.bfq.weight").exists() {
                "io.bfq.weight"
            } else {
                "io.weight"
            };
            put(file, Some(w.to_string()), "Block I/O weight")?;
        }
        for (_, key, lines) in &self.throttle {
            for line in lines {
                let (device, rate) = line.split_once(' ').unwrap_or((line, "max"));
                put(
                    "io.max",
                    Some(format!("{device} {key}={rate}")),
                    "Block I/O limits",
                )?;
            }
        }
        Ok(())
    }
}

fn max_or(v: i64) -> String {
    if v < 0 { "max".into() } else { v.to_string() }
}

/// v1's shares (2 to 262144) as v2's weight (1 to 10000), by the formula of the OCI runtimes.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// `major:minor value` for each device.
fn device_bps_lines(limits: &[DeviceLimit]) -> Result<Vec<String>> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    limits
        .iter()
        .map(|l| {
            let meta = std::fs::metadata(&l.path).map_err(|e| Error::invalid(format!("{}: {e}", l.path)))?;
            if !meta.file_type().is_block_device() {
                return Err(Error::invalid(format!("{}: not a block device", l.path)));
            }
            let dev = meta.rdev();
            Ok(format!("{}:{} {}", libc::major(dev), libc::minor(dev), l.value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_fields_become_limits() {
        let r = Resources {
            memory: 1 << 20,
            nano_cpus: 1_500_000_000,
            pids_limit: Some(0),
            ..Resources::default()
        };
        let l = Limits::of(&r).unwrap();
        assert_eq!((l.memory, l.memory_swap), (Some(1 << 20), Some(2 << 20)));
        assert_eq!((l.cpu_quota, l.cpu_period), (Some(150_000), Some(100_000)));
        assert_eq!(l.pids, Some(-1));
        let none = Limits::of(&Resources::default()).unwrap();
        assert_eq!((none.memory, none.memory_swap, none.pids), (None, None, None));
    }

    #[test]
    fn a_node_leaves_its_containers_no_more_processors_than_it_has() {
        let cpus = |n: i64| {
            let r = Resources {
                nano_cpus: n * 1_000_000_000,
                ..Resources::default()
            };
            Limits::of(&r).unwrap()
        };
        let quota = |asked: Limits, has: &Limits| asked.within(has).cpu_quota;
        assert_eq!(quota(cpus(4), &cpus(2)), Some(200_000));
        assert_eq!(quota(cpus(1), &cpus(2)), Some(100_000));
        assert_eq!(quota(cpus(0), &cpus(2)), None);
        assert_eq!(quota(cpus(4), &Limits::default()), Some(400_000));
        let unlimited = Limits {
            cpu_quota: Some(-1),
            ..Limits::default()
        };
        assert_eq!(quota(unlimited, &cpus(2)), Some(-1));
    }

    #[test]
    fn v2_files() {
        let dir = tempfile::tempdir().unwrap();
        for f in [
            "memory.max",
            "memory.swap.max",
            "cpu.weight",
            "cpu.max",
            "pids.max",
        ] {
            std::fs::write(dir.path().join(f), "").unwrap();
        }
        let r = Resources {
            memory: 100,
            memory_swap: 150,
            cpu_shares: 1024,
            cpu_quota: 5000,
            pids_limit: Some(7),
            blkio_weight: 5,
            ..Resources::default()
        };
        let mut warnings = Vec::new();
        Limits::of(&r)
            .unwrap()
            .apply_v2(dir.path(), &mut warnings)
            .unwrap();
        let read = |f: &str| std::fs::read_to_string(dir.path().join(f)).unwrap();
        assert_eq!(read("memory.max"), "100");
        assert_eq!(read("memory.swap.max"), "50");
        assert_eq!(read("cpu.weight"), "39");
        assert_eq!(read("cpu.max"), "5000 100000");
        assert_eq!(read("pids.max"), "7");
        assert_eq!(warnings.len(), 1);
    }
}
