//! Settling mounts: volumes made, sources checked, anonymous volumes named.

use std::path::{Component, Path, PathBuf};

use tripod_model::container::{ContainerSpec, Mount, MountKind, MountOrigin};
use tripod_model::{Error, Result};

use crate::ports::ResolvedMount;
use crate::record::{ContainerRecord, MountPoint};
use crate::volumes::CreateVolume;
use crate::{Agent, merge};

impl Agent {
    /// Adds the mounts of the containers named by `volumes_from`.
    pub(crate) fn resolve_volumes_from(&self, spec: &mut ContainerSpec) -> Result<()> {
        for entry in spec.volumes_from.clone() {
            let (reference, mode) = entry.split_once(':').unwrap_or((&entry, ""));
            let source = self.container(reference)?;
            for point in &source.mounts {
                if point.mount.kind == MountKind::Tmpfs {
                    continue;
                }
                let read_only = point.mount.read_only || mode == "ro";
                spec.mounts.retain(|m| {
                    m.origin != MountOrigin::Image
                        || merge::clean(&m.target) != merge::clean(&point.mount.target)
                });
                if spec
                    .mounts
                    .iter()
                    .all(|m| merge::clean(&m.target) != merge::clean(&point.mount.target))
                {
                    spec.mounts.push(Mount {
                        read_only,
                        origin: MountOrigin::VolumesFrom,
                        ..point.mount.clone()
                    });
                }
            }
        }
        Ok(())
    }

    /// Makes the volumes that are missing and finds each mount's place on the host. On an error, anonymous volumes
    /// that were made for it are gone again.
    pub(crate) async fn settle_mounts(&self, id: &str, spec: &mut ContainerSpec) -> Result<Vec<MountPoint>> {
        let mut points: Vec<MountPoint> = Vec::new();
        for mount in spec.mounts.clone() {
            if points
                .iter()
                .any(|p| merge::clean(&p.mount.target) == merge::clean(&mount.target))
            {
                self.remove_anonymous(&points).await;
                return Err(Error::invalid(format_args!(
                    "Duplicate mount point: {}",
                    mount.target
                )));
            }
            match self.settle_mount(id, mount).await {
                Ok(point) => points.push(point),
                Err(e) => {
                    self.remove_anonymous(&points).await;
                    return Err(e);
                }
            }
        }
        // Parents before children, so that none is hidden.
        points.sort_by_key(|p| merge::clean(&p.mount.target).matches('/').count());
        Ok(points)
    }

    async fn settle_mount(&self, id: &str, mut mount: Mount) -> Result<MountPoint> {
        if !mount.target.starts_with('/') {
            return Err(Error::invalid(format_args!(
                "invalid mount config for type \"{}\": invalid mount path: '{}' mount path must be absolute",
                kind_word(mount.kind),
                mount.target
            )));
        }
        if merge::clean(&mount.target) == "/" {
            return Err(Error::invalid("invalid specification: destination can't be '/'"));
        }
        let path = match mount.kind {
            MountKind::Tmpfs => String::new(),
            MountKind::Bind => settle_bind(&mount)?,
            MountKind::Image => {
                return Err(Error::not_implemented(
                    "mounts of type image are not implemented by Tripod",
                ));
            }
            MountKind::Volume => {
                let volume = self
                    .create_volume(CreateVolume {
                        name: mount.source.clone(),
                        driver: mount.driver.clone(),
                        options: mount.driver_opts.clone(),
                        labels: mount.volume_labels.clone(),
                    })
                    .await?;
                mount.anonymous |= mount.source.is_empty();
                mount.source.clone_from(&volume.name);
                mount.driver = "local".into();
                self.volume_event(&volume.name, "mount", &[("container", id.to_owned())]);
                volume.mountpoint.clone()
            }
        };
        Ok(MountPoint { mount, path })
    }

    /// The mounts of a container as the runtime takes them, with its volumes mounted: all of them, or none when there
    /// is an error.
    pub(crate) async fn resolved_mounts(&self, record: &ContainerRecord) -> Result<Vec<ResolvedMount>> {
        let mut out = Vec::with_capacity(record.mounts.len());
        for (n, point) in record.mounts.iter().enumerate() {
            match self.resolved_mount(point).await {
                Ok(mount) => out.push(mount),
                Err(e) => {
                    self.release(&record.mounts[..n]).await;
                    return Err(e);
                }
            }
        }
        Ok(out)
    }

    async fn resolved_mount(&self, point: &MountPoint) -> Result<ResolvedMount> {
        let m = &point.mount;
        let source = match m.kind {
            MountKind::Tmpfs | MountKind::Image => None,
            MountKind::Bind => {
                // Docker makes a vanished bind source of `-v` again at each start.
                settle_bind(m)?;
                Some(PathBuf::from(&point.path))
            }
            MountKind::Volume => {
                let volume = self.volume(&m.source)?;
                let root = self.inner.ports.volumes.mount(&volume).await?;
                match beneath(&root, &m.subpath) {
                    Ok(path) => Some(path),
                    Err(e) => {
                        self.release(std::slice::from_ref(point)).await;
                        return Err(e);
                    }
                }
            }
        };
        Ok(ResolvedMount {
            source,
            target: m.target.clone(),
            read_only: m.read_only,
            propagation: m.propagation.clone(),
            non_recursive: m.non_recursive,
            options: tmpfs_options(m),
        })
    }

    /// Counts a container that ran before this daemon among the users of its volumes.
    pub(crate) async fn hold_mounts(&self, record: &ContainerRecord) {
        for point in record.mounts.iter().filter(|p| p.mount.kind == MountKind::Volume) {
            let held = async {
                self.inner
                    .ports
                    .volumes
                    .mount(&*self.volume(&point.mount.source)?)
                    .await
            };
            if let Err(e) = held.await {
                tracing::warn!(
                    "volume {} of {} is not held: {e}",
                    point.mount.source,
                    record.name
                );
            }
        }
    }

    /// Drops the container's use of its volumes.
    pub(crate) async fn release_mounts(&self, record: &ContainerRecord) {
        self.release(&record.mounts).await;
    }

    async fn release(&self, mounts: &[MountPoint]) {
        for point in mounts.iter().filter(|p| p.mount.kind == MountKind::Volume) {
            if let Ok(volume) = self.volume(&point.mount.source)
                && let Err(e) = self.inner.ports.volumes.unmount(&volume).await
            {
                tracing::warn!("volume {} stays mounted: {e}", volume.name);
            }
        }
    }
}

fn settle_bind(mount: &Mount) -> Result<String> {
    if !mount.source.starts_with('/') {
        return Err(Error::invalid(format_args!(
            "invalid mount config for type \"bind\": invalid mount path: '{}' mount path must be absolute",
            mount.source
        )));
    }
    if !Path::new(&mount.source).exists() {
        if !mount.create_source {
            return Err(Error::invalid(format_args!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                mount.source
            )));
        }
        std::fs::create_dir_all(&mount.source).map_err(|e| {
            Error::invalid(format_args!(
                "error while creating mount source path '{}': {e}",
                mount.source
            ))
        })?;
    }
    Ok(mount.source.clone())
}

/// A path below a volume, which must exist and must not leave it, by links either.
fn beneath(root: &Path, subpath: &str) -> Result<PathBuf> {
    if subpath.is_empty() {
        return Ok(root.to_owned());
    }
    let relative = Path::new(subpath);
    if !relative
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
    {
        return Err(Error::invalid(format_args!(
            "subpath must be a relative path within the volume: {subpath}"
        )));
    }
    let full = root.join(relative);
    let real = full
        .canonicalize()
        .map_err(|e| Error::invalid(format_args!("cannot access path {}: {e}", full.display())))?;
    let real_root = root.canonicalize()?;
    if !real.starts_with(&real_root) {
        return Err(Error::invalid(format_args!(
            "subpath leaves the volume: {subpath}"
        )));
    }
    Ok(real)
}

fn tmpfs_options(m: &Mount) -> Vec<String> {
    let mut options = m.tmpfs_options.clone();
    if m.tmpfs_size > 0 {
        options.push(format!("size={}", m.tmpfs_size));
    }
    if m.tmpfs_mode > 0 {
        options.push(format!("mode={:o}", m.tmpfs_mode));
    }
    options
}

/// The word of the Docker API for a kind of mount.
fn kind_word(kind: MountKind) -> &'static str {
    match kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
    }
}
