//! The error that crosses crate borders: a kind that each dialect maps to its own status and code, and a
//! message written for the user.

use std::fmt;

/// What went wrong, in terms that every dialect can map to its own codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is malformed or a field has a value that is not allowed.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// A thing of that name exists already.
    AlreadyExists,
    /// The state of the thing does not allow the operation (in use, running, paused …).
    Conflict,
    /// The caller's view is stale: the object changed since it was read.
    OutOfSequence,
    /// Nothing had to be done (Docker's 304).
    NotModified,
    /// The caller is not who it must be.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// The service cannot answer now; trying again may help (no quorum, no manager, locked).
    Unavailable,
    /// A feature that Tripod does not implement.
    NotImplemented,
    /// What was asked for is no longer kept (a watch from too old a revision).
    Gone,
    /// A deadline passed.
    Timeout,
    /// A fault of Tripod or of the machine.
    Internal,
}

/// An error with a kind, a message for the user and, where there is one, the path of the field at fault.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Error {
    /// The class of the failure.
    pub kind: ErrorKind,
    /// The text that the user sees.
    pub message: String,
    /// Path of the field at fault, such as `HostConfig.Memory`.
    pub field: Option<String>,
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        $($(#[$doc])* pub fn $name(message: impl fmt::Display) -> Self { Self::new(ErrorKind::$kind, message) })*
    };
}

impl Error {
    /// An error of `kind` with a message.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            field: None,
        }
    }

    constructors! {
        /// [`ErrorKind::Invalid`]
        invalid => Invalid;
        /// [`ErrorKind::NotFound`]
        not_found => NotFound;
        /// [`ErrorKind::AlreadyExists`]
        already_exists => AlreadyExists;
        /// [`ErrorKind::Conflict`]
        conflict => Conflict;
        /// [`ErrorKind::OutOfSequence`]
        out_of_sequence => OutOfSequence;
        /// [`ErrorKind::NotModified`]
        not_modified => NotModified;
        /// [`ErrorKind::Unauthorized`]
        unauthorized => Unauthorized;
        /// [`ErrorKind::Forbidden`]
        forbidden => Forbidden;
        /// [`ErrorKind::Unavailable`]
        unavailable => Unavailable;
        /// [`ErrorKind::NotImplemented`]
        not_implemented => NotImplemented;
        /// [`ErrorKind::Gone`]
        gone => Gone;
        /// [`ErrorKind::Timeout`]
        timeout => Timeout;
        /// [`ErrorKind::Internal`]
        internal => Internal;
    }

    /// The same error, naming the field at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same error with `context: ` put before its message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Self::internal(e)
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Self::invalid(e)
    }
}
