//! The files of volumes that are made of data: ConfigMaps, Secrets, the downward API, tokens, and several together.

use tripod_model::k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ServiceAccountTokenProjection, Volume,
};
use tripod_model::session::{ConfigData, TokenRequest};
use tripod_model::{Error, Result, Time};

use super::atomic::{File, Payload};
use super::desc::PodDesc;
use super::env::{self, Addresses};
use super::inputs::{Inputs, renewal};
use super::volumes::fs_group;

/// When files change by themselves (tokens); `None` is never.
pub(super) type Rotation = Option<Time>;

/// The mode of files where nobody says.
const MODE: i32 = 0o644;

pub(super) fn sooner(a: Rotation, b: Rotation) -> Rotation {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Whether a volume is made of data.
pub(super) fn is_data(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

/// The files of a volume.
///
/// # Errors
/// [`tripod_model::ErrorKind::NotFound`] for a ConfigMap, Secret or key that is missing and not optional.
pub(super) async fn render(
    desc: &PodDesc,
    inputs: &Inputs,
    addresses: &Addresses,
    volume: &Volume,
) -> Result<(Payload, Rotation)> {
    let mut out = Payload::new();
    let mut rotation = None;
    let group = fs_group(desc).is_some();
    if let Some(s) = &volume.config_map {
        let data = config_map(desc, inputs, &s.name, s.optional)?;
        add(
            &mut out,
            data,
            s.items.as_deref(),
            s.default_mode,
            s.optional,
            group,
        )?;
    }
    if let Some(s) = &volume.secret {
        let name = s.secret_name.as_deref().unwrap_or_default();
        let data = secret(desc, inputs, name, s.optional)?;
        add(
            &mut out,
            data,
            s.items.as_deref(),
            s.default_mode,
            s.optional,
            group,
        )?;
    }
    if let Some(s) = &volume.downward_api {
        downward(
            &mut out,
            desc,
            inputs,
            addresses,
            s.items.as_deref(),
            s.default_mode,
        )?;
    }
    if let Some(p) = &volume.projected {
        let mode = p.default_mode;
        for s in p.sources.iter().flatten() {
            if let Some(c) = &s.config_map {
                let data = config_map(desc, inputs, &c.name, c.optional)?;
                add(&mut out, data, c.items.as_deref(), mode, c.optional, group)?;
            }
            if let Some(c) = &s.secret {
                let data = secret(desc, inputs, &c.name, c.optional)?;
                add(&mut out, data, c.items.as_deref(), mode, c.optional, group)?;
            }
            if let Some(d) = &s.downward_api {
                downward(&mut out, desc, inputs, addresses, d.items.as_deref(), mode)?;
            }
            if let Some(t) = &s.service_account_token {
                rotation = sooner(rotation, Some(token(&mut out, desc, inputs, t, mode).await?));
            }
            if s.cluster_trust_bundle.is_some() || s.pod_certificate.is_some() {
                return Err(Error::not_implemented(
                    "projected trust bundles and pod certificates are not implemented",
                ));
            }
        }
    }
    Ok((out, rotation))
}

fn config_map(desc: &PodDesc, inputs: &Inputs, name: &str, optional: Option<bool>) -> Result<ConfigData> {
    missing(
        inputs.config_map(desc.namespace(), name),
        "configmap",
        name,
        optional,
    )
}

fn secret(desc: &PodDesc, inputs: &Inputs, name: &str, optional: Option<bool>) -> Result<ConfigData> {
    missing(inputs.secret(desc.namespace(), name), "secret", name, optional)
}

fn missing(found: Option<ConfigData>, kind: &str, name: &str, optional: Option<bool>) -> Result<ConfigData> {
    match found {
        Some(data) => Ok(data),
        None if optional.unwrap_or(false) => Ok(ConfigData::default()),
        None => Err(Error::not_found(format_args!("{kind} \"{name}\" not found"))),
    }
}

/// A mode as a file gets it: what a group owns it may read.
fn mode(of_item: Option<i32>, of_volume: Option<i32>, group: bool) -> u32 {
    let mode = of_item.or(of_volume).unwrap_or(MODE) as u32;
    if group { mode | 0o440 } else { mode }
}

fn add(
    out: &mut Payload,
    data: ConfigData,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: Option<bool>,
    group: bool,
) -> Result<()> {
    match items.filter(|i| !i.is_empty()) {
        None => {
            for (key, value) in data.data {
                let file = File {
                    data: value.0,
                    mode: mode(None, default_mode, group),
                    uid: None,
                };
                out.insert(key, file);
            }
        }
        Some(items) => {
            for item in items {
                let Some(value) = data.data.get(&item.key) else {
                    if optional.unwrap_or(false) {
                        continue;
                    }
                    return Err(Error::not_found(format_args!(
                        "references non-existent config key: {}",
                        item.key
                    )));
                };
                let file = File {
                    data: value.0.clone(),
                    mode: mode(item.mode, default_mode, group),
                    uid: None,
                };
                out.insert(item.path.clone(), file);
            }
        }
    }
    Ok(())
}

fn downward(
    out: &mut Payload,
    desc: &PodDesc,
    inputs: &Inputs,
    addresses: &Addresses,
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: Option<i32>,
) -> Result<()> {
    for item in items.into_iter().flatten() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(f), _) => env::field(desc, addresses, f)?,
            (None, Some(r)) => match desc.containers.first() {
                Some(c) => env::resource(desc, &c.container, r, &inputs.node())?,
                None => String::new(),
            },
            (None, None) => String::new(),
        };
        let file = File {
            data: text.into_bytes(),
            mode: mode(item.mode, default_mode, fs_group(desc).is_some()),
            uid: None,
        };
        out.insert(item.path.clone(), file);
    }
    Ok(())
}

async fn token(
    out: &mut Payload,
    desc: &PodDesc,
    inputs: &Inputs,
    t: &ServiceAccountTokenProjection,
    default_mode: Option<i32>,
) -> Result<Time> {
    let account = desc.spec.service_account_name.as_deref().unwrap_or("default");
    let request = TokenRequest {
        namespace: desc.namespace().to_owned(),
        pod: desc.name().to_owned(),
        pod_uid: desc.uid().to_owned(),
        service_account: account.to_owned(),
        audiences: t.audience.iter().filter(|a| !a.is_empty()).cloned().collect(),
        expiration_seconds: t.expiration_seconds,
    };
    let token = inputs.token(request).await?;
    let (uid, group) = (only_user(desc), fs_group(desc).is_some());
    let own = uid.is_some() || group;
    let base = if own {
        0o600
    } else {
        mode(None, default_mode, false)
    };
    let file = File {
        data: token.token.into_bytes(),
        mode: if group { base | 0o440 } else { base },
        uid,
    };
    out.insert(t.path.clone(), file);
    Ok(renewal(Time::now(), token.expires_at))
}

/// The user as whom all containers run, when it is one.
fn only_user(desc: &PodDesc) -> Option<u32> {
    let of_pod = desc.spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users = desc.containers.iter().map(|c| {
        let own = c.container.security_context.as_ref().and_then(|s| s.run_as_user);
        own.or(of_pod)
    });
    let first = users.next()??;
    users
        .all(|u| u == Some(first))
        .then(|| u32::try_from(first).ok())
        .flatten()
}
