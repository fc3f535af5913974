//! `user[:group]` against the passwd and group files of a root filesystem.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::OFlags;
use tripod_model::{Error, Result};

use super::beneath;

/// User id, group id, supplementary groups, home directory.
pub(crate) type Identity = (u32, u32, Vec<u32>, String);

/// Bytes that are read of such a file.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Reads the files below a mounted root and resolves.
pub(crate) fn resolve_in(root: &Path, user: &str) -> Result<Identity> {
    let root = beneath::open_dir(root)?;
    let read = |path: &str| {
        let mut text = Vec::new();
        // NONBLOCK: an image may have a FIFO there.
        let fd = beneath::open_in(root.as_fd(), path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK);
        if let Ok(fd) = fd
            && rustix::fs::fstat(&fd).is_ok_and(|s| beneath::kind(&s) == rustix::fs::FileType::RegularFile)
        {
            let _ = std::fs::File::from(fd).take(MAX_FILE).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    resolve(&read("etc/passwd"), &read("etc/group"), user)
}

/// Resolves `user[:group]`, names or numbers; nothing means root.
fn resolve(passwd: &str, group: &str, user: &str) -> Result<Identity> {
    let (user, wanted_group) = user.split_once(':').unwrap_or((user, ""));
    let user = if user.is_empty() { "0" } else { user };
    let number = number(user)?;
    let found = passwd
        .lines()
        .map(|l| l.trim().split(':').collect::<Vec<_>>())
        .find(|f| {
            let id = f.get(2).and_then(|id| id.parse::<u32>().ok());
            !f[0].is_empty() && (f[0] == user || (number.is_some() && id == number))
        });
    let field = |f: &[&str], i: usize| f.get(i).and_then(|v| v.parse::<u32>().ok());
    let (uid, mut gid, name, home) = match (&found, number) {
        (Some(f), _) => {
            let home = f.get(5).copied().filter(|h| !h.is_empty()).unwrap_or("/");
            (
                field(f, 2).unwrap_or(0),
                field(f, 3).unwrap_or(0),
                f[0],
                home.to_owned(),
            )
        }
        (None, Some(uid)) => (uid, 0, "", "/".to_owned()),
        (None, None) => {
            return Err(Error::invalid(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    };
    let groups: Vec<Vec<&str>> = group.lines().map(|l| l.trim().split(':').collect()).collect();
    if wanted_group.is_empty() {
        let member =
            |f: &&Vec<&str>| !name.is_empty() && f.get(3).is_some_and(|m| m.split(',').any(|m| m == name));
        let more = groups
            .iter()
            .filter(member)
            .filter_map(|f| field(f, 2))
            .filter(|g| *g != gid)
            .collect();
        return Ok((uid, gid, more, home));
    }
    let number = self::number(wanted_group)?;
    let found = groups
        .iter()
        .find(|f| f[0] == wanted_group || (number.is_some() && field(f, 2) == number));
    gid = match (found.and_then(|f| field(f, 2)), number) {
        (Some(gid), _) | (None, Some(gid)) => gid,
        (None, None) => {
            return Err(Error::invalid(format!(
                "unable to find group {wanted_group}: no matching entries in group file"
            )));
        }
    };
    Ok((uid, gid, Vec::new(), home))
}

fn number(text: &str) -> Result<Option<u32>> {
    match text.parse::<i64>() {
        Ok(n) if (0..=i64::from(i32::MAX)).contains(&n) => Ok(Some(n as u32)),
        Ok(_) => Err(Error::invalid("uids and gids must be in range 0-2147483647")),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nextra:x:50:root,web\n";

    #[test]
    fn users() {
        let r = |u| resolve(PASSWD, GROUP, u);
        assert_eq!(r("").unwrap(), (0, 0, vec![50], "/root".into()));
        assert_eq!(r("web").unwrap(), (33, 33, vec![50], "/var/www".into()));
        assert_eq!(r("33").unwrap(), (33, 33, vec![50], "/var/www".into()));
        assert_eq!(r("1000").unwrap(), (1000, 0, vec![], "/".into()));
        assert_eq!(r("web:extra").unwrap(), (33, 50, vec![], "/var/www".into()));
        assert_eq!(r("1000:1001").unwrap(), (1000, 1001, vec![], "/".into()));
        assert_eq!(
            r("x").unwrap_err().message,
            "unable to find user x: no matching entries in passwd file"
        );
        assert_eq!(
            r("web:y").unwrap_err().message,
            "unable to find group y: no matching entries in group file"
        );
        assert!(r("-1").unwrap_err().message.contains("in range"));
        assert_eq!(resolve("", "", "5").unwrap(), (5, 0, vec![], "/".into()));
    }
}
