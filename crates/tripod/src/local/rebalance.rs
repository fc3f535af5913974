//! `tripod rebalance`: what moves, as a table or as JSON.

use std::path::PathBuf;

use serde_json::Value;
use tripod_model::{Error, Result};

use super::client;
use super::commands::open;
use crate::cli::{Output, RebalanceArgs};

/// Has a manager make its services even, and prints what moves.
pub(crate) fn rebalance(args: &RebalanceArgs) -> Result<()> {
    let socket = match &args.host {
        Some(host) => PathBuf::from(host.strip_prefix("unix://").ok_or_else(|| {
            Error::invalid(format_args!(
                "invalid value \"{host}\" for --host: it must be unix://PATH"
            ))
        })?),
        None => {
            let cluster = open(&args.cluster)?;
            cluster.paths.node(&cluster.record.first().name).socket
        }
    };
    let path = match args.dry_run {
        true => "/tripod/rebalance?dryRun=1",
        false => "/tripod/rebalance",
    };
    let found = client::post(&socket, path)?;
    match args.output {
        Output::Json => println!("{found}"),
        _ => print!("{}", text(&found, args.dry_run)),
    }
    Ok(())
}

fn text(found: &Value, dry_run: bool) -> String {
    let list = |key: &str| found[key].as_array().cloned().unwrap_or_default();
    let word = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    let (moves, kept) = (list("moves"), list("kept"));
    let mut out = String::new();
    let replica = |m: &Value| format!("{}.{}", word(m, "service"), m["slot"]);
    let width = moves.iter().map(|m| replica(m).len()).max().unwrap_or(0);
    for m in &moves {
        out += &format!(
            "{:width$}  {} -> {}\n",
            replica(m),
            word(m, "from"),
            word(m, "to")
        );
    }
    for k in &kept {
        out += &format!("{} stays: {}\n", word(k, "service"), word(k, "reason"));
    }
    out += &match (moves.len(), dry_run) {
        (0, _) => "Nothing to move.\n".to_owned(),
        (n, true) => format!("{n} would move.\n"),
        (n, false) => {
            format!("{n} to move, one of a service at a time; `docker service ps` tells how far they are.\n")
        }
    };
    out
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn moves_are_told() {
        let found = serde_json::json!({
            "moves": [{"service": "web", "slot": 12, "from": "a", "to": "b"}, {"service": "db", "slot": 1, "from": "a", "to": "c"}],
            "kept": [{"service": "q", "reason": "an update is in progress"}],
        });
        assert_eq!(
            text(&found, true),
            "web.12  a -> b\ndb.1    a -> c\nq stays: an update is in progress\n2 would move.\n"
        );
        assert_eq!(text(&serde_json::json!({}), false), "Nothing to move.\n");
    }
}
