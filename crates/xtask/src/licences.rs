//! Which licences and crates the build may contain, judged by what `cargo metadata` tells, without a network.

use crate::Findings;
use crate::metadata::Metadata;

/// Licences that may be linked into a program under Apache-2.0 without conditions on the program's own source.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Crates that carry a licence file in place of an expression, and what that file was found to be.
const READ: &[(&str, &str)] = &[("rust-criu", "MIT")];

/// Crates that must stay out, and what to use in their place.
const BANNED: &[(&str, &str)] = &[
    ("aws-lc-rs", "TLS is rustls with ring"),
    ("aws-lc-sys", "TLS is rustls with ring"),
    ("openssl-sys", "TLS is rustls with ring"),
    ("native-tls", "TLS is rustls with ring"),
];

/// Judges every package from elsewhere that takes part in the build.
pub(crate) fn check() -> Result<Findings, String> {
    let metadata = Metadata::load()?;
    let mut findings = Findings::default();
    let mut seen = 0;
    for package in metadata.foreign() {
        seen += 1;
        let name = format!("{} {}", package.name, package.version);
        let read = READ
            .iter()
            .find(|(name, _)| *name == package.name)
            .map(|(_, licence)| *licence);
        match package
            .license
            .as_deref()
            .or(read)
            .map(|expression| (expression, permits(expression)))
        {
            None => findings.errors.push(format!(
                "{name} declares no licence; read its file and add it to crates/xtask/src/licences.rs"
            )),
            Some((expression, Err(error))) => findings
                .errors
                .push(format!("{name}: cannot read the licence {expression:?}: {error}")),
            Some((expression, Ok(false))) => findings.errors.push(format!(
                "{name} is under {expression}, which is not among the allowed"
            )),
            Some((_, Ok(true))) => {}
        }
        if let Some((_, instead)) = BANNED.iter().find(|(banned, _)| *banned == package.name) {
            findings
                .errors
                .push(format!("{name} must not be in the build: {instead}"));
        }
    }
    findings.summary = format!("licences of {seen} packages");
    Ok(findings)
}

/// Whether an SPDX expression can be satisfied with [`ALLOWED`] licences. The old form `MIT/Apache-2.0` means `OR`.
fn permits(expression: &str) -> Result<bool, String> {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &tokens[..];
    let result = either(&mut rest)?;
    if rest.is_empty() {
        Ok(result)
    } else {
        Err(format!("unexpected {:?}", rest[0]))
    }
}

fn either(rest: &mut &[&str]) -> Result<bool, String> {
    let mut result = both(rest)?;
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        result |= both(rest)?;
    }
    Ok(result)
}

fn both(rest: &mut &[&str]) -> Result<bool, String> {
    let mut result = one(rest)?;
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        result &= one(rest)?;
    }
    Ok(result)
}

fn one(rest: &mut &[&str]) -> Result<bool, String> {
    match **rest {
        ["(", ..] => {
            *rest = &rest[1..];
            let result = either(rest)?;
            if rest.first() != Some(&")") {
                return Err("a parenthesis is not closed".into());
            }
            *rest = &rest[1..];
            Ok(result)
        }
        [] | [")" | "AND" | "OR" | "WITH", ..] => Err("a licence is missing".into()),
        [name, "WITH", exception, ..] => {
            *rest = &rest[3..];
            // An exception only adds permissions.
            Ok(ALLOWED.contains(&format!("{name} WITH {exception}").as_str()) || ALLOWED.contains(&name))
        }
        [name, ..] => {
            *rest = &rest[1..];
            Ok(ALLOWED.contains(&name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::permits;

    #[test]
    fn one_allowed_choice_is_enough() {
        for expression in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR X",
        ] {
            assert_eq!(permits(expression), Ok(true), "{expression}");
        }
    }

    #[test]
    fn all_parts_of_an_and_must_be_allowed() {
        for expression in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(GPL-2.0 OR AGPL-3.0)",
            "MIT AND (X OR Y)",
        ] {
            assert_eq!(permits(expression), Ok(false), "{expression}");
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "AND MIT", "MIT Apache-2.0"] {
            assert!(permits(expression).is_err(), "{expression}");
        }
    }
}
