//! Clusters on this machine: `tripod start`, `stop`, `delete`, `status`, `env`.
//!
//! A cluster is a directory with a daemon's data, its socket, its log and its process number. The daemon goes on when
//! the command that started it has ended.

mod client;
mod context;
mod paths;
mod process;

use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};
use tripod_model::{Error, Result};

use crate::cli::{ClusterArgs, EnvArgs, Output, StartArgs, StatusArgs};
use paths::ClusterPaths;

/// Starts a cluster, or says that it runs.
pub(crate) fn start(args: &StartArgs) -> Result<()> {
    if args.nodes != 1 {
        return Err(
            Error::not_implemented("local clusters of several nodes are not implemented yet").at("nodes"),
        );
    }
    let begun = Instant::now();
    let paths = ClusterPaths::of(&args.cluster.name)?;
    let text = args.output == Output::Text;
    let already = process::is_running(&paths);
    if !already {
        if text {
            println!("Starting cluster \"{}\" ...", paths.name);
        }
        process::start_daemon(&paths)?;
    }
    let node = client::ensure_swarm(&paths.socket)?;
    context::write(&paths)?;
    if !text {
        let answer = json!({
            "name": paths.name, "node": node, "alreadyRunning": already,
            "dockerHost": paths.docker_host(), "milliseconds": begun.elapsed().as_millis() as u64,
        });
        println!("{answer}");
        return Ok(());
    }
    match already {
        true => println!("Cluster \"{}\" is running.", paths.name),
        false => println!(
            "Cluster \"{}\" is ready after {} ms.",
            paths.name,
            begun.elapsed().as_millis()
        ),
    }
    println!("\n  docker --context {} ps", paths.context_name());
    println!(
        "  eval $(tripod env{})   # or: export DOCKER_HOST={}",
        name_option(&paths),
        paths.docker_host()
    );
    Ok(())
}

fn name_option(paths: &ClusterPaths) -> String {
    if paths.name == paths::DEFAULT_NAME {
        String::new()
    } else {
        format!(" --name {}", paths.name)
    }
}

/// Stops a cluster's containers and its daemon.
pub(crate) fn stop(args: &ClusterArgs) -> Result<()> {
    let paths = ClusterPaths::existing(&args.name)?;
    match process::stop_daemon(&paths)? {
        true => println!("Cluster \"{}\" is stopped.", paths.name),
        false => println!("Cluster \"{}\" was not running.", paths.name),
    }
    Ok(())
}

/// Stops a cluster and removes all it holds.
pub(crate) fn delete(args: &ClusterArgs) -> Result<()> {
    let paths = ClusterPaths::existing(&args.name)?;
    // A daemon can take away what it made in the kernel: networks, rules, mounts.
    if !process::is_running(&paths) && paths.data.exists() {
        process::start_daemon(&paths)?;
    }
    client::leave_and_clean(&paths.socket)?;
    process::stop_daemon(&paths)?;
    context::remove(&paths)?;
    std::fs::remove_dir_all(&paths.dir)?;
    println!("Cluster \"{}\" is deleted.", paths.name);
    Ok(())
}

/// Tells how a cluster is; the exit status is 0 when all is well.
pub(crate) fn status(args: &StatusArgs) -> ExitCode {
    let state = read_status(&args.cluster.name);
    let (value, code) = match state {
        Ok(value) => {
            let well = value["daemon"] == "Running" && value["swarm"] == "active";
            (
                value,
                if well {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::from(7)
                },
            )
        }
        Err(e) => {
            eprintln!("tripod: {e}");
            return ExitCode::from(85);
        }
    };
    match args.output {
        Output::Json => println!("{value}"),
        Output::Text => {
            println!("{}", value["name"].as_str().unwrap_or_default());
            for key in [
                "type",
                "daemon",
                "swarm",
                "nodes",
                "services",
                "containers",
                "docker",
            ] {
                let text = match &value[key] {
                    Value::String(s) => s.clone(),
                    other => other.to_string(),
                };
                println!("{key}: {text}");
            }
        }
    }
    code
}

fn read_status(name: &str) -> Result<Value> {
    let paths = ClusterPaths::existing(name)?;
    if !process::is_running(&paths) {
        return Ok(json!({
            "name": paths.name, "type": "Control Plane", "daemon": "Stopped", "swarm": "unknown", "nodes": 0,
            "services": 0, "containers": 0, "docker": paths.docker_host(),
        }));
    }
    let info = client::get(&paths.socket, "/info")?;
    let services = client::get(&paths.socket, "/services").unwrap_or_default();
    Ok(json!({
        "name": paths.name,
        "type": "Control Plane",
        "daemon": "Running",
        "swarm": info["Swarm"]["LocalNodeState"],
        "nodes": info["Swarm"]["Nodes"],
        "services": services.as_array().map_or(0, Vec::len),
        "containers": info["ContainersRunning"],
        "docker": paths.docker_host(),
    }))
}

/// Prints settings for a shell.
pub(crate) fn env(args: &EnvArgs) -> Result<()> {
    if args.unset {
        println!("unset DOCKER_HOST DOCKER_CONTEXT;");
        return Ok(());
    }
    let paths = ClusterPaths::existing(&args.cluster.name)?;
    println!("export DOCKER_HOST=\"{}\"", paths.docker_host());
    println!(
        "# To configure your shell: eval $(tripod env{})",
        name_option(&paths)
    );
    Ok(())
}
