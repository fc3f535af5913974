//! Proxies: requests carried to a pod, to a pod behind a service, or to a node.

use http::header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tripod_model::door::{ContainerTarget, PortForwardRequest};
use tripod_schema::Failure;
use tripod_schema::failure::Result;
use tripod_schema::value::{list, text};
use tripod_store::{Key, KindId};

use crate::call::Call;
use crate::objects::model_failure;
use crate::reply::Reply;
use crate::target::Target;

/// A port of a pod.
struct Place {
    pod: ContainerTarget,
    node: String,
    port: u16,
}

/// Carries a request.
pub(crate) async fn serve(call: &Call, target: &Target) -> Reply {
    let (_, name, port) = parts(&target.name)?;
    let place = match target.kind.plural {
        "pods" => pod(call, &target.namespace, name, port)?,
        "services" => service(call, &target.namespace, name, port)?,
        _ => {
            return Err(Failure::new(
                501,
                "NotImplemented",
                "proxies to nodes are not implemented: nodes serve no port of their own",
            ));
        }
    };
    let door = call.manager.door(&place.node).map_err(|e| model_failure(&e))?;
    let port = place.port;
    let request = PortForwardRequest {
        target: place.pod,
        port,
    };
    let unreachable = |e: &dyn std::fmt::Display| {
        Failure::new(
            503,
            "ServiceUnavailable",
            format_args!("error trying to reach service: {e}"),
        )
    };
    let stream = door.port_forward(request).await.map_err(|e| unreachable(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| unreachable(&e))?;
    tokio::spawn(async move {
        // Its end shows in the answer.
        let _ = connection.with_upgrades().await;
    });
    let mut path = if target.rest.is_empty() {
        "/".to_owned()
    } else {
        target.rest.clone()
    };
    let query = {
        let head = call
            .head
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        head.uri().query().map(str::to_owned)
    };
    if let Some(query) = query {
        path.push('?');
        path.push_str(&query);
    }
    let body = call.take_body();
    let mut request = http::Request::builder()
        .method(call.method.clone())
        .uri(path)
        .body(match body {
            Some(body) => body.map_err(Into::into).boxed_unsync(),
            None => tripod_edge::empty(),
        })
        .map_err(Failure::bad_request)?;
    for (name, value) in &call.headers {
        let hop = [CONNECTION, UPGRADE, TRANSFER_ENCODING, HOST].contains(name);
        if !hop && name != "authorization" {
            request.headers_mut().append(name, value.clone());
        }
    }
    let host = call.header("host").unwrap_or("localhost");
    if let Ok(value) = HeaderValue::from_str(host) {
        request.headers_mut().insert(HOST, value);
    }
    let response = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
    let (mut head, body) = response.into_parts();
    for name in [CONNECTION, TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    Ok(http::Response::from_parts(
        head,
        body.map_err(Into::into).boxed_unsync(),
    ))
}

/// Scheme, name and port of `[SCHEME:]NAME[:PORT]`.
fn parts(text: &str) -> Result<(&str, &str, &str)> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [name] => Ok(("", name, "")),
        [name, port] => Ok(("", name, port)),
        ["http" | "", name, port] => Ok(("http", name, port)),
        ["https", ..] => Err(Failure::new(
            501,
            "NotImplemented",
            "proxies to https are not implemented",
        )),
        _ => Err(Failure::bad_request(format_args!(
            "invalid proxy request {text:?}"
        ))),
    }
}

fn read(call: &Call, plural: &str, namespace: &str, name: &str) -> Result<Value> {
    let state = call.manager.state();
    let stored = state
        .get(&Key::new(plural, namespace, name))
        .ok_or_else(|| Failure::not_found_named("", plural, name))?;
    serde_json::from_slice(&stored.bytes).map_err(Failure::internal)
}

fn place(pod: &Value, port: u16) -> Result<Place> {
    let word = |path: &[&str]| text(pod, path).to_owned();
    let node = word(&["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Failure::bad_request(
            "address not allowed: the pod has no node yet",
        ));
    }
    let target = ContainerTarget {
        namespace: word(&["metadata", "namespace"]),
        pod: word(&["metadata", "name"]),
        uid: word(&["metadata", "uid"]),
        container: String::new(),
    };
    Ok(Place {
        pod: target,
        node,
        port,
    })
}

/// The number of a pod's port by number or name; without one, the first that it declares.
fn port_of(pod: &Value, port: &str) -> Result<u16> {
    let declared = || {
        list(pod, &["spec", "containers"])
            .iter()
            .flat_map(|c| list(c, &["ports"]))
    };
    let number = |p: &Value| p["containerPort"].as_u64().and_then(|n| u16::try_from(n).ok());
    let found = match port {
        "" => Some(declared().next().and_then(number).unwrap_or(80)),
        text => text.parse().ok().or_else(|| {
            declared()
                .find(|p| tripod_schema::value::text(p, &["name"]) == text)
                .and_then(number)
        }),
    };
    found.ok_or_else(|| Failure::bad_request(format_args!("no port {port:?} found")))
}

fn pod(call: &Call, namespace: &str, name: &str, port: &str) -> Result<Place> {
    let pod = read(call, "pods", namespace, name)?;
    place(&pod, port_of(&pod, port)?)
}

fn service(call: &Call, namespace: &str, name: &str, port: &str) -> Result<Place> {
    let service = read(call, "services", namespace, name)?;
    let ports = list(&service, &["spec", "ports"]);
    let chosen = ports
        .iter()
        .find(|p| {
            port.is_empty() || text(p, &["name"]) == port || port.parse::<u64>().is_ok_and(|n| p["port"] == n)
        })
        .ok_or_else(|| {
            Failure::unavailable(format_args!(
                "no service port {port:?} found for service {name:?}"
            ))
        })?;
    let wanted = text(chosen, &["name"]);
    let state = call.manager.state();
    let kind = KindId::from("endpointslices.discovery.k8s.io");
    let slices: Vec<Value> = state
        .iter(&kind, Some(namespace))
        .filter(|o| o.labels.get("kubernetes.io/service-name") == Some(name))
        .filter_map(|o| serde_json::from_slice(&o.bytes).ok())
        .collect();
    drop(state);
    let mut places = Vec::new();
    for slice in &slices {
        let port = list(slice, &["ports"])
            .iter()
            .find(|p| text(p, &["name"]) == wanted);
        let Some(port) = port
            .and_then(|p| p["port"].as_u64())
            .and_then(|n| u16::try_from(n).ok())
        else {
            continue;
        };
        for endpoint in list(slice, &["endpoints"]) {
            let ready = endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
            if ready && text(endpoint, &["targetRef", "kind"]) == "Pod" {
                places.push((text(endpoint, &["targetRef", "name"]).to_owned(), port));
            }
        }
    }
    if places.is_empty() {
        return Err(Failure::unavailable(format_args!(
            "no endpoints available for service {name:?}"
        )));
    }
    let (pod, port) = places.swap_remove(rand::random_range(0..places.len()));
    place(&read(call, "pods", namespace, &pod)?, port)
}
