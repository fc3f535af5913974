//! What a plan is: writes that leave nothing to choose, the time at which to look again, and reasons.

use std::sync::Arc;

use bytes::Bytes;
use tripod_model::Time;
use tripod_model::data::Network;
use tripod_model::node::Node;
use tripod_model::pod::Pod;
use tripod_model::swarm::SwarmService;

use crate::kube::ObjKey;

/// What to do, when to look again, and why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In order; those of one plan belong into one transaction, or into several that keep the order.
    pub writes: Vec<Write>,
    /// Even if nothing changes until then, plan again at this time.
    pub wake_at: Option<Time>,
    /// Why, for events and logs.
    pub explanations: Vec<Explanation>,
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Make an object that must not exist.
    Create(Object),
    /// Replace an object that must still be at a revision.
    Update {
        /// The new content.
        object: Object,
        /// Revision on which the decision was based.
        based_on: u64,
    },
    /// Remove an object that must still be at a revision.
    Delete {
        /// The content that was seen.
        object: Object,
        /// Revision on which the decision was based.
        based_on: u64,
    },
}

impl Write {
    /// The object concerned.
    pub fn object(&self) -> &Object {
        match self {
            Self::Create(object) | Self::Update { object, .. } | Self::Delete { object, .. } => object,
        }
    }
}

/// An object of a kind on which plans decide.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A replica.
    Pod(Arc<Pod>),
    /// A service.
    Service(Arc<SwarmService>),
    /// A network of the cluster.
    Network(Arc<Network>),
    /// A host.
    Node(Arc<Node>),
    /// An object of any other kind.
    Raw(Arc<RawObject>),
}

/// An object by its bytes, so that fields which nobody here knows stay as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct RawObject {
    /// Where it is.
    pub key: ObjKey,
    /// Its canonical JSON.
    pub bytes: Bytes,
}

/// Why something was decided, or could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Resource of the object that it is about.
    pub resource: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// One word, as in a Kubernetes event.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}
