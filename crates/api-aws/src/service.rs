//! What is known of each service's wire format: operations, shapes, errors. The tables are made by
//! `scripts/aws-models`, whose head says what their lines mean.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value};

/// How a service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// JSON 1.1 with a target header.
    Json,
    /// Forms in, XML out.
    Query,
    /// As `Query`, in EC2's manner.
    Ec2,
}

/// A service.
pub(crate) struct Service {
    /// Name in credential scopes.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    /// Date of the API.
    pub(crate) version: String,
    /// What targets begin with.
    pub(crate) target: String,
    /// XML namespace.
    pub(crate) namespace: String,
    /// Operations with known shapes.
    pub(crate) operations: BTreeMap<String, Signature>,
    /// Operations that exist and are not served.
    pub(crate) others: Vec<String>,
    /// Code and HTTP status of declared exceptions.
    errors: HashMap<String, (String, u16)>,
    shapes: HashMap<String, Shape>,
}

/// Shapes of an operation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signature {
    pub(crate) input: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) wrapper: Option<String>,
}

/// A member of a structure.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) shape: String,
    /// Name in XML.
    pub(crate) wire: String,
    /// Name in queries.
    pub(crate) query: String,
}

/// The form of a value.
#[derive(Debug)]
pub(crate) enum Form {
    Structure(Vec<Member>),
    List { item: String, tag: String },
    Map { key: String, value: String },
    String,
    Integer,
    Float,
    Boolean,
    Timestamp,
    Blob,
}

/// A shape with its constraints.
pub(crate) struct Shape {
    pub(crate) form: Form,
    pub(crate) required: Vec<String>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) values: Vec<String>,
    pub(crate) pattern: Option<String>,
    compiled: OnceLock<Option<Regex>>,
}

impl Shape {
    /// The pattern over the whole text; `None` without one (or with one that cannot be compiled).
    pub(crate) fn regex(&self) -> Option<&Regex> {
        let compile = || Regex::new(&format!("^(?:{})$", self.pattern.as_ref()?)).ok();
        self.compiled.get_or_init(compile).as_ref()
    }
}

impl Service {
    /// A shape by name.
    pub(crate) fn shape(&self, name: &str) -> Option<&Shape> {
        self.shapes.get(name)
    }

    /// The code on the wire and HTTP status of an exception.
    pub(crate) fn error(&self, exception: &str) -> Option<&(String, u16)> {
        self.errors.get(exception)
    }

    fn parse(text: &str) -> Option<Self> {
        let table: Value = serde_json::from_str(text).ok()?;
        let word = |k: &str| {
            table
                .get(k)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let protocol = match word("protocol").as_str() {
            "ec2" => Protocol::Ec2,
            "query" => Protocol::Query,
            _ => Protocol::Json,
        };
        let operations = table.get("operations")?.as_object()?.iter();
        let shapes = table.get("shapes")?.as_object()?.iter();
        let errors = table.get("errors")?.as_object()?.iter();
        Some(Self {
            name: word("name"),
            version: word("version"),
            target: word("target"),
            namespace: word("namespace"),
            operations: operations.map(|(k, v)| (k.clone(), signature(v))).collect(),
            others: strings(table.get("others")),
            errors: errors.map(|(k, v)| (k.clone(), error(v))).collect(),
            shapes: shapes
                .filter_map(|(k, v)| Some((k.clone(), shape(v.as_object()?, protocol)?)))
                .collect(),
            protocol,
        })
    }
}

fn signature(v: &Value) -> Signature {
    let at = |i: usize| v.get(i).and_then(Value::as_str).map(str::to_owned);
    Signature {
        input: at(0),
        output: at(1),
        wrapper: at(2),
    }
}

fn error(v: &Value) -> (String, u16) {
    let code = v.get(0).and_then(Value::as_str).unwrap_or_default();
    let status = v.get(1).and_then(Value::as_u64).unwrap_or(400);
    (code.to_owned(), u16::try_from(status).unwrap_or(400))
}

fn strings(v: Option<&Value>) -> Vec<String> {
    let list = v.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn shape(v: &Map<String, Value>, protocol: Protocol) -> Option<Shape> {
    let form = if let Some(members) = v.get("s").and_then(Value::as_object) {
        Form::Structure(members.iter().map(|(k, m)| member(k, m, protocol)).collect())
    } else if let Some(item) = v.get("l") {
        Form::List {
            item: item.as_str().or_else(|| item.get(0)?.as_str())?.to_owned(),
            tag: item.get(1).and_then(Value::as_str).unwrap_or("member").to_owned(),
        }
    } else if let Some(pair) = v.get("m") {
        let at = |i: usize| pair.get(i).and_then(Value::as_str).map(str::to_owned);
        Form::Map {
            key: at(0)?,
            value: at(1)?,
        }
    } else {
        match v.get("k")?.as_str()? {
            "integer" | "long" => Form::Integer,
            "float" => Form::Float,
            "boolean" => Form::Boolean,
            "timestamp" => Form::Timestamp,
            "blob" => Form::Blob,
            _ => Form::String,
        }
    };
    Some(Shape {
        form,
        required: strings(v.get("r")),
        min: v.get("min").and_then(Value::as_f64),
        max: v.get("max").and_then(Value::as_f64),
        values: strings(v.get("e")),
        pattern: v.get("p").and_then(Value::as_str).map(str::to_owned),
        compiled: OnceLock::new(),
    })
}

fn member(name: &str, m: &Value, protocol: Protocol) -> Member {
    let at = |i: usize| m.get(i).and_then(Value::as_str);
    let shape = m.as_str().or_else(|| at(0)).unwrap_or_default().to_owned();
    let wire = at(1).unwrap_or(name).to_owned();
    let query = match (protocol, at(2)) {
        (_, Some(query)) => query.to_owned(),
        (Protocol::Ec2, None) => capital(&wire),
        _ => wire.clone(),
    };
    Member {
        name: name.to_owned(),
        shape,
        wire,
        query,
    }
}

/// EC2's queries begin each name with a capital.
fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|c| c.to_ascii_uppercase().to_string() + letters.as_str())
        .unwrap_or_default()
}

/// Every service that is served, by name.
pub(crate) fn services() -> &'static [Service] {
    static SERVICES: OnceLock<Vec<Service>> = OnceLock::new();
    SERVICES.get_or_init(|| {
        let tables = [
            include_str!("../models/ecs.json"),
            include_str!("../models/iam.json"),
            include_str!("../models/sts.json"),
            include_str!("../models/ec2.json"),
            include_str!("../models/logs.json"),
            include_str!("../models/ssm.json"),
            include_str!("../models/secretsmanager.json"),
        ];
        tables.iter().filter_map(|text| Service::parse(text)).collect()
    })
}

/// A service by its name in credential scopes.
pub(crate) fn service(name: &str) -> Option<&'static Service> {
    services().iter().find(|s| s.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_whole() {
        assert_eq!(services().len(), 7);
        for service in services() {
            for (name, signature) in &service.operations {
                for shape in [&signature.input, &signature.output].into_iter().flatten() {
                    assert!(service.shape(shape).is_some(), "{name}: {shape}");
                }
            }
            for (name, shape) in &service.shapes {
                assert!(
                    shape.pattern.is_none() || shape.regex().is_some(),
                    "{}: the pattern of {name} is not understood",
                    service.name
                );
                if let Form::Structure(members) = &shape.form {
                    for m in members {
                        assert!(service.shape(&m.shape).is_some(), "{name}.{}", m.name);
                    }
                }
            }
        }
    }

    #[test]
    fn names_on_the_wire() {
        let ec2 = service("ec2").unwrap();
        let Form::Structure(members) = &ec2.shape("DescribeVpcsRequest").unwrap().form else {
            panic!("a structure");
        };
        let of = |name: &str| members.iter().find(|m| m.name == name).unwrap().query.clone();
        assert_eq!(of("Filters"), "Filter");
        assert_eq!(of("VpcIds"), "VpcId");
        assert_eq!(of("DryRun"), "DryRun");
    }
}
