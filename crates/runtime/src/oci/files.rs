//! Things on the host that a run needs and that go with it: shared memory that others may join, files of secrets
//! and configs, the working directory.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tripod_model::container::{ContainerSpec, InjectedFile, NamespaceMode};
use tripod_model::{Error, Result};

use crate::spec::user;

fn mount_tmpfs(dir: &Path, options: &str) -> Result<()> {
    let _ = nix::mount::umount2(dir, MntFlags::MNT_DETACH);
    std::fs::create_dir_all(dir)?;
    nix::mount::mount(
        Some("tmpfs"),
        dir,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some(options),
    )
    .map_err(|e| Error::internal(format!("mounting memory at {}: {}", dir.display(), e.desc())))
}

/// Shared memory of a container whose IPC namespace others may join.
pub(super) fn shared_memory(dir: &Path, spec: &ContainerSpec) -> Result<Option<PathBuf>> {
    if spec.security.ipc != NamespaceMode::Shareable {
        return Ok(None);
    }
    let shm = dir.join("shm");
    let size = if spec.security.shm_size > 0 {
        spec.security.shm_size
    } else {
        64 << 20
    };
    mount_tmpfs(&shm, &format!("mode=1777,size={size}"))?;
    Ok(Some(shm))
}

/// Writes secrets (in memory) and configs; what is to be mounted where.
pub(super) fn inject(dir: &Path, root: &Path, files: &[InjectedFile]) -> Result<Vec<(PathBuf, String)>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let (secrets, configs) = (dir.join("secrets"), dir.join("configs"));
    if files.iter().any(|f| f.secret) {
        mount_tmpfs(&secrets, "mode=700")?;
    }
    let _ = std::fs::remove_dir_all(&configs);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&configs)?;
    let mut mounts = Vec::new();
    for (i, f) in files.iter().enumerate() {
        let path = if f.secret { &secrets } else { &configs }.join(i.to_string());
        let mut out = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        std::io::Write::write_all(&mut out, &f.data)?;
        let who = user::resolve(root, &format!("{}:{}", or_zero(&f.uid), or_zero(&f.gid)), &[])?;
        std::os::unix::fs::chown(&path, Some(who.uid), Some(who.gid))?;
        std::fs::set_permissions(
            &path,
            std::os::unix::fs::PermissionsExt::from_mode(f.mode & 0o7777),
        )?;
        mounts.push((path, f.path.clone()));
    }
    Ok(mounts)
}

fn or_zero(s: &str) -> &str {
    if s.is_empty() { "0" } else { s }
}

/// Makes the working directory in the root where it is missing, as Docker does. Links never lead out of the root.
pub(super) fn working_dir(root: &Path, dir: &str) -> Result<()> {
    let open = |at: &rustix::fd::OwnedFd, path: &str| {
        rustix::fs::openat2(
            at,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    };
    let root = rustix::fs::open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| Error::internal(format!("root filesystem: {e}")))?;
    if dir.is_empty() || open(&root, dir).is_ok() {
        return Ok(());
    }
    let mut so_far = String::from("/");
    for part in dir.split('/').filter(|p| !p.is_empty() && *p != ".") {
        let parent = match open(&root, &so_far) {
            Ok(p) => p,
            // Not a directory: the runtime tells it better.
            Err(_) => return Ok(()),
        };
        if part == ".." {
            return Ok(());
        }
        match rustix::fs::mkdirat(&parent, part, Mode::from(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::ROFS) => {}
            Err(e) => {
                return Err(Error::internal(format!(
                    "making the working directory {dir}: {e}"
                )));
            }
        }
        so_far = format!("{}/{part}", so_far.trim_end_matches('/'));
    }
    Ok(())
}

/// Undoes what was mounted for a run.
pub(super) fn release(dir: &Path) {
    for name in ["shm", "secrets"] {
        let path = dir.join(name);
        if path.exists() {
            let _ = nix::mount::umount2(&path, MntFlags::MNT_DETACH);
            let _ = std::fs::remove_dir(&path);
        }
    }
    let _ = std::fs::remove_dir_all(dir.join("configs"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_directories_are_made_inside() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/real", root.path().join("link")).unwrap();
        std::fs::create_dir(root.path().join("real")).unwrap();
        working_dir(root.path(), "/link/a/b").unwrap();
        assert!(root.path().join("real/a/b").is_dir());
        working_dir(root.path(), "/x/../../y").unwrap();
        assert!(!root.path().join("y").exists());
    }
}
