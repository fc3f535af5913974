//! `minikube status`: text, JSON, or a template of the fields.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::commands::serves;
use super::super::record::{NodeRecord, Role};
use super::super::{kubeconfig, node};
use super::failure::Failure;
use super::{Outcome, open};

fn of_node(cluster: &Cluster, n: &NodeRecord) -> Value {
    let host = node::first_process(&cluster.paths.node(&n.name)).is_some();
    let serving = serves(cluster, n);
    let paused = cluster.record.paused && serving;
    let word = |up: bool| if up { "Running" } else { "Stopped" };
    let context = cluster.record.context();
    let configured = match (serving, kubeconfig::leads_to(&context, &cluster.record.server())) {
        (false, _) => "Stopped",
        (true, true) => "Configured",
        (true, false) => "Misconfigured",
    };
    let worker = n.role == Role::Worker;
    let manager_only = |v: &str| {
        if worker {
            "Irrelevant".to_owned()
        } else {
            v.to_owned()
        }
    };
    let api = if paused { "Paused" } else { word(serving) };
    json!({
        "Name": n.name, "Host": word(host), "Kubelet": word(serving && !paused), "APIServer": manager_only(api),
        "Kubeconfig": manager_only(configured), "Worker": worker,
    })
}

/// minikube's exit status: a bit for the host, one for the cluster, one for the kubeconfig.
fn code(nodes: &[Value]) -> u8 {
    let differs = |n: &Value, key: &str, well: &str| n[key] != well && n[key] != "Irrelevant";
    nodes.iter().fold(0, |code, n| {
        let host = u8::from(n["Host"] != "Running");
        let cluster = u8::from(differs(n, "APIServer", "Running") || differs(n, "Kubelet", "Running"));
        let config = u8::from(differs(n, "Kubeconfig", "Configured"));
        code | host | cluster << 1 | config << 2
    })
}

/// Fills a template with `{{.Field}}`s; `\n` is a new line.
fn fill(template: &str, node: &Value) -> Result<String, Failure> {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let bad = || {
            Failure::new(
                "MK_USAGE",
                14,
                format_args!("--format: {template:?} is no template of fields"),
            )
        };
        let (field, tail) = after[2..].split_once("}}").ok_or_else(bad)?;
        match field.trim().strip_prefix('.').and_then(|f| node.get(f)) {
            Some(Value::String(text)) => out.push_str(text),
            Some(other) => out.push_str(&other.to_string()),
            None => return Err(bad()),
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok(out.replace("\\n", "\n"))
}

/// Prints how a cluster, or one node of it, is.
pub(super) fn status(
    profile: &str,
    output: &str,
    format: Option<&str>,
    only: Option<&str>,
) -> Outcome<ExitCode> {
    let cluster = open(profile)?;
    let all = cluster.record.nodes.iter();
    let nodes: Vec<Value> = match only {
        Some(name) => vec![of_node(&cluster, super::node(&cluster, Some(name))?)],
        None => all.map(|n| of_node(&cluster, n)).collect(),
    };
    match (format, output) {
        (Some(template), _) => {
            for n in &nodes {
                print!("{}", fill(template, n)?);
            }
        }
        (None, "json") => match nodes.as_slice() {
            [one] => println!("{one}"),
            many => println!("{}", json!(many)),
        },
        (None, "text") => nodes.iter().for_each(text),
        (None, other) => {
            let text = format!("invalid output format: {other}. Valid values: 'text', 'json'");
            return Err(Failure::new("MK_USAGE", 14, text));
        }
    }
    Ok(ExitCode::from(code(&nodes)))
}

fn text(n: &Value) {
    let word = |key: &str| n[key].as_str().unwrap_or_default().to_owned();
    let worker = n["Worker"] == true;
    let kind = if worker { "Worker" } else { "Control Plane" };
    println!(
        "{}\ntype: {kind}\nhost: {}\nkubelet: {}",
        word("Name"),
        word("Host"),
        word("Kubelet")
    );
    if !worker {
        println!(
            "apiserver: {}\nkubeconfig: {}",
            word("APIServer"),
            word("Kubeconfig")
        );
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_and_templates() {
        let node = |host: &str, api: &str, config: &str| json!({"Name": "a", "Host": host, "Kubelet": host, "APIServer": api, "Kubeconfig": config, "Worker": false});
        assert_eq!(code(&[node("Running", "Running", "Configured")]), 0);
        assert_eq!(code(&[node("Running", "Irrelevant", "Irrelevant")]), 0);
        assert_eq!(code(&[node("Running", "Paused", "Configured")]), 2);
        assert_eq!(code(&[node("Running", "Running", "Misconfigured")]), 4);
        assert_eq!(code(&[node("Stopped", "Stopped", "Stopped")]), 7);
        let n = node("Running", "Running", "Configured");
        assert_eq!(fill("{{.Host}}", &n).unwrap(), "Running");
        assert_eq!(fill("{{ .Name }}: {{.Worker}}\\n", &n).unwrap(), "a: false\n");
        assert!(fill("{{.Colour}}", &n).is_err() && fill("{{.Host", &n).is_err());
    }
}
