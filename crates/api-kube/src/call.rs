//! One request on its way through the API.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Method};
use hyper::body::Incoming;
use tripod_edge::{Peer, Request};
use tripod_engine::Manager;
use tripod_model::Time;

use crate::authn::User;
use crate::negotiate::Accept;
use crate::query::Query;
use crate::server::Shared;

/// A request with what is known about it.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) manager: Arc<Manager>,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) peer: Arc<Peer>,
    pub(crate) user: User,
    pub(crate) accept: Accept,
    /// The head, for an upgrade.
    pub(crate) head: Mutex<http::Request<()>>,
    body: Mutex<Option<Incoming>>,
    warnings: Mutex<Vec<String>>,
}

impl Call {
    pub(crate) fn new(shared: Arc<Shared>, manager: Arc<Manager>, request: Request, peer: Arc<Peer>) -> Self {
        let (mut head, body) = request.into_parts();
        let headers = std::mem::take(&mut head.headers);
        Self {
            shared,
            manager,
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            query: Query::parse(head.uri.query().unwrap_or_default()),
            headers,
            peer,
            user: User::anonymous(),
            accept: Accept::JSON,
            head: Mutex::new(http::Request::from_parts(head, ())),
            body: Mutex::new(Some(body)),
            warnings: Mutex::default(),
        }
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body; once.
    pub(crate) fn take_body(&self) -> Option<Incoming> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Adds a text that the client shows to its user.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.into();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The warnings so far.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether a watch is asked for.
    pub(crate) fn is_watch(&self) -> bool {
        self.query.flag("watch")
    }

    /// Whether nothing is to be written.
    pub(crate) fn dry_run(&self) -> bool {
        self.query.get("dryRun").is_some_and(|v| !v.is_empty())
    }

    /// Who writes, for managed fields: what the client says, else the first word of its name.
    pub(crate) fn field_manager(&self) -> String {
        match self.query.get("fieldManager") {
            Some(manager) if !manager.is_empty() => manager.to_owned(),
            _ => {
                let agent = self.header("user-agent").unwrap_or_default();
                let word = agent.split('/').next().unwrap_or_default();
                let word: String = word.chars().filter(|c| !c.is_control()).take(128).collect();
                if word.is_empty() { "unknown".into() } else { word }
            }
        }
    }

    /// Now.
    pub(crate) fn now(&self) -> Time {
        Time::now()
    }
}
