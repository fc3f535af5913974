//! Users and groups: `user[:group]` resolved against the passwd and group files of a root filesystem.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use tripod_model::{Error, Result};

/// Who a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Longest passwd or group file that is read.
const MAX_FILE: u64 = 4 << 20;

/// Resolves a user in a mounted root. Symbolic links in it never lead out.
pub(crate) fn resolve(root: &Path, user: &str, more_groups: &[String]) -> Result<Identity> {
    let (passwd, group) = (read(root, "etc/passwd"), read(root, "etc/group"));
    from_files(&passwd, &group, user, more_groups)
}

fn read(root: &Path, file: &str) -> String {
    let open = || -> rustix::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&dir, file, flags | OFlags::NONBLOCK, Mode::empty(), how)?.into())
    };
    let mut bytes = Vec::new();
    if let Ok(f) = open() {
        let _ = f.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_lines(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|l| {
        let f: Vec<&str> = l.split(':').collect();
        Some(Passwd {
            name: f.first()?,
            uid: f.get(2)?.parse().ok()?,
            gid: f.get(3)?.parse().ok()?,
            home: f.get(5).copied().unwrap_or("/"),
        })
    })
}

fn group_lines(text: &str) -> impl Iterator<Item = (&str, u32, Vec<&str>)> {
    text.lines().filter_map(|l| {
        let f: Vec<&str> = l.split(':').collect();
        let members = f.get(3).map(|m| m.split(',').collect()).unwrap_or_default();
        Some((*f.first()?, f.get(2)?.parse().ok()?, members))
    })
}

fn group_number(groups: &str, name: &str) -> Option<u32> {
    group_lines(groups)
        .find(|(n, _, _)| *n == name)
        .map(|(_, g, _)| g)
        .or_else(|| in_range(name))
}

/// Numbers above 2³¹ - 1 are no users (Docker's `uids and gids must be in range 0-2147483647`).
fn in_range(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok())
}

fn from_files(passwd: &str, groups: &str, user: &str, more_groups: &[String]) -> Result<Identity> {
    let (name, group) = match user.split_once(':') {
        Some((u, g)) => (u, Some(g).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let found = passwd_lines(passwd)
        .find(|p| p.name == name)
        .or_else(|| passwd_lines(passwd).find(|p| in_range(name) == Some(p.uid)));
    let mut who = match &found {
        Some(p) => Identity {
            uid: p.uid,
            gid: p.gid,
            groups: Vec::new(),
            home: p.home.to_owned(),
        },
        None => {
            let uid = in_range(name).ok_or_else(|| {
                if name.parse::<i64>().is_ok() {
                    Error::invalid("uids and gids must be in range 0-2147483647")
                } else {
                    Error::invalid(format!(
                        "unable to find user {name}: no matching entries in passwd file"
                    ))
                }
            })?;
            Identity {
                uid,
                gid: 0,
                groups: Vec::new(),
                home: "/".into(),
            }
        }
    };
    match group {
        Some(g) => {
            who.gid = group_number(groups, g).ok_or_else(|| {
                Error::invalid(format!(
                    "unable to find group {g}: no matching entries in group file"
                ))
            })?;
        }
        // Supplementary groups count only where no group was named.
        None => {
            if let Some(p) = &found {
                who.groups = group_lines(groups)
                    .filter(|(_, _, m)| m.contains(&p.name))
                    .map(|(_, g, _)| g)
                    .collect();
            }
        }
    }
    for g in more_groups {
        let n = group_number(groups, g).ok_or_else(|| {
            Error::invalid(format!(
                "Unable to find group {g}: no matching entries in group file"
            ))
        })?;
        if !who.groups.contains(&n) {
            who.groups.push(n);
        }
    }
    if who.home.is_empty() {
        who.home = "/".into();
    }
    Ok(who)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\naudio:x:29:web,other\n";

    fn who(user: &str, more: &[&str]) -> Result<Identity> {
        from_files(
            PASSWD,
            GROUP,
            user,
            &more.iter().map(ToString::to_string).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn names_and_numbers() {
        let id = |uid, gid, groups: &[u32], home: &str| Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.into(),
        };
        assert_eq!(who("", &[]).unwrap(), id(0, 0, &[], "/root"));
        assert_eq!(who("web", &[]).unwrap(), id(33, 34, &[29], "/var/www"));
        assert_eq!(who("33", &[]).unwrap(), id(33, 34, &[29], "/var/www"));
        assert_eq!(who("web:audio", &["7"]).unwrap(), id(33, 29, &[7], "/var/www"));
        assert_eq!(who("1234:99", &[]).unwrap(), id(1234, 99, &[], "/"));
    }

    #[test]
    fn errors_in_dockers_words() {
        let e = |u: &str| who(u, &[]).unwrap_err().message;
        assert_eq!(
            e("x"),
            "unable to find user x: no matching entries in passwd file"
        );
        assert_eq!(
            e("web:x"),
            "unable to find group x: no matching entries in group file"
        );
        assert_eq!(e("4294967296"), "uids and gids must be in range 0-2147483647");
    }

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("etc/passwd")).unwrap();
        assert!(resolve(root.path(), "root", &[]).is_err());
        assert_eq!(resolve(root.path(), "", &[]).unwrap().uid, 0);
    }
}
