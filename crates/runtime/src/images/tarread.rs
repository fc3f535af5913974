//! Reads tar archives (ustar, PAX, GNU) entry by entry from untrusted sources: whatever an archive says, only a
//! bounded amount of it is ever held in memory. Formats: POSIX.1-2001 `pax`, GNU tar manual, "Basic Tar Format".

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};
use tripod_model::{Error, Result};

/// Bytes of a long name, link or PAX header: paths have 4096 bytes, extended attributes 64 KiB each.
const MAX_META: u64 = 1024 * 1024;
/// Bytes of a path, as in the kernel.
const MAX_PATH: usize = 4096;
/// Entries of one archive.
const MAX_ENTRIES: u64 = 5_000_000;
/// Pieces of one sparse file.
const MAX_PIECES: usize = 65_536;
const BLOCK: usize = 512;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    Hardlink,
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// One entry; its data is read from the [`TarReader`] before the next one is asked for.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Bytes of the file once unpacked.
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the data goes, as (offset, length), for sparse files.
    pub(crate) pieces: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// The path as text for messages.
    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries in order.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Data of the current entry not read yet, and the padding after it.
    left: u64,
    pad: u64,
    entries: u64,
    done: bool,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            left: 0,
            pad: 0,
            entries: 0,
            done: false,
        }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, past whatever is left of the one before.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extra = Extra::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Error::invalid("archive has too many entries"));
            }
            let size = or_zero(&header.as_old().size, header.entry_size())?;
            match header.entry_type() {
                EntryType::GNULongName => extra.path = Some(self.text(size)?),
                EntryType::GNULongLink => extra.link = Some(self.text(size)?),
                EntryType::XHeader => extra.pax = parse_pax(&self.meta(size)?)?,
                EntryType::XGlobalHeader => drop(self.meta(size)?),
                _ => return self.entry(&header, size, extra).map(Some),
            }
        }
    }

    fn header(&mut self) -> Result<Option<Header>> {
        if self.done {
            return Ok(None);
        }
        let mut block = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => break,
                Ok(0) => return Err(truncated()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(bad(e)),
            }
        }
        if filled == 0 || block.iter().all(|b| *b == 0) {
            self.done = true;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(i, b)| {
                if (148..156).contains(&i) {
                    32
                } else {
                    u32::from(*b)
                }
            })
            .sum();
        if header.cksum().map_err(bad)? != sum {
            return Err(Error::invalid("archive/tar: invalid tar header"));
        }
        Ok(Some(header))
    }

    fn entry(&mut self, header: &Header, size: u64, extra: Extra) -> Result<Entry> {
        let device = |f: fn(&Header) -> io::Result<Option<u32>>| f(header).ok().flatten().unwrap_or(0);
        let numbers = (device(Header::device_major), device(Header::device_minor));
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Hardlink,
            EntryType::Char => Kind::Char(numbers.0, numbers.1),
            EntryType::Block => Kind::Block(numbers.0, numbers.1),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            other => {
                return Err(Error::invalid(format!(
                    "archive has an entry of unknown type {:?}",
                    other.as_byte() as char
                )));
            }
        };
        let mut entry = Entry {
            path: extra.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extra.link.unwrap_or_else(|| {
                header
                    .link_name_bytes()
                    .map(|l| l.into_owned())
                    .unwrap_or_default()
            }),
            kind,
            size,
            mode: or_zero(&header.as_old().mode, header.mode())? & 0o7777,
            uid: or_zero(&header.as_old().uid, header.uid())? as u32,
            gid: or_zero(&header.as_old().gid, header.gid())? as u32,
            mtime: (header.mtime().unwrap_or(0) as i64, 0),
            xattrs: Vec::new(),
            pieces: None,
        };
        let mut stored = size;
        for (key, value) in extra.pax {
            apply_pax(&mut entry, &mut stored, &key, value)?;
        }
        if kind == Kind::File && entry.path.ends_with(b"/") {
            // Old tars mark directories by a slash alone.
            entry.kind = Kind::Dir;
        }
        if entry.path.len() > MAX_PATH
            || entry.link.len() > MAX_PATH
            || entry.path.contains(&0)
            || entry.link.contains(&0)
        {
            return Err(Error::invalid("archive has a path that is too long or malformed"));
        }
        if header.entry_type() == EntryType::GNUSparse {
            self.sparse(header, &mut entry, stored)?;
        }
        if entry.kind != Kind::File {
            // Hard links written by some tools carry a size but no data.
            if matches!(entry.kind, Kind::Hardlink | Kind::Symlink | Kind::Dir) {
                stored = 0;
            }
            entry.size = 0;
        } else if entry.pieces.is_none() {
            entry.size = stored;
        }
        self.left = stored;
        self.pad = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        Ok(entry)
    }

    /// The map of an old GNU sparse file: four pieces in the header, 21 in each block after it.
    fn sparse(&mut self, header: &Header, entry: &mut Entry, stored: u64) -> Result<()> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| Error::invalid("archive has a malformed sparse file"))?;
        let mut pieces = Vec::new();
        let mut add = |s: &tar::GnuSparseHeader| -> Result<()> {
            if !s.is_empty() {
                pieces.push((s.offset().map_err(bad)?, s.length().map_err(bad)?));
            }
            Ok(())
        };
        for s in &gnu.sparse {
            add(s)?;
        }
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            blocks += 1;
            if blocks * 21 > MAX_PIECES {
                return Err(Error::invalid("archive has a sparse file of too many pieces"));
            }
            let mut ext = GnuExtSparseHeader::new();
            self.inner.read_exact(ext.as_mut_bytes()).map_err(bad)?;
            for s in ext.sparse() {
                add(s)?;
            }
            more = ext.is_extended();
        }
        entry.size = gnu.real_size().map_err(bad)?;
        let mut end = 0u64;
        let mut sum = 0u64;
        for (offset, len) in &pieces {
            let stop = offset
                .checked_add(*len)
                .filter(|stop| *offset >= end && *stop <= entry.size);
            end = stop.ok_or_else(|| Error::invalid("archive has a malformed sparse file"))?;
            sum += len;
        }
        if sum != stored {
            return Err(Error::invalid("archive has a malformed sparse file"));
        }
        entry.pieces = Some(pieces);
        Ok(())
    }

    fn meta(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_META {
            return Err(Error::invalid("archive has an extended header that is too long"));
        }
        let mut buf = vec![0; size as usize];
        self.inner.read_exact(&mut buf).map_err(bad)?;
        self.left = 0;
        self.pad = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(buf)
    }

    fn text(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut text = self.meta(size)?;
        if let Some(end) = text.iter().position(|b| *b == 0) {
            text.truncate(end);
        }
        Ok(text)
    }

    fn skip(&mut self) -> Result<()> {
        let rest = self.left + self.pad;
        self.left = 0;
        self.pad = 0;
        let skipped = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink()).map_err(bad)?;
        if skipped < rest { Err(truncated()) } else { Ok(()) }
    }
}

/// The data of the current entry. Ends early only with an error.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buf.is_empty() {
            return Ok(0);
        }
        let want = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.inner.read(&mut buf[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// Records are `LENGTH KEY=VALUE\n`; values may hold any byte, so only the length ends one.
fn parse_pax(mut data: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let malformed = || Error::invalid("archive has a malformed extended header");
    let mut records = Vec::new();
    while !data.is_empty() && data[0] != 0 {
        let space = data.iter().position(|b| *b == b' ').ok_or_else(malformed)?;
        let len: usize = std::str::from_utf8(&data[..space])
            .ok()
            .and_then(|t| t.parse().ok())
            .ok_or_else(malformed)?;
        if len <= space + 1 || len > data.len() || data[len - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &data[space + 1..len - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = &data[len..];
    }
    Ok(records)
}

fn apply_pax(entry: &mut Entry, stored: &mut u64, key: &[u8], value: Vec<u8>) -> Result<()> {
    let malformed = || Error::invalid("archive has a malformed extended header");
    let number = |v: &[u8]| {
        std::str::from_utf8(v)
            .ok()
            .and_then(|t| t.parse::<u64>().ok())
            .ok_or_else(malformed)
    };
    match key {
        b"path" if !value.is_empty() => entry.path = value,
        b"linkpath" if !value.is_empty() => entry.link = value,
        b"size" => *stored = number(&value)?,
        b"uid" => entry.uid = number(&value)? as u32,
        b"gid" => entry.gid = number(&value)? as u32,
        b"mtime" => entry.mtime = parse_time(&value).ok_or_else(malformed)?,
        b"GNU.sparse.major" | b"GNU.sparse.map" => {
            return Err(Error::invalid(
                "archive has a sparse file in a format that is not supported",
            ));
        }
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                entry.xattrs.push((name.to_vec(), value));
            }
        }
    }
    Ok(())
}

fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds - 1, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

/// A number of a header; many writers leave the field empty where it does not matter.
fn or_zero<T: Default>(field: &[u8], parsed: io::Result<T>) -> Result<T> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) {
        Ok(T::default())
    } else {
        parsed.map_err(bad)
    }
}

/// The error for an archive that ends too early.
pub(crate) fn truncated() -> Error {
    Error::invalid("archive is truncated: unexpected EOF")
}

/// The error for an archive that cannot be read: its fault, not the machine's.
pub(crate) fn bad(e: io::Error) -> Error {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        return truncated();
    }
    match e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.clone(),
        None => Error::invalid(format!("archive cannot be read: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_values_may_hold_newlines() {
        let records = parse_pax(b"11 a=b\nc=\x01\n12 path=abc\n").unwrap();
        assert_eq!(records[0], (b"a".to_vec(), b"b\nc=\x01".to_vec()));
        assert_eq!(records[1], (b"path".to_vec(), b"abc".to_vec()));
        assert!(parse_pax(b"99 a=b\n").is_err());
        assert!(parse_pax(b"0 a=b\n").is_err());
    }

    #[test]
    fn times() {
        assert_eq!(parse_time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(parse_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(parse_time(b"x"), None);
    }

    #[test]
    fn long_header_is_refused_before_it_is_read() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(10 << 30);
        header.set_cksum();
        let mut reader = TarReader::new(&header.as_bytes()[..]);
        assert!(reader.next().unwrap_err().message.contains("too long"));
    }

    #[test]
    fn truncation_is_told() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(2000);
        header.set_mode(0o644);
        builder.append_data(&mut header, "a", &[1u8; 2000][..]).unwrap();
        let whole = builder.into_inner().unwrap();
        for cut in [100, 600, 2400] {
            let mut reader = TarReader::new(&whole[..cut]);
            let mut failed = false;
            loop {
                match reader.next() {
                    Ok(None) => break,
                    Ok(Some(_)) => {}
                    Err(e) => {
                        assert!(e.message.contains("truncated"), "{e}");
                        failed = true;
                        break;
                    }
                }
            }
            assert!(failed, "cut at {cut}");
        }
    }
}
