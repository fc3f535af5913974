//! Placement constraints: `node.role==manager`, `node.labels.zone != a`.

use std::net::IpAddr;

use ipnet::IpNet;
use tripod_model::node::{Node, NodeRole};
use tripod_model::swarm::TaskSpec;
use tripod_model::{Error, Result};

/// One constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    key: String,
    equal: bool,
    value: String,
}

/// Parses constraints, with SwarmKit's errors.
pub fn parse(constraints: &[String]) -> Result<Vec<Constraint>> {
    constraints.iter().map(|c| parse_one(c)).collect()
}

fn parse_one(text: &str) -> Result<Constraint> {
    // `==` is looked for first, as SwarmKit does.
    let (split, equal) = match text.split_once("==") {
        Some(split) => (Some(split), true),
        None => (text.split_once("!="), false),
    };
    let Some((key, value)) = split else {
        return Err(Error::invalid("constraint expected one operator from ==, !="));
    };
    let (key, value) = (key.trim(), value.trim());
    if !is_key(key) {
        return Err(Error::invalid(format_args!("key '{key}' is invalid")));
    }
    if !is_value(value) {
        return Err(Error::invalid(format_args!("value '{value}' is invalid")));
    }
    Ok(Constraint {
        key: key.to_owned(),
        equal,
        value: value.to_owned(),
    })
}

fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    key.len() >= 2
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|b| {
            b.is_ascii_alphanumeric() || b.is_ascii_whitespace() || b":-_.*()?+[]\\^$|/".contains(&b)
        })
}

impl Constraint {
    /// Whether a node satisfies it. A label that a node lacks is the empty string; an unknown key is satisfied by
    /// no node.
    pub fn matches(&self, node: &Node) -> bool {
        let key = self.key.to_ascii_lowercase();
        let description = &node.status.description;
        match key.as_str() {
            "node.id" => self.compare(&[&node.spec.swarm.node_id]),
            "node.hostname" => self.compare(&[&description.hostname]),
            "node.ip" => self.matches_address(&node.status.addr),
            "node.role" => self.compare(&[match node.spec.swarm.role {
                NodeRole::Manager => "manager",
                NodeRole::Worker => "worker",
            }]),
            "node.platform.os" => self.compare(&[&description.platform.os]),
            "node.platform.arch" => {
                let arch = description.platform.architecture.as_str();
                self.compare(&[arch, architecture(arch)])
            }
            _ => {
                let label = |prefix: &str, labels: &std::collections::BTreeMap<String, String>| {
                    let name = key.starts_with(prefix).then(|| &self.key[prefix.len()..])?;
                    Some(self.compare(&[labels.get(name).map_or("", String::as_str)]))
                };
                label("node.labels.", &node.spec.swarm.labels)
                    .or_else(|| label("engine.labels.", &description.engine_labels))
                    .unwrap_or(false)
            }
        }
    }

    fn compare(&self, actual: &[&str]) -> bool {
        actual.iter().any(|a| a.eq_ignore_ascii_case(&self.value)) == self.equal
    }

    fn matches_address(&self, addr: &str) -> bool {
        let Ok(addr) = addr.parse::<IpAddr>() else {
            return !self.equal;
        };
        let within = match self.value.parse::<IpNet>() {
            Ok(net) => net.contains(&addr),
            Err(_) => match self.value.parse::<IpAddr>() {
                Ok(wanted) => wanted == addr,
                Err(_) => return false,
            },
        };
        within == self.equal
    }
}

/// The name that Go and image indices use for an architecture that the kernel names otherwise.
pub fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" => "386",
        "armv7l" | "armv6l" | "armhf" => "arm",
        other => other,
    }
}

/// Whether a node satisfies the constraints of a template. What does not parse was refused at admission, and
/// counts as not satisfied.
pub fn satisfied(template: &TaskSpec, node: &Node) -> bool {
    let Some(placement) = &template.placement else {
        return true;
    };
    placement.constraints.is_empty()
        || parse(&placement.constraints).is_ok_and(|all| all.iter().all(|c| c.matches(node)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let mut n = Node::default();
        n.spec.swarm.node_id = "abc".into();
        n.spec.swarm.role = NodeRole::Manager;
        n.spec.swarm.labels.insert("zone".into(), "A".into());
        n.status.addr = "10.1.2.3".into();
        n.status.description.hostname = "host1".into();
        n.status.description.platform.os = "linux".into();
        n.status.description.platform.architecture = "x86_64".into();
        n.status
            .description
            .engine_labels
            .insert("disk".into(), "ssd".into());
        n
    }

    #[test]
    fn constraints_match_as_in_swarm() {
        for (text, want) in [
            ("node.id==abc", true),
            ("node.id != abc", false),
            ("node.hostname == HOST1", true),
            ("node.ip==10.1.2.3", true),
            ("node.ip==10.1.0.0/16", true),
            ("node.ip!=10.1.0.0/16", false),
            ("node.ip==10.2.0.0/16", false),
            ("node.role==manager", true),
            ("node.role==worker", false),
            ("node.platform.os==linux", true),
            ("node.platform.arch==x86_64", true),
            ("node.platform.arch==amd64", true),
            ("node.platform.arch!=amd64", false),
            ("node.labels.zone==a", true),
            ("node.labels.rack==a", false),
            ("node.labels.rack!=a", true),
            ("engine.labels.disk==ssd", true),
            ("node.nonsense==x", false),
            ("node.nonsense!=x", false),
        ] {
            let c = parse_one(text).unwrap();
            assert_eq!(c.matches(&node()), want, "{text}");
        }
    }

    #[test]
    fn errors_are_worded_as_in_swarm() {
        let message = |c: &str| parse_one(c).unwrap_err().message;
        assert_eq!(
            message("node.role"),
            "constraint expected one operator from ==, !="
        );
        assert_eq!(message("1node==x"), "key '1node' is invalid");
        assert_eq!(message("node.role=="), "value '' is invalid");
        assert_eq!(message("node.labels.a==x,y"), "value 'x,y' is invalid");
    }
}
