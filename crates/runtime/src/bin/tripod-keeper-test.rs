//! The keeper alone, for the tests of this crate, which have no program of their own to become it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tripod_runtime::reexec_main(std::env::args_os()).unwrap_or(ExitCode::FAILURE)
}
