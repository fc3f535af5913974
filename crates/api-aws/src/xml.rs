//! Answers of the query protocols: values written as XML by their shapes.

use std::fmt::Write as _;

use serde_json::Value;

use crate::service::{Form, Protocol, Service, Signature};
use crate::value::iso_time;

/// Text as XML content.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#xD;"),
            c => out.push(c),
        }
    }
    out
}

/// The whole answer of an operation.
pub(crate) fn answer(
    service: &Service,
    operation: &str,
    signature: &Signature,
    value: &Value,
    id: &str,
) -> String {
    let mut body = String::new();
    if let Some(shape) = &signature.output {
        let writer = Writer { service };
        writer.content(&mut body, shape, value);
    }
    let namespace = &service.namespace;
    if service.protocol == Protocol::Ec2 {
        return format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{operation}Response xmlns=\"{namespace}/\">\
             <requestId>{id}</requestId>{body}</{operation}Response>"
        );
    }
    let result = match &signature.wrapper {
        Some(wrapper) => format!("<{wrapper}>{body}</{wrapper}>"),
        None => body,
    };
    format!(
        "<{operation}Response xmlns=\"{namespace}\">{result}<ResponseMetadata><RequestId>{id}</RequestId>\
         </ResponseMetadata></{operation}Response>"
    )
}

struct Writer<'a> {
    service: &'a Service,
}

impl Writer<'_> {
    /// What stands between the tags of a value.
    fn content(&self, out: &mut String, shape: &str, value: &Value) {
        let Some(shape) = self.service.shape(shape) else {
            return;
        };
        match &shape.form {
            Form::Structure(members) => {
                for member in members {
                    if let Some(v) = value.get(&member.name).filter(|v| !v.is_null()) {
                        self.element(out, &member.wire, &member.shape, v);
                    }
                }
            }
            Form::List { item, tag } => {
                for v in value.as_array().into_iter().flatten() {
                    self.element(out, tag, item, v);
                }
            }
            Form::Map { key, value: of } => {
                for (k, v) in value.as_object().into_iter().flatten() {
                    out.push_str("<entry>");
                    self.element(out, "key", key, &k.as_str().into());
                    self.element(out, "value", of, v);
                    out.push_str("</entry>");
                }
            }
            Form::Timestamp => out.push_str(&iso_time(
                value.as_f64().unwrap_or_default(),
                self.service.protocol == Protocol::Ec2,
            )),
            _ => match value {
                Value::String(s) => out.push_str(&escape(s)),
                other => {
                    // Writing into a String does not fail.
                    let _ = write!(out, "{other}");
                }
            },
        }
    }

    fn element(&self, out: &mut String, tag: &str, shape: &str, value: &Value) {
        // Writing into a String does not fail.
        let _ = write!(out, "<{tag}>");
        self.content(out, shape, value);
        let _ = write!(out, "</{tag}>");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::service::service;

    #[test]
    fn lists_have_their_tags() {
        let ec2 = service("ec2").unwrap();
        let value = json!({ "Vpcs": [{ "VpcId": "vpc-1", "IsDefault": true, "CidrBlock": "a<b" }] });
        let text = answer(ec2, "DescribeVpcs", &ec2.operations["DescribeVpcs"], &value, "id");
        assert!(text.contains("<vpcSet><item>"), "{text}");
        assert!(text.contains("<isDefault>true</isDefault>"), "{text}");
        assert!(text.contains("<cidrBlock>a&lt;b</cidrBlock>"), "{text}");
        let iam = service("iam").unwrap();
        let value = json!({ "Users": [{ "UserName": "u", "CreateDate": 0.0 }], "IsTruncated": false });
        let text = answer(iam, "ListUsers", &iam.operations["ListUsers"], &value, "id");
        assert!(
            text.contains("<ListUsersResult>") && text.contains("<Users><member>"),
            "{text}"
        );
        assert!(
            text.contains("<CreateDate>1970-01-01T00:00:00Z</CreateDate>"),
            "{text}"
        );
    }
}
