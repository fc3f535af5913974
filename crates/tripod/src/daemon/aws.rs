//! The AWS door: open while this daemon is a manager, with the settings of its clients written beside the store.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tripod_api_aws::{Aws, Settings};
use tripod_edge::{Address, Listener, Options};
use tripod_engine::{Engine, Manager, Membership};
use tripod_model::{Error, Result};

/// Port of the AWS APIs.
const PORT: u16 = 4566;
/// Region of clients that name none.
const REGION: &str = "us-east-1";
/// How long `aws-env` waits for a cluster that begins.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client must know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// `http://IP:4566`.
    pub endpoint: String,
    /// Access key.
    pub key: String,
    /// Its secret.
    pub secret: String,
    /// Region.
    pub region: String,
}

impl Environment {
    /// The variables of the AWS clients.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", &self.key),
            ("AWS_SECRET_ACCESS_KEY", &self.secret),
            ("AWS_DEFAULT_REGION", &self.region),
        ]
    }
}

fn file(root: &Path) -> PathBuf {
    root.join("swarm").join("aws.json")
}

/// What clients of the cluster whose manager keeps its data in `root` must know.
///
/// # Errors
/// [`tripod_model::ErrorKind::NotFound`] when there is no manager.
pub(crate) fn environment(root: &Path) -> Result<Environment> {
    let path = file(root);
    let begun = Instant::now();
    loop {
        match std::fs::read(&path) {
            Ok(bytes) => return Ok(serde_json::from_slice(&bytes)?),
            // The daemon writes it a moment after the cluster was made.
            Err(_) if root.join("swarm").exists() && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(_) => {
                let text = format!(
                    "{} holds no manager of a cluster (docker swarm init makes one)",
                    root.display()
                );
                return Err(Error::not_found(text));
            }
        }
    }
}

/// Prints them for a shell.
pub(crate) fn print(root: &Path) -> Result<()> {
    for (name, value) in environment(root)?.variables() {
        println!("export {name}={value}");
    }
    Ok(())
}

/// The address at which tasks ask for their metadata and credentials.
const TASK_ENDPOINT: SocketAddr = SocketAddr::new(
    IpAddr::V4(tripod_net::TASK_ENDPOINT.0),
    tripod_net::TASK_ENDPOINT.2,
);

/// Leads the tasks of this node to a manager's AWS door, while the node is in a cluster.
pub(super) fn spawn_task_endpoint(engine: &Engine, stop: CancellationToken) -> JoinHandle<()> {
    let engine = engine.clone();
    tokio::spawn(async move {
        let mut standing = engine.watch_membership();
        let active = standing.wait_for(|m| *m == Membership::Active);
        tokio::select! {
            () = stop.cancelled() => return,
            active = active => if active.is_err() { return },
        }
        let bound = match tripod_net::answer_at(TASK_ENDPOINT.ip()) {
            Ok(()) => tokio::net::TcpListener::bind(TASK_ENDPOINT).await,
            Err(e) => Err(e),
        };
        let listener = match bound {
            Ok(listener) => listener,
            Err(e) => {
                tracing::warn!("tasks of ECS find no metadata at {TASK_ENDPOINT}: {e}");
                return;
            }
        };
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            if let Ok((stream, _)) = accepted {
                let managers = managers(&engine);
                tokio::spawn(relay(stream, managers));
            }
        }
    })
}

/// Where the door may be: at this node, else at the managers that it knows.
fn managers(engine: &Engine) -> Vec<SocketAddr> {
    let info = engine.info();
    let own = info.control_available.then(|| info.node_addr.clone());
    let others = info
        .remote_managers
        .iter()
        .map(|m| m.addr.rsplit_once(':').map_or("", |(ip, _)| ip).to_owned());
    let addresses = own
        .into_iter()
        .chain(others)
        .filter_map(|ip| ip.parse::<IpAddr>().ok());
    addresses.map(|ip| SocketAddr::new(ip, PORT)).collect()
}

async fn relay(mut stream: tokio::net::TcpStream, managers: Vec<SocketAddr>) {
    for address in managers {
        if let Ok(mut door) = tokio::net::TcpStream::connect(address).await {
            // Either side may end it.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut door).await;
            return;
        }
    }
}

/// Opens and closes the door as the daemon's standing changes, until `stop` is cancelled.
pub(super) fn spawn(
    engine: &Engine,
    listen: Option<String>,
    root: &Path,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let (engine, root) = (engine.clone(), root.to_owned());
    tokio::spawn(async move {
        let mut standing = engine.watch_membership();
        loop {
            let now = *standing.borrow_and_update();
            let over = stop.child_token();
            let serving = match (now, engine.manager()) {
                (Membership::Active, Ok(manager)) => {
                    match open(&engine, &manager, listen.as_deref(), &root).await {
                        Ok(listener) => Some(tokio::spawn(tripod_edge::serve(
                            listener,
                            Arc::new(Aws::new(engine.clone(), Settings::default())),
                            Options::default(),
                            over.clone(),
                        ))),
                        Err(e) => {
                            tracing::error!("the AWS APIs are not served: {e}");
                            None
                        }
                    }
                }
                _ => None,
            };
            let ending = tokio::select! {
                () = stop.cancelled() => true,
                changed = standing.changed() => changed.is_err(),
            };
            over.cancel();
            if let Some(serving) = serving {
                // It was told to end, and panics are logged by themselves.
                let _ = serving.await;
            }
            if ending {
                return;
            }
        }
    })
}

async fn open(
    engine: &Engine,
    manager: &Arc<Manager>,
    listen: Option<&str>,
    root: &Path,
) -> Result<Listener> {
    let advertised = engine
        .info()
        .node_addr
        .parse::<IpAddr>()
        .map_err(Error::internal)?;
    let address = match listen {
        None => SocketAddr::new(advertised, PORT),
        Some(text) => address(text, advertised)?,
    };
    let wanted = Address::Tcp {
        host: address.ip().to_string(),
        port: address.port(),
    };
    let listener = Listener::bind(&wanted, None)
        .await
        .map_err(|e| Error::internal(format_args!("cannot listen on {address}: {e}")))?;
    let port = listener.local_addr().map_or(address.port(), |a| a.port());
    let host = if address.ip().is_unspecified() {
        advertised
    } else {
        address.ip()
    };
    let key = manager.aws_first_key().await?;
    let environment = Environment {
        endpoint: format!("http://{}", SocketAddr::new(host, port)),
        key: key.spec.id,
        secret: key.spec.secret,
        region: REGION.into(),
    };
    write(&file(root), &serde_json::to_vec(&environment)?)?;
    tracing::info!("AWS APIs at {}", environment.endpoint);
    Ok(listener)
}

fn address(text: &str, advertised: IpAddr) -> Result<SocketAddr> {
    let bad = || Error::invalid(format_args!("--aws-listen {text}: want IP:PORT or :PORT"));
    match text.strip_prefix(':') {
        Some(port) => Ok(SocketAddr::new(advertised, port.parse().map_err(|_| bad())?)),
        None => text.parse().map_err(|_| bad()),
    }
}

/// Writes a file that only its owner may read.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    std::fs::rename(&temporary, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(address(":80", ip).unwrap().to_string(), "10.0.0.1:80");
        assert_eq!(address("0.0.0.0:81", ip).unwrap().to_string(), "0.0.0.0:81");
        assert!(address("nowhere", ip).is_err());
    }

    #[test]
    fn without_a_cluster_there_is_nothing_to_know() {
        let root = std::env::temp_dir().join("tripod-no-such-root");
        assert!(environment(&root).is_err());
    }
}
