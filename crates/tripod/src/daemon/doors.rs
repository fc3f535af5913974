//! The front doors: listeners bound, the Docker API behind them.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tripod_api_docker::{Docker, Identity};
use tripod_edge::{Address, Listener, Options, TlsFiles, server_config};
use tripod_model::{Error, Result};

use super::Node;
use crate::cli::DaemonArgs;

/// Where the Docker API is served when nothing is said.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Binds every address of the command line.
pub(super) async fn bind(args: &DaemonArgs) -> Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let default = [DEFAULT_HOST.to_owned()];
    let hosts = if args.hosts.is_empty() {
        &default[..]
    } else {
        &args.hosts[..]
    };
    for host in hosts {
        let address: Address = host
            .parse()
            .map_err(|e| Error::invalid(format_args!("--host {host}: {e}")))?;
        let tls = match &address {
            Address::Tcp { .. } if args.tls || args.tlsverify => {
                let files = TlsFiles {
                    certificate: args.tlscert.clone(),
                    key: args.tlskey.clone(),
                    client_authority: args.tlsverify.then(|| args.tlscacert.clone()),
                };
                Some(server_config(&files, false).map_err(|e| Error::invalid(format_args!("TLS: {e}")))?)
            }
            Address::Tcp { .. } => {
                tracing::warn!(
                    "{host}: everybody who can reach this address is root on this machine; see --tlsverify"
                );
                None
            }
            _ => None,
        };
        let listener = Listener::bind(&address, tls)
            .await
            .map_err(|e| Error::internal(format_args!("cannot listen on {host}: {e}")))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Serves until `stop` is cancelled; the handle ends when all connections have.
pub(super) fn serve(
    listeners: Vec<Listener>,
    args: &DaemonArgs,
    root: &Path,
    node: &Node,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let identity = Identity {
        version: env!("CARGO_PKG_VERSION").into(),
        commit: option_env!("TRIPOD_COMMIT").unwrap_or_default().into(),
        build_time: option_env!("TRIPOD_BUILD_TIME").unwrap_or_default().into(),
        id: identity_of(root),
        root: root.to_string_lossy().into_owned(),
        labels: args.labels.clone(),
    };
    let docker = Arc::new(Docker::new(node.agent.clone(), node.engine.clone(), identity));
    tokio::spawn(async move {
        let mut served = tokio::task::JoinSet::new();
        for listener in listeners {
            served.spawn(tripod_edge::serve(
                listener,
                docker.clone(),
                Options::default(),
                stop.clone(),
            ));
        }
        served.join_all().await;
    })
}

/// Serves the Kubernetes API while this node is a manager, until `stop` is cancelled.
pub(super) fn serve_kube(
    args: &DaemonArgs,
    root: &Path,
    node: &Node,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let mut names = vec![tripod_agent::host::HostFacts::read().hostname];
    names.extend(args.advertise_addr.map(|a| a.to_string()));
    let options = tripod_api_kube::Options {
        listen: args.kube_listen.clone(),
        data_root: root.to_owned(),
        names,
        about: about(args),
    };
    tokio::spawn(tripod_api_kube::serve(node.engine.clone(), options, stop))
}

/// What the Kubernetes API says of itself.
fn about(args: &DaemonArgs) -> tripod_api_kube::About {
    let mut about = tripod_api_kube::About::default();
    if let Some(version) = &args.kubernetes_version {
        about.version.clone_from(version);
    }
    about.feature_gates.extend(args.feature_gates.iter().cloned());
    about
}

/// The daemon's identifier, made once and kept.
fn identity_of(root: &Path) -> String {
    let path = root.join("engine-id");
    if let Ok(id) = std::fs::read_to_string(&path) {
        return id.trim().to_owned();
    }
    let id = tripod_agent::new_id();
    if let Err(e) = std::fs::write(&path, &id) {
        tracing::warn!("{}: {e}", path.display());
    }
    id
}
