//! A small client of the Docker API on a unix socket, for what the local commands need.

use std::path::Path;

use bytes::Bytes;
use futures::TryStreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tripod_model::{Error, Result};

type Body = BoxBody<Bytes, std::io::Error>;

/// Runs one piece of asynchronous work.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// One request; an error status is an error with the API's message.
async fn send(socket: &Path, method: Method, path: &str, kind: &str, body: Body) -> Result<Bytes> {
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .map_err(|e| Error::unavailable(format_args!("cannot reach {}: {e}", socket.display())))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(Error::internal)?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "tripod")
        .header("Content-Type", kind)
        .body(body)
        .map_err(Error::internal)?;
    let response = sender.send_request(request).await.map_err(Error::internal)?;
    let status = response.status();
    let bytes = response
        .into_body()
        .collect()
        .await
        .map_err(Error::internal)?
        .to_bytes();
    if status.is_success() || status.as_u16() == 304 {
        return Ok(bytes);
    }
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    Err(Error::internal(
        value["message"]
            .as_str()
            .unwrap_or("the daemon does not say why")
            .to_owned(),
    ))
}

async fn call(socket: &Path, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
    let bytes = body.map_or_else(Bytes::new, |b| Bytes::from(b.to_string()));
    let body = Full::new(bytes).map_err(|never| match never {}).boxed();
    let bytes = send(socket, method, path, "application/json", body).await?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

/// GET of a path.
pub(super) fn get(socket: &Path, path: &str) -> Result<Value> {
    block_on(call(socket, Method::GET, path, None))
}

/// POST to a path, without a body.
pub(super) fn post(socket: &Path, path: &str) -> Result<Value> {
    block_on(call(socket, Method::POST, path, None))
}

/// PUT to a path, without a body.
pub(super) fn put(socket: &Path, path: &str) -> Result<Value> {
    block_on(call(socket, Method::PUT, path, None))
}

/// DELETE of a path.
pub(super) fn delete(socket: &Path, path: &str) -> Result<Value> {
    block_on(call(socket, Method::DELETE, path, None))
}

/// Makes the daemon the first manager of a cluster if it is not in one.
pub(super) async fn ensure_swarm(socket: &Path, address: &str) -> Result<()> {
    let info = call(socket, Method::GET, "/info", None).await?;
    if info["Swarm"]["LocalNodeState"] == "active" {
        return Ok(());
    }
    let listen = format!("{address}:2377");
    let request = json!({"ListenAddr": listen, "AdvertiseAddr": listen});
    call(socket, Method::POST, "/swarm/init", Some(request)).await?;
    Ok(())
}

/// The tokens with which workers and managers join.
pub(super) async fn join_tokens(socket: &Path) -> Result<(String, String)> {
    let swarm = call(socket, Method::GET, "/swarm", None).await?;
    let token = |name: &str| {
        swarm["JoinTokens"][name]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::internal("the cluster does not tell its join tokens"))
    };
    Ok((token("Worker")?, token("Manager")?))
}

/// Makes the daemon a member of the cluster of which `first` is a manager, if it is in none.
pub(super) async fn ensure_member(socket: &Path, address: &str, first: &str, token: &str) -> Result<()> {
    let info = call(socket, Method::GET, "/info", None).await?;
    if info["Swarm"]["LocalNodeState"] == "active" {
        return Ok(());
    }
    let own = format!("{address}:2377");
    let request = json!({
        "ListenAddr": own, "AdvertiseAddr": own, "JoinToken": token,
        "RemoteAddrs": [format!("{first}:2377")],
    });
    call(socket, Method::POST, "/swarm/join", Some(request)).await?;
    Ok(())
}

/// Loads an archive of images; returns the names that the daemon tells.
pub(super) async fn load_image(socket: &Path, archive: &Path) -> Result<Vec<String>> {
    let file = tokio::fs::File::open(archive)
        .await
        .map_err(|e| Error::invalid(format_args!("{}: {e}", archive.display())))?;
    let stream = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10).map_ok(Frame::data);
    let body = BoxBody::new(StreamBody::new(stream));
    let bytes = send(
        socket,
        Method::POST,
        "/images/load?quiet=1",
        "application/x-tar",
        body,
    )
    .await?;
    let mut names = Vec::new();
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let value: Value = serde_json::from_slice(line).unwrap_or_default();
        if let Some(error) = value["error"].as_str() {
            return Err(Error::invalid(error));
        }
        if let Some(text) = value["stream"].as_str() {
            names.extend(text.trim().strip_prefix("Loaded image: ").map(str::to_owned));
        }
    }
    Ok(names)
}

/// Freezes all running containers of the node, or lets them go on.
pub(super) async fn freeze(socket: &Path, freeze: bool) -> Result<usize> {
    let (state, verb) = match freeze {
        true => ("running", "pause"),
        false => ("paused", "unpause"),
    };
    let filters = format!("%7B%22status%22%3A%5B%22{state}%22%5D%7D");
    let path = format!("/containers/json?filters={filters}");
    let containers = call(socket, Method::GET, &path, None).await?;
    let mut count = 0;
    for c in containers.as_array().into_iter().flatten() {
        let id = c["Id"].as_str().unwrap_or_default();
        call(socket, Method::POST, &format!("/containers/{id}/{verb}"), None).await?;
        count += 1;
    }
    Ok(count)
}

/// The nodes, as the Docker API tells them.
pub(super) async fn list_nodes(socket: &Path) -> Result<Value> {
    call(socket, Method::GET, "/nodes", None).await
}

/// Has a node pull an image.
pub(super) async fn pull_image(socket: &Path, name: &str) -> Result<()> {
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("fromImage", name)
        .finish();
    let path = format!("/images/create?{query}");
    let empty = Full::new(Bytes::new()).map_err(|never| match never {}).boxed();
    let bytes = send(socket, Method::POST, &path, "application/json", empty).await?;
    let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    for line in lines {
        let value: Value = serde_json::from_slice(line).unwrap_or_default();
        if let Some(error) = value["error"].as_str() {
            return Err(Error::unavailable(error));
        }
    }
    Ok(())
}

/// The node of a host name, as the Docker API tells it.
async fn node_of(socket: &Path, name: &str) -> Result<Option<Value>> {
    let nodes = list_nodes(socket).await?;
    let nodes = nodes.as_array().into_iter().flatten();
    let mut found = nodes.filter(|n| n["Description"]["Hostname"] == name);
    Ok(found.next().cloned())
}

/// Prepares a node to go: it gets no more work, and a manager is made a worker first.
pub(super) async fn forget_node(socket: &Path, name: &str, manager: bool) -> Result<()> {
    let Some(node) = node_of(socket, name).await? else {
        return Ok(());
    };
    let (id, version) = (node["ID"].as_str().unwrap_or_default(), &node["Version"]["Index"]);
    let mut spec = node["Spec"].clone();
    spec["Role"] = "worker".into();
    spec["Availability"] = "drain".into();
    let path = format!("/nodes/{id}/update?version={version}");
    call(socket, Method::POST, &path, Some(spec)).await?;
    if !manager {
        return Ok(());
    }
    let begun = std::time::Instant::now();
    loop {
        let node = node_of(socket, name).await?;
        if node.is_none_or(|n| n["ManagerStatus"].is_null()) {
            return Ok(());
        }
        if begun.elapsed() > std::time::Duration::from_secs(15) {
            return Err(Error::timeout(format_args!(
                "{name} does not cease to be a manager"
            )));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Removes a node from the cluster's list.
pub(super) async fn remove_node(socket: &Path, name: &str) -> Result<()> {
    match node_of(socket, name).await? {
        Some(node) => {
            let id = node["ID"].as_str().unwrap_or_default();
            let path = format!("/nodes/{id}?force=true");
            call(socket, Method::DELETE, &path, None).await.map(drop)
        }
        None => Ok(()),
    }
}

/// An archive of an image.
pub(super) async fn save_image(socket: &Path, name: &str) -> Result<Bytes> {
    let empty = Full::new(Bytes::new()).map_err(|never| match never {}).boxed();
    send(
        socket,
        Method::GET,
        &format!("/images/{name}/get"),
        "application/json",
        empty,
    )
    .await
}

/// Removes an image from a node.
pub(super) async fn remove_image(socket: &Path, name: &str) -> Result<()> {
    call(socket, Method::DELETE, &format!("/images/{name}"), None)
        .await
        .map(drop)
}

/// Hands every connection to the listener on to a unix socket.
pub(super) async fn relay(listener: &tokio::net::TcpListener, socket: &Path) -> Result<()> {
    loop {
        let (mut client, _) = listener.accept().await?;
        let socket = socket.to_owned();
        tokio::spawn(async move {
            // Without a daemon the browser sees a closed connection.
            if let Ok(mut daemon) = tokio::net::UnixStream::connect(&socket).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut daemon).await;
            }
        });
    }
}
