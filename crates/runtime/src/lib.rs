//! Images, snapshots, OCI bundles, the keeper, logs, exec and statistics.

pub mod images;
pub mod memory;
pub mod volumes;

mod cgroup;
mod client;
mod filter;
mod helper;
mod keeper;
mod logs;
mod oci;
mod spec;

use std::ffi::OsString;
use std::process::ExitCode;

/// Where OCI runtimes that are named without a path are looked for.
pub const RUNTIME_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Removes a cgroup of a node that does not run ([`Options::node_group`]), with what is below it. Blocks.
///
/// # Errors
/// Something still runs there and does not end.
pub fn remove_node_group(path: &str) -> tripod_model::Result<()> {
    let mounts = cgroup::Mounts::detect()?.into();
    Ok(cgroup::Cgroup::new(&mounts, path, "")?.remove()?)
}

pub use oci::{BUILTIN, OciRuntime, Options};

/// Becomes the keeper when the first argument says so (`keeper DIR`), or the first process of a pod's shared namespace
/// of processes. The program's `main` calls this before it does anything else, above all before it starts threads.
pub fn reexec_main(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    let what = args.next()?;
    if what == oci::FIRST {
        return Some(oci::be_first());
    }
    if what != "keeper" {
        return None;
    }
    Some(match args.next() {
        Some(dir) => keeper::main(dir.as_ref()),
        None => {
            eprintln!("keeper: the directory is missing");
            ExitCode::FAILURE
        }
    })
}
