//! `docker pull`: index → manifest of this platform → configuration and layers, downloaded some at a time and
//! unpacked while others still arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use tripod_agent::ports::{Progress, ProgressSink};
use tripod_model::image::{Descriptor, Image, Platform, RegistryAuth};
use tripod_model::reference::Reference;
use tripod_model::{Error, Result, Time};

use super::{Fetched, Http, Repository, reference_of};
use crate::images::blobs::Lease;
use crate::images::digest::short;
use crate::images::index::Record;
use crate::images::make::put_small;
use crate::images::store::{Incoming, Store, full_name};
use crate::images::{config, media};

/// Layers downloaded at a time, as dockerd.
const AT_ONCE: usize = 3;
/// Bytes between two reports of progress.
const REPORT: u64 = 512 * 1024;

/// Tells a step.
pub(super) fn tell(progress: &ProgressSink, id: &str, status: impl Into<String>, current: u64, total: u64) {
    let _ = progress.send(Progress {
        id: id.into(),
        status: status.into(),
        current,
        total,
        ..Progress::default()
    });
}

/// Pulls a name, or all tags of its repository; gives the (last) image.
pub(crate) async fn pull(
    store: &Arc<Store>,
    http: &Http,
    name: &Reference,
    all_tags: bool,
    platform: Option<Platform>,
    auth: Option<RegistryAuth>,
    progress: &ProgressSink,
) -> Result<Arc<Image>> {
    let repository = Repository::new(http, name, auth, "pull");
    let platform = platform.unwrap_or_else(config::host_platform);
    if !all_tags {
        return one(store, &repository, name, &platform, progress).await;
    }
    let mut last = None;
    for tag in repository.tags().await? {
        let name = Reference {
            tag: Some(tag),
            digest: None,
            ..name.clone()
        };
        last = Some(one(store, &repository, &name, &platform, progress).await?);
    }
    last.ok_or_else(|| Error::not_found(format!("repository {} has no tags", name.familiar_name())))
}

async fn one(
    store: &Arc<Store>,
    repository: &Repository,
    name: &Reference,
    platform: &Platform,
    progress: &ProgressSink,
) -> Result<Arc<Image>> {
    tell(
        progress,
        reference_of(name),
        format!("Pulling from {}", name.path),
        0,
        0,
    );
    let before = store.read(|i| i.names.get(&full_name(name)).cloned());
    let lease = Lease::new(&store.leases);
    let pulled = fetch(store, repository, name, platform, &lease, progress).await;
    drop(lease);
    let (image, digest) = match pulled {
        Ok(done) => done,
        Err(e) => {
            // What was fetched for nothing goes.
            let store = Arc::clone(store);
            let swept = tokio::task::spawn_blocking(move || store.sweep()).await;
            if let Ok(Err(e)) = swept {
                tracing::warn!(error = %e, "cannot remove unfinished content");
            }
            return Err(e);
        }
    };
    tell(progress, "", format!("Digest: {digest}"), 0, 0);
    let familiar = name.familiar();
    let is_new = before.as_deref() != Some(image.id.as_str());
    let news = if is_new {
        "Downloaded newer image for"
    } else {
        "Image is up to date for"
    };
    tell(progress, "", format!("Status: {news} {familiar}"), 0, 0);
    store.tell("pull", &familiar, &name.familiar_name());
    Ok(image)
}

async fn fetch(
    store: &Arc<Store>,
    repository: &Repository,
    name: &Reference,
    platform: &Platform,
    lease: &Lease,
    progress: &ProgressSink,
) -> Result<(Arc<Image>, String)> {
    let top = repository.manifest(reference_of(name)).await?;
    let digest = top.descriptor.digest.clone();
    let (fetched, document) = choose(repository, top, platform).await?;
    let mut manifest = fetched.descriptor;
    manifest.media_type = document.media_type(&manifest);
    let (config, layers) = document.image()?;
    lease.hold(&config.digest);
    lease.hold(&manifest.digest);
    let config_bytes = repository.small_blob(&config).await?;
    let image = config::parse(&config.digest, &config_bytes)?;
    if image.diff_ids.len() != layers.len() {
        return Err(Error::invalid(format!(
            "invalid manifest: {} layers, but the configuration has {}",
            layers.len(),
            image.diff_ids.len()
        )));
    }
    let pairs: Vec<(String, Descriptor)> = image
        .diff_ids
        .iter()
        .cloned()
        .zip(layers.iter().cloned())
        .collect();
    for (diff_id, blob) in &pairs {
        lease.hold(diff_id);
        lease.hold(&blob.digest);
    }
    let mut wanted: Vec<&(String, Descriptor)> = Vec::new();
    for pair in &pairs {
        if !wanted.iter().any(|w| w.1.digest == pair.1.digest) {
            tell(progress, &short(&pair.1.digest), "Pulling fs layer", 0, 0);
            wanted.push(pair);
        }
    }
    let work: Vec<_> = wanted
        .into_iter()
        .map(|(diff_id, blob)| layer(store, repository, diff_id, blob, progress))
        .collect();
    futures::stream::iter(work)
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    let record = Record {
        manifest: Some(manifest.clone()),
        blobs: layers,
        diff_ids: image.diff_ids,
        ..Record::default()
    };
    let mut names = vec![name.with_digest(&digest).to_string()];
    if name.digest.is_none() {
        names.push(name.to_string());
    }
    let incoming = Incoming {
        id: config.digest.clone(),
        record,
        names,
        repository: Some(format!("{}/{}", name.domain, name.path)),
    };
    let store = Arc::clone(store);
    let installed = tokio::task::spawn_blocking(move || {
        put_small(&store, &config.digest, &config_bytes)?;
        put_small(&store, &manifest.digest, &fetched.bytes)?;
        let sizes = store.ensure_layers(&pairs, &|_| {})?;
        store.install(incoming, &sizes, Time::now())
    });
    let image = installed
        .await
        .map_err(|e| Error::internal(format!("pull: {e}")))??;
    Ok((image, digest))
}

/// Follows indices to the manifest that fits the platform best.
async fn choose(
    repository: &Repository,
    top: Fetched,
    platform: &Platform,
) -> Result<(Fetched, media::Document)> {
    let mut fetched = top;
    for _ in 0..3 {
        let document = media::parse(&fetched.bytes)?;
        if !document.is_index() {
            return Ok((fetched, document));
        }
        let fit = |d: &Descriptor| match &d.platform {
            Some(p) => config::fitness(p, platform),
            None => Some(u8::MAX),
        };
        let best = document
            .manifests()
            .iter()
            .filter_map(|d| Some((fit(d)?, d)))
            .min_by_key(|(fit, _)| *fit);
        let Some((_, best)) = best else {
            let variant = if platform.variant.is_empty() {
                String::new()
            } else {
                format!("/{}", platform.variant)
            };
            return Err(Error::not_found(format!(
                "no matching manifest for {}/{}{variant} in the manifest list entries",
                platform.os, platform.architecture
            )));
        };
        if !crate::images::digest::is_digest(&best.digest) {
            return Err(Error::invalid(format!(
                "invalid manifest: bad descriptor {:?}",
                best.digest
            )));
        }
        fetched = repository.manifest(&best.digest).await?;
    }
    Err(Error::invalid("image index leads to an index again and again"))
}

async fn layer(
    store: &Arc<Store>,
    repository: &Repository,
    diff_id: &str,
    blob: &Descriptor,
    progress: &ProgressSink,
) -> Result<()> {
    let id = short(&blob.digest);
    let total = u64::try_from(blob.size).unwrap_or(0);
    let gate = store.fetching.gate(&blob.digest);
    let one = gate.lock().await;
    if store.paths.blob(&blob.digest).exists() {
        tell(progress, &id, "Already exists", 0, 0);
    } else {
        let told = AtomicU64::new(0);
        let report = |have: u64| {
            if have >= told.load(Ordering::Relaxed) + REPORT || have == total {
                told.store(have, Ordering::Relaxed);
                tell(progress, &id, "Downloading", have, total);
            }
        };
        let ingest = repository.download(&store.paths, blob, &report).await?;
        tell(progress, &id, "Verifying Checksum", 0, 0);
        tell(progress, &id, "Download complete", 0, 0);
        ingest.commit(&store.paths, &blob.digest)?;
        tell(progress, &id, "Extracting", total, total);
    }
    drop(one);
    let (store, diff_id, blob) = (Arc::clone(store), diff_id.to_owned(), blob.clone());
    let unpacked = tokio::task::spawn_blocking(move || store.ensure_layer(&diff_id, &blob));
    unpacked
        .await
        .map_err(|e| Error::internal(format!("unpack: {e}")))??;
    tell(progress, &id, "Pull complete", 0, 0);
    Ok(())
}
