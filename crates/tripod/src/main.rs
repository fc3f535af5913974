//! The `tripod` binary: command line, configuration and wiring.

mod cli;
mod daemon;
mod local;

use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command};

fn main() -> ExitCode {
    // The keeper and the helpers that make containers are this binary, run again.
    if let Some(code) = tripod_runtime::reexec_main(std::env::args_os()) {
        return code;
    }
    let result = match Cli::parse().command {
        Command::Daemon(args) => daemon::run(*args),
        Command::Start(args) => local::start(&args),
        Command::Stop(args) => local::stop(&args),
        Command::Delete(args) => local::delete(&args),
        Command::Status(args) => return local::status(&args),
        Command::Env(args) => local::env(&args),
        Command::Version => {
            println!("tripod version {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tripod: {e}");
            ExitCode::FAILURE
        }
    }
}
