//! Request bodies, read with the rules of the real daemon's decoder: names of fields in any case, `null` is the
//! zero value of any type, unknown fields are passed over, and a wrong type is an error that names the field.

use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use crate::fault::Fault;

/// Decodes a whole body.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let value = match values.next() {
        None => return Err(Fault::bad("invalid JSON: got EOF while reading request body")),
        Some(Err(e)) if e.is_eof() => return Err(Fault::bad("invalid JSON: unexpected EOF")),
        Some(Err(e)) => return Err(Fault::bad(format_args!("invalid JSON: {e}"))),
        Some(Ok(value)) => value,
    };
    if !body[values.byte_offset()..].iter().all(u8::is_ascii_whitespace) {
        return Err(Fault::bad("unexpected content after JSON"));
    }
    from_value(&value).map_err(|e| Fault::bad(format_args!("invalid JSON: {e}")))
}

/// Decodes a value.
pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, DecodeError> {
    T::deserialize(Reader { value, at: None })
}

/// Why a value does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DecodeError(String);

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The way to a value: the field, the struct that has it, and what is above.
#[derive(Clone, Copy)]
struct At<'p> {
    owner: &'p str,
    field: &'p str,
    above: Option<&'p At<'p>>,
}

impl At<'_> {
    fn path(&self) -> String {
        match self.above {
            Some(above) => format!("{}.{}", above.path(), self.field),
            None => self.field.to_owned(),
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'de, 'p> {
    value: &'de Value,
    at: Option<&'p At<'p>>,
}

impl Reader<'_, '_> {
    fn mismatch(&self, wanted: &str) -> DecodeError {
        let kind = match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(n) if wanted.contains("int") => format!("number {n}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        DecodeError(match self.at {
            Some(at) => format!(
                "json: cannot unmarshal {kind} into Go struct field {}.{} of type {wanted}",
                at.owner,
                at.path()
            ),
            None => format!("json: cannot unmarshal {kind} into Go value of type {wanted}"),
        })
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let found = match self.value {
                Value::Null => Some(0),
                Value::Number(n) => n
                    .as_i64()
                    .and_then(|n| <$type>::try_from(n).ok())
                    .or_else(|| n.as_u64().and_then(|n| <$type>::try_from(n).ok())),
                _ => None,
            };
            found.map_or_else(|| Err(self.mismatch($go)), |n| visitor.$visit(n))
        }
    )*};
}

impl<'de> serde::Deserializer<'de> for Reader<'de, '_> {
    type Error = DecodeError;

    integers! {
        deserialize_i8 visit_i8 i8, "int8";
        deserialize_i16 visit_i16 i16, "int16";
        deserialize_i32 visit_i32 i32, "int32";
        deserialize_i64 visit_i64 i64, "int64";
        deserialize_u8 visit_u8 u8, "uint8";
        deserialize_u16 visit_u16 u16, "uint16";
        deserialize_u32 visit_u32 u32, "uint32";
        deserialize_u64 visit_u64 u64, "uint64";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(n), ..) => visitor.visit_i64(n),
                (_, Some(n), _) => visitor.visit_u64(n),
                (.., f) => visitor.visit_f64(f.unwrap_or_default()),
            },
            Value::String(s) => visitor.visit_borrowed_str(s),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(b) => visitor.visit_bool(*b),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_f64(0.0),
            Value::Number(n) => visitor.visit_f64(n.as_f64().unwrap_or_default()),
            _ => Err(self.mismatch("float64")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_borrowed_str(""),
            Value::String(s) => visitor.visit_borrowed_str(s),
            _ => Err(self.mismatch("string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_seq(Items {
                items: [].iter(),
                at: self.at,
            }),
            Value::Array(items) => visitor.visit_seq(Items {
                items: items.iter(),
                at: self.at,
            }),
            _ => Err(self.mismatch("[]string")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_map(MapDeserializer::<_, DecodeError>::new(std::iter::empty::<(
                &str,
                &str,
            )>())),
            Value::Object(map) => visitor.visit_map(Entries {
                entries: map.iter(),
                value: None,
                at: self.at,
            }),
            _ => Err(self.mismatch("map[string]string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_map(MapDeserializer::<_, DecodeError>::new(std::iter::empty::<(
                &str,
                &str,
            )>())),
            Value::Object(map) => {
                let entries = map.iter();
                visitor.visit_map(Fields {
                    owner: name,
                    fields,
                    entries,
                    seen: 0,
                    value: None,
                    at: self.at,
                })
            }
            _ => Err(self.mismatch(name)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::String(s) => {
                let word: StrDeserializer<'_, DecodeError> = s.as_str().into_deserializer();
                visitor.visit_enum(word)
            }
            _ => Err(self.mismatch("string")),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any
    }
}

/// The items of an array.
struct Items<'de, 'p> {
    items: std::slice::Iter<'de, Value>,
    at: Option<&'p At<'p>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        self.items
            .next()
            .map(|value| seed.deserialize(Reader { value, at: self.at }))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a map.
struct Entries<'de, 'p> {
    entries: serde_json::map::Iter<'de>,
    value: Option<&'de Value>,
    at: Option<&'p At<'p>>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        seed.deserialize(serde::de::value::BorrowedStrDeserializer::new(key))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let value = self
            .value
            .take()
            .ok_or_else(|| DecodeError::custom("a value without a key"))?;
        seed.deserialize(Reader { value, at: self.at })
    }
}

/// The fields of a struct.
struct Fields<'de, 'p> {
    owner: &'static str,
    fields: &'static [&'static str],
    entries: serde_json::map::Iter<'de>,
    /// Fields already given out (bit by position), so that a name in two spellings is no error.
    seen: u128,
    value: Option<(&'static str, &'de Value)>,
    at: Option<&'p At<'p>>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        for (key, value) in self.entries.by_ref() {
            let exact = self.fields.iter().position(|f| f == key);
            let Some(n) = exact.or_else(|| self.fields.iter().position(|f| f.eq_ignore_ascii_case(key)))
            else {
                continue;
            };
            if value.is_null() || self.seen & (1 << n) != 0 {
                continue;
            }
            self.seen |= 1 << n;
            self.value = Some((self.fields[n], value));
            let name: StrDeserializer<'_, DecodeError> = self.fields[n].into_deserializer();
            return seed.deserialize(name).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let (field, value) = self
            .value
            .take()
            .ok_or_else(|| DecodeError::custom("a value without a key"))?;
        let at = At {
            owner: self.owner,
            field,
            above: self.at,
        };
        seed.deserialize(Reader { value, at: Some(&at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename_all = "PascalCase")]
    struct Inner {
        memory: i64,
        port: u16,
        list: Vec<String>,
        on: Option<bool>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename_all = "PascalCase")]
    struct Outer {
        image: String,
        host_config: Inner,
        labels: BTreeMap<String, String>,
    }

    #[test]
    fn any_case_null_and_unknown() {
        let o: Outer = decode(
            br#"{"image":"x","HostConfig":{"MEMORY":5,"List":null,"On":true,"Strange":[1]},"Labels":{"a":null}}"#,
        )
        .unwrap();
        assert_eq!(o.image, "x");
        assert_eq!(
            o.host_config,
            Inner {
                memory: 5,
                on: Some(true),
                ..Inner::default()
            }
        );
        assert_eq!(o.labels["a"], "");
        assert_eq!(decode::<Outer>(b"null").unwrap(), Outer::default());
    }

    #[test]
    fn wrong_types_name_the_field() {
        for (body, text) in [
            (
                r#"{"Image":5}"#,
                "cannot unmarshal number into Go struct field Outer.Image of type string",
            ),
            (
                r#"{"HostConfig":{"Memory":"1g"}}"#,
                "cannot unmarshal string into Go struct field Inner.HostConfig.Memory of type int64",
            ),
            (
                r#"{"HostConfig":{"Memory":1.5}}"#,
                "cannot unmarshal number 1.5 into Go struct field Inner.HostConfig.Memory of type int64",
            ),
            (
                r#"{"HostConfig":{"Port":70000}}"#,
                "cannot unmarshal number 70000 into Go struct field Inner.HostConfig.Port of type uint16",
            ),
            (
                r#"{"HostConfig":[]}"#,
                "cannot unmarshal array into Go struct field Outer.HostConfig of type Inner",
            ),
            (
                r#"{"HostConfig":{"List":[1]}}"#,
                "cannot unmarshal number into Go struct field Inner.HostConfig.List of type string",
            ),
            (r#"[]"#, "cannot unmarshal array into Go value of type Outer"),
            (r#"{"#, "unexpected EOF"),
            (r#""#, "got EOF while reading request body"),
            (r#"{} {}"#, "unexpected content after JSON"),
            (r#"{x}"#, "invalid JSON"),
        ] {
            let e = decode::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(e.status.as_u16(), 400);
            assert!(e.message.contains(text), "{body}: {}", e.message);
        }
    }
}
