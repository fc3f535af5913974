//! From a request to its answer.

use std::sync::Arc;

use http::header::HeaderValue;
use percent_encoding::percent_decode_str;
use tripod_edge::{Peer, Request, Response};
use tripod_schema::Failure;
use tripod_schema::failure::Result;

use crate::authn::{self, User};
use crate::authz::{self, Attributes};
use crate::call::Call;
use crate::negotiate::accept;
use crate::reply::{self, Reply};
use crate::server::Shared;
use crate::target::{Target, target, verb};
use crate::{discovery, health, metrics, objects};

/// Answers a request.
pub(crate) async fn answer(shared: Arc<Shared>, request: Request, peer: Arc<Peer>) -> Response {
    let manager = match shared.engine.manager() {
        Ok(manager) => manager,
        Err(e) => return reply::failure(&Failure::unavailable(e)),
    };
    let mut call = Call::new(shared, manager, request, peer);
    let outcome = route(&mut call).await;
    let mut response = match outcome {
        Ok(response) => response,
        Err(failure) => reply::failure(&failure),
    };
    for text in call.warnings() {
        let text = text
            .replace(['\n', '\r'], " ")
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append("warning", value);
        }
    }
    let id = call
        .header("audit-id")
        .map_or_else(objects::new_uid, str::to_owned);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("audit-id", value);
    }
    response
}

async fn route(call: &mut Call) -> Reply {
    let path = call.path.clone();
    let decoded: Vec<String> = path
        .split('/')
        .filter(|s| !s.is_empty())
        .map(|s| percent_decode_str(s).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
    call.user = authenticate(call).await?;
    match target(&segments, &path)? {
        Some(target) => {
            let watching = target.watch
                || (call.is_watch()
                    && target.sub.is_none()
                    && (target.name.is_empty() || call.method == "GET"));
            let verb = verb(&call.method, &target, watching && target.sub.is_none());
            authorize(call, &target, verb)?;
            call.accept = accept(call.header("accept"), !target.kind.schema.is_empty())?;
            resource(call, target, verb).await
        }
        None => {
            authorize_path(call, &path)?;
            other(call, &segments).await
        }
    }
}

/// Who asks.
async fn authenticate(call: &Call) -> Result<User> {
    if authn::bearer(call.header("authorization")).is_some() {
        return Err(authn::unauthorized());
    }
    Ok(authn::of_certificate(&call.peer)?.unwrap_or_else(User::anonymous))
}

fn authorize(call: &Call, target: &Target, verb: &str) -> Result<()> {
    let resource = match target.sub {
        Some(sub) => format!("{}/{}", target.kind.plural, sub.name),
        None => target.kind.plural.to_owned(),
    };
    let asked = Attributes {
        verb: verb.to_owned(),
        group: target.kind.group.to_owned(),
        resource,
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        path: String::new(),
    };
    if authz::allowed(&call.user, &asked) {
        return Ok(());
    }
    Err(authz::refusal(&call.user, &asked))
}

fn authorize_path(call: &Call, path: &str) -> Result<()> {
    let asked = Attributes {
        verb: call.method.as_str().to_lowercase(),
        path: path.to_owned(),
        ..Attributes::default()
    };
    if authz::allowed(&call.user, &asked) {
        return Ok(());
    }
    Err(authz::refusal(&call.user, &asked))
}

/// An operation on a kind.
async fn resource(call: &Call, target: Target, verb: &'static str) -> Reply {
    if verb.is_empty() {
        return Err(Failure::method_not_allowed(target.kind, call.method.as_str()));
    }
    match target.sub {
        None => {
            let collection = target.name.is_empty();
            let fits = match verb {
                "create" => collection,
                "update" | "patch" | "delete" | "get" => !collection,
                _ => true,
            };
            if !fits || !target.kind.can(verb) {
                return Err(not_allowed());
            }
            if target.kind.namespaced && target.namespace.is_empty() && !matches!(verb, "list" | "watch") {
                return Err(not_allowed());
            }
            objects::serve(call, &target, verb).await
        }
        Some(sub) if sub.verbs.contains(&verb) && matches!(sub.name, "status" | "finalize") => {
            objects::serve(call, &target, verb).await
        }
        Some(_) => Err(not_allowed()),
    }
}

fn not_allowed() -> Failure {
    Failure::new(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
}

/// What is no kind: discovery, health, the root.
async fn other(call: &mut Call, segments: &[&str]) -> Reply {
    let reads = call.method == "GET" || call.method == "HEAD";
    match segments {
        _ if !reads => Err(not_allowed()),
        [] => Ok(reply::json(&discovery::paths())),
        ["version"] => health::version(call),
        ["metrics"] => metrics::serve(call),
        ["healthz" | "livez" | "readyz", ..] => health::health(call, segments),
        ["api" | "apis", ..] => {
            call.accept = accept(call.header("accept"), false)?;
            discovery::serve(call, segments).unwrap_or_else(|| Err(Failure::no_page()))
        }
        _ => Err(Failure::no_page()),
    }
}
