//! Images of a local cluster: listed, pulled, removed, on every node.

use std::collections::BTreeMap;

use serde_json::Value;
use tripod_model::{Error, Result};

use super::client::{self, block_on};
use super::cluster::Cluster;

/// The names of the cluster's images, with their size in bytes and the nodes that have them.
fn all(cluster: &Cluster) -> Result<BTreeMap<String, (u64, Vec<String>)>> {
    let mut found: BTreeMap<String, (u64, Vec<String>)> = BTreeMap::new();
    for n in &cluster.record.nodes {
        let images = client::get(&cluster.paths.node(&n.name).socket, "/images/json")?;
        for image in images.as_array().into_iter().flatten() {
            let size = image["Size"].as_u64().unwrap_or_default();
            for name in image["RepoTags"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap_or_default().to_owned();
                let entry = found.entry(name).or_insert_with(|| (size, Vec::new()));
                entry.1.push(n.name.clone());
            }
        }
    }
    Ok(found)
}

/// Prints the images: as JSON, or a table.
pub(super) fn list(cluster: &Cluster, json: bool) -> Result<()> {
    let all = all(cluster)?;
    if json {
        let rows: Value = all
            .iter()
            .map(|(name, (size, nodes))| serde_json::json!({ "name": name, "size": size, "nodes": nodes }))
            .collect();
        println!("{rows}");
        return Ok(());
    }
    let width = all.keys().map(String::len).max().unwrap_or(0).max("IMAGE".len());
    println!("{:width$}  {:>9}  NODES", "IMAGE", "SIZE");
    for (name, (size, nodes)) in &all {
        let on = match nodes.len() == cluster.record.nodes.len() {
            true => "all".to_owned(),
            false => nodes.join(","),
        };
        println!("{name:width$}  {:>6.1} MB  {on}", *size as f64 / 1e6);
    }
    Ok(())
}

/// Removes images from every node that has them.
pub(super) fn remove(cluster: &Cluster, names: &[String]) -> Result<()> {
    let all = all(cluster)?;
    for name in names {
        let full = match name
            .rsplit_once('/')
            .map_or(name.as_str(), |(_, last)| last)
            .contains(':')
        {
            true => name.clone(),
            false => format!("{name}:latest"),
        };
        let Some((_, nodes)) = all.get(&full) else {
            return Err(Error::not_found(format_args!("no node has the image {full}")));
        };
        for node in nodes {
            block_on(client::remove_image(&cluster.paths.node(node).socket, &full))?;
        }
        println!("Removed image: {full}");
    }
    Ok(())
}

/// Has every node pull images.
pub(super) fn pull(cluster: &Cluster, names: &[String]) -> Result<()> {
    for name in names {
        let pulls = cluster.record.nodes.iter().map(|n| {
            let socket = cluster.paths.node(&n.name).socket;
            async move {
                let done = client::pull_image(&socket, name).await;
                done.map_err(|e| Error::new(e.kind, format_args!("node {}: {e}", n.name)))
            }
        });
        block_on(futures::future::try_join_all(pulls))?;
        println!("Pulled image: {name}");
    }
    Ok(())
}
