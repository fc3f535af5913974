//! The node's images: content store, names, unpacked layers, and the root filesystems of containers.
//!
//! On disk, below one root: `content/blobs/<algorithm>/<hex>` (as they came), `layers/<diff id>/` (unpacked once
//! each, in overlayfs's form), `snapshots/<container>/` (writable layers), `index.json` (what is known),
//! `tmp` and `trash` (emptied when the store is opened).

mod beneath;
mod changes;
mod blobs;
mod config;
mod digest;
mod index;
mod load;
mod media;
mod names;
mod overlay;
mod snapshot;
mod store;
mod tarread;
mod tarwrite;
mod unpack;
mod users;

use std::path::Path;
use std::sync::Arc;

use tripod_agent::ports::{BoxRead, ProgressSink, Rootfs};
use tripod_model::image::Image;
use tripod_model::{Error, Result, Time};

use store::Store;

/// The node's image store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageStore {
    store: Arc<Store>,
}

impl ImageStore {
    /// Opens (or makes) the store below a directory, and removes what a crash left unfinished.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(Self { store: Arc::new(Store::open(root)?) })
    }

    /// Runs blocking work on a thread of its own.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Arc<Store>) -> Result<T> + Send + 'static) -> Result<T> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(|e| Error::internal(format!("image store: {e}")))?
    }
}
