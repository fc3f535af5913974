//! Reading what a cgroup uses.

use std::path::Path;

use tripod_agent::ports::Stats;
use tripod_model::Result;

use super::Cgroup;

/// Ticks of `/proc/stat` per second (`USER_HZ`, fixed for user space on every architecture that is supported).
const NANOS_PER_TICK: u64 = 10_000_000;

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> u64 {
    text(path).trim().parse().unwrap_or(0)
}

/// Lines of `name value`.
fn pairs(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)))
        .collect()
}

fn find(pairs: &[(String, u64)], name: &str) -> u64 {
    pairs.iter().find(|(k, _)| k == name).map_or(0, |(_, v)| *v)
}

/// A reading of a cgroup.
pub(crate) fn read(cgroup: &Cgroup) -> Result<Stats> {
    let mut s = Stats::default();
    let total = machine_memory();
    if let (true, Some(dir)) = (cgroup.mounts.is_v2(), cgroup.unified()) {
        v2(&mut s, &dir);
    } else {
        v1(&mut s, cgroup);
    }
    if s.memory_limit == 0 || s.memory_limit > total {
        s.memory_limit = total;
    }
    (s.system_cpu, s.online_cpus) = machine_cpu();
    Ok(s)
}

fn v1(s: &mut Stats, cgroup: &Cgroup) {
    if let Some(d) = cgroup.v1("cpuacct") {
        s.cpu_total = number(&d.join("cpuacct.usage"));
        s.cpu_per = text(&d.join("cpuacct.usage_percpu"))
            .split_whitespace()
            .filter_map(|v| v.parse().ok())
            .collect();
        let stat = pairs(&text(&d.join("cpuacct.stat")));
        s.cpu_user = find(&stat, "user") * NANOS_PER_TICK;
        s.cpu_kernel = find(&stat, "system") * NANOS_PER_TICK;
    }
    if let Some(d) = cgroup.v1("cpu") {
        let stat = pairs(&text(&d.join("cpu.stat")));
        s.throttling = (
            find(&stat, "nr_periods"),
            find(&stat, "nr_throttled"),
            find(&stat, "throttled_time"),
        );
    }
    if let Some(d) = cgroup.v1("memory") {
        s.memory_usage = number(&d.join("memory.usage_in_bytes"));
        s.memory_max = number(&d.join("memory.max_usage_in_bytes"));
        s.memory_limit = number(&d.join("memory.limit_in_bytes"));
        s.memory_failcnt = number(&d.join("memory.failcnt"));
        s.memory_stat = pairs(&text(&d.join("memory.stat")));
    }
    if let Some(d) = cgroup.v1("pids") {
        s.pids = (number(&d.join("pids.current")), number(&d.join("pids.max")));
    }
    if let Some(d) = cgroup.v1("blkio") {
        s.blkio_bytes = blkio_v1(&text(&d.join("blkio.throttle.io_service_bytes_recursive")));
        s.blkio_ops = blkio_v1(&text(&d.join("blkio.throttle.io_serviced_recursive")));
    }
}

/// Lines of `major:minor operation value`.
fn blkio_v1(text: &str) -> Vec<(u64, u64, String, u64)> {
    text.lines()
        .filter_map(|l| {
            let mut f = l.split_whitespace();
            let (major, minor) = f.next()?.split_once(':')?;
            let (op, value) = (f.next()?, f.next()?);
            Some((
                major.parse().ok()?,
                minor.parse().ok()?,
                op.to_lowercase(),
                value.parse().ok()?,
            ))
        })
        .collect()
}

fn v2(s: &mut Stats, d: &Path) {
    let cpu = pairs(&text(&d.join("cpu.stat")));
    s.cpu_total = find(&cpu, "usage_usec") * 1000;
    s.cpu_user = find(&cpu, "user_usec") * 1000;
    s.cpu_kernel = find(&cpu, "system_usec") * 1000;
    s.throttling = (
        find(&cpu, "nr_periods"),
        find(&cpu, "nr_throttled"),
        find(&cpu, "throttled_usec") * 1000,
    );
    s.memory_usage = number(&d.join("memory.current"));
    s.memory_max = number(&d.join("memory.peak"));
    s.memory_limit = number(&d.join("memory.max"));
    s.memory_failcnt = find(&pairs(&text(&d.join("memory.events"))), "max");
    s.memory_stat = pairs(&text(&d.join("memory.stat")));
    s.pids = (number(&d.join("pids.current")), number(&d.join("pids.max")));
    for line in text(&d.join("io.stat")).lines() {
        let mut f = line.split_whitespace();
        let Some((major, minor)) = f.next().and_then(|d| d.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for (key, value) in f.filter_map(|kv| kv.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => s.blkio_bytes.push((major, minor, "read".into(), value)),
                "wbytes" => s.blkio_bytes.push((major, minor, "write".into(), value)),
                "rios" => s.blkio_ops.push((major, minor, "read".into(), value)),
                "wios" => s.blkio_ops.push((major, minor, "write".into(), value)),
                _ => {}
            }
        }
    }
}

/// Bytes of memory of the machine.
pub(crate) fn machine_memory() -> u64 {
    let info = text(Path::new("/proc/meminfo"));
    let kib = info.lines().find_map(|l| {
        l.strip_prefix("MemTotal:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) * 1024
}

/// Nanoseconds that all processors spent on anything (the sum that Docker uses: the first seven columns), and how
/// many processors there are.
fn machine_cpu() -> (u64, u32) {
    let stat = text(Path::new("/proc/stat"));
    let ticks: u64 = stat
        .lines()
        .next()
        .map(|l| {
            l.split_whitespace()
                .skip(1)
                .take(7)
                .filter_map(|v| v.parse::<u64>().ok())
                .sum()
        })
        .unwrap_or(0);
    let cpus = stat
        .lines()
        .filter(|l| l.starts_with("cpu") && !l.starts_with("cpu "))
        .count();
    (ticks * NANOS_PER_TICK, cpus as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory_and_processors() {
        assert!(machine_memory() > 1 << 20);
        let (ticks, cpus) = machine_cpu();
        assert!(ticks > 0 && cpus > 0);
    }

    #[test]
    fn v2_readings() {
        let dir = tempfile::tempdir().unwrap();
        let put = |f: &str, t: &str| std::fs::write(dir.path().join(f), t).unwrap();
        put(
            "cpu.stat",
            "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\n",
        );
        put("memory.current", "4096\n");
        put("memory.max", "max\n");
        put("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
        let mut s = Stats::default();
        v2(&mut s, dir.path());
        assert_eq!(
            (s.cpu_total, s.cpu_user, s.memory_usage, s.memory_limit),
            (5000, 3000, 4096, 0)
        );
        assert_eq!(
            s.blkio_bytes,
            [(8, 0, "read".into(), 1), (8, 0, "write".into(), 2)]
        );
        assert_eq!(s.blkio_ops.len(), 2);
    }
}
