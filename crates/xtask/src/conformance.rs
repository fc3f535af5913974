//! `docs/conformance.md` against the tests: what it calls *shown* is shown by a test that exists.
//!
//! Tests in `tests/acceptance` say with `@shows("ENTRY", …)` which entries they show; `--write` brings the document up to
//! date with them. An entry may also name a script and a word in it, `kubectl.sh` (access), or a module of a crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Findings;

const DOCUMENT: &str = "docs/conformance.md";
const TESTS: &str = "tests/acceptance";

/// Checks the document; with `write`, mends it first.
pub(crate) fn check(write: bool) -> Result<Findings, String> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let mut scripts = BTreeMap::new();
    for path in files(Path::new(TESTS))? {
        let name = path.strip_prefix(TESTS).unwrap_or(&path).display().to_string();
        scripts.insert(name, read(&path)?);
    }
    let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, text) in &scripts {
        for (entry, test) in marks(text) {
            shown.entry(entry).or_default().push(format!("`{name}` ({test})"));
        }
    }
    let mut text = read(Path::new(DOCUMENT))?;
    if write {
        text = updated(&text, &shown);
        std::fs::write(DOCUMENT, &text).map_err(|e| format!("{DOCUMENT}: {e}"))?;
    }
    let mut findings = Findings {
        summary: format!("conformance: {}", counts(&text)),
        ..Findings::default()
    };
    let entries: Vec<(&str, &str)> = text.lines().filter_map(entry).collect();
    for entry in shown
        .keys()
        .filter(|e| !entries.iter().any(|(name, _)| name == e))
    {
        findings.errors.push(format!(
            "{entry:?}: a test shows it, but {DOCUMENT} has no such entry"
        ));
    }
    for (name, says) in &entries {
        let Some(tests) = says.strip_prefix("*shown*: ") else {
            if shown.contains_key(*name) {
                findings
                    .errors
                    .push(format!("{name:?} is shown: run xtask conformance --write"));
            }
            continue;
        };
        for (file, word) in named(tests) {
            match scripts.get(file) {
                Some(script) if word.is_empty() || script.contains(word) => {}
                Some(_) => findings.errors.push(format!("{name:?}: {file} has no {word:?}")),
                None => findings
                    .errors
                    .push(format!("{name:?}: there is no {TESTS}/{file}")),
            }
        }
    }
    Ok(findings)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|e| e == "py" || e == "sh") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The entries that tests of a script show, each with its test.
fn marks(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("@shows(") {
        let Some((_, body)) = after.split_once("def ") else {
            break;
        };
        let head = &after[..after.len() - body.len()];
        let test = body.split('(').next().unwrap_or_default();
        // Entries hold no quotes; what is between every other one is an entry.
        for entry in head.split('"').skip(1).step_by(2) {
            found.push((entry.to_owned(), test.to_owned()));
        }
        rest = body;
    }
    found
}

/// Name and standing of a line that is an entry.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (name, says) = line.strip_prefix("- ")?.split_once(": *")?;
    Some((name, &line[line.len() - says.len() - 1..]))
}

/// Scripts that a standing names, each with the word in brackets after it.
fn named(tests: &str) -> impl Iterator<Item = (&str, &str)> {
    tests.split('`').skip(1).step_by(2).filter_map(move |file| {
        let is_script = [".py", ".sh"].iter().any(|end| file.ends_with(end));
        let after = &tests[tests.find(file)? + file.len() + 1..];
        let word = after.strip_prefix(" (").and_then(|w| w.split(')').next());
        is_script.then_some((file, word.unwrap_or_default()))
    })
}

fn updated(text: &str, shown: &BTreeMap<String, Vec<String>>) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        lines.push(match entry(line) {
            Some((name, _)) if shown.contains_key(name) => {
                format!("- {name}: *shown*: {}", shown[name].join(", "))
            }
            _ => line.to_owned(),
        });
    }
    let mut text = lines.join("\n") + "\n";
    let counts = counts(&text);
    if let Some(line) = text
        .lines()
        .find(|l| l.starts_with("In all: "))
        .map(str::to_owned)
    {
        text = text.replacen(&line, &format!("In all: {counts}."), 1);
    }
    text
}

fn counts(text: &str) -> String {
    let count = |what: &str| {
        let all = text.lines().filter_map(entry);
        all.filter(|(_, says)| says.starts_with(what)).count()
    };
    format!(
        "{} due, {} later, {} shown",
        count("*due*"),
        count("*later*"),
        count("*shown*")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "In all: 9 due, 9 later, 9 shown.\n\n- A: *due*: part\n- B should: *later*: why\n";

    #[test]
    fn marks_of_tests() {
        let text = "    @shows(\"A\",\n           \"B: c\")\n    @alone\n    def test_x(self):\n@shows(\"D\")\ndef test_y(self):\n";
        let found = marks(text);
        let found: Vec<(&str, &str)> = found.iter().map(|(e, t)| (e.as_str(), t.as_str())).collect();
        assert_eq!(found, [("A", "test_x"), ("B: c", "test_x"), ("D", "test_y")]);
    }

    #[test]
    fn the_document_follows() {
        let shown = BTreeMap::from([("A".to_owned(), vec!["`x.py` (test_a)".to_owned()])]);
        let text = updated(TEXT, &shown);
        assert_eq!(
            text,
            "In all: 0 due, 1 later, 1 shown.\n\n- A: *shown*: `x.py` (test_a)\n- B should: *later*: why\n"
        );
        let (_, says) = text.lines().find_map(entry).unwrap();
        assert_eq!(named(says).collect::<Vec<_>>(), [("x.py", "test_a")]);
    }
}
