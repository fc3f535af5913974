//! Directories and files of this machine on nodes that run.
//!
//! A copy of the mount is detached here, where the path is known, and attached in the node's mount namespace.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tripod_model::{Error, Result};

use super::cluster::Cluster;
use super::record::Mount;
use super::{commands, init, node};
use crate::cli::MountArgs;

/// Reads `HOST:NODE`; paths on this machine may be relative.
pub(super) fn parse(text: &str, read_only: bool) -> std::result::Result<Mount, String> {
    let wrong = || format!("{text:?} is not HOST:NODE, where the path on the node begins with a slash");
    let (host, node) = text.rsplit_once(':').ok_or_else(wrong)?;
    if host.is_empty() || !Path::new(node).is_absolute() {
        return Err(wrong());
    }
    Ok(Mount {
        host_path: std::path::absolute(host).map_err(|e| e.to_string())?,
        node_path: PathBuf::from(node),
        read_only,
    })
}

/// Runs `work` in the mount namespace of a process. A thread of its own enters it and ends with it.
fn within<T: Send>(process: Pid, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let failed =
        |what: &'static str| move |e: nix::errno::Errno| Error::internal(format_args!("cannot {what}: {e}"));
    let fd = pidfd_open(process, PidfdFlags::empty())
        .map_err(|e| Error::unavailable(format_args!("the node does not run: {e}")))?;
    std::thread::scope(|scope| {
        let entered = scope.spawn(move || {
            unshare(CloneFlags::CLONE_FS).map_err(failed("leave the shared root"))?;
            setns(fd, CloneFlags::CLONE_NEWNS).map_err(failed("enter the node"))?;
            work()
        });
        entered
            .join()
            .map_err(|_| Error::internal("the mount broke off"))?
    })
}

/// Mounts on a node that runs.
pub(super) fn attach(process: Pid, m: &Mount) -> Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree: OwnedFd = open_tree(CWD, &m.host_path, flags)
        .map_err(|e| Error::invalid(format_args!("{}: {e}", m.host_path.display())))?;
    let is_dir = m.host_path.is_dir();
    within(process, move || {
        init::place(&m.node_path, is_dir)?;
        let what = |e: &dyn std::fmt::Display| {
            Error::internal(format_args!(
                "cannot mount at {} of the node: {e}",
                m.node_path.display()
            ))
        };
        move_mount(
            &tree,
            "",
            CWD,
            &m.node_path,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(|e| what(&e))?;
        if m.read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, &m.node_path, None::<&str>, flags, None::<&str>).map_err(|e| what(&e))?;
        }
        Ok(())
    })
}

/// Takes a mount away again.
pub(super) fn detach(process: Pid, path: &Path) -> Result<()> {
    within(process, || {
        umount2(path, MntFlags::MNT_DETACH)
            .map_err(|e| Error::not_found(format_args!("{} of the node: {e}", path.display())))
    })
}

/// The node's first process.
pub(super) fn process(cluster: &Cluster, name: &str) -> Result<Pid> {
    node::first_process(&cluster.paths.node(name))
        .ok_or_else(|| Error::unavailable(format_args!("node {name} does not run")))
}

/// `tripod mount`: mounts on nodes, now and whenever they start; or takes a mount away.
pub(crate) fn mount_on_nodes(args: &MountArgs) -> Result<()> {
    let mut cluster = commands::open(&args.cluster)?;
    let names: Vec<String> = match &args.node {
        Some(name) => vec![cluster.record.node(Some(name))?.name.clone()],
        None => cluster.record.nodes.iter().map(|n| n.name.clone()).collect(),
    };
    if args.remove {
        let path = args.what.rsplit_once(':').map_or(args.what.as_str(), |(_, p)| p);
        return remove(&mut cluster, &names, Path::new(path));
    }
    let m = parse(&args.what, args.read_only).map_err(|e| Error::invalid(e).at("mount"))?;
    if !m.host_path.exists() {
        return Err(Error::not_found(format_args!(
            "{} does not exist",
            m.host_path.display()
        )));
    }
    for name in &names {
        let known = &cluster.record.node(Some(name))?.mounts;
        if known.iter().any(|k| k.node_path == m.node_path) {
            let text = format!("{} of node {name} is a mount already", m.node_path.display());
            return Err(Error::conflict(text));
        }
    }
    for name in &names {
        if let Ok(process) = process(&cluster, name) {
            attach(process, &m)?;
        }
        let nodes = cluster.record.nodes.iter_mut();
        nodes
            .filter(|n| n.name == *name)
            .for_each(|n| n.mounts.push(m.clone()));
    }
    cluster.record.write(&cluster.paths.dir)?;
    println!(
        "{} is at {} of {}.",
        m.host_path.display(),
        m.node_path.display(),
        names.join(", ")
    );
    Ok(())
}

fn remove(cluster: &mut Cluster, names: &[String], path: &Path) -> Result<()> {
    let mut found = false;
    for name in names {
        let process = process(cluster, name).ok();
        for n in cluster.record.nodes.iter_mut().filter(|n| n.name == *name) {
            if n.mounts.iter().any(|m| m.node_path == path) {
                found = true;
                if let Some(process) = process {
                    detach(process, path)?;
                }
                n.mounts.retain(|m| m.node_path != path);
            }
        }
    }
    if !found {
        return Err(Error::not_found(format_args!(
            "{} is no mount of these nodes",
            path.display()
        )));
    }
    cluster.record.write(&cluster.paths.dir)?;
    println!("{} is taken away.", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn forms() {
        let m = parse("/a:b:/c", true).unwrap();
        assert_eq!(
            (m.host_path.to_str(), m.node_path.to_str(), m.read_only),
            (Some("/a:b"), Some("/c"), true)
        );
        assert!(parse("x:/c", false).unwrap().host_path.is_absolute());
        for bad in ["/a", "/a:c", ":/c", ""] {
            assert!(parse(bad, false).is_err(), "{bad}");
        }
    }
}
