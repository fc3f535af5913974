//! Volumes of the `local` driver.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use tripod_model::Result;
use tripod_model::volume::Volume;

/// Directories kept beyond the life of a container. Which volumes exist is the agent's to remember; this port
/// makes, mounts and removes their directories.
#[async_trait]
pub trait Volumes: Send + Sync {
    /// Makes the directory of a volume and returns its path. Options as for the `local` driver: `type`, `device`,
    /// `o`; unknown ones are `Invalid` (`invalid option: "x"`).
    async fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<PathBuf>;
    /// Mounts what the options name (NFS, tmpfs, bind); counts users; nothing to do without options.
    async fn mount(&self, volume: &Volume) -> Result<PathBuf>;
    /// Drops one user; the last one unmounts.
    async fn unmount(&self, volume: &Volume) -> Result<()>;
    /// Removes the directory with all that is in it.
    async fn remove(&self, name: &str) -> Result<()>;
    /// Whether the directory is empty.
    async fn is_empty(&self, path: PathBuf) -> Result<bool>;
    /// Mounts a filesystem (`tmpfs`, `nfs` …) at a directory that is there; nothing to do when something is mounted.
    async fn mount_at(&self, dir: &std::path::Path, kind: &str, source: &str, options: &str) -> Result<()>;
    /// Unmounts it; nothing mounted is no error.
    async fn unmount_at(&self, dir: &std::path::Path) -> Result<()>;
    /// Space of the filesystem that holds a path.
    fn filesystem(&self, path: &std::path::Path) -> Result<tripod_model::door::FilesystemUsage>;
    /// Bytes in the directory.
    async fn size(&self, name: &str) -> Result<u64>;
}
