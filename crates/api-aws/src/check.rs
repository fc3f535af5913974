//! Modelled constraints: required members, types, lengths, ranges, enumerations, patterns.

use serde_json::Value;

use crate::fault::Fault;
use crate::service::{Form, Protocol, Service, Shape};

/// Refuses an input that breaks a constraint of its shape, naming the member.
pub(crate) fn input(service: &Service, shape: &str, value: &Value) -> Result<(), Fault> {
    let mut checker = Checker {
        service,
        broken: Vec::new(),
        missing: None,
        invalid: None,
    };
    checker.value(shape, value, "")?;
    if checker.broken.is_empty() {
        return Ok(());
    }
    if service.protocol == Protocol::Ec2 {
        if let Some(name) = checker.missing {
            let text = format!("The request must contain the parameter {name}");
            return Err(Fault::new("MissingParameter", text));
        }
        if let Some((name, value)) = checker.invalid {
            let text = format!(
                "Value ({value}) for parameter {name} is invalid. {}",
                checker.broken[0]
            );
            return Err(Fault::new("InvalidParameterValue", text));
        }
    }
    let n = checker.broken.len();
    let plural = if n == 1 { "" } else { "s" };
    let text = format!(
        "{n} validation error{plural} detected: {}",
        checker.broken.join("; ")
    );
    let code = match service.name.as_str() {
        "ecs" | "logs" => "InvalidParameterException",
        "ssm" | "secretsmanager" => "ValidationException",
        _ => "ValidationError",
    };
    Err(Fault::new(code, text))
}

struct Checker<'a> {
    service: &'a Service,
    broken: Vec<String>,
    /// The first member that is not there.
    missing: Option<String>,
    /// The first member that is wrong, and its value.
    invalid: Option<(String, String)>,
}

impl Checker<'_> {
    fn value(&mut self, name: &str, value: &Value, path: &str) -> Result<(), Fault> {
        let Some(shape) = self.service.shape(name) else {
            return Ok(());
        };
        let wrong = |expected: &str| {
            let field = if path.is_empty() { "the request" } else { path };
            let text = format!("{field}: expected {expected}, not {}", kind_of(value));
            Fault::new("SerializationException", text)
        };
        match &shape.form {
            Form::Structure(members) => {
                let map = value.as_object().ok_or_else(|| wrong("a structure"))?;
                for required in &shape.required {
                    if map.get(required).is_none_or(Value::is_null) {
                        let member = below(path, required);
                        self.missing.get_or_insert_with(|| member.clone());
                        self.breaks("null", &member, "Member must not be null");
                    }
                }
                for member in members {
                    if let Some(v) = map.get(&member.name).filter(|v| !v.is_null()) {
                        self.value(&member.shape, v, &below(path, &member.name))?;
                    }
                }
            }
            Form::List { item, .. } => {
                let list = value.as_array().ok_or_else(|| wrong("a list"))?;
                self.length(shape, list.len(), value, path);
                for (i, v) in list.iter().enumerate() {
                    self.value(item, v, &format!("{path}.{}.member", i + 1))?;
                }
            }
            Form::Map { key, value: of } => {
                let map = value.as_object().ok_or_else(|| wrong("a map"))?;
                self.length(shape, map.len(), value, path);
                for (k, v) in map {
                    self.value(key, &k.as_str().into(), path)?;
                    self.value(of, v, &below(path, k))?;
                }
            }
            Form::String => {
                let text = value.as_str().ok_or_else(|| wrong("a string"))?;
                self.text(shape, text, path);
            }
            Form::Integer | Form::Float => {
                let number = value.as_f64().ok_or_else(|| wrong("a number"))?;
                self.range(shape, number, path);
            }
            Form::Boolean => {
                value.as_bool().ok_or_else(|| wrong("a boolean"))?;
            }
            Form::Blob => {
                value.as_str().ok_or_else(|| wrong("a blob in base64"))?;
            }
            Form::Timestamp => {}
        }
        Ok(())
    }

    fn text(&mut self, shape: &Shape, text: &str, path: &str) {
        self.length(shape, text.chars().count(), &text.into(), path);
        if !shape.values.is_empty() && !shape.values.iter().any(|v| v == text) {
            let set = shape.values.join(", ");
            let must = format!("Member must satisfy enum value set: [{set}]");
            self.breaks(&format!("'{text}'"), path, &must);
        }
        if shape.regex().is_some_and(|r| !r.is_match(text)) {
            let pattern = shape.pattern.as_deref().unwrap_or_default();
            let must = format!("Member must satisfy regular expression pattern: {pattern}");
            self.breaks(&format!("'{text}'"), path, &must);
        }
    }

    fn length(&mut self, shape: &Shape, length: usize, value: &Value, path: &str) {
        let shown = match value {
            Value::String(s) => format!("'{s}'"),
            other => format!("'{other}'"),
        };
        if shape.min.is_some_and(|min| (length as f64) < min) {
            let min = shape.min.unwrap_or_default();
            self.breaks(
                &shown,
                path,
                &format!("Member must have length greater than or equal to {min}"),
            );
        }
        if shape.max.is_some_and(|max| (length as f64) > max) {
            let max = shape.max.unwrap_or_default();
            self.breaks(
                &shown,
                path,
                &format!("Member must have length less than or equal to {max}"),
            );
        }
    }

    fn range(&mut self, shape: &Shape, number: f64, path: &str) {
        let shown = format!("'{number}'");
        if let Some(min) = shape.min.filter(|min| number < *min) {
            self.breaks(
                &shown,
                path,
                &format!("Member must have value greater than or equal to {min}"),
            );
        }
        if let Some(max) = shape.max.filter(|max| number > *max) {
            self.breaks(
                &shown,
                path,
                &format!("Member must have value less than or equal to {max}"),
            );
        }
    }

    fn breaks(&mut self, value: &str, path: &str, must: &str) {
        if self.invalid.is_none() {
            self.invalid = Some((path.to_owned(), value.trim_matches('\'').to_owned()));
        }
        let path = match self.service.protocol {
            Protocol::Query => small(path),
            _ => path.to_owned(),
        };
        self.broken.push(format!(
            "Value {value} at '{path}' failed to satisfy constraint: {must}"
        ));
    }
}

/// The query services tell the names of members with a small letter at their beginning.
fn small(path: &str) -> String {
    let part = |p: &str| {
        let mut letters = p.chars();
        let first = letters.next().map(|c| c.to_ascii_lowercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    path.split('.').map(part).collect::<Vec<_>>().join(".")
}

fn below(path: &str, member: &str) -> String {
    if path.is_empty() {
        member.to_owned()
    } else {
        format!("{path}.{member}")
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a structure",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::service::service;

    #[test]
    fn each_constraint_names_the_member() {
        let cases = [
            (
                "iam",
                "CreateRoleRequest",
                json!({ "RoleName": "a" }),
                "ValidationError",
                "'assumeRolePolicyDocument'",
            ),
            (
                "iam",
                "CreateUserRequest",
                json!({ "UserName": "a b" }),
                "ValidationError",
                "pattern: [\\w+=,.@-]+",
            ),
            (
                "iam",
                "CreateUserRequest",
                json!({ "UserName": "a".repeat(65) }),
                "ValidationError",
                "less than or equal to 64",
            ),
            (
                "ecs",
                "RunTaskRequest",
                json!({}),
                "InvalidParameterException",
                "'taskDefinition'",
            ),
            (
                "ecs",
                "RunTaskRequest",
                json!({ "taskDefinition": "a", "launchType": "MOON" }),
                "InvalidParameterException",
                "'launchType'",
            ),
            (
                "ecs",
                "RunTaskRequest",
                json!({ "taskDefinition": 1 }),
                "SerializationException",
                "taskDefinition",
            ),
            (
                "ec2",
                "CreateSecurityGroupRequest",
                json!({ "GroupName": "g" }),
                "MissingParameter",
                "Description",
            ),
            (
                "logs",
                "CreateLogGroupRequest",
                json!({ "logGroupName": "a*" }),
                "InvalidParameterException",
                "'logGroupName'",
            ),
        ];
        for (name, shape, value, code, text) in cases {
            let fault = input(service(name).unwrap(), shape, &value).unwrap_err();
            assert_eq!(fault.code, code, "{}", fault.message);
            assert!(fault.message.contains(text), "{}", fault.message);
        }
        input(
            service("ecs").unwrap(),
            "RunTaskRequest",
            &json!({ "taskDefinition": "a", "count": 1 }),
        )
        .unwrap();
    }
}
