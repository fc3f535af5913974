//! Registries (OCI distribution spec 1.1; Docker registry HTTP API v2): one repository, its manifests and blobs.

mod auth;
mod blob;
mod http;
mod pull;
mod push;

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::sync::Mutex;
use tripod_agent::ports::Distribution;
use tripod_model::image::{Descriptor, Platform, RegistryAuth};
use tripod_model::reference::Reference;
use tripod_model::{Error, Result};

pub(crate) use blob::{Step, write_down};
pub(crate) use http::Http;
pub use http::RegistryOptions;
pub(crate) use pull::pull;
pub(crate) use push::push;

use super::{digest, media};
use http::Body;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A repository in a registry, as one user sees it.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(crate) http: Http,
    base: String,
    pub(crate) name: Reference,
    auth: Option<RegistryAuth>,
    scopes: Vec<String>,
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest or index as the registry gave it, its digest checked.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
}

impl Repository {
    /// `actions`: `pull` or `pull,push`.
    pub(crate) fn new(http: &Http, name: &Reference, auth: Option<RegistryAuth>, actions: &str) -> Self {
        let scopes = vec![format!("repository:{}:{actions}", name.path)];
        let auth = auth.filter(|a| *a != RegistryAuth::default());
        Self {
            base: base_url(&http.options, &name.domain),
            http: http.clone(),
            name: name.clone(),
            auth,
            scopes,
            authorization: Mutex::default(),
        }
    }

    /// Asks for one more scope, to mount blobs from another repository.
    pub(crate) fn also_pull(&mut self, repositories: impl Iterator<Item = String>) {
        self.scopes
            .extend(repositories.map(|r| format!("repository:{r}:pull")));
    }

    /// The address of something in this repository.
    pub(crate) fn uri(&self, rest: &str) -> Result<Uri> {
        format!("{}/v2/{}/{rest}", self.base, self.name.path)
            .parse()
            .map_err(Error::invalid)
    }

    /// The header for requests, once a challenge was answered.
    async fn authorize(&self, headers: &mut HeaderMap) -> Option<HeaderValue> {
        let value = self.authorization.lock().await.clone();
        if let Some(value) = &value {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        value
    }

    /// Answers the challenge of a 401 to a request that was authorized by `sent`. False when there is nothing else to
    /// answer with. Requests run side by side: another may have found the same answer meanwhile.
    async fn challenged(&self, response: &Response<Incoming>, sent: Option<&HeaderValue>) -> Result<bool> {
        let Some(challenge) = auth::challenge(response.headers()) else {
            return Ok(false);
        };
        let value = auth::answer(&self.http, &challenge, self.auth.as_ref(), &self.scopes).await?;
        let mut current = self.authorization.lock().await;
        let is_new = value.is_some() && value.as_ref() != sent;
        *current = value;
        Ok(is_new)
    }

    /// A request without body; a challenge is answered once.
    pub(crate) async fn get(
        &self,
        method: Method,
        uri: &Uri,
        extra: &HeaderMap,
    ) -> Result<Response<Incoming>> {
        for last in [false, true] {
            let mut headers = extra.clone();
            let sent = self.authorize(&mut headers).await;
            let response = self.http.fetch(&method, uri, &headers).await?;
            if last
                || response.status() != StatusCode::UNAUTHORIZED
                || !self.challenged(&response, sent.as_ref()).await?
            {
                return Ok(response);
            }
        }
        unreachable!("the second turn returns")
    }

    /// A request with a body that can be made anew; redirects are not followed, a challenge is answered once.
    pub(crate) async fn send(
        &self,
        method: Method,
        uri: &Uri,
        extra: &HeaderMap,
        body: &(dyn Fn() -> Body + Sync),
        patience: std::time::Duration,
    ) -> Result<Response<Incoming>> {
        for last in [false, true] {
            let mut request = Request::new(body());
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = extra.clone();
            let sent = self.authorize(request.headers_mut()).await;
            let response = self.http.send(request, patience).await?;
            if last
                || response.status() != StatusCode::UNAUTHORIZED
                || !self.challenged(&response, sent.as_ref()).await?
            {
                return Ok(response);
            }
        }
        unreachable!("the second turn returns")
    }

    /// Fetches a manifest or index by tag or digest.
    pub(crate) async fn manifest(&self, reference: &str) -> Result<Fetched> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
        let uri = self.uri(&format!("manifests/{reference}"))?;
        let mut attempts = blob::Attempts::default();
        let response = loop {
            let e = match self.get(Method::GET, &uri, &headers).await {
                Ok(response) if response.status().is_success() => break response,
                Ok(response) => self.failure(response, &uri).await,
                // Nobody wants to wait for the news that there is no registry.
                Err(e) if e.message.contains("dial tcp") || e.message.contains("tls: ") => return Err(e),
                Err(e) => e,
            };
            attempts.again(&self.http, e).await?;
        };
        let told = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let told = told.split(';').next().unwrap_or_default().trim().to_owned();
        let bytes = self.http.document(response).await?;
        let digest = if digest::is_digest(reference) {
            digest::verify(reference, &bytes).map_err(|_| {
                Error::invalid(format!("manifest verification failed for digest {reference}"))
            })?;
            reference.to_owned()
        } else {
            digest::sha256(&bytes)
        };
        let descriptor = Descriptor {
            media_type: told,
            digest,
            size: bytes.len() as i64,
            ..Descriptor::default()
        };
        Ok(Fetched { descriptor, bytes })
    }

    /// Tags of the repository, page by page.
    pub(crate) async fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Tags {
            tags: Option<Vec<String>>,
        }
        let mut out = Vec::new();
        let mut next = Some(self.uri("tags/list")?);
        while let Some(uri) = next.take() {
            let response = self.get(Method::GET, &uri, &HeaderMap::new()).await?;
            if !response.status().is_success() {
                return Err(self.failure(response, &uri).await);
            }
            if let Some(link) = response.headers().get(header::LINK).and_then(|l| l.to_str().ok())
                && let Some((to, _)) = link.strip_prefix('<').and_then(|l| l.split_once('>'))
                && out.len() < 100_000
            {
                let to = http::resolve(&uri, to)?;
                // A registry must not send the credentials elsewhere.
                next = (to.authority() == uri.authority()).then_some(to);
            }
            let page: Tags = serde_json::from_slice(&self.http.document(response).await?)?;
            out.extend(page.tags.unwrap_or_default());
        }
        Ok(out)
    }

    /// The error that an answer stands for, in Docker's words.
    pub(crate) async fn failure(&self, response: Response<Incoming>, uri: &Uri) -> Error {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct One {
            code: String,
            message: String,
        }
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<One>,
        }
        let status = response.status();
        let bytes = self.http.document(response).await.unwrap_or_default();
        let told = serde_json::from_slice::<Errors>(&bytes)
            .ok()
            .and_then(|e| e.errors.into_iter().next())
            .unwrap_or_default();
        let code = told.code.to_lowercase().replace('_', " ");
        let text = match (code.is_empty(), told.message.is_empty()) {
            (false, false) => format!("{code}: {}", told.message),
            (false, true) => code,
            (true, _) => format!("received unexpected HTTP status: {status}"),
        };
        let familiar = self.name.familiar();
        match (told.code.as_str(), status.as_u16()) {
            ("DENIED", _) | ("", 403) if self.scopes[0].ends_with(":pull") => Error::not_found(format!(
                "pull access denied for {}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                self.name.familiar_name()
            )),
            ("MANIFEST_UNKNOWN", _) => Error::not_found(format!("manifest for {familiar} not found: {text}")),
            ("NAME_UNKNOWN", _) => Error::not_found(format!(
                "repository {} not found: {text}",
                self.name.familiar_name()
            )),
            ("", 404) => Error::not_found(format!(
                "manifest for {familiar} not found: manifest unknown: {uri}"
            )),
            ("UNAUTHORIZED", _) | ("", 401) => Error::unauthorized(if told.code.is_empty() {
                "unauthorized: authentication required".into()
            } else {
                text
            }),
            ("DENIED", _) | ("", 403) => Error::forbidden(if told.code.is_empty() {
                "denied: requested access to the resource is denied".into()
            } else {
                text
            }),
            (_, 500..) | (_, 429) => Error::unavailable(text),
            _ => Error::invalid(text),
        }
    }

    /// What the registry has under the name.
    pub(crate) async fn distribution(&self) -> Result<Distribution> {
        let fetched = self.manifest(reference_of(&self.name)).await?;
        let document = media::parse(&fetched.bytes)?;
        let mut descriptor = fetched.descriptor;
        descriptor.media_type = document.media_type(&descriptor);
        let platforms = if document.is_index() {
            document
                .manifests()
                .iter()
                .filter_map(|m| m.platform.clone())
                .collect()
        } else {
            let (config, _) = document.image()?;
            let image = super::config::parse(&config.digest, &self.small_blob(&config).await?)?;
            vec![Platform {
                os: image.os,
                architecture: image.architecture,
                variant: image.variant,
            }]
        };
        Ok(Distribution {
            descriptor,
            platforms,
        })
    }
}

/// Tag or digest to ask for.
pub(crate) fn reference_of(name: &Reference) -> &str {
    name.digest.as_deref().or(name.tag.as_deref()).unwrap_or("latest")
}

/// Scheme and host of a registry.
fn base_url(options: &RegistryOptions, domain: &str) -> String {
    if domain == "docker.io" {
        return "https://registry-1.docker.io".into();
    }
    let scheme = if is_insecure(options, domain) {
        "http"
    } else {
        "https"
    };
    format!("{scheme}://{domain}")
}

fn is_insecure(options: &RegistryOptions, domain: &str) -> bool {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => domain,
    };
    let loopback = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    loopback || options.insecure.iter().any(|i| i == domain || i == host)
}

/// Checks credentials.
pub(crate) async fn login(http: &Http, auth: &RegistryAuth) -> Result<String> {
    let address = auth
        .server_address
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = address.split('/').next().unwrap_or_default();
    let domain = if matches!(host, "" | "index.docker.io" | "registry-1.docker.io") {
        "docker.io"
    } else {
        host
    };
    let name = Reference {
        domain: domain.into(),
        path: String::new(),
        tag: None,
        digest: None,
    };
    let mut repository = Repository::new(http, &name, Some(auth.clone()), "");
    repository.scopes.clear();
    let uri: Uri = format!("{}/v2/", repository.base)
        .parse()
        .map_err(Error::invalid)?;
    let response = repository.get(Method::GET, &uri, &HeaderMap::new()).await?;
    match response.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::unauthorized(format!(
            "Get \"{uri}\": unauthorized: incorrect username or password"
        ))),
        status if status.is_success() => Ok("Login Succeeded".into()),
        status => Err(Error::unavailable(format!(
            "Get \"{uri}\": received unexpected HTTP status: {status}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let options = RegistryOptions {
            insecure: vec!["reg.lan".into()],
            ..RegistryOptions::default()
        };
        for (domain, url) in [
            ("docker.io", "https://registry-1.docker.io"),
            ("localhost:5000", "http://localhost:5000"),
            ("127.0.0.9", "http://127.0.0.9"),
            ("reg.lan:81", "http://reg.lan:81"),
            ("ghcr.io", "https://ghcr.io"),
        ] {
            assert_eq!(base_url(&options, domain), url);
        }
    }
}
