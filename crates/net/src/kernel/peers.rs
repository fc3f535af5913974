//! Which of the other nodes answer. A node whose echo requests stay unanswered loses its backends here, within a
//! second and without a manager's help; it gets them back with its first answer. A node that never answered (some
//! networks let no ICMP pass) is not judged.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tripod_model::network::fabric::Fabric;

use super::{Inner, lock};
use crate::ns;

/// Time between two requests to a node.
const INTERVAL: Duration = Duration::from_millis(200);
/// Requests in a row without an answer that make a node lost.
const PATIENCE: u32 = 3;

/// The nodes that are watched, and those of them that are lost.
#[derive(Debug)]
pub(super) struct Peers {
    watched: watch::Sender<BTreeMap<IpAddr, String>>,
    lost: Mutex<BTreeSet<String>>,
}

/// What is known of one node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Standing {
    /// It has answered at least once.
    known: bool,
    /// Requests since the last answer.
    unanswered: u32,
}

impl Standing {
    /// The request sent last is still on its way.
    fn is_lost(&self) -> bool {
        self.known && self.unanswered > PATIENCE
    }
}

impl Peers {
    pub(super) fn new() -> Self {
        Self {
            watched: watch::Sender::new(BTreeMap::new()),
            lost: Mutex::default(),
        }
    }

    /// Names of the nodes that do not answer.
    pub(super) fn lost(&self) -> BTreeSet<String> {
        lock(&self.lost).clone()
    }
}

impl Inner {
    /// Watches the nodes to which something leads.
    pub(super) fn watch_peers(&self, fabric: &Fabric) {
        let used: BTreeSet<&str> = fabric
            .routes
            .iter()
            .flat_map(|n| &n.routes)
            .map(|r| r.node.as_str())
            .collect();
        let watched: BTreeMap<IpAddr, String> = fabric
            .peers
            .iter()
            .filter(|p| p.address.is_ipv4() && used.contains(p.node.as_str()))
            .map(|p| (p.address, p.node.clone()))
            .collect();
        self.peers.watched.send_if_modified(|known| {
            let changed = *known != watched;
            *known = watched;
            changed
        });
    }

    /// Probes the watched nodes for as long as the networks are in use.
    pub(super) fn probe_peers(inner: &Arc<Self>) {
        let watched = inner.peers.watched.subscribe();
        tokio::spawn(watch_over(Arc::downgrade(inner), watched));
    }

    fn echo_socket(&self) -> io::Result<UdpSocket> {
        let fd = ns::within(&self.host_ns, || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            Ok(socket(
                AddressFamily::Inet,
                SockType::Raw,
                flags,
                SockProtocol::Icmp,
            )?)
        })?;
        // Not UDP; but sending to and receiving from an address is all the same.
        UdpSocket::from_std(fd.into())
    }
}

async fn watch_over(inner: Weak<Inner>, mut watched: watch::Receiver<BTreeMap<IpAddr, String>>) {
    loop {
        while watched.borrow_and_update().is_empty() {
            if watched.changed().await.is_err() {
                return;
            }
        }
        let Some(socket) = inner.upgrade().map(|i| i.echo_socket()) else {
            return;
        };
        match socket {
            Ok(socket) => probe(&inner, &socket, &mut watched).await,
            Err(error) => {
                tracing::error!(%error, "other nodes cannot be probed; a lost one is noticed by the managers only");
                if watched.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Probes until nobody is left to watch.
async fn probe(
    inner: &Weak<Inner>,
    socket: &UdpSocket,
    watched: &mut watch::Receiver<BTreeMap<IpAddr, String>>,
) {
    let id: u16 = rand::random();
    let mut sequence = 0u16;
    let mut standings: BTreeMap<IpAddr, Standing> = BTreeMap::new();
    let mut buf = [0u8; 256];
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let returned = tokio::select! {
            // Answers before judgement: after a pause of this process they are all there.
            biased;
            got = socket.recv_from(&mut buf) => match got {
                Ok((n, from)) if answers(&buf[..n], id) => standings.get_mut(&from.ip()).is_some_and(|s| {
                    let lost = s.is_lost();
                    *s = Standing { known: true, unanswered: 0 };
                    lost
                }),
                _ => false,
            },
            _ = tick.tick() => {
                let peers = watched.borrow_and_update().clone();
                if peers.is_empty() {
                    tell(inner, BTreeSet::new()).await;
                    return;
                }
                standings.retain(|a, _| peers.contains_key(a));
                sequence = sequence.wrapping_add(1);
                let request = request(id, sequence);
                for a in peers.keys() {
                    standings.entry(*a).or_default().unanswered += 1;
                    // A node that cannot be sent to is one that does not answer.
                    let _ = socket.try_send_to(&request, SocketAddr::new(*a, 0));
                }
                true
            }
        };
        if returned {
            let peers = watched.borrow().clone();
            let lost = standings
                .iter()
                .filter(|(_, s)| s.is_lost())
                .filter_map(|(a, _)| peers.get(a).cloned())
                .collect();
            if !tell(inner, lost).await {
                return;
            }
        }
    }
}

/// Sets which nodes are lost. False when the networks are in use no more.
async fn tell(inner: &Weak<Inner>, lost: BTreeSet<String>) -> bool {
    let Some(inner) = inner.upgrade() else {
        return false;
    };
    {
        let mut known = lock(&inner.peers.lost);
        if *known == lost {
            return true;
        }
        for node in lost.difference(&known) {
            tracing::warn!(node, "does not answer: connections go to other nodes");
        }
        for node in known.difference(&lost) {
            tracing::info!(node, "answers again");
        }
        *known = lost;
    }
    let told = tokio::task::spawn_blocking(move || inner.mask()).await;
    if let Ok(Err(error)) = told {
        tracing::error!(%error, "frontends cannot be led around a lost node");
    }
    true
}

/// An ICMP echo request (RFC 792).
fn request(id: u16, sequence: u16) -> [u8; 8] {
    let [a, b] = id.to_be_bytes();
    let [c, d] = sequence.to_be_bytes();
    let sum = 0x0800u32 + u32::from(id) + u32::from(sequence);
    let folded = (sum & 0xffff) + (sum >> 16);
    let [e, f] = (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes();
    [8, 0, e, f, a, b, c, d]
}

/// Whether a packet, with its IP header, is an answer to one of our requests.
fn answers(packet: &[u8], id: u16) -> bool {
    let header = packet.first().map_or(0, |b| usize::from(b & 15) * 4);
    let icmp = packet.get(header..).unwrap_or_default();
    icmp.len() >= 8 && icmp[0] == 0 && icmp[4..6] == id.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_sum_to_ones() {
        for (id, sequence) in [(0, 0), (0xffff, 0xffff), (0x1234, 7)] {
            let words = request(id, sequence);
            let sum: u32 = words
                .chunks(2)
                .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
                .sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }

    #[test]
    fn answers_are_ours() {
        let mut packet = [0u8; 28];
        packet[0] = 0x45;
        packet[24..26].copy_from_slice(&7u16.to_be_bytes());
        assert!(answers(&packet, 7));
        assert!(!answers(&packet, 8));
        packet[20] = 8;
        assert!(!answers(&packet, 7), "a request");
        assert!(!answers(&packet[..22], 7) && !answers(&[], 7));
    }
}
