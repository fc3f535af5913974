//! The processes of a container, as `ps` of the host shows them.

use std::collections::HashSet;

use http::StatusCode;
use serde_json::json;

use crate::Docker;
use crate::call::Call;
use crate::fault::Fault;
use crate::reply::{self, Reply};

pub(crate) async fn top(docker: &Docker, call: &Call, id: &str) -> Reply {
    let args = match call.query.text("ps_args") {
        "" => "-ef",
        args => args,
    };
    check_args(args)?;
    let record = docker.agent().container(id)?;
    if !record.is_running() {
        let text = format!("container {} is not running", record.id);
        return Err(Fault::new(StatusCode::CONFLICT, text));
    }
    let pids: HashSet<i32> = docker
        .agent()
        .runtime()
        .pids(&record.id)
        .await?
        .into_iter()
        .collect();
    let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut output = ps(args.split_whitespace().chain(["-q", &list])).await?;
    if !output.status.success() {
        // Some options exclude `-q`: then all processes are listed and the container's picked out.
        output = ps(args.split_whitespace()).await?;
    }
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let text = format!("error running ps: {}", said.lines().next().unwrap_or("it failed"));
        return Err(Fault::bad(text));
    }
    let (titles, processes) = pick(&String::from_utf8_lossy(&output.stdout), &pids)?;
    reply::json(&json!({ "Titles": titles, "Processes": processes }))
}

async fn ps(args: impl Iterator<Item = &str>) -> Result<std::process::Output, Fault> {
    let args: Vec<&str> = args.collect();
    tokio::process::Command::new("ps")
        .args(args)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| {
            Fault::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format_args!("error running ps: {e}"),
            )
        })
}

/// A column with another title could pass for the one with process numbers.
fn check_args(args: &str) -> Result<(), Fault> {
    let renamed = args.split_whitespace().flat_map(|w| w.split(',')).any(|w| {
        w.split_once('=')
            .is_some_and(|(field, title)| title.eq_ignore_ascii_case("pid") && !field.ends_with("pid"))
    });
    if renamed {
        return Err(Fault::bad(format_args!("specifying \"{args}\" is not allowed")));
    }
    Ok(())
}

/// Titles, and the lines whose process is one of these.
fn pick(text: &str, pids: &HashSet<i32>) -> Result<(Vec<String>, Vec<Vec<String>>), Fault> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let column = titles.iter().position(|t| t == "PID").ok_or_else(|| {
        Fault::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Couldn't find PID field in ps output",
        )
    })?;
    let mut processes = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = fields
            .get(column)
            .and_then(|p| p.parse().ok())
            .is_some_and(|p| pids.contains(&p));
        if ours {
            // The last column may have spaces in it.
            let (own, rest) = fields.split_at((titles.len() - 1).min(fields.len()));
            let mut row: Vec<String> = own.iter().map(|f| (*f).to_owned()).collect();
            row.push(rest.join(" "));
            processes.push(row);
        }
    }
    Ok((titles, processes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_picked() {
        let text = "UID PID CMD\nroot 7 sh -c x\nroot 8 other\n";
        let (titles, rows) = pick(text, &HashSet::from([7])).unwrap();
        assert_eq!(titles, ["UID", "PID", "CMD"]);
        assert_eq!(rows, [["root", "7", "sh -c x"]]);
        assert!(pick("A B\n", &HashSet::new()).is_err());
        assert!(check_args("-eo uid=PID,cmd").is_err());
        assert!(check_args("-eo pid=PID,cmd").is_ok());
    }
}
