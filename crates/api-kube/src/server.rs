//! The server: listens while this daemon is a manager, and tells administrators how to get in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_util::sync::CancellationToken;
use tripod_edge::{Address, Handler, Listener, Peer, Request, Response, TlsPem};
use tripod_engine::{Engine, Manager, Membership};
use tripod_model::{Error, Result};

use crate::authn::MASTERS;
use crate::router;
use crate::token::{Issuer, Signer};

/// The port of the Kubernetes API.
pub(crate) const PORT: u16 = 6443;
/// How long until a port that was taken is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Where the administrator's access is written, below the daemon's data.
const KUBECONFIG: &str = "kube/admin.conf";

/// How the Kubernetes API is served.
#[derive(Debug, Clone)]
pub struct Options {
    /// `IP:PORT`; port 0 takes a free one.
    pub listen: String,
    /// The daemon's data.
    pub data_root: PathBuf,
    /// Further names and addresses under which the server is reached.
    pub names: Vec<String>,
    /// What the server says of itself.
    pub about: About,
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Reported version, `v1.36.0`: that of the API served unless another was asked for.
    pub version: String,
    /// Feature gates that the command line set.
    pub feature_gates: BTreeMap<String, bool>,
}

impl Default for About {
    fn default() -> Self {
        Self {
            version: crate::KUBERNETES_VERSION.to_owned(),
            feature_gates: BTreeMap::new(),
        }
    }
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) rules: crate::rbac::Cache,
    pub(crate) counters: crate::counters::Counters,
    pub(crate) turns: crate::turns::Turns,
    /// The cluster and its key of tokens.
    signer: Mutex<Option<(String, Arc<Signer>)>>,
    port: AtomicU16,
    bootstrapped: AtomicBool,
    about: About,
}

impl Shared {
    /// What the server says of itself.
    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// The key of tokens, if it was read.
    pub(crate) fn signer(&self, cluster: &str) -> Option<Arc<Signer>> {
        let held = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()
            .filter(|(c, _)| c == cluster)
            .map(|(_, s)| s.clone())
    }

    pub(crate) fn set_signer(&self, cluster: &str, signer: Arc<Signer>) {
        *self.signer.lock().unwrap_or_else(PoisonError::into_inner) = Some((cluster.to_owned(), signer));
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// Whether what a new cluster starts with is there.
    pub(crate) fn bootstrapped(&self) -> bool {
        self.bootstrapped.load(Ordering::Relaxed)
    }
}

/// The Kubernetes API as a front door.
#[derive(Debug, Clone)]
pub struct Kube(Arc<Shared>);

impl Kube {
    /// Over a daemon's part in a cluster.
    pub fn new(engine: Engine, about: About) -> Self {
        Self(Arc::new(Shared {
            engine,
            rules: crate::rbac::Cache::default(),
            counters: crate::counters::Counters::default(),
            turns: crate::turns::Turns::default(),
            signer: Mutex::default(),
            port: AtomicU16::new(PORT),
            bootstrapped: AtomicBool::new(false),
            about,
        }))
    }
}

impl Handler for Kube {
    async fn handle(&self, request: Request, peer: Arc<Peer>) -> Response {
        router::answer(self.0.clone(), request, peer).await
    }
}

/// Serves whenever this daemon is a manager, until `stop` is cancelled.
pub async fn serve(engine: Engine, options: Options, stop: CancellationToken) {
    let kube = Kube::new(engine.clone(), options.about.clone());
    let mut standing = engine.watch_membership();
    loop {
        let now = *standing.borrow_and_update();
        let over = stop.child_token();
        let serving = match (now, engine.manager()) {
            (Membership::Active, Ok(manager)) => {
                let (kube, options, over) = (kube.clone(), options.clone(), over.clone());
                Some(tokio::spawn(serve_manager(kube, manager, options, over)))
            }
            (Membership::Inactive, _) => {
                forget(&options.data_root);
                None
            }
            _ => None,
        };
        let ending = tokio::select! {
            () = stop.cancelled() => true,
            changed = standing.changed() => changed.is_err(),
        };
        over.cancel();
        if let Some(serving) = serving {
            // Its end was asked for.
            let _ = serving.await;
        }
        if ending {
            return;
        }
    }
}

async fn serve_manager(kube: Kube, manager: Arc<Manager>, options: Options, over: CancellationToken) {
    manager.set_token_issuer(Arc::new(Issuer {
        shared: kube.0.clone(),
        manager: Arc::downgrade(&manager),
    }));
    let beginning = tokio::spawn(begin(kube.0.clone(), manager.clone(), over.clone()));
    let leases = tokio::spawn(crate::leases::keep(manager.clone(), over.clone()));
    serve_listener(kube, manager, options, over).await;
    // Its end was asked for, or it is done.
    beginning.abort();
    leases.abort();
}

/// Makes what a cluster starts with; tried again while nobody leads.
async fn begin(shared: Arc<Shared>, manager: Arc<Manager>, over: CancellationToken) {
    loop {
        let done = async {
            crate::bootstrap::ensure(&manager).await?;
            crate::token::signer(&shared, &manager).await
        };
        match done.await {
            Ok(_) => {
                shared.bootstrapped.store(true, Ordering::Relaxed);
                return;
            }
            Err(e) => tracing::warn!("the roles of a new cluster are not there yet: {e}"),
        }
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn serve_listener(kube: Kube, manager: Arc<Manager>, options: Options, over: CancellationToken) {
    loop {
        match listen(&kube, &manager, &options).await {
            Ok(listener) => {
                let handler = Arc::new(kube);
                return tripod_edge::serve(listener, handler, tripod_edge::Options::default(), over).await;
            }
            Err(e) => tracing::error!("the Kubernetes API is not served on {}: {e}", options.listen),
        }
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn listen(kube: &Kube, manager: &Manager, options: &Options) -> Result<Listener> {
    let address = format!("tcp://{}", options.listen);
    let address: Address = address
        .parse()
        .map_err(|e| Error::invalid(format_args!("--kube-listen {}: {e}", options.listen)))?;
    let authority = manager.authority_certificate()?;
    let serving = manager.serving_certificate(names(manager, options))?;
    let tls = tripod_edge::server_config_of(&TlsPem {
        certificate: serving.cert,
        key: serving.key,
        client_authority: authority.clone(),
    })?;
    let listener = Listener::bind(&address, Some(tls)).await?;
    let port = listener.local_addr().map_or(PORT, |a| a.port());
    kube.0.port.store(port, Ordering::Relaxed);
    let admin = manager.user_certificate("kubernetes-admin", &[MASTERS])?;
    let host = manager.advertised();
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let text = config(
        &format!("https://{host}:{port}"),
        &authority,
        &admin.cert,
        &admin.key,
    );
    write_private(&options.data_root.join(KUBECONFIG), text.as_bytes())?;
    Ok(listener)
}

/// The names under which the server is reached.
fn names(manager: &Manager, options: &Options) -> Vec<String> {
    let mut names: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
    ]
    .map(str::to_owned)
    .into();
    names.push(manager.advertised());
    names.extend(options.names.iter().cloned());
    names.sort();
    names.dedup();
    names
}

fn config(server: &str, authority: &str, cert: &str, key: &str) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: tripod\n\
         \x20 cluster:\n\
         \x20   certificate-authority-data: {}\n\
         \x20   server: {server}\n\
         contexts:\n\
         - name: tripod\n\
         \x20 context:\n\
         \x20   cluster: tripod\n\
         \x20   user: tripod\n\
         current-context: tripod\n\
         preferences: {{}}\n\
         users:\n\
         - name: tripod\n\
         \x20 user:\n\
         \x20   client-certificate-data: {}\n\
         \x20   client-key-data: {}\n",
        encode(authority),
        encode(cert),
        encode(key)
    )
}

/// The administrator's configuration of clients, as the daemon of this data wrote it.
///
/// # Errors
/// [`tripod_model::ErrorKind::NotFound`] where no manager has served yet.
pub fn kubeconfig(data_root: &Path) -> Result<String> {
    let path = data_root.join(KUBECONFIG);
    std::fs::read_to_string(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::not_found(format_args!(
            "the daemon of {} serves no Kubernetes API: it is not running, or not a manager of a cluster (try \
             \"docker swarm init\")",
            data_root.display()
        )),
        _ => Error::internal(format_args!("{}: {e}", path.display())),
    })
}

fn forget(data_root: &Path) {
    match std::fs::remove_file(data_root.join(KUBECONFIG)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("the access of a cluster that was left cannot be removed: {e}");
        }
        _ => {}
    }
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    let new = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(std::fs::rename(&new, path)?)
}
