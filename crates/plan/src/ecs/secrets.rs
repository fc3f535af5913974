//! Values that containers get from parameters and secrets, resolved when a task is made.

use base64_text::encode;
use serde_json::Value;
use tripod_model::Time;
use tripod_model::aws::{ManagedSecret, Parameter};
use tripod_model::data::Secret;
use tripod_model::ecs::{TaskDefinitionSpec, object_name};
use tripod_model::object::{Kind, ObjectMeta};
use tripod_model::pod::Pod;

use super::raw;
use crate::kube::ObjKey;
use crate::view::View;
use crate::write::{Object, RawObject, Write};

/// A value for an environment variable: (container, variable, value).
pub(super) type Resolved = Vec<(String, String, String)>;

/// The values of all `secrets` of a definition.
///
/// # Errors
/// A text as in the reason of a task that could not be initialised.
pub(super) fn resolve(view: &View, definition: &TaskDefinitionSpec) -> Result<Resolved, String> {
    let mut out = Vec::new();
    for container in definition.containers() {
        let text = |v: &Value, k: &str| v.get(k).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = container.get("secrets").and_then(Value::as_array);
        for secret in list.into_iter().flatten() {
            let from = text(secret, "valueFrom");
            let value = value_of(view, &definition.region, &from).map_err(|why| {
                format!("ResourceInitializationError: unable to pull secrets or registry auth: {why}")
            })?;
            out.push((text(container, "name"), text(secret, "name"), value));
        }
    }
    Ok(out)
}

/// The value that `valueFrom` names.
fn value_of(view: &View, region: &str, from: &str) -> Result<String, String> {
    let parts: Vec<&str> = from.splitn(7, ':').collect();
    if let ["arn", _, "secretsmanager", region, _, "secret", rest] = parts[..] {
        return secret_value(view, region, from, rest);
    }
    let (region, name) = match from.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", _, "ssm", region, _, rest] => (region, rest.strip_prefix("parameter").unwrap_or(rest)),
        _ => (region, from),
    };
    let names = [name.to_owned(), name.trim_start_matches('/').to_owned()];
    let found = names.iter().find_map(|name| {
        let key = object_name(&format!("parameter/{region}"), name);
        let object = view.kube().get(Parameter::RESOURCE, "", &key)?;
        object
            .get::<Parameter>()?
            .spec
            .versions
            .last()
            .map(|v| v.value.clone())
    });
    found.ok_or_else(|| format!("invalid ssm parameters: {name}"))
}

/// `NAME-SUFFIX[:json-key[:stage[:version]]]`.
fn secret_value(view: &View, region: &str, from: &str, rest: &str) -> Result<String, String> {
    let mut fields = rest.split(':');
    let name = fields.next().unwrap_or_default();
    let (key, stage, version) = (fields.next(), fields.next(), fields.next());
    let missing = || format!("unable to retrieve secret from asm: ResourceNotFoundException: {from}");
    let mut secrets = view
        .kube()
        .all(ManagedSecret::RESOURCE)
        .filter_map(|o| o.get::<ManagedSecret>());
    let arn_end = format!(":secret:{name}");
    let secret = secrets.find(|s| {
        let named = s.spec.arn.ends_with(&arn_end) || s.spec.name == name;
        named && s.spec.region == region && s.spec.deleted.is_none()
    });
    let secret = secret.ok_or_else(missing)?;
    let stage = stage.filter(|s| !s.is_empty()).unwrap_or("AWSCURRENT");
    let chosen = match version.filter(|v| !v.is_empty()) {
        Some(id) => secret.spec.versions.get(id),
        None => secret
            .spec
            .versions
            .values()
            .find(|v| v.stages.iter().any(|s| s == stage)),
    };
    let text = chosen.and_then(|v| v.string.clone()).ok_or_else(missing)?;
    let Some(key) = key.filter(|k| !k.is_empty()) else {
        return Ok(text);
    };
    let object: Value = serde_json::from_str(&text)
        .map_err(|_| format!("retrieved secret from Secrets Manager did not contain json key {key}"))?;
    match object.get(key) {
        Some(Value::String(s)) => Ok(s.clone()),
        Some(other) => Ok(other.to_string()),
        None => Err(format!(
            "retrieved secret from Secrets Manager did not contain json key {key}"
        )),
    }
}

/// The name of the Secret that holds the values of a task.
pub(super) fn object_of(pod: &str) -> String {
    format!("{pod}.values")
}

/// The key of a variable of a container in it.
pub(super) fn key_of(container: &str, variable: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!(
        "{}.{}",
        container.replace(|c| safe(c) != c, "_"),
        variable.replace(|c| safe(c) != c, "_")
    )
}

/// The Secret with a task's values, to be made with the task's pod.
pub(super) fn write(pod: &Pod, values: &Resolved, now: Time, uid: String) -> Write {
    let secret = Secret {
        metadata: ObjectMeta {
            name: object_of(&pod.metadata.name),
            namespace: pod.metadata.namespace.clone(),
            uid,
            creation_timestamp: Some(now),
            ..ObjectMeta::default()
        },
        type_: "Opaque".into(),
        data: values
            .iter()
            .map(|(c, v, text)| (key_of(c, v), encode(text.as_bytes())))
            .collect(),
        ..Secret::default()
    };
    Write::Create(raw(&secret))
}

/// The removal of the Secret of a task that is forgotten.
pub(super) fn of_task(view: &View, pod: &Pod) -> Option<Write> {
    let name = object_of(&pod.metadata.name);
    let object = view
        .kube()
        .get(Secret::RESOURCE, &pod.metadata.namespace, &name)?;
    let key = ObjKey::new(Secret::RESOURCE, pod.metadata.namespace.as_str(), name);
    Some(Write::Delete {
        based_on: object.revision,
        object: Object::Raw(std::sync::Arc::new(RawObject {
            key,
            bytes: object.bytes.clone(),
        })),
    })
}

/// Base64, which this crate needs nowhere else.
mod base64_text {
    /// Standard alphabet, padded.
    pub(super) fn encode(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let word = (0..3).fold(0_u32, |w, i| {
                w << 8 | u32::from(chunk.get(i).copied().unwrap_or(0))
            });
            for i in 0..4 {
                let digit = usize::try_from(word >> (18 - 6 * i) & 63).unwrap_or(0);
                out.push(if i <= chunk.len() {
                    char::from(LETTERS[digit])
                } else {
                    '='
                });
            }
        }
        out
    }

    #[test]
    fn padding() {
        let texts = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (plain, coded) in texts {
            assert_eq!(encode(plain.as_bytes()), coded);
        }
    }
}
