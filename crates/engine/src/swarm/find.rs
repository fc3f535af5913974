//! Finding an object by what users type: identifier, name, or an unambiguous beginning of an identifier.

use tripod_model::object::Kind;
use tripod_model::{Error, Result};

use crate::db::Snapshot;

/// The object meant by `word`: its identifier, else its name (unique index `names`), else the only one whose
/// identifier begins so.
///
/// # Errors
/// [`tripod_model::ErrorKind::NotFound`], or [`tripod_model::ErrorKind::Invalid`] when several are meant.
pub(crate) fn find<K: Kind>(
    state: &Snapshot,
    namespace: &str,
    names: &str,
    what: &str,
    word: &str,
) -> Result<K> {
    let none = || Error::not_found(format_args!("{what} {word} not found"));
    if word.is_empty() {
        return Err(none());
    }
    if let Some(object) = state.get(namespace, word)? {
        return Ok(object);
    }
    if let Some(object) = state.by_unique(names, word)? {
        return Ok(object);
    }
    only(state.by_prefix(namespace, word)?, what, word)
}

/// The only element.
///
/// # Errors
/// As [`find`].
pub(crate) fn only<T>(mut found: Vec<T>, what: &str, word: &str) -> Result<T> {
    match (found.len(), found.pop()) {
        (1, Some(one)) => Ok(one),
        (0, _) | (_, None) => Err(Error::not_found(format_args!("{what} {word} not found"))),
        (n, _) => Err(Error::invalid(format_args!(
            "{what} {word} is ambiguous ({n} matches found)"
        ))),
    }
}
