//! Control groups, version 1 (each controller in a hierarchy of its own, also beside a `unified` one) and 2.
//!
//! Paths are relative to the mounts that /proc/self/mountinfo shows, so that a daemon inside a cgroup namespace
//! sees its own root.

mod bpf;
mod limits;
mod setup;
pub(crate) mod stats;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use limits::Limits;
use tripod_model::{Error, Result};

/// Where the hierarchies are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    /// v1: names of the controllers (or `name=…`) and the mount.
    pub(crate) v1: Vec<(Vec<String>, PathBuf)>,
    /// v2.
    pub(crate) unified: Option<PathBuf>,
}

impl Mounts {
    /// Reads this process's mounts.
    pub(crate) fn detect() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut all = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = left.split(' ').nth(4) else {
                continue;
            };
            let point = PathBuf::from(point.replace("\\040", " "));
            let mut fields = right.split(' ');
            match (fields.next(), fields.nth(1)) {
                (Some("cgroup2"), _) if all.unified.is_none() => all.unified = Some(point),
                (Some("cgroup"), Some(options)) => {
                    let names: Vec<String> = options
                        .split(',')
                        .filter(|o| {
                            !matches!(
                                *o,
                                "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "favordynmods"
                            ) && !o.starts_with("release_agent")
                        })
                        .map(str::to_owned)
                        .collect();
                    if !names.is_empty() && !all.v1.iter().any(|(n, _)| *n == names) {
                        all.v1.push((names, point));
                    }
                }
                _ => {}
            }
        }
        all
    }

    /// Whether limits are set by version 2.
    pub(crate) fn is_v2(&self) -> bool {
        self.unified.is_some() && self.controller("memory").is_none() && self.controller("cpu").is_none()
    }

    /// Mount of a v1 controller.
    pub(crate) fn controller(&self, name: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|(n, _)| n.iter().any(|x| x == name))
            .map(|(_, p)| p.as_path())
    }

    /// All mounts in which a container has a directory.
    fn roots(&self) -> impl Iterator<Item = &Path> {
        self.v1
            .iter()
            .map(|(_, p)| p.as_path())
            .chain(self.unified.as_deref())
    }
}

/// The cgroup of one container.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    pub(crate) mounts: std::sync::Arc<Mounts>,
    /// Below each mount, without a leading slash.
    pub(crate) path: PathBuf,
}

impl Cgroup {
    /// The cgroup `PARENT/ID`, or `PARENT` itself.
    pub(crate) fn new(mounts: &std::sync::Arc<Mounts>, parent: &str, id: &str) -> Result<Self> {
        let mut path = PathBuf::new();
        for part in parent.split('/').filter(|p| !p.is_empty() && *p != ".") {
            if part == ".." {
                return Err(
                    Error::invalid(format!("invalid cgroup parent {parent:?}")).at("HostConfig.CgroupParent")
                );
            }
            path.push(part);
        }
        if !id.is_empty() {
            path.push(id);
        }
        Ok(Self {
            mounts: mounts.clone(),
            path,
        })
    }

    /// Directory of a v1 controller.
    pub(crate) fn v1(&self, controller: &str) -> Option<PathBuf> {
        self.mounts.controller(controller).map(|m| m.join(&self.path))
    }

    /// Directory in the v2 hierarchy.
    pub(crate) fn unified(&self) -> Option<PathBuf> {
        self.mounts.unified.as_ref().map(|m| m.join(&self.path))
    }

    /// Path as the OCI spec wants it.
    pub(crate) fn oci_path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// Its directory in each hierarchy of version 1, with the name of that hierarchy's mount.
    pub(crate) fn hierarchies(&self) -> Vec<(String, PathBuf)> {
        let mounts = self.mounts.v1.iter().map(|(_, m)| m);
        mounts
            .filter_map(|m| Some((m.file_name()?.to_str()?.to_owned(), m.join(&self.path))))
            .collect()
    }

    /// All directories.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.mounts.roots().map(|m| m.join(&self.path))
    }

    /// `cgroup.procs` of every hierarchy.
    pub(crate) fn all_procs(&self) -> Vec<PathBuf> {
        self.dirs()
            .filter(|d| d.exists())
            .map(|d| d.join("cgroup.procs"))
            .collect()
    }

    /// The file that counts kills for lack of memory.
    pub(crate) fn oom_file(&self) -> Option<PathBuf> {
        if self.mounts.is_v2() {
            self.unified().map(|d| d.join("memory.events"))
        } else {
            self.v1("memory").map(|d| d.join("memory.oom_control"))
        }
    }

    /// Processes in it (not in cgroups below, which containers may make).
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        let dir = if self.mounts.is_v2() {
            self.unified()
        } else {
            self.v1("pids").or_else(|| self.dirs().next())
        };
        let dir = dir.ok_or_else(|| Error::internal("no cgroup hierarchy is mounted"))?;
        let mut pids = Vec::new();
        collect_pids(&dir, &mut pids)?;
        Ok(pids)
    }

    /// Processes in any of its directories: a helper at work is in some hierarchies only.
    fn members(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        for dir in self.dirs() {
            // Directories that are not there have nobody.
            let _ = collect_pids(&dir, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Whether a directory of it is left.
    pub(crate) fn exists(&self) -> bool {
        self.dirs().any(|d| d.exists())
    }

    /// Kills everything in it.
    #[allow(unsafe_code)]
    pub(crate) fn kill(&self) {
        if let Some(d) = self.unified().filter(|_| self.mounts.is_v2())
            && std::fs::write(d.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for pid in self.members() {
            // SAFETY: plain system call on a process that the kernel just listed in this cgroup.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    /// Freezes or thaws all processes, and waits until that is so.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let (file, word) = if self.mounts.is_v2() {
            (
                self.unified().map(|d| d.join("cgroup.freeze")),
                if frozen { "1" } else { "0" },
            )
        } else {
            (
                self.v1("freezer").map(|d| d.join("freezer.state")),
                if frozen { "FROZEN" } else { "THAWED" },
            )
        };
        let file = file.ok_or_else(|| Error::internal("the freezer cgroup is not mounted"))?;
        write(&file, word)?;
        if frozen && !self.mounts.is_v2() {
            // v1 freezes when the state is read, and may need several tries while processes fork.
            for _ in 0..1000 {
                if std::fs::read_to_string(&file)?.trim() == "FROZEN" {
                    return Ok(());
                }
                write(&file, word)?;
                std::thread::yield_now();
            }
            write(&file, "THAWED")?;
            return Err(Error::internal("the container cannot be frozen"));
        }
        Ok(())
    }

    /// Whether it is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        let (file, word) = if self.mounts.is_v2() {
            (self.unified().map(|d| d.join("cgroup.freeze")), "1")
        } else {
            (self.v1("freezer").map(|d| d.join("freezer.state")), "FROZEN")
        };
        file.and_then(|f| std::fs::read_to_string(f).ok())
            .is_some_and(|s| s.trim() == word)
    }

    /// Removes it; what still runs in it is killed first.
    pub(crate) fn remove(&self) -> io::Result<()> {
        if self.is_frozen() {
            self.kill();
            let _ = self.freeze(false);
        }
        let mut result = Ok(());
        for dir in self.dirs() {
            if let Err(e) = remove_tree(&dir) {
                if e.raw_os_error() != Some(libc::EBUSY) {
                    result = Err(e);
                    continue;
                }
                result = self.retry_remove(&dir);
            }
        }
        result
    }

    /// Killed processes leave their cgroup a moment later; there is no event for it on v1. One that forked meanwhile is
    /// killed with the next round.
    fn retry_remove(&self, dir: &Path) -> io::Result<()> {
        let mut wait = std::time::Duration::from_micros(200);
        loop {
            self.kill();
            match remove_tree(dir) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && wait.as_millis() < 500 => {
                    std::thread::sleep(wait);
                    wait *= 2;
                }
                r => return r,
            }
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(dir)
}

fn collect_pids(dir: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs"))?;
    pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect_pids(&entry.path(), pids)?;
        }
    }
    Ok(())
}

/// Writes a value to a control file; the error names both.
fn write(file: &Path, value: &str) -> Result<()> {
    std::fs::write(file, value).map_err(|e| {
        let text = format!("failed to write {value:?} to {}: {e}", file.display());
        match e.raw_os_error() {
            Some(libc::EINVAL | libc::ERANGE | libc::EBUSY) => Error::invalid(text),
            _ => Error::internal(text),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_are_found() {
        let m = Mounts::parse(HYBRID);
        assert!(!m.is_v2());
        assert_eq!(
            m.controller("cpuacct"),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct"))
        );
        let c = Cgroup::new(&m.into(), "/tripod", "abc").unwrap();
        assert_eq!(
            c.hierarchies().last(),
            Some(&("memory".to_owned(), "/sys/fs/cgroup/memory/tripod/abc".into()))
        );
        let pure = Mounts::parse("1 2 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert!(pure.is_v2());
        assert!(Cgroup::new(&pure.into(), "/../x", "abc").is_err());
    }
}
