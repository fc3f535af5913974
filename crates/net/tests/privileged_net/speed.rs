//! Budgets of the paths on which the speed of containers depends: medians, with room for a loaded machine.

use std::time::{Duration, Instant};

use tripod_agent::ports::{Net, PortRequest, SandboxDns};
use tripod_model::network::{Backend, Frontend, FrontendPorts};

use crate::host::{bridge, endpoint, on_host, overlay, tcp};

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

#[test]
fn sandboxes_and_ports_are_quick() {
    on_host(|host| async move {
        let net = host.open();
        for (name, n) in [
            ("bridge", bridge("a", "172.20.0.0/16")),
            ("overlay", overlay("b", "10.0.0.0/16")),
        ] {
            net.ensure_network(&n).await.unwrap();
            let (mut made, mut removed, mut published) = (Vec::new(), Vec::new(), Vec::new());
            for i in 0..60u8 {
                let e = endpoint(&n, &format!("{i:03x}"), i + 10, "eth0");
                let dns = SandboxDns {
                    embedded: true,
                    upstream: vec![],
                };
                let s = format!("s{i}");
                let t = Instant::now();
                net.create_sandbox_with(&s, &dns, std::slice::from_ref(&e))
                    .await
                    .unwrap();
                made.push(t.elapsed());
                let t = Instant::now();
                let request = PortRequest {
                    port: tcp("0.0.0.0", 0, 80),
                    host_port_end: 0,
                };
                net.publish(&s, &e, &[request]).await.unwrap();
                published.push(t.elapsed());
                let t = Instant::now();
                net.remove_sandbox(&s).await.unwrap();
                removed.push(t.elapsed());
            }
            let (made, removed, published) = (median(made), median(removed), median(published));
            println!("{name}: create {made:?}, publish {published:?}, remove {removed:?}");
            assert!(made < Duration::from_millis(30), "{made:?}");
            assert!(removed < Duration::from_millis(30), "{removed:?}");
            assert!(published < Duration::from_millis(10), "{published:?}");
        }
    });
}

#[test]
fn frontends_change_by_difference() {
    on_host(|host| async move {
        let net = host.open();
        let n = overlay("a", "10.0.0.0/16");
        net.ensure_network(&n).await.unwrap();
        let mut all: Vec<Frontend> = (0..1000u32)
            .map(|i| {
                let [_, _, c, d] = i.to_be_bytes();
                Frontend {
                    id: format!("svc{i}"),
                    network_id: n.id.clone(),
                    vip: Some([10, 0, 100 + c, d].into()),
                    ports: FrontendPorts::All,
                    published: Vec::new(),
                    backends: (0..10u8)
                        .map(|b| Backend {
                            address: [10, 0, b, d].into(),
                            owner: String::new(),
                            terminating: false,
                            node: String::new(),
                            port: None,
                        })
                        .collect(),
                    ..Frontend::default()
                }
            })
            .collect();
        let t = Instant::now();
        net.set_frontends(&all).await.unwrap();
        let load = t.elapsed();
        let mut changes = Vec::new();
        for i in 0..50 {
            let f = &mut all[i * 7];
            f.backends[0].terminating = !f.backends[0].terminating;
            let t = Instant::now();
            net.set_frontends(&all).await.unwrap();
            changes.push(t.elapsed());
        }
        let change = median(changes);
        println!("1000 services of 10: load {load:?}, change {change:?}");
        assert!(load < Duration::from_secs(5));
        assert!(change < Duration::from_millis(200));
    });
}
