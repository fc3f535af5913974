//! Patches of kubeadm's configuration, as far as they say what a node can be given here: labels and taints. All else is
//! named.

use std::collections::BTreeMap;

use serde_yaml::Value;

/// What patches ask for.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Asked {
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Its taints (`key=value:Effect`), where they are said.
    pub taints: Option<Vec<String>>,
    /// Paths of what has no effect.
    pub left: Vec<String>,
}

/// Reads the patches of a node. Those of a cluster take the same path: they hold for every node.
pub(super) fn read(patches: &[Value]) -> Asked {
    let mut asked = Asked::default();
    for patch in patches {
        let parsed = match patch {
            Value::String(text) => serde_yaml::from_str(text).ok(),
            other => Some(other.clone()),
        };
        match parsed {
            Some(Value::Mapping(document)) => one(&document, &mut asked),
            _ => asked.left.push("a patch that is no document".to_owned()),
        }
    }
    asked
}

fn one(document: &serde_yaml::Mapping, asked: &mut Asked) {
    let kind = document
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or("(no kind)")
        .to_owned();
    let of_node = matches!(kind.as_str(), "InitConfiguration" | "JoinConfiguration");
    for (key, value) in document {
        match (key.as_str().unwrap_or_default(), value) {
            ("kind" | "apiVersion" | "metadata", _) => {}
            ("nodeRegistration", Value::Mapping(registration)) if of_node => {
                registration_of(registration, &kind, asked);
            }
            (key, _) => asked.left.push(format!("{kind}.{key}")),
        }
    }
}

fn registration_of(registration: &serde_yaml::Mapping, kind: &str, asked: &mut Asked) {
    for (key, value) in registration {
        match (key.as_str().unwrap_or_default(), value) {
            ("kubeletExtraArgs", Value::Mapping(args)) => {
                for (name, value) in args {
                    argument(name.as_str().unwrap_or_default(), value, kind, asked);
                }
            }
            // The form of kubeadm's v1beta4.
            ("kubeletExtraArgs", Value::Sequence(args)) => {
                for arg in args {
                    let name = arg.get("name").and_then(Value::as_str).unwrap_or_default();
                    argument(name, arg.get("value").unwrap_or(&Value::Null), kind, asked);
                }
            }
            ("taints", Value::Sequence(taints)) => {
                let text =
                    |t: &Value, key: &str| t.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let taint =
                    |t: &Value| format!("{}={}:{}", text(t, "key"), text(t, "value"), text(t, "effect"));
                asked.taints = Some(taints.iter().map(taint).collect());
            }
            (key, _) => asked.left.push(format!("{kind}.nodeRegistration.{key}")),
        }
    }
}

/// An argument of kubelet.
fn argument(name: &str, value: &Value, kind: &str, asked: &mut Asked) {
    let words = value
        .as_str()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|w| !w.is_empty());
    match name {
        "node-labels" => asked.labels.extend(words.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        })),
        "register-with-taints" => asked.taints = Some(words.map(str::to_owned).collect()),
        other => asked
            .left
            .push(format!("{kind}.nodeRegistration.kubeletExtraArgs.{other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Asked {
        read(&[Value::String(text.to_owned())])
    }

    #[test]
    fn labels_and_taints_are_honoured_and_all_else_is_named() {
        let asked = of(
            "kind: InitConfiguration\nnodeRegistration:\n  kubeletExtraArgs:\n    node-labels: 'ingress-ready=true,a=b'\n    max-pods: '9'\n",
        );
        assert_eq!(asked.labels["ingress-ready"], "true");
        assert_eq!(asked.labels["a"], "b");
        assert_eq!(
            asked.left,
            ["InitConfiguration.nodeRegistration.kubeletExtraArgs.max-pods"]
        );
        let asked = of(
            "kind: JoinConfiguration\nnodeRegistration:\n  kubeletExtraArgs:\n  - {name: node-labels, value: x=y}\n  taints:\n  - {key: gpu, value: 'yes', effect: NoSchedule}\n",
        );
        assert_eq!(asked.labels["x"], "y");
        assert_eq!(
            asked.taints.as_deref(),
            Some(&["gpu=yes:NoSchedule".to_owned()][..])
        );
        assert!(asked.left.is_empty());
        assert_eq!(
            of("kind: InitConfiguration\nnodeRegistration: {taints: []}").taints,
            Some(vec![])
        );
        assert_eq!(
            of("kind: ClusterConfiguration\napiServer: {}").left,
            ["ClusterConfiguration.apiServer"]
        );
        assert_eq!(of("- 1").left.len(), 1);
    }
}
