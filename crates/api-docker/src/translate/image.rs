//! Images as list, inspect and history show them.

use serde_json::{Map, Value, json};
use tripod_model::container::HealthCheck;
use tripod_model::image::{Descriptor, Image, Platform};

use super::show::healthcheck;
use crate::when;
use crate::wire::set;

/// A pattern of the filter `reference` against a familiar name: a name with or without tag, with `*` and `?` within
/// a part.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (repo, _) = match name.split_once('@') {
        Some((repo, digest)) => (repo, digest),
        None => name
            .rsplit_once(':')
            .filter(|(_, t)| !t.contains('/'))
            .unwrap_or((name, "")),
    };
    glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), repo.as_bytes())
}

/// `*` is any run without a slash, `?` one character but a slash.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b'?') if text[t] != b'/' => (p, t) = (p + 1, t + 1),
            Some(c) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) if text[from] != b'/' => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// A platform in OCI's words.
pub(crate) fn platform(p: &Platform) -> Value {
    let mut out = json!({ "architecture": p.architecture, "os": p.os });
    if !p.variant.is_empty() {
        out["variant"] = json!(p.variant);
    }
    out
}

fn descriptor(d: &Descriptor) -> Value {
    json!({ "mediaType": d.media_type, "digest": d.digest, "size": d.size })
}

fn manifests(i: &Image) -> Value {
    let Some(d) = &i.manifest else { return json!([]) };
    let of = Platform {
        os: i.os.clone(),
        architecture: i.architecture.clone(),
        variant: i.variant.clone(),
    };
    json!([{
        "ID": d.digest, "Descriptor": descriptor(d), "Available": true, "Kind": "image",
        "Size": { "Total": i.size, "Content": 0 },
        "ImageData": { "Platform": platform(&of), "Containers": [], "Size": { "Unpacked": i.size } },
    }])
}

/// The line of an image in the list.
pub(crate) fn summary(
    i: &Image,
    tags: &[&String],
    shared: i64,
    containers: i64,
    with_manifests: bool,
) -> Value {
    let mut out = json!({
        "Id": i.id, "ParentId": "", "RepoTags": tags, "RepoDigests": i.digests,
        "Created": i.created.map_or(0, |t| t.as_second()), "Size": i.size, "SharedSize": shared,
        "Labels": i.config.labels, "Containers": containers,
    });
    if let Some(d) = &i.manifest {
        out["Descriptor"] = descriptor(d);
    }
    if with_manifests {
        out["Manifests"] = manifests(i);
    }
    out
}

/// The answer of inspect.
/// An image in full. `old` clients (before 1.45) find the fields that an image has of the container it was made of.
pub(crate) fn inspect(i: &Image, with_manifests: bool, old: bool) -> Value {
    let mut out = json!({
        "Id": i.id, "RepoTags": i.tags, "RepoDigests": i.digests, "Parent": "", "Comment": i.comment,
        "Created": i.created.map(when::rfc3339), "DockerVersion": "", "Author": i.author, "Config": config(i),
        "Architecture": i.architecture, "Os": i.os, "Size": i.size,
        "GraphDriver": { "Name": "overlay2", "Data": null },
        "RootFS": { "Type": "layers", "Layers": i.diff_ids },
        "Metadata": { "LastTagTime": when::or_never(i.last_tagged) },
    });
    if !i.variant.is_empty() {
        out["Variant"] = json!(i.variant);
    }
    if let Some(d) = &i.manifest {
        out["Descriptor"] = descriptor(d);
    }
    if with_manifests {
        out["Manifests"] = manifests(i);
    }
    if old {
        out["Container"] = json!("");
        out["ContainerConfig"] = out["Config"].clone();
    }
    out
}

fn config(i: &Image) -> Value {
    let c = &i.config;
    let list = |l: &[String]| if l.is_empty() { Value::Null } else { json!(l) };
    let mut out = json!({
        "User": c.user, "Env": c.env, "Cmd": list(&c.cmd), "Entrypoint": list(&c.entrypoint),
        "WorkingDir": c.working_dir, "OnBuild": list(&c.on_build),
        "Labels": if c.labels.is_empty() { Value::Null } else { json!(c.labels) },
        "Volumes": if c.volumes.is_empty() { Value::Null } else { json!(set(&c.volumes)) },
        // Fields that only containers have: older clients look for them.
        "Hostname": "", "Domainname": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Image": "",
    });
    let mut put = |name: &str, value: Value| {
        drop(
            out.as_object_mut()
                .map(|o: &mut Map<_, _>| o.insert(name.into(), value)),
        );
    };
    if !c.exposed_ports.is_empty() {
        put("ExposedPorts", json!(set(&c.exposed_ports)));
    }
    if !c.stop_signal.is_empty() {
        put("StopSignal", json!(c.stop_signal));
    }
    if !c.shell.is_empty() {
        put("Shell", json!(c.shell));
    }
    if let Some(h) = c
        .healthcheck
        .as_ref()
        .filter(|h: &&HealthCheck| !h.test.is_empty())
    {
        put("Healthcheck", json!(healthcheck(h)));
    }
    out
}

/// How an image was built, newest first. Only the newest line can have the image's identifier.
pub(crate) fn history(i: &Image) -> Vec<Value> {
    let last = i.history.len().saturating_sub(1);
    let lines = i.history.iter().enumerate().rev().map(|(n, h)| {
        let newest = n == last;
        json!({
            "Id": if newest { i.id.as_str() } else { "<missing>" },
            "Created": h.created.map_or(0, |t| t.as_second()),
            "CreatedBy": h.created_by,
            "Tags": if newest && !i.tags.is_empty() { json!(i.tags) } else { Value::Null },
            "Size": h.size, "Comment": h.comment,
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("busybox", "busybox:latest", true),
            ("busybox:*", "busybox:latest", true),
            ("busy*", "busybox:latest", true),
            ("*", "spkane/x:1", false),
            ("*/*", "spkane/x:1", true),
            ("spkane/x:?", "spkane/x:1", true),
            ("other", "busybox:latest", false),
            ("localhost:5000/x", "localhost:5000/x:1", true),
            ("busybox", "busybox@sha256:ab", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
