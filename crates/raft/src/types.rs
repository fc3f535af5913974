//! The types that openraft is instantiated with.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tripod_store::{Txn, TxnResult};

use crate::snapshot::SnapshotData;

/// Identifies a manager within its cluster.
pub type NodeId = u64;

openraft::declare_raft_types!(
    /// The types of this cluster's log.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = NodeId,
        Node = openraft::BasicNode,
        SnapshotData = SnapshotData,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, openraft::BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, openraft::BasicNode>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;

/// Many transactions in one log entry, encoded once: each a length (u32, little-endian) and a [`Txn`].
///
/// The same bytes go into the log, over the network and into `apply`, so that replay after a restart reads exactly
/// what the live path read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proposal(pub(crate) Bytes);

impl Proposal {
    pub(crate) fn new<'a>(txns: impl Iterator<Item = &'a Bytes> + Clone) -> Self {
        let mut bytes = BytesMut::with_capacity(txns.clone().map(|txn| txn.len() + 4).sum());
        for txn in txns {
            bytes.put_u32_le(txn.len() as u32);
            bytes.put_slice(txn);
        }
        Self(bytes.freeze())
    }

    pub(crate) fn decode(&self) -> Result<Vec<Txn>, String> {
        let (mut rest, mut txns) = (&self.0[..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let (txn, after) = after
                .split_at_checked(length)
                .ok_or("a transaction is cut short")?;
            txns.push(Txn::decode(txn).map_err(|e| e.to_string())?);
            rest = after;
        }
        if rest.is_empty() {
            Ok(txns)
        } else {
            Err("trailing bytes".into())
        }
    }
}

/// The results of the transactions of one [`Proposal`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome(pub(crate) Vec<TxnResult>);
