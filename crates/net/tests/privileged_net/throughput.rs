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
        while start.elapsed() < Duration::from_millis(700) {
            get_here(to).unwrap();
            n += 1;
        }
        f64::from(n) / start.elapsed().as_secs_f64()
    })
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
            .args(["-c", &address, "-p", &port.to_string(), "-t", "2", "-J"])
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
        let (o, b) = (
            NetworkSpec {
                ingress: true,
                ..overlay("a", "10.0.0.0/24")
            },
            bridge("b", "172.20.0.0/16"),
        );
        net.ensure_network(&o).await.unwrap();
        net.ensure_network(&b).await.unwrap();
        let dns = SandboxDns::default();
        let s1 = net
            .create_sandbox_with("s1", &dns, &[endpoint(&o, "1", 11, "eth0")])
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
        let _servers = [TestServer::start(&s1, 80, "x"), TestServer::start(&sb, 80, "x")];
        let Some(_iperf) = Iperf::start(&s1).zip(Iperf::start(&sb)) else {
            println!("skipped: iperf3 is not installed");
            return;
        };
        assert!(net.wait_listening("s1", &[5201], Duration::from_secs(2)).await);
        assert!(net.wait_listening("sb", &[5201], Duration::from_secs(2)).await);
        net.set_frontends(&[Frontend {
            id: "svc".into(),
            network_id: o.id.clone(),
            vip: Some([10, 0, 0, 2].into()),
            ports: FrontendPorts::All,
            published: vec![tcp("0.0.0.0", 8080, 80), tcp("0.0.0.0", 8201, 5201)],
            backends: vec![Backend {
                address: [10, 0, 0, 11].into(),
                owner: String::new(),
                terminating: false,
            }],
            affinity_seconds: 0,
        }])
        .await
        .unwrap();
        let ports = [tcp("0.0.0.0", 9080, 80), tcp("0.0.0.0", 9201, 5201)];
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
        for (what, ns, address, web, perf) in [
            ("overlay, direct", &s2, "10.0.0.11", 80, 5201),
            ("overlay, virtual address", &s2, "10.0.0.2", 80, 5201),
            ("bridge from the host, direct", &host.ns, "172.20.0.2", 80, 5201),
            ("bridge from the host, published", &host.ns, HOST, 9080, 9201),
            ("bridge from outside, published", &host.outside, HOST, 9080, 9201),
            ("mesh from outside", &host.outside, HOST, 8080, 8201),
            ("mesh from the host", &host.ns, HOST, 8080, 8201),
        ] {
            let c = connections(ns, &format!("{address}:{web}"));
            let g = gigabits(ns, address, perf);
            println!("{what}: {c:.0} connections/s, {g:.1} Gbit/s");
            assert!(c > 50.0 && g > 0.2, "{what}: {c} connections/s, {g} Gbit/s");
        }
    });
}
