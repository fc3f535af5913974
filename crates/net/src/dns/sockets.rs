//! The name server's sockets inside a sandbox, and the rules that lead port 53 to them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use crate::netlink::nft::{self, ChainType, Expr, Hook, Op, transaction};

/// Where containers expect their name server (Docker's embedded DNS).
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const TABLE: &str = "tripod-dns";
const UDP: (u8, u32) = (17, 6);
const TCP: (u8, u32) = (6, 16);

/// A pair of sockets bound in a sandbox.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Queries as datagrams.
    pub(crate) udp: UdpSocket,
    /// Queries by stream, for large answers.
    pub(crate) tcp: TcpListener,
}

impl Sockets {
    /// Opens the sockets in the calling thread's namespace, and leads port 53 of 127.0.0.11 to them.
    pub(crate) fn open() -> io::Result<Self> {
        let any = SocketAddr::from((SERVER, 0));
        let sockets = Self {
            udp: UdpSocket::bind(any)?,
            tcp: TcpListener::bind(any)?,
        };
        sockets.udp.set_nonblocking(true)?;
        sockets.tcp.set_nonblocking(true)?;
        let ops = rules(sockets.udp.local_addr()?.port(), sockets.tcp.local_addr()?.port());
        transaction(&nft::open()?, TABLE, nft::Table::Ensure, &ops)?;
        Ok(sockets)
    }

    /// Opens sockets at an address and port of the calling thread's namespace.
    pub(crate) fn bound(address: IpAddr, port: u16) -> io::Result<Self> {
        let at = SocketAddr::from((address, port));
        let sockets = Self {
            udp: UdpSocket::bind(at)?,
            tcp: TcpListener::bind(at)?,
        };
        sockets.udp.set_nonblocking(true)?;
        sockets.tcp.set_nonblocking(true)?;
        Ok(sockets)
    }

    /// Sockets that somebody kept while the daemon was away.
    pub(crate) fn from_kept(udp: OwnedFd, tcp: OwnedFd) -> Self {
        Self {
            udp: udp.into(),
            tcp: tcp.into(),
        }
    }
}

/// Queries are rewritten after the sandbox's own connection tracking saw them and answers before it does, so that
/// rules of the sandbox's own see port 53 both ways.
fn rules(udp: u16, tcp: u16) -> Vec<Op> {
    let chain = |name, priority| Op::BaseChain {
        name,
        kind: ChainType::Filter,
        hook: Hook::Output,
        priority,
    };
    let mut ops = vec![
        chain("answers", -400),
        chain("queries", -150),
        Op::Flush("answers".into()),
        Op::Flush("queries".into()),
    ];
    for ((protocol, checksum), port) in [(UDP, udp), (TCP, tcp)] {
        let head = |address| {
            vec![
                address,
                Expr::Eq(0, SERVER.octets().to_vec()),
                Expr::L4Proto(0),
                Expr::Eq(0, vec![protocol]),
            ]
        };
        let rewrite = |load, from: u16, to: u16, destination| {
            vec![
                load,
                Expr::Eq(0, from.to_be_bytes().to_vec()),
                Expr::Load(0, to.to_be_bytes().to_vec()),
                Expr::SetPort {
                    reg: 0,
                    destination,
                    checksum,
                },
            ]
        };
        ops.push(Op::Rule(
            "answers".into(),
            [head(Expr::Saddr(0)), rewrite(Expr::Sport(0), port, 53, false)].concat(),
        ));
        ops.push(Op::Rule(
            "queries".into(),
            [head(Expr::Daddr(0)), rewrite(Expr::Dport(0), 53, port, true)].concat(),
        ));
    }
    ops
}
