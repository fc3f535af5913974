//! What the store knows beside its content: images, names, layers. One JSON document, replaced as a whole
//! (written, synced, renamed), so that after a crash either the old or the new one is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tripod_model::image::Descriptor;
use tripod_model::{Error, Result, Time};

const FILE: &str = "index.json";

/// The document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Index {
    /// Format of this document.
    pub(crate) version: u32,
    /// By identifier.
    pub(crate) images: BTreeMap<String, Record>,
    /// Full names, with tag or with digest, to identifiers.
    pub(crate) names: BTreeMap<String, String>,
    /// By diff id.
    pub(crate) layers: BTreeMap<String, Layer>,
    /// Layers of images that are gone but whose containers remain: image id to diff ids.
    pub(crate) orphans: BTreeMap<String, Vec<String>>,
}

/// An image. Its configuration is the blob of its identifier.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// The manifest it came with. Archives of `docker save` before version 25 have none.
    pub(crate) manifest: Option<Descriptor>,
    /// The layers' blobs as they came, lowest first.
    pub(crate) blobs: Vec<Descriptor>,
    /// Diff ids, lowest first.
    pub(crate) diff_ids: Vec<String>,
    /// When a name was last put on it.
    pub(crate) tagged: Option<Time>,
    /// The image that a committed one was made on.
    pub(crate) parent: Option<String>,
}

/// An unpacked layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Layer {
    /// Bytes of its files.
    pub(crate) size: u64,
    /// Repositories (`domain/path`) that have it, and as which blob: what a push need not send again.
    pub(crate) known: BTreeMap<String, Descriptor>,
}

impl Index {
    /// Reads the document of a store; a new store has none.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let bytes = match std::fs::read(root.join(FILE)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self {
                    version: 1,
                    ..Self::default()
                });
            }
            Err(e) => return Err(e.into()),
        };
        let index: Self = serde_json::from_slice(&bytes)
            .map_err(|e| Error::internal(format!("{}: {e}", root.join(FILE).display())))?;
        if index.version != 1 {
            return Err(Error::internal(format!(
                "image store has unknown format {}",
                index.version
            )));
        }
        Ok(index)
    }

    /// Replaces the document on disk.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        let new = root.join("index.json.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_data()?;
        std::fs::rename(&new, root.join(FILE))?;
        // The name, too, must be on disk before anybody is told.
        File::open(root)?.sync_all()?;
        Ok(())
    }

    /// Names of an image.
    pub(crate) fn names_of<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a str> {
        self.names
            .iter()
            .filter(move |(_, to)| *to == id)
            .map(|(name, _)| name.as_str())
    }

    /// All blobs that an image refers to.
    pub(crate) fn live_blobs(&self) -> BTreeSet<&str> {
        let mut live = BTreeSet::new();
        for (id, record) in &self.images {
            live.insert(id.as_str());
            live.extend(record.manifest.iter().map(|d| d.digest.as_str()));
            live.extend(record.blobs.iter().map(|d| d.digest.as_str()));
        }
        live
    }

    /// All layers that an image or a container of a removed image needs.
    pub(crate) fn live_layers(&self) -> BTreeSet<&str> {
        let of_images = self.images.values().flat_map(|r| &r.diff_ids);
        of_images
            .chain(self.orphans.values().flatten())
            .map(String::as_str)
            .collect()
    }
}

/// Whether a full name is one with a digest.
pub(crate) fn has_digest(name: &str) -> bool {
    name.contains('@')
}
