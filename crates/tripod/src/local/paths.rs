//! Where a local cluster keeps its things.

use std::path::PathBuf;

use tripod_model::{Error, Result};

/// The name of the cluster when none is given.
pub(super) const DEFAULT_NAME: &str = "tripod";

/// The paths of a local cluster.
pub(super) struct ClusterPaths {
    /// Its name.
    pub name: String,
    /// Everything below is removed with the cluster.
    pub dir: PathBuf,
    /// The daemon's data root.
    pub data: PathBuf,
    /// The Docker API.
    pub socket: PathBuf,
    /// What the daemon logs.
    pub log: PathBuf,
    /// Process number of the daemon.
    pub pid: PathBuf,
}

impl ClusterPaths {
    /// The paths of a cluster of that name, whether it exists or not.
    pub(super) fn of(name: &str) -> Result<Self> {
        let ok = !name.is_empty()
            && name.len() <= 63
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !ok {
            return Err(Error::invalid(format_args!(
                "invalid cluster name \"{name}\": letters, digits, '-', '_' and '.' are allowed, 63 at most"
            ))
            .at("name"));
        }
        let dir = base().join(name);
        Ok(Self {
            name: name.to_owned(),
            data: dir.join("data"),
            socket: dir.join("docker.sock"),
            log: dir.join("daemon.log"),
            pid: dir.join("daemon.pid"),
            dir,
        })
    }

    /// The paths of a cluster that exists.
    pub(super) fn existing(name: &str) -> Result<Self> {
        let paths = Self::of(name)?;
        if paths.dir.is_dir() {
            return Ok(paths);
        }
        Err(Error::not_found(format_args!(
            "there is no cluster \"{name}\"; \"tripod start\" makes one"
        )))
    }

    /// `DOCKER_HOST` of the cluster.
    pub(super) fn docker_host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Name of its docker context: `tripod`, or `tripod-NAME`.
    pub(super) fn context_name(&self) -> String {
        if self.name == DEFAULT_NAME {
            self.name.clone()
        } else {
            format!("tripod-{}", self.name)
        }
    }
}

/// `$TRIPOD_HOME`, or `/var/lib/tripod/clusters`.
fn base() -> PathBuf {
    std::env::var_os("TRIPOD_HOME").map_or_else(|| PathBuf::from("/var/lib/tripod/clusters"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(ClusterPaths::of("tripod").unwrap().context_name(), "tripod");
        assert_eq!(ClusterPaths::of("ci-1").unwrap().context_name(), "tripod-ci-1");
        for bad in ["", "../x", "a/b", ".x", "a b"] {
            assert!(ClusterPaths::of(bad).is_err(), "{bad}");
        }
    }
}
