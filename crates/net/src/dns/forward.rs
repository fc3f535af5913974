//! Questions for others: asked from the host's namespace, whose name servers may be at its own loopback.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one server has for an answer. Clients commonly give up after five seconds.
const PATIENCE: Duration = Duration::from_millis(1800);
/// No more servers are tried than the C library would.
const SERVERS: usize = 3;

/// The host's resolver configuration, read again when it changes.
#[derive(Debug)]
pub(crate) struct HostServers {
    path: PathBuf,
    read: Mutex<(Option<SystemTime>, Vec<IpAddr>)>,
}

impl HostServers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: Mutex::default(),
        }
    }

    /// The servers named there.
    pub(crate) fn get(&self) -> Vec<IpAddr> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = fs::metadata(&self.path).and_then(|m| m.modified()).ok();
        if changed.is_none() || read.0 != changed {
            *read = (
                changed,
                parse(&fs::read_to_string(&self.path).unwrap_or_default()),
            );
        }
        read.1.clone()
    }
}

fn parse(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|l| l.trim().strip_prefix("nameserver"))
        .filter_map(|l| l.split_whitespace().next())
        .filter_map(|a| a.split('%').next()?.parse().ok())
        .collect()
}

/// Asks the servers in turn. The last answer is given back even if it is a refusal; `None` when nobody answered.
pub(crate) async fn ask(servers: &[IpAddr], query: &[u8], datagram: bool) -> Option<Vec<u8>> {
    let mut refused = None;
    for server in servers.iter().take(SERVERS) {
        let to = SocketAddr::new(*server, 53);
        let asked = timeout(PATIENCE, async {
            if datagram {
                by_datagram(to, query).await
            } else {
                by_stream(to, query).await
            }
        });
        match asked.await {
            // SERVFAIL and REFUSED: another server may do better.
            Ok(Ok(a)) if matches!(a.get(3).map(|b| b & 15), Some(2 | 5)) => refused = Some(a),
            Ok(Ok(a)) => return Some(a),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    refused
}

/// The same query under a number of our own, so that answers cannot be forged by who knows the client's.
fn renumbered(query: &[u8]) -> (u16, Vec<u8>) {
    let id: u16 = rand::random();
    let mut q = query.to_vec();
    q[..2].copy_from_slice(&id.to_be_bytes());
    (id, q)
}

fn matches(answer: &[u8], id: u16) -> bool {
    answer.len() >= 12 && answer[..2] == id.to_be_bytes() && answer[2] & 0x80 != 0
}

async fn by_datagram(to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected: only this server is heard, and its refusal is an error at once.
    socket.connect(to).await?;
    let (id, renumbered) = renumbered(query);
    socket.send(&renumbered).await?;
    let mut buf = vec![0u8; 4096];
    loop {
        let n = socket.recv(&mut buf).await?;
        if matches(&buf[..n], id) {
            buf.truncate(n);
            buf[..2].copy_from_slice(&query[..2]);
            return Ok(buf);
        }
    }
}

async fn by_stream(to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    let (id, renumbered) = renumbered(query);
    write_message(&mut stream, &renumbered).await?;
    let mut answer = read_message(&mut stream).await?;
    if !matches(&answer, id) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    answer[..2].copy_from_slice(&query[..2]);
    Ok(answer)
}

/// Reads a message with its length before it (RFC 1035, 4.2.2).
pub(crate) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut m = vec![0u8; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut m).await?;
    Ok(m)
}

/// Writes a message with its length before it.
pub(crate) async fn write_message(stream: &mut TcpStream, m: &[u8]) -> io::Result<()> {
    let len = u16::try_from(m.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = Vec::with_capacity(m.len() + 2);
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(m);
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_configuration() {
        let text = "# x\nnameserver 10.0.0.2\n  nameserver fe80::1%eth0\nsearch a\nnameserver nonsense\n";
        assert_eq!(
            parse(text),
            ["10.0.0.2".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]
        );
    }
}
