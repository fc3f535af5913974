//! Proxies: requests carried to a pod, to a pod behind a service, or to a node.

mod rewrite;

use std::task::Poll;
use std::time::Duration;

use futures::StreamExt as _;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, LOCATION,
    TRANSFER_ENCODING, UPGRADE,
};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tripod_engine::ByteStream;
use tripod_model::door::{ContainerTarget, PortForwardRequest};
use tripod_schema::Failure;
use tripod_schema::failure::Result;
use tripod_schema::value::{list, text};
use tripod_store::{Key, KindId};

use crate::call::Call;
use crate::objects::model_failure;
use crate::reply::Reply;
use crate::target::Target;

use rewrite::{Document, Way};

/// How long an endpoint that is no pod may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a request is carried to.
enum Place {
    /// A port of a pod, and the node that runs it.
    Pod {
        pod: ContainerTarget,
        node: String,
        port: u16,
    },
    /// An endpoint that is no pod.
    Address(String, u16),
}

/// Carries a request.
pub(crate) async fn serve(call: &Call, target: &Target) -> Reply {
    let reads = call.method == "GET" || call.method == "HEAD";
    let uri = {
        let head = call
            .head
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        head.uri().clone()
    };
    if target.rest.is_empty() && reads {
        return moved(&uri);
    }
    let (scheme, name, port) = parts(&target.name)?;
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
    let stream = connect(call, place, scheme == "https").await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| unreachable(&e))?;
    tokio::spawn(async move {
        // Its end shows in the answer.
        let _ = connection.with_upgrades().await;
    });
    let request = onward(call, target, uri.query())?;
    let response = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
    let path = uri.path();
    let way = Way {
        prefix: path.strip_suffix(&target.rest).unwrap_or(path).to_owned(),
        host: call.header("host").unwrap_or_default().to_owned(),
    };
    Ok(back(response, way))
}

/// The root of what is proxied ends with a slash, so that relative links lead below it.
fn moved(uri: &http::Uri) -> Reply {
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", uri.path())).map_err(Failure::bad_request)?;
    let mut response = http::Response::new(tripod_edge::empty());
    *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

fn unreachable(e: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        503,
        "ServiceUnavailable",
        format_args!("error trying to reach service: {e}"),
    )
}

async fn connect(call: &Call, place: Place, tls: bool) -> Result<Box<dyn ByteStream>> {
    let stream: Box<dyn ByteStream> = match place {
        Place::Pod { pod, node, port } => {
            let door = call.manager.door(&node).map_err(|e| model_failure(&e))?;
            let request = PortForwardRequest { target: pod, port };
            door.port_forward(request).await.map_err(|e| unreachable(&e))?
        }
        Place::Address(ip, port) => {
            let dial = tokio::net::TcpStream::connect((ip.as_str(), port));
            match tokio::time::timeout(PATIENCE, dial).await {
                Ok(stream) => Box::new(stream.map_err(|e| unreachable(&e))?),
                Err(_) => return Err(unreachable(&format_args!("dial tcp {ip}:{port}: i/o timeout"))),
            }
        }
    };
    if !tls {
        return Ok(stream);
    }
    let stream = tripod_edge::connect_unverified(stream, "localhost").await;
    Ok(Box::new(stream.map_err(|e| unreachable(&e))?))
}

/// The request as the server behind the proxy gets it.
fn onward(call: &Call, target: &Target, query: Option<&str>) -> Result<http::Request<tripod_edge::Body>> {
    let mut path = match target.rest.as_str() {
        "" => "/".to_owned(),
        rest => rest.to_owned(),
    };
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    let mut request = http::Request::builder()
        .method(call.method.clone())
        .uri(path)
        .body(match call.take_body() {
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
    Ok(request)
}

/// The answer as the client gets it: links lead through the proxy again.
fn back(response: http::Response<hyper::body::Incoming>, way: Way) -> tripod_edge::Response {
    let (mut head, body) = response.into_parts();
    for name in [CONNECTION, TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    let word = |name| head.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let kind = word(CONTENT_TYPE).and_then(|v| v.split(';').next());
    let html = kind.is_some_and(|k| k.trim().eq_ignore_ascii_case("text/html"))
        && word(CONTENT_ENCODING).is_none_or(|e| e == "identity");
    let location = word(LOCATION).map(|l| way.link(l).into_owned());
    if let Some(value) = location.and_then(|l| HeaderValue::from_str(&l).ok()) {
        head.headers.insert(LOCATION, value);
    }
    if !html {
        return http::Response::from_parts(head, body.map_err(Into::into).boxed_unsync());
    }
    head.headers.remove(CONTENT_LENGTH);
    let mut document = Some(Document::new(way));
    let mut pieces = body.into_data_stream();
    let rewritten = futures::stream::poll_fn(move |context| {
        let Some(open) = &mut document else {
            return Poll::Ready(None);
        };
        Poll::Ready(match std::task::ready!(pieces.poll_next_unpin(context)) {
            Some(Ok(piece)) => Some(Ok(open.push(&piece).into())),
            Some(Err(e)) => Some(Err(e.into())),
            None => {
                let rest = open.finish();
                document = None;
                Some(Ok(rest.into()))
            }
        })
    });
    http::Response::from_parts(head, crate::watch::body(rewritten))
}

/// Scheme, name and port of `[SCHEME:]NAME[:PORT]`.
fn parts(text: &str) -> Result<(&str, &str, &str)> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [name] => Ok(("", name, "")),
        [name, port] => Ok(("", name, port)),
        [scheme @ ("http" | "https" | ""), name, port] => Ok((scheme, name, port)),
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
    Ok(Place::Pod {
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
            let address = list(endpoint, &["addresses"]).first().and_then(Value::as_str);
            match text(endpoint, &["targetRef", "kind"]) {
                _ if !ready => {}
                "Pod" => places.push((true, text(endpoint, &["targetRef", "name"]).to_owned(), port)),
                _ => places.extend(address.map(|a| (false, a.to_owned(), port))),
            }
        }
    }
    if places.is_empty() {
        return Err(Failure::unavailable(format_args!(
            "no endpoints available for service {name:?}"
        )));
    }
    match places.swap_remove(rand::random_range(0..places.len())) {
        (true, pod, port) => place(&read(call, "pods", namespace, &pod)?, port),
        (false, address, port) => Ok(Place::Address(address, port)),
    }
}
