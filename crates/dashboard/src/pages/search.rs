//! Search over the names of everything.

use crate::call::Ctx;
use crate::kinds::{KindDef, parts};
use crate::object::Obj;
use crate::view::{Cell, Page, Section, Table};

/// Results that are shown.
const ROWS: usize = 200;

/// The objects whose name, namespace or labels hold all of the words.
pub(crate) fn page(ctx: &Ctx, words: &str) -> Page {
    let wanted: Vec<String> = words
        .to_lowercase()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let mut rows = Vec::new();
    let mut total = 0;
    if !wanted.is_empty() {
        // What people look for comes first, the rest by name of the kind.
        let mut kinds: Vec<_> = ctx.state.kinds().collect();
        let place = |resource: &str| crate::kinds::KINDS.iter().position(|k| k.resource == resource);
        kinds.sort_by_key(|k| place(k.as_str()).unwrap_or(usize::MAX));
        for kind in kinds {
            for stored in ctx.state.iter(kind, ctx.namespace()) {
                if !matches(stored, &wanted) {
                    continue;
                }
                total += 1;
                if rows.len() < ROWS {
                    rows.push(row(ctx, &Obj::new(stored)));
                }
            }
        }
    }
    Page {
        title: ctx.t("Search").to_owned(),
        sections: vec![Section::Table(Table {
            total: Some(total),
            head: ["Name", "Kind", "Namespace", "Age"]
                .iter()
                .map(|h| ctx.t(h).to_owned())
                .collect(),
            rows,
            empty: ctx.t("Nothing has that name.").to_owned(),
            ..Table::default()
        })],
        ..Page::default()
    }
}

fn matches(stored: &tripod_store::StoredObject, wanted: &[String]) -> bool {
    let key = &stored.key;
    let name = key.name.to_lowercase();
    wanted.iter().all(|word| {
        name.contains(word.as_str())
            || key.namespace.contains(word.as_str())
            || stored
                .claims
                .iter()
                .any(|c| c.value.to_lowercase().contains(word.as_str()))
            || stored
                .labels
                .iter()
                .any(|(k, v)| format!("{k}={v}").to_lowercase().contains(word.as_str()))
    })
}

fn row(ctx: &Ctx, object: &Obj) -> Vec<Cell> {
    let key = &object.stored.key;
    let kind = KindDef::by_resource(key.kind.as_str()).map_or(object.kind(), |d| ctx.t(d.kind));
    vec![
        Cell::Link(
            ctx.ui.url(&parts(key.kind.as_str(), &key.namespace, &key.name)),
            object.display().to_owned(),
        ),
        Cell::text(kind),
        Cell::text(object.namespace()),
        Cell::Ago(object.created()),
    ]
}
