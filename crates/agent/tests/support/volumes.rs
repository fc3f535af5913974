//! Volumes in memory, with their users counted: dropping a use that was never taken is a fault.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tripod_agent::ports::Volumes;
use tripod_model::volume::Volume;
use tripod_model::{Error, Result};

use super::{BARRIER, Script};

/// The double of the volumes.
pub struct FakeVolumes {
    script: Arc<Script>,
    users: Mutex<BTreeMap<String, usize>>,
}

impl FakeVolumes {
    pub fn new(script: Arc<Script>) -> Self {
        Self {
            script,
            users: Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.users.lock().unwrap()
    }

    /// Volumes and how many containers have them mounted.
    pub fn all(&self) -> BTreeMap<String, usize> {
        self.lock().clone()
    }

    /// A new daemon counts: nobody has told it of users yet.
    pub fn reset(&self) {
        self.lock().values_mut().for_each(|n| *n = 0);
    }

    fn path(name: &str) -> PathBuf {
        PathBuf::from(format!("/volumes/{name}/_data"))
    }
}

#[async_trait]
impl Volumes for FakeVolumes {
    async fn create(&self, name: &str, _: &BTreeMap<String, String>) -> Result<PathBuf> {
        if name != BARRIER {
            self.script.step("volumes.create", name).await?;
        }
        self.lock().insert(name.to_owned(), 0);
        Ok(Self::path(name))
    }

    async fn mount(&self, volume: &Volume) -> Result<PathBuf> {
        self.script.step("volumes.mount", &volume.name).await?;
        // A failure for one volume only, whatever the order in which they are mounted.
        self.script
            .step(&format!("volumes.mount {}", volume.name), "")
            .await?;
        match self.lock().get_mut(&volume.name) {
            Some(users) => *users += 1,
            None => return Err(Error::not_found("no such volume")),
        }
        Ok(Self::path(&volume.name))
    }

    async fn unmount(&self, volume: &Volume) -> Result<()> {
        self.script.step("volumes.unmount", &volume.name).await?;
        match self.lock().get_mut(&volume.name) {
            Some(users) if *users > 0 => *users -= 1,
            _ => self
                .script
                .fault(format!("volume {} unmounted without a user", volume.name)),
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        if name != BARRIER {
            self.script.step("volumes.remove", name).await?;
        }
        if self.lock().remove(name).is_some_and(|users| users > 0) {
            self.script.fault(format!("volume {name} removed while mounted"));
        }
        Ok(())
    }

    async fn is_empty(&self, _: PathBuf) -> Result<bool> {
        Ok(true)
    }

    async fn mount_at(&self, dir: &std::path::Path, kind: &str, _: &str, _: &str) -> Result<()> {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        self.script
            .step("volumes.mount_at", &format!("{kind} {name}"))
            .await
    }

    async fn unmount_at(&self, _: &std::path::Path) -> Result<()> {
        Ok(())
    }

    fn filesystem(&self, _: &std::path::Path) -> Result<tripod_model::door::FilesystemUsage> {
        Ok(tripod_model::door::FilesystemUsage::default())
    }

    async fn size(&self, _: &str) -> Result<u64> {
        Ok(0)
    }
}
