//! What `tripod start` takes when it is not told: kept in a file of the user's clusters.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use tripod_model::{Error, Result};

use crate::sizes;

/// Says what is wrong with a value.
type Check = fn(&str) -> std::result::Result<(), String>;

/// The settings, and what checks their values.
const KEYS: &[(&str, Check)] = &[
    ("nodes", number),
    ("managers", number),
    ("cpus", |v| sizes::cpus(v).map(drop)),
    ("memory", |v| sizes::memory_amount(v).map(drop)),
    ("kubernetes-version", |_| Ok(())),
];

fn number(value: &str) -> std::result::Result<(), String> {
    match value.parse::<usize>() {
        Ok(n) if n > 0 => Ok(()),
        _ => Err(format!("takes a number above 0, not \"{value}\"")),
    }
}

fn path() -> PathBuf {
    super::paths::base().join("config.json")
}

/// All that is set.
pub(super) fn read() -> Result<BTreeMap<String, String>> {
    match fs::read(path()) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid(format_args!("{}: {e}", path().display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(e.into()),
    }
}

fn write(values: &BTreeMap<String, String>) -> Result<()> {
    let path = path();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // Whole or not at all.
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(values).map_err(Error::internal)?)?;
    Ok(fs::rename(new, path)?)
}

fn known(key: &str) -> Result<Check> {
    let found = KEYS.iter().find(|(k, _)| *k == key);
    found.map(|(_, check)| *check).ok_or_else(|| {
        let names: Vec<&str> = KEYS.iter().map(|(k, _)| *k).collect();
        Error::invalid(format_args!(
            "there is no setting \"{key}\"; there are {}",
            names.join(", ")
        ))
        .at("key")
    })
}

/// Sets a value.
pub(super) fn set(key: &str, value: &str) -> Result<()> {
    known(key)?(value).map_err(|why| Error::invalid(format_args!("{key} {why}")).at(key))?;
    let mut values = read()?;
    values.insert(key.to_owned(), value.to_owned());
    write(&values)
}

/// Keeps a value that is no setting of the user's, or takes it away.
pub(super) fn put(key: &str, value: Option<&str>) -> Result<()> {
    let mut values = read()?;
    match value {
        Some(value) => values.insert(key.to_owned(), value.to_owned()),
        None => values.remove(key),
    };
    write(&values)
}

/// Takes all values away.
pub(super) fn clear() -> Result<()> {
    match fs::remove_file(path()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Prints a value; an error when it is not set.
pub(super) fn get(key: &str) -> Result<()> {
    known(key)?;
    let value = read()?.remove(key);
    println!(
        "{}",
        value.ok_or_else(|| Error::not_found(format_args!("{key} is not set")))?
    );
    Ok(())
}

/// Takes a value away.
pub(super) fn unset(key: &str) -> Result<()> {
    known(key)?;
    let mut values = read()?;
    values.remove(key);
    write(&values)
}

/// Prints all values.
pub(super) fn view() -> Result<()> {
    for (key, value) in read()? {
        println!("- {key}: {value}");
    }
    Ok(())
}
