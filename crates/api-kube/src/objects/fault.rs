//! The store's refusals in the API's words.

use tripod_engine::WriteError;
use tripod_model::ErrorKind;
use tripod_schema::{Cause, Failure, Kind};
use tripod_store::{Expected, TxnError};

/// Whether somebody else wrote in between, so that trying again may help.
pub(crate) fn overtaken(error: &WriteError) -> bool {
    matches!(
        error,
        WriteError::Refused(TxnError::Conflict {
            expected: Expected::Revision(_),
            actual: Some(_),
            ..
        })
    )
}

/// Whether a quota changed that the write was to be counted in.
pub(crate) fn recounted(error: &WriteError) -> bool {
    matches!(error, WriteError::Refused(TxnError::Conflict { key, .. }) if key.kind.as_str() == "resourcequotas")
}

/// The failure of a write about an object.
pub(crate) fn failure(kind: &Kind, name: &str, error: WriteError) -> Failure {
    match error {
        WriteError::Refused(TxnError::Conflict {
            expected,
            actual,
            key,
            ..
        }) => match (expected, actual) {
            (Expected::Absent, Some(_)) => Failure::already_exists(kind, name),
            (_, None) if *key.name == *name => Failure::not_found(kind, name),
            (_, None) => Failure::not_found_named("", key.kind.as_str(), &key.name),
            _ => Failure::modified(kind, name),
        },
        WriteError::Refused(TxnError::UniqueTaken { index, value, .. }) => {
            let (field, why) = match &*index {
                "services#clusterIP" => (
                    "spec.clusterIPs",
                    "failed to allocate IP: provided IP is already allocated",
                ),
                "services#nodePort" => ("spec.ports[0].nodePort", "provided port is already allocated"),
                _ => ("metadata.name", "the value is taken by another object"),
            };
            let value = value.rsplit('/').next().unwrap_or_default().to_owned();
            Failure::invalid(kind, name, vec![Cause::invalid_text(field, &value, why)])
        }
        WriteError::Refused(TxnError::Invalid { message, .. }) => Failure::bad_request(message),
        WriteError::Failed(e) => model_failure(&e),
    }
}

/// The failure that an error of the model is.
pub(crate) fn model_failure(error: &tripod_model::Error) -> Failure {
    match error.kind {
        ErrorKind::Invalid => Failure::bad_request(error),
        ErrorKind::NotFound => Failure::new(404, "NotFound", error),
        ErrorKind::AlreadyExists => Failure::new(409, "AlreadyExists", error),
        ErrorKind::Conflict | ErrorKind::OutOfSequence | ErrorKind::NotModified => {
            Failure::new(409, "Conflict", error)
        }
        ErrorKind::Unauthorized => Failure::new(401, "Unauthorized", error),
        ErrorKind::Forbidden => Failure::new(403, "Forbidden", error),
        ErrorKind::Unavailable => Failure::unavailable(error),
        ErrorKind::NotImplemented => Failure::new(501, "NotImplemented", error),
        ErrorKind::Gone => Failure::expired(error),
        ErrorKind::Timeout => Failure::new(504, "Timeout", error),
        _ => Failure::internal(error),
    }
}
