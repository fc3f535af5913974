//! A request, taken apart: path, query, what the browser prefers.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use percent_encoding::percent_decode_str;
use tripod_engine::Manager;
use tripod_store::State;

use crate::guard::cookie;
use crate::kube::KubeApi;
use crate::lang::Lang;
use crate::object::Obj;
use crate::readings::Readings;
use crate::status::Known;
use crate::view::Ui;

/// Cookie with the language that was chosen.
pub(crate) const LANG_COOKIE: &str = "tripod_lang";
/// Cookie with the colours that were chosen.
pub(crate) const THEME_COOKIE: &str = "tripod_theme";

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Decoded parts of the path below the base.
    pub(crate) path: Vec<String>,
    /// The path and query as they were sent.
    pub(crate) uri: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) form: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// It is let in by a session.
    pub(crate) session: bool,
}

impl Call {
    /// Takes a request apart; `None` when its path is not below `base`.
    pub(crate) fn new(parts: &http::request::Parts, base: &str) -> Option<Self> {
        let path = parts.uri.path().strip_prefix(base)?;
        if !path.is_empty() && !path.starts_with('/') {
            return None;
        }
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let mut headers = parts.headers.clone();
        // HTTP/2 names the host in the address.
        if let Some(host) = parts.uri.authority().and_then(|a| a.as_str().parse().ok()) {
            headers.entry(header::HOST).or_insert(host);
        }
        Some(Self {
            method: parts.method.clone(),
            path: path.split('/').filter(|p| !p.is_empty()).map(decoded).collect(),
            uri: parts
                .uri
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            query: pairs(parts.uri.query().unwrap_or_default().as_bytes()),
            headers,
            form: Vec::new(),
            body: Bytes::new(),
            session: false,
        })
    }

    /// Takes over what was sent, and the fields of a form.
    pub(crate) fn set_body(&mut self, body: Bytes) {
        if self
            .header(header::CONTENT_TYPE.as_str())
            .starts_with("application/x-www-form-urlencoded")
        {
            self.form = pairs(&body);
        }
        self.body = body;
    }

    /// What shows that a page of this dashboard asks for a change.
    pub(crate) fn token(&self) -> &str {
        [
            self.field("csrf"),
            self.header("x-tripod-csrf"),
            self.query("csrf"),
        ]
        .into_iter()
        .find(|t| !t.is_empty())
        .unwrap_or_default()
    }

    /// A parameter of the query; empty when it is not there.
    pub(crate) fn query(&self, name: &str) -> &str {
        find(&self.query, name)
    }

    /// A field of the form; empty when it is not there.
    pub(crate) fn field(&self, name: &str) -> &str {
        find(&self.form, name)
    }

    /// A header's text; empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    /// The script asks for the changing part of a page only.
    pub(crate) fn wants_fragment(&self) -> bool {
        self.headers.contains_key("x-tripod-fragment")
    }

    /// The language: chosen, else the browser's.
    pub(crate) fn lang(&self) -> Lang {
        match cookie(&self.headers, LANG_COOKIE).as_deref() {
            Some("zh") => Lang::Zh,
            Some("en") => Lang::En,
            _ => Lang::accepted(self.header(header::ACCEPT_LANGUAGE.as_str())),
        }
    }

    /// The colours that were chosen: `light`, `dark`, or empty for those of the system.
    pub(crate) fn theme(&self) -> &'static str {
        match cookie(&self.headers, THEME_COOKIE).as_deref() {
            Some("light") => "light",
            Some("dark") => "dark",
            _ => "",
        }
    }
}

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).into_owned().collect()
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
}

/// What a page is made from: a state of the store, and how it is shown to whom.
pub(crate) struct Ctx {
    pub(crate) state: Arc<State>,
    /// The manager; `None` in tests of rendering.
    pub(crate) manager: Option<Arc<Manager>>,
    /// The Kubernetes API, for changes.
    pub(crate) kube: Option<Arc<dyn KubeApi>>,
    pub(crate) readings: Arc<Readings>,
    pub(crate) known: Arc<Known>,
    /// Swarm tasks by their service's identifier, once they were asked for.
    pub(crate) tasks: OnceLock<HashMap<String, Vec<Obj>>>,
    pub(crate) ui: Ui,
}

impl Ctx {
    /// Text in the language of the page.
    pub(crate) fn t<'a>(&self, english: &'a str) -> &'a str {
        self.ui.t(english)
    }

    /// The namespace that lists are narrowed to.
    pub(crate) fn namespace(&self) -> Option<&str> {
        Some(self.ui.namespace.as_str()).filter(|n| !n.is_empty())
    }
}
