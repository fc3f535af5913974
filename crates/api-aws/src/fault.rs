//! Errors as the services tell them, in each protocol.

use serde_json::{Map, Value, json};
use tripod_model::{Error, ErrorKind};

use crate::service::{Protocol, Service};
use crate::xml;

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    /// Exception, or code on the wire.
    pub(crate) code: String,
    pub(crate) message: String,
    /// HTTP status where the exception is not a declared one.
    pub(crate) status: u16,
    /// Further members.
    pub(crate) members: Map<String, Value>,
}

/// What handlers return.
pub(crate) type Reply = Result<Value, Fault>;

impl Fault {
    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            status: 400,
            members: Map::new(),
        }
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// ECS: the caller is at fault.
    pub(crate) fn client(message: impl Into<String>) -> Self {
        Self::new("ClientException", message)
    }

    /// ECS and others: a parameter is at fault.
    pub(crate) fn parameter(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterException", message)
    }

    /// An operation that is not there.
    pub(crate) fn unsupported(what: &str) -> Self {
        let code = "UnsupportedOperation";
        Self::new(code, format!("{what} is not implemented by this endpoint."))
    }

    /// The body and its content type, and the HTTP status.
    pub(crate) fn render(&self, protocol: Protocol, service: Option<&Service>, id: &str) -> (u16, String) {
        let declared = service.and_then(|s| s.error(&self.code));
        let status = declared.map_or(self.status, |(_, status)| *status);
        let code = declared.map_or(self.code.as_str(), |(code, _)| code);
        let text = |s: &str| xml::escape(s);
        let body = match protocol {
            Protocol::Json => {
                let mut body = json!({ "__type": self.code, "message": self.message });
                if let Some(body) = body.as_object_mut() {
                    body.extend(self.members.clone());
                }
                body.to_string()
            }
            Protocol::Query => format!(
                "<ErrorResponse xmlns=\"{}\"><Error><Type>{}</Type><Code>{}</Code><Message>{}</Message></Error>\
                 <RequestId>{id}</RequestId></ErrorResponse>",
                service.map_or("", |s| &s.namespace),
                if status < 500 { "Sender" } else { "Receiver" },
                text(code),
                text(&self.message)
            ),
            Protocol::Ec2 => format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{}</Code>\
                 <Message>{}</Message></Error></Errors><RequestID>{id}</RequestID></Response>",
                text(code),
                text(&self.message)
            ),
        };
        (status, body)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        match e.kind {
            ErrorKind::Invalid => Self::new("InvalidParameterException", e.message),
            ErrorKind::Unavailable | ErrorKind::Timeout => {
                Self::new("ServiceUnavailable", e.message).status(503)
            }
            ErrorKind::OutOfSequence | ErrorKind::Conflict | ErrorKind::AlreadyExists => {
                Self::new("ConflictException", e.message).status(409)
            }
            ErrorKind::Forbidden => Self::new("AccessDeniedException", e.message),
            ErrorKind::NotImplemented => Self::new("UnsupportedOperation", e.message),
            _ => Self::new("ServerException", e.message).status(500),
        }
    }
}
