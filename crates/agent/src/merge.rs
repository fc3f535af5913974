//! Merging what a user wants with what the image says, as Docker does when a container is created.

use tripod_model::Result;
use tripod_model::container::{ContainerSpec, Mount, MountKind, MountOrigin, PortSpec};
use tripod_model::image::Image;

/// Fills `spec` with the image's configuration where the user said nothing.
pub(crate) fn with_image(spec: &mut ContainerSpec, image: &Image) -> Result<()> {
    let config = &image.config;
    spec.image_id.clone_from(&image.id);
    if spec.user.is_empty() {
        spec.user.clone_from(&config.user);
    }
    if spec.working_dir.is_empty() {
        spec.working_dir.clone_from(&config.working_dir);
    }
    // An entrypoint of the user's makes the image's command meaningless; one empty word takes the entrypoint away.
    let resets = spec.entrypoint.as_slice() == [""];
    if spec.entrypoint.is_empty() {
        if spec.command.is_empty() {
            spec.command.clone_from(&config.cmd);
        }
        spec.entrypoint.clone_from(&config.entrypoint);
    } else if resets {
        spec.entrypoint.clear();
    }
    merge_env(&mut spec.env, &config.env);
    for (key, value) in &config.labels {
        spec.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for port in &config.exposed_ports {
        let port = parse_port(port)?;
        if !spec.exposed_ports.contains(&port) {
            spec.exposed_ports.push(port);
        }
    }
    if spec.stop_signal.is_empty() {
        spec.stop_signal.clone_from(&config.stop_signal);
    }
    if spec.shell.is_empty() {
        spec.shell.clone_from(&config.shell);
    }
    merge_healthcheck(spec, image);
    for path in config.volumes.iter().chain(&spec.volumes.clone()) {
        if !spec.volumes.contains(path) {
            spec.volumes.push(path.clone());
        }
        let covered = spec.mounts.iter().any(|m| clean(&m.target) == clean(path));
        if !covered {
            spec.mounts.push(Mount {
                kind: MountKind::Volume,
                target: path.clone(),
                anonymous: true,
                origin: MountOrigin::Image,
                ..Mount::default()
            });
        }
    }
    Ok(())
}

fn merge_env(env: &mut Vec<String>, of_image: &[String]) {
    let name = |e: &str| e.split_once('=').map_or(e, |(n, _)| n).to_owned();
    let own: std::collections::HashSet<String> = env.iter().map(|e| name(e)).collect();
    let mut merged: Vec<String> = of_image
        .iter()
        .filter(|e| !own.contains(&name(e)))
        .cloned()
        .collect();
    // Docker lists the user's variables first; a name without a value is a wish to unset it, and stays told.
    env.append(&mut merged);
}

fn merge_healthcheck(spec: &mut ContainerSpec, image: &Image) {
    match (&mut spec.healthcheck, &image.config.healthcheck) {
        (None, Some(of_image)) => spec.healthcheck = Some(of_image.clone()),
        (Some(own), Some(of_image)) if own.test.is_empty() => {
            own.test.clone_from(&of_image.test);
            for (mine, theirs) in [
                (&mut own.interval, of_image.interval),
                (&mut own.timeout, of_image.timeout),
                (&mut own.start_period, of_image.start_period),
                (&mut own.start_interval, of_image.start_interval),
                (&mut own.retries, of_image.retries),
            ] {
                if *mine == 0 {
                    *mine = theirs;
                }
            }
        }
        _ => {}
    }
}

/// Parses `80`, `80/tcp`.
pub fn parse_port(text: &str) -> Result<PortSpec> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| {
        tripod_model::Error::invalid(format_args!("invalid port specification: \"{text}\""))
    })?;
    Ok(PortSpec {
        port,
        protocol: protocol.parse()?,
    })
}

/// A path without doubled or trailing slashes.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tripod_model::image::ImageConfig;

    fn image() -> Image {
        Image {
            config: ImageConfig {
                entrypoint: vec!["/entry".into()],
                cmd: vec!["serve".into()],
                env: vec!["PATH=/bin".into(), "MODE=image".into()],
                volumes: vec!["/data".into()],
                exposed_ports: vec!["80/tcp".into()],
                ..ImageConfig::default()
            },
            ..Image::default()
        }
    }

    #[test]
    fn commands() {
        let strings = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (entrypoint, command, want) in [
            (&[][..], &[][..], &["/entry", "serve"][..]),
            (&[], &["other"], &["/entry", "other"]),
            (&["sh"], &[], &["sh"]),
            (&[""], &["ls"], &["ls"]),
        ] {
            let mut spec = ContainerSpec {
                entrypoint: strings(entrypoint),
                command: strings(command),
                ..ContainerSpec::default()
            };
            with_image(&mut spec, &image()).unwrap();
            let line: Vec<_> = spec.entrypoint.iter().chain(&spec.command).cloned().collect();
            assert_eq!(line, want);
        }
    }

    #[test]
    fn environment_and_volumes() {
        let mut spec = ContainerSpec {
            env: vec!["MODE=user".into(), "GONE".into()],
            mounts: vec![Mount {
                target: "/data/".into(),
                source: "v".into(),
                ..Mount::default()
            }],
            ..ContainerSpec::default()
        };
        with_image(&mut spec, &image()).unwrap();
        assert_eq!(spec.env, ["MODE=user", "GONE", "PATH=/bin"]);
        assert_eq!(spec.mounts.len(), 1);
        assert_eq!(spec.exposed_ports[0].to_string(), "80/tcp");
    }

    #[test]
    fn clean_paths() {
        assert_eq!(clean("/a//b/../c/"), "/a/c");
        assert_eq!(clean("/.."), "/");
    }
}
