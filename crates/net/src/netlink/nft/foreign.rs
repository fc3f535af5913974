//! Beside other programs: base chains of theirs that drop forwarded packets unless a rule accepts them, and rules
//! of ours in them. Accepting in a table of one's own does not overrule another's drop.
//!
//! Each rule accepts what comes from, or goes to, one interface; Tripod's own table has dropped before what may not
//! pass. A comment names the interface, so that the rules are found again.

use std::io;

use super::super::{CREATE, Msg, Socket, attr, text};
use super::encode::{BATCH_BEGIN, BATCH_END, DELRULE, GETCHAIN, NEWCHAIN, NEWRULE, SUBSYSTEM, batch};
use super::{Expr, Hook, Verdict};

const GETRULE: u16 = SUBSYSTEM | 7;
/// Beginning of the comments.
const OURS: &str = "tripod: ";

/// A base chain of another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    family: u8,
    table: String,
    chain: String,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.table, self.chain)
    }
}

/// Base chains that drop forwarded IPv4 packets by default.
pub(crate) fn dropping_forward_chains(socket: &Socket) -> io::Result<Vec<Foreign>> {
    const IP: u8 = 2;
    const INET: u8 = 1;
    let mut m = Msg::new(GETCHAIN, 0);
    m.raw(&[0, 0, 0, 0]);
    let mut found = Vec::new();
    socket.dump(m, |kind, b| {
        let family = b.first().copied().unwrap_or(0);
        let body = b.get(4..).unwrap_or_default();
        let number = |d: &[u8]| <[u8; 4]>::try_from(d).map_or(u32::MAX, u32::from_be_bytes);
        let hook = attr(body, 4).and_then(|h| attr(h, 1)).map(number);
        let drops = attr(body, 5).map(number) == Some(0);
        if kind == NEWCHAIN && matches!(family, IP | INET) && hook == Some(Hook::Forward as u32) && drops {
            let name = |k| attr(body, k).map(text).unwrap_or_default();
            found.push(Foreign {
                family,
                table: name(1),
                chain: name(3),
            });
        }
    })?;
    Ok(found)
}

/// Our rules in a chain: handle and comment.
fn ours(socket: &Socket, f: &Foreign) -> io::Result<Vec<([u8; 8], String)>> {
    let mut m = Msg::new(GETRULE, 0);
    m.raw(&[f.family, 0, 0, 0]).str(1, &f.table).str(2, &f.chain);
    let mut found = Vec::new();
    socket.dump(m, |kind, b| {
        let body = b.get(4..).unwrap_or_default();
        // An old kernel lists the rules of all chains.
        let here = attr(body, 1).map(text).as_ref() == Some(&f.table)
            && attr(body, 2).map(text).as_ref() == Some(&f.chain);
        // The comment: its kind (0), its length, and the text with a zero at its end.
        let comment = attr(body, 7).and_then(|u| u.get(2..)).map(text);
        let handle = attr(body, 3).and_then(|h| <[u8; 8]>::try_from(h).ok());
        if kind == NEWRULE
            && here
            && let (Some(handle), Some(comment)) = (handle, comment.filter(|c| c.starts_with(OURS)))
        {
            found.push((handle, comment));
        }
    })?;
    Ok(found)
}

/// Has the chain accept packets of an interface; nothing happens when it does already.
pub(crate) fn admit(socket: &Socket, f: &Foreign, interface: &str) -> io::Result<()> {
    let comment = format!("{OURS}{interface}");
    let there = ours(socket, f)?.iter().filter(|(_, c)| *c == comment).count();
    if there >= 2 {
        return Ok(());
    }
    if there > 0 {
        dismiss(socket, f, Some(interface))?;
    }
    let mut note = vec![0, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    note.extend_from_slice(comment.as_bytes());
    note.push(0);
    let mut msgs = vec![batch(BATCH_BEGIN)];
    for side in [Expr::iif_is(interface), Expr::oif_is(interface)] {
        // Without the flag that appends, a rule comes first.
        let mut m = Msg::new(NEWRULE, CREATE);
        m.raw(&[f.family, 0, 0, 0]).str(1, &f.table).str(2, &f.chain);
        m.nest(4, |m| {
            for x in &side {
                x.encode(m, 0);
            }
            Expr::Verdict(Verdict::Accept).encode(m, 0);
        });
        m.attr(7, &note);
        msgs.push(m);
    }
    commit(socket, msgs)
}

/// Removes our rules for an interface, or all of them.
pub(crate) fn dismiss(socket: &Socket, f: &Foreign, interface: Option<&str>) -> io::Result<()> {
    let wanted = interface.map(|i| format!("{OURS}{i}"));
    let mut msgs = vec![batch(BATCH_BEGIN)];
    for (handle, comment) in ours(socket, f)? {
        if wanted.as_ref().is_none_or(|w| *w == comment) {
            let mut m = Msg::new(DELRULE, 0);
            m.raw(&[f.family, 0, 0, 0])
                .str(1, &f.table)
                .str(2, &f.chain)
                .attr(3, &handle);
            msgs.push(m);
        }
    }
    commit(socket, msgs)
}

fn commit(socket: &Socket, mut msgs: Vec<Msg>) -> io::Result<()> {
    let last = msgs.len() - 1;
    if last == 0 {
        return Ok(());
    }
    msgs.push(batch(BATCH_END));
    Ok(socket.transact(msgs, last)?)
}
