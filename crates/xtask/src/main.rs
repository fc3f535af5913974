//! The project's own rules, as a command: `cargo run -p xtask -- directions | tidy | licences | conformance`.
//!
//! Each rule prints what breaks it, a line per finding that says where and what to do, and exits with 1 then.

mod conformance;
mod directions;
mod licences;
mod metadata;
mod scrub;
mod tidy;

use std::process::ExitCode;

/// What a rule found: `errors` fail the check, `warnings` are only told.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Breaches of the rule.
    pub(crate) errors: Vec<String>,
    /// What comes close to one.
    pub(crate) warnings: Vec<String>,
    /// One line that says what was looked at.
    pub(crate) summary: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["directions"] => directions::check(),
        ["tidy"] => tidy::check(),
        ["licences"] => licences::check(),
        ["conformance"] => conformance::check(false),
        ["conformance", "--write"] => conformance::check(true),
        _ => {
            eprintln!("usage: xtask directions | tidy | licences | conformance [--write]");
            return ExitCode::from(2);
        }
    };
    let findings = match result {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("xtask: {error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &findings.warnings {
        println!("warning: {warning}");
    }
    for error in &findings.errors {
        println!("error: {error}");
    }
    println!(
        "{}: {} errors, {} warnings",
        findings.summary,
        findings.errors.len(),
        findings.warnings.len()
    );
    if findings.errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
