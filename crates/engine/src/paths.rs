//! What a daemon keeps on disk of its part in a cluster: who it is, its certificates, and the store.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tripod_model::{Error, Result};

/// Who this daemon is in which cluster. Written last when a cluster is made: without it there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Standing {
    /// Version of this file's form.
    pub(crate) format: u32,
    /// Swarm identifier of this node.
    pub(crate) node_id: String,
    /// `metadata.name` of this node.
    pub(crate) node_name: String,
    /// Identifier of the cluster.
    pub(crate) cluster_id: String,
    /// Number in the Raft group.
    pub(crate) raft_id: u64,
    /// `IP:port` on which other nodes are answered.
    pub(crate) listen_addr: String,
    /// `IP:port` that other nodes are told.
    pub(crate) advertise_addr: String,
    /// Address for traffic between containers.
    pub(crate) data_path_addr: IpAddr,
}

/// Places below the engine's directory.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
}

impl Paths {
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let make = |dir: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        make(root).map_err(|e| Error::internal(format_args!("{}: {e}", root.display())))?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("raft")
    }

    fn certificates(&self) -> PathBuf {
        self.root.join("certificates")
    }

    fn standing(&self) -> PathBuf {
        self.root.join("standing.json")
    }

    /// Who this daemon is, unless it is in no cluster.
    pub(crate) fn read_standing(&self) -> Result<Option<Standing>> {
        let path = self.standing();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::internal(format_args!("{}: {e}", path.display()))),
        };
        let standing: Standing = serde_json::from_slice(&text)
            .map_err(|e| Error::internal(format_args!("{}: {e}", path.display())))?;
        if standing.format != 1 {
            let text = format!("{}: unknown format {}", path.display(), standing.format);
            return Err(Error::internal(text));
        }
        Ok(Some(standing))
    }

    pub(crate) fn write_standing(&self, standing: &Standing) -> Result<()> {
        let text = serde_json::to_vec_pretty(standing).map_err(Error::internal)?;
        replace(&self.standing(), &text, 0o600)
    }

    /// Keeps the certificates. While managers are locked the node's key is not written: a new one is issued when they
    /// are unlocked.
    pub(crate) fn write_certificates(&self, root: &str, cert: &str, key: Option<&str>) -> Result<()> {
        let dir = self.certificates();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        replace(&dir.join("swarm-root-ca.crt"), root.as_bytes(), 0o644)?;
        replace(&dir.join("swarm-node.crt"), cert.as_bytes(), 0o644)?;
        match key {
            Some(key) => replace(&dir.join("swarm-node.key"), key.as_bytes(), 0o600),
            None => remove(fs::remove_file(dir.join("swarm-node.key"))),
        }
    }

    /// The node's certificate and key and the root they belong to, if all three are there.
    pub(crate) fn read_certificates(&self) -> Option<(String, String, String)> {
        let read = |name: &str| fs::read_to_string(self.certificates().join(name)).ok();
        Some((
            read("swarm-root-ca.crt")?,
            read("swarm-node.crt")?,
            read("swarm-node.key")?,
        ))
    }

    /// The node's certificate.
    pub(crate) fn read_certificate(&self) -> Option<String> {
        fs::read_to_string(self.certificates().join("swarm-node.crt")).ok()
    }

    /// Forgets the cluster: first who this node was in it, so that a half-done removal counts as done.
    pub(crate) fn forget(&self) -> Result<()> {
        remove(fs::remove_file(self.standing()))?;
        remove(fs::remove_dir_all(self.certificates()))?;
        remove(fs::remove_dir_all(self.store()))
    }
}

/// That there was nothing to remove is no error.
fn remove(done: std::io::Result<()>) -> Result<()> {
    match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Replaces a file so that after a crash it is either the old or the new one.
fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let written = (|| {
        let new = path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(dir) => fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    })();
    written.map_err(|e: std::io::Error| Error::internal(format_args!("{}: {e}", path.display())))
}
