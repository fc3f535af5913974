//! The page of an object: what it is, how it is and why, what belongs to it, what happened to it.

use super::parts::{conditions, events, graphs, namespace, pod, secret, service, taint};
use super::{head, row};
use crate::act;
use crate::call::Ctx;
use crate::columns::{self, bytes, labels};
use crate::kinds::{KindDef, link, parts};
use crate::object::{Obj, all, decoded, get, scalar};
use crate::status;
use crate::view::{Cell, Page, Section, Tab, Table, Tone};

/// Related objects that are shown.
const FEW: usize = 100;

/// The frame of every page of an object: title, way back, ways to look at it.
pub(crate) fn frame(ctx: &Ctx, object: &Obj, here: &str) -> Page {
    let key = &object.stored.key;
    let own = parts(key.kind.as_str(), &key.namespace, &key.name);
    let def = KindDef::by_resource(key.kind.as_str());
    let (list_title, list_url) = match def {
        Some(def) => (ctx.t(def.title).to_owned(), ctx.ui.list_url(&[def.slug])),
        None => (
            key.kind.to_string(),
            ctx.ui.list_url(&["objects", key.kind.as_str()]),
        ),
    };
    let mut tabs = vec![("", ctx.t("Details"))];
    if key.kind.as_str() == "pods" {
        tabs.push(("logs", ctx.t("Logs")));
        tabs.push(("terminal", ctx.t("Terminal")));
    }
    tabs.push(("yaml", "YAML"));
    let tab = |(part, label): (&str, &str)| {
        let mut path = own.clone();
        path.extend(Some(part).filter(|p| !p.is_empty()));
        Tab {
            label: label.to_owned(),
            href: ctx.ui.url(&path),
            here: part == here,
        }
    };
    Page {
        title: object.display().to_owned(),
        kind: def.map_or(object.kind(), |d| ctx.t(d.kind)).to_owned(),
        trail: vec![(list_url, list_title)],
        tabs: tabs.into_iter().map(tab).collect(),
        ..Page::default()
    }
}

/// The page.
pub(crate) fn page(ctx: &Ctx, object: &Obj) -> Page {
    let key = &object.stored.key;
    let mut page = frame(ctx, object, "");
    page.actions = act::offered(ctx, object);
    page.live = match key.kind.as_str() {
        "pods" | "nodes" | "services" => format!("{},pods,events,endpointslices.discovery.k8s.io", key.kind),
        kind => format!("{kind},pods,events,replicasets.apps,jobs.batch"),
    };
    if let Some(notice) = notice(ctx, object) {
        page.sections.push(notice);
    }
    page.sections.push(facts(ctx, object));
    match key.kind.as_str() {
        "pods" => pod(ctx, object, &mut page),
        "nodes" => {
            let (cpus, memory) = columns::capacity(object);
            let samples = ctx.readings.history(object.name());
            page.sections.push(graphs(ctx, &samples, cpus, memory));
            related(ctx, "pods", &mut page, |p| {
                p.str("/spec/nodeName") == object.name()
            });
        }
        "services" => service(ctx, object, &mut page),
        "configmaps" => {
            for (name, value) in object.pairs("/data") {
                page.sections.push(Section::Text(name, value));
            }
        }
        "secrets" => page.sections.push(secret(ctx, object)),
        "swarmservices.swarm.tripod.dev" => {
            pods(ctx, columns::service_pods(ctx, object.name()).to_vec(), &mut page);
        }
        "ecsservices.ecs.tripod.dev" => pods(ctx, columns::ecs_pods(ctx, object), &mut page),
        "namespaces" => namespace(ctx, object, &mut page),
        _ => owned(ctx, object, &mut page),
    }
    conditions(ctx, object, &mut page);
    events(ctx, object, &mut page);
    page
}

/// What a reader should know first: why it waits or fails.
fn notice(ctx: &Ctx, object: &Obj) -> Option<Section> {
    let kind = object.stored.key.kind.as_str();
    let is_workload = super::workloads::SLUGS
        .iter()
        .filter_map(|s| KindDef::by_slug(s))
        .any(|d| d.resource == kind);
    let health = match kind {
        "pods" => status::pod(object),
        "nodes" => status::node(object),
        "replicasets.apps" => status::workload(object, status::counts(object)),
        _ if is_workload => {
            let counts = columns::replicas(ctx, object);
            let mut health = columns::workload_health(ctx, object, counts);
            if health.tone != Tone::Good && health.why.is_empty() {
                health.why = why_of_pods(ctx, object);
            }
            health
        }
        _ => return None,
    };
    let shown = matches!(health.tone, Tone::Bad | Tone::Busy);
    shown.then(|| Section::Notice(health.tone, ctx.t(&health.word).to_owned(), health.why))
}

/// What the pods of a workload complain about.
fn why_of_pods(ctx: &Ctx, object: &Obj) -> String {
    let pods = decoded(&ctx.state, "pods", Some(object.namespace()))
        .filter(|p| belongs(ctx, p, object))
        .map(|p| status::pod(&p));
    pods.filter(|h| !h.why.is_empty() && h.tone != Tone::Good)
        .map(|h| format!("{}: {}", h.word, h.why))
        .next()
        .unwrap_or_default()
}

fn facts(ctx: &Ctx, object: &Obj) -> Section {
    let mut facts: Vec<(String, Cell)> = Vec::new();
    let mut add = |name: &str, cell: Cell| {
        let empty = match &cell {
            Cell::Text(t) | Cell::Code(t) | Cell::Link(_, t) => t.is_empty(),
            Cell::Tags(t) | Cell::Lines(t) => t.is_empty(),
            Cell::Links(l) => l.is_empty(),
            Cell::Ago(t) => t.is_none(),
            _ => false,
        };
        if !empty {
            facts.push((ctx.t(name).to_owned(), cell));
        }
    };
    add("Namespace", link(ctx, "Namespace", "", object.namespace()));
    if let Some(def) = KindDef::by_resource(object.stored.key.kind.as_str()) {
        for (name, cell) in def.head.iter().zip((def.row)(ctx, object)) {
            add(name, cell);
        }
    }
    if let Some((kind, name)) = object.owner() {
        add("Owner", link(ctx, kind, object.namespace(), name));
    }
    add("Strategy", Cell::text(object.str("/spec/strategy/type")));
    add("Selector", labels(&object.value, "/spec/selector/matchLabels"));
    add(
        "Service account",
        link(
            ctx,
            "ServiceAccount",
            object.namespace(),
            object.str("/spec/serviceAccountName"),
        ),
    );
    add(
        "Taints",
        Cell::Tags(object.list("/spec/taints").iter().map(taint).collect()),
    );
    add(
        "Access modes",
        Cell::Tags(object.list("/spec/accessModes").iter().map(scalar).collect()),
    );
    add("Labels", labels(&object.value, "/metadata/labels"));
    add("Labels", labels(&object.value, "/spec/labels"));
    add(
        "Name in the store",
        Cell::code(if object.display() == object.name() {
            ""
        } else {
            object.name()
        }),
    );
    if let Some((cores, memory)) = ctx.readings.pod(object.namespace(), object.name())
        && object.kind() == "Pod"
    {
        add("CPU", Cell::text(format!("{cores:.3}")));
        add("Memory", Cell::text(bytes(memory)));
    }
    add("Created", Cell::Ago(object.created()));
    Section::Facts(String::new(), facts)
}

/// Whether a pod belongs to an object, by way of its owner or of its owner's owner.
fn belongs(ctx: &Ctx, pod: &Obj, object: &Obj) -> bool {
    let uid = &object.stored.uid;
    let mut owners = pod.stored.owners.iter();
    !uid.is_empty()
        && owners.any(|o| {
            o == uid
                || decoded_owner(ctx, pod, o)
                    .is_some_and(|owner| owner.stored.owners.iter().any(|grand| grand == uid))
        })
}

fn decoded_owner(ctx: &Ctx, pod: &Obj, uid: &str) -> Option<Obj> {
    ["replicasets.apps", "jobs.batch"].iter().find_map(|resource| {
        all(&ctx.state, resource, Some(pod.namespace()))
            .find(|o| *o.uid == *uid)
            .map(Obj::new)
    })
}

/// What an object owns: revisions, then pods.
fn owned(ctx: &Ctx, object: &Obj, page: &mut Page) {
    if object.stored.uid.is_empty() {
        return;
    }
    let mut direct: Vec<Obj> = ctx.state.dependents(&object.stored.uid).map(Obj::new).collect();
    direct.sort_by_key(|o| std::cmp::Reverse(o.created()));
    let mut found: Vec<Obj> = Vec::new();
    for slug in ["replicasets", "jobs"] {
        let Some(def) = KindDef::by_slug(slug) else {
            continue;
        };
        let of_kind: Vec<&Obj> = direct
            .iter()
            .filter(|o| o.stored.key.kind.as_str() == def.resource)
            .collect();
        for owner in &of_kind {
            found.extend(ctx.state.dependents(&owner.stored.uid).map(Obj::new));
        }
        if !of_kind.is_empty() {
            page.sections.push(Section::Table(Table {
                title: ctx.t(def.title).to_owned(),
                total: Some(of_kind.len()),
                head: head(ctx, def),
                rows: of_kind.into_iter().take(FEW).map(|o| row(ctx, def, o)).collect(),
                ..Table::default()
            }));
        }
    }
    found.extend(direct);
    found.retain(|o| o.stored.key.kind.as_str() == "pods");
    pods(ctx, found, page);
}

/// Pods, those that need somebody first.
fn pods(ctx: &Ctx, mut pods: Vec<Obj>, page: &mut Page) {
    let Some(def) = KindDef::by_slug("pods") else {
        return;
    };
    pods.sort_by_key(|p| match status::pod(p).tone {
        Tone::Bad => 0,
        Tone::Busy => 1,
        Tone::Good => 2,
        Tone::Calm => 3,
    });
    if pods.is_empty() {
        return;
    }
    page.sections.push(Section::Table(Table {
        title: ctx.t("Pods").to_owned(),
        total: Some(pods.len()),
        head: head(ctx, def),
        rows: pods.iter().take(FEW).map(|p| row(ctx, def, p)).collect(),
        ..Table::default()
    }));
}

fn related(ctx: &Ctx, resource: &str, page: &mut Page, keep: impl Fn(&Obj) -> bool) {
    let found = decoded(&ctx.state, resource, None).filter(|o| keep(o)).collect();
    pods(ctx, found, page);
}

/// An object by the parts of its address: slug or `objects/RESOURCE`, namespace (`-` for none), name; with what is
/// left of the parts.
pub(crate) fn find<'a>(ctx: &Ctx, path: &'a [String]) -> Option<(Obj, &'a [String])> {
    let (first, rest) = path.split_first()?;
    let (resource, namespaced, rest) = match (first.as_str(), rest) {
        ("objects", [resource, rest @ ..]) => (resource.as_str(), true, rest),
        (slug, rest) => {
            let def = KindDef::by_slug(slug)?;
            (def.resource, def.namespaced, rest)
        }
    };
    match (namespaced, rest) {
        (true, [namespace, name, rest @ ..]) => {
            let namespace = if namespace == "-" { "" } else { namespace };
            Some((get(&ctx.state, resource, namespace, name)?, rest))
        }
        (false, [name, rest @ ..]) => Some((get(&ctx.state, resource, "", name)?, rest)),
        _ => None,
    }
}
