//! The types of the built-in kinds in a compact form: what fields there are, of which type, how lists merge, and
//! their protobuf numbers.
//!
//! Fields and types come from the typed library's schemas; how lists merge and protobuf numbers come from `fields.txt`,
//! a table of facts that never change for a served version. Its lines read `TYPE[!] FIELD:NUMBER[FLAGS] …`: `!` is
//! atomic, `=` a set, `[a,b]` a list keyed by those fields, `+key` the strategic patch merges (by that key), `~` it
//! retains the keys of a union. A number `2.4` is field 4 of the embedded message in field 2.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use serde_json::Value;

use crate::definitions::{definitions, short_name};

/// The type of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Ty {
    /// An object with known fields.
    Object(usize),
    /// An object with any keys.
    Map(Box<Ty>),
    /// A list.
    List(Box<Ty>),
    /// Text.
    String,
    /// Base64 of bytes.
    Bytes,
    /// 32 bits.
    Int32,
    /// 64 bits.
    Int64,
    /// A real number.
    Double,
    /// True or false.
    Bool,
    /// `100m`, `1Gi`; also a number.
    Quantity,
    /// A number or a text.
    IntOrString,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Anything.
    Any,
}

/// How the elements of a list are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Merge {
    /// The value is replaced as a whole.
    #[default]
    Atomic,
    /// Elements are their own keys.
    Set,
    /// Elements are objects with these keys.
    Keys(Vec<String>),
    /// An object or map whose members are owned one by one.
    Granular,
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its type.
    pub ty: Ty,
    /// It must be there.
    pub required: bool,
    /// How server-side apply merges it.
    pub merge: Merge,
    /// Strategic patches merge a list: by this key, or as a set when it is empty.
    pub patch_key: Option<String>,
    /// Strategic patches keep only the members that the patch names.
    pub retain_keys: bool,
    /// Protobuf number, through embedded messages; empty where there is none.
    pub number: Vec<u32>,
}

/// An object type.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object {
    /// `core.v1.Pod`.
    pub name: String,
    /// Fields by JSON name.
    pub fields: BTreeMap<String, Field>,
    /// Unknown fields are kept.
    pub open: bool,
}

/// All types.
#[derive(Debug)]
pub struct Types {
    objects: Vec<Object>,
    by_name: HashMap<String, usize>,
}

/// The types of the built-in kinds.
pub fn types() -> &'static Types {
    static TYPES: OnceLock<Types> = OnceLock::new();
    TYPES.get_or_init(Types::load)
}

const TABLE: &str = include_str!("fields.txt");

impl Types {
    fn load() -> Self {
        let definitions = definitions();
        let mut types = Self {
            objects: Vec::new(),
            by_name: HashMap::new(),
        };
        for (full, schema) in &definitions {
            if schema.get("properties").is_some() {
                types
                    .by_name
                    .insert(short_name(full).to_owned(), types.objects.len());
                types.objects.push(Object {
                    name: short_name(full).to_owned(),
                    ..Object::default()
                });
            }
        }
        for (full, schema) in &definitions {
            let Some(&id) = types.by_name.get(short_name(full)) else {
                continue;
            };
            types.objects[id].fields = types.fields(schema);
        }
        types.annotate();
        types.extend();
        types
    }

    fn fields(&self, schema: &Value) -> BTreeMap<String, Field> {
        let required = |name: &str| {
            schema["required"]
                .as_array()
                .is_some_and(|r| name != "metadata" && r.iter().any(|f| f == name))
        };
        let properties = schema["properties"].as_object().into_iter().flatten();
        properties
            .map(|(name, schema)| {
                let ty = self.ty(schema);
                let merge = match ty {
                    Ty::Object(_) | Ty::Map(_) => Merge::Granular,
                    _ => Merge::Atomic,
                };
                let field = Field {
                    ty,
                    required: required(name),
                    merge,
                    patch_key: None,
                    retain_keys: false,
                    number: Vec::new(),
                };
                (name.clone(), field)
            })
            .collect()
    }

    fn ty(&self, schema: &Value) -> Ty {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = short_name(reference.rsplit('/').next().unwrap_or_default());
            return match name {
                "meta.v1.Time" => Ty::Time,
                "meta.v1.MicroTime" => Ty::MicroTime,
                "api.resource.Quantity" => Ty::Quantity,
                "util.intstr.IntOrString" => Ty::IntOrString,
                name => self.by_name.get(name).map_or(Ty::Any, |id| Ty::Object(*id)),
            };
        }
        match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("string"), Some("byte")) => Ty::Bytes,
            (Some("string"), _) => Ty::String,
            (Some("integer"), Some("int64")) => Ty::Int64,
            (Some("integer"), _) => Ty::Int32,
            (Some("number"), _) => Ty::Double,
            (Some("boolean"), _) => Ty::Bool,
            (Some("array"), _) => Ty::List(Box::new(self.ty(&schema["items"]))),
            (Some("object"), _) if schema.get("additionalProperties").is_some() => {
                Ty::Map(Box::new(self.ty(&schema["additionalProperties"])))
            }
            _ => Ty::Any,
        }
    }

    /// Adds what the table knows.
    fn annotate(&mut self) {
        let mut atomic = Vec::new();
        for line in TABLE.lines() {
            let mut words = line.split(' ');
            let Some(head) = words.next() else { continue };
            let name = head.trim_end_matches('!');
            let Some(&id) = self.by_name.get(name) else {
                continue;
            };
            if head.ends_with('!') {
                atomic.push(id);
            }
            for word in words {
                let Some((field, rest)) = word.split_once(':') else {
                    continue;
                };
                if let Some(field) = self.objects[id].fields.get_mut(field) {
                    annotate(field, rest);
                }
            }
        }
        for object in &mut self.objects {
            for field in object.fields.values_mut() {
                if matches!(&field.ty, Ty::Object(id) if atomic.contains(id)) {
                    field.merge = Merge::Atomic;
                }
            }
        }
    }

    /// What Tripod adds to built-in kinds.
    fn extend(&mut self) {
        let extra: [(&str, &[&str]); 4] = [
            ("core.v1.NodeSpec", &["swarm"]),
            (
                "core.v1.NodeStatus",
                &[
                    "state",
                    "message",
                    "addr",
                    "manager",
                    "description",
                    "since",
                    "updatedAt",
                ],
            ),
            ("core.v1.Secret", &["swarm"]),
            ("core.v1.ConfigMap", &["swarm"]),
        ];
        for (name, fields) in extra {
            let Some(&id) = self.by_name.get(name) else {
                continue;
            };
            for field in fields {
                let field = (*field).to_owned();
                self.objects[id].fields.entry(field).or_insert(Field {
                    ty: Ty::Any,
                    required: false,
                    merge: Merge::Atomic,
                    patch_key: None,
                    retain_keys: false,
                    number: Vec::new(),
                });
            }
        }
    }

    /// The type of a schema's name.
    pub fn named(&self, name: &str) -> Ty {
        self.by_name.get(name).map_or(Ty::Any, |id| Ty::Object(*id))
    }

    /// An object type.
    pub fn object(&self, id: usize) -> &Object {
        &self.objects[id]
    }

    /// All object types.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }
}

fn annotate(field: &mut Field, text: &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    field.number = text[..end].split('.').filter_map(|n| n.parse().ok()).collect();
    let mut rest = &text[end..];
    if let Some(keys) = rest.strip_prefix('[') {
        let (keys, after) = keys.split_once(']').unwrap_or((keys, ""));
        field.merge = Merge::Keys(keys.split(',').map(str::to_owned).collect());
        rest = after;
    } else if let Some(after) = rest.strip_prefix('=') {
        field.merge = Merge::Set;
        rest = after;
    } else if let Some(after) = rest.strip_prefix('!') {
        field.merge = Merge::Atomic;
        rest = after;
    }
    if let Some(after) = rest.strip_suffix('~') {
        field.retain_keys = true;
        rest = after;
    }
    if let Some(key) = rest.strip_prefix('+') {
        field.patch_key = Some(key.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_described() {
        let types = types();
        let Ty::Object(id) = types.named("core.v1.PodSpec") else {
            panic!("no PodSpec")
        };
        let spec = types.object(id);
        let containers = &spec.fields["containers"];
        assert_eq!(containers.merge, Merge::Keys(vec!["name".into()]));
        assert_eq!(containers.patch_key.as_deref(), Some("name"));
        assert!(containers.required);
        assert_eq!(containers.number, [2]);
        assert!(spec.fields["volumes"].retain_keys);
        assert_eq!(spec.fields["tolerations"].merge, Merge::Atomic);
        assert_eq!(spec.fields["terminationGracePeriodSeconds"].ty, Ty::Int64);
    }

    #[test]
    fn every_row_of_the_table_names_a_field() {
        let types = types();
        for line in TABLE.lines() {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            let Some(&id) = types.by_name.get(name.trim_end_matches('!')) else {
                continue;
            };
            for word in rest.split(' ').filter(|w| !w.is_empty()) {
                let field = word.split(':').next().unwrap();
                assert!(types.objects[id].fields.contains_key(field), "{name} {field}");
            }
        }
    }

    #[test]
    fn fields_have_protobuf_numbers() {
        // Younger than the numbers that are published.
        let without = [
            "schedulingGroup",
            "nodeAllocatableResourceClaimStatuses",
            "volumeStatus",
            "shardInfo",
            "nodeAllocatableResourceMappings",
        ];
        for object in types().objects() {
            for (name, field) in &object.fields {
                let young =
                    without.contains(&name.as_str()) || field.number.is_empty() && field.ty == Ty::Any;
                let young = young || ["apiVersion", "kind"].contains(&name.as_str());
                let young = young
                    || [
                        "core.v1.PodSchedulingGroup",
                        "core.v1.ImageVolumeStatus",
                        "core.v1.VolumeStatus",
                        "core.v1.NodeAllocatableResourceClaimStatus",
                        "meta.v1.ShardInfo",
                        "core.v1.ResourceHealth",
                        "storage.v1.CSIDriverSpec",
                        "resource.v1.DeviceAttribute",
                        "resource.v1.NodeAllocatableResourceMapping",
                    ]
                    .contains(&object.name.as_str());
                assert!(young || !field.number.is_empty(), "{} {name}", object.name);
            }
        }
    }
}
