//! Errors as the Engine API tells them: a status and `{"message": "…"}`.

use http::StatusCode;
use tripod_model::{Error, ErrorKind};

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, message: impl std::fmt::Display) -> Self {
        Self {
            status,
            message: message.to_string(),
        }
    }

    /// 400.
    pub(crate) fn bad(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404 for a path that the API does not have, or not with this method: the real daemon says the same of both.
    pub(crate) fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    /// 501 for a part of the API that Tripod leaves out.
    pub(crate) fn left_out(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            format_args!("{what} is not implemented by Tripod"),
        )
    }
}

/// The status that stands for a kind of error.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::AlreadyExists | ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Gone => StatusCode::GONE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        // The real daemon answers a stale version with 500.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self {
            status: status(e.kind),
            message: e.message,
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(e: std::io::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (e, code) in [
            (Error::invalid("x"), 400),
            (Error::not_found("x"), 404),
            (Error::conflict("x"), 409),
            (Error::already_exists("x"), 409),
            (Error::not_modified("x"), 304),
            (Error::forbidden("x"), 403),
            (Error::out_of_sequence("x"), 500),
            (Error::unavailable("x"), 503),
            (Error::not_implemented("x"), 501),
        ] {
            assert_eq!(Fault::from(e).status.as_u16(), code);
        }
    }
}
