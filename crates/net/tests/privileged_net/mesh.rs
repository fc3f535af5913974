//! Overlays and the routing mesh over several hosts.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tripod_agent::ports::{Net, SandboxDns};
use tripod_model::network::{Backend, Frontend, NetworkSpec, PortProtocol, PublishedPort};

use crate::cluster::{Node, fabric, nodes};
use crate::host::{OUTSIDE, TestServer, endpoint, get, inside, on_host, overlay, sh_in, tcp};

/// A task at an address (last byte) of a network, on a node.
async fn task(node: &Node, net: &NetworkSpec, last: u8) -> PathBuf {
    let e = endpoint(net, &format!("{}{last}", node.name), last, "eth0");
    let dns = SandboxDns::default();
    node.net.ensure_network(net).await.unwrap();
    let made = node
        .net
        .create_sandbox_with(&format!("t{last}"), &dns, &[e])
        .await;
    made.unwrap()
}

fn frontend(net: &NetworkSpec, backends: &[(&str, &str)]) -> Frontend {
    Frontend {
        id: "svc".into(),
        network_id: net.id.clone(),
        vip: Some("10.0.1.2".parse().unwrap()),
        backends: backends
            .iter()
            .map(|(a, node)| Backend::new(a.parse().unwrap(), *a, *node))
            .collect(),
        ..Frontend::default()
    }
}

fn who(ns: &Path, to: &str, n: usize) -> Vec<String> {
    let answer = |_| get(ns, to).unwrap_or_else(|e| panic!("{to} from {}: {e}", ns.display()));
    let mut names: Vec<String> = (0..n)
        .map(answer)
        .map(|a| a.split(' ').next().unwrap().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn an_overlay_spans_hosts() {
    on_host(|host| async move {
        let all = nodes(&host, 3, false).await;
        let (n, other) = (overlay("a", "10.0.1.0/24"), {
            let mut o = overlay("b", "10.0.1.0/24");
            o.vni = 4098;
            o
        });
        let places = [
            (n.id.as_str(), "10.0.1.11", "n1"),
            (n.id.as_str(), "10.0.1.12", "n2"),
            (n.id.as_str(), "10.0.1.13", "n3"),
            (other.id.as_str(), "10.0.1.12", "n1"),
        ];
        for node in &all {
            node.net.set_fabric(&fabric(node, &all, &places)).await.unwrap();
        }
        let (a, b, c) = (
            task(&all[0], &n, 11).await,
            task(&all[1], &n, 12).await,
            task(&all[2], &n, 13).await,
        );
        // The same address in another network is somebody else.
        let stranger = task(&all[0], &other, 12).await;
        let (_a, _b) = (TestServer::start(&a, 80, "a"), TestServer::start(&b, 80, "b"));
        let _s = TestServer::start(&stranger, 80, "stranger");
        assert_eq!(get(&a, "10.0.1.12:80").unwrap(), "b 10.0.1.11");
        assert_eq!(get(&c, "10.0.1.11:80").unwrap(), "a 10.0.1.13");
        assert!(get(&stranger, "10.0.1.11:80").is_err());
        assert!(get(&all[1].ns, "10.0.1.12:80").is_err());

        for node in &all {
            let f = frontend(&n, &[("10.0.1.11", "n1"), ("10.0.1.12", "n2")]);
            node.net.set_frontends(&[f]).await.unwrap();
        }
        for from in [&a, &b, &c] {
            assert_eq!(who(from, "10.0.1.2:80", 24), ["a", "b"]);
        }
        assert!(sh_in(&a, "ip link show eth0").contains("mtu 1450"));
        // The task moves: the same address on another host.
        drop(_b);
        all[1].net.remove_sandbox("t12").await.unwrap();
        let b = task(&all[2], &n, 12).await;
        let _b = TestServer::start(&b, 80, "moved");
        let places = [
            (n.id.as_str(), "10.0.1.11", "n1"),
            (n.id.as_str(), "10.0.1.12", "n3"),
            (n.id.as_str(), "10.0.1.13", "n3"),
        ];
        for node in &all {
            node.net.set_fabric(&fabric(node, &all, &places)).await.unwrap();
        }
        assert_eq!(get(&a, "10.0.1.12:80").unwrap(), "moved 10.0.1.11");
        all[0].net.remove_network(&n.id).await.unwrap_or_default();
    });
}

/// Answers one datagram with who sent it.
fn echo(ns: &Path) -> std::thread::JoinHandle<()> {
    let s = inside(ns, || UdpSocket::bind("0.0.0.0:53").unwrap());
    s.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    std::thread::spawn(move || {
        let mut buf = [0u8; 64];
        if let Ok((_, from)) = s.recv_from(&mut buf) {
            let _ = s.send_to(from.ip().to_string().as_bytes(), from);
        }
    })
}

#[test]
fn every_host_answers_on_a_published_port() {
    on_host(|host| async move {
        let all = nodes(&host, 3, false).await;
        let mut n = overlay("a", "10.0.1.0/24");
        n.ingress = true;
        let app = {
            let mut o = overlay("b", "10.0.2.0/24");
            o.vni = 4098;
            o
        };
        let places = [
            (n.id.as_str(), "10.0.1.11", "n1"),
            (n.id.as_str(), "10.0.1.12", "n2"),
        ];
        for node in &all {
            node.net.set_fabric(&fabric(node, &all, &places)).await.unwrap();
            node.net.ensure_network(&n).await.unwrap();
        }
        // Tasks are in the mesh and in a network of their own, which is their way out.
        let mut tasks = Vec::new();
        for (node, last) in [(&all[0], 11u8), (&all[1], 12)] {
            node.net.ensure_network(&app).await.unwrap();
            let mut mesh = endpoint(&n, &format!("m{last}"), last, "eth0");
            mesh.default_route = false;
            let mut own = endpoint(&app, &format!("o{last}"), last, "eth1");
            own.default_route = true;
            let made = node
                .net
                .create_sandbox_with(&format!("t{last}"), &SandboxDns::default(), &[mesh, own])
                .await;
            tasks.push(made.unwrap());
        }
        let (_a, _b) = (
            TestServer::start(&tasks[0], 80, "a"),
            TestServer::start(&tasks[1], 80, "b"),
        );
        let publish = |backends: &[(&str, &str)]| Frontend {
            published: vec![
                tcp("0.0.0.0", 8080, 80),
                PublishedPort {
                    protocol: PortProtocol::Udp,
                    ..tcp("0.0.0.0", 5353, 53)
                },
            ],
            ..frontend(&n, backends)
        };
        let both = [("10.0.1.11", "n1"), ("10.0.1.12", "n2")];
        for node in &all {
            let refused = node.net.set_frontends(&[publish(&both)]).await.unwrap();
            assert!(refused.is_empty(), "{refused:?}");
        }
        for at in ["192.0.2.2:8080", "192.0.2.3:8080", "192.0.2.4:8080"] {
            assert_eq!(who(&host.outside, at, 24), ["a", "b"], "{at}");
            for node in &all {
                assert_eq!(who(&node.ns, at, 24), ["a", "b"], "{at} from {}", node.name);
            }
            for task in &tasks {
                assert_eq!(who(task, at, 24), ["a", "b"], "{at} from a task");
            }
        }
        for node in &all {
            assert_eq!(who(&node.ns, "127.0.0.1:8080", 24), ["a", "b"], "{}", node.name);
        }
        // The client keeps its address, also through a host without a task.
        for node in &all {
            node.net.set_frontends(&[publish(&both[1..])]).await.unwrap();
        }
        for at in ["192.0.2.2:8080", "192.0.2.4:8080"] {
            assert_eq!(get(&host.outside, at).unwrap(), format!("b {OUTSIDE}"), "{at}");
        }
        // Datagrams too find their way, under the mesh's address.
        let served = echo(&tasks[1]);
        let answer = inside(&host.outside, || {
            let s = UdpSocket::bind("0.0.0.0:0").unwrap();
            s.connect("192.0.2.4:5353").unwrap();
            s.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            s.send(b"?").unwrap();
            let mut buf = [0u8; 64];
            s.recv(&mut buf)
                .map(|n| String::from_utf8_lossy(&buf[..n]).into_owned())
        });
        assert_eq!(answer.unwrap(), "10.0.1.1");
        served.join().unwrap();
    });
}
