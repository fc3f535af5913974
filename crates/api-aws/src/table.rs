//! The operations that are served, by service: what handles them, and what of each is not there.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;

use serde_json::Value;

use crate::call::Call;
use crate::fault::Reply;
use crate::service::services;
use crate::{ec2, ecs, iam, logs, secrets, ssm, sts};

type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// An operation.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Call, Value) -> Answer,
    /// What of it is not there; empty when it is whole. `refused: …` when it is only ever refused.
    pub(crate) note: &'static str,
}

/// `Name => handler` or `Name => handler, "what is not there"`.
#[macro_export]
#[doc(hidden)]
macro_rules! operations {
    ($($name:ident => $handler:path $(, $note:literal)?;)*) => {
        pub(crate) const OPERATIONS: &[$crate::table::Operation] = &[
            $($crate::table::Operation {
                name: stringify!($name),
                run: |call, input| Box::pin($handler(call, input)),
                note: concat!($($note)?),
            }),*
        ];
    };
}

fn of(service: &str) -> &'static [Operation] {
    match service {
        "iam" => iam::OPERATIONS,
        "sts" => sts::OPERATIONS,
        "ec2" => ec2::OPERATIONS,
        "ecs" => ecs::OPERATIONS,
        "logs" => logs::OPERATIONS,
        "ssm" => ssm::OPERATIONS,
        "secretsmanager" => secrets::OPERATIONS,
        _ => &[],
    }
}

/// An operation by service and name.
pub(crate) fn operation(service: &str, name: &str) -> Option<&'static Operation> {
    of(service).iter().find(|o| o.name == name)
}

/// The table of `docs/aws.md`, made of the tables above.
pub fn reference() -> String {
    let mut out = String::from(
        "# AWS operations\n\n\
         What the AWS endpoint answers. An operation that is not listed is unknown to the service; one that is refused\n\
         answers `UnsupportedOperation` (or what the note says) and changes nothing. This file is written by the tests of\n\
         `api-aws` from the table that the endpoint itself uses (`TRIPOD_BLESS=1 cargo test -p tripod-api-aws reference`).\n",
    );
    for service in services() {
        let served = of(&service.name);
        // Writing into a String does not fail.
        let _ = writeln!(
            out,
            "\n## {} ({})\n\n| operation | |\n| --- | --- |",
            service.name, service.version
        );
        let mut names: Vec<&str> = service.operations.keys().map(String::as_str).collect();
        names.extend(service.others.iter().map(String::as_str));
        names.sort_unstable();
        let mut refused = Vec::new();
        for name in names {
            match served.iter().find(|o| o.name == name).map(|o| o.note) {
                None => refused.push(name),
                Some("") => {
                    let _ = writeln!(out, "| {name} | implemented |");
                }
                Some(note) if note.starts_with("refused") => {
                    let _ = writeln!(out, "| {name} | {note} |");
                }
                Some(note) => {
                    let _ = writeln!(out, "| {name} | partly: {note} |");
                }
            }
        }
        if !refused.is_empty() {
            let _ = writeln!(out, "\nRefused: {}.", refused.join(", "));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_shapes() {
        for service in services() {
            for operation in of(&service.name) {
                assert!(
                    service.operations.contains_key(operation.name),
                    "{}: {} is not in the model: see scripts/aws-models",
                    service.name,
                    operation.name
                );
            }
        }
    }

    #[test]
    fn the_reference_is_true() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/aws.md");
        let now = reference();
        if std::env::var_os("TRIPOD_BLESS").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let then = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            then == now,
            "docs/aws.md is not what the table says: run with TRIPOD_BLESS=1"
        );
    }
}
