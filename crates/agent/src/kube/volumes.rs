//! The volumes of a pod on the disk and in memory of its node.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tripod_model::k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, NFSVolumeSource, PersistentVolumeSpec, Volume,
};
use tripod_model::{Error, Result, Time};

use super::atomic;
use super::desc::PodDesc;
use super::env::Addresses;
use super::inputs::Inputs;
use super::payload::{self, Rotation};
use super::quantity::units;
use crate::Agent;

/// Where a pod's volumes are on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Volumes {
    /// By name.
    pub paths: BTreeMap<String, PathBuf>,
    /// Claims that are mounted read-only.
    pub read_only: Vec<String>,
}

/// A volume that could not be made ready.
#[derive(Debug)]
pub(super) struct Failed {
    pub volume: String,
    pub error: Error,
}

impl Agent {
    /// What a pod keeps on disk.
    pub(super) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.options().root.join("pods").join(uid)
    }

    /// What a pod keeps in memory.
    pub(super) fn pod_run_dir(&self, uid: &str) -> PathBuf {
        self.options().run_dir.join("pods").join(uid)
    }

    /// Makes all volumes of a pod ready; those that are stay as they are.
    pub(super) async fn settle_volumes(
        &self,
        desc: &PodDesc,
        inputs: &Inputs,
        addresses: &Addresses,
    ) -> Result<Volumes, Failed> {
        let mut out = Volumes::default();
        // Images are made ready with the containers that mount them.
        for volume in desc.spec.volumes.iter().flatten().filter(|v| v.image.is_none()) {
            let settled = self
                .settle_volume(desc, inputs, addresses, volume, &mut out)
                .await;
            let path = settled.map_err(|error| Failed {
                volume: volume.name.clone(),
                error,
            })?;
            out.paths.insert(volume.name.clone(), path);
        }
        Ok(out)
    }

    async fn settle_volume(
        &self,
        desc: &PodDesc,
        inputs: &Inputs,
        addresses: &Addresses,
        volume: &Volume,
        out: &mut Volumes,
    ) -> Result<PathBuf> {
        if payload::is_data(volume) {
            let dir = self.pod_run_dir(desc.uid()).join("data").join(&volume.name);
            let (files, _) = payload::render(desc, inputs, addresses, volume).await?;
            fs::create_dir_all(&dir)?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
            atomic::write(&dir, &files, fs_group(desc), Time::now())?;
            return Ok(dir);
        }
        if let Some(e) = &volume.empty_dir {
            return self.empty_dir(desc, &volume.name, e).await;
        }
        if let Some(h) = &volume.host_path {
            return host_path(h);
        }
        if let Some(n) = &volume.nfs {
            return self.nfs(desc, &volume.name, n, "").await;
        }
        let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(c), _) => Some((c.claim_name.clone(), c.read_only.unwrap_or(false))),
            (None, Some(_)) => Some((format!("{}-{}", desc.name(), volume.name), false)),
            (None, None) => None,
        };
        let Some((name, read_only)) = claim else {
            return Err(Error::not_implemented("no volume plugin matched"));
        };
        if read_only {
            out.read_only.push(volume.name.clone());
        }
        let claim = inputs
            .claim(desc.namespace(), &name)
            .ok_or_else(|| Error::not_found(format_args!("persistentvolumeclaim \"{name}\" not found")))?;
        let spec = claim.spec.ok_or_else(|| {
            Error::unavailable(format_args!("persistentvolumeclaim \"{name}\" is not bound"))
        })?;
        self.persistent(desc, &volume.name, &spec).await
    }

    async fn empty_dir(&self, desc: &PodDesc, name: &str, e: &EmptyDirVolumeSource) -> Result<PathBuf> {
        let medium = e.medium.as_deref().unwrap_or_default();
        let (memory, huge) = (medium == "Memory", medium.starts_with("HugePages"));
        let dir = match memory || huge {
            true => self.pod_run_dir(desc.uid()).join("memory").join(name),
            false => self.pod_dir(desc.uid()).join("volumes").join(name),
        };
        let fresh = !dir.exists();
        fs::create_dir_all(&dir)?;
        if huge {
            let size = page_size(desc, medium)?;
            let options = format!("mode=1777,pagesize={size}");
            let mounted = self
                .inner
                .ports
                .volumes
                .mount_at(&dir, "hugetlbfs", "nodev", &options);
            mounted.await?;
        }
        if memory {
            let mut options = "mode=1777".to_owned();
            if let Some(size) = e.size_limit.as_ref().and_then(units).filter(|s| *s > 0) {
                options.push_str(&format!(",size={size}"));
            }
            self.inner
                .ports
                .volumes
                .mount_at(&dir, "tmpfs", "tmpfs", &options)
                .await?;
        }
        if fresh {
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
            if let Some(gid) = fs_group(desc) {
                own(&dir, gid, true)?;
            }
        }
        Ok(dir)
    }

    async fn nfs(&self, desc: &PodDesc, name: &str, n: &NFSVolumeSource, more: &str) -> Result<PathBuf> {
        let dir = self.pod_run_dir(desc.uid()).join("mounts").join(name);
        fs::create_dir_all(&dir)?;
        let mut options = format!("addr={}", n.server);
        if !more.contains("vers=") {
            options.push_str(",vers=4");
        }
        for word in [more, if n.read_only.unwrap_or(false) { "ro" } else { "" }] {
            if !word.is_empty() {
                options.push(',');
                options.push_str(word);
            }
        }
        let device = format!("{}:{}", n.server, n.path);
        self.inner
            .ports
            .volumes
            .mount_at(&dir, "nfs", &device, &options)
            .await?;
        Ok(dir)
    }

    async fn persistent(&self, desc: &PodDesc, name: &str, spec: &PersistentVolumeSpec) -> Result<PathBuf> {
        if let Some(n) = &spec.nfs {
            let options = spec.mount_options.clone().unwrap_or_default().join(",");
            return self.nfs(desc, name, n, &options).await;
        }
        let path = match (&spec.local, &spec.host_path) {
            (Some(l), _) => {
                let path = PathBuf::from(&l.path);
                // The built-in provisioner's volumes are made where they are first used.
                if path.starts_with(self.options().root.parent().unwrap_or(Path::new("/"))) {
                    fs::create_dir_all(&path)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
                }
                if !path.exists() {
                    return Err(Error::not_found(format_args!(
                        "path \"{}\" does not exist",
                        l.path
                    )));
                }
                path
            }
            (None, Some(h)) => {
                let fresh = !Path::new(&h.path).exists();
                let path = host_path(h)?;
                // A provisioned volume belongs to whoever uses it.
                if fresh {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
                }
                path
            }
            (None, None) => {
                return Err(Error::not_implemented("no volume plugin matched"));
            }
        };
        if let Some(gid) = fs_group(desc).filter(|_| spec.local.is_some()) {
            let policy = desc.spec.security_context.as_ref();
            let policy = policy.and_then(|s| s.fs_group_change_policy.as_deref());
            let root = fs::metadata(&path)?;
            let matches = root.gid() == gid && root.mode() & 0o2770 == 0o2770;
            if !(policy == Some("OnRootMismatch") && matches) {
                own(&path, gid, true)?;
            }
        }
        Ok(path)
    }

    /// Brings the files of ConfigMaps, Secrets, the downward API and tokens up to date; when to look again.
    pub(super) async fn refresh_volumes(
        &self,
        desc: &PodDesc,
        inputs: &Inputs,
        addresses: &Addresses,
    ) -> Rotation {
        let mut again = None;
        for volume in desc.spec.volumes.iter().flatten().filter(|v| payload::is_data(v)) {
            let dir = self.pod_run_dir(desc.uid()).join("data").join(&volume.name);
            if !dir.exists() {
                continue;
            }
            match payload::render(desc, inputs, addresses, volume).await {
                Ok((files, rotation)) => {
                    again = payload::sooner(again, rotation);
                    if let Err(e) = atomic::write(&dir, &files, fs_group(desc), Time::now()) {
                        tracing::warn!("volume {} of {} stays as it was: {e}", volume.name, desc.key());
                    }
                }
                // What is gone from the store stays in running pods.
                Err(e) => tracing::debug!("volume {} of {} stays as it was: {e}", volume.name, desc.key()),
            }
        }
        again
    }

    /// Takes everything away that a pod kept.
    pub(super) async fn remove_volumes(&self, uid: &str) {
        let run = self.pod_run_dir(uid);
        self.drop_image_volumes(uid).await;
        for kind in ["memory", "mounts"] {
            for entry in fs::read_dir(run.join(kind)).into_iter().flatten().flatten() {
                if let Err(e) = self.inner.ports.volumes.unmount_at(&entry.path()).await {
                    tracing::warn!("{} stays mounted: {e}", entry.path().display());
                    return;
                }
            }
        }
        for dir in [run, self.pod_dir(uid)] {
            match fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!("{} stays: {e}", dir.display());
                }
                _ => {}
            }
        }
    }
}

/// The size of the pages of a volume in huge pages, as the kernel writes it (`2M`): the medium's, or the only one that
/// the pod's containers ask for.
fn page_size(desc: &PodDesc, medium: &str) -> Result<String> {
    let named = medium.strip_prefix("HugePages-").map(str::to_owned);
    let asked = desc
        .containers
        .iter()
        .filter_map(|c| c.container.resources.as_ref());
    let asked = asked.flat_map(|r| [&r.requests, &r.limits]).flatten();
    let mut sizes: Vec<String> = asked
        .flat_map(|list| list.keys())
        .filter_map(|name| name.strip_prefix("hugepages-").map(str::to_owned))
        .chain(named.clone())
        .collect();
    sizes.sort();
    sizes.dedup();
    match (named, sizes.as_slice()) {
        (Some(size), _) => Ok(size.trim_end_matches('i').to_owned()),
        (None, [size]) => Ok(size.trim_end_matches('i').to_owned()),
        (None, []) => Err(Error::invalid("the pod asks for no huge pages")),
        (None, _) => Err(Error::invalid(
            "medium `HugePages` cannot be used with huge pages of several sizes",
        )),
    }
}

/// Where the built-in provisioner's volumes are.
const PROVISIONED: &str = "/var/lib/tripod/volumes/kubernetes";

/// Removes the directories of provisioned volumes that nobody claims any more; nothing else is ever removed.
pub(crate) fn reclaim(dirs: &[String]) {
    for dir in dirs.iter().map(Path::new) {
        let own = dir.parent() == Some(Path::new(PROVISIONED))
            && dir
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("pvc-"));
        if !own {
            tracing::warn!("{} is no provisioned volume: it stays", dir.display());
            continue;
        }
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{} stays: {e}", dir.display());
            }
            _ => {}
        }
    }
}

/// The group that owns a pod's volumes.
pub(super) fn fs_group(desc: &PodDesc) -> Option<u32> {
    let group = desc.spec.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Gives a tree to a group, which may read and write it.
fn own(path: &Path, gid: u32, root: bool) -> std::io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.file_type().is_symlink() {
        return std::os::unix::fs::lchown(path, None, Some(gid));
    }
    chown(path, None, Some(gid))?;
    let add = if meta.is_dir() { 0o2770 } else { 0o660 };
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o7777 | add))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)?.flatten() {
            match own(&entry.path(), gid, false) {
                // It went meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && !root => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn host_path(h: &HostPathVolumeSource) -> Result<PathBuf> {
    let path = PathBuf::from(&h.path);
    let kind = h.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::File::create(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        // Unchecked paths are made by the runtime of other systems too.
        "" if !path.exists() => fs::create_dir_all(&path)?,
        _ => {}
    }
    let found = fs::metadata(&path).map(|m| m.file_type());
    let holds = |what: &dyn Fn(&fs::FileType) -> bool| found.as_ref().is_ok_and(what);
    let fits = match kind {
        "" => true,
        "Directory" | "DirectoryOrCreate" => holds(&|t| t.is_dir()),
        "File" | "FileOrCreate" => holds(&|t| t.is_file()),
        "Socket" => holds(&|t| t.is_socket()),
        "CharDevice" => holds(&|t| t.is_char_device()),
        "BlockDevice" => holds(&|t| t.is_block_device()),
        _ => false,
    };
    if fits {
        return Ok(path);
    }
    let what = match kind {
        "Directory" | "DirectoryOrCreate" => "a directory",
        "File" | "FileOrCreate" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        "BlockDevice" => "a block device",
        _ => return Err(Error::invalid(format_args!("hostPath type {kind} is unknown"))),
    };
    Err(Error::invalid(format_args!(
        "hostPath type check failed: {} is not {what}",
        h.path
    )))
}

/// A path below a volume, made as a directory when it is missing; links never lead out.
pub(super) fn beneath(root: &Path, sub: &str) -> Result<PathBuf> {
    let outside = || {
        Error::invalid(format_args!(
            "failed to create subPath directory for volumeMount: subPath \"{sub}\" leads out of its volume"
        ))
    };
    if sub.is_empty() {
        return Ok(root.to_owned());
    }
    if sub.starts_with('/') || sub.split('/').any(|p| p == "..") {
        return Err(outside());
    }
    let root = root.canonicalize()?;
    let mut at = root.clone();
    for part in sub.split('/').filter(|p| !p.is_empty() && *p != ".") {
        at.push(part);
        if fs::symlink_metadata(&at).is_err() {
            let mode = fs::metadata(&root).map_or(0o755, |m| m.mode() & 0o7777);
            fs::create_dir(&at)?;
            fs::set_permissions(&at, fs::Permissions::from_mode(mode))?;
        }
        at = at.canonicalize()?;
        if !at.starts_with(&root) {
            return Err(outside());
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("v");
        fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        assert!(beneath(&root, "a/b").unwrap().ends_with("v/a/b"));
        assert!(root.join("a/b").is_dir());
        for bad in ["../x", "/etc", "out/passwd", "a/../../x"] {
            assert!(beneath(&root, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_paths_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, kind: &str| {
            host_path(&HostPathVolumeSource {
                path: dir.path().join(name).to_string_lossy().into_owned(),
                type_: Some(kind.into()),
            })
        };
        assert!(at("d", "DirectoryOrCreate").unwrap().is_dir());
        assert!(at("f", "FileOrCreate").unwrap().is_file());
        assert!(at("d", "Directory").is_ok());
        assert!(at("d", "File").unwrap_err().message.contains("is not a file"));
        assert!(at("none", "Directory").is_err());
        assert!(at("f", "Socket").is_err());
    }
}
