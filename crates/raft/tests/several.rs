//! Three managers in one process: agreement, forwarding, loss of the leader, catching up by log and by snapshot.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{Dir, put};
use tripod_raft::store::WatchFilter;
use tripod_raft::{Cluster, LocalTransport, NodeId, Options, RaftError};

struct Group {
    dirs: BTreeMap<NodeId, Dir>,
    nodes: BTreeMap<NodeId, Cluster>,
    transport: LocalTransport,
}

impl Group {
    fn options(&self, node: NodeId) -> Options {
        Options {
            heartbeat: Duration::from_millis(50),
            election: (Duration::from_millis(200), Duration::from_millis(400)),
            snapshot_entries: 100,
            segment_bytes: 32 << 10,
            transport: Arc::new(self.transport.of(node)),
            ..Options::default()
        }
    }

    async fn start(&mut self, node: NodeId) {
        let dir = self.dirs.entry(node).or_insert_with(Dir::new).path();
        let cluster = Cluster::open(dir, node, self.options(node)).await.unwrap();
        self.transport.register(&cluster);
        self.nodes.insert(node, cluster);
    }

    async fn of_three() -> Self {
        let mut group = Self {
            dirs: BTreeMap::new(),
            nodes: BTreeMap::new(),
            transport: LocalTransport::default(),
        };
        for node in 1..=3 {
            group.start(node).await;
        }
        group.nodes[&1].initialize("n1").await.unwrap();
        for node in [2, 3] {
            group.nodes[&1]
                .add_learner(node, &format!("n{node}"))
                .await
                .unwrap();
        }
        group.nodes[&1]
            .change_membership(BTreeSet::from([1, 2, 3]), false)
            .await
            .unwrap();
        group
    }

    async fn stop(self) {
        for cluster in self.nodes.values() {
            cluster.shutdown().await;
        }
    }
}

/// Waits until a node knows a leader that satisfies the condition.
async fn leader_at(cluster: &Cluster, accept: impl Fn(NodeId) -> bool) -> NodeId {
    let mut leadership = cluster.leadership();
    let found = leadership.wait_for(|l| l.leader.is_some_and(&accept));
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .expect("a leader")
        .unwrap()
        .leader
        .unwrap()
}

/// Submits until some leader takes it; only for writes that may safely happen twice.
async fn insist(cluster: &Cluster, name: &str) -> u64 {
    let attempt = async {
        loop {
            match cluster.submit(put(name)).await {
                Ok(ok) => return ok.revision,
                Err(RaftError::NotLeader { .. } | RaftError::Unreachable(_)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(e) => panic!("{e}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), attempt)
        .await
        .expect("a leader that takes writes")
}

async fn reached(cluster: &Cluster, revision: u64) {
    let wait = cluster.revision_reached(revision);
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("it catches up")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_manager_takes_writes_and_all_agree() {
    let group = Group::of_three().await;
    for node in [1, 2, 3] {
        leader_at(&group.nodes[&node], |_| true).await;
        let ok = group.nodes[&node]
            .submit(put(&format!("from-{node}")))
            .await
            .unwrap();
        assert_eq!(
            group.nodes[&2].read_index().await.unwrap().revision(),
            ok.revision
        );
    }
    let mut watch = group.nodes[&3].watch(WatchFilter::all(), 0).unwrap();
    for revision in 1..=3 {
        assert_eq!(watch.next().await.unwrap().unwrap().revision, revision);
    }
    for node in [1, 2, 3] {
        reached(&group.nodes[&node], 3).await;
        assert_eq!(group.nodes[&node].metrics().voters.len(), 3);
    }
    let snapshot = |node| {
        let mut bytes = Vec::new();
        group.nodes[&node].read().write_snapshot(&mut bytes).unwrap();
        bytes
    };
    assert!(snapshot(1) == snapshot(2) && snapshot(2) == snapshot(3));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_returns() {
    let group = Group::of_three().await;
    let old = leader_at(&group.nodes[&2], |_| true).await;
    insist(&group.nodes[&old], "before").await;
    group.transport.isolate(old, true);
    let other = if old == 1 { 2 } else { 1 };
    let new = leader_at(&group.nodes[&other], |leader| leader != old).await;
    let revision = insist(&group.nodes[&new], "after").await;
    // Alone, the old one acknowledges nothing and answers no linearizable read.
    let alone = &group.nodes[&old];
    assert!(
        tokio::time::timeout(Duration::from_millis(300), alone.submit(put("lost")))
            .await
            .map_or(true, |r| r.is_err())
    );
    assert!(alone.read_index().await.is_err());
    // After a while it does not think that it leads.
    let mut leadership = alone.leadership();
    let over = leadership.wait_for(|known| known.leader.is_none());
    tokio::time::timeout(Duration::from_secs(20), over)
        .await
        .expect("its end")
        .unwrap();
    group.transport.isolate(old, false);
    reached(alone, revision).await;
    let last = insist(alone, "again").await;
    for node in [1, 2, 3] {
        reached(&group.nodes[&node], last).await;
    }
    let states: Vec<_> = [1, 2, 3]
        .map(|node| group.nodes[&node].read_index())
        .into_iter()
        .collect();
    let mut lens = BTreeSet::new();
    for state in states {
        lens.insert(state.await.unwrap().len());
    }
    assert_eq!(lens.len(), 1, "{lens:?}");
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_the_group_leads_no_more() {
    let group = Group::of_three().await;
    let old = leader_at(&group.nodes[&2], |_| true).await;
    insist(&group.nodes[&old], "before").await;
    let rest: BTreeSet<NodeId> = [1, 2, 3].into_iter().filter(|node| *node != old).collect();
    group.nodes[&old]
        .change_membership(rest.clone(), false)
        .await
        .unwrap();
    let mut leadership = group.nodes[&old].leadership();
    let over = leadership.wait_for(|known| known.leader.is_none());
    tokio::time::timeout(Duration::from_secs(20), over)
        .await
        .expect("its end")
        .unwrap();
    for node in &rest {
        let new = leader_at(&group.nodes[node], |leader| leader != old).await;
        assert!(rest.contains(&new));
        insist(&group.nodes[node], &format!("after-{node}")).await;
    }
    assert_eq!(group.nodes[&old].metrics().leadership.leader, None);
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_far_behind_gets_a_snapshot_and_its_watchers_are_told() {
    let mut group = Group::of_three().await;
    let leader = leader_at(&group.nodes[&1], |_| true).await;
    let behind = if leader == 3 { 2 } else { 3 };
    insist(&group.nodes[&leader], "seen").await;
    reached(&group.nodes[&behind], 1).await;
    let mut watch = group.nodes[&behind].watch(WatchFilter::all(), 1).unwrap();
    group.transport.isolate(behind, true);
    let mut last = 0;
    for i in 0..600 {
        last = insist(&group.nodes[&leader], &format!("p{i}")).await;
    }
    group.transport.isolate(behind, false);
    reached(&group.nodes[&behind], last).await;
    let told = async {
        loop {
            match watch.next().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return true,
                None => return false,
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), told).await.unwrap());
    // All at once go away and come back.
    for cluster in group.nodes.values() {
        cluster.shutdown().await;
    }
    group.nodes.clear();
    for node in 1..=3 {
        group.start(node).await;
    }
    let revision = insist(&group.nodes[&behind], "after all").await;
    assert!(revision > last);
    for node in 1..=3 {
        reached(&group.nodes[&node], revision).await;
        assert_eq!(group.nodes[&node].read().len(), 602);
    }
    group.stop().await;
}
