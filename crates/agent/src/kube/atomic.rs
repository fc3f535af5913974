//! Files of a volume that change all at once: they are in a directory of their own, to which a link leads that is
//! exchanged. Readers see the old files or the new ones, never a mixture.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use tripod_model::{Error, Result, Time};

/// The link to the present files.
const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// A file to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Owner, when it is not root.
    pub uid: Option<u32>,
}

/// Files by relative path.
pub(super) type Payload = BTreeMap<String, File>;

/// Makes a directory hold these files and nothing else; whether anything changed.
pub(super) fn write(dir: &Path, payload: &Payload, gid: Option<u32>, now: Time) -> Result<bool> {
    for path in payload.keys() {
        check(path)?;
    }
    fs::create_dir_all(dir)?;
    if same(dir, payload) {
        return Ok(false);
    }
    let stamp = format!("..{}", now.strftime("%Y_%m_%d_%H_%M_%S.%N"));
    let home = dir.join(&stamp);
    let before = fs::read_link(dir.join(DATA)).ok();
    let written = (|| -> io::Result<()> {
        fs::create_dir_all(&home)?;
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755))?;
        for (path, file) in payload {
            let target = home.join(path);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&target, &file.data)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(file.mode & 0o7777))?;
            if file.uid.is_some() || gid.is_some() {
                chown(&target, file.uid, gid)?;
            }
        }
        if gid.is_some() {
            chown(&home, None, gid)?;
        }
        let _ = fs::remove_file(dir.join(NEXT));
        symlink(&stamp, dir.join(NEXT))?;
        fs::rename(dir.join(NEXT), dir.join(DATA))
    })();
    if let Err(e) = written {
        let _ = fs::remove_dir_all(&home);
        return Err(Error::internal(format_args!("{}: {e}", dir.display())));
    }
    link(dir, payload)?;
    if let Some(old) = before {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(true)
}

/// The names that users see: links into the present files.
fn link(dir: &Path, payload: &Payload) -> Result<()> {
    let top = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let wanted: std::collections::BTreeSet<String> = payload.keys().map(|p| top(p)).collect();
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let path = dir.join(&name);
        if fs::symlink_metadata(&path).is_err() {
            symlink(Path::new(DATA).join(&name), path)?;
        }
    }
    Ok(())
}

/// Whether the present files are these.
fn same(dir: &Path, payload: &Payload) -> bool {
    let data = dir.join(DATA);
    if !data.is_dir() || count(&data) != payload.len() {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let path = data.join(path);
        let mode = fs::metadata(&path).map(|m| m.permissions().mode() & 0o7777);
        mode.is_ok_and(|m| m == file.mode & 0o7777) && fs::read(&path).is_ok_and(|b| b == file.data)
    })
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|e| match e.file_type() {
            Ok(t) if t.is_dir() => count(&e.path()),
            _ => 1,
        })
        .sum()
}

/// Paths stay in the volume, and out of the names that the links use.
fn check(path: &str) -> Result<()> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.starts_with("..")
        || path.split('/').any(|part| part == ".." || part.is_empty());
    match bad {
        true => Err(Error::invalid(format_args!("invalid path in a volume: {path:?}"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File {
            data: text.as_bytes().to_vec(),
            mode: 0o640,
            uid: None,
        };
        list.iter().map(|(p, t)| ((*p).to_owned(), file(t))).collect()
    }

    #[test]
    fn files_change_together() {
        let dir = tempfile::tempdir().unwrap();
        let at = |s| Time::from_second(s).unwrap();
        let read = |p: &str| fs::read_to_string(dir.path().join(p)).ok();
        let first = files(&[("a", "1"), ("sub/b", "2")]);
        assert!(write(dir.path(), &first, None, at(1)).unwrap());
        assert!(!write(dir.path(), &first, None, at(2)).unwrap(), "nothing new");
        assert_eq!(read("a").as_deref(), Some("1"));
        assert_eq!(read("sub/b").as_deref(), Some("2"));
        let mode = fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(write(dir.path(), &files(&[("a", "3"), ("c", "4")]), None, at(3)).unwrap());
        assert_eq!(
            (read("a").as_deref(), read("c").as_deref()),
            (Some("3"), Some("4"))
        );
        assert_eq!(read("sub/b"), None);
        let stamped = fs::read_dir(dir.path()).unwrap().flatten();
        let homes = stamped.filter(|e| e.file_type().unwrap().is_dir()).count();
        assert_eq!(homes, 1, "the old files are gone");
    }

    #[test]
    fn paths_stay_inside() {
        for bad in ["", "/a", "../a", "a/../b", "..data", "a//b"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check("a/b.c").is_ok());
    }
}
