//! Many writers at once: nothing is lost, nothing is left over, and the plans come to rest.

mod common;

use common::{FakeNode, cluster, replicas, service};
use tripod_engine::{Filters, Manager, NetworkRequest, ServiceUpdate};
use tripod_model::ErrorKind;
use tripod_model::pod::Pod;
use tripod_model::swarm::{EndpointSpec, NetworkAttachmentConfig, PortConfig, ServiceSpec};

/// Updates with the version read just before, again when somebody else was faster.
async fn scale(manager: &Manager, name: &str, n: u64, image: &str) {
    loop {
        let now = manager.service(name).unwrap();
        let mut spec = replicas(&now.spec, n);
        spec.task_template.container.image = image.into();
        let version = now.metadata.revision();
        match manager
            .service_update(name, version, spec, ServiceUpdate::default())
            .await
        {
            Ok(_) => return,
            Err(e) => assert_eq!(e.kind, ErrorKind::OutOfSequence, "{e}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_come_change_and_go_at_once() {
    let c = cluster().await;
    let _node = FakeNode::start(&c.manager);
    let back = NetworkRequest {
        name: "back".into(),
        ..NetworkRequest::default()
    };
    c.manager.network_create(back).await.unwrap();
    let writers = (0..6_u16).map(|i| {
        let manager = c.manager.clone();
        tokio::spawn(async move {
            let name = format!("s{i}");
            let mut spec: ServiceSpec = service(&name, 4);
            let attachment = NetworkAttachmentConfig {
                target: "back".into(),
                ..NetworkAttachmentConfig::default()
            };
            spec.task_template.networks = vec![attachment];
            let port = PortConfig {
                target_port: 80,
                published_port: 8000 + i,
                ..PortConfig::default()
            };
            spec.endpoint_spec = Some(EndpointSpec {
                ports: vec![port],
                ..EndpointSpec::default()
            });
            manager.service_create(spec).await.unwrap();
            for (n, image) in [
                (6, "busybox:1"),
                (3, "busybox:2"),
                (5, "busybox:2"),
                (2, "busybox:3"),
            ] {
                scale(&manager, &name, n, image).await;
            }
            if i % 2 == 0 {
                manager.service_remove(&name).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    for name in ["s1", "s3", "s5"] {
        c.running(name, 2).await;
    }
    c.until("the removed services' tasks to go", |m| {
        let tasks = m.tasks(&Filters::new()).unwrap();
        let gone = |t: &tripod_engine::Task| {
            ["s0", "s2", "s4"].contains(&t.pod.swarm().unwrap().service_name.as_str())
        };
        (!tasks.iter().any(gone)).then_some(())
    })
    .await;

    // No address and no port is held twice.
    let pods = c.manager.db().snapshot().list::<Pod>(None).unwrap();
    let mut addresses: Vec<_> = pods
        .iter()
        .filter(|p| !p.state.observed.is_final())
        .flat_map(|p| p.extension.networks.iter().filter_map(|n| n.address))
        .collect();
    for service in c.manager.services(&Filters::new()).unwrap() {
        addresses.extend(
            service
                .status
                .endpoint
                .unwrap()
                .virtual_ips
                .iter()
                .map(|v| v.addr),
        );
    }
    let held = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), held, "an address is held twice");

    for name in ["s1", "s3", "s5"] {
        c.manager.service_remove(name).await.unwrap();
    }
    c.until("nothing", |m| {
        m.tasks(&Filters::new()).unwrap().is_empty().then_some(())
    })
    .await;
    c.manager.network_remove("back").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_given_once() {
    let c = cluster().await;
    let tries = (0..8).map(|_| {
        let manager = c.manager.clone();
        tokio::spawn(async move { manager.service_create(service("web", 0)).await })
    });
    let mut made = 0;
    for one in tries.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(_) => made += 1,
            Err(e) => assert_eq!(e.kind, ErrorKind::AlreadyExists, "{e}"),
        }
    }
    assert_eq!(made, 1);
}
