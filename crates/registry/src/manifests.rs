//! Manifests and indices: those that were pushed as they came, those of images that came otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde_json::{Value, json};
use tripod_agent::ports::{BoxRead, Content};
use tripod_edge::Request;
use tripod_model::image::{Descriptor, ImageOffer};
use tripod_model::reference::Reference;
use tripod_model::{Error, ErrorKind};

use crate::fault::Fault;
use crate::route::is_digest;
use crate::shelf::Kept;
use crate::uploads::digest_like;
use crate::{Answer, Inner, bare, blobs, put as set, reply};

/// Longest document in bytes.
pub(crate) const MAX: u64 = 4 << 20;

/// How long a push may take between a blob and the manifest that needs it.
const UNDER_WAY: std::time::Duration = std::time::Duration::from_secs(3600);

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// A manifest or index as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    schema_version: i64,
    media_type: String,
    artifact_type: String,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
    annotations: BTreeMap<String, String>,
}

impl Document {
    fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_INDEX)
    }

    /// What an image of it consists of; `None` when it is no container image.
    fn image(&self, digest: &str, size: u64) -> Option<ImageOffer> {
        let config = self.config.as_ref()?;
        let is_image = matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG)
            && self.artifact_type.is_empty()
            && self.layers.iter().all(|l| is_layer(&l.media_type));
        is_image.then(|| ImageOffer {
            id: config.digest.clone(),
            manifest: Some(Descriptor {
                media_type: self.media_type.clone(),
                digest: digest.to_owned(),
                size: i64::try_from(size).unwrap_or(-1),
                ..Descriptor::default()
            }),
            layers: self.layers.clone(),
        })
    }

    fn needs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers).chain(&self.manifests)
    }
}

/// Whether a media type is that of a layer which can be unpacked.
fn is_layer(kind: &str) -> bool {
    kind.starts_with(OCI_LAYER) || kind.starts_with("application/vnd.docker.image.rootfs.diff.tar")
}

/// A document that a name leads to.
pub(crate) struct Found {
    media_type: String,
    digest: String,
    bytes: Vec<u8>,
}

/// Answers with a document.
pub(crate) async fn get(inner: &Inner, name: &str, reference: &str) -> Answer {
    let unknown = || Fault::manifest_unknown(name, reference);
    let found = resolve(inner, name, reference).await?.ok_or_else(unknown)?;
    let mut response = reply(StatusCode::OK, &found.media_type, found.bytes);
    set(&mut response, "docker-content-digest", &found.digest);
    set(&mut response, "etag", &format!("\"{}\"", found.digest));
    Ok(response)
}

/// What a tag or digest leads to.
pub(crate) async fn resolve(inner: &Inner, name: &str, reference: &str) -> Result<Option<Found>, Fault> {
    if is_digest(reference) {
        if let Some(found) = kept(inner, name, reference).await? {
            return Ok(Some(found));
        }
        let prefix = format!("{}/{name}:", inner.domain);
        for image in inner.images.list().await? {
            if image.tags.iter().any(|t| t.starts_with(&prefix))
                && let Some(found) = of_image(inner, &image.id)
                    .await?
                    .filter(|f| f.digest == reference)
            {
                return Ok(Some(found));
            }
        }
        return Ok(None);
    }
    let image = match inner
        .images
        .offer(&format!("{}/{name}:{reference}", inner.domain))
        .await
    {
        Ok(offer) => Some(offer.id),
        Err(e) if e.kind == ErrorKind::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    if let Some(digest) = inner.shelf.tag(name, reference)
        && let Some(document) = inner.shelf.document(name, &digest)
        // An image that was tagged or removed since by other means is what counts.
        && document.image == image
        && let Some(found) = kept(inner, name, &digest).await?
    {
        return Ok(Some(found));
    }
    match image {
        Some(id) => of_image(inner, &id).await,
        None => Ok(None),
    }
}

/// A document that was pushed, if all that it needs is (still) here.
async fn kept(inner: &Inner, name: &str, digest: &str) -> Result<Option<Found>, Fault> {
    let Some(document) = inner.shelf.document(name, digest) else {
        return Ok(None);
    };
    let is_index = matches!(document.media_type.as_str(), OCI_INDEX | DOCKER_INDEX);
    for need in &document.needs {
        // An index may go on though one of its images was removed.
        if !is_index && blobs::size(inner, need).await?.is_none() {
            return Ok(None);
        }
    }
    Ok(blobs::document(inner, digest).await?.map(|bytes| Found {
        media_type: document.media_type,
        digest: digest.to_owned(),
        bytes,
    }))
}

/// The manifest of an image of this node: that with which it came, or one made of its parts.
async fn of_image(inner: &Inner, id: &str) -> Result<Option<Found>, Fault> {
    let offer = inner.images.offer(id).await?;
    if let Some(manifest) = offer.manifest {
        let bytes = blobs::document(inner, &manifest.digest).await?;
        return Ok(bytes.map(|bytes| Found {
            media_type: manifest.media_type,
            digest: manifest.digest,
            bytes,
        }));
    }
    let size = blobs::size(inner, id).await?.unwrap_or_default();
    let layer = |l: &Descriptor| {
        let kind = match l.media_type.as_str() {
            "" => OCI_LAYER,
            kind => kind,
        };
        json!({ "mediaType": kind, "digest": l.digest, "size": l.size })
    };
    let layers: Vec<Value> = offer.layers.iter().map(layer).collect();
    let document = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "digest": id, "size": size }, "layers": layers,
    });
    let bytes = document.to_string().into_bytes();
    Ok(Some(Found {
        media_type: OCI_MANIFEST.to_owned(),
        digest: digest_like("sha256:", &bytes),
        bytes,
    }))
}

/// Takes a manifest or index, and makes an image of it.
pub(crate) async fn put(inner: &Arc<Inner>, name: &str, reference: &str, request: Request) -> Answer {
    let tag = (!is_digest(reference)).then_some(reference);
    if tag.is_some_and(|t| format!("localhost:1/x:{t}").parse::<Reference>().is_err()) {
        return Err(Fault::tag_invalid(reference));
    }
    let told = request
        .headers()
        .get("content-type")
        .and_then(|t| t.to_str().ok());
    let told = told
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    let limit = usize::try_from(MAX).unwrap_or(usize::MAX);
    let body = Limited::new(request.into_body(), limit).collect().await;
    let bytes = body.map_err(|_| Fault::manifest_too_long())?.to_bytes();
    let digest = digest_like(tag.map_or(reference, |_| "sha256:"), &bytes);
    if tag.is_none() && digest != reference {
        return Err(Fault::digest_invalid(format_args!(
            "the manifest's digest is {digest}"
        )));
    }
    let document = read(&bytes, &told)?;
    for need in document.needs() {
        if !is_digest(&need.digest) {
            return Err(Fault::manifest_invalid(format_args!(
                "{:?} is no digest",
                need.digest
            )));
        }
        if blobs::size(inner, &need.digest).await?.is_none() {
            return Err(Fault::manifest_blob_unknown(&need.digest));
        }
    }
    std::fs::write(inner.shelf.blob(&digest), &bytes)?;
    let image = match document.is_index() {
        true => own_of(inner, &document).await?,
        false => document.image(&digest, bytes.len() as u64),
    };
    if let Some(offer) = &image {
        take(inner, offer, name, tag, &digest).await?;
    }
    let subject = document.subject.as_ref().map(|s| s.digest.clone());
    let artifact = match (document.artifact_type.as_str(), &document.config) {
        ("", Some(config)) => config.media_type.clone(),
        (kind, _) => kind.to_owned(),
    };
    let kept = Kept {
        media_type: document.media_type.clone(),
        needs: document.needs().map(|d| d.digest.clone()).collect(),
        image: image.map(|i| i.id),
        subject: subject.clone(),
        artifact_type: Some(artifact).filter(|a| !a.is_empty()),
        annotations: document.annotations,
        size: bytes.len() as u64,
    };
    inner.shelf.keep(name, &digest, tag, kept)?;
    let mut response = bare(StatusCode::CREATED);
    set(
        &mut response,
        "location",
        &format!("/v2/{name}/manifests/{digest}"),
    );
    set(&mut response, "docker-content-digest", &digest);
    set(&mut response, "content-length", "0");
    if let Some(subject) = subject {
        set(&mut response, "oci-subject", &subject);
    }
    Ok(response)
}

/// Reads a document whose media type the request or itself tells.
fn read(bytes: &[u8], told: &str) -> Result<Document, Fault> {
    let mut document: Document = serde_json::from_slice(bytes).map_err(Fault::manifest_invalid)?;
    if document.schema_version != 2 {
        return Err(Fault::manifest_invalid(format_args!(
            "schemaVersion {} is not supported",
            document.schema_version
        )));
    }
    match (document.media_type.as_str(), told) {
        ("", told) => told.clone_into(&mut document.media_type),
        (own, told) if own != told && !told.is_empty() => {
            return Err(Fault::manifest_invalid(format_args!(
                "if present, mediaType in manifest should be '{told}' not '{own}'"
            )));
        }
        _ => {}
    }
    if !matches!(
        document.media_type.as_str(),
        OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_INDEX
    ) {
        let kind = &document.media_type;
        return Err(Fault::manifest_invalid(format_args!(
            "unknown media type {kind:?}"
        )));
    }
    if !document.is_index() && document.config.is_none() {
        return Err(Fault::manifest_invalid("a manifest needs a config"));
    }
    Ok(document)
}

/// The image of an index that is for this node.
async fn own_of(inner: &Inner, index: &Document) -> Result<Option<ImageOffer>, Fault> {
    let own = |d: &&Descriptor| {
        let platform = d.platform.as_ref();
        platform.is_none_or(|p| p.os == "linux" && p.architecture == tripod_agent::host::architecture())
    };
    for child in index.manifests.iter().filter(own) {
        let Some(bytes) = blobs::document(inner, &child.digest).await? else {
            continue;
        };
        let document = read(&bytes, &child.media_type)?;
        if let Some(offer) = document.image(&child.digest, bytes.len() as u64) {
            return Ok(Some(offer));
        }
    }
    Ok(None)
}

/// Makes an image of the node of what was uploaded, under its tag and its digest.
async fn take(
    inner: &Arc<Inner>,
    offer: &ImageOffer,
    name: &str,
    tag: Option<&str>,
    digest: &str,
) -> Result<(), Fault> {
    let by_digest = Reference {
        domain: inner.domain.clone(),
        path: name.to_owned(),
        tag: None,
        digest: Some(digest.to_owned()),
    };
    let by_tag = tag.map(|tag| Reference {
        tag: Some(tag.to_owned()),
        digest: None,
        ..by_digest.clone()
    });
    for name in [Some(by_digest), by_tag].into_iter().flatten() {
        let (progress, _) = tokio::sync::mpsc::unbounded_channel();
        let content = Arc::new(Uploaded(inner.clone()));
        inner.images.take_over(offer, &name, content, progress).await?;
    }
    // The image store has them now.
    let layers = offer.layers.iter().map(|l| &l.digest);
    for digest in layers.chain([&offer.id]) {
        if inner.images.content(digest, 0).await.is_ok() {
            // A copy that stays takes room until the next sweep, and nothing else.
            let _ = inner.shelf.drop_blob(digest);
        }
    }
    Ok(())
}

/// What was uploaded, as content of an image that is offered.
struct Uploaded(Arc<Inner>);

#[async_trait::async_trait]
impl Content for Uploaded {
    async fn open(&self, digest: &str, from: u64) -> tripod_model::Result<(u64, BoxRead)> {
        let opened = blobs::open(&self.0, digest, from).await;
        let missing = || Error::invalid(format_args!("content {digest} was not uploaded"));
        opened.map_err(|_| missing())?.ok_or_else(missing)
    }
}

/// Takes a tag away, or a document with its tags, and the names that they gave to images.
pub(crate) async fn delete(inner: &Inner, name: &str, reference: &str) -> Answer {
    if resolve(inner, name, reference).await?.is_none() {
        return Err(Fault::manifest_unknown(name, reference));
    }
    let mut gone = inner.shelf.forget(name, reference)?;
    let whole = format!("{}/{name}", inner.domain);
    let names = match is_digest(reference) {
        true => {
            gone.sort_unstable();
            let tags = gone.iter().map(|t| format!("{whole}:{t}"));
            tags.chain([format!("{whole}@{reference}")]).collect()
        }
        false => vec![format!("{whole}:{reference}")],
    };
    for name in names {
        match inner.images.remove(&name, true, false, &[]).await {
            Ok(_) => {}
            Err(e) if e.kind == ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
    }
    inner.shelf.sweep(UNDER_WAY)?;
    Ok(bare(StatusCode::ACCEPTED))
}

/// The documents that are about another one.
pub(crate) fn referrers(inner: &Inner, name: &str, digest: &str, query: &[(String, String)]) -> Answer {
    let wanted = query
        .iter()
        .find(|(k, _)| k == "artifactType")
        .map(|(_, v)| v.as_str());
    let all = inner.shelf.referrers(name, digest);
    let fits = |d: &Kept| wanted.is_none_or(|w| d.artifact_type.as_deref() == Some(w));
    let manifests: Vec<Value> = all
        .into_iter()
        .filter(|(_, d)| fits(d))
        .map(|(digest, d)| {
            let mut shown = json!({ "mediaType": d.media_type, "digest": digest, "size": d.size });
            if let Some(kind) = d.artifact_type {
                shown["artifactType"] = kind.into();
            }
            if !d.annotations.is_empty() {
                shown["annotations"] = json!(d.annotations);
            }
            shown
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    let mut response = reply(StatusCode::OK, OCI_INDEX, index.to_string());
    if wanted.is_some() {
        set(&mut response, "oci-filters-applied", "artifactType");
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_and_told_apart() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let manifest = |config: &str, layer: &str| {
            json!({"schemaVersion": 2, "config": {"mediaType": config, "digest": digest, "size": 2},
                   "layers": [{"mediaType": layer, "digest": digest, "size": 1}]})
            .to_string()
        };
        let d = read(
            manifest(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+gzip").as_bytes(),
            OCI_MANIFEST,
        )
        .unwrap();
        assert_eq!(d.image("sha256:x", 9).unwrap().id, digest);
        let chart = "application/vnd.cncf.helm.config.v1+json";
        let d = read(manifest(chart, "application/x").as_bytes(), OCI_MANIFEST).unwrap();
        assert!(d.image("sha256:x", 9).is_none() && !d.is_index());
        for (text, told) in [
            ("{", OCI_MANIFEST),
            ("{\"schemaVersion\": 1}", OCI_MANIFEST),
            ("{\"schemaVersion\": 2}", OCI_MANIFEST),
            (
                "{\"schemaVersion\": 2, \"mediaType\": \"application/vnd.oci.image.index.v1+json\"}",
                OCI_MANIFEST,
            ),
            ("{\"schemaVersion\": 2, \"config\": {}}", "text/plain"),
        ] {
            assert!(read(text.as_bytes(), told).is_err(), "{text}");
        }
    }
}
