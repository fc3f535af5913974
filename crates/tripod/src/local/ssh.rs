//! A shell, or a command, on a node of a local cluster.

use std::io::IsTerminal as _;
use std::process::{Command, ExitCode};

use tripod_model::{Error, Result};

use super::cluster::Cluster;
use super::{init, node};

/// Runs `words` as a shell command on the node (the first one when none is named), or a shell when there are none. The
/// exit status is the command's. `user` is what the prompt shows.
pub(super) fn run(cluster: &Cluster, name: Option<&str>, words: &[String], user: &str) -> Result<ExitCode> {
    let record = cluster.record.node(name)?;
    let first = node::first_process(&cluster.paths.node(&record.name))
        .ok_or_else(|| Error::unavailable(format_args!("node {} does not run", record.name)))?;
    let mut command = Command::new("/bin/bash");
    if !words.is_empty() {
        command.arg("-c").arg(words.join(" "));
    } else if std::io::stdin().is_terminal() {
        command.args(["--noprofile", "--norc", "-i"]);
    } else {
        command.arg("-s");
    }
    // The node's own daemon is meant, whatever this user's clients are pointed at.
    for (key, _) in std::env::vars_os() {
        let key = key.to_string_lossy().into_owned();
        if ["DOCKER_", "KUBE", "AWS_"].iter().any(|p| key.starts_with(p)) {
            command.env_remove(&key);
        }
    }
    command
        .env("DOCKER_HOST", "unix:///run/docker.sock")
        .env("USER", user)
        .env("LOGNAME", user)
        .env("HOME", "/root")
        .env("PS1", format!("{user}@\\h:\\w$ "))
        .current_dir("/root");
    let code = init::enter(first.as_raw_nonzero().get(), &mut command)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
