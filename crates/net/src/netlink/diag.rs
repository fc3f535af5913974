//! Socket diagnosis: whether something listens.

use std::io;
use std::net::IpAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::{Msg, Socket};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCP: u8 = 6;
const LISTEN: u32 = 10;

/// Opens a socket for questions in the calling thread's namespace.
pub(crate) fn open() -> io::Result<Socket> {
    Socket::open(SockProtocol::NetlinkSockDiag)
}

/// Whether a connection to this address and port would find a listening TCP socket: the kernel's own look-up,
/// wildcard and dual-stack sockets included, and not a walk through all sockets.
pub(crate) fn listens(socket: &Socket, address: IpAddr, port: u16) -> io::Result<bool> {
    let mut b = [0u8; 56];
    b[0] = if address.is_ipv4() { 2 } else { 10 };
    b[1] = TCP;
    b[4..8].copy_from_slice(&(1u32 << LISTEN).to_ne_bytes());
    b[8..10].copy_from_slice(&port.to_be_bytes());
    match address {
        IpAddr::V4(a) => b[12..16].copy_from_slice(&a.octets()),
        IpAddr::V6(a) => b[12..28].copy_from_slice(&a.octets()),
    }
    b[48..56].fill(0xff); // no cookie
    let mut m = Msg::new(SOCK_DIAG_BY_FAMILY, 0);
    m.raw(&b);
    match socket.ask(m) {
        Ok(answer) => Ok(answer.get(1) == Some(&(LISTEN as u8))),
        Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
        Err(e) => Err(e),
    }
}
