//! Concurrent clients of three managers whose leader is stopped or cut off again and again: what they saw must be what
//! one register for each key would have shown them.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::linear::{Event, Op, is_linearizable};
use common::{Dir, key};
use rand::Rng as _;
use tripod_raft::store::{Expected, Txn};
use tripod_raft::{Cluster, LocalTransport, NodeId, Options, RaftError};

const KEYS: u64 = 4;
const CLIENTS: u64 = 6;
const ROUNDS: usize = 4;

fn event(op: Op, called: u64, answered: impl Into<Option<u64>>) -> Event {
    Event {
        op,
        called,
        answered: answered.into(),
    }
}

#[test]
fn the_judge_knows_good_histories_from_bad_ones() {
    let good: [&[Event]; 6] = [
        &[],
        &[
            event(Op::Read(0), 0, 1),
            event(Op::Write(1), 2, 3),
            event(Op::Read(1), 4, 5),
        ],
        // At the same time, either order will do.
        &[
            event(Op::Write(1), 0, 9),
            event(Op::Read(0), 1, 2),
            event(Op::Read(1), 3, 4),
        ],
        // Never answered: it happened late, or not at all.
        &[
            event(Op::Write(1), 0, None),
            event(Op::Read(0), 5, 6),
            event(Op::Read(1), 7, 8),
        ],
        &[event(Op::Write(1), 0, None), event(Op::Read(0), 5, 6)],
        &[
            event(Op::Write(1), 0, 1),
            event(Op::Swap(1, 2), 2, 8),
            event(Op::NoSwap(1), 3, 9),
            event(Op::Read(2), 10, 11),
        ],
    ];
    for (n, history) in good.iter().enumerate() {
        assert!(is_linearizable(history), "good history {n}");
    }
    let bad: [&[Event]; 6] = [
        // An acknowledged write is lost.
        &[event(Op::Write(1), 0, 1), event(Op::Read(0), 2, 3)],
        // A reader sees the past.
        &[
            event(Op::Write(1), 0, 1),
            event(Op::Write(2), 2, 3),
            event(Op::Read(2), 4, 5),
            event(Op::Read(1), 6, 7),
        ],
        // Two readers disagree about an open write.
        &[
            event(Op::Write(1), 0, 9),
            event(Op::Read(1), 1, 2),
            event(Op::Read(0), 3, 4),
        ],
        // Two clients swap the same value.
        &[
            event(Op::Write(1), 0, 1),
            event(Op::Swap(1, 2), 2, 6),
            event(Op::Swap(1, 3), 3, 7),
        ],
        // A swap is refused although nothing else was there.
        &[event(Op::Write(1), 0, 1), event(Op::NoSwap(1), 2, 3)],
        // What nobody wrote is read: a write that was said to have failed.
        &[event(Op::Read(7), 0, 1)],
    ];
    for (n, history) in bad.iter().enumerate() {
        assert!(!is_linearizable(history), "bad history {n}");
    }
}

/// Three managers, of which some are away at times.
struct Group {
    dirs: BTreeMap<NodeId, Dir>,
    nodes: Mutex<BTreeMap<NodeId, Cluster>>,
    transport: LocalTransport,
}

impl Group {
    async fn start(&self, node: NodeId) {
        let options = Options {
            heartbeat: Duration::from_millis(50),
            election: (Duration::from_millis(200), Duration::from_millis(400)),
            snapshot_entries: 200,
            segment_bytes: 64 << 10,
            transport: Arc::new(self.transport.of(node)),
            ..Options::default()
        };
        let cluster = Cluster::open(self.dirs[&node].path(), node, options)
            .await
            .unwrap();
        self.transport.register(&cluster);
        self.nodes.lock().unwrap().insert(node, cluster);
    }

    async fn of_three() -> Self {
        let group = Self {
            dirs: (1..=3).map(|node| (node, Dir::new())).collect(),
            nodes: Mutex::default(),
            transport: LocalTransport::default(),
        };
        for node in 1..=3 {
            group.start(node).await;
        }
        let first = group.node(1);
        first.initialize("n1").await.unwrap();
        for node in [2, 3] {
            first.add_learner(node, &format!("n{node}")).await.unwrap();
        }
        first
            .change_membership(BTreeSet::from([1, 2, 3]), false)
            .await
            .unwrap();
        group
    }

    fn node(&self, node: NodeId) -> Cluster {
        self.nodes.lock().unwrap()[&node].clone()
    }

    /// Waits until two of the managers name the same leader.
    async fn leader(&self) -> NodeId {
        let begun = Instant::now();
        loop {
            let named: Vec<NodeId> = (1..=3).filter_map(|node| self.node(node).leader()).collect();
            let agreed = named
                .iter()
                .find(|one| named.iter().filter(|other| other == one).count() > 1);
            if let Some(leader) = agreed {
                return *leader;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "nobody leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Client {
    number: u64,
    group: Arc<Group>,
    values: Arc<AtomicU64>,
    begun: Instant,
    /// Of each key: what was read last, and its revision.
    known: BTreeMap<u64, (u64, Option<u64>)>,
    events: Vec<(u64, Event)>,
}

fn json(name: &str, value: u64) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","uid":"u-{name}"}},"spec":{{"value":"{value}"}}}}"#
    )
}

fn value_of(bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).unwrap();
    let (_, rest) = text.split_once(r#""value":""#).unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

impl Client {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap()
    }

    async fn work(mut self, ending: Arc<AtomicBool>) -> Vec<(u64, Event)> {
        while !ending.load(Ordering::Relaxed) {
            let (at, node, kind) = {
                let mut rng = rand::rng();
                (
                    rng.random_range(0..KEYS),
                    rng.random_range(1..=3),
                    rng.random_range(0..10),
                )
            };
            let node = self.group.node(node);
            if node.metrics().stopped.is_some() {
                // Nothing more to learn there until it is back.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            match kind {
                0..4 => self.read(&node, at).await,
                4..6 => self.write(&node, at, None).await,
                _ => {
                    let known = self.known.get(&at).copied();
                    self.write(&node, at, known).await;
                }
            }
            let pause = rand::rng().random_range(1..20);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.events
    }

    async fn read(&mut self, node: &Cluster, at: u64) {
        let called = self.now();
        // A read that fails has seen nothing.
        let Ok(state) = node.read_index().await else {
            return;
        };
        let object = state.get(&key(&format!("k{at}")));
        let seen = object.map_or(0, |object| value_of(&object.bytes));
        self.known
            .insert(at, (seen, object.map(|object| object.revision)));
        self.events.push((at, event(Op::Read(seen), called, self.now())));
    }

    /// Writes; if something is known, on condition that it is still there.
    async fn write(&mut self, node: &Cluster, at: u64, known: Option<(u64, Option<u64>)>) {
        let (name, value) = (format!("k{at}"), self.values.fetch_add(1, Ordering::Relaxed));
        let txn = match known {
            None => Txn::new(),
            Some((_, None)) => Txn::new().check(key(&name), Expected::Absent),
            Some((_, Some(revision))) => Txn::new().check(key(&name), Expected::Revision(revision)),
        };
        let done = known.map_or(Op::Write(value), |(old, _)| Op::Swap(old, value));
        let called = self.now();
        // A client that waits for long gives up, without knowing.
        let submit = node.submit(txn.put(key(&name), json(&name, value)));
        let outcome = tokio::time::timeout(Duration::from_secs(2), submit).await;
        let answered = self.now();
        match (outcome, known) {
            (Ok(Ok(ok)), _) => {
                self.known.insert(at, (value, Some(ok.revision)));
                self.events.push((at, event(done, called, answered)));
            }
            (Ok(Err(RaftError::Rejected(_))), Some((old, _))) => {
                self.known.remove(&at);
                self.events.push((at, event(Op::NoSwap(old), called, answered)));
            }
            // Documented to have changed nothing; if it has, somebody reads what nobody wrote.
            (Ok(Err(RaftError::NotLeader { .. } | RaftError::NotInitialized)), _) => {}
            (Err(_) | Ok(Err(RaftError::Closed | RaftError::Unreachable(_))), _) => {
                self.events.push((at, event(done, called, None)));
                // Few of these, or nothing could be told any more.
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            (Ok(Err(e)), _) => panic!("client {}: {e}", self.number),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_are_linearizable_while_leaders_are_lost() {
    let group = Arc::new(Group::of_three().await);
    let (ending, values) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client {
                number,
                group: group.clone(),
                values: values.clone(),
                begun,
                known: BTreeMap::new(),
                events: Vec::new(),
            };
            tokio::spawn(client.work(ending.clone()))
        })
        .collect();
    for round in 0..ROUNDS {
        let leader = group.leader().await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        match round % 2 {
            // It goes on for a while, and thinks that it leads.
            0 => {
                group.transport.isolate(leader, true);
                tokio::time::sleep(Duration::from_millis(1200)).await;
                group.transport.isolate(leader, false);
            }
            // It ends, and comes back with what is on its disk.
            _ => {
                group.node(leader).shutdown().await;
                tokio::time::sleep(Duration::from_millis(700)).await;
                group.start(leader).await;
            }
        }
    }
    group.leader().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    ending.store(true, Ordering::Relaxed);
    let mut histories: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
    for client in clients {
        for (at, event) in client.await.unwrap() {
            histories.entry(at).or_default().push(event);
        }
    }
    for (at, history) in &histories {
        let open = history.iter().filter(|event| event.answered.is_none()).count();
        let writes = history
            .iter()
            .filter(|event| matches!(event.op, Op::Write(_) | Op::Swap(..)))
            .count();
        eprintln!(
            "key {at}: {} operations, {writes} writes, {open} without an answer",
            history.len()
        );
        assert!(history.len() > 30 && writes > 10, "too little was tried");
        assert!(is_linearizable(history), "key {at}: {history:#?}");
    }
    for node in 1..=3 {
        group.node(node).shutdown().await;
    }
}
