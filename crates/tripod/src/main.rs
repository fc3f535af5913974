//! The `tripod` binary: command line, configuration and wiring.

mod cli;
mod daemon;
mod doctor;
mod local;
mod sizes;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use cli::{Cli, Command, CreateWhat, DeleteWhat, ExportWhat, LoadWhat, ProfileWhat};

fn main() -> ExitCode {
    // The keeper and the helpers that make containers are this binary, run again.
    if let Some(code) = tripod_runtime::reexec_main(std::env::args_os()) {
        return code;
    }
    match called_as().as_deref() {
        Some("minikube") => return local::minikube::main(),
        Some("kind") => return local::kind::main(),
        _ => {}
    }
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("tripod: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The name under which the program was called, without directories.
fn called_as() -> Option<String> {
    let name = std::env::args_os().next()?;
    let name = std::path::Path::new(&name).file_name()?.to_str()?;
    Some(name.to_owned())
}

fn run(command: Command) -> tripod_model::Result<ExitCode> {
    let done = match command {
        Command::Daemon(args) => daemon::run(*args),
        Command::Start(args) => local::start(&args),
        Command::Stop(args) => local::stop(&args),
        Command::Delete(args) => match args.what {
            Some(DeleteWhat::Cluster { name, kubeconfig }) => {
                local::delete_cluster(&name, kubeconfig.as_deref())
            }
            None => local::delete(&args.cluster),
        },
        Command::Pause(args) => local::pause(&args, true),
        Command::Unpause(args) => local::pause(&args, false),
        Command::Status(args) => return Ok(local::status(&args)),
        Command::Env(args) => local::env(&args),
        Command::Ip { cluster, node } => local::ip(&cluster, node.as_deref()),
        Command::Ssh(args) => return local::ssh(&args),
        Command::Service(args) => match args.name == "list" {
            true => local::service_list(&args),
            false => local::service(&args),
        },
        Command::Rebalance(args) => local::rebalance(&args),
        Command::Dashboard { cluster, url, port } => return local::dashboard(&cluster, url, port),
        Command::Mount(args) => local::mount_on_nodes(&args),
        Command::Registry { cluster, port, off } => local::registry(&cluster, port, off),
        Command::Image { what } => local::image(&what),
        Command::Node { what } => local::manage_nodes(&what),
        Command::Cp { from, to, cluster } => local::copy(&cluster, &from, &to),
        Command::Profile {
            what: ProfileWhat::List { output },
        } => local::profile_list(output),
        Command::Config { what } => local::configure(&what),
        Command::Addons { what } => local::addons(&what),
        Command::Create {
            what: CreateWhat::Cluster(args),
        } => local::create(&args),
        Command::Get(args) => local::get(&args),
        Command::Load {
            what:
                LoadWhat::ImageArchive {
                    archive,
                    cluster,
                    nodes,
                },
        } => local::load_archive(&cluster, &archive, &nodes),
        Command::Export {
            what: ExportWhat::Logs { dir, cluster },
        } => local::export_logs(&cluster, dir.as_deref()),
        Command::Doctor { output } => return Ok(doctor::run(output)),
        Command::UpdateCheck => local::update_check(),
        Command::Kubeconfig(args) => {
            print!("{}", tripod_api_kube::kubeconfig(&args.data_root)?);
            Ok(())
        }
        Command::AwsEnv(args) => daemon::aws::print(&args.data_root),
        Command::Version => {
            println!("tripod version {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tripod", &mut std::io::stdout());
            Ok(())
        }
        Command::NodeInit { plan, second } => local::node_init(&plan, second),
    };
    done.map(|()| ExitCode::SUCCESS)
}
