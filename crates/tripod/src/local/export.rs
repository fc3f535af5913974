//! `export logs`: what the nodes of a local cluster logged, as files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tripod_model::Result;

use super::client::block_on;
use super::cluster::Cluster;
use super::kube::KubeClient;
use super::record::{NodeRecord, Role};

/// Parts of the daemon whose lines go into a file of their own: the file, and the beginnings of their targets.
const PARTS: &[(&str, &[&str])] = &[
    ("kubelet.log", &["tripod_agent", "tripod_net"]),
    ("containerd.log", &["tripod_runtime"]),
];
/// The same for managers.
const MANAGER_PARTS: &[(&str, &[&str])] = &[
    (
        "kube-apiserver.log",
        &["tripod_api_kube", "tripod_edge", "tripod::daemon"],
    ),
    ("kube-controller-manager.log", &["tripod_engine", "tripod_plan"]),
    ("kube-scheduler.log", &["tripod_plan::schedule"]),
    ("etcd.log", &["tripod_raft", "openraft"]),
];

/// Writes the logs of all nodes below `dir` (a new directory when none is given) and prints where.
pub(super) fn logs(cluster: &Cluster, dir: Option<&Path>) -> Result<()> {
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => fresh_directory()?,
    };
    println!(
        "Exporting logs for cluster \"{}\" to:\n{}",
        cluster.record.name,
        dir.display()
    );
    let events = events(cluster).unwrap_or_default();
    for n in &cluster.record.nodes {
        node(cluster, n, &dir.join(&n.name), &events)?;
    }
    Ok(())
}

fn fresh_directory() -> Result<PathBuf> {
    let stamp = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let dir = std::env::temp_dir().join(format!("tripod-logs-{stamp}"));
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// The cluster's events as lines, with the component that reported each.
fn events(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let client = KubeClient::new(&cluster.kubeconfig()?)?;
    let list = block_on(client.get("/api/v1/events"))?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let line = |e: &Value| {
        let object = &e["involvedObject"];
        let component = match e["reportingComponent"].as_str() {
            Some(c) if !c.is_empty() => c.to_owned(),
            _ => text(&e["source"]["component"]),
        };
        let line = format!(
            "{} {} {} {}/{}: {}",
            text(&e["lastTimestamp"]),
            text(&e["type"]),
            text(&e["reason"]),
            text(&object["kind"]),
            text(&object["name"]),
            text(&e["message"])
        );
        (component, line)
    };
    Ok(list["items"].as_array().into_iter().flatten().map(line).collect())
}

fn node(cluster: &Cluster, n: &NodeRecord, dir: &Path, events: &[(String, String)]) -> Result<()> {
    fs::create_dir_all(dir)?;
    let paths = cluster.paths.node(&n.name);
    let log = fs::read_to_string(&paths.log).unwrap_or_default();
    fs::write(dir.join("journal.log"), &log)?;
    let mut parts: Vec<_> = PARTS.to_vec();
    if n.role == Role::ControlPlane {
        parts.extend(MANAGER_PARTS);
    }
    for (file, targets) in parts {
        let mut content = String::new();
        for line in log
            .lines()
            .filter(|l| targets.iter().any(|t| l.contains(&format!(" {t}"))))
        {
            let _ = writeln!(content, "{line}");
        }
        for (component, line) in events.iter().filter(|(c, _)| reports(file, c)) {
            let _ = writeln!(content, "{component}: {line}");
        }
        if content.is_empty() {
            content = format!("{}: nothing to report\n", file.trim_end_matches(".log"));
        }
        fs::write(dir.join(file), content)?;
    }
    containers(&paths.data.join("node/containers"), &dir.join("containers"))
}

/// Whether an event of that component belongs into the file.
fn reports(file: &str, component: &str) -> bool {
    match file {
        "kube-scheduler.log" => component.contains("scheduler"),
        "kubelet.log" => component.contains("kubelet") || component.contains("agent"),
        "kube-controller-manager.log" => component.contains("controller"),
        _ => false,
    }
}

/// Copies the logs of containers.
fn containers(from: &Path, to: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(from) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let id = entry.file_name();
        let Ok(files) = fs::read_dir(entry.path()) else {
            continue;
        };
        for file in files {
            let file = file?;
            let name = file.file_name();
            if name.to_string_lossy().contains(".log") && file.file_type()?.is_file() {
                fs::create_dir_all(to)?;
                let target = format!("{}-{}", id.to_string_lossy(), name.to_string_lossy());
                fs::copy(file.path(), to.join(target))?;
            }
        }
    }
    Ok(())
}
