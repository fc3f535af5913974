//! `docker cp`, export, sizes: files in and out of containers.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use tripod_agent::ports::{BoxRead, PathStat};
use tripod_model::{Error, Result, Time};

use super::beneath::{self, fault};
use super::snapshot::Snapshot;
use super::store::Store;
use super::stream;
use super::tarwrite::TarWriter;
use super::unpack::{self, Purpose};
use super::view::{Place, View, real_dir};

fn not_there(e: Errno, container: &str, path: &str) -> Error {
    match e {
        Errno::NOENT | Errno::NOTDIR => {
            Error::not_found(format!("Could not find the file {path} in container {container}"))
        }
        e => fault(e, path),
    }
}

/// A path whose end says that the directory itself is meant.
fn means_dir(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "."
}

fn find(view: &View, container: &str, path: &str) -> Result<Place> {
    view.find(path.as_bytes(), means_dir(path), false)
        .map_err(|e| not_there(e, container, path))
}

/// Metadata of a path.
pub(crate) fn stat(root: &Path, over: &[(String, PathBuf)], container: &str, path: &str) -> Result<PathStat> {
    let view = View::new(root, over)?;
    let place = find(&view, container, path)?;
    describe(&view, &place, path)
}

fn describe(view: &View, place: &Place, path: &str) -> Result<PathStat> {
    let stat = place.stat()?;
    let link_target = if beneath::kind(&stat) == FileType::Symlink {
        // As far as it leads somewhere; a dangling link is told as it stands.
        match view.find(path.as_bytes(), true, false) {
            Ok(target) => target.text(),
            Err(_) => rustix::fs::readlinkat(&place.fd, "", Vec::new())
                .map_or_else(|_| String::new(), |t| t.to_string_lossy().into_owned()),
        }
    } else {
        String::new()
    };
    let nanos = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Ok(PathStat {
        name: base_name(path),
        size: stat.st_size,
        mode: go_mode(&stat),
        modified: Time::new(stat.st_mtime, nanos).unwrap_or_default(),
        link_target,
    })
}

fn base_name(path: &str) -> String {
    let parts = beneath::parts(path.as_bytes()).unwrap_or_default();
    parts
        .last()
        .map_or_else(|| "/".to_owned(), |n| String::from_utf8_lossy(n).into_owned())
}

/// Type and permissions with the bits of Go's `fs.FileMode`.
fn go_mode(stat: &Stat) -> u32 {
    let kind = match beneath::kind(stat) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let bit = |unix: u32, go: u32| if stat.st_mode & unix != 0 { 1 << go } else { 0 };
    kind | stat.st_mode & 0o777 | bit(0o4000, 23) | bit(0o2000, 22) | bit(0o1000, 20)
}

/// Metadata and a tar of a path.
pub(crate) fn read(
    snapshot: &Arc<Snapshot>,
    over: &[(String, PathBuf)],
    container: &str,
    path: &str,
) -> Result<(PathStat, BoxRead)> {
    let borrowed = snapshot.borrow()?;
    let view = View::new(&borrowed.root(), over)?;
    let place = find(&view, container, path)?;
    let told = describe(&view, &place, path)?;
    let name = told.name.clone();
    let read = stream::produce(move |out| {
        let _mounted = borrowed;
        let mut tar = TarWriter::new(out, view.overlays());
        let inside = place.path.join(&b'/');
        match place.path.last() {
            // The root has no name of its own.
            None => tar.children(real_dir(&place.fd).map_err(|e| fault(e, "/"))?.as_fd(), b"", b"")?,
            Some(last) => {
                let parent = place.parent.as_ref().unwrap_or(&place.fd);
                tar.entry(parent.as_fd(), last, &inside, name.as_bytes())?;
            }
        }
        tar.finish()?;
        Ok(())
    });
    Ok((told, read))
}

/// Unpacks a tar below a directory of a container.
pub(crate) fn write(
    snapshot: &Arc<Snapshot>,
    over: &[(String, PathBuf)],
    container: &str,
    path: &str,
    archive: impl Read + Send,
    keep_kinds: bool,
) -> Result<()> {
    let borrowed = snapshot.borrow()?;
    let view = View::new(&borrowed.root(), over)?;
    let place = view
        .find(path.as_bytes(), true, false)
        .map_err(|e| not_there(e, container, path))?;
    if beneath::kind(&place.stat()?) != FileType::Directory {
        return Err(Error::invalid("extraction point is not a directory"));
    }
    let limit = unpack::free_space(&borrowed.root())?;
    let into = unpack::Into::View(&view, place.path);
    unpack::unpack_into(
        into,
        super::blobs::decompress(archive)?,
        Purpose::Copy { keep_kinds },
        limit,
    )?;
    Ok(())
}

/// A tar of the whole root.
pub(crate) fn export(snapshot: &Arc<Snapshot>) -> Result<BoxRead> {
    let borrowed = snapshot.borrow()?;
    let root = beneath::open_dir(&borrowed.root())?;
    Ok(stream::produce(move |out| {
        let _mounted = borrowed;
        let mut tar = TarWriter::new(out, Vec::new());
        tar.children(root.as_fd(), b"", b"")?;
        tar.finish()?;
        Ok(())
    }))
}

/// Copies what the image has at a path into an empty directory, the directory's own owner and mode too.
pub(crate) fn copy_up(snapshot: &Arc<Snapshot>, path: &str, into: &Path) -> Result<()> {
    let borrowed = snapshot.borrow()?;
    let view = View::new(&borrowed.root(), &[])?;
    let Ok(place) = view.find(path.as_bytes(), true, false) else {
        return Ok(());
    };
    let stat = place.stat()?;
    if beneath::kind(&stat) != FileType::Directory {
        return Ok(());
    }
    let target = beneath::open_dir(into)?;
    let own = |e: Errno| fault(e, into.display());
    if !beneath::names(target.as_fd()).map_err(own)?.is_empty() {
        return Ok(());
    }
    let source = real_dir(&place.fd).map_err(|e| fault(e, path))?;
    if !beneath::names(source.as_fd())
        .map_err(|e| fault(e, path))?
        .is_empty()
    {
        let limit = unpack::free_space(into)?;
        let (read, write) = std::io::pipe()?;
        let copied = std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut tar = TarWriter::new(std::io::BufWriter::with_capacity(64 * 1024, write), Vec::new());
                tar.children(source.as_fd(), b"", b"")?;
                std::io::Write::flush(&mut tar.finish()?).map_err(Error::from)
            });
            let reader = unpack::unpack(
                into,
                std::io::BufReader::with_capacity(64 * 1024, read),
                Purpose::Copy { keep_kinds: false },
                limit,
            );
            // The side that failed first has the reason; the other one only saw the pipe break.
            let written = writer
                .join()
                .unwrap_or_else(|_| Err(Error::internal("copying failed")));
            reader.and(written)
        });
        copied.map_err(|e| e.context(format!("copying {path} into a volume")))?;
    }
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(stat.st_uid),
        rustix::fs::Gid::from_raw(stat.st_gid),
    );
    rustix::fs::fchown(&target, Some(uid), Some(gid)).map_err(own)?;
    rustix::fs::fchmod(&target, rustix::fs::Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(own)?;
    let time = |s, n: u64| rustix::fs::Timespec {
        tv_sec: s,
        tv_nsec: i64::try_from(n).unwrap_or(0),
    };
    let times = rustix::fs::Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(&target, &times).map_err(own)
}

/// Bytes of the writable layer, and of it and the image together.
pub(crate) fn size(store: &Store, snapshot: &Snapshot) -> Result<(u64, u64)> {
    let own = super::size::tree_size(&snapshot.upper())?;
    let image = store
        .by_id(&snapshot.image)
        .map_or_else(|| store.layers_size(&snapshot.image), |i| i.size);
    Ok((own, own + image))
}
