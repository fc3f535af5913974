//! `docker save`: one tar that is an OCI layout and a docker-archive at once, streamed from the content store.
//! Blobs go out as they came in, so that every digest stays what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;

use serde_json::json;
use tripod_agent::ports::BoxRead;
use tripod_model::image::Descriptor;
use tripod_model::reference::Reference;
use tripod_model::{Result, Time};

use super::blobs::Lease;
use super::index::has_digest;
use super::store::{Store, no_such_image};
use super::tarwrite::TarWriter;
use super::{digest, media, stream};

struct Chosen {
    id: String,
    names: Vec<Reference>,
    manifest: Descriptor,
    /// The manifest, where the store has none of its own.
    made: Option<Vec<u8>>,
    layers: Vec<Descriptor>,
    created: Option<Time>,
}

/// Writes an archive of images: of a name that one, of a repository without tag all of its tags.
pub(crate) fn save(store: &std::sync::Arc<Store>, names: &[String]) -> Result<BoxRead> {
    let chosen = choose(store, names)?;
    // Removing the image meanwhile must not take the blobs away.
    let lease = Lease::new(&store.leases);
    for one in &chosen {
        lease.hold(&one.id);
        lease.hold(&one.manifest.digest);
        one.layers.iter().for_each(|l| lease.hold(&l.digest));
    }
    let store = std::sync::Arc::clone(store);
    Ok(stream::produce(move |out| {
        let _lease = lease;
        write(&store, &chosen, out)
    }))
}

fn choose(store: &Store, names: &[String]) -> Result<Vec<Chosen>> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for name in names {
        let mut found: Vec<(String, Option<Reference>)> = Vec::new();
        match name.parse::<Reference>() {
            Ok(parsed) if parsed.tag.is_none() && parsed.digest.is_none() => {
                let all = store.read(|i| i.names.clone());
                let of_repository = all
                    .into_iter()
                    .filter(|(n, _)| !has_digest(n))
                    .filter_map(|(n, id)| {
                        let n: Reference = n.parse().ok()?;
                        (n.domain == parsed.domain && n.path == parsed.path).then_some((id, Some(n)))
                    });
                found.extend(of_repository);
            }
            Ok(parsed) => found.push((
                store.get(name)?.id.clone(),
                Some(parsed).filter(|p| p.digest.is_none()),
            )),
            Err(_) => {}
        }
        if found.is_empty() {
            found.push((store.get(name)?.id.clone(), None));
        }
        for (id, name) in found {
            match chosen.iter_mut().find(|c| c.id == id) {
                Some(same) => same.names.extend(name),
                None => chosen.push(describe(store, id, name)?),
            }
        }
    }
    Ok(chosen)
}

fn describe(store: &Store, id: String, name: Option<Reference>) -> Result<Chosen> {
    let record = store
        .read(|i| i.images.get(&id).cloned())
        .ok_or_else(|| no_such_image(&id))?;
    let created = store.by_id(&id).and_then(|i| i.created);
    let (manifest, made) = match record.manifest {
        Some(manifest) => (manifest, None),
        None => {
            let (manifest, bytes) = make_manifest(store, &id, &record.blobs)?;
            (manifest, Some(bytes))
        }
    };
    Ok(Chosen {
        id,
        names: name.into_iter().collect(),
        manifest,
        made,
        layers: record.blobs,
        created,
    })
}

/// A manifest for an image that came without one.
pub(crate) fn make_manifest(store: &Store, id: &str, layers: &[Descriptor]) -> Result<(Descriptor, Vec<u8>)> {
    let size = std::fs::metadata(store.paths.blob(id))?.len() as i64;
    let config = Descriptor {
        media_type: media::CONFIG.into(),
        digest: id.to_owned(),
        size,
        ..Descriptor::default()
    };
    let document = media::Document {
        schema_version: 2,
        media_type: media::MANIFEST.into(),
        config: Some(config),
        layers: Some(layers.to_vec()),
        manifests: Vec::new(),
    };
    let bytes = serde_json::to_vec(&document)?;
    let manifest = Descriptor {
        media_type: media::MANIFEST.into(),
        digest: digest::sha256(&bytes),
        size: bytes.len() as i64,
        ..Descriptor::default()
    };
    Ok((manifest, bytes))
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn write(store: &Store, chosen: &[Chosen], out: &mut stream::Sink) -> Result<()> {
    let mut tar = TarWriter::new(out, Vec::new());
    let mut written = BTreeSet::new();
    let mut index = media::Document {
        schema_version: 2,
        media_type: media::INDEX.into(),
        ..media::Document::default()
    };
    let mut saved = Vec::new();
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for one in chosen {
        let time = one.created.map_or(0, |t| t.as_second().max(0)) as u64;
        let blobs = std::iter::once(&one.id).chain(one.layers.iter().map(|l| &l.digest));
        for digest in blobs.chain(one.made.is_none().then_some(&one.manifest.digest)) {
            if written.insert(digest.clone()) {
                let file = File::open(store.paths.blob(digest))?;
                tar.plain(&blob_name(digest), file.metadata()?.len(), file, time)?;
            }
        }
        if let Some(bytes) = &one.made
            && written.insert(one.manifest.digest.clone())
        {
            tar.plain(
                &blob_name(&one.manifest.digest),
                bytes.len() as u64,
                &bytes[..],
                time,
            )?;
        }
        for name in &one.names {
            let mut entry = one.manifest.clone();
            entry
                .annotations
                .insert("io.containerd.image.name".into(), name.to_string());
            let tag = name.tag.clone().unwrap_or_else(|| "latest".into());
            entry
                .annotations
                .insert("org.opencontainers.image.ref.name".into(), tag.clone());
            index.manifests.push(entry);
            repositories
                .entry(name.familiar_name())
                .or_default()
                .insert(tag, one.id.replacen("sha256:", "", 1));
        }
        if one.names.is_empty() {
            index.manifests.push(one.manifest.clone());
        }
        saved.push(json!({
            "Config": blob_name(&one.id),
            "RepoTags": (!one.names.is_empty()).then(|| one.names.iter().map(Reference::familiar).collect::<Vec<_>>()),
            "Layers": one.layers.iter().map(|l| blob_name(&l.digest)).collect::<Vec<_>>(),
        }));
    }
    let mut document = |name: &str, bytes: Vec<u8>| tar.plain(name, bytes.len() as u64, &bytes[..], 0);
    document("index.json", serde_json::to_vec(&index)?)?;
    document("manifest.json", serde_json::to_vec(&saved)?)?;
    document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())?;
    if !repositories.is_empty() {
        document("repositories", serde_json::to_vec(&repositories)?)?;
    }
    tar.finish()?.flush()?;
    Ok(())
}
