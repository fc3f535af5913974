//! Puts the end of the log on this disk while the entries are on their way to other managers.
//!
//! openraft begins to replicate an entry when the log says that it is written, and a leader need not have it on its
//! disk for that. So a leader's append only hands the entry to the kernel (which `kill -9` does not undo), and this
//! thread has it flushed meanwhile. What depends on the leader's disk waits for [`Disk::holds`]: applying an entry,
//! hence every answer, and telling others that it is committed.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use tokio::sync::watch as channel;

use crate::error::RaftError;

/// How far the log is on this disk. Clones are the same.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Shared>);

struct Shared {
    /// Entries before this index are on the disk; `None` after a failure: no more will be.
    until: channel::Sender<Option<u64>>,
    /// Ways to other managers that are open.
    ways: AtomicUsize,
}

/// Counts as a way to another manager while it lives.
pub(crate) struct Way(Disk);

impl Disk {
    pub(crate) fn new(until: u64) -> Self {
        Self(Arc::new(Shared {
            until: channel::Sender::new(Some(until)),
            ways: AtomicUsize::new(0),
        }))
    }

    /// The index before which entries are on the disk.
    pub(crate) fn until(&self) -> u64 {
        self.0.until.borrow().unwrap_or(0)
    }

    pub(crate) fn set(&self, until: u64) {
        self.0.until.send_if_modified(|known| match known {
            Some(known) => std::mem::replace(known, until) != until,
            None => false,
        });
    }

    /// As [`Disk::set`], but never back.
    pub(crate) fn raise(&self, until: u64) {
        self.0.until.send_if_modified(|known| match known {
            Some(known) if *known < until => {
                *known = until;
                true
            }
            _ => false,
        });
    }

    /// Returns when the entry `index` is on the disk.
    ///
    /// # Errors
    /// If the disk failed.
    pub(crate) async fn holds(&self, index: u64) -> Result<(), RaftError> {
        let mut until = self.0.until.subscribe();
        let held = until
            .wait_for(|until| until.is_none_or(|until| until > index))
            .await;
        match held.as_deref() {
            Ok(Some(_)) => Ok(()),
            _ => Err(RaftError::Closed),
        }
    }

    /// Notes that entries travel to another manager.
    pub(crate) fn way(&self) -> Way {
        self.0.ways.fetch_add(1, Ordering::Relaxed);
        Way(self.clone())
    }

    /// Whether there is anybody to send entries to: alone, a flush beside the thread would only cost.
    pub(crate) fn travels(&self) -> bool {
        self.0.ways.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.0.0.ways.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Work {
    /// What is to be flushed, and up to which entry.
    next: Option<(Arc<File>, PathBuf, u64)>,
    busy: bool,
    stop: bool,
    failed: Option<RaftError>,
}

type Desk = Arc<(Mutex<Work>, Condvar)>;

/// The thread that flushes.
pub(crate) struct Flusher {
    desk: Desk,
    thread: Option<JoinHandle<()>>,
}

fn lock(desk: &Desk) -> MutexGuard<'_, Work> {
    desk.0.lock().expect("no panic while locked")
}

impl Flusher {
    /// Starts it; without a thread everything is flushed by [`Flusher::settle`].
    pub(crate) fn start(disk: Disk) -> Self {
        let desk = Desk::default();
        let mine = desk.clone();
        let thread = std::thread::Builder::new()
            .name("log-flush".into())
            .spawn(move || run(&mine, &disk))
            .ok();
        Self { desk, thread }
    }

    /// Whether flushes can be handed over.
    pub(crate) fn runs(&self) -> bool {
        self.thread.is_some()
    }

    /// Has everything flushed that was written to the file, which are the entries before `until`.
    ///
    /// # Errors
    /// That of an earlier flush.
    pub(crate) fn flush(
        &self,
        file: &Arc<File>,
        path: &std::path::Path,
        until: u64,
    ) -> Result<(), RaftError> {
        let mut work = lock(&self.desk);
        if let Some(error) = work.failed.take() {
            return Err(error);
        }
        work.next = Some((file.clone(), path.to_owned(), until));
        self.desk.1.notify_all();
        Ok(())
    }

    /// Waits until nothing is being flushed.
    ///
    /// # Errors
    /// That of an earlier flush.
    pub(crate) fn settle(&self) -> Result<(), RaftError> {
        let mut work = lock(&self.desk);
        while work.busy || work.next.is_some() {
            work = self.desk.1.wait(work).expect("no panic while locked");
        }
        work.failed.take().map_or(Ok(()), Err)
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        lock(&self.desk).stop = true;
        self.desk.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(desk: &Desk, disk: &Disk) {
    let mut work = lock(desk);
    loop {
        let Some((file, path, until)) = work.next.take() else {
            if work.stop {
                return;
            }
            work = desk.1.wait(work).expect("no panic while locked");
            continue;
        };
        work.busy = true;
        drop(work);
        let flushed = file.sync_data().map_err(RaftError::io(&path));
        match &flushed {
            Ok(()) => disk.raise(until),
            Err(error) => {
                tracing::error!(%error, "the log does not reach the disk");
                disk.0.until.send_replace(None);
            }
        }
        work = lock(desk);
        work.busy = false;
        if let Err(error) = flushed {
            work.failed = Some(error);
        }
        desk.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_disk_goes_on_when_it_holds_the_entry() {
        let disk = Disk::new(3);
        disk.holds(2).await.unwrap();
        let waiting = tokio::spawn({
            let disk = disk.clone();
            async move { disk.holds(4).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let file = tempfile::tempfile().unwrap();
        let flusher = Flusher::start(disk.clone());
        flusher
            .flush(&Arc::new(file), std::path::Path::new("x"), 5)
            .unwrap();
        waiting.await.unwrap().unwrap();
        flusher.settle().unwrap();
        assert_eq!(disk.until(), 5);
    }

    #[tokio::test]
    async fn a_failed_flush_ends_all_waiting_and_later_writes() {
        let disk = Disk::new(0);
        let flusher = Flusher::start(disk.clone());
        let (reader, _writer) = std::io::pipe().unwrap();
        // A pipe cannot be flushed.
        let pipe = File::from(std::os::fd::OwnedFd::from(reader));
        flusher
            .flush(&Arc::new(pipe), std::path::Path::new("x"), 1)
            .unwrap();
        assert!(disk.holds(0).await.is_err());
        assert!(flusher.settle().is_err());
    }

    #[test]
    fn ways_are_counted() {
        let disk = Disk::new(0);
        let way = disk.way();
        assert!(disk.travels());
        drop(way);
        assert!(!disk.travels());
    }
}
