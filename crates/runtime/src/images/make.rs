//! Images made here: `docker commit` and `docker import`.

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

use tripod_model::image::{Descriptor, HistoryEntry, Image, ImageConfig, Platform};
use tripod_model::reference::Reference;
use tripod_model::{Error, Result, Time};

use super::blobs::{self, Ingest, Lease};
use super::digest::{self, HashRead, HashWrite, Hasher};
use super::index::Record;
use super::load::disk;
use super::store::{Incoming, Store};
use super::tarwrite::TarWriter;
use super::{beneath, config, media};

/// What `commit` is told.
pub(crate) struct Commit {
    pub(crate) container: String,
    pub(crate) image_id: String,
    pub(crate) config: ImageConfig,
    pub(crate) author: String,
    pub(crate) message: String,
    pub(crate) name: Option<Reference>,
}

/// Makes an image of a container's changes on top of its image.
pub(crate) fn commit(store: &Store, c: Commit, now: Time) -> Result<Arc<Image>> {
    let snapshot = store.snapshots.get(&c.container)?;
    let base = store.get(&c.image_id)?;
    store.adding(|lease| {
        for layer in &base.diff_ids {
            lease.hold(layer);
        }
        let mut record = store
            .read(|i| i.images.get(&base.id).cloned())
            .ok_or_else(|| super::store::no_such_image(&c.image_id))?;
        for blob in &record.blobs {
            lease.hold(&blob.digest);
        }
        let layer = layer_of(store, &snapshot.upper(), lease)?;
        record.diff_ids.push(layer.digest.clone());
        record.blobs.push(layer);
        record.manifest = None;
        record.tagged = None;
        record.parent = Some(base.id.clone());
        let mut history = base.history.clone();
        history.push(HistoryEntry {
            created: Some(now),
            created_by: c.config.cmd.join(" "),
            comment: c.message.clone(),
            ..HistoryEntry::default()
        });
        let image = Image {
            created: Some(now),
            author: c.author,
            comment: c.message,
            config: c.config,
            history,
            diff_ids: record.diff_ids.clone(),
            ..(*base).clone()
        };
        let image = finish(store, &image, record, c.name.as_ref(), lease, now)?;
        store.tell(
            "commit",
            &image.id,
            &c.name
                .as_ref()
                .map_or_else(|| image.id.clone(), Reference::familiar),
        );
        Ok(image)
    })
}

/// Makes an image of one layer from a tar of a filesystem.
pub(crate) fn import(
    store: &Store,
    archive: impl Read + Send,
    name: Option<&Reference>,
    config: ImageConfig,
    message: String,
    platform: Option<Platform>,
    now: Time,
) -> Result<Arc<Image>> {
    store.adding(|lease| {
        let (ingest, file) = Ingest::new(&store.paths)?;
        let mut stream = HashRead::new(blobs::decompress(archive)?, Hasher::sha256());
        let mut out = std::io::BufWriter::with_capacity(128 * 1024, file);
        let limit = super::unpack::free_space(&store.paths.root)?;
        copy(&mut stream, &mut out, limit)?;
        std::io::Write::flush(&mut out).map_err(disk)?;
        let (digest, size) = stream.drain().map_err(super::tarread::bad)?;
        lease.hold(&digest);
        ingest.commit(&store.paths, &digest)?;
        let blob = Descriptor {
            media_type: media::LAYER.into(),
            digest,
            size: size as i64,
            ..Descriptor::default()
        };
        let platform = platform.unwrap_or_else(config::host_platform);
        let image = Image {
            created: Some(now),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            comment: message.clone(),
            config,
            diff_ids: vec![blob.digest.clone()],
            history: vec![HistoryEntry {
                created: Some(now),
                comment: message,
                ..HistoryEntry::default()
            }],
            ..Image::default()
        };
        let record = Record {
            diff_ids: image.diff_ids.clone(),
            blobs: vec![blob],
            ..Record::default()
        };
        let image = finish(store, &image, record, name, lease, now)?;
        store.tell(
            "import",
            &image.id,
            &name.map_or_else(|| image.id.clone(), Reference::familiar),
        );
        Ok(image)
    })
}

/// Copies with errors told apart: of the archive, of the disk.
fn copy(from: &mut impl Read, to: &mut impl std::io::Write, limit: u64) -> Result<()> {
    let mut buf = vec![0; 128 * 1024];
    let mut left = limit;
    loop {
        let n = from.read(&mut buf).map_err(super::tarread::bad)?;
        if n == 0 {
            return Ok(());
        }
        left = left
            .checked_sub(n as u64)
            .ok_or_else(|| Error::unavailable("no space left on device"))?;
        to.write_all(&buf[..n]).map_err(disk)?;
    }
}

fn layer_of(store: &Store, upper: &std::path::Path, lease: &Lease) -> Result<Descriptor> {
    let (ingest, file) = Ingest::new(&store.paths)?;
    let out = HashWrite::new(
        std::io::BufWriter::with_capacity(128 * 1024, file),
        Hasher::sha256(),
    );
    let dir = beneath::open_dir(upper)?;
    let mut tar = TarWriter::layer(out);
    tar.children(dir.as_fd(), b"", b"")?;
    let (mut file, digest, size) = tar.finish()?.finish();
    std::io::Write::flush(&mut file).map_err(disk)?;
    lease.hold(&digest);
    ingest.commit(&store.paths, &digest)?;
    Ok(Descriptor {
        media_type: media::LAYER.into(),
        digest,
        size: size as i64,
        ..Descriptor::default()
    })
}

fn finish(
    store: &Store,
    image: &Image,
    record: Record,
    name: Option<&Reference>,
    lease: &Lease,
    now: Time,
) -> Result<Arc<Image>> {
    let document = config::render(image)?;
    let id = digest::sha256(&document);
    lease.hold(&id);
    put_small(store, &id, &document)?;
    let layers: Vec<_> = record
        .diff_ids
        .iter()
        .cloned()
        .zip(record.blobs.iter().cloned())
        .collect();
    for (diff_id, _) in &layers {
        lease.hold(diff_id);
    }
    let sizes = store.ensure_layers(&layers, &|_| {})?;
    let names = name.map(|n| n.to_string()).into_iter().collect();
    store.install(
        Incoming {
            id,
            record,
            names,
            repository: None,
        },
        &sizes,
        now,
    )
}

/// Puts a document into the content store.
pub(crate) fn put_small(store: &Store, digest: &str, bytes: &[u8]) -> Result<()> {
    let (ingest, mut file) = Ingest::new(&store.paths)?;
    std::io::Write::write_all(&mut file, bytes).map_err(disk)?;
    ingest.commit(&store.paths, digest)
}
