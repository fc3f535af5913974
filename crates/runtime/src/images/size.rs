//! How much there is in a directory.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use tripod_model::Result;

use super::beneath;

/// Bytes of the files in a directory, each hard-linked file once.
pub(crate) fn tree_size(dir: &Path) -> Result<u64> {
    fn walk(dir: BorrowedFd<'_>, seen: &mut HashSet<(u64, u64)>) -> rustix::io::Result<u64> {
        let mut sum = 0;
        for name in beneath::names(dir)? {
            let Some(stat) = beneath::stat(dir, &name)? else {
                continue;
            };
            match beneath::kind(&stat) {
                FileType::Directory => {
                    let flags = beneath::DIR | OFlags::NOFOLLOW;
                    // A running container may have removed it meanwhile.
                    if let Ok(fd) = rustix::fs::openat(dir, &name[..], flags, Mode::empty()) {
                        sum += walk(fd.as_fd(), seen)?;
                    }
                }
                FileType::RegularFile if stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) => {
                    sum += u64::try_from(stat.st_size).unwrap_or(0);
                }
                _ => {}
            }
        }
        Ok(sum)
    }
    let fd = beneath::open_dir(dir)?;
    walk(fd.as_fd(), &mut HashSet::new()).map_err(|e| beneath::fault(e, dir.display()))
}
