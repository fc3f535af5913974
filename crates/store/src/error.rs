//! Why a transaction was refused, and why a snapshot could not be read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::txn::Expected;

/// Why a transaction changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TxnError {
    /// A precondition did not hold.
    #[error("{key}: expected {expected}, {}", match .actual { Some(r) => format!("found revision {r}"), None => "found nothing".into() })]
    Conflict {
        /// Index into `Txn::checks`.
        check: usize,
        /// The object that was checked.
        key: Key,
        /// What the caller expected.
        expected: Expected,
        /// The object's revision now; `None` if there is no such object.
        actual: Option<u64>,
    },
    /// A unique value is held by another object.
    #[error("{value:?} in {index} is held by {holder}")]
    UniqueTaken {
        /// Index into `Txn::ops`.
        op: usize,
        /// The name of the unique index.
        index: Arc<str>,
        /// The contested value.
        value: Arc<str>,
        /// The object that holds it.
        holder: Key,
    },
    /// The bytes of an object are not an object of that key.
    #[error("{key}: {message}")]
    Invalid {
        /// Index into `Txn::ops`.
        op: usize,
        /// The key the bytes were meant for.
        key: Key,
        /// What is wrong.
        message: String,
    },
}

/// Why a snapshot could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The reader failed, or the data ended early.
    #[error("reading the snapshot: {0}")]
    Io(#[from] std::io::Error),
    /// The data is not a snapshot of a format that this version reads, or it is damaged.
    #[error("damaged snapshot: {0}")]
    Damaged(String),
}
