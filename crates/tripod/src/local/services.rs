//! Services of a local cluster and where they answer on this machine.

use std::fmt::Write as _;

use serde_json::Value;
use tripod_model::{Error, Result};

use super::client::block_on;
use super::cluster::Cluster;
use super::kube::KubeClient;

/// URLs of a Kubernetes service's node ports and load balancer ports.
pub(super) fn urls(cluster: &Cluster, namespace: &str, name: &str) -> Result<Vec<String>> {
    let client = KubeClient::new(&cluster.kubeconfig()?)?;
    let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
    let service = block_on(client.get(&path)).map_err(|e| match e.kind {
        tripod_model::ErrorKind::NotFound => Error::not_found(format_args!(
            "service \"{name}\" was not found in namespace \"{namespace}\""
        )),
        _ => e,
    })?;
    let urls = addresses(cluster, &service);
    if urls.is_empty() {
        return Err(Error::invalid(format_args!(
            "service {namespace}/{name} has no node port"
        )));
    }
    Ok(urls)
}

fn addresses(cluster: &Cluster, service: &Value) -> Vec<String> {
    let node = cluster.record.first().address;
    ports(service)
        .filter_map(|p| p["nodePort"].as_u64())
        .map(|port| format!("http://{node}:{port}"))
        .collect()
}

fn ports(service: &Value) -> impl Iterator<Item = &Value> {
    service["spec"]["ports"].as_array().into_iter().flatten()
}

/// The services of a namespace, or of all.
fn list(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<Value>> {
    let client = KubeClient::new(&cluster.kubeconfig()?)?;
    let path = namespace.map_or("/api/v1/services".to_owned(), |n| {
        format!("/api/v1/namespaces/{n}/services")
    });
    let list = block_on(client.get(&path))?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn text(service: &Value, key: &str) -> String {
    service["metadata"][key].as_str().unwrap_or_default().to_owned()
}

/// Names of the services of a namespace that have node ports.
pub(super) fn with_node_ports(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    let all = list(cluster, Some(namespace))?;
    let reached = all.iter().filter(|s| !addresses(cluster, s).is_empty());
    Ok(reached.map(|s| text(s, "name")).collect())
}

/// What a service's ports are called, and where they answer.
fn ways(cluster: &Cluster, s: &Value) -> (Vec<String>, Vec<String>) {
    let urls = addresses(cluster, s);
    let named = |p: &Value| match p["name"].as_str() {
        Some(n) => format!("{n}/{}", p["port"]),
        None => p["port"].to_string(),
    };
    let targets = match urls.is_empty() {
        true => vec!["No node port".to_owned()],
        false => ports(s).map(named).collect(),
    };
    (targets, urls)
}

/// All services, as minikube prints them for scripts.
pub(super) fn as_json(cluster: &Cluster, namespace: Option<&str>) -> Result<Value> {
    let all = list(cluster, namespace)?;
    let shown = all.iter().map(|s| {
        let (targets, urls) = ways(cluster, s);
        serde_json::json!({
            "Namespace": text(s, "namespace"), "Name": text(s, "name"), "URLs": urls, "PortNames": targets,
        })
    });
    Ok(shown.collect())
}

/// All services as a table with borders.
pub(super) fn table(cluster: &Cluster, namespace: Option<&str>) -> Result<String> {
    let mut rows = vec![
        ["NAMESPACE", "NAME", "TARGET PORT", "URL"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for s in &list(cluster, namespace)? {
        let (targets, urls) = ways(cluster, s);
        let lines = targets.len().max(urls.len());
        for i in 0..lines {
            let once = |v: String| if i == 0 { v } else { String::new() };
            rows.push(vec![
                once(text(s, "namespace")),
                once(text(s, "name")),
                targets.get(i).cloned().unwrap_or_default(),
                urls.get(i).cloned().unwrap_or_default(),
            ]);
        }
    }
    Ok(draw(&rows))
}

/// Rows of which the first is the head, in boxes.
pub(super) fn draw(rows: &[Vec<String>]) -> String {
    let mut widths = vec![0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |left: &str, middle: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let mut out = line("┌", "┬", "┐");
    for (i, row) in rows.iter().enumerate() {
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(out, "│ {cell:width$} ");
        }
        out.push_str("│\n");
        if i == 0 {
            out.push_str(&line("├", "┼", "┤"));
        }
    }
    out.push_str(&line("└", "┴", "┘"));
    out
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let cells = |a: &str| [a, "n", "t", "u"].map(str::to_owned).to_vec();
        let text = draw(&[cells("A"), cells("long")]);
        assert!(text.contains("│ A    │ n │") && text.contains("│ long │ n │"));
        assert_eq!(text.lines().count(), 5);
    }
}
