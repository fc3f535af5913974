//! A registry served from the node's image store: the API of the distribution project, version 2.
//!
//! What is pushed becomes an image of the node, under the name by which it was pushed, and is thereby there for every
//! node of the cluster; what the node has under names of this registry can be pulled. What an image store does not keep
//! (indices, images of other platforms, artifacts that are no images) stays on a shelf of the registry's own.

mod blobs;
mod fault;
mod manifests;
mod route;
mod shelf;
mod uploads;

use std::path::Path;
use std::sync::Arc;

use http::{Method, StatusCode, header};
use serde_json::json;
use tripod_agent::ports::Images;
use tripod_edge::{Handler, Peer, Request, Response, empty, full};
use tripod_model::Result;

use fault::Fault;
use route::Route;
use shelf::Shelf;

/// Answers of this crate's parts.
type Answer = std::result::Result<Response, Fault>;

/// The registry of one node; cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) images: Arc<dyn Images>,
    pub(crate) shelf: Shelf,
    /// What stands before a repository in the names of images: `localhost:5000`.
    pub(crate) domain: String,
}

impl Registry {
    /// The registry over an image store, with a directory of its own, whose images are named `DOMAIN/REPOSITORY`.
    /// Removes what interrupted uploads left. Blocks.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(images: Arc<dyn Images>, root: &Path, domain: &str) -> Result<Self> {
        Ok(Self(Arc::new(Inner {
            images,
            shelf: Shelf::open(root)?,
            domain: domain.to_owned(),
        })))
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({})", self.0.domain)
    }
}

impl Handler for Registry {
    async fn handle(&self, request: Request, _peer: Arc<Peer>) -> Response {
        let is_head = request.method() == Method::HEAD;
        let mut response = match answer(&self.0, request).await {
            Ok(response) => response,
            Err(fault) => fault.response(),
        };
        let version = http::HeaderValue::from_static("registry/2.0");
        response
            .headers_mut()
            .insert("docker-distribution-api-version", version);
        if is_head {
            *response.body_mut() = empty();
        }
        response
    }
}

async fn answer(inner: &Arc<Inner>, request: Request) -> Answer {
    let method = request.method().clone();
    let query: Vec<(String, String)> = request
        .uri()
        .query()
        .map(|q| form_urlencoded::parse(q.as_bytes()).into_owned().collect())
        .unwrap_or_default();
    let route = Route::parse(request.uri().path())?;
    let read = matches!(method, Method::GET | Method::HEAD);
    match route {
        Route::Base if read => Ok(reply(StatusCode::OK, "application/json", "{}")),
        Route::Catalog if read => catalog(inner, &query).await,
        Route::Tags(name) if read => tags(inner, &name, &query).await,
        Route::Referrers(name, digest) if read => manifests::referrers(inner, &name, &digest, &query),
        Route::Manifest(name, reference) => match method {
            Method::GET | Method::HEAD => manifests::get(inner, &name, &reference).await,
            Method::PUT => manifests::put(inner, &name, &reference, request).await,
            Method::DELETE => manifests::delete(inner, &name, &reference).await,
            _ => Err(Fault::unsupported()),
        },
        Route::Blob(_, digest) => match method {
            Method::GET | Method::HEAD => {
                blobs::get(inner, &digest, request.headers(), method == Method::HEAD).await
            }
            Method::DELETE => blobs::delete(inner, &digest),
            _ => Err(Fault::unsupported()),
        },
        Route::Uploads(name) if method == Method::POST => uploads::begin(inner, &name, &query, request).await,
        Route::Upload(name, id) => match method {
            Method::GET => uploads::status(inner, &name, &id),
            Method::PATCH => uploads::append(inner, &name, &id, request).await,
            Method::PUT => uploads::finish(inner, &name, &id, &query, request).await,
            Method::DELETE => uploads::cancel(inner, &id),
            _ => Err(Fault::unsupported()),
        },
        _ => Err(Fault::unsupported()),
    }
}

/// The repositories that have something.
async fn catalog(inner: &Inner, query: &[(String, String)]) -> Answer {
    let mut names = inner.shelf.repositories();
    let prefix = format!("{}/", inner.domain);
    for image in inner.images.list().await? {
        let of_ours = image.tags.iter().filter_map(|t| t.strip_prefix(&prefix));
        names.extend(
            of_ours
                .filter_map(|t| t.rsplit_once(':'))
                .map(|(n, _)| n.to_owned()),
        );
    }
    names.sort_unstable();
    names.dedup();
    let (shown, link) = page(names, query, "/v2/_catalog")?;
    Ok(linked(&json!({ "repositories": shown }), link))
}

/// The tags of a repository.
async fn tags(inner: &Inner, name: &str, query: &[(String, String)]) -> Answer {
    let mut tags = Vec::new();
    for tag in inner.shelf.tags(name) {
        if manifests::resolve(inner, name, &tag).await?.is_some() {
            tags.push(tag);
        }
    }
    let prefix = format!("{}/{name}:", inner.domain);
    for image in inner.images.list().await? {
        tags.extend(
            image
                .tags
                .iter()
                .filter_map(|t| t.strip_prefix(&prefix))
                .map(str::to_owned),
        );
    }
    tags.sort_unstable();
    tags.dedup();
    if tags.is_empty() && !inner.shelf.knows(name) {
        return Err(Fault::name_unknown(name));
    }
    let (shown, link) = page(tags, query, &format!("/v2/{name}/tags/list"))?;
    Ok(linked(&json!({ "name": name, "tags": shown }), link))
}

/// What of a sorted list a request shows (`n` at most, those after `last`), and the address of the rest.
fn page(
    all: Vec<String>,
    query: &[(String, String)],
    path: &str,
) -> std::result::Result<(Vec<String>, Option<String>), Fault> {
    let find = |key: &str| query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let most = match find("n") {
        None => usize::MAX,
        Some(n) => n.parse().map_err(|_| Fault::page_size(n))?,
    };
    let mut rest = all
        .into_iter()
        .filter(|x| find("last").is_none_or(|last| x.as_str() > last));
    let shown: Vec<String> = rest.by_ref().take(most).collect();
    let more = rest.next().is_some();
    let link = shown.last().filter(|_| more).map(|last| {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("last", last)
            .append_pair("n", &most.to_string())
            .finish();
        format!("<{path}?{query}>; rel=\"next\"")
    });
    Ok((shown, link))
}

fn linked(body: &serde_json::Value, link: Option<String>) -> Response {
    let mut response = reply(StatusCode::OK, "application/json", body.to_string());
    if let Some(value) = link.and_then(|l| l.parse().ok()) {
        response.headers_mut().insert(header::LINK, value);
    }
    response
}

/// A response with a body that is all there.
fn reply(status: StatusCode, kind: &str, body: impl Into<bytes::Bytes>) -> Response {
    let body = body.into();
    let length = body.len();
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    put(&mut response, "content-type", kind);
    put(&mut response, "content-length", &length.to_string());
    response
}

/// A response without a body.
fn bare(status: StatusCode) -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}

/// Sets a header; a value that cannot be one is left out.
fn put(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn pages_of_a_list() {
        let all = || ["a", "b", "c"].map(str::to_owned).to_vec();
        let query = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert_eq!(page(all(), &query(&[]), "/x").unwrap(), (all(), None));
        let (shown, link) = page(all(), &query(&[("n", "2")]), "/x").unwrap();
        assert_eq!(shown, ["a", "b"]);
        assert_eq!(link.as_deref(), Some("</x?last=b&n=2>; rel=\"next\""));
        let (shown, link) = page(all(), &query(&[("n", "2"), ("last", "b")]), "/x").unwrap();
        assert_eq!((shown, link), (vec!["c".to_owned()], None));
        assert!(page(all(), &query(&[("n", "x")]), "/x").is_err());
    }
}
