//! Images and the root filesystems made of them.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tripod_model::Result;
use tripod_model::image::{Descriptor, Image, ImageOffer, Platform, RegistryAuth};
use tripod_model::reference::Reference;

use super::{BoxRead, BoxStream};

/// A step of a pull, push or load, as the docker client shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Short digest of a layer, or a tag, or empty.
    pub id: String,
    /// `Pulling fs layer`, `Downloading`, `Download complete`, `Pull complete`, `Digest: sha256:…` …
    pub status: String,
    /// Bytes done, when counted.
    pub current: u64,
    /// Bytes in all, when known.
    pub total: u64,
    /// Text of the kind `stream` (used by load: `Loaded image: …`).
    pub stream: Option<String>,
    /// Result for clients (push): tag, digest, size.
    pub aux: Option<serde_json::Value>,
}

/// Where progress goes. Sending never waits: a slow client misses steps, never holds up the work.
pub type ProgressSink = mpsc::UnboundedSender<Progress>;

/// A root filesystem made ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Layers below, writable layer, work directory (told by inspect as `GraphDriver`).
    pub lower: Vec<PathBuf>,
    /// Writable layer.
    pub upper: PathBuf,
    /// overlayfs's work directory.
    pub work: PathBuf,
}

/// A change that a container made to its root filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path.
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}

/// What was removed: Docker's `Untagged` and `Deleted` entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name.
    Untagged(String),
    /// An image or layer.
    Deleted(String),
}

/// What a registry says of a name without pulling it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// Platforms that it serves.
    pub platforms: Vec<Platform>,
}

/// Metadata of a file in a container (`X-Docker-Container-Path-Stat`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last part of the path.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Mode with Go's file type bits, as Docker sends it.
    pub mode: u32,
    /// Modification time.
    pub modified: tripod_model::Time,
    /// Target of a symbolic link.
    pub link_target: String,
}

/// What an import or commit changes of the configuration, as Dockerfile instructions (`CMD ["sh"]`).
pub type ConfigChanges = Vec<String>;

/// How disk space is used by images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUsage {
    /// Bytes of all layers, each counted once.
    pub layers_size: u64,
    /// Per image id: bytes shared with other images.
    pub shared: std::collections::HashMap<String, u64>,
}

/// A change of the store: action, image id, attributes.
pub type ImageEvent = (String, String, Vec<(String, String)>);

/// Where the content of an image comes from that another node has.
#[async_trait]
pub trait Content: Send + Sync {
    /// Content by its digest from a byte on: bytes in all, and the rest of them.
    async fn open(&self, digest: &str, from: u64) -> Result<(u64, BoxRead)>;
}

/// The node's content store and snapshots. All methods may be called at the same time.
#[async_trait]
pub trait Images: Send + Sync {
    /// All images.
    async fn list(&self) -> Result<Vec<Arc<Image>>>;
    /// The image that a name, `name@digest`, identifier or unambiguous prefix of one leads to. Errors say
    /// `No such image: NAME`.
    async fn get(&self, name: &str) -> Result<Arc<Image>>;
    /// Pulls a name from its registry. With `all_tags` every tag of the repository.
    async fn pull(
        &self,
        name: &Reference,
        all_tags: bool,
        platform: Option<Platform>,
        auth: Option<RegistryAuth>,
        progress: ProgressSink,
    ) -> Result<Arc<Image>>;
    /// Pushes a name (or all tags of it) to its registry.
    async fn push(
        &self,
        name: &Reference,
        all_tags: bool,
        auth: Option<RegistryAuth>,
        progress: ProgressSink,
    ) -> Result<()>;
    /// Asks a registry about a name.
    async fn inspect_remote(&self, name: &Reference, auth: Option<RegistryAuth>) -> Result<Distribution>;
    /// Checks credentials; the text is Docker's `Login Succeeded`.
    async fn login(&self, auth: &RegistryAuth) -> Result<String>;
    /// Loads a docker-archive or OCI archive (tar, also gzip, zstd).
    async fn load(&self, archive: BoxRead, progress: ProgressSink) -> Result<Vec<Arc<Image>>>;
    /// Writes an archive of these names (docker-archive that also is an OCI layout).
    async fn save(&self, names: &[String]) -> Result<BoxRead>;
    /// What another node must know to take an image over; the image by name or identifier.
    async fn offer(&self, name: &str) -> Result<ImageOffer>;
    /// Content of the store by its digest from a byte on: bytes in all, and the rest of them.
    async fn content(&self, digest: &str, from: u64) -> Result<(u64, BoxRead)>;
    /// Takes over an image that another node offers, under a name. Content is checked against its digest; what is
    /// here is not fetched, what breaks off goes on where it was, and nothing is fetched twice at a time.
    async fn take_over(
        &self,
        offer: &ImageOffer,
        name: &Reference,
        content: Arc<dyn Content>,
        progress: ProgressSink,
    ) -> Result<Arc<Image>>;
    /// Makes an image of one layer from a tar of a filesystem.
    async fn import(
        &self,
        archive: BoxRead,
        name: Option<Reference>,
        changes: ConfigChanges,
        message: String,
        platform: Option<Platform>,
    ) -> Result<Arc<Image>>;
    /// Makes an image of a container's root filesystem: a layer of its changes on its image, with this
    /// configuration.
    async fn commit(
        &self,
        container: &str,
        image_id: &str,
        config: tripod_model::image::ImageConfig,
        author: String,
        message: String,
        name: Option<Reference>,
    ) -> Result<Arc<Image>>;
    /// Applies Dockerfile instructions to a configuration; unknown ones are `Invalid`.
    fn apply_changes(
        &self,
        config: tripod_model::image::ImageConfig,
        changes: &[String],
    ) -> Result<tripod_model::image::ImageConfig>;
    /// Gives an image a further name.
    async fn tag(&self, image: &str, name: &Reference) -> Result<()>;
    /// Takes a name away, and the image when it was the last one and `in_use` does not hold it. With an
    /// identifier: all names. `force` as Docker defines it.
    async fn remove(
        &self,
        name: &str,
        force: bool,
        prune_parents: bool,
        in_use: &[String],
    ) -> Result<Vec<Removed>>;
    /// Removes images that no container uses: those without a name, or all (`dangling_only` false), further
    /// narrowed by the caller's choice. Returns what went and the bytes won.
    async fn prune(&self, image_ids: &[String]) -> Result<(Vec<Removed>, u64)>;
    /// Bytes on disk.
    async fn usage(&self) -> Result<ImageUsage>;

    /// Makes (once) the writable layer of a container.
    async fn prepare(&self, container: &str, image_id: &str) -> Result<()>;
    /// Mounts the root filesystem; does nothing when it is mounted.
    async fn mount(&self, container: &str) -> Result<Rootfs>;
    /// The paths of the root filesystem without mounting it.
    fn rootfs(&self, container: &str) -> Result<Rootfs>;
    /// Unmounts it; does nothing when it is not mounted.
    async fn unmount(&self, container: &str) -> Result<()>;
    /// Unmounts it and removes the writable layer.
    async fn discard(&self, container: &str) -> Result<()>;
    /// Containers that have a writable layer, to find what nobody owns any more.
    async fn snapshots(&self) -> Result<Vec<String>>;
    /// What the container changed.
    async fn changes(&self, container: &str) -> Result<Vec<Change>>;
    /// A tar of the whole root filesystem.
    async fn export(&self, container: &str) -> Result<BoxRead>;
    /// Bytes of the writable layer, and of the root filesystem in all.
    async fn container_size(&self, container: &str) -> Result<(u64, u64)>;
    /// Users and groups: resolves `user[:group]` against the passwd and group files of a mounted root to numbers,
    /// with supplementary groups and the home directory.
    async fn resolve_user(&self, container: &str, user: &str) -> Result<(u32, u32, Vec<u32>, String)>;

    /// `HEAD/GET/PUT /containers/{id}/archive`: files of the mounted root, with volumes laid over it as the
    /// container sees them (`overlays`: target in the container, path on the host). Symbolic links never lead out.
    async fn stat_path(
        &self,
        container: &str,
        overlays: &[(String, PathBuf)],
        path: &str,
    ) -> Result<PathStat>;
    /// A tar of a file or directory.
    async fn read_path(
        &self,
        container: &str,
        overlays: &[(String, PathBuf)],
        path: &str,
    ) -> Result<(PathStat, BoxRead)>;
    /// Unpacks a tar below a directory. `no_overwrite_dir_non_dir` and `copy_uid_gid` as the API has them.
    async fn write_path(
        &self,
        container: &str,
        overlays: &[(String, PathBuf)],
        path: &str,
        archive: BoxRead,
        no_overwrite_dir_non_dir: bool,
        copy_uid_gid: bool,
    ) -> Result<()>;
    /// Copies what the image has at `path` into an empty directory (a new volume), with owners and modes.
    async fn copy_up(&self, container: &str, path: &str, into: PathBuf) -> Result<()>;

    /// Changes of the store that events are made of (pull, tag, untag, delete, load, import): action, image
    /// id, attributes.
    fn events(&self) -> BoxStream<ImageEvent>;
}
