//! `docker push`: layers that the registry lacks (mounted from other repositories where it can), configuration,
//! manifest. Images whose blobs came compressed go out with the manifest they came with; the plain layers of
//! loaded archives are compressed on the way.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use tripod_agent::ports::{Progress, ProgressSink};
use tripod_model::image::{Descriptor, RegistryAuth};
use tripod_model::reference::Reference;
use tripod_model::{Error, Result};

use super::pull::tell;
use super::{Http, Repository};
use crate::images::blobs::{Ingest, Lease};
use crate::images::digest::{self, HashWrite, Hasher, short};
use crate::images::index::{Record, has_digest};
use crate::images::load::disk;
use crate::images::media;
use crate::images::names::repository;
use crate::images::store::Store;

const AT_ONCE: usize = 3;

/// Pushes a name, or all tags of its repository.
pub(crate) async fn push(
    store: &Arc<Store>,
    http: &Http,
    name: &Reference,
    all_tags: bool,
    auth: Option<RegistryAuth>,
    progress: &ProgressSink,
) -> Result<()> {
    let own = format!("{}/{}", name.domain, name.path);
    let of_repository: Vec<(String, String)> = store.read(|i| {
        let all = i
            .names
            .iter()
            .filter(|(n, _)| !has_digest(n) && repository(n) == own);
        all.map(|(n, id)| (n.clone(), id.clone())).collect()
    });
    if of_repository.is_empty() {
        return Err(Error::not_found(format!(
            "An image does not exist locally with the tag: {}",
            name.familiar_name()
        )));
    }
    let chosen: Vec<_> = of_repository
        .into_iter()
        .filter(|(n, _)| all_tags || *n == name.to_string())
        .collect();
    if chosen.is_empty() {
        return Err(Error::not_found(format!(
            "tag does not exist: {}",
            name.familiar()
        )));
    }
    tell(
        progress,
        "",
        format!("The push refers to repository [{own}]"),
        0,
        0,
    );
    for (full, id) in chosen {
        one(store, http, &full.parse()?, &id, auth.clone(), progress).await?;
    }
    Ok(())
}

async fn one(
    store: &Arc<Store>,
    http: &Http,
    name: &Reference,
    id: &str,
    auth: Option<RegistryAuth>,
    progress: &ProgressSink,
) -> Result<()> {
    let record = store
        .read(|i| i.images.get(id).cloned())
        .ok_or_else(|| Error::not_found(format!("tag does not exist: {}", name.familiar())))?;
    let lease = Lease::new(&store.leases);
    lease.hold(id);
    record.blobs.iter().for_each(|b| lease.hold(&b.digest));
    if let Some(manifest) = &record.manifest {
        lease.hold(&manifest.digest);
    }
    let mut to = Repository::new(http, name, auth, "pull,push");
    let others = others_with(store, &record, name);
    to.also_pull(
        others
            .iter()
            .flatten()
            .map(|(path, _)| path.clone())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter(),
    );
    for diff_id in &record.diff_ids {
        tell(progress, &short(diff_id), "Preparing", 0, 0);
    }
    let work: Vec<_> = record
        .diff_ids
        .iter()
        .zip(&record.blobs)
        .zip(&others)
        .map(|((diff_id, blob), others)| layer(store, &to, name, diff_id, blob, others, progress))
        .collect();
    let layers: Vec<Descriptor> = futures::stream::iter(work)
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let config = store.paths.blob(id);
    let config_size = tokio::fs::metadata(&config).await.map_err(disk)?.len();
    if !to.has_blob(id).await? {
        to.upload(id, &config, config_size, &|_| {}).await?;
    }
    let (media_type, bytes) = manifest(store, id, config_size, &record, &layers)?;
    let tag = name.tag.clone().unwrap_or_else(|| "latest".into());
    to.put_manifest(&tag, &media_type, &bytes).await?;
    let digest = digest::sha256(&bytes);
    remember(store, name, id, &digest, &record, &layers).await?;
    tell(
        progress,
        "",
        format!("{tag}: digest: {digest} size: {}", bytes.len()),
        0,
        0,
    );
    let aux = json!({ "Tag": tag, "Digest": digest, "Size": bytes.len() });
    let _ = progress.send(Progress {
        aux: Some(aux),
        ..Progress::default()
    });
    store.tell("push", &name.familiar(), &name.familiar_name());
    Ok(())
}

/// For each layer the repositories of the same registry that have it, and as which blob.
fn others_with(store: &Store, record: &Record, name: &Reference) -> Vec<Vec<(String, Descriptor)>> {
    let prefix = format!("{}/", name.domain);
    store.read(|i| {
        let of_layer = |diff_id: &String| {
            let known = i.layers.get(diff_id).into_iter().flat_map(|l| &l.known);
            known
                .filter_map(|(r, d)| Some((r.strip_prefix(&prefix)?.to_owned(), d.clone())))
                .take(4)
                .collect()
        };
        record.diff_ids.iter().map(of_layer).collect()
    })
}

fn is_compressed(media_type: &str) -> bool {
    media_type.ends_with("gzip") || media_type.ends_with("zstd")
}

/// Sees to it that the registry has a layer; tells as which blob.
async fn layer(
    store: &Arc<Store>,
    to: &Repository,
    name: &Reference,
    diff_id: &str,
    blob: &Descriptor,
    others: &[(String, Descriptor)],
    progress: &ProgressSink,
) -> Result<Descriptor> {
    let id = short(diff_id);
    let mut candidates: Vec<(Option<&str>, &Descriptor)> = Vec::new();
    if is_compressed(&blob.media_type) {
        candidates.push((None, blob));
    }
    for (path, known) in others {
        // A manifest that goes out as it came wants the very blob it names.
        if !is_compressed(&blob.media_type) || known.digest == blob.digest {
            candidates.push((Some(path), known));
        }
    }
    for (path, known) in candidates {
        if to.has_blob(&known.digest).await? {
            tell(progress, &id, "Layer already exists", 0, 0);
            return Ok(known.clone());
        }
        if let Some(path) = path.filter(|p| *p != name.path)
            && to.mount(&known.digest, path).await?
        {
            tell(progress, &id, format!("Mounted from {path}"), 0, 0);
            return Ok(known.clone());
        }
    }
    let (source, descriptor) = if is_compressed(&blob.media_type) {
        (None, blob.clone())
    } else {
        let (ingest, descriptor) = compress(store, blob).await?;
        (Some(ingest), descriptor)
    };
    let path = source.as_ref().map_or_else(
        || store.paths.blob(&descriptor.digest),
        |i| i.path().to_path_buf(),
    );
    let total = u64::try_from(descriptor.size).unwrap_or(0);
    tell(progress, &id, "Pushing", 0, total);
    if !to.has_blob(&descriptor.digest).await? {
        to.upload(&descriptor.digest, &path, total, &|done| {
            tell(progress, &id, "Pushing", done, total);
        })
        .await?;
    }
    tell(progress, &id, "Pushed", 0, 0);
    Ok(descriptor)
}

async fn compress(store: &Arc<Store>, blob: &Descriptor) -> Result<(Ingest, Descriptor)> {
    let (store, from) = (Arc::clone(store), store.paths.blob(&blob.digest));
    let work = move || -> Result<(Ingest, Descriptor)> {
        let (ingest, file) = Ingest::new(&store.paths)?;
        let out = HashWrite::new(
            std::io::BufWriter::with_capacity(128 * 1024, file),
            Hasher::sha256(),
        );
        let mut gzip = flate2::write::GzEncoder::new(out, flate2::Compression::default());
        std::io::copy(&mut std::fs::File::open(from)?, &mut gzip).map_err(disk)?;
        let (mut file, digest, size) = gzip.finish().map_err(disk)?.finish();
        std::io::Write::flush(&mut file).map_err(disk)?;
        let media_type = media::DOCKER_LAYER_GZIP.into();
        Ok((
            ingest,
            Descriptor {
                media_type,
                digest,
                size: size as i64,
                ..Descriptor::default()
            },
        ))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("compress: {e}")))?
}

/// The manifest to send: its own when all its blobs are there as they came.
fn manifest(
    store: &Store,
    id: &str,
    config_size: u64,
    record: &Record,
    layers: &[Descriptor],
) -> Result<(String, Bytes)> {
    if let Some(own) = &record.manifest
        && record.blobs.iter().zip(layers).all(|(a, b)| a.digest == b.digest)
    {
        return Ok((
            own.media_type.clone(),
            store.paths.read_small(&own.digest)?.into(),
        ));
    }
    let config = Descriptor {
        media_type: media::DOCKER_CONFIG.into(),
        digest: id.to_owned(),
        size: config_size as i64,
        ..Descriptor::default()
    };
    let docker = |l: &Descriptor| {
        let media_type = match l.media_type.as_str() {
            media::LAYER_GZIP => media::DOCKER_LAYER_GZIP.to_owned(),
            other => other.to_owned(),
        };
        Descriptor {
            media_type,
            annotations: Default::default(),
            platform: None,
            ..l.clone()
        }
    };
    let document = media::Document {
        schema_version: 2,
        media_type: media::DOCKER_MANIFEST.into(),
        config: Some(config),
        layers: Some(layers.iter().map(docker).collect()),
        manifests: Vec::new(),
    };
    Ok((
        media::DOCKER_MANIFEST.into(),
        serde_json::to_vec(&document)?.into(),
    ))
}

/// The image now has a name with digest, and the registry its layers.
async fn remember(
    store: &Arc<Store>,
    name: &Reference,
    id: &str,
    digest: &str,
    record: &Record,
    layers: &[Descriptor],
) -> Result<()> {
    let (store, id, named) = (
        Arc::clone(store),
        id.to_owned(),
        name.with_digest(digest).to_string(),
    );
    let own = format!("{}/{}", name.domain, name.path);
    let known: Vec<(String, Descriptor)> = record
        .diff_ids
        .iter()
        .cloned()
        .zip(layers.iter().cloned())
        .collect();
    let work = move || {
        store.update(|i| {
            if i.images.contains_key(&id) {
                i.names.insert(named, id);
            }
            for (diff_id, blob) in known {
                if let Some(layer) = i.layers.get_mut(&diff_id) {
                    layer.known.insert(own.clone(), blob);
                }
            }
            Ok(())
        })
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("push: {e}")))?
}
