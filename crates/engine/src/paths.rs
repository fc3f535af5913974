//! What a daemon keeps on disk of its part in a cluster: who it is, its certificates, and the store.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use tripod_model::node::NodeRole;
use tripod_model::{Error, Result};

use crate::request::RemoteManager;

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
    /// What this node is. Daemons of the first version were all managers.
    #[serde(default = "manager")]
    pub(crate) role: NodeRole,
    /// Number in the Raft group; 0 for a worker.
    pub(crate) raft_id: u64,
    /// Managers to turn to.
    #[serde(default)]
    pub(crate) managers: Vec<RemoteManager>,
    /// `IP:port` on which other nodes are answered.
    pub(crate) listen_addr: String,
    /// `IP:port` that other nodes are told.
    pub(crate) advertise_addr: String,
    /// Address for traffic between containers.
    pub(crate) data_path_addr: IpAddr,
}

fn manager() -> NodeRole {
    NodeRole::Manager
}

/// A node's certificate with its key, and the roots that it trusts.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// PEM.
    pub(crate) roots: String,
    /// PEM of the certificate and of what leads from it to an older root.
    pub(crate) chain: String,
    /// PEM (PKCS#8).
    pub(crate) key: String,
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

    /// Keeps the certificates. While managers are locked the node's key is sealed with their unlock key.
    pub(crate) fn write_credentials(&self, credentials: &Credentials, lock: Option<&[u8; 32]>) -> Result<()> {
        let dir = self.certificates();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let Credentials { roots, chain, key } = credentials;
        replace(&dir.join("swarm-root-ca.crt"), roots.as_bytes(), 0o644)?;
        replace(&dir.join("swarm-node.crt"), chain.as_bytes(), 0o644)?;
        let (plain, sealed) = (dir.join("swarm-node.key"), dir.join("swarm-node.key.sealed"));
        match lock {
            None => {
                replace(&plain, key.as_bytes(), 0o600)?;
                remove(fs::remove_file(sealed))
            }
            Some(lock) => {
                replace(&sealed, &seal(lock, key.as_bytes()), 0o600)?;
                remove(fs::remove_file(plain))
            }
        }
    }

    /// The node's certificates, if all are there and `lock` opens the key.
    pub(crate) fn read_credentials(&self, lock: Option<&[u8; 32]>) -> Option<Credentials> {
        let read = |name: &str| fs::read(self.certificates().join(name)).ok();
        let key = match lock {
            None => read("swarm-node.key")?,
            Some(lock) => match read("swarm-node.key.sealed") {
                Some(sealed) => open(lock, sealed)?,
                None => read("swarm-node.key")?,
            },
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
        Some(Credentials {
            roots: text(read("swarm-root-ca.crt")?)?,
            chain: text(read("swarm-node.crt")?)?,
            key: text(key)?,
        })
    }

    /// The roots that the node trusts.
    pub(crate) fn read_roots(&self) -> Option<String> {
        fs::read_to_string(self.certificates().join("swarm-root-ca.crt")).ok()
    }

    /// The node's certificate.
    pub(crate) fn read_certificate(&self) -> Option<String> {
        fs::read_to_string(self.certificates().join("swarm-node.crt")).ok()
    }

    /// Forgets the store of a manager that is one no more.
    pub(crate) fn forget_store(&self) -> Result<()> {
        remove(fs::remove_dir_all(self.store()))
    }

    /// Forgets the cluster: first who this node was in it, so that a half-done removal counts as done.
    pub(crate) fn forget(&self) -> Result<()> {
        remove(fs::remove_file(self.standing()))?;
        remove(fs::remove_dir_all(self.certificates()))?;
        remove(fs::remove_dir_all(self.store()))
    }
}

fn cipher(lock: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, lock).expect("a key of the right length"))
}

fn seal(lock: &[u8; 32], plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_LEN] = rand::random();
    let mut body = plain.to_vec();
    cipher(lock)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut body)
        .expect("far below the cipher's length limit");
    [&nonce[..], &body].concat()
}

fn open(lock: &[u8; 32], sealed: Vec<u8>) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut body = body.to_vec();
    let plain = cipher(lock).open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut body);
    plain.ok().map(|plain| plain.to_vec())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_with_its_lock_only() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path()).unwrap();
        let credentials = Credentials {
            roots: "r".into(),
            chain: "c".into(),
            key: "k".into(),
        };
        paths.write_credentials(&credentials, Some(&[7; 32])).unwrap();
        assert_eq!(paths.read_credentials(Some(&[7; 32])).unwrap().key, "k");
        assert!(paths.read_credentials(Some(&[8; 32])).is_none());
        assert!(paths.read_credentials(None).is_none());
        paths.write_credentials(&credentials, None).unwrap();
        assert_eq!(paths.read_credentials(None).unwrap().key, "k");
    }
}
