//! Routed overlays on one node: virtual addresses, published ports through the mesh, draining, adoption.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tripod_agent::ports::{Net, SandboxDns};
use tripod_model::network::{Backend, Frontend, FrontendPorts, NetworkSpec};

use crate::host::{
    HOST, OUTSIDE, TestServer, bridge, endpoint, get, get_here, inside, on_host, overlay, sh, tcp,
};

fn frontend(net: &NetworkSpec, vip: Option<&str>, backends: &[(&str, bool)]) -> Frontend {
    Frontend {
        id: "svc".into(),
        network_id: net.id.clone(),
        vip: vip.map(|v| v.parse().unwrap()),
        ports: FrontendPorts::All,
        published: Vec::new(),
        backends: backends
            .iter()
            .map(|(a, terminating)| Backend {
                terminating: *terminating,
                ..Backend::new(a.parse().unwrap(), *a, "")
            })
            .collect(),
        ..Frontend::default()
    }
}

/// Names of the servers that answered a number of connections.
fn who(ns: &Path, to: &str, n: usize) -> Vec<String> {
    let mut names: Vec<String> = (0..n)
        .map(|_| get(ns, to).unwrap().split(' ').next().unwrap().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn virtual_addresses() {
    on_host(|host| async move {
        let net = host.open();
        let (n, other) = (overlay("a", "10.0.1.0/24"), overlay("b", "10.0.2.0/24"));
        net.ensure_network(&n).await.unwrap();
        net.ensure_network(&other).await.unwrap();
        let dns = SandboxDns {
            embedded: true,
            upstream: vec![],
        };
        let mut ns = Vec::new();
        for i in 1..=3u8 {
            let e = endpoint(&n, &i.to_string(), 10 + i, "eth0");
            ns.push(
                net.create_sandbox_with(&format!("s{i}"), &dns, &[e])
                    .await
                    .unwrap(),
            );
        }
        let stranger = net
            .create_sandbox_with("x", &dns, &[endpoint(&other, "9", 11, "eth0")])
            .await
            .unwrap();
        let one = TestServer::start(&ns[0], 80, "one");
        let _two = TestServer::start(&ns[1], 80, "two");
        let _out = TestServer::start(&host.outside, 99, "out");

        // Between sandboxes, out, and not from elsewhere.
        assert_eq!(get(&ns[2], "10.0.1.11:80").unwrap(), "one 10.0.1.13");
        assert_eq!(
            get(&ns[2], &format!("{OUTSIDE}:99")).unwrap(),
            format!("out {HOST}")
        );
        get(&stranger, "10.0.1.11:80").unwrap_err();
        get(&host.ns, "10.0.1.11:80").unwrap_err();
        get(&ns[2], "10.0.1.99:80").unwrap_err();

        net.set_frontends(&[frontend(
            &n,
            Some("10.0.1.2"),
            &[("10.0.1.11", false), ("10.0.1.12", false)],
        )])
        .await
        .unwrap();
        assert_eq!(who(&ns[2], "10.0.1.2:80", 20), ["one", "two"]);
        assert_eq!(
            get(&ns[2], "10.0.1.2:80").unwrap().split(' ').nth(1),
            Some("10.0.1.13"),
            "address kept"
        );
        inside(&ns[2], ping);
        // To itself by the virtual address, on any port.
        let _any = TestServer::start(&ns[0], 4321, "any");
        net.set_frontends(&[frontend(&n, Some("10.0.1.2"), &[("10.0.1.11", false)])])
            .await
            .unwrap();
        assert!(get(&ns[0], "10.0.1.2:4321").unwrap().starts_with("any "));

        // A stopping backend gets nothing new, unless all are stopping.
        let both = |a, b| {
            [frontend(
                &n,
                Some("10.0.1.2"),
                &[("10.0.1.11", a), ("10.0.1.12", b)],
            )]
        };
        net.set_frontends(&both(true, false)).await.unwrap();
        assert_eq!(who(&ns[2], "10.0.1.2:80", 10), ["two"]);
        net.set_frontends(&both(true, true)).await.unwrap();
        assert_eq!(who(&ns[2], "10.0.1.2:80", 20), ["one", "two"]);
        // Nobody: refused, at once.
        net.set_frontends(&[frontend(&n, Some("10.0.1.2"), &[])])
            .await
            .unwrap();
        assert_eq!(
            get(&ns[2], "10.0.1.2:80").unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
        drop(one);
        net.set_frontends(&[]).await.unwrap();
    });
}

/// An ICMP echo to the virtual address is answered.
fn ping() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
    let fd = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::empty(),
        SockProtocol::Icmp,
    )
    .unwrap();
    let s = std::net::UdpSocket::from(fd);
    s.connect("10.0.1.2:0").unwrap();
    s.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    s.send(&[8, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    let mut buf = [0; 64];
    assert!(s.recv(&mut buf).unwrap() >= 8);
    assert_eq!(buf[0], 0, "echo reply");
}

#[test]
fn draining_keeps_connections() {
    on_host(|host| async move {
        let net = host.open();
        let n = overlay("a", "10.0.1.0/24");
        net.ensure_network(&n).await.unwrap();
        let dns = SandboxDns::default();
        let s1 = net
            .create_sandbox_with("s1", &dns, &[endpoint(&n, "1", 11, "eth0")])
            .await
            .unwrap();
        let s2 = net
            .create_sandbox_with("s2", &dns, &[endpoint(&n, "2", 12, "eth0")])
            .await
            .unwrap();
        let listener = inside(&s1, || std::net::TcpListener::bind("0.0.0.0:80").unwrap());
        net.set_frontends(&[frontend(&n, Some("10.0.1.2"), &[("10.0.1.11", false)])])
            .await
            .unwrap();
        let mut client = inside(&s2, || std::net::TcpStream::connect("10.0.1.2:80").unwrap());
        let (mut served, _) = listener.accept().unwrap();
        let backend: IpAddr = "10.0.1.11".parse().unwrap();
        assert_eq!(net.established(&n.id, backend).await.unwrap(), 1);
        net.set_frontends(&[frontend(&n, Some("10.0.1.2"), &[])])
            .await
            .unwrap();
        use std::io::{Read, Write};
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        client.write_all(b"ping").unwrap();
        let mut buf = [0; 4];
        served.read_exact(&mut buf).unwrap();
        served.write_all(b"pong").unwrap();
        client.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"pong");
        net.forget_connections(&n.id, backend).await.unwrap();
        assert_eq!(net.established(&n.id, backend).await.unwrap(), 0);
    });
}

#[test]
fn routing_mesh() {
    on_host(|host| async move {
        let net = host.open();
        let ingress = NetworkSpec {
            ingress: true,
            ..overlay("a", "10.0.0.0/24")
        };
        let (n, gw) = (overlay("b", "10.0.1.0/24"), bridge("c", "172.18.0.0/16"));
        for x in [&ingress, &n, &gw] {
            net.ensure_network(x).await.unwrap();
        }
        let dns = SandboxDns::default();
        // As Swarm attaches tasks: the default route goes another way than published ports come.
        let eps = |i: u8| {
            let mut first = endpoint(&ingress, &format!("{i}1"), 10 + i, "eth0");
            first.default_route = false;
            let mut second = endpoint(&n, &format!("{i}2"), 10 + i, "eth1");
            second.default_route = true;
            [first, second]
        };
        let s1 = net.create_sandbox_with("s1", &dns, &eps(1)).await.unwrap();
        let s2 = net.create_sandbox_with("s2", &dns, &eps(2)).await.unwrap();
        let bridged = net
            .create_sandbox_with("b1", &dns, &[endpoint(&gw, "3", 2, "eth0")])
            .await
            .unwrap();
        let _one = TestServer::start(&s1, 80, "one");
        let _two = TestServer::start(&s2, 80, "two");
        let mut f = frontend(
            &ingress,
            Some("10.0.0.2"),
            &[("10.0.0.11", false), ("10.0.0.12", false)],
        );
        f.published = vec![tcp("0.0.0.0", 8080, 80)];
        assert_eq!(net.set_frontends(std::slice::from_ref(&f)).await.unwrap(), []);

        let at = format!("{HOST}:8080");
        assert_eq!(who(&host.outside, &at, 20), ["one", "two"]);
        assert_eq!(
            get(&host.outside, &at).unwrap().split(' ').nth(1),
            Some(OUTSIDE),
            "address kept"
        );
        assert_eq!(who(&host.ns, &at, 20), ["one", "two"]);
        assert_eq!(who(&host.ns, "127.0.0.1:8080", 20), ["one", "two"]);
        assert_eq!(who(&bridged, &at, 20), ["one", "two"]);
        assert_eq!(
            who(&s1, &at, 20),
            ["one", "two"],
            "from a task of the service itself"
        );
        udp_through_the_mesh(&host, &net, &mut f.clone(), &s1).await;

        // A port that is taken is reported, the rest works.
        let _taken = TestServer::start(&host.ns, 9090, "taken");
        f.published.push(tcp("0.0.0.0", 9090, 80));
        let failures = net.set_frontends(std::slice::from_ref(&f)).await.unwrap();
        assert_eq!(failures.len(), 1);
        assert_eq!(
            failures[0].reason,
            "failed to bind host port for 0.0.0.0:9090/tcp: address already in use"
        );
        assert_eq!(who(&host.outside, &at, 20), ["one", "two"]);
        assert_eq!(
            get(&host.ns, "127.0.0.1:9090").unwrap().split(' ').next(),
            Some("taken")
        );

        f.published.truncate(1);
        f.backends.clear();
        net.set_frontends(std::slice::from_ref(&f)).await.unwrap();
        assert_eq!(
            get(&host.outside, &at).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
        net.set_frontends(&[]).await.unwrap();
        get(&host.outside, &at).unwrap_err();
        // A child of another test holds copies of all sockets until it runs its program.
        let free = (0..50).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            std::net::TcpListener::bind("0.0.0.0:8080").is_ok()
        });
        assert!(free, "the port is given back");
    });
}

async fn udp_through_the_mesh(
    host: &crate::host::Host,
    net: &tripod_net::KernelNet,
    f: &mut Frontend,
    server: &Path,
) {
    use std::net::UdpSocket;
    f.published.push(tripod_model::network::PublishedPort {
        protocol: tripod_model::network::PortProtocol::Udp,
        ..tcp("0.0.0.0", 5353, 53)
    });
    f.backends.truncate(1);
    net.set_frontends(std::slice::from_ref(f)).await.unwrap();
    let socket = inside(server, || UdpSocket::bind("0.0.0.0:53").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let t = std::thread::spawn(move || {
        let mut buf = [0; 16];
        let (n, from) = socket.recv_from(&mut buf).unwrap();
        socket.send_to(&buf[..n], from).unwrap();
    });
    inside(&host.outside, || {
        let c = UdpSocket::bind("0.0.0.0:0").unwrap();
        c.connect(format!("{HOST}:5353")).unwrap();
        c.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        c.send(b"hello").unwrap();
        let mut buf = [0; 16];
        assert_eq!(
            c.recv(&mut buf).unwrap(),
            5,
            "an unbound UDP server answers from the address asked"
        );
    });
    t.join().unwrap();
}

#[test]
fn changes_under_load_lose_nothing() {
    on_host(|host| async move {
        let net = host.open();
        let n = NetworkSpec {
            ingress: true,
            ..overlay("a", "10.0.0.0/24")
        };
        net.ensure_network(&n).await.unwrap();
        let mut servers = Vec::new();
        for i in 1..=4u8 {
            let e = endpoint(&n, &i.to_string(), 10 + i, "eth0");
            let ns = net
                .create_sandbox_with(&format!("s{i}"), &SandboxDns::default(), &[e])
                .await
                .unwrap();
            servers.push(TestServer::start(&ns, 80, "x"));
        }
        let with = |from: u8, to: u8| {
            let all: Vec<String> = (from..=to).map(|i| format!("10.0.0.{}", 10 + i)).collect();
            let all: Vec<(&str, bool)> = all.iter().map(|a| (a.as_str(), false)).collect();
            let mut f = frontend(&n, Some("10.0.0.2"), &all);
            f.published = vec![tcp("0.0.0.0", 8080, 80)];
            f
        };
        net.set_frontends(&[with(1, 4)]).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (stop, count, ns) = (Arc::clone(&stop), Arc::clone(&count), host.outside.clone());
                std::thread::spawn(move || {
                    inside(&ns, move || {
                        while !stop.load(Ordering::SeqCst) {
                            let answer = get_here(format!("{HOST}:8080").parse().unwrap()).unwrap();
                            assert!(answer.starts_with("x "), "{answer}");
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                })
            })
            .collect();
        for i in 0..200u32 {
            let from = u8::try_from(i % 3).unwrap() + 1;
            net.set_frontends(&[with(from, from + 1)]).await.unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        for c in clients {
            c.join().unwrap();
        }
        assert!(count.load(Ordering::SeqCst) > 20);
    });
}

#[test]
fn adoption_and_cleanup() {
    on_host(|host| async move {
        let before = sh("ip -o link | wc -l; ip -4 -o addr; ip route");
        let net = host.open();
        let (n, b) = (
            NetworkSpec {
                ingress: true,
                ..overlay("a", "10.0.0.0/24")
            },
            bridge("b", "172.18.0.0/16"),
        );
        net.ensure_network(&n).await.unwrap();
        net.ensure_network(&b).await.unwrap();
        let dns = SandboxDns {
            embedded: true,
            upstream: vec![],
        };
        let (e1, e2) = (endpoint(&n, "1", 11, "eth0"), endpoint(&b, "2", 2, "eth0"));
        let s1 = net
            .create_sandbox_with("s1", &dns, std::slice::from_ref(&e1))
            .await
            .unwrap();
        let s2 = net
            .create_sandbox_with("s2", &dns, std::slice::from_ref(&e2))
            .await
            .unwrap();
        let one = TestServer::start(&s1, 80, "one");
        let two = TestServer::start(&s2, 80, "two");
        let request = |p| {
            [tripod_agent::ports::PortRequest {
                port: tcp("0.0.0.0", p, 80),
                host_port_end: 0,
            }]
        };
        let held = net.publish("s2", &e2, &request(8081)).await.unwrap();
        net.publish("s2", &e2, &request(8082)).await.unwrap();
        let mut f = frontend(&n, Some("10.0.0.2"), &[("10.0.0.11", false)]);
        f.published = vec![tcp("0.0.0.0", 8080, 80)];
        net.set_frontends(std::slice::from_ref(&f)).await.unwrap();
        drop(net);

        // Without a daemon everything is still served.
        let answers = |port: u16| get(&host.outside, &format!("{HOST}:{port}"));
        assert!(answers(8080).unwrap().starts_with("one"));
        assert!(answers(8081).unwrap().starts_with("two"));
        let net = host.open();
        assert!(answers(8080).unwrap().starts_with("one"));
        let mut networks = net.networks().await.unwrap();
        networks.sort();
        assert_eq!(networks, [n.id.clone(), b.id.clone()]);
        assert_eq!(net.sandboxes().await.unwrap(), ["s1", "s2"]);
        net.ensure_network(&n).await.unwrap();
        net.ensure_network(&b).await.unwrap();
        net.adopt_sandbox("s1", &dns, std::slice::from_ref(&e1), &[])
            .await
            .unwrap();
        net.adopt_sandbox("s2", &dns, std::slice::from_ref(&e2), &held)
            .await
            .unwrap();
        assert!(answers(8080).unwrap().starts_with("one"));
        net.set_frontends(&[f]).await.unwrap();
        assert!(answers(8080).unwrap().starts_with("one"));
        assert!(answers(8081).unwrap().starts_with("two"));
        answers(8082).unwrap_err();
        std::net::TcpListener::bind("0.0.0.0:8081").unwrap_err();
        assert!(net.sandbox_stats("s2").await.unwrap()[0].rx.0 > 0);

        drop((one, two));
        net.set_frontends(&[]).await.unwrap();
        net.remove_sandbox("s1").await.unwrap();
        net.remove_sandbox("s2").await.unwrap();
        net.remove_network(&n.id).await.unwrap();
        net.remove_network(&b.id).await.unwrap();
        net.remove_network(&b.id).await.unwrap();
        let rules = sh("nft list table ip tripod");
        // What is always there is the way to the endpoint of ECS tasks.
        let left: Vec<&str> = rules.lines().filter(|l| l.contains("elements")).collect();
        assert!(left.len() == 1 && left[0].contains("169.254.170.2"), "{rules}");
        net.withdraw().await.unwrap();
        assert_eq!(sh("nft list ruleset"), "");
        assert_eq!(
            std::fs::read_dir(host.dir.path().join("netns")).unwrap().count(),
            0
        );
        // The kernel takes namespaces apart when it has time.
        for _ in 0..100 {
            if sh("ip -o link | wc -l; ip -4 -o addr; ip route") == before {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("left: {}", sh("ip -o link; ip -4 -o addr; ip route"));
    });
}
