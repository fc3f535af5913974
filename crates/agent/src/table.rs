//! The containers of the node in memory: by identifier, prefix and name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use tripod_model::{Error, Result};

use crate::record::ContainerRecord;

/// A container: its record, and the lock that orders starts, ends and removal.
pub(crate) struct Container {
    /// The newest record; subscribers are told of each change, and the channel closes with removal.
    pub record: watch::Sender<Arc<ContainerRecord>>,
    /// Held while processes, namespaces and mounts change.
    pub busy: tokio::sync::Mutex<()>,
    /// Cancels the health check and the pending restart of the run.
    pub run: std::sync::Mutex<tokio_util::sync::CancellationToken>,
    /// It is being restarted: its end does not remove it, whatever its specification says.
    pub kept: std::sync::atomic::AtomicBool,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord) -> Self {
        Self {
            record: watch::Sender::new(Arc::new(record)),
            busy: tokio::sync::Mutex::new(()),
            run: std::sync::Mutex::default(),
            kept: std::sync::atomic::AtomicBool::default(),
        }
    }

    pub(crate) fn get(&self) -> Arc<ContainerRecord> {
        self.record.borrow().clone()
    }

    /// Changes the record and returns the new one.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut ContainerRecord)) -> Arc<ContainerRecord> {
        self.record.send_modify(|record| change(Arc::make_mut(record)));
        self.get()
    }

    /// A fresh token for the tasks of a new run; those of the run before are cancelled.
    pub(crate) fn new_run_token(&self) -> tokio_util::sync::CancellationToken {
        let token = tokio_util::sync::CancellationToken::new();
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *run, token.clone()).cancel();
        token
    }

    /// Cancels the tasks of the run.
    pub(crate) fn cancel_run(&self) {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }
}

#[derive(Default)]
struct Maps {
    by_id: BTreeMap<String, Arc<Container>>,
    by_name: HashMap<String, String>,
}

/// All containers.
#[derive(Default)]
pub(crate) struct Table {
    maps: RwLock<Maps>,
}

impl Table {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Maps> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Maps> {
        self.maps.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a name for an identifier; the error is Docker's.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut maps = self.write();
        if let Some(holder) = maps.by_name.get(name) {
            return Err(Error::conflict(format_args!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to \
                 remove (or rename) that container to be able to reuse that name."
            )));
        }
        maps.by_name.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    /// Gives a name back, if this identifier holds it.
    pub(crate) fn release(&self, name: &str, id: &str) {
        let mut maps = self.write();
        if maps.by_name.get(name).is_some_and(|holder| holder == id) {
            maps.by_name.remove(name);
        }
    }

    pub(crate) fn is_taken(&self, name: &str) -> bool {
        self.read().by_name.contains_key(name)
    }

    pub(crate) fn insert(&self, container: Arc<Container>) {
        let record = container.get();
        let mut maps = self.write();
        maps.by_name.insert(record.name.clone(), record.id.clone());
        maps.by_id.insert(record.id.clone(), container);
    }

    pub(crate) fn remove(&self, id: &str) -> Option<Arc<Container>> {
        let mut maps = self.write();
        maps.by_name.retain(|_, holder| holder != id);
        maps.by_id.remove(id)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<Container>> {
        self.read().by_id.get(id).cloned()
    }

    /// By full identifier, name (with or without slash), or unambiguous prefix of an identifier, in that order.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Container>> {
        let maps = self.read();
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(found) = maps.by_id.get(reference) {
            return Ok(found.clone());
        }
        if let Some(found) = maps.by_name.get(name).and_then(|id| maps.by_id.get(id)) {
            return Ok(found.clone());
        }
        let missing = || Error::not_found(format_args!("No such container: {reference}"));
        if reference.is_empty() {
            return Err(missing());
        }
        let mut matches = maps
            .by_id
            .range(reference.to_owned()..)
            .take_while(|(id, _)| id.starts_with(reference))
            .map(|(_, c)| c.clone());
        match (matches.next(), matches.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(Error::invalid(format_args!(
                "multiple IDs found with provided prefix: {reference}"
            ))),
            _ => Err(missing()),
        }
    }
}
