//! The port `Net` on the kernel: state of the node's networks, and thin code that applies what is rendered.

mod api;
mod frontends;
mod networks;
mod peers;
mod pods;
mod ports;
mod routers;
mod sandboxes;
mod survey;
mod table;
mod tunnels;

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tripod_model::network::PortProtocol;
use tripod_model::network::fabric::Fabric;
use tripod_model::{Error, Result};

use crate::netlink::{Socket, nft, route};
use crate::outer::Outer;
use crate::render::{address_port_key, host, policies, target};
use crate::{dns, ns};
use frontends::Frontends;
use networks::Network;
use peers::Peers;
use ports::Held;
use sandboxes::Sandbox;
use table::Table;

/// Names under which kept sockets are known; the sandbox's follows.
const DNS_UDP: &str = "dns-udp/";
const DNS_TCP: &str = "dns-tcp/";

/// How the node's networks are set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespaces are kept in `netns` below it. Must be on a file system that does not outlive a reboot.
    pub run_dir: PathBuf,
    /// The node's name, for messages.
    pub node: String,
    /// The host's resolver configuration.
    pub resolv_conf: PathBuf,
    /// The machine around the node, for nodes of local clusters: the path of its network namespace, and the node's
    /// address as the machine knows it.
    pub outer: Option<(PathBuf, std::net::IpAddr)>,
}

impl Options {
    /// The usual settings below this run directory.
    pub fn new(run_dir: impl Into<PathBuf>, node: impl Into<String>) -> Self {
        Self {
            run_dir: run_dir.into(),
            node: node.into(),
            resolv_conf: "/etc/resolv.conf".into(),
            outer: None,
        }
    }
}

/// The node's networks in the kernel.
#[derive(Debug, Clone)]
pub struct KernelNet {
    pub(crate) inner: Arc<Inner>,
}

/// State shared by all operations. Locks are held for the time of one kernel call at most, except `building`.
#[derive(Debug)]
pub(crate) struct Inner {
    netns: PathBuf,
    host_ns: File,
    route: Socket,
    table: Table,
    /// Held while a network is made or removed: names and uplinks are chosen under it.
    building: Mutex<()>,
    networks: Mutex<HashMap<String, Arc<Network>>>,
    sandboxes: Mutex<HashMap<String, Arc<Sandbox>>>,
    held: Mutex<Held>,
    frontends: Mutex<Frontends>,
    policies: Mutex<policies::Told>,
    /// The other nodes.
    fabric: Mutex<Arc<Fabric>>,
    peers: Peers,
    dns: dns::Server,
}

impl KernelNet {
    /// Takes over what exists below the run directory and in the host's namespace (that of the calling thread),
    /// and prepares the rest. Must be called within a tokio runtime, which then serves names.
    ///
    /// # Errors
    /// Missing privileges, or a kernel without nftables.
    pub fn open(options: &Options) -> Result<Self> {
        let netns =
            ns::directory(&options.run_dir).map_err(failed("cannot make the directory of namespaces"))?;
        let host_ns =
            File::open("/proc/thread-self/ns/net").map_err(failed("cannot open the network namespace"))?;
        let route = route::open().map_err(failed("cannot open a routing socket"))?;
        let socket = nft::open().map_err(failed("cannot open a netfilter socket"))?;
        let table = Table::open(socket, host::skeleton()).map_err(failed("cannot set up nftables"))?;
        let (address, port, led_to) = crate::TASK_ENDPOINT;
        let key = address_port_key(address, PortProtocol::Tcp, port);
        table
            .publish(vec![(host::PUBLISHED_AT, key, target(address, led_to))])
            .map_err(failed("cannot set up nftables"))?;
        ns::sysctl("ipv4/ip_forward", "1").map_err(failed("cannot enable IP forwarding"))?;
        // Either this or the interface's own setting is enough for a redirect to be sent; a redirect would lead
        // connections around the translation.
        let _ = ns::sysctl("ipv4/conf/all/send_redirects", "0");
        let outer = options.outer.as_ref();
        let outer = outer.map(|(path, node)| Outer::open(path, *node)).transpose();
        let mut held = Held::default();
        held.outer = outer.map_err(failed("cannot open the machine's network namespace"))?;
        let inner = Inner {
            netns,
            host_ns,
            route,
            table,
            building: Mutex::default(),
            networks: Mutex::default(),
            sandboxes: Mutex::default(),
            held: Mutex::new(held),
            frontends: Mutex::default(),
            policies: Mutex::default(),
            fabric: Mutex::default(),
            peers: Peers::new(),
            dns: dns::Server::new(options.resolv_conf.clone()),
        };
        let inner = Arc::new(inner);
        Inner::probe_peers(&inner);
        Ok(Self { inner })
    }

    /// Duplicates of the sockets that must outlive this process, each under a name: somebody may keep them until
    /// the next daemon hands them to [`KernelNet::restore_fds`]. Questions that arrive meanwhile wait in them.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn take_fds(&self) -> Result<Vec<(String, OwnedFd)>> {
        let all = self.inner.dns.duplicates()?;
        Ok(all
            .into_iter()
            .flat_map(|(sandbox, udp, tcp)| {
                [
                    (format!("{DNS_UDP}{sandbox}"), udp),
                    (format!("{DNS_TCP}{sandbox}"), tcp),
                ]
            })
            .collect())
    }

    /// Takes sockets that were kept; to be called before sandboxes are adopted. Others are closed.
    pub fn restore_fds(&self, fds: Vec<(String, OwnedFd)>) {
        let mut udp = HashMap::new();
        let mut tcp = Vec::new();
        for (name, fd) in fds {
            if let Some(sandbox) = name.strip_prefix(DNS_UDP) {
                udp.insert(sandbox.to_owned(), fd);
            } else if let Some(sandbox) = name.strip_prefix(DNS_TCP) {
                tcp.push((sandbox.to_owned(), fd));
            }
        }
        for (sandbox, tcp) in tcp {
            if let Some(udp) = udp.remove(&sandbox) {
                self.inner.dns.keep(&sandbox, udp, tcp);
            }
        }
    }

    /// Removes Tripod's rules from the host's namespace, for a node that is taken down for good. Networks and
    /// sandboxes must have been removed.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn withdraw(&self) -> Result<()> {
        self.blocking(|i| {
            let socket = i.table.socket();
            for chain in nft::dropping_forward_chains(socket).unwrap_or_default() {
                nft::dismiss(socket, &chain, None)
                    .map_err(failed(format_args!("cannot remove rules from {chain}")))?;
            }
            i.table
                .remove()
                .map_err(failed("cannot remove the nftables table"))
        })
        .await
    }

    /// Runs blocking work on the pool of threads for it.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(r) => r,
            Err(e) => Err(Error::internal(format_args!("network operation failed: {e}"))),
        }
    }
}

/// A lock that survives a panic elsewhere: the data are maps, consistent between statements.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns an error of the kernel into one for the user, with what was tried.
pub(crate) fn failed<E: Into<io::Error>>(what: impl Display) -> impl FnOnce(E) -> Error {
    move |e| Error::internal(format_args!("{what}: {}", plain(&e.into())))
}

/// The kernel's message in lower case and without the number.
pub(crate) fn plain(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(n) => nix::errno::Errno::from_raw(n).desc().to_lowercase(),
        None => e.to_string(),
    }
}
