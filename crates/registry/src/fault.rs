//! Errors in the form of the distribution API.

use http::StatusCode;
use serde_json::{Value, json};
use tripod_edge::Response;
use tripod_model::{Error, ErrorKind};

use crate::reply;

/// An error that a client is told.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    code: &'static str,
    message: String,
    detail: Value,
}

impl Fault {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>, detail: Value) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail,
        }
    }

    pub(crate) fn name_invalid(name: &str) -> Self {
        let detail = json!({ "name": name });
        Self::new(
            StatusCode::BAD_REQUEST,
            "NAME_INVALID",
            "invalid repository name",
            detail,
        )
    }

    pub(crate) fn name_unknown(name: &str) -> Self {
        let text = "repository name not known to registry";
        Self::new(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            text,
            json!({ "name": name }),
        )
    }

    pub(crate) fn tag_invalid(tag: &str) -> Self {
        let text = "manifest tag did not match URI";
        Self::new(
            StatusCode::BAD_REQUEST,
            "TAG_INVALID",
            text,
            json!({ "tag": tag }),
        )
    }

    pub(crate) fn digest_invalid(detail: impl std::fmt::Display) -> Self {
        let text = "provided digest did not match uploaded content";
        Self::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            text,
            json!(detail.to_string()),
        )
    }

    pub(crate) fn manifest_unknown(name: &str, reference: &str) -> Self {
        let detail = json!({ "name": name, "reference": reference });
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "manifest unknown",
            detail,
        )
    }

    pub(crate) fn manifest_invalid(detail: impl std::fmt::Display) -> Self {
        let detail = json!(detail.to_string());
        Self::new(
            StatusCode::BAD_REQUEST,
            "MANIFEST_INVALID",
            "manifest invalid",
            detail,
        )
    }

    pub(crate) fn manifest_too_long() -> Self {
        let text = "manifest is longer than 4 MiB";
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "MANIFEST_INVALID",
            text,
            Value::Null,
        )
    }

    pub(crate) fn manifest_blob_unknown(digest: &str) -> Self {
        let detail = json!({ "digest": digest });
        let text = "blob unknown to registry";
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", text, detail)
    }

    pub(crate) fn blob_unknown(digest: &str) -> Self {
        let text = "blob unknown to registry";
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UNKNOWN",
            text,
            json!({ "digest": digest }),
        )
    }

    pub(crate) fn upload_unknown() -> Self {
        let text = "blob upload unknown to registry";
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", text, Value::Null)
    }

    pub(crate) fn upload_invalid(detail: impl std::fmt::Display) -> Self {
        let (text, detail) = ("blob upload invalid", json!(detail.to_string()));
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", text, detail)
    }

    pub(crate) fn range_invalid(have: u64) -> Self {
        let text = "invalid content range";
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "RANGE_INVALID",
            text,
            json!({ "offset": have }),
        )
    }

    pub(crate) fn page_size(n: &str) -> Self {
        let (text, detail) = ("invalid number of results requested", json!({ "n": n }));
        Self::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", text, detail)
    }

    pub(crate) fn unsupported() -> Self {
        let text = "The operation is unsupported.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", text, Value::Null)
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "UNSUPPORTED",
            "there is no such endpoint",
            Value::Null,
        )
    }

    /// The whole answer.
    pub(crate) fn response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if !self.detail.is_null() {
            error["detail"] = self.detail;
        }
        reply(
            self.status,
            "application/json",
            json!({ "errors": [error] }).to_string(),
        )
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        match e.kind {
            ErrorKind::Invalid => Self::manifest_invalid(e),
            _ => {
                tracing::warn!("registry: {e}");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "UNKNOWN",
                    e.to_string(),
                    Value::Null,
                )
            }
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(e: std::io::Error) -> Self {
        Self::from(Error::from(e))
    }
}
