//! What can go wrong between a writer and the disk.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tripod_store::{Gone, TxnError};

use crate::NodeId;

/// Why an operation on the cluster's store failed.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The transaction was judged and refused; nothing changed.
    #[error(transparent)]
    Rejected(#[from] TxnError),
    /// The data on disk is encrypted under a key that was not given, or not this one.
    #[error("the store is locked: the unlock key is missing or wrong")]
    Locked,
    /// This node belongs to no cluster yet.
    #[error("this node is not part of a cluster")]
    NotInitialized,
    /// This node already belongs to a cluster.
    #[error("this node is already part of a cluster")]
    AlreadyInitialized,
    /// Another node leads, or none does. Nothing was changed by this request.
    #[error("this node does not lead the cluster{}", match .leader { Some(id) => format!("; node {id:x} does"), None => ", and no leader is known".into() })]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The store stopped before the outcome was known: the write may or may not have happened.
    #[error("the store is shut down")]
    Closed,
    /// The leader could not be asked, or its answer was lost: the write may or may not have happened.
    #[error("the leader could not be reached: {0}")]
    Unreachable(String),
    /// The transaction is larger than an entry may be.
    #[error("a transaction of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its encoded size.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// There is no room on the disk for another entry. Nothing was changed.
    #[error("no space left for the log: {0}")]
    StorageFull(io::Error),
    /// Another process uses this directory.
    #[error("{0} is in use by another process")]
    Busy(PathBuf),
    /// Data that had been acknowledged cannot be read back.
    #[error("{path}: damaged: {what}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The page of a list, or the start of a watch, lies before what is remembered.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// A membership change was refused.
    #[error("membership: {0}")]
    Membership(String),
}

impl RaftError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn corrupt(path: impl Into<PathBuf>, what: impl ToString) -> Self {
        Self::Corrupt {
            path: path.into(),
            what: what.to_string(),
        }
    }
}

/// The part of [`RaftError`] that crosses the network when a follower asks the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RemoteError {
    /// See [`RaftError::Rejected`].
    Rejected(TxnError),
    /// See [`RaftError::NotLeader`].
    NotLeader(Option<NodeId>),
    /// See [`RaftError::StorageFull`].
    StorageFull(String),
    /// Anything else, as text.
    Other(String),
}

impl From<RaftError> for RemoteError {
    fn from(error: RaftError) -> Self {
        match error {
            RaftError::Rejected(e) => Self::Rejected(e),
            RaftError::NotLeader { leader } => Self::NotLeader(leader),
            RaftError::StorageFull(e) => Self::StorageFull(e.to_string()),
            e => Self::Other(e.to_string()),
        }
    }
}

impl From<RemoteError> for RaftError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Rejected(e) => Self::Rejected(e),
            RemoteError::NotLeader(leader) => Self::NotLeader { leader },
            RemoteError::StorageFull(e) => Self::StorageFull(io::Error::other(e)),
            RemoteError::Other(e) => Self::Unreachable(e),
        }
    }
}
