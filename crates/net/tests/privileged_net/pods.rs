//! The pods' network over two hosts: addresses, services, policies, names, and a host that is lost.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tripod_agent::ports::{Net, PortRequest};
use tripod_model::network::names::{ClusterNames, NameTarget, ServiceNames};
use tripod_model::network::policy::{Allow, Others, PodPolicy, Policies, PortRange};
use tripod_model::network::{Backend, Frontend, FrontendPorts, PortProtocol, ServicePort};

use crate::cluster::{Node, fabric, nodes, wire};
use crate::host::{HOST, OUTSIDE, TestServer, get, on_host, sh_in, tcp};

const VIP: &str = "10.96.0.7";

fn service(backends: &[(&str, &str)]) -> Frontend {
    Frontend {
        id: "default/web:http".into(),
        network_id: "pods".into(),
        vip: Some(VIP.parse().unwrap()),
        ports: FrontendPorts::Some(vec![ServicePort {
            port: 80,
            target_port: 8080,
            protocol: PortProtocol::Tcp,
        }]),
        published: vec![tcp("0.0.0.0", 30080, 8080)],
        backends: backends
            .iter()
            .map(|(a, node)| Backend::new(a.parse().unwrap(), *a, *node))
            .collect(),
        ..Frontend::default()
    }
}

async fn everywhere(nodes: &[Node], frontends: &[Frontend]) {
    for n in nodes {
        let refused = n.net.set_frontends(frontends).await.unwrap();
        assert!(refused.is_empty(), "{refused:?}");
    }
}

/// Names of the servers that answered a number of connections.
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

fn refused(ns: &Path, to: &str) {
    assert_eq!(
        get(ns, to).unwrap_err().kind(),
        ErrorKind::ConnectionRefused,
        "{to}"
    );
}

#[test]
fn pods_reach_each_other_and_the_outside() {
    on_host(|host| async move {
        let mut all = nodes(&host, 2, true).await;
        let (a, b) = (all[0].pod(2).await, all[1].pod(2).await);
        let a3 = all[0].pod(3).await;
        let (server_a, server_b) = (TestServer::start(&a, 8080, "a"), TestServer::start(&b, 8080, "b"));
        let _h = TestServer::start(&host.ns, 99, "host");
        let _out = TestServer::start(&host.outside, 99, "out");

        for (from, to, want) in [
            (&a3, "10.244.1.2:8080", "a 10.244.1.3"),
            (&a, "10.244.2.2:8080", "b 10.244.1.2"),
            (&b, "10.244.1.2:8080", "a 10.244.2.2"),
            (&host.ns, "10.244.1.2:8080", "a 192.0.2.2"),
            (&host.ns, "10.244.2.2:8080", "b 10.244.1.1"),
            (&a, "10.244.1.1:99", "host 10.244.1.2"),
            (&a, &format!("{HOST}:99"), "host 10.244.1.2"),
            (&a, &format!("{OUTSIDE}:99"), &format!("out {HOST}")),
            (&b, &format!("{OUTSIDE}:99"), "out 192.0.2.3"),
        ] {
            let got = get(from, to).unwrap_or_else(|e| panic!("{to} from {}: {e}", from.display()));
            assert_eq!(got, want, "{to}");
        }
        // An address that nobody has; and nobody outside has a way in.
        let unreachable = get(&a, "10.244.9.9:80").unwrap_err();
        assert!(
            matches!(
                unreachable.kind(),
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
            ),
            "{unreachable}"
        );
        sh_in(&host.outside, &format!("ip route add 10.244.0.0/16 via {HOST}"));
        get(&host.outside, "10.244.1.2:8080").unwrap_err();
        assert!(sh_in(&a, "ip link show eth0").contains("mtu 1450"));

        // The next daemon takes all of it over.
        all[0].restart();
        assert_eq!(get(&a, "10.244.2.2:8080").unwrap(), "b 10.244.1.2");
        let told = fabric(&all[0], &all, &[]);
        all[0].net.set_fabric(&told).await.unwrap();
        all[0].net.ensure_network(&all[0].pods()).await.unwrap();
        assert_eq!(get(&a, "10.244.2.2:8080").unwrap(), "b 10.244.1.2");
        assert_eq!(all[0].net.networks().await.unwrap(), ["pods"]);
        let ours =
            |n: &ipnet::IpNet| n.to_string().starts_with("10.244.") || n.to_string().starts_with("10.96.");
        let subnets = all[0].net.host_subnets().await.unwrap();
        assert!(!subnets.iter().any(ours), "{subnets:?}");
        drop((server_a, server_b));
        for pod in ["pod2", "pod3"] {
            all[0].net.remove_sandbox(pod).await.unwrap();
        }
        all[0].net.remove_network("pods").await.unwrap();
        assert!(!sh_in(&host.ns, "ip link").contains("tp-pods"));
    });
}

#[test]
fn services() {
    on_host(|host| async move {
        let all = nodes(&host, 2, true).await;
        let (a, b) = (all[0].pod(2).await, all[1].pod(2).await);
        let (_a, _b) = (TestServer::start(&a, 8080, "a"), TestServer::start(&b, 8080, "b"));
        let (n1, n2) = (all[0].ns.clone(), all[1].ns.clone());
        let vip = format!("{VIP}:80");
        let both = [("10.244.1.2", "n1"), ("10.244.2.2", "n2")];

        everywhere(&all, &[service(&both)]).await;
        for from in [&a, &b, &n1, &n2] {
            assert_eq!(who(from, &vip, 24), ["a", "b"], "{}", from.display());
        }
        // By a port of a host, from outside and from the hosts themselves; from outside the client is known.
        for from in [&host.outside, &n1, &n2, &a] {
            for to in ["192.0.2.2:30080", "192.0.2.3:30080"] {
                assert_eq!(who(from, to, 24), ["a", "b"], "{to} from {}", from.display());
            }
        }
        for from in [&n1, &n2] {
            assert_eq!(who(from, "127.0.0.1:30080", 24), ["a", "b"]);
        }
        everywhere(&all, &[service(&both[1..])]).await;
        for at in ["192.0.2.2:30080", "192.0.2.3:30080"] {
            assert_eq!(get(&host.outside, at).unwrap(), format!("b {OUTSIDE}"));
        }
        assert_eq!(get(&a, &vip).unwrap(), "b 10.244.1.2");
        // Oneself.
        assert!(get(&b, &vip).unwrap().starts_with("b "));

        // Nobody: refused wherever one asks.
        everywhere(&all, &[service(&[])]).await;
        for from in [&a, &n1] {
            refused(from, &vip);
        }
        refused(&host.outside, "192.0.2.2:30080");

        // Gone: no trace.
        everywhere(&all, &[]).await;
        assert!(get(&a, &vip).is_err());
    });
}

#[test]
fn policies_of_traffic_and_affinity() {
    on_host(|host| async move {
        let all = nodes(&host, 2, true).await;
        let (a, b) = (all[0].pod(2).await, all[1].pod(2).await);
        let (_a, _b) = (TestServer::start(&a, 8080, "a"), TestServer::start(&b, 8080, "b"));
        let both = [("10.244.1.2", "n1"), ("10.244.2.2", "n2")];
        let vip = format!("{VIP}:80");

        let local = Frontend {
            external_local: true,
            load_balancer_ips: vec!["198.51.100.1".parse().unwrap()],
            ..service(&both)
        };
        everywhere(&all, std::slice::from_ref(&local)).await;
        assert_eq!(who(&host.outside, "192.0.2.2:30080", 10), ["a"]);
        assert_eq!(who(&host.outside, "192.0.2.3:30080", 10), ["b"]);
        assert_eq!(
            get(&host.outside, "192.0.2.3:30080").unwrap(),
            format!("b {OUTSIDE}")
        );
        sh_in(&host.outside, &format!("ip route add 198.51.100.1 via {HOST}"));
        assert_eq!(who(&host.outside, "198.51.100.1:80", 10), ["a"]);
        // From inside the cluster, all.
        assert_eq!(who(&b, "192.0.2.3:30080", 24), ["a", "b"]);
        assert_eq!(who(&a, "198.51.100.1:80", 24), ["a", "b"]);
        assert_eq!(who(&a, &vip, 24), ["a", "b"]);
        // Guarded by ranges of clients.
        let guarded = |range: &str| Frontend {
            source_ranges: vec![range.parse().unwrap()],
            ..local.clone()
        };
        everywhere(&all, &[guarded("192.0.2.0/24")]).await;
        assert_eq!(who(&host.outside, "198.51.100.1:80", 2), ["a"]);
        everywhere(&all, &[guarded("203.0.113.0/24")]).await;
        assert!(get(&host.outside, "198.51.100.1:80").is_err());

        let inner = Frontend {
            internal_local: true,
            ..service(&both)
        };
        everywhere(&all, &[inner]).await;
        assert_eq!(
            (who(&a, &vip, 10), who(&b, &vip, 10)),
            (vec!["a".into()], vec!["b".into()])
        );

        let sticky = Frontend {
            affinity_seconds: 100,
            ..service(&both)
        };
        everywhere(&all, std::slice::from_ref(&sticky)).await;
        let first = who(&a, &vip, 12);
        assert_eq!(first.len(), 1);
        // Where it was is gone: another, and that one from then on.
        let left: Vec<_> = both
            .iter()
            .filter(|(x, _)| !x.starts_with(if first[0] == "a" { "10.244.1" } else { "10.244.2" }))
            .copied()
            .collect();
        let less = Frontend {
            affinity_seconds: 100,
            ..service(&left)
        };
        everywhere(&all, &[less]).await;
        let second = who(&a, &vip, 3);
        assert_ne!(second, first);
        everywhere(&all, &[sticky]).await;
        assert_eq!(who(&a, &vip, 12), second);

        // A host behind an address of the cluster, as the API is.
        let _api = TestServer::start(&all[1].ns, 6443, "api");
        let mut api = service(&[("192.0.2.3", "n2")]);
        api.backends[0].port = Some(6443);
        everywhere(&all, &[api]).await;
        for from in [&a, &b, &all[0].ns, &all[1].ns] {
            assert!(get(from, &vip).unwrap().starts_with("api "), "{}", from.display());
        }
        assert!(get(&host.outside, "192.0.2.2:30080").unwrap().starts_with("api "));
    });
}

#[test]
fn ports_of_the_host() {
    on_host(|host| async move {
        let all = nodes(&host, 2, true).await;
        let (a, b) = (all[0].pod(2).await, all[1].pod(2).await);
        let server = TestServer::start(&a, 8080, "a");
        let request = [PortRequest {
            port: tcp("0.0.0.0", 8080, 8080),
            host_port_end: 0,
        }];
        let done = all[0]
            .net
            .publish("pod2", &all[0].pod_endpoint(2), &request)
            .await
            .unwrap();
        assert_eq!(done[0].host_port, 8080);
        for (from, at) in [
            (&host.outside, "192.0.2.2:8080"),
            (&host.ns, "127.0.0.1:8080"),
            (&host.ns, "192.0.2.2:8080"),
            (&a, "192.0.2.2:8080"),
            (&b, "192.0.2.2:8080"),
        ] {
            assert!(get(from, at).unwrap().starts_with("a "), "{at}");
        }
        drop(server);
        all[0].net.remove_sandbox("pod2").await.unwrap();
        assert!(get(&host.outside, "192.0.2.2:8080").is_err());
    });
}

#[test]
fn allowed_traffic_only() {
    on_host(|host| async move {
        let all = nodes(&host, 2, true).await;
        let (a, b, a3) = (all[0].pod(2).await, all[1].pod(2).await, all[0].pod(3).await);
        let _a = [TestServer::start(&a, 8080, "a"), TestServer::start(&a, 81, "a81")];
        let _b = TestServer::start(&b, 8080, "b");
        let _out = TestServer::start(&host.outside, 99, "out");
        let port = |p| {
            Some(vec![PortRange {
                protocol: PortProtocol::Tcp,
                from: p,
                to: p,
            }])
        };
        let set = |members: &[&str], policy| Policies {
            sets: [(
                "friends".to_owned(),
                members.iter().map(|m| m.parse().unwrap()).collect(),
            )]
            .into(),
            waiting: Default::default(),
            pods: [("10.244.1.2".parse::<IpAddr>().unwrap(), policy)].into(),
        };
        let friends = || Some(vec![Others::Set("friends".into())]);
        let ingress = |ports| PodPolicy {
            ingress: Some(vec![Allow {
                others: friends(),
                ports,
                ..Allow::default()
            }]),
            egress: None,
        };
        let n1 = &all[0].net;
        let (at, at81) = ("10.244.1.2:8080", "10.244.1.2:81");

        n1.set_policies(&set(&["10.244.2.2"], ingress(port(8080))))
            .await
            .unwrap();
        assert!(get(&b, at).is_ok() && get(&b, at81).is_err() && get(&a3, at).is_err());
        // The host's probes are always let through.
        assert!(get(&host.ns, at81).is_ok());
        n1.set_policies(&set(&["10.244.1.3"], ingress(None)))
            .await
            .unwrap();
        assert!(get(&b, at).is_err() && get(&a3, at).is_ok() && get(&a3, at81).is_ok());
        // Also where it goes by the address of a service or a port of the host.
        everywhere(&all, &[service(&[("10.244.1.2", "n1")])]).await;
        let vip = format!("{VIP}:80");
        assert!(get(&b, &vip).is_err() && get(&a3, &vip).is_ok() && get(&a, &vip).is_ok());
        assert!(get(&host.outside, "192.0.2.2:30080").is_err());
        let outside = Others::Block {
            net: "192.0.2.0/24".parse().unwrap(),
            except: vec!["192.0.2.2/32".parse().unwrap()],
        };
        let block = PodPolicy {
            ingress: Some(vec![Allow {
                others: Some(vec![outside]),
                ports: None,
                ..Allow::default()
            }]),
            egress: None,
        };
        n1.set_policies(&set(&[], block)).await.unwrap();
        for at in ["192.0.2.2:30080", "192.0.2.3:30080"] {
            assert_eq!(get(&host.outside, at).unwrap(), format!("a {OUTSIDE}"));
        }

        // What it sends.
        let egress = PodPolicy {
            ingress: None,
            egress: Some(vec![Allow {
                others: friends(),
                ports: None,
                ..Allow::default()
            }]),
        };
        n1.set_policies(&set(&["10.244.2.2"], egress)).await.unwrap();
        assert!(get(&a, "10.244.2.2:8080").is_ok());
        assert!(get(&a, &format!("{OUTSIDE}:99")).is_err() && get(&a3, &format!("{OUTSIDE}:99")).is_ok());
        // Not under another's address either.
        sh_in(
            &a,
            "ip addr add 10.244.1.77/32 dev eth0; ip route add 192.0.2.1 via 10.244.1.1 dev eth0 onlink src 10.244.1.77",
        );
        assert!(get(&a, &format!("{OUTSIDE}:99")).is_err());
        n1.set_policies(&Policies::default()).await.unwrap();
        assert!(get(&b, at81).is_ok());
    });
}

/// Asks for an A record; the number of answers and the code.
fn ask(ns: &Path, name: &str) -> (usize, u8) {
    let mut q = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        q.push(label.len() as u8);
        q.extend_from_slice(label.as_bytes());
    }
    q.extend_from_slice(&[0, 0, 1, 0, 1]);
    crate::host::inside(ns, move || {
        let s = UdpSocket::bind("0.0.0.0:0").unwrap();
        s.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        s.send_to(&q, "10.96.0.10:53").unwrap();
        let mut buf = [0u8; 512];
        let (n, from) = s.recv_from(&mut buf).unwrap();
        assert!(n > 12 && from.ip() == IpAddr::from([10, 96, 0, 10]));
        (usize::from(buf[7]), buf[3] & 15)
    })
}

#[test]
fn names_of_services() {
    on_host(|host| async move {
        let all = nodes(&host, 2, true).await;
        let names = ClusterNames {
            domain: "cluster.local".into(),
            namespaces: vec!["default".into()],
            services: vec![Arc::new(ServiceNames {
                namespace: "default".into(),
                name: "web".into(),
                target: NameTarget::Addresses {
                    addresses: vec![VIP.parse().unwrap()],
                    ports: Vec::new(),
                },
            })],
        };
        for n in &all {
            n.net.set_cluster_names(&names).await.unwrap();
        }
        let (a, b) = (all[0].pod(2).await, all[1].pod(2).await);
        for from in [&a, &b, &host.ns] {
            assert_eq!(ask(from, "web.default.svc.cluster.local"), (1, 0));
            assert_eq!(ask(from, "gone.default.svc.cluster.local"), (0, 3));
        }
    });
}

#[test]
fn a_lost_host_is_left_out() {
    on_host(|host| async move {
        let all = nodes(&host, 2, true).await;
        let (a, b) = (all[0].pod(2).await, all[1].pod(2).await);
        let (_a, _b) = (TestServer::start(&a, 8080, "a"), TestServer::start(&b, 8080, "b"));
        let both = [("10.244.1.2", "n1"), ("10.244.2.2", "n2")];
        let other = Frontend {
            id: "other".into(),
            vip: Some("10.96.0.8".parse().unwrap()),
            published: Vec::new(),
            ..service(&both[1..])
        };
        everywhere(&all, &[service(&both), other]).await;
        let vip = format!("{VIP}:80");
        assert_eq!(who(&a, &vip, 24), ["a", "b"]);
        // The probes have had time for a first answer.
        tokio::time::sleep(Duration::from_millis(500)).await;

        wire(&host, 2, false);
        let lost = Instant::now();
        tokio::time::sleep(Duration::from_millis(950)).await;
        let from = a.clone();
        assert_eq!(who(&from, &vip, 24), ["a"], "after {:?}", lost.elapsed());
        // Never all of them: who knows.
        assert_ne!(
            get(&a, "10.96.0.8:80").unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        wire(&host, 2, true);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(who(&a, &vip, 24), ["a", "b"]);
    });
}
