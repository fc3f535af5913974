//! The connections of nodes whose sessions come over the network: one for each identifier.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tripod_model::{Error, Result};

use crate::link::mux::Mux;

/// When a node was last heard of.
#[derive(Clone)]
pub(crate) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// It is heard of now.
    pub(crate) fn again(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long ago that was.
    pub(crate) fn ago(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

struct Held {
    mux: Mux,
    instance: u64,
    address: String,
    heard: Heard,
}

/// Who has which connection.
#[derive(Default)]
pub(crate) struct Connections(Mutex<HashMap<String, Held>>);

impl Connections {
    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the connection of a node. One that the same run of its daemon had before is ended, and so is one of which
    /// nothing was heard for `patience`: the daemon was started again, or the machine has moved.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::AlreadyExists`] while another daemon has a session under this identifier: somebody
    /// has copied a data root.
    pub(crate) fn claim(
        &self,
        node_id: &str,
        instance: u64,
        address: &str,
        mux: Mux,
        patience: Duration,
    ) -> Result<Heard> {
        let mut held = self.held();
        if let Some(before) = held.get(node_id) {
            if before.instance != instance && !before.mux.is_closed() && before.heard.ago() < patience {
                return Err(in_use(node_id, &before.address));
            }
            before.mux.end();
        }
        let heard = Heard::now();
        let holder = Held {
            mux,
            instance,
            address: address.to_owned(),
            heard: heard.clone(),
        };
        held.insert(node_id.to_owned(), holder);
        Ok(heard)
    }

    /// Forgets a connection that has ended.
    pub(crate) fn forget(&self, node_id: &str) {
        let mut held = self.held();
        if held.get(node_id).is_some_and(|held| held.mux.is_closed()) {
            held.remove(node_id);
        }
    }

    /// The connection of a node.
    pub(crate) fn get(&self, node_id: &str) -> Option<Mux> {
        let held = self.held();
        let mux = &held.get(node_id)?.mux;
        (!mux.is_closed()).then(|| mux.clone())
    }
}

/// The identifier belongs to another machine.
pub(crate) fn in_use(node_id: &str, address: &str) -> Error {
    Error::already_exists(format_args!(
        "rpc error: code = AlreadyExists desc = node ID {node_id} is in use by another machine ({address}): a data root \
         must not be copied; remove this one and join the cluster anew"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::mux::Side;

    fn mux() -> (Mux, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        (Mux::start(near, Side::Accepted, |_| {}), far)
    }

    #[tokio::test]
    async fn an_identifier_is_one_daemons_until_that_is_silent_or_gone() {
        let patience = Duration::from_secs(10);
        let connections = Connections::default();
        let (first, _far) = mux();
        let heard = connections
            .claim("n", 1, "10.0.0.1", first.clone(), patience)
            .unwrap();
        let (other, _far) = mux();
        let refused = connections.claim("n", 2, "10.0.0.2", other.clone(), patience);
        let refused = refused.err().unwrap();
        assert!(
            refused.message.contains("in use by another machine (10.0.0.1)"),
            "{refused}"
        );
        assert!(!first.is_closed());
        // Another node is another matter, and so is the same daemon on a new connection.
        connections.claim("m", 2, "10.0.0.2", mux().0, patience).unwrap();
        let (again, _far) = mux();
        connections
            .claim("n", 1, "10.0.0.1", again.clone(), patience)
            .unwrap();
        first.closed().await;
        // Silent for too long.
        assert!(heard.ago() < patience);
        connections
            .claim("n", 2, "10.0.0.2", other.clone(), Duration::ZERO)
            .unwrap();
        again.closed().await;
        // Gone.
        other.end();
        other.closed().await;
        assert!(connections.get("n").is_none());
        connections.claim("n", 3, "10.0.0.3", mux().0, patience).unwrap();
    }
}
