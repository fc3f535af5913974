//! The log on disk and the agreement about it.
//!
//! A [`Cluster`] is one manager's part of the replicated store: transactions go in through [`Cluster::submit`], the
//! state is read with [`Cluster::read`], [`Cluster::list`] and [`Cluster::watch`]. One manager is a group of one and
//! takes the same path as several. An acknowledged transaction is on the disks of a majority.
//!
//! Everything that writes runs on one thread (`store`) with a runtime of its own: proposer, openraft, the log and the
//! state machine hand work to each other without waking another thread, and that thread blocks in `fdatasync`; only a
//! leader has its own disk flushed beside it, while the entries are on their way to the others.

mod cluster;
#[cfg(test)]
mod conformance;
mod crypt;
mod error;
mod files;
mod flush;
mod log;
mod log_store;
#[cfg(test)]
mod log_tests;
mod machine;
mod metrics;
mod network;
mod options;
mod proposer;
mod recover;
mod segment;
mod snapshot;
mod thread;
mod transport;
mod types;
mod watch;
mod wire;

pub use cluster::Cluster;
pub use error::{RaftError, RemoteError};
pub use metrics::{Leadership, Metrics};
pub use options::Options;
pub use recover::found_anew;
pub use snapshot::SnapshotData;
pub use transport::{LocalTransport, NoTransport, Request, Response, Transport, TransportError};
pub use tripod_store as store;
pub use types::{NodeId, Outcome, Proposal, TypeConfig};
pub use watch::Watch;
