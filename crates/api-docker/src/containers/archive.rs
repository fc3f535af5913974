//! Files in and out of a container, its changes, and all of it as a tar.

use std::path::PathBuf;

use base64::Engine as _;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;
use tripod_agent::ContainerRecord;
use tripod_agent::ports::PathStat;
use tripod_edge::empty;

use crate::Docker;
use crate::call::Call;
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::when;

const TAR: &str = "application/x-tar";
const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

pub(crate) async fn changes(docker: &Docker, id: &str) -> Reply {
    let record = docker.agent().container(id)?;
    let changes = docker.agent().images().changes(&record.id).await?;
    let list: Vec<_> = changes
        .iter()
        .map(|c| json!({ "Path": c.path, "Kind": c.kind }))
        .collect();
    reply::json(&list)
}

pub(crate) async fn export(docker: &Docker, id: &str) -> Reply {
    let record = docker.agent().container(id)?;
    reply::reader(TAR, docker.agent().images().export(&record.id).await?)
}

/// Volumes and binds lie over the root filesystem.
fn overlays(record: &ContainerRecord) -> Vec<(String, PathBuf)> {
    let real = record.mounts.iter().filter(|m| !m.path.is_empty());
    real.map(|m| (m.mount.target.clone(), PathBuf::from(&m.path)))
        .collect()
}

fn path(call: &Call) -> Result<&str, Fault> {
    match call.query.text("path") {
        "" => Err(Fault::bad("bad parameter: path cannot be empty")),
        path => Ok(path),
    }
}

/// The header with the metadata of the path.
fn stat_header(stat: &PathStat) -> HeaderValue {
    let json = json!({
        "name": stat.name, "size": stat.size, "mode": stat.mode, "mtime": when::rfc3339(stat.modified),
        "linkTarget": stat.link_target,
    });
    let text = base64::engine::general_purpose::STANDARD.encode(json.to_string());
    // base64 has nothing that a header could not hold.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

pub(crate) async fn head(docker: &Docker, call: &Call, id: &str) -> Reply {
    let path = path(call)?;
    let record = docker.agent().container(id)?;
    let stat = docker
        .agent()
        .images()
        .stat_path(&record.id, &overlays(&record), path)
        .await?;
    let mut response = Response::new(empty());
    response.headers_mut().insert(STAT, stat_header(&stat));
    Ok(response)
}

pub(crate) async fn get(docker: &Docker, call: &Call, id: &str) -> Reply {
    let path = path(call)?;
    let record = docker.agent().container(id)?;
    let (stat, tar) = docker
        .agent()
        .images()
        .read_path(&record.id, &overlays(&record), path)
        .await?;
    let mut response = reply::reader(TAR, tar)?;
    response.headers_mut().insert(STAT, stat_header(&stat));
    Ok(response)
}

pub(crate) async fn put(docker: &Docker, call: Call, id: &str) -> Reply {
    let path = path(&call)?.to_owned();
    let (keep_kinds, owners) = (
        call.query.flag("noOverwriteDirNonDir"),
        call.query.flag("copyUIDGID"),
    );
    let record = docker.agent().container(id)?;
    let read_only = record.spec.security.read_only_rootfs
        && !record
            .mounts
            .iter()
            .any(|m| !m.mount.read_only && under(&path, &m.mount.target));
    if read_only {
        return Err(Fault::new(
            StatusCode::FORBIDDEN,
            "container rootfs is marked read-only",
        ));
    }
    let into_read_only = record
        .mounts
        .iter()
        .any(|m| m.mount.read_only && under(&path, &m.mount.target));
    if into_read_only {
        return Err(Fault::new(
            StatusCode::FORBIDDEN,
            "mounted volume is marked read-only",
        ));
    }
    let images = docker.agent().images();
    images
        .write_path(
            &record.id,
            &overlays(&record),
            &path,
            call.reader(),
            keep_kinds,
            owners,
        )
        .await?;
    reply::status(StatusCode::OK)
}

fn under(path: &str, target: &str) -> bool {
    std::path::Path::new(&tripod_agent::clean_path(path)).starts_with(tripod_agent::clean_path(target))
}
