//! From the path of a request to its handler: version prefix, then the first word, then the module of that kind.

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue, SERVER};
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use tripod_edge::{Peer, Request, Response};

use crate::call::{Call, Version};
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::{Docker, containers, disk, events, execs, images, networks, swarm, system, volumes};

/// The newest version of the API that is spoken.
pub(crate) const NEWEST: Version = Version(50);
/// The oldest one.
pub(crate) const OLDEST: Version = Version(24);

/// Answers one request.
pub(crate) async fn handle(docker: &Docker, request: Request, peer: Arc<Peer>) -> Response {
    let began = std::time::Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match answer_whole(docker, request, peer, &path).await {
        Ok(response) => response,
        Err(fault) => {
            let level_is_error = fault.status == StatusCode::INTERNAL_SERVER_ERROR;
            if level_is_error {
                tracing::error!("{method} {path}: {}", fault.message);
            } else {
                tracing::debug!("{method} {path}: {} {}", fault.status.as_u16(), fault.message);
            }
            reply::fault(&fault)
        }
    };
    common_headers(docker, &mut response);
    tracing::trace!(
        "{method} {path} {} {:?}",
        response.status().as_u16(),
        began.elapsed()
    );
    response
}

/// Answers; a change that was begun is brought to its end even if the client leaves meanwhile (then the connection's
/// future is dropped).
async fn answer_whole(docker: &Docker, request: Request, peer: Arc<Peer>, path: &str) -> Reply {
    let changes = matches!(*request.method(), Method::POST | Method::PUT | Method::DELETE);
    if !changes || path.ends_with("/wait") {
        return answer(docker, request, peer, path).await;
    }
    let (docker, path) = (docker.clone(), path.to_owned());
    let whole = tokio::spawn(async move { answer(&docker, request, peer, &path).await });
    whole
        .await
        .unwrap_or_else(|e| Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, e)))
}

/// The headers of every response.
fn common_headers(docker: &Docker, response: &mut Response) {
    const API_VERSION: HeaderName = HeaderName::from_static("api-version");
    const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");
    const OS: HeaderName = HeaderName::from_static("ostype");
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("1.50"));
    headers.insert(EXPERIMENTAL, HeaderValue::from_static("false"));
    headers.insert(OS, HeaderValue::from_static("linux"));
    let server = format!("Docker/{} (linux)", docker.identity().version);
    if let Ok(server) = HeaderValue::from_str(&server) {
        headers.insert(SERVER, server);
    }
}

async fn answer(docker: &Docker, request: Request, peer: Arc<Peer>, path: &str) -> Reply {
    let path = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| Fault::page_not_found())?;
    let (version, path) = version(&path)?;
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let call = Call::new(request, version, peer);
    let unread = call.unread();
    let reply = dispatch(docker, call, &parts).await;
    if let Some(unread) = unread {
        unread.drain().await;
    }
    reply
}

/// Splits off `/v1.N` and checks it; without it the newest version is meant.
fn version(path: &str) -> Result<(Version, &str), Fault> {
    let Some(rest) = path.strip_prefix("/v") else {
        return Ok((NEWEST, path));
    };
    let (text, after) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let numbers = text.split_once('.').and_then(|(major, minor)| {
        let all_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        (all_digits(major) && all_digits(minor)).then(|| (major.parse::<u16>(), minor.parse::<u16>()))
    });
    let Some((Ok(major), Ok(minor))) = numbers else {
        return Ok((NEWEST, path));
    };
    if (major, minor) > (1, NEWEST.0) {
        return Err(Fault::bad(format_args!(
            "client version {text} is too new. Maximum supported API version is 1.{}",
            NEWEST.0
        )));
    }
    if (major, minor) < (1, OLDEST.0) {
        return Err(Fault::bad(format_args!(
            "client version {text} is too old. Minimum supported API version is 1.{}, please upgrade your client to \
             a newer version",
            OLDEST.0
        )));
    }
    Ok((Version(minor), after))
}

async fn dispatch(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    match (call.method.as_str(), parts) {
        ("GET" | "HEAD", ["_ping"]) => system::ping(docker, &call),
        ("GET", ["version"]) => system::version(docker),
        ("GET", ["info"]) => system::info(docker).await,
        ("POST", ["auth"]) => system::auth(docker, call).await,
        ("GET", ["events"]) => events::stream(docker, &call),
        ("GET", ["system", "df"]) => disk::usage(docker, &call).await,
        ("POST", ["commit"]) => containers::commit(docker, call).await,
        (_, ["containers", rest @ ..]) => containers::route(docker, call, rest).await,
        (_, ["exec", rest @ ..]) => execs::route(docker, call, rest).await,
        (_, ["images", rest @ ..]) => images::route(docker, call, rest).await,
        ("GET", ["distribution", name @ .., "json"]) if !name.is_empty() => {
            images::distribution(docker, &call, &name.join("/")).await
        }
        (_, ["networks", rest @ ..]) => networks::route(docker, call, rest).await,
        (_, ["volumes", rest @ ..]) => volumes::route(docker, call, rest).await,
        (
            _,
            [
                "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs" | "tripod",
                ..,
            ],
        ) => swarm::route(docker, call, parts).await,
        (method, parts) => left_out(method, parts),
    }
}

/// What the real API has beyond this: 501 by name; anything else does not exist.
fn left_out(method: &str, parts: &[&str]) -> Reply {
    Err(match (method, parts) {
        // No plugin can be installed, so the list is truly empty.
        ("GET", ["plugins"]) => return reply::json(&[(); 0]),
        ("GET", ["plugins", name, "json"]) => {
            Fault::new(StatusCode::NOT_FOUND, format_args!("plugin \"{name}\" not found"))
        }
        ("POST", ["build"]) => Fault::left_out("build"),
        // Nothing is ever built, so there is nothing to remove: `docker system prune` asks.
        ("POST", ["build", "prune"]) => {
            return reply::json(&serde_json::json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }));
        }
        ("POST", ["build", "cancel"]) => Fault::left_out("build cancel"),
        ("POST", ["session"]) => Fault::left_out("session"),
        ("POST", ["grpc"]) => Fault::left_out("grpc"),
        (m, ["plugins", ..]) if m == Method::GET || m == Method::POST || m == Method::DELETE => {
            Fault::left_out("plugins")
        }
        _ => Fault::page_not_found(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("/v1.41/info").unwrap(), (Version(41), "/info"));
        assert_eq!(version("/info").unwrap(), (NEWEST, "/info"));
        assert_eq!(version("/volumes").unwrap(), (NEWEST, "/volumes"));
        assert_eq!(
            version("/v1.99/info").unwrap_err().message,
            "client version 1.99 is too new. Maximum supported API version is 1.50"
        );
        assert!(
            version("/v1.23/info")
                .unwrap_err()
                .message
                .starts_with("client version 1.23 is too old. Minimum")
        );
        assert_eq!(version("/v2.0/info").unwrap_err().status.as_u16(), 400);
    }

    #[test]
    fn what_is_left_out_says_so() {
        assert_eq!(
            left_out("POST", &["build"]).unwrap_err().message,
            "build is not implemented by Tripod"
        );
        assert_eq!(left_out("GET", &["nope"]).unwrap_err(), Fault::page_not_found());
        assert_eq!(
            left_out("POST", &["plugins", "pull"])
                .unwrap_err()
                .status
                .as_u16(),
            501
        );
    }
}
