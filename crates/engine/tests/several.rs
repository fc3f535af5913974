//! Several daemons in one process: joining, roles, certificates, the loss of the leader, leaving.

mod common;

use std::time::{Duration, Instant};

use common::host::{Host, leader_among, set_role, state_of, until};
use tripod_engine::{ClusterUpdate, Filters, InitRequest, Membership};
use tripod_model::ErrorKind;
use tripod_model::node::{NodeRole, NodeState, NodeSwarmSpec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_joins_is_ready_and_leaves() {
    let a = Host::first().await;
    let b = Host::new("h2").await;
    b.join(&a, NodeRole::Worker).await;
    let manager = a.manager();
    let node = manager.node(&b.engine.node_id()).unwrap();
    assert_eq!(node.status.state, NodeState::Ready);
    assert_eq!(
        (node.metadata.name.as_str(), node.status.addr.as_str()),
        ("h2", "127.0.0.1")
    );
    assert!(node.status.manager.is_none());
    assert!(node.status.description.trust_root.contains("BEGIN CERTIFICATE"));
    let refused = b.engine.manager().unwrap_err();
    assert!(
        refused.message.contains("Worker nodes can't be used"),
        "{refused}"
    );
    let info = b.engine.info();
    assert!(!info.control_available);
    assert_eq!(info.remote_managers[0].addr, a.address());
    let again = b.engine.swarm_join(b.request(&a, "x")).await.unwrap_err();
    assert!(again.message.contains("already part of a swarm"), "{again}");

    let id = b.engine.node_id();
    assert!(
        manager
            .node_remove(&id, false)
            .await
            .unwrap_err()
            .message
            .contains("is not down")
    );
    b.engine.swarm_leave(false).await.unwrap();
    until("the node to be down", || {
        (state_of(&manager, &id) == NodeState::Down).then_some(())
    })
    .await;
    manager.node_remove(&id, false).await.unwrap();
    assert_eq!(b.engine.membership(), Membership::Inactive);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_and_strangers_are_judged() {
    let (a, other) = (Host::first().await, Host::first().await);
    let b = Host::new("h2").await;
    let join = async |token: &str, to: &Host| b.engine.swarm_join(b.request(to, token)).await.unwrap_err();
    let status = a.manager().swarm_inspect().unwrap().status;
    assert_eq!(join("nonsense", &a).await.message, "invalid join token");
    let foreign = other.manager().swarm_inspect().unwrap().status.worker_token;
    assert!(
        join(&foreign, &a)
            .await
            .message
            .contains("does not match fingerprint")
    );
    let mut wrong = status.worker_token.clone();
    wrong.replace_range(wrong.len() - 3.., "zzz");
    let refused = join(&wrong, &a).await;
    assert!(
        refused.message.contains("A valid join token is necessary"),
        "{refused}"
    );
    // To oneself, where nobody listens yet.
    let refused = b
        .engine
        .swarm_join(b.request(&b, &status.worker_token))
        .await
        .unwrap_err();
    assert!(refused.message.contains("connection refused"), "{refused}");
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    // A token that was replaced.
    let manager = a.manager();
    let cluster = manager.swarm_inspect().unwrap();
    let update = ClusterUpdate {
        spec: cluster.spec.clone(),
        rotate_worker_token: true,
        ..ClusterUpdate::default()
    };
    manager
        .swarm_update(cluster.metadata.revision(), update)
        .await
        .unwrap();
    assert!(
        join(&status.worker_token, &a)
            .await
            .message
            .contains("A valid join token")
    );
    assert_eq!(b.engine.membership(), Membership::Inactive);
    assert_eq!(manager.nodes(&Filters::new()).unwrap().len(), 1);
    b.join(&a, NodeRole::Worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_managers_agree_and_lose_their_leader() {
    let mut a = Host::first().await;
    let (b, c, w) = (
        Host::new("h2").await,
        Host::new("h3").await,
        Host::new("h4").await,
    );
    b.join(&a, NodeRole::Manager).await;
    c.join(&b, NodeRole::Manager).await;
    w.join(&c, NodeRole::Worker).await;
    for host in [&a, &b, &c] {
        until("all managers to be known", || {
            let nodes = host.manager().nodes(&Filters::new()).ok()?;
            let managers = nodes.iter().filter_map(|n| n.status.manager.as_ref());
            let (mut leaders, mut reachable) = (0, 0);
            managers.for_each(|m| {
                leaders += usize::from(m.leader);
                reachable += usize::from(m.reachable);
            });
            let ready = nodes
                .iter()
                .filter(|n| n.status.state == NodeState::Ready)
                .count();
            ((leaders, reachable, ready) == (1, 3, 4)).then_some(())
        })
        .await;
    }
    // Any manager takes writes and shows them.
    let manager = c.manager();
    let cluster = manager.swarm_inspect().unwrap();
    let mut spec = cluster.spec.clone();
    spec.labels.insert("by".into(), "c".into());
    let update = ClusterUpdate {
        spec,
        ..ClusterUpdate::default()
    };
    manager
        .swarm_update(cluster.metadata.revision(), update)
        .await
        .unwrap();
    assert_eq!(manager.swarm_inspect().unwrap().spec.labels["by"], "c");

    let (dead, begun) = (a.engine.node_id(), Instant::now());
    a.stop().await;
    let new = leader_among(&[&b, &c]).await;
    eprintln!("another manager leads after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10));
    let leader = [&b, &c][new].manager();
    let worker = w.engine.node_id();
    until("the worker's new session", || {
        leader.acknowledged().borrow().contains_key(&worker).then_some(())
    })
    .await;
    until("the dead one to be known", || {
        let node = leader.node(&dead).ok()?;
        (!node.status.manager?.reachable).then_some(())
    })
    .await;
    // The last but one cannot go: the rest would be no majority.
    let node = leader.node(&b.engine.node_id()).unwrap();
    let spec = NodeSwarmSpec {
        role: NodeRole::Worker,
        ..node.spec.swarm.clone()
    };
    let refused = leader
        .node_update(&b.engine.node_id(), node.metadata.revision(), spec)
        .await;
    assert!(refused.unwrap_err().message.contains("loss of quorum"));
    // A stale manager comes back and follows.
    a.start_again().await;
    until("the old leader to follow", || {
        let manager = a.engine.manager().ok()?;
        (!manager.leads() && state_of(&leader, &dead) == NodeState::Ready).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_change_and_managers_leave() {
    let a = Host::first().await;
    let (b, c) = (Host::new("h2").await, Host::new("h3").await);
    b.join(&a, NodeRole::Worker).await;
    c.join(&a, NodeRole::Worker).await;
    for host in [&b, &c] {
        set_role(&a, host, NodeRole::Manager).await;
        until("a new manager", || host.engine.manager().ok()).await;
    }
    until("all to be in the group", || {
        let nodes = a.manager().nodes(&Filters::new()).ok()?;
        (nodes.iter().filter(|n| n.status.manager.is_some()).count() == 3).then_some(())
    })
    .await;
    set_role(&b, &c, NodeRole::Worker).await;
    until("the manager to be a worker again", || {
        c.engine.manager().is_err().then_some(())
    })
    .await;
    let new = leader_among(&[&a, &b]).await;
    let leader = [&a, &b][new];
    until("a worker's standing", || {
        let node = leader.manager().node(&c.engine.node_id()).ok()?;
        (node.status.manager.is_none() && node.status.state == NodeState::Ready).then_some(())
    })
    .await;
    let refused = leader.engine.swarm_leave(false).await.unwrap_err();
    assert!(
        refused
            .message
            .starts_with("You are attempting to leave the swarm"),
        "{refused}"
    );
    assert!(
        refused.message.contains("leaves 1 managers out of 2"),
        "{refused}"
    );
    leader.engine.swarm_leave(true).await.unwrap();
    let rest = [&b, &a][new];
    until("the last manager to lead", || {
        rest.engine.manager().ok()?.leads().then_some(())
    })
    .await;
    let manager = rest.manager();
    let node = manager.node(&rest.engine.node_id()).unwrap();
    let spec = NodeSwarmSpec {
        role: NodeRole::Worker,
        ..node.spec.swarm.clone()
    };
    let refused = manager
        .node_update(&rest.engine.node_id(), node.metadata.revision(), spec)
        .await;
    assert!(refused.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_is_recovered() {
    let a = Host::first().await;
    let mut b = Host::new("h2").await;
    b.join(&a, NodeRole::Manager).await;
    let cluster = a.engine.cluster_id();
    b.stop().await;
    let request = InitRequest {
        force_new_cluster: true,
        advertise_addr: a.address(),
        ..InitRequest::default()
    };
    a.engine.swarm_init(request).await.unwrap();
    assert_eq!(a.engine.cluster_id(), cluster);
    let manager = a.manager();
    until("it to lead", || manager.leads().then_some(())).await;
    let gone = manager.node(&b.engine.node_id()).unwrap();
    assert_eq!(
        (gone.spec.swarm.role, gone.status.manager),
        (NodeRole::Worker, None)
    );
    let c = Host::new("h3").await;
    c.join(&a, NodeRole::Manager).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_is_replaced_and_all_follow() {
    let a = Host::first().await;
    let (b, w) = (Host::new("h2").await, Host::new("h3").await);
    b.join(&a, NodeRole::Manager).await;
    w.join(&a, NodeRole::Worker).await;
    let manager = a.manager();
    let cluster = manager.swarm_inspect().unwrap();
    let mut spec = cluster.spec.clone();
    spec.force_rotate += 1;
    let update = ClusterUpdate {
        spec,
        ..ClusterUpdate::default()
    };
    manager
        .swarm_update(cluster.metadata.revision(), update)
        .await
        .unwrap();
    let now = manager.swarm_inspect().unwrap().status;
    assert!(now.root_rotation && now.ca_cert != cluster.status.ca_cert);
    until("the end of the rotation", || {
        let status = manager.swarm_inspect().ok()?.status;
        (!status.root_rotation && status.old_ca_cert.is_empty()).then_some(())
    })
    .await;
    let d = Host::new("h4").await;
    d.join(&b, NodeRole::Worker).await;
}
