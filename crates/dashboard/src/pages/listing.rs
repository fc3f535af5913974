//! Lists of a kind, in pages; several kinds on one page; all kinds that there are.

use tripod_store::{Continue, ListQuery};

use super::{head, name_cell, row};
use crate::call::Ctx;
use crate::columns::event_time;
use crate::kinds::KindDef;
use crate::object::{Obj, all};
use crate::view::{Cell, Page, Section, Table};

/// Rows of a page of a list.
const ROWS: usize = 200;
/// Rows of each kind where several are on a page.
const FEW: usize = 50;

/// A list of one kind.
pub(crate) fn kind(ctx: &Ctx, def: &KindDef, after: &str) -> Page {
    let table = match def.slug {
        "events" => events(ctx, ROWS),
        _ => table(ctx, def, ROWS, after),
    };
    let live = match def.slug {
        "swarm-services" | "ecs-services" => format!("{},pods", def.resource),
        _ => def.resource.to_owned(),
    };
    Page {
        title: ctx.t(def.title).to_owned(),
        sections: vec![Section::Table(table)],
        live,
        ..Page::default()
    }
}

/// Several kinds on a page.
pub(crate) fn several(ctx: &Ctx, title: &str, slugs: &[&str]) -> Page {
    let defs: Vec<_> = slugs.iter().filter_map(|s| KindDef::by_slug(s)).collect();
    let section = |def: &&KindDef| {
        let mut table = table(ctx, def, FEW, "");
        table.title = ctx.t(def.title).to_owned();
        table.next = table.next.map(|_| ctx.ui.list_url(&[def.slug]));
        Section::Table(table)
    };
    Page {
        title: ctx.t(title).to_owned(),
        sections: defs.iter().map(section).collect(),
        live: defs.iter().map(|d| d.resource).collect::<Vec<_>>().join(","),
        ..Page::default()
    }
}

fn table(ctx: &Ctx, def: &KindDef, rows: usize, after: &str) -> Table {
    let after: Option<Continue> = after.parse().ok();
    let mut query = ListQuery::new(def.resource).page(rows, after.as_ref());
    if let (Some(namespace), true) = (ctx.namespace(), def.namespaced) {
        query = query.namespace(namespace);
    }
    let list = ctx.state.list(&query);
    let namespace = ctx.namespace().filter(|_| def.namespaced);
    Table {
        title: String::new(),
        total: Some(all(&ctx.state, def.resource, namespace).count()),
        head: head(ctx, def),
        rows: list.items.iter().map(|o| row(ctx, def, &Obj::new(o))).collect(),
        empty: ctx.t("There are none.").to_owned(),
        next: list.next.map(|next| {
            let url = ctx.ui.list_url(&[def.slug]);
            let sign = if url.contains('?') { '&' } else { '?' };
            let token: String = form_urlencoded::byte_serialize(next.to_string().as_bytes()).collect();
            format!("{url}{sign}after={token}")
        }),
    }
}

/// Events, the latest first.
pub(crate) fn events(ctx: &Ctx, rows: usize) -> Table {
    let found = all(&ctx.state, "events", ctx.namespace()).map(Obj::new);
    events_table(ctx, found.collect(), rows)
}

/// These events, the latest first, without their own names.
pub(crate) fn events_table(ctx: &Ctx, mut events: Vec<Obj>, rows: usize) -> Table {
    events.sort_by_key(|e| std::cmp::Reverse(event_time(e)));
    let total = events.len();
    events.truncate(rows);
    let head = ["Last seen", "Type", "Reason", "About", "Message", "Times"];
    let row = |event: &Obj| {
        let mut cells = vec![Cell::Ago(event_time(event))];
        cells.extend(crate::columns::event(ctx, event));
        cells
    };
    Table {
        title: ctx.t("Events").to_owned(),
        total: Some(total),
        head: head.iter().map(|h| ctx.t(h).to_owned()).collect(),
        rows: events.iter().map(row).collect(),
        empty: ctx.t("Nothing has happened lately.").to_owned(),
        next: None,
    }
}

/// Every kind of which there are objects.
pub(crate) fn kinds(ctx: &Ctx) -> Page {
    let row = |kind: &tripod_store::KindId| {
        let url = match KindDef::by_resource(kind.as_str()) {
            Some(def) => ctx.ui.list_url(&[def.slug]),
            None => ctx.ui.list_url(&["objects", kind.as_str()]),
        };
        vec![
            Cell::Link(url, kind.as_str().to_owned()),
            Cell::text(ctx.state.count(kind).to_string()),
        ]
    };
    let kinds = ctx.state.kinds().filter(|k| ctx.state.count(k) > 0);
    Page {
        title: ctx.t("All kinds").to_owned(),
        sections: vec![Section::Table(Table {
            head: vec![ctx.t("Kind").to_owned(), ctx.t("Objects").to_owned()],
            rows: kinds.map(row).collect(),
            ..Table::default()
        })],
        ..Page::default()
    }
}

/// A list of a kind without a place of its own.
pub(crate) fn other(ctx: &Ctx, resource: &str) -> Page {
    let objects: Vec<Obj> = all(&ctx.state, resource, ctx.namespace())
        .take(ROWS)
        .map(Obj::new)
        .collect();
    let row = |o: &Obj| {
        vec![
            name_cell(ctx, o),
            Cell::text(o.namespace()),
            Cell::Ago(o.created()),
        ]
    };
    let head = [ctx.t("Name"), ctx.t("Namespace"), ctx.t("Age")];
    Page {
        title: resource.to_owned(),
        trail: vec![(ctx.ui.url(&["objects"]), ctx.t("All kinds").to_owned())],
        sections: vec![Section::Table(Table {
            total: Some(all(&ctx.state, resource, ctx.namespace()).count()),
            head: head.map(str::to_owned).to_vec(),
            rows: objects.iter().map(row).collect(),
            empty: ctx.t("There are none.").to_owned(),
            ..Table::default()
        })],
        live: resource.to_owned(),
        ..Page::default()
    }
}
