//! Writable layers of containers: `snapshots/<container>/{upper,work,merged}`, and a link `image` that names the
//! image (a link, because it is made in one step and lives in the directory's own metadata).

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, mpsc};

use tripod_agent::ports::Rootfs;
use tripod_model::{Error, Result};

use super::beneath;
use super::blobs::Paths;
use super::overlay::{self, Stack};

/// One container's writable layer.
#[derive(Debug)]
pub(crate) struct Snapshot {
    dir: PathBuf,
    pub(crate) image: String,
    pub(crate) lower: Vec<PathBuf>,
    state: Mutex<State>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The agent wants it mounted.
    wanted: bool,
    /// Operations that need it mounted for a while (`docker cp` of a stopped container).
    users: usize,
    /// A former mount of it is still being written out.
    closing: bool,
    gone: bool,
}

impl Snapshot {
    fn new(dir: PathBuf, image: String, lower: Vec<PathBuf>) -> Self {
        Self {
            dir,
            image,
            lower,
            state: Mutex::default(),
            closed: Condvar::new(),
        }
    }

    /// Its paths.
    pub(crate) fn rootfs(&self) -> Rootfs {
        Rootfs {
            path: self.dir.join("merged"),
            lower: self.lower.clone(),
            upper: self.dir.join("upper"),
            work: self.dir.join("work"),
        }
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    pub(crate) fn merged(&self) -> PathBuf {
        self.dir.join("merged")
    }

    /// Whether the agent has it mounted, which it has while the container runs.
    pub(crate) fn in_use(&self) -> bool {
        self.state.lock().expect("snapshot").wanted
    }

    fn ensure_mounted(
        &self,
        mut state: std::sync::MutexGuard<'_, State>,
        change: fn(&mut State),
    ) -> Result<()> {
        while state.closing {
            state = self.closed.wait(state).expect("snapshot");
        }
        if state.gone {
            return Err(Error::not_found("the container's root filesystem was removed"));
        }
        let merged = self.merged();
        if !overlay::is_mounted(&merged) {
            let (upper, work) = (self.upper(), self.dir.join("work"));
            overlay::mount(&Stack {
                lower: &self.lower,
                upper: &upper,
                work: &work,
                target: &merged,
            })?;
        }
        change(&mut state);
        Ok(())
    }

    /// Mounts it for the agent.
    pub(crate) fn mount(&self) -> Result<Rootfs> {
        self.ensure_mounted(self.state.lock().expect("snapshot"), |s| s.wanted = true)?;
        Ok(self.rootfs())
    }

    /// Mounts it until the guard is dropped.
    pub(crate) fn borrow(self: &Arc<Self>) -> Result<Borrowed> {
        self.ensure_mounted(self.state.lock().expect("snapshot"), |s| s.users += 1)?;
        Ok(Borrowed(Arc::clone(self)))
    }

    /// Unmounts it for the agent.
    pub(crate) fn unmount(self: &Arc<Self>) -> Result<()> {
        self.release(|s| s.wanted = false)
    }

    fn release(self: &Arc<Self>, change: fn(&mut State)) -> Result<()> {
        let mut state = self.state.lock().expect("snapshot");
        change(&mut state);
        if state.wanted || state.users > 0 || state.gone {
            return Ok(());
        }
        if let Some(held) = overlay::detach(&self.merged())? {
            state.closing = true;
            let this = Arc::clone(self);
            std::thread::Builder::new()
                .name("unmount".into())
                .stack_size(64 * 1024)
                .spawn(move || {
                    drop(held);
                    this.state.lock().expect("snapshot").closing = false;
                    this.closed.notify_all();
                })
                .inspect_err(|_| state.closing = false)?;
        }
        Ok(())
    }
}

/// Keeps a root filesystem mounted.
#[derive(Debug)]
pub(crate) struct Borrowed(Arc<Snapshot>);

impl Borrowed {
    pub(crate) fn root(&self) -> PathBuf {
        self.0.merged()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Err(e) = self.0.release(|s| s.users -= 1) {
            tracing::warn!(error = %e, "cannot unmount a container's root filesystem");
        }
    }
}

/// All writable layers of a node.
#[derive(Debug)]
pub(crate) struct Snapshots {
    paths: Paths,
    by_container: Mutex<HashMap<String, Arc<Snapshot>>>,
    trash: mpsc::Sender<PathBuf>,
}

impl Snapshots {
    /// Finds what a former run left. `lower` tells the layers of an image.
    pub(crate) fn open(paths: &Paths, lower: impl Fn(&str) -> Option<Vec<PathBuf>>) -> Result<Self> {
        let trash = start_reaper()?;
        for old in std::fs::read_dir(&paths.trash)? {
            let _ = trash.send(old?.path());
        }
        let mut by_container = HashMap::new();
        for entry in std::fs::read_dir(&paths.snapshots)? {
            let entry = entry?;
            let (dir, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let image = std::fs::read_link(dir.join("image"))
                .ok()
                .and_then(|i| i.to_str().map(str::to_owned));
            let Some((image, lower)) = image.and_then(|i| lower(&i).map(|l| (i, l))) else {
                tracing::warn!(
                    container = name,
                    "a root filesystem without its image is left alone"
                );
                continue;
            };
            let snapshot = Snapshot::new(dir, image, lower);
            snapshot.state.lock().expect("snapshot").wanted = overlay::is_mounted(&snapshot.merged());
            by_container.insert(name, Arc::new(snapshot));
        }
        Ok(Self {
            paths: paths.clone(),
            by_container: Mutex::new(by_container),
            trash,
        })
    }

    /// Makes the writable layer of a container, unless it is there.
    pub(crate) fn prepare(&self, container: &str, image: &str, lower: Vec<PathBuf>) -> Result<()> {
        if container.is_empty() || container.starts_with('.') || container.contains('/') {
            return Err(Error::invalid(format!("invalid container name {container:?}")));
        }
        if self
            .by_container
            .lock()
            .expect("snapshots")
            .contains_key(container)
        {
            return Ok(());
        }
        let new = self.paths.unique(&self.paths.tmp, "snapshot");
        let dir = self.paths.snapshots.join(container);
        let made = make_dirs(&new, image).and_then(|()| match std::fs::rename(&new, &dir) {
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => beneath::remove_path(&new),
            other => other.map_err(Error::from),
        });
        if let Err(e) = made {
            let _ = beneath::remove_path(&new);
            return Err(e.context("making the container's root filesystem"));
        }
        let snapshot = Snapshot::new(dir, image.to_owned(), lower);
        self.by_container
            .lock()
            .expect("snapshots")
            .entry(container.to_owned())
            .or_insert_with(|| Arc::new(snapshot));
        Ok(())
    }

    /// The writable layer of a container.
    pub(crate) fn get(&self, container: &str) -> Result<Arc<Snapshot>> {
        let found = self
            .by_container
            .lock()
            .expect("snapshots")
            .get(container)
            .cloned();
        found.ok_or_else(|| Error::not_found(format!("no root filesystem for container {container}")))
    }

    /// Takes a writable layer away. The directory leaves its place at once; what is in it goes in the background,
    /// or when the store is next opened.
    pub(crate) fn discard(&self, container: &str) -> Result<()> {
        let Some(snapshot) = self
            .by_container
            .lock()
            .expect("snapshots")
            .get(container)
            .cloned()
        else {
            return Ok(());
        };
        let mut state = snapshot.state.lock().expect("snapshot");
        if !state.gone {
            let to = self.paths.unique(&self.paths.trash, "snapshot");
            std::fs::rename(&snapshot.dir, &to)?;
            state.gone = true;
            let _ = self.trash.send(to);
        }
        drop(state);
        self.by_container.lock().expect("snapshots").remove(container);
        Ok(())
    }

    /// Removes a directory in the background.
    pub(crate) fn bury(&self, path: &Path) -> Result<()> {
        let to = self.paths.unique(&self.paths.trash, "layer");
        std::fs::rename(path, &to)?;
        let _ = self.trash.send(to);
        Ok(())
    }

    /// Containers, in order.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut all: Vec<_> = self
            .by_container
            .lock()
            .expect("snapshots")
            .keys()
            .cloned()
            .collect();
        all.sort_unstable();
        all
    }

    /// A container of an image, a running one if there is.
    pub(crate) fn user_of(&self, image: &str) -> Option<(String, bool)> {
        let all = self.by_container.lock().expect("snapshots");
        let of_image = all
            .iter()
            .filter(|(_, s)| s.image == image)
            .map(|(id, s)| (id.clone(), s.in_use()));
        of_image.max_by_key(|(_, running)| *running)
    }

    /// Whether a container of the image exists.
    pub(crate) fn uses(&self, image: &str) -> bool {
        self.by_container
            .lock()
            .expect("snapshots")
            .values()
            .any(|s| s.image == image)
    }
}

fn make_dirs(new: &Path, image: &str) -> Result<()> {
    let mut private = std::fs::DirBuilder::new();
    private.mode(0o710).create(new)?;
    for name in ["upper", "work", "merged"] {
        private.create(new.join(name))?;
    }
    // The root of the container has the mode of `upper`, whatever the daemon's umask.
    rustix::fs::chmod(new.join("upper"), rustix::fs::Mode::from_raw_mode(0o755))
        .map_err(std::io::Error::from)?;
    std::os::unix::fs::symlink(image, new.join("image"))?;
    Ok(())
}

/// One thread removes what is in the trash, so that many containers that end together do not fight for the disk.
fn start_reaper() -> Result<mpsc::Sender<PathBuf>> {
    let (trash, paths) = mpsc::channel::<PathBuf>();
    std::thread::Builder::new()
        .name("images-trash".into())
        .stack_size(256 * 1024)
        .spawn(move || {
            for path in paths {
                overlay::unmount_all(&path.join("merged"));
                if let Err(e) = beneath::remove_path(&path) {
                    tracing::warn!(path = %path.display(), error = %e, "cannot remove");
                }
            }
        })?;
    Ok(trash)
}
