//! The docker client's context of a local cluster, in the client's own store (`~/.docker/contexts`).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tripod_model::{Error, Result};

/// Writes the context; an existing one of that name is replaced.
pub(super) fn write(name: &str, socket: &Path) -> Result<()> {
    let dir = dir_of(name)?;
    fs::create_dir_all(&dir)?;
    let meta = json!({
        "Name": name,
        "Metadata": {"Description": format!("local cluster {name} of tripod")},
        "Endpoints": {"docker": {"Host": format!("unix://{}", socket.display()), "SkipTLSVerify": false}},
    });
    // Whole or not at all: a client may read at this moment.
    let draft = dir.join("meta.json.new");
    fs::write(&draft, meta.to_string())?;
    fs::rename(draft, dir.join("meta.json"))?;
    Ok(())
}

/// Removes the context.
pub(super) fn remove(name: &str) -> Result<()> {
    match fs::remove_dir_all(dir_of(name)?) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Contexts are kept under the SHA-256 of their name.
fn dir_of(name: &str) -> Result<PathBuf> {
    let config = match (std::env::var_os("DOCKER_CONFIG"), std::env::var_os("HOME")) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(home)) => PathBuf::from(home).join(".docker"),
        (None, None) => return Err(Error::invalid("neither HOME nor DOCKER_CONFIG is set")),
    };
    Ok(config
        .join("contexts/meta")
        .join(hex::encode(Sha256::digest(name))))
}
