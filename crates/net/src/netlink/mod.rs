//! A small netlink codec: messages with attributes, sent in one piece and acknowledged one by one.
//!
//! One encoder serves the four protocols that the crate speaks (routing, nftables, connection tracking, socket
//! diagnosis). It keeps the hot paths (a sandbox made, a port published, a frontend changed) at one system call
//! each for sending and receiving, which no combination of typed crates for the four protocols offered.

pub(crate) mod conntrack;
pub(crate) mod diag;
pub(crate) mod nft;
pub(crate) mod route;
pub(crate) mod tunnel;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};

/// `NLM_F_REQUEST`
pub(crate) const REQUEST: u16 = 1;
/// `NLM_F_ACK`
pub(crate) const ACK: u16 = 4;
/// `NLM_F_DUMP`
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`
pub(crate) const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`
pub(crate) const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`
pub(crate) const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;

/// A netlink message under construction. Attributes are aligned as they are added; lengths are filled in when
/// a nest is closed and when the message is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Msg {
    buf: Vec<u8>,
    tolerated: [i32; 2],
}

impl Msg {
    /// A message of this type; `NLM_F_REQUEST` is set.
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut buf = Vec::with_capacity(256);
        buf.extend_from_slice(&[0; 4]);
        buf.extend_from_slice(&kind.to_ne_bytes());
        buf.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        buf.extend_from_slice(&[0; 8]);
        Self {
            buf,
            tolerated: [0; 2],
        }
    }

    /// The fixed header of the protocol, right after the netlink header.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(bytes);
        self.align();
        self
    }

    /// An attribute.
    pub(crate) fn attr(&mut self, kind: u16, data: &[u8]) -> &mut Self {
        let len = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(data);
        self.align();
        self
    }

    /// A number of one byte.
    pub(crate) fn u8(&mut self, kind: u16, v: u8) -> &mut Self {
        self.attr(kind, &[v])
    }

    /// A number in the byte order of the machine (routing).
    pub(crate) fn u32(&mut self, kind: u16, v: u32) -> &mut Self {
        self.attr(kind, &v.to_ne_bytes())
    }

    /// A number in the byte order of the network (nftables, connection tracking).
    pub(crate) fn be32(&mut self, kind: u16, v: u32) -> &mut Self {
        self.attr(kind, &v.to_be_bytes())
    }

    /// A string with its terminating zero.
    pub(crate) fn str(&mut self, kind: u16, v: &str) -> &mut Self {
        let mut z = Vec::with_capacity(v.len() + 1);
        z.extend_from_slice(v.as_bytes());
        z.push(0);
        self.attr(kind, &z)
    }

    /// Attributes within an attribute.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0; 2]);
        self.buf.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.buf.len() - at).unwrap_or(u16::MAX);
        self.buf[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// Bytes so far, with the header; used to keep nested lists under 64 KiB.
    pub(crate) fn len(&self) -> usize {
        self.buf.len()
    }

    /// Takes this error number as success (`EEXIST` for something that may be there already); at most two.
    pub(crate) fn tolerate(mut self, errno: nix::errno::Errno) -> Self {
        let slot = usize::from(self.tolerated[0] != 0);
        self.tolerated[slot] = errno as i32;
        self
    }

    fn align(&mut self) {
        while !self.buf.len().is_multiple_of(4) {
            self.buf.push(0);
        }
    }

    fn flag(&mut self, flags: u16) {
        let now = u16::from_ne_bytes([self.buf[6], self.buf[7]]);
        self.buf[6..8].copy_from_slice(&(now | flags).to_ne_bytes());
    }

    fn seal(&mut self, seq: u32) {
        let len = self.buf.len() as u32;
        self.buf[0..4].copy_from_slice(&len.to_ne_bytes());
        self.buf[8..12].copy_from_slice(&seq.to_ne_bytes());
    }
}

/// A message that the kernel refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Which message of the batch.
    pub(crate) index: usize,
    /// Why.
    pub(crate) error: io::Error,
}

impl From<Refused> for io::Error {
    fn from(r: Refused) -> Self {
        r.error
    }
}

/// Messages that are sent before their acknowledgements are read: as many as surely have room in the socket.
const AT_ONCE: usize = 64;

/// A netlink socket. It speaks for the network namespace in which it was opened, whichever thread uses it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    seq: Mutex<u32>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self {
            fd,
            seq: Mutex::new(1),
        })
    }

    /// Sends all messages, many at once, and waits for the acknowledgement of each. The first one refused (and not
    /// tolerated) is the error; the ones after it were carried out nevertheless, as routing requests are.
    pub(crate) fn apply(&self, mut msgs: Vec<Msg>) -> Result<(), Refused> {
        let mut refused: Option<Refused> = None;
        for (n, part) in msgs.chunks_mut(AT_ONCE).enumerate() {
            if let Err(first) = self.apply_part(part) {
                refused.get_or_insert(Refused {
                    index: n * AT_ONCE + first.index,
                    ..first
                });
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn apply_part(&self, msgs: &mut [Msg]) -> Result<(), Refused> {
        let mut seq = self.seq.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let first = *seq;
        let mut out = Vec::with_capacity(msgs.iter().map(Msg::len).sum());
        for m in msgs.iter_mut() {
            m.flag(ACK);
            m.seal(*seq);
            *seq = seq.wrapping_add(1);
            out.extend_from_slice(&m.buf);
        }
        let io = |error| Refused { index: 0, error };
        self.send(&out).map_err(io)?;
        let mut left = msgs.len();
        let mut refused: Option<Refused> = None;
        while left > 0 {
            self.receive(|kind, s, body| {
                let index = s.wrapping_sub(first) as usize;
                if kind == NLMSG_ERROR && index < msgs.len() {
                    left -= 1;
                    let errno = errno_of(body);
                    if errno != 0 && !msgs[index].tolerated.contains(&errno) && refused.is_none() {
                        refused = Some(Refused {
                            index,
                            error: io::Error::from_raw_os_error(errno),
                        });
                    }
                }
                left == 0
            })
            .map_err(io)?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends one transaction framed by the caller (nftables batches): only the message at `ack` is acknowledged,
    /// and any error refuses the whole.
    pub(crate) fn transact(&self, mut msgs: Vec<Msg>, ack: usize) -> Result<(), Refused> {
        let mut seq = self.seq.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let first = *seq;
        let mut out = Vec::with_capacity(msgs.iter().map(Msg::len).sum());
        for (i, m) in msgs.iter_mut().enumerate() {
            if i == ack {
                m.flag(ACK);
            }
            m.seal(*seq);
            *seq = seq.wrapping_add(1);
            out.extend_from_slice(&m.buf);
        }
        let io = |error| Refused { index: 0, error };
        self.send(&out).map_err(io)?;
        let mut refused: Option<Refused> = None;
        let mut done = false;
        while !done {
            self.receive(|kind, s, body| {
                let index = s.wrapping_sub(first) as usize;
                if kind == NLMSG_ERROR && index < msgs.len() {
                    let errno = errno_of(body);
                    if errno != 0 && refused.is_none() {
                        refused = Some(Refused {
                            index,
                            error: io::Error::from_raw_os_error(errno),
                        });
                    }
                    done = index == ack;
                }
                done
            })
            .map_err(io)?;
        }
        refused.map_or(Ok(()), Err)
    }

    /// Asks for a dump and hands over each answer's type and body (after the netlink header).
    pub(crate) fn dump(&self, mut msg: Msg, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut seq = self.seq.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let id = *seq;
        *seq = seq.wrapping_add(1);
        msg.flag(DUMP);
        msg.seal(id);
        self.send(&msg.buf)?;
        let mut done = false;
        let mut failed = None;
        while !done {
            self.receive(|kind, s, body| {
                if s == id {
                    match kind {
                        NLMSG_DONE => done = true,
                        NLMSG_ERROR => {
                            failed = Some(errno_of(body));
                            done = true;
                        }
                        k => each(k, body),
                    }
                }
                done
            })?;
        }
        failed.map_or(Ok(()), |e| Err(io::Error::from_raw_os_error(e)))
    }

    /// Asks one question that has one answer, whose body is returned.
    pub(crate) fn ask(&self, mut msg: Msg) -> io::Result<Vec<u8>> {
        let mut seq = self.seq.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let id = *seq;
        *seq = seq.wrapping_add(1);
        msg.seal(id);
        self.send(&msg.buf)?;
        let mut answer = None;
        while answer.is_none() {
            self.receive(|kind, s, body| {
                if s == id {
                    answer = Some(match kind {
                        NLMSG_ERROR => Err(io::Error::from_raw_os_error(errno_of(body))),
                        _ => Ok(body.to_vec()),
                    });
                }
                answer.is_some()
            })?;
        }
        answer.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // The kernel takes a request in one buffer, which must fit what the socket may hold.
        if bytes.len() > 150_000 {
            setsockopt(&self.fd, sockopt::SndBufForce, &(bytes.len() * 2))?;
        }
        loop {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Reads one datagram and walks through its messages, until `each` returns true.
    fn receive(&self, mut each: impl FnMut(u16, u32, &[u8]) -> bool) -> io::Result<()> {
        let mut buf = [0u8; 32 * 1024];
        let n = loop {
            match recv(self.fd.as_raw_fd(), &mut buf, MsgFlags::empty()) {
                Ok(n) => break n,
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => {
                    // Until it is empty, a socket that has overflowed loses what is sent to it without another word.
                    while recv(self.fd.as_raw_fd(), &mut buf, MsgFlags::MSG_DONTWAIT).is_ok() {}
                    return Err(e.into());
                }
            }
        };
        let mut rest = &buf[..n];
        while rest.len() >= HEADER {
            let len = u32_at(rest, 0) as usize;
            if len < HEADER || len > rest.len() {
                break;
            }
            if each(u16_at(rest, 4), u32_at(rest, 8), &rest[HEADER..len]) {
                break;
            }
            rest = &rest[len.next_multiple_of(4).min(rest.len())..];
        }
        Ok(())
    }
}

fn errno_of(body: &[u8]) -> i32 {
    -(u32_at(body, 0) as i32)
}

/// A number of the machine's byte order at an offset, 0 when the bytes are too few.
pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4)
        .and_then(|s| s.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

/// A number of the machine's byte order at an offset, 0 when the bytes are too few.
pub(crate) fn u16_at(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2)
        .and_then(|s| s.try_into().ok())
        .map_or(0, u16::from_ne_bytes)
}

/// Walks through attributes: type (without flags) and data.
pub(crate) fn attrs(mut b: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        if b.len() < 4 {
            return None;
        }
        let len = u16_at(b, 0) as usize;
        if len < 4 || len > b.len() {
            return None;
        }
        let item = (u16_at(b, 2) & 0x3fff, &b[4..len]);
        b = &b[len.next_multiple_of(4).min(b.len())..];
        Some(item)
    })
}

/// The data of the attribute of this type.
pub(crate) fn attr(b: &[u8], kind: u16) -> Option<&[u8]> {
    attrs(b).find(|(k, _)| *k == kind).map(|(_, d)| d)
}

/// A string attribute's text, without its terminating zero.
pub(crate) fn text(d: &[u8]) -> String {
    String::from_utf8_lossy(d.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_aligned_and_nested() {
        let mut m = Msg::new(16, CREATE);
        m.raw(&[1, 2, 3, 4]).str(3, "ab").nest(18, |m| {
            m.u8(1, 7).u32(2, 9);
        });
        m.seal(5);
        assert_eq!(m.len() % 4, 0);
        assert_eq!(u32_at(&m.buf, 0) as usize, m.len());
        let body = &m.buf[HEADER + 4..];
        assert_eq!(text(attr(body, 3).unwrap()), "ab");
        let nest = attr(body, 18).unwrap();
        assert_eq!(attr(nest, 1), Some(&[7u8][..]));
        assert_eq!(u32_at(attr(nest, 2).unwrap(), 0), 9);
    }

    #[test]
    fn broken_attributes_end_the_walk() {
        assert_eq!(attrs(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attrs(&[255, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attrs(&[1]).count(), 0);
    }
}
