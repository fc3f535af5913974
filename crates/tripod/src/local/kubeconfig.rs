//! The user's kubeconfig: a cluster's entries are put into it and taken out again; nothing else in it is touched.
//!
//! As the official clients do, the file is locked by `FILE.lock` and replaced as a whole. `$KUBECONFIG` may list several
//! files: the one that has the context is changed, else the first.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_yaml::{Mapping, Value};
use tripod_model::{Error, Result};

/// How long another client may hold the lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// Files that kubectl would read, in its order.
pub(super) fn files(explicit: Option<&Path>) -> Result<Vec<PathBuf>> {
    if let Some(path) = explicit {
        return Ok(vec![path.to_owned()]);
    }
    let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
        .map(|v| {
            std::env::split_paths(&v)
                .filter(|p| !p.as_os_str().is_empty())
                .collect()
        })
        .unwrap_or_default();
    if !listed.is_empty() {
        return Ok(listed);
    }
    let home = std::env::var_os("HOME").ok_or_else(|| Error::invalid("HOME is not set"))?;
    Ok(vec![PathBuf::from(home).join(".kube/config")])
}

/// Puts what `added` (a whole kubeconfig with one cluster, user and context, all named `name`) says into the user's
/// file, and makes it the current context.
pub(super) fn add(explicit: Option<&Path>, name: &str, added: &str) -> Result<()> {
    let added: Value = serde_yaml::from_str(added).map_err(Error::internal)?;
    let files = files(explicit)?;
    let holds = |p: &&PathBuf| read(p).is_ok_and(|v| v.as_ref().is_some_and(|v| has(v, name)));
    let file = files.iter().find(holds).unwrap_or(&files[0]);
    change(file, |config| {
        for list in ["clusters", "contexts", "users"] {
            let entry = added.get(list).and_then(|l| l.get(0)).cloned();
            let entry = entry.ok_or_else(|| Error::internal(format_args!("no {list} to add")))?;
            put(config, list, name, entry);
        }
        config.insert("current-context".into(), name.into());
        Ok(())
    })?;
    // The first file that names a current context decides.
    for other in files.iter().filter(|f| *f != file && f.exists()) {
        let named = read(other)?.is_some_and(|v| v.get("current-context").is_some());
        if named {
            change(other, |config| {
                config.insert("current-context".into(), name.into());
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Takes the cluster's entries out of every file that has them.
pub(super) fn remove(explicit: Option<&Path>, name: &str) -> Result<()> {
    for file in files(explicit)?.iter().filter(|f| f.exists()) {
        if !read(file)?.is_some_and(|v| has(&v, name)) {
            continue;
        }
        change(file, |config| {
            for list in ["clusters", "contexts", "users"] {
                if let Some(Value::Sequence(entries)) = config.get_mut(list) {
                    entries.retain(|e| e.get("name").and_then(Value::as_str) != Some(name));
                }
            }
            if config.get("current-context").and_then(Value::as_str) == Some(name) {
                config.insert("current-context".into(), "".into());
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Whether the user's files have a context of that name which leads to `server`.
pub(super) fn leads_to(name: &str, server: &str) -> bool {
    let Ok(files) = files(None) else { return false };
    files.iter().any(|f| {
        let Ok(Some(config)) = read(f) else { return false };
        let url = entry(&config, "clusters", name).and_then(|c| c.get("cluster")?.get("server")?.as_str());
        url == Some(server) && entry(&config, "contexts", name).is_some()
    })
}

/// The current context of the user's files.
pub(super) fn current_context(explicit: Option<&Path>) -> Result<Option<String>> {
    for file in files(explicit)? {
        let named = read(&file)?.and_then(|c| Some(c.get("current-context")?.as_str()?.to_owned()));
        if let Some(name) = named.filter(|n| !n.is_empty()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Makes a context the current one, in the file that names one.
pub(super) fn use_context(explicit: Option<&Path>, name: &str) -> Result<()> {
    let files = files(explicit)?;
    let names = |p: &&PathBuf| read(p).is_ok_and(|v| v.is_some_and(|v| v.get("current-context").is_some()));
    let file = files.iter().find(names).unwrap_or(&files[0]);
    change(file, |config| {
        config.insert("current-context".into(), name.into());
        Ok(())
    })
}

/// Sets the namespace of a context, in the file that has it.
pub(super) fn set_namespace(explicit: Option<&Path>, name: &str, namespace: &str) -> Result<()> {
    let files = files(explicit)?;
    let has = |p: &&PathBuf| read(p).is_ok_and(|v| v.is_some_and(|v| entry(&v, "contexts", name).is_some()));
    let Some(file) = files.iter().find(has) else {
        return Ok(());
    };
    change(file, |config| {
        let contexts = config.get_mut("contexts").and_then(Value::as_sequence_mut);
        for c in contexts.into_iter().flatten() {
            if c.get("name").and_then(Value::as_str) == Some(name)
                && let Some(context) = c.get_mut("context").and_then(Value::as_mapping_mut)
            {
                context.insert("namespace".into(), namespace.into());
            }
        }
        Ok(())
    })
}

fn entry<'a>(config: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    let entries = config.get(list)?.as_sequence()?;
    entries
        .iter()
        .find(|e| e.get("name").and_then(Value::as_str) == Some(name))
}

fn has(config: &Value, name: &str) -> bool {
    ["clusters", "contexts", "users"]
        .iter()
        .any(|list| entry(config, list, name).is_some())
}

fn put(config: &mut Mapping, list: &str, name: &str, entry: Value) {
    let slot = config
        .entry(list.into())
        .or_insert_with(|| Value::Sequence(Vec::new()));
    if !slot.is_sequence() {
        *slot = Value::Sequence(Vec::new());
    }
    let Value::Sequence(entries) = slot else { return };
    let old = entries
        .iter_mut()
        .find(|e| e.get("name").and_then(Value::as_str) == Some(name));
    match old {
        Some(old) => *old = entry,
        None => entries.push(entry),
    }
}

fn read(path: &Path) -> Result<Option<Value>> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => serde_yaml::from_str(&text)
            .map(Some)
            .map_err(|e| Error::invalid(format_args!("{} is not a kubeconfig: {e}", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Takes the lock away when it is dropped.
struct Lock(PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn lock(path: &Path) -> Result<Lock> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = PathBuf::from(name);
    let begun = Instant::now();
    loop {
        match fs::OpenOptions::new().write(true).create_new(true).open(&file) {
            Ok(_) => return Ok(Lock(file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::internal(format_args!("{}: {e}", file.display()))),
        }
        if begun.elapsed() > PATIENCE {
            return Err(Error::unavailable(format_args!(
                "{} is locked by another program: remove {} if none runs",
                path.display(),
                file.display()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Changes a kubeconfig: whole or not at all, with its owner and mode kept.
fn change(path: &Path, edit: impl FnOnce(&mut Mapping) -> Result<()>) -> Result<()> {
    // A link stays a link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let _lock = lock(path)?;
    let mut config = match read(path)? {
        None => serde_yaml::from_str("apiVersion: v1\nkind: Config\npreferences: {}\n")
            .map_err(Error::internal)?,
        Some(Value::Mapping(m)) => m,
        Some(_) => {
            return Err(Error::invalid(format_args!(
                "{} is not a kubeconfig",
                path.display()
            )));
        }
    };
    edit(&mut config)?;
    let text = serde_yaml::to_string(&config).map_err(Error::internal)?;
    let before = fs::metadata(path).ok();
    let draft = path.with_extension("tripod-new");
    let _ = fs::remove_file(&draft);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    if let Some(before) = before {
        file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))?;
        let _ = std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()));
    }
    file.sync_all()?;
    Ok(fs::rename(draft, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: prod\n  cluster: {server: 'https://prod'}\n\
                         contexts:\n- name: prod\n  context: {cluster: prod, user: me}\ncurrent-context: prod\n\
                         users:\n- name: me\n  user: {token: secret}\n";
    const OURS: &str = "clusters: [{name: a, cluster: {server: 'https://a'}}]\n\
                        contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {}}]\n";

    #[test]
    fn what_was_added_is_taken_out_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        fs::write(&file, OTHER).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        add(Some(&file), "a", OURS).unwrap();
        let config = read(&file).unwrap().unwrap();
        assert!(has(&config, "a") && has(&config, "prod"));
        assert_eq!(config["current-context"], Value::from("a"));
        add(Some(&file), "a", OURS).unwrap();
        assert_eq!(
            read(&file).unwrap().unwrap()["clusters"]
                .as_sequence()
                .unwrap()
                .len(),
            2
        );
        remove(Some(&file), "a").unwrap();
        let mut before: Value = serde_yaml::from_str(OTHER).unwrap();
        before["current-context"] = "".into();
        assert_eq!(read(&file).unwrap().unwrap(), before);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        fs::write(&file, "- a list\n").unwrap();
        assert!(add(Some(&file), "a", OURS).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "- a list\n");
        fs::write(&file, "").unwrap();
        add(Some(&file), "a", OURS).unwrap();
        assert!(has(&read(&file).unwrap().unwrap(), "a"));
    }
}
