//! `minikube profile`, and tables with minikube's borders.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::kind::KUBERNETES;
use super::super::record::{Role, Tool};
use super::super::{addons, config, kubeconfig, paths};
use super::failure::Failure;
use super::{Outcome, open};

#[derive(Debug, Subcommand)]
pub(super) enum Profile {
    /// Lists the clusters.
    List {
        /// Form of what is printed: table or json.
        #[arg(short, long, default_value = "table")]
        output: String,
        /// Does not look how they are.
        #[arg(short, long)]
        light: bool,
    },
    /// Makes a cluster the one that is meant when none is named.
    #[command(external_subcommand)]
    Choose(Vec<String>),
}

/// Name of the setting that holds the chosen cluster.
const CHOSEN: &str = "minikube-profile";

/// The cluster that is meant when none is named.
pub(super) fn chosen() -> String {
    let kept = config::read().ok().and_then(|mut c| c.remove(CHOSEN));
    kept.unwrap_or_else(|| "minikube".to_owned())
}

/// Runs the command.
pub(super) fn run(what: Option<Profile>, profile: &str) -> Outcome<ExitCode> {
    match what {
        None => println!("{profile}"),
        Some(Profile::List { output, .. }) => return list(profile, &output),
        Some(Profile::Choose(names)) => {
            let name = names.first().map_or("minikube", String::as_str);
            if name == "default" || name == "minikube" {
                config::put(CHOSEN, None)?;
            } else {
                open(name)?;
                config::put(CHOSEN, Some(name))?;
            }
            println!("✅  minikube profile was successfully set to {name}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn state(cluster: &Cluster) -> &'static str {
    match (cluster.is_running(), cluster.record.paused) {
        (true, true) => "Paused",
        (true, false) => "OK",
        (false, _) => "Stopped",
    }
}

fn described(cluster: &Cluster, active: &str, context: Option<&str>) -> Value {
    let r = &cluster.record;
    let version = r.kubernetes_version.as_deref().unwrap_or(KUBERNETES);
    let nodes: Vec<Value> = r
        .nodes
        .iter()
        .enumerate()
        .map(|(i, n)| {
            json!({
                "Name": if i == 0 { "" } else { n.name.strip_prefix(&format!("{}-", r.name)).unwrap_or(&n.name) },
                "IP": n.address, "Port": 6443, "KubernetesVersion": version, "ContainerRuntime": "tripod",
                "ControlPlane": n.role == Role::ControlPlane, "Worker": true,
            })
        })
        .collect();
    let addons: Value = addons::all(cluster)
        .map(|(name, _, on)| (name.to_owned(), on.into()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({
        "Name": r.name, "Status": state(cluster), "Active": r.name == active,
        "ActiveKubeContext": context == Some(&r.context()),
        "Config": {
            "Name": r.name, "Driver": "tripod", "CPUs": r.cpus.unwrap_or(0), "Memory": r.memory.unwrap_or(0) >> 20,
            "DiskSize": 0, "KeepContext": false, "InsecureRegistry": r.insecure_registries,
            "KubernetesConfig": {
                "KubernetesVersion": version, "ClusterName": r.name, "Namespace": "default", "ContainerRuntime": "tripod",
                "DNSDomain": "cluster.local", "ServiceCIDR": "10.96.0.0/16",
            },
            "Nodes": nodes, "Addons": addons, "MultiNodeRequested": r.nodes.len() > 1,
        },
    })
}

fn list(active: &str, output: &str) -> Outcome<ExitCode> {
    let context = kubeconfig::current_context(None).ok().flatten();
    let names = paths::list(Tool::Minikube)?;
    let clusters: Vec<Cluster> = names.iter().map(|n| open(n)).collect::<Result<_, _>>()?;
    match output {
        "json" => {
            let valid: Vec<Value> = clusters
                .iter()
                .map(|c| described(c, active, context.as_deref()))
                .collect();
            println!("{}", json!({ "invalid": [], "valid": valid }));
            return Ok(ExitCode::SUCCESS);
        }
        "table" => {}
        other => {
            let text = format!("invalid output format: {other}. Valid values: 'table', 'json'");
            return Err(Failure::new("MK_USAGE", 14, text));
        }
    }
    if clusters.is_empty() {
        let text = "No minikube profile was found.\n💡  You can create one using 'minikube start'.";
        return Err(Failure::new("MK_USAGE_NO_PROFILE", 14, text));
    }
    let head = [
        "PROFILE",
        "DRIVER",
        "RUNTIME",
        "IP",
        "VERSION",
        "STATUS",
        "NODES",
        "ACTIVE PROFILE",
        "ACTIVE KUBECONTEXT",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for c in &clusters {
        let r = &c.record;
        let star = |on: bool| if on { "*" } else { "" }.to_owned();
        rows.push(vec![
            r.name.clone(),
            "tripod".into(),
            "tripod".into(),
            r.first().address.to_string(),
            r.kubernetes_version.as_deref().unwrap_or(KUBERNETES).to_owned(),
            state(c).into(),
            r.nodes.len().to_string(),
            star(r.name == active),
            star(context.as_deref() == Some(&r.context())),
        ]);
    }
    print!("{}", super::super::services::draw(&rows));
    Ok(ExitCode::SUCCESS)
}
