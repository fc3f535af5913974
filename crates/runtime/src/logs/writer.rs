//! Writes a container's log file, with rotation.
//!
//! A failing disk must not stop the container: what cannot be written is dropped, and the next write tries again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tripod_agent::ports::OutputStream;
use tripod_model::Time;

use super::format;
use crate::keeper::wire::LogTarget;

/// A log that is written to.
pub(crate) struct LogWriter {
    target: LogTarget,
    attrs: String,
    file: Option<File>,
    size: u64,
    buf: Vec<u8>,
}

impl LogWriter {
    /// Opens the file for appending; `None` for the driver `none`.
    pub(crate) fn open(target: LogTarget) -> io::Result<Option<Self>> {
        if target.driver == "none" {
            return Ok(None);
        }
        let attrs = if target.attrs.is_empty() {
            String::new()
        } else {
            serde_json::to_string(&target.attrs)?
        };
        let mut log = Self {
            target,
            attrs,
            file: None,
            size: 0,
            buf: Vec::new(),
        };
        log.reopen()?;
        Ok(Some(log))
    }

    fn reopen(&mut self) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&self.target.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Adds a message to what is to be written.
    pub(crate) fn add(&mut self, stream: OutputStream, at: Time, data: &[u8]) {
        if self.target.driver == "local" {
            format::local_record(&mut self.buf, stream, at, data);
        } else {
            format::json_record(&mut self.buf, stream, at, data, &self.attrs);
        }
        let due = self.size + self.buf.len() as u64;
        if self.buf.len() >= 64 * 1024 || (self.target.max_size > 0 && due >= self.target.max_size) {
            self.flush();
        }
    }

    /// Writes what was added, in one go. Records are never split over two files.
    pub(crate) fn flush(&mut self) {
        if self.buf.is_empty() {
            return;
        }
        if self.target.max_size > 0 && self.size > 0 && self.size >= self.target.max_size {
            let _ = self.rotate();
        }
        if self.file.is_none() {
            let _ = self.reopen();
        }
        if let Some(file) = &mut self.file {
            if file.write_all(&self.buf).is_ok() {
                self.size += self.buf.len() as u64;
            } else {
                self.file = None;
            }
        }
        self.buf.clear();
        // Idle containers shall cost nothing.
        if self.buf.capacity() > 32 * 1024 {
            self.buf = Vec::new();
        }
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2` …
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let keep = self.target.max_files.max(1);
        let path = &self.target.path;
        if keep == 1 {
            File::create(path)?;
        } else {
            for n in (1..keep - 1).rev() {
                for suffix in ["", ".gz"] {
                    let _ = std::fs::rename(numbered(path, n, suffix), numbered(path, n + 1, suffix));
                }
            }
            std::fs::rename(path, numbered(path, 1, ""))?;
            let _ = std::fs::remove_file(numbered(path, keep, ""));
            if self.target.compress {
                compress_in_background(numbered(path, 1, ""));
            }
        }
        self.reopen()
    }
}

/// `PATH.N[.gz]`
pub(crate) fn numbered(path: &Path, n: u32, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}{suffix}"));
    name.into()
}

/// Compresses a rotated file in a child, so that the keeper goes on. The compressed file appears under its name
/// when it is whole, and only if the plain one was not renamed by a further rotation meanwhile.
#[allow(unsafe_code)]
fn compress_in_background(path: PathBuf) {
    // SAFETY: the keeper has one thread, so the child may allocate and do I/O; it leaves by `_exit`.
    if let Ok(nix::unistd::ForkResult::Child) = unsafe { nix::unistd::fork() } {
        let code = i32::from(compress(&path).is_err());
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) }
    }
}

fn compress(path: &Path) -> io::Result<()> {
    let mut from = File::open(path)?;
    let tmp = path.with_extension("tmp-gz");
    let mut gz = flate2::write::GzEncoder::new(File::create(&tmp)?, flate2::Compression::default());
    io::copy(&mut from, &mut gz)?;
    gz.finish()?;
    let mut to = path.as_os_str().to_owned();
    to.push(".gz");
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata(path)?.ino() == from.metadata()?.ino() {
        std::fs::rename(&tmp, to)?;
        std::fs::remove_file(path)
    } else {
        std::fs::remove_file(&tmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotates_and_keeps_so_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        let target = LogTarget {
            driver: "json-file".into(),
            path: path.clone(),
            max_size: 200,
            max_files: 3,
            ..LogTarget::default()
        };
        let mut w = LogWriter::open(target).unwrap().unwrap();
        for i in 0..20 {
            w.add(
                OutputStream::Stdout,
                Time::UNIX_EPOCH,
                format!("line {i}\n").as_bytes(),
            );
            w.flush();
        }
        assert!(path.exists() && numbered(&path, 1, "").exists() && numbered(&path, 2, "").exists());
        assert!(!numbered(&path, 3, "").exists());
        let last = std::fs::read_to_string(&path).unwrap();
        assert!(last.lines().last().unwrap().contains("line 19"));
    }

    #[test]
    fn none_writes_nothing() {
        let target = LogTarget {
            driver: "none".into(),
            ..LogTarget::default()
        };
        assert!(LogWriter::open(target).unwrap().is_none());
    }

    #[test]
    fn compression_replaces_the_plain_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log.1");
        std::fs::write(&path, "hello\n".repeat(100)).unwrap();
        compress(&path).unwrap();
        assert!(!path.exists());
        let mut text = String::new();
        io::Read::read_to_string(
            &mut flate2::read::GzDecoder::new(File::open(dir.path().join("a.log.1.gz")).unwrap()),
            &mut text,
        )
        .unwrap();
        assert_eq!(text.len(), 600);
    }
}
