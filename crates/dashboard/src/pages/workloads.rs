//! The workloads of all three families in one list, each under the name that its family gives it.

use super::name_cell;
use crate::call::Ctx;
use crate::columns::{images, replicas, workload_health};
use crate::kinds::KindDef;
use crate::object::{Obj, decoded};
use crate::status::Health;
use crate::view::{Cell, Page, Section, Table};

/// The kinds that are workloads.
pub(crate) const SLUGS: [&str; 7] = [
    "deployments",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
    "swarm-services",
    "ecs-services",
];
/// Rows that are shown; the lists of each kind show all.
const ROWS: usize = 500;

/// A workload, and how it is.
pub(crate) struct Workload {
    pub(crate) object: Obj,
    pub(crate) def: &'static KindDef,
    pub(crate) health: Health,
    pub(crate) ready: String,
}

/// Every workload of the chosen namespace. Jobs that a cron job made show with it.
pub(crate) fn find(ctx: &Ctx) -> Vec<Workload> {
    let defs = SLUGS.iter().filter_map(|s| KindDef::by_slug(s));
    let mut found = Vec::new();
    for def in defs {
        for object in decoded(&ctx.state, def.resource, ctx.namespace()) {
            if object.owner().is_some() {
                continue;
            }
            let counts = replicas(ctx, &object);
            let ready = match def.slug {
                "cronjobs" => String::new(),
                _ => format!("{} / {}", counts.ready, counts.wanted),
            };
            found.push(Workload {
                health: workload_health(ctx, &object, counts),
                object,
                def,
                ready,
            });
        }
    }
    found
}

/// Their table.
pub(crate) fn table(ctx: &Ctx, workloads: &[Workload]) -> Table {
    let row = |w: &Workload| {
        vec![
            name_cell(ctx, &w.object),
            Cell::text(ctx.t(w.def.kind)),
            Cell::text(place(ctx, &w.object)),
            w.health.clone().cell(),
            Cell::text(w.ready.clone()),
            Cell::Lines(images(ctx, &w.object)),
            Cell::Ago(w.object.created()),
        ]
    };
    let head = ["Name", "Kind", "Namespace", "Status", "Ready", "Images", "Age"];
    Table {
        total: Some(workloads.len()),
        head: head.iter().map(|h| ctx.t(h).to_owned()).collect(),
        rows: workloads.iter().take(ROWS).map(row).collect(),
        empty: ctx.t("Nothing runs here yet.").to_owned(),
        ..Table::default()
    }
}

/// The namespace, or the ECS cluster, in its own words.
fn place(ctx: &Ctx, object: &Obj) -> String {
    match object.kind() {
        "EcsService" => ctx.ui.lang.fill("cluster {}", &[object.str("/spec/cluster")]),
        _ => object.namespace().to_owned(),
    }
}

/// The page.
pub(crate) fn page(ctx: &Ctx) -> Page {
    let resources = SLUGS
        .iter()
        .filter_map(|s| KindDef::by_slug(s))
        .map(|d| d.resource);
    Page {
        title: ctx.t("Workloads").to_owned(),
        sections: vec![Section::Table(table(ctx, &find(ctx)))],
        live: resources.chain(["pods"]).collect::<Vec<_>>().join(","),
        ..Page::default()
    }
}
