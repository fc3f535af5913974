//! Which crate may know which: the table of the design, compared with the manifests.
//!
//! Dependencies for tests are free: they are not part of what a crate promises.

use crate::Findings;
use crate::metadata::{Dependency, Metadata};

/// How the crates of the workspace may be reached from one of them.
enum Siblings {
    /// Only these.
    Only(&'static [&'static str]),
    /// All but these.
    AllBut(&'static [&'static str]),
}

/// The rule for one crate.
struct Rule {
    /// The crate, without the prefix of the workspace.
    name: &'static str,
    siblings: Siblings,
    /// Crates from elsewhere that would let in what this one must be free of.
    foreign: &'static [&'static str],
    why: &'static str,
}

const PREFIX: &str = "tripod-";
const HTTP: &[&str] = &[
    "axum",
    "hyper",
    "hyper-util",
    "tower",
    "http-body",
    "http-body-util",
];
const ASYNC_AND_IO: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-stream",
    "async-trait",
    "axum",
    "hyper",
    "nix",
    "rustix",
    "libc",
    "rtnetlink",
    "redb",
    "tempfile",
];
const SYSCALLS: &[&str] = &["nix", "rustix", "libc", "rtnetlink", "libseccomp"];
const IMPURE: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-stream",
    "async-trait",
    "axum",
    "hyper",
    "nix",
    "rustix",
    "libc",
    "rtnetlink",
    "redb",
    "tempfile",
    "rand",
    "getrandom",
];

const RULES: &[Rule] = &[
    Rule {
        name: "model",
        siblings: Siblings::Only(&[]),
        foreign: IMPURE,
        why: "model is plain data: no sibling, no tokio, no clock, no randomness",
    },
    Rule {
        name: "schema",
        siblings: Siblings::Only(&["model"]),
        foreign: IMPURE,
        why: "schema is pure and knows only model",
    },
    Rule {
        name: "plan",
        siblings: Siblings::Only(&["model"]),
        foreign: ASYNC_AND_IO,
        why: "plan is pure functions over model",
    },
    Rule {
        name: "store",
        siblings: Siblings::Only(&["model"]),
        foreign: IMPURE,
        why: "store applies commands deterministically, without I/O",
    },
    Rule {
        name: "raft",
        siblings: Siblings::AllBut(&["plan", "engine", "api-docker", "api-kube", "api-aws", "dashboard"]),
        foreign: HTTP,
        why: "raft replicates commands without knowing what they mean",
    },
    Rule {
        name: "engine",
        siblings: Siblings::AllBut(&[
            "edge",
            "api-docker",
            "api-kube",
            "api-aws",
            "dashboard",
            "runtime",
            "net",
        ]),
        foreign: HTTP,
        why: "engine knows neither HTTP nor a dialect, and reaches nodes by their sessions only",
    },
    Rule {
        name: "edge",
        siblings: Siblings::Only(&[]),
        foreign: SYSCALLS,
        why: "edge carries bytes for any domain",
    },
    Rule {
        name: "api-docker",
        siblings: Siblings::AllBut(&["api-kube", "api-aws", "dashboard", "raft", "runtime", "net"]),
        foreign: SYSCALLS,
        why: "dialects never meet, and reach nodes through engine and agent",
    },
    Rule {
        name: "api-kube",
        siblings: Siblings::AllBut(&["api-docker", "api-aws", "dashboard", "raft", "runtime", "net"]),
        foreign: SYSCALLS,
        why: "dialects never meet, and reach nodes through engine",
    },
    Rule {
        name: "api-aws",
        siblings: Siblings::AllBut(&["api-docker", "api-kube", "dashboard", "raft", "runtime", "net"]),
        foreign: SYSCALLS,
        why: "dialects never meet, and reach nodes through engine",
    },
    Rule {
        name: "dashboard",
        siblings: Siblings::AllBut(&["api-docker", "api-kube", "api-aws", "raft", "runtime", "net"]),
        foreign: SYSCALLS,
        why: "the dashboard is one more door beside the dialects",
    },
    Rule {
        name: "registry",
        siblings: Siblings::Only(&["model", "edge", "agent"]),
        foreign: SYSCALLS,
        why: "the registry is a door to a node's images, and to nothing of the manager",
    },
    Rule {
        name: "agent",
        siblings: Siblings::Only(&["model"]),
        foreign: SYSCALLS,
        why: "agent decides over ports; syscalls live in runtime and net",
    },
    Rule {
        name: "runtime",
        siblings: Siblings::Only(&["model", "agent"]),
        foreign: &[],
        why: "runtime knows neither net nor anything of the manager",
    },
    Rule {
        name: "net",
        siblings: Siblings::Only(&["model", "agent"]),
        foreign: &[],
        why: "net knows neither runtime nor anything of the manager",
    },
    Rule {
        name: "tripod",
        siblings: Siblings::AllBut(&[]),
        foreign: &[],
        why: "the binary wires everything",
    },
    Rule {
        name: "sim",
        siblings: Siblings::Only(&["model", "plan", "store"]),
        foreign: IMPURE,
        why: "a simulation has no clock, threads or chance of its own: a seed decides",
    },
    Rule {
        name: "xtask",
        siblings: Siblings::Only(&[]),
        foreign: &[],
        why: "a tool must not need what it judges",
    },
];

/// Compares every member of the workspace with [`RULES`].
pub(crate) fn check() -> Result<Findings, String> {
    let metadata = Metadata::load()?;
    let members: Vec<&str> = metadata.members().map(|package| short(&package.name)).collect();
    let mut findings = Findings {
        summary: format!("directions of {} crates", members.len()),
        ..Findings::default()
    };
    for package in metadata.members() {
        findings
            .errors
            .extend(judge(short(&package.name), &package.dependencies, &members));
    }
    Ok(findings)
}

/// The name that the table uses.
fn short(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// What is wrong with the dependencies of the crate `name`.
fn judge(name: &str, dependencies: &[Dependency], members: &[&str]) -> Vec<String> {
    let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
        return vec![format!(
            "{name}: a crate without a rule; add it to the table in crates/xtask/src/directions.rs, and to ARCHITECTURE.md"
        )];
    };
    dependencies
        .iter()
        .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
        .map(|dependency| short(&dependency.name))
        .filter(|other| {
            if members.contains(other) {
                match rule.siblings {
                    Siblings::Only(allowed) => !allowed.contains(other),
                    Siblings::AllBut(refused) => refused.contains(other),
                }
            } else {
                rule.foreign.contains(other)
            }
        })
        .map(|other| format!("{name} must not depend on {other}: {}", rule.why))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: &[&str] = &[
        "model",
        "plan",
        "engine",
        "agent",
        "runtime",
        "net",
        "api-docker",
        "api-kube",
    ];

    fn on(name: &str, kind: Option<&str>) -> Vec<Dependency> {
        vec![Dependency {
            name: name.into(),
            kind: kind.map(str::to_owned),
        }]
    }

    #[test]
    fn what_the_table_allows_passes() {
        assert_eq!(
            judge("plan", &on("tripod-model", None), MEMBERS),
            Vec::<String>::new()
        );
        assert_eq!(
            judge("engine", &on("tripod-plan", None), MEMBERS),
            Vec::<String>::new()
        );
        assert_eq!(
            judge("runtime", &on("tripod-agent", None), MEMBERS),
            Vec::<String>::new()
        );
        assert_eq!(judge("model", &on("serde", None), MEMBERS), Vec::<String>::new());
    }

    #[test]
    fn what_it_forbids_is_named_with_the_reason() {
        for (name, other) in [
            ("model", "tokio"),
            ("plan", "tripod-engine"),
            ("api-docker", "tripod-api-kube"),
            ("agent", "nix"),
            ("net", "tripod-runtime"),
        ] {
            let found = judge(name, &on(other, None), MEMBERS);
            assert_eq!(found.len(), 1, "{name} -> {other}");
            assert!(
                found[0].starts_with(&format!("{name} must not depend on {}: ", short(other))),
                "{found:?}"
            );
        }
        assert_eq!(judge("model", &on("tokio", Some("build")), MEMBERS).len(), 1);
    }

    #[test]
    fn tests_may_use_anything() {
        assert_eq!(
            judge("model", &on("tokio", Some("dev")), MEMBERS),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_new_crate_needs_a_rule() {
        assert!(judge("surprise", &[], MEMBERS)[0].contains("without a rule"));
    }

    #[test]
    fn rules_name_each_crate_once() {
        for (i, rule) in RULES.iter().enumerate() {
            assert!(
                RULES[i + 1..].iter().all(|other| other.name != rule.name),
                "{} twice",
                rule.name
            );
        }
    }
}
