//! Images and snapshots in memory. What the agent itself never asks for is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use tripod_agent::ports::*;
use tripod_model::image::{Image, ImageConfig, ImageOffer, Platform, RegistryAuth};
use tripod_model::reference::Reference;
use tripod_model::{Error, Result};

use super::Script;

#[derive(Default)]
struct State {
    images: BTreeMap<String, Arc<Image>>,
    /// What a registry would give.
    remote: BTreeMap<String, Arc<Image>>,
    /// Container → mounted.
    snapshots: BTreeMap<String, bool>,
}

/// The double of the images.
pub struct FakeImages {
    script: Arc<Script>,
    state: Mutex<State>,
}

impl FakeImages {
    pub fn new(script: Arc<Script>) -> Self {
        let images = Self {
            script,
            state: Mutex::default(),
        };
        images.add("web", ImageConfig::default());
        images
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn image(name: &str, config: ImageConfig) -> Arc<Image> {
        Arc::new(Image {
            id: format!("sha256:{name}"),
            tags: vec![format!("{name}:latest")],
            config,
            ..Image::default()
        })
    }

    /// An image of the store.
    pub fn add(&self, name: &str, config: ImageConfig) {
        self.lock()
            .images
            .insert(name.to_owned(), Self::image(name, config));
    }

    /// An image that can be pulled.
    pub fn add_remote(&self, name: &str) {
        let image = Self::image(name, ImageConfig::default());
        self.lock().remote.insert(name.to_owned(), image);
    }

    /// Whether a container's root is mounted; `None` when it has no writable layer.
    pub fn mounted(&self, container: &str) -> Option<bool> {
        self.lock().snapshots.get(container).copied()
    }

    /// Containers with a writable layer.
    pub fn snapshot_ids(&self) -> Vec<String> {
        self.lock().snapshots.keys().cloned().collect()
    }

    /// A writable layer that nobody owns.
    pub fn plant_snapshot(&self, container: &str) {
        self.lock().snapshots.insert(container.to_owned(), false);
    }
}

fn refused<T>() -> Result<T> {
    Err(Error::not_implemented("not asked for in these tests"))
}

#[async_trait]
impl Images for FakeImages {
    async fn list(&self) -> Result<Vec<Arc<Image>>> {
        Ok(self.lock().images.values().cloned().collect())
    }

    async fn get(&self, name: &str) -> Result<Arc<Image>> {
        self.script.step("images.get", name).await?;
        let found = self.lock().images.get(name).cloned();
        found.ok_or_else(|| Error::not_found(format_args!("No such image: {name}")))
    }

    async fn pull(
        &self,
        name: &Reference,
        _: bool,
        _: Option<Platform>,
        _: Option<RegistryAuth>,
        _: ProgressSink,
    ) -> Result<Arc<Image>> {
        let name = name.familiar();
        let name = name.trim_end_matches(":latest");
        self.script.step("images.pull", name).await?;
        let mut state = self.lock();
        let found = state.remote.get(name).cloned();
        let found = found.ok_or_else(|| Error::not_found("pull access denied"))?;
        state.images.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    async fn push(&self, _: &Reference, _: bool, _: Option<RegistryAuth>, _: ProgressSink) -> Result<()> {
        refused()
    }

    async fn inspect_remote(&self, _: &Reference, _: Option<RegistryAuth>) -> Result<Distribution> {
        refused()
    }

    async fn login(&self, _: &RegistryAuth) -> Result<String> {
        refused()
    }

    async fn load(&self, _: BoxRead, _: ProgressSink) -> Result<Vec<Arc<Image>>> {
        refused()
    }

    async fn save(&self, _: &[String]) -> Result<BoxRead> {
        refused()
    }

    async fn offer(&self, _: &str) -> Result<ImageOffer> {
        refused()
    }

    async fn content(&self, _: &str, _: u64) -> Result<(u64, BoxRead)> {
        refused()
    }

    async fn take_over(
        &self,
        offer: &ImageOffer,
        name: &Reference,
        _: Arc<dyn Content>,
        _: ProgressSink,
    ) -> Result<Arc<Image>> {
        let name = name.familiar();
        self.script.step("images.take_over", &name).await?;
        let image = Arc::new(Image {
            id: offer.id.clone(),
            ..Image::default()
        });
        self.lock().images.insert(name, image.clone());
        Ok(image)
    }

    async fn import(
        &self,
        _: BoxRead,
        _: Option<Reference>,
        _: ConfigChanges,
        _: String,
        _: Option<Platform>,
    ) -> Result<Arc<Image>> {
        refused()
    }

    async fn commit(
        &self,
        _: &str,
        _: &str,
        _: ImageConfig,
        _: String,
        _: String,
        _: Option<Reference>,
    ) -> Result<Arc<Image>> {
        refused()
    }

    fn apply_changes(&self, _: ImageConfig, _: &[String]) -> Result<ImageConfig> {
        refused()
    }

    async fn tag(&self, _: &str, _: &Reference) -> Result<()> {
        refused()
    }

    async fn remove(&self, _: &str, _: bool, _: bool, _: &[String]) -> Result<Vec<Removed>> {
        refused()
    }

    async fn prune(&self, _: &[String]) -> Result<(Vec<Removed>, u64)> {
        refused()
    }

    async fn usage(&self) -> Result<ImageUsage> {
        refused()
    }

    async fn prepare(&self, container: &str, _: &str) -> Result<()> {
        self.script.step("images.prepare", container).await?;
        self.lock().snapshots.insert(container.to_owned(), false);
        Ok(())
    }

    async fn mount(&self, container: &str) -> Result<Rootfs> {
        self.script.step("images.mount", container).await?;
        match self.lock().snapshots.get_mut(container) {
            Some(mounted) => *mounted = true,
            None => return Err(Error::not_found("no such snapshot")),
        }
        self.rootfs(container)
    }

    fn rootfs(&self, container: &str) -> Result<Rootfs> {
        Ok(Rootfs {
            path: PathBuf::from(format!("/rootfs/{container}")),
            lower: Vec::new(),
            upper: PathBuf::new(),
            work: PathBuf::new(),
        })
    }

    async fn unmount(&self, container: &str) -> Result<()> {
        self.script.step("images.unmount", container).await?;
        if let Some(mounted) = self.lock().snapshots.get_mut(container) {
            *mounted = false;
        }
        Ok(())
    }

    async fn discard(&self, container: &str) -> Result<()> {
        self.script.step("images.discard", container).await?;
        if self.lock().snapshots.remove(container) == Some(true) {
            self.script.fault(format!("{container} discarded while mounted"));
        }
        Ok(())
    }

    async fn snapshots(&self) -> Result<Vec<String>> {
        Ok(self.snapshot_ids())
    }

    async fn changes(&self, _: &str) -> Result<Vec<Change>> {
        refused()
    }

    async fn export(&self, _: &str) -> Result<BoxRead> {
        refused()
    }

    async fn container_size(&self, _: &str) -> Result<(u64, u64)> {
        Ok((0, 0))
    }

    async fn resolve_user(&self, container: &str, _: &str) -> Result<(u32, u32, Vec<u32>, String)> {
        self.script.step("images.resolve_user", container).await?;
        Err(Error::invalid(
            "unable to find user: no matching entries in passwd file",
        ))
    }

    async fn stat_path(&self, _: &str, _: &[(String, PathBuf)], _: &str) -> Result<PathStat> {
        refused()
    }

    async fn read_path(&self, _: &str, _: &[(String, PathBuf)], _: &str) -> Result<(PathStat, BoxRead)> {
        refused()
    }

    async fn write_path(
        &self,
        _: &str,
        _: &[(String, PathBuf)],
        _: &str,
        _: BoxRead,
        _: bool,
        _: bool,
    ) -> Result<()> {
        refused()
    }

    async fn copy_up(&self, container: &str, _: &str, _: PathBuf) -> Result<()> {
        self.script.step("images.copy_up", container).await
    }

    fn events(&self) -> BoxStream<ImageEvent> {
        futures::stream::pending().boxed()
    }
}
