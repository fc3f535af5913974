//! The node-local store: containers, networks and volumes of this node, on its own disk.
//!
//! One thread writes; it takes all waiting changes into one transaction, so that many writers share one flush to
//! disk. Reads happen once, at start: what runs is in memory. After a failed write (a full disk) the file is opened
//! anew, since nothing can be written to a database that has met an error; what nobody waits for is tried again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tripod_model::{Error, Result};

/// A table of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// Containers by identifier.
    Containers,
    /// Networks by identifier.
    Networks,
    /// Volumes by name.
    Volumes,
    /// Places of pods by their unique identifiers.
    Places,
}

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Self::Containers => "containers",
            Self::Networks => "networks",
            Self::Volumes => "volumes",
            Self::Places => "places",
        })
    }
}

type Done = oneshot::Sender<Result<()>>;

struct Change {
    table: Table,
    key: String,
    /// `None` removes.
    value: Option<Vec<u8>>,
    done: Option<Done>,
}

/// The file, open unless its opening failed.
struct File {
    path: PathBuf,
    database: Mutex<Option<Database>>,
}

impl File {
    fn open(&self) -> Result<Database> {
        Database::builder()
            .set_cache_size(1 << 20)
            .create(&self.path)
            .map_err(|e| Error::internal(format_args!("cannot open {}: {e}", self.path.display())))
    }

    /// Works on the database, which is closed when that fails.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match slot.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let done = work(&database)?;
        *slot = Some(database);
        Ok(done)
    }
}

/// Handle to the store.
#[derive(Clone)]
pub(crate) struct LocalStore {
    file: Arc<File>,
    queue: mpsc::UnboundedSender<Change>,
}

impl LocalStore {
    /// Opens (or makes) the store at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = Arc::new(File {
            path: path.to_owned(),
            database: Mutex::new(None),
        });
        // A file that cannot be opened is told at once.
        file.with(|_| Ok(()))?;
        let (queue, receiver) = mpsc::unbounded_channel();
        let writer = Arc::clone(&file);
        std::thread::Builder::new()
            .name("local-store".into())
            .stack_size(256 << 10)
            .spawn(move || write_loop(&writer, receiver))?;
        Ok(Self { file, queue })
    }

    /// All rows of a table.
    pub(crate) fn load<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>> {
        self.file.with(|database| load(database, table))
    }

    /// Writes a row; returns when it is on disk.
    pub(crate) async fn put<T: Serialize>(&self, table: Table, key: &str, value: &T) -> Result<()> {
        let (done, wait) = oneshot::channel();
        self.send(
            table,
            key,
            Some(serde_json::to_vec(value).map_err(internal)?),
            Some(done),
        )?;
        wait.await.map_err(internal)?
    }

    /// Writes a row soon: for state that can be found out again after a crash.
    pub(crate) fn put_soon<T: Serialize>(&self, table: Table, key: &str, value: &T) {
        if let Ok(bytes) = serde_json::to_vec(value) {
            let _ = self.send(table, key, Some(bytes), None);
        }
    }

    /// Removes a row; returns when that is on disk.
    pub(crate) async fn remove(&self, table: Table, key: &str) -> Result<()> {
        let (done, wait) = oneshot::channel();
        self.send(table, key, None, Some(done))?;
        wait.await.map_err(internal)?
    }

    fn send(&self, table: Table, key: &str, value: Option<Vec<u8>>, done: Option<Done>) -> Result<()> {
        self.queue
            .send(Change {
                table,
                key: key.to_owned(),
                value,
                done,
            })
            .map_err(|_| Error::internal("the node's store is closed"))
    }
}

fn internal(e: impl std::fmt::Display) -> Error {
    Error::internal(e)
}

fn load<T: DeserializeOwned>(database: &Database, table: Table) -> Result<Vec<(String, T)>> {
    let read = database.begin_read().map_err(internal)?;
    let rows = match read.open_table(table.definition()) {
        Ok(rows) => rows,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(e) => return Err(internal(e)),
    };
    let mut out = Vec::new();
    for row in rows.iter().map_err(internal)? {
        let (key, value) = row.map_err(internal)?;
        let value = serde_json::from_slice(value.value())
            .map_err(|e| Error::internal(format_args!("stored row {}: {e}", key.value())))?;
        out.push((key.value().to_owned(), value));
    }
    Ok(out)
}

fn write_loop(file: &File, mut queue: mpsc::UnboundedReceiver<Change>) {
    // Changes that nobody waits for and that could not be written yet.
    let mut late: Vec<Change> = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let mut batch = std::mem::take(&mut late);
        batch.push(first);
        while let Ok(next) = queue.try_recv() {
            batch.push(next);
        }
        let result = file.with(|database| commit(database, &batch));
        if let Err(e) = &result {
            tracing::error!("the node's store cannot be written: {e}");
        }
        for change in batch {
            match change.done {
                Some(done) => drop(done.send(result.clone())),
                None if result.is_err() => {
                    // The newest one counts.
                    late.retain(|c| (c.table, &c.key) != (change.table, &change.key));
                    late.push(change);
                }
                None => {}
            }
        }
    }
}

fn commit(database: &Database, batch: &[Change]) -> Result<()> {
    let write = database.begin_write().map_err(internal)?;
    for change in batch {
        let mut rows = write.open_table(change.table.definition()).map_err(internal)?;
        match &change.value {
            Some(bytes) => rows.insert(change.key.as_str(), bytes.as_slice()).map(drop),
            None => rows.remove(change.key.as_str()).map(drop),
        }
        .map_err(internal)?;
    }
    write.commit().map_err(internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rows_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.redb");
        {
            let store = LocalStore::open(&path).unwrap();
            assert!(store.load::<String>(Table::Volumes).unwrap().is_empty());
            store.put(Table::Volumes, "a", &"one").await.unwrap();
            store.put(Table::Volumes, "b", &"two").await.unwrap();
            store.remove(Table::Volumes, "a").await.unwrap();
        }
        // The writer thread lets go of the file when its queue closes.
        let store = loop {
            if let Ok(store) = LocalStore::open(&path) {
                break store;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(
            store.load::<String>(Table::Volumes).unwrap(),
            [("b".to_owned(), "two".to_owned())]
        );
    }
}
