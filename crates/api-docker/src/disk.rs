//! `/system/df`.

use serde_json::{Map, Value, json};
use tripod_model::container::MountKind;

use crate::Docker;
use crate::call::Call;
use crate::containers::{Sizes, summaries};
use crate::fault::Fault;
use crate::images::users;
use crate::reply::{self, Reply};
use crate::translate::image;
use crate::volumes::show;

pub(crate) async fn usage(docker: &Docker, call: &Call) -> Reply {
    let kinds: Vec<&str> = call.query.all("type").collect();
    if let Some(unknown) = kinds
        .iter()
        .find(|k| !["container", "image", "volume", "build-cache"].contains(k))
    {
        return Err(Fault::bad(format_args!("unknown object type: {unknown}")));
    }
    let wants = |kind: &str| kinds.is_empty() || kinds.contains(&kind);
    let mut out = Map::new();
    if wants("image") {
        let usage = docker.agent().images().usage().await?;
        let users = users(docker);
        let all = docker.agent().images().list().await?;
        let list = all.iter().map(|i| {
            let shared = usage.shared.get(&i.id).map_or(0, |n| *n as i64);
            let tags: Vec<&String> = i.tags.iter().collect();
            image::summary(i, &tags, shared, users.get(&i.id).copied().unwrap_or(0), false)
        });
        out.insert("Images".into(), list.collect());
        out.insert("LayersSize".into(), usage.layers_size.into());
    }
    if wants("container") {
        let all = docker.agent().containers();
        let sizes = Sizes::of(docker, &all).await;
        let list = serde_json::to_value(summaries(&all, &sizes, false)).unwrap_or_default();
        out.insert("Containers".into(), list);
    }
    if wants("volume") {
        out.insert("Volumes".into(), volumes(docker).await);
    }
    if wants("build-cache") {
        out.insert("BuildCache".into(), json!([]));
    }
    out.insert("BuilderSize".into(), 0.into());
    reply::json(&out)
}

async fn volumes(docker: &Docker) -> Value {
    let containers = docker.agent().containers();
    let mut list = Vec::new();
    for v in docker.agent().volumes() {
        let uses = containers.iter().filter(|c| {
            c.mounts
                .iter()
                .any(|m| m.mount.kind == MountKind::Volume && m.mount.source == v.name)
        });
        // The real daemon says -1 where the size is not known.
        let size = docker.agent().volume_size(&v.name).await.map_or(-1, |n| n as i64);
        let mut shown = show(&v);
        shown["UsageData"] = json!({ "Size": size, "RefCount": uses.count() });
        list.push(shown);
    }
    list.into()
}
