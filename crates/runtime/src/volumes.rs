//! Volumes of the `local` driver: `<root>/<name>/_data`, plain directories or what mount(2) puts there.

use std::collections::{BTreeMap, HashMap};
use std::net::ToSocketAddrs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rustix::mount::{MountFlags, MountPropagationFlags};
use tripod_agent::ports::Volumes;
use tripod_model::door::FilesystemUsage;
use tripod_model::volume::Volume;
use tripod_model::{Error, Result};

use crate::images::{beneath, overlay, size::tree_size};

/// Where a removed volume waits to be emptied.
const TRASH: &str = ".removed-";

/// The node's volumes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct VolumeStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Users of the volumes that are mounted. Held while mounting, so that two users mount once.
    users: Mutex<HashMap<String, usize>>,
}

impl VolumeStore {
    /// Opens (or makes) the store below a directory. Blocks.
    pub fn open(root: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(root)?;
        let root = root.canonicalize()?;
        for entry in std::fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(TRASH.as_bytes()) {
                beneath::remove_path(&entry.path())?;
            }
        }
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                users: Mutex::default(),
            }),
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|e| Error::internal(format!("volumes: {e}")))?
    }
}

#[async_trait]
impl Volumes for VolumeStore {
    async fn create(&self, name: &str, options: &BTreeMap<String, String>) -> Result<PathBuf> {
        check_name(name)?;
        check_options(options)?;
        let name = name.to_owned();
        self.blocking(move |inner| {
            let data = inner.data(&name);
            std::fs::create_dir_all(&data)?;
            // Every container may have a user of its own in it, whatever the daemon's umask.
            let mode = rustix::fs::Mode::from_raw_mode(0o755);
            for dir in [data.as_path(), data.parent().unwrap_or(&data)] {
                let mode = if dir == data {
                    mode
                } else {
                    rustix::fs::Mode::from_raw_mode(0o701)
                };
                rustix::fs::chmod(dir, mode).map_err(|e| beneath::fault(e, dir.display()))?;
            }
            Ok(data)
        })
        .await
    }

    async fn mount(&self, volume: &Volume) -> Result<PathBuf> {
        check_name(&volume.name)?;
        let volume = volume.clone();
        self.blocking(move |inner| inner.mount(&volume)).await
    }

    async fn unmount(&self, volume: &Volume) -> Result<()> {
        check_name(&volume.name)?;
        let volume = volume.clone();
        self.blocking(move |inner| inner.unmount(&volume)).await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let name = name.to_owned();
        self.blocking(move |inner| {
            let dir = inner.root.join(&name);
            overlay::unmount_all(&dir.join("_data"));
            let trash = inner.root.join(format!("{TRASH}{name}-{}", std::process::id()));
            match std::fs::rename(&dir, &trash) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e.into()),
            }
            inner.users.lock().expect("users").remove(&name);
            beneath::remove_path(&trash)
        })
        .await
    }

    async fn is_empty(&self, path: PathBuf) -> Result<bool> {
        self.blocking(move |_| {
            let dir = beneath::open_dir(&path)?;
            Ok(beneath::names(dir.as_fd())
                .map_err(|e| beneath::fault(e, path.display()))?
                .is_empty())
        })
        .await
    }

    async fn mount_at(&self, dir: &Path, kind: &str, source: &str, options: &str) -> Result<()> {
        let all = [("type", kind), ("device", source), ("o", options)];
        let all: BTreeMap<String, String> = all.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let dir = dir.to_owned();
        self.blocking(move |_| match overlay::is_mounted(&dir) {
            true => Ok(()),
            false => mount_options(&dir, &all),
        })
        .await
    }

    async fn unmount_at(&self, dir: &Path) -> Result<()> {
        let dir = dir.to_owned();
        self.blocking(move |_| overlay::detach(&dir).map(drop)).await
    }

    fn filesystem(&self, path: &Path) -> Result<FilesystemUsage> {
        let fs = rustix::fs::statvfs(path).map_err(std::io::Error::from)?;
        Ok(FilesystemUsage {
            capacity: fs.f_blocks * fs.f_frsize,
            available: fs.f_bavail * fs.f_frsize,
            inodes: fs.f_files,
            inodes_free: fs.f_favail,
        })
    }

    async fn size(&self, name: &str) -> Result<u64> {
        check_name(name)?;
        let name = name.to_owned();
        self.blocking(move |inner| tree_size(&inner.data(&name))).await
    }
}

impl Inner {
    fn data(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    fn mount(&self, volume: &Volume) -> Result<PathBuf> {
        let data = self.data(&volume.name);
        if !data.is_dir() {
            return Err(Error::not_found(format!("no such volume: {}", volume.name)));
        }
        if volume.options.is_empty() {
            return Ok(data);
        }
        let mut users = self.users.lock().expect("users");
        // A former daemon may have mounted it.
        if !overlay::is_mounted(&data) {
            mount_options(&data, &volume.options)
                .map_err(|e| e.context(format!("error while mounting volume '{}'", data.display())))?;
        }
        *users.entry(volume.name.clone()).or_default() += 1;
        Ok(data)
    }

    fn unmount(&self, volume: &Volume) -> Result<()> {
        if volume.options.is_empty() {
            return Ok(());
        }
        let mut users = self.users.lock().expect("users");
        let left = users.get(&volume.name).map_or(0, |n| n.saturating_sub(1));
        if left > 0 {
            users.insert(volume.name.clone(), left);
            return Ok(());
        }
        users.remove(&volume.name);
        overlay::detach(&self.data(&volume.name)).map(drop)
    }
}

fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() < 2 {
        return Err(Error::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    if !name.chars().all(good) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || name.len() > 255 {
        return Err(Error::invalid(format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
             If you intended to pass a host directory, use absolute path"
        )));
    }
    Ok(())
}

fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    for key in options.keys() {
        match key.as_str() {
            "type" | "device" | "o" => {}
            "size" => return Err(Error::invalid("quota size requested but no quota support")),
            _ => return Err(Error::invalid(format!("invalid option: {key:?}"))),
        }
    }
    if !options.is_empty() {
        for needed in ["device", "type"] {
            if options.get(needed).is_none_or(String::is_empty) {
                return Err(Error::invalid(format!("missing required option: {needed:?}")));
            }
        }
    }
    Ok(())
}

/// Flags, propagation and what is left for the filesystem.
fn parse_options(o: &str) -> (MountFlags, MountPropagationFlags, Vec<String>) {
    let (mut flags, mut propagation, mut data) =
        (MountFlags::empty(), MountPropagationFlags::empty(), Vec::new());
    for word in o.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        let recursive = if word.starts_with('r') {
            MountPropagationFlags::REC
        } else {
            MountPropagationFlags::empty()
        };
        match word {
            "defaults" | "rw" | "suid" | "dev" | "exec" | "async" | "atime" | "diratime" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "bind" => flags |= MountFlags::BIND,
            "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
            "private" | "rprivate" => propagation = MountPropagationFlags::PRIVATE | recursive,
            "shared" | "rshared" => propagation = MountPropagationFlags::SHARED | recursive,
            "slave" | "rslave" => propagation = MountPropagationFlags::DOWNSTREAM | recursive,
            "unbindable" | "runbindable" => propagation = MountPropagationFlags::UNBINDABLE | recursive,
            other => data.push(other.to_owned()),
        }
    }
    (flags, propagation, data)
}

fn mount_options(target: &Path, options: &BTreeMap<String, String>) -> Result<()> {
    let get = |key: &str| options.get(key).map_or("", String::as_str);
    let (kind, device) = (get("type"), get("device"));
    let (flags, propagation, mut data) = parse_options(get("o"));
    if kind.starts_with("nfs") || kind == "cifs" {
        // The kernel wants a number where people write a name.
        for word in &mut data {
            if let Some(host) = word.strip_prefix("addr=") {
                *word = format!("addr={}", resolve(host)?);
            }
        }
    }
    let data = std::ffi::CString::new(data.join(",")).map_err(|_| Error::invalid("invalid mount option"))?;
    let failed = |e: rustix::io::Errno| {
        let text = std::io::Error::from_raw_os_error(e.raw_os_error());
        Error::internal(format!(
            "failed to mount local volume: mount {device}:{}: {text}",
            target.display()
        ))
    };
    rustix::mount::mount(device, target, kind, flags, Some(data.as_c_str())).map_err(failed)?;
    let rest = flags - MountFlags::REC;
    let finish = || -> rustix::io::Result<()> {
        // A bind mount takes further flags only when it is there.
        if rest.contains(MountFlags::BIND) && rest != MountFlags::BIND {
            rustix::mount::mount_remount(target, rest, "")?;
        }
        if !propagation.is_empty() {
            rustix::mount::mount_change(target, propagation)?;
        }
        Ok(())
    };
    finish().map_err(|e| {
        overlay::unmount_all(target);
        failed(e)
    })
}

fn resolve(host: &str) -> Result<String> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    let found = (host, 0).to_socket_addrs().ok().and_then(|mut a| a.next());
    let found = found.ok_or_else(|| {
        Error::invalid(format!(
            "error resolving passed in network volume address: lookup {host}: no such host"
        ))
    })?;
    Ok(found.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_options() {
        assert!(check_name("data_1.x-y").is_ok());
        for bad in ["a", "../x", ".hidden", "a/b", "-x"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        let options = |pairs: &[(&str, &str)]| {
            check_options(
                &pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            )
        };
        assert!(options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]).is_ok());
        assert_eq!(
            options(&[("foo", "x")]).unwrap_err().message,
            "invalid option: \"foo\""
        );
        assert_eq!(
            options(&[("type", "nfs")]).unwrap_err().message,
            "missing required option: \"device\""
        );
        let (flags, propagation, data) = parse_options("ro,rbind,rslave,uid=5");
        assert_eq!(flags, MountFlags::RDONLY | MountFlags::BIND | MountFlags::REC);
        assert_eq!(
            propagation,
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC
        );
        assert_eq!(data, ["uid=5"]);
    }

    #[tokio::test]
    async fn directories_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = VolumeStore::open(dir.path()).unwrap();
        let path = store.create("data", &BTreeMap::new()).await.unwrap();
        assert!(store.is_empty(path.clone()).await.unwrap());
        std::fs::write(path.join("f"), "12345").unwrap();
        assert!(!store.is_empty(path.clone()).await.unwrap());
        assert_eq!(store.size("data").await.unwrap(), 5);
        store.remove("data").await.unwrap();
        store.remove("data").await.unwrap();
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
