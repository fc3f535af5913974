//! Images from another node: what an image consists of is told, its content fetched by digest, checked, unpacked.

use std::io::SeekFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tripod_agent::ports::{BoxRead, Content, Progress, ProgressSink};
use tripod_model::image::{Descriptor, Image, ImageOffer};
use tripod_model::reference::Reference;
use tripod_model::{Error, Result, Time};

use super::blobs::{Ingest, Lease, MAX_DOCUMENT};
use super::digest::{self, Hasher, short};
use super::index::Record;
use super::registry::{Step, write_down};
use super::store::{Incoming, Store, full_name, no_such_image};
use super::{config, media};

/// Blobs fetched at a time.
const AT_ONCE: usize = 3;
/// Bytes asked of the stream at a time, and between two reports of progress.
const CHUNK: usize = 256 * 1024;
const REPORT: u64 = 512 * 1024;
/// A node that sends nothing for so long is given up for another one.
const STALL: Duration = Duration::from_secs(30);
/// Failures in a row after which a fetch fails, and the first wait between two attempts.
const ATTEMPTS: u32 = 5;
const BACK_OFF: Duration = Duration::from_millis(200);

/// What another node must know to take an image over.
pub(crate) fn offer(store: &Store, name: &str) -> Result<ImageOffer> {
    let id = store.get(name)?.id.clone();
    let record = store
        .read(|i| i.images.get(&id).cloned())
        .ok_or_else(|| no_such_image(name))?;
    Ok(ImageOffer {
        id,
        manifest: record.manifest,
        layers: record.blobs,
    })
}

/// Content of the store from a byte on. The open file stays readable when the image is removed meanwhile.
pub(crate) async fn content(store: &Store, digest: &str, from: u64) -> Result<(u64, BoxRead)> {
    if !digest::is_digest(digest) {
        return Err(Error::invalid(format!("invalid digest: {digest:?}")));
    }
    let mut file = match tokio::fs::File::open(store.paths.blob(digest)).await {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::not_found(format!("content {digest} is not on this node")));
        }
        Err(e) => return Err(e.into()),
    };
    let size = file.metadata().await?.len();
    if from > size {
        return Err(Error::invalid(format!(
            "content {digest} has {size} bytes, asked for those after {from}"
        )));
    }
    tokio::io::AsyncSeekExt::seek(&mut file, SeekFrom::Start(from)).await?;
    Ok((size, Box::new(file)))
}

/// Takes over an image under a name.
pub(crate) async fn take_over(
    store: &Arc<Store>,
    offer: &ImageOffer,
    name: &Reference,
    content: Arc<dyn Content>,
    progress: &ProgressSink,
) -> Result<Arc<Image>> {
    let lease = Lease::new(&store.leases);
    let taken = fetch_image(store, offer, name, &*content, &lease, progress).await;
    drop(lease);
    if taken.is_err() {
        // What was fetched for nothing goes.
        let store = Arc::clone(store);
        let swept = tokio::task::spawn_blocking(move || store.sweep()).await;
        if let Ok(Err(e)) = swept {
            tracing::warn!(error = %e, "cannot remove unfinished content");
        }
    }
    taken
}

async fn fetch_image(
    store: &Arc<Store>,
    offer: &ImageOffer,
    name: &Reference,
    content: &dyn Content,
    lease: &Lease,
    progress: &ProgressSink,
) -> Result<Arc<Image>> {
    let document = |digest: &str| Descriptor {
        digest: digest.to_owned(),
        size: -1,
        ..Descriptor::default()
    };
    lease.hold(&offer.id);
    ensure_blob(store, &document(&offer.id), content, progress).await?;
    let image = config::parse(&offer.id, &store.paths.read_small(&offer.id)?)?;
    if image.diff_ids.len() != offer.layers.len() {
        return Err(Error::invalid(format!(
            "image {} is offered with {} layers, but its configuration has {}",
            offer.id,
            offer.layers.len(),
            image.diff_ids.len()
        )));
    }
    if let Some(manifest) = &offer.manifest {
        lease.hold(&manifest.digest);
        ensure_blob(store, manifest, content, progress).await?;
        let told = media::parse(&store.paths.read_small(&manifest.digest)?)?;
        let (configuration, layers) = told.image()?;
        let same = layers
            .iter()
            .map(|l| &l.digest)
            .eq(offer.layers.iter().map(|l| &l.digest));
        if configuration.digest != offer.id || !same {
            return Err(Error::invalid(format!(
                "image {} does not agree with its manifest",
                offer.id
            )));
        }
    }
    let pairs: Vec<(String, Descriptor)> = image
        .diff_ids
        .iter()
        .cloned()
        .zip(offer.layers.iter().cloned())
        .collect();
    for (diff_id, blob) in &pairs {
        lease.hold(diff_id);
        lease.hold(&blob.digest);
    }
    let work: Vec<_> = pairs
        .iter()
        .map(|(diff_id, blob)| layer(store, diff_id, blob, content, progress))
        .collect();
    futures::stream::iter(work)
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    let incoming = Incoming {
        id: offer.id.clone(),
        record: Record {
            manifest: offer.manifest.clone(),
            blobs: offer.layers.clone(),
            diff_ids: image.diff_ids,
            ..Record::default()
        },
        names: names(name),
        repository: None,
    };
    let familiar = name.familiar();
    let shared = Arc::clone(store);
    let installed = tokio::task::spawn_blocking(move || {
        let sizes = shared.ensure_layers(&pairs, &|_| {})?;
        shared.install(incoming, &sizes, Time::now())
    });
    let image = installed
        .await
        .map_err(|e| Error::internal(format!("image: {e}")))??;
    store.tell("load", &image.id, &familiar);
    Ok(image)
}

/// The names under which an image is kept that was asked for by `name`: without tag or digest it is the latest.
fn names(name: &Reference) -> Vec<String> {
    match (&name.digest, &name.tag) {
        (None, None) => vec![
            Reference {
                tag: Some("latest".into()),
                ..name.clone()
            }
            .to_string(),
        ],
        _ => vec![full_name(name)],
    }
}

async fn layer(
    store: &Arc<Store>,
    diff_id: &str,
    blob: &Descriptor,
    content: &dyn Content,
    progress: &ProgressSink,
) -> Result<()> {
    ensure_blob(store, blob, content, progress).await?;
    let (store, diff_id, blob) = (Arc::clone(store), diff_id.to_owned(), blob.clone());
    let unpacked = tokio::task::spawn_blocking(move || store.ensure_layer(&diff_id, &blob));
    unpacked
        .await
        .map_err(|e| Error::internal(format!("unpack: {e}")))?
        .map(drop)
}

/// Fetches a blob unless it is here. Its size, where it is known (not negative), must be as told; one of unknown size
/// must be no longer than a document.
async fn ensure_blob(
    store: &Arc<Store>,
    blob: &Descriptor,
    content: &dyn Content,
    progress: &ProgressSink,
) -> Result<()> {
    if !digest::is_digest(&blob.digest) {
        return Err(Error::invalid(format!("invalid digest: {:?}", blob.digest)));
    }
    let gate = store.fetching.gate(&blob.digest);
    let _one = gate.lock().await;
    if store.paths.blob(&blob.digest).exists() {
        return Ok(());
    }
    let (ingest, file) = Ingest::new(&store.paths)?;
    let (steps, receive) = mpsc::channel(16);
    let hasher = Hasher::for_digest(&blob.digest)?;
    let writer = tokio::task::spawn_blocking(move || write_down(file, &hasher, receive));
    let fetched = fetch(blob, content, &steps, progress).await;
    drop(steps);
    let written = writer
        .await
        .map_err(|e| Error::internal(format!("download: {e}")))?;
    // A full disk is the reason why the download stopped, not the other way round.
    let got = written?;
    fetched?;
    if got != blob.digest {
        return Err(digest::mismatch(&blob.digest, &got));
    }
    ingest.commit(&store.paths, &blob.digest)
}

/// Sends all bytes of a blob to the writer, going on where an attempt broke off.
async fn fetch(
    blob: &Descriptor,
    content: &dyn Content,
    steps: &mpsc::Sender<Step>,
    progress: &ProgressSink,
) -> Result<()> {
    let have = AtomicU64::new(0);
    let mut failures = 0;
    loop {
        let before = have.load(Ordering::Relaxed);
        let e = match fetch_on(blob, content, &have, steps, progress).await {
            Ok(()) => return Ok(()),
            Err(e) => e,
        };
        if have.load(Ordering::Relaxed) > before {
            failures = 0;
        }
        failures += 1;
        let lasting = matches!(
            e.kind,
            tripod_model::ErrorKind::Invalid
                | tripod_model::ErrorKind::Forbidden
                | tripod_model::ErrorKind::Internal
        );
        if lasting || failures >= ATTEMPTS {
            return Err(e);
        }
        tracing::debug!(error = %e, digest = blob.digest, "another node: trying again");
        tokio::time::sleep(BACK_OFF * (1 << failures.min(6))).await;
    }
}

/// One attempt, for what is missing.
async fn fetch_on(
    blob: &Descriptor,
    content: &dyn Content,
    have: &AtomicU64,
    steps: &mpsc::Sender<Step>,
    progress: &ProgressSink,
) -> Result<()> {
    let stalled = |_| Error::timeout(format!("content {}: nothing arrives", blob.digest));
    let from = have.load(Ordering::Relaxed);
    let (size, mut data) = timeout(STALL, content.open(&blob.digest, from))
        .await
        .map_err(stalled)??;
    let limit = u64::try_from(blob.size).unwrap_or(MAX_DOCUMENT);
    if size > limit || (blob.size >= 0 && size != limit) {
        return Err(Error::invalid(format!(
            "content {} has {size} bytes instead of {limit}",
            blob.digest
        )));
    }
    let mut told = from;
    let mut at = from;
    while at < size {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = timeout(STALL, data.read_buf(&mut chunk)).await.map_err(stalled)?;
        let read = read.map_err(|e| Error::unavailable(format!("content {}: {e}", blob.digest)))?;
        if read == 0 {
            return Err(Error::unavailable(format!(
                "content {}: ends after {at} of {size} bytes",
                blob.digest
            )));
        }
        at += read as u64;
        if at > size {
            return Err(Error::invalid(format!(
                "content {} is longer than {size} bytes",
                blob.digest
            )));
        }
        let gone = |_| Error::internal("the download's writer stopped");
        steps.send(Step::Data(chunk.freeze())).await.map_err(gone)?;
        have.store(at, Ordering::Relaxed);
        if at >= told + REPORT || at == size {
            told = at;
            let _ = progress.send(Progress {
                id: short(&blob.digest),
                status: "Downloading".into(),
                current: at,
                total: size,
                ..Progress::default()
            });
        }
    }
    Ok(())
}
