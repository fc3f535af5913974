//! The pages: functions from a state of the store to what is shown.

pub(crate) mod detail;
pub(crate) mod edit;
pub(crate) mod listing;
pub(crate) mod nav;
pub(crate) mod overview;
pub(crate) mod parts;
pub(crate) mod running;
pub(crate) mod search;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;

use crate::call::Ctx;
use crate::kinds::{KindDef, parts};
use crate::object::Obj;
use crate::view::{Card, Cell, Tone};

/// The cell that names an object and leads to it.
pub(crate) fn name_cell(ctx: &Ctx, object: &Obj) -> Cell {
    let key = &object.stored.key;
    let url = ctx.ui.url(&parts(key.kind.as_str(), &key.namespace, &key.name));
    Cell::Link(url, object.display().to_owned())
}

/// The headings of a list of a kind.
pub(crate) fn head(ctx: &Ctx, def: &KindDef) -> Vec<String> {
    let mut head = vec![ctx.t("Name").to_owned()];
    if def.namespaced {
        head.push(ctx.t("Namespace").to_owned());
    }
    head.extend(def.head.iter().map(|h| ctx.t(h).to_owned()));
    head.push(ctx.t("Age").to_owned());
    head
}

/// A row of a list of a kind.
pub(crate) fn row(ctx: &Ctx, def: &KindDef, object: &Obj) -> Vec<Cell> {
    let mut row = vec![name_cell(ctx, object)];
    if def.namespaced {
        row.push(Cell::text(object.namespace()));
    }
    row.extend((def.row)(ctx, object));
    row.push(Cell::Ago(object.created()));
    row
}

/// A card.
pub(crate) fn card(href: String, label: &str, value: impl ToString, note: String, tone: Tone) -> Card {
    Card {
        href,
        label: label.to_owned(),
        value: value.to_string(),
        note,
        tone,
    }
}
