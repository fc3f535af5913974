//! Rules for a container's own configuration.

use tripod_model::{Error, Result};

use crate::wire::container::CreateBody;

/// What the real daemon refuses before it looks at anything else.
pub(crate) fn config(body: &CreateBody) -> Result<()> {
    if body.image.is_empty() {
        return Err(Error::invalid("no image specified").at("Image"));
    }
    for env in &body.env {
        if env.is_empty() || env.starts_with('=') || env.contains('\0') {
            return Err(Error::invalid(format_args!("invalid environment variable: {env}")).at("Env"));
        }
    }
    if !body.working_dir.is_empty() && !body.working_dir.starts_with('/') {
        return Err(Error::invalid(format_args!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            body.working_dir
        ))
        .at("WorkingDir"));
    }
    if !body.stop_signal.is_empty() {
        tripod_agent::signals::parse(&body.stop_signal)?;
    }
    hostname(&body.hostname)?;
    for word in body.cmd.0.iter().chain(body.entrypoint.iter().flat_map(|w| &w.0)) {
        if word.contains('\0') {
            return Err(Error::invalid("invalid argument: a word of the command contains a NUL").at("Cmd"));
        }
    }
    Ok(())
}

/// Letters, digits, dots and hyphens, at most 63 bytes in a part and 253 in all.
fn hostname(name: &str) -> Result<()> {
    let part = |p: &str| {
        !p.is_empty()
            && p.len() <= 63
            && !p.starts_with('-')
            && !p.ends_with('-')
            && p.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.is_empty() || (name.len() <= 253 && name.split('.').all(part)) {
        return Ok(());
    }
    Err(Error::invalid(format_args!("invalid hostname format: {name}")).at("Hostname"))
}
