//! `tripod registry`: a registry of the cluster's images on this machine.

use tripod_model::{Error, Result};

use super::client;
use super::cluster::Cluster;
use super::commands::open;
use super::node;
use crate::cli::ClusterArgs;

/// The port that people are used to.
const PORT: u16 = 5000;

/// Opens the registry and says how it is used, or closes it.
pub(crate) fn registry(args: &ClusterArgs, port: Option<u16>, off: bool) -> Result<()> {
    let mut cluster = open(args)?;
    if off {
        close(&mut cluster)?;
        println!("The registry is closed; images that were pushed stay.");
        return Ok(());
    }
    let port = enable(&mut cluster, port)?;
    println!("The registry answers at localhost:{port}:");
    println!("\n  docker tag IMAGE localhost:{port}/IMAGE && docker push localhost:{port}/IMAGE");
    println!("  kubectl create deployment NAME --image=localhost:{port}/IMAGE   # every node has it");
    Ok(())
}

/// Opens the registry, now and whenever the cluster runs; its port.
pub(super) fn enable(cluster: &mut Cluster, port: Option<u16>) -> Result<u16> {
    let port = port.or(cluster.record.registry).unwrap_or(PORT);
    if port == 0 {
        return Err(Error::invalid("the registry's port cannot be 0").at("port"));
    }
    let paths = cluster.paths.node(&cluster.record.first().name);
    if node::first_process(&paths).is_some() {
        let path = format!("/?127.0.0.1:{port}");
        client::put(&paths.registry, &path)
            .map_err(|e| Error::conflict(format_args!("{}; another port is taken by --port", e.message)))?;
    }
    cluster.record.registry = Some(port);
    cluster.record.write(&cluster.paths.dir)?;
    Ok(port)
}

/// Closes it, for good.
pub(super) fn close(cluster: &mut Cluster) -> Result<()> {
    let paths = cluster.paths.node(&cluster.record.first().name);
    if node::first_process(&paths).is_some() {
        client::delete(&paths.registry, "/")?;
    }
    cluster.record.registry = None;
    cluster.record.write(&cluster.paths.dir)
}
