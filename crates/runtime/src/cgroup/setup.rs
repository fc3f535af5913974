//! Making a container's cgroup.

use std::io;
use std::path::Path;

use tripod_model::{Error, Result};

use super::{Cgroup, Limits, write};

/// Controllers of v2 that are handed down to containers.
const DELEGATED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

impl Cgroup {
    /// Makes it in every hierarchy and sets its limits; what the kernel does not offer is told as a sentence.
    pub(crate) fn create(&self, limits: &Limits) -> Result<Vec<String>> {
        let made = if self.mounts.is_v2() {
            self.create_v2()
        } else {
            self.create_v1()
        };
        made.map_err(|e| Error::internal(format!("cannot make cgroup {}: {e}", self.path.display())))?;
        limits.apply(self)
    }

    fn create_v1(&self) -> io::Result<()> {
        for (names, mount) in &self.mounts.v1 {
            let dir = mount.join(&self.path);
            if names.iter().any(|n| n == "cpuset") {
                make_cpuset(mount, &self.path)?;
            } else {
                make(&dir)?;
            }
        }
        match self.unified() {
            Some(dir) => make(&dir),
            None => Ok(()),
        }
    }

    fn create_v2(&self) -> io::Result<()> {
        let Some(root) = &self.mounts.unified else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut dir = root.clone();
        for part in &self.path {
            enable_controllers(&dir)?;
            dir.push(part);
            match std::fs::create_dir(&dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

fn make(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => std::fs::create_dir_all(dir),
    }
}

/// A v1 cpuset has no processors and no memory nodes until they are written; nothing can join it before.
fn make_cpuset(mount: &Path, path: &Path) -> io::Result<()> {
    let mut parent = mount.to_owned();
    for part in path {
        let dir = parent.join(part);
        if std::fs::create_dir(&dir).is_ok()
            || empty(&dir.join("cpuset.cpus"))
            || empty(&dir.join("cpuset.mems"))
        {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if empty(&dir.join(file)) {
                    std::fs::write(dir.join(file), std::fs::read_to_string(parent.join(file))?.trim())?;
                }
            }
        }
        parent = dir;
    }
    Ok(())
}

fn empty(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|s| s.trim().is_empty())
}

/// Hands down the controllers that a cgroup has and its children shall have. Inside a cgroup namespace the root
/// may hold processes (this one!), which v2 forbids beside children with controllers: they move to a leaf.
fn enable_controllers(dir: &Path) -> io::Result<()> {
    let have = std::fs::read_to_string(dir.join("cgroup.controllers"))?;
    let enabled = std::fs::read_to_string(dir.join("cgroup.subtree_control"))?;
    let missing: Vec<String> = DELEGATED
        .iter()
        .filter(|c| {
            have.split_whitespace().any(|h| h == **c) && !enabled.split_whitespace().any(|e| e == **c)
        })
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let control = dir.join("cgroup.subtree_control");
    match std::fs::write(&control, missing.join(" ")) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            let leaf = dir.join("tripod-init");
            make(&leaf)?;
            for pid in std::fs::read_to_string(dir.join("cgroup.procs"))?.lines() {
                // Kernel threads and processes that ended meanwhile cannot move.
                let _ = std::fs::write(leaf.join("cgroup.procs"), pid);
            }
            std::fs::write(&control, missing.join(" "))
        }
        // A controller that cannot be handed down (cpu with real-time tasks, say) must not take the others along.
        Err(_) => {
            for m in &missing {
                let _ = std::fs::write(&control, m);
            }
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Lets a device cgroup of v1 allow exactly these rules.
pub(super) fn devices(dir: &Path, rules: &[String]) -> Result<()> {
    write(&dir.join("devices.deny"), "a")?;
    for rule in rules {
        write(&dir.join("devices.allow"), rule)?;
    }
    Ok(())
}
