//! Volumes of the node: which exist, who uses them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tripod_model::container::MountKind;
use tripod_model::volume::Volume;
use tripod_model::{Error, Result, Time};

use crate::record::{ContainerRecord, MountPoint};
use crate::store::Table;
use crate::{Agent, names};

/// Volumes by name.
#[derive(Default)]
pub(crate) struct VolumeTable {
    map: RwLock<HashMap<String, Arc<Volume>>>,
}

/// What is needed to make a volume.
#[derive(Debug, Clone, Default)]
pub struct CreateVolume {
    /// Name; one is made up when it is empty.
    pub name: String,
    /// `local` or empty.
    pub driver: String,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Agent {
    pub(crate) fn load_volumes(&self) -> Result<()> {
        let rows = self.inner.store.load::<Volume>(Table::Volumes)?;
        let mut map = self
            .inner
            .volumes
            .map
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        map.extend(rows.into_iter().map(|(name, v)| (name, Arc::new(v))));
        Ok(())
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        let map = self
            .inner
            .volumes
            .map
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = map.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// One volume.
    pub fn volume(&self, name: &str) -> Result<Arc<Volume>> {
        let map = self
            .inner
            .volumes
            .map
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        map.get(name)
            .cloned()
            .ok_or_else(|| Error::not_found(format_args!("get {name}: no such volume")))
    }

    /// Makes a volume, or returns the one of that name.
    pub async fn create_volume(&self, request: CreateVolume) -> Result<Arc<Volume>> {
        let CreateVolume {
            name,
            driver,
            options,
            labels,
        } = request;
        if !driver.is_empty() && driver != "local" {
            return Err(Error::not_found(format_args!(
                "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
        let anonymous = name.is_empty();
        let name = if anonymous { names::new_id() } else { name };
        check_name(&name)?;
        if let Ok(existing) = self.volume(&name) {
            return Ok(existing);
        }
        let path = self.inner.ports.volumes.create(&name, &options).await?;
        let volume = Arc::new(Volume {
            name: name.clone(),
            driver: "local".into(),
            mountpoint: path.to_string_lossy().into_owned(),
            created_at: Time::now(),
            labels,
            options,
            anonymous,
        });
        self.inner.store.put(Table::Volumes, &name, &*volume).await?;
        let kept = {
            let mut map = self
                .inner
                .volumes
                .map
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            map.entry(name.clone()).or_insert_with(|| volume.clone()).clone()
        };
        self.volume_event(&name, "create", &[]);
        Ok(kept)
    }

    /// Removes a volume that no container uses.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        if let Err(e) = self.volume(name) {
            return if force { Ok(()) } else { Err(e) };
        }
        let users = self.volume_users(name);
        if !users.is_empty() {
            let ids = users.iter().map(|r| r.id.clone()).collect::<Vec<_>>().join(", ");
            return Err(Error::conflict(format_args!(
                "remove {name}: volume is in use - [{ids}]"
            )));
        }
        self.inner.ports.volumes.remove(name).await?;
        self.inner.store.remove(Table::Volumes, name).await?;
        self.inner
            .volumes
            .map
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        self.volume_event(name, "destroy", &[]);
        Ok(())
    }

    /// Containers that mount a volume, running or not.
    pub fn volume_users(&self, name: &str) -> Vec<Arc<ContainerRecord>> {
        let mut users = self.containers();
        users.retain(|r| {
            r.mounts
                .iter()
                .any(|m| m.mount.kind == MountKind::Volume && m.mount.source == name)
        });
        users
    }

    /// Bytes in a volume.
    pub async fn volume_size(&self, name: &str) -> Result<u64> {
        self.inner.ports.volumes.size(name).await
    }

    pub(crate) async fn remove_anonymous(&self, mounts: &[MountPoint]) {
        for m in mounts
            .iter()
            .filter(|m| m.mount.anonymous && m.mount.kind == MountKind::Volume)
        {
            if self.volume_users(&m.mount.source).is_empty()
                && let Err(e) = self.remove_volume(&m.mount.source, true).await
            {
                tracing::warn!("anonymous volume {} stays: {e}", m.mount.source);
            }
        }
    }

    /// Removes an anonymous volume with the container that it was made for.
    pub(crate) async fn remove_volume_of(&self, name: &str) {
        let removed = async {
            self.inner.ports.volumes.remove(name).await?;
            self.inner.store.remove(Table::Volumes, name).await
        };
        match removed.await {
            Ok(()) => {
                self.inner
                    .volumes
                    .map
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(name);
                self.volume_event(name, "destroy", &[]);
            }
            Err(e) => tracing::warn!("anonymous volume {name} stays: {e}"),
        }
    }

    /// Copies what the image has at the mount points of empty volumes into them.
    pub(crate) async fn fill_volumes(&self, record: &ContainerRecord) -> Result<()> {
        let volumes: Vec<_> = record
            .mounts
            .iter()
            .filter(|m| m.mount.kind == MountKind::Volume && !m.mount.no_copy && m.mount.subpath.is_empty())
            .collect();
        for m in volumes {
            let path = PathBuf::from(&m.path);
            if self.volume(&m.mount.source)?.options.is_empty()
                && self.inner.ports.volumes.is_empty(path.clone()).await?
            {
                self.images().copy_up(&record.id, &m.mount.target, path).await?;
            }
        }
        Ok(())
    }

    /// Publishes an event of a volume.
    pub(crate) fn volume_event(&self, name: &str, action: &str, more: &[(&str, String)]) {
        let mut attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        for (key, value) in more {
            attributes.insert((*key).to_owned(), value.clone());
        }
        self.inner.events.emit("volume", action, name, attributes);
    }
}

fn check_name(name: &str) -> Result<()> {
    let ok = name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if ok {
        return Ok(());
    }
    Err(Error::invalid(format_args!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    ))
    .at("Name"))
}
