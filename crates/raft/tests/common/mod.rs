//! What the tests share.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod linear;

use tripod_raft::store::{Key, Txn};

/// A directory that is removed with the test.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Not yet there: opening makes it.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.0.path().join("store")
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new("pods", "default", name)
}

pub(crate) fn json(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","uid":"u-{name}"}},"spec":{{}}}}"#
    )
}

pub(crate) fn put(name: &str) -> Txn {
    Txn::new().put(key(name), json(name))
}
