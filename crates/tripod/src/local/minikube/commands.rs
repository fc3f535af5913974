//! The smaller commands of `minikube`.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};
use tripod_model::{Error, ErrorKind};

use super::super::client::block_on;
use super::super::cluster::Cluster;
use super::super::commands::{freeze_all, write_private};
use super::super::kind::KUBERNETES;
use super::super::record::{Role, Tool};
use super::super::{
    addons as add_ons, config, dashboard, export, mounts, nodes as local_nodes, paths, services,
};
use super::failure::Failure;
use super::{Addons, Logs, Mounting, Node, Outcome, Service, ServiceVerb, node, open, running};

/// Stops one cluster, or all.
pub(super) fn stop(profile: &str, all: bool) -> Outcome<()> {
    let names = if all {
        paths::list(Tool::Minikube)?
    } else {
        vec![profile.to_owned()]
    };
    let mut count = 0;
    for name in names {
        let cluster = open(&name)?;
        for n in &cluster.record.nodes {
            println!("✋  Stopping node \"{}\"  ...", n.name);
        }
        cluster.stop()?;
        count += cluster.record.nodes.len();
    }
    println!("🛑  {count} nodes stopped.");
    Ok(())
}

/// Deletes one cluster, or all, and the settings.
pub(super) fn delete(profile: &str, all: bool, purge: bool) -> Outcome<()> {
    let every = all || purge;
    let names = if every {
        paths::list(Tool::Minikube)?
    } else {
        vec![profile.to_owned()]
    };
    for name in names {
        println!("🔥  Deleting \"{name}\" in tripod ...");
        match Cluster::open(Tool::Minikube, &name) {
            Ok(cluster) => cluster.delete(None)?,
            Err(e) if e.kind == ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        println!("💀  Removed all traces of the \"{name}\" cluster.");
    }
    if every {
        println!("🔥  Successfully deleted all profiles");
    }
    if purge {
        config::clear()?;
    }
    Ok(())
}

/// Pauses or unpauses containers.
pub(super) fn freeze(profile: &str, frozen: bool) -> Outcome<()> {
    let count = freeze_all(&mut running(profile)?, frozen)?;
    let what = if frozen { "Paused" } else { "Unpaused" };
    println!("⏸️  {what} {count} containers");
    Ok(())
}

/// Prints or opens addresses of services.
pub(super) fn service(args: &Service, profile: &str) -> Outcome<()> {
    let cluster = running(profile)?;
    if let Some(ServiceVerb::List { namespace, output }) = &args.list {
        match output.as_str() {
            "json" => println!("{}", services::as_json(&cluster, namespace.as_deref())?),
            _ => print!("{}", services::table(&cluster, namespace.as_deref())?),
        }
        return Ok(());
    }
    let names = match args.all {
        true => services::with_node_ports(&cluster, &args.namespace)?,
        false => args.names.clone(),
    };
    if names.is_empty() {
        return Err(Failure::new("MK_USAGE", 14, "You must specify a service name"));
    }
    for name in &names {
        let urls =
            services::urls(&cluster, &args.namespace, name).map_err(|e| unreachable(&e, args, name))?;
        for url in urls {
            let url = shaped(&url, args);
            println!("{url}");
            if !args.url {
                dashboard::open_browser(&url)?;
            }
        }
    }
    Ok(())
}

fn unreachable(e: &Error, args: &Service, name: &str) -> Failure {
    let namespace = &args.namespace;
    match e.kind {
        ErrorKind::NotFound => Failure::new(
            "SVC_NOT_FOUND",
            115,
            format_args!(
                "Service '{name}' was not found in '{namespace}' namespace.\n\
                 You may select another namespace by using 'minikube service {name} -n <namespace>'. \
                 Or list out all the services using 'minikube service list'"
            ),
        ),
        ErrorKind::Invalid => Failure::new(
            "SVC_UNREACHABLE",
            113,
            format_args!("service {namespace}/{name} has no node port"),
        ),
        _ => Failure::new("SVC_URL_TIMEOUT", 112, e),
    }
}

/// An address by the template, or with the scheme, that is asked for.
fn shaped(url: &str, args: &Service) -> String {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (ip, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
    match (&args.format, args.https) {
        (Some(template), _) => template.replace("{{.IP}}", ip).replace("{{.Port}}", port),
        (None, true) => format!("https://{rest}"),
        (None, false) => url.to_owned(),
    }
}

/// Waits for Ctrl-C.
fn stay() -> Outcome<()> {
    Ok(block_on(async { Ok(tokio::signal::ctrl_c().await?) })?)
}

/// Says that no tunnel is needed, and stays as one would.
pub(super) fn tunnel(profile: &str, cleanup: bool) -> Outcome<()> {
    if cleanup {
        return Ok(());
    }
    running(profile)?;
    println!("✅  No tunnel is needed: services of type LoadBalancer and NodePort answer on this machine.");
    println!(
        "📌  NOTE: Please do not close this terminal as this process must stay alive for scripts that wait for it ..."
    );
    std::io::stdout().flush()?;
    stay()
}

/// Copies files; a target without a node is on the first.
pub(super) fn copy(profile: &str, from: &str, to: &str) -> Outcome<()> {
    let cluster = running(profile)?;
    let side = |text: &str, target: bool| -> Outcome<String> {
        match text.split_once(':').filter(|(name, _)| !name.contains('/')) {
            Some((name, path)) => Ok(format!("{}:{path}", node(&cluster, Some(name))?.name)),
            None if target => Ok(format!("{}:{text}", cluster.record.first().name)),
            None => Ok(text.to_owned()),
        }
    };
    let from_node = from.split_once(':').is_some_and(|(name, _)| !name.contains('/'));
    let (source, target) = (side(from, false)?, side(to, !from_node)?);
    local_nodes::copy(&cluster, &source, &target).map_err(|e| Failure::new("MK_USAGE", 14, e))
}

/// Mounts until it is interrupted.
pub(super) fn mount(args: &Mounting, profile: &str) -> Outcome<()> {
    let cluster = running(profile)?;
    if args.kill {
        return Err(Failure::new(
            "MK_USAGE",
            14,
            "--kill cannot be had: a mount ends with the command that made it (Ctrl-C)",
        ));
    }
    let what = args.what.as_deref().ok_or_else(|| {
        Failure::new("MK_USAGE", 14, "Please specify the directory to be mounted: minikube mount <source directory>:<target directory>")
    })?;
    let mut m = super::start::mount_of(what)?;
    m.read_only = args.options.iter().any(|o| o == "ro");
    if !m.host_path.exists() {
        let text = format!("Cannot find directory {} for mount", m.host_path.display());
        return Err(Failure::new("HOST_PATH_MISSING", 30, text));
    }
    let process = mounts::process(&cluster, &cluster.record.first().name)?;
    println!(
        "📁  Mounting host path {} into VM as {} ...",
        m.host_path.display(),
        m.node_path.display()
    );
    mounts::attach(process, &m)?;
    println!(
        "✅  Successfully mounted {} to {}",
        m.host_path.display(),
        m.node_path.display()
    );
    println!("📌  NOTE: This process must stay alive for the mount to be accessible ...");
    std::io::stdout().flush()?;
    let stayed = stay();
    mounts::detach(process, &m.node_path)?;
    println!("🔥  Unmounted {}", m.node_path.display());
    stayed
}

/// Nodes of a cluster.
pub(super) fn nodes(what: Node, profile: &str) -> Outcome<()> {
    match what {
        Node::List => {
            for n in &open(profile)?.record.nodes {
                println!("{}\t{}", n.name, n.address);
            }
        }
        Node::Add { control_plane, .. } => {
            let mut cluster = running(profile)?;
            let (role, word) = match control_plane {
                true => (Role::ControlPlane, "control-plane worker"),
                false => (Role::Worker, "worker"),
            };
            println!("😄  Adding a node to cluster {profile} as [{word}]");
            let name = local_nodes::add(&mut cluster, role)?;
            let short = name.strip_prefix(&format!("{profile}-")).unwrap_or(&name);
            println!("🏄  Successfully added {short} to {profile}!");
        }
        Node::Delete { name } => {
            let mut cluster = running(profile)?;
            let whole = node(&cluster, Some(&name))?.name.clone();
            println!("🔥  Deleting node {name} from cluster {profile}");
            local_nodes::delete(&mut cluster, &whole)
                .map_err(|e| Failure::new("GUEST_NODE_DELETE", 80, e))?;
            println!("💀  Node {name} was successfully deleted.");
        }
        Node::Start { name, .. } => {
            let cluster = open(profile)?;
            let whole = node(&cluster, Some(&name))?.name.clone();
            if super::super::node::first_process(&cluster.paths.node(&whole)).is_some() {
                println!("{name} is already running");
                return Ok(());
            }
            println!("👍  Starting node {name} in cluster {profile}");
            cluster.up(&mut |_| {})?;
            println!("🏄  Successfully started node {name}!");
        }
        Node::Stop { name } => {
            let cluster = open(profile)?;
            let whole = node(&cluster, Some(&name))?.name.clone();
            println!("✋  Stopping node \"{name}\"  ...");
            local_nodes::stop(&cluster, &whole)?;
            println!("🛑  Successfully stopped node {name}");
        }
    }
    Ok(())
}

/// Add-ons of a cluster.
pub(super) fn addons(what: Addons, profile: &str) -> Outcome<()> {
    let (names, to) = match what {
        Addons::List { output, .. } => return list_addons(&open(profile)?, &output),
        Addons::Enable { names, .. } => (names, add_ons::Switch::On),
        Addons::Disable { names } => (names, add_ons::Switch::Off),
    };
    let mut cluster = open(profile)?;
    for name in names {
        add_ons::switch(&mut cluster, &name, to).map_err(|e| match (e.kind, to) {
            (ErrorKind::NotFound, _) => Failure::new(
                "MK_USAGE",
                14,
                format_args!("'{name}' is not a valid minikube addon: {e}"),
            ),
            (_, add_ons::Switch::On) => Failure::new("MK_ADDON_ENABLE", 10, e),
            (_, add_ons::Switch::Off) => Failure::new("MK_ADDON_DISABLE", 10, e),
        })?;
        match to {
            add_ons::Switch::On => println!("🌟  The '{name}' addon is enabled"),
            add_ons::Switch::Off => println!("🌑  \"The '{name}' addon is disabled"),
        }
    }
    Ok(())
}

fn list_addons(cluster: &Cluster, output: &str) -> Outcome<()> {
    match output {
        "json" => println!("{}", add_ons::as_json(cluster)),
        "list" => {
            let mut rows = vec![
                ["ADDON NAME", "PROFILE", "STATUS", "MAINTAINER"]
                    .map(str::to_owned)
                    .to_vec(),
            ];
            for (name, _, on) in add_ons::all(cluster) {
                let status = if on { "enabled ✅" } else { "disabled" };
                rows.push(
                    [name, &cluster.record.name, status, "tripod"]
                        .map(str::to_owned)
                        .to_vec(),
                );
            }
            print!("{}", services::draw(&rows));
        }
        other => {
            let text = format!("invalid output format: {other}. Valid values: 'list', 'json'");
            return Err(Failure::new("MK_USAGE", 14, text));
        }
    }
    Ok(())
}

/// What the nodes logged.
pub(super) fn logs(args: &Logs, profile: &str) -> Outcome<()> {
    let cluster = open(profile)?;
    if let Some(file) = &args.file {
        let dir = file.with_extension("d");
        export::logs(&cluster, Some(&dir))?;
        let mut all = String::new();
        for n in &cluster.record.nodes {
            all.push_str(&std::fs::read_to_string(dir.join(&n.name).join("journal.log"))?);
        }
        std::fs::remove_dir_all(dir)?;
        return Ok(std::fs::write(file, all)?);
    }
    if args.follow {
        let path = cluster
            .paths
            .node(&node(&cluster, args.node.as_deref())?.name)
            .log;
        let status = std::process::Command::new("tail")
            .arg("-n")
            .arg(args.length.to_string())
            .arg("-F")
            .arg(path)
            .status()?;
        return match status.success() {
            true => Ok(()),
            false => Err(Failure::new("HOST_ERROR", 30, "tail broke off")),
        };
    }
    let only = args
        .node
        .as_deref()
        .map(|n| node(&cluster, Some(n)))
        .transpose()?;
    for n in cluster
        .record
        .nodes
        .iter()
        .filter(|n| only.is_none_or(|o| o.name == n.name))
    {
        println!("==> {} <==", n.name);
        let text = std::fs::read_to_string(cluster.paths.node(&n.name).log).unwrap_or_default();
        let bad = |l: &&str| !args.problems || [" WARN ", " ERROR "].iter().any(|w| l.contains(w));
        let lines: Vec<&str> = text.lines().filter(bad).collect();
        for line in &lines[lines.len().saturating_sub(args.length)..] {
            println!("{line}");
        }
    }
    Ok(())
}

/// Runs kubectl with the cluster's configuration.
pub(super) fn kubectl(cluster: &Cluster, args: &[String]) -> Outcome<ExitCode> {
    let config = cluster.paths.dir.join("kubeconfig");
    write_private(&config, &cluster.kubeconfig()?)?;
    let status = std::process::Command::new("kubectl")
        .args(args)
        .env("KUBECONFIG", &config)
        .status()
        .map_err(|e| Error::unavailable(format_args!("kubectl cannot be run: {e}")))?;
    let code = status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

/// The version.
pub(super) fn version(short: bool, output: Option<&str>, components: bool) -> Outcome<()> {
    let (own, commit) = (
        format!("v{}", env!("CARGO_PKG_VERSION")),
        option_env!("TRIPOD_COMMIT").unwrap_or("unknown"),
    );
    let mut shown = json!({ "commit": commit, "minikubeVersion": own });
    if components {
        shown["tripod"] = own.clone().into();
        shown["kubernetes"] = KUBERNETES.into();
    }
    match output {
        Some("json") => println!("{shown}"),
        Some("yaml") => {
            let lines = shown.as_object().into_iter().flatten();
            lines.for_each(|(k, v): (&String, &Value)| println!("{k}: {}", v.as_str().unwrap_or_default()));
        }
        Some(other) if !other.is_empty() => {
            let text = format!("error: --output must be 'yaml' or 'json', not '{other}'");
            return Err(Failure::new("MK_USAGE", 14, text));
        }
        _ if short => println!("{own}"),
        _ => {
            println!("minikube version: {own} (tripod)\ncommit: {commit}");
            if components {
                println!("\nkubernetes version: {KUBERNETES}");
            }
        }
    }
    Ok(())
}
