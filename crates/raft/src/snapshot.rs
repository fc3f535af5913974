//! Snapshots: files at rest, and what is handed to another manager.
//!
//! A file is a header (magic `TRIPSNF1`, salt) and frames: length u32, then the frame sealed with the file's key; the
//! frame's number, and whether it is the last, are authenticated. The first frame is openraft's description of the
//! snapshot (JSON); the others together are the state ([`State::write_snapshot`]), compressed with zstd.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tripod_store::State;

use crate::crypt::{self, Keyring, Salt, Sealer};
use crate::error::RaftError;
use crate::files;
use crate::types::SnapshotMeta;

const MAGIC: &[u8; 8] = b"TRIPSNF1";
const FRAME: usize = 64 << 10;
/// Fast; objects are JSON and shrink about tenfold.
const LEVEL: i32 = 1;

/// The content of a snapshot on its way between managers.
///
/// A sender holds an open file, which stays whole while newer snapshots replace it; nothing is loaded before it is
/// needed.
#[derive(Clone, Debug)]
pub struct SnapshotData(Source);

#[derive(Clone)]
enum Source {
    Empty,
    State(State),
    File {
        path: PathBuf,
        file: Arc<File>,
        keyring: Arc<Keyring>,
    },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::State(state) => state.fmt(f),
            Self::File { path, .. } => path.fmt(f),
        }
    }
}

impl SnapshotData {
    pub(crate) fn empty() -> Self {
        Self(Source::Empty)
    }

    pub(crate) fn of(state: State) -> Self {
        Self(Source::State(state))
    }

    /// The state itself. Blocks while a file is read.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn load(&self) -> Result<State, RaftError> {
        match &self.0 {
            Source::Empty => Ok(State::new()),
            Source::State(state) => Ok(state.clone()),
            Source::File { path, file, keyring } => Ok(read(path, file, keyring)?.1),
        }
    }

    /// Writes it in the form that [`SnapshotData::receive`] reads, for a connection that is itself encrypted. Blocks.
    ///
    /// # Errors
    /// If the file is damaged, or those of the writer.
    pub fn send(&self, writer: impl Write) -> Result<(), RaftError> {
        let failed = || RaftError::io("snapshot");
        let mut encoder = zstd::Encoder::new(writer, LEVEL).map_err(failed())?;
        self.load()?.write_snapshot(&mut encoder).map_err(failed())?;
        encoder
            .finish()
            .and_then(|mut writer| writer.flush())
            .map_err(failed())
    }

    /// Reads what [`SnapshotData::send`] wrote. Blocks.
    ///
    /// # Errors
    /// If the data is damaged, or those of the reader.
    pub fn receive(reader: impl Read) -> Result<Self, RaftError> {
        let decoder = zstd::Decoder::new(reader).map_err(RaftError::io("snapshot"))?;
        let state =
            State::read_snapshot(BufReader::new(decoder)).map_err(|e| RaftError::corrupt("snapshot", e))?;
        Ok(Self::of(state))
    }
}

struct SealedWriter<W> {
    inner: W,
    sealer: Sealer,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    number: u64,
}

/// What is authenticated with each frame.
fn frame_aad(number: u64, last: bool) -> [u8; 9] {
    let mut aad = [u8::from(last); 9];
    aad[..8].copy_from_slice(&number.to_le_bytes());
    aad
}

impl<W: Write> SealedWriter<W> {
    fn frame(&mut self, last: bool) -> io::Result<()> {
        self.sealed.clear();
        self.sealer
            .seal(&frame_aad(self.number, last), &self.plain, &mut self.sealed);
        self.inner.write_all(&(self.sealed.len() as u32).to_le_bytes())?;
        self.inner.write_all(&self.sealed)?;
        self.number += 1;
        self.plain.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        self.frame(true)?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for SealedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.plain.len() >= FRAME {
            self.frame(false)?;
        }
        let part = bytes.len().min(FRAME - self.plain.len());
        self.plain.extend_from_slice(&bytes[..part]);
        Ok(part)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct SealedReader<R> {
    inner: R,
    sealer: Sealer,
    frame: Vec<u8>,
    at: usize,
    number: u64,
    last: bool,
}

impl<R: Read> SealedReader<R> {
    /// Reads the next frame; whether there was one.
    fn next(&mut self) -> io::Result<bool> {
        if self.last {
            return Ok(false);
        }
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a frame is damaged");
        let mut length = [0; 4];
        self.inner.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        // The description is one frame and may be longer than the others, but not by much.
        if length > 16 * FRAME {
            return Err(damaged());
        }
        let mut sealed = vec![0; length];
        self.inner.read_exact(&mut sealed)?;
        let mut copy = sealed.clone();
        let plain = match self.sealer.open(&frame_aad(self.number, false), &mut copy) {
            Some(plain) => plain,
            None => {
                self.last = true;
                self.sealer
                    .open(&frame_aad(self.number, true), &mut sealed)
                    .ok_or_else(damaged)?
            }
        };
        self.frame = plain.to_vec();
        (self.at, self.number) = (0, self.number + 1);
        Ok(true)
    }
}

impl<R: Read> Read for SealedReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.frame.len() {
            if !self.next()? {
                return Ok(0);
            }
        }
        let part = out.len().min(self.frame.len() - self.at);
        out[..part].copy_from_slice(&self.frame[self.at..self.at + part]);
        self.at += part;
        Ok(part)
    }
}

/// The snapshot files of one directory: one, but for moments.
pub(crate) struct Snapshots {
    dir: PathBuf,
    keyring: Arc<Keyring>,
    current: std::sync::Mutex<Option<SnapshotMeta>>,
}

impl Snapshots {
    /// Finds and loads the newest snapshot of a directory, and removes what older attempts left.
    pub(crate) fn open(
        dir: &Path,
        keyring: Arc<Keyring>,
    ) -> Result<(Self, Option<(SnapshotMeta, State)>), RaftError> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(RaftError::io(dir))? {
            let path = entry.map_err(RaftError::io(dir))?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.starts_with("snapshot-") {
                match name.ends_with(".snap") {
                    true => paths.push(path),
                    false => files::remove(&path)?,
                }
            }
        }
        paths.sort();
        let newest = paths.pop();
        let loaded = match &newest {
            Some(path) => {
                let file = File::open(path).map_err(RaftError::io(path))?;
                Some(read(path, &file, &keyring)?)
            }
            None => None,
        };
        for old in paths {
            files::remove(&old)?;
        }
        let current = std::sync::Mutex::new(loaded.as_ref().map(|(meta, _)| meta.clone()));
        Ok((
            Self {
                dir: dir.to_owned(),
                keyring,
                current,
            },
            loaded,
        ))
    }

    fn path(&self, meta: &SnapshotMeta) -> PathBuf {
        let (index, term) = meta
            .last_log_id
            .map_or((0, 0), |id| (id.index, id.leader_id.term));
        self.dir.join(format!("snapshot-{index:020}-{term}.snap"))
    }

    /// The newest snapshot, without loading it.
    pub(crate) fn current(&self) -> Result<Option<(SnapshotMeta, SnapshotData)>, RaftError> {
        let current = self.current.lock().expect("no panic while locked");
        let Some(meta) = current.clone() else {
            return Ok(None);
        };
        let path = self.path(&meta);
        let file = Arc::new(File::open(&path).map_err(RaftError::io(&path))?);
        Ok(Some((
            meta,
            SnapshotData(Source::File {
                path,
                file,
                keyring: self.keyring.clone(),
            }),
        )))
    }

    /// Writes a snapshot; when this returns it is on the disk and older ones are gone. Blocks.
    pub(crate) fn save(&self, meta: &SnapshotMeta, state: &State) -> Result<(), RaftError> {
        let path = self.path(meta);
        let temporary = path.with_extension("tmp");
        let file = files::create(&temporary, true)?;
        write(&file, meta, state, &self.keyring)
            .and_then(|()| file.sync_all())
            .map_err(RaftError::io(&temporary))?;
        let mut current = self.current.lock().expect("no panic while locked");
        if current.as_ref().is_some_and(|c| c.last_log_id > meta.last_log_id) {
            return files::remove(&temporary);
        }
        files::rename(&temporary, &path)?;
        let old = current.replace(meta.clone()).map(|old| self.path(&old));
        match old.filter(|old| *old != path) {
            Some(old) => files::remove(&old),
            None => Ok(()),
        }
    }
}

fn write(file: &File, meta: &SnapshotMeta, state: &State, keyring: &Keyring) -> io::Result<()> {
    let salt: Salt = crypt::random();
    let mut out = BufWriter::with_capacity(FRAME, file);
    out.write_all(MAGIC)?;
    out.write_all(&salt)?;
    let sealer = keyring.sealer(&salt);
    let plain = serde_json::to_vec(meta)?;
    let mut sealed = SealedWriter {
        inner: out,
        sealer,
        plain,
        sealed: Vec::new(),
        number: 0,
    };
    sealed.frame(false)?;
    let mut encoder = zstd::Encoder::new(sealed, LEVEL)?;
    state.write_snapshot(&mut encoder)?;
    encoder.finish()?.finish()?.flush()
}

fn read(path: &Path, file: &File, keyring: &Keyring) -> Result<(SnapshotMeta, State), RaftError> {
    let damaged = |what: &dyn ToString| RaftError::corrupt(path, what.to_string());
    let mut from = BufReader::with_capacity(FRAME, At { file, at: 0 });
    let mut header = [0; 24];
    from.read_exact(&mut header).map_err(|e| damaged(&e))?;
    if &header[..8] != MAGIC {
        return Err(damaged(&"no snapshot"));
    }
    let salt: Salt = header[8..].try_into().expect("sixteen bytes");
    let sealer = keyring.sealer(&salt);
    let mut sealed = SealedReader {
        inner: from,
        sealer,
        frame: Vec::new(),
        at: 0,
        number: 0,
        last: false,
    };
    sealed.next().map_err(|e| damaged(&e))?;
    let meta = serde_json::from_slice(&sealed.frame).map_err(|e| damaged(&e))?;
    sealed.at = sealed.frame.len();
    let decoder = zstd::Decoder::new(sealed).map_err(|e| damaged(&e))?;
    let state = State::read_snapshot(BufReader::with_capacity(FRAME, decoder)).map_err(|e| damaged(&e))?;
    Ok((meta, state))
}

/// Reads a file from its start without moving the position that others may share.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.file, out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
