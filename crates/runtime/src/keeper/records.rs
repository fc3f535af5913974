//! What the keeper knows, on disk: a small file per container, replaced as a whole. It is not synced: it must
//! survive processes, not the machine, with which all containers end anyway.

use std::io;
use std::path::{Path, PathBuf};

use super::wire::Record;

/// The directory of records.
pub(crate) struct Records {
    dir: PathBuf,
}

impl Records {
    /// Below the keeper's directory.
    pub(crate) fn open(keeper: &Path) -> io::Result<Self> {
        let dir = keeper.join("containers");
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// Writes a container's record.
    pub(crate) fn save(&self, record: &Record) -> io::Result<()> {
        let path = self.dir.join(&record.order.id);
        let tmp = self.dir.join(format!(".{}", record.order.id));
        std::fs::write(&tmp, serde_json::to_vec(record)?)?;
        std::fs::rename(tmp, path)
    }

    /// Removes a container's record.
    pub(crate) fn remove(&self, id: &str) {
        let _ = std::fs::remove_file(self.dir.join(id));
    }

    /// All records that can be read.
    pub(crate) fn load(&self) -> io::Result<Vec<Record>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path
                .file_name()
                .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."))
            {
                let _ = std::fs::remove_file(path);
                continue;
            }
            if let Ok(record) = serde_json::from_slice(&std::fs::read(&path)?) {
                all.push(record);
            }
        }
        Ok(all)
    }
}

/// Start time of a process in clock ticks since boot; `None` when there is none (or only a zombie).
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let fields = stat_fields(pid)?;
    (fields.first()? != "Z").then(|| fields.get(19)?.parse().ok())?
}

/// Fields of `/proc/PID/stat` from the third (state) on.
pub(crate) fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::wire::{ExitRecord, StartOrder};

    #[test]
    fn records_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let record = Record {
            order: StartOrder {
                id: "abc".into(),
                run: 3,
                ..StartOrder::default()
            },
            pid: 1,
            start_ticks: 5,
            exit: Some(ExitRecord {
                code: Some(137),
                oom_killed: true,
                at_nanos: 1,
            }),
        };
        records.save(&record).unwrap();
        let back = Records::open(dir.path()).unwrap().load().unwrap();
        assert_eq!(back.len(), 1);
        assert_eq!((back[0].order.run, back[0].exit.clone()), (3, record.exit));
        records.remove("abc");
        assert!(records.load().unwrap().is_empty());
    }

    #[test]
    fn this_process_has_a_start_time() {
        assert!(start_ticks(std::process::id() as i32).is_some());
        assert!(start_ticks(i32::MAX).is_none());
    }
}
