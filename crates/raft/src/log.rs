//! The log on disk: segments, the vote, and what was purged.
//!
//! All calls block, up to one `fdatasync`; they are made on the store's own thread. A leader's appends do not wait for
//! the disk: see `flush`.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use openraft::{CommittedLeaderId, EntryPayload, RaftLogId};
use serde::{Deserialize, Serialize};

use crate::crypt::Keyring;
use crate::error::RaftError;
use crate::files;
use crate::flush::{Disk, Flusher};
use crate::segment::{self, Head, Segment, Spot};
use crate::types::{Entry, LogId, NodeId, Proposal, Vote};

/// Recent entries that are kept decoded, since each is read right after it was appended.
const CACHE_BYTES: usize = 256 << 10;
/// A write buffer larger than this is not kept.
const BUFFER_BYTES: usize = 256 << 10;

/// Room kept beside what is reserved, for the entries that openraft itself appends (membership, blank).
const SLACK: usize = 64 << 10;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// What `vote.json` holds.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Durable {
    /// Whose log this is.
    node: NodeId,
    vote: Option<Vote>,
    /// Since which start of the machine: what was written before the last one may be gone, unless it was flushed.
    #[serde(default)]
    boot: Option<String>,
    /// Entries up to here are in a snapshot and may be gone.
    purged: Option<LogId>,
}

#[derive(Clone, Copy)]
struct Slot {
    term: u64,
    leader: u64,
    spot: Spot,
}

pub(crate) struct Log {
    dir: PathBuf,
    keyring: Arc<Keyring>,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    /// One per entry that is held, the first at index `first`.
    slots: VecDeque<Slot>,
    first: u64,
    durable: Durable,
    committed: Option<LogId>,
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    buffer: Vec<u8>,
    spare: Option<JoinHandle<Result<(), RaftError>>>,
    disk: Disk,
    flusher: Flusher,
}

/// Identifies this start of the machine.
fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

fn size_of(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.len() + 64,
        _ => 256,
    }
}

impl Log {
    /// Opens the log of a directory, or makes one, and repairs a write that was cut off.
    pub(crate) fn open(
        dir: &Path,
        node: NodeId,
        keyring: Arc<Keyring>,
        segment_bytes: u64,
    ) -> Result<Self, RaftError> {
        let path = dir.join("vote.json");
        let mut durable: Durable = match files::read(&path)? {
            Some(text) => serde_json::from_slice(&text).map_err(|e| RaftError::corrupt(&path, e))?,
            None => Durable {
                node,
                ..Durable::default()
            },
        };
        if durable.node != node {
            return Err(RaftError::corrupt(
                &path,
                format!("it belongs to node {:x}", durable.node),
            ));
        }
        let boot = boot();
        if durable.boot.is_none() || durable.boot != boot {
            // Others may have entries of its term that this disk lost before they were flushed: a leader must not
            // go on with that term and fill the same places anew.
            durable.vote = durable.vote.map(|vote| match vote.leader_id.node_id == node {
                true => Vote::new(vote.leader_id.term, node),
                false => vote,
            });
        }
        durable.boot = boot;
        let disk = Disk::new(0);
        let mut log = Self {
            dir: dir.to_owned(),
            keyring,
            segment_bytes,
            segments: VecDeque::new(),
            slots: VecDeque::new(),
            first: durable.purged.map_or(0, |p| p.index + 1),
            durable,
            committed: None,
            cache: VecDeque::new(),
            cache_bytes: 0,
            buffer: Vec::new(),
            spare: None,
            flusher: Flusher::start(disk.clone()),
            disk,
        };
        log.load()?;
        if let Some(active) = log.segments.back() {
            // What a killed process wrote may not be on the disk yet.
            active.sync()?;
        }
        log.disk.set(log.next());
        Ok(log)
    }

    fn segment_paths(&self) -> Result<Vec<PathBuf>, RaftError> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(RaftError::io(&self.dir))? {
            let path = entry.map_err(RaftError::io(&self.dir))?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.starts_with("log-") && name.ends_with(".seg") {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn load(&mut self) -> Result<(), RaftError> {
        let (paths, mut committed) = (self.segment_paths()?, 0);
        let (purged_next, last_path) = (self.first, paths.last().cloned());
        for path in paths {
            let last = Some(&path) == last_path.as_ref();
            let (mut segment, scan) = Segment::open(path, &self.keyring)?;
            let next = self.segments.back().map_or(segment.first, |_| self.next());
            if self.segments.is_empty() {
                if segment.first > purged_next {
                    return Err(RaftError::corrupt(
                        segment.path,
                        format!("entry {purged_next} is missing"),
                    ));
                }
                self.first = segment.first;
            }
            if segment.first != next {
                return Err(RaftError::corrupt(
                    segment.path,
                    format!("entry {next} is missing"),
                ));
            }
            if scan.torn {
                if !last {
                    return Err(RaftError::corrupt(segment.path, "damaged before its end"));
                }
                tracing::warn!(path = %segment.path.display(), end = segment.end, "dropping a write that was cut off");
                if segment.size < self.segment_bytes {
                    // The file itself was cut; give it its space back.
                    segment.size = self.segment_bytes;
                    let grown = segment
                        .file
                        .set_len(segment.end)
                        .and_then(|()| segment.file.set_len(segment.size));
                    grown.map_err(RaftError::io(&segment.path))?;
                }
                segment.cut(segment.end, segment.size, segment.crc)?;
            }
            for (head, spot) in scan.records {
                committed = committed.max(head.committed);
                self.slots.push_back(Slot {
                    term: head.term,
                    leader: head.leader,
                    spot,
                });
            }
            self.segments.push_back(segment);
        }
        if !self.segments.is_empty() && self.next() < purged_next {
            // A snapshot from the leader replaced everything, and removing the files was interrupted.
            self.drop_all()?;
        }
        self.forget_before(purged_next);
        self.committed = committed
            .checked_sub(1)
            .and_then(|index| self.id_at(index))
            .or(self.durable.purged);
        Ok(())
    }

    /// The index of the next entry.
    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn id_at(&self, index: u64) -> Option<LogId> {
        let slot = self
            .slots
            .get(usize::try_from(index.checked_sub(self.first)?).ok()?)?;
        Some(LogId::new(CommittedLeaderId::new(slot.term, slot.leader), index))
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.next()
            .checked_sub(1)
            .and_then(|last| self.id_at(last))
            .or(self.durable.purged)
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.durable.purged
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.durable.vote
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.committed
    }

    /// Remembered without a write of its own: the next record carries it.
    pub(crate) fn set_committed(&mut self, committed: Option<LogId>) {
        self.committed = committed;
    }

    /// How far it is on the disk.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Whether this node leads, and others get its entries.
    fn leads(&self) -> bool {
        let led = self
            .vote()
            .is_some_and(|vote| vote.committed && vote.leader_id.node_id == self.durable.node);
        led && self.disk.travels() && self.flusher.runs()
    }

    /// How many bytes of segments are in use.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    /// Keeps the vote. Whoever stops leading by it answers the next leader for entries that it does not write again:
    /// they must be on the disk by then.
    pub(crate) fn save_vote(&mut self, vote: Vote) -> Result<(), RaftError> {
        if self.disk.until() < self.next() {
            self.sync()?;
        }
        self.durable.vote = Some(vote);
        self.save_durable()
    }

    fn save_durable(&self) -> Result<(), RaftError> {
        let text = serde_json::to_vec(&self.durable).expect("plain data");
        files::replace(&self.dir.join("vote.json"), &text)
    }

    /// Makes sure that an entry of `bytes` can be appended without asking the file system for space.
    ///
    /// # Errors
    /// [`RaftError::StorageFull`], before anything was promised to anybody.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), RaftError> {
        let slack = SLACK.min(self.segment_bytes as usize / 4);
        let need = segment::space(bytes + slack);
        match self.segments.back() {
            Some(active) if active.fits(need) => Ok(()),
            _ => self.ensure_spare(need),
        }
    }

    fn spare_path(&self) -> PathBuf {
        self.dir.join("spare.seg")
    }

    /// Whether a spare file of at least `size` bytes lies ready.
    fn spare_size(&self) -> u64 {
        std::fs::metadata(self.spare_path()).map_or(0, |m| m.len())
    }

    fn ensure_spare(&mut self, need: usize) -> Result<(), RaftError> {
        if let Some(Err(error)) = self.spare.take().and_then(|thread| thread.join().ok()) {
            tracing::warn!(%error, "could not prepare a log segment");
        }
        let size = (need as u64 + segment::HEADER as u64 + 8)
            .next_multiple_of(4096)
            .max(self.segment_bytes);
        if self.spare_size() >= size {
            return Ok(());
        }
        let temporary = self.dir.join("spare.tmp");
        segment::allocate(&temporary, size)?;
        files::rename(&temporary, &self.spare_path())
    }

    /// Starts to prepare the next segment before it is needed.
    fn prepare_spare(&mut self) {
        let half_full = self
            .segments
            .back()
            .is_some_and(|active| active.end > active.size / 2);
        if !half_full || self.spare.is_some() || self.spare_size() >= self.segment_bytes {
            return;
        }
        let (temporary, spare, size) = (self.dir.join("spare.tmp"), self.spare_path(), self.segment_bytes);
        let make = move || {
            segment::allocate(&temporary, size)?;
            files::rename(&temporary, &spare)
        };
        self.spare = std::thread::Builder::new()
            .name("log-spare".into())
            .spawn(make)
            .ok();
    }

    /// Appends entries and returns when they are on the disk; those of a leader, when the disk has been told.
    pub(crate) fn append(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), RaftError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let on_disk = self.disk.until();
        for entry in entries {
            self.append_one(entry, on_disk, &mut buffer)?;
        }
        self.write(&mut buffer)?;
        if self.leads() {
            if let Some(active) = self.segments.back() {
                self.flusher.flush(&active.file, &active.path, self.next())?;
            }
        } else {
            self.sync()?;
        }
        buffer.shrink_to(BUFFER_BYTES);
        self.buffer = buffer;
        self.prepare_spare();
        Ok(())
    }

    /// Waits until all entries are on the disk.
    fn sync(&self) -> Result<(), RaftError> {
        self.flusher.settle()?;
        if let Some(active) = self.segments.back() {
            active.sync()?;
        }
        self.disk.set(self.next());
        Ok(())
    }

    fn append_one(&mut self, entry: Entry, on_disk: u64, buffer: &mut Vec<u8>) -> Result<(), RaftError> {
        let membership;
        let (kind, plain): (u8, &[u8]) = match &entry.payload {
            EntryPayload::Blank => (BLANK, &[]),
            EntryPayload::Normal(proposal) => (NORMAL, &proposal.0),
            EntryPayload::Membership(m) => {
                membership = serde_json::to_vec(m).expect("plain data");
                (MEMBERSHIP, &membership)
            }
        };
        let id = *entry.get_log_id();
        if self.durable.purged.is_some_and(|purged| id.index <= purged.index) {
            // A snapshot holds it already.
            return Ok(());
        }
        if cfg!(test) && self.segments.is_empty() && self.durable.purged.is_none() {
            // openraft's suite begins some logs at 1, which a cluster never does.
            self.first = id.index;
        }
        let next = self.next();
        if id.index != next {
            return Err(RaftError::corrupt(
                &self.dir,
                format!("entry {} does not follow {next}", id.index),
            ));
        }
        let need = segment::space(plain.len());
        if !self
            .segments
            .back()
            .is_some_and(|active| active.fits(buffer.len() + need))
        {
            self.write(buffer)?;
            self.sync()?;
            self.ensure_spare(need)?;
            let path = self.dir.join(format!("log-{:020}.seg", id.index));
            self.segments
                .push_back(Segment::begin(&self.spare_path(), path, id.index, &self.keyring)?);
        }
        let head = Head {
            kind,
            index: id.index,
            term: id.leader_id.term,
            leader: id.leader_id.node_id,
            committed: self.committed.map_or(0, |c| c.index + 1),
            durable: on_disk,
        };
        let active = self.segments.back_mut().expect("made above");
        let spot = active.encode(&head, plain, buffer.len(), buffer);
        self.slots.push_back(Slot {
            term: head.term,
            leader: head.leader,
            spot,
        });
        self.remember(entry);
        Ok(())
    }

    fn write(&mut self, buffer: &mut Vec<u8>) -> Result<(), RaftError> {
        if let (Some(active), false) = (self.segments.back_mut(), buffer.is_empty()) {
            active.write(buffer)?;
        }
        buffer.clear();
        Ok(())
    }

    fn remember(&mut self, entry: Entry) {
        self.cache_bytes += size_of(&entry);
        self.cache.push_back(entry);
        while self.cache_bytes > CACHE_BYTES && self.cache.len() > 1 {
            self.forget_cached();
        }
    }

    fn forget_cached(&mut self) {
        if let Some(old) = self.cache.pop_front() {
            self.cache_bytes -= size_of(&old);
        }
    }

    /// The entries of a range that are held.
    pub(crate) fn read(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry>, RaftError> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        (start.max(self.first)..end.min(self.next()))
            .map(|index| self.read_one(index))
            .collect()
    }

    fn read_one(&self, index: u64) -> Result<Entry, RaftError> {
        let cached_from = self.next() - self.cache.len() as u64;
        if index >= cached_from {
            return Ok(self.cache[(index - cached_from) as usize].clone());
        }
        let slot = self.slots[(index - self.first) as usize];
        let segment = &self.segments[self.segments.partition_point(|segment| segment.first <= index) - 1];
        let (head, body) = segment.read(slot.spot)?;
        let damaged = |what: String| RaftError::corrupt(&segment.path, format!("entry {index}: {what}"));
        let payload = match head.kind {
            BLANK => EntryPayload::Blank,
            NORMAL => EntryPayload::Normal(Proposal(body.into())),
            MEMBERSHIP => {
                EntryPayload::Membership(serde_json::from_slice(&body).map_err(|e| damaged(e.to_string()))?)
            }
            kind => return Err(damaged(format!("unknown kind {kind}"))),
        };
        Ok(Entry {
            log_id: LogId::new(CommittedLeaderId::new(head.term, head.leader), head.index),
            payload,
        })
    }

    /// Removes all entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) -> Result<(), RaftError> {
        self.sync()?;
        let inside = self.segments.iter().all(|segment| segment.first != index);
        while self.segments.back().is_some_and(|segment| segment.first >= index) {
            let Some(segment) = self.segments.pop_back() else {
                break;
            };
            files::remove(&segment.path)?;
            files::sync_dir(&self.dir)?;
        }
        let keep = index.saturating_sub(self.first) as usize;
        let cut = self.slots.get(keep).copied().filter(|_| inside);
        if let (Some(slot), Some(active)) = (cut, self.segments.back_mut()) {
            let crc = match keep.checked_sub(1) {
                Some(before) => self.slots[before].spot.crc,
                None => active.crc_before(index, &self.keyring)?,
            };
            active.cut(u64::from(slot.spot.offset), active.end, crc)?;
        }
        while self.next() > index && self.slots.pop_back().is_some() {
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= size_of(&entry);
            }
        }
        self.disk.set(self.next());
        Ok(())
    }

    /// Gives up the entries up to and including `upto`, which a snapshot holds.
    pub(crate) fn purge(&mut self, upto: LogId) -> Result<(), RaftError> {
        self.durable.purged = self.durable.purged.max(Some(upto));
        self.save_durable()?;
        if self.next() <= upto.index {
            self.sync()?;
            self.drop_all()?;
        }
        self.forget_before(upto.index + 1);
        self.disk.raise(upto.index + 1);
        while self
            .segments
            .get(1)
            .is_some_and(|second| second.first <= upto.index + 1)
        {
            let Some(old) = self.segments.pop_front() else {
                break;
            };
            self.retire(old)?;
        }
        Ok(())
    }

    /// Keeps one used segment for the next need, and removes others.
    fn retire(&mut self, old: Segment) -> Result<(), RaftError> {
        if self.spare.is_none() && old.size == self.segment_bytes && self.spare_size() == 0 {
            return files::rename(&old.path, &self.spare_path());
        }
        files::remove(&old.path)
    }

    fn drop_all(&mut self) -> Result<(), RaftError> {
        // From the front, so that what is left is always consecutive.
        while let Some(segment) = self.segments.pop_front() {
            files::remove(&segment.path)?;
        }
        files::sync_dir(&self.dir)?;
        self.slots.clear();
        self.cache.clear();
        self.cache_bytes = 0;
        Ok(())
    }

    fn forget_before(&mut self, index: u64) {
        while self.first < index && self.slots.pop_front().is_some() {
            self.first += 1;
        }
        self.first = self.first.max(index);
        while self.cache.len() > self.slots.len() {
            self.forget_cached();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Whoever opens the directory next should not meet a file that is still being made.
        if let Some(thread) = self.spare.take() {
            let _ = thread.join();
        }
    }
}
