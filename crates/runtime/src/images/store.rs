//! The heart of the image store: index and cached images, changes to them, layers, collection of what nothing
//! refers to any more.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::broadcast;
use tripod_agent::ports::ImageUsage;
use tripod_model::image::{Descriptor, Image};
use tripod_model::reference::Reference;
use tripod_model::{Error, Result, Time};

use super::blobs::{self, Gates, Lease, Leases, Paths, TempTree};
use super::digest::{self, HashRead, Hasher};
use super::index::{self, Index, Layer, Record};
use super::snapshot::Snapshots;
use super::{beneath, config, unpack};

/// Action, image, attributes.
pub(crate) type Event = (String, String, Vec<(String, String)>);

/// State shared by all operations.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) paths: Paths,
    state: RwLock<State>,
    /// Held while the index is changed; readers go on with the old one meanwhile.
    writer: Mutex<()>,
    pub(crate) leases: Arc<Leases>,
    /// One unpacks a layer, others who need it wait.
    unpacking: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// One downloads a blob, others who need it wait.
    pub(crate) fetching: Gates,
    pub(crate) snapshots: Snapshots,
    pub(crate) events: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    images: BTreeMap<String, Arc<Image>>,
}

/// An image whose blobs are in the store, about to be made known.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub(crate) id: String,
    pub(crate) record: Record,
    /// Full names.
    pub(crate) names: Vec<String>,
    /// Repository that the layers are known to be in.
    pub(crate) repository: Option<String>,
}

impl Store {
    /// Opens the store below `root`, and removes what a crash left.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let paths = Paths::create(root)?;
        for entry in std::fs::read_dir(&paths.tmp)? {
            beneath::remove_path(&entry?.path())?;
        }
        std::fs::create_dir_all(paths.root.join("empty"))?;
        let index = Index::read(&paths.root)?;
        let snapshots = Snapshots::open(&paths, |image| {
            let layers = index
                .images
                .get(image)
                .map(|r| &r.diff_ids)
                .or_else(|| index.orphans.get(image))?;
            Some(lower_dirs(&paths, layers))
        })?;
        let images = build_all(&paths, &index);
        let store = Self {
            paths,
            state: RwLock::new(State { index, images }),
            writer: Mutex::default(),
            leases: Arc::default(),
            unpacking: Mutex::default(),
            fetching: Gates::default(),
            snapshots,
            events: broadcast::channel(256).0,
        };
        store.sweep()?;
        Ok(store)
    }

    /// All images, newest first.
    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        let mut all: Vec<_> = self
            .state
            .read()
            .expect("images")
            .images
            .values()
            .cloned()
            .collect();
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        all
    }

    /// Reads from the index.
    pub(crate) fn read<T>(&self, f: impl FnOnce(&Index) -> T) -> T {
        f(&self.state.read().expect("images").index)
    }

    /// An image by its whole identifier.
    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<Image>> {
        self.state.read().expect("images").images.get(id).cloned()
    }

    /// The image that a name or identifier leads to.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Image>> {
        let state = self.state.read().expect("images");
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex =
            !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex && hex.len() == 64 {
            let id = format!("sha256:{hex}");
            let found = state.images.get(&id).or_else(|| {
                let by_manifest = |r: &Record| r.manifest.as_ref().is_some_and(|m| m.digest == id);
                let (id, _) = state.index.images.iter().find(|(_, r)| by_manifest(r))?;
                state.images.get(id)
            });
            return found.cloned().ok_or_else(|| no_such_image(name));
        }
        let parsed = match Reference::parse(name) {
            Ok(parsed) => parsed,
            // `sha256:abc` and the like are no names, but may be short identifiers.
            Err(e) if !is_hex => return Err(e),
            Err(_) => return unique_prefix(&state, hex).ok_or_else(|| no_such_image(name)),
        };
        if let Some(id) = state.index.names.get(&full_name(&parsed)) {
            return state.images.get(id).cloned().ok_or_else(|| no_such_image(name));
        }
        let by_prefix = if is_hex { unique_prefix(&state, hex) } else { None };
        by_prefix.ok_or_else(|| no_such_image(&parsed.familiar()))
    }

    /// Changes the index: on disk first, then for readers.
    pub(crate) fn update<T>(&self, f: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        let _writer = self.writer.lock().expect("writer");
        let old = self.read(Index::clone);
        let mut index = old.clone();
        let out = f(&mut index)?;
        if index == old {
            return Ok(out);
        }
        let live: Vec<String> = index.live_layers().into_iter().map(str::to_owned).collect();
        index.layers.retain(|id, _| live.binary_search(id).is_ok());
        let images = build_all(&self.paths, &index);
        index.write(&self.paths.root)?;
        *self.state.write().expect("images") = State { index, images };
        Ok(out)
    }

    /// Makes an image known whose layers are unpacked (`sizes`, in order).
    pub(crate) fn install(&self, incoming: Incoming, sizes: &[u64], now: Time) -> Result<Arc<Image>> {
        // One sync of the filesystem instead of one per file: all that the index is about to name is on disk.
        let root = beneath::open_dir(&self.paths.root)?;
        rustix::fs::syncfs(&root).map_err(std::io::Error::from)?;
        let Incoming {
            id,
            mut record,
            names,
            repository,
        } = incoming;
        self.update(|index| {
            for ((diff_id, blob), size) in record.diff_ids.iter().zip(&record.blobs).zip(sizes) {
                let layer = index.layers.entry(diff_id.clone()).or_insert_with(Layer::default);
                layer.size = *size;
                if let Some(repository) = &repository {
                    layer.known.insert(repository.clone(), blob.clone());
                }
            }
            if let Some(old) = index.images.remove(&id) {
                // Blobs of the same image from elsewhere serve as well: keep what is there, learn its manifest.
                record.tagged = old.tagged;
                record.parent = record.parent.or(old.parent);
                if record.manifest.is_none() {
                    record.manifest = old.manifest;
                    record.blobs = old.blobs;
                }
            }
            if !names.is_empty() {
                record.tagged = Some(now);
            }
            index.orphans.remove(&id);
            for name in names {
                index.names.insert(name, id.clone());
            }
            index.images.insert(id.clone(), record);
            Ok(())
        })?;
        self.by_id(&id).ok_or_else(|| Error::internal("image vanished"))
    }

    /// Unpacks a layer from its blob, once, and returns the bytes of its files.
    pub(crate) fn ensure_layer(&self, diff_id: &str, blob: &Descriptor) -> Result<u64> {
        let gate = Arc::clone(
            self.unpacking
                .lock()
                .expect("unpacking")
                .entry(diff_id.to_owned())
                .or_default(),
        );
        let done = {
            let _one = gate.lock().expect("unpacking");
            self.unpack_layer(diff_id, blob)
        };
        drop(gate);
        self.unpacking
            .lock()
            .expect("unpacking")
            .retain(|_, gate| Arc::strong_count(gate) > 1);
        done
    }

    fn unpack_layer(&self, diff_id: &str, blob: &Descriptor) -> Result<u64> {
        let dir = self.paths.layer(diff_id);
        if dir.exists() {
            if let Some(size) = self.read(|i| i.layers.get(diff_id).map(|l| l.size)) {
                return Ok(size);
            }
            // Unpacked for an image that is not known yet; its size was not written down.
            return super::size::tree_size(&dir);
        }
        let file = File::open(self.paths.blob(&blob.digest))
            .map_err(|e| Error::internal(format!("blob {}: {e}", blob.digest)))?;
        let tree = TempTree::new(&self.paths)?;
        std::fs::set_permissions(tree.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let mut stream = HashRead::new(blobs::decompress(file)?, Hasher::for_digest(diff_id)?);
        let limit = unpack::free_space(&self.paths.root)?;
        let size = unpack::unpack(tree.path(), &mut stream, unpack::Purpose::Layer, limit)
            .map_err(|e| e.context(format!("failed to register layer {}", digest::short(diff_id))))?;
        let (got, _) = stream.drain().map_err(super::tarread::bad)?;
        if got != diff_id {
            return Err(digest::mismatch(diff_id, &got));
        }
        tree.keep(&dir)?;
        Ok(size)
    }

    /// Unpacks several layers, some at a time; `told` hears of each that is done.
    pub(crate) fn ensure_layers(
        &self,
        layers: &[(String, Descriptor)],
        told: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<u64>> {
        let threads = std::thread::available_parallelism()
            .map_or(2, usize::from)
            .min(4)
            .min(layers.len());
        let next = std::sync::atomic::AtomicUsize::new(0);
        let sizes = Mutex::new(vec![0; layers.len()]);
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while failed.lock().expect("failed").is_none() {
                        let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let Some((diff_id, blob)) = layers.get(i) else {
                            break;
                        };
                        match self.ensure_layer(diff_id, blob) {
                            Ok(size) => sizes.lock().expect("sizes")[i] = size,
                            Err(e) => *failed.lock().expect("failed") = Some(e),
                        }
                        told(i);
                    }
                });
            }
        });
        match failed.into_inner().expect("failed") {
            Some(e) => Err(e),
            None => Ok(sizes.into_inner().expect("sizes")),
        }
    }

    /// Removes blobs and layers that neither an image nor a container nor work in progress needs.
    pub(crate) fn sweep(&self) -> Result<()> {
        let unused: Vec<String> = self.read(|i| {
            i.orphans
                .keys()
                .filter(|id| !self.snapshots.uses(id))
                .cloned()
                .collect()
        });
        if !unused.is_empty() {
            self.update(|i| {
                i.orphans.retain(|id, _| !unused.contains(id));
                Ok(())
            })?;
        }
        let _writer = self.writer.lock().expect("writer");
        let index = self.read(Index::clone);
        let (live_blobs, live_layers) = (index.live_blobs(), index.live_layers());
        self.leases.with(|held| {
            for algorithm in ["sha256", "sha512"] {
                for entry in std::fs::read_dir(self.paths.blobs.join(algorithm))? {
                    let entry = entry?;
                    let digest = format!("{algorithm}:{}", entry.file_name().to_string_lossy());
                    if !live_blobs.contains(digest.as_str()) && !held(&digest) {
                        std::fs::remove_file(entry.path())?;
                    }
                }
            }
            for entry in std::fs::read_dir(&self.paths.layers)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let diff_id = if name.contains(':') {
                    name
                } else {
                    format!("sha256:{name}")
                };
                if !live_layers.contains(diff_id.as_str()) && !held(&diff_id) {
                    self.snapshots.bury(&entry.path())?;
                }
            }
            Ok(())
        })
    }

    /// Runs work that adds content; whatever it added is removed again when it fails.
    pub(crate) fn adding<T>(&self, work: impl FnOnce(&Lease) -> Result<T>) -> Result<T> {
        let lease = Lease::new(&self.leases);
        let out = work(&lease);
        drop(lease);
        if out.is_err()
            && let Err(e) = self.sweep()
        {
            tracing::warn!(error = %e, "cannot remove unfinished content");
        }
        out
    }

    /// Makes the writable layer of a container.
    pub(crate) fn prepare(&self, container: &str, image: &str) -> Result<()> {
        let lower = self.lower(image)?;
        self.snapshots.prepare(container, image, lower)?;
        // Removing an image looks at the writable layers after it took the image out of the index: so either it
        // sees this one, or this one sees that the image is gone.
        if self.by_id(image).is_none() {
            self.snapshots.discard(container)?;
            return Err(no_such_image(image));
        }
        Ok(())
    }

    /// Removes the writable layer of a container, and the layers below it if their image went before.
    pub(crate) fn discard(&self, container: &str) -> Result<()> {
        let Ok(snapshot) = self.snapshots.get(container) else {
            return Ok(());
        };
        self.snapshots.discard(container)?;
        if self.read(|i| i.orphans.contains_key(&snapshot.image)) {
            self.sweep()?;
        }
        Ok(())
    }

    /// Bytes on disk.
    pub(crate) fn usage(&self) -> ImageUsage {
        self.read(|index| {
            let mut users: HashMap<&str, u32> = HashMap::new();
            for record in index.images.values() {
                let mut own: Vec<&str> = record.diff_ids.iter().map(String::as_str).collect();
                own.sort_unstable();
                own.dedup();
                own.into_iter().for_each(|d| *users.entry(d).or_default() += 1);
            }
            let size = |d: &String| index.layers.get(d).map_or(0, |l| l.size);
            let shared = |r: &Record| {
                r.diff_ids
                    .iter()
                    .filter(|d| users[d.as_str()] > 1)
                    .map(size)
                    .sum()
            };
            ImageUsage {
                layers_size: index.layers.values().map(|l| l.size).sum(),
                shared: index
                    .images
                    .iter()
                    .map(|(id, r)| (id.clone(), shared(r)))
                    .collect(),
            }
        })
    }

    /// The directories of an image's layers, lowest first.
    pub(crate) fn lower(&self, image: &str) -> Result<Vec<PathBuf>> {
        self.read(|i| i.images.get(image).map(|r| lower_dirs(&self.paths, &r.diff_ids)))
            .ok_or_else(|| no_such_image(image))
    }

    /// Bytes of the layers of an image that may be gone.
    pub(crate) fn layers_size(&self, image: &str) -> u64 {
        self.read(|i| {
            let layers = i
                .images
                .get(image)
                .map(|r| &r.diff_ids)
                .or_else(|| i.orphans.get(image));
            layers
                .into_iter()
                .flatten()
                .filter_map(|d| i.layers.get(d))
                .map(|l| l.size)
                .sum()
        })
    }

    /// Tells listeners; nobody listening is no error.
    pub(crate) fn tell(&self, action: &str, image: &str, name: &str) {
        let attributes = vec![("name".to_owned(), name.to_owned())];
        let _ = self
            .events
            .send((action.to_owned(), image.to_owned(), attributes));
    }
}

fn lower_dirs(paths: &Paths, diff_ids: &[String]) -> Vec<PathBuf> {
    if diff_ids.is_empty() {
        // overlayfs wants a layer below, also for an image made from scratch.
        return vec![paths.root.join("empty")];
    }
    let mut dirs: Vec<PathBuf> = Vec::with_capacity(diff_ids.len());
    for (i, diff_id) in diff_ids.iter().enumerate() {
        // overlayfs refuses the same directory twice; what counts is its highest place.
        if !diff_ids[i + 1..].contains(diff_id) {
            dirs.push(paths.layer(diff_id));
        }
    }
    dirs
}

/// All images. One whose configuration a broken disk has lost is left out, and the others still serve.
fn build_all(paths: &Paths, index: &Index) -> BTreeMap<String, Arc<Image>> {
    let mut images = BTreeMap::new();
    for id in index.images.keys() {
        match build(paths, index, id) {
            Ok(image) => drop(images.insert(id.clone(), Arc::new(image))),
            Err(e) => tracing::warn!(image = id, error = %e, "an image cannot be read"),
        }
    }
    images
}

/// Reads an image's configuration and adds what the index knows.
fn build(paths: &Paths, index: &Index, id: &str) -> Result<Image> {
    let mut image = config::parse(id, &paths.read_small(id)?)?;
    let record = &index.images[id];
    for name in index.names_of(id) {
        let familiar = name
            .parse::<Reference>()
            .map_or_else(|_| name.to_owned(), |r| r.familiar());
        if index::has_digest(name) {
            image.digests.push(familiar);
        } else {
            image.tags.push(familiar);
        }
    }
    image.manifest.clone_from(&record.manifest);
    image.last_tagged = record.tagged;
    let sizes: Vec<u64> = record
        .diff_ids
        .iter()
        .map(|d| index.layers.get(d).map_or(0, |l| l.size))
        .collect();
    image.size = sizes.iter().sum();
    let layers = image.history.iter_mut().filter(|h| !h.empty_layer);
    for (entry, size) in layers.zip(sizes) {
        entry.size = size;
    }
    Ok(image)
}

fn unique_prefix(state: &State, hex: &str) -> Option<Arc<Image>> {
    let prefix = format!("sha256:{hex}");
    let mut found = state
        .images
        .range(prefix.clone()..)
        .take_while(|(id, _)| id.starts_with(&prefix));
    let (_, image) = found.next()?;
    found.next().is_none().then(|| Arc::clone(image))
}

/// The name under which the index has a reference: the digest counts more than the tag.
pub(crate) fn full_name(name: &Reference) -> String {
    match &name.digest {
        Some(digest) => name.with_digest(digest).to_string(),
        None => name.to_string(),
    }
}

/// Docker's words for an image that is not there.
pub(crate) fn no_such_image(name: &str) -> Error {
    Error::not_found(format!("No such image: {name}"))
}
