//! Errors as minikube tells them: a reason's name, a text, an exit status.

use std::process::ExitCode;

use tripod_model::Error;

/// Why a command fails.
#[derive(Debug)]
pub(crate) struct Failure {
    reason: &'static str,
    code: u8,
    text: String,
}

impl Failure {
    /// A failure with minikube's name and exit status for it.
    pub(super) fn new(reason: &'static str, code: u8, text: impl std::fmt::Display) -> Self {
        Self {
            reason,
            code,
            text: text.to_string(),
        }
    }

    /// There is no cluster of that name.
    pub(super) fn no_profile(profile: &str) -> Self {
        let text = format!(
            "🤷  Profile \"{profile}\" not found. Run \"minikube profile list\" to view all profiles.\n\
             👉  To start a cluster, run: \"minikube start{}\"",
            option(profile)
        );
        Self::new("", 85, text)
    }

    /// The cluster does not run.
    pub(super) fn stopped(profile: &str) -> Self {
        let text = format!(
            "🤷  The control-plane node {profile} host is not running: state=Stopped\n\
             👉  To start a cluster, run: \"minikube start{}\"",
            option(profile)
        );
        Self::new("", 83, text)
    }

    /// Prints it; the exit status.
    pub(super) fn tell(&self) -> ExitCode {
        match self.reason {
            "" => println!("{}", self.text),
            reason => eprintln!("\n❌  Exiting due to {reason}: {}", self.text),
        }
        ExitCode::from(self.code)
    }
}

/// The option that names a cluster, where it must be named.
pub(super) fn option(profile: &str) -> String {
    match profile {
        "minikube" => String::new(),
        other => format!(" -p {other}"),
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::new("GUEST_ERROR", 80, e)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::new("HOST_ERROR", 30, e)
    }
}
