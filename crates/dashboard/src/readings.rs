//! What nodes and pods use: read from the nodes while somebody looks, and remembered for some minutes for graphs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::watch;
use tripod_engine::Manager;
use tripod_model::door::NodeStats;
use tripod_model::node::Node;

use crate::view::Graph;

/// Readings are this far apart: use has no events to wait for.
const EVERY: Duration = Duration::from_secs(5);
/// The second reading follows the first so soon, as use is what lies between two.
const SOON: Duration = Duration::from_secs(1);
/// They end when nobody has looked for this long.
const LINGER: Duration = Duration::from_secs(600);
/// Readings that are kept of each node: ten minutes.
const KEPT: usize = 120;
/// A line of fewer readings does not fill its box.
const FEWEST: usize = 24;
/// A page waits this long at most for the first reading.
const FIRST: Duration = Duration::from_millis(150);
/// A node that does not answer in this time has no reading.
const PATIENCE: Duration = Duration::from_secs(3);

/// The use of a node at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sample {
    /// Processors.
    pub(crate) cores: f64,
    /// Bytes that cannot be reclaimed at once.
    pub(crate) memory: u64,
    /// Bytes received and sent per second.
    pub(crate) network: (f64, f64),
}

#[derive(Default)]
struct State {
    samples: BTreeMap<String, VecDeque<Sample>>,
    latest: BTreeMap<String, NodeStats>,
    looked: Option<Instant>,
    running: bool,
}

/// The readings of all nodes.
pub(crate) struct Readings {
    state: Mutex<State>,
    rounds: watch::Sender<u64>,
}

impl Default for Readings {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            rounds: watch::Sender::new(0),
        }
    }
}

impl Readings {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody looks: readings begin or go on. Waits a moment for the first.
    pub(crate) async fn look(self: &Arc<Self>, manager: &Arc<Manager>) {
        let begins = {
            let mut state = self.lock();
            state.looked = Some(Instant::now());
            !std::mem::replace(&mut state.running, true)
        };
        if begins {
            tokio::spawn(self.clone().run(Arc::downgrade(manager)));
        }
        if *self.rounds.borrow() == 0 {
            let mut rounds = self.rounds.subscribe();
            let _ = tokio::time::timeout(FIRST, rounds.wait_for(|n| *n > 0)).await;
        }
    }

    async fn run(self: Arc<Self>, manager: std::sync::Weak<Manager>) {
        loop {
            let wanted = self.lock().looked.is_some_and(|at| at.elapsed() < LINGER);
            let Some(manager) = manager.upgrade().filter(|_| wanted) else {
                *self.lock() = State::default();
                self.rounds.send_replace(0);
                return;
            };
            self.round(&manager).await;
            drop(manager);
            let first = *self.rounds.borrow() == 1;
            tokio::time::sleep(if first { SOON } else { EVERY }).await;
        }
    }

    /// One reading of every node that answers.
    async fn round(&self, manager: &Manager) {
        let nodes = manager.db().snapshot().list::<Node>(None).unwrap_or_default();
        let read = |node: Node| async move {
            let name = node.metadata.name;
            let door = manager.door(&name).ok()?;
            let stats = tokio::time::timeout(PATIENCE, door.stats()).await.ok()?.ok()?;
            Some((name, stats))
        };
        let found: Vec<_> = join_all(nodes.into_iter().map(read))
            .await
            .into_iter()
            .flatten()
            .collect();
        let mut state = self.lock();
        state
            .samples
            .retain(|name, _| found.iter().any(|(n, _)| n == name));
        for (name, stats) in found {
            let before = state.latest.get(&name);
            if before.is_some() || stats.node.nano_cores > 0 {
                let sample = sample(before, &stats);
                let samples = state.samples.entry(name.clone()).or_default();
                samples.push_back(sample);
                if samples.len() > KEPT {
                    samples.pop_front();
                }
            }
            state.latest.insert(name, stats);
        }
        drop(state);
        self.rounds.send_modify(|n| *n += 1);
    }

    /// What a node uses now.
    pub(crate) fn node(&self, name: &str) -> Option<Sample> {
        self.lock().samples.get(name)?.back().copied()
    }

    /// What a node used of late.
    pub(crate) fn history(&self, name: &str) -> Vec<Sample> {
        self.lock()
            .samples
            .get(name)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// What all nodes together used of late.
    pub(crate) fn cluster(&self) -> Vec<Sample> {
        let state = self.lock();
        let longest = state.samples.values().map(VecDeque::len).max().unwrap_or(0);
        let mut sum = vec![Sample::default(); longest];
        for samples in state.samples.values() {
            for (total, s) in sum.iter_mut().skip(longest - samples.len()).zip(samples) {
                total.cores += s.cores;
                total.memory += s.memory;
                total.network.0 += s.network.0;
                total.network.1 += s.network.1;
            }
        }
        sum
    }

    /// What the containers of a pod use: processors, bytes.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<(f64, u64)> {
        let state = self.lock();
        let mut pods = state.latest.values().flat_map(|s| &s.pods);
        let pod = pods.find(|p| p.namespace == namespace && p.name == name)?;
        let nanos: u64 = pod.containers.iter().map(|c| c.usage.nano_cores).sum();
        let memory = pod.containers.iter().map(|c| c.usage.memory_working_set).sum();
        Some((nanos as f64 / 1e9, memory))
    }
}

/// What a reading says, with what the one before it adds.
fn sample(before: Option<&NodeStats>, now: &NodeStats) -> Sample {
    let seconds = before
        .and_then(|b| Some(now.at?.duration_since(b.at?).as_secs_f64()))
        .filter(|s| *s > 0.0);
    let rate = |was: u64, is: u64| seconds.map_or(0.0, |s| is.saturating_sub(was) as f64 / s);
    let was = before.map_or(now.network, |b| b.network);
    let cores = match (now.node.nano_cores, before) {
        (0, Some(b)) => rate(b.node.cpu_nanos, now.node.cpu_nanos) / 1e9,
        (nanos, _) => nanos as f64 / 1e9,
    };
    Sample {
        cores,
        memory: now.node.memory_working_set,
        network: (rate(was.0, now.network.0), rate(was.1, now.network.1)),
    }
}

/// A line over the readings, the latest at the right; `top` is the value at the upper edge.
pub(crate) fn graph(label: &str, value: String, values: &[f64], top: f64) -> Graph {
    let step = 300.0 / (values.len().clamp(FEWEST, KEPT) - 1) as f64;
    let first = 300.0 - step * values.len().saturating_sub(1) as f64;
    let top = if top > 0.0 { top } else { 1.0 };
    let point = |(i, v): (usize, &f64)| {
        let y = 58.0 - (v / top).clamp(0.0, 1.0) * 56.0;
        format!("{:.1},{y:.1}", first + step * i as f64)
    };
    let points = values.iter().enumerate().map(point).collect::<Vec<_>>().join(" ");
    let area = match values {
        [] => String::new(),
        _ => format!("{first:.1},60 {points} 300,60"),
    };
    Graph {
        label: label.to_owned(),
        value,
        points,
        area,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_right_and_stay_in_the_box() {
        let graph = graph("CPU", "1".into(), &[0.0, 1.0, 9.0], 2.0);
        assert_eq!(graph.points, "273.9,58.0 287.0,30.0 300.0,2.0");
        assert!(graph.area.ends_with(" 300,60"));
    }

    #[test]
    fn rates_need_two_readings() {
        let at = |seconds: i64, bytes: u64, cpu: u64| NodeStats {
            at: jiff::Timestamp::from_second(seconds).ok(),
            network: (bytes, 0),
            node: tripod_model::door::Usage {
                cpu_nanos: cpu,
                ..Default::default()
            },
            ..NodeStats::default()
        };
        let (first, second) = (at(10, 1000, 0), at(20, 3000, 5_000_000_000));
        assert_eq!(sample(None, &first).network, (0.0, 0.0));
        assert_eq!(sample(Some(&first), &second).network, (200.0, 0.0));
        assert!((sample(Some(&first), &second).cores - 0.5).abs() < 1e-9);
    }
}
