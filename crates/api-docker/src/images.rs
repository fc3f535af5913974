//! `/images` and `/distribution`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use tripod_agent::ports::Removed;
use tripod_model::image::{Image, RegistryAuth};
use tripod_model::reference::Reference;

use crate::Docker;
use crate::call::Call;
use crate::containers::{platform, until};
use crate::fault::Fault;
use crate::progress;
use crate::query::Filters;
use crate::reply::{self, Reply};
use crate::translate::image;
pub(crate) use crate::wire::system::registry_auth;

/// `parts` is what follows `/images`; names of images may have slashes in them.
pub(crate) async fn route(docker: &Docker, call: Call, parts: &[&str]) -> Reply {
    match (call.method.as_str(), parts) {
        ("GET", ["json"]) => list(docker, &call).await,
        ("GET", ["search"]) => search(&call),
        ("GET", ["get"]) => {
            let names: Vec<String> = call
                .query
                .all("names")
                .flat_map(|n| n.split(','))
                .filter(|n| !n.is_empty())
                .map(str::to_owned)
                .collect();
            save(docker, &call, names).await
        }
        ("POST", ["create"]) => create(docker, call).await,
        ("POST", ["load"]) => load(docker, call).await,
        ("POST", ["prune"]) => prune(docker, &call).await,
        ("GET", [name @ .., "json"]) if !name.is_empty() => inspect(docker, &call, &name.join("/")).await,
        ("GET", [name @ .., "history"]) if !name.is_empty() => history(docker, &name.join("/")).await,
        ("GET", [name @ .., "get"]) if !name.is_empty() => save(docker, &call, vec![name.join("/")]).await,
        ("POST", [name @ .., "push"]) if !name.is_empty() => push(docker, &call, &name.join("/")).await,
        ("POST", [name @ .., "tag"]) if !name.is_empty() => tag(docker, &call, &name.join("/")).await,
        ("DELETE", name) if !name.is_empty() => remove(docker, &call, &name.join("/")).await,
        _ => Err(Fault::page_not_found()),
    }
}

/// Numbers of containers by image.
pub(crate) fn users(docker: &Docker) -> HashMap<String, i64> {
    let mut users = HashMap::new();
    for c in docker.agent().containers() {
        *users.entry(c.spec.image_id.clone()).or_default() += 1;
    }
    users
}

const FILTERS: [&str; 7] = [
    "dangling",
    "label",
    "label!",
    "before",
    "since",
    "reference",
    "until",
];

async fn list(docker: &Docker, call: &Call) -> Reply {
    let filters = call.query.filters(&FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let until = until(&filters)?;
    let images = docker.agent().images();
    let (mut before, mut since) = (None, None);
    if let Some(name) = filters.values("before").first() {
        before = images.get(name).await?.created;
    }
    if let Some(name) = filters.values("since").first() {
        since = images.get(name).await?.created;
    }
    let shared = match call.query.flag("shared-size") {
        true => Some(images.usage().await?.shared),
        false => None,
    };
    let users = if call.query.flag("manifests") || shared.is_some() {
        users(docker)
    } else {
        HashMap::new()
    };
    let mut all = images.list().await?;
    all.retain(|i| {
        filters.labels(&i.config.labels)
            && dangling.is_none_or(|d| d == i.tags.is_empty())
            && before.is_none_or(|t| i.created.is_some_and(|c| c < t))
            && since.is_none_or(|t| i.created.is_some_and(|c| c > t))
            && until.is_none_or(|t| i.created.is_some_and(|c| c < t))
    });
    all.sort_by_key(|c| std::cmp::Reverse(c.created));
    let mut out = Vec::with_capacity(all.len());
    for i in &all {
        let names: Vec<&String> = i
            .tags
            .iter()
            .filter(|t| filters.any("reference", |p| image::matches(p, t)))
            .collect();
        let by_digest = i
            .digests
            .iter()
            .any(|d| filters.any("reference", |p| image::matches(p, d)));
        if filters.has("reference") && names.is_empty() && !by_digest {
            continue;
        }
        let shared_size = shared
            .as_ref()
            .map_or(-1, |s| s.get(&i.id).map_or(0, |n| *n as i64));
        let containers = shared
            .as_ref()
            .map_or(-1, |_| users.get(&i.id).copied().unwrap_or(0));
        out.push(image::summary(
            i,
            &names,
            shared_size,
            containers,
            call.query.flag("manifests"),
        ));
    }
    reply::json(&out)
}

/// A search needs the index of Docker Hub, which Tripod does not talk to.
fn search(call: &Call) -> Reply {
    if call.query.text("term").is_empty() {
        return Err(Fault::bad("invalid value for \"term\": must not be empty"));
    }
    if let Some(limit) = call.query.int("limit")?.filter(|l| !(0..=100).contains(l)) {
        return Err(Fault::bad(format_args!(
            "limit {limit} is outside the range of [1, 100]"
        )));
    }
    Err(Fault::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "searching images is not implemented by Tripod: no registry index is reachable",
    ))
}

async fn inspect(docker: &Docker, call: &Call, name: &str) -> Reply {
    let found = docker.agent().images().get(name).await?;
    check_platform(call, &found)?;
    let old = call.version.0 < 45;
    reply::json(&image::inspect(&found, call.query.flag("manifests"), old))
}

/// An image of another platform than asked for is as good as none.
fn check_platform(call: &Call, found: &Image) -> Result<(), Fault> {
    if let Some(wanted) = platform(call.query.text("platform"))?
        && (wanted.architecture != found.architecture || wanted.os != found.os)
    {
        let text = format!(
            "image does not provide the specified platform ({}/{})",
            wanted.os, wanted.architecture
        );
        return Err(Fault::new(StatusCode::NOT_FOUND, text));
    }
    Ok(())
}

async fn history(docker: &Docker, name: &str) -> Reply {
    let found = docker.agent().images().get(name).await?;
    reply::json(&image::history(&found))
}

async fn save(docker: &Docker, call: &Call, names: Vec<String>) -> Reply {
    if names.is_empty() {
        return Err(Fault::bad("no image names given"));
    }
    for name in &names {
        let found = docker.agent().images().get(name).await?;
        check_platform(call, &found)?;
    }
    reply::reader("application/x-tar", docker.agent().images().save(&names).await?)
}

async fn load(docker: &Docker, call: Call) -> Reply {
    let quiet = call.query.flag_or("quiet", true);
    let call_platform = call.query.text("platform").to_owned();
    let images = docker.agent().images().clone();
    let body = call.reader();
    let platform = platform(call_platform.as_str())?;
    if let Some(p) = platform.filter(|p| p.architecture != tripod_agent::host::architecture()) {
        return Err(Fault::left_out(&format!(
            "loading for another platform ({}/{})",
            p.os, p.architecture
        )));
    }
    progress::run_told(quiet, |sink| async move { images.load(body, sink).await }).await
}

/// Pull or import.
async fn create(docker: &Docker, call: Call) -> Reply {
    let query = |name: &str| call.query.text(name).to_owned();
    let (from_image, from_src, repo, tag) =
        (query("fromImage"), query("fromSrc"), query("repo"), query("tag"));
    let platform = platform(call.query.text("platform"))?;
    let images = docker.agent().images().clone();
    if !from_image.is_empty() {
        let auth = registry_auth(call.header("x-registry-auth"))?;
        let (name, all_tags) = pull_name(&from_image, &tag)?;
        return progress::run(false, |sink| async move {
            images.pull(&name, all_tags, platform, auth, sink).await
        })
        .await;
    }
    match from_src.as_str() {
        "" => Err(Fault::bad("fromImage or fromSrc is required")),
        "-" => {
            let name = crate::containers::image_name(&repo, &tag)?;
            let changes = call
                .query
                .all("changes")
                .flat_map(str::lines)
                .map(str::to_owned)
                .collect();
            let message = query("message");
            let made = images
                .import(call.reader(), name, changes, message, platform)
                .await?;
            progress::status_line(&made.id)
        }
        _ => Err(Fault::left_out("importing from a URL")),
    }
}

/// Name and tag (or digest) of a pull. Without a tag all of them are meant: the docker client always sends one.
fn pull_name(from_image: &str, tag: &str) -> Result<(Reference, bool), Fault> {
    let mut name: Reference = from_image.parse()?;
    if name.tag.is_some() || name.digest.is_some() {
        if tag.is_empty() {
            return Ok((name, false));
        }
        name.tag = None;
        name.digest = None;
    }
    match tag {
        "" => Ok((
            Reference {
                tag: Some("latest".into()),
                ..name
            },
            true,
        )),
        digest if digest.contains(':') => Ok((format!("{name}@{digest}").parse()?, false)),
        tag => Ok((format!("{name}:{tag}").parse()?, false)),
    }
}

async fn push(docker: &Docker, call: &Call, name: &str) -> Reply {
    let auth = registry_auth(call.header("x-registry-auth"))?;
    let tag = call.query.text("tag").to_owned();
    let mut name: Reference = name.parse()?;
    if name.digest.is_some() {
        return Err(Fault::bad("cannot push a digest reference"));
    }
    if !tag.is_empty() {
        name = format!("{}:{tag}", Reference { tag: None, ..name }).parse()?;
    }
    let all_tags = name.tag.is_none();
    let images = docker.agent().images().clone();
    progress::run(false, |sink| async move {
        images.push(&name, all_tags, auth, sink).await
    })
    .await
}

async fn tag(docker: &Docker, call: &Call, image: &str) -> Reply {
    let name = crate::containers::image_name(call.query.text("repo"), call.query.text("tag"))?
        .ok_or_else(|| Fault::bad("invalid reference format"))?;
    docker.agent().images().tag(image, &name).await?;
    reply::status(StatusCode::CREATED)
}

fn removed(list: &[Removed]) -> Vec<Value> {
    let one = |r: &Removed| match r {
        Removed::Untagged(name) => json!({ "Untagged": name }),
        Removed::Deleted(id) => json!({ "Deleted": id }),
    };
    list.iter().map(one).collect()
}

async fn remove(docker: &Docker, call: &Call, name: &str) -> Reply {
    let in_use: BTreeSet<String> = users(docker).into_keys().collect();
    let in_use: Vec<String> = in_use.into_iter().collect();
    let (force, prune) = (call.query.flag("force"), !call.query.flag("noprune"));
    let list = docker
        .agent()
        .images()
        .remove(name, force, prune, &in_use)
        .await?;
    reply::json(&removed(&list))
}

async fn prune(docker: &Docker, call: &Call) -> Reply {
    let filters = call.query.filters(&["dangling", "label", "label!", "until"])?;
    let dangling = filters.flag("dangling")?.unwrap_or(true);
    let chosen = unused(docker, &filters, dangling).await?;
    let (gone, won) = docker.agent().images().prune(&chosen).await?;
    reply::json(&json!({ "ImagesDeleted": removed(&gone), "SpaceReclaimed": won }))
}

async fn unused(docker: &Docker, filters: &Filters, dangling: bool) -> Result<Vec<String>, Fault> {
    let until = until(filters)?;
    let users = users(docker);
    let all: Vec<Arc<Image>> = docker.agent().images().list().await?;
    let wanted = all.iter().filter(|i| {
        !users.contains_key(&i.id)
            && (!dangling || i.tags.is_empty())
            && filters.labels(&i.config.labels)
            && until.is_none_or(|t| i.created.is_none_or(|c| c < t))
    });
    Ok(wanted.map(|i| i.id.clone()).collect())
}

/// What a registry says of a name.
pub(crate) async fn distribution(docker: &Docker, call: &Call, name: &str) -> Reply {
    let auth: Option<RegistryAuth> = registry_auth(call.header("x-registry-auth"))?;
    let name = Reference::parse(name)?;
    let found = docker.agent().images().inspect_remote(&name, auth).await?;
    let platforms: Vec<_> = found.platforms.iter().map(image::platform).collect();
    let descriptor = BTreeMap::from([
        ("mediaType", json!(found.descriptor.media_type)),
        ("digest", json!(found.descriptor.digest)),
        ("size", json!(found.descriptor.size)),
    ]);
    reply::json(&json!({ "Descriptor": descriptor, "Platforms": platforms }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pulls() {
        let of = |image: &str, tag: &str| pull_name(image, tag).map(|(n, all)| (n.familiar(), all));
        assert_eq!(of("busybox", "1.36").unwrap(), ("busybox:1.36".into(), false));
        assert_eq!(of("busybox:1", "").unwrap(), ("busybox:1".into(), false));
        assert_eq!(of("busybox", "").unwrap(), ("busybox:latest".into(), true));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(
            of("busybox", &digest).unwrap(),
            (format!("busybox@{digest}"), false)
        );
        assert!(of("Bad", "1").is_err());
    }
}
