//! Services from creation to removal, on a cluster of one with a pretended node.

mod common;

use common::{FakeNode, cluster, replicas, service};
use tripod_engine::{Filters, NetworkRequest, ServiceUpdate};
use tripod_model::ErrorKind;
use tripod_model::data::SwarmData;
use tripod_model::pod::DesiredState;
use tripod_model::swarm::*;

#[tokio::test]
async fn create_scale_and_remove() {
    let c = cluster().await;
    let _node = FakeNode::start(&c.manager);
    let created = c.manager.service_create(service("web", 3)).await.unwrap();
    let running = c.running("web", 3).await;
    assert_eq!(running.metadata.name, created.metadata.name);
    let tasks = c
        .manager
        .tasks(&Filters::from_iter([("service", "web")]))
        .unwrap();
    assert_eq!(tasks.len(), 3);
    assert!(tasks.iter().all(|t| t.node_id == c.manager.node_id()));
    assert_eq!(c.manager.task(tasks[0].id()).unwrap().id(), tasks[0].id());

    let version = c.manager.service("web").unwrap().metadata.revision();
    let spec = replicas(&running.spec, 5);
    c.manager
        .service_update("web", version, spec.clone(), ServiceUpdate::default())
        .await
        .unwrap();
    c.running("web", 5).await;
    let stale = c
        .manager
        .service_update("web", version, spec.clone(), ServiceUpdate::default())
        .await;
    let stale = stale.unwrap_err();
    assert_eq!(
        (stale.kind, stale.message.as_str()),
        (ErrorKind::OutOfSequence, "update out of sequence")
    );

    let version = c.manager.service("web").unwrap().metadata.revision();
    c.manager
        .service_update("web", version, replicas(&spec, 1), ServiceUpdate::default())
        .await
        .unwrap();
    c.running("web", 1).await;

    c.manager
        .service_remove(&created.metadata.name[..10])
        .await
        .unwrap();
    c.until("no tasks", |m| {
        m.tasks(&Filters::new()).unwrap().is_empty().then_some(())
    })
    .await;
    assert_eq!(
        c.manager.service("web").unwrap_err().message,
        "service web not found"
    );
    assert_eq!(
        c.manager
            .db()
            .snapshot()
            .list::<tripod_model::pod::Pod>(None)
            .unwrap()
            .len(),
        0
    );
}

#[tokio::test]
async fn names_are_unique_and_prefixes_must_be_clear() {
    let c = cluster().await;
    let one = c.manager.service_create(service("web", 0)).await.unwrap();
    let taken = c.manager.service_create(service("WEB", 0)).await.unwrap_err();
    assert_eq!(taken.kind, ErrorKind::AlreadyExists);
    assert_eq!(
        taken.message,
        "name conflicts with an existing object: service WEB already exists"
    );
    assert_eq!(
        c.manager.service(&one.metadata.name[..8]).unwrap().metadata.name,
        one.metadata.name
    );
    let renamed = service("other", 0);
    let version = c.manager.service("web").unwrap().metadata.revision();
    let refused = c
        .manager
        .service_update("web", version, renamed, ServiceUpdate::default())
        .await;
    assert_eq!(refused.unwrap_err().message, "renaming services is not supported");
    let mut global = service("web", 0);
    global.mode = ServiceMode::Global {};
    let refused = c
        .manager
        .service_update("web", version, global, ServiceUpdate::default())
        .await;
    assert_eq!(refused.unwrap_err().message, "service mode change is not allowed");
    assert_eq!(
        c.manager
            .services(&Filters::from_iter([("mode", "global")]))
            .unwrap()
            .len(),
        0
    );
    let unknown = c
        .manager
        .services(&Filters::from_iter([("colour", "red")]))
        .unwrap_err();
    assert_eq!(
        (unknown.kind, unknown.message.as_str()),
        (ErrorKind::Invalid, "invalid filter 'colour'")
    );
}

#[tokio::test]
async fn a_rolling_update_and_a_rollback() {
    let c = cluster().await;
    let _node = FakeNode::start(&c.manager);
    let mut spec = service("web", 2);
    let quick = UpdateConfig {
        parallelism: 2,
        monitor: 1_000_000,
        ..UpdateConfig::default()
    };
    spec.update_config = Some(quick.clone());
    spec.rollback_config = Some(quick);
    c.manager.service_create(spec.clone()).await.unwrap();
    c.running("web", 2).await;

    spec.task_template.container.image = "busybox:2".into();
    let version = c.manager.service("web").unwrap().metadata.revision();
    c.manager
        .service_update("web", version, spec.clone(), ServiceUpdate::default())
        .await
        .unwrap();
    let image_runs = |image: &'static str| {
        move |m: &tripod_engine::Manager| {
            let service = m.service("web").ok()?;
            let update = service.status.update.clone()?;
            let tasks = m.tasks(&Filters::from_iter([("service", "web")])).ok()?;
            let running = tasks.iter().filter(|t| {
                t.pod.state.observed == TaskState::Running
                    && t.pod.state.desired == DesiredState::Running
                    && t.pod.swarm().unwrap().template.container.image == image
            });
            (running.count() == 2).then_some(update.state)
        }
    };
    let finished = |image: &'static str, wanted: UpdateState| {
        let look = image_runs(image);
        move |m: &tripod_engine::Manager| look(m).filter(|state| *state == wanted)
    };
    c.until("the update", finished("busybox:2", UpdateState::Completed))
        .await;

    let now = c.manager.service("web").unwrap();
    let how = ServiceUpdate {
        rollback: true,
        ..ServiceUpdate::default()
    };
    c.manager
        .service_update("web", now.metadata.revision(), spec, how)
        .await
        .unwrap();
    c.until(
        "the rollback",
        finished("busybox:1", UpdateState::RollbackCompleted),
    )
    .await;
}

#[tokio::test]
async fn a_failed_task_is_replaced_and_remembered() {
    let c = cluster().await;
    let node = FakeNode::start(&c.manager);
    let mut spec = service("web", 1);
    spec.task_template.restart_policy = Some(TaskRestartPolicy {
        delay: Some(1_000_000),
        ..TaskRestartPolicy::default()
    });
    c.manager.service_create(spec).await.unwrap();
    c.running("web", 1).await;
    let first = c.manager.tasks(&Filters::new()).unwrap().remove(0);
    node.exit(&first.pod, TaskState::Failed, 3);
    let tasks = c
        .until("the replacement", |m| {
            let tasks = m.tasks(&Filters::new()).unwrap();
            let running = tasks
                .iter()
                .any(|t| t.pod.state.observed == TaskState::Running && t.id() != first.id());
            running.then_some(tasks)
        })
        .await;
    assert_eq!(tasks.len(), 2);
    let failed = tasks.iter().find(|t| t.id() == first.id()).unwrap();
    assert_eq!(failed.pod.state.observed, TaskState::Failed);
    assert_eq!(failed.pod.state.exit_code, Some(3));
    assert_eq!(failed.pod.state.error, "task: non-zero exit (3)");
    let ended = c
        .manager
        .tasks(&Filters::from_iter([("desired-state", "shutdown")]))
        .unwrap();
    assert_eq!(ended.len(), 1);
}

#[tokio::test]
async fn jobs_complete() {
    let c = cluster().await;
    let _node = FakeNode::start(&c.manager);
    let mut spec = service("job", 0);
    spec.mode = ServiceMode::ReplicatedJob {
        max_concurrent: 2,
        total_completions: 3,
    };
    spec.task_template.restart_policy = Some(TaskRestartPolicy {
        condition: "on-failure".into(),
        ..TaskRestartPolicy::default()
    });
    c.manager.service_create(spec).await.unwrap();
    c.until("three completions", |m| {
        let service = m.service("job").ok()?;
        (m.service_counts(&service).completed == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn published_services_reach_the_node_as_frontends_and_names() {
    let c = cluster().await;
    let node = FakeNode::start(&c.manager);
    let net = NetworkRequest {
        name: "back".into(),
        ..NetworkRequest::default()
    };
    let net = c.manager.network_create(net).await.unwrap();
    assert_eq!(net.spec.subnets[0].subnet.to_string(), "10.0.1.0/24");
    assert_eq!(net.spec.vni, 4097);
    let mut spec = service("web", 2);
    spec.task_template.networks = vec![NetworkAttachmentConfig {
        target: "back".into(),
        ..NetworkAttachmentConfig::default()
    }];
    let port = PortConfig {
        target_port: 80,
        published_port: 8080,
        ..PortConfig::default()
    };
    spec.endpoint_spec = Some(EndpointSpec {
        ports: vec![port],
        ..EndpointSpec::default()
    });
    let created = c.manager.service_create(spec.clone()).await.unwrap();
    assert_eq!(created.spec.task_template.networks[0].target, net.metadata.name);
    c.running("web", 2).await;
    spec.name = "web2".into();
    let clash = c.manager.service_create(spec).await.unwrap_err();
    assert!(
        clash
            .message
            .contains("port '8080' is already in use by service 'web'"),
        "{clash}"
    );
    let used = c.manager.network_remove("back").await.unwrap_err();
    let (network, service) = (&net.metadata.name, &created.metadata.name);
    assert_eq!(
        used.message,
        format!("network {network} is in use by service {service}")
    );
    let ingress = c.manager.network_remove("ingress").await.unwrap_err();
    assert!(
        ingress
            .message
            .starts_with("ingress network cannot be removed because service"),
        "{ingress}"
    );
    let revision = *c.manager.view_revision().borrow();
    let id = c.manager.node_id().to_owned();
    c.manager
        .acknowledged()
        .wait_for(|a| a.get(&id).is_some_and(|r| *r >= revision))
        .await
        .unwrap();
    {
        let seen = node.seen.lock().unwrap();
        let overlays = seen.networks.keys().filter(|id| id.as_str() != "pods");
        assert_eq!(overlays.count(), 2, "the mesh and the service's network");
        let mesh = seen
            .frontends
            .iter()
            .find(|f| !f.published.is_empty())
            .expect("a published frontend");
        assert_eq!((mesh.published[0].host_port, mesh.backends.len()), (8080, 2));
        let inner = seen.frontends.iter().find(|f| f.network_id == *network).unwrap();
        assert_eq!(inner.backends.len(), 2);
        let names = &seen.names[network];
        let web = names
            .iter()
            .find(|n| n.name == "web")
            .expect("the service's name");
        assert_eq!(Some(web.addresses[0]), inner.vip);
    }
    c.manager.service_remove("web").await.unwrap();
    c.until("no tasks", |m| {
        m.tasks(&Filters::new()).unwrap().is_empty().then_some(())
    })
    .await;
    c.manager.network_remove("back").await.unwrap();
    assert_eq!(
        c.manager.network("back").unwrap_err().message,
        "network back not found"
    );
}

#[tokio::test]
async fn secrets_and_configs_in_use() {
    let c = cluster().await;
    let node = FakeNode::start(&c.manager);
    let secret = c
        .manager
        .secret_create("key", SwarmData::default(), b"s3cret")
        .await
        .unwrap();
    let config = c
        .manager
        .config_create("conf", SwarmData::default(), b"on")
        .await
        .unwrap();
    let again = c
        .manager
        .secret_create("key", SwarmData::default(), b"x")
        .await
        .unwrap_err();
    assert_eq!(
        (again.kind, again.message.as_str()),
        (ErrorKind::AlreadyExists, "secret key already exists")
    );
    let empty = c
        .manager
        .secret_create("e", SwarmData::default(), b"")
        .await
        .unwrap_err();
    assert_eq!(
        empty.message,
        "secret data must be larger than 0 and less than 512000 bytes"
    );
    let huge = c
        .manager
        .config_create("h", SwarmData::default(), &vec![0; 1_024_001])
        .await
        .unwrap_err();
    assert_eq!(
        huge.message,
        "config data must be larger than 0 and less than 1024000 bytes"
    );

    let reference = |id: &str, name: &str| {
        let file = DataFile {
            name: name.into(),
            uid: "0".into(),
            gid: "0".into(),
            mode: 0o444,
        };
        vec![DataReference {
            id: id.into(),
            name: name.into(),
            file: Some(file),
        }]
    };
    let mut spec = service("web", 1);
    spec.task_template.container.secrets = reference(&secret.metadata.name, "key");
    spec.task_template.container.configs = reference(&config.metadata.name, "conf");
    c.manager.service_create(spec.clone()).await.unwrap();
    c.running("web", 1).await;
    {
        let seen = node.seen.lock().unwrap();
        let data: Vec<&[u8]> = seen.data.values().map(|d| d.data.as_slice()).collect();
        assert!(data.contains(&b"s3cret".as_slice()) && data.contains(&b"on".as_slice()));
    }
    let used = c.manager.secret_remove("key").await.unwrap_err();
    assert_eq!(
        used.message,
        "secret 'key' is in use by the following service: web"
    );
    let used = c.manager.config_remove("conf").await.unwrap_err();
    assert_eq!(
        used.message,
        "config 'conf' is in use by the following service: web"
    );
    spec.name = "other".into();
    spec.task_template.container.secrets = reference("nosuchid", "nope");
    let missing = c.manager.service_create(spec).await.unwrap_err();
    assert_eq!(missing.message, "secret not found: nope");

    let labels = SwarmData {
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..SwarmData::default()
    };
    let version = secret.metadata.revision();
    let updated = c
        .manager
        .secret_update("key", version, "key", labels.clone(), None)
        .await
        .unwrap();
    assert_eq!(updated.swarm.unwrap().labels["a"], "b");
    let stale = c
        .manager
        .secret_update("key", version, "key", labels.clone(), None)
        .await
        .unwrap_err();
    assert_eq!(stale.kind, ErrorKind::OutOfSequence);
    let version = c.manager.secret("key").unwrap().metadata.revision();
    let other = c
        .manager
        .secret_update("key", version, "key", labels, Some(b"new"))
        .await
        .unwrap_err();
    assert_eq!(other.message, "only updates to Labels are allowed");
    c.manager.service_remove("web").await.unwrap();
    c.manager.secret_remove("key").await.unwrap();
    c.manager.config_remove("conf").await.unwrap();
    assert_eq!(
        c.manager.secret("key").unwrap_err().message,
        "secret key not found"
    );
}

#[tokio::test]
async fn events_tell_what_happened() {
    let c = cluster().await;
    let mut events = c.engine.events();
    c.manager.service_create(service("web", 1)).await.unwrap();
    let version = c
        .until("settled", |m| m.service("web").ok()?.status.endpoint)
        .await;
    drop(version);
    let now = c.manager.service("web").unwrap();
    let spec = replicas(&now.spec, 2);
    c.manager
        .service_update("web", now.metadata.revision(), spec, ServiceUpdate::default())
        .await
        .unwrap();
    c.manager.service_remove("web").await.unwrap();
    let mut told = Vec::new();
    while !told.iter().any(|(action, _)| action == "remove") {
        let event = tokio::time::timeout(common::PATIENCE, events.recv())
            .await
            .unwrap()
            .unwrap();
        if event.kind == "service" {
            assert_eq!(
                (event.scope.as_str(), event.attributes["name"].as_str()),
                ("swarm", "web")
            );
            told.push((event.action, event.attributes));
        }
    }
    assert_eq!(told[0].0, "create");
    let scaled = told
        .iter()
        .find(|(_, a)| a.contains_key("replicas.new"))
        .expect("the scaling");
    assert_eq!(
        (
            scaled.1["replicas.old"].as_str(),
            scaled.1["replicas.new"].as_str()
        ),
        ("1", "2")
    );
}
