//! The registry of this node's images: where the command line says, and where the owner of its socket says later.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::StatusCode;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tripod_agent::Agent;
use tripod_edge::{Address, Handler, Listener, Options, Peer, Request, Response, full};
use tripod_model::{Error, Result};
use tripod_net::outer::Outer;
use tripod_registry::Registry;

use super::Node;
use crate::cli::DaemonArgs;

/// Binds the socket by which the registry is opened and closed, when one is asked for.
pub(super) async fn bind(args: &DaemonArgs) -> Result<Option<Listener>> {
    let Some(path) = &args.registry_socket else {
        return Ok(None);
    };
    let listener = Listener::bind(&Address::Unix(path.clone()), None).await;
    listener
        .map(Some)
        .map_err(|e| Error::internal(format_args!("--registry-socket {}: {e}", path.display())))
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// The address of the command line cannot be listened on.
pub(super) async fn serve(
    socket: Option<Listener>,
    args: &DaemonArgs,
    root: &Path,
    node: &Node,
    stop: CancellationToken,
) -> Result<JoinHandle<()>> {
    let switch = Switch(Arc::new(Inner {
        agent: node.agent.clone(),
        root: root.join("registry"),
        outer: args.outer_netns.clone(),
        stop: stop.clone(),
        open: Mutex::default(),
    }));
    if let Some(at) = args.registry_listen {
        switch.open(at).await?;
    }
    Ok(tokio::spawn(async move {
        match socket {
            Some(socket) => {
                tripod_edge::serve(socket, Arc::new(switch.clone()), Options::default(), stop).await;
            }
            None => stop.cancelled().await,
        }
        switch.close().await;
    }))
}

/// Opens and closes the registry: `PUT /?IP:PORT`, `DELETE /`.
#[derive(Clone)]
struct Switch(Arc<Inner>);

struct Inner {
    agent: Agent,
    root: PathBuf,
    /// Network namespace of the machine around this node.
    outer: Option<PathBuf>,
    stop: CancellationToken,
    open: Mutex<Option<Open>>,
}

/// A registry that is served.
struct Open {
    at: SocketAddr,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Switch {
    async fn open(&self, at: SocketAddr) -> Result<()> {
        let inner = &self.0;
        let mut open = inner.open.lock().await;
        if open.as_ref().is_some_and(|o| o.at == at) {
            return Ok(());
        }
        let busy =
            |e: std::io::Error| Error::conflict(format_args!("the registry cannot listen on {at}: {e}"));
        let own = std::net::TcpListener::bind(at).map_err(busy)?;
        own.set_nonblocking(true)?;
        let mut listeners = vec![Listener::of(own, None)?];
        if let Some(path) = &inner.outer {
            let machine = Outer::open(path, at.ip())?;
            listeners.push(Listener::of(machine.listen(at).map_err(busy)?, None)?);
        }
        // Clients of other addresses than this machine's loopback name it by that address.
        let domain = match at.ip().is_loopback() || at.ip().is_unspecified() {
            true => format!("localhost:{}", at.port()),
            false => at.to_string(),
        };
        let (images, root) = (inner.agent.images().clone(), inner.root.clone());
        let opened = tokio::task::spawn_blocking(move || Registry::open(images, &root, &domain));
        let registry = Arc::new(opened.await.map_err(Error::internal)??);
        let stop = inner.stop.child_token();
        let serve = |l| {
            let (registry, stop) = (registry.clone(), stop.clone());
            tokio::spawn(tripod_edge::serve(l, registry, Options::default(), stop))
        };
        let tasks = listeners.into_iter().map(serve).collect();
        let before = open.replace(Open { at, stop, tasks });
        drop(open);
        end(before).await;
        tracing::info!("a registry answers on {at}");
        Ok(())
    }

    async fn close(&self) {
        let before = self.0.open.lock().await.take();
        end(before).await;
    }
}

async fn end(open: Option<Open>) {
    let Some(open) = open else { return };
    open.stop.cancel();
    for task in open.tasks {
        let _ = task.await;
    }
}

impl Handler for Switch {
    async fn handle(&self, request: Request, _peer: Arc<Peer>) -> Response {
        let done = match (request.method().as_str(), request.uri().query().map(str::parse)) {
            ("PUT", Some(Ok(at))) => self.open(at).await,
            ("DELETE", None) => {
                self.close().await;
                Ok(())
            }
            _ => Err(Error::invalid("PUT /?IP:PORT or DELETE /")),
        };
        let (status, text) = match done {
            Ok(()) => (StatusCode::OK, "{}".to_owned()),
            Err(e) => (
                StatusCode::CONFLICT,
                serde_json::json!({ "message": e.to_string() }).to_string(),
            ),
        };
        let mut response = Response::new(full(text));
        *response.status_mut() = status;
        response
    }
}
