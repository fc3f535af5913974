//! Addresses and ports of services. The store refuses what two services would hold at once.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};
use tripod_schema::failure::Result;
use tripod_schema::value::{list, name, object_mut, text};
use tripod_schema::{Cause, Failure};

use super::Scene;

/// The default range of addresses of services.
const RANGE: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 16);
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// What an update leaves out of what was allocated stays.
pub(super) fn inherit(old: &Value, new: &mut Value) {
    let ty = text(new, &["spec", "type"]).to_owned();
    let (was, spec) = (&old["spec"], object_mut(new, &["spec"]));
    let external = ty == "ExternalName";
    for member in ["clusterIP", "clusterIPs"] {
        let unset = spec
            .get(member)
            .is_none_or(|v| v == "" || v.as_array().is_some_and(Vec::is_empty));
        if unset
            && !external
            && was["type"] != "ExternalName"
            && let Some(value) = was.get(member)
        {
            spec.insert(member.into(), value.clone());
        }
    }
    if ty != "NodePort" && ty != "LoadBalancer" {
        return;
    }
    let old_ports = list(old, &["spec", "ports"]).to_vec();
    if let Some(Value::Array(ports)) = spec.get_mut("ports") {
        for port in ports {
            let same = |o: &&Value| o["port"] == port["port"] && protocol(o) == protocol(port);
            let unset = port["nodePort"].as_i64().unwrap_or(0) == 0;
            if let (true, Some(number)) = (unset, old_ports.iter().find(same).and_then(|o| o.get("nodePort")))
            {
                port["nodePort"] = number.clone();
            }
        }
    }
    if let Some(number) = was.get("healthCheckNodePort")
        && spec.get("healthCheckNodePort").is_none()
        && spec.get("externalTrafficPolicy").is_some_and(|p| p == "Local")
    {
        spec.insert("healthCheckNodePort".into(), number.clone());
    }
}

fn protocol(port: &Value) -> &str {
    match text(port, &["protocol"]) {
        "" => "TCP",
        said => said,
    }
}

/// Gives a service what it needs and does not name.
pub(super) fn allocate(scene: &Scene<'_>, old: Option<&Value>, service: &mut Value) -> Result<()> {
    let ty = text(service, &["spec", "type"]).to_owned();
    let title = name(service).to_owned();
    if ty == "ExternalName" {
        let spec = object_mut(service, &["spec"]);
        for gone in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            spec.remove(gone);
        }
        strip_node_ports(spec);
        return Ok(());
    }
    cluster_ip(scene, service, &title)?;
    let spec = object_mut(service, &["spec"]);
    if ty == "ClusterIP" {
        strip_node_ports(spec);
        let external = spec
            .get("externalIPs")
            .and_then(Value::as_array)
            .is_some_and(|l| !l.is_empty());
        if !external {
            spec.remove("externalTrafficPolicy");
        }
        spec.remove("allocateLoadBalancerNodePorts");
        return Ok(());
    }
    let wants = ty == "NodePort" || spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let own = old.map(held_by).unwrap_or_default();
    node_ports(scene, spec, wants, &own, &title)
}

fn strip_node_ports(spec: &mut Map<String, Value>) {
    if let Some(Value::Array(ports)) = spec.get_mut("ports") {
        for port in ports.iter_mut().filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
    }
    spec.remove("healthCheckNodePort");
}

fn cluster_ip(scene: &Scene<'_>, service: &mut Value, title: &str) -> Result<()> {
    let spec = object_mut(service, &["spec"]);
    let listed = spec
        .get("clusterIPs")
        .and_then(Value::as_array)
        .and_then(|l| l.first())
        .and_then(Value::as_str);
    let said = match spec.get("clusterIP").and_then(Value::as_str) {
        Some("") | None => listed.unwrap_or_default().to_owned(),
        Some(ip) => ip.to_owned(),
    };
    let ip = match said.as_str() {
        "None" => said,
        "" => free_address(scene)
            .ok_or_else(|| Failure::internal("failed to allocate a serviceIP: range is full"))?
            .to_string(),
        text => {
            let inside = text.parse::<Ipv4Addr>().is_ok_and(in_range);
            if !inside {
                let why = format!(
                    "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. The range of valid IPs is {}/{}",
                    RANGE.0, RANGE.1
                );
                return Err(Failure::invalid(
                    scene.kind,
                    title,
                    vec![Cause::invalid("spec.clusterIPs", &json!([text]), why)],
                ));
            }
            said
        }
    };
    spec.insert("clusterIP".into(), ip.clone().into());
    spec.insert("clusterIPs".into(), json!([ip]));
    let families = spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
    if families.as_array().is_some_and(|l| l.iter().any(|f| f == "IPv6")) {
        let policy = spec
            .get("ipFamilyPolicy")
            .and_then(Value::as_str)
            .unwrap_or("SingleStack");
        if policy == "RequireDualStack" || spec["ipFamilies"][0] == "IPv6" {
            return Err(Failure::invalid(
                scene.kind,
                title,
                vec![Cause::invalid(
                    "spec.ipFamilies[0]",
                    &json!("IPv6"),
                    "not configured on this cluster",
                )],
            ));
        }
        spec.insert("ipFamilies".into(), json!(["IPv4"]));
    }
    if spec
        .get("ipFamilyPolicy")
        .is_some_and(|p| p == "RequireDualStack")
    {
        return Err(Failure::invalid(
            scene.kind,
            title,
            vec![Cause::invalid(
                "spec.ipFamilyPolicy",
                &json!("RequireDualStack"),
                "this cluster is not configured for dual-stack services",
            )],
        ));
    }
    tripod_schema::value::default_to(spec, "ipFamilyPolicy", "SingleStack");
    Ok(())
}

fn in_range(ip: Ipv4Addr) -> bool {
    let mask = u32::MAX << (32 - RANGE.1);
    u32::from(ip) & mask == u32::from(RANGE.0)
}

/// A free address: from a random place on, as two servers may look at once. The first ones are left to those who ask.
fn free_address(scene: &Scene<'_>) -> Option<Ipv4Addr> {
    let size = 1u32 << (32 - RANGE.1);
    let band = 256;
    let start = rand::random_range(band..size - 1);
    (band..size - 1)
        .map(|i| band + (start + i - 2 * band) % (size - 1 - band))
        .chain(11..band)
        .map(|offset| Ipv4Addr::from(u32::from(RANGE.0) + offset))
        .find(|ip| {
            scene
                .state
                .by_unique("services#clusterIP", &ip.to_string())
                .is_none()
        })
}

fn held_by(service: &Value) -> BTreeSet<(String, i64)> {
    let ports = list(service, &["spec", "ports"]).iter();
    ports
        .filter_map(|p| Some((protocol(p).to_owned(), p["nodePort"].as_i64()?)))
        .collect()
}

fn node_ports(
    scene: &Scene<'_>,
    spec: &mut Map<String, Value>,
    wants: bool,
    own: &BTreeSet<(String, i64)>,
    title: &str,
) -> Result<()> {
    let taken = |protocol: &str, port: i64| {
        !own.contains(&(protocol.to_owned(), port))
            && scene
                .state
                .by_unique("services#nodePort", &format!("{protocol}/{port}"))
                .is_some()
    };
    let free = |protocol: &str, used: &[i64]| {
        let start = rand::random_range(NODE_PORTS);
        let ports = (start..=*NODE_PORTS.end())
            .chain(*NODE_PORTS.start()..start)
            .map(i64::from);
        let mut free = ports.filter(|p| !used.contains(p) && !taken(protocol, *p));
        free.next()
            .ok_or_else(|| Failure::internal("failed to allocate a nodePort: range is full"))
    };
    let mut used: Vec<i64> = Vec::new();
    if let Some(Value::Array(ports)) = spec.get_mut("ports") {
        used.extend(
            ports
                .iter()
                .filter_map(|p| p["nodePort"].as_i64())
                .filter(|n| *n > 0),
        );
        for (i, port) in ports.iter_mut().enumerate() {
            let said = port["nodePort"].as_i64().unwrap_or(0);
            let protocol = protocol(port).to_owned();
            if said > 0 {
                let field = format!("spec.ports[{i}].nodePort");
                let inside = u16::try_from(said).is_ok_and(|p| NODE_PORTS.contains(&p));
                let why = if !inside {
                    "provided port is not in the valid range. The range of valid ports is 30000-32767"
                } else if taken(&protocol, said) {
                    "provided port is already allocated"
                } else {
                    continue;
                };
                let cause = Cause::invalid(field, &Value::from(said), why);
                return Err(Failure::invalid(scene.kind, title, vec![cause]));
            }
            if wants {
                let number = free(&protocol, &used)?;
                used.push(number);
                port["nodePort"] = number.into();
            }
        }
    }
    let local = spec.get("type").is_some_and(|t| t == "LoadBalancer")
        && spec.get("externalTrafficPolicy").is_some_and(|p| p == "Local");
    if local
        && spec
            .get("healthCheckNodePort")
            .and_then(Value::as_i64)
            .unwrap_or(0)
            == 0
    {
        spec.insert("healthCheckNodePort".into(), free("TCP", &used)?.into());
    }
    if !local {
        spec.remove("healthCheckNodePort");
    }
    Ok(())
}
