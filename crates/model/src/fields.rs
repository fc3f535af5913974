//! Fields of an object that the program passes on and seldom looks into, kept as text.
//!
//! A tree of JSON takes some ten times the memory of its text (each map of a few members is a node with room for
//! eleven), and copying one takes an allocation for each part. A cluster holds many objects, so what is not looked at
//! stays text, which copies share; what is looked at is read once, and read again by each copy that asks for it.

use std::fmt;
use std::ops::Index;
use std::sync::{Arc, OnceLock};

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

/// Names that most pods have: they are not kept once per pod. Sorted.
const KNOWN: [&str; 32] = [
    "affinity",
    "automountServiceAccountToken",
    "conditions",
    "containerStatuses",
    "dnsPolicy",
    "enableServiceLinks",
    "env",
    "hostIP",
    "hostIPs",
    "hostNetwork",
    "hostname",
    "imagePullPolicy",
    "initContainerStatuses",
    "initContainers",
    "livenessProbe",
    "nodeSelector",
    "observedGeneration",
    "podIPs",
    "ports",
    "preemptionPolicy",
    "priority",
    "qosClass",
    "readinessProbe",
    "resources",
    "schedulerName",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tolerations",
    "volumes",
];

/// Members of a JSON object, by name. Its JSON is what that of a [`Map`] of the same members is.
#[derive(Clone, Default, PartialEq)]
pub struct Fields(Vec<Field>);

struct Field {
    name: Name,
    text: Arc<RawValue>,
    /// Its tree, once somebody asked. Copies begin without.
    tree: OnceLock<Box<Value>>,
}

#[derive(Clone)]
enum Name {
    Known(&'static str),
    Other(Box<str>),
}

impl Name {
    fn of(name: &str) -> Self {
        match KNOWN.binary_search(&name) {
            Ok(at) => Self::Known(KNOWN[at]),
            Err(_) => Self::Other(name.into()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Known(name) => name,
            Self::Other(name) => name,
        }
    }
}

fn text_of(value: &Value) -> Arc<RawValue> {
    // A tree whose keys are strings: cannot fail.
    to_raw_value(value)
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
        .into()
}

impl Field {
    fn tree(&self) -> &Value {
        // It was made from a tree: reading it cannot fail.
        self.tree
            .get_or_init(|| Box::new(serde_json::from_str(self.text.get()).unwrap_or_default()))
    }
}

impl Clone for Field {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            text: self.text.clone(),
            tree: OnceLock::new(),
        }
    }
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        let same = || Arc::ptr_eq(&self.text, &other.text) || self.text.get() == other.text.get();
        self.name.as_str() == other.name.as_str() && same()
    }
}

impl Fields {
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|f| f.name.as_str().cmp(name))
    }

    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.find(name).ok().map(|at| self.0[at].tree())
    }

    /// The JSON of a member; the same text for equal values.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.find(name).ok().map(|at| self.0[at].text.get())
    }

    /// Whether the JSON of a member has this key somewhere. A string with that text counts too: look closer then.
    pub fn mentions(&self, name: &str, key: &str) -> bool {
        self.text(name).is_some_and(|text| text.contains(key))
    }

    /// Whether there is such a member.
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Sets a member.
    pub fn insert(&mut self, name: &str, value: Value) {
        let field = Field {
            name: Name::of(name),
            text: text_of(&value),
            tree: OnceLock::new(),
        };
        match self.find(name) {
            Ok(at) => self.0[at] = field,
            Err(at) => self.0.insert(at, field),
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let field = self.0.remove(self.find(name).ok()?);
        Some(field.tree().clone())
    }

    /// Changes a member; one that is not there begins as `null`.
    pub fn edit<T>(&mut self, name: &str, change: impl FnOnce(&mut Value) -> T) -> T {
        let mut value = self.get(name).cloned().unwrap_or_default();
        let out = change(&mut value);
        self.insert(name, value);
        out
    }

    /// Takes all members out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Index<&str> for Fields {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }
}

impl From<Map<String, Value>> for Fields {
    fn from(map: Map<String, Value>) -> Self {
        let field = |(name, value): (String, Value)| Field {
            name: Name::of(&name),
            text: text_of(&value),
            tree: OnceLock::new(),
        };
        let mut fields: Vec<Field> = map.into_iter().map(field).collect();
        fields.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        Self(fields)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.0.iter().map(|m| (m.name.as_str(), m.text.get()));
        f.debug_map().entries(members).finish()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for field in &self.0 {
            map.serialize_entry(field.name.as_str(), &*field.text)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Map::deserialize(d).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::{decode, encode};
    use crate::pod::Pod;

    fn fields(value: Value) -> Fields {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn known_names_are_sorted() {
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn members_are_read_set_changed_and_removed() {
        let mut f =
            fields(json!({"zeta": 1, "volumes": [{"name": "v", "hostPath": {"path": "/"}}], "own": null}));
        assert_eq!(f["volumes"][0]["name"], "v");
        assert_eq!((f.get("zeta"), f.get("alpha")), (Some(&json!(1)), None));
        assert!(f.contains_key("own") && f["own"].is_null() && f["alpha"].is_null());
        assert!(
            f.mentions("volumes", "hostPath") && !f.mentions("volumes", "nfs") && !f.mentions("alpha", "a")
        );
        let before = f.clone();
        f.insert("alpha", json!("a"));
        f.edit("zeta", |v| *v = json!({"b": 1, "a": 2}));
        f.edit("conditions", |v| *v = json!([1]));
        assert_eq!(f.text("zeta"), Some(r#"{"a":2,"b":1}"#));
        assert_eq!(f.remove("own"), Some(Value::Null));
        assert_eq!(f.remove("own"), None);
        assert_eq!(
            (&before["zeta"], before.get("alpha")),
            (&json!(1), None),
            "a copy is on its own"
        );
        assert_ne!(f, before);
        f.insert("zeta", json!(1));
        f.insert("own", Value::Null);
        assert!(f.remove("alpha").is_some() && f.remove("conditions").is_some());
        assert_eq!(f, before);
        f.clear();
        assert!(f.is_empty());
    }

    #[test]
    fn a_pod_keeps_its_bytes() {
        let text = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"n"},"spec":{"nodeName":"m","containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"zeta":1.5}],"dnsPolicy":"Default","priority":-3,"volumes":[{"emptyDir":{},"name":"v"}]},"status":{"phase":"Pending","conditions":[{"message":"\"\u00e9\\","type":"Ready"}],"qosClass":"BestEffort"}}"#;
        let pod: Pod = decode(text).unwrap();
        assert_eq!(pod.spec.containers[0].rest["ports"][0]["containerPort"], 80);
        assert_eq!(pod.spec.rest["priority"], -3);
        let again: Value = serde_json::from_slice(&encode(&pod)).unwrap();
        assert_eq!(again, serde_json::from_slice::<Value>(text).unwrap());
        assert_eq!(serde_json::to_value(&pod).unwrap()["spec"], again["spec"]);
        assert_eq!(decode::<Pod>(&encode(&pod)).unwrap(), pod);
    }
}
