//! Connections to managers: dialled when they are needed, kept while they live.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tripod_model::{Error, Result};

use super::mux::{Mux, Side, Stream};
use super::tls::manager_name;

/// How long a manager may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(4);
/// A connection on which nothing is acknowledged for so long is dead, in milliseconds.
const DEAD_AFTER: u32 = 6_000;

/// How a dial went.
type Dialled = Option<Result<Mux>>;

/// Connections by address.
#[derive(Default)]
pub(super) struct Pool {
    slots: Mutex<HashMap<String, watch::Receiver<Dialled>>>,
}

impl Pool {
    fn slots(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Dialled>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up all connections: they were made with an identity that is no longer this node's.
    pub(super) fn clear(&self) {
        self.slots().clear();
    }

    /// The connection to an address. A dial goes on when the caller gives up waiting, for the next one.
    pub(super) async fn get(&self, address: &str, config: Arc<ClientConfig>) -> Result<Mux> {
        let mut slot = {
            let mut slots = self.slots();
            let usable = slots.get(address).filter(|slot| match &*slot.borrow() {
                None => slot.has_changed().is_ok(),
                Some(Ok(mux)) => !mux.is_closed(),
                Some(Err(_)) => false,
            });
            match usable {
                Some(slot) => slot.clone(),
                None => {
                    let (done, slot) = watch::channel(None);
                    let to = address.to_owned();
                    tokio::spawn(async move {
                        let mux = dial(&to, config, |_| {}).await;
                        done.send_replace(Some(mux));
                    });
                    slots.insert(address.to_owned(), slot.clone());
                    slot
                }
            }
        };
        let done = slot.wait_for(Option::is_some).await;
        match done.as_deref() {
            Ok(Some(mux)) => mux.clone(),
            _ => Err(Error::unavailable("the connection was given up")),
        }
    }
}

/// Dials a manager. Streams that it opens go to `accept`.
pub(crate) async fn dial(
    address: &str,
    config: Arc<ClientConfig>,
    accept: impl Fn(Stream) + Send + 'static,
) -> Result<Mux> {
    let failed = |e: io::Error| Error::unavailable(explain(address, &e));
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        tune(&tcp);
        TlsConnector::from(config).connect(manager_name(), tcp).await
    };
    match tokio::time::timeout(CONNECT, connect).await {
        Ok(tls) => Ok(Mux::start(tls.map_err(failed)?, Side::Dialled, accept)),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

/// What a failed dial means, in the words that users of Swarm know.
fn explain(address: &str, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::InvalidData => {
            let text =
                format!("connection error: desc = \"transport: authentication handshake failed: {error}\"");
            return format!("rpc error: code = Unavailable desc = {text}");
        }
        _ => error.to_string(),
    };
    format!(
        "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial tcp \
         {address}: {why}\""
    )
}

/// Small messages go out at once, and a peer that vanished is noticed.
pub(super) fn tune(tcp: &TcpStream) {
    use rustix::net::sockopt;
    // What cannot be set has its default: slower, but right.
    let _ = tcp.set_nodelay(true);
    let _ = sockopt::set_tcp_user_timeout(tcp, DEAD_AFTER);
    let _ = sockopt::set_socket_keepalive(tcp, true);
    let _ = sockopt::set_tcp_keepidle(tcp, Duration::from_secs(5));
    let _ = sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(2));
}

/// The IP of an `IP:port`.
pub(crate) fn ip_of(address: &str) -> Option<std::net::IpAddr> {
    address.parse::<SocketAddr>().ok().map(|a| a.ip())
}
