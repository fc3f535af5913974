//! `minikube start`.

use clap::Args;

use super::super::cluster::{Cluster, NodeWish, Step, Wish};
use super::super::kind::KUBERNETES;
use super::super::paths::ClusterPaths;
use super::super::record::{Mapping, Mount, Role, Tool};
use super::super::{addons, kubeconfig, kubeconfig::current_context};
use super::failure::Failure;
use super::flags::Others;
use super::{Outcome, open};
use crate::sizes::{self, Amount};

/// Options of `minikube start`.
#[derive(Debug, Args)]
pub(super) struct Start {
    /// Number of nodes.
    #[arg(short, long, default_value_t = 1)]
    nodes: usize,
    /// Three managers instead of one.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false")]
    ha: String,
    /// The Kubernetes version that is reported.
    #[arg(long)]
    kubernetes_version: Option<String>,
    /// Feature gates: `Name=true,...`.
    #[arg(long, default_value = "")]
    feature_gates: String,
    /// Processors of each node: a number, `max` or `no-limit`.
    #[arg(long, value_parser = sizes::cpus)]
    cpus: Option<Amount<u32>>,
    /// Memory of each node (`4096` MiB, `4g`), `max` or `no-limit`.
    #[arg(long, value_parser = sizes::memory_amount)]
    memory: Option<Amount<u64>>,
    /// What nodes are made by; here they are always namespaces of this machine.
    #[arg(short, long)]
    driver: Option<String>,
    /// The container runtime; here it is always tripod's own.
    #[arg(short, long)]
    container_runtime: Option<String>,
    /// The network between pods; here it is always tripod's own.
    #[arg(long)]
    cni: Option<String>,
    /// Add-ons that are enabled.
    #[arg(long, value_delimiter = ',')]
    addons: Vec<String>,
    /// What is waited for; the command returns when all is ready.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    wait: Option<String>,
    /// Leaves the current context as it is.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false")]
    keep_context: String,
    /// Mounts a directory of this machine on the nodes.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false")]
    mount: String,
    /// What is mounted, and where: `HOST:NODE`.
    #[arg(long, value_name = "HOST:NODE")]
    mount_string: Option<String>,
    /// Ports of this machine that lead to the first node: `[IP:]PORT:PORT[/udp]`.
    #[arg(long, value_delimiter = ',')]
    ports: Vec<String>,
    /// Registries that are asked in the clear.
    #[arg(long, value_delimiter = ',')]
    insecure_registry: Vec<String>,
    /// The namespace of the kubectl context.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Says what would be, and makes nothing.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false")]
    dry_run: String,
    /// Returns at once: there is nothing to download.
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true, default_value = "false")]
    download_only: String,
    /// Form of what is printed: text.
    #[arg(short, long, default_value = "text")]
    output: String,
    #[command(flatten)]
    others: Others,
}

fn usage(text: impl std::fmt::Display) -> Failure {
    Failure::new("MK_USAGE", 14, text)
}

const DRIVERS: &[&str] = &[
    "auto",
    "docker",
    "podman",
    "none",
    "ssh",
    "kvm2",
    "kvm",
    "qemu",
    "qemu2",
    "virtualbox",
    "vmware",
    "hyperv",
    "hyperkit",
    "parallels",
    "vfkit",
    "krunkit",
    "native",
    "tripod",
];

/// What is asked for that is always otherwise: an error, or a line about it.
fn fixtures(args: &Start) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    if let Some(driver) = args.driver.as_deref().filter(|d| !d.is_empty()) {
        if !DRIVERS.contains(&driver) {
            let text = format!("The driver '{driver}' is not supported on linux/amd64");
            return Err(Failure::new("DRV_UNSUPPORTED_OS", 56, text));
        }
        notes.push(format!(
            "--driver={driver} has no effect: nodes are namespaces of this machine"
        ));
    }
    if let Some(runtime) = args.container_runtime.as_deref().filter(|r| !r.is_empty()) {
        if !["docker", "containerd", "cri-o", "crio", "default", "auto"].contains(&runtime) {
            return Err(usage(format_args!(
                "Invalid Container Runtime: \"{runtime}\". Valid runtimes are: [docker, cri-o, containerd]"
            )));
        }
        notes.push(format!(
            "--container-runtime={runtime} has no effect: the runtime is tripod's own"
        ));
    }
    match args.cni.as_deref() {
        None | Some("" | "auto" | "bridge" | "true") => {}
        Some(known @ ("calico" | "cilium" | "flannel" | "kindnet")) => {
            notes.push(format!(
                "--cni={known} has no effect: the network between pods is tripod's own"
            ));
        }
        Some(other) => {
            return Err(usage(format_args!(
                "--cni={other} cannot be had: the network between pods is part of tripod"
            )));
        }
    }
    if args.output != "text" {
        return Err(usage(format_args!(
            "--output={} cannot be had: only text can",
            args.output
        )));
    }
    notes.extend(args.others.judge()?);
    Ok(notes)
}

/// Starts a cluster.
pub(super) fn start(args: &Start, profile: &str) -> Outcome<()> {
    println!("😄  minikube v{} (tripod)", env!("CARGO_PKG_VERSION"));
    let notes = fixtures(args)?;
    for note in notes {
        println!("💡  {note}");
    }
    let exists = ClusterPaths::of(Tool::Minikube, profile)?.exists();
    let wish = wish(args)?;
    if args.download_only == "true" {
        println!("✅  Download complete!");
        return Ok(());
    }
    if args.dry_run == "true" {
        println!("🏄  dry-run validation complete!");
        return Ok(());
    }
    let mut cluster = match exists {
        true => changed(open(profile)?, args),
        false => {
            tripod_agent::host::HostFacts::check_share(wish.cpus, None)
                .map_err(|e| Failure::new("RSRC_INSUFFICIENT_CORES", 29, e))?;
            tripod_agent::host::HostFacts::check_share(None, wish.memory)
                .map_err(|e| Failure::new("RSRC_OVER_ALLOC_MEM", 23, e))?;
            Cluster::create(Tool::Minikube, profile, wish)?
        }
    };
    println!("👍  Starting \"{profile}\" primary control-plane node in \"{profile}\" cluster");
    let version = cluster.record.kubernetes_version.as_deref().unwrap_or(KUBERNETES);
    println!(
        "🐳  Preparing Kubernetes {version} on tripod {} ...",
        env!("CARGO_PKG_VERSION")
    );
    let before = current_context(None).ok().flatten();
    cluster.up(&mut |step| {
        if step == Step::Joining {
            println!("👍  Starting further nodes of the \"{profile}\" cluster");
        }
    })?;
    cluster.write_contexts(None)?;
    println!("🔎  Verifying Kubernetes components...");
    let mut enabled = vec![
        "storage-provisioner".to_owned(),
        "default-storageclass".to_owned(),
    ];
    for addon in args.addons.iter().filter(|a| !a.is_empty()) {
        match addons::switch(&mut cluster, addon, addons::Switch::On) {
            Ok(_) if enabled.contains(addon) => {}
            Ok(_) => enabled.push(addon.clone()),
            Err(e) => println!("❗  Enabling '{addon}' returned an error: {e}"),
        }
    }
    println!("🌟  Enabled addons: {}", enabled.join(", "));
    finish(args, profile, before)
}

/// The context, and the last line.
fn finish(args: &Start, profile: &str, before: Option<String>) -> Outcome<()> {
    if args.namespace != "default" {
        kubeconfig::set_namespace(None, profile, &args.namespace)?;
    }
    match (args.keep_context == "true", before) {
        (true, Some(context)) => {
            kubeconfig::use_context(None, &context)?;
            println!("🏄  Done! \"{profile}\" is ready; the current context is still \"{context}\"");
            println!("💗  To connect to this cluster, use:  --context={profile}");
        }
        _ => println!(
            "🏄  Done! kubectl is now configured to use \"{profile}\" cluster and \"{}\" namespace by default",
            args.namespace
        ),
    }
    Ok(())
}

/// A cluster that exists: what cannot be changed any more is told.
fn changed(cluster: Cluster, args: &Start) -> Cluster {
    let kept = &cluster.record;
    let what = [
        (
            "memory size",
            args.memory.is_some_and(|m| m.limit() != kept.memory),
        ),
        ("CPUs", args.cpus.is_some_and(|c| c.limit() != kept.cpus)),
    ];
    for (what, _) in what.iter().filter(|(_, changed)| *changed) {
        println!(
            "❗  You cannot change the {what} for an existing minikube cluster. Please first delete the cluster."
        );
    }
    cluster
}

fn wish(args: &Start) -> Outcome<Wish> {
    let managers = if args.ha == "true" { 3 } else { 1 };
    let count = args.nodes.max(managers);
    if args.nodes == 0 {
        return Err(usage("--nodes must be 1 or more"));
    }
    let role = |n| {
        if n < managers {
            Role::ControlPlane
        } else {
            Role::Worker
        }
    };
    let mut nodes: Vec<NodeWish> = (0..count).map(|n| NodeWish::plain(role(n))).collect();
    if let Some(text) = &args.mount_string {
        let mount = mount_of(text)?;
        if !mount.host_path.exists() {
            return Err(Failure::new(
                "HOST_PATH_MISSING",
                30,
                format_args!("Cannot find directory {} for mount", mount.host_path.display()),
            ));
        }
        nodes.iter_mut().for_each(|n| n.mounts.push(mount.clone()));
    } else if args.mount == "true" {
        let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
        let mount = mount_of(&format!("{home}:/minikube-host"))?;
        nodes.iter_mut().for_each(|n| n.mounts.push(mount.clone()));
    }
    for port in &args.ports {
        nodes[0].mappings.push(mapping(port)?);
    }
    Ok(Wish {
        nodes,
        kubernetes_version: version(args.kubernetes_version.as_deref())?,
        feature_gates: gates(&args.feature_gates)?,
        cpus: args.cpus.and_then(Amount::limit),
        memory: args.memory.and_then(Amount::limit),
        insecure_registries: args.insecure_registry.clone(),
        ..Wish::default()
    })
}

fn version(text: Option<&str>) -> Outcome<Option<String>> {
    let Some(text) = text.filter(|t| !["", "stable", "latest"].contains(t)) else {
        return Ok(None);
    };
    let numbers = text.trim_start_matches('v');
    let fine = numbers.split('-').next().is_some_and(|n| {
        let parts: Vec<&str> = n.split('.').collect();
        (2..=3).contains(&parts.len()) && parts.iter().all(|p| p.parse::<u32>().is_ok())
    });
    if !fine {
        return Err(usage(format_args!(
            "Unable to parse \"{text}\": No Major.Minor.Patch elements found"
        )));
    }
    let whole = if numbers.matches('.').count() == 1 {
        format!("{numbers}.0")
    } else {
        numbers.to_owned()
    };
    Ok(Some(format!("v{whole}")))
}

fn gates(text: &str) -> Outcome<std::collections::BTreeMap<String, bool>> {
    let pairs = text.split(',').filter(|p| !p.is_empty());
    pairs
        .map(|pair| {
            let gate = pair.split_once('=');
            let gate = gate.and_then(|(k, v)| Some((k.to_owned(), v.parse::<bool>().ok()?)));
            gate.ok_or_else(|| usage(format_args!("--feature-gates: {pair:?} is not Name=true|false")))
        })
        .collect()
}

/// `HOST:NODE` as a mount.
pub(super) fn mount_of(text: &str) -> Outcome<Mount> {
    super::super::mounts::parse(text, false).map_err(usage)
}

/// `[IP:]PORT:PORT[/udp]` as a mapping.
fn mapping(text: &str) -> Outcome<Mapping> {
    let wrong = || usage(format_args!("--ports: {text:?} is not [IP:]PORT:PORT[/udp]"));
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let parts: Vec<&str> = ports.split(':').collect();
    let (listen, host, node) = match parts.as_slice() {
        [port] => ("0.0.0.0", *port, *port),
        [host, node] => ("0.0.0.0", *host, *node),
        [ip, host, node] => (*ip, *host, *node),
        _ => return Err(wrong()),
    };
    if !matches!(protocol, "tcp" | "udp") {
        return Err(wrong());
    }
    Ok(Mapping {
        protocol: protocol.to_owned(),
        listen: listen.parse().map_err(|_| wrong())?,
        host_port: host.parse().map_err(|_| wrong())?,
        node_port: node.parse().map_err(|_| wrong())?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Minikube, Verb};
    use super::*;
    use clap::Parser as _;

    fn parsed(words: &[&str]) -> Box<Start> {
        let all = ["minikube", "start"].iter().chain(words);
        match Minikube::parse_from(all).command {
            Some(Verb::Start(s)) => s,
            _ => panic!("not start"),
        }
    }

    #[test]
    fn what_can_be_honoured_is() {
        let w = wish(&parsed(&[
            "--kubernetes-version=1.30",
            "--feature-gates=A=true,B=false",
            "--ha",
            "--cpus=2",
            "--memory",
            "4g",
            "--ports=127.0.0.1:80:8080,53:53/udp",
            "--insecure-registry=reg.lan,10.0.0.0/24",
            "--mount-string=/tmp:/data",
        ]))
        .unwrap();
        assert_eq!(w.kubernetes_version.as_deref(), Some("v1.30.0"));
        assert!(w.feature_gates["A"] && !w.feature_gates["B"]);
        assert_eq!(w.nodes.iter().filter(|n| n.role == Role::ControlPlane).count(), 3);
        assert_eq!((w.cpus, w.memory), (Some(2), Some(4 << 30)));
        assert_eq!(w.nodes[0].mappings[0].node_port, 8080);
        assert_eq!(w.nodes[0].mappings[1].protocol, "udp");
        assert_eq!(w.nodes[2].mounts[0].node_path, std::path::Path::new("/data"));
        for bad in [
            "--feature-gates=A",
            "--nodes=0",
            "--ports=x",
            "--kubernetes-version=new",
            "--mount-string=/tmp",
        ] {
            assert!(wish(&parsed(&[bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_is_said_by_name() {
        let notes = fixtures(&parsed(&[
            "--driver=docker",
            "--container-runtime=containerd",
            "--disk-size=20g",
            "--extra-config=kubelet.max-pods=9",
            "--extra-config=apiserver.v=2",
            "--wait=all",
            "--force",
            "--preload=false",
            "--embed-certs",
        ]))
        .unwrap();
        assert_eq!(notes.len(), 4, "{notes:?}");
        assert!(notes[2].starts_with("--disk-size has no effect"));
        for bad in [
            "--driver=abacus",
            "--container-runtime=lxc",
            "--cni=false",
            "--static-ip=10.0.0.1",
            "--no-kubernetes",
            "--dns-domain=home",
            "--gpus=all",
            "--output=json",
        ] {
            assert!(fixtures(&parsed(&[bad])).is_err(), "{bad}");
        }
        assert!(fixtures(&parsed(&["--no-kubernetes=false", "--dns-domain=cluster.local"])).is_ok());
    }
}
