//! The dashboard: a web page that shows what runs and why not, rendered by the daemon.
//!
//! A request passes [`Handler::handle`], which guards (host, session, CSRF) and finds the page by its path. A page is a
//! function from the store's state to a [`view::Page`]; one template renders all of them, so that everything can be
//! read without script. The script adds what is live: it follows `/live` and takes over what changed.

mod act;
mod call;
mod columns;
mod guard;
mod kinds;
mod kube;
mod lang;
mod live;
mod manifest;
mod object;
mod pages;
mod readings;
mod reply;
mod router;
mod session;
mod status;
mod streams;
mod view;
mod words;

use std::sync::Arc;

use tripod_edge::{Handler, Peer, Request, Response};
use tripod_engine::Engine;

pub use kube::{Identity, KubeApi};

/// How the dashboard is reached.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What stands before every path, without a slash at its end (`/dashboard`); empty where the dashboard has a
    /// listener of its own.
    pub base: String,
    /// Name of the cluster, for the title; empty leaves it out.
    pub cluster: String,
    /// Whoever reaches it must log in; it is reached by https.
    pub log_in: bool,
}

/// The dashboard over one daemon; cheap to clone. Without [`Options::log_in`] whoever
/// reaches it is the administrator: then it belongs on a unix socket.
#[derive(Clone)]
pub struct Dashboard(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) kube: Option<Arc<dyn KubeApi>>,
    pub(crate) options: Options,
    pub(crate) guard: guard::Guard,
    pub(crate) sessions: session::Sessions,
    pub(crate) readings: Arc<readings::Readings>,
    pub(crate) terminals: Arc<streams::Terminals>,
    pub(crate) known: Arc<status::Known>,
}

impl Dashboard {
    /// The dashboard of this daemon; without the Kubernetes API its objects cannot be changed.
    pub fn new(engine: Engine, kube: Option<Arc<dyn KubeApi>>, options: Options) -> Self {
        Self(Arc::new(Inner {
            engine,
            kube,
            guard: guard::Guard::new(options.log_in),
            options,
            sessions: session::Sessions::default(),
            readings: Arc::default(),
            terminals: Arc::default(),
            known: Arc::default(),
        }))
    }
}

impl std::fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dashboard({:?})", self.0.options)
    }
}

impl Handler for Dashboard {
    async fn handle(&self, request: Request, peer: Arc<Peer>) -> Response {
        router::handle(&self.0, request, &peer).await
    }
}
