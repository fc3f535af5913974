//! Making, keeping, locking and leaving a cluster.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{FakeNode, cluster, cluster_with, options, service, until};
use tripod_engine::{ClusterUpdate, Engine, Filters, InitRequest, JoinRequest, Membership};
use tripod_model::ErrorKind;
use tripod_model::node::{Availability, NodeRole, NodeState};
use tripod_model::swarm::SwarmSpec;

#[tokio::test]
async fn a_daemon_without_a_cluster_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = tripod_engine::Options {
        node_listen: None,
        ..options()
    };
    let engine = Engine::open(dir.path(), options).await.unwrap();
    assert_eq!(engine.membership(), Membership::Inactive);
    let none = engine.manager().unwrap_err();
    assert_eq!(none.kind, ErrorKind::Unavailable);
    assert!(
        none.message
            .starts_with("This node is not a swarm manager. Use \"docker swarm init\"")
    );
    let none = engine.swarm_leave(true).await.unwrap_err();
    assert_eq!(none.message, "This node is not part of a swarm");
    assert_eq!(
        engine.swarm_join(JoinRequest::default()).await.unwrap_err().kind,
        ErrorKind::Invalid
    );
    assert_eq!(engine.info().node_id, "");
    let unspecified = engine.swarm_init(InitRequest::default()).await.unwrap_err();
    assert!(unspecified.message.contains("--advertise-addr"), "{unspecified}");
    let bad = InitRequest {
        advertise_addr: "nonsense".into(),
        ..InitRequest::default()
    };
    assert!(
        engine
            .swarm_init(bad)
            .await
            .unwrap_err()
            .message
            .starts_with("invalid AdvertiseAddr")
    );
    let bad = InitRequest {
        advertise_addr: "192.0.2.1".into(),
        spec: SwarmSpec {
            node_cert_expiry: 1,
            ..SwarmSpec::default()
        },
        ..InitRequest::default()
    };
    assert!(engine.swarm_init(bad).await.is_err());
    assert_eq!(engine.membership(), Membership::Inactive);
}

#[tokio::test]
async fn init_makes_the_first_objects() {
    let c = cluster().await;
    let info = c.engine.info();
    assert_eq!(
        (info.state, info.nodes, info.managers),
        (Membership::Active, 1, 1)
    );
    assert_eq!(
        (info.node_addr.as_str(), info.remote_managers[0].addr.as_str()),
        ("192.0.2.1", "192.0.2.1:2377")
    );
    let node = c.manager.node("host_1").unwrap();
    assert_eq!(node.metadata.name, "host-1");
    assert_eq!(
        (node.spec.swarm.role, node.status.state),
        (NodeRole::Manager, NodeState::Unknown)
    );
    let swarm = c.manager.swarm_inspect().unwrap();
    assert_eq!(node.status.description.trust_root, swarm.status.ca_cert);
    assert!(swarm.status.worker_token.starts_with("SWMTKN-1-"));
    assert_ne!(swarm.status.worker_token, swarm.status.manager_token);
    let ingress = c.manager.network("ingress").unwrap();
    assert!(ingress.spec.ingress);
    assert_eq!(
        (
            ingress.spec.subnets[0].subnet.to_string().as_str(),
            ingress.spec.vni
        ),
        ("10.0.0.0/24", 4096)
    );
    let again = c
        .engine
        .swarm_init(InitRequest {
            advertise_addr: "192.0.2.1".into(),
            ..Default::default()
        })
        .await;
    assert!(
        again
            .unwrap_err()
            .message
            .starts_with("This node is already part of a swarm.")
    );
    for (file, mode) in [
        ("swarm-node.key", 0o600),
        ("swarm-node.crt", 0o644),
        ("swarm-root-ca.crt", 0o644),
    ] {
        let path = c.dir.path().join("certificates").join(file);
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            mode,
            "{file}"
        );
    }
}

#[tokio::test]
async fn a_session_makes_the_node_ready_and_its_end_makes_it_down() {
    let spec = SwarmSpec {
        heartbeat_period: 10_000_000,
        ..SwarmSpec::default()
    };
    let c = cluster_with(InitRequest {
        spec,
        ..InitRequest::default()
    })
    .await;
    let state = |wanted: NodeState| {
        move |m: &tripod_engine::Manager| (m.node("host_1").ok()?.status.state == wanted).then_some(())
    };
    let node = FakeNode::start(&c.manager);
    c.until("ready", state(NodeState::Ready)).await;
    drop(node);
    c.until("down", state(NodeState::Down)).await;
    let _node = FakeNode::start(&c.manager);
    c.until("ready again", state(NodeState::Ready)).await;
    assert!(c.manager.session("nosuchnode").is_err());
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let c = cluster().await;
    let node = FakeNode::start(&c.manager);
    c.manager.service_create(service("web", 2)).await.unwrap();
    c.running("web", 2).await;
    let mut before: Vec<String> = c
        .manager
        .tasks(&Filters::new())
        .unwrap()
        .iter()
        .map(|t| t.id().to_owned())
        .collect();
    let id = c.engine.node_id();
    drop(node);
    c.engine.shutdown().await;
    let common::Cluster { dir, engine, manager } = c;
    drop((engine, manager));

    let engine = Engine::open(dir.path(), options()).await.unwrap();
    assert_eq!((engine.membership(), engine.node_id()), (Membership::Active, id));
    let manager = engine.manager().unwrap();
    let mut after: Vec<String> = manager
        .tasks(&Filters::new())
        .unwrap()
        .iter()
        .map(|t| t.id().to_owned())
        .collect();
    before.sort();
    after.sort();
    assert_eq!(before, after);
    // What still runs is not replaced.
    let _node = FakeNode::start(&manager);
    let service = manager.service("web").unwrap();
    let spec = common::replicas(&service.spec, 3);
    let version = service.metadata.revision();
    manager
        .service_update("web", version, spec, Default::default())
        .await
        .unwrap();
    until(&manager, "three", |m| {
        (m.service_counts(&service).running == 3).then_some(())
    })
    .await;
    let tasks = manager.tasks(&Filters::new()).unwrap();
    assert_eq!(tasks.len(), 3);
    assert!(before.iter().all(|id| tasks.iter().any(|t| t.id() == id)));
}

#[tokio::test]
async fn leaving_needs_force_and_leaves_nothing() {
    let c = cluster().await;
    let refused = c.engine.swarm_leave(false).await.unwrap_err();
    assert!(
        refused
            .message
            .starts_with("You are attempting to leave the swarm on a node"),
        "{refused}"
    );
    c.engine.swarm_leave(true).await.unwrap();
    assert_eq!(c.engine.membership(), Membership::Inactive);
    assert_eq!(std::fs::read_dir(c.dir.path()).unwrap().count(), 0);
    // The old handle fails without waiting, and a new cluster is another one.
    assert!(c.manager.service_create(service("web", 1)).await.is_err());
    assert!(c.manager.network_remove("ingress").await.is_err());
    let request = InitRequest {
        advertise_addr: "192.0.2.1".into(),
        ..InitRequest::default()
    };
    let id = c.engine.swarm_init(request).await.unwrap();
    assert_ne!(id, c.manager.node_id());
}

#[tokio::test]
async fn tokens_rotate() {
    let c = cluster().await;
    let before = c.manager.swarm_inspect().unwrap();
    let version = before.metadata.revision();
    let update = ClusterUpdate {
        spec: before.spec.clone(),
        rotate_worker_token: true,
        ..ClusterUpdate::default()
    };
    c.manager.swarm_update(version, update.clone()).await.unwrap();
    let after = c.manager.swarm_inspect().unwrap();
    assert_ne!(before.status.worker_token, after.status.worker_token);
    assert_eq!(before.status.manager_token, after.status.manager_token);
    let stale = c.manager.swarm_update(version, update.clone()).await.unwrap_err();
    assert_eq!(
        (stale.kind, stale.message.as_str()),
        (ErrorKind::OutOfSequence, "update out of sequence")
    );

    let mut rotate = ClusterUpdate {
        spec: after.spec.clone(),
        ..ClusterUpdate::default()
    };
    rotate.spec.force_rotate += 1;
    c.manager
        .swarm_update(after.metadata.revision(), rotate)
        .await
        .unwrap();
    let rotated = c.manager.swarm_inspect().unwrap();
    assert_ne!(rotated.status.ca_cert, after.status.ca_cert);
    assert_ne!(rotated.status.manager_token, after.status.manager_token);
    let node = c.manager.node("host_1").unwrap();
    assert_eq!(node.status.description.trust_root, rotated.status.ca_cert);
    let kept = std::fs::read_to_string(c.dir.path().join("certificates/swarm-root-ca.crt")).unwrap();
    assert!(kept.starts_with(&rotated.status.ca_cert));
}

#[tokio::test]
async fn a_locked_manager_opens_with_its_key_only() {
    let spec = SwarmSpec {
        autolock: true,
        ..SwarmSpec::default()
    };
    let c = cluster_with(InitRequest {
        spec,
        ..InitRequest::default()
    })
    .await;
    let key = c.manager.unlock_key().unwrap();
    assert!(key.starts_with("SWMKEY-1-"));
    assert!(!c.dir.path().join("certificates/swarm-node.key").exists());
    c.manager.service_create(service("web", 1)).await.unwrap();
    c.engine.shutdown().await;
    let dir = c.dir;
    drop((c.engine, c.manager));

    let engine = Engine::open(dir.path(), options()).await.unwrap();
    assert_eq!(engine.membership(), Membership::Locked);
    assert!(
        engine
            .manager()
            .unwrap_err()
            .message
            .starts_with("Swarm is encrypted and needs to be unlocked")
    );
    let wrong = engine
        .swarm_unlock("SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
        .await
        .unwrap_err();
    assert_eq!(wrong.message, "swarm could not be unlocked: invalid key provided");
    engine.swarm_unlock(&key).await.unwrap();
    let manager = engine.manager().unwrap();
    assert_eq!(manager.service("web").unwrap().spec.name, "web");
    assert_eq!(
        engine.swarm_unlock(&key).await.unwrap_err().message,
        "swarm is not locked"
    );

    // A new key replaces the old one; without locking none is needed.
    let cluster = manager.swarm_inspect().unwrap();
    let rotate = ClusterUpdate {
        spec: cluster.spec.clone(),
        rotate_unlock_key: true,
        ..ClusterUpdate::default()
    };
    manager
        .swarm_update(cluster.metadata.revision(), rotate)
        .await
        .unwrap();
    let new_key = manager.unlock_key().unwrap();
    assert_ne!(key, new_key);
    engine.shutdown().await;
    drop((engine, manager));
    let engine = Engine::open(dir.path(), options()).await.unwrap();
    assert!(engine.swarm_unlock(&key).await.is_err());
    engine.swarm_unlock(&new_key).await.unwrap();
    let manager = engine.manager().unwrap();
    let cluster = manager.swarm_inspect().unwrap();
    let mut open = ClusterUpdate {
        spec: cluster.spec.clone(),
        ..ClusterUpdate::default()
    };
    open.spec.autolock = false;
    manager
        .swarm_update(cluster.metadata.revision(), open)
        .await
        .unwrap();
    assert_eq!(manager.unlock_key().unwrap(), "");
    engine.shutdown().await;
    drop((engine, manager));
    let engine = Engine::open(dir.path(), options()).await.unwrap();
    assert_eq!(engine.membership(), Membership::Active);
    assert!(dir.path().join("certificates/swarm-node.key").exists());
}

#[tokio::test]
async fn nodes_change_but_the_last_manager_stays() {
    let c = cluster().await;
    let node = c.manager.node("host_1").unwrap();
    let mut spec = node.spec.swarm.clone();
    spec.role = NodeRole::Worker;
    let refused = c
        .manager
        .node_update("host_1", node.metadata.revision(), spec.clone())
        .await
        .unwrap_err();
    assert_eq!(
        refused.message,
        "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm"
    );
    spec.role = NodeRole::Manager;
    spec.availability = Availability::Drain;
    spec.labels.insert("zone".into(), "a".into());
    // The controllers write to the node as well: who is overtaken looks again, as the docker client's user does.
    loop {
        let revision = c.manager.node("host_1").unwrap().metadata.revision();
        match c.manager.node_update("host_1", revision, spec.clone()).await {
            Err(e) if e.kind == ErrorKind::OutOfSequence => {}
            done => break drop(done.unwrap()),
        }
    }
    let found = c
        .manager
        .nodes(&Filters::from_iter([("node.label", "zone=a")]))
        .unwrap();
    assert_eq!(found[0].spec.swarm.availability, Availability::Drain);
    let refused = c.manager.node_remove("host_1", true).await.unwrap_err();
    assert!(
        refused
            .message
            .contains("is a cluster manager and is a member of the raft cluster"),
        "{refused}"
    );
}
