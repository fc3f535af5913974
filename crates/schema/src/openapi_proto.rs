//! The OpenAPI document of version 2 as protobuf (gnostic's `openapi.v2.Document`), as older clients of discovery ask.
//!
//! What those clients read is written: definitions, and paths with their operations and parameters.

use serde_json::{Map, Value};

use crate::proto::{put_bytes, put_varint_field};

/// The media type of the form.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

type Out = Vec<u8>;

/// The bytes of a document.
pub fn document(value: &Value) -> Vec<u8> {
    let mut out = Out::new();
    text(&mut out, 1, &value["swagger"]);
    let mut info = Out::new();
    text(&mut info, 1, &value["info"]["title"]);
    text(&mut info, 2, &value["info"]["version"]);
    put_bytes(&mut out, 2, &info);
    let mut paths = Out::new();
    for (name, item) in members(&value["paths"]) {
        named(&mut paths, 2, name, &path_item(item));
    }
    put_bytes(&mut out, 8, &paths);
    let mut definitions = Out::new();
    for (name, definition) in members(&value["definitions"]) {
        named(&mut definitions, 1, name, &schema(definition));
    }
    put_bytes(&mut out, 9, &definitions);
    out
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(out: &mut Out, field: u32, value: &Value) {
    if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
        put_bytes(out, field, text.as_bytes());
    }
}

fn texts(out: &mut Out, field: u32, value: &Value) {
    for one in value.as_array().into_iter().flatten() {
        text(out, field, one);
    }
}

fn flag(out: &mut Out, field: u32, value: &Value) {
    if value == &Value::Bool(true) {
        put_varint_field(out, field, 1);
    }
}

/// A message of a name and a value.
fn named(out: &mut Out, field: u32, name: &str, value: &[u8]) {
    let mut pair = Out::new();
    put_bytes(&mut pair, 1, name.as_bytes());
    put_bytes(&mut pair, 2, value);
    put_bytes(out, field, &pair);
}

/// Any value: its text as YAML, of which JSON is a part.
fn any(value: &Value) -> Out {
    let mut out = Out::new();
    put_bytes(&mut out, 2, value.to_string().as_bytes());
    out
}

fn extensions(out: &mut Out, field: u32, value: &Value) {
    for (name, said) in members(value).filter(|(name, _)| name.starts_with("x-")) {
        named(out, field, name, &any(said));
    }
}

fn path_item(item: &Value) -> Out {
    let mut out = Out::new();
    let verbs = [
        ("get", 2),
        ("put", 3),
        ("post", 4),
        ("delete", 5),
        ("options", 6),
        ("head", 7),
        ("patch", 8),
    ];
    for (verb, field) in verbs {
        if let Some(said) = item.get(verb) {
            put_bytes(&mut out, field, &operation(said));
        }
    }
    for said in item["parameters"].as_array().into_iter().flatten() {
        put_bytes(&mut out, 9, &parameter(said));
    }
    out
}

fn operation(value: &Value) -> Out {
    let mut out = Out::new();
    texts(&mut out, 1, &value["tags"]);
    text(&mut out, 3, &value["description"]);
    text(&mut out, 5, &value["operationId"]);
    texts(&mut out, 6, &value["produces"]);
    texts(&mut out, 7, &value["consumes"]);
    for said in value["parameters"].as_array().into_iter().flatten() {
        put_bytes(&mut out, 8, &parameter(said));
    }
    let mut responses = Out::new();
    for (code, response) in members(&value["responses"]) {
        // ResponseValue { response { description, schema { schema } } }
        let (mut body, mut whole, mut of) = (Out::new(), Out::new(), Out::new());
        text(&mut body, 1, &response["description"]);
        if let Some(said) = response.get("schema") {
            put_bytes(&mut of, 1, &schema(said));
            put_bytes(&mut body, 2, &of);
        }
        put_bytes(&mut whole, 1, &body);
        named(&mut responses, 1, code, &whole);
    }
    put_bytes(&mut out, 9, &responses);
    extensions(&mut out, 13, value);
    out
}

/// ParametersItem { parameter { body, or non-body { query, or path } } }
fn parameter(value: &Value) -> Out {
    let (mut said, mut kind, mut whole) = (Out::new(), Out::new(), Out::new());
    let place = value["in"].as_str().unwrap_or_default();
    if place == "body" {
        text(&mut said, 1, &value["description"]);
        text(&mut said, 2, &value["name"]);
        text(&mut said, 3, &value["in"]);
        flag(&mut said, 4, &value["required"]);
        put_bytes(&mut said, 5, &schema(&value["schema"]));
        put_bytes(&mut kind, 1, &said);
    } else {
        flag(&mut said, 1, &value["required"]);
        text(&mut said, 2, &value["in"]);
        text(&mut said, 3, &value["description"]);
        text(&mut said, 4, &value["name"]);
        // A query's parameter may be empty: its type follows that.
        let (field, of_type) = if place == "path" { (4, 5) } else { (3, 6) };
        text(&mut said, of_type, &value["type"]);
        let mut other = Out::new();
        put_bytes(&mut other, field, &said);
        put_bytes(&mut kind, 2, &other);
    }
    put_bytes(&mut whole, 1, &kind);
    whole
}

fn schema(value: &Value) -> Out {
    let mut out = Out::new();
    text(&mut out, 1, &value["$ref"]);
    text(&mut out, 2, &value["format"]);
    text(&mut out, 3, &value["title"]);
    text(&mut out, 4, &value["description"]);
    if let Some(default) = value.get("default") {
        put_bytes(&mut out, 5, &any(default));
    }
    texts(&mut out, 19, &value["required"]);
    for one in value["enum"].as_array().into_iter().flatten() {
        put_bytes(&mut out, 20, &any(one));
    }
    if let Some(more) = value.get("additionalProperties") {
        let mut item = Out::new();
        match more {
            Value::Bool(allowed) => put_varint_field(&mut item, 2, u64::from(*allowed)),
            more => put_bytes(&mut item, 1, &schema(more)),
        }
        put_bytes(&mut out, 21, &item);
    }
    if let Some(said) = value["type"].as_str() {
        let mut item = Out::new();
        put_bytes(&mut item, 1, said.as_bytes());
        put_bytes(&mut out, 22, &item);
    }
    if let Some(items) = value.get("items") {
        let mut item = Out::new();
        put_bytes(&mut item, 1, &schema(items));
        put_bytes(&mut out, 23, &item);
    }
    for one in value["allOf"].as_array().into_iter().flatten() {
        put_bytes(&mut out, 24, &schema(one));
    }
    let empty = Map::new();
    let properties = value["properties"].as_object().unwrap_or(&empty);
    if !properties.is_empty() {
        let mut item = Out::new();
        for (name, said) in properties {
            named(&mut item, 1, name, &schema(said));
        }
        put_bytes(&mut out, 25, &item);
    }
    extensions(&mut out, 31, value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_small_document() {
        let bytes = document(&json!({
            "swagger": "2.0", "info": {"title": "t", "version": "v"},
            "paths": {"/a": {"get": {"parameters": [{"name": "q", "in": "query"}]}}}, "definitions": {"D": {"type": "string"}},
        }));
        // swagger = 1, info = 2 { title = 1, version = 2 }
        assert_eq!(&bytes[..13], b"\x0a\x032.0\x12\x06\x0a\x01t\x12\x01v");
        // paths = 8 { path = 2 { name = 1, value = 2 { get = 2 { parameters = 8 …, responses = 9 } } } }
        let query = b"\x12\x05query\x22\x01q";
        assert!(bytes.windows(query.len()).any(|w| w == query));
        // definitions = 9 { 1 { name = 1, value = 2 { type = 22 { value = 1 } } } }
        let end = b"\x4a\x12\x0a\x10\x0a\x01D\x12\x0b\xb2\x01\x08\x0a\x06string";
        assert_eq!(&bytes[bytes.len() - end.len()..], end);
    }
}
