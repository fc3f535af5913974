//! Several hosts: the first is the test's own, the others are namespaces beside it, on one wire with the client
//! outside.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use tripod_agent::ports::{Net, SandboxDns};
use tripod_model::network::fabric::{Fabric, NetworkRoutes, Peer, RemoteRoute, pod_network};
use tripod_model::network::{Endpoint, NetworkSpec};
use tripod_net::{KernelNet, Options};

use crate::host::{Host, inside, keep, sh_in};

/// A host with its networks.
pub(crate) struct Node {
    pub(crate) net: KernelNet,
    pub(crate) ns: PathBuf,
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    number: usize,
    run: PathBuf,
}

/// Hosts named n1, n2 …, at 192.0.2.2, 192.0.2.3 … (the outside is 192.0.2.1), with pods' network when asked for.
pub(crate) async fn nodes(host: &Host, n: usize, pods: bool) -> Vec<Node> {
    sh_in(
        &host.outside,
        "ip addr flush dev out0; ip link add br0 type bridge; ip link set out0 master br0; \
         ip addr add 192.0.2.1/24 dev br0; ip link set br0 up",
    );
    let mut all = Vec::new();
    for number in 1..=n {
        let name = format!("n{number}");
        let ns = if number == 1 {
            host.ns.clone()
        } else {
            beside(host, number)
        };
        let run = host.dir.path().join(&name);
        std::fs::create_dir(&run).unwrap();
        all.push(Node {
            net: open(&run, &ns),
            ns,
            name,
            address: [192, 0, 2, 1 + number as u8].into(),
            number,
            run,
        });
    }
    for node in &all {
        node.net.set_fabric(&fabric(node, &all, &[])).await.unwrap();
        if pods {
            node.net.ensure_network(&node.pods()).await.unwrap();
        }
    }
    all
}

fn beside(host: &Host, number: usize) -> PathBuf {
    let dir = host.dir.path().to_owned();
    let name = format!("host{number}");
    let path = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        keep(std::path::Path::new("/run/netns"), &name);
        keep(&dir, &name)
    })
    .join()
    .unwrap();
    sh_in(
        &host.outside,
        &format!(
            "ip link add out{number} type veth peer name eth0 netns host{number}; \
             ip link set out{number} master br0 up"
        ),
    );
    let at = 1 + number;
    sh_in(
        &path,
        &format!(
            "ip link set lo up; ip link set eth0 up; ip addr add 192.0.2.{at}/24 dev eth0; \
             ip route add default via 192.0.2.1; ip link show dev eth0"
        ),
    );
    path
}

fn open(run: &std::path::Path, ns: &std::path::Path) -> KernelNet {
    let (run, runtime) = (run.to_owned(), tokio::runtime::Handle::current());
    inside(ns, move || {
        let _runtime = runtime.enter();
        KernelNet::open(&Options::new(run, "test")).unwrap()
    })
}

/// What a node is told of the others: their blocks of pods, and addresses in overlays (network, address, node).
pub(crate) fn fabric(node: &Node, all: &[Node], overlays: &[(&str, &str, &str)]) -> Fabric {
    let others = || all.iter().filter(|o| o.name != node.name);
    let mut routes = vec![NetworkRoutes {
        network_id: "pods".into(),
        routes: others()
            .map(|o| RemoteRoute {
                to: o.block(),
                node: o.name.clone(),
            })
            .collect(),
    }];
    for (network, address, on) in overlays.iter().filter(|o| o.2 != node.name) {
        let route = RemoteRoute {
            to: address.parse::<IpAddr>().unwrap().into(),
            node: (*on).into(),
        };
        match routes.iter_mut().find(|r| r.network_id == *network) {
            Some(r) => r.routes.push(route),
            None => routes.push(NetworkRoutes {
                network_id: (*network).into(),
                routes: vec![route],
            }),
        }
    }
    Fabric {
        node: node.name.clone(),
        address: Some(node.address),
        port: 4789,
        peers: others()
            .map(|o| Peer {
                node: o.name.clone(),
                address: o.address,
            })
            .collect(),
        routes,
    }
}

impl Node {
    fn block(&self) -> IpNet {
        IpNet::new([10, 244, self.number as u8, 0].into(), 24).unwrap()
    }

    /// The pods' network as this node has it.
    pub(crate) fn pods(&self) -> NetworkSpec {
        pod_network(
            "10.244.0.0/16".parse().unwrap(),
            self.block(),
            "10.96.0.0/16".parse().unwrap(),
            [10, 96, 0, 10].into(),
        )
    }

    /// An endpoint of a pod with this last byte of its address.
    pub(crate) fn pod_endpoint(&self, last: u8) -> Endpoint {
        let id = format!("{:02}{last:03}", self.number);
        let mut e = crate::host::endpoint(&self.pods(), &id, last, "eth0");
        e.ipv4 = Some(IpNet::new([10, 244, self.number as u8, last].into(), 32).unwrap());
        e
    }

    /// A pod with this last byte of its address: where its namespace is.
    pub(crate) async fn pod(&self, last: u8) -> PathBuf {
        let (name, endpoint) = (format!("pod{last}"), [self.pod_endpoint(last)]);
        let dns = SandboxDns::default();
        let made = self.net.create_sandbox_with(&name, &dns, &endpoint).await;
        made.unwrap()
    }

    /// The daemon ends and another takes over.
    pub(crate) fn restart(&mut self) {
        self.net = open(&self.run, &self.ns);
    }
}

/// Loses a host's wire, or gives it back.
pub(crate) fn wire(host: &Host, number: usize, up: bool) {
    let state = if up { "up" } else { "down" };
    let port = if number == 1 { 0 } else { number };
    sh_in(&host.outside, &format!("ip link set out{port} {state}"));
}
