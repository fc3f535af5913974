//! Tables: objects as rows with the columns that clients print.

mod apps;
mod cluster;
mod core;
mod format;
mod pods;

use serde_json::{Value, json};
use tripod_model::Time;

use crate::kinds::Kind;
pub use format::duration;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, `date`.
    pub ty: &'static str,
    /// 0: always shown; 1: in wide output.
    pub priority: u8,
}

const fn col(name: &'static str) -> Column {
    Column {
        name,
        ty: "string",
        priority: 0,
    }
}
const fn num(name: &'static str) -> Column {
    Column {
        name,
        ty: "integer",
        priority: 0,
    }
}
const fn wide(name: &'static str) -> Column {
    Column {
        name,
        ty: "string",
        priority: 1,
    }
}

/// How the objects of a kind become rows: the columns, and the cells of one object.
type Printer = (&'static [Column], fn(&Value, Time) -> Vec<Value>);

const AGE: Column = col("Age");
const NAME: Column = col("Name");

const OTHERS: Printer = (
    &[
        NAME,
        Column {
            name: "Created At",
            ty: "date",
            priority: 0,
        },
    ],
    |o, _| {
        vec![
            format::name(o),
            crate::value::at(o, &["metadata", "creationTimestamp"])
                .cloned()
                .unwrap_or(Value::Null),
        ]
    },
);

fn printer(kind: &Kind) -> Printer {
    let resource = kind.resource();
    pods::printer(&resource)
        .or_else(|| apps::printer(&resource))
        .or_else(|| core::printer(&resource))
        .or_else(|| cluster::printer(&resource))
        .unwrap_or(OTHERS)
}

/// The definitions of the columns of a kind.
pub fn columns(kind: &Kind) -> Value {
    let (columns, _) = printer(kind);
    columns
        .iter()
        .map(|c| {
            json!({
                "name": c.name,
                "type": c.ty,
                "format": if c.name == "Name" { "name" } else { "" },
                "description": describe(c.name),
                "priority": c.priority,
            })
        })
        .collect()
}

fn describe(column: &str) -> &'static str {
    match column {
        "Name" => "Name must be unique within a namespace, or within the cluster for kinds that have none.",
        "Age" => "Time since the object was made.",
        "Created At" => "When the object was made.",
        _ => "",
    }
}

/// The cells of an object of a kind.
pub fn cells(kind: &Kind, object: &Value, now: Time) -> Vec<Value> {
    let (_, cells) = printer(kind);
    cells(object, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::registry;

    #[test]
    fn every_row_has_a_cell_for_every_column() {
        let empty = json!({"metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"}});
        for kind in registry().kinds() {
            let columns = columns(kind);
            let cells = cells(kind, &empty, "2024-01-02T00:00:00Z".parse().unwrap());
            assert_eq!(columns.as_array().unwrap().len(), cells.len(), "{}", kind.plural);
            assert_eq!(
                cells[0],
                if kind.plural == "events" {
                    json!("<unknown>")
                } else {
                    json!("a")
                },
                "{}",
                kind.plural
            );
        }
    }

    #[test]
    fn pods_show_what_is_wrong() {
        let now = "2024-01-02T00:00:00Z".parse().unwrap();
        let pods = registry().find("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "x"}, {"name": "y"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "x", "ready": true, "restartCount": 2, "state": {"running": {}},
                 "lastState": {"terminated": {"finishedAt": "2024-01-01T23:55:00Z"}}},
                {"name": "y", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}});
        let cells = cells(pods, &pod, now);
        assert_eq!(
            cells[..5],
            [
                json!("a"),
                json!("1/2"),
                json!("ImagePullBackOff"),
                json!("2 (5m ago)"),
                json!("24h")
            ]
        );
    }
}
