//! The first page: how the cluster is, and what needs somebody.

use std::sync::Arc;

use tripod_store::StoredObject;

use super::{card, head, listing, parts, row, workloads};
use crate::call::Ctx;
use crate::kinds::{self, KindDef};
use crate::object::{Obj, all, decoded};
use crate::status::{self, Health};
use crate::view::{Card, Cell, Page, Section, Table, Tone};

/// A pod, and how it is.
type Pod<'a> = (&'a Arc<StoredObject>, Health);

/// Nodes, events and complaints that are shown.
const FEW: usize = 12;

/// The page.
pub(crate) fn page(ctx: &Ctx) -> Page {
    let found = workloads::find(ctx);
    let pods = ctx.known.pods(all(&ctx.state, "pods", ctx.namespace()));
    let nodes: Vec<Obj> = decoded(&ctx.state, "nodes", None).collect();
    let mut sections = vec![Section::Cards(cards(ctx, &found, &pods, &nodes))];
    let whole = nodes.iter().map(crate::columns::capacity);
    let (cpus, memory) = whole.fold((0.0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
    sections.push(parts::graphs(ctx, &ctx.readings.cluster(), cpus, memory));
    let complaints = complaints(ctx, &found, &pods);
    if !complaints.rows.is_empty() {
        sections.push(Section::Table(complaints));
    }
    if let Some(def) = KindDef::by_slug("nodes") {
        sections.push(Section::Table(Table {
            title: ctx.t("Nodes").to_owned(),
            total: Some(nodes.len()),
            head: head(ctx, def),
            rows: nodes.iter().take(FEW).map(|n| row(ctx, def, n)).collect(),
            empty: ctx.t("There are none.").to_owned(),
            next: (nodes.len() > FEW).then(|| ctx.ui.url(&["nodes"])),
        }));
    }
    let mut running = workloads::table(ctx, &found);
    running.title = ctx.t("Workloads").to_owned();
    running.rows.truncate(FEW);
    running.next = (found.len() > FEW).then(|| ctx.ui.list_url(&["workloads"]));
    sections.push(Section::Table(running));
    sections.push(Section::Table(listing::events(ctx, FEW)));
    Page {
        title: ctx.t("Overview").to_owned(),
        sections,
        live: "*".to_owned(),
        ..Page::default()
    }
}

fn cards(ctx: &Ctx, found: &[workloads::Workload], pods: &[Pod<'_>], nodes: &[Obj]) -> Vec<Card> {
    let worst = |tones: &mut dyn Iterator<Item = Tone>| {
        tones.fold(Tone::Good, |worst, tone| match (worst, tone) {
            (Tone::Bad, _) | (_, Tone::Bad) => Tone::Bad,
            (Tone::Busy, _) | (_, Tone::Busy) => Tone::Busy,
            _ => Tone::Good,
        })
    };
    let up = nodes.iter().filter(|n| status::node(n).tone != Tone::Bad).count();
    let healthy = found
        .iter()
        .filter(|w| matches!(w.health.tone, Tone::Good | Tone::Calm))
        .count();
    let running = pods.iter().filter(|(_, h)| h.tone == Tone::Good).count();
    let live = pods.iter().filter(|(_, h)| h.tone != Tone::Calm).count();
    let of = |n: usize, all: usize| {
        ctx.ui
            .lang
            .fill("of {}", &[&all.to_string()])
            .replace("{n}", &n.to_string())
    };
    let services = all(&ctx.state, "services", ctx.namespace()).count();
    let claims = all(&ctx.state, "persistentvolumeclaims", ctx.namespace()).count();
    vec![
        card(
            ctx.ui.url(&["nodes"]),
            ctx.t("Nodes ready"),
            up,
            of(up, nodes.len()),
            worst(&mut nodes.iter().map(|n| status::node(n).tone)),
        ),
        card(
            ctx.ui.list_url(&["workloads"]),
            ctx.t("Workloads healthy"),
            healthy,
            of(healthy, found.len()),
            worst(&mut found.iter().map(|w| w.health.tone)),
        ),
        card(
            ctx.ui.list_url(&["pods"]),
            ctx.t("Pods running"),
            running,
            of(running, live),
            worst(&mut pods.iter().map(|(_, h)| h.tone)),
        ),
        card(
            ctx.ui.list_url(&["services"]),
            ctx.t("Services"),
            services,
            String::new(),
            Tone::Calm,
        ),
        card(
            ctx.ui.list_url(&["storage"]),
            ctx.t("Volume claims"),
            claims,
            String::new(),
            Tone::Calm,
        ),
    ]
}

/// What does not go as it should, and why.
fn complaints(ctx: &Ctx, found: &[workloads::Workload], pods: &[Pod<'_>]) -> Table {
    let workloads = found
        .iter()
        .filter(|w| w.health.tone == Tone::Bad)
        .map(|w| (&w.object.stored, w.def.kind, &w.health));
    let pods = pods.iter().filter(|(_, h)| h.tone == Tone::Bad);
    let row = |(stored, kind, health): (&Arc<StoredObject>, &str, &Health)| {
        let object = Obj::new(stored);
        let key = &object.stored.key;
        let url = ctx
            .ui
            .url(&kinds::parts(key.kind.as_str(), &key.namespace, &key.name));
        vec![
            Cell::Link(url, object.display().to_owned()),
            Cell::text(ctx.t(kind)),
            Cell::text(object.namespace()),
            health.clone().cell(),
        ]
    };
    let all: Vec<_> = workloads.chain(pods.map(|(p, h)| (*p, "Pod", h))).collect();
    Table {
        title: ctx.t("Needs attention").to_owned(),
        total: Some(all.len()),
        head: ["Name", "Kind", "Namespace", "Status"]
            .iter()
            .map(|h| ctx.t(h).to_owned())
            .collect(),
        rows: all.into_iter().take(FEW).map(row).collect(),
        ..Table::default()
    }
}
