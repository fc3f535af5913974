//! Nodes of a local cluster, added and taken away while it runs, and files to and from them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tripod_model::{Error, Result};

use super::client::{self, block_on};
use super::cluster::Cluster;
use super::commands::serves;
use super::node;
use super::record::{NodeRecord, Role, node_name};

/// Prints the nodes: as JSON, or a table.
pub(super) fn list(cluster: &Cluster, json: bool) {
    let rows: Vec<[String; 4]> = cluster
        .record
        .nodes
        .iter()
        .map(|n| {
            let role = match n.role {
                Role::ControlPlane => "control-plane",
                Role::Worker => "worker",
            };
            let state = if serves(cluster, n) { "Running" } else { "Stopped" };
            [
                n.name.clone(),
                role.to_owned(),
                n.address.to_string(),
                state.to_owned(),
            ]
        })
        .collect();
    if json {
        let rows: serde_json::Value = rows
            .iter()
            .map(|[name, role, address, host]| {
                serde_json::json!({ "name": name, "role": role, "address": address, "host": host })
            })
            .collect();
        println!("{rows}");
        return;
    }
    let width = rows.iter().map(|r| r[0].len()).max().unwrap_or(4).max(4);
    println!("{:width$}  {:13}  {:15}  STATE", "NAME", "ROLE", "ADDRESS");
    for [name, role, address, state] in rows {
        println!("{name:width$}  {role:13}  {address:15}  {state}");
    }
}

/// Adds a node, and returns its name when it is ready.
pub(super) fn add(cluster: &mut Cluster, role: Role) -> Result<String> {
    let record = &cluster.record;
    let taken = |name: &str| record.nodes.iter().any(|n| n.name == name);
    let in_role = record.nodes.iter().filter(|n| n.role == role).count();
    let names = (0..).map(|i| {
        node_name(
            record.tool,
            &record.name,
            role,
            in_role + i,
            record.nodes.len() + i,
        )
    });
    let name = names.into_iter().find(|n| !taken(n)).unwrap_or_default();
    let used = |a: &Ipv4Addr| record.nodes.iter().any(|n| n.address == *a) || *a == record.gateway.addr();
    let address = record.gateway.hosts().find(|a| !used(a));
    let address = address.ok_or_else(|| Error::unavailable("the cluster's subnet has no address left"))?;
    cluster.record.nodes.push(NodeRecord {
        name: name.clone(),
        role,
        address,
        mappings: Vec::new(),
        mounts: Vec::new(),
        labels: Default::default(),
        taints: Vec::new(),
    });
    cluster.record.write(&cluster.paths.dir)?;
    let up = cluster.up(&mut |_| {});
    if let Err(e) = up {
        cluster.record.nodes.retain(|n| n.name != name);
        cluster.record.write(&cluster.paths.dir)?;
        discard(cluster, &name)?;
        return Err(e);
    }
    Ok(name)
}

/// Takes a node out of the cluster, with all it holds.
pub(super) fn delete(cluster: &mut Cluster, name: &str) -> Result<()> {
    let found = cluster.record.node(Some(name))?.clone();
    let first = cluster.record.first().clone();
    if found.name == first.name {
        return Err(Error::conflict(format_args!(
            "{name} is the cluster's first node: delete the cluster instead"
        )));
    }
    let socket = cluster.paths.node(&first.name).socket;
    block_on(client::forget_node(
        &socket,
        name,
        found.role == Role::ControlPlane,
    ))?;
    discard(cluster, name)?;
    block_on(client::remove_node(&socket, name))?;
    cluster.record.nodes.retain(|n| n.name != name);
    cluster.record.write(&cluster.paths.dir)
}

/// Stops a node; what it holds stays.
pub(super) fn stop(cluster: &Cluster, name: &str) -> Result<bool> {
    let paths = cluster.paths.node(name);
    let ran = node::stop(&paths)?;
    tripod_net::LocalNet::remove_node(&paths.netns)?;
    Ok(ran)
}

/// Ends a node and removes what it has on this machine.
fn discard(cluster: &Cluster, name: &str) -> Result<()> {
    let paths = cluster.paths.node(name);
    node::kill(&paths)?;
    tripod_net::LocalNet::remove_node(&paths.netns)?;
    match fs::remove_dir_all(&paths.dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// A side of a copy: a path of this machine, or `NODE:PATH`.
fn side(cluster: &Cluster, text: &str) -> Result<PathBuf> {
    let Some((name, path)) = text.split_once(':').filter(|(name, _)| !name.contains('/')) else {
        return Ok(PathBuf::from(text));
    };
    if !Path::new(path).is_absolute() {
        return Err(Error::invalid(format_args!("{text}: a path on a node begins with a slash")).at("path"));
    }
    let record = cluster.record.node(Some(name))?;
    let first = node::first_process(&cluster.paths.node(&record.name))
        .ok_or_else(|| Error::unavailable(format_args!("node {name} does not run")))?;
    let root = format!("/proc/{}/root", first.as_raw_nonzero().get());
    Ok(Path::new(&root).join(path.trim_start_matches('/')))
}

/// Copies files and folders between this machine and nodes.
pub(super) fn copy(cluster: &Cluster, from: &str, to: &str) -> Result<()> {
    let (source, target) = (side(cluster, from)?, side(cluster, to)?);
    if let Some(folder) = target.parent().filter(|_| to.contains(':')) {
        fs::create_dir_all(folder)?;
    }
    let done = Command::new("cp")
        .arg("-R")
        .arg("--")
        .arg(&source)
        .arg(&target)
        .output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(Error::invalid(String::from_utf8_lossy(&done.stderr).trim()))
}
