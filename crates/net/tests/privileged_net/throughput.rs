//! What the ways through virtual addresses and published ports cost, against direct ones.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tripod_agent::ports::{Net, PortRequest, SandboxDns};
use tripod_model::network::{Backend, Frontend, FrontendPorts, NetworkSpec};

use crate::host::{HOST, TestServer, bridge, endpoint, get_here, inside, on_host, overlay, tcp};

/// Connections a second: made, answered and closed, by one client.
fn connections(ns: &Path, to: &str) -> f64 {
    let to = to.parse().unwrap();
    inside(ns, move || {
        let start = Instant::now();
        let mut n = 0;
        while start.elapsed() < Duration::from_millis(100) {
            get_here(to).unwrap();
            n += 1;
        }
        f64::from(n) / start.elapsed().as_secs_f64()
    })
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// An `iperf3` server, ended with the test.
struct Iperf(Child);

impl Iperf {
    fn start(ns: &Path) -> Option<Self> {
        inside(ns, || {
            Command::new("iperf3")
                .args(["-s", "-p", "5201"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        })
        .ok()
        .map(Self)
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gbit/s of one stream.
fn gigabits(ns: &Path, address: &str, port: u16) -> f64 {
    let address = address.to_owned();
    let out = inside(ns, move || {
        Command::new("iperf3")
            .args(["-c", &address, "-p", &port.to_string(), "-t", "1", "-J"])
            .output()
            .unwrap()
    });
    let v: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    v["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .unwrap_or_else(|| panic!("{v}"))
        / 1e9
}

#[test]
fn translation_costs_little() {
    on_host(|host| async move {
        let net = host.open();
        let mesh = NetworkSpec {
            ingress: true,
            ..overlay("a", "10.0.0.0/24")
        };
        let (o, b) = (overlay("c", "10.0.1.0/24"), bridge("b", "172.20.0.0/16"));
        for n in [&mesh, &o, &b] {
            net.ensure_network(n).await.unwrap();
        }
        let dns = SandboxDns::default();
        let mut at_mesh = endpoint(&mesh, "4", 11, "eth0");
        at_mesh.default_route = false;
        let mut own = endpoint(&o, "1", 11, "eth1");
        own.default_route = true;
        let s1 = net
            .create_sandbox_with("s1", &dns, &[at_mesh, own])
            .await
            .unwrap();
        let s2 = net
            .create_sandbox_with("s2", &dns, &[endpoint(&o, "2", 12, "eth0")])
            .await
            .unwrap();
        let eb = endpoint(&b, "3", 2, "eth0");
        let sb = net
            .create_sandbox_with("sb", &dns, std::slice::from_ref(&eb))
            .await
            .unwrap();
        // A port for each way: the same port of a client to the same server by two ways would be a collision.
        let _servers: Vec<TestServer> = (80..84)
            .flat_map(|p| [TestServer::start(&s1, p, "x"), TestServer::start(&sb, p, "x")])
            .collect();
        let Some(_iperf) = Iperf::start(&s1).zip(Iperf::start(&sb)) else {
            println!("skipped: iperf3 is not installed");
            return;
        };
        assert!(net.wait_listening("s1", &[5201], Duration::from_secs(2)).await);
        assert!(net.wait_listening("sb", &[5201], Duration::from_secs(2)).await);
        let frontend = |n: &NetworkSpec, vip: &str, published, backend: &str| Frontend {
            id: "svc".into(),
            network_id: n.id.clone(),
            vip: Some(vip.parse().unwrap()),
            ports: FrontendPorts::All,
            published,
            backends: vec![Backend {
                address: backend.parse().unwrap(),
                owner: String::new(),
                terminating: false,
                node: String::new(),
                port: None,
            }],
            ..Frontend::default()
        };
        let published = vec![
            tcp("0.0.0.0", 8080, 82),
            tcp("0.0.0.0", 8083, 83),
            tcp("0.0.0.0", 8201, 5201),
        ];
        net.set_frontends(&[
            frontend(&mesh, "10.0.0.2", published, "10.0.0.11"),
            frontend(&o, "10.0.1.2", Vec::new(), "10.0.1.11"),
        ])
        .await
        .unwrap();
        let ports = [
            tcp("0.0.0.0", 9080, 82),
            tcp("0.0.0.0", 9083, 83),
            tcp("0.0.0.0", 9201, 5201),
        ];
        net.publish(
            "sb",
            &eb,
            &ports.map(|port| PortRequest {
                port,
                host_port_end: 0,
            }),
        )
        .await
        .unwrap();
        let ways = [
            ("overlay, direct", &s2, "10.0.1.11", 80, 5201, 0),
            ("overlay, virtual address", &s2, "10.0.1.2", 81, 5201, 0),
            ("mesh from outside", &host.outside, HOST, 8080, 8201, 0),
            ("mesh from the host", &host.ns, HOST, 8083, 8201, 0),
            (
                "bridge from the host, direct",
                &host.ns,
                "172.20.0.2",
                80,
                5201,
                4,
            ),
            ("bridge from the host, published", &host.ns, HOST, 9083, 9201, 4),
            (
                "bridge from outside, published",
                &host.outside,
                HOST,
                9080,
                9201,
                4,
            ),
        ];
        // In turn, so that what else the machine does is shared by all.
        let mut rates = ways.map(|_| Vec::new());
        let mut speeds = ways.map(|_| Vec::new());
        for round in 0..25 {
            for (i, (_, ns, address, web, perf, _)) in ways.iter().enumerate() {
                rates[i].push(connections(ns, &format!("{address}:{web}")));
                if round % 8 == 0 {
                    speeds[i].push(gigabits(ns, address, *perf));
                }
            }
        }
        let (rates, speeds) = (rates.map(median), speeds.map(median));
        for (i, (what, .., base)) in ways.iter().enumerate() {
            let (c, g) = (rates[i], speeds[i]);
            let (rc, rg) = (c / rates[*base], g / speeds[*base]);
            println!("{what}: {c:.0} connections/s ({rc:.2}), {g:.1} Gbit/s ({rg:.2})");
            // Room for a machine that does something else at the wrong time.
            assert!(
                rc > 0.5 && rg > 0.5,
                "{what}: {rc:.2} and {rg:.2} of the direct way"
            );
        }
    });
}
