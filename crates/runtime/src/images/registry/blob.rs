//! Blobs of a repository: downloads that go on where they broke off, uploads, mounts from other repositories.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use ::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use futures::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use tripod_model::image::Descriptor;
use tripod_model::{Error, ErrorKind, Result};

use super::Repository;
use super::auth::percent;
use super::http::{self, Body, Http};
use crate::images::blobs::{Ingest, MAX_DOCUMENT, Paths};
use crate::images::digest::{self, HashWrite, Hasher};
use crate::images::load::disk;

/// Progress that makes earlier failures forgotten.
const HEADWAY: u64 = 1024 * 1024;

/// Whether an error may be different next time.
fn may_pass(e: &Error) -> bool {
    matches!(e.kind, ErrorKind::Unavailable | ErrorKind::Timeout) && !e.message.contains("no space left")
}

/// Counts failures of something that is tried again.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: u32,
}

impl Attempts {
    /// After a failure: waits (longer each time) when it may pass and attempts are left, else gives the error back.
    pub(super) async fn again(&mut self, http: &Http, e: Error) -> Result<()> {
        self.failures += 1;
        if !may_pass(&e) || self.failures >= http.options.attempts {
            return Err(e);
        }
        tracing::debug!(error = %e, failures = self.failures, "registry: trying again");
        tokio::time::sleep(http.options.back_off * (1 << (self.failures - 1).min(6))).await;
        Ok(())
    }
}

/// What a download tells who writes it down.
pub(crate) enum Step {
    Data(Bytes),
    /// The registry does not go on in the middle: from the beginning.
    Again,
}

impl Repository {
    /// A configuration or the like, in memory.
    pub(crate) async fn small_blob(&self, blob: &Descriptor) -> Result<Bytes> {
        if u64::try_from(blob.size).unwrap_or(u64::MAX) > MAX_DOCUMENT {
            return Err(Error::invalid(format!(
                "blob {} is too long for a configuration",
                blob.digest
            )));
        }
        let uri = self.uri(&format!("blobs/{}", blob.digest))?;
        let mut attempts = Attempts::default();
        let bytes = loop {
            match self.read_document(&uri).await {
                Ok(bytes) => break bytes,
                Err(e) => attempts.again(&self.http, e).await?,
            }
        };
        if bytes.len() as i64 != blob.size {
            return Err(Error::invalid(format!(
                "blob {} has {} bytes instead of {}",
                blob.digest,
                bytes.len(),
                blob.size
            )));
        }
        digest::verify(&blob.digest, &bytes)?;
        Ok(bytes)
    }

    async fn read_document(&self, uri: &::http::Uri) -> Result<Bytes> {
        let response = self.get(Method::GET, uri, &HeaderMap::new()).await?;
        if !response.status().is_success() {
            return Err(self.failure(response, uri).await);
        }
        self.http.document(response).await
    }

    /// Downloads a blob to a temporary file and checks its size and digest.
    pub(crate) async fn download(
        &self,
        paths: &Paths,
        blob: &Descriptor,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Ingest> {
        let size = u64::try_from(blob.size).unwrap_or(0);
        let (ingest, file) = Ingest::new(paths)?;
        let (steps, receive) = mpsc::channel(16);
        let hasher = Hasher::for_digest(&blob.digest)?;
        let writer = tokio::task::spawn_blocking(move || write_down(file, &hasher, receive));
        let fetched = self.fetch_all(blob, size, &steps, progress).await;
        drop(steps);
        let written = writer
            .await
            .map_err(|e| Error::internal(format!("download: {e}")))?;
        // A full disk is the reason why the download stopped, not the other way round.
        let got = written?;
        fetched?;
        if got != blob.digest {
            return Err(digest::mismatch(&blob.digest, &got));
        }
        Ok(ingest)
    }

    async fn fetch_all(
        &self,
        blob: &Descriptor,
        size: u64,
        steps: &mpsc::Sender<Step>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let (mut have, mut attempts, mut anchor) = (0u64, Attempts::default(), 0u64);
        loop {
            let e = match self.fetch_on(blob, size, &mut have, steps, progress).await {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            if have >= anchor + HEADWAY {
                attempts = Attempts::default();
                anchor = have;
            }
            attempts.again(&self.http, e).await?;
        }
    }

    /// One request, for what is missing.
    async fn fetch_on(
        &self,
        blob: &Descriptor,
        size: u64,
        have: &mut u64,
        steps: &mpsc::Sender<Step>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        if *have == size && size > 0 {
            return Ok(());
        }
        let uri = self.uri(&format!("blobs/{}", blob.digest))?;
        let mut headers = HeaderMap::new();
        if *have > 0 {
            headers.insert(
                header::RANGE,
                HeaderValue::from_str(&format!("bytes={have}-")).map_err(Error::internal)?,
            );
        }
        let response = self.get(Method::GET, &uri, &headers).await?;
        let goes_on =
            response.status() == StatusCode::PARTIAL_CONTENT && starts_at(response.headers()) == Some(*have);
        if !response.status().is_success() && response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(self.failure(response, &uri).await);
        }
        let gone = || Error::internal("the download's writer stopped");
        if *have > 0 && !goes_on {
            *have = 0;
            steps.send(Step::Again).await.map_err(|_| gone())?;
            if response.status() != StatusCode::OK {
                return Err(Error::unavailable("registry does not go on with a download"));
            }
        }
        let mut body = response.into_body();
        while let Some(chunk) = self.http.next(&mut body).await? {
            *have += chunk.len() as u64;
            if *have > size {
                return Err(Error::invalid(format!(
                    "blob {} is longer than the {size} bytes that its manifest says",
                    blob.digest
                )));
            }
            steps.send(Step::Data(chunk)).await.map_err(|_| gone())?;
            progress(*have);
        }
        if *have < size {
            return Err(Error::unavailable(format!(
                "blob {}: unexpected EOF after {have} of {size} bytes",
                blob.digest
            )));
        }
        Ok(())
    }

    /// Whether the repository has a blob.
    pub(crate) async fn has_blob(&self, digest: &str) -> Result<bool> {
        let uri = self.uri(&format!("blobs/{digest}"))?;
        let response = self.get(Method::HEAD, &uri, &HeaderMap::new()).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(self.failure(response, &uri).await),
        }
    }

    /// Begins an upload; `from` names a repository that may have the blob. `None` when it was mounted from there.
    async fn begin(&self, digest: &str, from: Option<&str>) -> Result<Option<::http::Uri>> {
        let query = from
            .map(|f| format!("?mount={}&from={}", percent(digest), percent(f)))
            .unwrap_or_default();
        let uri = self.uri(&format!("blobs/uploads/{query}"))?;
        let response = self
            .send(
                Method::POST,
                &uri,
                &no_body(),
                &|| http::full(Bytes::new()),
                std::time::Duration::ZERO,
            )
            .await?;
        match response.status() {
            StatusCode::CREATED if from.is_some() => Ok(None),
            StatusCode::ACCEPTED => {
                let location = response
                    .headers()
                    .get(header::LOCATION)
                    .and_then(|l| l.to_str().ok())
                    .unwrap_or_default();
                let location = http::resolve(&uri, location)?;
                if location.authority() != uri.authority() {
                    // Uploads elsewhere would need credentials of their own.
                    return Err(Error::unavailable(format!(
                        "registry wants uploads at another host: {location}"
                    )));
                }
                Ok(Some(location))
            }
            _ => Err(self.failure(response, &uri).await),
        }
    }

    /// Tries to have the registry take a blob from another of its repositories.
    pub(crate) async fn mount(&self, digest: &str, from: &str) -> Result<bool> {
        // Where it does not, the upload it began is left; the registry drops it in time.
        Ok(self.begin(digest, Some(from)).await?.is_none())
    }

    /// Uploads a file as a blob.
    pub(crate) async fn upload(
        &self,
        digest: &str,
        path: &Path,
        size: u64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let mut attempts = Attempts::default();
        loop {
            match self.upload_once(digest, path, size).await {
                Ok(()) => break,
                Err(e) => attempts.again(&self.http, e).await?,
            }
        }
        progress(size);
        Ok(())
    }

    async fn upload_once(&self, digest: &str, path: &Path, size: u64) -> Result<()> {
        let Some(location) = self.begin(digest, None).await? else {
            return Ok(());
        };
        let join = if location.query().is_some() { '&' } else { '?' };
        let uri: ::http::Uri = format!("{location}{join}digest={}", percent(digest))
            .parse()
            .map_err(Error::internal)?;
        let file = tokio::fs::File::open(path).await.map_err(disk)?.into_std().await;
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
        // 20 kB/s is the slowest line that an upload is waited for.
        let patience = std::time::Duration::from_secs(size / 20_000);
        let response = self
            .send(Method::PUT, &uri, &headers, &|| file_body(&file), patience)
            .await?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(self.failure(response, &uri).await)
        }
    }

    /// Uploads a manifest under a tag or digest.
    pub(crate) async fn put_manifest(&self, reference: &str, media_type: &str, bytes: &Bytes) -> Result<()> {
        let uri = self.uri(&format!("manifests/{reference}"))?;
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_str(media_type).map_err(Error::internal)?,
        );
        let body = || http::full(bytes.clone());
        let mut attempts = Attempts::default();
        loop {
            let e = match self
                .send(Method::PUT, &uri, &headers, &body, std::time::Duration::ZERO)
                .await
            {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => self.failure(response, &uri).await,
                Err(e) => e,
            };
            attempts.again(&self.http, e).await?;
        }
    }
}

fn no_body() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    headers
}

fn file_body(file: &File) -> Body {
    let read = match file
        .try_clone()
        .and_then(|mut f| f.seek(SeekFrom::Start(0)).map(|_| f))
    {
        Ok(file) => ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 * 1024),
        Err(e) => return StreamBody::new(futures::stream::once(async { Err(e) })).boxed_unsync(),
    };
    StreamBody::new(read.map_ok(hyper::body::Frame::data)).boxed_unsync()
}

fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Writes and digests what arrives, on a thread of its own. Gives the digest.
pub(crate) fn write_down(file: File, hasher: &Hasher, mut steps: mpsc::Receiver<Step>) -> Result<String> {
    let mut out = HashWrite::new(file, hasher.clone());
    while let Some(step) = steps.blocking_recv() {
        match step {
            Step::Data(bytes) => out.write_all(&bytes).map_err(disk)?,
            Step::Again => {
                let (mut file, _, _) = out.finish();
                file.set_len(0).map_err(disk)?;
                file.seek(SeekFrom::Start(0)).map_err(disk)?;
                out = HashWrite::new(file, hasher.clone());
            }
        }
    }
    let (_, digest, _) = out.finish();
    Ok(digest)
}
