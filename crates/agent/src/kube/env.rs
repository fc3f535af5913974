//! The environment of a container: services, ConfigMaps, Secrets, fields of the pod; and `$(NAME)` in text.

use std::collections::BTreeMap;

use tripod_model::k8s_openapi::api::core::v1::{
    Container, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};
use tripod_model::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tripod_model::session::{ConfigData, NodeSettings, ServiceAddress};
use tripod_model::{Error, Result};

use super::desc::PodDesc;
use super::inputs::Inputs;
use super::quantity::milli;

/// Addresses of a pod, known once it has its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub pod: Vec<std::net::IpAddr>,
    pub host: Vec<std::net::IpAddr>,
}

/// `NAME=value` of everything that a container's specification says, in order; a later one of a name replaces an
/// earlier one.
///
/// # Errors
/// [`tripod_model::ErrorKind::Invalid`] for what is missing and not optional.
pub(super) fn environment(
    desc: &PodDesc,
    container: &Container,
    inputs: &Inputs,
    addresses: &Addresses,
) -> Result<Vec<(String, String)>> {
    let services = services(desc, inputs);
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut set = |known: &mut BTreeMap<String, String>, name: String, value: String| {
        if known.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let data = match (&source.config_map_ref, &source.secret_ref) {
            (Some(r), _) => from(desc, inputs, "configmap", &r.name, r.optional)?,
            (_, Some(r)) => from(desc, inputs, "secret", &r.name, r.optional)?,
            _ => None,
        };
        for (key, value) in data.into_iter().flat_map(|d| d.data) {
            let value = String::from_utf8_lossy(&value.0).into_owned();
            set(&mut known, format!("{prefix}{key}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => match value_of(desc, container, inputs, addresses, source)? {
                Some(value) => value,
                None => continue,
            },
            (value, None) => {
                let text = value.as_deref().unwrap_or_default();
                expand(text, |n| known.get(n).or_else(|| services.get(n)).cloned())
            }
        };
        set(&mut known, variable.name.clone(), value);
    }
    for (name, value) in services {
        if !known.contains_key(&name) {
            set(&mut known, name, value);
        }
    }
    let pair = |n: String| known.get(&n).cloned().map(|v| (n, v));
    Ok(order.into_iter().filter_map(pair).collect())
}

fn from(
    desc: &PodDesc,
    inputs: &Inputs,
    kind: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<ConfigData>> {
    let found = match kind {
        "configmap" => inputs.config_map(desc.namespace(), name),
        _ => inputs.secret(desc.namespace(), name),
    };
    match found {
        None if !optional.unwrap_or(false) => {
            Err(Error::invalid(format_args!("{kind} \"{name}\" not found")))
        }
        found => Ok(found),
    }
}

fn value_of(
    desc: &PodDesc,
    container: &Container,
    inputs: &Inputs,
    addresses: &Addresses,
    source: &EnvVarSource,
) -> Result<Option<String>> {
    let key = |kind: &str, name: &str, key: &str, optional: Option<bool>| {
        let Some(data) = from(desc, inputs, kind, name, optional)? else {
            return Ok(None);
        };
        match data.data.get(key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional.unwrap_or(false) => Ok(None),
            None => {
                let kind = if kind == "configmap" {
                    "ConfigMap"
                } else {
                    "Secret"
                };
                Err(Error::invalid(format_args!(
                    "couldn't find key {key} in {kind} {}/{name}",
                    desc.namespace()
                )))
            }
        }
    };
    if let Some(r) = &source.config_map_key_ref {
        return key("configmap", &r.name, &r.key, r.optional);
    }
    if let Some(r) = &source.secret_key_ref {
        return key("secret", &r.name, &r.key, r.optional);
    }
    if let Some(r) = &source.field_ref {
        return field(desc, addresses, r).map(Some);
    }
    if let Some(r) = &source.resource_field_ref {
        return resource(desc, container, r, &inputs.node()).map(Some);
    }
    Err(Error::invalid(
        "the value of a variable has no source that this node knows",
    ))
}

/// A field of the pod (downward API).
pub(super) fn field(desc: &PodDesc, addresses: &Addresses, selector: &ObjectFieldSelector) -> Result<String> {
    let meta = &desc.pod.metadata;
    let list = |all: &[std::net::IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |all: &[std::net::IpAddr]| all.first().map(ToString::to_string).unwrap_or_default();
    let path = selector.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(Error::invalid(format_args!("unsupported fieldPath: {path}"))),
        };
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => desc.pod.spec.node_name.clone(),
        "spec.serviceAccountName" => desc.spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&addresses.host),
        "status.hostIPs" => list(&addresses.host),
        "status.podIP" => first(&addresses.pod),
        "status.podIPs" => list(&addresses.pod),
        _ => return Err(Error::invalid(format_args!("unsupported fieldPath: {path}"))),
    })
}

/// `name="value"`, a line each; quoted as Go does.
fn lines(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", quoted(v))).collect();
    lines.join("\n")
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A limit or request of a container (downward API), in units of the divisor, rounded up. A container without a limit
/// may use what the node has.
pub(super) fn resource(
    desc: &PodDesc,
    container: &Container,
    selector: &ResourceFieldSelector,
    node: &NodeSettings,
) -> Result<String> {
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let container = match named {
        Some(name) => match desc.get(name) {
            Some(c) => &c.container,
            None => return Err(Error::invalid(format_args!("container {name} not found"))),
        },
        None => container,
    };
    let (list, name) = selector.resource.split_once('.').ok_or_else(|| {
        Error::invalid(format_args!(
            "unsupported container resource: {}",
            selector.resource
        ))
    })?;
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|r| r.limits.as_ref()?.get(name));
    let request = resources.and_then(|r| r.requests.as_ref()?.get(name));
    let value = match list {
        "limits" => match limit {
            Some(q) => milli(q),
            None => node
                .allocatable
                .get(name)
                .and_then(|t| milli(&Quantity(t.clone()))),
        },
        "requests" => request.or(limit).map_or(Some(0), milli),
        _ => None,
    };
    let Some(value) = value else {
        return match list {
            "limits" => Ok("0".into()),
            _ => Err(Error::invalid(format_args!(
                "unsupported container resource: {}",
                selector.resource
            ))),
        };
    };
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(milli)
        .filter(|d| *d > 0)
        .unwrap_or(1000);
    Ok(((value + divisor - 1) / divisor).to_string())
}

/// The variables that name the services of the pod's namespace; the API server's always.
fn services(desc: &PodDesc, inputs: &Inputs) -> BTreeMap<String, String> {
    let links = desc.spec.enable_service_links.unwrap_or(true);
    let all = inputs.services(desc.namespace());
    let mut env = BTreeMap::new();
    for service in &all.services {
        if links || service.name == "kubernetes" {
            service_variables(service, &mut env);
        }
    }
    env
}

fn service_variables(service: &ServiceAddress, env: &mut BTreeMap<String, String>) {
    let upper = |text: &str| text.to_ascii_uppercase().replace('-', "_");
    let name = upper(&service.name);
    let Some((_, first, _)) = service.ports.first() else {
        return;
    };
    let host = &service.address;
    env.insert(format!("{name}_SERVICE_HOST"), host.clone());
    env.insert(format!("{name}_SERVICE_PORT"), first.to_string());
    for (i, (port_name, port, protocol)) in service.ports.iter().enumerate() {
        if !port_name.is_empty() {
            env.insert(
                format!("{name}_SERVICE_PORT_{}", upper(port_name)),
                port.to_string(),
            );
        }
        let url = format!("{}://{host}:{port}", protocol.to_ascii_lowercase());
        if i == 0 {
            env.insert(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{port}_{}", protocol.to_ascii_uppercase());
        env.insert(prefix.clone(), url);
        env.insert(format!("{prefix}_PROTO"), protocol.to_ascii_lowercase());
        env.insert(format!("{prefix}_PORT"), port.to_string());
        env.insert(format!("{prefix}_ADDR"), host.clone());
    }
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar; a name without a value stays as it is written.
pub(super) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::desc::tests::pod;
    use super::*;

    #[test]
    fn text_is_expanded() {
        let value = |n: &str| (n == "A").then(|| "1".to_owned());
        for (text, want) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, value), want, "{text}");
        }
    }

    #[test]
    fn resources_are_told_in_units() {
        let desc = pod(
            json!({"containers": [{"name": "a", "resources":
                {"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}),
            json!({}),
        );
        let node = NodeSettings {
            allocatable: [("ephemeral-storage".to_owned(), "10Gi".to_owned())].into(),
            ..NodeSettings::default()
        };
        let container = &desc.containers[0].container;
        for (name, divisor, want) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1250"),
            ("requests.cpu", Some("1m"), "250"),
            ("limits.memory", Some("1Mi"), "64"),
            ("requests.memory", None, "67108864"),
            ("limits.ephemeral-storage", Some("1Gi"), "10"),
        ] {
            let selector = ResourceFieldSelector {
                resource: name.into(),
                divisor: divisor.map(|d: &str| Quantity(d.into())),
                ..Default::default()
            };
            assert_eq!(
                resource(&desc, container, &selector, &node).unwrap(),
                want,
                "{name}"
            );
        }
    }

    #[test]
    fn services_have_variables() {
        let mut env = BTreeMap::new();
        let service = ServiceAddress {
            name: "my-db".into(),
            address: "10.96.0.7".into(),
            ports: vec![("sql".into(), 5432, "TCP".into())],
        };
        service_variables(&service, &mut env);
        for (name, value) in [
            ("MY_DB_SERVICE_HOST", "10.96.0.7"),
            ("MY_DB_SERVICE_PORT", "5432"),
            ("MY_DB_SERVICE_PORT_SQL", "5432"),
            ("MY_DB_PORT", "tcp://10.96.0.7:5432"),
            ("MY_DB_PORT_5432_TCP_ADDR", "10.96.0.7"),
        ] {
            assert_eq!(env[name], value);
        }
    }

    #[test]
    fn labels_are_lines() {
        let map = BTreeMap::from([("a".into(), "x\"y".into()), ("b".into(), "1".into())]);
        assert_eq!(lines(&map), "a=\"x\\\"y\"\nb=\"1\"");
    }
}
