//! `docker load`: archives of `docker save` (any version) and OCI layouts, plain or compressed, read as a stream.
//! Every file is spooled once to the content store's own filesystem and digested on the way; what turns out to be
//! a blob of an image is renamed into place. A plain archive's uncompressed layers are kept as they are: pushes and
//! saves need bytes whose digest is known, and an unpacked directory does not give them back.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use tripod_agent::ports::{Progress, ProgressSink};
use tripod_model::image::{Descriptor, Image, Platform};
use tripod_model::reference::Reference;
use tripod_model::{Error, Result, Time};

use super::blobs::{self, Ingest, Lease};
use super::digest::{self, HashWrite, Hasher};
use super::index::Record;
use super::store::{Incoming, Store};
use super::tarread::{self, Kind, TarReader};
use super::{beneath, config, media, unpack};

/// Files of one archive: an image has two or three per layer.
const MAX_FILES: usize = 50_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// A file of the archive.
struct Spooled {
    ingest: Option<Ingest>,
    digest: String,
    size: u64,
}

#[derive(Default)]
struct Spool {
    files: HashMap<String, Spooled>,
    links: HashMap<String, String>,
}

/// Loads an archive; gives the images in its order.
pub(crate) fn load(
    store: &Store,
    archive: impl Read + Send,
    now: Time,
    progress: &ProgressSink,
) -> Result<Vec<Arc<Image>>> {
    store.adding(|lease| {
        let mut spool = read_archive(store, archive, lease)?;
        let found = if spool.has("manifest.json") {
            saved_images(store, &mut spool)?
        } else {
            Vec::new()
        };
        let found = if found.is_empty() {
            layout_images(store, &mut spool)?
        } else {
            found
        };
        if found.is_empty() {
            return Err(Error::invalid(
                "archive holds no image: neither manifest.json nor index.json was found",
            ));
        }
        let mut images = Vec::new();
        for one in found {
            images.push(one.install(store, &mut spool, lease, now, progress)?);
        }
        Ok(images)
    })
}

fn read_archive(store: &Store, archive: impl Read + Send, lease: &Lease) -> Result<Spool> {
    let mut tar = TarReader::new(blobs::decompress(archive)?);
    let mut spool = Spool::default();
    let mut left = unpack::free_space(&store.paths.root)?;
    let mut buf = vec![0; 128 * 1024];
    while let Some(entry) = tar.next()? {
        let Some(name) = entry_name(&entry.path) else {
            return Err(Error::invalid(format!(
                "archive has an entry that leads out of it: {:?}",
                entry.name()
            )));
        };
        if spool.files.len() + spool.links.len() >= MAX_FILES {
            return Err(Error::invalid("archive has too many files"));
        }
        match entry.kind {
            Kind::File => {
                left = left.checked_sub(entry.size).ok_or_else(|| {
                    Error::unavailable("no space left on device for what the archive unpacks to")
                })?;
                let file = spool_file(store, &name, &mut tar, &mut buf, lease)?;
                spool.files.insert(name, file);
            }
            // Old archives share a layer between images by a link.
            Kind::Symlink | Kind::Hardlink => {
                let base = if entry.kind == Kind::Symlink {
                    name.rsplit_once('/').map_or("", |(dir, _)| dir)
                } else {
                    ""
                };
                let target =
                    entry_name(format!("{base}/{}", String::from_utf8_lossy(&entry.link)).as_bytes());
                let target = target.ok_or_else(|| {
                    Error::invalid(format!(
                        "archive has a link that leads out of it: {:?}",
                        entry.name()
                    ))
                })?;
                spool.links.insert(name, target);
            }
            _ => {}
        }
    }
    std::io::copy(&mut tar.into_inner(), &mut std::io::sink()).map_err(tarread::bad)?;
    Ok(spool)
}

fn entry_name(path: &[u8]) -> Option<String> {
    let parts = beneath::parts(path)?;
    String::from_utf8(parts.join(&b'/')).ok()
}

fn spool_file<R: Read>(
    store: &Store,
    name: &str,
    tar: &mut TarReader<R>,
    buf: &mut [u8],
    lease: &Lease,
) -> Result<Spooled> {
    // A layout's blobs are named by their digest, whose algorithm they must be checked with.
    let expected = name
        .strip_prefix("blobs/")
        .map(|b| b.replacen('/', ":", 1))
        .filter(|d| digest::is_digest(d));
    let hasher = expected
        .as_deref()
        .map_or_else(|| Ok(Hasher::sha256()), Hasher::for_digest)?;
    let (ingest, file) = Ingest::new(&store.paths)?;
    let mut out = HashWrite::new(file, hasher);
    loop {
        let n = tar.read(buf).map_err(tarread::bad)?;
        if n == 0 {
            break;
        }
        out.write_all(&buf[..n]).map_err(disk)?;
    }
    let (_, digest, size) = out.finish();
    if let Some(expected) = expected
        && expected != digest
    {
        return Err(digest::mismatch(&expected, &digest));
    }
    lease.hold(&digest);
    Ok(Spooled {
        ingest: Some(ingest),
        digest,
        size,
    })
}

/// A failed write as an error that tells a full disk from a fault.
pub(crate) fn disk(e: std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::unavailable("no space left on device")
        }
        _ => Error::internal(e),
    }
}

impl Spool {
    fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    fn find(&self, name: &str) -> Result<String> {
        let mut at = entry_name(name.as_bytes()).unwrap_or_default();
        for _ in 0..8 {
            if self.files.contains_key(&at) {
                return Ok(at);
            }
            match self.links.get(&at) {
                Some(next) => at.clone_from(next),
                None => break,
            }
        }
        Err(Error::invalid(format!(
            "archive is incomplete: {name:?} is missing"
        )))
    }

    /// A small file of the archive, wherever it is by now.
    fn document(&self, store: &Store, name: &str) -> Result<Vec<u8>> {
        let file = &self.files[&self.find(name)?];
        match &file.ingest {
            Some(ingest) => blobs::read_bounded(ingest.path()),
            None => store.paths.read_small(&file.digest),
        }
    }

    /// Puts a file into the content store.
    fn commit(&mut self, store: &Store, name: &str) -> Result<(String, u64)> {
        let at = self.find(name)?;
        let file = self.files.get_mut(&at).expect("found");
        if let Some(ingest) = file.ingest.take()
            && !store.paths.blob(&file.digest).exists()
        {
            ingest.commit(&store.paths, &file.digest)?;
        }
        Ok((file.digest.clone(), file.size))
    }
}

/// An image found in an archive: names of its files.
struct Found {
    config: String,
    layers: Vec<(String, Option<Descriptor>)>,
    manifest: Option<(String, Descriptor)>,
    names: Vec<String>,
}

/// Images that `manifest.json` tells of.
fn saved_images(store: &Store, spool: &mut Spool) -> Result<Vec<Found>> {
    let list: Vec<SavedImage> = serde_json::from_slice(&spool.document(store, "manifest.json")?)
        .map_err(|e| Error::invalid(format!("invalid manifest.json: {e}")))?;
    // Where the archive is an OCI layout too, its manifests keep their digests.
    let mut manifests = if spool.has("index.json") {
        layout_images(store, spool).unwrap_or_default()
    } else {
        Vec::new()
    };
    let mut found = Vec::new();
    for image in list {
        let mut names = Vec::new();
        for tag in image.repo_tags.unwrap_or_default() {
            names.push(Reference::parse(&tag)?.to_string());
        }
        let config = spool.find(&image.config)?;
        match manifests
            .iter()
            .position(|m| spool.find(&m.config).is_ok_and(|c| c == config))
        {
            Some(at) => found.push(Found {
                names,
                ..manifests.swap_remove(at)
            }),
            None => {
                let layers = image
                    .layers
                    .unwrap_or_default()
                    .into_iter()
                    .map(|l| (l, None))
                    .collect();
                found.push(Found {
                    config,
                    layers,
                    manifest: None,
                    names,
                });
            }
        }
    }
    Ok(found)
}

/// Images of an OCI layout for this machine's platform, or of any when there is none for it.
fn layout_images(store: &Store, spool: &mut Spool) -> Result<Vec<Found>> {
    if !spool.has("index.json") {
        return Ok(Vec::new());
    }
    let index: media::Document = media::parse(&spool.document(store, "index.json")?)?;
    let mut found = Vec::new();
    for entry in index.manifests() {
        let names = name_of(&entry.annotations).into_iter().collect();
        if let Some(one) = manifest(store, spool, entry, 0)? {
            found.push(Found { names, ..one });
        }
    }
    // The same image under several names comes once for each.
    let mut merged: Vec<Found> = Vec::new();
    for one in found {
        match merged.iter_mut().find(|m| m.config == one.config) {
            Some(same) => same.names.extend(one.names),
            None => merged.push(one),
        }
    }
    Ok(merged)
}

fn name_of(annotations: &BTreeMap<String, String>) -> Option<String> {
    let full = annotations.get("io.containerd.image.name");
    // The OCI annotation often holds a tag alone, which names no repository.
    let name = full.or_else(|| {
        annotations
            .get("org.opencontainers.image.ref.name")
            .filter(|n| n.contains([':', '/']))
    });
    Reference::parse(name?).ok().map(|r| r.to_string())
}

/// Follows a descriptor to a manifest, through indices. `None` when the archive lacks it or it is for others.
fn manifest(store: &Store, spool: &mut Spool, at: &Descriptor, depth: u8) -> Result<Option<Found>> {
    if !digest::is_digest(&at.digest) {
        return Err(Error::invalid(format!("invalid digest: {:?}", at.digest)));
    }
    let name = format!("blobs/{}", at.digest.replacen(':', "/", 1));
    if depth > 3 || !spool.has(&name) {
        return Ok(None);
    }
    let bytes = spool.document(store, &name)?;
    let document = media::parse(&bytes)?;
    if document.is_index() {
        let wanted = config::host_platform();
        let fit = |d: &&Descriptor| {
            d.platform
                .as_ref()
                .map_or(Some(50), |p: &Platform| config::fitness(p, &wanted))
        };
        let mut choices: Vec<&Descriptor> =
            document.manifests().iter().filter(|d| fit(d).is_some()).collect();
        choices.sort_by_key(|d| fit(d));
        for choice in choices {
            if let Some(found) = manifest(store, spool, choice, depth + 1)? {
                return Ok(Some(found));
            }
        }
        return Ok(None);
    }
    let media_type = document.media_type(at);
    let (config, layers) = document.image()?;
    if config.media_type.contains("in-toto") || layers.iter().any(|l| l.media_type.contains("in-toto")) {
        return Ok(None);
    }
    let blob = |d: &Descriptor| format!("blobs/{}", d.digest.replacen(':', "/", 1));
    let descriptor = Descriptor {
        media_type,
        digest: at.digest.clone(),
        size: bytes.len() as i64,
        ..Descriptor::default()
    };
    Ok(Some(Found {
        config: blob(&config),
        layers: layers.into_iter().map(|l| (blob(&l), Some(l))).collect(),
        manifest: Some((name, descriptor)),
        names: Vec::new(),
    }))
}

impl Found {
    fn install(
        self,
        store: &Store,
        spool: &mut Spool,
        lease: &Lease,
        now: Time,
        progress: &ProgressSink,
    ) -> Result<Arc<Image>> {
        let document = spool.document(store, &self.config)?;
        let id = digest::sha256(&document);
        let image = config::parse(&id, &document)?;
        if image.diff_ids.len() != self.layers.len() {
            return Err(Error::invalid(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                image.diff_ids.len(),
                self.layers.len()
            )));
        }
        spool.commit(store, &self.config)?;
        let manifest = match self.manifest {
            Some((name, descriptor)) => {
                spool.commit(store, &name)?;
                Some(descriptor)
            }
            None => None,
        };
        let mut layers = Vec::new();
        for (diff_id, (name, told)) in image.diff_ids.iter().zip(self.layers) {
            lease.hold(diff_id);
            let (digest, size) = spool.commit(store, &name)?;
            let media_type = match told {
                Some(descriptor) => descriptor.media_type,
                None => media_type_of(&store.paths.blob(&digest))?,
            };
            layers.push((
                diff_id.clone(),
                Descriptor {
                    media_type,
                    digest,
                    size: size as i64,
                    ..Descriptor::default()
                },
            ));
        }
        let sizes = store.ensure_layers(&layers, &|i| {
            let size = u64::try_from(layers[i].1.size).unwrap_or(0);
            let _ = progress.send(Progress {
                id: digest::short(&layers[i].0),
                status: "Loading layer".into(),
                current: size,
                total: size,
                ..Progress::default()
            });
        })?;
        let record = Record {
            manifest,
            diff_ids: image.diff_ids,
            blobs: layers.into_iter().map(|(_, blob)| blob).collect(),
            ..Record::default()
        };
        announce_renamed(store, &self.names, &id, progress);
        let incoming = Incoming {
            id: id.clone(),
            record,
            names: self.names.clone(),
            repository: None,
        };
        let image = store.install(incoming, &sizes, now)?;
        for name in &self.names {
            let familiar = name.parse::<Reference>()?.familiar();
            say(progress, format!("Loaded image: {familiar}\n"));
            store.tell("load", &id, &familiar);
        }
        if self.names.is_empty() {
            say(progress, format!("Loaded image ID: {id}\n"));
            store.tell("load", &id, &id);
        }
        Ok(image)
    }
}

fn announce_renamed(store: &Store, names: &[String], id: &str, progress: &ProgressSink) {
    for name in names {
        let Some(old) = store.read(|i| i.names.get(name).cloned()).filter(|old| old != id) else {
            continue;
        };
        let familiar = name
            .parse::<Reference>()
            .map_or_else(|_| name.clone(), |r| r.familiar());
        say(
            progress,
            format!(
                "The image {familiar} already exists, renaming the old one with ID {old} to empty string\n"
            ),
        );
    }
}

fn say(progress: &ProgressSink, text: String) {
    let _ = progress.send(Progress {
        stream: Some(text),
        ..Progress::default()
    });
}

fn media_type_of(path: &Path) -> Result<String> {
    let mut magic = Vec::new();
    std::fs::File::open(path)?.take(4).read_to_end(&mut magic)?;
    Ok(match &magic[..] {
        [0x1f, 0x8b, ..] => media::LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media::LAYER_ZSTD,
        _ => media::LAYER,
    }
    .to_owned())
}
