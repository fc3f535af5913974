//! A small client of the Docker API on a unix socket, for what the local commands need.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tripod_model::{Error, Result};

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// One request; an error status is an error with the API's message.
async fn call(socket: &Path, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .map_err(|e| Error::unavailable(format_args!("cannot reach {}: {e}", socket.display())))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(Error::internal)?;
    tokio::spawn(connection);
    let bytes = body.map_or_else(Bytes::new, |b| Bytes::from(b.to_string()));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "tripod")
        .header("Content-Type", "application/json")
        .body(Full::new(bytes))
        .map_err(Error::internal)?;
    let response = sender.send_request(request).await.map_err(Error::internal)?;
    let status = response.status();
    let bytes = response
        .into_body()
        .collect()
        .await
        .map_err(Error::internal)?
        .to_bytes();
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if status.is_success() || status.as_u16() == 304 {
        return Ok(value);
    }
    Err(Error::internal(
        value["message"]
            .as_str()
            .unwrap_or("the daemon does not say why")
            .to_owned(),
    ))
}

/// GET of a path.
pub(super) fn get(socket: &Path, path: &str) -> Result<Value> {
    runtime()?.block_on(call(socket, Method::GET, path, None))
}

/// Makes the daemon the manager of a cluster if it is not in one; returns the node's identifier.
pub(super) fn ensure_swarm(socket: &Path) -> Result<String> {
    runtime()?.block_on(async {
        let info = call(socket, Method::GET, "/info", None).await?;
        if info["Swarm"]["LocalNodeState"] == "active" {
            return Ok(info["Swarm"]["NodeID"].as_str().unwrap_or_default().to_owned());
        }
        let request = json!({"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1:2377"});
        let id = call(socket, Method::POST, "/swarm/init", Some(request)).await?;
        Ok(id.as_str().unwrap_or_default().to_owned())
    })
}

/// Takes the daemon out of its cluster and removes containers and networks.
pub(super) fn leave_and_clean(socket: &Path) -> Result<()> {
    runtime()?.block_on(async {
        let info = call(socket, Method::GET, "/info", None).await?;
        if info["Swarm"]["LocalNodeState"] != "inactive" {
            call(socket, Method::POST, "/swarm/leave?force=true", None).await?;
        }
        let containers = call(socket, Method::GET, "/containers/json?all=true", None).await?;
        for c in containers.as_array().into_iter().flatten() {
            let id = c["Id"].as_str().unwrap_or_default();
            call(
                socket,
                Method::DELETE,
                &format!("/containers/{id}?force=true&v=true"),
                None,
            )
            .await?;
        }
        let networks = call(socket, Method::GET, "/networks", None).await?;
        for n in networks.as_array().into_iter().flatten() {
            let name = n["Name"].as_str().unwrap_or_default();
            if !matches!(name, "bridge" | "host" | "none") {
                let id = n["Id"].as_str().unwrap_or_default();
                call(socket, Method::DELETE, &format!("/networks/{id}"), None).await?;
            }
        }
        Ok(())
    })
}
