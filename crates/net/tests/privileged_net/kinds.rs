//! Kinds of networks and ports: closed ones, those without neighbours, UDP and ranges, frontends on bridges, and
//! ports that lead to one endpoint of an overlay.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use tripod_agent::ports::{Net, PortRequest, SandboxDns};
use tripod_model::ErrorKind;
use tripod_model::network::{
    Backend, Frontend, FrontendPorts, NetworkSpec, PortProtocol, PublishedPort, ServicePort,
};

use crate::host::{HOST, OUTSIDE, TestServer, bridge, endpoint, get, inside, on_host, overlay, tcp};

#[test]
fn internal_networks_are_closed() {
    on_host(|host| async move {
        let net = host.open();
        let internal = |n| NetworkSpec { internal: true, ..n };
        let (b, o) = (
            internal(bridge("a", "172.20.0.0/16")),
            internal(overlay("b", "10.0.1.0/24")),
        );
        let _out = TestServer::start(&host.outside, 99, "out");
        for (i, n) in [&b, &o].into_iter().enumerate() {
            net.ensure_network(n).await.unwrap();
            let mut ns = Vec::new();
            for last in [11, 12u8] {
                let e = endpoint(n, &format!("{i}{last}"), last, "eth0");
                let made = net
                    .create_sandbox_with(&format!("s{i}{last}"), &SandboxDns::default(), &[e])
                    .await;
                ns.push(made.unwrap());
            }
            let _one = TestServer::start(&ns[0], 80, "one");
            let address = endpoint(n, "x", 11, "eth0").ipv4.unwrap().addr();
            assert!(get(&ns[1], &format!("{address}:80")).unwrap().starts_with("one "));
            get(&ns[1], &format!("{OUTSIDE}:99")).unwrap_err();
            // Not even by a route that the container makes for itself.
            let gateway = n.subnets[0].gateway.unwrap();
            crate::host::sh_in(&ns[1], &format!("ip route replace default via {gateway}"));
            get(&ns[1], &format!("{OUTSIDE}:99")).unwrap_err();
        }
    });
}

#[test]
fn neighbours_can_be_kept_apart() {
    on_host(|host| async move {
        let net = host.open();
        let mut n = bridge("a", "172.20.0.0/16");
        n.options
            .insert("com.docker.network.bridge.enable_icc".into(), "false".into());
        net.ensure_network(&n).await.unwrap();
        let dns = SandboxDns::default();
        let s1 = net
            .create_sandbox_with("s1", &dns, &[endpoint(&n, "1", 2, "eth0")])
            .await
            .unwrap();
        let s2 = net
            .create_sandbox_with("s2", &dns, &[endpoint(&n, "2", 3, "eth0")])
            .await
            .unwrap();
        let _one = TestServer::start(&s1, 80, "one");
        let _out = TestServer::start(&host.outside, 99, "out");
        get(&s2, "172.20.0.2:80").unwrap_err();
        assert!(get(&host.ns, "172.20.0.2:80").unwrap().starts_with("one "));
        assert!(get(&s2, &format!("{OUTSIDE}:99")).unwrap().starts_with("out "));
    });
}

fn udp(host_port: u16, target_port: u16) -> PublishedPort {
    PublishedPort {
        protocol: PortProtocol::Udp,
        ..tcp("0.0.0.0", host_port, target_port)
    }
}

/// Answers one datagram with who sent it.
fn udp_server(ns: &Path, port: u16) -> std::thread::JoinHandle<()> {
    let s = inside(ns, move || UdpSocket::bind(("0.0.0.0", port)).unwrap());
    s.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    std::thread::spawn(move || {
        let (_, from) = s.recv_from(&mut [0; 16]).unwrap();
        s.send_to(from.ip().to_string().as_bytes(), from).unwrap();
    })
}

fn udp_get(ns: &Path, to: &str) -> std::io::Result<String> {
    let to = to.to_owned();
    inside(ns, move || {
        let c = UdpSocket::bind("0.0.0.0:0")?;
        c.connect(to)?;
        c.set_read_timeout(Some(Duration::from_millis(500)))?;
        c.send(b"?")?;
        let mut b = [0; 64];
        let n = c.recv(&mut b)?;
        Ok(String::from_utf8_lossy(&b[..n]).into_owned())
    })
}

#[test]
fn udp_and_ranges() {
    on_host(|host| async move {
        let net = host.open();
        let n = bridge("a", "172.20.0.0/16");
        net.ensure_network(&n).await.unwrap();
        let e = endpoint(&n, "1", 2, "eth0");
        let s1 = net
            .create_sandbox_with("s1", &SandboxDns::default(), std::slice::from_ref(&e))
            .await
            .unwrap();
        let range = |port: PublishedPort, host_port_end| PortRequest { port, host_port_end };
        // The same number of two protocols, and a range of which the first port is taken.
        let _taken = TestServer::start(&host.ns, 7000, "taken");
        let asked = [
            range(udp(5300, 53), 0),
            range(tcp("0.0.0.0", 5300, 80), 0),
            range(tcp("0.0.0.0", 7000, 80), 7001),
        ];
        let got = net.publish("s1", &e, &asked).await.unwrap();
        assert_eq!(
            got,
            [udp(5300, 53), tcp("0.0.0.0", 5300, 80), tcp("0.0.0.0", 7001, 80)]
        );
        let full = net.publish("s1", &e, &asked[2..]).await.unwrap_err();
        assert_eq!(full.kind, ErrorKind::Conflict);
        assert_eq!(
            full.message,
            "Bind for 0.0.0.0:7000-7001 failed: all ports are allocated"
        );
        let _one = TestServer::start(&s1, 80, "one");
        for port in [5300, 7001] {
            assert_eq!(
                get(&host.outside, &format!("{HOST}:{port}")).unwrap(),
                format!("one {OUTSIDE}")
            );
        }
        let server = udp_server(&s1, 53);
        assert_eq!(udp_get(&host.outside, &format!("{HOST}:5300")).unwrap(), OUTSIDE);
        server.join().unwrap();
        net.unpublish("s1").await.unwrap();
        udp_get(&host.outside, &format!("{HOST}:5300")).unwrap_err();
    });
}

#[test]
fn frontends_on_bridges() {
    on_host(|host| async move {
        let net = host.open();
        let n = bridge("a", "172.20.0.0/16");
        net.ensure_network(&n).await.unwrap();
        let dns = SandboxDns::default();
        let mut ns = Vec::new();
        for last in [11, 12u8] {
            let e = endpoint(&n, &last.to_string(), last, "eth0");
            ns.push(
                net.create_sandbox_with(&format!("s{last}"), &dns, &[e])
                    .await
                    .unwrap(),
            );
        }
        let _one = TestServer::start(&ns[0], 8080, "one");
        let mut f = Frontend {
            id: "svc".into(),
            network_id: n.id.clone(),
            vip: Some([10, 96, 0, 1].into()),
            ports: FrontendPorts::Some(vec![ServicePort {
                port: 80,
                target_port: 8080,
                protocol: PortProtocol::Tcp,
            }]),
            published: vec![tcp("0.0.0.0", 9000, 8080)],
            backends: vec![Backend {
                address: [172, 20, 0, 11].into(),
                owner: String::new(),
                terminating: false,
                node: String::new(),
                port: None,
            }],
            ..Frontend::default()
        };
        net.set_frontends(std::slice::from_ref(&f)).await.unwrap();
        // From a neighbour, from the server itself, from the host, and by the port of the host.
        for from in [&ns[1], &ns[0], &host.ns] {
            assert!(get(from, "10.96.0.1:80").unwrap().starts_with("one "));
        }
        assert_eq!(
            get(&host.outside, &format!("{HOST}:9000")).unwrap(),
            format!("one {OUTSIDE}")
        );
        assert!(get(&host.ns, "127.0.0.1:9000").unwrap().starts_with("one "));
        f.backends.clear();
        net.set_frontends(&[f]).await.unwrap();
        for (from, to) in [
            (&ns[1], "10.96.0.1:80"),
            (&host.ns, "10.96.0.1:80"),
            (&host.outside, "192.0.2.2:9000"),
            (&host.ns, "127.0.0.1:9000"),
        ] {
            let e = get(from, to).unwrap_err();
            assert_eq!(e.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
        }
    });
}

#[test]
fn ports_of_one_endpoint_of_an_overlay() {
    on_host(|host| async move {
        let net = host.open();
        // Within the same subnet as a bridge.
        let (b, o) = (bridge("b", "10.0.1.0/24"), overlay("a", "10.0.1.0/24"));
        let dns = SandboxDns::default();
        let mut servers = Vec::new();
        for (i, n, port) in [(1, &b, 8081), (2, &o, 8082u16)] {
            net.ensure_network(n).await.unwrap();
            let e = endpoint(n, &i.to_string(), 11, "eth0");
            let s = net
                .create_sandbox_with(&format!("s{i}"), &dns, std::slice::from_ref(&e))
                .await
                .unwrap();
            let request = [PortRequest {
                port: tcp("0.0.0.0", port, 80),
                host_port_end: 0,
            }];
            net.publish(&format!("s{i}"), &e, &request).await.unwrap();
            servers.push(TestServer::start(&s, 80, &n.name));
            assert_eq!(
                get(&host.outside, &format!("{HOST}:{port}")).unwrap(),
                format!("{} {OUTSIDE}", n.name)
            );
            assert!(
                get(&host.ns, &format!("127.0.0.1:{port}"))
                    .unwrap()
                    .starts_with(&n.name)
            );
            assert!(
                get(&s, &format!("{HOST}:{port}")).unwrap().starts_with(&n.name),
                "itself"
            );
        }
        net.unpublish("s2").await.unwrap();
        get(&host.outside, &format!("{HOST}:8082")).unwrap_err();
        assert!(get(&host.outside, &format!("{HOST}:8081")).is_ok());
    });
}

#[test]
fn the_mesh_gives_way_to_the_hosts_networks() {
    on_host(|host| async move {
        let net = host.open();
        let mesh = NetworkSpec {
            ingress: true,
            ..overlay("a", "192.0.2.0/24")
        };
        net.ensure_network(&mesh).await.unwrap();
        let s = net
            .create_sandbox_with("s1", &SandboxDns::default(), &[endpoint(&mesh, "1", 11, "eth0")])
            .await
            .unwrap();
        let _one = TestServer::start(&s, 80, "one");
        net.set_frontends(&[Frontend {
            id: "svc".into(),
            network_id: mesh.id.clone(),
            vip: None,
            ports: FrontendPorts::All,
            published: vec![tcp("0.0.0.0", 8080, 80)],
            backends: vec![Backend {
                address: [192, 0, 2, 11].into(),
                owner: String::new(),
                terminating: false,
                node: String::new(),
                port: None,
            }],
            ..Frontend::default()
        }])
        .await
        .unwrap();
        // The host reaches its own network still, and its ports are served.
        let _out = TestServer::start(&host.outside, 99, "out");
        assert!(
            get(&host.ns, &format!("{OUTSIDE}:99"))
                .unwrap()
                .starts_with("out ")
        );
        assert!(get(&host.ns, "127.0.0.1:8080").unwrap().starts_with("one "));
    });
}
