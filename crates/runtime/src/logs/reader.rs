//! Reads log files: from the end where only the last lines are wanted, over rotated files, and on as they grow.
//!
//! Whole files are never held in memory; only compressed ones are unpacked, to an unnamed file.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tripod_agent::ports::{BoxStream, LogLine, LogQuery, OutputStream};
use tripod_model::{Error, Result};

use super::format::{parse_json, parse_local};
use super::writer::numbered;
use crate::keeper::wire::LogTarget;

/// Lines handed over at once.
const BATCH: usize = 128;
/// Longest record that is taken for one.
const MAX_RECORD: usize = 1 << 20;

/// Lines of a log that match a query. `running` tells when a container that is followed has ended.
pub(crate) fn read(
    target: LogTarget,
    query: LogQuery,
    running: Option<watch::Receiver<bool>>,
) -> Result<BoxStream<Result<LogLine>>> {
    if target.driver == "none" {
        return Err(Error::not_implemented(
            "configured logging driver does not support reading",
        ));
    }
    let (tx, rx) = mpsc::channel(8);
    tokio::spawn(async move {
        if let Err(e) = produce(target, query, running, &tx).await {
            let _ = tx.send(Err(e)).await;
        }
    });
    Ok(tokio_stream::wrappers::ReceiverStream::new(rx)
        .flat_map(|batch: Result<Vec<LogLine>>| match batch {
            Ok(lines) => futures::stream::iter(lines.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(e) => futures::stream::iter(vec![Err(e)]),
        })
        .boxed())
}

type Sender = mpsc::Sender<Result<Vec<LogLine>>>;

async fn produce(
    target: LogTarget,
    query: LogQuery,
    running: Option<watch::Receiver<bool>>,
    tx: &Sender,
) -> Result<()> {
    // The watch is set before the first read, so that no change is missed in between.
    let watch = if query.follow {
        Some(Watch::new(&target.path)?)
    } else {
        None
    };
    let (sender, wanted) = (tx.clone(), query.clone());
    let mut tail = tokio::task::spawn_blocking(move || existing(&target, &wanted, &sender))
        .await
        .map_err(Error::internal)??;
    let (Some(watch), Some(tail)) = (watch, &mut tail) else {
        return Ok(());
    };
    follow(watch, tail, &query, running, tx).await
}

async fn follow(
    mut watch: Watch,
    tail: &mut Tail,
    query: &LogQuery,
    mut running: Option<watch::Receiver<bool>>,
    tx: &Sender,
) -> Result<()> {
    loop {
        // What is asked first was true before the read: then everything has been read.
        let ended = running
            .as_ref()
            .is_none_or(|r| !*r.borrow() || r.has_changed().is_err());
        let mut over = false;
        while let Some(batch) = tail.batch(query, &mut over)? {
            if !batch.is_empty() && tx.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
            if over {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
        let until = query
            .until
            .map(|t| t.as_nanosecond() - tripod_model::Time::now().as_nanosecond());
        if until.is_some_and(|left| left <= 0) {
            return Ok(());
        }
        let wait = std::time::Duration::from_nanos(
            until.map_or(u64::MAX / 4, |l| l.try_into().unwrap_or(u64::MAX / 4)),
        );
        let end = async {
            match &mut running {
                Some(r) => drop(r.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            r = watch.changed() => r?,
            () = end => {}
            () = tx.closed() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Sends what is there, and returns where to go on (`None` when the query is answered).
fn existing(target: &LogTarget, query: &LogQuery, tx: &Sender) -> Result<Option<Tail>> {
    let mut tail = Tail::open(target, query.tail)?;
    let mut over = false;
    while let Some(batch) = tail.batch(query, &mut over)? {
        if !batch.is_empty() && tx.blocking_send(Ok(batch)).is_err() {
            return Ok(None);
        }
        if over {
            return Ok(None);
        }
    }
    Ok(Some(tail))
}

/// Changes of the directory of a log.
struct Watch {
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    #[allow(unsafe_code)]
    fn new(path: &Path) -> Result<Self> {
        let dir = path
            .parent()
            .ok_or_else(|| Error::internal("the log has no directory"))?;
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(io::Error::from)?;
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, dir, what).map_err(io::Error::from)?;
        // SAFETY: the descriptor is owned, and stays open and the same until the watch is dropped.
        let fd = unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)?;
        Ok(Self { fd })
    }

    async fn changed(&mut self) -> Result<()> {
        let mut guard = self.fd.readable().await?;
        let mut buf = [0u8; 4096];
        loop {
            match rustix::io::read(guard.get_inner(), &mut buf) {
                Ok(n) if n > 0 => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Ok(_) => break,
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
        guard.clear_ready();
        Ok(())
    }
}

/// Device and inode.
type FileId = (u64, u64);

/// The files of a log, oldest first, and where reading is.
struct Tail {
    path: PathBuf,
    local: bool,
    /// Files yet to be read, the current one last.
    files: std::collections::VecDeque<File>,
    reader: Option<BufReader<File>>,
    record: Vec<u8>,
    /// Device and inode of the current file.
    current: Option<FileId>,
    max_files: u32,
}

impl Tail {
    fn open(target: &LogTarget, last: Option<usize>) -> Result<Self> {
        let mut tail = Self {
            path: target.path.clone(),
            max_files: target.max_files.max(1),
            local: target.driver == "local",
            files: std::collections::VecDeque::new(),
            reader: None,
            record: Vec::new(),
            current: None,
        };
        let local = tail.local;
        let mut left = last;
        tail.collect(|file| {
            let Some(left) = &mut left else { return Ok(true) };
            let found = if local {
                seek_local(file, *left)?
            } else {
                seek_lines(file, *left)?
            };
            *left -= found;
            Ok(*left > 0)
        })?;
        Ok(tail)
    }

    /// Opens the files that are newer than the one being read, until `more` wants no older ones. A rotation
    /// meanwhile moves files to higher numbers: going up, none is missed, and what is met twice is skipped. True
    /// when there are any.
    fn collect(&mut self, mut more: impl FnMut(&mut File) -> Result<bool>) -> Result<bool> {
        let mut seen = Vec::new();
        for n in 0..self.max_files {
            let Some((mut file, inode)) = open_numbered(&self.path, n)? else {
                continue;
            };
            if inode.is_some() && inode == self.current {
                break;
            }
            if inode.is_some() && seen.contains(&inode) {
                continue;
            }
            seen.push(inode);
            let older = more(&mut file)?;
            self.files.push_front(file);
            if !older {
                break;
            }
        }
        if let Some(newest) = seen.first() {
            self.current = *newest;
        }
        Ok(!seen.is_empty())
    }

    /// The next lines; `None` when there are none for now. Sets `over` when the query ends there.
    fn batch(&mut self, query: &LogQuery, over: &mut bool) -> Result<Option<Vec<LogLine>>> {
        let mut lines = Vec::new();
        for _ in 0..BATCH {
            let Some(line) = self.next_line()? else {
                return Ok((!lines.is_empty()).then_some(lines));
            };
            if query.until.is_some_and(|t| line.at > t) {
                *over = true;
                return Ok(Some(lines));
            }
            let stream = match line.stream {
                OutputStream::Stdout => query.stdout,
                OutputStream::Stderr => query.stderr,
            };
            if stream && query.since.is_none_or(|t| line.at >= t) {
                let attrs = line.attrs.filter(|_| query.details);
                lines.push(LogLine { attrs, ..line });
            }
        }
        Ok(Some(lines))
    }

    fn next_line(&mut self) -> Result<Option<LogLine>> {
        loop {
            if self.reader.is_none() {
                match self.files.pop_front() {
                    Some(f) => self.reader = Some(BufReader::new(f)),
                    None if self.collect(|_| Ok(true))? => continue,
                    None => return Ok(None),
                }
                self.record.clear();
            }
            if self.fill()? {
                let line = if self.local {
                    parse_local(&self.record[4..self.record.len() - 4])
                } else {
                    parse_json(&self.record)
                };
                self.record.clear();
                if line.is_some() {
                    return Ok(line);
                }
            } else if !self.files.is_empty() {
                self.reader = None;
            } else if !self.rotated() || !self.collect(|_| Ok(true))? {
                return Ok(None);
            }
        }
    }

    /// Completes the record under way. False at the end of what is there.
    fn fill(&mut self) -> Result<bool> {
        let Some(reader) = &mut self.reader else {
            return Ok(false);
        };
        if !self.local {
            let had = self.record.len();
            let n = io::BufRead::read_until(reader, b'\n', &mut self.record)?;
            return Ok(had + n > 0 && self.record.ends_with(b"\n"));
        }
        loop {
            let want = match self.record.first_chunk::<4>() {
                Some(head) => u32::from_le_bytes(*head) as usize + 8,
                None => 4,
            };
            if want > MAX_RECORD {
                return Err(Error::internal("the log file is damaged"));
            }
            if self.record.len() == want && want > 4 {
                return Ok(true);
            }
            let had = self.record.len();
            let missing = want - had;
            if reader
                .by_ref()
                .take(missing as u64)
                .read_to_end(&mut self.record)?
                < missing
            {
                return Ok(false);
            }
        }
    }

    /// The file that is written to is another one than is read (which may still have a rest).
    fn rotated(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|m| Some((m.dev(), m.ino())) != self.current)
    }
}

/// The file with this number of rotations, unpacked when it is compressed, and the identity of a plain one.
fn open_numbered(path: &Path, n: u32) -> Result<Option<(File, Option<FileId>)>> {
    let plain = if n == 0 {
        path.to_owned()
    } else {
        numbered(path, n, "")
    };
    match File::open(&plain) {
        Ok(f) => {
            let meta = f.metadata()?;
            return Ok(Some((f, Some((meta.dev(), meta.ino())))));
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        Err(_) if n == 0 => return Ok(None),
        Err(_) => {}
    }
    let Ok(gz) = File::open(numbered(path, n, ".gz")) else {
        return Ok(None);
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    let fd = rustix::fs::open(
        dir,
        rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::from(0o600),
    )
    .map_err(io::Error::from)?;
    let mut out = File::from(fd);
    io::copy(&mut flate2::read::GzDecoder::new(gz), &mut out)?;
    out.rewind()?;
    Ok(Some((out, None)))
}

/// Puts a file of lines where its last `want` lines begin; how many it has of them.
fn seek_lines(file: &mut File, want: usize) -> Result<usize> {
    let end = file.metadata()?.len();
    let mut at = end;
    let mut found = 0;
    let mut block = vec![0u8; 64 * 1024];
    let mut at_end = true;
    while at > 0 {
        let len = block.len().min(at as usize);
        at -= len as u64;
        file.read_exact_at(&mut block[..len], at)?;
        for (i, b) in block[..len].iter().enumerate().rev() {
            if *b != b'\n' {
                continue;
            }
            if at_end && at + i as u64 + 1 == end {
                at_end = false;
                // The end of the last line.
                if want == 0 {
                    file.seek(SeekFrom::Start(end))?;
                    return Ok(0);
                }
                continue;
            }
            found += 1;
            if found == want {
                file.seek(SeekFrom::Start(at + i as u64 + 1))?;
                return Ok(found);
            }
        }
    }
    file.seek(SeekFrom::Start(if want == 0 { end } else { 0 }))?;
    Ok(if end == 0 || want == 0 { 0 } else { found + 1 })
}

/// The same for records of the driver `local`.
fn seek_local(file: &mut File, want: usize) -> Result<usize> {
    let mut at = file.metadata()?.len();
    let mut found = 0;
    while found < want && at >= 8 {
        let mut len = [0u8; 4];
        file.read_exact_at(&mut len, at - 4)?;
        let whole = u64::from(u32::from_le_bytes(len)) + 8;
        if whole > at {
            break;
        }
        at -= whole;
        found += 1;
    }
    file.seek(SeekFrom::Start(at))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::writer::LogWriter;
    use tripod_model::Time;

    fn target(dir: &Path, driver: &str, max_size: u64) -> LogTarget {
        LogTarget {
            driver: driver.into(),
            path: dir.join("x.log"),
            max_size,
            max_files: if max_size > 0 { 4 } else { 1 },
            ..LogTarget::default()
        }
    }

    fn write(t: &LogTarget, range: std::ops::Range<i64>) {
        let mut w = LogWriter::open(t.clone()).unwrap().unwrap();
        for i in range {
            let stream = if i % 2 == 0 {
                OutputStream::Stdout
            } else {
                OutputStream::Stderr
            };
            w.add(stream, Time::from_second(i).unwrap(), format!("{i}\n").as_bytes());
            w.flush();
        }
    }

    fn all() -> LogQuery {
        LogQuery {
            stdout: true,
            stderr: true,
            ..LogQuery::default()
        }
    }

    async fn lines(t: &LogTarget, q: LogQuery) -> Vec<i64> {
        read(t.clone(), q, None)
            .unwrap()
            .map(|l| {
                String::from_utf8(l.unwrap().data.to_vec())
                    .unwrap()
                    .trim()
                    .parse::<i64>()
                    .unwrap()
            })
            .collect()
            .await
    }

    #[tokio::test]
    async fn tail_since_until_and_streams() {
        for driver in ["json-file", "local"] {
            let dir = tempfile::tempdir().unwrap();
            let t = target(dir.path(), driver, 0);
            write(&t, 0..10);
            assert_eq!(lines(&t, all()).await, (0..10).collect::<Vec<_>>(), "{driver}");
            for n in [0, 1, 3, 10, 50] {
                let want: Vec<i64> = (10 - n.min(10)..10).collect();
                assert_eq!(
                    lines(
                        &t,
                        LogQuery {
                            tail: Some(n as usize),
                            ..all()
                        }
                    )
                    .await,
                    want,
                    "{driver} {n}"
                );
            }
            let at = |s| Some(Time::from_second(s).unwrap());
            assert_eq!(
                lines(
                    &t,
                    LogQuery {
                        since: at(3),
                        until: at(5),
                        ..all()
                    }
                )
                .await,
                [3, 4, 5]
            );
            assert_eq!(
                lines(
                    &t,
                    LogQuery {
                        stdout: false,
                        ..all()
                    }
                )
                .await,
                [1, 3, 5, 7, 9]
            );
        }
    }

    #[tokio::test]
    async fn rotated_files_are_one_log() {
        for driver in ["json-file", "local"] {
            let dir = tempfile::tempdir().unwrap();
            let t = target(dir.path(), driver, 150);
            write(&t, 0..20);
            let got = lines(&t, all()).await;
            assert!(numbered(&t.path, 1, "").exists(), "{driver}");
            assert_eq!(got, (20 - got.len() as i64..20).collect::<Vec<_>>());
            assert_eq!(
                lines(
                    &t,
                    LogQuery {
                        tail: Some(3),
                        ..all()
                    }
                )
                .await,
                [17, 18, 19]
            );
        }
    }

    #[tokio::test]
    async fn following_sees_new_lines_and_rotation_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let t = target(dir.path(), "json-file", 300);
        write(&t, 0..2);
        let (running, rx) = watch::channel(true);
        let mut stream = read(
            t.clone(),
            LogQuery {
                follow: true,
                ..all()
            },
            Some(rx),
        )
        .unwrap();
        for i in 0..30 {
            if i >= 2 {
                let (t, i) = (t.clone(), i);
                tokio::task::spawn_blocking(move || write(&t, i..i + 1))
                    .await
                    .unwrap();
            }
            let line = stream.next().await.unwrap().unwrap();
            assert_eq!(line.at, Time::from_second(i).unwrap());
        }
        running.send_replace(false);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn an_empty_or_missing_log_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let t = target(dir.path(), "json-file", 0);
        assert!(lines(&t, all()).await.is_empty());
        write(&t, 0..0);
        assert!(
            lines(
                &t,
                LogQuery {
                    tail: Some(5),
                    ..all()
                }
            )
            .await
            .is_empty()
        );
    }
}
