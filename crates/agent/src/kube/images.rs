//! Getting the image of a container, as its pull policy says and with the credentials of its pod.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tripod_model::ErrorKind;
use tripod_model::image::{Image, RegistryAuth};
use tripod_model::reference::Reference;

use super::actions::{Notifier, Waits};
use super::desc::{Desc, PodDesc};
use super::inputs::Inputs;
use crate::Agent;
use crate::ports::ProgressSink;

impl Agent {
    /// The image of a container.
    pub(super) async fn pod_image(
        &self,
        desc: &PodDesc,
        c: &Desc,
        inputs: &Inputs,
        notify: &Notifier,
    ) -> Result<Arc<Image>, Waits> {
        let name = c.container.image.clone().unwrap_or_default();
        let reference = Reference::parse(&name).map_err(|_| {
            let message = format!(
                "Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": invalid reference \
                 format"
            );
            notify.warn(c, "InspectFailed", &message);
            Waits::image("InvalidImageName", message)
        })?;
        let policy = policy(c, &reference);
        let here = self.images().get(&name).await.ok();
        match (policy, here) {
            ("Never", None) => {
                let message = format!("Container image \"{name}\" is not present with pull policy of Never");
                notify.warn(c, "ErrImageNeverPull", &message);
                Err(Waits::image("ErrImageNeverPull", message))
            }
            ("Never" | "IfNotPresent", Some(image)) => {
                let message = format!("Container image \"{name}\" already present on machine");
                notify.note(c, "Pulled", &message);
                Ok(image)
            }
            (policy, here) => self.pull(desc, c, inputs, notify, &reference, policy, here).await,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what there is to know of one pull")]
    async fn pull(
        &self,
        desc: &PodDesc,
        c: &Desc,
        inputs: &Inputs,
        notify: &Notifier,
        reference: &Reference,
        policy: &str,
        here: Option<Arc<Image>>,
    ) -> Result<Arc<Image>, Waits> {
        let name = c.container.image.as_deref().unwrap_or_default();
        notify.note(c, "Pulling", &format!("Pulling image \"{name}\""));
        let begun = Instant::now();
        let keys = credentials(desc, inputs, reference);
        let pull = |progress| self.pull_with(reference, keys, progress);
        // With `Always` the registry's word counts; what is here stands in for a silent one before what is elsewhere.
        let pulled = match policy {
            "Always" => {
                let (progress, _) = mpsc::unbounded_channel();
                pull(progress).await
            }
            _ => self.pull_or_take_over(reference, pull).await,
        };
        let error = match pulled {
            Ok(image) => {
                let took = begun.elapsed();
                let text = format!(
                    "Successfully pulled image \"{name}\" in {took:.3?} ({took:.3?} including waiting). Image size: {} \
                     bytes.",
                    image.size
                );
                notify.note(c, "Pulled", &text);
                return Ok(image);
            }
            Err(e) => e,
        };
        // A registry that says no is obeyed; one that says nothing is not needed where the image is to be had.
        let silent = !matches!(
            error.kind,
            ErrorKind::NotFound | ErrorKind::Forbidden | ErrorKind::Unauthorized | ErrorKind::Invalid
        );
        if silent || reference.digest.is_some() {
            let (found, place) = match here {
                Some(image) => (Some(image), "already present on machine"),
                None => (
                    self.take_over(reference).await.ok().flatten(),
                    "taken over from another node",
                ),
            };
            if let Some(image) = found {
                let text = format!(
                    "Container image \"{name}\" {place}; its registry does not answer: {}",
                    error.message
                );
                notify.note(c, "Pulled", &text);
                return Ok(image);
            }
        }
        let message = format!(
            "failed to pull and unpack image \"{}\": {}",
            reference.familiar(),
            error.message
        );
        notify.warn(
            c,
            "Failed",
            &format!("Failed to pull image \"{name}\": {message}"),
        );
        notify.warn(c, "Failed", "Error: ErrImagePull");
        Err(Waits::image("ErrImagePull", message))
    }

    /// Pulls with each of the credentials until the registry accepts one, at last without any.
    async fn pull_with(
        &self,
        reference: &Reference,
        keys: Vec<RegistryAuth>,
        progress: ProgressSink,
    ) -> tripod_model::Result<Arc<Image>> {
        for auth in keys {
            let pulled = self
                .images()
                .pull(reference, false, None, Some(auth), progress.clone());
            if let Ok(image) = pulled.await {
                return Ok(image);
            }
        }
        self.images().pull(reference, false, None, None, progress).await
    }
}

/// `Always`, `IfNotPresent`, `Never`.
fn policy<'a>(c: &'a Desc, reference: &Reference) -> &'a str {
    match c.container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if reference.digest.is_none() && reference.tag.as_deref().is_none_or(|t| t == "latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// The credentials in the pod's pull secrets that are for the image's registry, the best match first.
fn credentials(desc: &PodDesc, inputs: &Inputs, reference: &Reference) -> Vec<RegistryAuth> {
    let mut found: Vec<(usize, RegistryAuth)> = Vec::new();
    for secret in desc.spec.image_pull_secrets.iter().flatten() {
        let Some(data) = inputs.secret(desc.namespace(), &secret.name) else {
            continue;
        };
        let config = data
            .data
            .get(".dockerconfigjson")
            .or_else(|| data.data.get(".dockercfg"));
        let Some(config) = config.and_then(|b| serde_json::from_slice::<Value>(&b.0).ok()) else {
            continue;
        };
        let auths = config.get("auths").unwrap_or(&config).as_object().cloned();
        for (server, entry) in auths.into_iter().flatten() {
            if let Some(length) = serves(&server, reference)
                && let Some(auth) = auth(&server, &entry)
            {
                found.push((length, auth));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

/// Whether a key of a docker configuration is for an image: the length of the match.
fn serves(server: &str, reference: &Reference) -> Option<usize> {
    let server = server
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .trim_end_matches("/v1")
        .trim_end_matches("/v2");
    let server = match server {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    let image = format!("{}/{}", reference.domain, reference.path);
    let prefix = image.strip_prefix(server)?;
    (prefix.is_empty() || prefix.starts_with('/')).then_some(server.len())
}

fn auth(server: &str, entry: &Value) -> Option<RegistryAuth> {
    let text = |key: &str| {
        entry
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (mut username, mut password) = (text("username"), text("password"));
    if let Some(decoded) = base64::engine::general_purpose::STANDARD
        .decode(text("auth"))
        .ok()
        .and_then(|b| String::from_utf8(b).ok())
        && let Some((user, pass)) = decoded.split_once(':')
    {
        (username, password) = (user.to_owned(), pass.to_owned());
    }
    let identity_token = text("identitytoken");
    if username.is_empty() && identity_token.is_empty() {
        return None;
    }
    Some(RegistryAuth {
        username,
        password,
        identity_token,
        server_address: server.to_owned(),
        ..RegistryAuth::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_for_registries_and_repositories() {
        let image = |name: &str| Reference::parse(name).unwrap();
        for (server, name, want) in [
            ("https://index.docker.io/v1/", "busybox", true),
            ("docker.io", "busybox", true),
            ("registry.example:5000", "registry.example:5000/a/b", true),
            ("registry.example:5000/a", "registry.example:5000/a/b", true),
            ("registry.example:5000/x", "registry.example:5000/a/b", false),
            ("registry.example", "registry.example:5000/a/b", false),
        ] {
            assert_eq!(serves(server, &image(name)).is_some(), want, "{server} {name}");
        }
        let entry = serde_json::json!({"auth": "dXNlcjpwYTpzcw=="});
        let auth = auth("x", &entry).unwrap();
        assert_eq!(
            (auth.username.as_str(), auth.password.as_str()),
            ("user", "pa:ss")
        );
    }
}
