//! An image's configuration document (OCI image spec, `config.md`, and the fields Docker adds) to and from the
//! neutral [`Image`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tripod_model::container::HealthCheck;
use tripod_model::image::{HistoryEntry, Image, ImageConfig, Platform};
use tripod_model::{Error, Result, Time};

/// Most layers of an image: what overlayfs stacks.
pub(crate) const MAX_LAYERS: usize = 500;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Document {
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    os: String,
    created: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    config: Option<Inner>,
    rootfs: RootFs,
    history: Option<Vec<Step>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Option<Vec<String>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Step {
    created: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    empty_layer: Option<bool>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inner {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposed_ports: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volumes: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Health>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_build: Option<Vec<String>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Health {
    test: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_zero")]
    interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// Reads a configuration. What the store adds (names, sizes) stays empty.
pub(crate) fn parse(id: &str, bytes: &[u8]) -> Result<Image> {
    let d: Document = serde_json::from_slice(bytes)
        .map_err(|e| Error::invalid(format!("invalid image configuration: {e}")))?;
    let diff_ids = d.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() > MAX_LAYERS {
        return Err(Error::invalid(format!(
            "max depth exceeded: image has {} layers",
            diff_ids.len()
        )));
    }
    if let Some(bad) = diff_ids.iter().find(|d| !super::digest::is_digest(d)) {
        return Err(Error::invalid(format!(
            "invalid image configuration: diff_id {bad:?} is not a digest"
        )));
    }
    let c = d.config.unwrap_or_default();
    let keys = |m: Option<BTreeMap<String, Value>>| m.unwrap_or_default().into_keys().collect();
    Ok(Image {
        id: id.to_owned(),
        created: d.created,
        architecture: d.architecture,
        variant: d.variant.unwrap_or_default(),
        os: d.os,
        author: d.author.unwrap_or_default(),
        comment: d.comment.unwrap_or_default(),
        diff_ids,
        config: ImageConfig {
            user: c.user.unwrap_or_default(),
            env: c.env.unwrap_or_default(),
            entrypoint: c.entrypoint.unwrap_or_default(),
            cmd: c.cmd.unwrap_or_default(),
            working_dir: c.working_dir.unwrap_or_default(),
            labels: c.labels.unwrap_or_default(),
            exposed_ports: keys(c.exposed_ports),
            volumes: keys(c.volumes),
            stop_signal: c.stop_signal.unwrap_or_default(),
            healthcheck: c.healthcheck.map(|h| HealthCheck {
                test: h.test.unwrap_or_default(),
                interval: h.interval,
                timeout: h.timeout,
                start_period: h.start_period,
                start_interval: h.start_interval,
                retries: h.retries,
            }),
            shell: c.shell.unwrap_or_default(),
            on_build: c.on_build.unwrap_or_default(),
        },
        history: d.history.unwrap_or_default().into_iter().map(step).collect(),
        ..Image::default()
    })
}

fn step(s: Step) -> HistoryEntry {
    HistoryEntry {
        created: s.created,
        created_by: s.created_by.unwrap_or_default(),
        comment: s.comment.unwrap_or_default(),
        empty_layer: s.empty_layer.unwrap_or(false),
        size: 0,
    }
}

/// Writes the configuration of an image made here (`commit`, `import`).
pub(crate) fn render(image: &Image) -> Result<Vec<u8>> {
    fn text(s: &str) -> Option<String> {
        (!s.is_empty()).then(|| s.to_owned())
    }
    fn list(l: &[String]) -> Option<Vec<String>> {
        (!l.is_empty()).then(|| l.to_vec())
    }
    fn keys(l: &[String]) -> Option<BTreeMap<String, Value>> {
        let object = || Value::Object(serde_json::Map::new());
        (!l.is_empty()).then(|| l.iter().map(|k| (k.clone(), object())).collect())
    }
    let c = &image.config;
    let document = Document {
        architecture: image.architecture.clone(),
        variant: text(&image.variant),
        os: image.os.clone(),
        created: image.created,
        author: text(&image.author),
        comment: text(&image.comment),
        config: Some(Inner {
            user: text(&c.user),
            exposed_ports: keys(&c.exposed_ports),
            env: list(&c.env),
            entrypoint: list(&c.entrypoint),
            cmd: list(&c.cmd),
            volumes: keys(&c.volumes),
            working_dir: text(&c.working_dir),
            labels: (!c.labels.is_empty()).then(|| c.labels.clone()),
            stop_signal: text(&c.stop_signal),
            healthcheck: c.healthcheck.as_ref().map(|h| Health {
                test: Some(h.test.clone()),
                interval: h.interval,
                timeout: h.timeout,
                start_period: h.start_period,
                start_interval: h.start_interval,
                retries: h.retries,
            }),
            shell: list(&c.shell),
            on_build: list(&c.on_build),
        }),
        rootfs: RootFs {
            kind: "layers".into(),
            diff_ids: Some(image.diff_ids.clone()),
        },
        history: Some(
            image
                .history
                .iter()
                .map(|h| Step {
                    created: h.created,
                    created_by: text(&h.created_by),
                    author: None,
                    comment: text(&h.comment),
                    empty_layer: h.empty_layer.then_some(true),
                })
                .collect(),
        ),
    };
    Ok(serde_json::to_vec(&document)?)
}

/// This machine in the words of image indices.
pub(crate) fn host_platform() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "x86" => ("386", ""),
        "aarch64" => ("arm64", "v8"),
        "arm" => ("arm", "v7"),
        "powerpc64" => ("ppc64le", ""),
        other => (other, ""),
    };
    Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        variant: variant.into(),
    }
}

/// How well an entry of an index fits a wanted platform: `None` not at all, lower is better.
/// A newer variant is never chosen for an older machine; an older one is, when nothing fits exactly.
pub(crate) fn fitness(offered: &Platform, wanted: &Platform) -> Option<u8> {
    if offered.os != wanted.os || offered.architecture != wanted.architecture {
        return None;
    }
    let default = match wanted.architecture.as_str() {
        "arm64" => 8,
        "arm" => 7,
        "amd64" => 1,
        _ => 0,
    };
    let level = |v: &str| match v.trim_start_matches('v') {
        "" => Some(default),
        n => n.parse::<u8>().ok(),
    };
    let (Some(have), Some(want)) = (level(&offered.variant), level(&wanted.variant)) else {
        return (offered.variant == wanted.variant).then_some(0);
    };
    want.checked_sub(have)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_empty() {
        let image = parse(
            "sha256:0",
            br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"Volumes":{"/d":{}},"Labels":null},
                "rootfs":{"type":"layers","diff_ids":null},"history":[{"created":"2024-01-01T00:00:00Z","created_by":"x"}]}"#,
        )
        .unwrap();
        assert_eq!(image.config.cmd, ["sh"]);
        assert_eq!(image.config.volumes, ["/d"]);
        let again = parse("sha256:0", &render(&image).unwrap()).unwrap();
        assert_eq!(again, image);
    }

    #[test]
    fn bad_diff_ids_are_refused() {
        let bad = br#"{"rootfs":{"diff_ids":["sha256:../../../etc"]}}"#;
        assert!(parse("x", bad).unwrap_err().message.contains("not a digest"));
        assert!(parse("x", b"[").is_err());
    }

    #[test]
    fn platforms() {
        let p = |a: &str, v: &str| Platform {
            os: "linux".into(),
            architecture: a.into(),
            variant: v.into(),
        };
        assert_eq!(fitness(&p("arm64", ""), &p("arm64", "v8")), Some(0));
        assert_eq!(fitness(&p("arm", "v6"), &p("arm", "v7")), Some(1));
        assert_eq!(fitness(&p("arm", "v7"), &p("arm", "v6")), None);
        assert_eq!(fitness(&p("amd64", ""), &p("arm64", "")), None);
        assert_eq!(fitness(&p("amd64", "v3"), &p("amd64", "")), None);
    }
}
