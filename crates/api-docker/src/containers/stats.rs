//! What a container uses, once or every second.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior};
use tripod_agent::ports::{InterfaceStats, Stats};
use tripod_model::Time;

use crate::Docker;
use crate::call::Call;
use crate::reply::{self, Reply};
use crate::when;

pub(crate) async fn stats(docker: &Docker, call: &Call, id: &str) -> Reply {
    let record = docker.agent().container(id)?;
    let follow = call.query.flag_or("stream", true);
    let mut sampler = Sampler {
        docker: docker.clone(),
        id: record.id.clone(),
        name: format!("/{}", record.name),
        before: Reading::default(),
        interval: tokio::time::interval(Duration::from_secs(1)),
    };
    sampler
        .interval
        .set_missed_tick_behavior(MissedTickBehavior::Delay);
    if !follow {
        // Two readings, a second apart, unless the client wants only one or nothing runs.
        let first = sampler.next().await;
        let one = call.query.flag("one-shot") || !record.is_running();
        let last = if one { first } else { sampler.next().await };
        return reply::json(&last);
    }
    let samples = stream::unfold(sampler, |mut sampler| async move {
        let sample = sampler.next().await?;
        Some((
            Ok::<Bytes, std::convert::Infallible>(reply::json_line(&sample)),
            sampler,
        ))
    });
    reply::stream("application/json", samples.boxed())
}

/// A reading and its time.
#[derive(Default, Clone)]
struct Reading {
    at: Option<Time>,
    stats: Stats,
    interfaces: Vec<InterfaceStats>,
}

struct Sampler {
    docker: Docker,
    id: String,
    name: String,
    before: Reading,
    interval: Interval,
}

impl Sampler {
    /// The next sample; `None` when the container is gone. One that does not run has zeroes.
    async fn next(&mut self) -> Option<Sample> {
        self.interval.tick().await;
        let now = match self.docker.agent().stats(&self.id).await {
            Ok(Some((stats, interfaces))) => Reading {
                at: Some(Time::now()),
                stats,
                interfaces,
            },
            Ok(None) => Reading::default(),
            // Ended between the look at its record and the reading.
            Err(_) if self.docker.agent().container(&self.id).is_ok() => Reading::default(),
            Err(_) => return None,
        };
        let sample = Sample::new(self.id.clone(), self.name.clone(), &now, &self.before);
        self.before = now;
        Some(sample)
    }
}

/// One sample in the API's shape.
#[derive(Serialize)]
struct Sample {
    name: String,
    id: String,
    read: String,
    preread: String,
    pids_stats: Value,
    blkio_stats: Value,
    num_procs: u32,
    storage_stats: Value,
    cpu_stats: Value,
    precpu_stats: Value,
    memory_stats: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<BTreeMap<String, Value>>,
}

impl Sample {
    fn new(id: String, name: String, now: &Reading, before: &Reading) -> Self {
        let running = now.at.is_some();
        Self {
            name,
            id,
            read: when::or_never(now.at),
            preread: when::or_never(before.at),
            pids_stats: if running { pids(&now.stats) } else { json!({}) },
            blkio_stats: blkio(&now.stats, running),
            num_procs: 0,
            storage_stats: json!({}),
            cpu_stats: cpu(&now.stats),
            precpu_stats: cpu(&before.stats),
            memory_stats: if running { memory(&now.stats) } else { json!({}) },
            networks: running.then(|| networks(&now.interfaces)),
        }
    }
}

fn pids(s: &Stats) -> Value {
    // Without a limit the kernel allows all there are.
    let limit = if s.pids.1 == 0 { u64::MAX } else { s.pids.1 };
    json!({ "current": s.pids.0, "limit": limit })
}

fn cpu(s: &Stats) -> Value {
    let mut usage = json!({
        "total_usage": s.cpu_total, "usage_in_kernelmode": s.cpu_kernel, "usage_in_usermode": s.cpu_user,
    });
    if !s.cpu_per.is_empty() {
        usage["percpu_usage"] = json!(s.cpu_per);
    }
    let (periods, throttled, time) = s.throttling;
    let mut out = json!({
        "cpu_usage": usage,
        "throttling_data": { "periods": periods, "throttled_periods": throttled, "throttled_time": time },
    });
    if s.system_cpu > 0 {
        out["system_cpu_usage"] = s.system_cpu.into();
        out["online_cpus"] = s.online_cpus.into();
    }
    out
}

fn memory(s: &Stats) -> Value {
    let stats: BTreeMap<&str, u64> = s.memory_stat.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let mut out = json!({ "usage": s.memory_usage, "limit": s.memory_limit, "stats": stats });
    if s.memory_max > 0 {
        out["max_usage"] = s.memory_max.into();
        out["failcnt"] = s.memory_failcnt.into();
    }
    out
}

fn blkio(s: &Stats, running: bool) -> Value {
    let list = |list: &[(u64, u64, String, u64)]| -> Value {
        match running {
            false => Value::Null,
            true => list
                .iter()
                .map(|(major, minor, op, value)| json!({ "major": major, "minor": minor, "op": op, "value": value }))
                .collect(),
        }
    };
    json!({
        "io_service_bytes_recursive": list(&s.blkio_bytes),
        "io_serviced_recursive": list(&s.blkio_ops),
        "io_queue_recursive": null, "io_service_time_recursive": null, "io_wait_time_recursive": null,
        "io_merged_recursive": null, "io_time_recursive": null, "sectors_recursive": null,
    })
}

fn networks(list: &[InterfaceStats]) -> BTreeMap<String, Value> {
    let one = |i: &InterfaceStats| {
        let (rx, tx) = (i.rx, i.tx);
        let value = json!({
            "rx_bytes": rx.0, "rx_packets": rx.1, "rx_errors": rx.2, "rx_dropped": rx.3,
            "tx_bytes": tx.0, "tx_packets": tx.1, "tx_errors": tx.2, "tx_dropped": tx.3,
        });
        (i.name.clone(), value)
    };
    list.iter().filter(|i| i.name != "lo").map(one).collect()
}
