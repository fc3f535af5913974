//! The dashboard on its socket, and its way to the Kubernetes API of this daemon.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tripod_api_kube::{About, Kube};
use tripod_dashboard::{Dashboard, Identity, KubeApi, Options};
use tripod_edge::{Address, Handler, Listener, Peer};
use tripod_engine::Engine;
use tripod_model::{Error, Result};

use super::Node;
use crate::cli::DaemonArgs;

/// Bytes on their way between the dashboard and the API.
const PIPE: usize = 64 << 10;

/// Binds the dashboard's socket, when one is asked for.
pub(super) async fn bind(args: &DaemonArgs) -> Result<Option<Listener>> {
    let Some(path) = &args.dashboard_socket else {
        return Ok(None);
    };
    let listener = Listener::bind(&Address::Unix(path.clone()), None).await;
    listener
        .map(Some)
        .map_err(|e| Error::internal(format_args!("--dashboard-socket {}: {e}", path.display())))
}

/// Serves until `stop` is cancelled.
pub(super) fn serve(listener: Option<Listener>, node: &Node, stop: CancellationToken) -> JoinHandle<()> {
    let kube = Arc::new(InProcess {
        kube: Kube::new(node.engine.clone(), About::default()),
        engine: node.engine.clone(),
    });
    let dashboard = Dashboard::new(node.engine.clone(), Some(kube), Options::default());
    tokio::spawn(async move {
        if let Some(listener) = listener {
            let options = tripod_edge::Options::default();
            tripod_edge::serve(listener, Arc::new(dashboard), options, stop).await;
        }
    })
}

/// How long until a port that was taken is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// Serves by https, for people who log in, whenever this daemon is a manager, until `stop` is cancelled.
pub(super) fn serve_https(args: &DaemonArgs, node: &Node, stop: CancellationToken) -> JoinHandle<()> {
    let (engine, hostname) = (
        node.engine.clone(),
        tripod_agent::host::HostFacts::read().hostname,
    );
    let Some(at) = args.dashboard_listen else {
        return tokio::spawn(async {});
    };
    let kube = Arc::new(InProcess {
        kube: Kube::new(engine.clone(), About::default()),
        engine: engine.clone(),
    });
    let options = Options {
        log_in: true,
        ..Options::default()
    };
    let dashboard = Arc::new(Dashboard::new(engine.clone(), Some(kube), options));
    tokio::spawn(async move {
        let mut standing = engine.watch_membership();
        while !stop.is_cancelled() {
            standing.borrow_and_update();
            let over = stop.child_token();
            let mut wait = None;
            let serving = match listen_https(&engine, at, &hostname).await {
                Ok(Some(listener)) => {
                    let options = tripod_edge::Options::default();
                    Some(tokio::spawn(tripod_edge::serve(
                        listener,
                        dashboard.clone(),
                        options,
                        over.clone(),
                    )))
                }
                Ok(None) => None,
                Err(e) => {
                    tracing::error!("the dashboard is not served on {at}: {e}");
                    wait = Some(RETRY);
                    None
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                changed = standing.changed() => if changed.is_err() { stop.cancelled().await },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
            over.cancel();
            if let Some(serving) = serving {
                // Its end was asked for.
                let _ = serving.await;
            }
        }
    })
}

/// The https listener, on a manager.
async fn listen_https(engine: &Engine, at: std::net::SocketAddr, hostname: &str) -> Result<Option<Listener>> {
    let Ok(manager) = engine.manager() else {
        return Ok(None);
    };
    let names = [hostname, "localhost", "127.0.0.1"].map(str::to_owned);
    let mut names: Vec<String> = names.into_iter().chain([manager.advertised()]).collect();
    names.sort();
    names.dedup();
    let serving = manager.serving_certificate(names)?;
    let tls = tripod_edge::server_config_of(&tripod_edge::TlsPem {
        certificate: serving.cert,
        key: serving.key,
        client_authority: manager.authority_certificate()?,
    })?;
    let address = Address::Tcp {
        host: at.ip().to_string(),
        port: at.port(),
    };
    Ok(Some(Listener::bind(&address, Some(tls)).await?))
}

/// The Kubernetes API in this process, asked by its administrator.
struct InProcess {
    kube: Kube,
    engine: Engine,
}

impl InProcess {
    /// The administrator, as a connection with his certificate would show him.
    fn administrator(&self) -> Result<Peer> {
        let certificate = self
            .engine
            .manager()?
            .user_certificate("kubernetes-admin", &["system:masters"])?;
        let text: String = certificate
            .cert
            .lines()
            .filter(|l| !l.starts_with("-----"))
            .collect();
        let der = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(Error::internal)?;
        Ok(Peer {
            certificate: Some(der),
            tls: true,
            ..Peer::default()
        })
    }
}

#[async_trait]
impl KubeApi for InProcess {
    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>> {
        let peer = Arc::new(self.administrator()?);
        ask(self.kube.clone(), peer, request).await
    }

    async fn may_administer(&self, who: Identity) -> Result<bool> {
        let mut peer = Peer {
            tls: true,
            ..Peer::default()
        };
        let review = serde_json::json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "*", "group": "*", "resource": "*"}},
        });
        let mut request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header(http::header::HOST, "localhost")
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json");
        match who {
            Identity::Certificate(der) => peer.certificate = Some(der),
            Identity::Token(token) => {
                request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
            }
        }
        let request = request
            .body(Bytes::from(review.to_string()))
            .map_err(Error::invalid)?;
        let answer = ask(self.kube.clone(), Arc::new(peer), request).await?;
        match answer.status() {
            http::StatusCode::UNAUTHORIZED => Err(Error::new(
                tripod_model::ErrorKind::Unauthorized,
                "the identity is not known",
            )),
            status if status.is_success() => {
                let value: serde_json::Value =
                    serde_json::from_slice(answer.body()).map_err(Error::internal)?;
                Ok(value["status"]["allowed"] == true)
            }
            // Nobody without a name is asked about further.
            http::StatusCode::FORBIDDEN => Ok(false),
            status => Err(Error::unavailable(format_args!("the API answers {status}"))),
        }
    }
}

/// One request to a front door over a pipe: it takes requests as a connection brings them. Boxed, as the compiler cannot
/// see through the handler's future where its type is known.
fn ask<H: Handler + Clone>(
    handler: H,
    peer: Arc<Peer>,
    request: http::Request<Bytes>,
) -> BoxFuture<'static, Result<http::Response<Bytes>>> {
    Box::pin(async move {
        let (near, far) = tokio::io::duplex(PIPE);
        let service = service_fn(move |request| {
            let (handler, peer) = (handler.clone(), peer.clone());
            let answer: BoxFuture<'static, Result<_, std::convert::Infallible>> = Box::pin(async move {
                let answer = handler.handle(request, peer).await;
                // An error of a type without lifetimes, for the same reason.
                Ok(answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
            });
            answer
        });
        let server = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
            .await
            .map_err(Error::internal)?;
        let asked = async move {
            let answer = sender
                .send_request(request.map(Full::new))
                .await
                .map_err(Error::internal)?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(Error::internal)?.to_bytes();
            Ok(http::Response::from_parts(head, body))
        };
        // Both ends are driven here: when the caller goes away, so does the request.
        tokio::select! {
            answer = asked => answer,
            _ = async { tokio::join!(server, connection) } => {
                Err(Error::internal("the Kubernetes API closed the connection"))
            }
        }
    })
}
