//! Where local clusters keep their things.

use std::fs;
use std::path::PathBuf;

use tripod_model::{Error, Result};

use super::record::{Record, Tool};

/// The paths of a local cluster.
#[derive(Debug, Clone)]
pub(crate) struct ClusterPaths {
    /// Under whose name it was made.
    pub tool: Tool,
    /// Everything below is removed with the cluster.
    pub dir: PathBuf,
}

/// The paths of a node.
#[derive(Debug, Clone)]
pub(crate) struct NodePaths {
    /// Everything of the node.
    pub dir: PathBuf,
    /// The daemon's data root.
    pub data: PathBuf,
    /// The Docker API.
    pub socket: PathBuf,
    /// The dashboard, for whoever may open this socket.
    pub dashboard: PathBuf,
    /// By which the registry is opened.
    pub registry: PathBuf,
    /// What the daemon logs.
    pub log: PathBuf,
    /// Process number, on this machine, of the node's first process.
    pub pid: PathBuf,
    /// What the node's first process is told.
    pub plan: PathBuf,
    /// The node's network namespace; on a file system that does not outlive a reboot.
    pub netns: PathBuf,
}

impl ClusterPaths {
    /// The paths of a cluster of that name, whether it exists or not.
    pub(crate) fn of(tool: Tool, name: &str) -> Result<Self> {
        let ok = !name.is_empty()
            && name.len() <= 50
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric());
        if !ok {
            return Err(Error::invalid(format_args!(
                "invalid cluster name \"{name}\": lower-case letters, digits, '-' and '.' are allowed, 50 at most"
            ))
            .at("name"));
        }
        Ok(Self {
            tool,
            dir: base().join(tool.as_str()).join(name),
        })
    }

    /// The paths and the record of a cluster that exists.
    pub(crate) fn existing(tool: Tool, name: &str) -> Result<(Self, Record)> {
        let paths = Self::of(tool, name)?;
        if paths.exists() {
            let record = Record::read(&paths.dir)?;
            return Ok((paths, record));
        }
        Err(Error::not_found(format_args!("there is no cluster \"{name}\"")))
    }

    /// Whether there is such a cluster.
    pub(crate) fn exists(&self) -> bool {
        self.dir.join("cluster.json").is_file()
    }

    /// The paths of one of its nodes.
    pub(crate) fn node(&self, node: &str) -> NodePaths {
        let dir = self.dir.join("nodes").join(node);
        NodePaths {
            data: dir.join("data"),
            socket: dir.join("docker.sock"),
            dashboard: dir.join("dashboard.sock"),
            registry: dir.join("registry.sock"),
            log: dir.join("daemon.log"),
            pid: dir.join("node.pid"),
            plan: dir.join("node.json"),
            netns: PathBuf::from("/run/tripod/local").join(format!("{}-{node}", self.tool.as_str())),
            dir,
        }
    }
}

/// All clusters made under a tool's name, sorted.
pub(crate) fn list(tool: Tool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    match fs::read_dir(base().join(tool.as_str())) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                if entry.path().join("cluster.json").is_file() {
                    names.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e.into()),
    }
    names.sort();
    Ok(names)
}

/// `$TRIPOD_HOME`, or `/var/lib/tripod/clusters`.
pub(super) fn base() -> PathBuf {
    std::env::var_os("TRIPOD_HOME").map_or_else(|| PathBuf::from("/var/lib/tripod/clusters"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(ClusterPaths::of(Tool::Tripod, "ci-1").is_ok());
        for bad in ["", "../x", "a/b", ".x", "a b", "A", "x-"] {
            assert!(ClusterPaths::of(Tool::Kind, bad).is_err(), "{bad}");
        }
    }
}
