//! The user's AWS profile of a local cluster, in `~/.aws/config` and `~/.aws/credentials`: a section of its name, put in and
//! taken out; every other line stays as it is.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tripod_model::{Error, Result};

/// Writes the profile `name` from the environment that `tripod aws-env` prints.
pub(super) fn write(name: &str, environment: &[(String, String)]) -> Result<()> {
    let value = |key: &str| {
        environment
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    };
    let lines = |pairs: &[(&str, &str)]| -> Vec<String> {
        pairs
            .iter()
            .filter_map(|(option, variable)| Some(format!("{option} = {}", value(variable)?)))
            .collect()
    };
    let config = lines(&[
        ("region", "AWS_DEFAULT_REGION"),
        ("endpoint_url", "AWS_ENDPOINT_URL"),
    ]);
    let credentials = lines(&[
        ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
        ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ]);
    change(
        "AWS_CONFIG_FILE",
        "config",
        &format!("profile {name}"),
        Some(&config),
    )?;
    change(
        "AWS_SHARED_CREDENTIALS_FILE",
        "credentials",
        name,
        Some(&credentials),
    )
}

/// Takes the profile away.
pub(super) fn remove(name: &str) -> Result<()> {
    change("AWS_CONFIG_FILE", "config", &format!("profile {name}"), None)?;
    change("AWS_SHARED_CREDENTIALS_FILE", "credentials", name, None)
}

fn change(variable: &str, file: &str, section: &str, lines: Option<&[String]>) -> Result<()> {
    let path = match (std::env::var_os(variable), std::env::var_os("HOME")) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(home)) => PathBuf::from(home).join(".aws").join(file),
        (None, None) => return Err(Error::invalid("HOME is not set")),
    };
    if lines.is_none() && !path.exists() {
        return Ok(());
    }
    let before = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e.into()),
    };
    let after = edit(&before, section, lines);
    if after == before {
        return Ok(());
    }
    replace(&path, &after)
}

fn replace(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let draft = path.with_extension("tripod-new");
    let _ = fs::remove_file(&draft);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    if let Ok(meta) = fs::metadata(path) {
        file.set_permissions(meta.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    Ok(fs::rename(draft, path)?)
}

/// The text with the section replaced, appended or taken out.
fn edit(text: &str, section: &str, lines: Option<&[String]>) -> String {
    let header = format!("[{section}]");
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        if line.trim_start().starts_with('[') {
            inside = line.trim() == header;
        }
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    if let Some(lines) = lines {
        kept.push_str(&header);
        kept.push('\n');
        for line in lines {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::edit;

    #[test]
    fn sections_come_and_go_and_others_stay() {
        let before = "# mine\n[default]\nregion = eu-central-1\n\n[profile x]\na = 1\n";
        let lines = vec!["region = r".to_owned()];
        let with = edit(before, "profile tripod", Some(&lines));
        assert!(with.starts_with(before) && with.ends_with("[profile tripod]\nregion = r\n"));
        assert_eq!(edit(&with, "profile tripod", Some(&lines)), with);
        assert_eq!(edit(&with, "profile tripod", None), before);
        assert_eq!(
            edit(before, "profile x", None),
            "# mine\n[default]\nregion = eu-central-1\n\n"
        );
    }
}
