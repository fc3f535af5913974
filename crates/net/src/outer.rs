//! Ports of the machine around a node: a node of a local cluster lives in a network namespace of its own, and what is
//! published there is to answer on the machine as well.
//!
//! A listener in the machine's namespace hands each connection to the node. Datagrams are handed over by a socket per
//! client, which is given up when it has been silent for a while.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};
use tripod_model::network::PortProtocol;

use crate::ns;

/// How long a client of a datagram port may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest datagram.
const DATAGRAM: usize = 65_535;

/// The machine around a node.
#[derive(Debug)]
pub struct Outer {
    namespace: File,
    /// The node's own address.
    node: IpAddr,
}

/// A port of the machine that leads to the node, as long as this lives.
#[derive(Debug)]
pub struct Forward(AbortHandle);

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Outer {
    /// The machine whose network namespace is at `namespace`, around the node that answers at `node`.
    ///
    /// # Errors
    /// No such namespace.
    pub fn open(namespace: &Path, node: IpAddr) -> io::Result<Self> {
        Ok(Self {
            namespace: File::open(namespace)?,
            node,
        })
    }

    /// A listener at an address of the machine.
    ///
    /// # Errors
    /// The port is in use on the machine, or the address is not the machine's.
    pub fn listen(&self, at: SocketAddr) -> io::Result<std::net::TcpListener> {
        let listener = ns::within(&self.namespace, || std::net::TcpListener::bind(at))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Leads a port of the machine to one of the node; `None` for addresses that the machine does not have and
    /// protocols that are not led on. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The port is in use on the machine.
    pub fn forward(
        &self,
        ip: IpAddr,
        protocol: PortProtocol,
        port: u16,
        node_port: u16,
    ) -> io::Result<Option<Forward>> {
        let to = SocketAddr::new(self.node, node_port);
        let at = SocketAddr::new(ip, port);
        let task = match protocol {
            PortProtocol::Tcp => {
                let listener = ns::within(&self.namespace, || std::net::TcpListener::bind(at));
                let Some(listener) = present(listener)? else {
                    return Ok(None);
                };
                listener.set_nonblocking(true)?;
                tokio::spawn(streams(TcpListener::from_std(listener)?, to))
            }
            PortProtocol::Udp => {
                let socket = ns::within(&self.namespace, || std::net::UdpSocket::bind(at));
                let Some(socket) = present(socket)? else {
                    return Ok(None);
                };
                socket.set_nonblocking(true)?;
                tokio::spawn(datagrams(UdpSocket::from_std(socket)?, to))
            }
            PortProtocol::Sctp => return Ok(None),
        };
        Ok(Some(Forward(task.abort_handle())))
    }
}

/// An address that is the node's own and not the machine's is no fault.
fn present<T>(bound: io::Result<T>) -> io::Result<Option<T>> {
    match bound {
        Ok(socket) => Ok(Some(socket)),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

async fn streams(listener: TcpListener, to: SocketAddr) {
    // Connections go on until the port is given up.
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(open.spawn(hand_on(client, to))),
                // Too many open files: the next one may fit again.
                Err(error) => {
                    tracing::warn!(%error, "a connection to a forwarded port is not taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn hand_on(mut client: TcpStream, to: SocketAddr) {
    // Without an upstream the client sees a closed connection, as it would on the node.
    let Ok(mut node) = TcpStream::connect(to).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = node.set_nodelay(true);
    let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
}

async fn datagrams(socket: UdpSocket, to: SocketAddr) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((size, from)) = received else { continue };
                let way = match clients.get(&from) {
                    Some(way) => way.clone(),
                    None => match connect(to).await {
                        Ok(way) => {
                            let way = Arc::new(way);
                            clients.insert(from, way.clone());
                            answers.spawn(answer(socket.clone(), way.clone(), from));
                            way
                        }
                        Err(error) => {
                            tracing::warn!(%error, "a datagram to a forwarded port is lost");
                            continue;
                        }
                    },
                };
                let _ = way.send(&buffer[..size]).await;
            }
            Some(Ok(silent)) = answers.join_next() => drop(clients.remove(&silent)),
        }
    }
}

async fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = match to.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Hands answers back until there are none for a while; returns the client.
async fn answer(socket: Arc<UdpSocket>, way: Arc<UdpSocket>, client: SocketAddr) -> SocketAddr {
    let mut buffer = vec![0; DATAGRAM];
    while let Ok(Ok(size)) = tokio::time::timeout(SILENCE, way.recv(&mut buffer)).await {
        if socket.send_to(&buffer[..size], client).await.is_err() {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn here() -> Outer {
        Outer::open(Path::new("/proc/thread-self/ns/net"), Ipv4Addr::LOCALHOST.into()).unwrap()
    }

    fn free_port() -> u16 {
        let l = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        l.local_addr().unwrap().port()
    }

    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    #[tokio::test]
    async fn streams_reach_the_node_until_the_port_is_given_up() {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free_port();
        let to = node.local_addr().unwrap().port();
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let forward = here()
            .forward(local, PortProtocol::Tcp, port, to)
            .unwrap()
            .unwrap();
        let served = tokio::spawn(async move {
            let (mut s, _) = node.accept().await.unwrap();
            s.write_all(b"hello").await.unwrap();
        });
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        served.await.unwrap();
        assert!(
            here().forward(local, PortProtocol::Tcp, port, to).is_err(),
            "it is taken"
        );
        drop(forward);
        let mut closed = false;
        for _ in 0..200 {
            closed = TcpStream::connect(("127.0.0.1", port)).await.is_err();
            if closed {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert!(closed);
    }

    #[tokio::test]
    async fn datagrams_go_there_and_back() {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let node = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = node.local_addr().unwrap().port();
        let port = free_port();
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let _forward = here()
            .forward(local, PortProtocol::Udp, port, to)
            .unwrap()
            .unwrap();
        let client = connect(SocketAddr::new(local, port)).await.unwrap();
        client.send(b"ping").await.unwrap();
        let mut b = [0; 16];
        let (n, from) = node.recv_from(&mut b).await.unwrap();
        assert_eq!(&b[..n], b"ping");
        node.send_to(b"pong", from).await.unwrap();
        let n = client.recv(&mut b).await.unwrap();
        assert_eq!(&b[..n], b"pong");
    }

    #[tokio::test]
    async fn addresses_of_others_are_passed_over() {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let elsewhere: IpAddr = "192.0.2.77".parse().unwrap();
        assert!(
            here()
                .forward(elsewhere, PortProtocol::Tcp, 1, 1)
                .unwrap()
                .is_none()
        );
    }
}
