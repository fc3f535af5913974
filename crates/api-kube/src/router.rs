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
use crate::negotiate::{Shape, accept};
use crate::reply::{self, Reply};
use crate::server::Shared;
use crate::target::{Target, target, verb};
use crate::{discovery, health, metrics, objects, proxy, reviews, streams, subresources};

/// Answers a request.
pub(crate) async fn answer(shared: Arc<Shared>, request: Request, peer: Arc<Peer>) -> Response {
    let manager = match shared.engine.manager() {
        Ok(manager) => manager,
        Err(e) => return reply::failure(&Failure::unavailable(e)),
    };
    let began = std::time::Instant::now();
    let mut call = Call::new(shared, manager, request, peer);
    let mut what = ("", "");
    let outcome = route(&mut call, &mut what).await;
    let mut response = match outcome {
        Ok(response) => response,
        Err(failure) => reply::failure(&failure),
    };
    let code = response.status().as_u16();
    call.shared.counters.note(what.0, what.1, code, began.elapsed());
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

async fn route(call: &mut Call, what: &mut (&'static str, &'static str)) -> Reply {
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
            *what = (verb, target.kind.plural);
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
    let user = match authn::bearer(call.header("authorization")) {
        Some(token) => {
            crate::token::user(&call.shared, &call.manager, token, &[])
                .await?
                .0
        }
        None => authn::of_certificate(&call.peer)?.unwrap_or_else(User::anonymous),
    };
    crate::impersonate::act_as(call, user)
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
    if authz::allowed(&call.shared.rules.rules(&call.manager), &call.user, &asked) {
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
    if authz::allowed(&call.shared.rules.rules(&call.manager), &call.user, &asked) {
        return Ok(());
    }
    Err(authz::refusal(&call.user, &asked))
}

/// An operation on a kind.
async fn resource(call: &Call, target: Target, verb: &'static str) -> Reply {
    if verb.is_empty() {
        return Err(Failure::method_not_allowed(target.kind, call.method.as_str()));
    }
    if target.kind.group == crate::usage::GROUP {
        if !target.kind.can(verb) {
            return Err(not_allowed());
        }
        return crate::usage::serve(call, &target).await;
    }
    match target.sub {
        None if verb == "create" && !target.kind.is_stored() => {
            if call.accept.shape != Shape::Whole {
                // A review has no metadata that could be shown alone, or in a table.
                return Err(Failure::new(
                    406,
                    "NotAcceptable",
                    "only the following media types are accepted: application/json, application/yaml, \
                     application/vnd.kubernetes.protobuf",
                ));
            }
            if target.kind.namespaced && target.namespace.is_empty() || !target.name.is_empty() {
                return Err(not_allowed());
            }
            if target.kind.kind == "Binding" {
                return subresources::bind(call, &target).await;
            }
            reviews::serve(call, &target).await
        }
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
        Some(sub) if !sub.verbs.contains(&verb) => Err(not_allowed()),
        Some(sub) => match sub.name {
            "status" | "finalize" | "approval" | "ephemeralcontainers" | "resize" => {
                objects::serve(call, &target, verb).await
            }
            "scale" => subresources::scale(call, &target, verb).await,
            "binding" => subresources::bind(call, &target).await,
            "eviction" => subresources::evict(call, &target).await,
            "token" => subresources::token(call, &target).await,
            "log" => streams::log(call, &target).await,
            "exec" | "attach" => streams::process(call, &target).await,
            "portforward" => streams::forward(call, &target).await,
            "proxy" if target.kind.plural == "nodes" => crate::kubelet::serve(call, &target).await,
            "proxy" => proxy::serve(call, &target).await,
            _ => Err(not_allowed()),
        },
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
        ["openapi", rest @ ..] => crate::openapi::serve(call, rest),
        [".well-known", "openid-configuration"] => Ok(reply::json(&serde_json::json!({
            "issuer": crate::token::ISSUER,
            "jwks_uri": format!("{}/openid/v1/jwks", crate::token::ISSUER),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }))),
        ["openid", "v1", "jwks"] => {
            let signer = crate::token::signer(&call.shared, &call.manager).await?;
            Ok(reply::bytes(
                http::StatusCode::OK,
                "application/jwk-set+json",
                signer.jwk().to_string(),
            ))
        }
        ["healthz" | "livez" | "readyz", ..] => health::health(call, segments),
        ["api" | "apis", ..] => {
            call.accept = accept(call.header("accept"), false)?;
            discovery::serve(call, segments).unwrap_or_else(|| Err(Failure::no_page()))
        }
        _ => Err(Failure::no_page()),
    }
}
