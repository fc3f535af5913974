//! What the registry keeps beside the image store: documents that were pushed, tags, blobs of what is no image of this
//! node, uploads.
//!
//! Below one directory: `blobs/ALGORITHM/HEX`, `uploads/ID`, and `registry.json`, which is replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tripod_model::{Error, Result};

/// A manifest or index that was pushed; its bytes are the blob of its digest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Kept {
    pub(crate) media_type: String,
    /// Blobs and documents that it needs.
    pub(crate) needs: Vec<String>,
    /// The image that it leads to on this node.
    pub(crate) image: Option<String>,
    /// What it is about, for referrers.
    pub(crate) subject: Option<String>,
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Repository {
    tags: BTreeMap<String, String>,
    documents: BTreeMap<String, Kept>,
}

/// The registry's own directory.
pub(crate) struct Shelf {
    root: PathBuf,
    known: Mutex<BTreeMap<String, Repository>>,
}

impl Shelf {
    /// Opens it, and removes what nothing refers to.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(root.join("uploads"));
        for dir in ["uploads", "blobs/sha256", "blobs/sha512"] {
            fs::create_dir_all(root.join(dir))?;
        }
        let path = root.join("registry.json");
        let known = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::internal(format_args!("{}: {e}", path.display())))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(e.into()),
        };
        let shelf = Self {
            root: root.to_owned(),
            known: Mutex::new(known),
        };
        shelf.sweep(Duration::ZERO)?;
        Ok(shelf)
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<String, Repository>) -> T) -> T {
        look(&self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what is known: on disk first.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Repository>)) -> Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = known.clone();
        change(&mut next);
        let draft = self.root.join("registry.json.new");
        let mut file = fs::File::create(&draft)?;
        file.write_all(&serde_json::to_vec(&next).map_err(Error::internal)?)?;
        file.sync_data()?;
        fs::rename(draft, self.root.join("registry.json"))?;
        // The name, too, must be on disk before anybody is told.
        fs::File::open(&self.root)?.sync_all()?;
        *known = next;
        Ok(())
    }

    /// Where a blob is or would be. The digest has been checked to be one.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("sha256", digest));
        self.root.join("blobs").join(algorithm).join(hex)
    }

    /// Where an upload's bytes go; `None` when the identifier is none.
    pub(crate) fn upload(&self, id: &str) -> Option<PathBuf> {
        let fine = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        fine.then(|| self.root.join("uploads").join(id))
    }

    pub(crate) fn repositories(&self) -> Vec<String> {
        self.read(|k| {
            k.iter()
                .filter(|(_, r)| !r.tags.is_empty())
                .map(|(n, _)| n.clone())
                .collect()
        })
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        self.read(|k| k.contains_key(name))
    }

    pub(crate) fn tags(&self, name: &str) -> Vec<String> {
        self.read(|k| {
            k.get(name)
                .map(|r| r.tags.keys().cloned().collect())
                .unwrap_or_default()
        })
    }

    /// Digest of what a tag stands for.
    pub(crate) fn tag(&self, name: &str, tag: &str) -> Option<String> {
        self.read(|k| k.get(name)?.tags.get(tag).cloned())
    }

    pub(crate) fn document(&self, name: &str, digest: &str) -> Option<Kept> {
        self.read(|k| k.get(name)?.documents.get(digest).cloned())
    }

    /// The documents of a repository that are about another one.
    pub(crate) fn referrers(&self, name: &str, subject: &str) -> Vec<(String, Kept)> {
        self.read(|k| {
            let documents = k.get(name).into_iter().flat_map(|r| &r.documents);
            let about = documents.filter(|(_, d)| d.subject.as_deref() == Some(subject));
            about.map(|(digest, d)| (digest.clone(), d.clone())).collect()
        })
    }

    /// Remembers a document, under a tag if there is one.
    pub(crate) fn keep(&self, name: &str, digest: &str, tag: Option<&str>, document: Kept) -> Result<()> {
        self.change(|k| {
            let repository = k.entry(name.to_owned()).or_default();
            repository.documents.insert(digest.to_owned(), document);
            if let Some(tag) = tag {
                repository.tags.insert(tag.to_owned(), digest.to_owned());
            }
        })
    }

    /// Forgets a tag, or a document with its tags; the tags that are gone.
    pub(crate) fn forget(&self, name: &str, reference: &str) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        self.change(|k| {
            let Some(repository) = k.get_mut(name) else { return };
            repository.documents.remove(reference);
            repository.tags.retain(|tag, digest| {
                let stays = tag != reference && digest != reference;
                if !stays {
                    gone.push(tag.clone());
                }
                stays
            });
        })?;
        Ok(gone)
    }

    /// Removes blobs that no document refers to, and that are older than `age`: a push may be under way.
    pub(crate) fn sweep(&self, age: Duration) -> Result<()> {
        let live: BTreeSet<String> = self.read(|k| {
            let documents = k.values().flat_map(|r| &r.documents);
            documents
                .flat_map(|(digest, d)| d.needs.iter().chain([digest]).cloned())
                .collect()
        });
        for algorithm in ["sha256", "sha512"] {
            for entry in fs::read_dir(self.root.join("blobs").join(algorithm))? {
                let entry = entry?;
                let old = entry
                    .metadata()?
                    .modified()?
                    .elapsed()
                    .is_ok_and(|passed| passed >= age);
                if old && !live.contains(&format!("{algorithm}:{}", entry.file_name().to_string_lossy())) {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Drops a blob that the image store has too.
    pub(crate) fn drop_blob(&self, digest: &str) -> std::io::Result<()> {
        fs::remove_file(self.blob(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_outlives_a_start_and_what_is_not_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (
            format!("sha256:{}", "a".repeat(64)),
            format!("sha256:{}", "b".repeat(64)),
        );
        let shelf = Shelf::open(dir.path()).unwrap();
        fs::write(shelf.blob(&a), "doc").unwrap();
        fs::write(shelf.blob(&b), "stray").unwrap();
        shelf.keep("x", &a, Some("v1"), Kept::default()).unwrap();
        drop(shelf);
        let shelf = Shelf::open(dir.path()).unwrap();
        assert_eq!(shelf.tag("x", "v1").as_deref(), Some(a.as_str()));
        assert!(shelf.blob(&a).exists() && !shelf.blob(&b).exists());
        assert_eq!(shelf.forget("x", &a).unwrap(), ["v1"]);
        assert!(shelf.document("x", &a).is_none() && shelf.repositories().is_empty());
        assert!(shelf.upload("../x").is_none());
    }
}
