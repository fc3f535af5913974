//! The `filters` parameter of lists: for each key, the values of which one must match (labels: all).

use std::collections::BTreeMap;

use tripod_model::{Error, Result};

/// Parsed filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Filters {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(iter: T) -> Self {
        let mut filters = Self::default();
        iter.into_iter().for_each(|(key, value)| filters.add(key, value));
        filters
    }
}

impl Filters {
    /// No filters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().push(value.into());
    }

    /// The values of a key; empty when it is not filtered by.
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether anything is filtered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses keys that a list does not know.
    ///
    /// # Errors
    /// [`tripod_model::ErrorKind::Invalid`].
    pub fn known(&self, keys: &[&str]) -> Result<()> {
        match self.0.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(key) => Err(Error::invalid(format_args!("invalid filter '{key}'"))),
            None => Ok(()),
        }
    }

    /// Whether one of the values is accepted, or there are none.
    pub(crate) fn any(&self, key: &str, accepts: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|v| accepts(v))
    }

    /// Whether a text begins with one of the values, or there are none.
    pub(crate) fn prefix(&self, key: &str, text: &str) -> bool {
        self.any(key, |v| text.starts_with(v))
    }

    /// Whether all values (`key` or `key=value`) are among the labels.
    pub(crate) fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(key)
            .iter()
            .all(|wanted| match wanted.split_once('=') {
                Some((k, v)) => labels.get(k).is_some_and(|have| v.is_empty() || have == v),
                None => labels.contains_key(wanted),
            })
    }
}
