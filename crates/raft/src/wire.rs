//! Requests and answers as bytes, for a transport between processes.
//!
//! A message is one buffer in postcard's form; a snapshot follows its request as a second buffer
//! ([`SnapshotData::send`]).

use openraft::error::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use tripod_store::TxnOk;

use crate::error::RemoteError;
use crate::snapshot::SnapshotData;
use crate::transport::{Request, Response, TransportError};
use crate::types::{NodeId, Proposal, SnapshotMeta, TypeConfig, Vote};

/// [`Request`] without the content of a snapshot.
#[derive(Serialize, Deserialize)]
enum Question {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<NodeId>),
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
    },
    /// A transaction, in the form of a proposal's bytes.
    Submit(Proposal),
    ReadIndex,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Append(Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>),
    Vote(Result<VoteResponse<NodeId>, RaftError<NodeId>>),
    Snapshot(Result<SnapshotResponse<NodeId>, Fatal<NodeId>>),
    Submit(Result<TxnOk, RemoteError>),
    ReadIndex(Result<u64, RemoteError>),
}

fn failed(e: impl std::fmt::Display) -> TransportError {
    TransportError::Lost(e.to_string())
}

impl Request {
    /// The bytes of this request, and those of the snapshot that it carries. Blocks while a snapshot is read.
    ///
    /// # Errors
    /// If the snapshot cannot be read.
    pub fn encode(self) -> Result<(Vec<u8>, Option<Vec<u8>>), TransportError> {
        let mut content = None;
        let question = match self {
            Self::Append(rpc) => Question::Append(rpc),
            Self::Vote(rpc) => Question::Vote(rpc),
            Self::Snapshot { vote, meta, data } => {
                let mut bytes = Vec::new();
                data.send(&mut bytes).map_err(failed)?;
                content = Some(bytes);
                Question::Snapshot { vote, meta }
            }
            Self::Submit(txn) => Question::Submit(Proposal(txn)),
            Self::ReadIndex => Question::ReadIndex,
        };
        Ok((postcard::to_stdvec(&question).map_err(failed)?, content))
    }

    /// Which manager sends an append, a vote or a snapshot.
    pub fn sender(&self) -> Option<NodeId> {
        match self {
            Self::Append(rpc) => Some(rpc.vote.leader_id.node_id),
            Self::Vote(rpc) => Some(rpc.vote.leader_id.node_id),
            Self::Snapshot { vote, .. } => Some(vote.leader_id.node_id),
            Self::Submit(_) | Self::ReadIndex => None,
        }
    }

    /// Whether the bytes are followed by those of a snapshot.
    pub fn carries_snapshot(&self) -> bool {
        matches!(self, Self::Snapshot { .. })
    }

    /// Whether encoded bytes are followed by those of a snapshot.
    ///
    /// # Errors
    /// If the bytes are no request.
    pub fn has_content(bytes: &[u8]) -> Result<bool, TransportError> {
        // The third kind, by its number in postcard's form.
        match bytes.first() {
            Some(kind) => Ok(*kind == 2),
            None => Err(failed("an empty request")),
        }
    }

    /// Reads what [`Request::encode`] wrote; `content` is the snapshot's. Blocks while one is unpacked.
    ///
    /// # Errors
    /// If the bytes are none of it.
    pub fn decode(bytes: &[u8], content: Option<&[u8]>) -> Result<Self, TransportError> {
        Ok(match postcard::from_bytes(bytes).map_err(failed)? {
            Question::Append(rpc) => Self::Append(rpc),
            Question::Vote(rpc) => Self::Vote(rpc),
            Question::Snapshot { vote, meta } => Self::Snapshot {
                vote,
                meta,
                data: SnapshotData::receive(content.unwrap_or_default()).map_err(failed)?,
            },
            Question::Submit(Proposal(txn)) => Self::Submit(txn),
            Question::ReadIndex => Self::ReadIndex,
        })
    }
}

impl Response {
    /// The bytes of this answer.
    ///
    /// # Errors
    /// Never for answers that a cluster gave.
    pub fn encode(self) -> Result<Vec<u8>, TransportError> {
        let answer = match self {
            Self::Append(a) => Answer::Append(a),
            Self::Vote(a) => Answer::Vote(a),
            Self::Snapshot(a) => Answer::Snapshot(a),
            Self::Submit(a) => Answer::Submit(a),
            Self::ReadIndex(a) => Answer::ReadIndex(a),
        };
        postcard::to_stdvec(&answer).map_err(failed)
    }

    /// Reads what [`Response::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are none of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, TransportError> {
        Ok(match postcard::from_bytes(bytes).map_err(failed)? {
            Answer::Append(a) => Self::Append(a),
            Answer::Vote(a) => Self::Vote(a),
            Answer::Snapshot(a) => Self::Snapshot(a),
            Answer::Submit(a) => Self::Submit(a),
            Answer::ReadIndex(a) => Self::ReadIndex(a),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId};

    use super::*;

    #[test]
    fn messages_survive_the_way() {
        let id = LogId::new(CommittedLeaderId::new(3, 7), 9);
        let rpc = AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new_committed(3, 7),
            prev_log_id: Some(id),
            entries: vec![Entry {
                log_id: id,
                payload: EntryPayload::Normal(Proposal(Bytes::from_static(b"abc"))),
            }],
            leader_commit: None,
        };
        let (bytes, content) = Request::Append(rpc).encode().unwrap();
        assert!(content.is_none());
        let Request::Append(back) = Request::decode(&bytes, None).unwrap() else {
            panic!("another request");
        };
        assert_eq!(back.prev_log_id, Some(id));
        assert!(matches!(&back.entries[0].payload, EntryPayload::Normal(p) if p.0 == "abc"));
        let request = Request::Snapshot {
            vote: Vote::new(1, 2),
            meta: SnapshotMeta::default(),
            data: SnapshotData::empty(),
        };
        let (bytes, content) = request.encode().unwrap();
        assert!(Request::has_content(&bytes).unwrap());
        let back = Request::decode(&bytes, content.as_deref()).unwrap();
        assert!(back.carries_snapshot());
        assert!(Request::decode(b"\xff\xff", None).is_err());
        let answer = Response::Submit(Err(RemoteError::NotLeader(Some(4))));
        let back = Response::decode(&answer.encode().unwrap()).unwrap();
        assert!(matches!(
            back,
            Response::Submit(Err(RemoteError::NotLeader(Some(4))))
        ));
    }
}
