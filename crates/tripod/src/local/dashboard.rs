//! `dashboard`: where the cluster's dashboard answers, held open while the command runs.

use std::process::{Command, ExitCode, Stdio};

use tripod_model::{Error, Result};

use super::client;
use super::cluster::Cluster;
use super::node;

/// Prints the dashboard's address on this machine, or opens it in a browser, and stays until it is interrupted.
pub(super) fn run(cluster: &Cluster, url_only: bool, port: u16) -> Result<ExitCode> {
    let first = cluster.record.first();
    let paths = cluster.paths.node(&first.name);
    if node::first_process(&paths).is_none() {
        return Err(Error::unavailable(format_args!(
            "cluster \"{}\" does not run",
            cluster.record.name
        )));
    }
    client::block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        let at = listener.local_addr()?;
        let url = format!("http://{at}/");
        match url_only {
            true => println!("{url}"),
            false => {
                println!("Opening {url} in your default browser ...");
                open_browser(&url)?;
            }
        }
        let serving = client::relay(&listener, &paths.dashboard);
        tokio::select! {
            ended = serving => ended.map(|()| ExitCode::SUCCESS),
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted.map(|()| ExitCode::SUCCESS)?),
        }
    })
}

/// Opens an address in the user's browser.
pub(super) fn open_browser(url: &str) -> Result<()> {
    Command::new("xdg-open")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
        .map_err(|e| {
            Error::unavailable(format_args!(
                "cannot open a browser (xdg-open: {e}): the address is {url}"
            ))
        })
}
