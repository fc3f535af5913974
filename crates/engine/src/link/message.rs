//! What is said between nodes: the first message of a stream tells its purpose.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tripod_model::image::{HeldImages, ImageOffer};
use tripod_model::network::NetworkSpec;
use tripod_model::node::{Availability, NodeDescription, NodeRole};
use tripod_model::session::{Assignment, PodReport, Token, TokenRequest};
use tripod_model::{Error, Result};

use crate::request::RemoteManager;

/// The first message of every stream.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// One question; its answer is a `Result<Answer>`.
    Call(Box<Call>),
    /// One request of the Raft group, in its own form.
    Raft,
    /// A node's session with the leader.
    Session(Box<Hello>),
    /// A stream to a node through the manager that has its session; what follows is for the node.
    Relay {
        /// Swarm identifier.
        node_id: String,
    },
    /// Content of an image that another node has.
    Content(Box<Wanted>),
    /// A request to this node itself: see [`crate::door`].
    Door,
}

/// Which content is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Who asks: looked at only where a manager passes the question on.
    pub(crate) asker: Option<Asker>,
    /// Identifier of the image that it is part of.
    pub(crate) image: String,
    pub(crate) digest: String,
    /// The first byte that is wanted.
    pub(crate) from: u64,
}

/// Questions between nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Call {
    /// The cluster's root certificate. For everybody.
    Root,
    /// A stranger joins. For who has a token.
    Join(Box<Joining>),
    /// A new certificate for the asking node, of the role it is to have.
    Renew {
        /// PEM of the request.
        csr: String,
    },
    /// The asking manager's store is there: take it into the group.
    AddManager(NewManager),
    /// The asking node leaves.
    Leave,
    /// A cluster network by name or identifier, for a local container.
    Network {
        /// The word.
        reference: String,
    },
    /// What is needed to take over an image that another node has.
    Image {
        /// Its name.
        reference: String,
    },
    /// A question that another manager passes on to the leader, with who asked it.
    Forwarded {
        /// Who asked.
        from: Asker,
        /// What.
        call: Box<Call>,
    },
    /// Which run of a daemon the asked manager is: answered by itself. For managers.
    Instance,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asker {
    /// Swarm identifier; empty for a stranger.
    pub(crate) node_id: String,
    /// Its role by its certificate.
    pub(crate) role: NodeRole,
    /// Where it called from.
    pub(crate) address: IpAddr,
}

/// A stranger that wants to join.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Joining {
    pub(crate) token: String,
    /// PEM of the certificate request.
    pub(crate) csr: String,
    pub(crate) availability: Availability,
    pub(crate) description: NodeDescription,
    /// What it wants to be known by; empty: where it calls from.
    pub(crate) address: String,
}

/// A manager that is ready to take part in the group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NewManager {
    /// Number in the Raft group.
    pub(crate) raft_id: u64,
    /// `IP:port` at which it answers.
    pub(crate) address: String,
}

/// Answers to [`Call`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Root(String),
    Joined(Box<Joined>),
    Certificate(Issued),
    Network(Option<Box<NetworkSpec>>),
    Image(Option<Box<ImageOffer>>),
    Instance(u64),
}

/// What a new node is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Joined {
    pub(crate) cluster_id: String,
    pub(crate) node_id: String,
    pub(crate) node_name: String,
    /// The address under which the node is known.
    pub(crate) address: String,
    pub(crate) certificate: Issued,
    pub(crate) managers: Vec<RemoteManager>,
}

/// A certificate, and what goes with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Issued {
    /// The role that it names.
    pub(crate) role: NodeRole,
    /// PEM of the certificate, and of what leads from it to an older root.
    pub(crate) chain: String,
    /// PEM of the roots to be trusted.
    pub(crate) roots: String,
    /// For managers: the key that locks their store; empty when they are not locked.
    #[serde(default)]
    pub(crate) unlock_key: String,
}

/// A node opens its session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// What the machine is.
    pub(crate) description: NodeDescription,
    /// Address that other nodes are told; empty: where it calls from.
    pub(crate) address: String,
    /// Address for traffic between containers, if it is another.
    pub(crate) data_path_addr: Option<IpAddr>,
    /// A number of this run of the daemon, by which two daemons on copies of one data root differ.
    pub(crate) instance: u64,
}

/// The answer to a [`Hello`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Welcome {
    /// The session is open.
    Accepted(Settings),
    /// Somebody else leads, perhaps there.
    Elsewhere(Option<String>),
    /// There is no session for this node.
    Refused(Error),
}

/// What the cluster wants of a node itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The role that it is to have.
    pub(crate) role: NodeRole,
    /// Managers to turn to.
    pub(crate) managers: Vec<RemoteManager>,
    /// Milliseconds between signs of life.
    pub(crate) heartbeat_ms: u64,
    /// PEM of the roots to be trusted.
    pub(crate) roots: String,
    /// Changes when the node is to have a new certificate.
    pub(crate) issuer: String,
}

/// From a manager to a node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToNode {
    /// A sign of life.
    Alive,
    Settings(Settings),
    Assignment(Box<Assignment>),
    Leased {
        id: u64,
        result: Result<IpNet>,
    },
    Token {
        id: u64,
        result: Result<Token>,
    },
}

/// From a node to a manager.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromNode {
    /// A sign of life.
    Alive,
    /// What the machine is has changed.
    Describe(Box<NodeDescription>),
    Reports(Vec<PodReport>),
    Acknowledge(u64),
    Attach(BTreeSet<String>),
    /// What changed of the images that the node has.
    Images(Box<HeldImages>),
    Lease {
        id: u64,
        owner: String,
        network: String,
        wanted: Option<IpAddr>,
    },
    Release {
        owner: String,
    },
    Token {
        id: u64,
        request: TokenRequest,
    },
}
