//! The node's images: content store, names, unpacked layers, and the root filesystems of containers.
//!
//! On disk, below one root: `content/blobs/<algorithm>/<hex>` (as they came), `layers/<diff id>/` (unpacked once
//! each, in overlayfs's form), `snapshots/<container>/` (writable layers), `index.json` (what is known),
//! `tmp` and `trash` (emptied when the store is opened).

pub(crate) mod beneath;
mod blobs;
mod changes;
mod config;
mod digest;
mod files;
mod index;
mod instructions;
mod load;
mod make;
mod media;
mod names;
pub(crate) mod overlay;
mod port;
mod receive;
mod registry;
mod save;
pub(crate) mod size;
mod snapshot;
mod store;
mod stream;
mod tarread;
mod tarwrite;
#[cfg(test)]
mod tests;
mod unpack;
mod users;
mod view;

use std::path::Path;
use std::sync::Arc;

use tripod_model::{Error, Result};

use registry::Http;
pub use registry::RegistryOptions;
use store::Store;

/// The node's image store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageStore {
    store: Arc<Store>,
    http: Http,
}

impl ImageStore {
    /// Opens (or makes) the store below a directory, and removes what a crash left unfinished. Blocks.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, RegistryOptions::default())
    }

    /// As [`ImageStore::open`], with limits and exceptions for registries.
    pub fn open_with(root: &Path, registries: RegistryOptions) -> Result<Self> {
        Ok(Self {
            store: Arc::new(Store::open(root)?),
            http: Http::new(registries),
        })
    }

    /// Runs blocking work on a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Store>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|e| Error::internal(format!("image store: {e}")))?
    }
}
