//! The list of containers, and pruning.

use std::collections::HashSet;
use std::sync::Arc;

use http::StatusCode;
use serde_json::json;
use tripod_agent::{ContainerRecord, Owner};
use tripod_model::Time;
use tripod_model::container::{ContainerStatus, PortSpec};

use crate::Docker;
use crate::call::Call;
use crate::fault::Fault;
use crate::query::Filters;
use crate::reply::{self, Reply};
use crate::translate::inspect::health_word;
use crate::translate::summary::summary;
use crate::wire::container::Summary;

const FILTERS: [&str; 18] = [
    "id",
    "name",
    "label",
    "label!",
    "status",
    "exited",
    "ancestor",
    "before",
    "since",
    "volume",
    "network",
    "publish",
    "expose",
    "health",
    "is-task",
    "isolation",
    "label-file",
    "task",
];

pub(crate) async fn list(docker: &Docker, call: &Call) -> Reply {
    let filters = call.query.filters(&FILTERS)?;
    let limit = call.query.int("limit")?.filter(|n| *n > 0);
    let wanted = Wanted::new(docker, &filters, call.query.flag("all") || limit.is_some()).await?;
    let mut all = docker.agent().containers();
    all.retain(|r| wanted.admits(r));
    all.sort_by_key(|c| std::cmp::Reverse(c.created));
    if let Some(limit) = limit {
        all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let sizes = if call.query.flag("size") {
        Sizes::of(docker, &all).await
    } else {
        Sizes::default()
    };
    reply::json(&summaries(&all, &sizes, call.version.0 >= 48))
}

/// Bytes of containers, in the order of the list; empty when nobody asked.
#[derive(Default)]
pub(crate) struct Sizes(Vec<Option<(u64, u64)>>);

impl Sizes {
    pub(crate) async fn of(docker: &Docker, all: &[Arc<ContainerRecord>]) -> Self {
        let mut sizes = Vec::with_capacity(all.len());
        for r in all {
            // A container that is removed meanwhile has no size any more.
            sizes.push(docker.agent().images().container_size(&r.id).await.ok());
        }
        Self(sizes)
    }
}

/// The lines of the list.
pub(crate) fn summaries<'a>(
    all: &'a [Arc<ContainerRecord>],
    sizes: &Sizes,
    manifest: bool,
) -> Vec<Summary<'a>> {
    let now = Time::now();
    let size = |i: usize| sizes.0.get(i).copied().flatten();
    all.iter()
        .enumerate()
        .map(|(i, r)| summary(r, now, size(i), manifest))
        .collect()
}

/// The filters, with what they name looked up once.
struct Wanted<'a> {
    filters: &'a Filters,
    all: bool,
    before: Option<Time>,
    since: Option<Time>,
    exited: Vec<i64>,
    ancestors: HashSet<String>,
    networks: HashSet<String>,
    publish: Vec<PortSpec>,
    expose: Vec<PortSpec>,
    is_task: Option<bool>,
}

impl<'a> Wanted<'a> {
    async fn new(docker: &Docker, filters: &'a Filters, all: bool) -> Result<Self, Fault> {
        let invalid = |name: &str, value: &str| Fault::bad(format_args!("invalid filter '{name}={value}'"));
        for s in filters.values("status") {
            let known = [
                "created",
                "running",
                "paused",
                "restarting",
                "removing",
                "exited",
                "dead",
            ];
            if !known.contains(&s.as_str()) {
                return Err(invalid("status", s));
            }
        }
        for h in filters.values("health") {
            if !["none", "starting", "healthy", "unhealthy"].contains(&h.as_str()) {
                return Err(invalid("health", h));
            }
        }
        let exited = filters
            .values("exited")
            .iter()
            .map(|e| e.parse::<i64>().map_err(|_| invalid("exited", e)));
        let moment = |name: &str| -> Result<Option<Time>, Fault> {
            filters
                .values(name)
                .first()
                .map(|c| Ok(docker.agent().container(c)?.created))
                .transpose()
        };
        let mut networks = HashSet::new();
        for n in filters.values("network") {
            networks.insert(
                docker
                    .agent()
                    .network(n)
                    .map_or_else(|_| n.clone(), |spec| spec.id.clone()),
            );
        }
        let mut ancestors = HashSet::new();
        for a in filters.values("ancestor") {
            if let Ok(image) = docker.agent().images().get(a).await {
                ancestors.insert(image.id.clone());
            }
        }
        let by_state = filters.has("status") || filters.has("exited");
        Ok(Self {
            all: all || by_state || filters.has("before") || filters.has("since"),
            before: moment("before")?,
            since: moment("since")?,
            exited: exited.collect::<Result<_, _>>()?,
            ancestors,
            networks,
            publish: port_filter(filters, "publish")?,
            expose: port_filter(filters, "expose")?,
            is_task: filters.flag("is-task")?,
            filters,
        })
    }

    fn admits(&self, r: &ContainerRecord) -> bool {
        let f = self.filters;
        let shown = self.all || r.is_running() || r.state.status == ContainerStatus::Restarting;
        shown
            && f.labels(&r.spec.labels)
            && f.any("id", |id| r.id.starts_with(id))
            && (f.matches("name", &r.name) || f.matches("name", &format!("/{}", r.name)))
            && f.any("status", |s| r.state.status.as_str() == s)
            && f.any("health", |h| {
                r.state.health.as_ref().map_or("none", |x| health_word(x.status)) == h
            })
            && (self.exited.is_empty()
                || (r.state.status == ContainerStatus::Exited && self.exited.contains(&r.state.exit_code)))
            && self.before.is_none_or(|t| r.created < t)
            && self.since.is_none_or(|t| r.created > t)
            && (!f.has("ancestor") || self.ancestors.contains(&r.spec.image_id))
            && f.any("volume", |v| {
                r.mounts
                    .iter()
                    .any(|m| m.mount.source == v || m.mount.target == v)
            })
            && (self.networks.is_empty()
                || r.endpoints.iter().any(|e| {
                    self.networks.contains(&e.network_id) || self.networks.contains(&e.network_name)
                }))
            && (self.publish.is_empty()
                || r.ports.iter().any(|p| {
                    self.publish.contains(&PortSpec {
                        port: p.target_port,
                        protocol: p.protocol,
                    })
                }))
            && (self.expose.is_empty() || r.spec.exposed_ports.iter().any(|p| self.expose.contains(p)))
            && self
                .is_task
                .is_none_or(|task| task == matches!(r.owner, Owner::Pod { .. }))
    }
}

/// `80`, `80/udp`, `8000-9000/tcp`.
fn port_filter(filters: &Filters, name: &str) -> Result<Vec<PortSpec>, Fault> {
    let set = crate::wire::set(filters.values(name));
    Ok(crate::translate::ports::exposed(&set)?)
}

/// Removes what does not run.
pub(crate) async fn prune(docker: &Docker, call: &Call) -> Reply {
    let filters = call.query.filters(&["label", "label!", "until"])?;
    let until = until(&filters)?;
    let pruned = docker
        .agent()
        .prune_containers(|r| filters.labels(&r.spec.labels) && until.is_none_or(|t| r.created < t))
        .await?;
    reply::json(&json!({ "ContainersDeleted": pruned.removed, "SpaceReclaimed": pruned.reclaimed }))
}

/// The filter `until`: a time, or a length of time before now (`10m`, `24h`).
pub(crate) fn until(filters: &Filters) -> Result<Option<Time>, Fault> {
    match filters.values("until") {
        [] => Ok(None),
        [one] => moment_or_ago(one)
            .map(Some)
            .ok_or_else(|| Fault::bad(format_args!("failed to parse value for \"until\": {one}"))),
        _ => Err(Fault::new(
            StatusCode::BAD_REQUEST,
            "more than one until filter specified",
        )),
    }
}

fn moment_or_ago(text: &str) -> Option<Time> {
    if let Some(t) = crate::query::parse_time(text) {
        return Some(t);
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, factor) = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
            .into_iter()
            .find(|(u, _)| rest.starts_with(u))?;
        seconds += number * factor;
        rest = &rest[unit.len()..];
    }
    let ago = jiff::SignedDuration::try_from_secs_f64(seconds).ok()?;
    (!text.is_empty()).then(|| Time::now().checked_sub(ago).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (pattern, name, fits) in [
            ("eb", "web", true),
            ("^web$", "web", true),
            ("^/?web$", "web1", false),
            ("web|db", "db", true),
            ("w[a-e]b", "web", true),
            ("[", "web", false),
        ] {
            let f = Filters::parse(&json!({ "name": [pattern] }).to_string()).unwrap();
            assert_eq!(f.matches("name", name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn moments() {
        let ago = Time::now().as_second() - moment_or_ago("1h30m").unwrap().as_second();
        assert!((5399..=5401).contains(&ago));
        assert!(moment_or_ago("soon").is_none());
        assert!(moment_or_ago("").is_none());
    }
}
