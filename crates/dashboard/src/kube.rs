//! Changes of Kubernetes objects: requests to the manager's own API, so that its admission and its rules hold for the
//! dashboard as for every client.

use bytes::Bytes;
use http::{Method, Request, Response, header};
use serde_json::Value;
use tripod_model::{Error, ErrorKind, Result};

use crate::call::Ctx;
use crate::object::{Obj, text};

/// Who asks from elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub enum Identity {
    /// By a client certificate (DER), which the listener has verified.
    Certificate(Vec<u8>),
    /// By a bearer token.
    Token(String),
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Certificate(_) => "Certificate(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

/// The Kubernetes API of this manager, called from within by its administrator.
#[async_trait::async_trait]
pub trait KubeApi: Send + Sync {
    /// Answers one request.
    ///
    /// # Errors
    /// When the API cannot be asked; what it refuses is a response.
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>>;

    /// Whether somebody may do everything in the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`] when the identity is none; others when the API cannot be asked.
    async fn may_administer(&self, who: Identity) -> Result<bool>;
}

/// Who made a change, for managed fields.
const MANAGER: &str = "tripod-dashboard";

/// The path of a collection of the API.
pub(crate) fn collection(api_version: &str, resource: &str, namespace: &str) -> String {
    let plural = resource.split('.').next().unwrap_or_default();
    let root = if api_version.contains('/') { "apis" } else { "api" };
    match namespace {
        "" => format!("/{root}/{api_version}/{plural}"),
        namespace => format!("/{root}/{api_version}/namespaces/{}/{plural}", part(namespace)),
    }
}

/// The path of an object.
pub(crate) fn path(object: &Obj) -> String {
    let key = &object.stored.key;
    let collection = collection(object.str("/apiVersion"), key.kind.as_str(), &key.namespace);
    format!("{collection}/{}", part(&key.name))
}

fn part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2D", "-")
        .replace("%2E", ".")
}

/// Asks the API, and turns what it refuses into an error with its words.
pub(crate) async fn ask(
    ctx: &Ctx,
    method: Method,
    path: &str,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Result<Value> {
    let api = ctx
        .kube
        .as_ref()
        .ok_or_else(|| Error::not_implemented("this daemon serves no Kubernetes API"))?;
    let sign = if path.contains('?') { '&' } else { '?' };
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}{sign}fieldManager={MANAGER}"))
        .header(header::CONTENT_TYPE, kind)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, MANAGER)
        .body(body.into())
        .map_err(Error::invalid)?;
    let response = api.call(request).await?;
    let status = response.status();
    let value: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    if status.is_success() {
        return Ok(value);
    }
    let message = match text(&value, "/message") {
        "" => format!("{status} {}", String::from_utf8_lossy(response.body())),
        message => message.to_owned(),
    };
    let kind = match status.as_u16() {
        404 | 410 => ErrorKind::NotFound,
        401 | 403 => ErrorKind::Forbidden,
        409 => ErrorKind::Conflict,
        400 | 405 | 406 | 413 | 415 | 422 => ErrorKind::Invalid,
        429 | 503 | 504 => ErrorKind::Unavailable,
        501 => ErrorKind::NotImplemented,
        _ => ErrorKind::Internal,
    };
    Err(Error::new(kind, message))
}

/// Changes parts of an object.
pub(crate) async fn merge(ctx: &Ctx, object: &Obj, patch: &Value) -> Result<Value> {
    let kind = "application/merge-patch+json";
    ask(ctx, Method::PATCH, &path(object), kind, patch.to_string()).await
}

/// Replaces parts of an object.
pub(crate) async fn json_patch(ctx: &Ctx, object: &Obj, patch: &Value) -> Result<Value> {
    let kind = "application/json-patch+json";
    ask(ctx, Method::PATCH, &path(object), kind, patch.to_string()).await
}

/// Deletes an object; what it owns goes after it.
pub(crate) async fn delete(ctx: &Ctx, object: &Obj) -> Result<()> {
    let options = serde_json::json!({
        "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background",
        "preconditions": {"uid": object.str("/metadata/uid")},
    });
    ask(
        ctx,
        Method::DELETE,
        &path(object),
        "application/json",
        options.to_string(),
    )
    .await
    .map(drop)
}
