//! An nftables table of one namespace, kept equal to its model.

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::netlink::Socket;
use crate::netlink::nft::{self, Data, Op, transaction};
use crate::render::host::{PUBLISHED, PUBLISHED_AT, TABLE};
use crate::render::table::Model;

/// The table `tripod` of a namespace.
#[derive(Debug)]
pub(crate) struct Table {
    socket: Socket,
    skeleton: Vec<Op>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    model: Model,
    /// Published ports found in the kernel at the start, until somebody claims them.
    unclaimed: HashSet<(&'static str, Vec<u8>)>,
    /// The kernel may hold more than the model says.
    resync: bool,
}

impl Table {
    /// Takes the table over, or makes it. The socket must belong to the table's namespace.
    pub(crate) fn open(socket: Socket, skeleton: Vec<Op>) -> io::Result<Self> {
        let mut state = State::default();
        for set in [PUBLISHED, PUBLISHED_AT] {
            let found = nft::dump_elements(&socket, TABLE, set)?;
            state.resync |= !found.is_empty();
            state.unclaimed.extend(found.iter().map(|e| (set, e.key.clone())));
            state.model.adopt(set, found);
        }
        // A table of another version may have other sets under the same names.
        if transaction(&socket, TABLE, nft::Table::Ensure, &skeleton).is_err() {
            let all: Vec<Op> = skeleton.iter().cloned().chain(state.model.whole()).collect();
            transaction(&socket, TABLE, nft::Table::Replace, &all)?;
        } else {
            state.resync = true;
        }
        Ok(Self {
            socket,
            skeleton,
            state: Mutex::new(state),
        })
    }

    /// The netfilter socket of the namespace, for connection tracking.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Changes the model and tells the kernel the difference in one transaction. Should the kernel refuse it
    /// (somebody else changed the table), the whole table is replaced.
    pub(crate) fn change(&self, f: impl FnOnce(&mut Model, &mut Vec<Op>)) -> io::Result<()> {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        let mut ops = Vec::new();
        f(&mut state.model, &mut ops);
        if ops.is_empty() {
            return Ok(());
        }
        match transaction(&self.socket, TABLE, nft::Table::Keep, &ops) {
            Ok(()) => Ok(()),
            Err(e) => {
                tracing::debug!(error = %e.error, index = e.index, "table changed by others, replacing it");
                self.replace(state)
            }
        }
    }

    /// Puts an element and marks it as owned.
    pub(crate) fn publish(&self, elements: Vec<(&'static str, Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            for (set, key, _) in &elements {
                state.unclaimed.remove(&(*set, key.clone()));
            }
        }
        self.change(|model, ops| {
            for (set, key, value) in elements {
                model.put(ops, set, key, Data::Value(value));
            }
        })
    }

    /// Changes the frontends; the first time, also drops what nobody claimed since the start and replaces what an
    /// earlier daemon left.
    pub(crate) fn settle(&self, f: impl FnOnce(&mut Model, &mut Vec<Op>)) -> io::Result<()> {
        {
            let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if guard.resync {
                let state = &mut *guard;
                let mut ops = Vec::new();
                for (set, key) in std::mem::take(&mut state.unclaimed) {
                    state.model.take(&mut ops, set, &key);
                }
                f(&mut state.model, &mut ops);
                self.replace(state)?;
                state.resync = false;
                return Ok(());
            }
        }
        self.change(f)
    }

    /// Whether the model has an element.
    pub(crate) fn has(&self, set: &str, key: &[u8]) -> bool {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .model
            .has(set, key)
    }

    fn replace(&self, state: &mut State) -> io::Result<()> {
        let all: Vec<Op> = self.skeleton.iter().cloned().chain(state.model.whole()).collect();
        Ok(transaction(&self.socket, TABLE, nft::Table::Replace, &all)?)
    }

    /// Removes the table from the kernel.
    pub(crate) fn remove(&self) -> io::Result<()> {
        Ok(transaction(&self.socket, TABLE, nft::Table::Remove, &[])?)
    }
}
