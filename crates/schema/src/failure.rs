//! Errors in the form of the Kubernetes API: a `Status` with a reason, a message and causes.

use serde_json::{Value, json};

use crate::kinds::Kind;

/// One fault of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired` …
    pub reason: &'static str,
    /// Text without the field.
    pub message: String,
    /// Path: `spec.containers[0].name`.
    pub field: String,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// HTTP status.
    pub code: u16,
    /// `NotFound`, `Invalid` …
    pub reason: &'static str,
    /// Text for people.
    pub message: String,
    /// What it is about.
    pub details: Box<Details>,
}

/// What a failure is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Object that it is about.
    pub name: String,
    /// Group of the kind.
    pub group: String,
    /// Kind, or plural name.
    pub kind: String,
    /// Uid, where it was told.
    pub uid: String,
    /// What is wrong with which field.
    pub causes: Vec<Cause>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
    /// Where a list that expired can go on.
    pub next: String,
}

/// Result with a [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure with a status, a reason and a text.
    pub fn new(code: u16, reason: &'static str, message: impl std::fmt::Display) -> Self {
        Self {
            code,
            reason,
            message: message.to_string(),
            ..Self::default()
        }
    }

    /// 400.
    pub fn bad_request(message: impl std::fmt::Display) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(
            500,
            "InternalError",
            format_args!("Internal error occurred: {message}"),
        )
    }

    /// 503.
    pub fn unavailable(message: impl std::fmt::Display) -> Self {
        let mut failure = Self::new(503, "ServiceUnavailable", message);
        failure.details.retry_after = Some(1);
        failure
    }

    /// 404 for an object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::not_found_named(kind.group, kind.plural, name)
    }

    /// 404 for an object of a plural name.
    pub fn not_found_named(group: &str, plural: &str, name: &str) -> Self {
        let resource = qualified(group, plural);
        Self::new(404, "NotFound", format_args!("{resource} {name:?} not found")).about(group, plural, name)
    }

    /// 404 for a path.
    pub fn no_page() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    /// 409 for a name that is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let resource = kind.resource();
        Self::new(
            409,
            "AlreadyExists",
            format_args!("{resource} {name:?} already exists"),
        )
        .about(kind.group, kind.plural, name)
    }

    /// 409 for a stale write.
    pub fn conflict(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let resource = kind.resource();
        Self::new(
            409,
            "Conflict",
            format_args!("Operation cannot be fulfilled on {resource} {name:?}: {why}"),
        )
        .about(kind.group, kind.plural, name)
    }

    /// 409 for a write that is based on an old version.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 for an object.
    pub fn forbidden(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let resource = kind.resource();
        Self::new(
            403,
            "Forbidden",
            format_args!("{resource} {name:?} is forbidden: {why}"),
        )
        .about(kind.group, kind.plural, name)
    }

    /// 405.
    pub fn method_not_allowed(kind: &Kind, verb: &str) -> Self {
        let resource = kind.resource();
        Self::new(
            405,
            "MethodNotAllowed",
            format_args!("{verb} is not supported on resources of kind {resource:?}"),
        )
        .about(kind.group, kind.plural, "")
    }

    /// 410 for a revision that is no longer remembered.
    pub fn expired(message: impl std::fmt::Display) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 422 with faults of fields.
    pub fn invalid(kind: &Kind, name: &str, causes: Vec<Cause>) -> Self {
        Self::invalid_named(kind.group, kind.kind, name, causes)
    }

    /// 422 with faults of fields, for a kind by name.
    pub fn invalid_named(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let what = qualified(group, kind);
        let texts: Vec<String> = causes
            .iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        let text = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let text = format!("{what} {name:?} is invalid: {text}");
        let mut failure = Self::new(422, "Invalid", text).about(group, kind, name);
        failure.details.causes = causes;
        failure
    }

    /// The same failure with another HTTP status.
    #[must_use]
    pub fn with(mut self, code: u16) -> Self {
        self.code = code;
        self
    }

    /// Tells where a list that expired can go on.
    pub fn continue_with(&mut self, token: &str) {
        self.details.next = token.to_owned();
    }

    /// The same failure, about an object.
    #[must_use]
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details.group = group.to_owned();
        self.details.kind = kind.to_owned();
        self.details.name = name.to_owned();
        self
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "apiVersion": "v1",
            "kind": "Status",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.details.next.is_empty() {
            status["metadata"] = json!({"continue": self.details.next});
        }
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        let (mut details, about) = (serde_json::Map::new(), &self.details);
        for (key, value) in [
            ("name", &about.name),
            ("group", &about.group),
            ("kind", &about.kind),
            ("uid", &about.uid),
        ] {
            if !value.is_empty() {
                details.insert(key.into(), value.as_str().into());
            }
        }
        if !about.causes.is_empty() {
            let causes = about.causes.iter().map(|c| {
                let mut cause = json!({"message": c.message});
                if !c.reason.is_empty() {
                    cause["reason"] = c.reason.into();
                }
                if !c.field.is_empty() {
                    cause["field"] = c.field.as_str().into();
                }
                cause
            });
            details.insert("causes".into(), causes.collect());
        }
        if let Some(seconds) = about.retry_after {
            details.insert("retryAfterSeconds".into(), seconds.into());
        }
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}

/// `name` or `name.group`.
fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The value of a field as a message quotes it.
fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) | Value::Object(_) => value.to_string(),
        other => other.to_string(),
    }
}

impl Cause {
    /// A value that cannot be.
    pub fn invalid(field: impl Into<String>, value: &Value, why: impl std::fmt::Display) -> Self {
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: {why}", quoted(value)),
            field: field.into(),
        }
    }

    /// A text that cannot be.
    pub fn invalid_text(field: impl Into<String>, value: &str, why: impl std::fmt::Display) -> Self {
        Self::invalid(field, &Value::from(value), why)
    }

    /// A value that is missing.
    pub fn required(field: impl Into<String>, why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        let message = if why.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {why}")
        };
        Self {
            reason: "FieldValueRequired",
            message,
            field: field.into(),
        }
    }

    /// A value that occurs twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {}", quoted(value)),
            field: field.into(),
        }
    }

    /// A value that is not one of those known.
    pub fn unsupported(field: impl Into<String>, value: &str, known: &[&str]) -> Self {
        let known: Vec<String> = known.iter().map(|k| format!("{k:?}")).collect();
        Self {
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {value:?}: supported values: {}",
                known.join(", ")
            ),
            field: field.into(),
        }
    }

    /// A value that must not be set.
    pub fn forbidden(field: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self {
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {why}"),
            field: field.into(),
        }
    }

    /// A reference to what is not there.
    pub fn not_found(field: impl Into<String>, value: &str) -> Self {
        Self {
            reason: "FieldValueNotFound",
            message: format!("Not found: {value:?}"),
            field: field.into(),
        }
    }

    /// A text that is too long.
    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        Self {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {limit} bytes"),
            field: field.into(),
        }
    }
}
