//! Requests of the query protocols: forms read by the shape of the operation's input.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::service::{Form, Protocol, Service};

/// The fields of a form by name.
pub(crate) type Fields = BTreeMap<String, String>;

/// The input of an operation.
pub(crate) fn input(service: &Service, shape: &str, fields: &Fields) -> Result<Value, Fault> {
    let reader = Reader { service, fields };
    Ok(reader
        .read(shape, "")?
        .unwrap_or_else(|| Value::Object(Map::new())))
}

struct Reader<'a> {
    service: &'a Service,
    fields: &'a Fields,
}

impl Reader<'_> {
    /// The value whose fields are `path` or begin with `path.`; `None` when there are none.
    fn read(&self, shape: &str, path: &str) -> Result<Option<Value>, Fault> {
        let Some(shape) = self.service.shape(shape) else {
            return Ok(None);
        };
        match &shape.form {
            Form::Structure(members) => {
                if !path.is_empty() && !self.any(path) {
                    return Ok(None);
                }
                let mut map = Map::new();
                for member in members {
                    let name = match path {
                        "" => member.query.clone(),
                        path => format!("{path}.{}", member.query),
                    };
                    if let Some(v) = self.read(&member.shape, &name)? {
                        map.insert(member.name.clone(), v);
                    }
                }
                Ok(Some(Value::Object(map)))
            }
            Form::List { item, tag } => self.list(item, tag, path),
            Form::Map { key, value } => {
                let mut map = Map::new();
                for i in 1.. {
                    let entry = format!("{path}.entry.{i}");
                    let Some(Value::String(k)) = self.read(key, &format!("{entry}.key"))? else {
                        break;
                    };
                    let v = self.read(value, &format!("{entry}.value"))?;
                    map.insert(k, v.unwrap_or_default());
                }
                Ok((!map.is_empty()).then_some(Value::Object(map)))
            }
            form => match self.fields.get(path) {
                Some(text) => scalar(form, text, path, self.service.protocol).map(Some),
                None => Ok(None),
            },
        }
    }

    fn list(&self, item: &str, tag: &str, path: &str) -> Result<Option<Value>, Fault> {
        // An empty list is a field without a value.
        let mut items = Vec::new();
        let prefixes = match self.service.protocol {
            Protocol::Ec2 => [path.to_owned(), format!("{path}.{tag}")],
            _ => [format!("{path}.member"), format!("{path}.{tag}")],
        };
        let prefix = prefixes.iter().find(|p| self.any(&format!("{p}.1")));
        let Some(prefix) = prefix else {
            let empty = self.fields.get(path).is_some_and(String::is_empty);
            return Ok(empty.then_some(Value::Array(items)));
        };
        for i in 1.. {
            match self.read(item, &format!("{prefix}.{i}"))? {
                Some(v) => items.push(v),
                None => break,
            }
        }
        Ok(Some(Value::Array(items)))
    }

    /// Whether there is a field of that name or below it.
    fn any(&self, path: &str) -> bool {
        let below = format!("{path}.");
        self.fields.contains_key(path)
            || self
                .fields
                .range(below.clone()..)
                .next()
                .is_some_and(|(k, _)| k.starts_with(&below))
    }
}

fn scalar(form: &Form, text: &str, path: &str, protocol: Protocol) -> Result<Value, Fault> {
    let bad = |what: &str| match protocol {
        Protocol::Ec2 => Fault::new(
            "InvalidParameterValue",
            format!("Value ({text}) for parameter {path} is invalid. Expected: {what}."),
        ),
        _ => Fault::new("MalformedInput", format!("{path}: '{text}' is not {what}")),
    };
    Ok(match form {
        Form::Integer => text.parse::<i64>().map_err(|_| bad("an integer"))?.into(),
        Form::Float => text.parse::<f64>().map_err(|_| bad("a number"))?.into(),
        Form::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" => true.into(),
            "false" => false.into(),
            _ => return Err(bad("'true' or 'false'")),
        },
        _ => text.into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::service::service;

    fn fields(text: &str) -> Fields {
        form_urlencoded::parse(text.as_bytes()).into_owned().collect()
    }

    #[test]
    fn nested_lists() {
        let ec2 = service("ec2").unwrap();
        let f = fields("Filter.1.Name=vpc-id&Filter.1.Value.1=a&Filter.1.Value.2=b&VpcId.1=v&DryRun=false");
        assert_eq!(
            input(ec2, "DescribeVpcsRequest", &f).unwrap(),
            json!({ "Filters": [{ "Name": "vpc-id", "Values": ["a", "b"] }], "VpcIds": ["v"], "DryRun": false })
        );
        let iam = service("iam").unwrap();
        let f =
            fields("RoleName=r&Tags.member.1.Key=k&Tags.member.1.Value=v&AssumeRolePolicyDocument=%7B%7D");
        assert_eq!(
            input(iam, "CreateRoleRequest", &f).unwrap(),
            json!({ "RoleName": "r", "AssumeRolePolicyDocument": "{}", "Tags": [{ "Key": "k", "Value": "v" }] })
        );
        let f = fields("MaxResults=many");
        assert_eq!(
            input(ec2, "DescribeVpcsRequest", &f).unwrap_err().code,
            "InvalidParameterValue"
        );
    }
}
