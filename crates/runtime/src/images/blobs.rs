//! The content store: blobs by digest, written to a temporary file, checked, then renamed into place.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tripod_model::{Error, Result};

use super::beneath;

/// Directories of the store.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) root: PathBuf,
    pub(crate) blobs: PathBuf,
    pub(crate) layers: PathBuf,
    pub(crate) snapshots: PathBuf,
    pub(crate) tmp: PathBuf,
    pub(crate) trash: PathBuf,
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Paths {
    /// Makes the directories. Only root may look in: layers hold set-user-id programs and device nodes.
    pub(crate) fn create(root: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let make = |path: PathBuf| -> Result<PathBuf> {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o710);
            builder
                .create(&path)
                .map_err(|e| Error::internal(format!("{}: {e}", path.display())))?;
            Ok(path)
        };
        make(root.to_path_buf())?;
        let root = root.canonicalize()?;
        for algorithm in ["sha256", "sha512"] {
            make(root.join("content/blobs").join(algorithm))?;
        }
        Ok(Self {
            blobs: root.join("content/blobs"),
            layers: make(root.join("layers"))?,
            snapshots: make(root.join("snapshots"))?,
            tmp: make(root.join("tmp"))?,
            trash: make(root.join("trash"))?,
            root,
        })
    }

    /// Where a blob is. The digest must have been checked to be one.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
        self.blobs.join(algorithm).join(hex)
    }

    /// Where a layer is unpacked.
    pub(crate) fn layer(&self, diff_id: &str) -> PathBuf {
        self.layers
            .join(diff_id.strip_prefix("sha256:").unwrap_or(diff_id))
    }

    /// A path in `tmp` or `trash` that nobody else has.
    pub(crate) fn unique(&self, dir: &Path, what: &str) -> PathBuf {
        let n = SERIAL.fetch_add(1, Ordering::Relaxed);
        dir.join(format!("{what}-{}-{n}", std::process::id()))
    }

    /// A small blob in memory.
    pub(crate) fn read_small(&self, digest: &str) -> Result<Vec<u8>> {
        read_bounded(&self.blob(digest))
    }
}

/// Bytes of a manifest or configuration.
pub(crate) const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// Reads a document that must not be longer than [`MAX_DOCUMENT`].
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::internal(format!("{}: {e}", path.display())))?;
    let mut out = Vec::new();
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut out)?;
    if out.len() as u64 > MAX_DOCUMENT {
        return Err(Error::invalid("manifest or configuration is too long"));
    }
    Ok(out)
}

/// A file on its way into the store; removed unless it gets there.
#[derive(Debug)]
pub(crate) struct Ingest {
    path: Option<PathBuf>,
}

impl Ingest {
    /// A new temporary file.
    pub(crate) fn new(paths: &Paths) -> Result<(Self, File)> {
        let path = paths.unique(&paths.tmp, "blob");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| Error::internal(format!("{}: {e}", path.display())))?;
        Ok((Self { path: Some(path) }, file))
    }

    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().expect("not committed")
    }

    /// Puts the file in its place. The caller has checked the digest.
    pub(crate) fn commit(mut self, paths: &Paths, digest: &str) -> Result<()> {
        let from = self.path.take().expect("not committed");
        let to = paths.blob(digest);
        std::fs::rename(&from, &to).map_err(|e| {
            let _ = std::fs::remove_file(&from);
            Error::internal(format!("{}: {e}", to.display()))
        })
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A directory that is removed unless it is kept.
pub(crate) struct TempTree {
    path: Option<PathBuf>,
}

impl TempTree {
    pub(crate) fn new(paths: &Paths) -> Result<Self> {
        let path = paths.unique(&paths.tmp, "layer");
        std::fs::create_dir(&path)?;
        Ok(Self { path: Some(path) })
    }

    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().expect("not kept")
    }

    /// Renames it into place.
    pub(crate) fn keep(mut self, to: &Path) -> Result<()> {
        let from = self.path.take().expect("not kept");
        std::fs::rename(&from, to).map_err(|e| {
            let _ = beneath::remove_path(&from);
            Error::internal(format!("{}: {e}", to.display()))
        })
    }
}

impl Drop for TempTree {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = beneath::remove_path(path);
        }
    }
}

/// Content that is being added and must not be collected before an image refers to it.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<String, usize>>,
}

impl Leases {
    /// Runs `f` with the test whether a digest is held, while nobody can take a new lease.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&dyn Fn(&str) -> bool) -> T) -> T {
        let held = self.held.lock().expect("leases");
        f(&|digest| held.contains_key(digest))
    }
}

/// One at a time, by digest.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Gates {
    /// The gate of a digest: who holds its lock is the one.
    pub(crate) fn gate(&self, digest: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut gates = self.0.lock().expect("gates");
        if let Some(gate) = gates.get(digest).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::default();
        gates.insert(digest.to_owned(), Arc::downgrade(&gate));
        gate
    }
}

/// Holds digests until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Arc<Leases>,
    digests: Mutex<Vec<String>>,
}

impl Lease {
    pub(crate) fn new(leases: &Arc<Leases>) -> Self {
        Self {
            leases: Arc::clone(leases),
            digests: Mutex::default(),
        }
    }

    /// Holds one more digest. To be called before looking whether the store has it.
    pub(crate) fn hold(&self, digest: &str) {
        *self
            .leases
            .held
            .lock()
            .expect("leases")
            .entry(digest.to_owned())
            .or_default() += 1;
        self.digests.lock().expect("lease").push(digest.to_owned());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = self.leases.held.lock().expect("leases");
        for digest in self.digests.get_mut().expect("lease").drain(..) {
            if let Some(n) = held.get_mut(&digest) {
                *n -= 1;
                if *n == 0 {
                    held.remove(&digest);
                }
            }
        }
    }
}

/// A reader of what a tar, tar.gz or tar.zst holds, told by its first bytes.
pub(crate) fn decompress<'a>(reader: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let mut reader = reader;
    let mut magic = Vec::with_capacity(6);
    (&mut reader)
        .take(6)
        .read_to_end(&mut magic)
        .map_err(super::tarread::bad)?;
    let head = magic.clone();
    let reader = BufReader::with_capacity(64 * 1024, std::io::Cursor::new(head).chain(reader));
    match &magic[..] {
        [0x1f, 0x8b, ..] => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Box::new(zstd::stream::read::Decoder::with_buffer(reader)?)),
        [b'B', b'Z', b'h', ..] => Err(Error::invalid(
            "archive is compressed with bzip2, which is not supported",
        )),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(Error::invalid(
            "archive is compressed with xz, which is not supported",
        )),
        _ => Ok(Box::new(reader)),
    }
}
