//! A namespace that stands for a host, with a client outside it, and servers and clients inside sandboxes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use tripod_model::Time;
use tripod_model::network::{Endpoint, NetworkDriver, NetworkSpec, PortProtocol, PublishedPort, Subnet};
use tripod_net::{KernelNet, Options};

/// Address of the host towards the outside.
pub(crate) const HOST: &str = "192.0.2.2";
/// Address of the client outside.
pub(crate) const OUTSIDE: &str = "192.0.2.1";

/// The host of a test. Everything in it goes with the test's thread.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ns: PathBuf,
    pub(crate) outside: PathBuf,
}

/// Runs a test in network and mount namespaces of its own, or says why it cannot.
pub(crate) fn on_host<F>(test: impl FnOnce(Host) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        // `ip` knows namespaces by their names below /run/netns.
        mount(
            Some("tmpfs"),
            "/run",
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        std::fs::create_dir("/run/netns").unwrap();
        let dir = tempfile::tempdir().unwrap();
        mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let host = Host {
            ns: keep(dir.path(), "host"),
            outside: outside(dir.path()),
            dir,
        };
        sh(
            "ip link set lo up; ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0; ip route add default via 192.0.2.1; ip link show dev eth0",
        );
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(host));
        runtime.shutdown_timeout(Duration::from_secs(5));
    });
    if let Err(e) = thread.join() {
        std::panic::resume_unwind(e);
    }
}

pub(crate) fn keep(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    File::create(&path).unwrap();
    mount(
        Some("/proc/thread-self/ns/net"),
        &path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    path
}

fn outside(dir: &Path) -> PathBuf {
    let here = File::open("/proc/thread-self/ns/net").unwrap();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let path = keep(dir, "outside");
    keep(Path::new("/run/netns"), "outside");
    setns(&here, CloneFlags::CLONE_NEWNET).unwrap();
    sh("ip link add eth0 type veth peer name out0 netns outside");
    setns(File::open(&path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    sh("ip link set lo up; ip link set out0 up; ip addr add 192.0.2.1/24 dev out0");
    setns(&here, CloneFlags::CLONE_NEWNET).unwrap();
    path
}

/// Runs shell commands in the calling thread's namespaces.
pub(crate) fn sh(script: &str) -> String {
    let out = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(
        out.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs work on a thread inside a namespace.
pub(crate) fn inside<T: Send + 'static>(ns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let ns = File::open(ns).unwrap();
    std::thread::spawn(move || {
        setns(ns, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
    .join()
    .unwrap()
}

/// Shell commands inside a namespace.
pub(crate) fn sh_in(ns: &Path, script: &str) -> String {
    let script = script.to_owned();
    inside(ns, move || sh(&script))
}

/// A TCP server inside a namespace, which tells its name and who asks.
pub(crate) struct TestServer {
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    ns: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    /// Serves until dropped.
    pub(crate) fn start(ns: &Path, port: u16, name: &str) -> Self {
        let name = name.to_owned();
        let listener = inside(ns, move || TcpListener::bind(("0.0.0.0", port)).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for s in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(mut s) = s {
                    let peer = s.peer_addr().unwrap().ip();
                    let _ = write!(s, "{name} {peer}");
                }
            }
        });
        Self {
            stop,
            address: ([127, 0, 0, 1], port).into(),
            ns: ns.to_owned(),
            thread: Some(thread),
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let address = self.address;
        inside(&self.ns, move || drop(TcpStream::connect(address)));
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

/// What a [`TestServer`] answers to somebody in the namespace.
pub(crate) fn get(ns: &Path, to: &str) -> io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    inside(ns, move || get_here(to))
}

/// The same from the calling thread.
pub(crate) fn get_here(to: SocketAddr) -> io::Result<String> {
    let mut s = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
    s.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut text = String::new();
    s.read_to_string(&mut text)?;
    Ok(text)
}

impl Host {
    pub(crate) fn open(&self) -> KernelNet {
        KernelNet::open(&Options::new(self.dir.path(), "test")).unwrap()
    }
}

fn spec(id: &str, driver: NetworkDriver, subnet: &str) -> NetworkSpec {
    let subnet: IpNet = subnet.parse().unwrap();
    NetworkSpec {
        id: id.repeat(64)[..64].to_owned(),
        name: format!("net{id}"),
        driver,
        cluster: driver == NetworkDriver::Overlay,
        created_at: Time::default(),
        internal: false,
        attachable: false,
        ingress: false,
        ipv4: true,
        ipv6: false,
        subnets: vec![Subnet {
            subnet,
            gateway: subnet.hosts().next(),
            ip_range: None,
            aux_addresses: Default::default(),
        }],
        options: Default::default(),
        ipam_options: Default::default(),
        labels: Default::default(),
        vni: 4097,
        mtu: 0,
        encrypted: false,
    }
}

pub(crate) fn bridge(id: &str, subnet: &str) -> NetworkSpec {
    spec(id, NetworkDriver::Bridge, subnet)
}

pub(crate) fn overlay(id: &str, subnet: &str) -> NetworkSpec {
    spec(id, NetworkDriver::Overlay, subnet)
}

/// An endpoint of the network with this last byte of the address; `id` is repeated to the usual length.
pub(crate) fn endpoint(network: &NetworkSpec, id: &str, last: u8, interface: &str) -> Endpoint {
    let subnet = network.subnets[0].subnet;
    let IpAddr::V4(base) = subnet.network() else {
        panic!("IPv4 only")
    };
    let [a, b, c, _] = base.octets();
    Endpoint {
        id: id.repeat(64)[..64].to_owned(),
        network_id: network.id.clone(),
        network_name: network.name.clone(),
        ipv4: Some(IpNet::new([a, b, c, last].into(), subnet.prefix_len()).unwrap()),
        ipv6: None,
        gateway: network.subnets[0].gateway,
        gateway6: None,
        mac: String::new(),
        interface: interface.into(),
        default_route: interface == "eth0" && !network.internal,
        names: vec![format!("c{id}")],
        aliases: Vec::new(),
        links: Vec::new(),
        fixed_ipv4: false,
        fixed_ipv6: false,
        driver_opts: Default::default(),
        gw_priority: 0,
    }
}

pub(crate) fn tcp(host_ip: &str, host_port: u16, target_port: u16) -> PublishedPort {
    PublishedPort {
        host_ip: host_ip.parse().unwrap(),
        host_port,
        target_port,
        protocol: PortProtocol::Tcp,
    }
}
