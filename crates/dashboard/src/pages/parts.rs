//! Parts of the page of an object, by its kind.

use serde_json::Value;

use super::listing;
use crate::call::Ctx;
use crate::columns::{bytes, tags};
use crate::kinds::{KindDef, link};
use crate::object::{Obj, all, decoded, list, scalar, text};
use crate::readings::{Sample, graph};
use crate::view::{Cell, Page, Section, Table, Tone};

/// Events that are shown.
const FEW: usize = 100;

/// Use over the last minutes.
pub(crate) fn graphs(ctx: &Ctx, samples: &[Sample], cpus: f64, memory: u64) -> Section {
    let now = samples.last().copied().unwrap_or_default();
    let line = |value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<_>>();
    let (received, sent) = (line(|s| s.network.0), line(|s| s.network.1));
    let busiest = received.iter().chain(&sent).copied().fold(1024.0, f64::max);
    let rate = |r: f64| format!("{}/s", bytes(r as u64));
    let graphs = vec![
        graph(
            ctx.t("CPU"),
            format!("{:.2} / {cpus:.0}", now.cores),
            &line(|s| s.cores),
            cpus,
        ),
        graph(
            ctx.t("Memory"),
            format!("{} / {}", bytes(now.memory), bytes(memory)),
            &line(|s| s.memory as f64),
            memory as f64,
        ),
        graph(ctx.t("Received"), rate(now.network.0), &received, busiest),
        graph(ctx.t("Sent"), rate(now.network.1), &sent, busiest),
    ];
    Section::Graphs(ctx.t("Use over the last ten minutes").to_owned(), graphs)
}

/// The containers of a pod and what it mounts.
pub(super) fn pod(ctx: &Ctx, pod: &Obj, page: &mut Page) {
    let mut rows = Vec::new();
    let parts = [
        ("/spec/initContainers", "/status/initContainerStatuses"),
        ("/spec/containers", "/status/containerStatuses"),
        ("/spec/ephemeralContainers", "/status/ephemeralContainerStatuses"),
    ];
    for (specs, statuses) in parts {
        for spec in pod.list(specs) {
            let name = text(spec, "/name");
            let found = pod.list(statuses).iter().find(|s| s["name"] == name);
            rows.push(container(ctx, spec, found.unwrap_or(&Value::Null)));
        }
    }
    page.sections.push(Section::Table(Table {
        title: ctx.t("Containers").to_owned(),
        head: ["Name", "Image", "Status", "Restarts", "Ports", "Started"]
            .iter()
            .map(|h| ctx.t(h).to_owned())
            .collect(),
        rows,
        ..Table::default()
    }));
    let volume = |v: &Value| {
        let sort = v
            .as_object()
            .and_then(|o| o.keys().find(|k| *k != "name"))
            .cloned()
            .unwrap_or_default();
        let claim = text(v, "/persistentVolumeClaim/claimName");
        let source = [
            ("PersistentVolumeClaim", claim),
            ("ConfigMap", text(v, "/configMap/name")),
            ("Secret", text(v, "/secret/secretName")),
        ];
        let source = source.iter().find(|(_, name)| !name.is_empty());
        vec![
            Cell::code(text(v, "/name")),
            Cell::text(sort),
            source.map_or_else(
                || Cell::code(text(v, "/hostPath/path")),
                |(kind, name)| link(ctx, kind, pod.namespace(), name),
            ),
        ]
    };
    let volumes: Vec<_> = pod.list("/spec/volumes").iter().map(volume).collect();
    if !volumes.is_empty() {
        page.sections.push(Section::Table(Table {
            title: ctx.t("Mounted volumes").to_owned(),
            head: ["Name", "Kind", "Source"]
                .iter()
                .map(|h| ctx.t(h).to_owned())
                .collect(),
            rows: volumes,
            ..Table::default()
        }));
    }
}

fn container(ctx: &Ctx, spec: &Value, status: &Value) -> Vec<Cell> {
    let state = match status.pointer("/state") {
        Some(s) if s.get("running").is_some() => {
            let tone = if status["ready"] == true {
                Tone::Good
            } else {
                Tone::Busy
            };
            Cell::State(tone, ctx.t("running").to_owned(), String::new())
        }
        Some(s) if s.get("terminated").is_some() => {
            let code = s["terminated"]["exitCode"].as_i64().unwrap_or(0);
            let tone = if code == 0 { Tone::Calm } else { Tone::Bad };
            let why = format!("{} ({code})", text(s, "/terminated/reason"));
            Cell::State(tone, ctx.t("ended").to_owned(), why)
        }
        Some(s) if s.get("waiting").is_some() => {
            let why = text(s, "/waiting/message").to_owned();
            Cell::State(Tone::Busy, text(s, "/waiting/reason").to_owned(), why)
        }
        _ => Cell::text(""),
    };
    let ports = list(spec, "/ports").iter().map(|p| scalar(&p["containerPort"]));
    vec![
        Cell::code(text(spec, "/name")),
        Cell::code(text(spec, "/image")),
        state,
        Cell::text(
            status["restartCount"]
                .as_i64()
                .map_or_else(String::new, |n| n.to_string()),
        ),
        Cell::Tags(ports.collect()),
        Cell::Ago(text(status, "/state/running/startedAt").parse().ok()),
    ]
}

/// A service: who answers.
pub(super) fn service(ctx: &Ctx, service: &Obj, page: &mut Page) {
    let selector = service.pairs("/spec/selector");
    if !selector.is_empty() {
        page.sections.push(Section::Facts(
            String::new(),
            vec![(ctx.t("Selector").to_owned(), Cell::Tags(tags(selector)))],
        ));
    }
    let mut rows = Vec::new();
    let slices = all(
        &ctx.state,
        "endpointslices.discovery.k8s.io",
        Some(service.namespace()),
    )
    .filter(|s| s.labels.get("kubernetes.io/service-name") == Some(service.name()))
    .map(Obj::new);
    for slice in slices {
        for endpoint in slice.list("/endpoints") {
            let addresses = list(endpoint, "/addresses").iter().map(scalar).collect();
            let ready = endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
            let state = if ready {
                (Tone::Good, "ready")
            } else {
                (Tone::Busy, "not ready")
            };
            rows.push(vec![
                Cell::Lines(addresses),
                link(
                    ctx,
                    text(endpoint, "/targetRef/kind"),
                    service.namespace(),
                    text(endpoint, "/targetRef/name"),
                ),
                link(ctx, "Node", "", text(endpoint, "/nodeName")),
                Cell::State(state.0, ctx.t(state.1).to_owned(), String::new()),
            ]);
        }
    }
    page.sections.push(Section::Table(Table {
        title: ctx.t("Who answers").to_owned(),
        total: Some(rows.len()),
        head: ["Address", "Pod", "Node", "Status"]
            .iter()
            .map(|h| ctx.t(h).to_owned())
            .collect(),
        rows,
        empty: ctx
            .t("Nobody answers: no ready pod matches the selector.")
            .to_owned(),
        ..Table::default()
    }));
}

/// A secret's values, hidden until asked for.
pub(super) fn secret(ctx: &Ctx, secret: &Obj) -> Section {
    let decode = |text: &str| {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .unwrap_or_default();
        String::from_utf8(bytes)
            .unwrap_or_else(|e| ctx.ui.lang.fill("{} bytes", &[&e.as_bytes().len().to_string()]))
    };
    let pairs = secret.pairs("/data").into_iter().map(|(k, v)| (k, decode(&v)));
    Section::Hidden(ctx.t("Data").to_owned(), pairs.collect())
}

/// What is in a namespace.
pub(super) fn namespace(ctx: &Ctx, namespace: &Obj, page: &mut Page) {
    let count = |kind: &tripod_store::KindId| {
        let n = ctx.state.iter(kind, Some(namespace.name())).count();
        let resource = kind.as_str();
        let slug = KindDef::by_resource(resource).map_or_else(|| vec!["objects", resource], |d| vec![d.slug]);
        let url = format!("{}?namespace={}", ctx.ui.url(&slug), namespace.name());
        (n > 0).then(|| vec![Cell::Link(url, resource.to_owned()), Cell::text(n.to_string())])
    };
    page.sections.push(Section::Table(Table {
        title: ctx.t("Objects").to_owned(),
        head: [ctx.t("Kind"), ctx.t("Objects")].map(str::to_owned).to_vec(),
        rows: ctx.state.kinds().filter_map(count).collect(),
        empty: ctx.t("There are none.").to_owned(),
        ..Table::default()
    }));
}

pub(super) fn conditions(ctx: &Ctx, object: &Obj, page: &mut Page) {
    let row = |c: &Value| {
        vec![
            Cell::text(text(c, "/type")),
            Cell::text(text(c, "/status")),
            Cell::text(text(c, "/reason")),
            Cell::text(text(c, "/message")),
            Cell::Ago(text(c, "/lastTransitionTime").parse().ok()),
        ]
    };
    let rows: Vec<_> = object.list("/status/conditions").iter().map(row).collect();
    if !rows.is_empty() {
        let head = ["Type", "Status", "Reason", "Message", "Since"];
        page.sections.push(Section::Table(Table {
            title: ctx.t("Conditions").to_owned(),
            head: head.iter().map(|h| ctx.t(h).to_owned()).collect(),
            rows,
            ..Table::default()
        }));
    }
}

/// What happened to an object.
pub(super) fn events(ctx: &Ctx, object: &Obj, page: &mut Page) {
    let namespace = Some(object.namespace()).filter(|n| !n.is_empty());
    let about = |e: &Obj| {
        let about = e
            .value
            .pointer("/involvedObject")
            .or(e.value.pointer("/regarding"));
        about.is_some_and(|a| text(a, "/kind") == object.kind() && text(a, "/name") == object.name())
    };
    let found: Vec<Obj> = decoded(&ctx.state, "events", namespace).filter(about).collect();
    let table = listing::events_table(ctx, found, FEW);
    page.sections.push(Section::Table(table));
}

pub(super) fn taint(taint: &Value) -> String {
    format!(
        "{}={}:{}",
        text(taint, "/key"),
        text(taint, "/value"),
        text(taint, "/effect")
    )
}
