//! An image made of a container.

use serde_json::json;
use tripod_model::container::ContainerSpec;
use tripod_model::image::ImageConfig;
use tripod_model::reference::Reference;

use crate::Docker;
use crate::call::Call;
use crate::fault::Fault;
use crate::reply::{self, Reply};
use crate::translate::create::healthcheck;
use crate::wire::container::CreateBody;

pub(crate) async fn commit(docker: &Docker, call: Call) -> Reply {
    let query = |name: &str| call.query.text(name).to_owned();
    let (container, comment, author) = (query("container"), query("comment"), query("author"));
    let name = name(&query("repo"), &query("tag"))?;
    let pause = call.query.flag_or("pause", true);
    let changes: Vec<String> = call
        .query
        .all("changes")
        .flat_map(str::lines)
        .map(str::to_owned)
        .collect();
    let body: CreateBody = call.json_or_default().await?;
    let agent = docker.agent();
    let record = agent.container(&container)?;
    let mut config = config(&record.spec);
    overlay(&mut config, body)?;
    let config = agent.images().apply_changes(config, &changes)?;
    let freeze = pause && record.state.status == tripod_model::container::ContainerStatus::Running;
    // One that ends meanwhile needs no pause.
    let frozen = freeze && agent.pause_container(&record.id).await.is_ok();
    let made = agent
        .images()
        .commit(&record.id, &record.spec.image_id, config, author, comment, name)
        .await;
    if frozen {
        agent.unpause_container(&record.id).await?;
    }
    reply::created(&json!({ "Id": made?.id }))
}

/// Repository and tag as one name; no repository is no name.
pub(crate) fn name(repo: &str, tag: &str) -> Result<Option<Reference>, Fault> {
    if repo.is_empty() {
        return Ok(None);
    }
    let text = if tag.is_empty() {
        repo.to_owned()
    } else {
        format!("{repo}:{tag}")
    };
    let name = Reference::parse(&text)?;
    if name.digest.is_some() {
        return Err(Fault::bad("refusing to create a tag with a digest reference"));
    }
    Ok(Some(name))
}

/// What a container of the new image runs: what this one runs.
fn config(spec: &ContainerSpec) -> ImageConfig {
    ImageConfig {
        user: spec.user.clone(),
        env: spec.env.clone(),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.command.clone(),
        working_dir: spec.working_dir.clone(),
        labels: spec.labels.clone(),
        exposed_ports: spec.exposed_ports.iter().map(ToString::to_string).collect(),
        volumes: spec.volumes.clone(),
        stop_signal: spec.stop_signal.clone(),
        healthcheck: spec.healthcheck.clone(),
        shell: spec.shell.clone(),
        on_build: Vec::new(),
    }
}

/// What the client says in the body wins.
fn overlay(config: &mut ImageConfig, body: CreateBody) -> Result<(), Fault> {
    let text = |slot: &mut String, value: String| {
        if !value.is_empty() {
            *slot = value;
        }
    };
    let words = |slot: &mut Vec<String>, value: Vec<String>| {
        if !value.is_empty() {
            *slot = value;
        }
    };
    text(&mut config.user, body.user);
    text(&mut config.working_dir, body.working_dir);
    text(&mut config.stop_signal, body.stop_signal);
    words(&mut config.cmd, body.cmd.0);
    words(&mut config.entrypoint, body.entrypoint.unwrap_or_default().0);
    words(&mut config.shell, body.shell);
    for variable in body.env {
        let key = |v: &str| v.split_once('=').map_or(v, |(k, _)| k).to_owned();
        config.env.retain(|v| key(v) != key(&variable));
        config.env.push(variable);
    }
    config.labels.extend(body.labels);
    for port in body
        .exposed_ports
        .into_keys()
        .filter(|p| !config.exposed_ports.contains(p))
        .collect::<Vec<_>>()
    {
        config.exposed_ports.push(port);
    }
    for volume in body
        .volumes
        .into_keys()
        .filter(|v| !config.volumes.contains(v))
        .collect::<Vec<_>>()
    {
        config.volumes.push(volume);
    }
    if let Some(h) = body.healthcheck {
        config.healthcheck = Some(healthcheck(&h)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bodies() {
        assert_eq!(name("", "x").unwrap(), None);
        assert_eq!(name("me/app", "1").unwrap().unwrap().familiar(), "me/app:1");
        assert!(name("Bad", "").is_err());
        let mut c = ImageConfig {
            env: vec!["A=1".into(), "B=2".into()],
            cmd: vec!["x".into()],
            ..ImageConfig::default()
        };
        let body = crate::decode::decode::<CreateBody>(br#"{"Env":["A=9"],"Cmd":["y"]}"#).unwrap();
        overlay(&mut c, body).unwrap();
        assert_eq!(
            (c.env, c.cmd),
            (vec!["B=2".to_owned(), "A=9".into()], vec!["y".to_owned()])
        );
    }
}
