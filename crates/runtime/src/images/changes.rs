//! What a container changed (`docker diff`): its upper directory compared with the layers below.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use tripod_agent::ports::Change;
use tripod_model::Result;

use super::beneath::{self, fault};
use super::tarwrite::is_opaque;

const MODIFIED: u8 = 0;
const ADDED: u8 = 1;
const DELETED: u8 = 2;

/// Files that the runtime itself makes to mount something over them.
const MOUNT_POINTS: [&str; 6] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/.dockerenv",
    "/proc",
    "/sys",
];

/// Changes in the order of their paths.
pub(crate) fn changes(upper: &std::path::Path, lower: &[PathBuf]) -> Result<Vec<Change>> {
    let upper = beneath::open_dir(upper)?;
    let below = lower
        .iter()
        .rev()
        .map(|l| beneath::open_dir(l))
        .collect::<Result<Vec<_>>>()?;
    let mut out = Vec::new();
    walk(&upper, &below, "", &mut out)?;
    Ok(out)
}

/// True when something below the directory was told.
fn walk(dir: &OwnedFd, below: &[OwnedFd], path: &str, out: &mut Vec<Change>) -> Result<bool> {
    let start = out.len();
    for name in beneath::names(dir.as_fd()).map_err(|e| fault(e, path))? {
        let Some(stat) = beneath::stat(dir.as_fd(), &name).map_err(|e| fault(e, path))? else {
            continue;
        };
        let here = format!("{path}/{}", String::from_utf8_lossy(&name));
        if beneath::kind(&stat) == FileType::CharacterDevice && stat.st_rdev == 0 {
            out.push(Change {
                path: here,
                kind: DELETED,
            });
            continue;
        }
        let (old, lowers) = look_below(below, &name)?;
        if beneath::kind(&stat) != FileType::Directory {
            if old.is_none() && is_mount_point(&here, &stat) {
                continue;
            }
            out.push(Change {
                path: here,
                kind: if old.is_some() { MODIFIED } else { ADDED },
            });
            continue;
        }
        let flags = beneath::DIR | OFlags::NOFOLLOW;
        let Ok(fd) = rustix::fs::openat(dir, &name[..], flags, Mode::empty()) else {
            continue;
        };
        let at = out.len();
        let hides = is_opaque(&fd);
        walk(&fd, if hides { &[] } else { &lowers }, &here, out)?;
        let told = out.len() > at;
        let kind = match &old {
            None if !told && is_mount_point(&here, &stat) => continue,
            None => ADDED,
            Some(old) if hides || !same_owner(old, &stat) => MODIFIED,
            // A changed time alone means something only together with what was made or removed in it.
            Some(old) if old.st_mtime != stat.st_mtime || old.st_mtime_nsec != stat.st_mtime_nsec => {
                if !told && has_only_mount_points(&fd, &here) {
                    continue;
                }
                MODIFIED
            }
            Some(_) => continue,
        };
        out.insert(at, Change { path: here, kind });
    }
    Ok(out.len() > start)
}

fn same_owner(a: &Stat, b: &Stat) -> bool {
    beneath::kind(a) == FileType::Directory
        && (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
}

fn is_mount_point(path: &str, stat: &Stat) -> bool {
    let known = MOUNT_POINTS.contains(&path) || path == "/dev" || path.starts_with("/dev/");
    known && (beneath::kind(stat) != FileType::RegularFile || stat.st_size == 0)
}

fn has_only_mount_points(dir: &OwnedFd, path: &str) -> bool {
    let Ok(names) = beneath::names(dir.as_fd()) else {
        return false;
    };
    !names.is_empty()
        && names.iter().all(|name| {
            let here = format!("{path}/{}", String::from_utf8_lossy(name));
            beneath::stat(dir.as_fd(), name)
                .ok()
                .flatten()
                .is_some_and(|stat| is_mount_point(&here, &stat))
        })
}

/// What the layers have under a name, and their directories of that name, highest first.
fn look_below(below: &[OwnedFd], name: &[u8]) -> Result<(Option<Stat>, Vec<OwnedFd>)> {
    let mut first = None;
    let mut dirs = Vec::new();
    for layer in below {
        let Some(stat) = beneath::stat(layer.as_fd(), name).map_err(|e| fault(e, "layer"))? else {
            continue;
        };
        let kind = beneath::kind(&stat);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            break;
        }
        first.get_or_insert(stat);
        if kind != FileType::Directory {
            break;
        }
        let fd = rustix::fs::openat(layer, name, beneath::DIR | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|e| fault(e, "layer"))?;
        let last = is_opaque(&fd);
        dirs.push(fd);
        if last {
            break;
        }
    }
    Ok((first, dirs))
}
