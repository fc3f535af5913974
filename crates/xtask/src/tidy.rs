//! Rules about the text of the project's files.

use std::process::Command;

use crate::Findings;
use crate::scrub::{code_of, is_word};

/// A Rust file longer than this is told of; longer than [`TOO_LONG`] is an error.
const LONG: usize = 500;
const TOO_LONG: usize = 700;

/// Crates in which `unsafe` may be written.
const UNSAFE_CRATES: &[&str] = &["crates/runtime/", "crates/net/"];

/// Macros that stand for code that is not there, or that was left over.
const MACROS: &[&str] = &["todo", "unimplemented", "dbg"];

/// Words that tell of one place where the project was worked on, and mean nothing elsewhere. In two pieces each, so
/// that this file passes.
const FOREIGN: &[(&str, &str)] = &[
    ("../sha", "red"),
    ("deb.deb", "ian.org"),
    ("pypi", ".org"),
    ("pythonhos", "ted.org"),
    ("static.cra", "tes.io"),
    ("index.cra", "tes.io"),
    ("npmj", "s.org"),
    ("anthro", "pic"),
    ("clau", "de"),
    ("open", "ai"),
    ("chat", "gpt"),
    ("copi", "lot"),
    ("language mo", "del"),
    ("this work", "place"),
    ("issue", " #"),
];

/// Files that may hold such words: where other checkouts are found, and what cargo writes.
const EXEMPT: &[&str] = &[".ci/run", "Cargo.lock", "LICENSE"];

/// Looks at every file that git knows or would add.
pub(crate) fn check() -> Result<Findings, String> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
            "--full-name",
            ":/",
        ])
        .output()
        .map_err(|error| format!("cannot run git: {error}"))?;
    let root = Command::new("git")
        .args(["rev-parse", "--show-toplevel"])
        .output()
        .map_err(|error| format!("cannot run git: {error}"))?;
    if !output.status.success() || !root.status.success() {
        return Err(format!("git: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let root = String::from_utf8_lossy(&root.stdout).trim().to_owned();
    let mut findings = Findings::default();
    let mut seen = 0;
    for name in String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter(|name| !name.is_empty())
    {
        // A file may be listed and gone, or not be text: neither has anything to say here.
        let Ok(text) = std::fs::read_to_string(format!("{root}/{name}")) else {
            continue;
        };
        seen += 1;
        foreign_words(name, &text, &mut findings);
        if name.ends_with(".rs") {
            rust(name, &text, &mut findings);
        }
    }
    findings.summary = format!("text of {seen} files");
    Ok(findings)
}

fn rust(name: &str, text: &str, findings: &mut Findings) {
    let code = code_of(text);
    let length = text.lines().count();
    if length > TOO_LONG {
        findings.errors.push(format!(
            "{name}: {length} lines; split it, {TOO_LONG} is the most"
        ));
    } else if length > LONG {
        findings
            .warnings
            .push(format!("{name}: {length} lines; more than {LONG}"));
    }
    let starts_with_doc = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("#!"));
    if starts_with_doc.is_some_and(|line| !line.starts_with("//!")) {
        findings
            .errors
            .push(format!("{name}:1: begin with `//!` and what this module is for"));
    }
    let lines: Vec<&str> = text.lines().collect();
    let may_be_unsafe = UNSAFE_CRATES.iter().any(|allowed| name.starts_with(allowed));
    for (i, line) in code.lines().enumerate() {
        let place = format!("{name}:{}", i + 1);
        for found in MACROS.iter().filter(|found| has_word(line, found, "!")) {
            findings
                .errors
                .push(format!("{place}: {found}! must not be left in the code"));
        }
        if !may_be_unsafe && (has_word(line, "unsafe", "") || line.contains("allow(unsafe_code)")) {
            findings.errors.push(format!(
                "{place}: unsafe code lives in {} only",
                UNSAFE_CRATES.join(", ")
            ));
        } else if has_word(line, "unsafe", "") && !explained(&lines, i) {
            findings.errors.push(format!(
                "{place}: say above in a `// SAFETY:` comment why this is sound"
            ));
        }
    }
}

/// Whether `line` has `word` as a whole word with `after` following it.
fn has_word(line: &str, word: &str, after: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let end = at + word.len();
        let bytes = line.as_bytes();
        (at == 0 || !is_word(bytes[at - 1]))
            && !bytes.get(end).copied().is_some_and(is_word)
            && line[end..].starts_with(after)
    })
}

/// Whether the `unsafe` of line `at` has its reason: on that line, or above it in the comment of its statement or item.
fn explained(lines: &[&str], at: usize) -> bool {
    let says = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
    if says(lines[at]) {
        return true;
    }
    for line in lines[..at].iter().rev() {
        let line = line.trim();
        if says(line) {
            return true;
        }
        let within = line.starts_with("//") || line.starts_with('#') || !line.ends_with([';', '{', '}']);
        if line.is_empty() || !within {
            return false;
        }
    }
    false
}

fn foreign_words(name: &str, text: &str, findings: &mut Findings) {
    if EXEMPT.contains(&name) {
        return;
    }
    for (i, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        for word in FOREIGN
            .iter()
            .map(|(a, b)| format!("{a}{b}"))
            .filter(|word| has_foreign(&lower, word))
        {
            findings.errors.push(format!(
                "{name}:{}: `{word}` means nothing to a reader elsewhere",
                i + 1
            ));
        }
        if absolute_work_path(line) {
            findings
                .errors
                .push(format!("{name}:{}: a path that only one machine has", i + 1));
        }
    }
}

/// Whether `word` occurs and is not a part of a longer one.
fn has_foreign(line: &str, word: &str) -> bool {
    let bytes = line.as_bytes();
    line.match_indices(word).any(|(at, _)| {
        let end = at + word.len();
        (at == 0 || !bytes[at - 1].is_ascii_alphanumeric())
            && !bytes.get(end).is_some_and(u8::is_ascii_alphanumeric)
    })
}

/// Whether a path begins with the folder `work` of the root; `{dir}/work/x` and `a/work/x` are others.
fn absolute_work_path(line: &str) -> bool {
    line.match_indices(concat!("/wo", "rk/"))
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "}_-.)/$*~>".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(name: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        foreign_words(name, text, &mut findings);
        rust(name, text, &mut findings);
        findings.errors
    }

    #[test]
    fn a_plain_file_passes() {
        assert_eq!(
            errors("crates/model/src/a.rs", "//! A.\n\nfn f() {}\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn modules_say_what_they_are_for() {
        assert!(errors("crates/model/src/a.rs", "use x;\n")[0].contains("//!"));
        assert_eq!(
            errors("crates/model/src/a.rs", "#![allow(x)]\n//! A.\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn long_files_are_told_of() {
        let file = |lines| format!("//! A.\n{}", "fn f() {}\n".repeat(lines));
        let mut findings = Findings::default();
        rust("a.rs", &file(LONG), &mut findings);
        assert_eq!((findings.errors.len(), findings.warnings.len()), (0, 1));
        assert_eq!(errors("a.rs", &file(TOO_LONG)).len(), 1);
    }

    #[test]
    fn left_over_macros_are_errors_outside_comments() {
        assert!(errors("a.rs", "//! A.\nfn f() { todo!() }\n")[0].starts_with("a.rs:2: todo!"));
        assert_eq!(
            errors("a.rs", "//! A.\n// todo!()\nlet x = \"dbg!\"; my_todo!();\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn unsafe_is_for_two_crates_with_a_reason() {
        let code = "//! A.\nfn f() {\n    unsafe { g() }\n}\n";
        assert!(errors("crates/model/src/a.rs", code)[0].contains("lives in"));
        assert!(errors("crates/net/src/a.rs", code)[0].contains("SAFETY"));
        let explained = "//! A.\nfn f() {\n    // SAFETY: g has no preconditions.\n    #[x]\n    let a =\n        unsafe { g() };\n}\n";
        assert_eq!(errors("crates/net/src/a.rs", explained), Vec::<String>::new());
        let far = "//! A.\n// SAFETY: of another.\nfn h() {}\nunsafe fn f() {}\n";
        assert_eq!(errors("crates/net/src/a.rs", far).len(), 1);
        assert!(errors("crates/model/src/a.rs", "//! A.\n#![allow(unsafe_code)]\n")[0].contains("lives in"));
    }

    #[test]
    fn words_of_one_place_are_errors() {
        assert_eq!(errors("a.rs", concat!("//! See ../sha", "red/x.\n")).len(), 1);
        assert_eq!(errors("a.rs", concat!("//! In /wo", "rk/x.\n")).len(), 1);
        assert_eq!(
            errors("a.rs", concat!("//! In {dir}/wo", "rk/x, open airports.\n")),
            Vec::<String>::new()
        );
    }
}
