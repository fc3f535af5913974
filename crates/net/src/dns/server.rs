//! The server: one task for each sandbox's sockets, on the daemon's runtime.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tripod_model::network::names::ClusterNames;
use tripod_model::network::{Endpoint, NameRecord};

use super::answer::{Asker, Outcome, answer, completed, refusal};
use super::cluster::Cluster;
use super::forward::{self, HostServers, read_message, write_message};
use super::sockets::Sockets;
use super::zones::Zones;

/// Questions to others and streams that may be open at once, in all and for one sandbox.
const IN_FLIGHT: usize = 1024;
const IN_FLIGHT_EACH: usize = 128;
/// How long a stream may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Datagrams answered before others get their turn.
const BURST: usize = 32;

/// The name server of all sandboxes.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    running: Mutex<HashMap<String, Running>>,
    kept: Mutex<HashMap<String, Sockets>>,
    runtime: Handle,
}

#[derive(Debug)]
struct Shared {
    zones: RwLock<Zones>,
    cluster: RwLock<Cluster>,
    host: HostServers,
    limit: Arc<Semaphore>,
}

#[derive(Debug)]
struct Running {
    client: Arc<Client>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Name under which the cluster's DNS runs, beside sandboxes, which have no such names.
const CLUSTER: &str = "/cluster";

/// A sandbox that is served; or all pods, by the cluster's DNS.
#[derive(Debug)]
struct Client {
    sandbox: String,
    /// Where the cluster's DNS answers.
    cluster: Option<IpAddr>,
    udp: UdpSocket,
    tcp: TcpListener,
    upstream: Vec<IpAddr>,
    limit: Arc<Semaphore>,
}

impl Server {
    /// A server on the current runtime.
    pub(crate) fn new(resolv_conf: PathBuf) -> Self {
        let shared = Shared {
            zones: RwLock::default(),
            cluster: RwLock::default(),
            host: HostServers::new(resolv_conf),
            limit: Arc::new(Semaphore::new(IN_FLIGHT)),
        };
        Self {
            shared: Arc::new(shared),
            running: Mutex::default(),
            kept: Mutex::default(),
            runtime: Handle::current(),
        }
    }

    fn zones<T>(&self, f: impl FnOnce(&mut Zones) -> T) -> T {
        f(&mut self.shared.zones.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the names of a network.
    pub(crate) fn set_names(&self, network: &str, records: &[NameRecord]) {
        self.zones(|z| z.set_names(network, records));
    }

    /// Forgets the names of a network.
    pub(crate) fn forget_network(&self, network: &str) {
        self.zones(|z| z.forget_network(network));
    }

    /// The networks and names of a sandbox.
    pub(crate) fn connected(&self, sandbox: &str, endpoints: &[Endpoint], outside: bool) {
        self.zones(|z| z.connected(sandbox, endpoints, outside));
    }

    /// The host's name servers.
    pub(crate) fn host_servers(&self) -> Vec<IpAddr> {
        self.shared.host.get()
    }

    /// Replaces the names of the cluster's DNS.
    pub(crate) fn set_cluster_names(&self, names: &ClusterNames) {
        let cluster = Cluster::new(names);
        *self
            .shared
            .cluster
            .write()
            .unwrap_or_else(PoisonError::into_inner) = cluster;
    }

    /// Whether the cluster's DNS answers at this address.
    pub(crate) fn serves_cluster(&self, address: IpAddr) -> bool {
        self.lock_running()
            .get(CLUSTER)
            .is_some_and(|r| r.client.cluster == Some(address))
    }

    /// Answers for the cluster's DNS through these sockets, which are bound to the address.
    pub(crate) fn serve_cluster(&self, address: IpAddr, sockets: Sockets) {
        self.start(CLUSTER, Some(address), sockets, &[]);
    }

    /// Answers for the cluster's DNS no more.
    pub(crate) fn stop_cluster(&self) {
        self.lock_running().remove(CLUSTER);
    }

    /// Serves a sandbox through these sockets.
    pub(crate) fn serve(&self, sandbox: &str, sockets: Sockets, upstream: &[IpAddr]) {
        self.start(sandbox, None, sockets, upstream);
    }

    fn start(&self, sandbox: &str, cluster: Option<IpAddr>, sockets: Sockets, upstream: &[IpAddr]) {
        let _runtime = self.runtime.enter();
        let converted = sockets_of(sockets);
        let (udp, tcp) = match converted {
            Ok(s) => s,
            Err(error) => {
                tracing::error!(%error, sandbox, "cannot serve names");
                return;
            }
        };
        let client = Arc::new(Client {
            sandbox: sandbox.to_owned(),
            cluster,
            udp,
            tcp,
            upstream: upstream.to_vec(),
            limit: Arc::new(Semaphore::new(if cluster.is_some() {
                IN_FLIGHT
            } else {
                IN_FLIGHT_EACH
            })),
        });
        let task = self
            .runtime
            .spawn(run(Arc::clone(&self.shared), Arc::clone(&client)));
        self.lock_running()
            .insert(sandbox.to_owned(), Running { client, task });
    }

    /// Serves a sandbox through sockets that were kept; false when there are none.
    pub(crate) fn resume(&self, sandbox: &str, upstream: &[IpAddr]) -> bool {
        let kept = self
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(sandbox);
        kept.map(|s| self.serve(sandbox, s, upstream)).is_some()
    }

    /// Stops serving a sandbox and forgets its names.
    pub(crate) fn stop(&self, sandbox: &str) {
        self.lock_running().remove(sandbox);
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(sandbox);
        self.zones(|z| z.disconnected(sandbox));
    }

    /// Duplicates of the sockets: sandbox, datagrams, streams.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<(String, OwnedFd, OwnedFd)>> {
        let running = self.lock_running();
        running
            .values()
            .filter(|r| r.client.cluster.is_none())
            .map(|r| {
                let c = &r.client;
                Ok((
                    c.sandbox.clone(),
                    c.udp.as_fd().try_clone_to_owned()?,
                    c.tcp.as_fd().try_clone_to_owned()?,
                ))
            })
            .collect()
    }

    /// Keeps sockets until their sandbox is adopted.
    pub(crate) fn keep(&self, sandbox: &str, udp: OwnedFd, tcp: OwnedFd) {
        let sockets = Sockets::from_kept(udp, tcp);
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(sandbox.to_owned(), sockets);
    }

    fn lock_running(&self) -> std::sync::MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sockets_of(s: Sockets) -> io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::from_std(s.udp)?, TcpListener::from_std(s.tcp)?))
}

async fn run(shared: Arc<Shared>, client: Arc<Client>) {
    loop {
        let broken = tokio::select! {
            ready = client.udp.readable() => match ready {
                Ok(()) => drain(&shared, &client),
                Err(_) => true,
            },
            accepted = client.tcp.accept() => {
                if let Ok((stream, _)) = accepted {
                    accept(&shared, &client, stream);
                }
                false
            }
        };
        if broken {
            tracing::error!(sandbox = client.sandbox, "the name server's socket failed");
            return;
        }
    }
}

/// Answers the datagrams that are there. True when the socket is of no more use.
fn drain(shared: &Arc<Shared>, client: &Arc<Client>) -> bool {
    let mut buf = [0u8; 4096];
    for _ in 0..BURST {
        let (n, from) = match client.udp.try_recv_from(&mut buf) {
            Ok(r) => r,
            // A client that went away before its answer shows as an error of the next call.
            Err(e) => {
                return !matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
                );
            }
        };
        let outcome = asked(shared, client, &buf[..n], true);
        let reply = match outcome {
            Outcome::Reply(r) => Some(r),
            Outcome::Ignore => None,
            outcome => {
                let permits = permits(shared, client);
                if permits.is_some() {
                    let (shared, client, query) = (Arc::clone(shared), Arc::clone(client), buf[..n].to_vec());
                    tokio::spawn(async move {
                        let _permits = permits;
                        if let Some(r) = finished(&shared, &client, &query, outcome, true).await {
                            let _ = client.udp.send_to(&r, from).await;
                        }
                    });
                    None
                } else {
                    refusal(&buf[..n], ResponseCode::ServFail)
                }
            }
        };
        if let Some(r) = reply {
            // A full buffer means that the client does not read; it will ask again.
            let _ = client.udp.try_send_to(&r, from);
        }
    }
    false
}

type Permits = [tokio::sync::OwnedSemaphorePermit; 2];

fn permits(shared: &Shared, client: &Client) -> Option<Permits> {
    let all = Arc::clone(&shared.limit).try_acquire_owned().ok()?;
    let own = Arc::clone(&client.limit).try_acquire_owned().ok()?;
    Some([all, own])
}

fn asked(shared: &Shared, client: &Client, query: &[u8], datagram: bool) -> Outcome {
    if client.cluster.is_some() {
        let cluster = shared.cluster.read().unwrap_or_else(PoisonError::into_inner);
        answer(&Asker::Pod(&cluster), query, datagram)
    } else {
        answer(&Asker::Sandbox(&read(shared), &client.sandbox), query, datagram)
    }
}

fn read(shared: &Shared) -> std::sync::RwLockReadGuard<'_, Zones> {
    shared.zones.read().unwrap_or_else(PoisonError::into_inner)
}

fn accept(shared: &Arc<Shared>, client: &Arc<Client>, mut stream: TcpStream) {
    let Some(permits) = permits(shared, client) else {
        return;
    };
    let (shared, client) = (Arc::clone(shared), Arc::clone(client));
    tokio::spawn(async move {
        let _permits = permits;
        while let Ok(Ok(query)) = tokio::time::timeout(IDLE, read_message(&mut stream)).await {
            let outcome = asked(&shared, &client, &query, false);
            let reply = finished(&shared, &client, &query, outcome, false).await;
            let Some(r) = reply else { return };
            if tokio::time::timeout(IDLE, write_message(&mut stream, &r))
                .await
                .is_err()
            {
                return;
            }
        }
    });
}

/// The answer that an outcome comes to, with the help of others where need be.
async fn finished(
    shared: &Shared,
    client: &Client,
    query: &[u8],
    outcome: Outcome,
    datagram: bool,
) -> Option<Vec<u8>> {
    match outcome {
        Outcome::Reply(r) => Some(r),
        Outcome::Ignore => None,
        Outcome::Forward => elsewhere(shared, client, query, datagram).await,
        Outcome::Follow {
            reply,
            query: about,
            limit,
        } => {
            let theirs = elsewhere(shared, client, &about, datagram).await;
            let whole = theirs.and_then(|t| completed(&reply, &t, limit));
            whole.or_else(|| refusal(query, ResponseCode::ServFail))
        }
    }
}

/// Asks others on behalf of a sandbox.
async fn elsewhere(shared: &Shared, client: &Client, query: &[u8], datagram: bool) -> Option<Vec<u8>> {
    let allowed = client.cluster.is_some() || read(shared).may_ask_outside(&client.sandbox);
    let answer = if !allowed {
        None
    } else if client.upstream.is_empty() {
        forward::ask(&shared.host.get(), query, datagram).await
    } else {
        forward::ask(&client.upstream, query, datagram).await
    };
    answer.or_else(|| refusal(query, ResponseCode::ServFail))
}
