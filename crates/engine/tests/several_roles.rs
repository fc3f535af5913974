//! Several daemons in one process: the leader goes, and a node is there twice.

mod common;

use std::time::{Duration, Instant};

use common::host::{Host, free_port, leader_among, options_of, set_role, state_of, until};
use tripod_engine::{Engine, Filters, Manager};
use tripod_model::node::{NodeRole, NodeState, NodeSwarmSpec};

/// All managers of `hosts` know each other, and one of them leads.
async fn settled(hosts: &[&Host]) -> usize {
    for host in hosts {
        until("all managers to be in the group", || {
            let nodes = host.engine.manager().ok()?.nodes(&Filters::new()).ok()?;
            (nodes.iter().filter(|n| n.status.manager.is_some()).count() == hosts.len()).then_some(())
        })
        .await;
    }
    leader_among(hosts).await
}

/// `demoted` has become a worker, and the leader among `rest` counts it as one that is ready.
async fn worker_now(demoted: &Host, rest: &[&Host]) {
    until("the old leader to be a worker", || {
        demoted
            .engine
            .manager()
            .is_err_and(|e| e.message.contains("Worker nodes can't be used"))
            .then_some(())
    })
    .await;
    let leader = rest[leader_among(rest).await].manager();
    let id = demoted.engine.node_id();
    until("its standing as a worker", || {
        let node = leader.node(&id).ok()?;
        let worker = node.spec.swarm.role == NodeRole::Worker && node.status.manager.is_none();
        (worker && node.status.state == NodeState::Ready && leader.acknowledged().borrow().contains_key(&id))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_demoted_by_itself_and_by_another() {
    let (a, b, c) = (Host::first().await, Host::new("h2").await, Host::new("h3").await);
    b.join(&a, NodeRole::Manager).await;
    c.join(&a, NodeRole::Manager).await;
    let mut managers = vec![&a, &b, &c];
    let old = managers.remove(settled(&managers).await);
    let begun = Instant::now();
    set_role(old, old, NodeRole::Worker).await;
    worker_now(old, &managers).await;
    eprintln!("a leader is a worker after {:?}", begun.elapsed());
    // It comes back, and goes again: this time the other one says so.
    set_role(managers[0], old, NodeRole::Manager).await;
    let all = [&a, &b, &c];
    let leader = settled(&all).await;
    let mut rest = all.to_vec();
    let old = rest.remove(leader);
    set_role(rest[0], old, NodeRole::Worker).await;
    worker_now(old, &rest).await;
    // Of two managers, the leader goes, and the other leads alone.
    let leader = leader_among(&rest).await;
    let old = rest.remove(leader);
    set_role(old, old, NodeRole::Worker).await;
    worker_now(old, &rest).await;
    let manager = rest[0].manager();
    let node = manager.node(&rest[0].engine.node_id()).unwrap();
    let spec = NodeSwarmSpec {
        role: NodeRole::Worker,
        ..node.spec.swarm.clone()
    };
    let refused = manager
        .node_update(&node.spec.swarm.node_id, node.metadata.revision(), spec)
        .await
        .unwrap_err();
    assert!(
        refused
            .message
            .contains("attempting to demote the last manager of the swarm"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_leaves_and_the_others_go_on() {
    let (a, b, c) = (Host::first().await, Host::new("h2").await, Host::new("h3").await);
    b.join(&a, NodeRole::Manager).await;
    c.join(&a, NodeRole::Manager).await;
    let mut managers = vec![&a, &b, &c];
    let old = managers.remove(settled(&managers).await);
    let id = old.engine.node_id();
    let begun = Instant::now();
    old.engine.swarm_leave(true).await.unwrap();
    eprintln!("a leader has left after {:?}", begun.elapsed());
    let leader = managers[leader_among(&managers).await].manager();
    until("its absence to be known", || {
        (state_of(&leader, &id) == NodeState::Down).then_some(())
    })
    .await;
    assert_eq!(leader.db().cluster().metrics().voters.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_there_twice_is_refused() {
    let a = Host::first().await;
    let mut b = Host::new("h2").await;
    b.join(&a, NodeRole::Worker).await;
    let id = b.engine.node_id();
    // Its data root is copied to another machine, and runs there too.
    let (_copy, twin) = twin_of(&b).await;
    let refused = twin
        .open_session()
        .await
        .err()
        .expect("two nodes with one identifier");
    assert!(
        refused.message.contains("is in use by another machine"),
        "{refused}"
    );
    assert!(twin.info().error.contains("is in use by another machine"));
    assert_eq!(a.manager().node(&id).unwrap().status.addr, "127.0.0.1");
    assert_eq!(state_of(&a.manager(), &id), NodeState::Ready);
    // When the first one is gone, this is the node at its new address.
    b.stop().await;
    until("the first one's end", || {
        (!a.manager().acknowledged().borrow().contains_key(&id)).then_some(())
    })
    .await;
    let session = twin.open_session().await.expect("the only one");
    session.next().await.unwrap();
    assert_eq!(a.manager().node(&id).unwrap().status.addr, "127.0.0.2");
    assert_eq!(twin.info().error, "");
}

/// A copy of a host's data root, and a daemon that runs it at another address.
async fn twin_of(host: &Host) -> (tempfile::TempDir, Engine) {
    let copy = tempfile::tempdir().unwrap();
    for file in walk(host.dir.path()) {
        let to = copy.path().join(file.strip_prefix(host.dir.path()).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&file, &to).unwrap();
    }
    let standing = copy.path().join("standing.json");
    let text = std::fs::read_to_string(&standing).unwrap();
    let moved = text.replace(&host.address(), &format!("127.0.0.2:{}", host.port));
    assert_ne!(moved, text);
    std::fs::write(&standing, moved).unwrap();
    let twin = Engine::open(copy.path(), options_of("twin", free_port()))
        .await
        .unwrap();
    (copy, twin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_manager_has_no_say_in_the_group() {
    let a = Host::first().await;
    let (b, c) = (Host::new("h2").await, Host::new("h3").await);
    b.join(&a, NodeRole::Manager).await;
    c.join(&a, NodeRole::Manager).await;
    let before = c.manager().db().cluster().metrics().leadership;
    assert_eq!(before.leader, Some(a.manager().db().cluster().node_id()));
    // Copies of the leader, which leads on as it reads in its store, and of another manager, which nobody tells anything
    // and which stands for election.
    let (_first, leader) = twin_of(&a).await;
    let (_second, follower) = twin_of(&b).await;
    let own = leader.manager().unwrap();
    let alone = tokio::time::timeout(Duration::from_secs(4), write(&own, "of-a-copy")).await;
    assert!(
        !matches!(alone, Ok(Ok(_))),
        "the copy of a leader writes by itself"
    );
    // The group goes on under its leader.
    write(&c.manager(), "of-the-group").await.unwrap();
    let after = c.manager().db().cluster().metrics().leadership;
    assert_eq!((after.leader, after.term), (before.leader, before.term));
    assert!(c.manager().config("of-a-copy").is_err());
    assert!(c.manager().config("of-the-group").is_ok());
    drop(follower);
}

async fn write(manager: &Manager, name: &str) -> tripod_model::Result<()> {
    let data = tripod_model::data::SwarmData::default();
    manager.config_create(name, data, b"x").await.map(drop)
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => walk(&path),
            false => vec![path],
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_cluster_opens_nothing() {
    let (a, other) = (Host::first().await, Host::first().await);
    let mut b = Host::new("h2").await;
    b.join(&a, NodeRole::Worker).await;
    b.stop().await;
    let standing = b.dir.path().join("standing.json");
    let text = std::fs::read_to_string(&standing).unwrap();
    std::fs::write(&standing, text.replace(&a.address(), &other.address())).unwrap();
    b.engine = Engine::open(b.dir.path(), options_of("h2", b.port))
        .await
        .unwrap();
    let refused = b
        .engine
        .open_session()
        .await
        .err()
        .expect("a stranger with a certificate");
    assert!(refused.message.contains("handshake failed"), "{refused}");
    let nodes = other.manager().nodes(&Filters::new()).unwrap();
    assert_eq!(nodes.len(), 1);
}
