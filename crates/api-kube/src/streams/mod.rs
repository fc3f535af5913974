//! Streams of pods: logs, processes, attached terminals, forwarded ports; over WebSocket and over SPDY.

mod channel;
mod forward;
mod log;
mod process;
mod spdy;
mod spdy_frame;
mod websocket;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tripod_edge::empty;
use tripod_model::door::ContainerTarget;
use tripod_schema::Failure;
use tripod_schema::failure::Result;
use tripod_schema::value::{list, text};

use crate::call::Call;
use crate::objects::{key, model_failure};
use crate::reply::Reply;
use crate::target::Target;

pub(crate) use log::log;

/// A connection that was taken over.
pub(crate) type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// The pod that a request names.
pub(crate) fn pod(call: &Call, target: &Target) -> Result<Value> {
    let state = call.manager.state();
    let stored = state
        .get(&key(target))
        .ok_or_else(|| Failure::not_found(target.kind, &target.name))?;
    serde_json::from_slice(&stored.bytes).map_err(Failure::internal)
}

/// The container that a request means, and where it runs.
pub(crate) fn container(call: &Call, pod: &Value) -> Result<(ContainerTarget, String)> {
    let name = text(pod, &["metadata", "name"]);
    let names: Vec<&str> = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .flat_map(|member| list(pod, &["spec", member]))
        .map(|c| text(c, &["name"]))
        .collect();
    let wanted = call.query.get("container").unwrap_or_default();
    let own = list(pod, &["spec", "containers"]);
    let chosen = match (wanted, own) {
        ("", [one]) => text(one, &["name"]),
        ("", []) => "",
        ("", many) => {
            let default = text(
                pod,
                &[
                    "metadata",
                    "annotations",
                    "kubectl.kubernetes.io/default-container",
                ],
            );
            if default.is_empty() || !names.contains(&default) {
                let all: Vec<&str> = many.iter().map(|c| text(c, &["name"])).collect();
                return Err(Failure::bad_request(format_args!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    all.join(" ")
                )));
            }
            default
        }
        (wanted, _) if names.contains(&wanted) => wanted,
        (wanted, _) => {
            return Err(Failure::bad_request(format_args!(
                "container {wanted} is not valid for pod {name}"
            )));
        }
    };
    let node = text(pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Failure::bad_request(format_args!(
            "pod {name} does not have a host assigned"
        )));
    }
    let swarm = text(pod, &["metadata", "annotations", "tripod.dev/pod"]).contains("\"swarm\"");
    let target = ContainerTarget {
        namespace: text(pod, &["metadata", "namespace"]).to_owned(),
        pod: name.to_owned(),
        uid: text(pod, &["metadata", "uid"]).to_owned(),
        // A task has one container, whatever its pod calls it.
        container: if swarm { String::new() } else { chosen.to_owned() },
    };
    Ok((target, node.to_owned()))
}

/// `exec` and `attach`.
pub(crate) async fn process(call: &Call, target: &Target) -> Reply {
    process::serve(call, target).await
}

/// `portforward`.
pub(crate) async fn forward(call: &Call, target: &Target) -> Reply {
    forward::serve(call, target).await
}

/// How a client wants to stream.
enum Transport {
    WebSocket { protocol: Option<String>, key: String },
    Spdy { protocol: Option<String> },
}

/// Reads the upgrade that a client asks for; `known` protocols, best first.
fn transport(call: &Call, known: &[&str]) -> Result<Transport> {
    let upgrade = call.header("upgrade").unwrap_or_default().to_ascii_lowercase();
    let offered = |header: &str| -> Vec<String> {
        let values = call
            .headers
            .get_all(header)
            .iter()
            .filter_map(|v| v.to_str().ok());
        values
            .flat_map(|v| v.split(','))
            .map(|v| v.trim().to_owned())
            .filter(|v| !v.is_empty())
            .collect()
    };
    let choose = |offered: &[String]| {
        known
            .iter()
            .find(|k| offered.iter().any(|o| o == *k))
            .map(|k| (*k).to_owned())
    };
    if upgrade == "websocket" {
        let key = call.header("sec-websocket-key").unwrap_or_default().to_owned();
        if key.is_empty() {
            return Err(Failure::bad_request("missing Sec-WebSocket-Key"));
        }
        let offered = offered("sec-websocket-protocol");
        let protocol = choose(&offered);
        if protocol.is_none() && !offered.is_empty() {
            return Err(Failure::bad_request(format_args!(
                "unable to upgrade connection: none of the protocols {offered:?} is known"
            )));
        }
        return Ok(Transport::WebSocket { protocol, key });
    }
    if upgrade.starts_with("spdy/3.1") {
        let offered = offered("x-stream-protocol-version");
        let protocol = choose(&offered);
        if protocol.is_none() && !offered.is_empty() {
            return Err(Failure::new(
                403,
                "Forbidden",
                format_args!("unable to upgrade: unable to negotiate protocol: client supports {offered:?}"),
            ));
        }
        return Ok(Transport::Spdy { protocol });
    }
    Err(Failure::bad_request("Upgrade request required"))
}

/// Answers 101 and hands over the connection when it is there.
fn upgrade(
    call: &Call,
    transport: &Transport,
) -> (
    tripod_edge::Response,
    impl Future<Output = Option<Upgraded>> + Send + use<>,
) {
    let coming = {
        let mut head = call
            .head
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        hyper::upgrade::on(&mut *head)
    };
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    match transport {
        Transport::WebSocket { protocol, key } => {
            put("sec-websocket-accept", &websocket::accept_key(key));
            if let Some(protocol) = protocol {
                put("sec-websocket-protocol", protocol);
            }
            put("upgrade", "websocket");
        }
        Transport::Spdy { protocol } => {
            if let Some(protocol) = protocol {
                put("x-stream-protocol-version", protocol);
            }
            put("upgrade", "SPDY/3.1");
        }
    }
    let _ = UPGRADE;
    (response, async move { coming.await.ok().map(TokioIo::new) })
}

/// A node that cannot be asked, in the API's words.
fn node_failure(error: &tripod_model::Error) -> Failure {
    model_failure(error)
}
