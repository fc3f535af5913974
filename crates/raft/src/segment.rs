//! One file of the log: a header and records, in preallocated space.
//!
//! Header (64 bytes): magic `TRIPLOG1`, salt (16 bytes), index of the first record u64, CRC-32 of these 32 bytes.
//!
//! Record (aligned to 8 bytes; integers little-endian), with the offset of each field:
//!
//! | 0 | length of the body u32; 0 ends the segment |
//! | 4 | CRC-32 of everything else in the record |
//! | 8 | CRC of the record before, or of the header: a record left over from an earlier use never fits |
//! | 12 | kind u8, three zero bytes |
//! | 16 | index u64 |
//! | 24 | term u64, leader u64 |
//! | 40 | number of entries known to be committed when it was written u64 |
//! | 48 | number of entries known to be on this disk when it was written u64 |
//! | 56 | the body, sealed with the key of the file; bytes 12 to 56 are authenticated with it |

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::crypt::{self, Keyring, Salt, Sealer};
use crate::error::RaftError;
use crate::files;

const MAGIC: &[u8; 8] = b"TRIPLOG1";
/// Where the first record starts.
pub(crate) const HEADER: usize = 64;
/// What a record adds to its sealed body.
pub(crate) const RECORD: usize = 56;

/// The clear fields of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) committed: u64,
    pub(crate) durable: u64,
}

/// Where a record lies within its segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) crc: u32,
}

/// The space that a body of `plain` bytes takes.
pub(crate) fn space(plain: usize) -> usize {
    (RECORD + plain + crypt::OVERHEAD).next_multiple_of(8)
}

/// A segment that is open for reading and, if it is the last, for appending.
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    /// The preallocated size in bytes.
    pub(crate) size: u64,
    /// The index of its first record.
    pub(crate) first: u64,
    /// Where the next record goes.
    pub(crate) end: u64,
    /// The CRC of the last record, or of the header.
    pub(crate) crc: u32,
    sealer: Sealer,
}

/// What scanning a segment found.
pub(crate) struct Scan {
    pub(crate) records: Vec<(Head, Spot)>,
    /// Bytes after the last good record that are not empty space.
    pub(crate) torn: bool,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The CRC that a record should carry.
fn record_crc(record: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&record[..4]);
    crc.update(&record[8..]);
    crc.finalize()
}

/// The record at the start of `bytes`, if it is whole.
fn parse(bytes: &[u8]) -> Option<(Head, u32, Spot)> {
    if bytes.len() < RECORD {
        return None;
    }
    let body = u32_at(bytes, 0) as usize;
    if body < crypt::OVERHEAD || body > bytes.len() - RECORD {
        return None;
    }
    let record = &bytes[..RECORD + body];
    let crc = u32_at(record, 4);
    if crc != record_crc(record) {
        return None;
    }
    let head = Head {
        kind: record[12],
        index: u64_at(record, 16),
        term: u64_at(record, 24),
        leader: u64_at(record, 32),
        committed: u64_at(record, 40),
        durable: u64_at(record, 48),
    };
    Some((
        head,
        u32_at(record, 8),
        Spot {
            offset: 0,
            length: record.len() as u32,
            crc,
        },
    ))
}

/// Makes a file of zeros, so that a later write into it changes no metadata of the file system.
pub(crate) fn allocate(path: &Path, size: u64) -> Result<(), RaftError> {
    let made = write_zeros(path, size);
    if made.is_err() {
        files::remove(path)?;
    }
    made
}

fn write_zeros(path: &Path, size: u64) -> Result<(), RaftError> {
    let full = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => RaftError::StorageFull(e),
        _ => RaftError::io(path)(e),
    };
    let file = files::create(path, true)?;
    let zeros = [0; 1 << 16];
    let mut at = 0;
    while at < size {
        let part = zeros.len().min((size - at) as usize);
        file.write_all_at(&zeros[..part], at).map_err(full)?;
        at += part as u64;
    }
    file.sync_all().map_err(full)
}

impl Segment {
    /// Turns an allocated file at `from` into the segment `path` that starts at `first`.
    pub(crate) fn begin(
        from: &Path,
        path: PathBuf,
        first: u64,
        keyring: &Keyring,
    ) -> Result<Self, RaftError> {
        let file = files::create(from, false)?;
        let size = file.metadata().map_err(RaftError::io(from))?.len();
        let salt: Salt = crypt::random();
        let mut header = [0; HEADER + 4];
        header[..8].copy_from_slice(MAGIC);
        header[8..24].copy_from_slice(&salt);
        header[24..32].copy_from_slice(&first.to_le_bytes());
        let crc = crc32fast::hash(&header[..32]);
        header[32..36].copy_from_slice(&crc.to_le_bytes());
        // The four bytes after the header end a recycled file's old records.
        file.write_all_at(&header, 0)
            .and_then(|()| file.sync_data())
            .map_err(RaftError::io(from))?;
        files::rename(from, &path)?;
        Ok(Self {
            path,
            file: Arc::new(file),
            size,
            first,
            end: HEADER as u64,
            crc,
            sealer: keyring.sealer(&salt),
        })
    }

    /// Opens a segment and reads all its records.
    pub(crate) fn open(path: PathBuf, keyring: &Keyring) -> Result<(Self, Scan), RaftError> {
        let file = files::create(&path, false)?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut &file, &mut bytes).map_err(RaftError::io(&path))?;
        if bytes.len() < HEADER || &bytes[..8] != MAGIC || crc32fast::hash(&bytes[..32]) != u32_at(&bytes, 32)
        {
            return Err(RaftError::corrupt(path, "no log segment"));
        }
        let salt: Salt = bytes[8..24].try_into().expect("sixteen bytes");
        let (first, crc) = (u64_at(&bytes, 24), u32_at(&bytes, 32));
        let sealer = keyring.sealer(&salt);
        let mut segment = Self {
            path,
            file: Arc::new(file),
            size: bytes.len() as u64,
            first,
            end: HEADER as u64,
            crc,
            sealer,
        };
        let mut records = Vec::new();
        while let Some((head, prev, mut spot)) = parse(&bytes[(segment.end as usize).min(bytes.len())..]) {
            if prev != segment.crc || head.index != first + records.len() as u64 {
                break;
            }
            spot.offset = segment.end as u32;
            segment.end += u64::from(spot.length).next_multiple_of(8);
            segment.crc = spot.crc;
            records.push((head, spot));
        }
        let rest = &bytes[(segment.end as usize).min(bytes.len())..];
        let torn = rest.len() < 4 || u32_at(rest, 0) != 0;
        if torn {
            segment.check_torn(rest, first + records.len() as u64)?;
        }
        Ok((segment, Scan { records, torn }))
    }

    /// A write that was cut off leaves no whole record behind it which says that the damaged one had reached the
    /// disk. If there is one, acknowledged data is damaged, and going on would lose it silently.
    fn check_torn(&self, rest: &[u8], missing: u64) -> Result<(), RaftError> {
        for at in (8..rest.len()).step_by(8) {
            let later =
                parse(&rest[at..]).is_some_and(|(head, ..)| head.index > missing && head.durable > missing);
            if later {
                return Err(RaftError::corrupt(
                    &self.path,
                    format!("entry {missing} cannot be read"),
                ));
            }
        }
        Ok(())
    }

    /// Whether a record of `space` bytes fits, and the word after it that ends the segment.
    pub(crate) fn fits(&self, space: usize) -> bool {
        self.end + space as u64 + 8 <= self.size
    }

    /// Appends a record to `out`, which will be written at `self.end`; returns where it will lie.
    pub(crate) fn encode(&mut self, head: &Head, plain: &[u8], written: usize, out: &mut Vec<u8>) -> Spot {
        let start = out.len();
        out.extend_from_slice(&((plain.len() + crypt::OVERHEAD) as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&[head.kind, 0, 0, 0]);
        for word in [head.index, head.term, head.leader, head.committed, head.durable] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let aad: [u8; RECORD - 12] = out[start + 12..start + RECORD]
            .try_into()
            .expect("the clear fields");
        self.sealer.seal(&aad, plain, out);
        let crc = record_crc(&out[start..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        let length = (out.len() - start) as u32;
        out.resize(start + (length as usize).next_multiple_of(8), 0);
        self.crc = crc;
        Spot {
            offset: (self.end as usize + written) as u32,
            length,
            crc,
        }
    }

    /// Writes records at the end; [`Segment::sync`] puts them on the disk.
    pub(crate) fn write(&mut self, records: &mut Vec<u8>) -> Result<(), RaftError> {
        let length = records.len() as u64;
        // Ends the segment here for a reader, whatever an earlier use left behind.
        records.extend_from_slice(&[0; 8]);
        let written = self.file.write_all_at(records, self.end);
        written.map_err(RaftError::io(&self.path))?;
        self.end += length;
        Ok(())
    }

    /// Waits until everything that was written is on the disk.
    pub(crate) fn sync(&self) -> Result<(), RaftError> {
        self.file.sync_data().map_err(RaftError::io(&self.path))
    }

    /// Cuts off everything from `end` up to `until`; `crc` is that of the record before. What was there is
    /// overwritten, so that it can be mistaken neither for a continuation nor for damage.
    pub(crate) fn cut(&mut self, end: u64, until: u64, crc: u32) -> Result<(), RaftError> {
        let zeros = vec![0; (until.saturating_sub(end) as usize).max(8)];
        let cut = self
            .file
            .write_all_at(&zeros, end)
            .and_then(|()| self.file.sync_data());
        cut.map_err(RaftError::io(&self.path))?;
        (self.end, self.crc) = (end, crc);
        Ok(())
    }

    /// The CRC of the last record before `index`, read from the disk.
    pub(crate) fn crc_before(&self, index: u64, keyring: &Keyring) -> Result<u32, RaftError> {
        let (_, scan) = Self::open(self.path.clone(), keyring)?;
        let before = scan.records.iter().rfind(|(head, _)| head.index < index);
        before
            .map(|(_, spot)| spot.crc)
            .ok_or_else(|| RaftError::corrupt(&self.path, "no earlier record"))
    }

    /// Reads one record back: its clear fields and its body.
    pub(crate) fn read(&self, spot: Spot) -> Result<(Head, Vec<u8>), RaftError> {
        let mut record = vec![0; spot.length as usize];
        self.file
            .read_exact_at(&mut record, u64::from(spot.offset))
            .map_err(RaftError::io(&self.path))?;
        let damaged = || RaftError::corrupt(&self.path, format!("the record at {}", spot.offset));
        let (head, ..) = parse(&record).ok_or_else(damaged)?;
        let aad: [u8; RECORD - 12] = record[12..RECORD].try_into().expect("the clear fields");
        let plain = self
            .sealer
            .open(&aad, &mut record[RECORD..])
            .ok_or_else(damaged)?;
        Ok((head, plain.to_vec()))
    }
}
