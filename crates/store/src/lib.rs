//! Revisioned objects in memory: deterministic apply, indices, watch history and snapshots.
//!
//! This crate is the state machine of the cluster. It reads no clock, draws no random numbers and does no I/O of
//! its own (snapshots go through `std::io` traits that the caller provides), so that every replica that applies
//! the same transactions in the same order holds the same bytes.
//!
//! - [`Txn`] is the only command: preconditions and writes that happen together or not at all.
//! - [`State`] holds the objects. Cloning it is cheap (persistent trees): a clone is a consistent snapshot that
//!   readers keep as long as they like, while the writer goes on.
//! - [`History`] is the bounded memory of recent changes from which watches are served.

mod error;
mod history;
mod key;
mod list;
mod object;
mod snapshot;
mod state;
mod txn;

pub use error::{SnapshotError, TxnError};
pub use history::{Change, Event, Gone, History, HistoryLimits, WatchFilter};
pub use key::{Key, KindId};
pub use list::{Continue, List, ListQuery, ParseContinueError};
pub use object::{Labels, StoredObject};
pub use state::{Applied, State};
pub use txn::{Claim, Expected, Op, Precondition, Txn, TxnOk, TxnResult};
