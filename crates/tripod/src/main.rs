//! The `tripod` binary: command line, configuration and wiring.

fn main() {}
