//! The namespaces of a container: made anew, or joined by their path.

use std::fs::File;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::super::Failure;

/// What is made and what is joined.
#[derive(Debug)]
pub(super) struct Namespaces {
    new: CloneFlags,
    joined: Vec<(CloneFlags, File)>,
}

impl Namespaces {
    /// Reads the specification and opens what is joined, while the paths of this machine can be seen.
    pub(super) fn of(spec: &Spec) -> Result<Self, Failure> {
        let mut all = Self {
            new: CloneFlags::empty(),
            joined: Vec::new(),
        };
        let wanted = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        for n in wanted.into_iter().flatten() {
            let kind = flag(n.typ())?;
            match n.path() {
                None => all.new |= kind,
                Some(path) => {
                    let file = File::open(path).map_err(|e| {
                        Failure::internal(format!("lstat {}: {}", path.display(), reason(&e)))
                    })?;
                    all.joined.push((kind, file));
                }
            }
        }
        Ok(all)
    }

    /// The PID namespace counts for children only, so the parent enters it.
    pub(super) fn before_fork(&self) -> Result<(), Failure> {
        if self.new.contains(CloneFlags::CLONE_NEWPID) {
            unshare(CloneFlags::CLONE_NEWPID).map_err(|e| making(&e))?;
        }
        self.join(|kind| kind == CloneFlags::CLONE_NEWPID)
    }

    /// All others; the child is in its cgroups by now, which become the root of a new cgroup namespace.
    pub(super) fn enter(&self) -> Result<(), Failure> {
        self.join(|kind| kind != CloneFlags::CLONE_NEWPID)?;
        unshare(self.new - CloneFlags::CLONE_NEWPID).map_err(|e| making(&e))
    }

    fn join(&self, which: impl Fn(CloneFlags) -> bool) -> Result<(), Failure> {
        for (kind, file) in self.joined.iter().filter(|(kind, _)| which(*kind)) {
            setns(file.as_fd(), *kind)
                .map_err(|e| Failure::internal(format!("joining a namespace ({kind:?}): {}", e.desc())))?;
        }
        Ok(())
    }

    /// Whether a namespace of this kind is made for the container alone.
    pub(super) fn makes(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind)
    }
}

fn making(e: &nix::Error) -> Failure {
    Failure::internal(format!("making namespaces: {}", e.desc()))
}

fn reason(e: &std::io::Error) -> String {
    e.raw_os_error().map_or_else(
        || e.to_string(),
        |n| nix::Error::from_raw(n).desc().to_lowercase(),
    )
}

fn flag(kind: LinuxNamespaceType) -> Result<CloneFlags, Failure> {
    Ok(match kind {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        other => {
            return Err(Failure::invalid(format!(
                "namespaces of the kind {other} are not supported"
            )));
        }
    })
}
