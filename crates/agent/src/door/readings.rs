//! Readings of the node and of its pods, for `kubectl top` and metrics.

use std::collections::HashMap;
use std::fs;
use std::sync::{Mutex, PoisonError};

use tokio::time::{Duration, Instant};
use tripod_model::door::{ContainerStats, FilesystemUsage, NodeStats, PodStats, Usage};
use tripod_model::{Result, Time};

use crate::Agent;
use crate::ports::Stats;
use crate::record::{ContainerRecord, Owner};

/// Readings are not taken more often than this.
const FRESH: Duration = Duration::from_secs(1);
/// The shortest window over which use of processors is told.
const WINDOW: Duration = Duration::from_secs(2);

/// The last readings, from which rates are computed.
#[derive(Default)]
pub(crate) struct Readings {
    last: tokio::sync::Mutex<Option<(Instant, NodeStats)>>,
    /// Processor time at an earlier instant, and the rate told since, by container (empty: the machine).
    rates: Mutex<HashMap<String, Rate>>,
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    at: Instant,
    cpu: u64,
    told: (u64, f64),
}

impl Agent {
    /// A reading of the node and of everything that runs on it; at most a second old.
    pub async fn node_stats(&self) -> Result<NodeStats> {
        let mut last = self.inner.readings.last.lock().await;
        if let Some((at, stats)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(stats.clone());
        }
        let stats = self.take_readings().await;
        *last = Some((Instant::now(), stats.clone()));
        Ok(stats)
    }

    async fn take_readings(&self) -> NodeStats {
        let mut pods: Vec<PodStats> = Vec::new();
        let mut seen = vec![String::new()];
        for record in self.containers().into_iter().filter(|r| r.is_running()) {
            let Owner::Pod {
                pod, uid, container, ..
            } = &record.owner
            else {
                continue;
            };
            // It may have ended at this very moment.
            let Ok(stats) = self.runtime().stats(&record.id).await else {
                continue;
            };
            let age = record
                .state
                .started_at
                .map_or(0.0, |t| Time::now().duration_since(t).as_secs_f64().max(0.001));
            let mut usage = usage(&stats);
            (usage.nano_cores, usage.window_seconds) =
                self.inner.readings.rate(&record.id, usage.cpu_nanos, age);
            seen.push(record.id.clone());
            let reading = ContainerStats {
                name: container.clone(),
                id: record.id.clone(),
                started_at: record.state.started_at,
                usage,
            };
            match pods.iter_mut().find(|p| p.uid == *uid) {
                Some(pod) => pod.containers.push(reading),
                None => {
                    let (namespace, name) = pod.split_once('/').unwrap_or(("", pod));
                    pods.push(PodStats {
                        namespace: namespace.to_owned(),
                        name: name.to_owned(),
                        uid: uid.clone(),
                        started_at: record.state.started_at,
                        network: self.pod_traffic(&record).await,
                        containers: vec![reading],
                    });
                }
            }
        }
        // A node that is a part of a machine tells of its part.
        let mut node = self
            .runtime()
            .node_usage()
            .await
            .map_or_else(machine, |s| usage(&s));
        let (nano_cores, window) = self.inner.readings.rate("", node.cpu_nanos, 0.0);
        (node.nano_cores, node.window_seconds) = (nano_cores, window);
        self.inner.readings.forget_others(&seen);
        NodeStats {
            at: Some(Time::now()),
            node,
            network: interfaces(),
            filesystem: self.filesystem(),
            pods,
        }
    }

    async fn pod_traffic(&self, record: &ContainerRecord) -> Option<(u64, u64)> {
        let sandbox = match record.spec.network.mode.as_str() {
            "host" => return None,
            mode => mode
                .strip_prefix(crate::ports::SANDBOX_MODE)
                .unwrap_or(&record.id),
        };
        let stats = self.net().sandbox_stats(sandbox).await.ok()?;
        let sum = stats.iter().filter(|i| i.name != "lo");
        Some(sum.fold((0, 0), |(rx, tx), i| (rx + i.rx.0, tx + i.tx.0)))
    }

    fn filesystem(&self) -> FilesystemUsage {
        self.inner
            .ports
            .volumes
            .filesystem(&self.options().root)
            .unwrap_or_default()
    }
}

impl Readings {
    /// Billionths of a processor in use and the seconds over which that was measured; before there are two readings,
    /// over the container's `age`.
    fn rate(&self, id: &str, cpu: u64, age: f64) -> (u64, f64) {
        let now = Instant::now();
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let told = match rates.get(id) {
            Some(known) if now - known.at < WINDOW => return known.told,
            Some(known) => {
                let seconds = (now - known.at).as_secs_f64();
                ((cpu.saturating_sub(known.cpu) as f64 / seconds) as u64, seconds)
            }
            None if age > 0.0 => ((cpu as f64 / age) as u64, age),
            None => (0, 0.0),
        };
        rates.insert(id.to_owned(), Rate { at: now, cpu, told });
        told
    }

    fn forget_others(&self, seen: &[String]) {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.retain(|id, _| seen.contains(id));
    }
}

fn usage(stats: &Stats) -> Usage {
    let memory = |names: &[&str]| {
        let found = names
            .iter()
            .find_map(|n| stats.memory_stat.iter().find(|(k, _)| k == n));
        found.map_or(0, |(_, v)| *v)
    };
    Usage {
        cpu_nanos: stats.cpu_total,
        nano_cores: 0,
        window_seconds: 0.0,
        memory_usage: stats.memory_usage,
        memory_working_set: stats
            .memory_usage
            .saturating_sub(memory(&["total_inactive_file", "inactive_file"])),
        memory_rss: memory(&["total_rss", "anon"]),
        memory_limit: stats.memory_limit,
        pids: stats.pids.0,
    }
}

/// The machine as `/proc` tells of it.
fn machine() -> Usage {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal, in hundredths of a second.
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum();
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        number.unwrap_or(0) << 10
    };
    let (total, free) = (kilobytes("MemTotal"), kilobytes("MemFree"));
    Usage {
        cpu_nanos: busy * 10_000_000,
        nano_cores: 0,
        window_seconds: 0.0,
        memory_usage: total.saturating_sub(free),
        memory_working_set: total
            .saturating_sub(free)
            .saturating_sub(kilobytes("Inactive(file)")),
        memory_rss: kilobytes("AnonPages"),
        memory_limit: total,
        pids: 0,
    }
}

/// Bytes received and sent by all interfaces but loopback.
fn interfaces() -> (u64, u64) {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let lines = text.lines().filter_map(|l| l.split_once(':'));
    lines
        .filter(|(name, _)| name.trim() != "lo")
        .map(|(_, counters)| {
            let numbers: Vec<u64> = counters
                .split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect();
            (
                numbers.first().copied().unwrap_or(0),
                numbers.get(8).copied().unwrap_or(0),
            )
        })
        .fold((0, 0), |(rx, tx), (r, t)| (rx + r, tx + t))
}
