//! What is refused at admission, and in which words; networks, ports and names.

#[allow(unreachable_pub, missing_docs, reason = "a module of tests")]
mod sim;

use sim::*;
use tripod_model::ErrorKind;
use tripod_model::network::{FrontendPorts, PortProtocol};
use tripod_model::swarm::*;
use tripod_plan::allocate::{complete_network, lease};
use tripod_plan::project::{names, project};
use tripod_plan::validate::{create, service_spec, update};

fn spec(change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = replicated("blue", 1);
    change(&mut spec);
    spec
}

fn port(published: u16, target: u16, mode: PublishMode) -> PortConfig {
    PortConfig {
        published_port: published,
        target_port: target,
        publish_mode: mode,
        ..PortConfig::default()
    }
}

fn ports(ports: Vec<PortConfig>) -> Option<EndpointSpec> {
    Some(EndpointSpec {
        mode: EndpointMode::Vip,
        ports,
    })
}

type Row = (fn(&mut ServiceSpec), &'static str, &'static str);

#[test]
fn bad_specifications_are_refused_as_swarm_does() {
    let rows: Vec<Row> = vec![
        (|s| s.name = String::new(), "meta: name must be provided", "Name"),
        (
            |s| s.name = "a b".into(),
            "name must be valid as a DNS name component",
            "Name",
        ),
        (
            |s| s.name = "-a".into(),
            "name must be valid as a DNS name component",
            "Name",
        ),
        (
            |s| s.name = "a".repeat(64),
            "name must be 63 characters or fewer",
            "Name",
        ),
        (
            |s| s.task_template.container.image = String::new(),
            "ContainerSpec: image reference must be provided",
            "TaskTemplate.ContainerSpec.Image",
        ),
        (
            |s| s.task_template.container.image = "spkane/UPPER".into(),
            "ContainerSpec: \"spkane/UPPER\" is not a valid repository/tag",
            "TaskTemplate.ContainerSpec.Image",
        ),
        (
            |s| {
                s.task_template.placement = Some(Placement {
                    constraints: vec!["x".into()],
                    ..Placement::default()
                });
            },
            "constraint expected one operator from ==, !=",
            "TaskTemplate.Placement.Constraints",
        ),
        (
            |s| {
                s.update_config = Some(UpdateConfig {
                    delay: -1,
                    ..UpdateConfig::default()
                });
            },
            "TaskSpec: update-delay cannot be negative",
            "UpdateConfig.Delay",
        ),
        (
            |s| {
                s.update_config = Some(UpdateConfig {
                    max_failure_ratio: 1.5,
                    ..UpdateConfig::default()
                });
            },
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
            "UpdateConfig.MaxFailureRatio",
        ),
        (
            |s| {
                s.mode = ServiceMode::GlobalJob {};
                s.update_config = Some(UpdateConfig::default());
            },
            "Jobs may not have an update config",
            "UpdateConfig",
        ),
        (
            |s| {
                s.endpoint_spec = ports(vec![
                    port(80, 1, PublishMode::Ingress),
                    port(80, 2, PublishMode::Ingress),
                ]);
            },
            "EndpointSpec: duplicate published ports provided",
            "EndpointSpec.Ports",
        ),
        (
            |s| {
                s.endpoint_spec = Some(EndpointSpec {
                    mode: EndpointMode::Dnsrr,
                    ports: vec![port(80, 1, PublishMode::Ingress)],
                });
            },
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            "EndpointSpec.Ports",
        ),
        (
            |s| {
                let r = ResourceAmounts {
                    nano_cpus: 100,
                    ..ResourceAmounts::default()
                };
                s.task_template.resources = Some(TaskResources {
                    limits: Some(r),
                    reservations: None,
                });
            },
            "invalid cpu value 0.0000001: Must be at least 0.001",
            "TaskTemplate.Resources.Limits.NanoCPUs",
        ),
        (
            |s| {
                let r = ResourceAmounts {
                    memory: 100,
                    ..ResourceAmounts::default()
                };
                s.task_template.resources = Some(TaskResources {
                    limits: None,
                    reservations: Some(r),
                });
            },
            "invalid memory value 100: Must be at least 4MiB",
            "TaskTemplate.Resources.Reservations.MemoryBytes",
        ),
        (
            |s| {
                let file = Some(DataFile {
                    name: "f".into(),
                    ..DataFile::default()
                });
                let r = |n: &str| DataReference {
                    id: n.into(),
                    name: n.into(),
                    file: file.clone(),
                };
                s.task_template.container.secrets = vec![r("a"), r("b")];
            },
            "secret references 'a' and 'b' have a conflicting target: 'f'",
            "TaskTemplate.ContainerSpec.Secrets",
        ),
        (
            |s| {
                let m = TaskMount {
                    target: "/d".into(),
                    ..TaskMount::default()
                };
                s.task_template.container.mounts = vec![m.clone(), m];
            },
            "ContainerSpec: duplicate mount point: /d",
            "TaskTemplate.ContainerSpec.Mounts",
        ),
    ];
    for (change, message, field) in rows {
        let e = service_spec(&spec(change)).unwrap_err();
        assert_eq!((e.message.as_str(), e.field.as_deref()), (message, Some(field)));
        assert_eq!(e.kind, ErrorKind::Invalid);
    }
    service_spec(&spec(|_| {})).unwrap();
}

#[test]
fn names_ports_and_modes_are_checked_against_what_is_there() {
    let mut sim = Sim::new(1);
    sim.create(published(replicated("blue", 1), 80, 8080));
    sim.settle();
    let e = create(&sim.view, &spec(|_| {})).unwrap_err();
    assert_eq!(e.kind, ErrorKind::AlreadyExists);
    assert_eq!(
        e.message,
        "name conflicts with an existing object: service web already exists"
    );
    let other = |ports: Vec<PortConfig>| {
        spec(|s| {
            s.name = "other".into();
            s.endpoint_spec = Some(EndpointSpec {
                mode: EndpointMode::Vip,
                ports,
            });
        })
    };
    let e = create(&sim.view, &other(vec![port(80, 1, PublishMode::Ingress)])).unwrap_err();
    assert_eq!(
        e.message,
        "port '80' is already in use by service 'web' (svc1) as an ingress port"
    );
    assert!(create(&sim.view, &other(vec![port(80, 1, PublishMode::Host)])).is_err());
    create(&sim.view, &other(vec![port(81, 1, PublishMode::Ingress)])).unwrap();
    let mut udp = port(80, 1, PublishMode::Ingress);
    udp.protocol = PortProtocol::Udp;
    create(&sim.view, &other(vec![udp])).unwrap();

    let service = sim.service().clone();
    let mut global = service.spec.clone();
    global.mode = ServiceMode::Global {};
    let e = update(&sim.view, &service, &global).unwrap_err();
    assert_eq!(e.message, "service mode change is not allowed");
    let mut renamed = service.spec.clone();
    renamed.name = "web2".into();
    assert_eq!(
        update(&sim.view, &service, &renamed).unwrap_err().message,
        "renaming services is not supported"
    );
    let mut attached = spec(|s| s.name = "x".into());
    attached.task_template.networks = vec![NetworkAttachmentConfig {
        target: "nowhere".into(),
        ..NetworkAttachmentConfig::default()
    }];
    assert_eq!(
        create(&sim.view, &attached).unwrap_err().kind,
        ErrorKind::NotFound
    );
    attached.task_template.networks[0].target = "ingress".into();
    assert!(
        create(&sim.view, &attached)
            .unwrap_err()
            .message
            .contains("ingress network \"ingress\"")
    );
}

#[test]
fn subnets_and_identifiers_follow_each_other() {
    let mut sim = Sim::new(1);
    sim.network("a", false);
    sim.network("b", false);
    let net = |n: &str| sim.view.network(n).unwrap().spec.clone();
    for (name, subnet, vni) in [
        ("ingress", "10.0.0.0/24", 4097),
        ("a", "10.0.1.0/24", 4098),
        ("b", "10.0.2.0/24", 4099),
    ] {
        let n = net(name);
        assert_eq!((n.subnets[0].subnet.to_string().as_str(), n.vni), (subnet, vni));
        assert!(n.subnets[0].gateway.unwrap().to_string().ends_with(".1"));
    }
    let mut again = net("a");
    again.id = "other".into();
    let e = complete_network(&sim.view, again).unwrap_err();
    assert_eq!(e.message, "Pool overlaps with other one on this address space");
}

#[test]
fn ports_without_a_number_get_one_and_keep_it() {
    let mut sim = Sim::new(1);
    sim.create(published(replicated("blue", 1), 0, 8080));
    sim.run(3);
    let assigned = sim.service().status.endpoint.clone().unwrap().ports[0].published_port;
    assert_eq!(assigned, 30000);
    sim.update(|s| s.task_template.container.image = "green".into());
    sim.run(20);
    assert_eq!(
        sim.service().status.endpoint.clone().unwrap().ports[0].published_port,
        assigned
    );
    assert_eq!(sim.running_image("green"), 1);
}

#[test]
fn frontends_and_names_follow_the_tasks() {
    let mut sim = Sim::new(2);
    let net = sim.network("app", false);
    let mut s = published(replicated("blue", 2), 80, 8080);
    s.task_template.networks = vec![NetworkAttachmentConfig {
        target: "app".into(),
        aliases: vec!["site".into()],
        ..NetworkAttachmentConfig::default()
    }];
    sim.create(s);
    sim.settle();
    let p = project(&sim.view, "node1", &Default::default());
    assert_eq!(p.networks.len(), 2);
    let ingress = p
        .frontends
        .iter()
        .find(|f| f.network_id == "net-ingress")
        .unwrap();
    assert_eq!(
        (ingress.published[0].host_port, ingress.published[0].target_port),
        (80, 8080)
    );
    assert!(
        p.frontends
            .iter()
            .all(|f| f.ports == FrontendPorts::All && f.backends.is_empty())
    );
    sim.stop_seconds = 5;
    sim.run(5);
    let p = project(&sim.view, "node1", &Default::default());
    assert!(p.frontends.iter().all(|f| f.backends.len() == 2 && f.id == ID));
    let find = |n: &str| {
        names(&sim.view, &net)
            .into_iter()
            .find(|r| r.name == n)
            .map(|r| r.addresses)
    };
    let vip = sim.service().status.endpoint.clone().unwrap();
    let vip = vip.virtual_ips.iter().find(|v| v.network_id == net).unwrap().ip();
    assert_eq!(find("web"), Some(vec![vip]));
    assert_eq!(find("site"), Some(vec![vip]));
    assert_eq!(find("tasks.web").unwrap().len(), 2);
    let task = sim.running()[0].clone();
    assert_eq!(find(&task.metadata.name).unwrap().len(), 1);
    // A node without tasks takes part in the mesh only.
    sim.node("node3", |_| {});
    let p = project(&sim.view, "node3", &Default::default());
    assert_eq!((p.networks.len(), p.names.len(), p.frontends.len()), (1, 0, 1));
    // One that is to end is marked, and no longer named.
    sim.update(|s| s.mode = ServiceMode::Replicated { replicas: 1 });
    sim.run(1);
    let p = project(&sim.view, "node1", &Default::default());
    assert!(
        p.frontends
            .iter()
            .all(|f| f.backends.iter().filter(|b| b.terminating).count() == 1)
    );
    assert_eq!(
        names(&sim.view, &net)
            .iter()
            .find(|r| r.name == "tasks.web")
            .unwrap()
            .addresses
            .len(),
        1
    );
    // Without a virtual address, the name leads to the tasks.
    sim.update(|s| {
        s.endpoint_spec = Some(EndpointSpec {
            mode: EndpointMode::Dnsrr,
            ports: vec![],
        });
    });
    sim.run(30);
    let names = names(&sim.view, &net);
    assert_eq!(names.iter().find(|r| r.name == "web").unwrap().addresses.len(), 1);
    assert!(
        sim.service()
            .status
            .endpoint
            .clone()
            .unwrap()
            .virtual_ips
            .is_empty()
    );
    assert!(
        project(&sim.view, "node1", &Default::default())
            .frontends
            .is_empty()
    );
}

#[test]
fn leases_and_tasks_share_a_subnet() {
    let mut sim = Sim::new(1);
    let net = sim.network("app", false);
    let got = lease(&sim.view, "app", Some("10.0.1.9".parse().unwrap())).unwrap();
    sim.view.upsert_lease("c1", vec![(net.clone(), got.addr())]);
    assert_eq!(
        lease(&sim.view, "app", Some(got.addr())).unwrap_err().message,
        "Address already in use"
    );
    let mut s = replicated("blue", 20);
    s.task_template.networks = vec![NetworkAttachmentConfig {
        target: net.clone(),
        ..NetworkAttachmentConfig::default()
    }];
    sim.create(s);
    sim.settle();
    assert!(
        sim.pods()
            .iter()
            .all(|p| p.extension.networks[0].address.unwrap().addr() != got.addr())
    );
    sim.view.remove_lease("c1");
    assert!(lease(&sim.view, "app", Some(got.addr())).is_ok());
}

#[test]
fn a_full_subnet_is_explained_and_goes_on_when_there_is_room() {
    let mut sim = Sim::new(1);
    let net = sim.network("app", false);
    let mut s = replicated("blue", 260);
    s.task_template.networks = vec![NetworkAttachmentConfig {
        target: net,
        ..NetworkAttachmentConfig::default()
    }];
    sim.create(s);
    sim.run(4);
    assert_eq!(
        sim.running().len(),
        252,
        "254 hosts less gateway and virtual address"
    );
    let waiting = sim
        .wanted()
        .into_iter()
        .find(|p| p.state.observed == TaskState::New)
        .unwrap();
    assert_eq!(
        waiting.state.error,
        "no available IPv4 addresses on this network's address pools"
    );
    sim.update(|s| s.mode = ServiceMode::Replicated { replicas: 250 });
    sim.run(4);
    assert_eq!(sim.running().len(), 250);
    assert!(
        sim.wanted()
            .iter()
            .all(|p| p.state.observed == TaskState::Running)
    );
}
