//! The agent's port [`Images`], on top of the store's parts.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::io::SyncIoBridge;
use tripod_agent::ports::{
    BoxRead, BoxStream, Change, ConfigChanges, Content, Distribution, ImageUsage, Images, PathStat,
    ProgressSink, Removed, Rootfs,
};
use tripod_model::image::{Image, ImageConfig, ImageOffer, Platform, RegistryAuth};
use tripod_model::reference::Reference;
use tripod_model::{Result, Time};

use super::registry::{self, Repository};
use super::{ImageStore, changes, files, instructions, load, make, names, receive, save, users};

#[async_trait]
impl Images for ImageStore {
    async fn list(&self) -> Result<Vec<Arc<Image>>> {
        Ok(self.store.list())
    }

    async fn get(&self, name: &str) -> Result<Arc<Image>> {
        self.store.get(name)
    }

    async fn pull(
        &self,
        name: &Reference,
        all_tags: bool,
        platform: Option<Platform>,
        auth: Option<RegistryAuth>,
        progress: ProgressSink,
    ) -> Result<Arc<Image>> {
        registry::pull(&self.store, &self.http, name, all_tags, platform, auth, &progress).await
    }

    async fn push(
        &self,
        name: &Reference,
        all_tags: bool,
        auth: Option<RegistryAuth>,
        progress: ProgressSink,
    ) -> Result<()> {
        registry::push(&self.store, &self.http, name, all_tags, auth, &progress).await
    }

    async fn inspect_remote(&self, name: &Reference, auth: Option<RegistryAuth>) -> Result<Distribution> {
        Repository::new(&self.http, name, auth, "pull")
            .distribution()
            .await
    }

    async fn login(&self, auth: &RegistryAuth) -> Result<String> {
        registry::login(&self.http, auth).await
    }

    async fn load(&self, archive: BoxRead, progress: ProgressSink) -> Result<Vec<Arc<Image>>> {
        let archive = SyncIoBridge::new(archive);
        self.blocking(move |store| load::load(store, archive, Time::now(), &progress))
            .await
    }

    async fn save(&self, names: &[String]) -> Result<BoxRead> {
        save::save(&self.store, names)
    }

    async fn offer(&self, name: &str) -> Result<ImageOffer> {
        receive::offer(&self.store, name)
    }

    async fn content(&self, digest: &str, from: u64) -> Result<(u64, BoxRead)> {
        receive::content(&self.store, digest, from).await
    }

    async fn take_over(
        &self,
        offer: &ImageOffer,
        name: &Reference,
        content: Arc<dyn Content>,
        progress: ProgressSink,
    ) -> Result<Arc<Image>> {
        receive::take_over(&self.store, offer, name, content, &progress).await
    }

    async fn import(
        &self,
        archive: BoxRead,
        name: Option<Reference>,
        changes: ConfigChanges,
        message: String,
        platform: Option<Platform>,
    ) -> Result<Arc<Image>> {
        let config = instructions::apply(ImageConfig::default(), &changes)?;
        let archive = SyncIoBridge::new(archive);
        self.blocking(move |store| {
            make::import(
                store,
                archive,
                name.as_ref(),
                config,
                message,
                platform,
                Time::now(),
            )
        })
        .await
    }

    async fn commit(
        &self,
        container: &str,
        image_id: &str,
        config: ImageConfig,
        author: String,
        message: String,
        name: Option<Reference>,
    ) -> Result<Arc<Image>> {
        let (container, image_id) = (container.to_owned(), image_id.to_owned());
        let commit = make::Commit {
            container,
            image_id,
            config,
            author,
            message,
            name,
        };
        self.blocking(move |store| make::commit(store, commit, Time::now()))
            .await
    }

    fn apply_changes(&self, config: ImageConfig, changes: &[String]) -> Result<ImageConfig> {
        instructions::apply(config, changes)
    }

    async fn tag(&self, image: &str, name: &Reference) -> Result<()> {
        let (image, name) = (image.to_owned(), name.clone());
        self.blocking(move |store| names::tag(store, &image, &name, Time::now()))
            .await
    }

    async fn remove(
        &self,
        name: &str,
        force: bool,
        prune_parents: bool,
        in_use: &[String],
    ) -> Result<Vec<Removed>> {
        let (name, in_use) = (name.to_owned(), in_use.to_vec());
        self.blocking(move |store| names::remove(store, &name, force, prune_parents, &in_use))
            .await
    }

    async fn prune(&self, image_ids: &[String]) -> Result<(Vec<Removed>, u64)> {
        let ids = image_ids.to_vec();
        self.blocking(move |store| names::prune(store, &ids)).await
    }

    async fn usage(&self) -> Result<ImageUsage> {
        Ok(self.store.usage())
    }

    async fn prepare(&self, container: &str, image_id: &str) -> Result<()> {
        let (container, image) = (container.to_owned(), image_id.to_owned());
        self.blocking(move |store| store.prepare(&container, &image))
            .await
    }

    async fn mount(&self, container: &str) -> Result<Rootfs> {
        let snapshot = self.store.snapshots.get(container)?;
        self.blocking(move |_| snapshot.mount()).await
    }

    fn rootfs(&self, container: &str) -> Result<Rootfs> {
        Ok(self.store.snapshots.get(container)?.rootfs())
    }

    async fn unmount(&self, container: &str) -> Result<()> {
        let Ok(snapshot) = self.store.snapshots.get(container) else {
            return Ok(());
        };
        self.blocking(move |_| snapshot.unmount()).await
    }

    async fn discard(&self, container: &str) -> Result<()> {
        let container = container.to_owned();
        self.blocking(move |store| store.discard(&container)).await
    }

    async fn snapshots(&self) -> Result<Vec<String>> {
        Ok(self.store.snapshots.list())
    }

    async fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let snapshot = self.store.snapshots.get(container)?;
        self.blocking(move |_| changes::changes(&snapshot.upper(), &snapshot.lower))
            .await
    }

    async fn export(&self, container: &str) -> Result<BoxRead> {
        let snapshot = self.store.snapshots.get(container)?;
        self.blocking(move |_| files::export(&snapshot)).await
    }

    async fn container_size(&self, container: &str) -> Result<(u64, u64)> {
        let snapshot = self.store.snapshots.get(container)?;
        self.blocking(move |store| files::size(store, &snapshot)).await
    }

    async fn resolve_user(&self, container: &str, user: &str) -> Result<(u32, u32, Vec<u32>, String)> {
        let (snapshot, user) = (self.store.snapshots.get(container)?, user.to_owned());
        self.blocking(move |_| {
            let mounted = snapshot.borrow()?;
            users::resolve_in(&mounted.root(), &user)
        })
        .await
    }

    async fn stat_path(
        &self,
        container: &str,
        overlays: &[(String, PathBuf)],
        path: &str,
    ) -> Result<PathStat> {
        let snapshot = self.store.snapshots.get(container)?;
        let (container, overlays, path) = (container.to_owned(), overlays.to_vec(), path.to_owned());
        self.blocking(move |_| {
            let mounted = snapshot.borrow()?;
            files::stat(&mounted.root(), &overlays, &container, &path)
        })
        .await
    }

    async fn read_path(
        &self,
        container: &str,
        overlays: &[(String, PathBuf)],
        path: &str,
    ) -> Result<(PathStat, BoxRead)> {
        let snapshot = self.store.snapshots.get(container)?;
        let (container, overlays, path) = (container.to_owned(), overlays.to_vec(), path.to_owned());
        self.blocking(move |_| files::read(&snapshot, &overlays, &container, &path))
            .await
    }

    async fn write_path(
        &self,
        container: &str,
        overlays: &[(String, PathBuf)],
        path: &str,
        archive: BoxRead,
        no_overwrite_dir_non_dir: bool,
        // Owners always come from the archive: clients that do not want them send their own.
        _copy_uid_gid: bool,
    ) -> Result<()> {
        let snapshot = self.store.snapshots.get(container)?;
        let (container, overlays, path) = (container.to_owned(), overlays.to_vec(), path.to_owned());
        let archive = SyncIoBridge::new(archive);
        self.blocking(move |_| {
            files::write(
                &snapshot,
                &overlays,
                &container,
                &path,
                archive,
                no_overwrite_dir_non_dir,
            )
        })
        .await
    }

    async fn copy_up(&self, container: &str, path: &str, into: PathBuf) -> Result<()> {
        let (snapshot, path) = (self.store.snapshots.get(container)?, path.to_owned());
        self.blocking(move |_| files::copy_up(&snapshot, &path, &into))
            .await
    }

    fn events(&self) -> BoxStream<(String, String, Vec<(String, String)>)> {
        // A listener that fell behind goes on with what comes next.
        BroadcastStream::new(self.store.events.subscribe())
            .filter_map(|e| async { e.ok() })
            .boxed()
    }
}
