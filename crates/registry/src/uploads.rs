//! Uploads of blobs: begun, appended to, finished with the digest.

use std::path::{Path, PathBuf};

use http::StatusCode;
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256, Sha512};
use tokio::io::AsyncWriteExt as _;
use tripod_edge::Request;
use tripod_model::Error;

use crate::fault::Fault;
use crate::route::is_digest;
use crate::{Answer, Inner, bare, blobs, put};

type Query = [(String, String)];

fn find<'a>(query: &'a Query, key: &str) -> Option<&'a str> {
    query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
}

/// Begins an upload; with `digest` it is all there, with `mount` nothing is sent when the blob is here.
pub(crate) async fn begin(inner: &Inner, name: &str, query: &Query, request: Request) -> Answer {
    if let Some(digest) = find(query, "mount").filter(|d| is_digest(d))
        && blobs::size(inner, digest).await?.is_some()
    {
        return Ok(created(name, digest));
    }
    let id = hex::encode(rand::random::<[u8; 16]>());
    let path = inner.shelf.upload(&id).ok_or_else(Fault::upload_unknown)?;
    tokio::fs::File::create(&path).await?;
    if find(query, "digest").is_some() {
        return finish(inner, name, &id, query, request).await;
    }
    Ok(accepted(name, &id, 0))
}

fn existing(inner: &Inner, id: &str) -> Result<(PathBuf, u64), Fault> {
    let path = inner.shelf.upload(id).ok_or_else(Fault::upload_unknown)?;
    let size = path.metadata().map_err(|_| Fault::upload_unknown())?.len();
    Ok((path, size))
}

/// How far an upload is.
pub(crate) fn status(inner: &Inner, name: &str, id: &str) -> Answer {
    let (_, size) = existing(inner, id)?;
    let mut response = accepted(name, id, size);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Takes the next bytes.
pub(crate) async fn append(inner: &Inner, name: &str, id: &str, request: Request) -> Answer {
    let (path, have) = existing(inner, id)?;
    follows(&request, have)?;
    let size = write(&path, request).await?;
    Ok(accepted(name, id, size))
}

/// Refuses bytes that do not go on where the upload is.
fn follows(request: &Request, have: u64) -> Result<(), Fault> {
    let Some(range) = request
        .headers()
        .get("content-range")
        .and_then(|r| r.to_str().ok())
    else {
        return Ok(());
    };
    let range = range.strip_prefix("bytes ").unwrap_or(range);
    let from = range.split('-').next().and_then(|n| n.trim().parse::<u64>().ok());
    match from == Some(have) {
        true => Ok(()),
        false => Err(Fault::range_invalid(have)),
    }
}

async fn write(path: &Path, request: Request) -> Result<u64, Fault> {
    let mut file = tokio::fs::OpenOptions::new().append(true).open(path).await?;
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Fault::upload_invalid(format_args!("the body broke off: {e}")))?;
        if let Ok(data) = frame.into_data() {
            file.write_all(&data).await?;
        }
    }
    file.flush().await?;
    Ok(file.metadata().await?.len())
}

/// Takes the last bytes, if any, and makes a blob of all of them.
pub(crate) async fn finish(inner: &Inner, name: &str, id: &str, query: &Query, request: Request) -> Answer {
    let (path, have) = existing(inner, id)?;
    let digest = find(query, "digest").unwrap_or_default().to_owned();
    if !is_digest(&digest) {
        return Err(Fault::digest_invalid(format_args!("{digest:?} is no digest")));
    }
    follows(&request, have)?;
    write(&path, request).await?;
    let (from, to, wanted) = (path.clone(), inner.shelf.blob(&digest), digest.clone());
    let placed = tokio::task::spawn_blocking(move || place(&from, &to, &wanted));
    placed.await.map_err(Error::internal)??;
    Ok(created(name, &digest))
}

fn place(from: &Path, to: &Path, wanted: &str) -> Result<(), Fault> {
    let mut file = std::fs::File::open(from)?;
    let got = digest_of(wanted, |out| std::io::copy(&mut file, out).map(drop))?;
    if got != wanted {
        std::fs::remove_file(from)?;
        return Err(Fault::digest_invalid(format_args!(
            "{wanted} was said, {got} was sent"
        )));
    }
    Ok(std::fs::rename(from, to)?)
}

/// The digest, by the algorithm of another one, of what `fill` writes.
fn digest_of(
    like: &str,
    fill: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> std::io::Result<String> {
    match like.starts_with("sha512:") {
        true => {
            let mut hash = Sha512::new();
            fill(&mut hash)?;
            Ok(format!("sha512:{}", hex::encode(hash.finalize())))
        }
        false => {
            let mut hash = Sha256::new();
            fill(&mut hash)?;
            Ok(format!("sha256:{}", hex::encode(hash.finalize())))
        }
    }
}

/// The digest of bytes, by the algorithm of another one.
pub(crate) fn digest_like(like: &str, bytes: &[u8]) -> String {
    digest_of(like, |out| out.write_all(bytes)).unwrap_or_default()
}

/// Gives an upload up.
pub(crate) fn cancel(inner: &Inner, id: &str) -> Answer {
    let (path, _) = existing(inner, id)?;
    std::fs::remove_file(path)?;
    Ok(bare(StatusCode::NO_CONTENT))
}

fn accepted(name: &str, id: &str, size: u64) -> tripod_edge::Response {
    let mut response = bare(StatusCode::ACCEPTED);
    put(
        &mut response,
        "location",
        &format!("/v2/{name}/blobs/uploads/{id}"),
    );
    put(&mut response, "range", &format!("0-{}", size.saturating_sub(1)));
    put(&mut response, "docker-upload-uuid", id);
    put(&mut response, "content-length", "0");
    response
}

fn created(name: &str, digest: &str) -> tripod_edge::Response {
    let mut response = bare(StatusCode::CREATED);
    put(&mut response, "location", &format!("/v2/{name}/blobs/{digest}"));
    put(&mut response, "docker-content-digest", digest);
    put(&mut response, "content-length", "0");
    response
}

#[cfg(test)]
mod tests {
    use super::digest_like;

    #[test]
    fn digests_by_algorithm() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest_like("sha256:", b""), format!("sha256:{empty}"));
        assert!(digest_like("sha512:", b"").starts_with("sha512:cf83e1357eefb8bd"));
    }
}
